"""Whole sessions between two ends: every kind of peer, cut anywhere, slow readers, changing keys, ending."""

from __future__ import annotations

import pytest

from tcpls.errors import AlertReceived, ApiMisuse, PeerError, SessionClosed
from tcpls.protocol.base import SessionConfig
from tcpls.protocol.events import Pong, SessionEnded, StreamOpened
from tcpls.protocol.parameters import Parameters
from tests.sim.pair import LOCAL, End, Pair, draft_pair, plain_pair, read_all, tcpls_pair

CONTENT = bytes(range(256)) * 3000
KEPT = Parameters(session_window=1 << 20, stream_window=1 << 19, stream_limit=20, failover=True)


def every_byte(size: int) -> int:
    return 997


def make(kind: str, config: SessionConfig | None = None) -> Pair:
    if kind == "plain":
        return plain_pair(config, every_byte)
    if kind == "draft":
        return draft_pair(config=config, cut=every_byte)
    local = KEPT if kind == "failover" else LOCAL
    return tcpls_pair(client=local, server=local, config=config, cut=every_byte)


def ended(end: End) -> SessionEnded:
    return next(event for event in end.events if isinstance(event, SessionEnded))


KINDS = ("tcpls", "failover", "draft", "plain")


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_can_be_announced_so_that_the_other_end_speaks_first(kind: str) -> None:
    both = make(kind)
    both.settle()
    for stream_id in (0,) if kind == "plain" else (0, 2):
        assert both.client.core.open_stream() == stream_id
        both.client.core.announce(stream_id)
        both.settle()
        assert both.server.events.count(StreamOpened(stream_id)) == 1
        assert both.server.core.receive(stream_id, 1) is None
        both.server.core.send(stream_id, b"welcome", both.now)
        both.server.core.finish(stream_id)
        both.settle()
        assert read_all(both.client, stream_id) == (b"welcome", True)
        assert not both.client.core.send_finished(stream_id)
        both.client.core.send(stream_id, b"thanks", both.now)
        both.client.core.finish(stream_id)
        both.settle()
        assert read_all(both.server, stream_id) == (b"thanks", True)
        both.advance(1.0)
        assert both.client.core.send_finished(stream_id)
    if kind != "plain":
        with pytest.raises(ApiMisuse):
            both.client.core.announce(4)


@pytest.mark.parametrize("kind", KINDS)
def test_both_directions_and_a_close(kind: str) -> None:
    both = make(kind)
    both.settle()
    stream_id = both.client.core.open_stream()
    assert stream_id == 0
    both.client.core.send(0, CONTENT, both.now)
    both.client.core.finish(0)
    got, whole = bytearray(), False
    while not whole:
        both.settle()
        part, whole = read_all(both.server, 0)
        got += part
    assert bytes(got) == CONTENT
    both.server.core.send(0, CONTENT[::-1], both.now)
    both.server.core.finish(0)
    got, whole = bytearray(), False
    while not whole:
        both.settle()
        part, whole = read_all(both.client, 0)
        got += part
    assert bytes(got) == CONTENT[::-1]
    both.advance(1.0)
    assert both.client.core.send_finished(0)
    both.client.core.close(0, "done", both.now)
    both.settle()
    assert ended(both.client).error is None
    assert ended(both.server).error is None


@pytest.mark.parametrize("kind", ["tcpls", "failover", "draft"])
def test_many_streams_at_once(kind: str) -> None:
    both = make(kind, SessionConfig(update_keys_after=40))
    both.settle()
    contents = {}
    for number in range(10):
        stream_id = both.client.core.open_stream()
        assert stream_id == 2 * number
        contents[stream_id] = bytes([number]) * (20_000 + 13_000 * number)
        both.client.core.send(stream_id, contents[stream_id], both.now)
        both.client.core.finish(stream_id)
    got = {stream_id: bytearray() for stream_id in contents}
    open_ones = set(contents)
    while open_ones:
        both.advance(0.05)
        both.settle()
        known = {event.stream_id for event in both.server.events if isinstance(event, StreamOpened)}
        for stream_id in sorted(open_ones & known):
            part, whole = read_all(both.server, stream_id)
            got[stream_id] += part
            if whole:
                open_ones.discard(stream_id)
    assert {stream_id: bytes(data) for stream_id, data in got.items()} == contents
    assert both.client.core._connections[0].generations[1] > 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["draft", "plain"])
def test_a_slow_reader_without_flow_control_pauses_reading(kind: str) -> None:
    both = make(kind, SessionConfig(receive_buffer=50_000, send_buffer=1 << 22))
    both.settle()
    both.client.core.open_stream()
    both.client.core.send(0, CONTENT, both.now)
    both.settle()
    assert both.server.core.reading_paused
    part, _ = read_all(both.server, 0)
    assert 50_000 <= len(part) <= 50_000 + (1 << 14)
    got = bytearray(part)
    while len(got) < len(CONTENT):
        both.settle()
        part, _ = read_all(both.server, 0)
        assert len(part) <= 50_000 + (1 << 14)
        got += part
    assert bytes(got) == CONTENT


def test_a_slow_reader_holds_no_more_than_its_windows() -> None:
    both = make("failover")
    both.settle()
    for _ in range(4):
        stream_id = both.client.core.open_stream()
        assert stream_id is not None
        both.client.core.send(stream_id, CONTENT, both.now)
    both.settle()
    table = both.server.core._streams  # type: ignore[attr-defined]
    held = sum(len(piece) for stream in table.receiving.values() for piece in stream.pieces)
    assert held == table.buffered == KEPT.session_window
    assert all(stream.offset <= KEPT.stream_window for stream in table.receiving.values())


@pytest.mark.parametrize("left", [20_000, KEPT.stream_window - 1])
def test_streams_that_nobody_reads_leave_the_others_what_there_is(left: int) -> None:
    """Two of them hold so much of the session's window that half of it can never be consumed."""
    both = make("failover")
    both.settle()
    for size in (KEPT.stream_window, KEPT.session_window - KEPT.stream_window - left, 2_000_000):
        stream_id = both.client.core.open_stream()
        assert stream_id is not None
        both.client.core.send(stream_id, bytes(size), both.now)
        both.settle()
    assert stream_id is not None
    count = 0
    while count < 2_000_000:
        part, _ = read_all(both.server, stream_id)
        assert part, f"nothing comes after {count} bytes"
        count += len(part)
        both.settle()


def test_a_ping_tells_the_round_trip() -> None:
    both = make("tcpls")
    both.settle()
    ping_id = both.client.core.ping(both.now)
    both.settle()
    assert Pong(ping_id, 0.0) in both.client.events


@pytest.mark.parametrize("kind", KINDS)
def test_keys_change_in_both_directions_while_data_flows(kind: str) -> None:
    both = make(kind)
    both.settle()
    both.client.core.open_stream()
    got = bytearray()
    for number in range(6):
        both.advance(1.0)
        both.client.core.update_keys(number % 2 == 0)
        both.client.core.send(0, CONTENT[:50_000], both.now)
        both.settle()
        got += read_all(both.server, 0)[0]
    assert bytes(got) == CONTENT[:50_000] * 6
    channel = getattr(both.server.core, "_channel", None) or both.server.core._connections[0]  # type: ignore[attr-defined]
    assert channel.generations == (6, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_forged_record_ends_both_ends(kind: str) -> None:
    both = make(kind)
    both.settle()
    both.server.read(b"\x17\x03\x03\x00\x20" + bytes(32), both.now)
    both.settle()
    assert isinstance(ended(both.server).error, PeerError)
    assert isinstance(ended(both.client).error, AlertReceived)


def test_both_ends_close_at_once() -> None:
    both = make("tcpls")
    both.settle()
    both.client.core.close(1, "mine", both.now)
    both.server.core.close(2, "yours", both.now)
    both.settle()
    for end in (both.client, both.server):
        error = ended(end).error
        assert isinstance(error, SessionClosed)


def test_an_idle_session_ends_at_both_ends() -> None:
    local = Parameters(session_window=1000, stream_window=1000, stream_limit=1, idle_timeout=2000)
    both = tcpls_pair(client=local, server=local)
    both.settle()
    both.advance(1.0)
    both.client.core.ping(both.now)
    both.settle()
    both.advance(1.9)
    assert not both.client.core.ended
    both.advance(0.2)
    assert both.client.core.ended
    assert both.server.core.ended


def test_a_client_that_opens_and_closes_streams_for_ever_leaves_nothing_behind() -> None:
    local = Parameters(session_window=1 << 20, stream_window=1 << 16, stream_limit=4)
    both = tcpls_pair(client=local, server=local)
    both.settle()
    for number in range(200):
        stream_id = both.client.core.open_stream()
        assert stream_id == 2 * number
        both.client.core.send(stream_id, b"question", both.now)
        both.client.core.finish(stream_id)
        both.settle()
        assert both.server.core.receive(stream_id, 100) == b"question"
        assert both.server.core.receive(stream_id, 100) == b""
        both.server.core.send(stream_id, b"answer", both.now)
        both.server.core.finish(stream_id)
        both.settle()
        assert both.client.core.receive(stream_id, 100) == b"answer"
        assert both.client.core.receive(stream_id, 100) == b""
    for end in (both.client, both.server):
        table = end.core._streams  # type: ignore[attr-defined]
        assert not table.sending
        assert not table.receiving
        assert not table.ready
