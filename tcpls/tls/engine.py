"""What the TLS engine has computed for it: AEAD, hash, HMAC, key exchange, signatures and path validation.

Everything here is a protocol. `engines` has the libraries that implement them; none is imported here, so that a
process has only the one that it uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from tcpls.tls.algorithms import Group, SignatureScheme
from tcpls.tls.suites import Aead, Random, TrafficKeys
from tcpls.wire import Buffer

Hmac = Callable[[bytes, bytes], bytes]
"""The authentication code (RFC 2104) under a key, which comes first, of data."""


class HashState(Protocol):
    """A running hash."""

    def update(self, data: Buffer, /) -> None: ...

    def copy(self) -> HashState: ...

    def digest(self) -> bytes: ...


class PrivateShare(Protocol):
    """The private half of an ephemeral key share, of a client."""

    @property
    def group(self) -> Group: ...

    @property
    def public(self) -> bytes:
        """`KeyShareEntry.key_exchange` (RFC 8446 4.2.8)."""

    def exchange(self, peer: bytes) -> bytes:
        """The shared secret with the server's `key_exchange`. Raises `HandshakeError(BAD_KEY_SHARE)`."""


class Signer(Protocol):
    """The private key of a certificate."""

    @property
    def schemes(self) -> tuple[SignatureScheme, ...]:
        """The schemes that this key can sign with, the preferred one first."""

    @property
    def public_key_info(self) -> bytes:
        """The public half as SubjectPublicKeyInfo in DER."""

    def sign(self, scheme: SignatureScheme, data: bytes) -> bytes: ...


class PublicKey(Protocol):
    """The public key of a peer's certificate."""

    @property
    def schemes(self) -> tuple[SignatureScheme, ...]: ...

    def verify(self, scheme: SignatureScheme, signature: bytes, data: bytes) -> None:
        """Raises `HandshakeError(BAD_SIGNATURE)`. `scheme` is one of `schemes`."""


class Trust(Protocol):
    """The authorities that a peer's certificate must lead to."""

    @property
    def subjects(self) -> tuple[bytes, ...]:
        """Their names in DER."""

    def validate(self, chain: Sequence[bytes], name: str | None, time: datetime) -> None:
        """Validates the DER `chain`, its end first, for the host name or IP address of a server.

        None: for a client, whose name nobody has asked for. Raises `CertificateError`.
        """

    def check_status(self, response: bytes, chain: Sequence[bytes], time: datetime) -> bool:
        """Judges the OCSP response for a chain that is validated. Raises `CertificateError`.

        False: nothing was judged, because the library has no means to.
        """


class CryptoEngine(Protocol):
    """The algorithms of one cryptographic library. Hash names are ``sha256`` and ``sha384``."""

    def __hash__(self) -> int:
        """Constants that are computed with an engine are kept by it."""

    @property
    def invalid_tag(self) -> type[Exception]:
        """The exception by which this engine's AEADs say that something is not genuine."""

    def aead(self, keys: TrafficKeys) -> Aead:
        """The AEAD of `keys.suite` under `keys.key`. It raises `invalid_tag` for what is not genuine."""

    def hash(self, name: str) -> HashState: ...

    @property
    def hmacs(self) -> Mapping[str, Hmac]:
        """By the names of their hashes."""

    @property
    def name(self) -> str:
        """What the user calls it."""

    @property
    def groups(self) -> frozenset[Group]:
        """The key exchange groups that this library has."""

    def private_share(self, group: Group, random: Random) -> PrivateShare:
        """A client's new ephemeral key, made from `random` alone."""

    def answer_share(self, group: Group, peer: bytes, random: Random) -> tuple[bytes, bytes]:
        """A server's `key_exchange` and the shared secret, for a client's. Raises `HandshakeError(BAD_KEY_SHARE)`.

        What an encapsulation draws may come from the library's own generator.
        """

    def static_share(self, group: Group, private: bytes) -> PrivateShare:
        """The share of a private key that is kept: 32 bytes, of X25519 or P-256 (RFC 9180 7.1.2).

        Raises `ConfigurationError` for what is no private key.
        """

    def raw_public_key(self, info: bytes) -> PublicKey:
        """The key of a SubjectPublicKeyInfo (RFC 7250). Raises what `public_key` raises."""

    def public_key(self, certificate: bytes) -> PublicKey:
        """The key of a DER certificate. Raises `CertificateError` (BAD_CERTIFICATE, UNSUPPORTED_CERTIFICATE)."""


def default_engine() -> CryptoEngine:
    """The engine of a configuration that names none: OpenSSL's, imported when it is first needed."""
    from tcpls.tls.engines.openssl import OPENSSL

    return OPENSSL
