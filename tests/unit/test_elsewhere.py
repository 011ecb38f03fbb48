"""Tests that another process runs are reported as what became of them there."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.elsewhere import ROOT, Elsewhere, Outcome

CONFTEST = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.conftest import pytest_addoption, pytest_collection_modifyitems
"""

TESTS = """
import pytest

@pytest.mark.parametrize("word", ["a b", "x::y", "[z]"])
def test_passes(word): pass

def test_fails(): assert 1 == 2

def test_skips(): pytest.skip("no reason")

def test_unasked(): pass

class TestClass:
    def test_inside(self): pass
"""


class Here(Elsewhere):
    name = "the other process"
    timeout = 60

    def __init__(self, folder: Path, node_ids: list[str]) -> None:
        super().__init__(node_ids)
        self.root = folder

    def command(self, selection: list[str], report: Path, folder: Path) -> list[str]:
        return [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(self.root),
            f"--junitxml={report}", *selection,
        ]  # fmt: skip


def test_outcomes(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_some.py").write_text(TESTS)
    names = [
        "test_passes[a b]",
        "test_passes[x::y]",
        "test_passes[[z]]",
        "test_fails",
        "test_skips",
        "TestClass::test_inside",
        "test_absent",
    ]
    run = Here(tmp_path, [f"test_some.py::{name}" for name in names])
    kinds = {name: run.outcome(f"test_some.py::{name}").kind for name in names}
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
    # Nothing ran that was not asked for.
    assert run.outcome("test_some.py::test_unasked").kind == "error"


def test_a_process_that_reports_nothing(tmp_path: Path) -> None:
    run = Here(tmp_path, ["--no-such-option"])
    outcome = run.outcome("test_some.py::test_passes")
    assert outcome == Outcome("error", outcome.text)
    assert "no-such-option" in outcome.text
