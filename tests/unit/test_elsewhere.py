"""Tests that another process runs are reported as what became of them there."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.elsewhere import Elsewhere, Outcome

TESTS = """
import pytest

@pytest.mark.parametrize("word", ["a b", "x::y", "[z]"])
def test_passes(word): pass

def test_fails(): assert 1 == 2

def test_skips(): pytest.skip("no reason")

class TestClass:
    def test_inside(self): pass
"""


class Here(Elsewhere):
    name = "the other process"
    timeout = 60

    def __init__(self, folder: Path, node_ids: list[str]) -> None:
        super().__init__(node_ids)
        self._folder = folder

    def command(self, arguments: Path, report: Path, folder: Path) -> list[str]:
        return [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(self._folder),
            f"--junitxml={report}", f"@{arguments}",
        ]  # fmt: skip


def test_outcomes(tmp_path: Path) -> None:
    file = tmp_path / "test_some.py"
    file.write_text(TESTS)
    run = Here(tmp_path, [str(file)])
    kinds = {
        name: run.outcome(f"test_some.py::{name}").kind
        for name in (
            "test_passes[a b]",
            "test_passes[x::y]",
            "test_passes[[z]]",
            "test_fails",
            "test_skips",
            "TestClass::test_inside",
            "test_absent",
        )
    }
    assert kinds == {
        "test_passes[a b]": "passed",
        "test_passes[x::y]": "passed",
        "test_passes[[z]]": "passed",
        "test_fails": "failure",
        "test_skips": "skipped",
        "TestClass::test_inside": "passed",
        "test_absent": "error",
    }
    assert "1 == 2" in run.outcome("test_some.py::test_fails").text
    assert "no reason" in run.outcome("test_some.py::test_skips").text


def test_a_process_that_reports_nothing(tmp_path: Path) -> None:
    run = Here(tmp_path, ["--no-such-option"])
    outcome = run.outcome("test_some.py::test_passes")
    assert outcome == Outcome("error", outcome.text)
    assert "no-such-option" in outcome.text
