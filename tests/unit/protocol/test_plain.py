"""Ordinary TLS behind the core's interface."""

from __future__ import annotations

import pytest

from tcpls.errors import Alert, ApiMisuse, NotNegotiated, Reason, SessionClosed, SessionLost
from tcpls.protocol.actions import CloseConnection, EndSending
from tcpls.protocol.base import Role, SessionConfig
from tcpls.protocol.connections import EMPTY_RECORDS_PER_SECOND
from tcpls.protocol.events import SessionEnded, StreamOpened, StreamReadable, StreamWritable
from tcpls.protocol.plain import PlainSession
from tcpls.tls.messages import KeyUpdate
from tests.unit.protocol.ends import READ, WRITE, Sink, give_raw, refused

CLOSE_NOTIFY = b"\x01\x00"


def client(**settings: float) -> PlainSession:
    return PlainSession(Role.CLIENT, READ, WRITE, config=SessionConfig(**settings))  # type: ignore[arg-type]


def server(**settings: float) -> PlainSession:
    return PlainSession(Role.SERVER, READ, WRITE, config=SessionConfig(**settings))  # type: ignore[arg-type]


def put(core: PlainSession) -> list[tuple[int, bytes]]:
    sink = Sink()
    core.transmit(0, sink, 0.0)
    return sink.records


def test_there_is_one_stream() -> None:
    core = client()
    with pytest.raises(ApiMisuse):
        core.send(0, b"x", 0.0)
    assert core.open_stream() == 0
    assert core.open_stream() is None
    assert server().events() == [StreamOpened(0)]
    assert server().open_stream() is None
    with pytest.raises(ApiMisuse):
        core.send(2, b"x", 0.0)


def test_bytes_are_records_and_the_end_is_close_notify() -> None:
    core = server()
    core.send(0, bytes(20_000), 0.0)
    core.finish(0)
    assert not core.send_finished(0)
    assert put(core) == [(23, bytes(1 << 14)), (23, bytes(20_000 - (1 << 14))), (21, CLOSE_NOTIFY)]
    assert core.send_finished(0)
    assert put(core) == []
    assert core.actions() == [EndSending(0)]
    with pytest.raises(ApiMisuse):
        core.send(0, b"x", 0.0)


def test_with_more_to_come_only_full_records_leave_until_a_push() -> None:
    core = server()
    core.send(0, bytes(3 * (1 << 14) + 5), 0.0, more=True)
    sizes = [len(content) for _, content in put(core)]
    assert sizes == [1 << 14] * 3
    core.push(0)
    assert put(core) == [(23, bytes(5))]
    core.send(0, b"the end", 0.0, more=True)
    core.finish(0)
    assert put(core) == [(23, b"the end"), (21, CLOSE_NOTIFY)]


@pytest.mark.clause("RFC 8446 6.1")
def test_the_other_direction_goes_on_after_the_end_of_one() -> None:
    core = client()
    core.open_stream()
    core.finish(0)
    put(core)
    give_raw(core, b"answer")
    assert core.receive(0, 100) == b"answer"
    assert core.receive(0, 100) is None
    give_raw(core, CLOSE_NOTIFY, 21)
    assert core.receive(0, 100) == b""
    assert core.ended
    assert core.actions() == [EndSending(0), CloseConnection(0)]
    assert core.events()[-1] == SessionEnded(None)


def test_this_end_may_answer_after_the_peers_close_notify() -> None:
    core = server()
    core.events()
    give_raw(core, b"question")
    give_raw(core, CLOSE_NOTIFY, 21)
    give_raw(core, b"ignored")
    assert core.events() == [StreamReadable(0)]
    assert core.receive(0, 100) == b"question"
    assert core.receive(0, 100) == b""
    assert not core.ended
    core.send(0, b"answer", 0.0)
    core.finish(0)
    assert put(core) == [(23, b"answer"), (21, CLOSE_NOTIFY)]
    assert core.ended


@pytest.mark.clause("RFC 8446 6.1")
def test_the_end_of_tcp_without_close_notify_is_a_truncation() -> None:
    core = server()
    give_raw(core, b"half")
    core.connection_ended(0, None, 0.0)
    assert core.receive(0, 100) == b"half"
    with pytest.raises(SessionLost):
        core.receive(0, 100)
    with pytest.raises(SessionLost):
        core.send(0, b"x", 0.0)


def test_the_end_of_tcp_behind_close_notify_ends_one_direction() -> None:
    core = server()
    give_raw(core, CLOSE_NOTIFY, 21)
    core.connection_ended(0, None, 0.0)
    assert not core.ended
    core.send(0, b"answer", 0.0)
    core.finish(0)
    assert put(core) == [(23, b"answer"), (21, CLOSE_NOTIFY)]
    assert core.events()[-1] == SessionEnded(None)


def test_an_error_of_tcp_behind_close_notify_is_a_loss_for_what_is_left() -> None:
    core = server()
    give_raw(core, CLOSE_NOTIFY, 21)
    core.send(0, b"answer", 0.0)
    core.connection_ended(0, "reset", 0.0)
    with pytest.raises(SessionLost):
        core.send(0, b"more", 0.0)
    assert not core.delivered


def test_reading_pauses_while_too_much_waits() -> None:
    core = server(receive_buffer=10_000)
    give_raw(core, bytes(9_999))
    assert not core.reading_paused
    give_raw(core, b"x")
    assert core.reading_paused
    core.receive(0, 5_000)
    assert not core.reading_paused


def test_capacity_comes_back() -> None:
    core = server(send_buffer=1000)
    core.events()
    core.send(0, bytes(1200), 0.0)
    assert core.send_capacity(0) == -200
    put(core)
    assert core.send_capacity(0) == 1000
    assert core.events() == [StreamWritable(0)]


@pytest.mark.clause("RFC 8446 4.6.3")
def test_keys_change_both_ways() -> None:
    core = server()
    assert give_raw(core, KeyUpdate(True).write(), 22) == READ.next().keys()
    core.send(0, b"x", 0.0)
    sink = Sink()
    core.transmit(0, sink, 0.0)
    assert sink.records == [(22, KeyUpdate(False).write()), (23, b"x")]
    assert sink.keys == [(1, WRITE.next().keys())]
    core.update_keys(True)
    core.transmit(0, sink, 0.0)
    assert sink.records[2] == (22, KeyUpdate(True).write())


def test_a_close_ends_it_within_a_bounded_time() -> None:
    core = client(close_timeout=2.0)
    core.open_stream()
    core.send(0, b"x", 0.0)
    core.close(0, "", 0.0)
    core.close(0, "", 0.0)
    with pytest.raises(SessionClosed):
        core.send(0, b"y", 0.0)
    assert put(core) == [(23, b"x"), (21, CLOSE_NOTIFY)]
    assert core.actions() == [CloseConnection(0)]
    assert core.next_timer() is None
    core.connection_ended(0, None, 1.0)
    assert core.events()[-1] == SessionEnded(None)
    assert core.delivered


def test_a_close_that_cannot_send_ends_too() -> None:
    core = client(close_timeout=2.0)
    core.open_stream()
    core.send(0, b"x", 0.0)
    core.close(0, "", 0.0)
    core.timer_expired(2.0)
    assert core.ended
    assert not core.delivered
    assert core.actions() == [CloseConnection(0)]


@pytest.mark.parametrize("abort", [lambda core: core.reset(0, 5), lambda core: core.close(5, "", 0.0)])
def test_giving_up_is_an_error_alert_so_that_it_is_no_clean_end(abort: object) -> None:
    core = server()
    core.send(0, b"dropped", 0.0)
    abort(core)  # type: ignore[operator]
    assert put(core) == [(21, bytes((2, Alert.INTERNAL_ERROR)))]
    assert core.ended
    assert core.actions() == [CloseConnection(0)]


def test_stopping_drops_what_comes() -> None:
    core = server()
    give_raw(core, b"abc")
    core.stop_sending(0, 1)
    give_raw(core, b"def")
    assert not core.reading_paused
    with pytest.raises(ApiMisuse):
        core.receive(0, 1)


def test_what_only_tcpls_has_is_not_negotiated() -> None:
    with pytest.raises(NotNegotiated):
        client().ping(0.0)


def test_hostile_records_are_refused() -> None:
    core = server()
    for _ in range(EMPTY_RECORDS_PER_SECOND):
        give_raw(core, b"")
    with refused(core, Reason.TOO_MANY_RECORDS):
        give_raw(core, b"")
    core = server()
    with refused(core, Reason.EMPTY_RECORD):
        give_raw(core, b"", 21)
    core = server()
    with refused(core, Reason.UNEXPECTED_RECORD):
        give_raw(core, b"x", 20)
    core = server()
    give_raw(core, b"\x18", 22)
    with refused(core, Reason.MESSAGE_ACROSS_KEYS):
        give_raw(core, b"x")
    core = server()
    give_raw(core, bytes((2, 40)), 21)
    assert core.ended


@pytest.mark.clause("RFC 8449 4")
@pytest.mark.parametrize("limit", [63, 1000])
def test_records_are_no_longer_than_the_peer_takes(limit: int) -> None:
    core, sink = server(), Sink(max_content=limit)
    data = bytes(range(256)) * 100
    core.send(0, data, 0.0)
    core.finish(0)
    core.transmit(0, sink, 0.0)
    *records, last = sink.records
    assert last == (21, CLOSE_NOTIFY)
    assert b"".join(content for _, content in records) == data
    assert {len(content) for _, content in records[:-1]} == {limit}
