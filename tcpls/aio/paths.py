"""A session's connections from outside: a client dials them and joins, a server gives tokens and takes them."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Protocol

from tcpls.aio.address_policy import believable
from tcpls.aio.config import ClientConfig
from tcpls.aio.dialing import Connected, Race, open_tcp
from tcpls.aio.endpoints import MAX_CANDIDATES, Candidate, Endpoint, can_pair, parse_address
from tcpls.aio.preparing import attach_kernel, prepare
from tcpls.aio.record_path import RecordPath
from tcpls.aio.tokens import TokenRegistry
from tcpls.aio.transport import RecordTransport
from tcpls.errors import ConfigurationError, ConnectError, TCPLSError
from tcpls.kernel import sockopts
from tcpls.protocol.actions import IssueTokens, Reconnect
from tcpls.protocol.joining import CHANGE_CIPHER_SPEC, JoinSource
from tcpls.protocol.paths import Paths
from tcpls.protocol.schedulers import Backup

if TYPE_CHECKING:
    from tcpls.aio.session import Session

logger = logging.getLogger("tcpls")

PACE = 0.03
"""Seconds between the attempts of a client without a connection: a race for a way out, where RFC 8305's quarter of a
second, made for choosing between two that work, would be most of the outage."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
"""Seconds between two races, doubled from the first on."""
ATTEMPT = 10.0
"""Seconds that one race may take."""


PathAction = Reconnect | IssueTokens
"""What a client's core asks for, and what a server's does."""


class PathKeeper(Protocol):
    """What the driver of a session hands connections' actions to."""

    def perform(self, action: PathAction) -> None:
        """Does what the core of this end's role asks for. Idempotent while it is being done."""

    async def stop(self) -> None:
        """The session has ended: nothing that was begun for it goes on."""


class Joiner:
    """Puts a TCP connection under a session, at either end."""

    def __init__(self, session: Session, paths: Paths, record_path: RecordPath) -> None:
        self.session = session
        self.paths = paths
        self.record_path = record_path

    def source(self, connection_id: int, *, is_client: bool, proven: Callable[[int], None]) -> JoinSource:
        path = self.record_path
        return JoinSource(
            lambda: self.paths.join_keys(connection_id),
            path.engine,
            is_client=is_client,
            max_content=path.max_received,
            proven=proven,
        )

    def transport(self, sock: socket.socket, connection_id: int, source: JoinSource) -> RecordTransport:
        """Raises `KernelUnavailable`."""
        sink, ktls_tx = self.record_path.sink(sock, self.paths.join_keys(connection_id).write)
        patience = self.record_path.config.session.close_timeout
        return self.session.make_transport(sock, connection_id, source, sink, ktls_tx, patience)


def further(used: Candidate, known: Sequence[Candidate], config: ClientConfig) -> list[Candidate]:
    """What a session begins with besides its first connection, which was made as `used`.

    Connections are for addresses that the user named, or for any when several are to be used at a time; and each
    comes from an address, or goes to one, that none before it has. Where the others are in reserve only, a name's
    other addresses are left for when they are needed.
    """
    if len(config.locals) < 2 and len(config.remotes) < 2 and config.scheduler == Backup.name:
        return []
    chosen, locals_, remotes = [], {used.local}, {used.remote}
    for candidate in known:
        if candidate.local not in locals_ or candidate.remote not in remotes:
            chosen.append(candidate)
            locals_.add(candidate.local)
            remotes.add(candidate.remote)
    return chosen[: config.max_connections - 1]


class ClientPaths:
    """Dials. `candidates` are what was tried for the first connection, best first, and `used` the one that it was made
    with; `hello` makes a ClientHello that joins with a token."""

    def __init__(
        self,
        joiner: Joiner,
        used: Candidate,
        candidates: list[Candidate],
        hello: Callable[[bytes], bytes],
        config: ClientConfig,
        first: bytes | None = None,
    ) -> None:
        """`first`: the token that came with the handshake."""
        self._joiner = joiner
        if first is not None:
            joiner.paths.given_token(first)
        self._known = list(dict.fromkeys((used, *candidates)))
        self._hello = hello
        self._config = config
        self._tasks: set[asyncio.Task[None]] = set()
        self._reconnecting: asyncio.Task[None] | None = None

    def _candidates(self) -> list[Candidate]:
        """What may be tried now, best first: all that is known, and what the server has announced."""
        dialed = [each.remote for each in self._known]
        announced = [
            endpoint
            for each in self._joiner.paths.announcements.addresses.values()
            if believable(endpoint := Endpoint(ip_address(each.address), each.port), dialed)
        ]
        locals_ = list(dict.fromkeys(each.local for each in self._known))
        more = [
            Candidate(remote, local)
            for remote in announced
            for local in locals_
            if local is None or can_pair(local, remote.address)
        ]
        return list(dict.fromkeys((*self._known, *more)))[:MAX_CANDIDATES]

    def candidate(self, local: str | None, remote: str | None) -> Candidate:
        """A pair out of what a user writes; what is None is as in the first connection. Raises `ConfigurationError`."""
        first = self._known[0]
        where = first.remote if remote is None else Endpoint.parse(remote, first.remote.port)
        source = first.local if local is None else parse_address(local)
        if source is not None and not can_pair(source, where.address):
            if remote is not None or local is None:
                raise ConfigurationError(f"{where.address} cannot be reached from {source}")
            # The first that is known of the same kind.
            where = next((each.remote for each in self._known if can_pair(source, each.remote.address)), where)
        return Candidate(where, source)

    def know(self, candidate: Candidate) -> None:
        """A pair of addresses that was used on request is one to come back to."""
        if candidate not in self._known:
            self._known.append(candidate)

    # What the driver asks.

    def perform(self, action: PathAction) -> None:
        if isinstance(action, Reconnect) and (self._reconnecting is None or self._reconnecting.done()):
            self._reconnecting = self._spawn(self._reconnect())

    async def stop(self) -> None:
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def begin(self) -> None:
        """Makes the session's further connections, each as soon as it can be had."""
        for candidate in further(self._known[0], self._known, self._config):
            self._spawn(self._begin(candidate))

    async def _begin(self, candidate: Candidate) -> None:
        standby = self._config.scheduler == Backup.name
        try:
            await self._joiner.session.join_path(self, candidate, standby, self._config.connect_timeout)
        except TCPLSError as error:
            logger.info("no further connection: %s", error)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _reconnect(self) -> None:
        """Races until a connection has joined, or one that was given up for silent is heard again."""
        pause = FIRST_PAUSE
        session = self._joiner.session
        while not session.ended and not self._joiner.paths.has_way:
            try:
                async with Race(self._candidates(), connect=self._open, delay=PACE, timeout=ATTEMPT) as race:
                    joined = self.join(await race.first())
                if await session.wait_joined(joined):
                    return
            except TCPLSError as error:
                logger.info("no new connection: %s", error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _open(self, candidate: Candidate) -> socket.socket:
        sock = await open_tcp(candidate, lambda sock: prepare(sock, self._config))
        try:
            attach_kernel(sock, self._config)
        except BaseException:
            sock.close()
            raise
        return sock

    async def dial(self, candidate: Candidate, timeout: float) -> Connected:
        """One connection more. Raises `ConnectError`."""
        async with Race([candidate], connect=self._open, timeout=timeout) as race:
            return await race.first()

    def join(self, connected: Connected, *, standby: bool = False) -> int:
        """Joins the session with a connection; gives its id. What waits for one goes at once, behind the ClientHello.

        Raises `ConnectError`, `KernelUnavailable`.
        """
        sock, joiner = connected.sock, self._joiner
        try:
            token = joiner.paths.take_token()
            if token is None:
                raise ConnectError("the server has given no token for another connection")
            connection_id, value = token
            # RFC 8446 D.4: with what looks like early data, change_cipher_spec stands right behind the ClientHello.
            self._say(sock, self._hello(value) + CHANGE_CIPHER_SPEC)
            source = joiner.source(connection_id, is_client=True, proven=lambda one: self._proven(connection_id, one))
            transport = joiner.transport(sock, connection_id, source)
        except BaseException:
            sock.close()
            raise
        rtt = sockopts.tcp_info(sock).rtt / 1e6
        joiner.paths.join(connection_id, asyncio.get_running_loop().time(), standby=standby, rtt=rtt)
        joiner.session.add_transport(transport)
        return connection_id

    @staticmethod
    def _say(sock: socket.socket, hello: bytes) -> None:
        try:
            sent = sock.send(hello)
        except OSError as error:
            raise ConnectError(error.strerror or str(error)) from None
        if sent < len(hello):
            raise ConnectError("the socket has no room for a ClientHello")

    def _proven(self, connection_id: int, candidate: int) -> None:
        self._joiner.paths.proven(connection_id, candidate, asyncio.get_running_loop().time())


class ServerPaths:
    """Gives tokens out of the server's registry."""

    def __init__(self, joiner: Joiner, registry: TokenRegistry, first: bytes = b"") -> None:
        """`first`: the token that the client has from the handshake."""
        self._joiner = joiner
        self._registry = registry
        self._issued: dict[int, bytes] = {}
        if first:
            connection_id = joiner.paths.add_token(first, asyncio.get_running_loop().time(), told=True)
            registry.bind(first, self, connection_id)
            self._issued[connection_id] = first

    def perform(self, action: PathAction) -> None:
        if isinstance(action, IssueTokens):
            self._issue(action.count)

    def _issue(self, count: int) -> None:
        paths = self._joiner.paths
        now = asyncio.get_running_loop().time()
        for _ in range(count):
            connection_id = paths.highest + 1
            token = self._registry.issue(self, connection_id)
            self._issued[connection_id] = token
            paths.add_token(token, now)
        for connection_id in self._issued.keys() - paths.tokens.keys():
            self._registry.forget(self._issued.pop(connection_id))

    async def stop(self) -> None:
        for token in self._issued.values():
            self._registry.forget(token)
        self._issued.clear()

    async def take(self, sock: socket.socket, connection_id: int, unread: bytes, timeout: float) -> bool:
        """A connection whose ClientHello has one of the tokens: part of the session once its first record is opened.

        Nothing is sent on it before: of two that have the same token, only one may ever carry records of this id.
        Raises `PeerError`, `TimeoutError`, OSError, `KernelUnavailable`.
        """
        joiner = self._joiner
        loop = asyncio.get_running_loop()
        source = joiner.source(connection_id, is_client=False, proven=lambda candidate: None)
        source.feed(unread)
        async with asyncio.timeout(timeout):
            while (candidate := source.prove()) is None:
                received = await loop.sock_recv_into(sock, source.writable())
                if not received:
                    return False
                source.received(received)
        if joiner.session.ended or not joiner.paths.accepts(connection_id, loop.time()):
            return False
        transport = joiner.transport(sock, connection_id, source)
        if not joiner.paths.joined(connection_id, candidate, loop.time()):
            transport.abort()
            return False
        if (token := self._issued.pop(connection_id, None)) is not None:
            self._registry.forget(token)
        joiner.session.add_transport(transport)
        return True
