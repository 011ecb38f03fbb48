"""What a transport over a stream gives where programs ask for its socket."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from tcpls.aio.session import Session


class SocketView:
    """Looks at the first open connection of a session, as ``asyncio``'s own view of a socket does, and changes nothing.

    A stream has no socket of its own: others share the connection, and another one may carry it tomorrow. So there is
    no descriptor to be waited for, and an option can only be asked for if it is set already, as TCP_NODELAY and
    SO_KEEPALIVE are. `Session.set_peer_option` and `ClientConfig` are for the others.
    """

    def __init__(self, session: Session, sock: socket.socket) -> None:
        self._session = session
        self.family = sock.family
        self.type = sock.type
        self.proto = sock.proto

    def __repr__(self) -> str:
        return f"<SocketView of {self._session!r}>"

    def _socket(self) -> socket.socket:
        sock = self._session.socket()
        if sock is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return sock

    def fileno(self) -> int:
        """-1, as of a socket that is closed."""
        return -1

    def getsockname(self) -> object:
        return self._socket().getsockname()

    def getpeername(self) -> object:
        return self._socket().getpeername()

    def gettimeout(self) -> float:
        return 0.0

    def getsockopt(self, level: int, option: int, size: int = 0) -> int | bytes:
        return self._socket().getsockopt(level, option, size) if size else self._socket().getsockopt(level, option)

    def setsockopt(self, level: int, option: int, value: object, size: int | None = None) -> None:
        """Raises `OSError` (EPERM) unless the option has that value."""
        if not isinstance(value, int) or self.getsockopt(level, option) != value:
            self._refuse("option")

    def setblocking(self, flag: bool) -> None:
        if flag:
            self._refuse("mode")

    def settimeout(self, value: float | None) -> None:
        if value != 0:
            self._refuse("mode")

    @staticmethod
    def _refuse(what: str) -> NoReturn:
        raise PermissionError(errno.EPERM, f"a stream has no socket of its own, the {what} of which could be changed")
