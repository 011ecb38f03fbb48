"""The application over TCPLS: one stream, whatever connections the session has."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tcpls import ClientConfig, Negotiate, ServerConfig, Session, SessionConfig, TCPLSError, connect
from tcpls import serve as listen
from tcpls.lab.jobs import SERVER_NAME, Job, Order, Orders, Place, Say
from tcpls.lab.transfer import CHUNK, Arrivals, Pattern


def _common(job: Job) -> Mapping[str, Any]:
    """What both ends set. A user timeout of the scenario's is also how long a silent connection is waited for."""
    common: dict[str, Any] = {
        "tcpls": Negotiate.REQUIRE,
        "congestion": job.congestion,
        "scheduler": "weighted" if job.together else "backup",
    }
    if job.user_timeout:
        seconds = job.user_timeout / 1000
        common |= {"user_timeout": seconds, "session": SessionConfig(path_timeout=seconds)}
    return common


def serve(job: Job, say: Say) -> None:
    asyncio.run(_serve(job, say))


async def _serve(job: Job, say: Say) -> None:
    config = ServerConfig(certificate=job.certificate, private_key=job.key, tickets=0, **_common(job))

    async def send(session: Session) -> None:
        telling = asyncio.create_task(_tell(session, say))
        try:
            stream = await session.accept_stream()
            pattern = Pattern(job.seed)
            while left := job.size - pattern.offset:
                await stream.write(pattern.next(min(CHUNK, left)))
            await stream.write_eof()
        finally:
            telling.cancel()

    async with listen(send, None, job.port, config=config):
        say(listening=True)
        await asyncio.get_running_loop().create_future()


def fetch(job: Job, arrivals: Arrivals, orders: Orders, say: Say) -> None:
    asyncio.run(_fetch(job, arrivals, orders, say))


async def _fetch(job: Job, arrivals: Arrivals, orders: Orders, say: Say) -> None:
    first = job.places[job.begin[0]]
    config = ClientConfig(ca_file=job.authority, server_name=SERVER_NAME, locals=(first.local,), **_common(job))
    async with (
        asyncio.timeout(job.limit),
        connect(first.remote, job.port, config=config) as session,
        asyncio.TaskGroup() as tasks,
    ):
        beside = [tasks.create_task(_tell(session, say))]
        beside += [tasks.create_task(_join(session, job, path, say)) for path in job.begin[1:]]
        beside.append(tasks.create_task(_obey(session, job, orders, say)))
        stream = await session.open_stream()
        await stream.write_eof()
        async for data in stream:
            arrivals.take(data)
        for task in beside:
            task.cancel()
    if not arrivals.complete:
        raise ConnectionError("the server has ended early")


async def _tell(session: Session, say: Say) -> None:
    """Tells what becomes of the connections."""
    async for event in session.events():
        say(detail=str(event))


def _remote(place: Place, port: int) -> str:
    return f"[{place.remote}]:{port}" if ":" in place.remote else f"{place.remote}:{port}"


async def _join(session: Session, job: Job, path: int, say: Say) -> None:
    place = job.places[path]
    try:
        await session.add_path(place.local, _remote(place, job.port), standby=not job.together)
    except TCPLSError as error:
        say(detail=f"path {path + 1}: {error}")


async def _obey(session: Session, job: Job, orders: Orders, say: Say) -> None:
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[Order] = asyncio.Queue()

    def take(order: Order) -> None:
        with suppress(RuntimeError):  # The loop has been closed: the transfer is over.
            loop.call_soon_threadsafe(waiting.put_nowait, order)

    orders.listen(take)
    while True:
        order = await waiting.get()
        if order.do == "migrate":
            place = job.places[order.path]
            await session.migrate(place.local, _remote(place, job.port))
        else:
            await _join(session, job, order.path, say)
