"""Every rule of TCPLS that a peer can break: the reason, and the alert that it is told."""

from __future__ import annotations

import hashlib

import pytest

from tcpls.errors import ALERT_FOR, Alert, ProtocolViolation, Reason
from tcpls.protocol.connections import (
    ALERTS_PER_SECOND,
    EMPTY_RECORDS_PER_SECOND,
    KEY_UPDATES_PER_SECOND,
    MESSAGES_PER_SECOND,
)
from tcpls.protocol.events import OptionStatus, Stage
from tcpls.protocol.frames import (
    ALL_CONNECTIONS,
    MAX_FRAMES_PER_RECORD,
    Ack,
    ConnectionReset,
    Frame,
    MaxData,
    MaxStreamData,
    NewToken,
    ParametersFrame,
    PathState,
    PathStatus,
    Ping,
    ProgramData,
    ProgramDetach,
    ProgramOfferFrame,
    ProgramRequest,
    ProgramResult,
    ResetStream,
    StopSending,
    Stream,
    TcpOption,
    TcpOptionResult,
    Want,
    encode,
)
from tcpls.protocol.options import EINVAL
from tcpls.protocol.parameters import Parameters
from tcpls.protocol.session import MAX_PENDING_FRAMES, Session
from tcpls.tls.messages import KeyUpdate
from tests.unit.protocol.ends import Sink, client, draft_server, give, give_raw, refused, said, server

IMAGE = b"\x7fELF" * 10_000
OFFER = ProgramOfferFrame(0, len(IMAGE), hashlib.sha256(IMAGE).digest(), "vegas", "bpfel")

BY_ONE_RECORD: list[tuple[str, Reason, list[Frame]]] = [
    ("stream window", Reason.FLOW_CONTROL, [Stream(0, 59_999, b"12")]),
    ("final size beyond the window", Reason.FLOW_CONTROL, [ResetStream(0, 60_001, 0)]),
    ("session window", Reason.FLOW_CONTROL, [Stream(0, 59_999, b"1"), Stream(2, 49_999, b"1")]),
    ("session window by resets", Reason.FLOW_CONTROL, [Stream(0, 59_999, b"1"), ResetStream(2, 60_000, 0)]),
    ("stream limit", Reason.STREAM_LIMIT, [Stream(8, 0, b"1")]),
    ("stream limit by credit", Reason.STREAM_LIMIT, [MaxStreamData(8, 1)]),
    ("a stream of ours that is not open", Reason.STREAM_STATE, [Stream(1, 0, b"1")]),
    ("a reset of a stream that is not open", Reason.STREAM_STATE, [ResetStream(1, 0, 0)]),
    ("a stop of a stream that is not open", Reason.STREAM_STATE, [StopSending(1, 0)]),
    ("data beyond the end", Reason.FINAL_SIZE, [Stream(0, 0, b"1", True), Stream(0, 1, b"2")]),
    ("another end", Reason.FINAL_SIZE, [Stream(0, 0, b"1", True), Stream(0, 1, b"2", True)]),
    ("an end before data", Reason.FINAL_SIZE, [Stream(0, 5, b"1"), Stream(0, 0, b"2", True)]),
    ("a reset that changes the end", Reason.FINAL_SIZE, [Stream(0, 0, b"1", True), ResetStream(0, 2, 0)]),
    ("a reset below the data", Reason.FINAL_SIZE, [Stream(0, 0, b"12"), ResetStream(0, 1, 0)]),
    ("data behind a reset", Reason.FINAL_SIZE, [ResetStream(0, 1, 0), Stream(0, 1, b"1")]),
    ("a token from a client", Reason.WRONG_ROLE, [NewToken(1, bytes(32))]),
    ("an ACK of what was not sent", Reason.BAD_ACK, [Ack(0, 0)]),
    ("an ACK for no connection", Reason.UNKNOWN_CONNECTION, [Ack(7, 0)]),
    ("a reset of no connection", Reason.UNKNOWN_CONNECTION, [ConnectionReset(1)]),
    ("the status of no connection", Reason.UNKNOWN_CONNECTION, [PathStatus(1, 0, PathState.STANDBY, 0)]),
    ("an option of no connection", Reason.UNKNOWN_CONNECTION, [TcpOption(0, 1, 6, bytes(8))]),
    (
        "option requests whose ids leave many out",
        Reason.TOO_MANY_REQUESTS,
        [TcpOption(2 * number, 0, 999, b"") for number in range(65)],
    ),
    ("an option of the wrong size", Reason.BAD_LENGTH, [TcpOption(0, 0, 6, bytes(7))]),
    ("a raw option that is too short", Reason.BAD_LENGTH, [TcpOption(0, 0, 17, bytes(7))]),
    ("a name that is not ASCII", Reason.BAD_VALUE, [TcpOption(0, 0, 2, b"\xff")]),
    ("an answer to nothing", Reason.BAD_VALUE, [TcpOptionResult(0, OptionStatus.APPLIED, 0, b"")]),
    (
        "too many options",
        Reason.TOO_MANY_REQUESTS,
        [TcpOption(number, ALL_CONNECTIONS, 6, bytes(8)) for number in range(33)],
    ),
    (
        "a program for no connection",
        Reason.UNKNOWN_CONNECTION,
        [ProgramOfferFrame(0, 1, bytes(32), "a", "b", connections=(3,))],
    ),
    ("a program out of sequence", Reason.PROGRAM_STATE, [ProgramOfferFrame(2, 1, bytes(32), "a", "b")]),
    ("a program with our number", Reason.PROGRAM_STATE, [ProgramOfferFrame(1, 1, bytes(32), "a", "b")]),
    ("a program without bytes", Reason.BAD_VALUE, [ProgramOfferFrame(0, 0, bytes(32), "a", "b")]),
    ("data of no program", Reason.PROGRAM_STATE, [ProgramData(0, 0, b"1")]),
    ("data before a request", Reason.PROGRAM_STATE, [OFFER, ProgramData(0, 0, b"1")]),
    ("a detach of no program", Reason.PROGRAM_STATE, [ProgramDetach(0)]),
    ("a request for no program", Reason.PROGRAM_STATE, [ProgramRequest(1, Want.SEND)]),
    ("a request for their own program", Reason.PROGRAM_STATE, [OFFER, ProgramRequest(0, Want.SEND)]),
    ("a result of no program", Reason.PROGRAM_STATE, [ProgramResult(1, Stage.ATTACHED, True)]),
    (
        "two sets of parameters",
        Reason.DUPLICATE,
        [ParametersFrame(b""), ParametersFrame(Parameters(idle_timeout=1).write())],
    ),
    ("a parameter that the hello had", Reason.DUPLICATE, [ParametersFrame(Parameters(stream_limit=1).write())]),
    ("parameters that do not parse", Reason.TRUNCATED, [ParametersFrame(b"\0")]),
]


@pytest.mark.parametrize(
    ("reason", "frames"), [case[1:] for case in BY_ONE_RECORD], ids=[case[0] for case in BY_ONE_RECORD]
)
def test_a_record_is_refused(reason: Reason, frames: list[Frame]) -> None:
    core = server()
    with refused(core, reason):
        give(core, *frames)


@pytest.mark.parametrize(
    ("reason", "content"),
    [
        (Reason.UNKNOWN_FRAME, b"\x0a"),
        (Reason.UNKNOWN_FRAME, b"\xff"),
        (Reason.TRUNCATED, b"\x02"),
        (Reason.TRUNCATED, b"abc" + bytes.fromhex("0004 0000000000000000 00000000 02")),
        (Reason.BAD_VALUE, bytes.fromhex("0000 ffffffffffffffff 00000000 02")),
        (Reason.BAD_VALUE, bytes.fromhex("1151 00000000 05 01 07")),
        (Reason.BAD_VALUE, bytes.fromhex("4000000000000000 20")),
        (Reason.BAD_VALUE, bytes.fromhex("80000001 22")),
        (Reason.BAD_VALUE, b"\xff" + bytes.fromhex("0001 00000000 25")),
        (Reason.BAD_LENGTH, bytes(1025) + bytes.fromhex("0401 00000000 25")),
        (Reason.BAD_VALUE, bytes.fromhex("00 03 00000000 00000000 26")),
        (Reason.BAD_VALUE, bytes.fromhex("0000 00000000 04 00000000 29")),
        (Reason.BAD_VALUE, bytes.fromhex("0000 00000000 03 00000000 31")),
        (Reason.BAD_VALUE, bytes.fromhex("0000 0000 00 00 09 00000000 33")),
        (Reason.BAD_VALUE, bytes.fromhex("0000 0000 00 02 07 00000000 33")),
        (Reason.TOO_LARGE, bytes([Ping.TYPE]) * (MAX_FRAMES_PER_RECORD + 1)),
    ],
)
def test_a_malformed_record_is_refused(reason: Reason, content: bytes) -> None:
    core = server()
    with refused(core, reason):
        give_raw(core, content)


@pytest.mark.parametrize("frame", [MaxData(1), ResetStream(0, 0, 0), OFFER, ParametersFrame(b"")])
def test_a_draft_peer_may_not_send_extension_frames(frame: Frame) -> None:
    core = draft_server()
    with refused(core, Reason.UNKNOWN_FRAME):
        give(core, frame)


def test_a_draft_peer_may_not_open_more_streams_at_once_than_the_limit() -> None:
    core = draft_server()
    give(core, Stream(6, 0, b"1"))
    with refused(core, Reason.STREAM_LIMIT):
        give(core, Stream(8, 0, b"1"))


def test_a_server_sends_no_parameters_frame() -> None:
    core = client()
    with refused(core, Reason.WRONG_ROLE):
        give(core, ParametersFrame(b""))


@pytest.mark.parametrize("frames", [[NewToken(0, bytes(32))], [NewToken(1, bytes(32)), NewToken(1, b"x" * 32)]])
def test_tokens_that_contradict_are_refused(frames: list[Frame]) -> None:
    core = client()
    with refused(core, Reason.BAD_TOKEN):
        give(core, *frames)


def test_the_same_token_again_is_no_offence() -> None:
    core = client()
    give(core, NewToken(1, bytes(32)), NewToken(1, bytes(32)))
    assert core.paths.announcements.tokens == {1: bytes(32)}


def test_more_than_256_gaps_are_refused() -> None:
    core = server()
    with refused(core, Reason.FLOW_CONTROL):
        for number in range(258):
            give(core, Stream(0, 2 * number + 1, b"x"))


def test_the_window_holds_on_the_short_way_too() -> None:
    core = server()
    for number in range(4):
        give(core, Stream(0, number * 15_000, bytes(15_000)))
    with refused(core, Reason.FLOW_CONTROL):
        give(core, Stream(0, 60_000, bytes(1)))


def test_the_session_window_holds_on_the_short_way_too() -> None:
    core = server()
    for stream_id in (0, 2):
        for number in range(3):
            give(core, Stream(stream_id, number * 16_000, bytes(16_000)))
    with refused(core, Reason.FLOW_CONTROL):
        for number in range(3):
            give(core, Stream(4, number * 16_000, bytes(16_000)))


def test_records_of_nothing_are_bounded_by_time() -> None:
    core = server()
    for second in range(3):
        for _ in range(EMPTY_RECORDS_PER_SECOND):
            give_raw(core, b"\0" * 10, now=float(second))
    with refused(core, Reason.TOO_MANY_RECORDS):
        give_raw(core, b"", now=2.5)


def test_key_updates_are_bounded_by_time() -> None:
    core = server()
    for _ in range(KEY_UPDATES_PER_SECOND):
        assert give_raw(core, KeyUpdate(False).write(), 22) is not None
    with refused(core, Reason.TOO_MANY_KEY_UPDATES):
        give_raw(core, KeyUpdate(False).write(), 22)


def test_tickets_are_ignored_and_bounded_by_time() -> None:
    core = client()
    ticket = bytes.fromhex("04 00000f 00000001 00000000 01 00 0002 abcd 0000".replace(" ", ""))
    ticket = ticket[:1] + (len(ticket) - 4).to_bytes(3, "big") + ticket[4:]
    for _ in range(MESSAGES_PER_SECOND):
        assert give_raw(core, ticket, 22) is None
    with refused(core, Reason.TOO_MANY_MESSAGES):
        give_raw(core, ticket, 22)


def test_a_server_gets_no_ticket() -> None:
    core = server()
    with refused(core, Reason.UNEXPECTED_MESSAGE):
        give_raw(core, bytes.fromhex("0400000d00000001000000000100000000"), 22)


def test_alerts_that_mean_nothing_are_bounded_by_time() -> None:
    core = server()
    for _ in range(ALERTS_PER_SECOND):
        give_raw(core, bytes((1, Alert.USER_CANCELED)), 21)
    with refused(core, Reason.TOO_MANY_RECORDS):
        give_raw(core, bytes((1, Alert.USER_CANCELED)), 21)


def test_close_notify_may_follow_as_many_of_them_as_are_allowed() -> None:
    core = server()
    for _ in range(ALERTS_PER_SECOND):
        give_raw(core, bytes((1, Alert.USER_CANCELED)), 21)
    give_raw(core, bytes((1, Alert.CLOSE_NOTIFY)), 21)


@pytest.mark.clause("RFC 8446 5.1", "RFC 8446 5.4")
@pytest.mark.parametrize(
    ("reason", "content"),
    [(Reason.EMPTY_RECORD, b""), (Reason.BAD_LENGTH, b"\x01"), (Reason.BAD_LENGTH, b"\x01\x00\x00")],
)
def test_an_alert_is_two_bytes(reason: Reason, content: bytes) -> None:
    core = server()
    with refused(core, reason):
        give_raw(core, content, 21)


@pytest.mark.parametrize("content_type", [0, 20, 24, 255])
def test_other_content_types_are_refused(content_type: int) -> None:
    core = server()
    with refused(core, Reason.UNEXPECTED_RECORD):
        give_raw(core, b"x", content_type)


@pytest.mark.parametrize(("content_type", "content"), [(23, encode(Ping())), (21, b"\x01\x00")])
def test_nothing_may_come_inside_a_handshake_message(content_type: int, content: bytes) -> None:
    core = server()
    give_raw(core, KeyUpdate(False).write()[:3], 22)
    with refused(core, Reason.MESSAGE_ACROSS_KEYS):
        give_raw(core, content, content_type)


@pytest.mark.parametrize(
    ("reason", "content"),
    [
        (Reason.EMPTY_RECORD, b""),
        (Reason.BAD_KEY_UPDATE, bytes.fromhex("1800000102")),
        (Reason.MESSAGE_ACROSS_KEYS, bytes.fromhex("180000010018")),
        (Reason.UNEXPECTED_MESSAGE, bytes.fromhex("0100000100")),
    ],
)
def test_wrong_handshake_messages_are_refused(reason: Reason, content: bytes) -> None:
    core = server()
    with refused(core, reason):
        give_raw(core, content, 22)


def test_a_peer_that_asks_and_does_not_read_is_refused() -> None:
    core = server()
    with refused(core, Reason.TOO_MANY_REQUESTS):
        for number in range(MAX_PENDING_FRAMES + 1):
            give(core, TcpOption(number, 0, 999, b""))


def test_a_peer_that_asks_and_does_not_acknowledge_is_refused() -> None:
    core = server(local=Parameters(failover=True, stream_limit=4))
    with refused(core, Reason.TOO_MANY_REQUESTS):
        for number in range(MAX_PENDING_FRAMES + 1):
            give(core, TcpOption(number, 0, 999, b""))
            core.transmit(0, Sink(), 0.0)


def test_out_of_range_values_are_answered_not_punished() -> None:
    core = server()
    give(core, TcpOption(0, 0, 6, (2).to_bytes(8, "big")))
    assert TcpOptionResult(0, OptionStatus.REFUSED, EINVAL, b"") in said(core)
    give(core, TcpOption(1, 0, 999, b"?"))
    assert TcpOptionResult(1, OptionStatus.UNSUPPORTED, 0, b"") in said(core)
    give(core, TcpOption(2, 0, 17, bytes(8)))
    assert TcpOptionResult(2, OptionStatus.REFUSED, 0, b"") in said(core)


def _arriving() -> Session:
    core = server()
    give(core, OFFER)
    core.control.answer_offer(0, accept=True)
    assert ProgramRequest(0, Want.SEND, 0) in said(core)
    return core


@pytest.mark.parametrize(
    ("reason", "frames"),
    [
        (Reason.PROGRAM_STATE, [ProgramData(0, 1, b"1")]),
        (Reason.PROGRAM_STATE, [ProgramData(0, 0, IMAGE[:10]), ProgramData(0, 5, IMAGE[5:15])]),
        (Reason.BAD_LENGTH, [ProgramData(0, 0, b"")]),
        (Reason.BAD_LENGTH, [ProgramData(0, at, bytes(15_000)) for at in range(0, 45_000, 15_000)]),
        (
            Reason.PROGRAM_STATE,
            [*(ProgramData(0, at, IMAGE[:10_000]) for at in range(0, 40_000, 10_000)), ProgramData(0, 40_000, b"1")],
        ),
    ],
)
def test_wrong_program_data_is_refused(reason: Reason, frames: list[Frame]) -> None:
    core = _arriving()
    with refused(core, reason):
        for frame in frames:
            give(core, frame)


@pytest.mark.parametrize(
    "frames",
    [
        [ProgramRequest(1, Want.SEND, 40_000)],
        [ProgramRequest(1, Want.SEND, 0), ProgramRequest(1, Want.CACHED)],
        [ProgramRequest(1, Want.SEND, 0), ProgramRequest(1, Want.REFUSED, reason="no")],
        [ProgramRequest(1, Want.SEND, 0), ProgramRequest(1, Want.SEND, 1)],
        [ProgramResult(1, Stage.ATTACHED, True)],
    ],
)
def test_wrong_answers_to_an_offer_are_refused(frames: list[Frame]) -> None:
    core = server()
    core.control.offer_program("vegas", IMAGE, "bpfel")
    with refused(core, Reason.PROGRAM_STATE):
        give(core, *frames)


def test_every_reason_of_tcpls_has_a_case_here() -> None:
    covered = {case[1] for case in BY_ONE_RECORD} | {Reason.BAD_TOKEN, Reason.TOO_MANY_REQUESTS, Reason.PROGRAM_STATE}
    start = list(Reason).index(Reason.BAD_TOKEN)
    assert set(list(Reason)[start:]) <= covered
    assert set(ALERT_FOR) == set(Reason)


@pytest.mark.clause("RFC 8446 6.2")
def test_nothing_is_handled_after_a_failure() -> None:
    core = server()
    with refused(core, Reason.UNKNOWN_FRAME):
        give_raw(core, b"\xff")
    assert give_raw(core, b"\xff") is None
    core.fail(0, ProtocolViolation(Reason.TRUNCATED), 0.0)
    assert core._alert == ALERT_FOR[Reason.UNKNOWN_FRAME]
