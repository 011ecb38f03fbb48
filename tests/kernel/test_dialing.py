"""Races over paths that swallow packets, in namespaces of the tests' own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from tcpls.aio.dialing import ATTEMPT_DELAY, Race, open_tcp
from tcpls.aio.endpoints import Candidate, Endpoint, candidates
from tests.kernel.namespaces import Namespace, namespace

pytestmark = pytest.mark.kernel

FIRST, SECOND = ("192.0.2.1", "192.0.2.2"), ("198.51.100.1", "198.51.100.2")
"""The addresses of the near and the far end of two cables."""


async def connect(candidate: Candidate) -> socket.socket:
    return await open_tcp(candidate, lambda sock: None)


@pytest.fixture
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    """Two machines with two cables between them: interfaces `one` and `two` at both."""
    with namespace("near") as near, namespace("far") as far:
        for name, addresses in (("one", FIRST), ("two", SECOND)):
            near.ip("link", "add", name, "type", "veth", "peer", "name", name, "netns", far.name)
            for space, address in zip((near, far), addresses, strict=True):
                space.ip("addr", "add", f"{address}/24", "dev", name)
                space.ip("link", "set", name, "up")
        yield near, far


@pytest.fixture
def listener(ends: tuple[Namespace, Namespace]) -> Iterator[socket.socket]:
    """At the far end, on all of its addresses."""
    made: list[socket.socket] = []
    ends[1].inside(lambda: made.append(socket.create_server(("0.0.0.0", 0))))
    yield made[0]
    made[0].close()


def test_a_dead_interface_costs_a_quarter_of_a_second_and_follows_when_it_heals(
    ends: tuple[Namespace, Namespace], listener: socket.socket
) -> None:
    near, far = ends
    port = listener.getsockname()[1]
    # What the far end answers over the first cable goes nowhere.
    far.ip("route", "add", "blackhole", f"{FIRST[0]}/32")

    async def test() -> None:
        loop = asyncio.get_running_loop()
        remotes = [Endpoint.parse(address, port) for _, address in (FIRST, SECOND)]
        found = await candidates("far", port, remotes=remotes, locals_=("one", "two"), timeout=30.0)
        begun = loop.time()
        async with Race(found, connect=connect, timeout=30.0, late_timeout=30.0) as race:
            first = await race.first()
            assert ATTEMPT_DELAY - 0.001 <= loop.time() - begun < 10.0
            assert Endpoint.of(first.sock.getsockname()).address == Endpoint.parse(SECOND[0], 0).address
            assert Endpoint.of(first.sock.getpeername()) == first.candidate.remote == remotes[1]
            await loop.run_in_executor(None, lambda: far.ip("route", "del", "blackhole", f"{FIRST[0]}/32"))
            # With the next SYN, a second after the first.
            late = [connected async for connected in race]
        assert [connected.candidate for connected in late] == found[:1]
        assert late[0].sock.getsockname()[0] == FIRST[0]
        for connected in (first, *late):
            connected.sock.close()

    near.run(test())


def test_ipv6_that_goes_nowhere_gives_way_to_ipv4(ends: tuple[Namespace, Namespace], listener: socket.socket) -> None:
    near, _ = ends
    near.ip("addr", "add", "2001:db8::1/64", "dev", "one", "nodad")
    # Nobody has this address, and nobody is asked who has.
    near.ip("neigh", "add", "2001:db8::2", "lladdr", "02:00:00:00:00:01", "dev", "one", "nud", "permanent")
    port = listener.getsockname()[1]

    async def test() -> None:
        remotes = [Endpoint.parse(f"[2001:db8::2]:{port}", 0), Endpoint.parse(FIRST[1], port)]
        found = await candidates("far", port, remotes=remotes, timeout=30.0)
        async with Race(found, connect=connect, timeout=30.0) as race:
            first = await race.first()
            assert first.candidate == Candidate(remotes[1])
            assert race.failures == []
            first.sock.close()

    near.run(test())
