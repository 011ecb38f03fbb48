"""Early data at the cores: what a client's looks like, and what a server takes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpls.errors import ApiMisuse, Reason
from tcpls.protocol.base import Role
from tcpls.protocol.core import Core
from tcpls.protocol.early import early_records
from tcpls.protocol.events import StreamOpened, StreamReadable
from tcpls.protocol.frames import (
    Ack,
    Frame,
    MaxData,
    MaxStreams,
    Padding,
    ParametersFrame,
    Ping,
    ProgramOfferFrame,
    ResetStream,
    SessionClose,
    StopSending,
    Stream,
    TcpOption,
    encode,
)
from tcpls.protocol.parameters import Parameters
from tcpls.protocol.plain import PlainSession
from tcpls.protocol.resumption import Remembered
from tests.unit.protocol.ends import LOCAL, PEER, READ, WRITE, Sink, client, draft_server, give, refused, said, server

NEGOTIATED = Remembered(True, PEER)
MODES = {"negotiated": NEGOTIATED, "draft": Remembered(True), "plain": Remembered(False)}


def receivers(mode: str) -> Core:
    if mode == "plain":
        return PlainSession(Role.SERVER, READ, WRITE)
    return draft_server() if mode == "draft" else server(Parameters())


def take_early(core: Core, records: list[bytes]) -> None:
    for record in records:
        core.receive_early(record, 0.0)
    core.settle()


@given(
    st.sampled_from(sorted(MODES)),
    st.binary(min_size=1, max_size=3000).map(lambda piece: piece * 30),
    st.integers(1, 120_000),
    st.integers(1, 120_000),
)
def test_what_a_client_sends_early_is_what_a_server_reads(mode: str, data: bytes, room: int, window: int) -> None:
    remembered = MODES[mode]
    if remembered.server is not None:
        remembered = Remembered(True, replace(PEER, stream_window=window))
    records, taken = early_records(remembered, LOCAL, data, room)
    assert sum(map(len, records)) <= room
    assert all(len(record) <= 1 << 14 for record in records)
    assert taken <= len(data)
    assert bool(records) is (taken > 0)
    if remembered.server is not None:
        assert taken <= min(window, PEER.session_window)
    core = receivers(mode)
    core.events()
    take_early(core, records)
    if not taken:
        return
    opened = [StreamOpened(0)] if mode != "plain" else []
    assert core.events() == [*opened, StreamReadable(0)]
    received = b""
    while piece := core.receive(0, 1 << 20):
        received += piece
    assert received == data[:taken]


def test_room_for_everything_is_used() -> None:
    records, taken = early_records(NEGOTIATED, LOCAL, b"x" * 40_000, 16_384)
    assert sum(map(len, records)) == 16_384
    assert taken == 16_384 - len(encode(ParametersFrame(LOCAL.write()))) - 15
    nowhere = Remembered(True, replace(PEER, stream_limit=0))
    assert early_records(nowhere, LOCAL, b"x", 1000) == ([], 0)
    assert early_records(NEGOTIATED, LOCAL, b"", 1000) == ([], 0)


def test_the_parameters_come_early_and_once_more() -> None:
    """With them a server can answer at once; the client's first record has them again, as it always does."""
    core = server(Parameters())
    assert core.open_stream() is None
    records, _ = early_records(NEGOTIATED, LOCAL, b"question", 1000)
    take_early(core, records)
    core.send(0, b"answer", 0.0)
    assert said(core) == [Stream(0, 0, b"answer")]
    assert core.open_stream() == 1
    give(core, ParametersFrame(LOCAL.write()))
    with refused(core, Reason.DUPLICATE):
        give(core, ParametersFrame(replace(LOCAL, stream_limit=3).write()))


def test_early_records_have_no_number_and_are_not_acknowledged() -> None:
    core = server(Parameters())
    local = replace(LOCAL, failover=True)
    take_early(core, early_records(NEGOTIATED, local, b"question", 1000)[0])
    assert said(core) == []
    give(core, ParametersFrame(local.write()), Ping())
    assert Ack(0, 0) in said(core)


@pytest.mark.clause("RFC 8446 2.3")
@pytest.mark.parametrize(
    "frame",
    [
        Ping(),
        Ack(0, 0),
        MaxData(1 << 30),
        MaxStreams(100),
        ResetStream(0, 0, 1),
        StopSending(0, 1),
        SessionClose(0, ""),
        TcpOption(1, 0, 1, b"\0\0\0\1"),
        ProgramOfferFrame(0, 100, bytes(32), "vegas", "bpfel+struct_ops", b"", b"", ()),
    ],
)
def test_nothing_but_streams_and_parameters_is_early(frame: Frame) -> None:
    core = server(Parameters())
    with refused(core, Reason.UNKNOWN_FRAME):
        core.receive_early(encode(frame), 0.0)


def test_early_streams_keep_to_the_windows() -> None:
    for frame, reason in (
        (Stream(0, LOCAL.stream_window, b"x"), Reason.FLOW_CONTROL),
        (Stream(2 * LOCAL.stream_limit, 0, b"x"), Reason.STREAM_LIMIT),
        (Stream(1, 0, b"x"), Reason.STREAM_STATE),
    ):
        core = server(Parameters())
        with refused(core, reason):
            core.receive_early(encode(frame), 0.0)


def test_padding_and_the_end_of_a_stream() -> None:
    core = server(Parameters())
    core.events()
    take_early(core, [encode(Padding(5)), encode(Stream(0, 0, b"all", fin=True))])
    assert core.receive(0, 10) == b"all"
    assert core.receive(0, 10) == b""


@pytest.mark.parametrize("failover", [False, True])
def test_a_client_goes_on_behind_its_early_data(failover: bool) -> None:
    core = client(local=replace(LOCAL, failover=failover))
    assert core.sent_early(b"x" * 1000) == 0
    core.send(0, b"more", 0.0)
    frames = said(core)
    assert Stream(0, 1000, b"more") in frames
    core.finish(0)
    assert said(core) == [Stream(0, 1004, b"", fin=True)]
    core.close(0, "", 1.0)
    said(core)
    assert not core.delivered
    give(core, Ack(0, core.records_sent(0) - 2))
    assert core.delivered
    # Credit was used.
    other = client(peer=replace(PEER, session_window=1000))
    other.sent_early(b"x" * 1000)
    other.send(0, b"more", 0.0)
    assert not [frame for frame in said(other) if isinstance(frame, Stream)]


def test_early_data_is_kept_until_a_later_record_is_acknowledged() -> None:
    """An ACK of the first numbered record says that the early ones, which came ahead of it, are there too."""
    core = client(local=replace(LOCAL, failover=True))
    core.sent_early(b"x" * 1000)
    core.finish(0)
    said(core)
    assert not core.send_finished(0)
    give(core, Ack(0, core.records_sent(0) - 1))
    assert core.send_finished(0)


def test_early_data_comes_first() -> None:
    core = client()
    assert core.open_stream() == 0
    assert core.sent_early(b"x") == 2
    plain = PlainSession(Role.CLIENT, READ, WRITE)
    plain.open_stream()
    with pytest.raises(ApiMisuse):
        plain.sent_early(b"x")
    with pytest.raises(ApiMisuse):
        client(peer=replace(PEER, stream_limit=0)).sent_early(b"x")


def test_plain_data_goes_on_behind_early_data() -> None:
    core = PlainSession(Role.CLIENT, READ, WRITE)
    assert core.sent_early(b"early") == 0
    core.send(0, b"more", 0.0)
    sink = Sink()
    core.transmit(0, sink, 0.0)
    assert sink.take() == [(23, b"more")]


@pytest.mark.parametrize("core", [server(), draft_server(), PlainSession(Role.SERVER, READ, WRITE)])
def test_tickets_that_follow_an_answer(core: Core) -> None:
    core.send_messages(b"t" * 20_000)
    sink = Sink()
    core.transmit(0, sink, 0.0)
    assert [(content_type, len(content)) for content_type, content in sink.take()][:2] == [(22, 16_384), (22, 3616)]


@pytest.mark.parametrize("mode", ["negotiated", "draft", "plain"])
def test_the_end_of_sending_waits_for_the_tickets(mode: str) -> None:
    core = receivers(mode)
    core.handshaking = True
    sink = Sink()
    core.close(0, "", 0.0)
    core.transmit(0, sink, 0.0)
    assert sink.take() == []
    core.handshaking = False
    core.send_messages(b"tickets")
    core.transmit(0, sink, 0.0)
    assert [content_type for content_type, _ in sink.take()] in ([22, 21], [22, 23, 21])
    impatient = receivers(mode)
    impatient.handshaking = True
    impatient.close(1, "an error", 0.0)
    impatient.transmit(0, sink, 0.0)
    assert sink.take()[-1][0] == 21
