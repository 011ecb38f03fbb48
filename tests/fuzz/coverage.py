"""Runs one target under a coverage-guided fuzzer: `python -m tests.fuzz.coverage NAME [SECONDS] [CORPUS]`.

It needs the package `atheris` (`pip install atheris`). What is found is written to a file of the current folder, as
libFuzzer does; `python -m tests.fuzz.coverage NAME FILE` runs the target on that file alone.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path


def main() -> None:
    try:
        import atheris
    except ImportError:
        sys.exit("this needs atheris: pip install atheris")
    with atheris.instrument_imports(include=["tcpls"]):
        from tests.fuzz.targets import TARGETS
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"which target? {', '.join(TARGETS)}")
    target = TARGETS[sys.argv[1]]
    if len(sys.argv) > 2 and Path(sys.argv[2]).is_file():
        target.run(Path(sys.argv[2]).read_bytes())
        return
    seconds = sys.argv[2] if len(sys.argv) > 2 else "60"
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(sys.argv[3] if len(sys.argv) > 3 else scratch)
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(target.seeds()):
            (corpus / f"seed-{number}").write_bytes(seed)
        arguments = [sys.argv[0], str(corpus), f"-max_total_time={seconds}", "-max_len=80000", "-timeout=10"]
        atheris.Setup(arguments, target.run)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
