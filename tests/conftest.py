"""Tests marked `ktls` run in a second kernel when this one has no TLS: once for all of them, each reported as its own.

Inside the second kernel (TCPLS_GUEST is set) nothing may skip: a skip there is a failure.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import hypothesis
import pytest

from tcpls.kernel import ktls
from tcpls.tls.engines.libraries import ENGINE_NAMES
from tests.elsewhere import ROOT, Elsewhere, keep_only

GUEST_TIMEOUT = 420

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("tcpls", deadline=None)
hypothesis.settings.load_profile("tcpls")


class Guest(Elsewhere):
    """The second kernel."""

    name = "the second kernel"
    timeout = GUEST_TIMEOUT + 60

    def command(self, selection: list[str], report: Path, folder: Path) -> list[str]:
        # Files belong to whoever started the second kernel, even for its root: pytest's own folder refuses that.
        return [
            str(ROOT / "scripts" / "kernel-vm"), "--uml", "--timeout", str(GUEST_TIMEOUT),
            sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", f"--junitxml={report}",
            f"--basetemp={folder / 'guest'}", *selection,
        ]  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engine", choices=ENGINE_NAMES, help="the crypto engine of the tests of TLS (openssl)")
    parser.addoption("--both-engines", action="store_true", help="run the tests of TLS under the other engine too")
    parser.addoption("--only", metavar="FILE", type=Path, help="run only the tests that this file names, one a line")
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
    if listed := config.getoption("--only"):
        keep_only(listed, config, items)
    marked = [item for item in items if item.get_closest_marker("ktls")]
    if config.getoption("--both-engines"):
        from tests import second_engine

        second_engine.add_to(items)
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
        outcome = guest.outcome(item.nodeid)
        if outcome.kind == "skipped":
            pytest.fail(f"skipped in the second kernel, which should have run it: {outcome.text}", pytrace=False)
        if outcome.kind != "passed":
            pytest.fail(f"in the second kernel: {outcome.text}", pytrace=False)

    item.runtest = look  # type: ignore[method-assign]
    item.fixturenames = []  # type: ignore[attr-defined]
    item.setup = lambda: None  # type: ignore[method-assign]
