"""Races of connections: their pace by made-up attempts, the rest over real sockets of loopback."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tcpls
from tcpls.aio.dialing import Connected, Race, open_tcp
from tcpls.aio.endpoints import MAX_CANDIDATES, Candidate, Endpoint, candidates, pair, resolve
from tests.aio.ends import Ends, run
from tests.aio.holes import hole

A, B, C = (Candidate(Endpoint(ip_address(f"192.0.2.{n}"), 443)) for n in (1, 2, 3))
NEVER = 3600.0


class Attempts:
    """Attempts that end when the test says so, with sockets that nothing is connected to."""

    def __init__(self) -> None:
        self.started: list[tuple[Candidate, float]] = []
        self.ends: dict[Candidate, asyncio.Future[None]] = {}
        self.made: list[socket.socket] = []
        self._starts = {one: asyncio.Event() for one in (A, B, C)}

    def connect(self, candidate: Candidate) -> Awaitable[socket.socket]:
        loop = asyncio.get_running_loop()
        self.started.append((candidate, loop.time()))
        self.ends[candidate] = loop.create_future()
        return self._attempt(candidate)

    async def _attempt(self, candidate: Candidate) -> socket.socket:
        self._starts[candidate].set()
        await self.ends[candidate]
        self.made.append(socket.socket())
        return self.made[-1]

    async def begun(self, candidate: Candidate) -> None:
        await self._starts[candidate].wait()

    def succeed(self, candidate: Candidate) -> None:
        self.ends[candidate].set_result(None)

    def fail(self, candidate: Candidate, error: Exception) -> None:
        self.ends[candidate].set_exception(error)

    @property
    def order(self) -> list[Candidate]:
        return [candidate for candidate, _ in self.started]


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_next_attempt_starts_at_once_when_one_fails() -> None:
    async def test() -> None:
        attempts = Attempts()
        async with Race((A, B, C), connect=attempts.connect, delay=NEVER, timeout=NEVER) as race:
            first = asyncio.create_task(race.first())
            await attempts.begun(A)
            attempts.fail(A, OSError(111, ""))
            await attempts.begun(B)
            attempts.succeed(B)
            connected = await first
            assert connected == Connected(B, attempts.made[0])
            assert attempts.order == [A, B]
            assert race.failures == [(A, "Connection refused")]
        connected.sock.close()

    run(test())


def test_the_next_attempt_starts_after_the_delay_and_not_before() -> None:
    async def test() -> None:
        attempts = Attempts()
        async with Race((A, B, C), connect=attempts.connect, delay=0.05, timeout=NEVER) as race:
            first = asyncio.create_task(race.first())
            await attempts.begun(C)
            starts = [when for _, when in attempts.started]
            # The clock of the loop may be ahead of its timers by their resolution.
            assert all(later - earlier >= 0.049 for earlier, later in pairwise(starts))
            attempts.succeed(A)
            (await first).sock.close()

    run(test())


def test_slower_attempts_are_given_as_they_complete_and_no_more_are_started() -> None:
    async def test() -> None:
        attempts = Attempts()
        async with Race((A, B, C), connect=attempts.connect, delay=0.01, timeout=NEVER, late_timeout=NEVER) as race:
            first = asyncio.create_task(race.first())
            await attempts.begun(C)
            attempts.succeed(B)
            winner = await first
            late: list[Candidate] = []
            attempts.succeed(C)
            attempts.fail(A, OSError(113, ""))
            async for connected in race:
                late.append(connected.candidate)
                connected.sock.close()
            assert (winner.candidate, late) == (B, [C])
            assert race.failures == [(A, "No route to host")]
        winner.sock.close()

        attempts = Attempts()
        async with Race((A, B, C), connect=attempts.connect, delay=NEVER, timeout=NEVER, late_timeout=NEVER) as race:
            first = asyncio.create_task(race.first())
            await attempts.begun(A)
            attempts.succeed(A)
            (await first).sock.close()
            assert [connected async for connected in race] == []
            assert attempts.order == [A]

    run(test())


def test_slower_attempts_have_a_bounded_time_and_leave_nothing() -> None:
    async def test() -> None:
        before, tasks = _descriptors(), asyncio.all_tasks()
        attempts = Attempts()
        async with Race((A, B), connect=attempts.connect, delay=0.01, timeout=NEVER, late_timeout=0.05) as race:
            first = asyncio.create_task(race.first())
            await attempts.begun(B)
            attempts.succeed(A)
            (await first).sock.close()
            assert [connected async for connected in race] == []
        assert attempts.ends[B].cancelled()
        assert (_descriptors(), asyncio.all_tasks()) == (before, tasks)

    run(test())


def test_two_that_succeed_together_are_both_given_or_both_closed() -> None:
    async def test() -> None:
        before = _descriptors()
        for taken in (True, False):
            attempts = Attempts()
            async with Race((A, B), connect=attempts.connect, delay=0.01, timeout=NEVER, late_timeout=NEVER) as race:
                first = asyncio.create_task(race.first())
                await attempts.begun(B)
                attempts.succeed(B)
                attempts.succeed(A)
                winner = await first
                assert winner.candidate == A
                winner.sock.close()
                if taken:
                    async for connected in race:
                        assert connected.candidate == B
                        connected.sock.close()
            assert _descriptors() == before

    run(test())


@pytest.mark.parametrize("late", [False, True], ids=["before the end", "in the same turn as the end"])
def test_cancelling_closes_everything(late: bool) -> None:
    async def test() -> None:
        before, tasks = _descriptors(), asyncio.all_tasks()
        attempts = Attempts()

        async def use() -> None:
            async with Race((A, B), connect=attempts.connect, delay=0.01, timeout=NEVER) as race:
                await race.first()

        user = asyncio.create_task(use())
        await attempts.begun(B)
        if late:
            attempts.succeed(A)
            attempts.succeed(B)
        user.cancel()
        await asyncio.gather(user, return_exceptions=True)
        assert user.cancelled()
        assert (_descriptors(), asyncio.all_tasks()) == (before, tasks)

    run(test())


def test_one_error_tells_of_every_address() -> None:
    from_here = Candidate(B.remote, ip_address("198.51.100.7"))

    async def connect(candidate: Candidate) -> socket.socket:
        if candidate != C:
            raise OSError({A: 111, from_here: 101}[candidate], "")
        await asyncio.Event().wait()
        raise AssertionError

    async def test() -> None:
        async with Race((A, from_here, C), connect=connect, delay=NEVER, timeout=0.2) as race:
            with pytest.raises(tcpls.ConnectError) as raised:
                await race.first()
        assert str(raised.value) == (
            "192.0.2.1 port 443: Connection refused; "
            "192.0.2.2 port 443 from 198.51.100.7: Network is unreachable; "
            "192.0.2.3 port 443: no answer in 0.2 s"
        )

    run(test())


def test_a_name_with_very_many_addresses_is_tried_at_some() -> None:
    """Pairing is quadratic, and who answers for the name decides how many there are."""

    async def test() -> None:
        remotes = [Endpoint(ip_address(0x0A000000 + n), 443) for n in range(50_000)]
        begun = time.process_time()
        found = await candidates("many", 443, remotes=remotes, locals_=("192.0.2.1", "192.0.2.2"), timeout=30.0)
        assert found == pair(remotes[:MAX_CANDIDATES], [ip_address("192.0.2.1"), ip_address("192.0.2.2")])[:24]
        assert time.process_time() - begun < 5.0

    run(test())


moments = st.lists(st.sampled_from(["succeed", "fail", "hang"]), min_size=1, max_size=3)


@settings(max_examples=60)
@given(moments, st.permutations([A, B, C]), st.integers(0, 3), st.sampled_from(["take", "leave", "cancel"]))
def test_whatever_happens_each_connection_is_given_out_or_closed(
    outcomes: list[str], order: list[Candidate], before: int, then: str
) -> None:
    """Attempts end in any order, some before the user takes what there is, leaves, or is cancelled, and some after."""

    async def test() -> None:
        attempts = Attempts()
        tried = [A, B, C][: len(outcomes)]
        what = dict(zip(tried, outcomes, strict=True))
        given_out: list[socket.socket] = []
        stop = asyncio.Event()

        async def use() -> None:
            async with Race(tried, connect=attempts.connect, delay=0.0, timeout=0.05, late_timeout=0.02) as race:
                given_out.append((await race.first()).sock)
                if then == "take":
                    async for connected in race:
                        given_out.append(connected.sock)
                await stop.wait()

        tasks = asyncio.all_tasks()
        user = asyncio.create_task(use())

        def end(some: list[Candidate]) -> None:
            for one in some:
                if one in attempts.ends and not attempts.ends[one].done():
                    if what[one] == "succeed":
                        attempts.succeed(one)
                    elif what[one] == "fail":
                        attempts.fail(one, OSError(111, ""))

        await attempts.begun(tried[-1]) if len(tried) == 1 else await asyncio.sleep(0.005)
        end([one for one in order[:before] if one in what])
        await asyncio.sleep(0)
        if then == "cancel":
            user.cancel()
        end([one for one in order[before:] if one in what])
        stop.set()
        (outcome,) = await asyncio.gather(user, return_exceptions=True)
        assert outcome is None or isinstance(outcome, asyncio.CancelledError | tcpls.ConnectError)
        assert set(given_out) == {sock for sock in attempts.made if sock.fileno() >= 0}
        assert len(set(given_out)) == len(given_out)
        assert asyncio.all_tasks() == tasks
        for sock in given_out:
            sock.close()

    run(test())


def test_what_is_no_matter_of_an_address_ends_the_race() -> None:
    async def test() -> None:
        attempts = Attempts()
        before, tasks = _descriptors(), asyncio.all_tasks()
        with pytest.raises(tcpls.KernelUnavailable):
            async with Race((A, B), connect=attempts.connect, delay=NEVER, timeout=NEVER) as race:
                first = asyncio.create_task(race.first())
                await attempts.begun(A)
                attempts.fail(A, tcpls.KernelUnavailable("congestion control none", "it is not there"))
                await first
        assert attempts.order == [A]
        del first
        assert (_descriptors(), asyncio.all_tasks()) == (before, tasks)
        async with Race((), connect=attempts.connect, timeout=NEVER) as race:
            with pytest.raises(tcpls.ConnectError, match="there is no address"):
                await race.first()

    run(test())


def test_a_black_hole_that_opens_is_late() -> None:
    """The slower connection comes with the second SYN, a second after the first."""

    async def connect(candidate: Candidate) -> socket.socket:
        return await open_tcp(candidate, lambda sock: None)

    async def test() -> None:
        before, tasks = _descriptors(), asyncio.all_tasks()
        with hole() as dead, socket.create_server(("127.0.0.1", 0)) as alive:
            slow, quick = Candidate(dead.endpoint), Candidate(Endpoint.of(alive.getsockname()))
            async with Race((slow, quick), connect=connect, delay=0.02, timeout=30.0, late_timeout=30.0) as race:
                first = await race.first()
                assert first.candidate == quick
                dead.open()
                late = [connected async for connected in race]
            assert [connected.candidate for connected in late] == [slow]
            for connected in (first, *late):
                assert Endpoint.of(connected.sock.getpeername()) == connected.candidate.remote
                connected.sock.close()
        assert (_descriptors(), asyncio.all_tasks()) == (before, tasks)

    run(test())


def test_a_session_goes_round_a_black_hole(ends: Ends) -> None:
    async def test() -> None:
        async def handler(session: tcpls.Session) -> None:
            await session.wait_ended()

        with hole() as dead, hole("::1") as dead_too:
            async with ends.serve(handler) as server:
                remotes = (dead_too.endpoint, dead.endpoint, Endpoint.parse("127.0.0.1", server.port))
                before = _descriptors()
                async with ends.connect(server.port, remotes=remotes, attempt_delay=0.02) as session:
                    assert session.info().connections[0].remote == f"127.0.0.1:{server.port}"
                    # Both attempts that were under way are over: what is left is this connection, at both ends.
                    assert _descriptors() == before + 2

    run(test())


@pytest.mark.parametrize(("locals_", "expected"), [(("127.0.0.77",), "127.0.0.77"), (("lo",), "127.0.0.1")])
def test_a_session_comes_from_where_it_is_told(ends: Ends, locals_: tuple[str, ...], expected: str) -> None:
    async def test() -> None:
        peer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def handler(session: tcpls.Session) -> None:
            peer.set_result(session.info().connections[0].remote)
            await session.wait_ended()

        async with ends.serve(handler) as server, ends.connect(server.port, locals=locals_) as session:
            assert session.info().connections[0].local.rpartition(":")[0] == expected
            assert (await peer).rpartition(":")[0] == expected

    run(test())


@pytest.mark.parametrize(
    ("settings", "told", "number"),
    [
        ({"locals": ("192.0.2.254",)}, "127.0.0.1 port 9 from 192.0.2.254: Cannot assign requested address", 99),
        ({"locals": ("2001:db8::7",)}, "no local address is of a kind with those of 127.0.0.1", 0),
        ({"locals": ("none0",)}, "none0: there is no such interface, or it is down, or has no address", 0),
        (
            {"remotes": (Endpoint.parse("127.0.0.1:1", 0), Endpoint.parse("[::1]:2", 0))},
            "127.0.0.1 port 1: Connection refused; ::1 port 2: Connection refused",
            111,
        ),
    ],
    ids=["not this machine's", "another family", "no interface", "nobody listens"],
)
def test_why_nothing_could_be_tried_or_reached(ends: Ends, settings: dict[str, Any], told: str, number: int) -> None:
    async def test() -> None:
        before = _descriptors()
        with pytest.raises(tcpls.ConnectError) as raised:
            await ends.connect(9, **settings)
        assert str(raised.value) == told
        assert raised.value.errno == number
        assert _descriptors() == before

    run(test())


def test_a_name_that_does_not_resolve() -> None:
    async def test() -> None:
        with pytest.raises(tcpls.ConnectError, match="is not a host name"):
            await resolve("a" * 70 + ".example", 443, timeout=30.0)
        with pytest.raises(tcpls.ConnectError, match=r"^nobody\.invalid: "):
            await resolve("nobody.invalid", 443, timeout=30.0)

    run(test())


def test_many_connections_of_one_local_address_share_ports() -> None:
    """The port is chosen by connect and not by bind: there is no more of them than the peers have use for."""

    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            candidate = Candidate(Endpoint.of(listener.getsockname()), ip_address("127.0.0.5"))

            def look(sock: socket.socket) -> None:
                assert sock.getsockname()[1] == 0

            sock = await open_tcp(candidate, look)
            assert sock.getsockname()[0] == "127.0.0.5"
            assert sock.getsockopt(socket.IPPROTO_IP, 24) == 1
            assert not os.get_inheritable(sock.fileno())
            sock.close()

    run(test())
