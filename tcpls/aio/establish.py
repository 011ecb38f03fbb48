"""From a connected socket to a session: the handshake, the choice of a core, and the record path under it."""

from __future__ import annotations

import asyncio
import logging
import socket

from tcpls.aio import ech
from tcpls.aio.config import KTLS, CommonConfig, Negotiate
from tcpls.aio.early import EarlySource
from tcpls.aio.info import Facts
from tcpls.aio.programs import ProgramHost
from tcpls.aio.session import Session
from tcpls.aio.tickets import TicketKeeper
from tcpls.aio.transport import RecordTransport, SocketSink, UserSpaceSink
from tcpls.errors import Alert, KernelUnavailable, NotNegotiated, SessionLost, TCPLSError
from tcpls.kernel import ktls, sockopts
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

USER_TIMEOUT = 60_000
"""Milliseconds without acknowledgment after which a connection counts as dead (RFC 5482)."""

RECEIVE_SIZE = 1 << 16


def prepare(sock: socket.socket, config: CommonConfig) -> None:
    """Options of every connection: no delay, dead peers noticed, the configured congestion control."""
    sock.setblocking(False)
    sockopts.apply(sock, "no_delay", 1)
    sockopts.apply(sock, "user_timeout", USER_TIMEOUT)
    sockopts.apply(sock, "keepalive_idle", 30)
    sockopts.apply(sock, "keepalive_interval", 10)
    if config.congestion:
        try:
            sockopts.set_congestion(sock, config.congestion)
        except OSError as error:
            raise KernelUnavailable(
                f"congestion control {config.congestion}",
                f"{error.strerror}; see net.ipv4.tcp_available_congestion_control",
            ) from None


def attach_kernel(sock: socket.socket, config: CommonConfig) -> None:
    """Makes the kernel ready to protect the records of a connection that was just made.

    Raises `KernelUnavailable` when that is required. Behind the handshake it could be too late: a peer that has said
    everything may have ended its direction by then.
    """
    if config.ktls is KTLS.OFF or config.padding.data > 1:
        return
    try:
        # Where the other end has gone already, the handshake says what that means.
        ktls.attach_ulp(sock)
    except KernelUnavailable:
        if config.ktls is KTLS.REQUIRE:
            raise


async def shake_hands(sock: socket.socket, tls: TLSConnection, timeout: float) -> Established:
    """Runs the handshake over `sock`, to its end, or at a server until there is early data to answer.

    Raises what the TLS engine raises, after its alert was sent, `SessionLost` and TimeoutError.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            while True:
                if data := tls.data_to_send():
                    await loop.sock_sendall(sock, data)
                if tls.handshake_complete:
                    return tls.established()
                if isinstance(tls, ServerConnection) and tls.answerable:
                    return tls.established_early()
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
) -> Session:
    """The session over a connection whose handshake is complete. Raises `NotNegotiated`, `KernelUnavailable`.

    `keeper` takes what a server sends for later sessions. `ech_retried`: the server's own configurations were used.
    `said_early` is what a client's first stream begins with, and the server has. `shaking`: the handshake is not
    complete, and goes on while early data is answered.
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
    transport = _transport(sock, core, config, established, session)
    if shaking is not None:

        def done(opener: RecordOpener) -> None:
            transport.source = opener
            session.confirm()

        transport.source = EarlySource(shaking, core, done, asyncio.get_running_loop().time)
        session.await_confirmation(config.handshake_timeout)
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


def _sink(sock: socket.socket, config: CommonConfig, established: Established) -> tuple[SocketSink, str]:
    """Where records are protected, and why not in the kernel. Raises `KernelUnavailable`."""
    keys = established.write_secret.keys(established.write_sequence)
    why = "not asked for"
    if config.ktls is not KTLS.OFF:
        try:
            if config.padding.data > 1:
                raise KernelUnavailable("padding in kernel TLS", "records are padded: the kernel does not do that")
            return ktls.KernelSink(sock, keys, established.max_sent), "on"
        except KernelUnavailable as error:
            if config.ktls is KTLS.REQUIRE:
                raise
            # The reason in short; `tcpls doctor` has it whole, with the cure.
            why = error.hint.partition(":")[0]
    aead = established.write_secret.engine.aead
    sealer = UserSpaceSink(aead, keys, max_content=established.max_sent, padding=config.padding.data)
    return sealer.attach(sock), f"off, {why}"


def _transport(
    sock: socket.socket, core: Core, config: CommonConfig, established: Established, session: Session
) -> RecordTransport:
    engine = established.read_secret.engine
    keys = established.read_secret.keys(established.read_sequence)
    source = RecordOpener(engine.aead, keys, engine.invalid_tag, max_content=established.max_received)
    source.feed(established.unread)
    sink, ktls_tx = _sink(sock, config, established)
    return RecordTransport(
        loop=asyncio.get_running_loop(),
        sock=sock,
        connection_id=0,
        core=core,
        source=source,
        sink=sink,
        wake=session.pump,
        ktls_tx=ktls_tx,
        patience=config.session.close_timeout,
    )
