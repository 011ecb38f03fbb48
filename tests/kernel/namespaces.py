"""A network namespace of a test's own, and code that runs in it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

_CLONE_NEWNET = 0x40000000
SECONDS = 60.0


@dataclass(frozen=True)
class Namespace:
    name: str

    def ip(self, *words: str) -> str:
        """Runs ip(8) on it."""
        done = subprocess.run(["ip", "-n", self.name, *words], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def batch(self, commands: list[str]) -> None:
        """Many commands in one process."""
        done = subprocess.run(
            ["ip", "-n", self.name, "-batch", "-"],
            input="\n".join(commands),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stderr

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine in an event loop inside, in bounded time. A thread's namespace is its own."""

        async def bounded() -> None:
            async with asyncio.timeout(SECONDS):
                await test

        self.inside(lambda: asyncio.run(bounded()))

    def inside(self, work: Callable[[], None]) -> None:
        failures: list[BaseException] = []

        def enter() -> None:
            try:
                fd = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
                try:
                    if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                finally:
                    os.close(fd)
                work()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]


@contextmanager
def namespace(label: str) -> Iterator[Namespace]:
    """Makes one, with the loopback interface up. Skips where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("making a network namespace needs root")
    name = f"tcpls-{label}-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=30)
    try:
        made = Namespace(name)
        made.ip("link", "set", "lo", "up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True, timeout=30)
