"""Which of several connections carry the next data of streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from tcpls.protocol.connections import Connection

PIECE = 1 << 18
"""Bytes that a connection is ahead of the others in its turn, at most: turns of single records would have the receiver
put every one of them in order."""


class Scheduler(Protocol):
    """`choose` is asked before each record that a connection could take, so it is to be cheap."""

    name: str

    redundant: bool
    """Whether each connection carries all that the others carry."""

    def choose(self, connections: Sequence[Connection]) -> Sequence[Connection]:
        """Which of these usable connections, one at least, may take data now.

        A `blocked` one takes nothing before the kernel has room again. Whoever is chosen is not obliged to take any.
        """


def preferred(connections: Sequence[Connection]) -> Sequence[Connection]:
    """Those that nobody wants to be on standby, or all; and of them those with the highest priority."""
    active = [each for each in connections if not (each.standby or each.peer_standby)] or connections
    highest = max(each.priority for each in active)
    return [each for each in active if each.priority == highest]


class Backup:
    """One connection, the oldest of the preferred ones; the others wait for its failure."""

    name = "backup"
    redundant = False

    def choose(self, connections: Sequence[Connection]) -> Sequence[Connection]:
        return preferred(connections)[:1]


class LowestRtt:
    """The connection with the lowest round-trip time; the next one takes what it has no room for."""

    name = "lowest-rtt"
    redundant = False

    def choose(self, connections: Sequence[Connection]) -> Sequence[Connection]:
        chosen = []
        for connection in sorted(preferred(connections), key=lambda each: each.facts.rtt):
            chosen.append(connection)
            if not connection.blocked:
                break
        return chosen


class _Turns:
    """Each has its share, in pieces; one that is blocked keeps nobody waiting."""

    redundant = False

    def choose(self, connections: Sequence[Connection]) -> Sequence[Connection]:
        free = [each for each in preferred(connections) if not each.blocked]
        if not free:
            return ()
        least = min(each.given / self.weight(each) for each in free)
        return [each for each in free if each.given / self.weight(each) < least + PIECE / self.weight(each)]

    def weight(self, connection: Connection) -> float:
        raise NotImplementedError


class RoundRobin(_Turns):
    """All in turn, the same for each as long as all have room."""

    name = "round-robin"

    def weight(self, connection: Connection) -> float:
        return 1.0


class Weighted(_Turns):
    """All in turn, in proportion to the rate at which each delivers."""

    name = "weighted"

    def weight(self, connection: Connection) -> float:
        return max(connection.facts.delivery_rate, 1)


class Redundant:
    """All that is sent goes over each of them: what arrives first counts."""

    name = "redundant"
    redundant = True

    def choose(self, connections: Sequence[Connection]) -> Sequence[Connection]:
        return preferred(connections)


SCHEDULERS: dict[str, Callable[[], Scheduler]] = {
    each.name: each for each in (Backup, LowestRtt, RoundRobin, Weighted, Redundant)
}
