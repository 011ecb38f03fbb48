"""Pre-shared keys (RFC 8446 sections 4.2.9 and 4.2.11, RFC 9258): what they are, their extensions, their binders."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from tcpls.errors import ConfigurationError, HandshakeError, Reason
from tcpls.tls.engine import CryptoEngine
from tcpls.tls.key_schedule import BinderKind, EarlySecrets, expand_label
from tcpls.tls.suites import CipherSuite
from tcpls.tls.transcript import Transcript
from tcpls.wire import Buffer, Reader, Writer

SUITE_OF_HASH = {"sha256": CipherSuite.AES_128_GCM_SHA256, "sha384": CipherSuite.AES_256_GCM_SHA384}
"""A suite that stands for its hash, where nothing else of it matters."""

MAX_IDENTITIES = 32
"""Identities of one ClientHello that are looked at; those behind them are ignored. Each can cost a decryption."""


class PskMode(enum.IntEnum):
    """How a pre-shared key is used (RFC 8446 4.2.9)."""

    PSK_KE = 0
    PSK_DHE_KE = 1


@dataclass(frozen=True, slots=True)
class PreSharedKey:
    """A key and the identity that it is known by. Of `suite`, only the hash is bound to it (RFC 8446 4.2.11)."""

    identity: bytes
    key: bytes = field(repr=False)
    kind: BinderKind = BinderKind.EXTERNAL
    suite: CipherSuite = CipherSuite.AES_128_GCM_SHA256

    def __post_init__(self) -> None:
        if not 1 <= len(self.identity) <= 0xFFFF:
            raise ConfigurationError("the identity of a pre-shared key has not 1 to 65535 bytes")
        if not self.key:
            raise ConfigurationError("a pre-shared key is empty")

    def fits(self, suite: CipherSuite) -> bool:
        return suite.hash_name == self.suite.hash_name

    def mark(self, engine: CryptoEngine) -> bytes:
        """What tells it from another key of the same identity. For a ticket that nobody else can read."""
        return engine.hmacs["sha256"](self.key, b"tcpls ticket")

    def early_secrets(self, engine: CryptoEngine) -> EarlySecrets:
        return EarlySecrets.derive(engine, self.suite, self.key)


# RFC 9258 section 10: the KDF identifiers.
_TARGET_KDFS = {"sha256": 1, "sha384": 2}
_TARGET_TLS_1_3 = 0x0304


def import_psk(
    engine: CryptoEngine, identity: bytes, key: bytes, context: bytes = b"", hash_name: str = "sha256"
) -> tuple[PreSharedKey, ...]:
    """The keys that TLS 1.3 uses in place of an external one: one per hash (RFC 9258). `hash_name` is the latter's."""
    suite = SUITE_OF_HASH[hash_name]
    extracted = engine.hmacs[hash_name](bytes(suite.hash_size), key)
    imported = []
    for target_name, target in SUITE_OF_HASH.items():
        writer = Writer()
        writer.opaque(2, identity)
        writer.opaque(2, context)
        writer.u16(_TARGET_TLS_1_3)
        writer.u16(_TARGET_KDFS[target_name])
        digest = engine.hash(hash_name)
        digest.update(writer.bytes())
        made = expand_label(engine, suite, extracted, b"derived psk", digest.digest(), target.hash_size)
        imported.append(PreSharedKey(writer.bytes(), made, BinderKind.IMPORTED, target))
    return tuple(imported)


# pre_shared_key


@dataclass(frozen=True, slots=True)
class OfferedPsks:
    """The extension of a ClientHello: identities with their obfuscated ticket ages, and a binder for each."""

    identities: tuple[tuple[bytes, int], ...]
    binders: tuple[bytes, ...]

    @classmethod
    def read(cls, contents: Buffer) -> OfferedPsks:
        reader = Reader(contents)
        identities, binders = reader.vector(2, least=7), reader.vector(2, least=33)
        reader.end()
        found, bound = [], []
        while identities.remaining:
            found.append((identities.opaque(2, least=1), identities.u32()))
        while binders.remaining:
            bound.append(binders.opaque(1, least=32))
        # RFC 8446 4.2.11: a binder for each identity, in the same order.
        if len(found) != len(bound):
            raise HandshakeError(Reason.BAD_VALUE, f"{len(bound)} binders for {len(found)} identities")
        return cls(tuple(found), tuple(bound))

    def write(self) -> bytes:
        writer = Writer()
        with writer.vector(2):
            for identity, age in self.identities:
                writer.opaque(2, identity)
                writer.u32(age)
        writer.put(write_binders(self.binders))
        return writer.bytes()

    @property
    def binders_size(self) -> int:
        """Bytes at the end of the ClientHello that the binders do not cover (RFC 8446 4.2.11.2)."""
        return 2 + sum(1 + len(binder) for binder in self.binders)


def write_binders(binders: Sequence[bytes]) -> bytes:
    writer = Writer()
    with writer.vector(2):
        for binder in binders:
            writer.opaque(1, binder)
    return writer.bytes()


def unbound(keys: Sequence[PreSharedKey], ages: Sequence[int]) -> OfferedPsks:
    """The offer with binders of zeros, which hold the place of the real ones."""
    identities = zip((key.identity for key in keys), ages, strict=True)
    return OfferedPsks(tuple(identities), tuple(bytes(key.suite.hash_size) for key in keys))


def bind(engine: CryptoEngine, transcript: Transcript, hello: bytes, keys: Sequence[PreSharedKey]) -> bytes:
    """The ClientHello, whose last bytes are binders of zeros, with real ones in their place."""
    size = 2 + sum(1 + key.suite.hash_size for key in keys)
    truncated = hello[:-size]
    return truncated + write_binders([binder_of(engine, transcript, truncated, key) for key in keys])


def binder_of(engine: CryptoEngine, transcript: Transcript, truncated: bytes, key: PreSharedKey) -> bytes:
    """The binder for a ClientHello without its binders, behind what the transcript has."""
    return key.early_secrets(engine).binder(key.kind, transcript.digest_with(key.suite, truncated))


# psk_key_exchange_modes


def write_psk_modes(modes: Sequence[PskMode]) -> bytes:
    return bytes((len(modes), *modes))


# ticket_request (RFC 9149)


def read_ticket_request(contents: Buffer) -> tuple[int, int]:
    """How many tickets a client wants after a full handshake, and after a resumption."""
    reader = Reader(contents)
    new, resumed = reader.u8(), reader.u8()
    reader.end()
    return new, resumed


def write_ticket_request(new: int, resumed: int) -> bytes:
    return bytes((new, resumed))


def read_expected_tickets(contents: Buffer) -> int:
    """The server's answer: how many tickets it is going to send."""
    reader = Reader(contents)
    count = reader.u8()
    reader.end()
    return count
