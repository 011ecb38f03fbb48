"""SOCKS 5 (RFC 1928, RFC 1929) and SOCKS 4a, the server's side, without sockets. CONNECT only."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

from tcpls.errors import PeerError, Reason
from tcpls.proxy.dialogue import Passwords, knows
from tcpls.proxy.message import Code, HostType, TargetRefused, read_host
from tcpls.proxy.target import Target
from tcpls.wire import Reader

CONNECT = 1

NO_AUTHENTICATION = 0
USER_AND_PASSWORD = 2
NONE_ACCEPTABLE = 0xFF

COMMAND_NOT_SUPPORTED = 7
"""Of SOCKS 5's replies, the one that no code of ours is for."""

MAX_FIELD = 255
"""Bytes of SOCKS 4's fields, which end at a zero: as many as SOCKS 5's can have."""

_REPLIES = {Code.NOT_UNDERSTOOD: 1, Code.NO_SUCH_NAME: 4, Code.TOO_MANY: 1}
"""The replies of SOCKS 5 for codes that have another number there (RFC 1928 section 6)."""


class _Refused(Exception):
    """The dialogue ends: `last` is what is still said."""

    def __init__(self, why: str, last: bytes = b"") -> None:
        super().__init__(why)
        self.last = last


class _Socks:
    """Takes one message after the other out of what was received; each step says what is next."""

    def __init__(self, first: Callable[[Reader], None]) -> None:
        self.target: Target | None = None
        self.over = False
        self.why = ""
        self._step = first
        self._received = bytearray()
        self._to_send = bytearray()

    @property
    def trailing(self) -> bytes:
        return bytes(self._received)

    def data_to_send(self) -> bytes:
        data = bytes(self._to_send)
        self._to_send.clear()
        return data

    def receive(self, data: bytes) -> None:
        self._received += data
        while not self.over and self.target is None and self._received:
            reader = Reader(bytes(self._received))
            try:
                self._step(reader)
            except PeerError as error:
                if error.reason is Reason.TRUNCATED:
                    # No message is longer than a few hundred bytes, so that this ends.
                    return
                self._end(str(error), self._malformed())
            except _Refused as refused:
                self._end(str(refused), refused.last)
            else:
                del self._received[: len(self._received) - reader.remaining]

    def _end(self, why: str, last: bytes) -> None:
        self.over = True
        self.why = why
        self._to_send += last

    def _malformed(self) -> bytes:
        return b""


class Socks5(_Socks):
    def __init__(self, passwords: Passwords | None = None) -> None:
        """With `passwords`, only those who know one are served."""
        super().__init__(self._greeting)
        self._passwords = passwords
        self._asked = False

    def _greeting(self, reader: Reader) -> None:
        # RFC 1928 section 3.
        reader.u8()
        methods = reader.opaque(1)
        wanted = NO_AUTHENTICATION if self._passwords is None else USER_AND_PASSWORD
        if wanted not in methods:
            raise _Refused("no method of authentication in common", bytes((5, NONE_ACCEPTABLE)))
        self._to_send += bytes((5, wanted))
        self._step = self._request if self._passwords is None else self._credentials

    def _credentials(self, reader: Reader) -> None:
        # RFC 1929 section 2.
        if reader.u8() != 1:
            raise _Refused("not RFC 1929", b"\1\1")
        user, password = reader.opaque(1), reader.opaque(1)
        if not knows(self._passwords or {}, user, password):
            raise _Refused("wrong user or password", b"\1\1")
        self._to_send += b"\1\0"
        self._step = self._request

    def _request(self, reader: Reader) -> None:
        # RFC 1928 section 4.
        self._asked = True
        if reader.u8() != 5:
            raise _Refused("not SOCKS 5", _reply(1))
        command, reserved, kind = reader.u8(), reader.u8(), reader.u8()
        if reserved:
            raise _Refused("RSV is not zero", _reply(1))
        try:
            if kind == HostType.NAME:
                host = read_host(kind, reader.opaque(1, least=1))
            else:
                host = read_host(kind, reader.take(16 if kind == HostType.IPV6 else 4))
        except TargetRefused as refused:
            raise _Refused(str(refused), _reply(refused.code)) from None
        port = reader.u16()
        if command != CONNECT:
            raise _Refused(f"command {command}: only CONNECT", _reply(COMMAND_NOT_SUPPORTED))
        self.target = Target.of(host, port)

    def _malformed(self) -> bytes:
        return _reply(1) if self._asked else b""

    def answer(self, code: Code) -> None:
        self._to_send += _reply(_REPLIES.get(code, code))


def _reply(number: int) -> bytes:
    """RFC 1928 section 6. BND.ADDR and BND.PORT are zero: which address the gateway has is its own affair."""
    return bytes((5, number, 0, HostType.IPV4)) + bytes(6)


class Socks4(_Socks):
    """SOCKS 4 with names (4a). It knows no passwords, so it serves nobody where there are some."""

    GRANTED = b"\0\x5a" + bytes(6)
    REJECTED = b"\0\x5b" + bytes(6)

    def __init__(self, passwords: Passwords | None = None) -> None:
        super().__init__(self._request)
        self._open = passwords is None

    def _request(self, reader: Reader) -> None:
        if not self._open:
            raise _Refused("SOCKS 4 has no passwords", self.REJECTED)
        reader.u8()
        command, port, address = reader.u8(), reader.u16(), reader.take(4)
        if command != CONNECT:
            raise _Refused(f"command {command}: only CONNECT", self.REJECTED)
        _until_zero(reader)
        host = IPv4Address(address)
        # 4a: an address 0.0.0.x with x other than zero says that a name stands behind the user's.
        if address[:3] == bytes(3) and address[3]:
            self.target = Target.of(read_host(HostType.NAME, _until_zero(reader)), port)
        else:
            self.target = Target.of(host, port)

    def _malformed(self) -> bytes:
        return self.REJECTED

    def answer(self, code: Code) -> None:
        self._to_send += self.GRANTED if code is Code.CONNECTED else self.REJECTED


def _until_zero(reader: Reader) -> bytes:
    field = bytearray()
    while byte := reader.u8():
        if len(field) == MAX_FIELD:
            raise PeerError(Reason.TOO_LARGE, "a field that does not end")
        field.append(byte)
    return bytes(field)
