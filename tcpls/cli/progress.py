"""A progress bar for transfers: rich's on a terminal, a line at the end elsewhere."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from types import TracebackType
from typing import IO, Protocol


class Bar(Protocol):
    def advance(self, count: int) -> None:
        """`count` more bytes are through."""

    def __enter__(self) -> Bar: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def megabytes(count: float) -> str:
    """Bytes for people: ``268.4 MB``."""
    if count >= 1e9:
        return f"{count / 1e9:.2f} GB"
    if count >= 1e6:
        return f"{count / 1e6:.1f} MB"
    if count >= 1e3:
        return f"{count / 1e3:.1f} kB"
    return f"{count:.0f} B"


def summary(label: str, count: int, seconds: float) -> str:
    rate = count / seconds if seconds > 0 else 0.0
    return f"{label}: {count} bytes in {seconds:.2f} s, {megabytes(rate)}/s"


class PlainBar:
    """Says a line every two seconds while it takes, and nothing when it is quick."""

    INTERVAL = 2.0

    def __init__(self, label: str, total: int | None) -> None:
        self._label = label
        self._total = total
        self._done = 0
        self._said = time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._said >= self.INTERVAL:
            self._said = now
            share = f" of {megabytes(self._total)}, {100 * self._done // self._total} %" if self._total else ""
            print(f"{self._label}: {megabytes(self._done)}{share}", file=sys.stderr, flush=True)

    def __enter__(self) -> PlainBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class RichBar:
    """A bar on a terminal. Redrawn by its own thread, ten times a second."""

    def __init__(self, label: str, total: int | None, file: IO[str] | None = None) -> None:
        """Draws to standard error, or to `file` as if it were a terminal."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),  # it holds names of files
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=file is None, file=file, force_terminal=None if file is None else True),
            transient=True,
        )
        self._task = self._progress.add_task(label, total=total)
        self._pending = 0

    def advance(self, count: int) -> None:
        self._pending += count
        if self._pending >= 1 << 22:
            self._progress.advance(self._task, self._pending)
            self._pending = 0

    def __enter__(self) -> RichBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.advance(self._task, self._pending)
        self._progress.stop()


def preload() -> None:
    """Draws a bar to nowhere: rich loads parts of itself when it first draws, which an ordinary user may not read."""
    for total in (1 << 23, None):
        with contextlib.suppress(ImportError), RichBar("[ä] 文件 :x:", total, file=io.StringIO()) as bar:
            bar.advance(1 << 22)


def progress_bar(label: str, total: int | None, *, quiet: bool = False) -> Bar:
    """The bar that fits: rich's where standard error is a terminal and rich is installed."""
    if not quiet and sys.stderr.isatty():
        try:
            return RichBar(label, total)
        except ImportError:
            pass
    return PlainBar(label, total)
