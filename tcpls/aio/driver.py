"""Drives a core: its connections, its timer, its actions. What the core tells goes to one listener."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Coroutine

from tcpls.aio.paths import PathKeeper
from tcpls.aio.programs import ProgramHost
from tcpls.aio.transport import RecordTransport
from tcpls.errors import ApiMisuse, KernelUnavailable, ProgramRefused
from tcpls.kernel import sockopts
from tcpls.protocol.actions import (
    AbortConnection,
    Action,
    ApplyOption,
    CloseConnection,
    DetachProgram,
    EndSending,
    IssueTokens,
    JudgeProgram,
    LoadProgram,
    ProbeConnection,
    Reconnect,
)
from tcpls.protocol.connections import PathFacts
from tcpls.protocol.control import PeerControl
from tcpls.protocol.core import Core
from tcpls.protocol.events import Event, OptionStatus, Stage
from tcpls.protocol.session import Session as SessionCore

logger = logging.getLogger("tcpls")


LOOK = 0.01
"""Seconds between two looks at what the kernel knows of a session's connections, when there are several."""


def path_facts(sock: socket.socket) -> PathFacts:
    info = sockopts.tcp_info(sock)
    return PathFacts(
        rtt=info.rtt / 1e6,
        cwnd=info.snd_cwnd * info.snd_mss,
        delivery_rate=info.delivery_rate,
        unsent=info.notsent_bytes,
        retransmits=info.total_retrans,
    )


class Driver:
    """Owns the transports of one session and runs what its core asks for.

    `pump` is called after anything was told to the core, from wherever; it is never entered twice.
    """

    def __init__(self, core: Core, programs: ProgramHost, tell: Callable[[Event], None]) -> None:
        self.core = core
        self.transports: dict[int, RecordTransport] = {}
        self._programs = programs
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._pumping = False
        self._again = False
        self._looked_at = -LOOK
        self._asked_of_all: dict[str, int | str] = {}
        """The TCP options that the peer has had set on every connection."""
        self.paths: PathKeeper | None = None
        """Who dials, or gives tokens; None on ordinary TLS."""
        self.released = False
        """Whether `release` was called."""

    def add(self, transport: RecordTransport) -> None:
        transports = self.transports
        for number in [number for number, each in transports.items() if each.closed.done()]:
            del transports[number]
        transports[transport.connection_id] = transport
        transport.closed.add_done_callback(lambda _: self._gone(transport))
        if len(transports) > 1:
            for each in transports.values():
                each.share()
        if transport.connection_id:
            self._spawn(self._equip(transport))
        transport.start()

    async def _equip(self, transport: RecordTransport) -> None:
        """A connection that came later gets what the peer has asked of all of them."""
        for name, value in self._asked_of_all.items():
            with contextlib.suppress(KernelUnavailable, ApiMisuse, OSError):
                sockopts.apply(transport.socket, name, value)
        try:
            await self._programs.adopt(transport.socket)
        except (ProgramRefused, KernelUnavailable, ApiMisuse, OSError) as error:
            logger.warning("connection %d goes without the peer's program: %s", transport.connection_id, error)

    def _gone(self, transport: RecordTransport) -> None:
        # The last one is kept: it says what the session ran over.
        if len(self.transports) > 1 and self.transports.get(transport.connection_id) is transport:
            del self.transports[transport.connection_id]

    def transport(self, connection_id: int) -> RecordTransport:
        transport = self.transports.get(connection_id)
        if transport is None or transport.closed.done():
            raise ApiMisuse(f"connection {connection_id} is not open")
        return transport

    def open_transports(self) -> list[RecordTransport]:
        return [transport for transport in self.transports.values() if not transport.closed.done()]

    def pump(self) -> None:
        """Records out, actions run, events told, reading and timer adjusted."""
        self._again = True
        if self._pumping:
            return
        self._pumping = True
        core = self.core
        try:
            while self._again:
                self._again = False
                transports = list(self.transports.values())
                if len(transports) > 1:
                    self._look(transports)
                for transport in transports:
                    blocked = transport.blocked
                    transport.flush()
                    # What it did not take may be for another one, which was asked before.
                    self._again |= transport.blocked is not blocked and len(transports) > 1
                for action in core.actions():
                    self._run(action)
                    self._again = True
                for event in core.events():
                    self._tell(event)
        finally:
            self._pumping = False
        for transport in list(self.transports.values()):
            transport.update_reading()
        self._schedule()

    def _look(self, transports: list[RecordTransport]) -> None:
        """Has the core know what the kernel knows of each connection, from time to time."""
        now = self._loop.time()
        if now < self._looked_at + LOOK or not isinstance(self.core, SessionCore):
            return
        self._looked_at = now
        for transport in transports:
            if not transport.closed.done():
                self.core.paths.facts(transport.connection_id, path_facts(transport.socket))

    # The timer.

    def _schedule(self) -> None:
        due = self.core.next_timer()
        if self._timer is not None:
            if due is not None and self._timer.when() <= due:
                return  # It fires early, finds nothing to do, and is set anew: cheaper than one timer a record.
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = self._loop.call_at(due, self._expired)

    def _expired(self) -> None:
        self._timer = None
        now = self._loop.time()
        due = self.core.next_timer()
        if due is not None and due <= now:
            self.core.timer_expired(now)
        self.pump()

    # Actions.

    def _run(self, action: Action) -> None:
        match action:
            case CloseConnection(connection_id):
                transport = self.transports.get(connection_id)
                if transport is not None:
                    transport.close()
            case AbortConnection(connection_id, why):
                transport = self.transports.get(connection_id)
                if transport is not None:
                    transport.reset(why)
            case ProbeConnection(connection_id):
                self._probe(connection_id)
            case Reconnect() | IssueTokens():
                if self.paths is not None:
                    self.paths.perform(action)
            case EndSending(connection_id):
                self.transports[connection_id].end_sending()
            case ApplyOption():
                self._apply_option(action)
            case JudgeProgram():
                self._judge(action)
            case LoadProgram():
                self._spawn(self._load(action))
            case DetachProgram():
                self._spawn(self._detach(action))

    def _probe(self, connection_id: int) -> None:
        """For how long the kernel has heard nothing of the peer's TCP."""
        transport = self.transports.get(connection_id)
        if transport is not None and not transport.closed.done() and isinstance(self.core, SessionCore):
            info = sockopts.tcp_info(transport.socket)
            silent = min(info.last_ack_recv, info.last_data_recv) / 1000
            paths = self.core.paths
            paths.facts(connection_id, path_facts(transport.socket))
            paths.probed(connection_id, silent, self._loop.time())

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _control(self) -> PeerControl:
        if not isinstance(self.core, SessionCore):
            raise ApiMisuse("only a TCPLS session asks for this")
        return self.core.control

    def _apply_option(self, action: ApplyOption) -> None:
        """Sets the option on each connection that is meant; the last one's value is what the peer is told."""
        status, value, errno = OptionStatus.UNSUPPORTED, None, 0
        try:
            for transport in self._meant(action.connection_id):
                value = sockopts.apply(transport.socket, action.name, action.value)
                status = OptionStatus.APPLIED
            if action.connection_id is None and status is OptionStatus.APPLIED:
                self._asked_of_all[action.name] = action.value
        except (KernelUnavailable, ApiMisuse):
            status, value = OptionStatus.UNSUPPORTED, None
        except OSError as error:
            status, value, errno = OptionStatus.FAILED, None, error.errno or 0
        logger.info("peer's option %s=%s: %s", action.name, action.value, status.name.lower())
        self._control().option_result(action.request_id, status, value, errno)

    def _meant(self, connection_id: int | None) -> list[RecordTransport]:
        return self.open_transports() if connection_id is None else [self.transport(connection_id)]

    def _judge(self, action: JudgeProgram) -> None:
        try:
            self._programs.judge(action.offer)
        except ProgramRefused as refused:
            logger.warning("program %r refused: %s", action.offer.name, refused)
            self._control().answer_offer(action.program_id, accept=False, reason=refused.reason)
        else:
            self._control().answer_offer(action.program_id, accept=True)

    async def _load(self, action: LoadProgram) -> None:
        wanted = action.offer.connections or tuple(self.transports)
        sockets = [self.transports[i].socket for i in wanted if i in self.transports]
        try:
            algorithm = await self._programs.load(action.program_id, action.offer, action.image, sockets)
        except ProgramRefused as refused:
            logger.warning("program %r refused: %s", action.offer.name, refused)
            stage = Stage[refused.stage.upper().replace(" ", "_")] if refused.stage else Stage.POLICY
            self._result(action.program_id, stage, ok=False, reason=refused.reason)
        except (KernelUnavailable, OSError) as error:
            logger.warning("program %r not loaded: %s", action.offer.name, error)
            self._result(action.program_id, Stage.POLICY, ok=False, reason=str(error))
        else:
            logger.info("program %r attached as %s", action.offer.name, algorithm)
            self._result(action.program_id, Stage.ATTACHED, ok=True, algorithm=algorithm)

    async def _detach(self, action: DetachProgram) -> None:
        try:
            algorithm = await self._programs.detach(action.program_id)
        except (ProgramRefused, KernelUnavailable, OSError) as error:
            self._result(action.program_id, Stage.DETACHED, ok=False, reason=str(error))
        else:
            self._result(action.program_id, Stage.DETACHED, ok=True, algorithm=algorithm)

    def _result(self, program_id: int, stage: Stage, *, ok: bool, algorithm: str = "", reason: str = "") -> None:
        if not self.core.ended:
            self._control().program_result(program_id, stage, ok, algorithm, reason)
            self.pump()

    # The end.

    async def release(self) -> None:
        """Closes what is open, ends every task, takes back every program. Nothing outlives it."""
        self.released = True
        if self.paths is not None:
            await self.paths.stop()
        for transport in list(self.transports.values()):
            transport.abort()
        self.pump()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        try:
            if tasks:
                await asyncio.wait(tasks)
        finally:
            self._programs.close()
