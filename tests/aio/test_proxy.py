"""The proxy over sockets on loopback: a front, a gateway, and programs and targets that are this test's."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import pairwise
from typing import Any

import pytest

import tcpls
from tcpls.proxy import gateway as gateway_module
from tcpls.proxy.egress import Egress, is_own
from tcpls.proxy.front import Front, proxy_dialogue
from tcpls.proxy.gateway import Gateway, Limits
from tcpls.proxy.message import ALPN, LATE, Code, TargetRefused, receive_answer, write_open
from tcpls.proxy.rules import EgressRules
from tcpls.proxy.target import Target
from tcpls.proxy.tunnel import Tunnel
from tests.aio.ends import Ends, Relay, run

PIECE = bytes(range(256)) * 256
WINDOW = 1 << 18

ONE_CONNECTION: dict[str, Any] = {"failover": False, "max_connections": 1}
"""Sessions that end with their connection."""

Program = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Proxy:
    """What a test talks to: a port with SOCKS, one that leads to the target, and both ends' objects."""

    socks: int
    forward: int
    tunnel: Tunnel
    gateway: Gateway
    gateway_port: int
    target_port: int
    targets: asyncio.Queue[Program] = field(default_factory=asyncio.Queue)

    async def open(self) -> Program:
        return await asyncio.open_connection("127.0.0.1", self.forward)

    async def both(self) -> tuple[Program, Program]:
        """A program's connection, and the target's end of it."""
        program = await self.open()
        return program, await self.targets.get()

    async def ask(self, host: bytes, port: int, command: int = 1) -> tuple[int, Program]:
        """SOCKS 5's reply to a name."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.socks)
        request = bytes((5, 1, 0, 5, command, 0, 3, len(host))) + host + port.to_bytes(2, "big")
        writer.write(request)
        assert await reader.readexactly(2) == b"\5\0"
        reply = await reader.readexactly(10)
        return reply[1], (reader, writer)


def settings(connections: int) -> dict[str, Any]:
    return {
        "alpn": (ALPN,),
        "stream_window": WINDOW,
        "session_window": 2 * WINDOW * connections,
        "stream_limit": connections,
        "session": tcpls.SessionConfig(send_buffer=WINDOW),
    }


@asynccontextmanager
async def proxied(
    ends: Ends,
    *,
    rules: tuple[str, ...] = (),
    limits: Limits | None = None,
    connections: int = 256,
    through: Callable[[int], Awaitable[int]] | None = None,
    timeout: float = 20.0,
    more: dict[str, Any] | None = None,
) -> AsyncIterator[Proxy]:
    """`through`: gives the port at which the gateway is reached, by its own. `more` is for both configurations."""
    both = {**settings(connections), **(more or {})}
    arrived: asyncio.Queue[Program] = asyncio.Queue()

    async def target(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.put_nowait((reader, writer))

    listening = await asyncio.start_server(target, "127.0.0.1", 0, backlog=300, limit=1 << 16)
    target_port = listening.sockets[0].getsockname()[1]
    served = Gateway(EgressRules((f"127.0.0.1:{target_port}", *rules)), limits, anonymous=True)
    async with listening, ends.serve(served, **both) as server:
        port = server.port if through is None else await through(server.port)

        async def dial() -> tcpls.Session:
            return await ends.connect(port, **both)

        tunnel = Tunnel(dial, timeout=timeout)
        front = Front(tunnel, connections=connections)
        try:
            (socks,) = front.listen("127.0.0.1", 0, proxy_dialogue(None))
            (forward,) = front.listen("127.0.0.1", 0, Target.of("127.0.0.1", target_port))
            yield Proxy(
                int(socks.rpartition(":")[2]),
                int(forward.rpartition(":")[2]),
                tunnel,
                served,
                server.port,
                target_port,
                arrived,
            )
        finally:
            await front.close()
            with contextlib.suppress(tcpls.TCPLSError):
                await tunnel.close()


def close(*programs: Program) -> None:
    for _, writer in programs:
        writer.close()


def reset(program: Program) -> None:
    sock = program[1].get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    program[1].transport.abort()


async def read_to_reset(reader: asyncio.StreamReader) -> None:
    with pytest.raises(ConnectionResetError):
        while await reader.read(1 << 16):
            pass
        pytest.fail("it ended in order")


def test_bytes_go_both_ways_and_each_end_is_carried_by_itself(ends: Ends) -> None:
    async def test() -> None:
        async with proxied(ends) as proxy:
            program, target = await proxy.both()
            program[1].write(b"question")
            program[1].write_eof()
            assert await target[0].read() == b"question"
            # One direction is over; the other goes on.
            target[1].write(b"answer")
            assert await program[0].readexactly(6) == b"answer"
            target[1].write(PIECE)
            target[1].write_eof()
            assert await program[0].read() == PIECE
            close(program, target)

    run(test())


def test_the_target_may_end_first(ends: Ends) -> None:
    async def test() -> None:
        async with proxied(ends) as proxy:
            program, target = await proxy.both()
            target[1].write_eof()
            assert await program[0].read() == b""
            program[1].write(PIECE)
            program[1].write_eof()
            assert await target[0].read() == PIECE
            close(program, target)

    run(test())


@pytest.mark.parametrize("whose", ["program", "target"])
def test_a_reset_is_carried_as_a_reset(ends: Ends, whose: str) -> None:
    async def test() -> None:
        async with proxied(ends) as proxy:
            program, target = await proxy.both()
            program[1].write(b"x")
            await target[0].readexactly(1)
            resets, hears = (program, target) if whose == "program" else (target, program)
            reset(resets)
            await read_to_reset(hears[0])
            close(hears)
            # The session has nothing to do with it.
            again = await proxy.both()
            close(*again)

    run(test())


def test_a_program_that_leaves_while_the_target_talks_has_the_target_told(ends: Ends) -> None:
    async def test() -> None:
        async with proxied(ends) as proxy:
            program, target = await proxy.both()
            program[1].close()
            assert await target[0].read() == b""
            with pytest.raises(ConnectionError):
                while True:
                    target[1].write(PIECE)
                    await target[1].drain()
            close(target)

    run(test())


def test_two_hundred_connections_at_once(ends: Ends) -> None:
    async def one(proxy: Proxy, number: int) -> None:
        reader, writer = await proxy.open()
        said = number.to_bytes(4, "big") * 1000
        writer.write(said)
        writer.write_eof()
        assert await reader.read() == said[::-1]
        writer.close()

    async def answer(proxy: Proxy) -> None:
        async def reversed_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.read())[::-1])
            writer.close()

        async with asyncio.TaskGroup() as tasks:
            # All of them are there before any is answered.
            for reader, writer in [await proxy.targets.get() for _ in range(200)]:
                tasks.create_task(reversed_back(reader, writer))

    async def test() -> None:
        async with proxied(ends) as proxy, asyncio.TaskGroup() as tasks:
            tasks.create_task(answer(proxy))
            for number in range(200):
                tasks.create_task(one(proxy, number))

    run(test())


async def fill(writer: asyncio.StreamWriter, most: int) -> int:
    """Writes until nobody takes any more for a while, or `most`; returns how much went."""
    sent = 0
    writer.transport.set_write_buffer_limits(0)
    while sent < most:
        writer.write(PIECE)
        try:
            async with asyncio.timeout(1.0):
                await writer.drain()
        except TimeoutError:
            break
        sent += len(PIECE)
    return sent


@pytest.mark.parametrize("slow", ["program", "target"])
def test_a_slow_reader_slows_its_writer_down_and_nobody_else(ends: Ends, slow: str) -> None:
    """What is on its way is bounded, by windows and sockets' buffers: not by how much is sent."""

    async def test() -> None:
        async with proxied(ends, connections=4) as proxy:
            stuck = [await proxy.both() for _ in range(3)]
            for program, target in stuck:
                writer = program[1] if slow == "target" else target[1]
                assert await fill(writer, 64 << 20) < 32 << 20
            # The session's window is all streams' together, so that there is room for this one.
            program, target = await proxy.both()
            for writer, reader in ((program[1], target[0]), (target[1], program[0])):
                writer.write(PIECE)
                assert await reader.readexactly(len(PIECE)) == PIECE
            for each in stuck:
                close(*each)
            close(program, target)

    run(test())


def test_names_are_resolved_at_the_gateway_and_socks_says_what_became_of_it(ends: Ends) -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            closed = listener.getsockname()[1]
        rules = ("localhost:*", f"127.0.0.1:{closed}", "nothing.invalid:1")
        async with proxied(ends, rules=rules) as proxy:
            reply, program = await proxy.ask(b"localhost", proxy.target_port)
            target = await proxy.targets.get()
            assert reply == 0
            program[1].write(b"here")
            assert await target[0].readexactly(4) == b"here"
            close(program, target)
            for name, port, expected in (
                (b"localhost", closed, 5),
                (b"127.0.0.2", closed, 2),
                (b"example.org", 443, 2),
                (b"nothing.invalid", 1, 4),
                (b"169.254.169.254", 80, 2),
                (b"2130706434", proxy.target_port, 2),
            ):
                reply, program = await proxy.ask(name, port)
                assert (name, reply) == (name, expected)
                assert await program[0].read() == b""
                close(program)

    run(test())


def test_a_name_is_looked_up_once_and_what_was_judged_is_what_is_connected_to(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads to an allowed address the first time, and to another ever after."""
    asked: list[str] = []

    def rebinding(host: str, port: object, *rest: object, **more: object) -> list[Any]:
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "127.0.0.3"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]

    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            egress = Egress(EgressRules((f"127.0.0.1:{port}",)), 10.0)
            monkeypatch.setattr(socket, "getaddrinfo", rebinding)
            sock, address = await egress.connect(Target.of("rebound.example", port))
            assert asked == ["rebound.example"]
            assert address == IPv4Address("127.0.0.1") and sock.getpeername() == ("127.0.0.1", port)
            sock.close()
            with pytest.raises(TargetRefused) as refused:
                await egress.connect(Target.of("rebound.example", port))
            assert refused.value.code is Code.NOT_ALLOWED

    run(test())


def test_a_name_that_no_rule_could_allow_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("it was looked up"))
        with pytest.raises(TargetRefused) as refused:
            await Egress(EgressRules(("*.internal:443",)), 10.0).connect(Target.of("secret.example", 443))
        assert refused.value.code is Code.NOT_ALLOWED

    run(test())


def test_this_machine_s_own_addresses_are_known() -> None:
    assert is_own(IPv4Address("127.0.0.1"))
    assert not is_own(IPv4Address("192.0.2.1"))


def test_an_address_that_cannot_be_judged_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_descriptors(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", out_of_descriptors)
    assert is_own(IPv4Address("192.0.2.1"))


def test_a_target_that_does_not_answer_is_given_up_in_time() -> None:
    async def test() -> None:
        # A listener whose backlog is full takes no connection and refuses none.
        with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
            port = listener.getsockname()[1]
            waiting = [socket.socket() for _ in range(4)]
            for sock in waiting:
                sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    sock.connect(("127.0.0.1", port))
            with pytest.raises(TargetRefused) as refused:
                await Egress(EgressRules((f"127.0.0.1:{port}",)), 0.5).connect(Target.of("127.0.0.1", port))
            assert refused.value.code is Code.TIMED_OUT
            for sock in waiting:
                sock.close()

    run(test())


def test_limits_of_one_client_and_of_all(ends: Ends) -> None:
    async def test() -> None:
        for limits in (Limits(per_client=2), Limits(connections=2)):
            async with proxied(ends, limits=limits) as proxy:
                first, second = await proxy.both(), await proxy.both()
                with pytest.raises(TargetRefused) as refused:
                    await proxy.tunnel.open(Target.of("127.0.0.1", proxy.target_port))
                assert refused.value.code is Code.TOO_MANY
                close(*first)
                while True:
                    # As soon as the gateway has seen the end of it.
                    with contextlib.suppress(TargetRefused):
                        await proxy.tunnel.open(Target.of("127.0.0.1", proxy.target_port))
                        break
                close(*second)

    run(test())


def test_more_programs_than_are_carried_wait_for_their_turn(ends: Ends) -> None:
    async def test() -> None:
        async with proxied(ends, connections=1) as proxy:
            first = await proxy.both()
            waiting = await proxy.open()
            waiting[1].write(b"mine")
            # The first is still served, and the other one not yet.
            first[0][1].write(b"x")
            assert await first[1][0].readexactly(1) == b"x"
            assert proxy.targets.empty()
            close(*first)
            target = await proxy.targets.get()
            assert await target[0].readexactly(4) == b"mine"
            close(waiting, target)

    run(test())


def test_a_name_is_listened_on_by_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def two(host: str, port: int, *rest: object, **more: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{last}", port)) for last in (1, 2, 1)]

    async def test() -> None:
        front = Front(Tunnel(pytest.fail))
        with monkeypatch.context() as patched:
            patched.setattr(socket, "getaddrinfo", two)
            first, second = front.listen("both.example", 0, proxy_dialogue(None))
            port = first.rpartition(":")[2]
            assert (first, second) == (f"127.0.0.1:{port}", f"127.0.0.2:{port}")
            with pytest.raises(tcpls.ConnectError, match="cannot listen on both"):
                front.listen("both.example", int(port), proxy_dialogue(None))
        await front.close()
        with socket.create_server(("127.0.0.2", int(port))):
            pass

    run(test())


def test_what_goes_idle_is_reset(ends: Ends) -> None:
    async def test() -> None:
        async with proxied(ends, limits=Limits(idle_timeout=0.5)) as proxy:
            program, target = await proxy.both()
            await asyncio.gather(read_to_reset(program[0]), read_to_reset(target[0]))
            close(program, target)

    run(test())


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"\2\1\4\x7f\0\0\1\0\1", Code.NOT_UNDERSTOOD),
        (b"\1\2\4\x7f\0\0\1\0\1", Code.ADDRESS_TYPE),
        (b"\1\3\1 \0\1", Code.NOT_UNDERSTOOD),
        (b"\1\3", Code.NOT_UNDERSTOOD),
    ],
)
def test_an_opening_that_is_not_understood_is_answered(ends: Ends, said: bytes, code: Code) -> None:
    async def test() -> None:
        async with (
            ends.serve(Gateway(EgressRules(()), anonymous=True), **settings(4)) as server,
            ends.connect(server.port, **settings(4)) as session,
        ):
            stream = await session.open_stream()
            await stream.write(said)
            await stream.write_eof()
            assert (await receive_answer(stream)).code is code
            assert await stream.read() == b""

    run(test())


def test_a_stream_that_is_not_opened_in_time_is_given_up(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "OPENING_SECONDS", 0.5)

    async def test() -> None:
        async with (
            ends.serve(Gateway(EgressRules(()), anonymous=True), **settings(4)) as server,
            ends.connect(server.port, **settings(4)) as session,
        ):
            stream = await session.open_stream()
            await stream.write(write_open(Target.of("a.example", 1))[:5])
            with pytest.raises(tcpls.StreamReset) as given_up:
                await stream.read()
            assert given_up.value.code == LATE

    run(test())


@pytest.mark.parametrize(
    ("ours", "known", "why"),
    [
        ({"alpn": ("http/1.1",)}, True, "this gateway speaks tcpls-proxy/1"),
        ({}, False, "this gateway serves clients that it knows"),
    ],
    ids=["another-protocol", "nobody"],
)
def test_a_session_of_another_kind_is_closed_with_a_reason(
    ends: Ends, ours: dict[str, Any], known: bool, why: str
) -> None:
    async def test() -> None:
        served = Gateway(EgressRules(()), anonymous=known)
        async with ends.serve(served, alpn=(ALPN, "http/1.1")) as server:
            session = await ends.connect(server.port, **{"alpn": (ALPN,), **ours})
            error = await session.wait_ended()
            assert isinstance(error, tcpls.SessionClosed) and why in str(error)
            await session.abort()

    run(test())


def test_a_server_that_is_no_gateway_is_told_from_one(ends: Ends) -> None:
    async def handler(session: tcpls.Session) -> None:
        await session.wait_ended()

    async def test() -> None:
        async with ends.serve(handler) as server:
            tunnel = Tunnel(lambda: ends.connect(server.port, alpn=(ALPN,))._open())
            with pytest.raises(tcpls.NotNegotiated, match="no gateway"):
                await tunnel.start()
            await tunnel.close()

    run(test())


def test_a_lost_session_resets_what_was_open_and_is_followed_by_another(
    ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def test() -> None:
        relays: list[Relay] = []
        async with contextlib.AsyncExitStack() as stack:

            async def through(port: int) -> int:
                relays.append(await stack.enter_async_context(Relay(port)))
                return relays[0].port

            async with proxied(ends, through=through, more=ONE_CONNECTION) as proxy:
                program, target = await proxy.both()
                program[1].write(b"x")
                await target[0].readexactly(1)
                for cut in (relays[0].reset, relays[0].end):
                    cut()
                    await asyncio.gather(read_to_reset(program[0]), read_to_reset(target[0]))
                    close(program, target)
                    program, target = await proxy.both()
                    program[1].write(b"again")
                    assert await target[0].readexactly(5) == b"again"
                # Of the loss, and not of what this end did about it.
                assert "1 bytes to the target, 0 back" in caplog.text
                assert "the gateway ended" not in caplog.text
                close(program, target)

    run(test())


def test_a_connection_survives_the_loss_of_its_path(ends: Ends) -> None:
    """The program and the target notice nothing: every byte comes once, in order."""

    async def send(writer: asyncio.StreamWriter, count: int) -> None:
        for number in range(count):
            writer.write(number.to_bytes(4, "big") * 16384)
            await writer.drain()
        writer.write_eof()

    async def receive(reader: asyncio.StreamReader, cut: Callable[[], None], count: int) -> None:
        for number in range(count):
            assert await reader.readexactly(65536) == number.to_bytes(4, "big") * 16384
            if number in (20, 120):
                cut()
        assert await reader.read() == b""

    async def test() -> None:
        relays: list[Relay] = []
        async with contextlib.AsyncExitStack() as stack:

            async def through(port: int) -> int:
                relays.append(await stack.enter_async_context(Relay(port)))
                return relays[0].port

            async with proxied(ends, through=through) as proxy:
                program, target = await proxy.both()
                session = proxy.tunnel._link and proxy.tunnel._link.session
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(send(target[1], 200))
                    tasks.create_task(receive(program[0], relays[0].reset, 200))
                    tasks.create_task(send(program[1], 200))
                    tasks.create_task(receive(target[0], lambda: None, 200))
                assert session is not None and not session.ended
                # Two ends of the first connection, and of each that took its place.
                assert len(relays[0].writers) >= 6
                close(program, target)

    run(test())


def test_a_stream_that_is_wanted_the_moment_a_session_ends_gets_another(ends: Ends) -> None:
    async def test() -> None:
        async with proxied(ends) as proxy:
            session = await proxy.tunnel.start()
            await session.abort()
            # Nobody who waits for the end has heard of it yet.
            _, link = await proxy.tunnel.open(Target.of("127.0.0.1", proxy.target_port))
            assert link.session is not session

    run(test())


def test_a_gateway_that_is_away_is_waited_for_and_said_to_be_away(ends: Ends) -> None:
    async def test() -> None:
        attempts: list[float] = []

        async def dial() -> tcpls.Session:
            attempts.append(asyncio.get_running_loop().time())
            raise tcpls.ConnectError("nobody is there")

        tunnel = Tunnel(dial, timeout=1.5)
        front = Front(tunnel)
        port = int(front.listen("127.0.0.1", 0, proxy_dialogue(None))[0].rpartition(":")[2])
        replies = []
        for _ in range(4):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"\5\1\0\5\1\0\3\x01a\0\1")
            await reader.readexactly(2)
            replies.append((await reader.readexactly(10))[1])
            writer.close()
        # Either there is no session, or there is none in time.
        assert set(replies) <= {1, 6} and replies[0] == 1
        pauses = [after - before for before, after in pairwise(attempts)]
        assert pauses and pauses == sorted(pauses) and pauses[0] >= 0.25
        await front.close()
        await tunnel.close()

    run(test())


def test_a_program_that_says_nothing_or_nonsense_is_let_go(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tcpls.proxy.front.DIALOGUE_SECONDS", 0.5)

    async def test() -> None:
        async with proxied(ends) as proxy:
            for said in (b"", b"\5", b"\5\1\0", b"\5\1\0\5\1\0\3\xff", b"\4\1", b"CONNECT", b"\x16\3\1", b"\0" * 5000):
                reader, writer = await asyncio.open_connection("127.0.0.1", proxy.socks)
                writer.write(said)
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() in (b"", b"\5\0")
                writer.close()
            reply, program = await proxy.ask(b"127.0.0.1", proxy.target_port)
            assert reply == 0
            close(program, await proxy.targets.get())

    run(test())


def test_what_a_program_says_at_once_arrives(ends: Ends) -> None:
    """Programs that do not wait for the answer of SOCKS or HTTP."""

    async def test() -> None:
        async with proxied(ends) as proxy:
            port = proxy.target_port.to_bytes(2, "big")
            for said, told in (
                (b"\5\1\0\5\1\0\1\x7f\0\0\1" + port, b"\5\0\5\0\0\1\0\0\0\0\0\0"),
                (b"\4\1" + port + b"\x7f\0\0\1\0", b"\0\x5a\0\0\0\0\0\0"),
                (
                    b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: a\r\n\r\n" % proxy.target_port,
                    b"HTTP/1.1 200 Connection established\r\n\r\n",
                ),
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", proxy.socks)
                writer.write(said + b"at once")
                target = await proxy.targets.get()
                assert await target[0].readexactly(7) == b"at once"
                assert await reader.readexactly(len(told)) == told
                target[1].write(b"back")
                assert await reader.readexactly(4) == b"back"
                close(target, (reader, writer))

    run(test())


def test_no_task_outlives_either_end(ends: Ends) -> None:
    async def test() -> None:
        before = asyncio.all_tasks()
        async with proxied(ends) as proxy:
            program, target = await proxy.both()
            half = await asyncio.open_connection("127.0.0.1", proxy.socks)
        await asyncio.gather(read_to_reset(program[0]), read_to_reset(target[0]))
        close(program, target, half)
        rest = [task for task in asyncio.all_tasks() - before if "tcpls" in repr(task)]
        assert not rest

    run(test())
