"""Headers as a middlebox reads and writes them."""

from __future__ import annotations

import struct

import pytest

from tcpls.lab.packets import ACK, FIN, RST, SYN, TCP, Endpoint, Segment, checksum, later, next_expected, parse, reset
from tests.unit.lab.segments import CLIENT, SERVER, segment

CLIENT6: Endpoint = (bytes.fromhex("fd770000000000010000000000000001"), 40000)
SERVER6: Endpoint = (bytes.fromhex("fd770000000000010000000000000002"), 4433)


@pytest.mark.parametrize(("source", "target"), [(SERVER, CLIENT), (SERVER6, CLIENT6)], ids=["v4", "v6"])
def test_a_reset_is_a_segment_with_these_numbers_and_good_checksums(source: Endpoint, target: Endpoint) -> None:
    packet = reset(source, target, 0xFFFFFFF0, 7)
    assert parse(packet) == Segment(source, target, 0xFFFFFFF0, 7, RST | ACK, 0)
    if len(source[0]) == 4:
        assert checksum(packet[:20]) == 0
        pseudo, inner = packet[12:20] + struct.pack("!BBH", 0, TCP, 20), packet[20:]
    else:
        pseudo, inner = packet[8:40] + struct.pack("!IHBB", 20, 0, 0, TCP), packet[40:]
    # A sum over something that has its own sum in it is zero.
    assert checksum(pseudo + inner) == 0


def test_the_checksum_is_that_of_the_rfc() -> None:
    """RFC 1071 section 3: the example."""
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == ~0xDDF2 & 0xFFFF


def test_what_is_no_tcp_segment_is_none() -> None:
    good = segment(CLIENT, SERVER, 1, 1, 0)
    udp = good[:9] + bytes([17]) + good[10:]
    fragment = good[:6] + b"\x00\x10" + good[8:]
    assert parse(good) is not None
    for bad in (b"", b"\x45", good[:39], udp, fragment, b"\x55" + good[1:]):
        assert parse(bad) is None


@pytest.mark.parametrize(("flags", "length"), [(ACK, 10), (SYN, 11), (FIN | ACK, 11)])
def test_syn_and_fin_take_a_number_each(flags: int, length: int) -> None:
    parsed = parse(segment(CLIENT, SERVER, 5, 9, 10, flags=flags))
    assert parsed is not None
    assert parsed.length == length


def test_sequence_numbers_go_round() -> None:
    assert later(5, 0xFFFFFFF0)
    assert not later(0xFFFFFFF0, 5)
    assert not later(5, 5)


def _parsed(*some: bytes) -> list[Segment]:
    return [parsed for packet in some if (parsed := parse(packet)) is not None]


def test_what_an_end_expects_is_its_acknowledgment_and_what_came_since() -> None:
    sent = _parsed(segment(CLIENT, SERVER, 1, 4294967000, 0), segment(CLIENT, SERVER, 1, 4294966000, 0))
    assert next_expected(sent, []) == 4294967000
    in_order = segment(SERVER, CLIENT, 4294967000, 1, 500)
    beyond = segment(SERVER, CLIENT, 204, 1, 100)
    hole = segment(SERVER, CLIENT, 400, 1, 100)
    # 4294967000 + 500 is 204 beyond the round; what comes after the hole does not count.
    assert next_expected(sent, _parsed(beyond, in_order, hole)) == 304
    assert next_expected([], _parsed(in_order)) is None
