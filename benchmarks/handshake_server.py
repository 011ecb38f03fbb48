"""Full handshakes a second of a server on loopback: `python -m benchmarks.handshake_server [HANDSHAKES] [ROUNDS]`.

One client, Python's ssl over blocking sockets, connects again and again, to a tcpls server and to servers of Python's
ssl over asyncio and over blocking sockets, which take turns. ECDSA P-256, x25519, no tickets. What counts beside the
rate is the server's own processor time, connection and end included.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import statistics
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import tcpls
from benchmarks import peers

TIMEOUT = 10.0


def _tell_processor_time(pipe: Connection) -> None:
    """Answers every question with the seconds of this process. Called now and then."""
    while pipe.poll():
        pipe.recv()
        pipe.send(time.process_time())


async def _tell_for_ever(pipe: Connection) -> None:
    while True:
        _tell_processor_time(pipe)
        await asyncio.sleep(0.02)


def tcpls_server(pipe: Connection, files: peers.Files) -> None:
    logging.disable(logging.CRITICAL)

    async def handle(session: tcpls.Session) -> None:
        await session.wait_ended()

    async def main() -> None:
        config = tcpls.ServerConfig(certificate=files.certificate, private_key=files.key, tickets=0)
        async with tcpls.serve(handle, "127.0.0.1", 0, config=config) as server:
            pipe.send(server.port)
            await _tell_for_ever(pipe)

    asyncio.run(main())


def _ssl_context(files: peers.Files) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    context.num_tickets = 0
    return context


def asyncio_ssl_server(pipe: Connection, files: peers.Files) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read()
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=_ssl_context(files))
        pipe.send(server.sockets[0].getsockname()[1])
        await _tell_for_ever(pipe)

    asyncio.run(main())


def blocking_ssl_server(pipe: Connection, files: peers.Files) -> None:
    context = _ssl_context(files)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.02)
        pipe.send(listener.getsockname()[1])
        while True:
            try:
                accepted, _ = listener.accept()
            except TimeoutError:
                _tell_processor_time(pipe)
                continue
            accepted.settimeout(TIMEOUT)
            with contextlib.suppress(OSError), context.wrap_socket(accepted, server_side=True) as sock:
                sock.recv(1)


@dataclass(frozen=True)
class Contender:
    """A server in a process of its own."""

    name: str
    port: int
    pipe: Connection

    def processor_time(self) -> float:
        self.pipe.send(None)
        if not self.pipe.poll(TIMEOUT):
            raise RuntimeError(f"{self.name} does not answer")
        return float(self.pipe.recv())


def measure(contender: Contender, context: ssl.SSLContext, count: int) -> tuple[float, float]:
    """Handshakes a second, and milliseconds of the server's processor time for each."""
    before, started = contender.processor_time(), time.perf_counter()
    for _ in range(count):
        with (
            socket.create_connection(("127.0.0.1", contender.port), TIMEOUT) as sock,
            context.wrap_socket(sock, server_hostname="localhost"),
        ):
            pass
    elapsed = time.perf_counter() - started
    return count / elapsed, (contender.processor_time() - before) / count * 1e3


SERVERS = {"tcpls": tcpls_server, "ssl, asyncio": asyncio_ssl_server, "ssl, blocking": blocking_ssl_server}


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in SERVERS}
    with peers.certificates() as files, contextlib.ExitStack() as stack:
        context = peers.client_context(files)
        contenders = [
            Contender(name, *stack.enter_context(peers.running_with_pipe(server, files)))
            for name, server in SERVERS.items()
        ]
        for _ in range(rounds):
            for each in contenders:
                results[each.name].append(measure(each, context, count))
            print("  ".join(f"{name}: {found[-1][0]:.0f}/s" for name, found in results.items()), flush=True)
    for name, found in results.items():
        ratios = [ours[0] / theirs[0] for ours, theirs in zip(results["tcpls"], found, strict=True)]
        print(
            f"{name}: median {statistics.median(rate for rate, _ in found):.0f}/s, "
            f"{statistics.median(spent for _, spent in found):.2f} ms of the server's processor; "
            f"tcpls/this: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}"
        )


if __name__ == "__main__":
    main()
