"""Our side of the measurements: the library as an application uses it."""

from __future__ import annotations

import asyncio
import os
from multiprocessing.connection import Connection

import tcpls
from benchmarks.peers import BLOCK, CONGESTION, SUITE, Files


def tcpls_server(pipe: Connection, files: Files) -> None:
    block = os.urandom(BLOCK)

    async def send(session: tcpls.Session) -> None:
        async for stream in session.streams():
            missing = int.from_bytes(await stream.readexactly(8), "big")
            while missing:
                await stream.write(block if missing >= BLOCK else block[:missing])
                missing -= min(BLOCK, missing)
            await stream.write_eof()

    async def main() -> None:
        config = tcpls.ServerConfig(certificate=files.certificate, private_key=files.key, congestion=CONGESTION)
        async with tcpls.serve(send, "127.0.0.1", 0, config=config) as server:
            pipe.send(server.port)
            await asyncio.Event().wait()

    asyncio.run(main())


def client_config(files: Files, negotiate: tcpls.Negotiate = tcpls.Negotiate.REQUIRE) -> tcpls.ClientConfig:
    return tcpls.ClientConfig(
        ca_file=files.ca, server_name="localhost", suites=(SUITE,), tcpls=negotiate, congestion=CONGESTION
    )


def tcpls_receive(port: int, files: Files, size: int) -> None:
    async def main() -> None:
        async with tcpls.connect("127.0.0.1", port, config=client_config(files)) as session:
            stream = await session.open_stream()
            await stream.write(size.to_bytes(8, "big"))
            await stream.write_eof()
            count = 0
            async for data in stream:
                count += len(data)
            if count != size:
                raise RuntimeError(f"{count} bytes came, not {size}")

    asyncio.run(main())
