"""Connections fail in every way at every moment: each stream's bytes arrive once and in order, or its owner is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tcpls.errors import SessionLost
from tcpls.protocol.base import SessionConfig
from tcpls.protocol.events import (
    SessionEnded,
)
from tests.sim.network import CLIENT, SERVER, Host, Link, Network, network

SIZE = 2_000_000
PATIENCE = SessionConfig().path_timeout
RTT = 0.02


def content(size: int, salt: int = 0) -> bytes:
    block = bytes((at * 31 + salt * 7) % 251 for at in range(251))
    return (block * (size // 251 + 1))[:size]


def start(connections: int = 1, **given: object) -> Network:
    """A session that is at rest, with so many connections, each over a link of its own."""
    net = network(**given)  # type: ignore[arg-type]
    net.advance(0.2)
    for number in range(1, connections):
        net.hosts[CLIENT].dial(net.links[number])
        net.advance(0.2)
    for host in net.hosts:
        assert len(host.core.paths.live) == connections
        assert all(each.usable for each in host.core.paths.live.values())
    return net


def has(host: Host, stream_id: int) -> Callable[[], bool]:
    return lambda: stream_id in host.got and host.got[stream_id].ended


def transfer(net: Network, sender: int, size: int = SIZE, streams: int = 1) -> dict[int, bytes]:
    sent = {}
    for number in range(streams):
        data = content(size, number + 3 * sender)
        sent[net.hosts[sender].open(data)] = data
    return sent


def finish(net: Network, sender: int, sent: dict[int, bytes], limit: float = 60.0) -> float:
    """Until all has arrived; how long it took."""
    receiver = net.hosts[1 - sender]
    took = net.run(lambda: all(has(receiver, number)() for number in sent), limit)
    for number, data in sent.items():
        assert receiver.got[number].data == data
    return took


def close(net: Network, closer: int = CLIENT) -> None:
    """Both ends know that all was delivered, and nothing is left."""
    net.hosts[closer].core.close(0, "", net.now)
    net.run(lambda: all(host.core.ended for host in net.hosts), 60)
    net.advance(10.0)
    for host in net.hosts:
        (ended,) = (event for event in host.events if isinstance(event, SessionEnded))
        assert ended.error is None
        assert host.core.delivered
        assert not host.failures
        assert not host.ends


BREAKS: dict[str, Callable[[Link], None]] = {
    "a reset that both see": lambda link: link.reset(),
    "a reset that the client sees": lambda link: link.reset(seen_by=(CLIENT,)),
    "a reset that the server sees": lambda link: link.reset(seen_by=(SERVER,)),
    "a reset that the client sees, and its TCP answers": lambda link: link.reset(seen_by=(CLIENT,), silent=False),
    "a reset that the server sees, and its TCP answers": lambda link: link.reset(seen_by=(SERVER,), silent=False),
    "a blackhole": lambda link: link.blackhole(),
    "a blackhole for the client's segments": lambda link: link.blackhole(CLIENT),
    "a blackhole for the server's segments": lambda link: link.blackhole(SERVER),
    "a stall": lambda link: link.stall(),
}
both_directions = pytest.mark.parametrize("sender", [CLIENT, SERVER], ids=["up", "down"])
every_break = pytest.mark.parametrize("name", BREAKS)


@both_directions
@every_break
@pytest.mark.parametrize("connections", [1, 2], ids=["break-before-make", "make-before-break"])
def test_a_transfer_survives_its_connection(connections: int, name: str, sender: int) -> None:
    net = start(connections)
    sent = transfer(net, sender)
    net.advance(0.07)
    BREAKS[name](net.links[0])
    took = finish(net, sender, sent)
    seen = name == "a reset that both see"
    # At 10 MB/s it takes 0.2 s. Silence is found out after `path_timeout`, half of which may have to pass before the
    # other end stops asking for more.
    assert took < 0.3 + 4 * RTT if seen else took < 1.5 * PATIENCE + 0.5 + 4 * RTT
    close(net, sender)


@pytest.mark.parametrize("seed", range(3))
@every_break
def test_many_streams_both_ways_survive(name: str, seed: int) -> None:
    net = start(2, seed=seed)
    up, down = transfer(net, CLIENT, 400_000, 8), transfer(net, SERVER, 400_000, 8)
    net.advance(0.05 + 0.03 * seed)
    BREAKS[name](net.links[0])
    finish(net, CLIENT, up)
    finish(net, SERVER, down)
    close(net)


@both_directions
@every_break
def test_a_chain_of_failures(name: str, sender: int) -> None:
    net = start(3, links=4)
    sent = transfer(net, sender, 4_000_000)
    for link in net.links[:3]:
        net.advance(0.1)
        BREAKS[name](link)
    finish(net, sender, sent)
    close(net)


@both_directions
@every_break
@pytest.mark.parametrize("when", [0.0, 0.01, 0.02, 0.03, 0.04, 0.05])
def test_the_second_connection_fails_while_it_joins(when: float, name: str, sender: int) -> None:
    net = start(1, links=3)
    sent = transfer(net, sender)
    net.advance(0.05)
    net.links[0].reset()
    net.hosts[CLIENT].dial(net.links[1])
    net.advance(when)
    BREAKS[name](net.links[1])
    finish(net, sender, sent)
    close(net)


@both_directions
@every_break
@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_the_connection_fails_with_the_end_of_a_stream(size: int, name: str, sender: int) -> None:
    for connections in (1, 2):
        net = start(connections)
        # A client that waits for nothing has no reason to look whether the server is there.
        net.hosts[CLIENT].open(b"a question", finish=False)
        net.advance(1.0)
        sent = transfer(net, sender, size)
        for host in net.hosts:
            host.pump()
        BREAKS[name](net.links[0])
        finish(net, sender, sent)
        # An end without data, alone in its record, goes again as well.
        other = net.hosts[sender].open(b"some", finish=False)
        net.run(lambda other=other, net=net: other in net.hosts[1 - sender].got)  # type: ignore[misc]
        net.links[0].heal()
        net.advance(5.0)
        net.hosts[sender].core.finish(other)
        net.hosts[sender].pump()
        BREAKS[name](net.links[-1])
        net.run(has(net.hosts[1 - sender], other))
        close(net)


@every_break
def test_each_end_loses_another_connection_at_once(name: str) -> None:
    net = start(2, links=3)
    up, down = transfer(net, CLIENT), transfer(net, SERVER)
    net.advance(0.1)
    net.links[0].reset(seen_by=(CLIENT,))
    net.links[1].reset(seen_by=(SERVER,))
    finish(net, CLIENT, up)
    finish(net, SERVER, down)
    close(net)


def test_a_server_that_cannot_reach_a_client_without_streams_is_told() -> None:
    net = start()
    net.links[0].blackhole()
    stream_id = net.hosts[SERVER].open(content(1000))
    net.run(lambda: net.hosts[SERVER].core.ended, 40)
    (ended,) = (event for event in net.hosts[SERVER].events if isinstance(event, SessionEnded))
    assert isinstance(ended.error, SessionLost)
    assert ended.error.unacknowledged == {stream_id: (0, 1000)}
