"""What is kept per TCP connection: `Channel`, what TLS 1.3 asks of any of them (keys, alerts, messages after the
handshake), and `Connection`, what TCPLS adds (record numbers, acknowledgments)."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import KW_ONLY, InitVar, dataclass, field

from tcpls.errors import Alert, KernelUnavailable, PeerError, ProtocolViolation, Reason
from tcpls.protocol.events import Event, TicketReceived
from tcpls.protocol.frames import Frame, Ping
from tcpls.protocol.streams import SendStream
from tcpls.tls.key_schedule import TrafficSecret
from tcpls.tls.messages import KeyUpdate
from tcpls.tls.post_handshake import PostHandshake
from tcpls.tls.record import ContentType, RecordSink
from tcpls.tls.suites import TrafficKeys

KEY_UPDATES_PER_SECOND = 32
"""Each costs the receiver a key schedule and an answer; a peer has no use for more."""
MESSAGES_PER_SECOND = 64
TICKETS_PER_CONNECTION = 32
"""Session tickets that are told of. More are ignored: no client has to keep any (RFC 8446 4.6.1)."""
EMPTY_RECORDS_PER_SECOND = 1024
ALERTS_PER_SECOND = 4
KEY_UPDATE_MARGIN = 1 << 20
"""Records that may still be sealed between the automatic KeyUpdate and the limit of the suite."""

WARNING = 1
FATAL = 2


class RateLimit:
    """Refuses more than `limit` of something in one second."""

    __slots__ = ("_count", "_limit", "_reason", "_since")

    def __init__(self, limit: int, reason: Reason) -> None:
        self._limit = limit
        self._reason = reason
        self._count = 0
        self._since = 0.0

    def count(self, now: float) -> None:
        if now - self._since >= 1.0:
            self._since = now
            self._count = 0
        self._count += 1
        if self._count > self._limit:
            raise ProtocolViolation(self._reason, f"more than {self._limit} in a second")


@dataclass(eq=False, repr=False, slots=True)
class Channel:
    """TLS 1.3 on one TCP connection after the handshake.

    `received` and `sent` number records from the first one under application traffic keys; a KeyUpdate does not
    set them back, unlike the sequence numbers of TLS. `tell` takes the events that messages after the handshake are
    for the shell.
    """

    connection_id: int
    _: KW_ONLY
    is_client: InitVar[bool]
    read_secret: TrafficSecret
    write_secret: TrafficSecret
    received: int = 0
    sent: int = 0
    tell: Callable[[Event], None]
    update_after: int | None = None
    """Records under one key; None: short of the limit of the cipher suite."""
    mid_message: bool = field(default=False, init=False)
    """Whether a handshake message is incomplete: RFC 8446 5.1 allows no other content in between."""
    finished_sending: bool = field(default=False, init=False)
    """Whether an alert was put that ends this direction."""
    messages: bytes = field(default=b"", init=False)
    """Handshake messages that wait: a server's tickets, when it has answered early data before."""

    update_at: int = field(init=False)
    """The record number at which the next KeyUpdate is due."""
    _update_after: int = field(init=False)
    _update: bool | None = field(default=None, init=False)
    _tickets: int = field(default=0, init=False)
    _post_handshake: PostHandshake = field(init=False)
    _key_updates: RateLimit = field(init=False)
    _messages: RateLimit = field(init=False)
    _alerts: RateLimit = field(init=False)

    def __post_init__(self, is_client: bool) -> None:
        self._post_handshake = PostHandshake(is_client=is_client)
        self._key_updates = RateLimit(KEY_UPDATES_PER_SECOND, Reason.TOO_MANY_KEY_UPDATES)
        self._messages = RateLimit(MESSAGES_PER_SECOND, Reason.TOO_MANY_MESSAGES)
        self._alerts = RateLimit(ALERTS_PER_SECOND, Reason.TOO_MANY_RECORDS)
        limit = self.write_secret.suite.record_limit
        self._update_after = self.update_at = min(self.update_after or limit, limit - KEY_UPDATE_MARGIN)

    @property
    def generations(self) -> tuple[int, int]:
        """How often the reading and the writing keys were changed."""
        return self.read_secret.generation, self.write_secret.generation

    def receive_handshake(self, content: memoryview, now: float) -> TrafficKeys | None:
        """Handshake content. The keys that come back open the next record. Raises `ProtocolViolation`."""
        messages = self._post_handshake.receive(content)
        self.mid_message = self._post_handshake.boundary
        keys: TrafficKeys | None = None
        for message in messages:
            self._messages.count(now)
            if isinstance(message, KeyUpdate):
                self._key_updates.count(now)
                # RFC 8446 4.6.3: the sender of a KeyUpdate uses its next keys from the next record on.
                self.read_secret = self.read_secret.next()
                keys = self.read_secret.keys().for_connection(self.connection_id)
                if message.request:
                    self._answer_update()
            elif self._tickets < TICKETS_PER_CONNECTION:
                self._tickets += 1
                self.tell(TicketReceived(message))
        return keys

    def receive_alert(self, content: memoryview, now: float) -> int:
        """The description of an alert. Raises `ProtocolViolation`."""
        # RFC 8446 5.4: an alert record without content is an unexpected_message.
        if not len(content):
            raise ProtocolViolation(Reason.EMPTY_RECORD, "alert")
        # RFC 8446 6: alerts are not fragmented, and 5.1: there is one in a record. The level means nothing.
        if len(content) != 2:
            raise ProtocolViolation(Reason.BAD_LENGTH, "an alert is two bytes")
        # RFC 8446 6.1: user_canceled alone does not end anything, and can come again and again.
        if content[1] == Alert.USER_CANCELED:
            self._alerts.count(now)
        return content[1]

    def refuse(self, content_type: int) -> ProtocolViolation:
        """The error for a record of a content type that may not come now."""
        if self.mid_message:
            return ProtocolViolation(Reason.MESSAGE_ACROSS_KEYS, "other content inside a handshake message")
        return ProtocolViolation(Reason.UNEXPECTED_RECORD, f"content type {content_type}")

    def _answer_update(self) -> None:
        """The peer asks for a change of this end's keys."""
        if self._update is None:
            self._update = False

    def request_update(self, request: bool) -> None:
        self._update = request or bool(self._update)

    @property
    def update_due(self) -> bool:
        return self._update is not None or self.sent >= self.update_at

    def put_update(self, sink: RecordSink) -> None:
        """Puts a KeyUpdate and changes the sink's keys behind it.

        Raises `KernelUnavailable` before anything was put when the sink cannot change keys: kernels before Linux 6.14
        cannot, RFC 8446 4.6.3 lets no request go unanswered, and so the connection cannot go on.
        """
        if not sink.can_switch_keys:
            raise KernelUnavailable("a change of keys", "this kernel's TLS cannot change keys (Linux 6.14 can)")
        sink.put(ContentType.HANDSHAKE, PostHandshake.key_update(bool(self._update)))
        self.sent += 1
        self._update = None
        self.write_secret = self.write_secret.next()
        sink.switch_keys(self.write_secret.keys().for_connection(self.connection_id))
        self.update_at = self.sent + self._update_after

    def put_messages(self, sink: RecordSink) -> None:
        """Puts the handshake messages that wait, as far as there is room."""
        size = sink.max_content
        while self.messages and sink.room:
            sink.put(ContentType.HANDSHAKE, self.messages[:size])
            self.messages = self.messages[size:]
            self.sent += 1

    def put_alert(self, sink: RecordSink, alert: int) -> None:
        """Puts the alert that ends this direction."""
        level = WARNING if alert == Alert.CLOSE_NOTIFY else FATAL
        sink.put(ContentType.ALERT, bytes((level, alert)))
        self.sent += 1
        self.finished_sending = True


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What an ACK says: pings that it answers (with the times they were sent), bytes of streams that are acknowledged
    for the first time, streams that ended."""

    pings: list[tuple[int, float]]
    size: int
    ended: list[int]


class ConnectionState(enum.Enum):
    """What may be done with a connection."""

    JOINING = "joining"
    """A client has sent its ClientHello with a token, and no record of the server's was opened yet."""
    OPEN = "open"
    SUSPECT = "suspect"
    """Silent for too long, and there is no other: it is used until there is."""
    RETIRING = "retiring"
    """Nothing new is put on it; what is on its way still arrives."""


@dataclass(frozen=True, slots=True)
class PathFacts:
    """What the kernel knows of a connection. Times in seconds, sizes in bytes, rates in bytes a second."""

    rtt: float = 0.0
    cwnd: int = 0
    delivery_rate: int = 0
    unsent: int = 0
    """What waits in the socket for the congestion window."""
    retransmits: int = 0
    """Segments, since the connection began."""


NO_FACTS = PathFacts()


@dataclass(eq=False, repr=False, slots=True)
class Connection(Channel):
    """A channel with acknowledgments in both directions, and what is known of its path.

    `asked_to_update` is called when the peer asks for a change of keys.
    """

    _: KW_ONLY
    asked_to_update: Callable[[Connection], None]
    joined_at: float = 0.0
    state: ConnectionState = ConnectionState.OPEN

    # What it is used for.
    standby: bool = field(default=False, init=False)
    """Whether this end would rather use others."""
    peer_standby: bool = field(default=False, init=False)
    """Whether the peer would rather have others used."""
    priority: int = field(default=0, init=False)
    retired_here: bool = field(default=False, init=False)
    peer_retired: bool = field(default=False, init=False)
    """Whether the peer puts nothing more on it."""
    ending: bool = field(default=False, init=False)
    """Whether all that a retired connection was to carry has arrived."""
    gone: bool = field(default=False, init=False)
    """Whether it is at its end."""

    # What the shell knows, and what schedulers do.
    blocked: bool = field(default=False, init=False)
    """Whether the shell can hand on no more records now."""
    facts: PathFacts = field(default=NO_FACTS, init=False)
    given: int = field(default=0, init=False)
    """Bytes of streams that a scheduler has given to it, by its own count."""
    cursors: dict[int, int] = field(default_factory=dict, init=False)
    """For a redundant scheduler: up to where it has carried each stream, one further with the FIN."""

    # Whether the peer is there.
    heard_at: float = field(init=False)
    unanswered_at: float | None = field(default=None, init=False)
    """Since when the peer owes an answer on this connection."""
    expecting: bool = field(default=False, init=False)
    """Whether the peer was sending, and silence would be a surprise."""

    # What this end owes the peer.
    elicited: int = field(default=0, init=False)
    """Records received since the last ACK that ask for one."""
    ack_deadline: float | None = field(default=None, init=False)
    ack_due: bool = field(default=False, init=False)

    # What the peer has.
    data_sent: int = field(default=0, init=False)
    """The number behind the last record with something of a stream."""
    data_acknowledged: int = field(default=0, init=False)
    """The number behind the last record that the peer is known to have."""
    in_flight: int = field(default=0, init=False)
    """Bytes of streams in records that were not acknowledged."""
    unacknowledged: deque[tuple[int, SendStream, int, int, bool]] = field(default_factory=deque, init=False)
    """What records carried that were not acknowledged: number, stream, start, end, FIN."""
    unacknowledged_frames: deque[tuple[int, Frame]] = field(default_factory=deque, init=False)
    own: deque[Frame] = field(default_factory=deque, init=False)
    """Frames that go on this connection and no other."""

    # Keys.
    target_generation: int = field(init=False)
    """The generation of keys that this end is to write with."""
    keys_since: int = field(default=0, init=False)
    """The number of the first record under the current writing keys."""

    _pings: deque[tuple[int, int, float]] = field(default_factory=deque, init=False)
    _empty: RateLimit = field(init=False)

    def __post_init__(self, is_client: bool) -> None:
        # Not by super(): a dataclass with slots is another class than the one that its methods were written in.
        Channel.__post_init__(self, is_client)
        self.heard_at = self.joined_at
        self.target_generation = self.write_secret.generation
        self._empty = RateLimit(EMPTY_RECORDS_PER_SECOND, Reason.TOO_MANY_RECORDS)

    @property
    def usable(self) -> bool:
        """Whether it is as good as any."""
        return self.state is ConnectionState.OPEN

    @property
    def outstanding(self) -> bool:
        """Whether the peer owes an acknowledgment."""
        return bool(self.unacknowledged or self.unacknowledged_frames or self._pings)

    @property
    def carries_data(self) -> bool:
        """Whether something of a stream is not known to have arrived."""
        return bool(self.unacknowledged) or self.data_sent > self.data_acknowledged

    def ask_for_ack(self) -> None:
        """The peer is to acknowledge what it has at once, unless it was asked before and owes the answer."""
        if not self._pings and not any(isinstance(each, Ping) for each in self.own):
            self.own.append(Ping())

    # Keys.

    def _answer_update(self) -> None:
        self.asked_to_update(self)

    @property
    def update_due(self) -> bool:
        return self.write_secret.generation < self.target_generation

    def put_update(self, sink: RecordSink) -> None:
        Channel.put_update(self, sink)
        self.keys_since = self.sent

    def count_empty(self, now: float) -> None:
        """A record that carried nothing. Raises `ProtocolViolation` when there are too many."""
        self._empty.count(now)

    def ping_sent(self, ping_id: int, now: float) -> None:
        """The next record to be put carries this Ping."""
        self._pings.append((self.sent, ping_id, now))

    def take_pings(self) -> list[int]:
        """The ids of the pings that were not answered, and will not be."""
        ids = [ping_id for _, ping_id, _ in self._pings]
        self._pings.clear()
        return ids

    def acknowledged(self, highest: int) -> Acknowledged:
        """The peer has every record up to `highest`. Raises `PeerError(BAD_ACK)` for a record that was never sent."""
        if highest >= self.sent:
            raise PeerError(Reason.BAD_ACK, f"record {highest} of {self.sent}")
        self.data_acknowledged = max(self.data_acknowledged, highest + 1)
        size = carried = 0
        ended: list[int] = []
        records = self.unacknowledged
        while records and records[0][0] <= highest:
            _, stream, start, end, fin = records.popleft()
            carried += end - start
            size += stream.acknowledge(start, end, fin)
            if stream.fin_sent and stream.finished:
                ended.append(stream.stream_id)
        self.in_flight -= carried
        while self.unacknowledged_frames and self.unacknowledged_frames[0][0] <= highest:
            self.unacknowledged_frames.popleft()
        answered: list[tuple[int, float]] = []
        while self._pings and self._pings[0][0] <= highest:
            answered.append(self._pings.popleft()[1:])
        return Acknowledged(answered, size, ended)

    @property
    def pings(self) -> int:
        """Pings that were sent and not answered."""
        return len(self._pings)
