"""From the runner's flags to configurations of the TLS engine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from tcpls.errors import CertificateError, ConfigurationError, Reason
from tcpls.tls.algorithms import DEFAULT_SCHEMES, Group, SignatureScheme
from tcpls.tls.config import Answer, ClientConfig, Identity, ServerConfig
from tcpls.tls.engine import Signer, Trust
from tcpls.tls.engines import library
from tcpls.tls.messages import ClientHello
from tcpls.tls.psk import PreSharedKey, import_psk
from tcpls.tls.tickets import Ticket
from tests.interop.bogo.flags import Credential, Settings, Unimplemented

LIBRARY = library(os.environ.get("TCPLS_TEST_ENGINE", "openssl"))
ENGINE = LIBRARY.engine

ADDRESS = "127.0.0.1"
"""The name of a server that the runner gives none: an address is verified, and never sent."""

CERTIFIED_NAME = "test"
"""What the runner's certificates are for when it gives no name."""

TLS_1_3 = 0x0304


class Noted:
    """A private key that notes by whom it was used. With `prefs`, it signs in these ways only."""

    def __init__(self, signer: Signer, number: int, prefs: Sequence[int], used: list[int]) -> None:
        self._signer = signer
        self._number = number
        self._used = used
        wanted = [scheme for scheme in prefs if scheme in signer.schemes]
        if prefs and not wanted:
            raise Unimplemented(f"signatures with {', '.join(f'{each:#06x}' for each in prefs)}")
        self.schemes = tuple(SignatureScheme(scheme) for scheme in wanted) if prefs else signer.schemes

    def sign(self, scheme: SignatureScheme, data: bytes) -> bytes:
        self._used.append(self._number)
        return self._signer.sign(scheme, data)


@dataclass(frozen=True)
class Verdict:
    """A trust store that the runner's flags overrule."""

    trust: Trust | None
    good: bool

    @property
    def subjects(self) -> tuple[bytes, ...]:
        return () if self.trust is None else self.trust.subjects

    def validate(self, chain: Sequence[bytes], name: str | None, time: datetime) -> None:
        if self.trust is not None:
            self.trust.validate(chain, CERTIFIED_NAME if name == ADDRESS else name, time)
        if not self.good:
            raise CertificateError(Reason.BAD_CERTIFICATE, "the runner says so")


def verdict(settings: Settings) -> Verdict:
    trust = LIBRARY.load_trust(settings.trust_cert) if settings.trust_cert else None
    return Verdict(trust, not settings.verify_fail)


def read_names(advertised: str) -> tuple[bytes, ...]:
    """Names with a byte of length in front of each, as ALPN has them."""
    data, names = os.fsencode(advertised), []
    while data:
        names.append(data[1 : 1 + data[0]])
        data = data[1 + data[0] :]
    return tuple(names)


def identities(settings: Settings, used: list[int]) -> tuple[Identity, ...]:
    """The chains that the flags name. `used` gets the number of the one that signs; the default's is -1."""
    numbered = [*enumerate(settings.credentials), (-1, settings.default)]
    return tuple(
        _identity(credential, number, used)
        for number, credential in numbered
        if credential.cert_file or credential.key_file
    )


def _identity(credential: Credential, number: int, used: list[int]) -> Identity:
    try:
        identity = LIBRARY.load_identity(credential.cert_file, credential.key_file)
    except ConfigurationError as error:
        raise Unimplemented(str(error)) from None
    return replace(identity, signer=Noted(identity.signer, number, credential.signing_prefs, used))


def imported_keys(credential: Credential) -> tuple[PreSharedKey, ...]:
    """What RFC 9258 makes of a credential's key, if it has one."""
    if not credential.psk_importer_key:
        return ()
    name = "sha384" if credential.psk_importer_sha384 else "sha256"
    key, context = credential.psk_importer_key, credential.psk_importer_context
    return import_psk(ENGINE, credential.psk_importer_identity, key, context, name)


def groups(settings: Settings, default: tuple[Group, ...]) -> tuple[Group, ...]:
    if not settings.curves:
        return default
    try:
        return tuple(Group(code) for code in settings.curves)
    except ValueError as error:
        raise Unimplemented(f"a group: {error}") from None


def check_versions(settings: Settings) -> None:
    if 0 < settings.max_version < TLS_1_3 or settings.expect_version not in (0, TLS_1_3):
        raise Unimplemented("versions before TLS 1.3")


def _schemes(settings: Settings) -> tuple[SignatureScheme, ...]:
    if not settings.verify_prefs:
        return DEFAULT_SCHEMES
    try:
        return tuple(SignatureScheme(code) for code in settings.verify_prefs)
    except ValueError as error:
        raise Unimplemented(f"a signature scheme: {error}") from None


def _shares(settings: Settings, config: ClientConfig) -> int | None:
    """How many shares a client makes; the engine chooses them from the front of its groups."""
    if settings.no_key_shares:
        return 0
    if not settings.key_shares:
        return None
    count = len(settings.key_shares)
    if [int(group) for group in config.groups[:count]] != settings.key_shares:
        raise Unimplemented("key shares that are not for the first groups")
    return count


def client_config(settings: Settings, ticket: Ticket | None) -> ClientConfig:
    check_versions(settings)
    if settings.default.cert_file or any(each.cert_file for each in settings.credentials):
        raise Unimplemented("client certificates")
    config = ClientConfig(
        settings.host_name or ADDRESS,
        verdict(settings),
        schemes=_schemes(settings),
        alpn=read_names(settings.advertise_alpn),
        engine=ENGINE,
        psks=sum(map(imported_keys, settings.credentials), ()),
        ticket=ticket,
        tickets=0 if settings.no_ticket else 1,
    )
    config = replace(config, groups=groups(settings, config.groups))
    return replace(config, shares=_shares(settings, config))


def server_config(settings: Settings, used: list[int]) -> ServerConfig:
    check_versions(settings)
    if settings.verify_peer or settings.require_any_client_certificate:
        raise Unimplemented("client certificates")

    def answer(hello: ClientHello) -> Answer:
        check_hello(settings, hello)
        return Answer()

    alpn: tuple[bytes, ...] = (os.fsencode(settings.select_alpn),) if settings.select_alpn else ()
    if settings.decline_alpn:
        alpn = ()
    elif settings.reject_alpn:
        # A server with names of its own refuses a client that has none of them.
        alpn = (b"a name that no test offers",)
    config = ServerConfig(
        identities(settings, used),
        answer=answer,
        alpn=alpn,
        engine=ENGINE,
        psks=sum(map(imported_keys, settings.credentials), ()),
    )
    return replace(config, groups=groups(settings, config.groups))


class ExpectationFailed(Exception):
    """The handshake did not come out as the runner's flags say."""


def check_hello(settings: Settings, hello: ClientHello) -> None:
    """What the flags say of the ClientHello."""
    if settings.expect_no_server_name and hello.server_name is not None:
        raise ExpectationFailed(f"the client sent the server name {hello.server_name}")
    if settings.expect_advertised_alpn and hello.alpn != read_names(settings.expect_advertised_alpn):
        raise ExpectationFailed(f"the client advertised {hello.alpn}")
