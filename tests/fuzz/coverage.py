"""Runs targets under a coverage-guided fuzzer: `python -m tests.fuzz.coverage NAME|all [SECONDS] [CORPUS]`.

It needs the package `atheris` (`pip install atheris`). With `all` every target runs for that many seconds, one after
the other. What is found is written to a file of the current folder, as libFuzzer does, and the exit code tells;
`python -m tests.fuzz.coverage NAME FILE` runs the target on that file alone.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

LONGEST = 80_000
"""Bytes of an input: more than a handshake message may have here."""


def main() -> None:
    try:
        import atheris
    except ImportError:
        sys.exit("this needs atheris: pip install atheris")
    with atheris.instrument_imports(include=["tcpls"]):
        from tests.fuzz.targets import TARGETS
    name, option, corpus = (*sys.argv[1:4], "", "", "")[:3]
    if name == "all":
        sys.exit(run_all(list(TARGETS), option or "60"))
    if name not in TARGETS:
        sys.exit(f"which target? all, {', '.join(TARGETS)}")
    target = TARGETS[name]
    if Path(option).is_file():
        target.run(Path(option).read_bytes())
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(corpus or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(target.seeds()):
            (folder / f"seed-{number}").write_bytes(seed)
        limits = [f"-max_total_time={option or 60}", f"-max_len={LONGEST}", "-timeout=10"]
        atheris.Setup([sys.argv[0], str(folder), *limits], target.run)
        atheris.Fuzz()


def run_all(names: list[str], seconds: str) -> int:
    """A line for each target; how many of them found something."""
    failed = 0
    for name in names:
        command = [sys.executable, "-m", "tests.fuzz.coverage", name, seconds]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        runs = re.search(r"^Done (\d+) runs", done.stderr, re.MULTILINE)
        edges = re.findall(r" cov: (\d+) ", done.stderr)
        if done.returncode or runs is None:
            failed += 1
            print(f"{name}: FAILED\n{done.stdout[-2000:]}{done.stderr[-4000:]}", flush=True)
        else:
            print(f"{name}: {runs[1]} runs, {edges[-1] if edges else 0} branches, nothing found", flush=True)
    return failed


if __name__ == "__main__":
    main()
