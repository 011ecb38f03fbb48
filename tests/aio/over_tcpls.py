"""An event loop on which every TCP connection and server of asyncio's is one of TCPLS.

Programs that run on it are unchanged: they call ``asyncio.open_connection`` and ``loop.create_server`` as they always
do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import tcpls
from tests.aio.ends import SECONDS, Ends


class Loop(asyncio.SelectorEventLoop):
    def __init__(self, ends: Ends, mode: tcpls.Negotiate = tcpls.Negotiate.REQUIRE) -> None:
        super().__init__()
        self._server_config = tcpls.ServerConfig(
            certificate=ends.certificate, private_key=ends.key, tcpls=mode, failover=False
        )
        self._client_config = tcpls.ClientConfig(ca_file=ends.ca, server_name="localhost", tcpls=mode, failover=False)
        self.transports: list[tcpls.StreamTransport] = []
        """Those of clients."""
        self.servers: list[tcpls.StreamServer] = []

    @property
    def port(self) -> int:
        """What the last server listens on."""
        return int(self.servers[-1].sockets[0].getsockname()[1])

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], Any], host: str, port: int, **rest: Any
    ) -> tuple[tcpls.StreamTransport, Any]:
        assert not any(rest.values()), rest
        made = await tcpls.create_connection(protocol_factory, host, port, config=self._client_config)
        self.transports.append(made[0])
        return made

    async def create_server(  # type: ignore[override]
        self, protocol_factory: Callable[[], Any], host: str, port: int, *, start_serving: bool = True, **rest: Any
    ) -> tcpls.StreamServer:
        assert not rest.get("ssl"), rest
        server = await tcpls.create_server(
            protocol_factory, host, port, config=self._server_config, start_serving=start_serving
        )
        self.servers.append(server)
        return server


def run_over_tcpls(ends: Ends, program: Coroutine[Any, Any, None], mode: tcpls.Negotiate) -> Loop:
    """Runs `program` to its end, in bounded time, and gives the loop that it ran on."""

    async def bounded() -> None:
        async with asyncio.timeout(SECONDS):
            await program

    made: list[Loop] = []

    def factory() -> Loop:
        made.append(Loop(ends, mode))
        return made[0]

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(bounded())
    return made[0]
