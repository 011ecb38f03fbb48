"""Servers and clients for tests of the library."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import tcpls

SECONDS = 60.0
"""No test may take longer."""
IMPATIENT = tcpls.SessionConfig(reconnect_timeout=1.0)
"""An end that loses its peer does not wait for it much longer than it takes to come back from this machine."""

Handler = Callable[[tcpls.Session], Awaitable[None]]


@dataclass(frozen=True)
class Ends:
    """An authority, and the identity of a server whose name is localhost."""

    ca: Path
    certificate: Path
    key: Path

    def serve(self, handler: Handler, **settings: Any) -> tcpls.serve:
        settings.setdefault("session", IMPATIENT)
        config = tcpls.ServerConfig(certificate=self.certificate, private_key=self.key, **settings)
        return tcpls.serve(handler, "127.0.0.1", 0, config=config)

    def connect(self, port: int, early_data: bytes | None = None, **settings: Any) -> tcpls.connect:
        settings.setdefault("session", IMPATIENT)
        config = tcpls.ClientConfig(ca_file=self.ca, server_name="localhost", **settings)
        return tcpls.connect("127.0.0.1", port, config=config, early_data=early_data)

    @asynccontextmanager
    async def pair(
        self, *, server: dict[str, Any] | None = None, **settings: Any
    ) -> AsyncIterator[tuple[tcpls.Session, tcpls.Session]]:
        """Both ends of one session: the client's and the server's, which are given up with the block."""
        accepted: asyncio.Future[tcpls.Session] = asyncio.get_running_loop().create_future()
        over = asyncio.Event()

        async def handler(session: tcpls.Session) -> None:
            accepted.set_result(session)
            await over.wait()
            await session.abort()

        async with self.serve(handler, **(server or {})) as listening:
            client = await self.connect(listening.port, **settings)
            try:
                yield client, await accepted
            finally:
                over.set()
                await client.abort()


def run(test: Coroutine[Any, Any, None]) -> None:
    """Runs a test to its end, in bounded time."""

    async def bounded() -> None:
        async with asyncio.timeout(SECONDS):
            await test

    asyncio.run(bounded())


class Relay:
    """Passes bytes between a client and a server, and can be told to hold them back, to cut, or to reset."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener: asyncio.Server | None = None
        self._flows: list[asyncio.Task[None]] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.open = asyncio.Event()
        """Bytes pass while it is set."""
        self.open.set()

    @property
    def port(self) -> int:
        assert self._listener is not None
        return int(self._listener.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listener is not None
        self._listener.close()
        for flow in self._flows:
            flow.cancel()
        await asyncio.gather(*self._flows, return_exceptions=True)
        for writer in self.writers:
            writer.close()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        self.writers += [writer, there_writer]
        self._flows.append(asyncio.create_task(self._pass(reader, there_writer)))
        self._flows.append(asyncio.create_task(self._pass(there_reader, writer)))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                await self.open.wait()
                self.look(writer, data)
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except OSError:
            writer.transport.abort()

    def look(self, flow: object, data: bytes) -> None:
        """What passes, for whoever wants to know; `flow` is one for each direction."""

    def end(self) -> None:
        """FIN to both ends, without any close of TLS."""
        for flow in self._flows:
            flow.cancel()
        for writer in self.writers:
            writer.close()

    async def refuse(self) -> None:
        """Takes no connection any more."""
        assert self._listener is not None
        self._listener.close()

    def reset(self, number: int | None = None) -> None:
        """RST to both ends, of all connections or of the one with this number, in the order in which they came."""
        which = slice(None) if number is None else slice(2 * number, 2 * number + 2)
        for flow in self._flows[which]:
            flow.cancel()
        for writer in self.writers[which]:
            if writer.is_closing():
                continue
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()
