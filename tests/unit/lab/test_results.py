"""Figures out of arrivals, and the files of them."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import pytest

from tcpls.lab import plot, results
from tcpls.lab.results import OVERHEAD, Happened, Run
from tcpls.lab.scenarios import SCENARIOS

RATE = 24e6
PER_TICK = int(RATE * OVERHEAD / 8000)


def arrivals(*periods: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """A full rate in each of these periods, in milliseconds."""
    return tuple((tick, PER_TICK) for begin, end in periods for tick in range(begin, end))


def a_run(*periods: tuple[int, int], **other: object) -> Run:
    ticks = arrivals(*periods)
    whole = Run(
        scenario="failover-rst",
        transport="mptcp",
        number=1,
        seed=1,
        size=sum(count for _, count in ticks),
        ticks=ticks,
        events=(Happened(3.0, "path 1: RST", RATE),),
        ended="",
        seconds=periods[-1][1] / 1000 + 0.5,
        retransmitted=3,
        emulation=0.5,
        late=0.001,
    )
    return dataclasses.replace(whole, **other)  # type: ignore[arg-type]


def test_a_gap_and_the_recovery_after_it() -> None:
    run = a_run((100, 3000), (3400, 8000))
    assert run.complete
    assert run.total_time == pytest.approx(8.0)
    assert run.largest_gap() == pytest.approx(0.401)
    (recovery,) = run.recoveries()
    assert recovery.gap == pytest.approx(0.4)
    assert recovery.recovered == pytest.approx(0.4)
    assert run.goodput == pytest.approx(8 * run.size / 8.0)


def test_a_trickle_is_no_recovery() -> None:
    slow = tuple((tick, PER_TICK) for tick in range(3100, 4000, 10))
    run = a_run((0, 3000), (4000, 8000))
    run = dataclasses.replace(run, ticks=tuple(sorted(run.ticks + slow)), size=run.size + PER_TICK * len(slow))
    (recovery,) = run.recoveries()
    assert recovery.gap == pytest.approx(0.1)
    # A quarter of a second of which nine tenths are at the full rate counts.
    assert 0.95 < (recovery.recovered or 0) <= 1.0


def test_events_share_the_time_between_them() -> None:
    events = (Happened(2.0, "one", RATE), Happened(3.0, "not judged"), Happened(5.0, "two", RATE))
    run = a_run((0, 2000), (2100, 5000), (5700, 8000), events=events)
    assert [(r.what, r.gap, r.recovered) for r in run.recoveries()] == [("one", 0.1, 0.1), ("two", 0.7, 0.7)]


def test_a_run_that_stopped_has_its_last_gap_and_never_recovers() -> None:
    run = a_run((0, 3000), size=10**8, ended="stopped after 20 s", seconds=20.0)
    assert not run.complete
    assert run.largest_gap() == pytest.approx(17.001)
    assert run.recoveries()[0].recovered is None
    assert run.goodput == pytest.approx(8 * run.received / 20)
    assert len(run.bins()) == 2001


def test_a_run_in_which_nothing_came() -> None:
    run = a_run((0, 1), ticks=(), size=5, ended="ConnectionError: refused", seconds=2.0)
    assert (run.total_time, run.goodput, run.largest_gap()) == (0.0, 0.0, 2.0)
    assert run.recoveries()[0].recovered is None


def test_bins_have_all_bytes_and_the_empty_times() -> None:
    run = a_run((100, 105), (130, 131), events=())
    bins = run.bins()
    assert len(bins) == 14
    assert sum(count for _, count in bins) == run.size
    assert [count for _, count in bins if count] == [5 * PER_TICK, PER_TICK]


def test_the_csv_has_a_line_for_each_bin(tmp_path: Path) -> None:
    run = a_run((0, 40))
    with results.write_csv(run, tmp_path).open() as file:
        lines = list(csv.DictReader(file))
    assert [line["seconds"] for line in lines] == ["0.00", "0.01", "0.02", "0.03", "0.04"]
    assert sum(int(line["bytes"]) for line in lines) == run.size
    assert float(lines[0]["megabits_per_second"]) == pytest.approx(8e-5 * 10 * PER_TICK / 0.1, rel=1e-3)


def test_the_json_has_medians_and_every_run(tmp_path: Path) -> None:
    scenario = SCENARIOS["failover-rst"]
    gaps = (200, 400, 900)
    runs = [a_run((0, 3000), (3000 + gap, 9000), number=number) for number, gap in enumerate(gaps, 1)]
    dead = a_run((0, 3000), size=10**8, ended="ConnectionResetError", seconds=3.1, transport="tcp")
    found = json.loads(results.write_json(scenario, [*runs, dead], tmp_path).read_text())
    assert found["scenario"] == "failover-rst"
    middle = found["median"]["mptcp"]
    assert (middle["runs"], middle["complete"]) == (3, 3)
    assert middle["largest_gap"] == pytest.approx(0.401)
    assert middle["events"] == [{"what": "path 1: RST", "gap": 0.4, "recovered": 0.4, "recovered_runs": 3}]
    assert found["median"]["tcp"]["total_time"] is None
    assert found["median"]["tcp"]["events"][0]["recovered"] is None
    assert [run["ended"] for run in found["runs"]] == ["", "", "", "ConnectionResetError"]


def test_the_run_to_show_is_the_median_of_those_that_are_complete() -> None:
    runs = [a_run((0, 3000), (3000 + gap, 9000 + gap)) for gap in (900, 200, 400)]
    dead = a_run((0, 10), size=10**8, ended="dead")
    assert results.median_run([*runs, dead]) is runs[2]


def test_the_plot_is_a_picture_with_a_panel_for_each_transport(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib (the extra lab)")
    scenario = SCENARIOS["failover-rst"]
    one = [a_run((0, 3000), (3200, 9000))]
    sizes = []
    for transports in (("tcpls",), ("tcpls", "mptcp", "tcp")):
        runs = [dataclasses.replace(run, transport=name) for name in transports for run in one]
        picture = plot.write_png(scenario, runs, tmp_path).read_bytes()
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        sizes.append(int.from_bytes(picture[20:24], "big"))
    assert sizes[1] > 2 * sizes[0]
