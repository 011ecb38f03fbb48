"""The application over TCPLS: one stream, whatever connections the session has."""

from __future__ import annotations

import asyncio

from tcpls import ClientConfig, Negotiate, ServerConfig, Session, connect
from tcpls import serve as listen
from tcpls.lab.jobs import SERVER_NAME, Job, Orders, Say
from tcpls.lab.transfer import CHUNK, Arrivals, Pattern


def serve(job: Job, say: Say) -> None:
    asyncio.run(_serve(job, say))


async def _serve(job: Job, say: Say) -> None:
    config = ServerConfig(
        certificate=job.certificate,
        private_key=job.key,
        tcpls=Negotiate.REQUIRE,
        tickets=0,
        congestion=job.congestion,
    )

    async def send(session: Session) -> None:
        stream = await session.accept_stream()
        pattern = Pattern(job.seed)
        while left := job.size - pattern.offset:
            await stream.write(pattern.next(min(CHUNK, left)))
        await stream.write_eof()

    async with listen(send, None, job.port, config=config):
        say(listening=True)
        await asyncio.get_running_loop().create_future()


def fetch(job: Job, arrivals: Arrivals, orders: Orders, say: Say) -> None:
    asyncio.run(_fetch(job, arrivals))


async def _fetch(job: Job, arrivals: Arrivals) -> None:
    config = ClientConfig(
        ca_file=job.authority, server_name=SERVER_NAME, tcpls=Negotiate.REQUIRE, congestion=job.congestion
    )
    place = job.places[job.begin[0]]
    async with asyncio.timeout(job.limit), connect(place.remote, job.port, config=config) as session:
        stream = await session.open_stream()
        await stream.write_eof()
        async for data in stream:
            arrivals.take(data)
        if not arrivals.complete:
            raise ConnectionError("the server has ended early")
