"""What happens on the network, and when: the scenarios by name."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from tcpls.lab.emulator import Conditions
from tcpls.lab.network import PathPlan

MB = 1_000_000


class Action(enum.Enum):
    """What may happen. Those of the network happen to it; those of the application it is told to do."""

    BLACKHOLE = "black hole"
    HEAL = "healed"
    RESET = "RST"
    CHANGE = "change"
    REMOVE_ADDRESS = "address lost"
    ADD_ADDRESS = "address back"
    MIGRATE = "migrate"
    ADD_PATH = "add path"

    @property
    def by_application(self) -> bool:
        return self in (Action.MIGRATE, Action.ADD_PATH)


@dataclass(frozen=True)
class Event:
    """Something that happens to a path (counted from 0) at a time, in seconds since the client began.

    `expect` is the rate, in bits a second, that the paths in use offer from then on: what recovery is judged by (0: it
    is not). `family` is that of the address; `change` the conditions that are other from then on.
    """

    at: float
    action: Action
    path: int
    expect: float = 0.0
    family: int = 4
    change: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        words = {Action.MIGRATE: f"migrate to path {self.path + 1}", Action.ADD_PATH: f"path {self.path + 1} is added"}
        changed = ", ".join(f"{name} {value:g}" for name, value in self.change)
        return words.get(self.action, f"path {self.path + 1}: {changed or self.action.value}")


class Use(enum.Enum):
    """How the paths are used: one at a time, the others in reserve, or all of them at once."""

    ONE = "one at a time"
    ALL = "all at once"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """`size` bytes are fetched over `paths`, of which those of `begin` are there for the transport from the start,
    the first of them for its first connection. A run is stopped after `limit` seconds. `user_timeout` is the TCP user
    timeout of both ends in milliseconds (0: the transport's own), `congestion` everybody's congestion control.
    """

    name: str
    about: str
    paths: tuple[PathPlan, ...]
    size: int
    limit: float
    events: tuple[Event, ...] = ()
    begin: tuple[int, ...] = (0,)
    use: Use = Use.ONE
    user_timeout: int = 0
    congestion: str = "cubic"
    transports: tuple[str, ...] = ("tcpls", "mptcp", "tcp")
    """Those that make sense."""

    def __post_init__(self) -> None:
        times = [event.at for event in self.events]
        if times != sorted(times):
            raise ValueError(f"{self.name}: its events are not in the order of time")
        if any(event.path >= len(self.paths) for event in self.events) or max(self.begin) >= len(self.paths):
            raise ValueError(f"{self.name}: it names a path that it does not have")


def _path(rate: float, *families: int, delay: float = 0.010, queue: int = 100_000) -> PathPlan:
    return PathPlan(there=Conditions(rate=rate, delay=delay, queue=queue), families=families or (4,))


def _rotation(*, paths: int, every: float, turns: int) -> tuple[Event, ...]:
    """One good path at a time. All are for half a second, so that a transport may connect over each."""
    closed = tuple(Event(0.5, Action.BLACKHOLE, path) for path in range(1, paths))
    moves = (
        (
            Event(every * turn, Action.HEAL, turn % paths),
            Event(every * turn, Action.BLACKHOLE, (turn - 1) % paths, _SLOW),
        )
        for turn in range(1, turns)
    )
    return closed + tuple(event for move in moves for event in move)


_FAST, _SLOW = 30e6, 25e6

_ALL = (
    Scenario(
        name="failover-rst",
        about="a middlebox resets the connection on the first of two paths of 30 Mb/s at 3 s",
        paths=(_path(_FAST), _path(_FAST)),
        begin=(0, 1),
        size=30 * MB,
        limit=20.0,
        events=(Event(3.0, Action.RESET, 0, expect=_FAST),),
    ),
    Scenario(
        name="failover-blackhole",
        about="the first of two paths of 30 Mb/s becomes a black hole at 3 s; user timeout 250 ms",
        paths=(_path(_FAST), _path(_FAST)),
        begin=(0, 1),
        size=30 * MB,
        limit=20.0,
        user_timeout=250,
        events=(Event(3.0, Action.BLACKHOLE, 0, expect=_FAST),),
    ),
    Scenario(
        name="address-lost",
        about="the client's address on the first of two paths of 30 Mb/s is taken away at 3 s",
        paths=(_path(_FAST), _path(_FAST)),
        begin=(0, 1),
        size=30 * MB,
        limit=20.0,
        events=(Event(3.0, Action.REMOVE_ADDRESS, 0, expect=_FAST),),
    ),
    Scenario(
        name="four-paths",
        about="three of four paths of 25 Mb/s are black holes: every 5 s another one is the good one",
        paths=(_path(_SLOW),) * 4,
        begin=(0, 1, 2, 3),
        size=60 * MB,
        limit=120.0,
        user_timeout=250,
        events=_rotation(paths=4, every=5.0, turns=24),
        transports=("tcpls", "mptcp"),
    ),
    Scenario(
        name="one-by-one",
        about="one of four paths of 25 Mb/s is to be used, the others are backups; every 5 s one becomes a black hole",
        paths=(_path(_SLOW),) * 4,
        begin=(0, 1, 2, 3),
        size=60 * MB,
        limit=120.0,
        user_timeout=250,
        events=tuple(Event(5.0 * (number + 1), Action.BLACKHOLE, number, expect=_SLOW) for number in range(3)),
        transports=("tcpls", "mptcp"),
    ),
    Scenario(
        name="migration",
        about="the application moves from a path with IPv4 to one with IPv6 at 3 s, and back at 6 s; 30 Mb/s each",
        paths=(_path(_FAST, 4), _path(_FAST, 6)),
        begin=(0, 1),
        size=30 * MB,
        limit=20.0,
        events=(Event(3.0, Action.MIGRATE, 1, expect=_FAST), Event(6.0, Action.MIGRATE, 0, expect=_FAST)),
        transports=("tcpls", "mptcp"),
    ),
    Scenario(
        name="aggregation",
        about="a second path of 25 Mb/s is added to the first at 5 s",
        paths=(_path(_SLOW), _path(_SLOW)),
        size=60 * MB,
        limit=60.0,
        use=Use.ALL,
        events=(Event(5.0, Action.ADD_PATH, 1, expect=2 * _SLOW),),
    ),
)

SCENARIOS: Mapping[str, Scenario] = {scenario.name: scenario for scenario in _ALL}
