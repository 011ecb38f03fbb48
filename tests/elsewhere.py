"""Tests that another process of pytest runs for this one: all of them at once, each reported under its own name."""

from __future__ import annotations

import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Outcome:
    """What became of one test there: `kind` is passed, failure, error or skipped."""

    kind: str
    text: str


class Elsewhere(ABC):
    """Runs the tests the first time that one of them is asked for."""

    name: str
    """What errors call it."""
    timeout: float
    root = ROOT
    """What the names of the tests start from."""

    def __init__(self, node_ids: Iterable[str]) -> None:
        self._node_ids = tuple(node_ids)
        self._outcomes: dict[str, Outcome] | None = None
        self._said = ""

    @abstractmethod
    def command(self, selection: list[str], report: Path, folder: Path) -> list[str]:
        """A process of pytest with the arguments `selection`, which writes a JUnit report and may use `folder`."""

    def outcome(self, node_id: str) -> Outcome:
        if self._outcomes is None:
            self._outcomes = self._run()
        unknown = Outcome("error", f"{self.name} did not report this test\n{self._said}")
        return self._outcomes.get(_junit_key(node_id), unknown)

    def _run(self) -> dict[str, Outcome]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            wanted, report = folder / "wanted", folder / "report.xml"
            wanted.write_text("".join(f"{node_id}\n" for node_id in self._node_ids), encoding="utf-8")
            files = dict.fromkeys(node_id.partition("::")[0] for node_id in self._node_ids)
            try:
                done = subprocess.run(
                    self.command([f"--only={wanted}", *files], report, folder),
                    cwd=self.root,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=self.timeout,
                )
            except subprocess.TimeoutExpired as late:
                self._said = str(late)
                return {}
            self._said = (done.stdout + done.stderr)[-4000:]
            return _read(report) if report.exists() else {}


def keep_only(listed: Path, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects what is not in the file `listed`.

    Names given as arguments would do too, but one that is not found there would keep pytest from running any.
    """
    wanted = frozenset(listed.read_text(encoding="utf-8").splitlines())
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in wanted])
    items[:] = [item for item in items if item.nodeid in wanted]


def _junit_key(node_id: str) -> str:
    path, _, rest = node_id.partition("::")
    names, bracket, parameters = rest.partition("[")
    *classes, name = names.split("::")
    return ".".join((path.removesuffix(".py").replace("/", "."), *classes)) + f"::{name}{bracket}{parameters}"


def _read(report: Path) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        outcome = Outcome("passed", "")
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                outcome = Outcome(child.tag, f"{child.get('message', '')}\n{child.text or ''}")
        outcomes[f"{case.get('classname')}::{case.get('name')}"] = outcome
    return outcomes
