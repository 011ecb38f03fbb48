"""The public session: streams, and what one may ask of the peer."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from types import TracebackType
from typing import TypeVar
from weakref import WeakValueDictionary

from tcpls.aio.driver import Driver
from tcpls.aio.endpoints import Candidate
from tcpls.aio.info import Facts, PathInfo, SessionInfo, connection_info
from tcpls.aio.paths import ClientPaths, PathKeeper
from tcpls.aio.programs import ProgramHost
from tcpls.aio.stream import Stream
from tcpls.aio.tickets import TicketKeeper
from tcpls.aio.transport import RecordTransport, SocketSink, SocketSource
from tcpls.errors import (
    ApiMisuse,
    ConnectError,
    NotNegotiated,
    OptionRefused,
    ProgramRefused,
    SessionClosed,
    SessionLost,
)
from tcpls.kernel import sockopts
from tcpls.kernel.program import ProgramFile
from tcpls.protocol.core import Core
from tcpls.protocol.events import (
    ConnectionClosed,
    ConnectionJoined,
    ConnectionLost,
    ConnectionRecovered,
    ConnectionSuspected,
    Event,
    OptionAnswered,
    OptionStatus,
    PathsChanged,
    Pong,
    ProgramFinished,
    ProgramProgress,
    SessionEnded,
    StreamOpened,
    StreamReadable,
    StreamsAvailable,
    StreamWritable,
    TicketReceived,
    TokenReceived,
)
from tcpls.protocol.session import Session as SessionCore
from tcpls.tls.early_data import EarlyData

ERROR_CLOSE_TIMEOUT = 2.0
"""Seconds that a close with an error code, which owes the peer no data, waits for the peer's answer."""

logger = logging.getLogger("tcpls")

JOIN_TIMEOUT = 10.0
"""Seconds that a connection has to join."""
EVENTS_KEPT = 1024
"""Events that wait for whoever reads them."""

PathEvent = (
    ConnectionJoined | ConnectionLost | ConnectionClosed | ConnectionSuspected | ConnectionRecovered | PathsChanged
)

T = TypeVar("T")


class Session:
    """One TCPLS session, or one ordinary TLS 1.3 connection when the peer does not speak TCPLS.

    Made by `connect` and `serve`. As an asynchronous context manager it is closed at the end of the block, with
    error code 1 when the block ended with an exception.
    """

    def __init__(self, core: Core, facts: Facts, programs: ProgramHost, keeper: TicketKeeper | None = None) -> None:
        self._core = core
        self._keeper = keeper
        self._facts = facts
        self._loop = asyncio.get_running_loop()
        self._driver = Driver(core, programs, self._tell)
        # A stream that nobody holds has nobody to wake.
        self._streams: WeakValueDictionary[int, Stream] = WeakValueDictionary()
        self.held: set[Stream] = set()
        """Those whose holder is told by the session alone."""
        self._accepted: deque[Stream] = deque()
        self._accepting: asyncio.Future[None] | None = None
        self._opening: deque[asyncio.Future[None]] = deque()
        self._pongs: dict[int, asyncio.Future[float]] = {}
        self._options: dict[int, asyncio.Future[OptionAnswered]] = {}
        self._shipments: dict[int, asyncio.Future[ProgramFinished]] = {}
        self._token = asyncio.Event()
        self._joining: dict[int, asyncio.Future[bool]] = {}
        self._listeners: set[asyncio.Queue[PathEvent | None]] = set()
        self._ended: asyncio.Future[Exception | None] = self._loop.create_future()
        self._confirmed: asyncio.Future[None] = self._loop.create_future()
        self._confirmed.set_result(None)
        self._confirming: asyncio.TimerHandle | None = None
        self.first_stream: Stream | None = None
        """The stream that begins with the `early_data` of `connect`."""

    def add_transport(self, transport: RecordTransport) -> None:
        """Called by whoever made the connection."""
        self._driver.add(transport)

    def make_transport(
        self,
        sock: socket.socket,
        connection_id: int,
        source: SocketSource,
        sink: SocketSink,
        ktls_tx: str,
        patience: float,
    ) -> RecordTransport:
        """For whoever makes a connection. `patience`: as `RecordTransport` has it."""
        return RecordTransport(
            loop=self._loop,
            sock=sock,
            connection_id=connection_id,
            core=self._core,
            source=source,
            sink=sink,
            wake=self.pump,
            ktls_tx=ktls_tx,
            patience=patience,
        )

    def use_paths(self, keeper: PathKeeper) -> None:
        """Called by whoever made the session: who dials for it, or gives its tokens."""
        self._driver.paths = keeper

    def begin_paths(self) -> None:
        """Called by whoever made a client's session: it may have further connections now."""
        if isinstance(self._driver.paths, ClientPaths):
            self._driver.paths.begin()

    def pump(self) -> None:
        self._driver.pump()

    # What is in use.

    @property
    def tcpls(self) -> bool:
        """Whether TCPLS is in use; otherwise this is ordinary TLS 1.3, and its one stream is number 0."""
        return isinstance(self._core, SessionCore)

    @property
    def alpn(self) -> str:
        """The application protocol that was agreed on, or ""."""
        return self._facts.alpn

    def export(self, label: bytes, context: bytes = b"", length: int = 32) -> bytes:
        """`length` bytes that only the two ends of this session can compute, for other protocols (RFC 8446 7.5).

        They differ by `label`, which the protocol that uses them has registered (RFC 5705 section 4), and `context`.
        Both ends get the same. What was exported says nothing about the session's keys or about other exports. A
        session that was resumed gives other bytes than the one before. Raises `ApiMisuse` for a label of more than
        249 bytes, and for more than 255 hashes of the suite.
        """
        return self._facts.exporter.export(label, context, length)

    def info(self) -> SessionInfo:
        """What is really in use: asked anew of the kernel at each call."""
        return self._facts.session_info(
            self._core.peer_parameters if isinstance(self._core, SessionCore) else None,
            tuple(filter(None, map(connection_info, self._driver.open_transports()))),
        )

    def socket(self) -> socket.socket | None:
        """That of the first connection that is open: to be looked at."""
        return next((transport.socket for transport in self._driver.open_transports()), None)

    def congestion(self, connection_id: int | None = None) -> str:
        """The congestion control algorithm as the kernel reports it for a connection's socket; None: the oldest's.

        Raises `ApiMisuse` when there is no such connection.
        """
        if connection_id is None:
            connection_id = next((each.connection_id for each in self._driver.open_transports()), 0)
        return sockopts.congestion(self._driver.transport(connection_id).socket)

    # Early data.

    @property
    def early_data(self) -> EarlyData:
        """What became of early data in the handshake (0-RTT), and why."""
        return self._facts.early_data

    @property
    def handshake_complete(self) -> bool:
        """False at a server that is being sent early data: until it is True, all that came may be a replay."""
        return self._confirmed.done()

    async def wait_handshake(self) -> None:
        """Returns once the handshake is complete, so that what the client says is known to be said now, and once.

        Raises what ended the session, when it ended before.
        """
        await asyncio.wait((self._confirmed, self._ended), return_when=asyncio.FIRST_COMPLETED)
        if not self._confirmed.done():
            self._raise_if_ended()

    def await_confirmation(self, timeout: float) -> None:
        """Called by whoever made the connection: its handshake is not complete, and has `timeout` seconds for it."""
        self._confirmed = self._loop.create_future()
        self._confirming = self._loop.call_later(timeout, self._give_up, timeout)

    def confirm(self) -> None:
        """The handshake is complete."""
        if self._confirming is not None:
            self._confirming.cancel()
        if not self._confirmed.done():
            self._confirmed.set_result(None)

    def _give_up(self, timeout: float) -> None:
        why = f"the handshake took longer than {timeout:g} s"
        self._core.connection_ended(0, why, self._loop.time())
        for transport in self._driver.open_transports():
            transport.abort(why)
        self.pump()

    def said_early(self, data: bytes) -> None:
        """Called by whoever made the connection: the first stream began with early data, which the server has."""
        self.first_stream = self._stream(self._core.sent_early(data))

    # Streams.

    async def open_stream(self) -> Stream:
        """Opens a stream, waiting while the peer's limit of streams is reached.

        Raises `SessionClosed` or `SessionLost` when the session has ended, `NotNegotiated` for a second stream on
        ordinary TLS.
        """
        while True:
            self._raise_if_ended()
            stream_id = self._core.open_stream()
            if stream_id is not None:
                return self._stream(stream_id)
            if not self.tcpls:
                raise NotNegotiated(f"ordinary TLS has one stream only; {self._facts.tcpls}")
            waiter = self._loop.create_future()
            self._opening.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._opening:
                    self._opening.remove(waiter)

    async def accept_stream(self) -> Stream:
        """The next stream that the peer opens. Raises `SessionClosed` or `SessionLost` when there will be none."""
        while not self._accepted:
            self._raise_if_ended()
            if self._accepting is not None:
                raise ApiMisuse("another task is accepting streams")
            self._accepting = self._loop.create_future()
            try:
                await self._accepting
            finally:
                self._accepting = None
        return self._accepted.popleft()

    async def streams(self) -> AsyncIterator[Stream]:
        """The streams that the peer opens, until it closes the session. Raises `SessionLost` when it is cut off."""
        while True:
            try:
                stream = await self.accept_stream()
            except SessionClosed as closed:
                if closed.code:
                    raise
                return
            yield stream

    def _stream(self, stream_id: int) -> Stream:
        stream = Stream(self._core, stream_id, self._driver.pump, self._loop, self)
        self._streams[stream_id] = stream
        return stream

    # Connections.

    @property
    def paths(self) -> tuple[PathInfo, ...]:
        """The session's connections now, as the session and the kernel see them."""
        return tuple(filter(None, map(self._path, self._driver.open_transports())))

    def _path(self, transport: RecordTransport) -> PathInfo | None:
        seen = connection_info(transport)
        if seen is None or not isinstance(self._core, SessionCore):
            return None
        connection = self._core.paths.live.get(transport.connection_id)
        return None if connection is None else PathInfo.of(seen, connection)

    async def add_path(
        self, local: str | None = None, remote: str | None = None, *, standby: bool = False, timeout: float = 10.0
    ) -> int:
        """Joins another connection to the session, from `local` (an address of this machine) to `remote` (an address
        of the server, with or without a port); None: as the first connection. Gives its id. For clients.

        With `standby`, both ends use it once the others have failed. Raises `ConnectError`, `ConfigurationError`,
        `NotNegotiated`, and `SessionLost` or `SessionClosed` when the session ends meanwhile.
        """
        self._negotiated()
        keeper = self._driver.paths
        if not isinstance(keeper, ClientPaths):
            raise ApiMisuse("connections are made by the client")
        return await self.join_path(keeper, keeper.candidate(local, remote), standby, timeout)

    async def join_path(self, keeper: ClientPaths, candidate: Candidate, standby: bool, timeout: float) -> int:
        """`add_path` for whoever dials."""
        connected = await keeper.dial(candidate, timeout)
        try:
            await self._await_token(timeout)
        except BaseException:
            connected.sock.close()
            raise
        connection_id = keeper.join(connected, standby=standby)
        if not await self.wait_joined(connection_id, timeout):
            raise ConnectError(f"{candidate}: the server did not let the connection join")
        keeper.know(candidate)
        return connection_id

    async def _await_token(self, timeout: float) -> None:
        """Raises `ConnectError` when the server gives none, and what ended the session."""
        try:
            async with asyncio.timeout(timeout):
                while not self._negotiated().paths.joinable:
                    self._token.clear()
                    await self._token.wait()
        except TimeoutError:
            raise ConnectError(f"the server has given no token for another connection in {timeout:g} s") from None

    async def migrate(self, local: str | None = None, remote: str | None = None, *, timeout: float = 10.0) -> int:
        """Moves the session to a new connection, as of `add_path`, and retires the others once it has joined."""
        former = list(self._negotiated().paths.live)
        connection_id = await self.add_path(local, remote, timeout=timeout)
        for each in former:
            self.retire_path(each)
        return connection_id

    def retire_path(self, connection_id: int) -> None:
        """Puts nothing more on a connection, and closes it when all that it carried has arrived.

        The last one stays until there is another one. Raises `ApiMisuse` for one that there is not.
        """
        core = self._negotiated()
        if connection_id in core.paths.live:
            core.paths.retire(connection_id)
            self.pump()

    def set_standby(self, connection_id: int, standby: bool) -> None:
        """Whether both ends are to use a connection only when the others have failed. Raises `ApiMisuse`."""
        self._negotiated().paths.set_standby(connection_id, standby)
        self.pump()

    @property
    def scheduler(self) -> str:
        """How the connections are used: one of "backup", "lowest-rtt", "round-robin", "weighted", "redundant"."""
        return self._negotiated().paths.scheduler.name

    @scheduler.setter
    def scheduler(self, name: str) -> None:
        self._negotiated().paths.use(name)
        self.pump()

    async def wait_joined(self, connection_id: int, timeout: float = JOIN_TIMEOUT) -> bool:
        """Whether a connection that was made has become part of the session."""
        waiter: asyncio.Future[bool] = self._joining.setdefault(connection_id, self._loop.create_future())
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(waiter)
        except TimeoutError:
            return False
        finally:
            self._joining.pop(connection_id, None)

    # Events.

    async def events(self) -> AsyncGenerator[PathEvent, None]:
        """What becomes of the session's connections from now on, until the session ends.

        Whoever does not read loses the oldest beyond `EVENTS_KEPT`.
        """
        queue: asyncio.Queue[PathEvent | None] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            while not self._ended.done() or not queue.empty():
                event = await queue.get()
                if event is None:
                    return
                yield event
        finally:
            self._listeners.discard(queue)

    def _publish(self, event: PathEvent | None) -> None:
        match event:
            case ConnectionLost(connection_id, why) | ConnectionSuspected(connection_id, why):
                logger.warning("connection %d: %s; the session goes on", connection_id, why)
            case ConnectionJoined(connection_id):
                logger.info("connection %d has joined", connection_id)
            case ConnectionClosed(connection_id):
                logger.info("connection %d is closed", connection_id)
        for queue in self._listeners:
            if queue.qsize() >= EVENTS_KEPT:
                queue.get_nowait()
            queue.put_nowait(event)

    # What may be asked of the peer.

    async def ping(self) -> float:
        """The round-trip time in seconds of a record and its authenticated acknowledgment."""
        return await self._answer(self._pongs, self._core.ping(self._loop.time()))

    async def set_peer_option(self, name: str, value: int | str, connection_id: int | None = None) -> int | str | None:
        """Asks the peer to set a TCP option on its side of one connection, or of all.

        Returns the value that its kernel then reports. Raises `OptionRefused` when it was not applied.
        """
        answer = await self._answer(
            self._options, self._negotiated().control.request_option(name, value, connection_id)
        )
        if answer.status is not OptionStatus.APPLIED:
            raise OptionRefused(name, answer.status.name.lower(), answer.errno)
        return answer.value

    async def ship_program(self, program: ProgramFile, connections: Sequence[int] = ()) -> Shipment:
        """Ships a compiled congestion controller, to be attached to the peer's side of `connections` (none: all).

        Raises `ProgramRefused` with the stage at which the peer stopped and its reason.
        """
        core = self._negotiated()
        try:
            program_id = core.control.offer_program(
                name=program.name,
                image=program.image,
                abi=program.abi,
                signature=program.signature,
                key_id=program.key_id,
                connections=tuple(connections),
            )
        except NotNegotiated as refused:
            # The peer's parameters say it already, so it is not even asked.
            raise ProgramRefused(str(refused), stage="policy") from None
        result = await self._answer(self._shipments, program_id)
        _raise_if_refused(result)
        return Shipment(self, program_id, result.algorithm)

    async def detach_program(self, program_id: int) -> str:
        """Gives the peer's connections their former algorithm back, and returns its name."""
        self._negotiated().control.detach_program(program_id)
        result = await self._answer(self._shipments, program_id)
        _raise_if_refused(result)
        return result.algorithm

    def update_keys(self, request: bool = True) -> None:
        """Changes the sending keys now; with `request`, asks the peer to change its own (RFC 8446 4.6.3)."""
        self._core.update_keys(request)
        self.pump()

    def _negotiated(self) -> SessionCore:
        self._raise_if_ended()
        if not isinstance(self._core, SessionCore):
            raise NotNegotiated(f"this needs TCPLS: {self._facts.tcpls}")
        return self._core

    async def _answer(self, waiters: dict[int, asyncio.Future[T]], key: int) -> T:
        """Waits for the peer's answer to the request `key`, which the core has just queued."""
        waiter: asyncio.Future[T] = self._loop.create_future()
        waiters[key] = waiter
        try:
            self.pump()
            return await waiter
        finally:
            waiters.pop(key, None)

    # The end.

    @property
    def ended(self) -> bool:
        return self._ended.done()

    async def wait_ended(self) -> Exception | None:
        """Waits for the end of the session: None after an authenticated close without error code."""
        return await asyncio.shield(self._ended)

    async def close(self, code: int = 0, reason: str = "") -> None:
        """Sends what was written, closes the session, and waits until the peer has confirmed that it has it all.

        That may take as long as the peer needs, but not longer than `SessionConfig.close_timeout` without any progress.
        Raises what ended the session (`SessionLost`, mostly) when the peer is not known to have taken everything. On
        ordinary TLS, which has no such confirmation, it is enough that everything left this end.

        With another code than 0, what was not sent is dropped, the wait is short, and nothing is raised. Once the
        session was closed or given up by this end, closing it again does nothing.
        """
        if self._driver.released:
            return
        self._core.close(code, reason, self._loop.time())
        self.pump()
        closings = [transport.closed for transport in self._driver.open_transports()]
        cut = False
        try:
            async with asyncio.timeout(ERROR_CLOSE_TIMEOUT if code else None):
                error = await asyncio.shield(self._ended)
                if not isinstance(error, SessionLost):
                    cut = any(await asyncio.gather(*map(asyncio.shield, closings)))
        except TimeoutError:
            if not code:
                raise
        finally:
            await self.abort()
        # An acknowledged close is proof; of ordinary TLS only what became of the connection is known.
        if not code and not (self._core.delivered and (self.tcpls or not cut)):
            raise self._ended.result() or SessionLost("the peer closed before it had taken everything")

    async def abort(self) -> None:
        """Closes every connection at once, without a word to the peer, and ends whatever belongs to it."""
        self._core.abandon()
        await self._driver.release()
        if self._keeper is not None:
            await self._keeper.finish()

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.close()
        else:
            await self.close(1, "the application ended with an error")

    def _raise_if_ended(self) -> None:
        if self._ended.done():
            raise self._ended.result() or SessionClosed()

    # What the core tells.

    def _tell(self, event: Event) -> None:
        match event:
            case StreamReadable(stream_id):
                if (stream := self._streams.get(stream_id)) is not None:
                    stream.wake_reader()
            case StreamWritable(stream_id):
                if (stream := self._streams.get(stream_id)) is not None:
                    stream.wake_writer()
            case StreamOpened(stream_id):
                stream = self._stream(stream_id)
                stream.early = not self.handshake_complete
                self._accepted.append(stream)
                _wake(self._accepting)
            case StreamsAvailable():
                for waiter in self._opening:
                    _wake(waiter)
            case Pong(ping_id, rtt):
                _resolve(self._pongs, ping_id, rtt)
            case OptionAnswered(request_id):
                _resolve(self._options, request_id, event)
            case ProgramFinished(program_id):
                _resolve(self._shipments, program_id, event)
            case TicketReceived(message):
                if self._keeper is not None:
                    self._keeper.receive(message)
            case TokenReceived():
                self._token.set()
            case ConnectionJoined(connection_id):
                if (joining := self._joining.get(connection_id)) is not None and not joining.done():
                    joining.set_result(True)
                self._publish(event)
            case ConnectionLost(connection_id) | ConnectionClosed(connection_id):
                if (joining := self._joining.get(connection_id)) is not None and not joining.done():
                    joining.set_result(False)
                self._publish(event)
            case ConnectionSuspected() | ConnectionRecovered() | PathsChanged():
                self._publish(event)
            case ProgramProgress():
                pass
            case SessionEnded(error):
                self._end(error)

    def _end(self, error: Exception | None) -> None:
        """Everybody who waits is told. Streams find out by asking the core, which still holds what came before."""
        if self._ended.done():
            return
        if self._confirming is not None:
            self._confirming.cancel()
        self._ended.set_result(error)
        _wake(self._accepting)
        for waiter in self._opening:
            _wake(waiter)
        for stream in list(self._streams.values()):
            stream.wake_reader()
            stream.wake_writer()
        for joining in self._joining.values():
            if not joining.done():
                joining.set_result(False)
        self._token.set()
        self._publish(None)
        failure = error or SessionClosed()
        _refuse(self._pongs, failure)
        _refuse(self._options, failure)
        _refuse(self._shipments, failure)


class Shipment:
    """A program of ours that is attached at the peer. `algorithm` is the name that the peer's kernel reports."""

    def __init__(self, session: Session, program_id: int, algorithm: str) -> None:
        self._session = session
        self._program_id = program_id
        self.algorithm = algorithm

    async def detach(self) -> str:
        """Takes the program back: returns the name of the algorithm that the peer's connections have again."""
        return await self._session.detach_program(self._program_id)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _resolve(waiters: dict[int, asyncio.Future[T]], key: int, value: T) -> None:
    waiter = waiters.get(key)
    if waiter is not None and not waiter.done():
        waiter.set_result(value)


def _refuse(waiters: dict[int, asyncio.Future[T]], failure: Exception) -> None:
    for waiter in waiters.values():
        if not waiter.done():
            waiter.set_exception(failure)


def _raise_if_refused(result: ProgramFinished) -> None:
    if not result.ok:
        raise ProgramRefused(result.reason, stage=result.stage.name.lower().replace("_", " "), log=result.log)
