"""Data that can be made anew, and checked."""

from __future__ import annotations

import pytest

from tcpls.lab.transfer import CHUNK, Arrivals, Pattern, WrongData


def test_the_pattern_is_a_function_of_offset_and_seed() -> None:
    whole = Pattern(7).next(3 * CHUNK + 5)
    pieces = Pattern(7)
    assert b"".join(pieces.next(size) for size in (1, CHUNK, 2 * CHUNK, 4)) == whole
    assert pieces.offset == len(whole)
    assert Pattern(8).next(100) != whole[:100]


def test_arrivals_are_noted_in_their_ticks() -> None:
    data = Pattern(1).next(100)
    arrivals = Arrivals(1, 100, begin=10.0)
    for begin, end, moment in ((0, 10, 10.0101), (10, 30, 10.0109), (30, 100, 11.5)):
        assert not arrivals.complete
        arrivals.take(data[begin:end], moment)
    assert arrivals.complete
    assert arrivals.ticks() == [(10, 30), (1500, 70)]


@pytest.mark.parametrize("wrong", [b"x", Pattern(1).next(101)], ids=["other", "too much"])
def test_other_data_is_refused(wrong: bytes) -> None:
    arrivals = Arrivals(1, 100, begin=0.0)
    with pytest.raises(WrongData):
        arrivals.take(wrong)
