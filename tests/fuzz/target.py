"""What a fuzz target is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """`run` takes any bytes and raises nothing, unless there is a mistake. `seeds` are inputs to start from."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
