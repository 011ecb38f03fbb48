"""What a close promises: everything that was written has been taken by the peer, or an error says that it was not."""

from __future__ import annotations

import asyncio
import hashlib
import os

import pytest

import tcpls
from tests.aio.ends import Ends, Relay, run

MODES = [tcpls.Negotiate.OFFER, tcpls.Negotiate.OFF]
QUICK = tcpls.SessionConfig(close_timeout=0.3)


@pytest.mark.parametrize("mode", MODES)
def test_a_slow_reader_gets_everything_that_was_written_before_the_close(ends: Ends, mode: tcpls.Negotiate) -> None:
    data = os.urandom(12 << 20)
    digest = hashlib.sha256()

    async def test() -> None:
        over = asyncio.Event()

        async def slow(session: tcpls.Session) -> None:
            stream = await session.accept_stream()
            while piece := await stream.read(1 << 14):
                digest.update(piece)
                await asyncio.sleep(0)
            over.set()

        async with ends.serve(slow) as server:
            async with ends.connect(server.port, tcpls=mode) as session:
                stream = await session.open_stream()
                await stream.write(data)
                await stream.write_eof()
            await over.wait()

    run(test())
    assert digest.digest() == hashlib.sha256(data).digest()


def test_a_close_lasts_as_long_as_the_peer_takes_something(ends: Ends) -> None:
    """Twice the time that a close waits without progress, which is many times what passes between two reads."""
    size = 4 << 20

    async def test() -> None:
        taken: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def slow(session: tcpls.Session) -> None:
            stream = await session.accept_stream()
            count = 0
            while piece := await stream.read(1 << 16):
                count += len(piece)
                await asyncio.sleep(0.1)
            taken.set_result(count)

        async with ends.serve(slow, stream_window=1 << 18, session_window=1 << 18) as server:
            async with ends.connect(server.port, session=tcpls.SessionConfig(close_timeout=3.0)) as session:
                stream = await session.open_stream()
                await stream.write(bytes(size))
                await stream.write_eof()
            assert await taken == size

    run(test())


def test_a_close_towards_a_reader_that_reads_nothing_says_that_data_was_left(ends: Ends) -> None:
    async def test() -> None:
        async with ends.pair(session=QUICK) as (client, server):
            stream = await client.open_stream()
            await stream.write(bytes(32 << 20))
            await server.accept_stream()
            with pytest.raises(tcpls.SessionLost, match="took nothing"):
                await client.close()
            assert isinstance(await server.wait_ended(), tcpls.AlertReceived)

    run(test())


@pytest.mark.parametrize("mode", MODES)
def test_a_close_over_a_path_that_stands_still_says_so(ends: Ends, mode: tcpls.Negotiate) -> None:
    async def test() -> None:
        async with ends.serve(_read_all) as server, Relay(server.port) as relay:
            session = await ends.connect(relay.port, tcpls=mode, session=QUICK)
            relay.open.clear()
            stream = await session.open_stream()
            await stream.write(bytes(32 << 20))
            with pytest.raises(tcpls.SessionLost):
                await session.close()

    run(test())


def test_a_close_that_the_peer_cannot_confirm_is_a_loss(ends: Ends) -> None:
    """Everything left this end, but the connection fails before the peer's answer."""

    async def test() -> None:
        async with ends.serve(_read_all) as server, Relay(server.port) as relay:
            session = await ends.connect(relay.port, failover=False)
            await session.ping()
            relay.open.clear()
            stream = await session.open_stream()
            await stream.write(b"last words")
            closing = asyncio.create_task(session.close())
            await asyncio.sleep(0)
            relay.end()
            with pytest.raises(tcpls.SessionLost):
                await closing

    run(test())


def test_a_session_that_was_lost_with_data_on_its_way_tells_so_at_the_close(ends: Ends) -> None:
    async def test() -> None:
        async with ends.serve(_read_all) as server, Relay(server.port) as relay:
            session = await ends.connect(relay.port, failover=False)
            relay.open.clear()
            stream = await session.open_stream()
            await stream.write(b"never arrives")
            relay.reset()
            await session.wait_ended()
            await stream.write_eof()
            with pytest.raises(tcpls.SessionLost):
                await session.close()
            await session.close()  # Once is enough.

    run(test())


def test_a_peer_that_closes_before_it_has_everything_is_told_of(ends: Ends) -> None:
    async def test() -> None:
        async with ends.pair() as (client, server):
            stream = await client.open_stream()
            await stream.write(bytes(32 << 20))
            await server.accept_stream()
            closing = asyncio.create_task(server.close())
            assert await client.wait_ended() is None
            with pytest.raises(tcpls.SessionLost, match="before it had taken everything"):
                await client.close()
            await closing

    run(test())


def test_both_ends_may_close_at_once(ends: Ends) -> None:
    async def test() -> None:
        async with ends.pair() as (client, server):
            stream = await client.open_stream()
            await stream.write(b"question")
            there = await server.accept_stream()
            assert await there.read() == b"question"
            await there.write(b"answer")
            assert await stream.read() == b"answer"
            await asyncio.gather(client.close(), server.close(0, "done"))
            assert await client.wait_ended() is None
            assert await server.wait_ended() is None

    run(test())


def test_an_error_close_drops_what_waits_and_raises_nothing(ends: Ends) -> None:
    async def test() -> None:
        async with ends.pair() as (client, server):
            stream = await client.open_stream()
            await stream.write(bytes(32 << 20))
            there = await server.accept_stream()
            await client.close(7, "no more")
            with pytest.raises(tcpls.SessionClosed) as caught:
                await there.readall()
            assert (caught.value.code, caught.value.reason) == (7, "no more")

    run(test())


def test_an_error_in_the_block_comes_out_of_it_and_reaches_the_peer(ends: Ends) -> None:
    async def test() -> None:
        ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

        async def handler(session: tcpls.Session) -> None:
            ended.set_result(await session.wait_ended())

        async with ends.serve(handler) as server:
            with pytest.raises(ZeroDivisionError):
                async with ends.connect(server.port) as session:
                    await (await session.open_stream()).write(bytes(32 << 20))
                    raise ZeroDivisionError
            told = await ended
            assert isinstance(told, tcpls.SessionClosed)
            assert told.code == 1

    run(test())


def test_a_cancelled_close_leaves_nothing(ends: Ends) -> None:
    async def test() -> None:
        async with ends.pair() as (client, server):
            before = asyncio.all_tasks()
            await (await client.open_stream()).write(bytes(32 << 20))
            await server.accept_stream()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.close()
            assert client.ended
            assert not client.info().connections
            assert asyncio.all_tasks() == before
            assert isinstance(await server.wait_ended(), tcpls.SessionLost)

    run(test())


@pytest.mark.parametrize("mode", MODES)
def test_after_abort_everything_raises_and_nothing_waits(ends: Ends, mode: tcpls.Negotiate) -> None:
    async def test() -> None:
        async with ends.pair(tcpls=mode) as (client, _):
            stream = await client.open_stream()
            reading = asyncio.create_task(stream.read())
            await asyncio.sleep(0)
            await client.abort()
            await client.abort()
            with pytest.raises(tcpls.SessionLost):
                await reading
            for operation in (stream.read, client.open_stream, client.accept_stream):
                with pytest.raises(tcpls.SessionLost):
                    await operation()
            with pytest.raises(tcpls.SessionLost):
                await stream.write(b"x")
            await client.close()
            assert client.info().connections == ()
            assert client.info().lines()
            with pytest.raises(tcpls.ApiMisuse):
                client.congestion()

    run(test())


async def _read_all(session: tcpls.Session) -> None:
    stream = await session.accept_stream()
    async for _ in stream:
        pass
