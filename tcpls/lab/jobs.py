"""What an application of the laboratory is asked to do, whatever transport it is of.

An application is a module with two functions, `serve(job, say)` and `fetch(job, arrivals, orders, say)`, which return
when they are done. This is all that they share with the laboratory.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

Say = Callable[..., None]
"""Tells the laboratory something, as keyword arguments: `listening=True` when a server can be reached, `detail=` what
somebody who looks at the run may want to know."""

SERVER_NAME = "lab.test"
"""Whom the server's certificate is for."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A path's addresses at both ends, of one family. `device` is the client's."""

    device: str
    local: str
    remote: str


@dataclass(frozen=True, kw_only=True)
class Job:
    """`places` are all paths, in the scenario's order; `begin` those that there are from the start, the first of them
    for the first connection. `together`: they are used all at once, not one at a time. `user_timeout` in milliseconds
    (0: the transport's own). The files are PEM.
    """

    transport: str
    port: int
    size: int
    seed: int
    limit: float
    places: tuple[Place, ...]
    begin: tuple[int, ...]
    together: bool
    user_timeout: int
    congestion: str
    authority: str
    certificate: str
    key: str


@dataclass(frozen=True)
class Order:
    """What the application is to do now: "migrate" to a path, or "add path"."""

    do: str
    path: int


class Orders:
    """Orders of the laboratory, as they come, from another thread."""

    def __init__(self) -> None:
        self._waiting: deque[Order] = deque()
        self._listener: Callable[[Order], None] | None = None
        self._lock = threading.Lock()

    def put(self, order: Order) -> None:
        with self._lock:
            if self._listener is None:
                self._waiting.append(order)
            else:
                self._listener(order)

    def listen(self, listener: Callable[[Order], None]) -> None:
        """From now on `listener` is called with each, in the thread that they come from."""
        with self._lock:
            self._listener = listener
            while self._waiting:
                listener(self._waiting.popleft())
