"""Streams and sessions over real sockets: half-closes, resets, limits, losses, and many of everything."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import socket
from pathlib import Path

import pytest

import tcpls
from tests.aio.ends import Ends, Relay, run

MODES = [tcpls.Negotiate.OFFER, tcpls.Negotiate.OFF]


async def echo(session: tcpls.Session) -> None:
    async def one(stream: tcpls.Stream) -> None:
        async for data in stream:
            await stream.write(data)
        await stream.write_eof()

    async with asyncio.TaskGroup() as group:
        async for stream in session.streams():
            group.create_task(one(stream))


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


# Half-closes, resets, stops.


@pytest.mark.parametrize("mode", MODES)
def test_each_direction_ends_by_itself(ends: Ends, mode: tcpls.Negotiate) -> None:
    answer = os.urandom(6 << 20)

    async def late(session: tcpls.Session) -> None:
        stream = await session.accept_stream()
        assert await stream.readall() == b"question"
        await stream.write(answer)
        await stream.write_eof()

    async def test() -> None:
        async with ends.serve(late) as server, ends.connect(server.port, tcpls=mode) as session:
            stream = await session.open_stream()
            await stream.write(b"question")
            await stream.write_eof()
            assert await stream.readall() == answer
            assert await stream.read() == b""
            assert await stream.read() == b""

    run(test())


def test_the_servers_direction_may_end_first(ends: Ends) -> None:
    async def test() -> None:
        async with ends.pair() as (client, server):
            stream = await server.open_stream()
            await stream.write_eof()
            there = await client.accept_stream()
            assert await there.read() == b""
            await there.write(b"still here")
            await there.write_eof()
            assert await stream.readall() == b"still here"
            assert await there.read() == b""

    run(test())


def test_a_reset_reaches_the_reader_and_a_stop_the_writer(ends: Ends) -> None:
    async def test() -> None:
        async with ends.pair() as (client, server):
            stream = await client.open_stream()
            await stream.write(b"x")
            there = await server.accept_stream()
            assert await there.read() == b"x"
            reading = asyncio.create_task(there.read())
            await asyncio.sleep(0)
            stream.reset(5)
            with pytest.raises(tcpls.StreamReset) as reset:
                await reading
            assert (reset.value.code, reset.value.stopped) == (5, False)
            stream.stop_sending(6)
            with pytest.raises(tcpls.StreamReset) as stopped:
                while True:
                    await there.write(bytes(1 << 16))
            assert (stopped.value.code, stopped.value.stopped) == (6, True)

    run(test())


def test_a_stop_wakes_a_writer_whose_reader_is_over_already(ends: Ends) -> None:
    """Both halves are over with the stop, and the writer that waits for room is still told."""

    async def test() -> None:
        async with ends.pair() as (client, server):
            stream = await client.open_stream()
            await stream.write_eof()
            there = await server.accept_stream()
            assert await there.read() == b""
            await there.write(bytes(16 << 20))
            writing = asyncio.create_task(there.write(b"more"))
            await client.ping()
            assert not writing.done()
            stream.stop_sending(9)
            with pytest.raises(tcpls.StreamReset):
                await writing
            with pytest.raises(tcpls.ApiMisuse):
                await there.write(b"and more")

    run(test())


# Waiting ends with the session.


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ["end", "reset"])
def test_everybody_who_waits_is_told_of_a_loss(ends: Ends, mode: tcpls.Negotiate, how: str) -> None:
    """A reader, a writer without room, and whoever waits for a stream or an answer: none of them hangs."""

    async def idle(session: tcpls.Session) -> None:
        await session.wait_ended()
        await session.abort()

    async def test() -> None:
        async with ends.serve(idle, stream_limit=1) as server, Relay(server.port) as relay:
            session = await ends.connect(relay.port, tcpls=mode)
            stream = await session.open_stream()
            relay.open.clear()
            await stream.write(bytes(32 << 20))
            waiting: list[asyncio.Task[object]] = [
                asyncio.create_task(stream.write(b"x")),
                asyncio.create_task(stream.read()),
            ]
            if session.tcpls:
                operations = [session.open_stream, session.accept_stream, session.ping]
                waiting += [asyncio.create_task(operation()) for operation in operations]
            await asyncio.sleep(0)
            getattr(relay, how)()
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [tcpls.SessionLost] * len(waiting)
            before = asyncio.get_running_loop().time()
            with pytest.raises(tcpls.SessionLost):
                await session.close()
            assert asyncio.get_running_loop().time() - before < 1.0

    run(test())


def test_a_close_of_the_peer_is_no_loss(ends: Ends) -> None:
    async def bye(session: tcpls.Session) -> None:
        await session.close(3, "enough")

    async def test() -> None:
        async with ends.serve(bye) as server, ends.connect(server.port) as session:
            ended = await session.wait_ended()
            assert isinstance(ended, tcpls.SessionClosed)
            assert (ended.code, ended.reason) == (3, "enough")
            with pytest.raises(tcpls.SessionClosed):
                await session.accept_stream()

    run(test())


def test_what_came_before_the_loss_is_read_first(ends: Ends) -> None:
    async def test() -> None:
        async with ends.pair() as (client, server):
            stream = await client.open_stream()
            await stream.write(b"before")
            there = await server.accept_stream()
            await client.ping()
            await client.abort()
            assert isinstance(await server.wait_ended(), tcpls.SessionLost)
            assert await there.read() == b"before"
            with pytest.raises(tcpls.SessionLost):
                await there.read()

    run(test())


# Cancellation.


@pytest.mark.parametrize("mode", MODES)
def test_cancelled_operations_lose_nothing(ends: Ends, mode: tcpls.Negotiate) -> None:
    async def test() -> None:
        async with ends.pair(tcpls=mode) as (client, server):
            stream = await client.open_stream()
            await stream.write(b"first")
            there = await server.accept_stream()
            assert await there.read() == b"first"
            for operation in (there.read, server.accept_stream, server.wait_ended):
                task = asyncio.create_task(operation())
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
            await stream.write(b"second")
            assert await there.read() == b"second"
            await stream.write(bytes(32 << 20))
            blocked = asyncio.create_task(stream.write(b"never taken"))
            await asyncio.sleep(0)
            blocked.cancel()
            await asyncio.wait([blocked])
            await stream.write_eof()
            size = 0
            while data := await there.read():
                size += len(data)
            assert size == 32 << 20

    run(test())


def test_a_ping_that_was_given_up_disturbs_no_other(ends: Ends) -> None:
    async def test() -> None:
        async with ends.serve(echo) as server, ends.connect(server.port) as session:
            given_up = asyncio.create_task(session.ping())
            await asyncio.sleep(0)
            given_up.cancel()
            assert all(0 <= rtt < 10 for rtt in await asyncio.gather(*(session.ping() for _ in range(20))))

    run(test())


def test_a_handshake_can_be_cancelled_at_both_ends(ends: Ends) -> None:
    async def test() -> None:
        silent = socket.create_server(("127.0.0.1", 0))
        before = descriptors()
        connecting = asyncio.create_task(ends.connect(silent.getsockname()[1])._open())
        async with ends.serve(echo) as server:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"\x16\x03\x01")
            await writer.drain()
            await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.wait([connecting])
        writer.close()
        await asyncio.wait([asyncio.create_task(writer.wait_closed())])
        assert connecting.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert descriptors() == before
        silent.close()

    run(test())


def test_a_slow_handshake_is_given_up(ends: Ends) -> None:
    async def test() -> None:
        async with ends.serve(echo, handshake_timeout=0.1) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"\x16\x03\x01")
            assert await reader.read() == b""
            writer.close()
            async with ends.connect(server.port) as session:
                await session.ping()

    run(test())


# Many.


def test_five_hundred_streams_under_a_limit_of_256(ends: Ends) -> None:
    async def one(session: tcpls.Session, number: int) -> bool:
        stream = await session.open_stream()
        message = number.to_bytes(4, "big") * 50
        await stream.write(message)
        await stream.write_eof()
        return await stream.readall() == message

    async def test() -> None:
        async with ends.serve(echo) as server, ends.connect(server.port) as session:
            assert all(await asyncio.gather(*(one(session, number) for number in range(500))))

    run(test())


def test_sixteen_streams_of_four_mebibytes_both_ways(ends: Ends) -> None:
    data = os.urandom(4 << 20)

    async def one(session: tcpls.Session, number: int) -> None:
        stream = await session.open_stream()
        sent, received = hashlib.sha256(), hashlib.sha256()

        async def send() -> None:
            for start in range(0, len(data), 1 << 16):
                piece = bytes([number]) + data[start + 1 : start + (1 << 16)]
                sent.update(piece)
                await stream.write(piece)
            await stream.write_eof()

        sending = asyncio.create_task(send())
        async for piece in stream:
            received.update(piece)
        await sending
        assert received.digest() == sent.digest()

    async def test() -> None:
        async with ends.serve(echo) as server, ends.connect(server.port) as session:
            await asyncio.gather(*(one(session, number) for number in range(16)))

    run(test())


def test_streams_that_nobody_accepts_are_bounded(ends: Ends) -> None:
    """The peer fills all streams that it may open: what it can make this end hold is the session's window."""

    async def test() -> None:
        settings = {"session_window": 1 << 20, "stream_window": 1 << 16, "stream_limit": 64}
        async with ends.pair(server=settings) as (client, server):
            streams = [await client.open_stream() for _ in range(64)]
            for stream in streams:
                await stream.write(bytes(1 << 17))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.open_stream()
            await client.ping()
            first = await server.accept_stream()
            assert len(await first.readexactly(1 << 10)) == 1 << 10
            assert server._core._streams.received <= 1 << 20  # type: ignore[attr-defined]

    run(test())


def test_a_reader_that_reads_nothing_costs_neither_end_memory(ends: Ends) -> None:
    """A GiB is offered; both ends hold what windows and buffers allow."""
    piece = bytes(1 << 18)

    def resident() -> int:
        fields = Path("/proc/self/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    async def test() -> None:
        async with ends.pair() as (client, server):
            stream = await client.open_stream()
            await stream.write(b"x")
            await server.accept_stream()
            gc.collect()
            before, offered = resident(), 0
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    while offered < 1 << 30:
                        await stream.write(piece)
                        offered += len(piece)
            assert offered < 16 << 20
            assert resident() - before < 48 << 20

    run(test())


# Nothing is left.


def test_two_hundred_sessions_leave_nothing(ends: Ends) -> None:
    async def test() -> None:
        async with ends.serve(echo, session=tcpls.SessionConfig(close_timeout=1.0, reconnect_timeout=1.0)) as server:
            async with ends.connect(server.port) as session:
                await session.ping()
            tasks, before = asyncio.all_tasks(), descriptors()

            async def one(number: int) -> None:
                session = await ends.connect(server.port, tcpls=MODES[number % 2])
                stream = await session.open_stream()
                await stream.write(bytes(100_000))
                if number % 3 == 0:
                    await session.abort()
                elif number % 3 == 1:
                    await session.close(1)
                else:
                    await stream.write_eof()
                    assert len(await stream.readall()) == 100_000
                    await session.close()

            for batch in range(10):
                await asyncio.gather(*(one(20 * batch + number) for number in range(20)))
            while server._sessions:
                await asyncio.wait(list(server._sessions))
            assert asyncio.all_tasks() == tasks
            assert descriptors() == before
        gc.collect()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(test())


def test_a_server_that_is_closed_ends_its_sessions(ends: Ends) -> None:
    async def test() -> None:
        async with ends.serve(echo) as server:
            session = await ends.connect(server.port)
            stream = await session.open_stream()
            await stream.write(b"x")
            assert await stream.read() == b"x"
        ended = await session.wait_ended()
        assert isinstance(ended, tcpls.SessionClosed)
        assert ended.code == 1
        await session.close(1)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(test())


def test_a_handler_that_fails_ends_its_session_alone(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    async def fail_once(session: tcpls.Session) -> None:
        stream = await session.accept_stream()
        if await stream.read() == b"fail":
            raise ZeroDivisionError
        await stream.write(b"fine")

    async def test() -> None:
        async with ends.serve(fail_once) as server:
            for message, code in ((b"fail", 1), (b"work", None)):
                session = await ends.connect(server.port)
                await (await session.open_stream()).write(message)
                ended = await session.wait_ended()
                assert (ended.code if isinstance(ended, tcpls.SessionClosed) else None) == code
                await session.close(1)

    run(test())
    assert "the handler failed" in caplog.text


def test_sessions_are_bounded_whatever_the_number_of_listeners(ends: Ends) -> None:
    async def test() -> None:
        config = tcpls.ServerConfig(certificate=ends.certificate, private_key=ends.key, max_sessions=1)
        async with tcpls.serve(echo, None, 0, config=config) as server:
            for host in ("127.0.0.1", "::1")[: len(server.addresses)]:
                client = tcpls.ClientConfig(ca_file=ends.ca, server_name="localhost")
                async with tcpls.connect(host, server.port, config=client) as session:
                    waiting = asyncio.create_task(ends.connect(server.port)._open())
                    await session.ping()
                    assert not waiting.done()
                await (await waiting).close()

    run(test())


# Mistakes of the caller.


def test_mistakes_are_told_as_such(ends: Ends) -> None:
    async def test() -> None:
        async with ends.pair() as (client, server):
            stream = await client.open_stream()
            await stream.write_eof()
            await stream.write_eof()
            with pytest.raises(tcpls.ApiMisuse):
                await stream.write(b"behind the end")
            there = await server.accept_stream()
            assert await there.read() == b""
            await there.write_eof()
            assert await stream.read() == b""
            with pytest.raises(tcpls.ApiMisuse):
                await stream.write(b"to a stream that is over")
            with pytest.raises(tcpls.ApiMisuse):
                await there.read(0)
            for operation in (client.accept_stream, (await client.open_stream()).read):
                first = asyncio.create_task(operation())
                await asyncio.sleep(0)
                with pytest.raises(tcpls.ApiMisuse):
                    await operation()
                first.cancel()
            with pytest.raises(tcpls.ApiMisuse):
                await client.close(1 << 32)
            await client.ping()

    run(test())


def test_ordinary_tls_has_one_stream_and_says_so(ends: Ends) -> None:
    async def test() -> None:
        async with ends.serve(echo) as server, ends.connect(server.port, tcpls=tcpls.Negotiate.OFF) as session:
            stream = await session.open_stream()
            for refused in (session.open_stream(), session.ping(), session.set_peer_option("user_timeout", 1)):
                with pytest.raises(tcpls.NotNegotiated):
                    await refused
            await stream.write_eof()
            assert await stream.readall() == b""

    run(test())


@pytest.mark.parametrize("host", ["a" * 70 + ".example", "no-such-host.invalid"])
def test_a_name_that_is_none_is_a_failure_to_connect(host: str) -> None:
    async def test() -> None:
        with pytest.raises(tcpls.ConnectError):
            await tcpls.connect(host, 1, config=tcpls.ClientConfig(verify=False, server_name="localhost"))

    run(test())
