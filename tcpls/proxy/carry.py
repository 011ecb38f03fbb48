"""A socket and a stream joined: bytes both ways, each end's end, and what cuts them off."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tcpls.errors import StreamReset, TCPLSError
from tcpls.proxy.message import IDLE, RESET

if TYPE_CHECKING:
    from tcpls import Stream

PIECE = 1 << 18
"""Bytes that are taken from a socket at once: they wait for room in the stream, and nothing more is taken meanwhile."""

FAREWELL_SECONDS = 2.0
FAREWELL_BYTES = 1 << 20
"""How long and how much of a program that was refused is heard out, so that it hears why."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: what is closed so is reset (RFC 9293 3.9.1, ABORT)."""


class How(enum.Enum):
    """How it ended. Whatever is not `CLOSED` was reset at both ends."""

    CLOSED = "closed"
    SOCKET = "reset by the socket's end"
    STREAM = "reset by the stream's end"
    SESSION = "the session ended"
    IDLE = "idle"
    STOPPED = "stopped by this end"


@dataclass(slots=True)
class Carriage:
    """What was carried, and what became of it."""

    from_socket: int = 0
    to_socket: int = 0
    how: How = How.STOPPED
    why: str = ""
    moved_at: float = 0.0


def prepare(sock: socket.socket) -> None:
    """A carried connection's socket: small pieces leave at once, and a dead peer is noticed."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


async def carry(
    sock: socket.socket,
    stream: Stream,
    session_ended: asyncio.Future[Exception | None],
    carriage: Carriage,
    *,
    idle_timeout: float | None = None,
) -> None:
    """Joins the two until both directions have ended, and closes the socket.

    The end of one direction is carried as such (FIN), and the other goes on. A reset is carried as a reset. With
    `idle_timeout`, so many seconds without a byte end it too. What happens is told in `carriage`, and nothing is
    raised, except when this is cancelled.
    """
    loop = asyncio.get_running_loop()
    carriage.moved_at = loop.time()
    flows = {
        loop.create_task(_from_socket(loop, sock, stream, carriage)),
        loop.create_task(_to_socket(loop, sock, stream, carriage)),
    }
    try:
        await _until_over(loop, flows, session_ended, carriage, idle_timeout)
    finally:
        for flow in flows:
            flow.cancel()
        # Not before: the event loop must have forgotten the socket when it is closed.
        await asyncio.gather(*flows, return_exceptions=True)
        if carriage.how is How.STOPPED and session_ended.done() and not session_ended.cancelled():
            # Whoever stopped this may have heard of it first.
            carriage.how, carriage.why = How.SESSION, str(session_ended.result() or "the session was closed")
        if carriage.how is not How.CLOSED:
            give_up(stream, IDLE if carriage.how is How.IDLE else RESET)
            reset(sock)
        sock.close()


def give_up(stream: Stream, code: int) -> None:
    """Both directions, whatever is left of them."""
    for stop in (stream.reset, stream.stop_sending):
        with contextlib.suppress(TCPLSError):
            stop(code)


def reset(sock: socket.socket) -> None:
    """Closes, and has the other end told that this was no orderly end."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    sock.close()


async def _from_socket(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, stream: Stream, carriage: Carriage
) -> None:
    while data := await loop.sock_recv(sock, PIECE):
        carriage.moved_at = loop.time()
        await stream.write(data)
        carriage.from_socket += len(data)
    await stream.write_eof()


async def _to_socket(loop: asyncio.AbstractEventLoop, sock: socket.socket, stream: Stream, carriage: Carriage) -> None:
    async for data in stream:
        carriage.moved_at = loop.time()
        await loop.sock_sendall(sock, data)
        carriage.to_socket += len(data)
    sock.shutdown(socket.SHUT_WR)


async def _until_over(
    loop: asyncio.AbstractEventLoop,
    flows: set[asyncio.Task[None]],
    session_ended: asyncio.Future[Exception | None],
    carriage: Carriage,
    idle_timeout: float | None,
) -> None:
    """Sets `carriage.how`. A session that was closed without an error may still hold what came before."""
    running: set[asyncio.Future[Any]] = set(flows)
    while running:
        watched = running if session_ended.done() else {*running, session_ended}
        left = None if idle_timeout is None else carriage.moved_at + idle_timeout - loop.time()
        done, _ = await asyncio.wait(watched, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if session_ended.done() and (error := session_ended.result()) is not None:
            carriage.how, carriage.why = How.SESSION, str(error)
            return
        for flow in running & done:
            if (failure := flow.exception()) is not None:
                carriage.how, carriage.why = _kind(failure), str(failure)
                return
        running -= done
        if running and idle_timeout is not None and carriage.moved_at + idle_timeout <= loop.time():
            carriage.how, carriage.why = How.IDLE, f"nothing moved for {idle_timeout:g} s"
            return
    carriage.how = How.CLOSED


def _kind(failure: BaseException) -> How:
    match failure:
        case OSError():
            return How.SOCKET
        case StreamReset():
            return How.STREAM
        case TCPLSError():
            return How.SESSION
        case _:
            raise failure


async def say_goodbye(sock: socket.socket, last: bytes) -> None:
    """Sends `last` and closes so that it arrives: a socket that is closed with something unread in it is reset."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(FAREWELL_SECONDS):
            await loop.sock_sendall(sock, last)
            sock.shutdown(socket.SHUT_WR)
            unheard = FAREWELL_BYTES
            while unheard > 0 and (data := await loop.sock_recv(sock, PIECE)):
                unheard -= len(data)
    except (OSError, TimeoutError):
        pass
    finally:
        sock.close()
