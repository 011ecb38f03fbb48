"""How a session with several connections ends, or goes on without any for a while."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tcpls.errors import SessionClosed, SessionLost
from tcpls.protocol.base import SessionConfig
from tcpls.protocol.events import (
    ConnectionJoined,
    ConnectionLost,
    ConnectionRecovered,
    ConnectionSuspected,
    SessionEnded,
)
from tcpls.protocol.parameters import Parameters
from tests.sim.network import CLIENT, KEPT, SERVER, Host, ids
from tests.sim.test_failover import BREAKS, both_directions, close, content, every_break, finish, has, start, transfer


def end_of(host: Host) -> Exception | None:
    host.pump()
    (ended,) = (event for event in host.events if isinstance(event, SessionEnded))
    return ended.error


# The close.


@both_directions
@every_break
@pytest.mark.parametrize("when", [0.0, 0.011, 0.021, 0.031])
def test_a_connection_fails_with_the_close_on_it(when: float, name: str, sender: int) -> None:
    """Either Session Close may be what is lost: the first one, or the one that answers it."""
    for connections in (2, 3):
        net = start(connections, links=4)
        sent = transfer(net, sender, 50_000)
        finish(net, sender, sent)
        net.advance(1.0)
        net.hosts[sender].core.close(0, "", net.now)
        net.hosts[sender].pump()
        net.advance(when)
        BREAKS[name](net.links[0])
        net.run(lambda net=net: all(host.core.ended for host in net.hosts), 60)  # type: ignore[misc]
        for host in net.hosts:
            assert end_of(host) is None
            assert host.core.delivered


@both_directions
def test_a_close_does_not_overtake_what_is_on_its_way_elsewhere(sender: int) -> None:
    net = start(2)
    host, other = net.hosts[sender], net.hosts[1 - sender]
    # The first one would be the first to have room for the close.
    net.links[1].delay, net.links[1].rate = 0.4, 1e5
    first, second = sorted(host.core.paths.live)
    slow, fast = content(100_000), content(1000, 1)
    slow_id, fast_id = host.open(slow), host.open(fast)
    host.core.pin_stream(slow_id, second)
    host.core.pin_stream(fast_id, first)
    host.pump()
    host.core.close(0, "", net.now)
    net.run(lambda: host.core.ended and other.core.ended)
    assert other.got[slow_id].data == slow
    assert other.got[fast_id].data == fast
    for each in net.hosts:
        assert end_of(each) is None
        assert each.core.delivered


@both_directions
def test_both_ends_close_with_data_on_every_connection(sender: int) -> None:
    net = start(3, links=3)
    for host in net.hosts:
        host.core.paths.use("round-robin")
    sent = transfer(net, sender, 3_000_000, 3)
    finish(net, sender, sent)
    for host in net.hosts:
        host.core.close(0, "", net.now)
    net.run(lambda: all(host.core.ended for host in net.hosts))
    assert [end_of(host) for host in net.hosts] == [None, None]
    assert all(host.core.delivered for host in net.hosts)


@every_break
def test_a_close_with_a_code_ends_both_whatever_happens_to_the_other_connections(name: str) -> None:
    net = start(2)
    transfer(net, CLIENT)
    net.advance(0.05)
    BREAKS[name](net.links[1])
    net.hosts[SERVER].core.close(7, "enough", net.now)
    net.run(lambda: all(host.core.ended for host in net.hosts), 60)
    for host in net.hosts:
        error = end_of(host)
        assert isinstance(error, SessionClosed)
        assert error.code == 7


# Without a connection.


@both_directions
def test_a_session_without_a_connection_is_lost_in_the_end_and_says_what_is_missing(sender: int) -> None:
    config = SessionConfig(reconnect_timeout=5.0)
    net = start(2, client=config, server=config)
    host = net.hosts[sender]
    host.reads = True
    whole = transfer(net, sender, 1000)
    finish(net, sender, whole)
    net.advance(1.0)
    (cut,) = transfer(net, sender, 3_000_000)
    net.advance(0.1)
    for link in net.links:
        link.blackhole()
        link.reset()
    began = net.now
    net.run(lambda: all(each.core.ended for each in net.hosts), 60)
    assert 4.9 < net.now - began < 5.2
    error = end_of(host)
    assert isinstance(error, SessionLost)
    # What was finished and acknowledged is not among it.
    assert list(error.unacknowledged) == [cut]
    acknowledged, written = error.unacknowledged[cut]
    received = net.hosts[1 - sender].got[cut]
    assert 0 < acknowledged <= len(received.data) <= written
    assert isinstance(received.error, SessionLost)


@pytest.mark.parametrize("name", ["a blackhole", "a stall"])
def test_a_session_on_a_connection_that_stays_silent_is_lost_in_the_end(name: str) -> None:
    config = SessionConfig(reconnect_timeout=5.0)
    net = start(1, links=1, client=config, server=config)
    transfer(net, CLIENT)
    net.advance(0.1)
    BREAKS[name](net.links[0])
    net.run(lambda: net.hosts[CLIENT].core.ended, 10)
    assert ids(net.hosts[CLIENT], ConnectionSuspected) == [0]
    assert isinstance(end_of(net.hosts[CLIENT]), SessionLost)


def test_a_connection_that_is_heard_again_in_time_goes_on() -> None:
    net = start(1, links=1)
    sent = transfer(net, CLIENT)
    net.advance(0.1)
    net.links[0].blackhole()
    net.advance(10.0)
    net.links[0].heal()
    finish(net, CLIENT, sent)
    client = net.hosts[CLIENT]
    assert ids(client, ConnectionSuspected) == ids(client, ConnectionRecovered) == [0]
    assert not ids(client, ConnectionLost) + ids(client, ConnectionJoined)
    close(net)


@both_directions
def test_a_session_waits_for_a_connection_as_long_as_it_says(sender: int) -> None:
    net = start(2)
    sent = transfer(net, sender)
    net.advance(0.1)
    for link in net.links:
        link.blackhole()
        link.reset()
    net.advance(25.0)
    assert not any(host.core.ended for host in net.hosts)
    net.links[1].heal()
    assert finish(net, sender, sent) < 1.0
    close(net)


def test_connections_that_never_join_do_not_make_a_session_wait_for_ever() -> None:
    """Each dial comes through, and what follows does not."""
    config = SessionConfig(reconnect_timeout=5.0)
    net = start(1, links=2, client=config, server=config)
    client = net.hosts[CLIENT]
    transfer(net, CLIENT)
    net.advance(0.05)
    server, joins = net.hosts[SERVER], []
    greet = server.greet
    server.greet = lambda end: None  # type: ignore[method-assign]
    net.links[0].reset()
    began = net.now
    net.run(lambda: client.core.ended, 30)
    joins = [each for each in net.connections if each is not net.connections[0]]
    assert len(joins) > 1
    assert 4.9 < net.now - began < 5.5
    server.greet = greet  # type: ignore[method-assign]


def test_the_idle_timeout_runs_without_a_connection_too() -> None:
    local = replace(KEPT, idle_timeout=3000)
    net = start(2, local=local)
    transfer(net, CLIENT)
    net.advance(0.1)
    for link in net.links:
        link.blackhole()
        link.reset()
    began = net.now
    net.run(lambda: all(host.core.ended for host in net.hosts), 10)
    assert 2.5 < net.now - began < 3.5
    error = end_of(net.hosts[CLIENT])
    assert isinstance(error, SessionLost)
    assert error.unacknowledged


def test_failing_over_does_not_count_as_idle() -> None:
    local = replace(KEPT, idle_timeout=4000)
    net = start(2, local=local)
    sent = transfer(net, CLIENT, 6_000_000)
    for number in range(3):
        net.advance(0.1)
        net.links[number % 2].blackhole()
        net.advance(3.0)
        net.links[number % 2].heal()
    finish(net, CLIENT, sent)
    close(net)


def test_a_session_whose_peer_keeps_nothing_is_lost_with_its_connection() -> None:
    plain = Parameters(session_window=1 << 22, stream_window=1 << 21, stream_limit=10, max_connections=4)
    net = start(2, local=plain)
    transfer(net, CLIENT)
    net.advance(0.05)
    net.links[0].reset()
    net.advance(0.1)
    for host in net.hosts:
        assert isinstance(end_of(host), SessionLost)


def test_a_connection_that_did_not_join_costs_such_a_session_nothing() -> None:
    plain = Parameters(session_window=1 << 22, stream_window=1 << 21, stream_limit=10, max_connections=4)
    net = start(1, local=plain)
    sent = transfer(net, CLIENT)
    net.hosts[CLIENT].dial(net.links[1])
    net.advance(0.025)
    net.links[1].reset()
    finish(net, CLIENT, sent)
    close(net)


# The writing side is held up.


@both_directions
@every_break
def test_a_connection_fails_while_nothing_can_be_written(name: str, sender: int) -> None:
    net = start(2)
    receiver = net.hosts[1 - sender]
    receiver.reads = False
    sent = transfer(net, sender, 12_000_000, 1)
    # The windows are full, and so is everything behind them.
    net.advance(3.0)
    assert net.hosts[sender].flows
    BREAKS[name](net.links[0])
    net.advance(0.01)
    receiver.reads = True
    finish(net, sender, sent)
    close(net)


@both_directions
@every_break
def test_a_connection_fails_while_the_socket_is_full(name: str, sender: int) -> None:
    net = start(2, rate=2e5)
    net.hosts[sender].core.paths.use("round-robin")
    sent = transfer(net, sender, 600_000, 3)
    net.advance(0.5)
    assert any(each.blocked for each in net.hosts[sender].core.paths.live.values())
    BREAKS[name](net.links[0])
    finish(net, sender, sent)
    close(net)


@both_directions
def test_what_goes_again_does_not_wait_behind_streams_that_may_send_nothing_new(sender: int) -> None:
    config = SessionConfig(unacknowledged_limit=100_000)
    net = start(2, client=config, server=config)
    net.links[0].blackhole()
    sent = transfer(net, sender, 100_000)
    net.advance(0.05)
    assert net.hosts[sender].core._streams.unacknowledged == 100_000
    sent |= {net.hosts[sender].open(content(50_000, 9)): content(50_000, 9)}
    net.advance(0.05)
    net.links[0].reset()
    finish(net, sender, sent)
    close(net)


# A peer without extensions.


@both_directions
@every_break
@pytest.mark.parametrize("connections", [1, 2])
def test_a_draft_peer_fails_over(connections: int, name: str, sender: int) -> None:
    net = start(connections, draft=True)
    net.hosts[CLIENT].open(b"hello", finish=False)
    net.advance(0.1)
    sent = transfer(net, sender, 1_000_000, 2)
    net.advance(0.05)
    BREAKS[name](net.links[0])
    finish(net, sender, sent)
    close(net)


@both_directions
def test_a_draft_peer_migrates(sender: int) -> None:
    net = start(2, draft=True)
    sent = transfer(net, sender, 2_000_000)
    net.advance(0.05)
    net.hosts[CLIENT].core.paths.retire(0)
    finish(net, sender, sent)
    net.advance(1.0)
    assert [len(host.core.paths.live) for host in net.hosts] == [1, 1]
    assert has(net.hosts[1 - sender], next(iter(sent)))()
    close(net)
