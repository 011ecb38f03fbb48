"""The runner's flags: a table of those that the shim knows, and what they say for each connection.

A flag is the name of a field with dashes; the field's type says what follows it. Flags that are in no table make the
shim exit with `UNIMPLEMENTED`.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

UNIMPLEMENTED = 89
"""The exit code by which the runner knows that a test asks for what this end does not have."""


class Unimplemented(Exception):
    """The runner asks for something that the engine does not have; the message says what."""


@dataclass
class Credential:
    """What one end may authenticate itself with: a chain and its key, or an external pre-shared key to import."""

    raw: bool = False
    """Whether the key is shown without a chain (RFC 7250)."""
    cert_file: str = ""
    key_file: str = ""
    signing_prefs: list[int] = field(default_factory=list)
    psk_importer_key: bytes = b""
    psk_importer_identity: bytes = b""
    psk_importer_context: bytes = b""
    psk_importer_sha256: bool = False
    psk_importer_sha384: bool = False


@dataclass
class Settings:
    """What the flags say for one connection."""

    # The connection.
    port: int = 0
    shim_id: int = 0
    ipv6: bool = False
    server: bool = False
    resume_count: int = 0
    resumption_delay: int = 0
    # What is offered and accepted.
    min_version: int = 0
    max_version: int = 0
    curves: list[int] = field(default_factory=list)
    key_shares: list[int] = field(default_factory=list)
    no_key_shares: bool = False
    verify_prefs: list[int] = field(default_factory=list)
    advertise_alpn: str = ""
    select_alpn: str = ""
    decline_alpn: bool = False
    reject_alpn: bool = False
    host_name: str = ""
    no_ticket: bool = False
    skip_ticket: bool = False
    enable_early_data: bool = False
    enable_ech_grease: bool = False
    reject_unusable_ech_config: bool = False
    ech_config_list: bytes = b""
    ech_server_config: list[bytes] = field(default_factory=list)
    ech_server_key: list[bytes] = field(default_factory=list)
    ech_is_retry_config: list[int] = field(default_factory=list)
    # Certificates.
    trust_cert: str = ""
    verify_fail: bool = False
    use_custom_verify_callback: bool = False
    verify_peer: bool = False
    reverify_on_resume: bool = False
    expect_verify_result: bool = False
    use_client_ca_list: str = ""
    accepted_peer_cert_types: list[int] = field(default_factory=list)
    available_client_cert_types: list[int] = field(default_factory=list)
    require_any_client_certificate: bool = False
    # What is done with the connection.
    shim_writes_first: bool = False
    shim_initial_write: str = "hello"
    repeat_shim_initial_write: int = 1
    write_different_record_sizes: bool = False
    read_size: int = 512
    read_with_unfinished_write: bool = False
    shim_shuts_down: bool = False
    check_close_notify: bool = False
    send_alert: bool = False
    key_update: bool = False
    key_update_before_read: bool = False
    export_keying_material: int = 0
    export_label: str = ""
    export_context: str = ""
    use_export_context: bool = False
    use_exporter_between_reads: bool = False
    export_traffic_secrets: bool = False
    # What must come out.
    expect_version: int = 0
    expect_server_name: str = ""
    expect_no_server_name: bool = False
    expect_peer_cert_file: str = ""
    expect_no_peer_cert: bool = False
    expect_peer_certificate_type: int | None = None
    expect_peer_rpk_sha256: bytes = b""
    expect_alpn: str = ""
    expect_advertised_alpn: str = ""
    expect_curve_id: int = 0
    expect_cipher: int = 0
    expect_cipher_aes: int = 0
    expect_peer_signature_algorithm: int = 0
    expect_hrr: bool = False
    expect_no_hrr: bool = False
    expect_session_miss: bool = False
    expect_no_session: bool = False
    expect_ticket_renewal: bool = False
    expect_ticket_supports_early_data: bool = False
    expect_accept_early_data: bool = False
    expect_reject_early_data: bool = False
    expect_no_offer_early_data: bool = False
    expect_early_data_reason: str = ""
    expect_ech_accept: bool = False
    expect_ech_name_override: str = ""
    expect_no_ech_name_override: bool = False
    expect_ech_retry_configs: bytes = b""
    expect_no_ech_retry_configs: bool = False
    expect_selected_credential: int | None = None
    handshake_never_done: bool = False

    default: Credential = field(default_factory=Credential)
    """Of the flags that stand in front of the first new credential."""
    credentials: list[Credential] = field(default_factory=list)

    @property
    def initial_writes(self) -> list[bytes]:
        """What is written before anything is read. An unfinished write is one that is finished later."""
        writes = self.shim_writes_first or self.read_with_unfinished_write
        return [self.shim_initial_write.encode()] * self.repeat_shim_initial_write if writes else []

    @property
    def credential(self) -> Credential:
        """The one that the flags of credentials are about."""
        return self.credentials[-1] if self.credentials else self.default


@dataclass(frozen=True)
class Flag:
    """`take` puts what a flag says into the settings; the value is "" for flags that take none."""

    take: Callable[[Settings, str], None]
    has_value: bool


_READ: dict[str, Callable[[str], Any]] = {
    "int": lambda value: int(value, 0),
    "int | None": lambda value: int(value, 0),
    "str": str,
    "bytes": b64decode,
}


def _flag(of: Callable[[Settings], object], name: str, kind: str) -> Flag:
    """The flag of a field, which stands in what `of` picks of the settings."""
    if kind == "bool":
        return Flag(lambda settings, _: setattr(of(settings), name, True), False)
    if kind.startswith("list["):
        read = _READ[kind[len("list[") : -1]]
        return Flag(lambda settings, value: getattr(of(settings), name).append(read(value)), True)
    read = _READ[kind]
    return Flag(lambda settings, value: setattr(of(settings), name, read(value)), True)


def _flags_of(kind: type, of: Callable[[Settings], object]) -> dict[str, Flag]:
    return {
        "-" + each.name.replace("_", "-"): _flag(of, each.name, str(each.type))
        for each in fields(kind)
        if each.name not in ("default", "credentials", "raw")
    }


def _new_credential(settings: Settings, _: str) -> None:
    settings.credentials.append(Credential())


def _new_raw_credential(settings: Settings, _: str) -> None:
    settings.credentials.append(Credential(raw=True))


def _ignore(settings: Settings, _: str) -> None:
    """A flag that changes nothing here."""


FLAGS: dict[str, Flag] = {
    **_flags_of(Settings, lambda settings: settings),
    **_flags_of(Credential, lambda settings: settings.credential),
    "-new-x509-credential": Flag(_new_credential, False),
    "-new-psk-credential": Flag(_new_credential, False),
    "-new-rpk-credential": Flag(_new_raw_credential, False),
}

# How the runner's own library is called back, or waits: a sans-IO engine has one way for all of it.
for _name in (
    "-async", "-implicit-handshake", "-use-early-callback", "-use-ticket-callback", "-use-ticket-aead-callback",
    "-use-old-client-cert-callback", "-peek-then-read", "-partial-write",
    "-no-op-extra-handshake", "-handshake-twice", "-allow-hint-mismatch", "-install-ddos-callback",
):  # fmt: skip
    FLAGS[_name] = Flag(_ignore, False)
# Older versions, which this engine never speaks, and what they had.
for _name in (
    "-no-tls12", "-no-tls11", "-no-tls1", "-no-legacy-server-connect", "-renegotiate-freely", "-renegotiate-once",
    "-renegotiate-ignore", "-renegotiate-explicit", "-forbid-renegotiation-after-handshake", "-cbc-record-splitting",
    "-expect-no-session-id",
):  # fmt: skip
    FLAGS[_name] = Flag(_ignore, False)
# What this engine always does: a fresh ticket on each resumption, suites in the server's order, certificates for those
# who issued them.
for _name in ("-renew-ticket", "-server-preference", "-must-match-issuer"):
    FLAGS[_name] = Flag(_ignore, False)
# What is expected of other hardware.
FLAGS["-expect-cipher-no-aes"] = Flag(_ignore, True)


def parse(arguments: Sequence[str]) -> tuple[Settings, Settings, Settings]:
    """The settings of the first connection, of those that resume it, and of a retry after refused early data.

    Raises `Unimplemented`.
    """
    initial, resume, retry = Settings(), Settings(), Settings()
    scopes = {"-on-initial": (initial,), "-on-resume": (resume,), "-on-retry": (retry,)}
    waiting = list(reversed(arguments))
    while waiting:
        name = waiting.pop()
        skipped = name.startswith("-on-handshaker-")
        name = name.removeprefix("-on-shim").removeprefix("-on-handshaker")
        into: tuple[Settings, ...] = (initial, resume, retry)
        for prefix, scope in scopes.items():
            if name.startswith(prefix + "-"):
                name, into = name.removeprefix(prefix), scope
        flag = FLAGS.get(name)
        if flag is None:
            raise Unimplemented(f"the flag {name}")
        value = waiting.pop() if flag.has_value else ""
        for settings in () if skipped else into:
            flag.take(settings, value)
    return initial, resume, retry
