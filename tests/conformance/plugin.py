"""What `pytest --conformance DIR` notes: which features and clauses were run, against whom, and what became of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.peers import version_of
from tests.engine import ENGINE


@dataclass(frozen=True)
class Feature:
    """The arguments of a marker `feature`. `role` is ours."""

    name: str
    peer: str
    role: str

    @classmethod
    def of(cls, mark: pytest.Mark) -> Feature:
        made = cls(*mark.args, **mark.kwargs)
        if made.role not in ("client", "server"):
            raise pytest.UsageError(f"the role of {made.name} is {made.role!r}: client or server, ours")
        return made


@dataclass
class Result:
    """One test that has a marker. `outcome` is pass, fail, skip, or known for a failure that is expected.

    `counts` is what a test says that runs somebody's whole suite: `record_property("passed", n)` and
    `record_property("of", n)`; `left_out` says which of its parts it does not run: `record_property("left out", why)`.
    """

    test: str
    features: list[Feature]
    clauses: list[str]
    outcome: str = ""
    reason: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    left_out: str = ""


class Collector:
    """The plugin: one JSON file a run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._results: dict[str, Result] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            features = [Feature.of(mark) for mark in item.iter_markers("feature")]
            clauses = [str(name) for mark in item.iter_markers("clause") for name in mark.args]
            if features or clauses:
                self._results[item.nodeid] = Result(item.nodeid, features, clauses)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        result = self._results.get(report.nodeid)
        # What failed stays so, whatever its teardown does.
        if result is None or result.outcome == "fail" or (report.passed and report.when != "call"):
            return
        result.outcome, result.reason = _judge(report)
        for name, value in report.user_properties:
            if name in ("passed", "of"):
                result.counts[name] = int(str(value))
            elif name == "left out":
                result.left_out = str(value)

    def pytest_sessionfinish(self) -> None:
        done = [result for result in self._results.values() if result.outcome]
        peers = {feature.peer for result in done for feature in result.features if result.outcome != "skip"}
        report: dict[str, Any] = {
            "engine": ENGINE.name,
            "peers": {peer: version_of(peer) for peer in sorted(peers)},
            "results": [asdict(result) for result in done],
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        number = len(list(self._folder.glob("*.json")))
        path = self._folder / f"{ENGINE.name}-{number}.json"
        path.write_text(json.dumps(report, indent=1), encoding="utf-8")


def _judge(report: pytest.TestReport) -> tuple[str, str]:
    expected: str | None = getattr(report, "wasxfail", None)
    if expected is not None and report.skipped:
        return "known", expected.removeprefix("reason: ")
    if report.skipped:
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        return "skip", text.removeprefix("Skipped: ")
    return ("fail", "") if report.failed else ("pass", "")


def load(folder: Path) -> list[dict[str, Any]]:
    """One report for each engine: of a test that was run again, what a later file says."""
    merged: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        whole = merged.setdefault(report["engine"], {"engine": report["engine"], "peers": {}, "results": []})
        again = {result["test"] for result in report["results"]}
        whole["results"] = [result for result in whole["results"] if result["test"] not in again] + report["results"]
        whole["peers"] |= report["peers"]
    return list(merged.values())
