"""Two cores joined by in-memory links, with a virtual clock: real records, arbitrary fragmentation, no waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tcpls.errors import PeerError
from tcpls.protocol.actions import Action
from tcpls.protocol.base import Role, SessionConfig
from tcpls.protocol.core import Core
from tcpls.protocol.events import Event
from tcpls.protocol.parameters import ABSENT, Parameters
from tcpls.protocol.plain import PlainSession
from tcpls.protocol.session import Session
from tcpls.tls.key_schedule import TrafficSecret
from tcpls.tls.record import RECORD_ROOM, RecordOpener, RecordSealer
from tcpls.tls.suites import CipherSuite
from tests.engine import ENGINE

LOCAL = Parameters(
    session_window=8 << 20, stream_window=4 << 20, stream_limit=100, options=(1, 2, 6), max_connections=8
)


def secret(label: int, suite: CipherSuite = CipherSuite.AES_128_GCM_SHA256) -> TrafficSecret:
    return TrafficSecret(ENGINE, suite, bytes([label]) * suite.hash_size)


@dataclass
class End:
    """One end: a core, its sealer and opener, and everything that it said."""

    core: Core
    sealer: RecordSealer
    opener: RecordOpener
    events: list[Event] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    failed: PeerError | None = None

    def read(self, data: bytes, now: float) -> None:
        """Bytes from the network, in one piece."""
        self.opener.feed(data)
        self.open_records(now)

    def open_records(self, now: float) -> None:
        """All records that are there; then their memory is used again, as in a shell."""
        if self.core.reading_paused or self.failed is not None:
            return
        try:
            self.core.receive_records(0, self.opener, now)
        except PeerError as error:
            self.failed = error
            self.core.fail(0, error, now)

    def write(self, now: float) -> bytes:
        """Everything that the core wants to send now, as far as the send buffer goes."""
        self.core.transmit(0, self.sealer, now)
        data = bytes(self.sealer.pending)
        self.sealer.sent(len(data))
        return data

    def drain(self) -> None:
        self.events += self.core.events()
        self.actions += self.core.actions()


class Link:
    """The network: bytes in flight from one end to the other, cut where `cut` says."""

    def __init__(self, cut: Callable[[int], int] | None = None) -> None:
        self._pieces: deque[bytes] = deque()
        self._cut = cut or (lambda size: size)

    def push(self, data: bytes) -> None:
        if data:
            self._pieces.append(data)

    def pull(self) -> bytes:
        if not self._pieces:
            return b""
        piece = self._pieces.popleft()
        size = min(len(piece), max(1, self._cut(len(piece))))
        if size < len(piece):
            self._pieces.appendleft(piece[size:])
        return piece[:size]

    def __len__(self) -> int:
        return sum(map(len, self._pieces))


class Pair:
    """A client and a server. `settle` moves bytes until nothing more moves."""

    def __init__(self, client: Core, server: Core, cut: Callable[[int], int] | None = None) -> None:
        suite = CipherSuite.AES_128_GCM_SHA256
        self.now = 0.0
        self.client = _end(client, secret(1, suite), secret(2, suite))
        self.server = _end(server, secret(2, suite), secret(1, suite))
        self._links = (Link(cut), Link(cut))

    def step(self) -> bool:
        """Lets each end send once and receive one piece. False when nothing moved."""
        moved = False
        to_server, to_client = self._links
        for end, out, into in ((self.client, to_server, to_client), (self.server, to_client, to_server)):
            data = end.write(self.now)
            out.push(data)
            if not end.core.reading_paused:
                # What was held back while reading was paused.
                end.open_records(self.now)
                received = into.pull()
                if received:
                    end.read(received, self.now)
                moved |= bool(received)
            end.drain()
            moved |= bool(data)
        return moved

    def settle(self, steps: int = 100_000) -> None:
        for _ in range(steps):
            if not self.step():
                return
        raise TimeoutError("the pair does not come to rest")

    def advance(self, seconds: float) -> None:
        """Lets time pass, from timer to timer."""
        until = self.now + seconds
        while True:
            timers = [t for t in (self.client.core.next_timer(), self.server.core.next_timer()) if t is not None]
            following = min(timers, default=until)
            if following > until:
                break
            self.now = max(self.now, following)
            for end in (self.client, self.server):
                end.core.timer_expired(self.now)
            self.settle()
            if following == until:
                break
        self.now = until

    def cut_off(self, error: str | None = None) -> None:
        """Both TCP connections end."""
        for end in (self.client, self.server):
            end.core.connection_ended(0, error, self.now)
            end.drain()


def _end(core: Core, write: TrafficSecret, read: TrafficSecret) -> End:
    return End(
        core,
        RecordSealer(ENGINE.aead, write.keys()),
        RecordOpener(ENGINE.aead, read.keys(), ENGINE.invalid_tag, capacity=4 * RECORD_ROOM),
    )


def session(
    role: Role,
    peer: Parameters | None = ABSENT,
    *,
    local: Parameters = LOCAL,
    config: SessionConfig | None = None,
) -> Session:
    mine, theirs = (1, 2) if role is Role.CLIENT else (2, 1)
    return Session(role, config or SessionConfig(), local, peer, secret(theirs), secret(mine))


def tcpls_pair(
    *,
    client: Parameters = LOCAL,
    server: Parameters = LOCAL,
    config: SessionConfig | None = None,
    cut: Callable[[int], int] | None = None,
) -> Pair:
    """Both ends know all of the extensions; the server hears the client's parameters in its first record."""
    return Pair(
        session(Role.CLIENT, server, local=client, config=config),
        session(Role.SERVER, ABSENT, local=server, config=config),
        cut,
    )


def draft_pair(
    *, config: SessionConfig | None = None, local: Parameters = LOCAL, cut: Callable[[int], int] | None = None
) -> Pair:
    """Both ends take the other for a pure draft-04 peer."""
    return Pair(
        session(Role.CLIENT, None, local=local, config=config),
        session(Role.SERVER, None, local=local, config=config),
        cut,
    )


def plain_pair(config: SessionConfig | None = None, cut: Callable[[int], int] | None = None) -> Pair:
    settings = config or SessionConfig()
    return Pair(
        PlainSession(Role.CLIENT, secret(2), secret(1), config=settings),
        PlainSession(Role.SERVER, secret(1), secret(2), config=settings),
        cut,
    )


def read_all(end: End, stream_id: int, limit: int = 1 << 16) -> tuple[bytes, bool]:
    """What can be received now, and whether the stream ended."""
    received = bytearray()
    while True:
        data = end.core.receive(stream_id, limit)
        if data is None:
            return bytes(received), False
        if not data:
            return bytes(received), True
        received += data
