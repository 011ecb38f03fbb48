"""A path between two network namespaces, emulated in user space: rate, delay, a drop-tail queue, and losses.

Two TUN devices, each moved into a namespace of its own, and a loop between them. Run as a program it prints one line,
the namespaces' names, when the path is up, and takes it down when its standard input ends. The forward direction (from
the first to the second namespace) has the rate, the queue and the losses; the delay is the same both ways.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

FIRST, SECOND = "10.98.0.1", "10.98.0.2"
_TUNSETIFF = 0x400454CA
_TUN_WITHOUT_HEADER = 0x1001
_BATCH = 64


@dataclass
class Direction:
    """One way of the path. `rate` in bits a second (0: unlimited), `delay` in seconds, `queue` in bytes."""

    source: int
    target: int
    delay: float
    rate: float = 0.0
    queue: float = 0.0
    loss: float = 0.0
    drop: frozenset[int] = frozenset()
    dice: random.Random = field(default_factory=lambda: random.Random(1))
    link_free_at: float = 0.0
    seen: int = 0
    travelling: collections.deque[tuple[float, bytes]] = field(default_factory=collections.deque)

    def arrive(self, packet: bytes, now: float) -> None:
        """Puts a packet on its way, or drops it."""
        if len(packet) > 500:
            self.seen += 1
            if self.seen in self.drop or (self.loss and self.dice.random() < self.loss):
                return
        due = now
        if self.rate:
            begin = max(now, self.link_free_at)
            if (begin - now) * self.rate / 8 > self.queue:
                return
            due = self.link_free_at = begin + 8 * len(packet) / self.rate
        self.travelling.append((due + self.delay, packet))

    def deliver(self, now: float) -> float:
        """Hands over what is due, and gives the time when there is more."""
        while self.travelling and self.travelling[0][0] <= now:
            with contextlib.suppress(OSError):
                os.write(self.target, self.travelling.popleft()[1])
        return self.travelling[0][0] if self.travelling else now + 0.05


def carry(directions: list[Direction], stop_fd: int) -> None:
    """Moves packets until `stop_fd` is readable."""
    poller = select.poll()
    for fd in (stop_fd, *(direction.source for direction in directions)):
        poller.register(fd, select.POLLIN | select.POLLHUP)
    by_source = {direction.source: direction for direction in directions}
    while True:
        now = time.monotonic()
        wake = min(direction.deliver(now) for direction in directions)
        wait = wake - time.monotonic()
        # poll counts in milliseconds: the last one is spent turning.
        for fd, _ in poller.poll(int(wait * 1000) if wait > 0.001 else 0):
            if fd == stop_fd:
                return
            for _ in range(_BATCH):
                try:
                    packet = os.read(fd, 65536)
                except BlockingIOError:
                    break
                by_source[fd].arrive(packet, time.monotonic())


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


def open_tun(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TUN_WITHOUT_HEADER))
    return fd


@contextlib.contextmanager
def namespaces(mark: str) -> Iterator[list[int]]:
    """Two namespaces, each with one end of the path. Gives the descriptors of the ends."""
    made, ends = [], []
    try:
        for end, address in (("a", FIRST), ("b", SECOND)):
            space, device = f"tcpls-{mark}-{end}", f"tc{mark}{end}"
            ends.append(open_tun(device))
            _ip("netns", "add", space)
            made.append(space)
            _ip("link", "set", device, "netns", space)
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "addr", "add", f"{address}/24", "dev", device)
            _ip("-n", space, "link", "set", device, "up", "mtu", "1500", "txqueuelen", "2000")
        yield ends
    finally:
        for fd in ends:
            os.close(fd)
        for space in made:
            subprocess.run(["ip", "netns", "del", space], check=False, timeout=10)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=20e6, help="bits a second")
    parser.add_argument("--delay", type=float, default=0.020, help="seconds, one way")
    parser.add_argument("--queue", type=float, default=100_000, help="bytes")
    parser.add_argument("--loss", type=float, default=0.0, help="share of data packets")
    parser.add_argument("--drop", type=int, nargs="*", default=[], help="numbers of data packets to drop, from 1")
    options = parser.parse_args()
    mark = f"{os.getpid():x}"
    with namespaces(mark) as (first, second):
        forward = Direction(
            first, second, options.delay, options.rate, options.queue, options.loss, frozenset(options.drop)
        )
        print(f"tcpls-{mark}-a tcpls-{mark}-b", flush=True)
        carry([forward, Direction(second, first, options.delay)], sys.stdin.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
