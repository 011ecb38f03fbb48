"""Session tickets (RFC 8446 section 4.6.1): what a client keeps, and what a server seals into them."""

from __future__ import annotations

from dataclasses import dataclass, field

from tcpls.errors import ConfigurationError, PeerError, Reason
from tcpls.tls.engine import CryptoEngine
from tcpls.tls.key_schedule import BinderKind
from tcpls.tls.psk import PreSharedKey
from tcpls.tls.suites import IV_SIZE, SUITE_BY_CODE, TAG_SIZE, Aead, CipherSuite, Random, TrafficKeys
from tcpls.wire import Buffer, Reader, Writer

MAX_LIFETIME = 7 * 24 * 3600
"""Seconds (RFC 8446 4.6.1)."""
DEFAULT_LIFETIME = 24 * 3600
DEFAULT_TICKETS = 2
MAX_TICKETS = 8
"""Tickets that a client may ask for by ticket_request; RFC 9149 section 3 lets servers send fewer."""
MAX_REMEMBERED = 1024
"""Bytes of the application's own in one ticket."""

_FORM = 1


def _read_optional(reader: Reader) -> bytes | None:
    return reader.opaque(1) or None


def _read_suite(reader: Reader) -> CipherSuite:
    suite = SUITE_BY_CODE.get(reader.u16())
    if suite is None:
        raise PeerError(Reason.BAD_VALUE, "cipher suite")
    return suite


def _read_form(reader: Reader) -> None:
    if reader.u8() != _FORM:
        raise PeerError(Reason.BAD_VALUE, "form of a ticket")


def _ascii(name: bytes | None) -> str | None:
    try:
        return None if name is None else name.decode("ascii")
    except UnicodeDecodeError:
        raise PeerError(Reason.BAD_VALUE, "server name") from None


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a client resumes a session with, once. `received` is in seconds since 1970, `lifetime` in seconds.

    `verified` says that the server's certificate was verified when the session began. `remembered` is the
    application's own, for example what the server announced.
    """

    identity: bytes = field(repr=False)
    key: bytes = field(repr=False)
    suite: CipherSuite
    age_add: int = field(repr=False)
    received: float
    lifetime: int
    server_name: str | None
    alpn: bytes | None
    verified: bool
    max_early_data: int = 0
    remembered: bytes = field(default=b"", repr=False)

    @property
    def psk(self) -> PreSharedKey:
        return PreSharedKey(self.identity, self.key, BinderKind.RESUMPTION, self.suite)

    def alive(self, now: float) -> bool:
        """Whether it may still be used; a clock that was set back ends it as well."""
        return 0 <= now - self.received < min(self.lifetime, MAX_LIFETIME)

    def obfuscated_age(self, now: float) -> int:
        """RFC 8446 4.2.11.1, in milliseconds."""
        return (int((now - self.received) * 1000) + self.age_add) & 0xFFFFFFFF

    def write(self) -> bytes:
        writer = Writer()
        writer.u8(_FORM)
        writer.u16(self.suite.code)
        writer.u64(int(self.received * 1000))
        writer.u32(self.lifetime)
        writer.u32(self.age_add)
        writer.u32(self.max_early_data)
        writer.u8(self.verified)
        writer.opaque(1, self.key)
        writer.opaque(1, (self.server_name or "").encode("ascii"))
        writer.opaque(1, self.alpn or b"")
        writer.opaque(2, self.remembered)
        writer.opaque(2, self.identity)
        return writer.bytes()

    @classmethod
    def read(cls, data: Buffer) -> Ticket:
        """Raises `PeerError` for what `write` has not written."""
        reader = Reader(data)
        _read_form(reader)
        suite = _read_suite(reader)
        received = reader.u64() / 1000
        lifetime, age_add, max_early_data = reader.u32(), reader.u32(), reader.u32()
        verified = reader.u8()
        if verified > 1:
            raise PeerError(Reason.BAD_VALUE, "verified")
        key = reader.opaque(1, least=suite.hash_size, most=suite.hash_size)
        server_name, alpn = _ascii(_read_optional(reader)), _read_optional(reader)
        remembered, identity = reader.opaque(2), reader.opaque(2, least=1)
        reader.end()
        return cls(
            identity,
            key,
            suite,
            age_add,
            received,
            lifetime,
            server_name,
            alpn,
            bool(verified),
            max_early_data,
            remembered,
        )


@dataclass(frozen=True, slots=True)
class TicketState:
    """What a server seals into a ticket. `issued` is in milliseconds since 1970, `lifetime` in seconds."""

    key: bytes = field(repr=False)
    suite: CipherSuite
    issued: int
    lifetime: int
    age_add: int = field(repr=False)
    server_name: str | None
    alpn: bytes | None
    max_early_data: int = 0
    remembered: bytes = field(default=b"", repr=False)
    peer_certificates: tuple[bytes, ...] = field(default=(), repr=False)

    def alive(self, now: int) -> bool:
        """`now`: milliseconds since 1970."""
        return 0 <= now - self.issued < self.lifetime * 1000

    def age(self, obfuscated: int) -> int:
        """The age in milliseconds that the client sees (RFC 8446 4.2.11.1)."""
        return (obfuscated - self.age_add) & 0xFFFFFFFF

    def write(self) -> bytes:
        writer = Writer()
        writer.u8(_FORM)
        writer.u16(self.suite.code)
        writer.u64(self.issued)
        writer.u32(self.lifetime)
        writer.u32(self.age_add)
        writer.u32(self.max_early_data)
        writer.opaque(1, self.key)
        writer.opaque(1, (self.server_name or "").encode("ascii"))
        writer.opaque(1, self.alpn or b"")
        writer.opaque(2, self.remembered)
        with writer.vector(3):
            for certificate in self.peer_certificates:
                writer.opaque(3, certificate)
        return writer.bytes()

    @classmethod
    def read(cls, data: Buffer) -> TicketState:
        """Raises `PeerError` for what `write` has not written: a ticket of another version of this program."""
        reader = Reader(data)
        _read_form(reader)
        suite = _read_suite(reader)
        issued = reader.u64()
        lifetime, age_add, max_early_data = reader.u32(), reader.u32(), reader.u32()
        key = reader.opaque(1, least=suite.hash_size, most=suite.hash_size)
        server_name, alpn = _ascii(_read_optional(reader)), _read_optional(reader)
        remembered = reader.opaque(2)
        certificates = reader.vector(3)
        reader.end()
        chain = []
        while certificates.remaining:
            chain.append(certificates.opaque(3, least=1))
        return cls(key, suite, issued, lifetime, age_add, server_name, alpn, max_early_data, remembered, tuple(chain))


_NAME_SIZE = 16
_KEY_SIZE = 32
_SEALED_LIMIT = 1 << 32
"""Tickets under one key: random nonces must not be used for more (NIST SP 800-38D 8.3)."""


@dataclass(slots=True)
class _Generation:
    name: bytes
    key: bytes = field(repr=False)
    since: int
    sealed: int = 0


class TicketKeys:
    """Seals and opens tickets with keys that change every `lifetime` seconds, which is as long as tickets live.

    Two generations are held: the one that seals, and the one before, whose tickets may still be alive. What was
    sealed earlier cannot be opened by anybody any more. A third one comes only when a key has sealed its fill.
    """

    def __init__(self, engine: CryptoEngine, random: Random, lifetime: int = DEFAULT_LIFETIME) -> None:
        # RFC 8446 4.6.1: servers must not use a value greater than seven days.
        if not 1 <= lifetime <= MAX_LIFETIME:
            raise ConfigurationError("tickets live from 1 second to 7 days")
        self.lifetime = lifetime
        self._engine = engine
        self._random = random
        self._generations: list[_Generation] = []

    def __repr__(self) -> str:
        return f"TicketKeys(lifetime={self.lifetime})"

    def seal(self, state: TicketState, now: int) -> bytes:
        """`now`: milliseconds since 1970."""
        generation = self._current(now)
        generation.sealed += 1
        plaintext, nonce = state.write(), self._random(IV_SIZE)
        sealed = bytearray(len(plaintext) + TAG_SIZE)
        self._aead(generation).encrypt_into(nonce, plaintext, generation.name, sealed)
        return generation.name + nonce + sealed

    def open(self, ticket: bytes, now: int) -> TicketState | None:
        """None for what this server has not sealed, or can no longer open, or what has expired."""
        self._forget(now)
        name, nonce = ticket[:_NAME_SIZE], ticket[_NAME_SIZE : _NAME_SIZE + IV_SIZE]
        sealed = ticket[_NAME_SIZE + IV_SIZE :]
        generation = next((each for each in self._generations if each.name == name), None)
        if generation is None or len(sealed) <= TAG_SIZE:
            return None
        plaintext = bytearray(len(sealed) - TAG_SIZE)
        try:
            self._aead(generation).decrypt_into(nonce, sealed, name, plaintext)
            state = TicketState.read(plaintext)
        except (self._engine.invalid_tag, PeerError):
            return None
        return state if state.alive(now) else None

    def _aead(self, generation: _Generation) -> Aead:
        return self._engine.aead(TrafficKeys(CipherSuite.AES_256_GCM_SHA384, generation.key, bytes(IV_SIZE)))

    def _current(self, now: int) -> _Generation:
        self._forget(now)
        if self._generations:
            newest = self._generations[0]
            if now - newest.since < self.lifetime * 1000 and newest.sealed < _SEALED_LIMIT:
                return newest
        made = _Generation(self._random(_NAME_SIZE), self._random(_KEY_SIZE), now)
        self._generations.insert(0, made)
        return made

    def _forget(self, now: int) -> None:
        """Drops the keys whose last ticket has expired."""
        limit = 2 * self.lifetime * 1000
        self._generations = [each for each in self._generations if 0 <= now - each.since < limit]
