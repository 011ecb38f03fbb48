"""Whatever a peer sends, a core ends in events or in a `ProtocolViolation`; anything else is a bug."""

from __future__ import annotations

from dataclasses import fields, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tcpls.errors import (
    ApiMisuse,
    NotNegotiated,
    ProtocolViolation,
    SessionClosed,
    SessionLost,
    StreamReset,
    TCPLSError,
)
from tcpls.protocol.actions import ApplyOption, DetachProgram, JudgeProgram, LoadProgram
from tcpls.protocol.base import Role, SessionConfig
from tcpls.protocol.core import Core
from tcpls.protocol.events import OptionStatus, Stage, StreamOpened, StreamReadable
from tcpls.protocol.frames import Frame, encode
from tcpls.protocol.plain import PlainSession
from tcpls.protocol.session import Session
from tests.property.test_protocol_frames import FRAMES
from tests.unit.protocol.ends import LOCAL, PEER, READ, WRITE, Sink

small = st.sampled_from([0, 1, 2, 3, 4, 5, 7, 8, 100, 59_999, 60_000])


def _near(kind: type[Frame]) -> st.SearchStrategy[Frame]:
    """Frames whose numbers are small, so that they meet streams, programs and requests that exist."""
    names = {
        "stream_id": small,
        "offset": small,
        "program_id": st.integers(0, 3),
        "request_id": st.integers(0, 3),
        "connection_id": st.sampled_from([0, 0, 0, 1]),
        "option_id": st.sampled_from([1, 2, 6, 17, 99]),
        "maximum": small,
        "final_size": small,
        "highest": st.integers(0, 4),
        "size": st.sampled_from([1, 10, 300]),
    }
    known = {name: strategy for name, strategy in names.items() if name in {each.name for each in fields(kind)}}
    return FRAMES[kind].flatmap(lambda frame: st.fixed_dictionaries(known).map(lambda values: replace(frame, **values)))  # type: ignore[arg-type]


frames = st.one_of(*(_near(kind) for kind in FRAMES))
records = st.one_of(
    st.tuples(st.just(23), st.lists(frames, max_size=3).map(lambda each: encode(*each)[:16384])),
    st.tuples(st.just(23), st.binary(max_size=60)),
    st.tuples(st.sampled_from([20, 21, 22]), st.binary(max_size=8)),
    st.tuples(st.just(22), st.sampled_from([b"\x18\0\0\1\0", b"\x18\0\0\1\1", b"\x18\0"])),
    st.tuples(st.just(21), st.sampled_from([b"\1\0", b"\1\x5a", b"\2\x28"])),
)


def _answer(core: Core) -> None:
    """What a shell and an application would do with what the core says."""
    for action in core.actions():
        if not isinstance(core, Session):
            continue
        match action:
            case ApplyOption():
                core.control.option_result(action.request_id, OptionStatus.APPLIED, action.value)
            case JudgeProgram():
                core.control.answer_offer(action.program_id, accept=True)
            case LoadProgram():
                core.control.program_result(action.program_id, Stage.ATTACHED, True, "cubic")
            case DetachProgram():
                core.control.program_result(action.program_id, Stage.DETACHED, True)
    for event in core.events():
        if isinstance(event, StreamOpened | StreamReadable):
            try:
                core.receive(event.stream_id, 1000)
                core.send(event.stream_id, b"answer", 0.0)
                core.finish(event.stream_id)
            except (ApiMisuse, StreamReset, SessionClosed, SessionLost):
                continue
            except TCPLSError:
                # The session's own error, once it has ended.
                if not core.ended:
                    raise


def _feed(core: Core, received: list[tuple[int, bytes]]) -> None:
    for number, (content_type, content) in enumerate(received):
        try:
            core.receive_record(0, content_type, memoryview(bytearray(content)), number / 1000)
        except ProtocolViolation as error:
            core.fail(0, error, 0.0)
        core.settle()
        _answer(core)
        core.transmit(0, Sink(), number / 1000)
    core.next_timer()
    core.timer_expired(1000.0)
    core.connection_ended(0, None, 1000.0)
    # A FIN behind a close_notify ends one direction only; a reset ends everything.
    core.connection_ended(0, "reset", 1000.0)
    assert core.ended


@settings(max_examples=400)
@given(st.sampled_from(Role), st.sampled_from([PEER, None]), st.booleans(), st.lists(records, max_size=12))
def test_any_records_into_a_session(role: Role, peer: object, busy: bool, received: list[tuple[int, bytes]]) -> None:
    core = Session(role, SessionConfig(), LOCAL, peer, READ, WRITE)  # type: ignore[arg-type]
    if busy:
        stream_id = core.open_stream() or 0
        core.send(stream_id, bytes(5000), 0.0)
        core.ping(0.0)
        try:
            core.control.request_option("no_delay", 1)
            core.control.offer_program("vegas", bytes(1000), "bpfel")
        except NotNegotiated:
            assert peer is None
    core.transmit(0, Sink(), 0.0)
    _feed(core, received)


@settings(max_examples=200)
@given(st.sampled_from(Role), st.lists(records, max_size=12))
def test_any_records_into_ordinary_tls(role: Role, received: list[tuple[int, bytes]]) -> None:
    _feed(PlainSession(role, READ, WRITE), received)
