"""From a connected socket to a session: the handshake, the choice of a core, and the record path under it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from tcpls.aio import ech
from tcpls.aio.config import CommonConfig, Negotiate
from tcpls.aio.early import EarlySource
from tcpls.aio.info import Facts
from tcpls.aio.paths import Joiner, PathKeeper
from tcpls.aio.programs import ProgramHost
from tcpls.aio.record_path import RecordPath
from tcpls.aio.session import Session
from tcpls.aio.tickets import TicketKeeper
from tcpls.aio.transport import RecordTransport
from tcpls.errors import Alert, NotNegotiated, SessionLost, TCPLSError
from tcpls.protocol.base import Role
from tcpls.protocol.connections import FATAL
from tcpls.protocol.core import Core
from tcpls.protocol.negotiation import Outcome
from tcpls.protocol.parameters import Parameters
from tcpls.protocol.plain import PlainSession
from tcpls.protocol.session import Session as SessionCore
from tcpls.tls.connection import Established, ServerConnection, TLSConnection
from tcpls.tls.record import ContentType, RecordOpener, RecordSealer

logger = logging.getLogger("tcpls")

RECEIVE_SIZE = 1 << 16


async def shake_hands(sock: socket.socket, tls: TLSConnection, timeout: float) -> None:
    """Runs the handshake over `sock`: to its end, or at a server until there is early data to answer, or until the
    client wants to join a session.

    Raises what the TLS engine raises, after its alert was sent, `SessionLost` and TimeoutError.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            while True:
                if data := tls.data_to_send():
                    await loop.sock_sendall(sock, data)
                if tls.handshake_complete or (
                    isinstance(tls, ServerConnection) and (tls.answerable or tls.handed_over)
                ):
                    return
                received = await loop.sock_recv(sock, RECEIVE_SIZE)
                if received:
                    tls.receive_data(received)
                else:
                    tls.receive_eof()
    except TimeoutError:
        raise TimeoutError(f"the handshake took longer than {timeout:g} s") from None
    except OSError as error:
        raise SessionLost(f"the connection failed during the handshake: {error.strerror}") from error
    except TCPLSError:
        if data := tls.data_to_send():
            await _tell_last(sock, data)
        raise


async def _tell_last(sock: socket.socket, alert: bytes) -> None:
    """Sends an alert so that it arrives: input that is still unread would make the close a reset, which drops it."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(1.0):
            await loop.sock_sendall(sock, alert)
            sock.shutdown(socket.SHUT_WR)
            for _ in range(64):
                if not await loop.sock_recv(sock, RECEIVE_SIZE):
                    return
    except (OSError, TimeoutError):
        return


async def refuse(sock: socket.socket, established: Established, alert: Alert) -> None:
    """Tells the peer why what it agreed to in the handshake is not taken, with the keys that come behind it."""
    secret = established.write_secret
    sealer = RecordSealer(secret.engine.aead, secret.keys(established.write_sequence))
    sealer.put(ContentType.ALERT, bytes((FATAL, alert)))
    await _tell_last(sock, bytes(sealer.pending))


def make_session(
    sock: socket.socket,
    role: Role,
    config: CommonConfig,
    established: Established,
    outcome: Outcome,
    local: Parameters,
    keeper: TicketKeeper | None = None,
    *,
    ech_retried: bool = False,
    said_early: bytes = b"",
    shaking: ServerConnection | None = None,
    paths: Callable[[Joiner], PathKeeper],
) -> Session:
    """The session over a connection whose handshake is complete. Raises `NotNegotiated`, `KernelUnavailable`.

    `keeper` takes what a server sends for later sessions. `ech_retried`: the server's own configurations were used.
    `said_early` is what a client's first stream begins with, and the server has. `shaking`: the handshake is not
    complete, and goes on while early data is answered. `paths` makes who dials, or gives tokens.
    """
    if not outcome.tcpls and config.tcpls is Negotiate.REQUIRE:
        raise NotNegotiated(f"TCPLS is required: {outcome.why}")
    programs = ProgramHost(
        config.programs, config.helper, peer_authenticated=established.verified, engine=config.engine
    )
    core = _core(role, config, established, outcome, local)
    facts = Facts.of(
        role=role.name.lower(),
        tcpls="on" if outcome.tcpls else f"off, {outcome.why}",
        established=established,
        psks=config.psks,
        ech=ech.describe(role, established.ech, ech_retried),
    )
    session = Session(core, facts, programs, keeper)
    if said_early:
        # Ahead of what the server may have answered already.
        session.said_early(said_early)
    record_path = RecordPath.of(config, established)
    transport = _transport(sock, record_path, established, session)
    if shaking is not None:

        def done(opener: RecordOpener) -> None:
            transport.source = opener
            session.confirm()

        transport.source = EarlySource(shaking, core, done, asyncio.get_running_loop().time)
        session.await_confirmation(config.handshake_timeout)
    if isinstance(core, SessionCore):
        core.paths.use(config.scheduler)
        session.use_paths(paths(Joiner(session, core.paths, record_path)))
    session.add_transport(transport)
    config.observer.event("tls:early_data", verdict=established.early_data.verdict, why=established.early_data.why)
    return session


def _core(role: Role, config: CommonConfig, established: Established, outcome: Outcome, local: Parameters) -> Core:
    now = asyncio.get_running_loop().time()
    if not outcome.tcpls:
        return PlainSession(
            role=role,
            read_secret=established.read_secret,
            write_secret=established.write_secret,
            config=config.session,
            read_sequence=established.read_sequence,
            write_sequence=established.write_sequence,
            now=now,
            observer=config.observer,
        )
    return SessionCore(
        role=role,
        config=config.session,
        local=local,
        peer=outcome.peer,
        read_secret=established.read_secret,
        write_secret=established.write_secret,
        read_sequence=established.read_sequence,
        write_sequence=established.write_sequence,
        now=now,
        observer=config.observer,
    )


def _transport(sock: socket.socket, path: RecordPath, established: Established, session: Session) -> RecordTransport:
    source = path.opener(established.read_secret.keys(established.read_sequence))
    source.feed(established.unread)
    sink, ktls_tx = path.sink(sock, established.write_secret.keys(established.write_sequence))
    return session.make_transport(sock, 0, source, sink, ktls_tx, path.config.session.close_timeout)
