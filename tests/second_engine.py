"""`pytest --both-engines`: what is collected of the tests of TLS is run under the other engine too.

Another process does it, because tests use their engine when they are imported. Each test stands in this run's report
a second time, under its own name and that of the engine.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.elsewhere import Elsewhere
from tests.engine import NAME

FOLDERS = ("tests/unit/tls/", "tests/vectors/", "tests/interop/", "tests/fuzz/test_tls")
OF_BOTH = (
    "tests/unit/tls/x509/",
    "tests/unit/tls/engines/test_engines_together.py",
    "tests/unit/tls/engines/test_minicrypto.py",
    "tests/unit/tls/engines/test_no_openssl.py",
)
"""What of these is about both engines already, or about none; so are the other tests of fuzz/ and property/."""

OTHER = "minicrypto" if NAME == "openssl" else "openssl"


class SecondRun(Elsewhere):
    name = f"the run under {OTHER}"
    timeout = 1800

    def command(self, selection: list[str], report: Path, folder: Path) -> list[str]:
        return [
            sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--engine", OTHER,
            f"--junitxml={report}", f"--basetemp={folder / 'base'}", *selection,
        ]  # fmt: skip


class UnderTheOtherEngine(pytest.Item):
    """One test, there."""

    run: SecondRun
    original: str

    def runtest(self) -> None:
        outcome = self.run.outcome(self.original)
        if outcome.kind == "skipped":
            pytest.skip(outcome.text.strip())
        if outcome.kind != "passed":
            pytest.fail(f"under {OTHER}: {outcome.text}", pytrace=False)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name


def add_to(items: list[pytest.Item]) -> None:
    """Behind what is collected, so that the process is started once all else has run."""
    originals = [item for item in items if item.nodeid.startswith(FOLDERS) and not item.nodeid.startswith(OF_BOTH)]
    run = SecondRun(item.nodeid for item in originals)
    for item in originals:
        parent = item.parent
        assert parent is not None
        again = UnderTheOtherEngine.from_parent(parent, name=f"{item.name}@{OTHER}")
        again.run, again.original = run, item.nodeid
        items.append(again)
