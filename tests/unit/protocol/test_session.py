"""The session: streams, credit, acknowledgments, keys, and the ways it ends."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from tcpls.errors import (
    Alert,
    AlertReceived,
    ApiMisuse,
    KernelUnavailable,
    NotNegotiated,
    SessionClosed,
    SessionLost,
    StreamReset,
)
from tcpls.protocol.actions import CloseConnection
from tcpls.protocol.base import Role, SessionConfig
from tcpls.protocol.events import (
    Pong,
    SessionEnded,
    StreamOpened,
    StreamReadable,
    StreamsAvailable,
    StreamWritable,
)
from tcpls.protocol.frames import (
    Ack,
    ConnectionReset,
    MaxData,
    MaxStreamData,
    MaxStreams,
    NewAddress,
    NewToken,
    Padding,
    ParametersFrame,
    PathState,
    PathStatus,
    Ping,
    RemoveAddress,
    ResetStream,
    SessionClose,
    StopSending,
    Stream,
    StreamChange,
    encode,
    parse_frames,
)
from tcpls.protocol.parameters import ABSENT, Parameters
from tcpls.protocol.record_writer import RUN_AMONG_OTHERS
from tcpls.protocol.session import Session
from tcpls.protocol.streams import MAX_STREAM_DATA
from tcpls.tls.messages import KeyUpdate
from tcpls.tls.post_handshake import PostHandshake
from tests.unit.protocol.ends import (
    LOCAL,
    PEER,
    READ,
    WRITE,
    Sink,
    client,
    draft_server,
    give,
    give_raw,
    said,
    server,
)

ACKED = Parameters(
    session_window=1 << 20, stream_window=1 << 20, stream_limit=4, failover=True, ack_records=4, ack_delay=20
)


# Parameters and opening.


def test_a_client_announces_itself_in_its_first_record() -> None:
    core = client()
    core.open_stream()
    core.send(0, b"hello", 0.0)
    sink = Sink()
    core.transmit(0, sink, 0.0)
    assert len(sink.records) == 1
    first, second = sink.frames()
    assert first == ParametersFrame(LOCAL.write())
    assert second == Stream(0, 0, b"hello")


def test_a_server_waits_for_the_clients_parameters() -> None:
    core = server(peer=ABSENT)
    assert core.open_stream() is None
    give(core, Stream(0, 0, b"question"))
    core.send(0, b"answer", 0.0)
    assert said(core) == []
    give(core, ParametersFrame(PEER.write()))
    assert said(core) == [Stream(0, 0, b"answer")]
    assert StreamsAvailable() in core.events()
    assert core.open_stream() == 1
    assert core.peer_parameters == PEER


def test_the_same_parameters_again_are_ignored() -> None:
    core = server(peer=ABSENT)
    for _ in range(2):
        give(core, ParametersFrame(PEER.write()))
    assert core.peer_parameters == PEER


def test_streams_are_opened_in_sequence_within_the_limit() -> None:
    core = client()
    assert [core.open_stream() for _ in range(5)] == [0, 2, 4, 6, None]
    give(core, MaxStreams(5))
    assert core.events() == [StreamsAvailable()]
    assert core.open_stream() == 8
    give(core, MaxStreams(3))
    assert core.open_stream() is None


def test_a_higher_stream_opens_those_below() -> None:
    core = server()
    give(core, Stream(4, 0, b"x"))
    assert core.events() == [StreamOpened(0), StreamOpened(2), StreamOpened(4), StreamReadable(4)]


def test_the_limit_rises_as_streams_close() -> None:
    core = server()
    for stream_id in (0, 2):
        give(core, Stream(stream_id, 0, b"", True))
        assert core.receive(stream_id, 10) == b""
        core.finish(stream_id)
        spoken = said(core)
    assert MaxStreams(6) in spoken
    give(core, Stream(10, 0, b"", True))
    with pytest.raises(ApiMisuse):
        core.receive(0, 10)
    give(core, Stream(0, 0, b"late"))


# Sending.


def test_full_records_carry_16369_bytes() -> None:
    core = client()
    core.open_stream()
    core.send(0, bytes(40_000), 0.0)
    core.finish(0)
    sink = Sink()
    core.transmit(0, sink, 0.0)
    sizes = [len(frame.data) for frame in sink.frames() if isinstance(frame, Stream)]
    tail = len(encode(ParametersFrame(LOCAL.write())))
    assert sizes == [MAX_STREAM_DATA - tail, MAX_STREAM_DATA, 40_000 - 2 * MAX_STREAM_DATA + tail]


def test_the_end_rides_on_the_last_data_or_goes_alone() -> None:
    core = client()
    core.open_stream()
    core.open_stream()
    core.send(0, b"a", 0.0)
    core.finish(0)
    said(core)
    assert core.send_finished(0)
    core.send(2, b"b", 0.0)
    said(core)
    core.finish(2)
    core.finish(2)
    assert said(core) == [Stream(2, 1, b"", True)]
    assert core.send_finished(2)
    with pytest.raises(ApiMisuse):
        core.send(2, b"c", 0.0)


def test_small_chunks_are_put_together_without_copies() -> None:
    core = client()
    core.open_stream()
    said(core)
    for number in range(100):
        core.send(0, bytes([number]) * 10, 0.0)
    frames = said(core)
    assert frames == [Stream(0, 0, b"".join(bytes([number]) * 10 for number in range(100)))]


def test_with_more_to_come_only_full_records_leave_until_a_push() -> None:
    core = client()
    core.open_stream()
    said(core)
    core.send(0, bytes(MAX_STREAM_DATA + 10), 0.0, more=True)
    assert [len(frame.data) for frame in said(core) if isinstance(frame, Stream)] == [MAX_STREAM_DATA]
    core.send(0, bytes(MAX_STREAM_DATA - 11), 0.0, more=True)
    assert said(core) == []
    core.send(0, b"a", 0.0, more=True)
    assert [len(frame.data) for frame in said(core) if isinstance(frame, Stream)] == [MAX_STREAM_DATA]
    core.send(0, b"b", 0.0, more=True)
    assert said(core) == []
    core.push(0)
    assert said(core) == [Stream(0, 2 * MAX_STREAM_DATA, b"b")]


@pytest.mark.parametrize("end", ["write", "finish", "close"])
def test_what_waits_for_more_leaves_with_what_ends_the_waiting(end: str) -> None:
    core = client()
    core.open_stream()
    said(core)
    core.send(0, b"one ", 0.0, more=True)
    assert said(core) == []
    if end == "write":
        core.send(0, b"two", 0.0)
        assert said(core) == [Stream(0, 0, b"one two")]
    elif end == "finish":
        core.finish(0)
        assert said(core) == [Stream(0, 0, b"one ", True)]
    else:
        core.close(0, "", 0.0)
        assert said(core)[0] == Stream(0, 0, b"one ")


def test_streams_take_turns() -> None:
    core = client(peer=Parameters(session_window=1 << 30, stream_window=1 << 30, stream_limit=4))
    for stream_id in (0, 2, 4):
        core.open_stream()
        core.send(stream_id, bytes(2 * RUN_AMONG_OTHERS * MAX_STREAM_DATA), 0.0)
    said_in_order = [frame.stream_id for frame in said(core)[1:] if isinstance(frame, Stream)]
    turns = [stream_id for stream_id, _ in itertools.groupby(said_in_order)]
    assert turns[:6] == [0, 2, 4] * 2, "each stream has its turn before one has its second"
    assert max(len(list(turn)) for _, turn in itertools.groupby(said_in_order)) <= RUN_AMONG_OTHERS


@pytest.mark.parametrize("failover", [False, True])
def test_a_run_of_records_says_what_single_records_would(failover: bool) -> None:
    core = client(
        local=replace(LOCAL, failover=failover), peer=replace(PEER, session_window=1 << 30, stream_window=1 << 30)
    )
    core.open_stream()
    content = bytes(range(256)) * 400
    core.send(0, content[:90_000], 0.0)
    core.send(0, content[90_000:], 0.0)
    core.finish(0)
    frames = [frame for frame in said(core) if isinstance(frame, Stream)]
    assert b"".join(frame.data for frame in sorted(frames, key=lambda frame: frame.offset)) == content
    assert [frame.fin for frame in frames] == [False] * (len(frames) - 1) + [True]
    ends = [frame.offset + len(frame.data) for frame in frames]
    assert [frame.offset for frame in frames] == [0, *ends[:-1]]


def test_the_streams_window_is_kept() -> None:
    core = client()
    core.open_stream()
    core.send(0, bytes(70_000), 0.0)
    assert sum(len(frame.data) for frame in said(core) if isinstance(frame, Stream)) == 60_000
    give(core, MaxStreamData(0, 65_000))
    assert sum(len(frame.data) for frame in said(core) if isinstance(frame, Stream)) == 5_000
    give(core, MaxStreamData(0, 10))
    assert said(core) == []


def test_the_sessions_window_is_kept() -> None:
    core = client()
    for stream_id in (0, 2):
        core.open_stream()
        core.send(stream_id, bytes(60_000), 0.0)
    assert sum(len(frame.data) for frame in said(core) if isinstance(frame, Stream)) == 100_000
    give(core, MaxData(100_001))
    assert sum(len(frame.data) for frame in said(core) if isinstance(frame, Stream)) == 1


def test_a_stream_without_credit_does_not_hold_up_the_others() -> None:
    core = client()
    for _ in range(2):
        core.open_stream()
    core.send(0, bytes(70_000), 0.0)
    core.send(2, b"through", 0.0)
    assert Stream(2, 0, b"through") in said(core)


def test_capacity_comes_back_when_half_is_sent() -> None:
    core = client(config=SessionConfig(send_buffer=1000))
    core.open_stream()
    core.send(0, bytes(999), 0.0)
    assert core.send_capacity(0) == 1
    core.send(0, bytes(500), 0.0)
    assert core.send_capacity(0) == -499
    said(core)
    assert StreamWritable(0) in core.events()
    assert core.send_capacity(0) == 1000


def test_a_reset_drops_what_was_not_sent() -> None:
    core = client()
    core.open_stream()
    core.send(0, bytes(70_000), 0.0)
    said(core)
    core.reset(0, 7)
    core.reset(0, 8)
    assert said(core) == [ResetStream(0, 60_000, 7)]
    assert core.send_finished(0)


def test_a_stop_is_answered_with_a_reset() -> None:
    core = client()
    core.open_stream()
    core.send(0, b"abc", 0.0)
    said(core)
    give(core, StopSending(0, 7))
    assert core.events()[-1] == StreamWritable(0)
    with pytest.raises(StreamReset) as caught:
        core.send(0, b"more", 0.0)
    assert caught.value.stopped
    assert caught.value.code == 7
    assert said(core) == [ResetStream(0, 3, 7)]


# Receiving.


def test_readable_is_said_once_until_everything_was_taken() -> None:
    core = server()
    give(core, Stream(0, 0, b"one"))
    give(core, Stream(0, 3, b"two"))
    assert core.events() == [StreamOpened(0), StreamReadable(0)]
    assert core.receive(0, 4) == b"onet"
    assert core.receive(0, 9) == b"wo"
    give(core, Stream(0, 6, b"x"))
    assert core.events() == []
    assert core.receive(0, 9) == b"x"
    assert core.receive(0, 9) is None
    give(core, Stream(0, 7, b"y"))
    assert core.events() == [StreamReadable(0)]


def test_credit_is_given_when_half_a_window_was_consumed() -> None:
    core = server()
    for number in range(4):
        give(core, Stream(0, number * 10_000, bytes(10_000)))
    assert len(core.receive(0, 29_999) or b"") == 20_000
    assert len(core.receive(0, 9_999) or b"") == 9_999
    assert said(core) == []
    core.receive(0, 1)
    assert said(core) == [MaxStreamData(0, 90_000)]
    while core.receive(0, 1 << 20):
        pass
    give(core, Stream(0, 40_000, bytes(10_000)))
    core.receive(0, 10_000)
    assert MaxData(150_000) in said(core)


def test_a_slow_reader_holds_no_more_than_its_windows() -> None:
    core = server()
    give(core, *(Stream(0, at, b"x" * 100) for at in range(0, 10_000, 100)))
    assert said(core) == []
    assert core._streams.buffered == 10_000


def test_a_reset_discards_what_waits_and_is_told_once() -> None:
    core = server()
    give(core, Stream(0, 0, b"abc"))
    give(core, ResetStream(0, 10, 7))
    with pytest.raises(StreamReset) as caught:
        core.receive(0, 10)
    assert caught.value.code == 7
    assert core._streams.buffered == 0


def test_a_reset_behind_the_whole_stream_changes_nothing() -> None:
    core = server()
    give(core, Stream(0, 0, b"abc", True))
    give(core, ResetStream(0, 3, 7))
    assert core.receive(0, 10) == b"abc"
    assert core.receive(0, 10) == b""


def test_stopping_drops_what_waits_and_what_comes() -> None:
    core = server()
    give(core, Stream(0, 0, b"abc"))
    core.stop_sending(0, 5)
    assert said(core) == [StopSending(0, 5)]
    give(core, Stream(0, 3, bytes(16_000)))
    assert core._streams.buffered == 0
    with pytest.raises(ApiMisuse):
        core.receive(0, 1)
    core.finish(0)
    said(core)
    give(core, ResetStream(0, 16_003, 5))
    assert not core._streams.receiving


def test_data_out_of_order_waits_for_what_is_missing() -> None:
    core = server()
    give(core, Stream(0, 3, b"def", True))
    assert core.receive(0, 10) is None
    core.events()
    give(core, Stream(0, 0, b"abcd"))
    assert core.events() == [StreamReadable(0)]
    assert core.receive(0, 10) == b"abcdef"
    assert core.receive(0, 10) == b""


# A pure draft-04 peer.


def test_a_draft_peer_gets_no_extension_frames() -> None:
    core = draft_server()
    for number in range(10):
        give(core, Stream(0, number * 16_000, bytes(16_000)))
        core.receive(0, 16_000)
    core.send(0, bytes(500_000), 0.0)
    kinds = {type(frame) for frame in said(core)}
    assert kinds == {Stream}
    core.stop_sending(0, 1)
    assert said(core) == []
    for call in (lambda: core.reset(0, 1), lambda: core.control.request_option("no_delay", 1)):
        with pytest.raises(NotNegotiated):
            call()
    with pytest.raises(NotNegotiated):
        core.control.offer_program("vegas", b"x", "bpfel")


def test_reading_pauses_for_a_draft_peer_that_sends_too_much() -> None:
    core = draft_server(config=SessionConfig(receive_buffer=20_000))
    give(core, Stream(0, 0, bytes(16_000)))
    assert not core.reading_paused
    give(core, Stream(0, 16_000, bytes(16_000)))
    assert core.reading_paused
    core.receive(0, 16_000)
    assert not core.reading_paused
    assert not server().reading_paused


# Acknowledgments.


def test_records_are_acknowledged_by_number() -> None:
    core = server(peer=ACKED)
    for number in range(3):
        give(core, Stream(0, number * 2000, bytes(2000)))
    assert said(core) == []
    give(core, Stream(0, 6000, bytes(2000)))
    assert said(core) == [Ack(0, 3)]
    assert core.next_timer() is None


def test_records_are_acknowledged_by_time() -> None:
    core = server(peer=ACKED)
    give(core, Stream(0, 0, b"x"), now=1.0)
    assert core.next_timer() == pytest.approx(1.02)
    core.timer_expired(1.01)
    assert said(core) == []
    core.timer_expired(1.03)
    assert said(core) == [Ack(0, 0)]


def test_padding_and_acks_ask_for_nothing() -> None:
    core = server(peer=ACKED)
    core.ping(0.0)
    said(core)
    give(core, Padding(3), Ack(0, 0))
    assert core.next_timer() is None


def test_without_failover_only_a_ping_is_acknowledged() -> None:
    core = server()
    for number in range(100):
        give(core, Stream(0, number, b"x"))
    assert core.next_timer() is None
    assert said(core) == []
    give(core, Ping())
    assert said(core) == [Ack(0, 100)]


def test_a_ping_is_answered_by_any_later_ack() -> None:
    core = client()
    first, second = core.ping(0.0), core.ping(0.5)
    sink = Sink()
    core.transmit(0, sink, 1.0)
    assert len(sink.records) == 1
    give(core, Ack(0, 0), now=1.25)
    assert core.events() == [Pong(first, 0.25), Pong(second, 0.25)]


def test_pings_are_bounded() -> None:
    core = client()
    with pytest.raises(ApiMisuse):
        for _ in range(100):
            core.ping(0.0)


def test_unacknowledged_bytes_block_the_writer_and_nothing_is_dropped() -> None:
    local = Parameters(failover=True)
    core = client(peer=ACKED, local=local, config=SessionConfig(unacknowledged_limit=40_000))
    core.open_stream()
    content = bytes(range(256)) * 400
    core.send(0, content, 0.0)
    core.finish(0)
    got = b""
    number = 0
    while len(got) < len(content):
        sink = Sink()
        core.transmit(0, sink, 0.0)
        number += len(sink.records)
        frames = [frame for frame in sink.frames() if isinstance(frame, Stream)]
        assert sum(len(frame.data) for frame in frames) <= 40_000
        got += b"".join(bytes(frame.data) for frame in frames)
        assert not core.send_finished(0)
        give(core, Ack(0, number - 1))
    assert got == content
    assert core.send_finished(0)
    assert core._streams.unacknowledged == 0


def test_record_numbers_go_on_over_a_change_of_keys() -> None:
    core = client(peer=ACKED, local=Parameters(failover=True))
    core.ping(0.0)
    said(core)
    core.update_keys(False)
    core.ping(0.0)
    said(core)
    give(core, Ack(0, 2))
    assert len([event for event in core.events() if isinstance(event, Pong)]) == 2


# Keys.


def test_a_key_update_of_the_peer_gives_keys_and_a_requested_one_is_answered() -> None:
    core = server()
    assert give_raw(core, KeyUpdate(False).write(), 22) == READ.next().keys()
    sink = Sink()
    core.transmit(0, sink, 0.0)
    assert sink.keys == []
    assert give_raw(core, KeyUpdate(True).write(), 22) == READ.next().next().keys()
    assert give_raw(core, KeyUpdate(True).write(), 22) is not None
    core.transmit(0, sink, 0.0)
    assert sink.records == [(22, KeyUpdate(False).write())]
    assert sink.keys == [(1, WRITE.next().keys())]


def test_keys_change_behind_the_update_and_before_what_follows() -> None:
    core = client()
    core.open_stream()
    core.send(0, b"x", 0.0)
    core.update_keys(True)
    sink = Sink()
    core.transmit(0, sink, 0.0)
    assert sink.records[0] == (22, KeyUpdate(True).write())
    assert sink.keys == [(1, WRITE.next().keys())]
    assert len(sink.records) == 2


def test_keys_change_by_themselves_before_their_limit() -> None:
    peer = Parameters(session_window=1 << 30, stream_window=1 << 30, stream_limit=4)
    core = client(peer=peer, config=SessionConfig(update_keys_after=50))
    core.open_stream()
    core.send(0, bytes(200 * MAX_STREAM_DATA), 0.0)
    sink = Sink()
    core.transmit(0, sink, 0.0)
    at = [number for number, _ in sink.keys]
    assert len(at) >= 3
    assert all(later - earlier <= 50 + 16 + 1 for earlier, later in zip([0, *at], at, strict=False))


# The end.


def test_a_close_sends_what_is_queued_first() -> None:
    core = client()
    core.open_stream()
    core.send(0, b"last words", 0.0)
    core.close(0, "bye", 0.0)
    core.close(1, "again", 0.0)
    with pytest.raises(SessionClosed):
        core.send(0, b"more", 0.0)
    sink = Sink()
    core.transmit(0, sink, 0.0)
    contents = [content for _, content in sink.records]
    assert Stream(0, 0, b"last words") in list(parse_frames(contents[0]))
    assert list(parse_frames(contents[1])) == [SessionClose(0, "bye")]
    assert sink.records[2] == (21, b"\x01\x00")
    assert core.actions() == [CloseConnection(0)]
    assert not core.ended
    give_raw(core, b"\x01\x00", 21)
    assert core.ended


def test_a_close_with_a_code_drops_what_is_queued() -> None:
    core = client()
    core.open_stream()
    core.send(0, b"dropped", 0.0)
    core.close(7, "broken", 0.0)
    frames = said(core)
    assert SessionClose(7, "broken") in frames
    assert not [frame for frame in frames if isinstance(frame, Stream)]
    core.connection_ended(0, None, 0.0)
    ended = core.events()[-1]
    assert isinstance(ended, SessionEnded)
    assert isinstance(ended.error, SessionClosed)
    assert ended.error.code == 7


def test_a_close_that_cannot_send_gives_up_in_bounded_time() -> None:
    core = client(config=SessionConfig(close_timeout=2.0))
    core.open_stream()
    core.send(0, bytes(70_000), 0.0)
    core.close(0, "", 0.0)
    assert not [frame for frame in said(core) if isinstance(frame, SessionClose)]
    assert core.next_timer() == 2.0
    give(core, MaxStreamData(0, 61_000), now=1.5)
    said(core, 1.5)
    assert core.next_timer() == 3.5
    core.timer_expired(3.5)
    ended = core.events()[-1]
    assert isinstance(ended, SessionEnded)
    assert isinstance(ended.error, SessionLost)
    assert not core.delivered
    sink = Sink()
    core.transmit(0, sink, 3.5)
    assert sink.records == [(21, bytes((2, Alert.INTERNAL_ERROR)))]


def test_the_peers_close_is_answered_and_data_before_it_is_kept() -> None:
    core = server()
    give(core, Stream(0, 0, b"data"))
    give(core, Stream(2, 0, b"whole", True))
    give(core, SessionClose(3, "enough"))
    assert core.ended
    sink = Sink()
    core.transmit(0, sink, 0.0)
    assert sink.records[-1] == (21, b"\x01\x00")
    assert list(parse_frames(sink.records[0][1])) == [Ack(0, 2)]
    assert core.actions() == [CloseConnection(0)]
    assert core.receive(0, 10) == b"data"
    with pytest.raises(SessionClosed) as caught:
        core.receive(0, 10)
    assert (caught.value.code, caught.value.reason) == (3, "enough")
    assert core.receive(2, 10) == b"whole"
    assert core.receive(2, 10) == b""


def test_a_close_in_a_record_with_data_comes_last() -> None:
    core = server()
    give_raw(core, encode(Stream(0, 0, b"data"), SessionClose(0, "")))
    assert core.ended
    assert core.receive(0, 10) == b"data"
    with pytest.raises(SessionClosed):
        core.receive(0, 10)


def test_close_notify_alone_lets_what_is_queued_go_and_closes() -> None:
    core = draft_server()
    give(core, Stream(0, 0, b"question"))
    core.send(0, b"answer", 0.0)
    give_raw(core, b"\x01\x00", 21)
    assert not core.ended
    assert core.receive(0, 10) == b"question"
    with pytest.raises(SessionClosed):
        core.receive(0, 10)
    sink = Sink()
    core.transmit(0, sink, 0.0)
    assert sink.records[-1] == (21, b"\x01\x00")
    assert core.ended
    assert core.events()[-1] == SessionEnded(None)


@pytest.mark.parametrize("error", [None, "connection reset"])
def test_the_end_of_tcp_without_a_close_is_a_loss(error: str | None) -> None:
    core = server()
    give(core, Stream(0, 0, b"data"))
    core.connection_ended(0, error, 0.0)
    assert core.receive(0, 10) == b"data"
    with pytest.raises(SessionLost, match=error or "without a close"):
        core.receive(0, 10)
    with pytest.raises(SessionLost):
        core.send(0, b"x", 0.0)
    with pytest.raises(SessionLost):
        core.open_stream()


def test_an_alert_ends_the_session() -> None:
    core = server()
    give_raw(core, bytes((2, Alert.DECODE_ERROR)), 21)
    ended = core.events()[-1]
    assert isinstance(ended, SessionEnded)
    assert isinstance(ended.error, AlertReceived)
    sink = Sink()
    core.transmit(0, sink, 0.0)
    assert sink.records == []


def test_an_idle_session_is_lost() -> None:
    core = server(peer=Parameters(idle_timeout=5000), local=Parameters(idle_timeout=9000, stream_limit=4))
    assert core.next_timer() == 5.0
    give(core, Stream(0, 0, b""), now=3.0)
    assert core.next_timer() == 8.0
    core.timer_expired(8.0)
    assert core.ended
    sink = Sink()
    core.transmit(0, sink, 8.0)
    assert sink.records == [(21, b"\x01\x00")]


def test_a_draft_peer_has_no_idle_timeout() -> None:
    assert draft_server(local=Parameters(idle_timeout=1000)).next_timer() is None


def test_calls_after_the_end_do_no_harm() -> None:
    core = server()
    give(core, Stream(0, 0, b"x"))
    core.connection_ended(0, None, 0.0)
    core.connection_ended(0, "twice", 0.0)
    core.finish(0)
    core.reset(0, 1)
    core.stop_sending(0, 1)
    core.close(0, "", 0.0)
    core.timer_expired(9.0)
    assert core.next_timer() is None
    assert said(core) == []
    assert len([event for event in core.events() if isinstance(event, SessionEnded)]) == 1


# What the peer announces about connections.


def test_announcements_are_kept_by_the_drafts_rules() -> None:
    core = client()
    address = NewAddress(1, bytes(4), 443)
    give(core, address, NewAddress(1, bytes(4), 444), NewAddress(2, bytes(16), 1))
    assert core.paths.announcements.addresses == {1: address, 2: NewAddress(2, bytes(16), 1)}
    give(core, RemoveAddress(1), RemoveAddress(9), NewAddress(1, bytes(4), 445))
    assert set(core.paths.announcements.addresses) == {2}
    give(core, NewToken(1, bytes(32)), ConnectionReset(0), StreamChange(4, 100))
    assert core.paths.announcements.tokens == {1: bytes(32)}
    assert core.paths.announcements.stream_hint == {0: StreamChange(4, 100)}
    newer, older = PathStatus(0, 5, PathState.STANDBY, 1), PathStatus(0, 4, PathState.AVAILABLE, 2)
    give(core, newer, older)
    assert core.paths.announcements.path_status == {0: newer}


@pytest.mark.parametrize("ask", ["ours", "theirs"])
def test_keys_that_cannot_change_end_the_connection_before_anything_is_put(ask: str) -> None:
    session = Session(Role.SERVER, SessionConfig(), LOCAL, PEER, READ, WRITE)
    sink = Sink()
    sink.can_switch_keys = False
    if ask == "ours":
        session.update_keys(True)
    else:
        session.receive_record(0, 22, memoryview(PostHandshake.key_update(True)), 1.0)
    with pytest.raises(KernelUnavailable, match="cannot change keys"):
        session.transmit(0, sink, 1.0)
    assert sink.records == []


def test_a_stream_that_was_reset_and_is_then_stopped_counts_once() -> None:
    session = Session(Role.SERVER, SessionConfig(), LOCAL, PEER, READ, WRITE)
    for frame in (Stream(0, 0, b"data", fin=False), ResetStream(0, 9, 1)):
        session.receive_record(0, 23, memoryview(encode(frame)), 1.0)
    session.stop_sending(0, 2)
    table = session._streams
    assert (table.received, table.consumed, table.buffered) == (9, 9, 0)
