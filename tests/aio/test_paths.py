"""Several connections of one session over real sockets: joins, failures, migration, and who may not join."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import Any, cast

import pytest

import tcpls
from tcpls.aio.paths import ClientPaths, ServerPaths
from tcpls.aio.tokens import TokenRegistry
from tcpls.aio.transport import RecordTransport
from tcpls.protocol.events import ConnectionClosed, ConnectionJoined, ConnectionLost
from tests.aio.ends import Ends, Relay, run
from tests.engine import ENGINE

SIZE = 24 << 20
PIECE = 1 << 18


async def echo(session: tcpls.Session) -> None:
    async with asyncio.TaskGroup() as tasks:
        async for stream in session.streams():
            tasks.create_task(_echo(stream))


async def _echo(stream: tcpls.Stream) -> None:
    async for chunk in stream:
        await stream.write(chunk)
    await stream.write_eof()


async def talk(session: tcpls.Session, size: int = SIZE) -> None:
    """Sends random bytes, and has them come back."""
    stream = await session.open_stream()
    data = os.urandom(size)

    async def write() -> None:
        for start in range(0, size, PIECE):
            await stream.write(data[start : start + PIECE])
        await stream.write_eof()

    writing = asyncio.create_task(write())
    digest, count = hashlib.sha256(), 0
    async for chunk in stream:
        digest.update(chunk)
        count += len(chunk)
    await writing
    assert count == size
    assert digest.digest() == hashlib.sha256(data).digest()


def transports(session: tcpls.Session) -> list[RecordTransport]:
    return session._driver.open_transports()


def test_a_session_outlives_one_connection_after_the_other(ends: Ends) -> None:
    """The network resets them all, again and again."""

    async def test() -> None:
        async with ends.serve(echo) as server, Relay(server.port) as relay, ends.connect(relay.port) as session:
            await session.ping()
            resets = 0
            while resets < 4:
                talking = asyncio.gather(*(talk(session, SIZE // 2) for _ in range(4)))
                while not talking.done():
                    await asyncio.wait((talking,), timeout=0.1)
                    if not talking.done():
                        relay.reset()
                        resets += 1
                await talking

    run(test())


def test_make_before_break(ends: Ends) -> None:
    """With another connection at hand, the failure of one is no pause at all."""

    async def test() -> None:
        async with ends.serve(echo) as server, Relay(server.port) as relay, ends.connect(relay.port) as session:
            second = await session.add_path()
            assert [path.state for path in session.paths] == ["open", "open"]
            events = session.events()
            waiting = asyncio.ensure_future(anext(events))
            talking = asyncio.create_task(talk(session))
            await asyncio.sleep(0.05)
            relay.reset(0)
            assert await waiting == ConnectionLost(0, "Connection reset by peer")
            assert [path.connection_id for path in session.paths] == [second]
            await talking
            assert [path.connection_id for path in session.paths] == [second]
            await events.aclose()

    run(test())


@pytest.mark.parametrize("scheduler", ["lowest-rtt", "round-robin", "weighted"])
def test_several_at_a_time(ends: Ends, scheduler: str) -> None:
    async def test() -> None:
        serving = ends.serve(echo, scheduler=scheduler)
        async with serving as server, ends.connect(server.port, scheduler=scheduler) as session:
            await session.add_path()
            await session.add_path()
            await talk(session)
            if scheduler != "lowest-rtt":
                received = {each.connection_id: each.bytes_received for each in transports(session)}
                assert all(count > SIZE // 20 for count in received.values()), received
            assert session.scheduler == scheduler
            session.scheduler = "backup"
            await talk(session, SIZE // 4)

    run(test())


def test_migration_back_and_forth(ends: Ends) -> None:
    async def test() -> None:
        async with ends.serve(echo) as server, ends.connect(server.port) as session:
            talking = asyncio.create_task(talk(session))
            seen: list[Any] = []

            async def watch() -> None:
                async for event in session.events():
                    seen.append(event)

            watching = asyncio.create_task(watch())
            numbers = [0]
            for turn in range(1, 5):
                numbers.append(await session.migrate(local=f"127.0.0.{1 + turn % 2}"))
                assert session.paths[-1].local.startswith(f"127.0.0.{1 + turn % 2}:")
            await talking
            while len(transports(session)) > 1:
                await asyncio.sleep(0.01)
            assert {each.connection_id for each in seen if isinstance(each, ConnectionClosed)} == set(numbers[:-1])
            assert not [each for each in seen if isinstance(each, ConnectionLost)]
            assert {each.connection_id for each in seen if isinstance(each, ConnectionJoined)} == set(numbers[1:])
            await session.close()
            await watching

    run(test())


def test_a_session_without_a_way_is_lost_and_says_what_is_missing(ends: Ends) -> None:
    async def test() -> None:
        async with ends.serve(echo) as server, Relay(server.port) as relay:
            session = await ends.connect(relay.port)
            await session.ping()
            relay.open.clear()
            stream = await session.open_stream()
            await stream.write(b"never acknowledged")
            await relay.refuse()
            relay.reset()
            error = await session.wait_ended()
            assert isinstance(error, tcpls.SessionLost)
            assert error.unacknowledged == {0: (0, 18)}
            await session.abort()

    run(test())


def test_without_failover_one_failure_is_the_end(ends: Ends) -> None:
    async def test() -> None:
        async with ends.serve(echo, failover=False) as server, Relay(server.port) as relay:
            session = await ends.connect(relay.port)
            await session.ping()
            relay.reset()
            assert isinstance(await session.wait_ended(), tcpls.SessionLost)
            await session.abort()

    run(test())


# Who may not join.


def hello(session: tcpls.Session, token: bytes) -> bytes:
    keeper = session._driver.paths
    assert isinstance(keeper, ClientPaths)
    return keeper._hello(token)


async def say(port: int, data: bytes) -> bytes:
    """What the server answers to these bytes, to its end or to the first silence of half a second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = b""
    try:
        async with asyncio.timeout(0.5):
            while data := await reader.read(1 << 16):
                answer += data
    except (TimeoutError, ConnectionResetError):
        pass
    writer.close()
    return answer


ILLEGAL_PARAMETER = bytes.fromhex("15 03 03 00 02 02 2f")


def test_tokens_that_are_none(ends: Ends) -> None:
    async def test() -> None:
        async with ends.serve(echo) as server, ends.connect(server.port) as session:
            await session.ping()
            paths = session._negotiated().paths
            token = paths.announcements.tokens[max(paths.announcements.tokens)]
            for wrong in (bytes(32), os.urandom(32), token[:-1] + bytes((token[-1] ^ 1,))):
                assert await say(server.port, hello(session, wrong)) == ILLEGAL_PARAMETER
            number = max(paths.announcements.tokens)
            assert await session.add_path() == number
            # Used, and said again.
            assert await say(server.port, hello(session, token)) == ILLEGAL_PARAMETER
            await talk(session, SIZE // 8)
            assert len(session.paths) == 2

    run(test())


def test_a_stolen_token_is_worth_nothing(ends: Ends) -> None:
    """Whoever sees a ClientHello can say it again, even first; but has no keys, and takes nothing from who has."""

    async def test() -> None:
        async with ends.serve(echo) as server, ends.connect(server.port) as session:
            await session.ping()
            tokens = session._negotiated().paths.announcements.tokens
            number, token = max(tokens.items())
            junk = b"\x17\x03\x03\x00\x40" + bytes(64)
            answer = await say(server.port, hello(session, token) + junk)
            # A ServerHello, change_cipher_spec, and no record under any key of the session.
            assert answer[0] == 22 and answer[5] == 2
            assert b"\x17\x03\x03" not in answer
            waiting, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(hello(session, token))
            assert (await waiting.read(1))[0] == 22
            assert await session.add_path() == number
            await talk(session, SIZE // 8)
            writer.close()

    run(test())


def test_no_more_connections_than_were_agreed_on(ends: Ends) -> None:
    async def test() -> None:
        async with ends.serve(echo, max_connections=3) as server, ends.connect(server.port) as session:
            await session.add_path()
            await session.add_path()
            with pytest.raises(tcpls.ConnectError):
                for _ in range(4):
                    await session.add_path(timeout=1.0)
            await talk(session, SIZE // 8)
            assert len(session.paths) <= 4

    run(test())


def test_a_session_of_one_connection_has_no_tokens(ends: Ends) -> None:
    async def test() -> None:
        async with ends.serve(echo, max_connections=1) as server, ends.connect(server.port) as session:
            await session.ping()
            with pytest.raises(tcpls.ConnectError, match="no token"):
                await session.add_path(timeout=0.5)

    run(test())


def test_hellos_of_one_session_have_nothing_in_common(ends: Ends) -> None:
    async def test() -> None:
        async with ends.serve(echo) as server, ends.connect(server.port) as session:
            await session.ping()
            tokens = list(session._negotiated().paths.announcements.tokens.values())
            first, second = (hello(session, token) for token in tokens[:2])
            assert len(first) == len(second)
            # Random, session id, key shares, tokens: no run of 8 bytes of these is in both.
            fresh = {first[at : at + 8] for at in range(11, 11 + 32 - 8)}
            assert not fresh & {second[at : at + 8] for at in range(len(second) - 8)}
            assert first[11:43] != second[11:43] and first[44:76] != second[44:76]

    run(test())


def test_a_token_comes_with_the_handshake(ends: Ends) -> None:
    """So that a session outlives its connection from the first moment on, in which it is one for both ends."""

    async def test() -> None:
        begun = asyncio.Event()

        async def handler(session: tcpls.Session) -> None:
            begun.set()
            await echo(session)

        async with ends.serve(handler) as server, Relay(server.port) as relay, ends.connect(relay.port) as session:
            assert session._negotiated().paths.announcements.tokens.keys() == {1}
            await begun.wait()
            relay.reset()
            await talk(session, SIZE // 8)
            assert [path.connection_id for path in session.paths] != [0]

    run(test())


def test_a_join_ahead_of_the_session_waits_for_it(ends: Ends) -> None:
    async def test() -> None:
        registry = TokenRegistry(ENGINE, patience=30.0)
        token = registry.reserve()
        assert registry.knows(token)
        finding = asyncio.create_task(registry.find(token))
        await asyncio.sleep(0)
        assert not finding.done()
        paths = cast(ServerPaths, object())
        registry.bind(token, paths, 1)
        claim = await finding
        assert claim is not None and claim.paths is paths and claim.connection_id == 1
        registry.forget(token)
        assert not registry.knows(token) and await registry.find(token) is None

    run(test())


def test_reservations_of_handshakes_that_failed_are_forgotten(ends: Ends) -> None:
    async def test() -> None:
        registry = TokenRegistry(ENGINE, patience=0.0)
        first = registry.reserve()
        finding = asyncio.create_task(registry.find(first))
        await asyncio.sleep(0)
        second = registry.reserve()
        assert not registry.knows(first) and registry.knows(second)
        assert await finding is None

    run(test())


@pytest.mark.parametrize("scheduler", ["backup", "weighted"])
def test_addresses_that_were_named_are_connections_from_the_start(ends: Ends, scheduler: str) -> None:
    async def test() -> None:
        here = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
        serving = ends.serve(echo, scheduler=scheduler)
        async with serving as server, ends.connect(server.port, locals=here, scheduler=scheduler) as session:
            while len(session.paths) < 3 or any(path.state != "open" for path in session.paths):
                await asyncio.sleep(0.01)
            assert {path.local.rpartition(":")[0] for path in session.paths} == set(here)
            assert sum(path.standby for path in session.paths) == (2 if scheduler == "backup" else 0)
            await talk(session, SIZE // 4)

    run(test())


def test_what_was_begun_for_a_session_ends_with_it(ends: Ends) -> None:
    async def test() -> None:
        async with ends.serve(echo) as server, Relay(server.port) as relay:
            before = asyncio.all_tasks()
            session = await ends.connect(relay.port, session=tcpls.SessionConfig(reconnect_timeout=60.0))
            await session.ping()
            await relay.refuse()
            relay.reset()
            while session.paths:
                await asyncio.sleep(0.01)
            await session.abort()
            assert not [task for task in asyncio.all_tasks() - before if "paths.py" in repr(task.get_coro())]
            assert not [task for task in asyncio.all_tasks() - before if "_reconnect" in repr(task)]

    run(test())
