"""The bar, drawn by a process that may have lost the right to read its own code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

DRAW = """
import sys
from tcpls.cli import progress
progress.preload()
before = set(sys.modules)
for label, total in (("get [/] \\u00e4\\u6587:x:.bin", 1 << 24), ("put b", None)):
    with progress.progress_bar(label, total) as bar:
        assert isinstance(bar, progress.RichBar), bar
        bar.advance(1 << 23)
print(*set(sys.modules) - before)
"""


@pytest.mark.parametrize("terminal", ["xterm-256color", "linux", "dumb", None])
def test_nothing_is_loaded_when_a_bar_is_drawn(terminal: str | None) -> None:
    pytest.importorskip("rich")
    environment = {key: value for key, value in os.environ.items() if key != "TERM"} | {"COLUMNS": "50"}
    if terminal is not None:
        environment["TERM"] = terminal
    reader, writer = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", DRAW], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=writer, timeout=60
        )
        drawn = os.read(reader, 1 << 16)
    finally:
        os.close(reader)
        os.close(writer)
    assert done.returncode == 0, drawn.decode()
    assert done.stdout.split() == []
    if terminal != "dumb":
        assert b"get [/]" in drawn
