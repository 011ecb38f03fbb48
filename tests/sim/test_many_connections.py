"""What a session does with several connections that work: migration, schedulers, pinned streams, joins, keys."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tcpls.errors import ApiMisuse
from tcpls.protocol.base import SessionConfig
from tcpls.protocol.connections import PathFacts
from tcpls.protocol.events import ConnectionClosed, ConnectionJoined, ConnectionLost, OptionAnswered, ProgramFinished
from tcpls.protocol.parameters import PROGRAMS_PINNED, Parameters, ProgramSupport
from tcpls.protocol.schedulers import SCHEDULERS
from tests.sim.network import CLIENT, HELLO, KEPT, SERVER, End, Host, Network, Tcp, ids
from tests.sim.test_failover import BREAKS, RTT, both_directions, close, content, every_break, finish, start, transfer

RATE = 10e6


def delivered_on(net: Network, sender: int) -> list[int]:
    """Bytes of every TCP connection that arrived, in the order in which they were made."""
    return [each.pipes[sender].delivered for each in net.connections]


# Migration.


@both_directions
@pytest.mark.parametrize("who", [CLIENT, SERVER], ids=["by the client", "by the server"])
def test_a_transfer_migrates_back_and_forth_and_nothing_is_sent_twice(who: int, sender: int) -> None:
    net = start(2)
    client = net.hosts[CLIENT]
    sent = transfer(net, sender, 12_000_000)
    for number in range(4):
        net.advance(0.2)
        before = sum(delivered_on(net, sender))
        net.hosts[who].core.paths.retire(min(client.core.paths.live))
        net.advance(0.1)
        # No gap: for each tenth of a second about as much as the link carries.
        assert sum(delivered_on(net, sender)) - before > 0.7 * RATE * 0.1
        net.hosts[CLIENT].dial(net.links[number % 2])
    finish(net, sender, sent)
    for host in net.hosts:
        assert len(ids(host, ConnectionClosed)) == 4
        assert not ids(host, ConnectionLost)
    # What is not data: trailers, tags, acknowledgments, tokens.
    assert sum(delivered_on(net, sender)) < 12_000_000 * 1.01
    close(net, sender)


def test_the_last_connection_stays_until_another_one_has_joined() -> None:
    net = start()
    client = net.hosts[CLIENT]
    client.core.paths.retire(0)
    sent = transfer(net, CLIENT)
    net.advance(0.1)
    assert 0 in client.core.paths.live
    client.dial(net.links[1])
    finish(net, CLIENT, sent)
    net.advance(1.0)
    assert [len(host.core.paths.live) for host in net.hosts] == [1, 1]
    assert ids(client, ConnectionClosed) == [0]
    close(net)


@every_break
def test_a_connection_fails_while_it_is_retired(name: str) -> None:
    net = start(2)
    up, down = transfer(net, CLIENT), transfer(net, SERVER)
    net.advance(0.1)
    net.hosts[CLIENT].core.paths.retire(0)
    net.advance(0.005)
    BREAKS[name](net.links[0])
    finish(net, CLIENT, up)
    finish(net, SERVER, down)
    close(net)


def test_both_ends_retire_the_same_connection() -> None:
    net = start(2)
    up, down = transfer(net, CLIENT), transfer(net, SERVER)
    net.advance(0.1)
    for host in net.hosts:
        host.core.paths.retire(0)
    finish(net, CLIENT, up)
    finish(net, SERVER, down)
    net.advance(1.0)
    assert [list(host.core.paths.live) for host in net.hosts] == [list(net.hosts[0].core.paths.live)] * 2
    assert len(net.hosts[0].core.paths.live) == 1
    close(net)


def test_without_failover_a_connection_can_be_retired_and_nothing_is_lost() -> None:
    plain = Parameters(session_window=1 << 22, stream_window=1 << 21, stream_limit=10, max_connections=4)
    net = start(2, local=plain)
    up, down = transfer(net, CLIENT, 1_000_000), transfer(net, SERVER, 1_000_000)
    net.advance(0.05)
    net.hosts[CLIENT].core.paths.retire(0)
    finish(net, CLIENT, up)
    finish(net, SERVER, down)
    net.advance(1.0)
    assert [len(host.core.paths.live) for host in net.hosts] == [1, 1]
    close(net)


# Schedulers.


@both_directions
@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_a_scheduler_carries_all_and_survives_a_failure(name: str, sender: int) -> None:
    net = start(3, links=4)
    net.hosts[sender].core.paths.use(name)
    sent = transfer(net, sender, 2_000_000, 3)
    net.advance(0.1)
    net.links[1].blackhole()
    net.advance(0.1)
    net.links[0].reset()
    finish(net, sender, sent)
    close(net)


@both_directions
@pytest.mark.parametrize(("name", "rates"), [("round-robin", (1, 1)), ("weighted", (1, 3)), ("lowest-rtt", (1, 1))])
def test_one_stream_uses_the_sum_of_two_paths(name: str, rates: tuple[int, int], sender: int) -> None:
    net = start(2, delay=0.005)
    for number, (link, rate) in enumerate(zip(net.links, rates, strict=True)):
        link.rate = rate * 2e6
        net.hosts[sender].core.paths.facts(
            sorted(net.hosts[sender].core.paths.live)[number], PathFacts(0.01, delivery_rate=int(link.rate))
        )
    net.hosts[sender].core.paths.use(name)
    sent = transfer(net, sender, 4_000_000)
    took = finish(net, sender, sent)
    assert took < 4_000_000 / (sum(rates) * 2e6) * 1.1 + 0.05
    close(net, sender)


def test_the_backup_scheduler_leaves_the_others_alone() -> None:
    net = start(2)
    before = delivered_on(net, CLIENT)[1]
    sent = transfer(net, CLIENT)
    finish(net, CLIENT, sent)
    assert delivered_on(net, CLIENT)[1] - before < 1000
    net.hosts[SERVER].core.paths.set_standby(0, True)
    net.advance(0.1)
    finish(net, CLIENT, transfer(net, CLIENT))
    assert delivered_on(net, CLIENT)[1] - before > 2_000_000
    close(net)


@both_directions
def test_redundant_sends_each_byte_once_on_each_connection(sender: int) -> None:
    net = start(3, links=3)
    net.hosts[sender].core.paths.use("redundant")
    before = delivered_on(net, sender)
    sent = transfer(net, sender, 1_000_000, 2)
    finish(net, sender, sent)
    net.advance(1.0)
    for now, then in zip(delivered_on(net, sender), before, strict=True):
        assert now - then < 2_000_000 * 1.02
    assert sum(delivered_on(net, sender)) - sum(before) > 1.8 * 2_000_000
    close(net, sender)


@both_directions
def test_redundant_needs_no_time_to_survive_a_failure(sender: int) -> None:
    net = start(2)
    net.hosts[sender].core.paths.use("redundant")
    sent = transfer(net, sender, 1_000_000)
    net.advance(0.03)
    net.links[0].blackhole()
    # At 10 MB/s; nobody has found out yet.
    assert finish(net, sender, sent) < 0.1 + 2 * RTT
    close(net, sender)


@both_directions
def test_redundant_takes_what_comes_first_and_keeps_little(sender: int) -> None:
    limit = 300_000
    config = SessionConfig(unacknowledged_limit=limit)
    net = start(2, client=config, server=config)
    net.links[1].rate = 1e5
    host = net.hosts[sender]
    host.core.paths.use("redundant")
    sent = transfer(net, sender, 2_000_000)
    while not all(number in net.hosts[1 - sender].got and net.hosts[1 - sender].got[number].ended for number in sent):
        net.advance(0.02)
        assert host.core._streams.unacknowledged <= limit
    # The slow one holds up nobody: it skips what the other has brought.
    assert net.now < 2.0
    close(net, sender)


def test_redundant_needs_failover() -> None:
    plain = Parameters(session_window=1 << 22, stream_window=1 << 21, stream_limit=10, max_connections=4)
    net = start(2, local=plain)
    with pytest.raises(ApiMisuse):
        net.hosts[CLIENT].core.paths.use("redundant")
    with pytest.raises(ApiMisuse):
        net.hosts[CLIENT].core.paths.use("best")
    finish(net, CLIENT, transfer(net, CLIENT))


@both_directions
@pytest.mark.parametrize("seed", range(4))
def test_schedulers_change_in_the_middle(seed: int, sender: int) -> None:
    net = start(3, links=4, seed=seed)
    sent = transfer(net, sender, 1_500_000, 3)
    for number in range(20):
        net.hosts[sender].core.paths.use(net.random.choice(sorted(SCHEDULERS)))
        net.advance(0.02)
        if number == 8:
            net.links[net.random.randrange(3)].reset()
    finish(net, sender, sent)
    close(net)


@both_directions
def test_many_small_records_on_unequal_paths_leave_no_more_gaps_than_a_receiver_takes(sender: int) -> None:
    net = start(2)
    net.links[0].delay, net.links[0].rate = 0.5, 3e5
    host = net.hosts[sender]
    data = content(400_000)
    stream_id = host.open()
    at = 0
    while at < len(data):
        host.core.send(stream_id, data[at : at + 100], net.now)
        at += 100
        # Turn after turn, whatever the connections are like.
        for each, connection in enumerate(host.core.paths.live.values()):
            connection.given = 0 if each == at // 100 % 2 else 1 << 40
        host.core.paths.use("round-robin")
        net.advance(0.0005)
    host.core.finish(stream_id)
    finish(net, sender, {stream_id: data})
    close(net, sender)


@both_directions
def test_what_one_connection_alone_has_carried_goes_again_when_redundant_ends(sender: int) -> None:
    net = start(2)
    host = net.hosts[sender]
    net.links[1].rate = 1e5
    full, copied = content(300_000), content(100_000, 1)
    full_id = host.open(full)
    host.core.pin_stream(full_id, max(host.core.paths.live))
    host.core.paths.use("redundant")
    net.advance(0.01)
    net.links[0].blackhole()
    copied_id = host.open(copied)
    net.advance(0.05)
    # It is on its way on the connection that fails now, and the other has had no room for it.
    net.links[0].reset()
    host.core.paths.use("backup")
    finish(net, sender, {full_id: full, copied_id: copied})
    close(net, sender)


# Pinned streams.


@both_directions
def test_a_pinned_stream_is_not_held_up_by_another_connection(sender: int) -> None:
    net = start(2)
    host = net.hosts[sender]
    first, second = sorted(host.core.paths.live)
    slow, fast = content(2_000_000), content(300_000, 1)
    slow_id, fast_id = host.open(slow), host.open(fast)
    host.core.pin_stream(slow_id, first)
    host.core.pin_stream(fast_id, second)
    net.links[0].stall()
    assert finish(net, sender, {fast_id: fast}) < 0.1 + 2 * RTT
    net.links[0].heal()
    finish(net, sender, {slow_id: slow})
    close(net, sender)


@both_directions
@every_break
def test_a_pinned_stream_survives_its_connection(name: str, sender: int) -> None:
    net = start(2)
    host = net.hosts[sender]
    sent = transfer(net, sender, 500_000, 2)
    for number, connection in zip(sent, sorted(host.core.paths.live), strict=True):
        host.core.pin_stream(number, connection)
    net.advance(0.02)
    BREAKS[name](net.links[1])
    finish(net, sender, sent)
    close(net, sender)


def test_a_stream_can_be_pinned_to_what_is_there_and_no_other() -> None:
    net = start(2)
    core = net.hosts[CLIENT].core
    stream_id = net.hosts[CLIENT].open()
    for stream, connection in ((stream_id, 99), (stream_id + 2, 0)):
        with pytest.raises(ApiMisuse):
            core.pin_stream(stream, connection)
    core.paths.retire(0)
    with pytest.raises(ApiMisuse):
        core.pin_stream(stream_id, 0)
    core.pin_stream(stream_id, max(core.paths.live))
    core.pin_stream(stream_id, None)
    close(net)


# Joins that are not meant well.


def hello_only(net: Network, token: bytes, *more: bytes) -> tuple[End, End]:
    """Somebody's TCP connection to the server, with a ClientHello and what follows."""
    somebody = Host(net, CLIENT, net.hosts[CLIENT].core)
    tcp = Tcp(net, net.links[-1])
    tcp.ends = End(somebody, tcp, CLIENT), End(net.hosts[SERVER], tcp, SERVER)
    tcp.ends[CLIENT].said = True
    tcp.pipes[CLIENT].write(token.ljust(HELLO, b"?"))
    for data in more:
        tcp.pipes[CLIENT].write(data)
    return tcp.ends


def test_whoever_has_a_token_but_no_keys_costs_the_session_nothing() -> None:
    net = start(1, links=3)
    sent = transfer(net, CLIENT)
    server = net.hosts[SERVER]
    for token in server.tokens:
        hello_only(net, token, b"\x17\x03\x03\x00\x40" + bytes(64))
    hello_only(net, b"x" * 32)
    finish(net, CLIENT, sent)
    assert len(server.core.paths.live) == 1
    # Every token is still good, for whoever has the keys.
    net.hosts[CLIENT].dial(net.links[1])
    net.advance(0.2)
    assert len(server.core.paths.live) == 2
    close(net)


def test_a_token_is_used_once() -> None:
    net = start(1, links=3)
    client, server = net.hosts
    number, token = client.core.paths.take_token() or (0, b"")
    client.join(net.links[1], number, token)
    net.advance(0.2)
    assert ids(server, ConnectionJoined) == [number]
    # The very bytes of the join, once more.
    ends = hello_only(net, token)
    net.advance(0.2)
    assert ends[SERVER].closed
    assert not server.core.paths.accepts(number, net.now)
    with pytest.raises(ApiMisuse):
        client.core.paths.join(number, net.now)
    assert client.core.paths.take_token() != (number, token)
    close(net)


def test_two_connections_claim_one_token_and_the_first_that_proves_itself_has_it() -> None:
    net = start(1, links=3)
    client, server = net.hosts
    number, token = client.core.paths.take_token() or (0, b"")
    net.links[2].delay = 0.001
    first = hello_only(net, token)
    net.advance(0.1)
    client.join(net.links[1], number, token)
    net.advance(0.2)
    assert ids(server, ConnectionJoined) == ids(client, ConnectionJoined) == [number]
    # What it says now comes too late.
    first[CLIENT].pipe.write(b"\x17\x03\x03\x00\x40" + bytes(64))
    finish(net, CLIENT, transfer(net, CLIENT))
    assert first[SERVER].closed
    close(net)


def test_tokens_expire_and_are_replaced_and_a_client_keeps_the_new_ones() -> None:
    config = SessionConfig(token_lifetime=10.0, spare_tokens=7)
    net = start(1, server=config)
    client, server = net.hosts
    for _ in range(20):
        net.advance(11.0)
        assert len(server.core.paths.tokens) == 7
        assert len(client.core.paths.announcements.tokens) <= 64
    client.dial(net.links[1])
    net.advance(0.2)
    assert len(server.core.paths.live) == 2
    close(net)


def test_no_more_connections_than_were_announced() -> None:
    net = start(1, links=2, local=replace(KEPT, max_connections=3))
    for _ in range(8):
        net.hosts[CLIENT].dial(net.links[1])
        net.advance(0.2)
    # One more than that, so that a connection can be replaced before it is given up.
    assert all(len(host.core.paths.live) <= 4 for host in net.hosts)
    close(net)


# Keys.


@pytest.mark.parametrize("seed", range(6))
def test_keys_change_while_connections_come_and_go(seed: int) -> None:
    net = start(1, links=4, seed=seed)
    up, down = transfer(net, CLIENT, 3_000_000, 2), transfer(net, SERVER, 3_000_000, 2)
    for number in range(30):
        net.hosts[net.random.randrange(2)].core.update_keys(net.random.random() < 0.5)
        if number % 4 == 0 and len(net.hosts[CLIENT].core.paths.live) < 4:
            net.hosts[CLIENT].dial(net.links[net.random.randrange(4)])
        if number % 9 == 8:
            net.links[net.random.randrange(4)].reset(seen_by=((CLIENT,), (SERVER,), (CLIENT, SERVER))[number % 3])
        for host in net.hosts:
            host.core.paths.use(net.random.choice(["round-robin", "backup"]))
        net.advance(0.03)
    finish(net, CLIENT, up)
    finish(net, SERVER, down)
    generations = [each.generations for host in net.hosts for each in host.core.paths.live.values()]
    assert max(map(max, generations)) >= 5
    close(net)


def test_a_connection_that_is_held_up_over_two_changes_of_keys_follows() -> None:
    net = start(2)
    client = net.hosts[CLIENT]
    client.core.paths.use("round-robin")
    sent = transfer(net, CLIENT, 3_000_000)
    net.advance(0.02)
    net.links[1].stall(CLIENT)
    net.advance(0.1)
    for _ in range(3):
        client.core.update_keys(False)
        net.advance(0.1)
    net.links[1].heal()
    finish(net, CLIENT, sent)
    net.advance(1.0)
    for host, side in ((client, 1), (net.hosts[SERVER], 0)):
        assert {each.generations[side] for each in host.core.paths.live.values()} == {3}
    close(net)


def test_the_limit_of_a_key_counts_the_records_of_all_connections() -> None:
    config = SessionConfig(update_keys_after=60)
    net = start(3, links=3, client=config, server=config)
    for host in net.hosts:
        host.core.paths.use("round-robin")
    finish(net, CLIENT, transfer(net, CLIENT, 4_000_000))
    core = net.hosts[CLIENT].core
    records = sum(each.sent for each in core.paths.live.values())
    # A change waits until a record under the last keys was acknowledged.
    assert records // 60 // 3 <= core.paths.keys.write.generation <= records // 60
    close(net)


@both_directions
def test_a_join_crosses_changes_of_keys(sender: int) -> None:
    """The other end changes its keys as often as it may while the ClientHello is on its way."""
    for delay in (0.005, 0.03, 0.2):
        net = start(1)
        net.links[1].delay = delay
        sent = transfer(net, sender, 1_000_000)
        net.hosts[CLIENT].dial(net.links[1])
        for _ in range(40):
            net.advance(delay / 8)
            for host in net.hosts:
                host.core.update_keys(False)
        finish(net, sender, sent)
        net.run(lambda net=net: len(net.hosts[SERVER].core.paths.live) == 2)  # type: ignore[misc]
        net.advance(1.0)
        assert [len(host.core.paths.live) for host in net.hosts] == [2, 2]
        assert not ids(net.hosts[CLIENT], ConnectionLost)
        close(net)


# Options and programs.


@both_directions
@every_break
def test_options_and_programs_survive_a_failure_and_happen_once(name: str, sender: int) -> None:
    local = replace(KEPT, programs=ProgramSupport(PROGRAMS_PINNED, 1 << 20, "bpfel"))
    net = start(2, local=local, links=3)
    host, other = net.hosts[sender], net.hosts[1 - sender]
    image = content(200_000)
    program = host.core.control.offer_program("vegas", image, "bpfel")
    asked = [host.core.control.request_option("no_delay", 1, None) for _ in range(5)]
    net.advance(0.03)
    BREAKS[name](net.links[0])
    asked += [host.core.control.request_option("user_timeout", 250, None) for _ in range(5)]
    net.run(lambda: any(isinstance(each, ProgramFinished) for each in host.events), 60)
    net.advance(1.0)
    answers = [event.request_id for event in host.events if isinstance(event, OptionAnswered)]
    assert sorted(answers) == asked
    (finished,) = (event for event in host.events if isinstance(event, ProgramFinished))
    assert finished.program_id == program
    assert finished.ok
    assert [type(each).__name__ for each in other.actions].count("LoadProgram") == 1
    assert [type(each).__name__ for each in other.actions].count("ApplyOption") == len(asked)
    close(net)


@both_directions
def test_a_program_keeps_its_order_over_connections_that_are_retired(sender: int) -> None:
    """The next connection is much faster: what goes over it must not come ahead of what went before."""
    local = replace(KEPT, programs=ProgramSupport(PROGRAMS_PINNED, 1 << 20, "bpfel"))
    net = start(2, local=local)
    host, other = net.hosts[sender], net.hosts[1 - sender]
    net.links[0].delay = 0.5
    host.core.control.offer_program("vegas", content(400_000), "bpfel")
    net.advance(1.7)
    host.core.paths.retire(0)
    for _ in range(5):
        host.core.control.request_option("no_delay", 1, None)
        net.advance(0.01)
    net.run(lambda: any(isinstance(each, ProgramFinished) for each in host.events), 60)
    assert not host.failures + other.failures
    close(net)


@both_directions
def test_offers_keep_their_order_over_connections(sender: int) -> None:
    local = replace(KEPT, programs=ProgramSupport(PROGRAMS_PINNED, 1 << 20, "bpfel"))
    net = start(2, local=local)
    host, other = net.hosts[sender], net.hosts[1 - sender]
    net.links[0].delay = 0.5
    host.core.control.offer_program("vegas", content(40_000), "bpfel")
    net.advance(0.01)
    host.core.paths.retire(0)
    host.core.control.offer_program("reno", content(40_000, 1), "bpfel")
    net.run(lambda: len([each for each in host.events if isinstance(each, ProgramFinished)]) == 2, 60)
    assert not host.failures + other.failures
    close(net)
