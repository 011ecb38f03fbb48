"""`serve`: sessions with clients."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Collection, Generator
from functools import partial
from types import TracebackType

from tcpls.aio import tls_setup
from tcpls.aio.config import KTLS, ServerConfig
from tcpls.aio.establish import make_session, shake_hands
from tcpls.aio.info import address
from tcpls.aio.paths import ServerPaths
from tcpls.aio.preparing import attach_kernel, prepare
from tcpls.aio.session import Session
from tcpls.errors import (
    AlertReceived,
    ConnectError,
    KernelUnavailable,
    PeerError,
    SessionClosed,
    SessionLost,
    TCPLSError,
)
from tcpls.kernel import ktls
from tcpls.protocol.base import Role
from tcpls.protocol.negotiation import read_join

logger = logging.getLogger("tcpls")

Handler = Callable[[Session], Awaitable[None]]

ACCEPT_PAUSE = 0.1
"""Seconds without accepting after the process ran out of descriptors or memory."""


class Server:
    """A listening server. Each session runs the handler in a task of its own; no task outlives `close`."""

    def __init__(self, handler: Handler, listeners: list[socket.socket], config: ServerConfig) -> None:
        self._handler = handler
        self._listeners = listeners
        self._config = config
        self._tls = tls_setup.ServerSetup(config)
        self._slots = asyncio.Semaphore(config.max_sessions)
        self._sessions: set[asyncio.Task[None]] = set()
        self._accepting = [asyncio.create_task(self._accept(listener)) for listener in listeners]

    @property
    def addresses(self) -> list[str]:
        """What it listens on, as ``host:port``."""
        return [address(listener.getsockname()) for listener in self._listeners]

    @property
    def port(self) -> int:
        return int(self._listeners[0].getsockname()[1])

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, peer = await loop.sock_accept(listener)
            except OSError as error:
                # EMFILE and its like: the connection stays in the backlog until somebody leaves.
                logger.error("cannot accept: %s", error.strerror)
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            try:
                # Not before: a listener that waits for clients must not keep a slot from the other ones.
                await self._slots.acquire()
            except BaseException:
                sock.close()
                raise
            task = loop.create_task(self._serve(sock, address(peer)))
            self._sessions.add(task)
            task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._sessions.discard(task)
        self._slots.release()

    async def _serve(self, sock: socket.socket, peer: str) -> None:
        """One client, from its first byte to its last. Whatever goes wrong with it stays with it."""
        try:
            session = await self._establish(sock)
            if session is None:
                return
        except (TCPLSError, OSError, TimeoutError) as error:
            sock.close()
            logger.warning("%s: no session: %s", peer, error)
            return
        except BaseException:
            sock.close()
            raise
        try:
            async with session:
                await self._handler(session)
        except asyncio.CancelledError:
            raise
        except (SessionLost, SessionClosed, PeerError, AlertReceived) as error:
            logger.warning("%s: %s", peer, error)
        except Exception:
            logger.exception("%s: the handler failed", peer)

    async def _establish(self, sock: socket.socket) -> Session | None:
        """None for a connection that joined a session, which it belongs to from then on."""
        config, setup = self._config, self._tls
        prepare(sock, config)
        attach_kernel(sock, config)
        tls = setup.connection()
        await shake_hands(sock, tls, config.handshake_timeout)
        if tls.handed_over:
            await self._join(sock, *tls.hand_over())
            return None
        established = tls.established() if tls.handshake_complete else tls.established_early()
        shaking = None if tls.handshake_complete else tls
        outcome = setup.outcome(established)
        return make_session(
            sock,
            Role.SERVER,
            config,
            established,
            outcome,
            setup.local,
            shaking=shaking,
            paths=lambda joiner: ServerPaths(joiner, setup.tokens, established.note),
        )

    async def _join(self, sock: socket.socket, offered: dict[int, bytes], unread: bytes) -> None:
        token = read_join(offered)
        claim = None if token is None else await self._tls.tokens.find(token)
        # The session may have ended since its token was looked at.
        if claim is None or not await claim.paths.take(
            sock, claim.connection_id, unread, self._config.handshake_timeout
        ):
            sock.close()

    def stop_listening(self) -> None:
        """Takes no client any more, from the next turn of the loop on; the sessions go on."""
        for task, listener in zip(self._accepting, self._listeners, strict=True):
            # Not before: the loop still watches the listener until then.
            task.add_done_callback(partial(_close, listener))
            task.cancel()

    async def wait_sessions(self) -> None:
        """Waits until nobody is listened for, and every session has ended."""
        while waiting := [task for task in (*self._accepting, *self._sessions) if not task.done()]:
            await asyncio.wait(waiting)

    async def close(self) -> None:
        """Stops listening and ends every session: its handler is cancelled, and the client told with an error code."""
        self.stop_listening()
        await _end(self._accepting)
        await _end(self._sessions)


def _close(listener: socket.socket, _: asyncio.Task[None]) -> None:
    listener.close()


async def _end(tasks: Collection[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class serve:
    """Listens: ``async with serve(handler, host, port, config=...) as server``.

    `host` None is every address of this machine; port 0 lets the kernel choose (`server.port`). `handler(session)`
    is a coroutine function; when it returns, the session is closed. Raises `ConfigurationError` (certificate and
    key), `ConnectError` (the address cannot be had), `KernelUnavailable` (kTLS was required).
    """

    def __init__(self, handler: Handler, host: str | None = None, port: int = 4433, *, config: ServerConfig) -> None:
        self._handler = handler
        self._host = host
        self._port = port
        self._config = config
        self._server: Server | None = None

    def __await__(self) -> Generator[object, None, Server]:
        return self._open().__await__()

    async def __aenter__(self) -> Server:
        self._server = await self._open()
        return self._server

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            await self._server.close()

    async def _open(self) -> Server:
        listeners = await listen(self._host, self._port, self._config)
        try:
            return Server(self._handler, listeners, self._config)
        except BaseException:
            for listener in listeners:
                listener.close()
            raise


async def listen(host: str | None, port: int, config: ServerConfig) -> list[socket.socket]:
    """A listener per address of `host`. Raises `ConnectError`, and `KernelUnavailable` (kTLS was required)."""
    if config.ktls is KTLS.REQUIRE and (reason := ktls.probe().reason):
        raise KernelUnavailable("kTLS", reason)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConnectError(f"{host}: {error.strerror}") from None
    listeners: list[socket.socket] = []
    try:
        for family, kind, protocol, _, where in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            listeners.append(listener)
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Port 0 means the same port for each family.
            chosen = listeners[0].getsockname()[1] if port == 0 and len(listeners) > 1 else where[1]
            listener.bind((where[0], chosen, *where[2:]))
            listener.listen(config.backlog)
    except OSError as error:
        for listener in listeners:
            listener.close()
        on = f"{host or 'any address'} port {port}"
        raise ConnectError(f"cannot listen on {on}: {error.strerror}", error.errno or 0) from None
    return listeners
