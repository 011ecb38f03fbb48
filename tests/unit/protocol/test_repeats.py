"""Frames that went with a connection come again on another, unchanged: they have their effect once."""

from __future__ import annotations

import hashlib

import pytest

from tcpls.protocol.actions import ApplyOption, DetachProgram, JudgeProgram, LoadProgram
from tcpls.protocol.events import OptionAnswered, OptionStatus, ProgramFinished, Stage
from tcpls.protocol.frames import (
    Frame,
    ProgramData,
    ProgramDetach,
    ProgramOfferFrame,
    ProgramRequest,
    ProgramResult,
    TcpOption,
    TcpOptionResult,
    Want,
)
from tests.unit.protocol.ends import give, said, server

IMAGE = bytes(range(256)) * 100
OFFER = ProgramOfferFrame(0, len(IMAGE), hashlib.sha256(IMAGE).digest(), "vegas", "bpfel", b"", b"", ())
DATA: list[Frame] = [ProgramData(0, at, IMAGE[at : at + 10_000]) for at in range(0, len(IMAGE), 10_000)]


@pytest.mark.parametrize("answered", [False, True])
def test_an_option_is_asked_for_once(answered: bool) -> None:
    core = server()
    request = TcpOption(0, 0, 6, (1).to_bytes(8, "big"))
    give(core, request)
    assert [each for each in core.actions() if isinstance(each, ApplyOption)]
    if answered:
        core.control.option_result(0, OptionStatus.APPLIED, 1)
        assert any(isinstance(each, TcpOptionResult) for each in said(core))
    give(core, request)
    assert not core.actions()
    assert not said(core)


def test_an_answer_to_an_option_is_told_once() -> None:
    core = server()
    number = core.control.request_option("no_delay", 1)
    answer = TcpOptionResult(number, OptionStatus.APPLIED, 0, (1).to_bytes(8, "big"))
    give(core, answer, answer)
    give(core, answer)
    assert core.events() == [OptionAnswered(number, "no_delay", OptionStatus.APPLIED, 1, 0)]


def test_a_program_that_is_offered_and_sent_twice_is_loaded_once() -> None:
    core = server()
    give(core, OFFER)
    give(core, OFFER)
    assert [type(each) for each in core.actions()] == [JudgeProgram]
    core.control.answer_offer(0, accept=True)
    give(core, OFFER)
    for frame in DATA:
        give(core, frame)
        give(core, frame)
    assert [type(each) for each in core.actions()] == [LoadProgram]
    give(core, *reversed(DATA))
    core.control.program_result(0, Stage.ATTACHED, True, "vegas")
    for frame in (OFFER, *DATA):
        give(core, frame)
    assert not core.actions()
    give(core, ProgramDetach(0))
    give(core, ProgramDetach(0))
    assert core.actions() == [DetachProgram(0)]
    core.control.program_result(0, Stage.DETACHED, True)
    for frame in (OFFER, *DATA, ProgramDetach(0)):
        give(core, frame)
    assert not core.actions()


@pytest.mark.parametrize(
    "answers",
    [
        [ProgramRequest(1, Want.SEND, 0), ProgramRequest(1, Want.SEND, 20_000), ProgramResult(1, Stage.ATTACHED, True)],
        [ProgramRequest(1, Want.CACHED), ProgramResult(1, Stage.ATTACHED, True)],
        [ProgramRequest(1, Want.REFUSED, reason="no")],
        [ProgramRequest(1, Want.SEND, 0), ProgramResult(1, Stage.POLICY, False, reason="no")],
    ],
)
def test_answers_to_an_offer_count_once(answers: list[Frame]) -> None:
    core = server()
    core.control.offer_program("vegas", IMAGE, "bpfel")
    sent = bytearray()
    for at in range(len(answers)):
        give(core, answers[at])
        for frame in said(core):
            if isinstance(frame, ProgramData):
                sent += frame.data
        for repeated in answers[: at + 1]:
            give(core, repeated)
        assert not any(isinstance(each, ProgramData) for each in said(core))
    finished = [each for each in core.events() if isinstance(each, ProgramFinished)]
    assert len(finished) == 1
    if answers[0] == ProgramRequest(1, Want.SEND, 0):
        assert sent == IMAGE
