"""What came of a run: goodput over time, gaps, and how long it took to recover from each event."""

from __future__ import annotations

import csv
import itertools
import json
import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tcpls.lab.scenarios import Scenario
from tcpls.lab.transfer import TICK

BIN = 0.01
"""Seconds of a line of the CSV."""

OVERHEAD = 0.96
"""The share of a path's rate that is left for data: headers of IP, TCP and TLS take 4 % of full packets."""

RECOVERED = 0.9
RECOVERY_WINDOW = 0.25
"""An event is recovered from at the first moment from which on, for this many seconds, the goodput is this share of
what the paths offer."""


@dataclass(frozen=True)
class Happened:
    """An event of a run: when, in seconds since its begin; what; and the rate that the paths offer from then on."""

    at: float
    what: str
    expect: float = 0.0


@dataclass(frozen=True)
class Recovery:
    """What an event did, in seconds. `gap` is the longest time without a byte after it, until the next one that is
    judged; `recovered` how long after it the goodput was what the paths offer (None: never)."""

    at: float
    what: str
    gap: float
    recovered: float | None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a scenario. `ticks` are numbers of milliseconds since its begin, and the bytes that arrived in them.

    `ended` says why it is not complete ("": it is). `retransmitted` are TCP segments of the server's namespace,
    `emulation` the processor time that carrying the packets took, `late` the longest that one left a path after its
    time, in seconds. `details` is what the application told meanwhile.
    """

    scenario: str
    transport: str
    number: int
    seed: int
    size: int
    ticks: tuple[tuple[int, int], ...]
    events: tuple[Happened, ...]
    ended: str
    seconds: float
    retransmitted: int
    emulation: float
    late: float
    details: tuple[str, ...] = ()

    @property
    def received(self) -> int:
        return sum(count for _, count in self.ticks)

    @property
    def complete(self) -> bool:
        return not self.ended and self.received == self.size

    @property
    def total_time(self) -> float:
        """Until the last byte."""
        return (self.ticks[-1][0] + 1) * TICK if self.ticks else 0.0

    @property
    def goodput(self) -> float:
        """Bits a second, from the begin to the last byte; of a run that stopped, to its end."""
        duration = self.total_time if self.complete else self.seconds
        return 8 * self.received / duration if duration else 0.0

    def largest_gap(self, begin: float = 0.0, end: float | None = None) -> float:
        """The longest time without a byte between `begin` and `end` (the end of the run), in seconds; what is before
        the first byte does not count, nor what is after the last, unless the run stopped."""
        moments = [tick * TICK for tick, _ in self.ticks]
        if not moments:
            return self.seconds
        if not self.complete:
            moments.append(self.seconds)
        last = moments[-1] if end is None else end
        return max(0.0, *(min(after, last) - max(before, begin) for before, after in itertools.pairwise(moments)), 0.0)

    def recoveries(self) -> list[Recovery]:
        """For each event that is judged."""
        judged = [event for event in self.events if event.expect]
        ends: list[float | None] = [*(event.at for event in judged[1:]), None]
        found = []
        for event, end in zip(judged, ends, strict=False):
            gap = round(self.largest_gap(event.at, end), 3)
            found.append(Recovery(round(event.at, 3), event.what, gap, self._recovered(event, end)))
        return found

    def _recovered(self, event: Happened, end: float | None) -> float | None:
        wanted = RECOVERED * OVERHEAD * event.expect * RECOVERY_WINDOW / 8
        numbers = [tick for tick, _ in self.ticks]
        sums = [0, *itertools.accumulate(count for _, count in self.ticks)]
        last = min(self.total_time, self.total_time if end is None else end)
        # Where the transfer ends within the window, so does the window.
        for tick in numbers[bisect_left(numbers, int(event.at / TICK)) :]:
            moment = tick * TICK
            window = min(RECOVERY_WINDOW, last - moment)
            if window <= 0:
                break
            index = bisect_left(numbers, tick), bisect_left(numbers, int((moment + window) / TICK))
            if sums[index[1]] - sums[index[0]] >= wanted * window / RECOVERY_WINDOW and window >= RECOVERY_WINDOW / 5:
                return round(max(moment - event.at, 0.0), 3)
        return None

    def bins(self, width: float = BIN) -> list[tuple[float, int]]:
        """Bytes for each `width` seconds, from the begin to the end, with those in which nothing came."""
        per_bin = round(width / TICK)
        end = self.total_time if self.complete else max(self.total_time, self.seconds)
        counts = [0] * (int(end / width) + 1)
        for tick, count in self.ticks:
            counts[tick // per_bin] += count
        return [(number * width, count) for number, count in enumerate(counts)]

    def summary(self) -> dict[str, object]:
        """What is said of the run, ready for JSON: seconds, bytes, and bits a second."""
        return {
            "transport": self.transport,
            "run": self.number,
            "seed": self.seed,
            "complete": self.complete,
            "ended": self.ended,
            "received": self.received,
            "total_time": round(self.total_time, 3),
            "goodput": round(self.goodput),
            "largest_gap": round(self.largest_gap(), 3),
            "events": [vars(recovery) for recovery in self.recoveries()],
            "retransmitted": self.retransmitted,
            "emulation": {"cpu": round(self.emulation, 2), "late": round(self.late, 4)},
            "details": list(self.details),
        }


def median_run(runs: Sequence[Run]) -> Run:
    """The run whose time is the median, of those that are complete if most are: the one to show."""
    ordered = sorted(runs, key=lambda run: (not run.complete, run.total_time))
    return ordered[(len(ordered) - 1) // 2]


def medians(runs: Sequence[Run]) -> dict[str, object]:
    """Over the runs of one transport."""
    recoveries = [run.recoveries() for run in runs]
    events = []
    for same in itertools.zip_longest(*recoveries):
        there = [recovery for recovery in same if recovery is not None]
        times = [recovery.recovered for recovery in there if recovery.recovered is not None]
        events.append(
            {
                "what": there[0].what,
                "gap": round(statistics.median(recovery.gap for recovery in there), 3),
                "recovered": round(statistics.median(times), 3) if times else None,
                "recovered_runs": len(times),
            }
        )
    complete = [run for run in runs if run.complete]
    return {
        "runs": len(runs),
        "complete": len(complete),
        "total_time": round(statistics.median(run.total_time for run in complete), 3) if complete else None,
        "goodput": round(statistics.median(run.goodput for run in runs)),
        "largest_gap": round(statistics.median(run.largest_gap() for run in runs), 3),
        "events": events,
    }


def write_csv(run: Run, folder: Path) -> Path:
    """Goodput over time: a line for each 10 ms."""
    path = folder / f"{run.scenario}-{run.transport}-{run.number}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seconds", "bytes", "megabits_per_second"])
        for moment, count in run.bins():
            writer.writerow([f"{moment:.2f}", count, f"{8e-6 * count / BIN:.3f}"])
    return path


def write_json(scenario: Scenario, runs: Sequence[Run], folder: Path) -> Path:
    path = folder / f"{scenario.name}.json"
    path.write_text(json.dumps(report(scenario, runs), indent=2) + "\n")
    return path


def report(scenario: Scenario, runs: Sequence[Run]) -> dict[str, object]:
    return {
        "scenario": scenario.name,
        "about": scenario.about,
        "size": scenario.size,
        "median": {name: medians(same) for name, same in by_transport(runs).items()},
        "runs": [run.summary() for run in runs],
    }


def by_transport(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """In the order in which they came first."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.transport, []).append(run)
    return found
