"""Protection of early data against replay (RFC 8446 section 8): each ticket serves for it once."""

from __future__ import annotations

import heapq
from typing import Protocol

DEFAULT_CAPACITY = 1 << 16
"""Claims held in memory: about 12 MB."""


class ReplayStore(Protocol):
    """Remembers which tickets early data was accepted with. One per place where a ticket is accepted: all servers that
    share ticket keys share a store, or only one of them accepts early data (RFC 8446 8.1).

    Never raises: whoever cannot tell whether something was claimed says that it was. Times are in milliseconds since
    1970.
    """

    @property
    def since(self) -> int:
        """Nothing is known of what was claimed before: tickets that were issued earlier are not good for early data."""

    def claim(self, name: bytes, expires: int, now: int) -> bool:
        """Whether this is the first claim of `name`, which is remembered until `expires`. Atomic: of two claims at the
        same time one fails. Two claims of a name come with the same `expires`.
        """


class MemoryReplayStore:
    """For one process, and one thread of it. `now`: when it begins to remember.

    When it is full nothing can be claimed until something expires: nothing that is alive is ever forgotten.
    """

    def __init__(self, now: int, capacity: int = DEFAULT_CAPACITY) -> None:
        self.since = now
        self._capacity = capacity
        self._claimed: set[bytes] = set()
        self._ends: list[tuple[int, bytes]] = []
        self._forgotten = now
        """What expires by then may have been claimed and forgotten, should the clock go back."""

    def claim(self, name: bytes, expires: int, now: int) -> bool:
        self._forgotten = max(self._forgotten, now)
        while self._ends and self._ends[0][0] <= self._forgotten:
            self._claimed.discard(heapq.heappop(self._ends)[1])
        if expires <= self._forgotten or name in self._claimed or len(self._claimed) >= self._capacity:
            return False
        self._claimed.add(name)
        heapq.heappush(self._ends, (expires, name))
        return True
