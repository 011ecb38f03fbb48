"""Programs, from the offer to the detach, at both ends."""

from __future__ import annotations

import hashlib

import pytest

from tcpls.errors import ApiMisuse, NotNegotiated
from tcpls.protocol.actions import DetachProgram, JudgeProgram, LoadProgram
from tcpls.protocol.base import SessionConfig
from tcpls.protocol.events import ProgramFinished, ProgramProgress, Stage
from tcpls.protocol.frames import (
    ProgramData,
    ProgramDetach,
    ProgramOfferFrame,
    ProgramRequest,
    ProgramResult,
    Stream,
    Want,
)
from tcpls.protocol.parameters import Parameters
from tcpls.protocol.programs import WINDOW
from tests.sim.pair import Pair, tcpls_pair
from tests.unit.protocol.ends import LOCAL, PEER, PROGRAMS, client, give, said, server

IMAGE = bytes(range(256)) * 700
TAKES = Parameters(session_window=1 << 20, stream_window=1 << 20, stream_limit=4, programs=PROGRAMS)


def pair() -> Pair:
    made = tcpls_pair(client=TAKES, server=TAKES)
    made.settle()
    return made


def test_a_program_is_shipped_attached_and_detached() -> None:
    both = pair()
    ship, host = both.client.core, both.server.core
    program_id = ship.control.offer_program("vegas", IMAGE, "bpfel", b"sig", b"key", (0,))  # type: ignore[attr-defined]
    both.settle()
    (judge,) = both.server.actions
    assert isinstance(judge, JudgeProgram)
    assert (judge.offer.name, judge.offer.size, judge.offer.connections) == ("vegas", len(IMAGE), (0,))
    assert (judge.offer.signature, judge.offer.key_id) == (b"sig", b"key")
    host.control.answer_offer(judge.program_id, accept=True)  # type: ignore[attr-defined]
    both.settle()
    load = both.server.actions[-1]
    assert isinstance(load, LoadProgram)
    assert load.image == IMAGE
    progress = [event for event in both.client.events if isinstance(event, ProgramProgress)]
    assert progress[-1] == ProgramProgress(program_id, len(IMAGE), len(IMAGE))
    host.control.program_result(load.program_id, Stage.VERIFIER, True)  # type: ignore[attr-defined]
    host.control.program_result(load.program_id, Stage.ATTACHED, True, "vegas_1")  # type: ignore[attr-defined]
    both.settle()
    assert both.client.events[-1] == ProgramFinished(program_id, Stage.ATTACHED, True, "vegas_1", "", "")
    ship.control.detach_program(program_id)  # type: ignore[attr-defined]
    both.settle()
    assert both.server.actions[-1] == DetachProgram(program_id)
    host.control.program_result(program_id, Stage.DETACHED, True, "cubic")  # type: ignore[attr-defined]
    both.settle()
    assert both.client.events[-1] == ProgramFinished(program_id, Stage.DETACHED, True, "cubic", "", "")


def test_both_ends_may_ship() -> None:
    both = pair()
    assert both.client.core.control.offer_program("a", b"1", "bpfel") == 0  # type: ignore[attr-defined]
    assert both.server.core.control.offer_program("b", b"2", "bpfel") == 1  # type: ignore[attr-defined]
    both.settle()
    assert [type(action) for action in both.client.actions + both.server.actions] == [JudgeProgram, JudgeProgram]


def test_a_refusal_reaches_the_sender() -> None:
    both = pair()
    both.client.core.control.offer_program("a", b"1", "bpfel")  # type: ignore[attr-defined]
    both.settle()
    both.server.core.control.answer_offer(0, accept=False, reason="not pinned")  # type: ignore[attr-defined]
    both.settle()
    assert both.client.events[-1] == ProgramFinished(0, Stage.OFFERED, False, "", "not pinned", "")


def test_a_cached_program_is_not_sent() -> None:
    core = server()
    assert core.control.offer_program("vegas", IMAGE, "bpfel") == 1
    said(core)
    give(core, ProgramRequest(1, Want.CACHED))
    assert said(core) == []
    give(core, ProgramResult(1, Stage.ATTACHED, True, "vegas_1"))
    assert core.events() == [ProgramFinished(1, Stage.ATTACHED, True, "vegas_1", "", "")]
    host = server()
    give(host, ProgramOfferFrame(0, 4, bytes(32), "a", "b"))
    host.control.answer_offer(0, accept=True, cached=True)
    assert ProgramRequest(0, Want.CACHED) in said(host)
    host.control.program_result(0, Stage.ATTACHED, True, "a_1")
    assert ProgramResult(0, Stage.ATTACHED, True, "a_1") in said(host)


def test_a_transfer_that_was_cut_goes_on_where_it_stopped() -> None:
    host = server()
    give(host, ProgramOfferFrame(0, len(IMAGE), hashlib.sha256(IMAGE).digest(), "a", "b"))
    host.actions()
    host.control.answer_offer(0, accept=True, have=IMAGE[: len(IMAGE) - 5])
    assert ProgramRequest(0, Want.SEND, len(IMAGE) - 5) in said(host)
    give(host, ProgramData(0, len(IMAGE) - 5, IMAGE[-5:]))
    (load,) = host.actions()
    assert isinstance(load, LoadProgram)
    assert load.image == IMAGE
    with pytest.raises(ApiMisuse):
        give(host, ProgramOfferFrame(2, 4, bytes(32), "a", "b"))
        host.control.answer_offer(2, accept=True, have=b"1234")


def test_the_window_of_a_program_and_its_turns_between_streams() -> None:
    core = client()
    core.open_stream()
    core.control.offer_program("vegas", IMAGE, "bpfel")
    said(core)
    core.send(0, bytes(60_000), 0.0)
    give(core, ProgramRequest(0, Want.SEND, 0))
    frames = said(core)
    data = [frame for frame in frames if isinstance(frame, ProgramData)]
    assert sum(len(frame.data) for frame in data) == WINDOW
    assert isinstance(frames[0], Stream)
    assert isinstance(frames[-1], ProgramData)
    give(core, ProgramRequest(0, Want.SEND, 40_000))
    assert sum(len(frame.data) for frame in said(core) if isinstance(frame, ProgramData)) == 40_000


def test_a_wrong_digest_never_reaches_the_shell() -> None:
    host = server()
    give(host, ProgramOfferFrame(0, 4, bytes(32), "a", "b"))
    host.actions()
    host.control.answer_offer(0, accept=True)
    give(host, ProgramData(0, 0, b"evil"))
    assert host.actions() == []
    (result,) = [frame for frame in said(host) if isinstance(frame, ProgramResult)]
    assert (result.stage, result.ok) == (Stage.DIGEST, False)


@pytest.mark.parametrize(
    ("local", "size", "reason"),
    [
        (Parameters(stream_limit=1), 10, "programs are not accepted"),
        (LOCAL, 200_001, "programs of at most 200000 bytes are accepted"),
    ],
)
def test_what_is_not_taken_is_refused_without_asking(local: Parameters, size: int, reason: str) -> None:
    host = server(local=local)
    give(host, ProgramOfferFrame(0, size, bytes(32), "a", "b"))
    assert host.actions() == []
    assert ProgramRequest(0, Want.REFUSED, reason=reason) in said(host)


def test_transfers_and_programs_are_bounded() -> None:
    host = server(config=SessionConfig(program_transfers=2, program_total=3))
    for number in range(3):
        give(host, ProgramOfferFrame(2 * number, 4, hashlib.sha256(b"good").digest(), "a", "b"))
    assert len(host.actions()) == 2
    for number in range(2):
        host.control.answer_offer(2 * number, accept=True)
        give(host, ProgramData(2 * number, 0, b"good"))
        host.control.program_result(2 * number, Stage.ATTACHED, True, "a")
    host.actions()
    for number in range(3, 5):
        give(host, ProgramOfferFrame(2 * number, 4, bytes(32), "a", "b"))
    assert len(host.actions()) == 1


def test_offers_are_judged_against_what_the_peer_announced() -> None:
    with pytest.raises(NotNegotiated):
        client(peer=Parameters()).control.offer_program("a", b"1", "b")
    core = client(config=SessionConfig(program_transfers=1))
    with pytest.raises(NotNegotiated):
        core.control.offer_program("a", bytes(200_001), "b")
    for name, image, abi in (("", b"1", "b"), ("a", b"", "b"), ("a", b"1", "x" * 65)):
        with pytest.raises(ApiMisuse):
            core.control.offer_program(name, image, abi)
    core.control.offer_program("a", b"1", "b")
    with pytest.raises(ApiMisuse):
        core.control.offer_program("a", b"1", "b")


def test_a_detach_at_any_stage() -> None:
    core = server(peer=PEER)
    core.control.offer_program("a", IMAGE, "b")
    give(core, ProgramRequest(1, Want.SEND))
    core.control.detach_program(1)
    with pytest.raises(ApiMisuse):
        core.control.detach_program(1)
    assert not [frame for frame in said(core) if isinstance(frame, ProgramData)]
    give(core, ProgramRequest(1, Want.SEND), ProgramResult(1, Stage.DETACHED, True))
    assert core.events() == [ProgramFinished(1, Stage.DETACHED, True, "", "", "")]
    give(core, ProgramResult(1, Stage.DETACHED, True))

    host = server()
    give(host, ProgramOfferFrame(0, 4, bytes(32), "a", "b"))
    give(host, ProgramDetach(0))
    assert ProgramResult(0, Stage.DETACHED, True) in said(host)
    host.control.answer_offer(0, accept=True)
    give(host, ProgramData(0, 0, b"late"), ProgramDetach(0))
    host.control.program_result(0, Stage.POLICY, False)
    assert not [frame for frame in said(host) if isinstance(frame, ProgramResult)]


def test_answers_out_of_turn_are_misuse() -> None:
    host = server()
    give(host, ProgramOfferFrame(0, 4, bytes(32), "a", "b"))
    with pytest.raises(ApiMisuse):
        host.control.program_result(0, Stage.ATTACHED, True)
    host.control.answer_offer(0, accept=True)
    with pytest.raises(ApiMisuse):
        host.control.answer_offer(0, accept=True)
