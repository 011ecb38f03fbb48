"""Paths, emulated in user space: rate, delay, a drop-tail queue, losses, black holes and resets.

`Direction` and `Path` are the model: packets in, packets out, the time an argument. Run as a program this is the one
process that carries the packets of all paths between TUN devices, whose descriptors it is given, and does what it is
told over a socket, one JSON object a line. It ends when that socket does.
"""

from __future__ import annotations

import collections
import json
import os
import random
import resource
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

from tcpls.lab import packets
from tcpls.lab.devices import MTU
from tcpls.lab.packets import Endpoint, Segment

DATA = 500
"""Losses hit packets of more bytes than this: so the same seed loses the same packets of a transfer, whatever is
acknowledged when."""

BATCH = 32
"""Packets that are read from one device before the others have their turn."""

TURN = 0.0002
"""Seconds that the loop sleeps at least when nothing is due: several packets go with one wake-up."""

REMEMBERED = 256
"""Packets of each direction that are remembered when they have been delivered, for the numbers of a reset."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What one direction of a path is like: bits a second (0: no limit), seconds, bytes, and the share of data packets
    that is lost. `drop` are numbers of data packets, from 1, that are lost for certain."""

    rate: float = 0.0
    delay: float = 0.0
    queue: int = 100_000
    loss: float = 0.0
    drop: tuple[int, ...] = ()


@dataclass
class Counts:
    """What became of the packets of one direction. `late` is the longest, in seconds, that one left after its time:
    what the emulation, or the machine's load, has added to the delay."""

    packets: int = 0
    bytes: int = 0
    overflowed: int = 0
    lost: int = 0
    swallowed: int = 0
    undeliverable: int = 0
    late: float = 0.0


@dataclass
class Direction:
    """One way of a path."""

    conditions: Conditions
    dice: random.Random
    counts: Counts = field(default_factory=Counts)
    closed: bool = False
    """Whether everything that enters is swallowed."""
    travelling: collections.deque[tuple[float, bytes]] = field(default_factory=collections.deque)
    """When each packet is to be delivered, and the packet; in this order."""
    delivered: collections.deque[bytes] = field(default_factory=lambda: collections.deque(maxlen=REMEMBERED))
    _free_at: float = 0.0
    """When the last packet of the queue will have left it."""
    _data: int = 0

    def arrive(self, packet: bytes, now: float) -> None:
        """Puts a packet on its way, or drops it."""
        if self.closed:
            self.counts.swallowed += 1
            return
        conditions = self.conditions
        if len(packet) > DATA:
            self._data += 1
            # The die is cast for every packet: which ones are lost must not depend on `drop`.
            lost = conditions.loss > 0 and self.dice.random() < conditions.loss
            if lost or self._data in conditions.drop:
                self.counts.lost += 1
                return
        due = now
        if conditions.rate:
            begin = max(now, self._free_at)
            if (begin - now) * conditions.rate / 8 + len(packet) > conditions.queue:
                self.counts.overflowed += 1
                return
            due = self._free_at = begin + 8 * len(packet) / conditions.rate
        due += conditions.delay
        if self.travelling and self.travelling[-1][0] > due:
            due = self.travelling[-1][0]  # A path that has become shorter does not change the order.
        self.travelling.append((due, packet))

    def due(self, now: float) -> Iterator[bytes]:
        """What is to be delivered by now."""
        travelling, counts = self.travelling, self.counts
        while travelling and travelling[0][0] <= now:
            due, packet = travelling.popleft()
            if now - due > counts.late:
                counts.late = now - due
            counts.packets += 1
            counts.bytes += len(packet)
            self.delivered.append(packet)
            yield packet

    def change(self, conditions: Conditions, now: float) -> None:
        """From now on the path is like this, for what is in the queue too."""
        old, self.conditions = self.conditions, conditions
        stretch = old.rate / conditions.rate if conditions.rate else 0.0
        moved: collections.deque[tuple[float, bytes]] = collections.deque()
        latest = now
        for due, packet in self.travelling:
            leaves = due - old.delay
            if leaves > now:
                leaves = now + (leaves - now) * stretch
            latest = max(latest, leaves + conditions.delay)
            moved.append((latest, packet))
        self.travelling = moved
        if self._free_at > now:
            self._free_at = now + (self._free_at - now) * stretch

    def clear(self, now: float) -> None:
        """Everything that is on its way is lost."""
        self.counts.swallowed += len(self.travelling)
        self.travelling.clear()
        self._free_at = now

    def remove(self, flow: frozenset[Endpoint]) -> None:
        """What is on its way of a flow is lost."""
        kept = [(due, packet) for due, packet in self.travelling if not _is_of(packet, flow)]
        self.counts.swallowed += len(self.travelling) - len(kept)
        self.travelling = collections.deque(kept)

    def insert(self, packet: bytes, now: float) -> None:
        """Delivers a packet next, ahead of all that is on its way."""
        self.travelling.appendleft((now, packet))

    def seen(self) -> list[Segment]:
        """The TCP segments that were delivered last, or are on their way, oldest first."""
        return [*_segments(self.delivered), *_segments(packet for _, packet in self.travelling)]


def _segments(some: collections.deque[bytes] | Iterator[bytes]) -> Iterator[Segment]:
    return (segment for packet in some if (segment := packets.parse(packet)) is not None)


def _is_of(packet: bytes, flow: frozenset[Endpoint]) -> bool:
    segment = packets.parse(packet)
    return segment is not None and segment.flow == flow


class Path:
    """Both ways of a path: `ways[0]` from the client to the server, `ways[1]` back."""

    def __init__(self, conditions: tuple[Conditions, Conditions], seed: str) -> None:
        there, back = conditions
        self.ways = (
            Direction(there, random.Random(f"{seed} there")),
            Direction(back, random.Random(f"{seed} back")),
        )
        self._broken: set[frozenset[Endpoint]] = set()

    def arrive(self, way: int, packet: bytes, now: float) -> None:
        if self._broken:
            segment = packets.parse(packet)
            if segment is not None and segment.flow in self._broken:
                if segment.flags & (packets.SYN | packets.ACK) != packets.SYN:
                    self._refuse(way, segment, now)
                    return
                self._broken.discard(segment.flow)  # The same ports, but another connection.
        self.ways[way].arrive(packet, now)

    def blackhole(self, now: float) -> None:
        """From now on nothing comes out, of what is on its way either."""
        for way in self.ways:
            way.closed = True
            way.clear(now)

    def heal(self) -> None:
        """A black hole is none any more, and new packets of flows that were reset pass."""
        for way in self.ways:
            way.closed = False
        self._broken.clear()

    def reset(self, now: float) -> int:
        """Ends the flow that has moved most bytes of late, as a middlebox does: both ends get a reset that counts.

        What is on its way of it is lost, and what either end still sends is answered by another reset; other flows,
        and new ones, pass. Gives how many flows were reset: 1, or 0 if there is none.
        """
        seen = [way.seen() for way in self.ways]
        weight: collections.Counter[frozenset[Endpoint]] = collections.Counter()
        for segment in (*seen[0], *seen[1]):
            if segment.flow not in self._broken:
                weight[segment.flow] += 40 + segment.length
        if not weight:
            return 0
        flow = weight.most_common(1)[0][0]
        sent = [[segment for segment in way if segment.flow == flow] for way in seen]
        arrived = [[s for s in _segments(way.delivered) if s.flow == flow] for way in self.ways]
        # What the client (0) and the server (1) expect next.
        expected = [packets.next_expected(sent[end], arrived[1 - end]) for end in (0, 1)]
        self._broken.add(flow)
        for way in self.ways:
            way.remove(flow)
        for end in (0, 1):
            number, other = expected[end], expected[1 - end]
            if number is not None:
                here = _one_end(sent[end], arrived[1 - end])
                (there,) = flow - {here}
                self.ways[1 - end].insert(packets.reset(there, here, number, other or 0), now)
        return 1

    def _refuse(self, way: int, segment: Segment, now: float) -> None:
        """Answers a segment of a flow that was reset. Resets are not answered (RFC 9293 3.5.2)."""
        self.ways[way].counts.swallowed += 1
        if segment.flags & packets.RST or not segment.flags & packets.ACK:
            return
        after = (segment.sequence + segment.length) % packets.SEQUENCE
        answer = packets.reset(segment.target, segment.source, segment.acknowledgment, after)
        self.ways[1 - way].insert(answer, now)


def _one_end(sent: list[Segment], arrived: list[Segment]) -> Endpoint:
    return sent[0].source if sent else arrived[0].target


class Emulator:
    """The loop: reads what enters a path, and writes what is due at its other end."""

    def __init__(self, paths: list[Path], devices: list[tuple[int, int]], control: socket.socket) -> None:
        """`devices` has, for each path, the descriptors of the client's and the server's end."""
        self._paths = paths
        self._control = control
        self._received = b""
        self._entries = {devices[number][way]: (path, way) for number, path in enumerate(paths) for way in (0, 1)}
        self._exits = [
            (path.ways[way], devices[number][1 - way]) for number, path in enumerate(paths) for way in (0, 1)
        ]

    def run(self) -> None:
        """Carries packets until nobody holds the other end of the control socket."""
        clock: Callable[[], float] = time.monotonic
        entries, descriptors = self._entries, [self._control.fileno(), *self._entries]
        while True:
            wait = self._deliver(clock()) - clock()
            ready, _, _ = select.select(descriptors, (), (), max(wait, TURN))
            for fd in ready:
                if fd == self._control.fileno():
                    if not self._obey():
                        return
                    continue
                path, way = entries[fd]
                for _ in range(BATCH):
                    try:
                        packet = os.read(fd, MTU)
                    except OSError:
                        break  # Nothing more, or the device has been taken down.
                    path.arrive(way, packet, clock())

    def _deliver(self, now: float) -> float:
        """Writes what is due, and says when something is next."""
        wake = now + 0.1
        for direction, fd in self._exits:
            for packet in direction.due(now):
                try:
                    os.write(fd, packet)
                except OSError:
                    direction.counts.undeliverable += 1
            if direction.travelling:
                wake = min(wake, direction.travelling[0][0])
        return wake

    def _obey(self) -> bool:
        """Does what has been asked on the control socket. False when it has ended."""
        received = self._control.recv(65536)
        *lines, self._received = (self._received + received).split(b"\n")
        for line in lines:
            words = json.loads(line)
            now = time.monotonic()
            answer = self._do(words, now)
            self._control.sendall(json.dumps({"at": now, **answer}).encode() + b"\n")
        return bool(received)

    def _do(self, words: dict[str, object], now: float) -> dict[str, object]:
        if words["do"] == "counts":
            usage = resource.getrusage(resource.RUSAGE_SELF)
            ways = [[asdict(way.counts) for way in path.ways] for path in self._paths]
            return {"counts": ways, "cpu": usage.ru_utime + usage.ru_stime}
        path = self._paths[int(str(words["path"]))]
        match words:
            case {"do": "blackhole"}:
                path.blackhole(now)
            case {"do": "heal"}:
                path.heal()
            case {"do": "reset"}:
                return {"flows": path.reset(now)}
            case {"do": "change", "conditions": dict(changed)}:
                for way in path.ways:
                    way.change(replace(way.conditions, **changed), now)
        return {}


def main() -> int:
    """Given on the command line: the descriptor of the control socket, and a JSON object with `seed`, `devices`
    (pairs of descriptors) and `conditions` (pairs too)."""
    control = socket.socket(fileno=int(sys.argv[1]))
    plan = json.loads(sys.argv[2])
    paths = [
        Path((Conditions(**there), Conditions(**back)), f"{plan['seed']} {number}")
        for number, (there, back) in enumerate(plan["conditions"])
    ]
    # It stands for wires, which do not wait for a processor. Where that is refused, `Counts.late` tells what it cost.
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))
    control.sendall(b'{"ready": true}\n')
    Emulator(paths, [(client, server) for client, server in plan["devices"]], control).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
