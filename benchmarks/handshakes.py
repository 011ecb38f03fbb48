"""Full handshakes a second against Python's ssl: `python -m benchmarks.handshakes [SECONDS] [ROUNDS]`.

In memory and in one process, client and server together, so that neither sockets nor event loops are measured: ECDSA
P-256 certificate, x25519, no resumption, chain and name verified. The two take turns.
"""

from __future__ import annotations

import datetime
import secrets
import ssl
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import peers
from tcpls.tls.algorithms import Group
from tcpls.tls.config import ClientConfig, ServerConfig
from tcpls.tls.connection import ClientConnection, ServerConnection
from tcpls.tls.credentials import load_identity
from tcpls.tls.trust import load_trust


def tcpls_handshake(files: peers.Files) -> Callable[[], None]:
    server_config = ServerConfig(identities=(load_identity(files.certificate, files.key),))
    # The same key exchange for both: the files of `peers` have OpenSSL take x25519.
    trust = load_trust(Path(files.ca))
    client_config = ClientConfig(server_name="localhost", trust=trust, groups=(Group.X25519,))
    now = datetime.datetime.now(datetime.UTC)

    def handshake() -> None:
        client = ClientConnection(client_config, random=secrets.token_bytes, time=now)
        server = ServerConnection(server_config, random=secrets.token_bytes)
        while not server.handshake_complete:
            server.receive_data(client.data_to_send())
            client.receive_data(server.data_to_send())
        client.established()
        server.established()

    return handshake


def ssl_handshake(files: peers.Files) -> Callable[[], None]:
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(files.certificate, files.key)
    server_context.num_tickets = 0
    client_context = peers.client_context(files)

    def step(end: ssl.SSLObject) -> bool:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def handshake() -> None:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_context.wrap_bio(to_client, to_server, server_hostname="localhost")
        server = server_context.wrap_bio(to_server, to_client, server_side=True)
        while not (step(client) & step(server)):
            pass

    return handshake


def rate(handshake: Callable[[], None], seconds: float) -> float:
    count = 0
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        handshake()
        count += 1
    return count / elapsed


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    with peers.certificates() as files:
        contenders = {"tcpls": tcpls_handshake(files), "ssl": ssl_handshake(files)}
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, handshake in contenders.items():
                rates[name].append(rate(handshake, seconds))
            print("  ".join(f"{name} {values[-1]:.0f}/s" for name, values in rates.items()), flush=True)
    ratios = [ours / theirs for ours, theirs in zip(rates["tcpls"], rates["ssl"], strict=True)]
    print(f"tcpls {statistics.median(rates['tcpls']):.0f}/s, ssl {statistics.median(rates['ssl']):.0f}/s")
    print(f"tcpls/ssl: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
