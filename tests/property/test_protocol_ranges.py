"""Ranges of offsets against a plain set of numbers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tcpls.protocol.ranges import RangeSet

ENDS = st.tuples(st.integers(0, 60), st.integers(0, 60))
Steps = list[tuple[bool, tuple[int, int]]]
STEPS = st.lists(st.tuples(st.booleans(), ENDS), max_size=30)


def filled(steps: Steps) -> tuple[RangeSet, set[int]]:
    ranges, numbers = RangeSet(), set[int]()
    for add, (start, end) in steps:
        if add:
            ranges.add(start, end)
            numbers |= set(range(start, end))
        else:
            ranges.remove(start, end)
            numbers -= set(range(start, end))
    return ranges, numbers


def taken(ranges: RangeSet) -> list[tuple[int, int]]:
    """Empties the set from its front."""
    found = []
    while ranges:
        found.append(ranges.first)
        ranges.remove(*ranges.first)
    return found


@given(STEPS)
def test_ranges_are_a_set_of_numbers(steps: Steps) -> None:
    ranges, numbers = filled(steps)
    assert ranges.size == len(numbers)
    assert bool(ranges) == bool(numbers)
    assert {number for number in range(-1, 62) if ranges.contains(number)} == numbers
    count = len(ranges)
    found = taken(ranges)
    assert len(found) == count
    assert {number for start, end in found for number in range(start, end)} == numbers
    # In order, and none touches the next one.
    assert all(before[1] < after[0] for before, after in pairwise(found))


@given(STEPS, STEPS)
def test_ranges_less_others(steps: Steps, less: Steps) -> None:
    ranges, numbers = filled(steps)
    others, gone = filled(less)
    ranges.remove_all(others)
    assert {number for start, end in taken(ranges) for number in range(start, end)} == numbers - gone
