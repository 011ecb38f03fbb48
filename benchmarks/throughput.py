"""One stream on loopback against Python's ssl and plain TCP: `python -m benchmarks.throughput [MEBIBYTES] [ROUNDS]`.

Sender and receiver are one process each. The contenders take turns, so that a noisy machine is noisy for all of them;
what counts is the ratio within a round. Bytes are those that the receiver was given.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable

from benchmarks import ours, peers

Receive = Callable[[int, peers.Files, int], None]

CONTENDERS: dict[str, tuple[peers.Peer, Receive]] = {
    "tcpls": (ours.tcpls_server, ours.tcpls_receive),
    "ssl": (peers.ssl_server, peers.ssl_receive),
    "raw": (peers.raw_server, peers.raw_receive),
}


def main() -> None:
    mebibytes = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with peers.certificates() as files, contextlib.ExitStack() as stack:
        ports = {name: stack.enter_context(peers.running(server, files)) for name, (server, _) in CONTENDERS.items()}
        for _ in range(rounds):
            for name, (_, receive) in CONTENDERS.items():
                started = time.perf_counter()
                receive(ports[name], files, mebibytes << 20)
                rates[name].append((mebibytes << 20) / (time.perf_counter() - started) / 1e9)
            print("  ".join(f"{name} {values[-1]:.2f} GB/s" for name, values in rates.items()), flush=True)
    for name, values in rates.items():
        ratios = sorted(ours / theirs for ours, theirs in zip(rates["tcpls"], values, strict=True))
        print(
            f"{name}: median {statistics.median(values):.2f} GB/s; "
            f"tcpls/{name}: median {statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f}"
        )


if __name__ == "__main__":
    main()
