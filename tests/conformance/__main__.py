"""`python -m tests.conformance`: runs what has markers under each engine, and writes docs/conformance.md.

`--pages-only` leaves the parts that come of runs as they are.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tcpls.tls.engines.libraries import ENGINE_NAMES
from tests.conformance import page
from tests.conformance.clauses import ROOT
from tests.conformance.plugin import load

WHERE = ("tests/interop", "tests/unit/tls", "tests/vectors", "tests/unit/protocol")
TIMEOUT = 3600


def run(folder: Path, engine: str) -> None:
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--engine", engine,
        "--conformance", str(folder), *(path for path in WHERE if (ROOT / path).exists()),
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, timeout=TIMEOUT)


def unclear(reports: list[dict[str, Any]]) -> list[str]:
    """What keeps the page from being an answer: failures, and cells that nobody fills or explains."""
    failed = [
        f"{report['engine']}: {result['test']}"
        for report in reports
        for result in report["results"]
        if result["outcome"] == "fail"
    ]
    return failed + [line for line in page.features_part(reports) if f" {page.UNEXPLAINED} |" in line]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--pages-only", action="store_true", help="read code, rules and markers again, run nothing")
    parser.add_argument("--reports", type=Path, help="take the reports of this folder instead of running")
    options = parser.parse_args()
    parts = {"rules": page.rules_part(), "clauses": page.clauses_part()}
    doubts: list[str] = []
    if not options.pages_only:
        with tempfile.TemporaryDirectory() as made:
            folder = options.reports or Path(made)
            for engine in () if options.reports else ENGINE_NAMES:
                run(folder, engine)
            reports = load(folder)
        parts |= {"features": page.features_part(reports), "suites": page.suites_part(reports)}
        doubts = unclear(reports)
    page.PAGE.write_text(page.compose(parts), encoding="utf-8")
    for doubt in doubts:
        print(doubt, file=sys.stderr)
    return bool(doubts)


if __name__ == "__main__":
    sys.exit(main())
