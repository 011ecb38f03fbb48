"""What the two ends say at the beginning of a stream: where it is to go, and what became of that.

::

    Open:   version(8) = 1, host type(8), host length(8), host, port(16)     from the client
    Answer: version(8) = 1, code(8), text length(8), text                    from the gateway

Behind them the stream is the connection. Everything is big-endian. docs/proxy.md has the rest.
"""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from tcpls.errors import PeerError, Reason, TCPLSError
from tcpls.proxy.target import MAX_NAME, Target
from tcpls.wire import Reader, Writer

if TYPE_CHECKING:
    from tcpls import Stream

ALPN = "tcpls-proxy/1"
VERSION = 1
MAX_TEXT = 255

RESET = 1
"""The code of streams whose connection was reset."""
IDLE = 2
"""The code of streams over which nothing went for too long."""
LATE = 3
"""The code of streams whose opening was not said in time."""


class HostType(enum.IntEnum):
    """SOCKS5's numbers (RFC 1928 section 4)."""

    IPV4 = 1
    NAME = 3
    IPV6 = 4


class Code(enum.IntEnum):
    """What became of an opening. Those below 9 are SOCKS5's (RFC 1928 section 6)."""

    CONNECTED = 0
    FAILED = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    REFUSED = 5
    TIMED_OUT = 6
    NOT_UNDERSTOOD = 7
    ADDRESS_TYPE = 8
    NO_SUCH_NAME = 9
    TOO_MANY = 10

    @property
    def label(self) -> str:
        return _LABELS[self]


_LABELS = {
    Code.CONNECTED: "connected",
    Code.FAILED: "not connected",
    Code.NOT_ALLOWED: "not allowed by the gateway's rules",
    Code.NETWORK_UNREACHABLE: "network unreachable",
    Code.HOST_UNREACHABLE: "host unreachable",
    Code.REFUSED: "connection refused",
    Code.TIMED_OUT: "no answer in time",
    Code.NOT_UNDERSTOOD: "not understood",
    Code.ADDRESS_TYPE: "unknown type of address",
    Code.NO_SUCH_NAME: "the name has no address",
    Code.TOO_MANY: "too many connections",
}


class TargetRefused(TCPLSError):
    """A connection was not made. `code` says why, `text` says more."""

    def __init__(self, code: Code, text: str = "") -> None:
        super().__init__(f"{code.label} ({text})" if text else code.label)
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class Answer:
    code: Code
    text: str = ""

    def write(self) -> bytes:
        # What is cut is cut between characters.
        text = self.text.encode()[:MAX_TEXT].decode(errors="ignore").encode()
        out = Writer()
        out.u8(VERSION)
        out.u8(self.code)
        out.opaque(1, text)
        return out.bytes()

    @classmethod
    def read(cls, data: bytes) -> Answer:
        """Raises `PeerError`."""
        reader = Reader(data)
        _check_version(reader)
        number = reader.u8()
        text = reader.opaque(1).decode(errors="replace")
        reader.end()
        try:
            code = Code(number)
        except ValueError:
            # A later gateway may know more ways to fail; none of them is a connection.
            code = Code.FAILED
        return cls(code, "".join(each if each.isprintable() else "?" for each in text))


def write_open(target: Target) -> bytes:
    match target.host:
        case IPv4Address(packed=host):
            kind = HostType.IPV4
        case IPv6Address(packed=host):
            kind = HostType.IPV6
        case name:
            kind, host = HostType.NAME, str(name).encode("ascii")
    out = Writer()
    out.u8(VERSION)
    out.u8(kind)
    out.opaque(1, host)
    out.u16(target.port)
    return out.bytes()


def read_open(data: bytes) -> Target:
    """Raises `TargetRefused(ADDRESS_TYPE)` for a type of host that is none, `PeerError` for what is malformed."""
    reader = Reader(data)
    _check_version(reader)
    number = reader.u8()
    host = reader.opaque(1, least=1)
    port = reader.u16()
    reader.end()
    return Target.of(read_host(number, host), port)


def read_host(number: int, host: bytes) -> str | IPv4Address | IPv6Address:
    """A host by its type's number. Raises what `read_open` raises."""
    sizes = {HostType.IPV4: range(4, 5), HostType.IPV6: range(16, 17), HostType.NAME: range(1, MAX_NAME + 2)}
    if number not in sizes:
        raise TargetRefused(Code.ADDRESS_TYPE, str(number))
    kind = HostType(number)
    if len(host) not in sizes[kind]:
        raise PeerError(Reason.BAD_LENGTH, f"{len(host)} bytes")
    if kind is HostType.IPV4:
        return IPv4Address(host)
    if kind is HostType.IPV6:
        return IPv6Address(host)
    try:
        return host.decode("ascii")
    except UnicodeDecodeError:
        raise PeerError(Reason.BAD_VALUE, "not a host name") from None


def _check_version(reader: Reader) -> None:
    if reader.u8() != VERSION:
        raise PeerError(Reason.BAD_VALUE, "version")


async def receive_open(stream: Stream) -> Target:
    """Takes the opening out of a stream, and nothing behind it. Raises what `read_open` and reading raise."""
    head = await _exactly(stream, 3)
    return read_open(head + await _exactly(stream, head[2] + 2))


async def receive_answer(stream: Stream) -> Answer:
    """The same of the answer."""
    head = await _exactly(stream, 3)
    return Answer.read(head + await _exactly(stream, head[2]))


async def _exactly(stream: Stream, count: int) -> bytes:
    try:
        return await stream.readexactly(count)
    except asyncio.IncompleteReadError:
        raise PeerError(Reason.TRUNCATED) from None
