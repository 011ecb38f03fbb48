"""The model of a path, with a virtual clock."""

from __future__ import annotations

import random

import pytest

from tcpls.lab import packets
from tcpls.lab.emulator import Conditions, Direction, Path
from tests.unit.lab.segments import CLIENT, SERVER, segment

PACKET = bytes(1500)


def direction(conditions: Conditions, seed: int = 1) -> Direction:
    return Direction(conditions, random.Random(seed))


def departures(way: Direction, *, until: float = 10.0, step: float = 0.001) -> list[float]:
    """When each packet came out, to a millisecond."""
    moments = []
    for tick in range(int(until / step)):
        moments += [round(tick * step, 6) for _ in way.due(tick * step)]
    return moments


def test_a_packet_takes_its_time_on_the_link_and_the_delay() -> None:
    way = direction(Conditions(rate=12_000_000, delay=0.02, queue=100_000))
    for _ in range(3):
        way.arrive(PACKET, 0.0)
    # 1500 bytes at 12 Mb/s are 1 ms each.
    assert departures(way) == [0.021, 0.022, 0.023]


def test_a_queue_that_is_full_drops_what_comes_last() -> None:
    way = direction(Conditions(rate=12_000_000, queue=4500))
    for _ in range(5):
        way.arrive(PACKET, 0.0)
    assert len(departures(way)) == 3
    assert way.counts.overflowed == 2
    way.arrive(PACKET, 5.0)
    assert len(departures(way)) == 1


def test_the_same_seed_loses_the_same_packets_whatever_is_acknowledged() -> None:
    def lost(acknowledgments: int, seed: int) -> list[int]:
        way = direction(Conditions(loss=0.1), seed)
        arrived = []
        for _ in range(1000):
            for _ in range(acknowledgments):
                way.arrive(bytes(52), 0.0)
            before = way.counts.lost
            way.arrive(PACKET, 0.0)
            arrived.append(way.counts.lost == before)
        return [number for number, came in enumerate(arrived) if not came]

    first = lost(0, 1)
    assert 60 < len(first) < 140
    assert first == lost(3, 1)
    assert first != lost(0, 2)


def test_numbered_packets_are_lost() -> None:
    way = direction(Conditions(drop=(2,)))
    for size in (1000, 1001, 1002):
        way.arrive(bytes(size), 0.0)
    assert [len(packet) for packet in way.due(0.0)] == [1000, 1002]


def test_a_slower_link_is_slower_for_what_is_in_its_queue_too() -> None:
    way = direction(Conditions(rate=12_000_000, delay=0.01, queue=100_000))
    for _ in range(4):
        way.arrive(PACKET, 0.0)
    # Two have left the queue, and are under way: for them there is only the new delay.
    way.change(Conditions(rate=6_000_000, delay=0.02, queue=100_000), 0.002)
    assert departures(way) == [0.021, 0.022, 0.024, 0.026]


def test_a_path_that_becomes_shorter_keeps_the_order() -> None:
    way = direction(Conditions(delay=0.1))
    way.arrive(b"first", 0.0)
    way.change(Conditions(delay=0.01), 0.05)
    way.arrive(b"second", 0.05)
    assert list(way.due(0.049)) == []
    assert list(way.due(0.0601)) == [b"first", b"second"]


def path() -> Path:
    conditions = Conditions(delay=0.01)
    return Path((conditions, conditions), "seed")


def test_a_black_hole_swallows_what_is_under_way_and_what_comes_until_it_is_healed() -> None:
    here = path()
    here.arrive(0, PACKET, 0.0)
    here.blackhole(0.005)
    here.arrive(0, PACKET, 0.006)
    here.arrive(1, PACKET, 0.006)
    assert [list(way.due(1.0)) for way in here.ways] == [[], []]
    assert [way.counts.swallowed for way in here.ways] == [2, 1]
    here.heal()
    here.arrive(1, PACKET, 1.0)
    assert list(here.ways[1].due(1.01)) == [PACKET]


def _flowing() -> Path:
    """The server has sent 3 segments from 1000, of which two have arrived; the client has acknowledged one of them."""
    here = path()
    here.arrive(0, segment(CLIENT, SERVER, 500, 1000, 100), 0.0)
    assert len(list(here.ways[0].due(0.01))) == 1
    for number in range(3):
        here.arrive(1, segment(SERVER, CLIENT, 1000 + 600 * number, 600, 600), 0.02 + 0.001 * number)
    assert len(list(here.ways[1].due(0.0315))) == 2
    here.arrive(0, segment(CLIENT, SERVER, 600, 1600, 0), 0.0315)
    return here


def test_a_reset_has_the_number_that_each_end_expects_next() -> None:
    here = _flowing()
    assert here.reset(0.0318) == 1
    to_client, to_server = [
        [packets.parse(packet) for packet in here.ways[way].due(1.0)] for way in (1, 0)
    ]  # What was under way of the flow is gone.
    reset = packets.RST | packets.ACK
    # RFC 5961 3.2: exactly RCV.NXT. The client has two segments, though it has acknowledged one.
    assert to_client == [packets.Segment(SERVER, CLIENT, 2200, 600, reset, 0)]
    assert to_server == [packets.Segment(CLIENT, SERVER, 600, 2200, reset, 0)]


def test_what_an_end_still_sends_after_a_reset_is_answered_by_another() -> None:
    here = _flowing()
    here.reset(0.032)
    for way in here.ways:
        list(way.due(0.04))
    here.arrive(1, segment(SERVER, CLIENT, 2200, 600, 600), 0.05)
    assert list(here.ways[1].due(1.0)) == []
    (answer,) = here.ways[0].due(1.0)
    assert packets.parse(answer) == packets.Segment(CLIENT, SERVER, 600, 2800, packets.RST | packets.ACK, 0)
    # A reset is not answered.
    here.arrive(1, packets.reset(SERVER, CLIENT, 1, 1), 1.0)
    assert [list(way.due(2.0)) for way in here.ways] == [[], []]


def test_other_flows_and_a_new_one_of_the_same_ports_pass() -> None:
    here = _flowing()
    other = segment((CLIENT[0], 40001), SERVER, 1, 1, 10)
    here.arrive(0, other, 0.0)
    here.reset(0.032)
    assert other in list(here.ways[0].due(1.0))
    begin = segment(CLIENT, SERVER, 9, 0, 0, flags=packets.SYN)
    here.arrive(0, begin, 2.0)
    here.arrive(0, segment(CLIENT, SERVER, 10, 5, 0), 2.0)
    assert len(list(here.ways[0].due(3.0))) == 2


def test_where_there_is_no_flow_nothing_is_reset() -> None:
    here = path()
    here.arrive(0, PACKET, 0.0)
    assert here.reset(0.0) == 0


@pytest.mark.parametrize("end", [0, 1])
def test_the_busiest_flow_is_reset_and_once(end: int) -> None:
    here = path()
    quiet, busy = (CLIENT[0], 40001), (CLIENT[0], 40002)
    flows = [(quiet, SERVER), (busy, SERVER)] if end == 0 else [(SERVER, quiet), (SERVER, busy)]
    for (source, target), size in zip(flows, (10, 1000), strict=True):
        here.arrive(end, segment(source, target, 1, 1, size), 0.0)
    here.reset(0.0)
    left = [packets.parse(packet) for packet in here.ways[end].due(1.0)]
    assert [segment.length for segment in left if segment and not segment.flags & packets.RST] == [10]
    assert here.reset(0.0) == 1
    assert here.reset(0.0) == 0
