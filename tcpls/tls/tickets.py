"""Session tickets (RFC 8446 section 4.6.1): what a client keeps, and what a server seals into them."""

from __future__ import annotations

from dataclasses import dataclass, field

from tcpls.errors import PeerError, Reason
from tcpls.tls.key_schedule import BinderKind, ResumptionSecret
from tcpls.tls.messages import NewSessionTicket
from tcpls.tls.psk import PreSharedKey
from tcpls.tls.suites import SUITE_BY_CODE, CipherSuite
from tcpls.wire import Buffer, Reader, Writer

MAX_LIFETIME = 7 * 24 * 3600
"""Seconds (RFC 8446 4.6.1)."""
MAX_TOTAL = MAX_LIFETIME
"""Seconds from a full handshake on in which its tickets, and those of the sessions that they resume, may be used: the
limit that RFC 8446 4.6.1 recommends for what goes back to one proof of who the peer is."""
DEFAULT_LIFETIME = 24 * 3600
DEFAULT_TICKETS = 2
MAX_TICKETS = 8
"""Tickets that a client may ask for by ticket_request; RFC 9149 section 3 lets servers send fewer."""
MAX_REMEMBERED = 1024
"""Bytes of the application's own in one ticket."""
MAX_IDENTITY = 1 << 14
"""Bytes of a ticket that a client keeps: room for a chain of certificates, and for others beside it in one hello."""
MAX_TICKET_CHAIN = MAX_IDENTITY - (1 << 12)
"""Bytes of a client's certificates in one ticket: with the rest of it, less than `MAX_IDENTITY`."""

_FORM = 2
_STATE_FORM = 3

_LATEST = 1 << 48
"""Milliseconds since 1970: eight thousand years, which a float still tells apart."""


def _read_optional(reader: Reader) -> bytes | None:
    return reader.opaque(1) or None


def _read_suite(reader: Reader) -> CipherSuite:
    suite = SUITE_BY_CODE.get(reader.u16())
    if suite is None:
        raise PeerError(Reason.BAD_VALUE, "cipher suite")
    return suite


def _read_form(reader: Reader, form: int) -> None:
    if reader.u8() != form:
        raise PeerError(Reason.BAD_VALUE, "form of a ticket")


def _read_time(reader: Reader) -> float:
    """Seconds since 1970."""
    milliseconds = reader.u64()
    if milliseconds > _LATEST:
        raise PeerError(Reason.BAD_VALUE, "time")
    return milliseconds / 1000


def _ascii(name: bytes | None) -> str | None:
    try:
        return None if name is None else name.decode("ascii")
    except UnicodeDecodeError:
        raise PeerError(Reason.BAD_VALUE, "server name") from None


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a client resumes a session with, once. `received` is in seconds since 1970, `lifetime` in seconds.

    `verified` says that the server's certificate was verified when the session began. `remembered` is the
    application's own, for example what the server announced. `until`, in seconds since 1970, is when all that goes back
    to one full handshake ends; None: nobody knows.
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
    until: float | None = None

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
        writer.u64(round(self.received * 1000))
        writer.u32(self.lifetime)
        writer.u32(self.age_add)
        writer.u32(self.max_early_data)
        writer.u64(round((self.until or 0) * 1000))
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
        _read_form(reader, _FORM)
        suite = _read_suite(reader)
        received = _read_time(reader)
        lifetime, age_add, max_early_data = reader.u32(), reader.u32(), reader.u32()
        until = _read_time(reader) or None
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
            until,
        )


@dataclass(frozen=True, slots=True)
class TicketSource:
    """What a client needs of its handshake to make tickets of the messages that come later. No traffic keys."""

    secret: ResumptionSecret
    server_name: str | None
    alpn: bytes | None
    verified: bool
    until: float | None

    def ticket(self, message: NewSessionTicket, now: float, remembered: bytes = b"") -> Ticket | None:
        """What to keep of a message that came at `now`, in seconds since 1970; None if nothing."""
        # RFC 8446 4.6.1: a lifetime of 0 is over at once, and none is longer than seven days.
        lifetime = lifetime_until(self.until, now, min(message.lifetime, MAX_LIFETIME))
        if not lifetime or len(message.ticket) > MAX_IDENTITY:
            return None
        return Ticket(
            identity=message.ticket,
            key=self.secret.key(message.nonce),
            suite=self.secret.suite,
            age_add=message.age_add,
            # In whole milliseconds, as it is kept, and not later than now: a ticket of the future counts as none.
            received=int(now * 1000) / 1000,
            lifetime=lifetime,
            server_name=self.server_name,
            alpn=self.alpn,
            verified=self.verified,
            max_early_data=message.max_early_data,
            remembered=remembered,
            until=self.until,
        )


def lifetime_until(until: float | None, now: float, lifetime: int) -> int:
    """How many of the seconds that a new ticket would live are left before `until`."""
    return lifetime if until is None else max(0, min(lifetime, int(until - now)))


@dataclass(frozen=True, slots=True)
class TicketState:
    """What a server seals into a ticket. `issued` is in milliseconds since 1970, `lifetime` in seconds.

    `peer_certificates`, `peer_raw_key` and `psk_identity` are what the client was known by when the session began, if
    it was; `psk_mark` is that of the key. `until` is as in `Ticket`.
    """

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
    psk_identity: bytes | None = None
    until: float | None = None
    peer_raw_key: bytes = field(default=b"", repr=False)
    psk_mark: bytes = field(default=b"", repr=False)

    def alive(self, now: int) -> bool:
        """`now`: milliseconds since 1970."""
        return 0 <= now - self.issued < self.lifetime * 1000

    def age(self, obfuscated: int) -> int:
        """The age in milliseconds that the client sees (RFC 8446 4.2.11.1)."""
        return (obfuscated - self.age_add) & 0xFFFFFFFF

    def write(self) -> bytes:
        writer = Writer()
        writer.u8(_STATE_FORM)
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
        writer.opaque(2, self.psk_identity or b"")
        writer.u64(round((self.until or 0) * 1000))
        writer.opaque(2, self.peer_raw_key)
        writer.opaque(1, self.psk_mark)
        return writer.bytes()

    @classmethod
    def read(cls, data: Buffer) -> TicketState:
        """Raises `PeerError` for what `write` has not written: a ticket of another version of this program."""
        reader = Reader(data)
        _read_form(reader, _STATE_FORM)
        suite = _read_suite(reader)
        issued = reader.u64()
        lifetime, age_add, max_early_data = reader.u32(), reader.u32(), reader.u32()
        key = reader.opaque(1, least=suite.hash_size, most=suite.hash_size)
        server_name, alpn = _ascii(_read_optional(reader)), _read_optional(reader)
        remembered = reader.opaque(2)
        certificates, identity, until = reader.vector(3), reader.opaque(2), _read_time(reader)
        raw_key, psk_mark = reader.opaque(2), reader.opaque(1)
        reader.end()
        chain = []
        while certificates.remaining:
            chain.append(certificates.opaque(3, least=1))
        return cls(
            key,
            suite,
            issued,
            lifetime,
            age_add,
            server_name,
            alpn,
            max_early_data,
            remembered,
            tuple(chain),
            identity or None,
            until or None,
            raw_key,
            psk_mark,
        )
