"""Tests marked `ktls` run in a second kernel when this one has no TLS: once for all of them, each reported as its own.

Inside the second kernel (TCPLS_GUEST is set) nothing may skip: a skip there is a failure.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import pytest

from tcpls.kernel import ktls
from tcpls.tls.engines import ENGINE_NAMES

ROOT = Path(__file__).resolve().parent.parent
GUEST_TIMEOUT = 420


@dataclass(frozen=True)
class Outcome:
    """What became of one test in the second kernel."""

    kind: str
    text: str


class Guest:
    """Runs tests under the second kernel, the first time that one of them is asked for."""

    def __init__(self, node_ids: list[str]) -> None:
        self._node_ids = node_ids
        self._outcomes: dict[str, Outcome] | None = None

    def outcome(self, item: pytest.Item) -> Outcome:
        if self._outcomes is None:
            self._outcomes = self._run()
        key = _junit_key(item.nodeid)
        return self._outcomes.get(key, Outcome("error", f"the second kernel did not report this test\n{self._said}"))

    def _run(self) -> dict[str, Outcome]:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            # Files belong to whoever started the second kernel, even for its root: pytest's own folder refuses that.
            command = [
                str(ROOT / "scripts" / "kernel-vm"), "--uml", "--timeout", str(GUEST_TIMEOUT),
                sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", f"--junitxml={report}",
                f"--basetemp={Path(folder) / 'guest'}", *self._node_ids,
            ]  # fmt: skip
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=GUEST_TIMEOUT + 60)
            self._said = (done.stdout + done.stderr)[-4000:]
            if not report.exists():
                return {}
            return _outcomes(report)


def _junit_key(node_id: str) -> str:
    path, _, rest = node_id.partition("::")
    return f"{path.removesuffix('.py').replace('/', '.')}::{rest}"


def _outcomes(report: Path) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        outcome = Outcome("passed", "")
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                outcome = Outcome(child.tag, f"{child.get('message', '')}\n{child.text or ''}")
        outcomes[f"{case.get('classname')}::{case.get('name')}"] = outcome
    return outcomes


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engine", choices=ENGINE_NAMES, help="the crypto engine of the tests of TLS (openssl)")
    parser.addoption("--conformance", metavar="DIR", help="write a report of features and clauses into this folder")
    # The conftests of folders import the engine before pytest has read its options for good.
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--engine")
    name = early.parse_known_args(sys.argv[1:])[0].engine
    if name:
        os.environ["TCPLS_TEST_ENGINE"] = name


def pytest_configure(config: pytest.Config) -> None:
    from tests.engine import ENGINE

    wanted = config.getoption("--engine")
    if wanted and wanted != ENGINE.name:
        raise pytest.UsageError(f"--engine {wanted} came too late: set TCPLS_TEST_ENGINE={wanted}")
    if folder := config.getoption("--conformance"):
        from tests.conformance.plugin import Collector

        config.pluginmanager.register(Collector(Path(folder).resolve()))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("ktls")]
    if not marked or not ktls.probe().reason:
        return
    if os.environ.get("TCPLS_GUEST"):
        return  # The tests themselves will say what is missing, and fail.
    guest = Guest([item.nodeid for item in marked])
    for item in marked:
        _delegate(item, guest)


def _delegate(item: pytest.Item, guest: Guest) -> None:
    """Replaces the test's own run by a look at what became of it in the second kernel."""

    def look() -> None:
        outcome = guest.outcome(item)
        if outcome.kind == "skipped":
            pytest.fail(f"skipped in the second kernel, which should have run it: {outcome.text}", pytrace=False)
        if outcome.kind != "passed":
            pytest.fail(f"in the second kernel: {outcome.text}", pytrace=False)

    item.runtest = look  # type: ignore[method-assign]
    item.fixturenames = []  # type: ignore[attr-defined]
    item.setup = lambda: None  # type: ignore[method-assign]
