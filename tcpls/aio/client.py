"""`connect`: a session with a server."""

from __future__ import annotations

import socket
from collections.abc import Generator
from types import TracebackType

from tcpls.aio import ech, tls_setup
from tcpls.aio.config import ClientConfig
from tcpls.aio.dialing import Connected, Race, open_tcp
from tcpls.aio.early import FirstWords
from tcpls.aio.endpoints import Candidate, candidates
from tcpls.aio.establish import make_session, refuse, shake_hands
from tcpls.aio.paths import ClientPaths
from tcpls.aio.preparing import attach_kernel, prepare
from tcpls.aio.session import Session
from tcpls.aio.tickets import TicketKeeper
from tcpls.errors import EchRejected, HandshakeError
from tcpls.protocol.base import Role
from tcpls.protocol.resumption import Remembered


class connect:
    """Opens a session: ``async with connect(host, port) as session`` or ``session = await connect(host, port)``.

    Raises `ConnectError` (no address answered), `CertificateError`, `HandshakeError`, `EchRejected`, `AlertReceived`,
    `NotNegotiated` (TCPLS was required), `KernelUnavailable` (kTLS was), `SessionLost` (the connection failed during
    the handshake), `TimeoutError`.
    """

    def __init__(
        self, host: str, port: int = 4433, *, config: ClientConfig | None = None, early_data: bytes | None = None
    ) -> None:
        """`early_data` is written to the session's first stream, `Session.first_stream`.

        What a ticket of `ClientConfig.tickets` allows of it goes along with the first flight (0-RTT), where somebody
        may replay it to another of the server's machines: nothing that may not be done twice belongs there. What the
        server does not take is sent again when the handshake is complete; `Session.early_data` says what became of it.
        """
        self._host = host
        self._port = port
        self._config = config or ClientConfig()
        self._early_data = early_data
        self._session: Session | None = None

    def __await__(self) -> Generator[object, None, Session]:
        return self._open().__await__()

    async def __aenter__(self) -> Session:
        self._session = await self._open()
        return self._session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.__aexit__(kind, error, trace)

    async def _open(self) -> Session:
        try:
            return await self._attempt(self._config)
        except EchRejected as rejected:
            # RFC 9849 6.1.6: once, over a new connection, with what the server has proved to be its own.
            config = ech.once_more(self._config, rejected)
            if config is None:
                raise
        return await self._attempt(config, ech_retried=True)

    async def _attempt(self, config: ClientConfig, *, ech_retried: bool = False) -> Session:
        store = config.tickets
        setup = tls_setup.ClientSetup(config, self._host)
        found = await self._candidates(config)
        used = await _connected(found, config)
        sock = used.sock
        try:
            attach_kernel(sock, config)
            scope = setup.ticket_scope(self._host, self._port)
            ticket = None if store is None else await store.take(scope)
            tls = setup.connection(ticket, early_data=self._early_data is not None)
            first = FirstWords.send(tls, ticket, setup.local, self._early_data or b"")
            await shake_hands(sock, tls, config.handshake_timeout)
            established = tls.established()
            try:
                outcome = setup.outcome(established)
                accepted = first.accepted(ticket, established, outcome)
            except HandshakeError as error:
                await refuse(sock, established, error.alert)
                raise
            keeper = None
            if store is not None:
                remembered = Remembered.by_client(outcome).write()
                keeper = TicketKeeper(store, scope, established.ticket_source, remembered)
            session = make_session(
                sock,
                Role.CLIENT,
                config,
                established,
                outcome,
                setup.local,
                keeper,
                ech_retried=ech_retried,
                said_early=accepted,
                paths=lambda joiner: ClientPaths(
                    joiner, used.candidate, found, setup.join_hello, config, outcome.token
                ),
            )
        except BaseException:
            sock.close()
            raise
        if self._early_data is not None:
            try:
                session.first_stream = await first.say(session)
            except BaseException:
                await session.abort()
                raise
        session.begin_paths()
        return session

    async def _candidates(self, config: ClientConfig) -> list[Candidate]:
        return await candidates(
            self._host,
            self._port,
            remotes=config.remotes,
            locals_=config.locals,
            first=config.first_family,
            timeout=config.connect_timeout,
        )


async def _connected(found: list[Candidate], config: ClientConfig) -> Connected:
    """The first TCP connection of a race over the server's addresses and this end's. Raises `ConnectError`."""

    async def connect_to(candidate: Candidate) -> socket.socket:
        return await open_tcp(candidate, lambda sock: prepare(sock, config))

    race = Race(found, connect=connect_to, delay=config.attempt_delay, timeout=config.connect_timeout)
    async with race:
        return await race.first()
