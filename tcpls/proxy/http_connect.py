"""HTTP's CONNECT (RFC 9110 9.3.6) with h11, without sockets: for programs that speak nothing else."""

from __future__ import annotations

import base64
import binascii

import h11

from tcpls.errors import PeerError
from tcpls.proxy.dialogue import Passwords, knows
from tcpls.proxy.message import Code
from tcpls.proxy.target import Target

MAX_HEAD = 16384
"""Bytes of a request's head."""

_STATUS = {
    Code.NOT_ALLOWED: (403, b"Forbidden"),
    Code.TIMED_OUT: (504, b"Gateway Timeout"),
    Code.TOO_MANY: (503, b"Service Unavailable"),
}
"""What is not here is 502."""


class HttpConnect:
    """One request: whatever it asks for, the connection serves no other."""

    def __init__(self, passwords: Passwords | None = None) -> None:
        self.target: Target | None = None
        self.over = False
        self.why = ""
        self._passwords = passwords
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._to_send = bytearray()

    @property
    def trailing(self) -> bytes:
        return self._h11.trailing_data[0]

    def data_to_send(self) -> bytes:
        data = bytes(self._to_send)
        self._to_send.clear()
        return data

    def receive(self, data: bytes) -> None:
        try:
            self._h11.receive_data(data)
            event = self._h11.next_event()
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint, b"Bad Request", str(error))
            return
        if isinstance(event, h11.Request):
            self._request(event)
        elif event is not h11.NEED_DATA:
            self._refuse(400, b"Bad Request", "not a request")

    def _request(self, request: h11.Request) -> None:
        headers = dict(request.headers)
        if self._passwords is not None and not self._authorized(headers.get(b"proxy-authorization", b"")):
            # RFC 9110 11.7.1.
            ask = (b"Proxy-Authenticate", b'Basic realm="tcpls proxy"')
            self._refuse(407, b"Proxy Authentication Required", "wrong user or password, or none", ask)
        elif request.method != b"CONNECT":
            self._refuse(405, b"Method Not Allowed", "only CONNECT", (b"Allow", b"CONNECT"))
        elif b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0":
            # RFC 9110 9.3.6: such a request has no content.
            self._refuse(400, b"Bad Request", "a CONNECT with content")
        else:
            try:
                # RFC 9110 9.3.6: host and port, both of them.
                self.target = Target.parse(request.target.decode("ascii"))
            except (PeerError, UnicodeDecodeError) as error:
                self._refuse(400, b"Bad Request", f"the target of a CONNECT: {error}")
            else:
                # Moves h11 on to where it takes what comes behind the request for no HTTP of its own.
                self._h11.next_event()

    def _authorized(self, value: bytes) -> bool:
        """RFC 7617 section 2."""
        scheme, _, encoded = value.partition(b" ")
        try:
            user, _, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        except binascii.Error:
            return False
        return scheme.lower() == b"basic" and knows(self._passwords or {}, user, password)

    def _refuse(self, status: int, reason: bytes, why: str, *headers: tuple[bytes, bytes]) -> None:
        self.over = True
        self.why = why
        self._say(status, reason, *headers)

    def _say(self, status: int, reason: bytes, *headers: tuple[bytes, bytes]) -> None:
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        if status >= 300:
            headers += ((b"Content-Length", b"0"), (b"Connection", b"close"))
        response = h11.Response(status_code=status, headers=list(headers), reason=reason)
        self._to_send += self._h11.send(response)

    def answer(self, code: Code) -> None:
        if code is Code.CONNECTED:
            self._say(200, b"Connection established")
        else:
            self._say(*_STATUS.get(code, (502, b"Bad Gateway")))
