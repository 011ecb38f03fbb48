"""A set of byte offsets, as ranges."""

from __future__ import annotations

from bisect import bisect_left


class RangeSet:
    """Disjoint half-open ranges in ascending order. Those that touch are one."""

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __len__(self) -> int:
        """How many ranges there are."""
        return len(self._ranges)

    def contains(self, offset: int) -> bool:
        at = bisect_left(self._ranges, offset + 1, key=lambda each: each[1])
        return at < len(self._ranges) and self._ranges[at][0] <= offset

    @property
    def size(self) -> int:
        """How many offsets there are."""
        return sum(end - start for start, end in self._ranges)

    @property
    def first(self) -> tuple[int, int]:
        return self._ranges[0]

    def missing(self, start: int, end: int) -> tuple[int, int]:
        """The first part of `start`..`end` that is not in the set; an empty one at `end` when all of it is."""
        ranges = self._ranges
        at = bisect_left(ranges, start + 1, key=lambda each: each[1])
        if at < len(ranges) and ranges[at][0] <= start:
            start = ranges[at][1]
            at += 1
        if start >= end:
            return end, end
        return start, min(end, ranges[at][0]) if at < len(ranges) else end

    def add(self, start: int, end: int) -> int:
        """How many offsets were not in the set before."""
        if start >= end:
            return 0
        ranges = self._ranges
        grown = end - start
        low = bisect_left(ranges, start, key=lambda each: each[1])
        high = low
        while high < len(ranges) and ranges[high][0] <= end:
            begin, finish = ranges[high]
            grown -= max(0, min(end, finish) - max(start, begin))
            start, end = min(start, begin), max(end, finish)
            high += 1
        ranges[low:high] = [(start, end)]
        return grown

    def remove(self, start: int, end: int) -> None:
        if start >= end:
            return
        ranges = self._ranges
        low = high = bisect_left(ranges, start + 1, key=lambda each: each[1])
        left: list[tuple[int, int]] = []
        while high < len(ranges) and ranges[high][0] < end:
            begin, finish = ranges[high]
            left += [each for each in ((begin, start), (end, finish)) if each[0] < each[1]]
            high += 1
        ranges[low:high] = left

    def remove_all(self, others: RangeSet) -> None:
        for start, end in others._ranges:
            self.remove(start, end)

    def clear(self) -> None:
        self._ranges.clear()
