"""What the runner's flags say of certificates, private keys and external keys: who signs, and who is believed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from tcpls.errors import Alert, CertificateError, ConfigurationError, Reason
from tcpls.tls.algorithms import SignatureScheme
from tcpls.tls.config import Identity
from tcpls.tls.engine import Signer, Trust
from tcpls.tls.engines.libraries import library
from tcpls.tls.psk import PreSharedKey, import_psk
from tcpls.tls.x509.certificate import pem_blocks
from tests.interop.bogo.flags import Credential, Settings, Unimplemented

LIBRARY = library(os.environ.get("TCPLS_TEST_ENGINE", "openssl"))
ENGINE = LIBRARY.engine

ADDRESS = "127.0.0.1"
"""The name of a server that the runner gives none: an address is verified, and never sent."""

CERTIFIED_NAME = "test"
"""What the runner's certificates are for when it gives no name."""


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

    @property
    def public_key_info(self) -> bytes:
        return self._signer.public_key_info

    def sign(self, scheme: SignatureScheme, data: bytes) -> bytes:
        self._used.append(self._number)
        return self._signer.sign(scheme, data)


class Overruled(CertificateError):
    """The runner's flags say that a chain is not to be believed. By which alert the peer is told is the verifier's."""

    def __init__(self, alert: Alert) -> None:
        super().__init__(Reason.BAD_CERTIFICATE, "the runner says so")
        self._alert = alert

    @property
    def alert(self) -> Alert:
        return self._alert


@dataclass(frozen=True)
class Verdict:
    """A trust store that the runner's flags overrule. `fault` is the alert that ends every handshake.

    `pinned`: the chains that the flags name, which it believes.
    `asked`: the names that it was asked to validate a chain for.

    `told`: the authorities that clients are told of: some of their certificates come from elsewhere on purpose.
    """

    trust: Trust | None
    fault: Alert | None = None
    told: tuple[bytes, ...] = ()
    pinned: tuple[tuple[bytes, ...], ...] = ()
    asked: list[str] = field(default_factory=list)

    @property
    def subjects(self) -> tuple[bytes, ...]:
        return self.told

    def validate(self, chain: Sequence[bytes], name: str | None, time: datetime) -> None:
        if name is not None:
            self.asked.append(name)
        if self.trust is not None and tuple(chain) not in self.pinned:
            self.trust.validate(chain, CERTIFIED_NAME if name == ADDRESS else name, time)
        if self.fault is not None:
            raise Overruled(self.fault)

    def check_status(self, response: bytes, chain: Sequence[bytes], time: datetime) -> bool:
        return False


def verdict(settings: Settings, retry: Settings) -> Verdict:
    trust = LIBRARY.load_trust(settings.trust_cert) if settings.trust_cert else None
    expected = {each.expect_peer_cert_file for each in (settings, retry)} - {""}
    # A client that does not verify learns nothing of what its verifier says.
    fails = settings.verify_fail and (settings.server or settings.verify_peer)
    if settings.expect_verify_result and settings.verify_fail and not fails:
        raise Unimplemented("a verdict that ends nothing")
    fault = Alert.CERTIFICATE_UNKNOWN if settings.use_custom_verify_callback else Alert.HANDSHAKE_FAILURE
    return Verdict(trust, fault if fails else None, _authorities(settings), tuple(chain_of(path) for path in expected))


def _authorities(settings: Settings) -> tuple[bytes, ...]:
    """Names in DER and hexadecimal, with commas between them."""
    names = settings.use_client_ca_list
    return () if names in ("", "<NULL>", "<EMPTY>") else tuple(bytes.fromhex(name) for name in names.split(","))


def chain_of(path: str) -> tuple[bytes, ...]:
    """The certificates of a PEM file."""
    return tuple(pem_blocks(Path(path).read_bytes(), b"CERTIFICATE"))


X509, RAW_PUBLIC_KEY = 0, 2
"""Types of certificates (RFC 7250)."""


class KeysByDigest(tuple[bytes, ...]):
    """The digests of the raw keys that a peer may show, in place of the keys: the runner does not tell these."""

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and super().__contains__(sha256(key).digest())


def accepted(settings: Settings) -> tuple[bool, KeysByDigest]:
    """Whether the peer may show certificates, and which keys without one."""
    types = settings.accepted_peer_cert_types or [X509]
    if types == [X509, RAW_PUBLIC_KEY]:
        raise Unimplemented("certificates in preference to keys without one")
    return X509 in types, KeysByDigest([settings.expect_peer_rpk_sha256] if RAW_PUBLIC_KEY in types else [])


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
        if credential.raw:
            identity = LIBRARY.load_raw_identity(credential.key_file)
        else:
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
