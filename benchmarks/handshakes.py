"""Handshakes a second against Python's ssl, full and resumed: `python -m benchmarks.handshakes [SECONDS] [ROUNDS]`.

In memory and in one process, client and server together, so that neither sockets nor event loops are measured, and a
second is one of this process's own, which a busy machine does not take away: ECDSA P-256 certificate, x25519, chain and
name verified, with each of our engines. Resumed ones are with a key exchange too (psk_dhe_ke), each by the
ticket of the one before: the server opens one and seals another, the client reads it. All take turns.
"""

from __future__ import annotations

import contextlib
import datetime
import secrets
import ssl
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks import peers
from tcpls.tls.algorithms import Group
from tcpls.tls.config import ClientConfig, ServerConfig
from tcpls.tls.connection import ClientConnection, Established, ServerConnection
from tcpls.tls.engines.libraries import ENGINE_NAMES, Library, library
from tcpls.tls.messages import NewSessionTicket
from tcpls.tls.post_handshake import PostHandshake
from tcpls.tls.record import RecordOpener
from tcpls.tls.ticket_keys import TicketKeys
from tcpls.tls.tickets import Ticket

Handshake = Callable[[], None]


def _client(files: peers.Files, library: Library) -> ClientConfig:
    # The same key exchange for both: the files of `peers` have OpenSSL take x25519.
    trust = library.load_trust(Path(files.ca))
    return ClientConfig(server_name="localhost", trust=trust, groups=(Group.X25519,), engine=library.engine)


def _server(files: peers.Files, library: Library) -> ServerConfig:
    return ServerConfig(identities=(library.load_identity(files.certificate, files.key),), engine=library.engine)


def _shake(client: ClientConnection, server: ServerConnection) -> Established:
    while not server.handshake_complete:
        server.receive_data(client.data_to_send())
        client.receive_data(server.data_to_send())
    server.established()
    return client.established()


def tcpls_full(files: peers.Files, library: Library) -> Handshake:
    server_config = _server(files, library)
    client_config, now = _client(files, library), datetime.datetime.now(datetime.UTC)

    def handshake() -> None:
        client = ClientConnection(client_config, random=secrets.token_bytes, time=now)
        _shake(client, ServerConnection(server_config, random=secrets.token_bytes))

    return handshake


def _ticket_of(established: Established, now: float) -> Ticket:
    engine = established.read_secret.engine
    opener = RecordOpener(engine.aead, established.read_secret.keys(), engine.invalid_tag)
    opener.feed(established.unread)
    record = opener.next_record()
    message = None if record is None else PostHandshake(is_client=True).receive(record[1])[0]
    ticket = established.ticket(message, now) if isinstance(message, NewSessionTicket) else None
    if ticket is None:
        raise RuntimeError("no ticket came")
    return ticket


def tcpls_resumed(files: peers.Files, library: Library) -> Handshake:
    server_config = replace(_server(files, library), ticket_keys=TicketKeys(library.engine, secrets.token_bytes))
    client_config = replace(_client(files, library), tickets=1)

    def one(config: ClientConfig) -> tuple[Established, Ticket]:
        now = datetime.datetime.now(datetime.UTC)
        client = ClientConnection(config, random=secrets.token_bytes, time=now)
        established = _shake(client, ServerConnection(server_config, random=secrets.token_bytes, time=now))
        return established, _ticket_of(established, now.timestamp())

    last = one(client_config)[1]

    def handshake() -> None:
        nonlocal last
        established, last = one(replace(client_config, ticket=last))
        if not established.resumed:
            raise RuntimeError("tcpls did not resume")

    return handshake


def _ssl_server(files: peers.Files, tickets: int) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    context.num_tickets = tickets
    return context


def _ssl_shake(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, session: ssl.SSLSession | None
) -> ssl.SSLObject:
    def step(end: ssl.SSLObject) -> bool:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname="localhost", session=session)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    while not (step(client) & step(server)):
        pass
    return client


def ssl_full(files: peers.Files) -> Handshake:
    server_context, client_context = _ssl_server(files, 0), peers.client_context(files)

    def handshake() -> None:
        _ssl_shake(server_context, client_context, None)

    return handshake


def ssl_resumed(files: peers.Files) -> Handshake:
    server_context, client_context = _ssl_server(files, 1), peers.client_context(files)

    def one(session: ssl.SSLSession | None) -> ssl.SSLObject:
        client = _ssl_shake(server_context, client_context, session)
        # The ticket comes behind the handshake, and is read with whatever is read next.
        with contextlib.suppress(ssl.SSLWantReadError):
            client.read(1)
        return client

    last = one(None).session

    def handshake() -> None:
        nonlocal last
        client = one(last)
        if not client.session_reused:
            raise RuntimeError("ssl did not resume")
        last = client.session

    return handshake


def rate(handshake: Handshake, seconds: float) -> float:
    count = 0
    started = time.process_time()
    while (elapsed := time.process_time() - started) < seconds:
        handshake()
        count += 1
    return count / elapsed


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    with peers.certificates() as files:
        contenders: dict[str, Handshake] = {}
        for kind, ours, theirs in (("full", tcpls_full, ssl_full), ("resumed", tcpls_resumed, ssl_resumed)):
            for engine in ENGINE_NAMES:
                contenders[f"{engine} {kind}"] = ours(files, library(engine))
            contenders[f"ssl {kind}"] = theirs(files)
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, handshake in contenders.items():
                rates[name].append(rate(handshake, seconds))
            print("  ".join(f"{name} {values[-1]:.0f}/s" for name, values in rates.items()), flush=True)
    for name, values in rates.items():
        kind = name.rpartition(" ")[2]
        of_ssl = [one / other for one, other in zip(values, rates[f"ssl {kind}"], strict=True)]
        of_full = [one / other for one, other in zip(values, rates[name.replace(kind, "full")], strict=True)]
        print(
            f"{name}: median {statistics.median(values):.0f}/s; of ssl's {statistics.median(of_ssl):.2f}, "
            f"{min(of_ssl):.2f} to {max(of_ssl):.2f}; of its own full ones {statistics.median(of_full):.2f}"
        )


if __name__ == "__main__":
    main()
