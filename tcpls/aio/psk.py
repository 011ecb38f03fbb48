"""Keys that both ends were given beforehand."""

from __future__ import annotations

from dataclasses import dataclass, field

from tcpls.errors import ConfigurationError
from tcpls.tls.engine import CryptoEngine
from tcpls.tls.psk import SUITE_OF_HASH, PreSharedKey, import_psk

LEAST_KEY = 16
"""Bytes (RFC 9257 section 6: at least 128 bits)."""


@dataclass(frozen=True, slots=True)
class ExternalPsk:
    """A key of one client and one server, which never change roles with it (RFC 9257 section 4.1), and its identity.

    `hash_name` is the hash that it goes with, sha256 unless both ends know better (RFC 8446 4.2.11). `imported`: it
    is not used itself, but keys that are made of it for TLS 1.3, one for each hash (RFC 9258); then `context` may say
    what else both ends know, for example who they are.
    """

    identity: bytes
    key: bytes = field(repr=False)
    imported: bool = False
    hash_name: str = "sha256"
    context: bytes = b""

    def __post_init__(self) -> None:
        if len(self.key) < LEAST_KEY:
            raise ConfigurationError(f"the pre-shared key {self.name!r} has less than {LEAST_KEY} bytes")
        if self.hash_name not in SUITE_OF_HASH:
            raise ConfigurationError(f"{self.hash_name!r} is no hash of a pre-shared key: {', '.join(SUITE_OF_HASH)}")
        if self.context and not self.imported:
            raise ConfigurationError("the context of a pre-shared key is for one that is imported")
        # RFC 8446 4.2.11 and RFC 9258 section 5.1: an imported identity stands inside of another.
        room = 0xFFFF - len(self.context) - 8 if self.imported else 0xFFFF
        if not 1 <= len(self.identity) <= room:
            raise ConfigurationError("the identity of a pre-shared key is empty or too long")

    @property
    def name(self) -> str:
        """The identity for people."""
        return self.identity.decode("utf-8", "backslashreplace")

    def is_known_as(self, identity: bytes) -> bool:
        """Whether `identity` is how TLS names this key, or one that was made of it."""
        if not self.imported:
            return identity == self.identity
        # RFC 9258 section 5.1: behind the two there are the protocol and the KDF that it is for, two bytes each.
        parts = (len(part).to_bytes(2, "big") + part for part in (self.identity, self.context))
        return identity[:-4] == b"".join(parts)

    def keys(self, engine: CryptoEngine) -> tuple[PreSharedKey, ...]:
        """What TLS uses."""
        if self.imported:
            return import_psk(engine, self.identity, self.key, self.context, self.hash_name)
        return (PreSharedKey(self.identity, self.key, suite=SUITE_OF_HASH[self.hash_name]),)
