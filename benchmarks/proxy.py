"""A download through `tcpls proxy` against the same one without it: `python -m benchmarks.proxy [MEBIBYTES] [ROUNDS]`.

Sender, gateway and client are a process each, on loopback; the receiver is this one. With the port of something else
that leads to a port of one's own choice (`ssh -L 9223:127.0.0.1:PORT`, say) as a third argument and that PORT as the
fourth, where the sender listens then, that takes its turn too.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import peers

PIECE = bytes(1 << 20)


def _send_for_ever(listener: socket.socket) -> None:
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_send, args=(sock,), daemon=True).start()


def _send(sock: socket.socket) -> None:
    with sock, contextlib.suppress(OSError):
        while True:
            sock.sendall(PIECE)


@contextmanager
def sender(port: int) -> Iterator[int]:
    """A process that sends without end to whoever connects; the port."""
    listener = socket.create_server(("127.0.0.1", port))
    process = subprocess.Popen(
        [sys.executable, "-c", f"import socket; from benchmarks.proxy import _send_for_ever as run\n"
         f"run(socket.socket(fileno={listener.fileno()}))"],
        pass_fds=(listener.fileno(),),
    )  # fmt: skip
    try:
        yield int(listener.getsockname()[1])
    finally:
        process.terminate()
        process.wait()
        listener.close()


@contextmanager
def running(*words: object) -> Iterator[int]:
    """`tcpls proxy WORDS`; the port on which it listens."""
    command = [str(word) for word in (sys.executable, "-m", "tcpls", "proxy", *words)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        said = next(line for line in process.stderr or () if line.startswith("listening on "))
        yield int(said.split()[2].rpartition(":")[2])
    finally:
        process.terminate()
        process.communicate()


def receive(port: int, size: int) -> float:
    """Gigabytes a second."""
    left, buffer = size, bytearray(1 << 20)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        started = time.perf_counter()
        while left > 0:
            count = sock.recv_into(buffer)
            if not count:
                raise SystemExit("the connection ended before all had come")
            left -= count
        return size / (time.perf_counter() - started) / 1e9


def main() -> None:
    mebibytes, rounds, other, own = [*map(int, sys.argv[1:]), *(512, 5, 0, 0)[len(sys.argv) - 1 :]]
    with peers.certificates() as files, contextlib.ExitStack() as stack:
        target = stack.enter_context(sender(own))
        known = ["-c", files.certificate, "-k", files.key]
        gateway = stack.enter_context(
            running("gateway", "--listen", "127.0.0.1:0", *known, "--allow-anonymous", "--allow-egress",
                    f"127.0.0.1:{target}")
        )  # fmt: skip
        client = stack.enter_context(
            running("client", "--gateway", f"127.0.0.1:{gateway}", "--servername", "localhost", "--ca-certs", files.ca,
                    "--forward", f"0=127.0.0.1:{target}")
        )  # fmt: skip
        ports = {"proxy": client, "direct": target, **({"other": other} if other else {})}
        rates: dict[str, list[float]] = {name: [] for name in ports}
        for _ in range(rounds):
            for name, port in ports.items():
                rates[name].append(receive(port, mebibytes << 20))
            print("  ".join(f"{name} {values[-1]:.2f} GB/s" for name, values in rates.items()), flush=True)
    for name, values in rates.items():
        ratios = sorted(ours / theirs for ours, theirs in zip(rates["proxy"], values, strict=True))
        print(f"{name}: median {statistics.median(values):.2f} GB/s; proxy/{name}: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
