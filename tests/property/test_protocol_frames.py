"""Frames and parameters: what is written is what is read, and any bytes give frames or a `PeerError`."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpls.errors import PeerError
from tcpls.protocol.events import OptionStatus, Stage
from tcpls.protocol.frames import (
    ALL_FRAMES,
    DRAFT_FRAMES,
    MAX_ABI,
    MAX_NAME,
    MAX_OFFSET,
    MAX_OPTION_VALUE,
    Ack,
    ConnectionReset,
    Frame,
    JoinToken,
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
    ProgramData,
    ProgramDetach,
    ProgramOfferFrame,
    ProgramRequest,
    ProgramResult,
    RemoveAddress,
    ResetStream,
    SessionClose,
    StopSending,
    Stream,
    StreamChange,
    TcpOption,
    TcpOptionResult,
    Want,
    clip,
    encode,
    parse_frames,
)
from tcpls.protocol.parameters import ABSENT, Parameters, ProgramSupport

u8, u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))
offsets = st.integers(0, MAX_OFFSET)


def text(most: int) -> st.SearchStrategy[str]:
    return st.text(max_size=most).map(lambda value: clip(value, most))


FRAMES: dict[type[Frame], st.SearchStrategy[Frame]] = {
    Padding: st.builds(Padding, st.integers(1, 1000)),
    Ping: st.builds(Ping),
    Stream: st.builds(Stream, u32, st.integers(0, MAX_OFFSET - 65535), st.binary(max_size=300), st.booleans()),
    Ack: st.builds(Ack, u32, u64),
    JoinToken: st.builds(JoinToken, u32, st.binary(min_size=32, max_size=32)),
    NewToken: st.builds(NewToken, u8, st.binary(min_size=32, max_size=32)),
    ConnectionReset: st.builds(ConnectionReset, u32),
    NewAddress: st.builds(
        NewAddress, u8, st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)), u16
    ),
    RemoveAddress: st.builds(RemoveAddress, u8),
    StreamChange: st.builds(StreamChange, u32, u64),
    MaxData: st.builds(MaxData, offsets),
    MaxStreamData: st.builds(MaxStreamData, u32, offsets),
    MaxStreams: st.builds(MaxStreams, st.integers(0, 1 << 31)),
    ResetStream: st.builds(ResetStream, u32, offsets, u32),
    StopSending: st.builds(StopSending, u32, u32),
    SessionClose: st.builds(SessionClose, u32, text(1024)),
    PathStatus: st.builds(PathStatus, u32, u32, st.sampled_from(PathState), u8),
    ParametersFrame: st.builds(ParametersFrame, st.binary(max_size=400)),
    TcpOption: st.builds(TcpOption, u32, u32, u16, st.binary(max_size=MAX_OPTION_VALUE)),
    TcpOptionResult: st.builds(
        TcpOptionResult, u32, st.sampled_from(OptionStatus), u32, st.binary(max_size=MAX_OPTION_VALUE)
    ),
    ProgramOfferFrame: st.builds(
        ProgramOfferFrame,
        u32,
        u32,
        st.binary(min_size=32, max_size=32),
        text(MAX_NAME),
        text(MAX_ABI),
        st.binary(max_size=100),
        st.binary(max_size=255),
        st.lists(u32, max_size=255).map(tuple),
    ),
    ProgramRequest: st.builds(ProgramRequest, u32, st.sampled_from(Want), u32, text(1024)),
    ProgramData: st.builds(ProgramData, u32, u32, st.binary(max_size=300)),
    ProgramResult: st.builds(
        ProgramResult, u32, st.sampled_from(Stage), st.booleans(), text(MAX_NAME), text(1024), text(8192)
    ),
    ProgramDetach: st.builds(ProgramDetach, u32),
}
any_frame = st.one_of(*FRAMES.values())


def test_every_frame_is_among_them() -> None:
    assert len(FRAMES) == len(ALL_FRAMES) - 1


@pytest.mark.parametrize("kind", FRAMES, ids=lambda kind: kind.__name__)
def test_a_frame_that_is_written_is_read(kind: type[Frame]) -> None:
    @given(FRAMES[kind])
    def check(frame: Frame) -> None:
        assert list(parse_frames(encode(frame))) == [frame]

    check()


@given(st.lists(any_frame, max_size=8))
def test_the_frames_of_a_record_are_read_from_last_to_first(frames: list[Frame]) -> None:
    expected: list[Frame] = []
    for frame in reversed(frames):
        if isinstance(frame, Padding) and expected and isinstance(expected[-1], Padding):
            expected[-1] = Padding(expected[-1].count + frame.count)
        else:
            expected.append(frame)
    assert list(parse_frames(encode(*frames))) == expected


@given(st.binary(max_size=600), st.booleans())
def test_any_bytes_give_frames_or_a_peer_error(data: bytes, extended: bool) -> None:
    try:
        frames = list(parse_frames(data, ALL_FRAMES if extended else DRAFT_FRAMES))
    except PeerError:
        return
    assert encode(*reversed(frames)) == data


@given(any_frame, st.integers(0, 400))
def test_a_frame_that_is_cut_is_refused_or_another(frame: Frame, cut: int) -> None:
    data = encode(frame)[cut:]
    try:
        frames = list(parse_frames(data))
    except PeerError:
        return
    assert encode(*reversed(frames)) == data


parameters = st.builds(
    Parameters,
    session_window=offsets,
    stream_window=offsets,
    stream_limit=st.integers(0, 1 << 20),
    idle_timeout=st.integers(0, 1000),
    ack_records=st.integers(1, 4096),
    ack_delay=st.integers(0, 10_000),
    failover=st.booleans(),
    max_connections=st.integers(1, 256),
    options=st.lists(u16, unique=True, max_size=20).map(tuple),
    programs=st.one_of(
        st.none(),
        st.builds(ProgramSupport, st.integers(1, 7), st.integers(1, 1 << 24), st.text("abc+_", max_size=64)),
    ),
)


@given(parameters)
def test_parameters_that_are_written_are_read(value: Parameters) -> None:
    assert Parameters.read(value.write()) == value


@given(parameters, parameters)
def test_late_parameters_fill_what_was_absent(early: Parameters, late: Parameters) -> None:
    twice = any(
        getattr(early, item.name) != getattr(ABSENT, item.name) != getattr(late, item.name) for item in fields(early)
    )
    try:
        merged = early.updated(late)
    except PeerError:
        assert twice
        return
    assert not twice
    for item in fields(early):
        assert getattr(merged, item.name) in (getattr(early, item.name), getattr(late, item.name))


@given(st.binary(max_size=200))
def test_any_bytes_give_parameters_or_a_peer_error(data: bytes) -> None:
    try:
        value = Parameters.read(data)
    except PeerError:
        return
    assert Parameters.read(value.write()) == value
