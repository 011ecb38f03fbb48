"""asyncio's own functions for connections, over TCPLS: for programs and protocols that exist already.

One connection is one stream. A client's has a session of its own; a server's clients may open many in one session,
and each is a connection for the server.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio.trsock import TransportSocket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Self, TypeVar

from tcpls.aio.client import connect
from tcpls.aio.config import ClientConfig, ServerConfig
from tcpls.aio.connection_errors import as_connection_error
from tcpls.aio.server import Server, listen
from tcpls.aio.session import Session
from tcpls.aio.stream import Stream
from tcpls.aio.stream_transport import ABORTED, StreamTransport
from tcpls.errors import ApiMisuse, ConfigurationError, KernelUnavailable, NotNegotiated, TCPLSError

LIMIT = 1 << 16
"""Bytes, as of asyncio's streams: a line is at most as long, and reading pauses at twice as much."""

P = TypeVar("P", bound=asyncio.BaseProtocol)
T = TypeVar("T")
ProtocolFactory = Callable[[], asyncio.BaseProtocol]
ConnectedCallback = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]


async def create_connection(
    protocol_factory: Callable[[], P], host: str, port: int = 4433, *, config: ClientConfig | None = None
) -> tuple[StreamTransport, P]:
    """As ``loop.create_connection``: a session with one stream, and `protocol_factory`'s protocol on it.

    Raises what `connect` raises; what went wrong with the network or the peer is a `ConnectionError` as well. To have
    more connections in the session, open streams of ``transport.get_extra_info("tcpls_session")``, and put protocols
    on them with `stream_transport`.
    """
    session = await _as_connection_errors(connect(host, port, config=config))
    try:
        stream = await _as_connection_errors(session.open_stream())
        protocol = protocol_factory()
        made = asyncio.get_running_loop().create_future()
        transport = StreamTransport(stream, protocol, owns_session=True, made=made)
        await made
    except BaseException:
        await session.abort()
        raise
    return transport, protocol


async def open_connection(
    host: str, port: int = 4433, *, config: ClientConfig | None = None, limit: int = LIMIT
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As ``asyncio.open_connection``: a reader and a writer over a session with one stream. See `create_connection`."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await create_connection(lambda: protocol, host, port, config=config)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def create_server(
    protocol_factory: ProtocolFactory,
    host: str | None = None,
    port: int = 4433,
    *,
    config: ServerConfig,
    start_serving: bool = True,
) -> StreamServer:
    """As ``loop.create_server``: each stream that a client opens gets a protocol of `protocol_factory`'s.

    `host` None is every address of this machine, and port 0 lets the kernel choose. Connections of early data are
    made once the handshake is complete, so that protocols see nothing that may be a replay. Raises what `serve` raises.
    """
    server = StreamServer(protocol_factory, await _as_connection_errors(listen(host, port, config)), config)
    if start_serving:
        try:
            await server.start_serving()
        except BaseException:
            server.close()
            raise
    return server


async def start_server(
    client_connected_cb: ConnectedCallback,
    host: str | None = None,
    port: int = 4433,
    *,
    config: ServerConfig,
    limit: int = LIMIT,
    start_serving: bool = True,
) -> StreamServer:
    """As ``asyncio.start_server``: `client_connected_cb(reader, writer)` for each stream. See `create_server`."""
    loop = asyncio.get_running_loop()

    def factory() -> asyncio.StreamReaderProtocol:
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        return asyncio.StreamReaderProtocol(reader, client_connected_cb, loop=loop)

    return await create_server(factory, host, port, config=config, start_serving=start_serving)


class StreamServer(asyncio.AbstractServer):
    """What `create_server` and `start_server` return, with the interface of ``asyncio.Server``.

    `close` ends the listening. Connections go on, and new ones in sessions that are there are reset; a session without
    any is closed. `wait_closed` waits until the last session has ended. `close_clients` and `abort_clients` end the
    connections.
    """

    def __init__(self, protocol_factory: ProtocolFactory, listeners: list[socket.socket], config: ServerConfig) -> None:
        self._factory = protocol_factory
        self._listeners = listeners
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._server: Server | None = None
        self._transports: set[StreamTransport] = set()
        self._closed = asyncio.Event()
        self._forever: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<StreamServer sockets={self.sockets!r}>"

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    @property
    def sockets(self) -> tuple[TransportSocket, ...]:
        """The sockets that are listened on; none once it was closed."""
        return () if self._closed.is_set() else tuple(map(TransportSocket, self._listeners))

    def is_serving(self) -> bool:
        return self._server is not None and not self._closed.is_set()

    async def start_serving(self) -> None:
        if self._closed.is_set():
            raise RuntimeError(f"server {self!r} is closed")
        if self._server is None:
            self._server = Server(self._handle, self._listeners, self._config)

    async def serve_forever(self) -> None:
        """Until this is cancelled, or the server is closed; then it has been, and everybody was waited for."""
        if self._forever is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        await self.start_serving()
        self._forever = self._loop.create_future()
        try:
            await self._forever
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise
        finally:
            self._forever = None

    def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        if self._server is not None:
            self._server.stop_listening()
        else:
            for listener in self._listeners:
                listener.close()
        if self._forever is not None and not self._forever.done():
            self._forever.cancel()

    def close_clients(self) -> None:
        """Closes every connection, each behind what was written."""
        for transport in list(self._transports):
            transport.close()

    def abort_clients(self) -> None:
        """Resets every connection."""
        for transport in list(self._transports):
            transport.abort()

    async def wait_closed(self) -> None:
        """Waits until it was closed, and the last connection and session have ended."""
        await self._closed.wait()
        if self._server is not None:
            await self._server.wait_sessions()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()
        await self.wait_closed()

    # Sessions.

    async def _handle(self, session: Session) -> None:
        """One session: until the client closes it, or the server is closed and its last connection has ended."""
        # A protocol cannot tell early data, which may be a replay, from other data.
        await session.wait_handshake()
        mine: set[StreamTransport] = set()
        accepting = asyncio.create_task(self._accept(session, mine))
        closing = asyncio.create_task(self._closed.wait())
        try:
            await asyncio.wait((accepting, closing), return_when=asyncio.FIRST_COMPLETED)
            while mine:
                await asyncio.wait([transport.lost for transport in mine])
        finally:
            for transport in mine:
                transport.abort()
            for task in (accepting, closing):
                task.cancel()
            await asyncio.gather(accepting, closing, return_exceptions=True)

    async def _accept(self, session: Session, mine: set[StreamTransport]) -> None:
        async for stream in session.streams():
            if self._closed.is_set():
                _refuse(stream)
                continue
            try:
                # On ordinary TLS a connection is a session.
                transport = StreamTransport(stream, self._factory(), owns_session=not session.tcpls)
            except Exception as error:
                context = {"message": "Error on transport creation for incoming connection", "exception": error}
                self._loop.call_exception_handler(context)
                _refuse(stream)
                continue
            for those in (mine, self._transports):
                those.add(transport)
                transport.lost.add_done_callback(partial(_discard, those, transport))


def _discard(those: set[StreamTransport], gone: StreamTransport, _: asyncio.Future[None]) -> None:
    those.discard(gone)


def _refuse(stream: Stream) -> None:
    try:
        stream.reset(ABORTED)
    except NotNegotiated:
        stream.finish()
    stream.stop_sending(ABORTED)


async def _as_connection_errors(work: Awaitable[T]) -> T:
    """What is not the caller's fault is a `ConnectionError` too."""
    try:
        return await work
    except (ApiMisuse, ConfigurationError, KernelUnavailable):
        raise
    except TCPLSError as error:
        raise as_connection_error(error) from error.__cause__
