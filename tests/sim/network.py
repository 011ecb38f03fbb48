"""Two cores with any number of connections over TCP links in memory, with a virtual clock.

A `Link` is a way between the two hosts, with a rate and a delay for each direction; it can stall, vanish silently
(`blackhole`) and heal. TCP connections run over links: what a blackhole swallows is kept by the sender's TCP and
delivered in order after healing. A `Host` is a core and what a shell does for it. Nothing sleeps, and the same seed
gives the same run.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tcpls.errors import PeerError, SessionClosed, SessionLost, StreamReset, TCPLSError
from tcpls.protocol.actions import (
    AbortConnection,
    Action,
    ApplyOption,
    CloseConnection,
    IssueTokens,
    JudgeProgram,
    LoadProgram,
    ProbeConnection,
    Reconnect,
)
from tcpls.protocol.base import Role, SessionConfig
from tcpls.protocol.connections import PathFacts
from tcpls.protocol.events import (
    ConnectionClosed,
    ConnectionJoined,
    ConnectionLost,
    ConnectionRecovered,
    ConnectionSuspected,
    Event,
    OptionStatus,
    SessionEnded,
    Stage,
    StreamOpened,
    StreamReadable,
)
from tcpls.protocol.parameters import ABSENT, Parameters
from tcpls.protocol.session import Session
from tcpls.tls.record import HEADER_SIZE, RECORD_ROOM, RecordOpener, RecordSealer
from tcpls.tls.suites import Aead, TrafficKeys
from tcpls.wire import Buffer
from tests.engine import ENGINE
from tests.sim.pair import LOCAL, secret

SEGMENT = 8192
HELLO = 40
"""Bytes of what stands for a ClientHello with a token, and for the server's ServerHello."""
REFUSAL = b"alert".ljust(HELLO, b"!")
ACCEPTANCE = b"hello".ljust(HELLO, b".")
DIAL_AGAIN = 0.1
LIFE = 900.0
"""Seconds that TCP goes on trying."""

CLIENT, SERVER = 0, 1


class Network:
    """The clock, the links, and both hosts."""

    def __init__(self, seed: int = 0, *, links: int = 2, rate: float = 10e6, delay: float = 0.01) -> None:
        self.now = 0.0
        self.random = random.Random(seed)
        self.links = [Link(self, rate, delay) for _ in range(links)]
        self.connections: list[Tcp] = []
        self.hosts: tuple[Host, Host]
        self.nonces: set[tuple[bytes, bytes]] = set()
        self.life = LIFE
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (max(when, self.now), self._count, what))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self.at(self.now + seconds, what)

    def _next(self) -> float | None:
        times = [due for host in self.hosts if (due := host.core.next_timer()) is not None]
        if self._heap:
            times.append(self._heap[0][0])
        return min(times, default=None)

    def step(self, until: float) -> bool:
        """The next thing that happens, if it happens by then."""
        for host in self.hosts:
            host.pump()
        due = self._next()
        if due is None or due > until:
            return False
        self.now = max(self.now, due)
        if self._heap and self._heap[0][0] <= self.now:
            heapq.heappop(self._heap)[2]()
        for host in self.hosts:
            host.run_timer()
        return True

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while self.step(until):
            continue
        self.now = until

    def run(self, done: Callable[[], bool], limit: float = 60.0) -> float:
        """Until `done`; gives the time that it took. Raises `TimeoutError` after `limit` seconds."""
        since, until = self.now, self.now + limit
        while not done():
            if not self.step(until):
                raise TimeoutError(f"not done after {limit} s")
        return self.now - since

    def aead(self, keys: TrafficKeys) -> Aead:
        """For sealers: no nonce may be used twice under one key."""
        return _Watched(ENGINE.aead(keys), keys.key, self.nonces)


class _Watched:
    def __init__(self, aead: Aead, key: bytes, nonces: set[tuple[bytes, bytes]]) -> None:
        self._aead = aead
        self._key = key
        self._nonces = nonces

    def encrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int:
        used = self._key, bytes(nonce)
        assert used not in self._nonces, "a nonce is used twice"
        self._nonces.add(used)
        return self._aead.encrypt_into(nonce, data, associated_data, buf)

    def decrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int:
        return self._aead.decrypt_into(nonce, data, associated_data, buf)


class Link:
    """A way between both hosts. Directions are named by the host that sends."""

    def __init__(self, network: Network, rate: float, delay: float) -> None:
        self._network = network
        self.rate = rate
        self.delay = delay
        self.free_at = [0.0, 0.0]
        self.dead = [False, False]
        self.stalled = [False, False]

    def connections(self) -> list[Tcp]:
        return [each for each in self._network.connections if each.link is self]

    def blackhole(self, *senders: int) -> None:
        """What is sent from now on, and what is on its way, vanishes. No names: in both directions."""
        for sender in senders or (CLIENT, SERVER):
            self.dead[sender] = True
            for each in self.connections():
                each.pipes[sender].vanish()

    def stall(self, *senders: int) -> None:
        """What waits, goes on waiting; what is on its way arrives."""
        for sender in senders or (CLIENT, SERVER):
            self.stalled[sender] = True

    def heal(self) -> None:
        self.dead = [False, False]
        self.stalled = [False, False]
        for each in self.connections():
            each.heal()

    def reset(self, *, seen_by: tuple[int, ...] = (CLIENT, SERVER), silent: bool = True) -> None:
        """Somebody resets every connection. Ends that do not see it find out by themselves; with `silent`, their
        segments vanish, otherwise the other end's TCP answers them with a reset."""
        for each in self.connections():
            each.cut(seen_by, silent)

    @property
    def works(self) -> bool:
        return not any(self.dead) and not any(self.stalled)


class Pipe:
    """One direction of a TCP connection."""

    def __init__(self, tcp: Tcp, sender: int) -> None:
        self.tcp = tcp
        self.sender = sender
        self.queue: deque[bytes] = deque()
        self.unacknowledged = 0
        """Bytes that were written and not acknowledged: what the socket's buffer holds."""
        self.delivered = 0
        self._acknowledged = 0
        self.fin = False
        self.fin_delivered = False
        self.dead = False
        """Whether the network drops what this connection sends this way, whatever the link does."""
        self._on_wire: deque[bytes] = deque()
        self._epoch = 0
        self._serving = False

    @property
    def lost(self) -> bool:
        return self.dead or self.tcp.link.dead[self.sender]

    @property
    def room(self) -> int:
        return 0 if self.fin else self.tcp.buffer - self.unacknowledged

    def write(self, data: bytes) -> None:
        if data:
            self.queue.append(data)
            self.unacknowledged += len(data)
            self.serve()

    def finish(self) -> None:
        if not self.fin:
            self.fin = True
            self.serve()

    def serve(self) -> None:
        """Puts the next segment on the wire."""
        link, network = self.tcp.link, self.tcp.network
        if self._serving or self.lost or link.stalled[self.sender] or not (self.queue or self.fin):
            return
        data = b""
        if self.queue:
            piece = self.queue.popleft()
            size = min(len(piece), network.random.randint(1, 2 * SEGMENT))
            data = piece[:size]
            if size < len(piece):
                self.queue.appendleft(piece[size:])
        elif self.fin_delivered or self._on_wire:
            return
        self._on_wire.append(data)
        self._serving = True
        start = max(network.now, link.free_at[self.sender])
        gone = link.free_at[self.sender] = start + len(data) / link.rate
        epoch = self._epoch
        network.at(gone, lambda: self._left(epoch))
        network.at(gone + link.delay, lambda: self._arrive(epoch))

    def _left(self, epoch: int) -> None:
        if epoch == self._epoch:
            self._serving = False
            self.serve()

    def _arrive(self, epoch: int) -> None:
        if epoch != self._epoch:
            return
        data = self._on_wire.popleft()
        end = self.tcp.ends[1 - self.sender]
        if data:
            self.delivered += len(data)
        else:
            self.fin_delivered = True
        end.heard_at = self.tcp.network.now
        self.acknowledge()
        if data:
            end.take(data)
        else:
            end.take_fin()
        self.serve()

    def acknowledge(self) -> None:
        """The receiver's TCP acknowledges what has arrived."""
        self.tcp.network.after(self.tcp.link.delay, self._acknowledged_now)

    def _acknowledged_now(self) -> None:
        if self.tcp.pipes[1 - self.sender].lost:
            return
        self.unacknowledged -= self.delivered - self._acknowledged
        self._acknowledged = self.delivered
        self.tcp.ends[self.sender].heard_at = self.tcp.network.now

    def vanish(self) -> None:
        """What is on the wire is lost; TCP still has it."""
        self.queue.extendleft(reversed([data for data in self._on_wire if data]))
        self._on_wire.clear()
        self._serving = False
        self._epoch += 1

    def drop(self) -> None:
        """The sender's socket is gone, and what it held."""
        self.queue.clear()
        self._on_wire.clear()
        self._serving = False
        self._epoch += 1
        self.fin = False


class Tcp:
    """A TCP connection over a link."""

    def __init__(self, network: Network, link: Link, buffer: int = 1 << 17) -> None:
        self.network = network
        self.link = link
        self.buffer = buffer
        self.pipes = (Pipe(self, CLIENT), Pipe(self, SERVER))
        self.ends: tuple[End, End]
        network.connections.append(self)

    def heal(self) -> None:
        # TCP finds out when its timer for retransmissions runs out.
        self.network.after(0.05, self._retransmit)

    def _retransmit(self) -> None:
        for pipe in self.pipes:
            pipe.serve()
            pipe.acknowledge()

    def reset_from(self, host: int) -> None:
        """The host's TCP sends a reset."""
        self.pipes[host].drop()
        if not self.pipes[host].lost:
            self.network.after(self.link.delay, lambda: self.ends[1 - host].take_reset("reset by peer"))

    def cut(self, seen_by: tuple[int, ...], silent: bool) -> None:
        for host in (CLIENT, SERVER):
            self.pipes[host].dead |= silent
            self.pipes[host].vanish()
        for host in seen_by:
            self.ends[host].take_reset("reset")


class End:
    """One end of a TCP connection, and the records on it."""

    def __init__(self, host: Host, tcp: Tcp, number: int) -> None:
        self.host = host
        self.tcp = tcp
        self.number = number
        self.pipe = tcp.pipes[number]
        self.connection_id: int | None = None
        self.sealer: RecordSealer | None = None
        self.opener: RecordOpener | None = None
        self.heard_at = host.network.now
        self.waiting = bytearray()
        """What came before there were keys to open it with."""
        self.said = False
        """Whether the answer to the ClientHello has come, or was given."""
        self.closed = False
        self.closing = False
        self.received_all = False

    def ready(self, connection_id: int, write: TrafficKeys, read: TrafficKeys | None) -> None:
        network = self.host.network
        self.connection_id = connection_id
        self.sealer = RecordSealer(network.aead, write, capacity=4 * RECORD_ROOM)
        if read is not None:
            self.read_with(read)
        self.host.ends[connection_id] = self

    def read_with(self, keys: TrafficKeys) -> None:
        self.opener = RecordOpener(ENGINE.aead, keys, ENGINE.invalid_tag, capacity=8 * RECORD_ROOM)

    # From the network.

    def take(self, data: bytes) -> None:
        if self.closed:
            self.tcp.reset_from(self.number)
            return
        if self.opener is None:
            self.waiting += data
            self.host.greet(self)
        else:
            self.opener.feed(data)
        self.open_records()

    def open_records(self) -> None:
        core = self.host.core
        if self.closed or self.opener is None or self.connection_id is None or core.reading_paused:
            return
        try:
            core.receive_records(self.connection_id, self.opener, self.host.network.now)
        except PeerError as error:
            self.host.failures.append(error)
            core.fail(self.connection_id, error, self.host.network.now)

    def take_fin(self) -> None:
        if not self.closed:
            self.received_all = True
            self._over(None)
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self.closing and self.received_all and self.pipe.fin and not self.closed:
            self.closed = True
            self._forget()

    def take_reset(self, why: str) -> None:
        if not self.closed:
            self._over(why)
            self.drop()

    def _over(self, error: str | None) -> None:
        if self.connection_id is not None and self.host.ends.get(self.connection_id) is self:
            self.host.core.connection_ended(self.connection_id, error, self.host.network.now)

    # From the host.

    def finish(self) -> None:
        """Sends what is pending, and a FIN behind it."""
        self.closing = True

    def abort(self, *, silent: bool = False) -> None:
        if not self.closed:
            self.drop()
            if not silent:
                self.tcp.reset_from(self.number)

    def drop(self) -> None:
        self.closed = True
        self.pipe.drop()
        self._forget()

    def _forget(self) -> None:
        if self.connection_id is not None and self.host.ends.get(self.connection_id) is self:
            del self.host.ends[self.connection_id]

    def flush(self) -> None:
        """Builds and sends records until there is nothing to say or the socket takes no more."""
        core, now = self.host.core, self.host.network.now
        if self.connection_id is None or self.sealer is None or self.closed or self.pipe.fin:
            return
        while not self._move():
            core.paths.set_blocked(self.connection_id, False)
            core.transmit(self.connection_id, self.sealer, now)
            if not len(self.sealer.pending):
                if self.closing:
                    self.pipe.finish()
                    self._close_if_done()
                return
        core.paths.set_blocked(self.connection_id, True)

    def _move(self) -> bool:
        """Gives the socket what it takes of what is sealed. Whether it leaves some."""
        assert self.sealer is not None
        count = min(len(self.sealer.pending), max(0, self.pipe.room))
        if count:
            self.pipe.write(bytes(self.sealer.pending[:count]))
            self.sealer.sent(count)
        return bool(len(self.sealer.pending))


@dataclass
class Flow:
    """What an application writes to a stream as there is room."""

    data: bytes
    finish: bool = True
    at: int = 0
    piece: int = 40_000
    error: TCPLSError | None = None


@dataclass
class Got:
    """What an application has read from a stream."""

    data: bytearray = field(default_factory=bytearray)
    ended: bool = False
    error: TCPLSError | None = None


class Host:
    """A core with what a shell does for it, and an application that writes `flows` and reads into `got`."""

    def __init__(self, network: Network, number: int, core: Session) -> None:
        self.network = network
        self.number = number
        self.core = core
        self.ends: dict[int, End] = {}
        """By connection id."""
        self.others: list[End] = []
        """A server's connections that have not joined."""
        self.events: list[Event] = []
        self.actions: list[Action] = []
        self.failures: list[PeerError] = []
        self.flows: dict[int, Flow] = {}
        self.got: dict[int, Got] = {}
        self.reads = True
        self.dials = True
        self.silent_aborts = False
        self.tokens: dict[bytes, int] = {}
        """A server's: what it gave, and the sequence."""
        self.answers_options = True
        self._dialing = False
        self._given = 0
        self._pumping = False

    @property
    def other(self) -> Host:
        return self.network.hosts[1 - self.number]

    # The application.

    def open_known(self, stream_id: int) -> None:
        self.got[stream_id] = Got()

    def open(self, data: bytes | None = None, *, finish: bool = True) -> int:
        stream_id = self.core.open_stream()
        assert stream_id is not None
        self.got[stream_id] = Got()
        if data is not None:
            self.flows[stream_id] = Flow(data, finish)
        return stream_id

    def write(self, stream_id: int, data: bytes, *, finish: bool = True) -> None:
        self.flows[stream_id] = Flow(data, finish)

    def _application(self) -> None:
        for stream_id, flow in list(self.flows.items()):
            try:
                while flow.at < len(flow.data) and self.core.send_capacity(stream_id) > 0:
                    piece = flow.data[flow.at : flow.at + flow.piece]
                    self.core.send(stream_id, piece, self.network.now)
                    flow.at += len(piece)
                if flow.at == len(flow.data):
                    if flow.finish:
                        self.core.finish(stream_id)
                    del self.flows[stream_id]
            except (StreamReset, SessionLost, SessionClosed) as error:
                flow.error = error
                del self.flows[stream_id]
        if self.reads:
            for stream_id in list(self.got):
                self.read(stream_id)

    def read(self, stream_id: int, limit: int = 1 << 16) -> bytes:
        got = self.got[stream_id]
        before = len(got.data)
        while not got.ended and got.error is None:
            try:
                data = self.core.receive(stream_id, limit)
            except TCPLSError as error:
                got.error = error
                break
            if data is None:
                break
            got.data += data
            got.ended = not data
        return bytes(got.data[before:])

    # The shell.

    def run_timer(self) -> None:
        for _ in range(100):
            due = self.core.next_timer()
            if due is None or due > self.network.now:
                return
            self.core.timer_expired(self.network.now)
            self.pump()
        raise AssertionError("the timer is always due")

    def pump(self) -> None:
        if self._pumping:
            return
        self._pumping = True
        try:
            for _ in range(1000):
                self._application()
                before = [len(each.sealer.pending) for each in self.ends.values() if each.sealer]
                for end in list(self.ends.values()):
                    end.open_records()
                    end.flush()
                actions = self.core.actions()
                for action in actions:
                    self._run(action)
                events = self.core.events()
                for event in events:
                    self._tell(event)
                self.actions += actions
                self.events += events
                after = [len(each.sealer.pending) for each in self.ends.values() if each.sealer]
                if not actions and not events and before == after:
                    return
            raise AssertionError("the host does not come to rest")
        finally:
            self._pumping = False

    def _tell(self, event: Event) -> None:
        match event:
            case StreamOpened(stream_id):
                self.got[stream_id] = Got()
            case StreamReadable():
                pass
            case SessionEnded():
                self._dialing = False

    def _run(self, action: Action) -> None:
        now, paths = self.network.now, self.core.paths
        match action:
            case CloseConnection(connection_id):
                if (closing := self.ends.get(connection_id)) is not None:
                    closing.finish()
                    self.network.after(5.0, lambda: closing.take_reset("the peer does not end it"))
            case AbortConnection(connection_id):
                if (end := self.ends.get(connection_id)) is not None:
                    end.abort(silent=self.silent_aborts)
            case ProbeConnection(connection_id):
                end = self.ends.get(connection_id)
                paths.probed(connection_id, now - end.heard_at if end is not None else now, now)
            case IssueTokens(count):
                for _ in range(count):
                    self.issue()
            case Reconnect():
                self._reconnect()
            case ApplyOption() if self.answers_options:
                self.core.control.option_result(action.request_id, OptionStatus.APPLIED, action.value)
            case JudgeProgram():
                self.core.control.answer_offer(action.program_id, True)
            case LoadProgram():
                self.core.control.program_result(action.program_id, Stage.ATTACHED, True, action.offer.name)

    def issue(self) -> bytes:
        self._given += 1
        token = hashlib.sha256(f"token {self._given}".encode()).digest()
        self.tokens[token] = self.core.paths.add_token(token, self.network.now)
        return token

    # Connections.

    def _reconnect(self) -> None:
        if not self._dialing and self.dials:
            self._dialing = True
            self._dial_again()

    def _dial_again(self) -> None:
        usable = any(each.state.value in ("open", "joining") for each in self.core.paths.live.values())
        if not self._dialing or usable or self.core.ended:
            self._dialing = False
            return
        working = [link for link in self.network.links if link.works]
        if working:
            self.dial(self.network.random.choice(working))
        self.network.after(DIAL_AGAIN, self._dial_again)

    def dial(self, link: Link, *, standby: bool = False, then: Callable[[End], None] | None = None) -> None:
        """A client's TCP connection over a link, which joins when it is there."""

        def established() -> None:
            if self.core.ended or not link.works:
                return
            taken = self.core.paths.take_token()
            if taken is not None:
                end = self.join(link, *taken, standby=standby)
                if then is not None:
                    then(end)

        if link.works:
            self.network.after(2 * link.delay, established)

    def join(self, link: Link, connection_id: int, token: bytes, *, standby: bool = False) -> End:
        tcp = Tcp(self.network, link)
        mine, theirs = End(self, tcp, CLIENT), End(self.other, tcp, SERVER)
        tcp.ends = mine, theirs
        self.other.others.append(theirs)
        mine.pipe.write(token.ljust(HELLO, b"?"))
        keys = self.core.paths.join_keys(connection_id)
        self.core.paths.join(connection_id, self.network.now, standby=standby, rtt=2 * link.delay)
        mine.ready(connection_id, keys.write, None)
        return mine

    def greet(self, end: End) -> None:
        """More bytes of a connection that has not joined."""
        if not end.said and len(end.waiting) >= HELLO:
            end.said = True
            hello = bytes(end.waiting[:HELLO])
            del end.waiting[:HELLO]
            if self.number == CLIENT and hello == REFUSAL:
                end.drop()
                assert end.connection_id is not None
                self.core.connection_ended(end.connection_id, "illegal_parameter", self.network.now)
            elif self.number == SERVER:
                self._judge(end, hello[:32])
        if end.said and not end.closed and len(end.waiting) >= HEADER_SIZE:
            size = HEADER_SIZE + int.from_bytes(end.waiting[3:5], "big")
            if len(end.waiting) >= size:
                self._first_record(end, size)

    def _judge(self, end: End, token: bytes) -> None:
        sequence = self.tokens.get(token)
        if sequence is None or self.core.ended or not self.core.paths.accepts(sequence, self.network.now):
            self._refuse(end)
        else:
            end.connection_id = sequence
            end.pipe.write(ACCEPTANCE)

    def _refuse(self, end: End) -> None:
        end.pipe.write(REFUSAL)
        end.pipe.finish()
        end.closed = True

    def _first_record(self, end: End, size: int) -> None:
        """Which of the candidates opens it?"""
        number, now = end.connection_id, self.network.now
        assert number is not None
        keys = self.core.paths.join_keys(number)
        found = None
        for candidate, read in enumerate(keys.read):
            trial = RecordOpener(ENGINE.aead, read, ENGINE.invalid_tag)
            trial.feed(bytes(end.waiting[:size]))
            try:
                trial.next_record()
            except PeerError:
                continue
            found = candidate
        if found is None:
            end.abort()
            if self.number == CLIENT:
                self.core.connection_ended(number, "no key opens it", now)
            return
        if self.number == CLIENT:
            if number not in self.core.paths.live:
                return
            self.core.paths.proven(number, found, now)
            end.read_with(keys.read[found])
        elif self.core.ended or not self.core.paths.joined(number, found, now):
            end.abort()
            return
        else:
            end.ready(number, keys.write, keys.read[found])
        self.core.paths.facts(number, PathFacts(2 * end.tcp.link.delay, delivery_rate=int(end.tcp.link.rate)))
        assert end.opener is not None
        end.opener.feed(bytes(end.waiting))
        end.waiting.clear()


AboutConnection = ConnectionJoined | ConnectionLost | ConnectionClosed | ConnectionSuspected | ConnectionRecovered


def ids(host: Host, kind: type[AboutConnection]) -> list[int]:
    """The connections that the host was told this of, in their order."""
    return [event.connection_id for event in host.events if isinstance(event, kind)]


def network(
    *,
    seed: int = 0,
    links: int = 2,
    rate: float = 10e6,
    delay: float = 0.01,
    local: Parameters | None = None,
    client: SessionConfig | None = None,
    server: SessionConfig | None = None,
    draft: bool = False,
) -> Network:
    """A session between a client and a server, on its connection 0 over the first link."""
    made = Network(seed, links=links, rate=rate, delay=delay)
    mine = local or KEPT
    tcp = Tcp(made, made.links[0])
    hosts = []
    for number, role in ((CLIENT, Role.CLIENT), (SERVER, Role.SERVER)):
        read, write = (secret(1), secret(2)) if role is Role.SERVER else (secret(2), secret(1))
        config = (client if role is Role.CLIENT else server) or SessionConfig()
        peer = None if draft else mine if role is Role.CLIENT else ABSENT
        hosts.append(Host(made, number, Session(role, config, mine, peer, read, write)))
    made.hosts = hosts[0], hosts[1]
    tcp.ends = End(hosts[0], tcp, CLIENT), End(hosts[1], tcp, SERVER)
    for end, (write, read) in zip(tcp.ends, ((secret(1), secret(2)), (secret(2), secret(1))), strict=True):
        end.ready(0, write.keys(), read.keys())
        end.host.core.paths.facts(0, PathFacts(2 * delay, delivery_rate=int(rate)))
    return made


KEPT = Parameters(
    session_window=LOCAL.session_window,
    stream_window=LOCAL.stream_window,
    stream_limit=LOCAL.stream_limit,
    options=LOCAL.options,
    max_connections=8,
    failover=True,
)
