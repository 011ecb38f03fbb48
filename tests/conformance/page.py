"""docs/conformance.md out of reports, reasons, rules, comments, markers and a template: the same each time."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tcpls.tls.engines.libraries import ENGINE_NAMES
from tests.conformance import clauses
from tests.conformance.peers import SUITES

HERE = Path(__file__).parent
PAGE = clauses.ROOT / "docs" / "conformance.md"
BEGIN, END = "<!-- {}: made by python -m tests.conformance -->", "<!-- end of {} -->"

ROLES = ("client", "server")
UNEXPLAINED = "?"


class Notes:
    """Reasons, each with one number wherever it is used."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def refer(self, reason: str) -> str:
        return f"[{self._numbers.setdefault(reason, len(self._numbers) + 1)}]"

    def lines(self) -> Iterator[str]:
        for reason, number in self._numbers.items():
            yield f"- [{number}] {reason}"


@dataclass
class Cell:
    """One feature with one peer, in one role, under one engine."""

    outcomes: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def add(self, result: dict[str, Any]) -> None:
        self.outcomes.append(result["outcome"])
        if result["outcome"] == "fail":
            self.failed.append(result["test"])
        elif result["outcome"] != "pass":
            self.reasons.append(result["reason"])

    def text(self, notes: Notes) -> str:
        passed = self.outcomes.count("pass")
        said = "".join(notes.refer(reason) for reason in sorted(set(self.reasons)))
        if self.failed:
            return "FAIL " + notes.refer("failed: " + ", ".join(sorted(self.failed)))
        if passed == len(self.outcomes):
            return "pass"
        return f"{passed} of {len(self.outcomes)} {said}" if passed else said


Key = tuple[str, str, str, str]
"""Feature, peer, role, engine."""


def cells_of(reports: Iterable[dict[str, Any]]) -> dict[Key, Cell]:
    cells: dict[Key, Cell] = {}
    for report in reports:
        for result in report["results"]:
            for feature in result["features"]:
                key = (feature["name"], feature["peer"], feature["role"], report["engine"])
                cells.setdefault(key, Cell()).add(result)
    return cells


def reasons() -> list[dict[str, str]]:
    """Why no test fills a cell: `features`, `peers`, `roles` and `engines` are lists, and absent for all."""
    with (HERE / "reasons.toml").open("rb") as file:
        found: list[dict[str, str]] = tomllib.load(file)["reason"]
    return found


def reason_for(key: Key) -> str | None:
    names = ("features", "peers", "roles", "engines")
    for entry in reasons():
        if all(value in entry.get(name, (value,)) for name, value in zip(names, key, strict=True)):
            return entry["why"]
    return None


def _cell(cells: dict[Key, Cell], feature: str, peer: str, role: str, notes: Notes) -> str:
    texts = []
    for engine in ENGINE_NAMES:
        key = (feature, peer, role, engine)
        why = reason_for(key)
        if key in cells:
            texts.append(cells[key].text(notes))
        else:
            texts.append(notes.refer(why) if why else UNEXPLAINED)
    if len(set(texts)) == 1:
        return texts[0]
    return ", ".join(f"{engine}: {text}" for engine, text in zip(ENGINE_NAMES, texts, strict=True))


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    titles = list(head)
    yield "| " + " | ".join(titles) + " |"
    yield "|" + "---|" * len(titles)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def features_part(reports: list[dict[str, Any]]) -> list[str]:
    cells, notes = cells_of(reports), Notes()
    versions = {peer: text for report in reports for peer, text in report["peers"].items()}
    peers = sorted({peer for _, peer, *_ in cells if peer not in SUITES}, key=str.lower)
    features = sorted({feature for feature, peer, *_ in cells if peer not in SUITES}, key=str.lower)
    rows = [
        [feature, role, *(_cell(cells, feature, peer, role, notes) for peer in peers)]
        for feature in features
        for role in ROLES
    ]
    head = ["feature", "our role", *(f"{peer} {versions.get(peer, '')}".rstrip() for peer in peers)]
    return [*_table(head, rows), "", *notes.lines()]


def suites_part(reports: list[dict[str, Any]]) -> list[str]:
    rows, known = [], set()
    for report in reports:
        for result in report["results"]:
            if not any(feature["peer"] in SUITES for feature in result["features"]):
                continue
            if result["outcome"] == "known":
                known.add(f"- {_short(result['test'])}: {result['reason']}")
            elif result["left_out"]:
                known.add(f"- {_short(result['test'])}, without {result['left_out']}")
    for (feature, peer, role, engine), counts in sorted(_suite_counts(reports).items()):
        rows.append([peer, feature, role, engine, *(str(count) for count in counts)])
    head = ["suite", "what", "our role", "engine", "passed", "known not to", "failed", "not run"]
    return [*_table(head, rows), "", *sorted(known)]


def _short(test: str) -> str:
    """What is between the brackets of a parametrized test, or its name."""
    name = test.rpartition("::")[2]
    return name.partition("[")[2].removesuffix("]") or name


def _suite_counts(reports: list[dict[str, Any]]) -> dict[Key, list[int]]:
    counts: dict[Key, list[int]] = {}
    for report in reports:
        for result in report["results"]:
            for feature in result["features"]:
                if feature["peer"] not in SUITES:
                    continue
                key = (feature["name"], feature["peer"], feature["role"], report["engine"])
                row = counts.setdefault(key, [0, 0, 0, 0])
                if "of" in result["counts"]:
                    row[0] += result["counts"]["passed"]
                    row[1] += result["counts"]["of"] - result["counts"]["passed"]
                    continue
                row[("pass", "known", "fail", "skip").index(result["outcome"])] += 1
    return counts


@dataclass(frozen=True)
class Rule:
    """Something that a receiver must refuse, or do: where that is, and which tests show it, or why there is none.

    Codes are file:name under tcpls, tests file:name under tests/unit.
    """

    sections: tuple[str, ...]
    text: str
    code: tuple[str, ...]
    tests: tuple[str, ...]
    why: str

    @classmethod
    def of(cls, line: str) -> Rule:
        sections, text, code, shown = (part.strip() for part in line.split("|"))
        why = shown.removeprefix("why: ") if shown.startswith("why: ") else ""
        return cls(
            tuple(name if name.startswith("RFC") else f"RFC 8446 {name}" for name in sections.split(", ")),
            text,
            tuple(code.split()),
            () if why else tuple(shown.split()),
            why,
        )


def rules() -> list[Rule]:
    lines = (HERE / "rules.txt").read_text(encoding="utf-8").splitlines()
    return [Rule.of(line) for line in lines if line and not line.startswith("#")]


def _listed(places: Iterable[str]) -> str:
    return "<br>".join("{} `{}`".format(*place.split(":")) for place in places)


def rules_part() -> list[str]:
    rows = [
        [
            ", ".join(section.removeprefix("RFC 8446 ") for section in rule.sections),
            rule.text,
            _listed(rule.code),
            _listed(rule.tests) or rule.why,
        ]
        for rule in rules()
    ]
    return list(_table(["section", "rule", "code, in tcpls", "tests, in tests/unit; or why none"], rows))


def clauses_part() -> list[str]:
    enforcing, testing = clauses.enforcing(), clauses.testing()
    rows = [
        [clause, "<br>".join(map(str, sorted(enforcing.get(clause, ())))), _tests(testing.get(clause, set()))]
        for clause in sorted(enforcing.keys() | testing.keys(), key=clauses.order)
    ]
    return list(_table(["clause", "code, in tcpls", "tests, in tests"], rows))


def _tests(places: set[clauses.Place]) -> str:
    return "<br>".join(map(str, sorted(places)))


def compose(parts: dict[str, list[str]]) -> str:
    """The template with its parts filled in. A part that is not given stays as the page has it."""
    page = (HERE / "template.md").read_text(encoding="utf-8")
    before = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    for name in ("features", "suites", "rules", "clauses"):
        lines = parts.get(name)
        body = "\n".join(lines) if lines is not None else part_of(before, name)
        page = page.replace(f"<!-- {name} -->", f"{BEGIN.format(name)}\n{body}\n{END.format(name)}")
    return page


def part_of(page: str, name: str) -> str:
    """What a page has between the marks of a part."""
    _, _, behind = page.partition(BEGIN.format(name) + "\n")
    return behind.partition("\n" + END.format(name))[0]
