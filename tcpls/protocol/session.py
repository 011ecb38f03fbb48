"""The TCPLS session: records in and out, and what the application does with streams (draft-piraux-tcpls-04).

`receive_record` is one of the places where throughput is decided: a record that is one Stream frame in order is handled
there and then. Everything else is handled frame by frame.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tcpls.errors import (
    Alert,
    ApiMisuse,
    PeerError,
    ProtocolViolation,
    Reason,
    SessionClosed,
    SessionLost,
)
from tcpls.observe import NULL_OBSERVER, Observer
from tcpls.protocol import frames
from tcpls.protocol.base import CoreBase, Role, SessionConfig, ends_session
from tcpls.protocol.connections import Connection, ConnectionState
from tcpls.protocol.control import PeerControl
from tcpls.protocol.events import PathsChanged, Pong, StreamReadable, TokenReceived
from tcpls.protocol.frames import (
    ALL_CONNECTIONS,
    ALL_FRAMES,
    DRAFT_FRAMES,
    EARLY_FRAMES,
    Ack,
    ConnectionReset,
    Frame,
    JoinToken,
    MaxData,
    MaxStreamData,
    MaxStreams,
    NewAddress,
    NewToken,
    Padding,
    ParametersFrame,
    PathStatus,
    Ping,
    ProgramData,
    ProgramDetach,
    ProgramOfferFrame,
    ProgramRequest,
    ProgramResult,
    RemoveAddress,
    ResetStream,
    SessionClose,
    StopSending,
    Stream,
    StreamChange,
    TcpOption,
    TcpOptionResult,
    encode,
    parse_frames,
)
from tcpls.protocol.keys import SessionKeys
from tcpls.protocol.parameters import Parameters
from tcpls.protocol.paths import Paths
from tcpls.protocol.record_writer import APPLICATION_DATA, OWN_PING, RecordWriter
from tcpls.protocol.stream_table import StreamTable
from tcpls.protocol.streams import MAX_STREAM_DATA, ReceiveStream
from tcpls.tls.key_schedule import TrafficSecret
from tcpls.tls.record import ContentType, RecordSink, RecordSource
from tcpls.tls.suites import TrafficKeys

MAX_PENDING_FRAMES = 4096
"""Control frames that wait, or wait to be acknowledged. Only a peer that asks and does not read comes here."""
MAX_PINGS = 64

NEVER = 1 << 62
DRAFT_ACKS = Parameters(failover=True)
"""How a pure draft-04 peer is acknowledged: as one that asked for failover with the default frequency."""

_unpack_trailer = frames.STREAM_TRAILER.unpack_from
_pack_trailer = frames.STREAM_TRAILER.pack
_TRAILER_SIZE = frames.STREAM_TRAILER.size


_FORGED = frozenset({Reason.BAD_RECORD_MAC, Reason.BAD_RECORD_HEADER, Reason.RECORD_OVERFLOW})
"""What says that bytes are not the peer's, as far as anybody can tell."""


class _State(enum.Enum):
    OPEN = "open"
    FLUSHING = "closing once what is queued has left"
    CLOSING = "closing now"
    CLOSED = "closed by this end, waiting for the other"


@dataclass(slots=True)
class _Close:
    """How far the session is on its way to its end."""

    state: _State = _State.OPEN
    error: SessionClosed = field(default_factory=SessionClosed)
    """What `close` was given."""
    deadline: float | None = None
    sent: bool = False
    """Whether the Session Close was put."""
    frame: SessionClose | None = None
    """The peer's, until the record that it came in has been handled."""
    by_peer: bool = False
    """Whether the peer sent its close_notify."""
    deaf: bool = False
    """Whether all frames but acknowledgments are ignored, because this end has closed."""


class Session(CoreBase):
    """A TCPLS session, on its connection 0 and those that join (`paths`).

    `peer` is what the peer announced in the handshake, None for a pure draft-04 peer. `local` is what this end
    announces: a server has sent it in EncryptedExtensions, a client sends it in its first record.
    """

    def __init__(
        self,
        role: Role,
        config: SessionConfig,
        local: Parameters,
        peer: Parameters | None,
        read_secret: TrafficSecret,
        write_secret: TrafficSecret,
        *,
        read_sequence: int = 0,
        write_sequence: int = 0,
        now: float = 0.0,
        observer: Observer = NULL_OBSERVER,
    ) -> None:
        super().__init__(observer)
        self._role = role
        self._config = config
        self._local = local
        self._peer = peer
        self._frame_table = DRAFT_FRAMES if peer is None else ALL_FRAMES
        self._outbox: deque[Frame] = deque()
        self._streams = StreamTable(
            role,
            local,
            peer,
            send_buffer=config.send_buffer,
            retain=local.failover,
            events=self._events,
            queue=self._outbox.append,
        )
        self._receiving = self._streams.receiving
        self._lent_to: list[ReceiveStream] = []
        """Streams that hold views of records, until `settle`."""
        self._first_numbers = read_sequence, write_sequence
        self.paths = self._make_paths(SessionKeys(read_secret, write_secret, config.update_keys_after), now)
        self._connections = self.paths.live
        self.control = self._make_control()
        self._writer = self.paths.writer = RecordWriter(
            self._outbox, self._streams, self.control.shipping, retain=local.failover, limit=config.unacknowledged_limit
        )
        self._late_parameters: bytes | None = None
        self._next_ping = 0
        self._close = _Close()
        self._idle_timeout: float | None = None
        self._active_at = now
        self._heard_since_sent = True
        self._ack_records = 1
        self._ack_delay = 0.0
        self._apply_peer_parameters()
        if role is Role.CLIENT and peer is not None:
            self._outbox.append(ParametersFrame(local.write()))
        self.paths.supply_tokens(now)

    def _make_paths(self, keys: SessionKeys, now: float) -> Paths:
        return Paths(
            self._role,
            self._config,
            self._local,
            keys,
            self._make_connection,
            peer=lambda: self._peer,
            lost=self._close_again,
            streams=self._streams,
            outbox=self._outbox,
            events=self._events,
            actions=self._actions,
            now=now,
        )

    def _make_control(self) -> PeerControl:
        return PeerControl(
            self._role,
            self._config,
            self._local.programs,
            self._outbox,
            self._events,
            self._actions,
            peer=lambda: self._peer,
            check_open=self._check_open,
            connection_exists=self._connections.__contains__,
        )

    def _make_connection(self, keys: SessionKeys, connection_id: int, state: ConnectionState, now: float) -> Connection:
        read_sequence, write_sequence = (0, 0) if connection_id else self._first_numbers
        return Connection(
            connection_id,
            is_client=self._role is Role.CLIENT,
            read_secret=keys.read,
            write_secret=keys.write,
            received=read_sequence,
            sent=write_sequence,
            tell=self._events.append,
            asked_to_update=self._update_asked,
            joined_at=now,
            state=state,
        )

    def _apply_peer_parameters(self) -> None:
        peer = self._peer
        timeouts = [each.idle_timeout for each in (self._local, peer) if each is not None and each.idle_timeout]
        # Draft-04 peers know nothing of an idle timeout, so there is none with them.
        self._idle_timeout = min(timeouts) / 1000 if peer is not None and timeouts else None
        asked = peer if peer is not None else DRAFT_ACKS
        if asked.failover:
            self._ack_records = asked.ack_records
            self._ack_delay = asked.ack_delay / 1000
        else:
            # Nobody keeps what is not acknowledged: only a Ping and a close are answered.
            self._ack_records = NEVER
            self._ack_delay = math.inf

    # Records in.

    def receive_records(self, connection_id: int, source: RecordSource, now: float) -> None:
        received = self._streams.received
        connection = self._connections.get(connection_id)
        records = 0 if connection is None else connection.received
        super().receive_records(connection_id, source, now)
        if connection is not None and not connection.gone and connection.received != records:
            self.paths.heard(connection, now, data=self._streams.received != received)

    def receive_record(
        self, connection_id: int, content_type: int, content: memoryview, now: float
    ) -> TrafficKeys | None:
        if self._ended:
            return None
        connection = self._connections.get(connection_id)
        if connection is None:
            return None  # It was given up while its records were on their way.
        connection.received += 1
        self._active_at = now
        self._heard_since_sent = True
        if content_type != APPLICATION_DATA or connection.mid_message:
            return self._receive_other(connection, content_type, content, now)
        if self._close.deaf:
            self._receive_frames(connection, content, now)
            return None
        size = len(content) - _TRAILER_SIZE
        if size > 0:
            length, offset, stream_id, kind = _unpack_trailer(content, size)
            if kind == frames.STREAM_TYPE and length == size:
                stream = self._receiving.get(stream_id)
                if stream is not None and offset == stream.offset:
                    end = offset + length
                    table = self._streams
                    received = table.received + length
                    if end <= stream.in_order_limit and received <= table.max_received:
                        if length == MAX_STREAM_DATA:
                            self._run_of = stream
                        lent = stream.lent
                        if not lent:
                            self._lent_to.append(stream)
                        lent.append(content[:length])
                        stream.offset = end
                        table.received = received
                        if not stream.readable_said:
                            stream.readable_said = True
                            self._events.append(StreamReadable(stream_id))
                        connection.elicited = elicited = connection.elicited + 1
                        if elicited >= self._ack_records:
                            connection.ack_due = True
                        elif elicited == 1:
                            connection.ack_deadline = now + self._ack_delay
                        return None
        self._receive_frames(connection, content, now)
        return None

    def _receive_run(self, connection_id: int, stream: ReceiveStream, source: RecordSource, now: float) -> None:
        connection, table = self._connections[connection_id], self._streams
        start, stream_id = stream.offset, stream.stream_id
        allowed = min(stream.in_order_limit - start, table.max_received - table.received)
        most = min(source.full_records, allowed // MAX_STREAM_DATA)
        offsets = range(start, start + most * MAX_STREAM_DATA, MAX_STREAM_DATA)
        trailers = (_pack_trailer(MAX_STREAM_DATA, offset, stream_id, frames.STREAM_TYPE) for offset in offsets)
        contents = source.open_run(APPLICATION_DATA, _TRAILER_SIZE, trailers)
        # The record before them, of which they are the continuation, has announced the stream as readable.
        stream.lent += contents
        size = len(contents) * MAX_STREAM_DATA
        stream.offset = start + size
        table.received += size
        connection.received += len(contents)
        connection.elicited += len(contents)
        if connection.elicited >= self._ack_records:
            connection.ack_due = True

    def settle(self) -> None:
        for stream in self._lent_to:
            stream.settle()
        self._lent_to.clear()
        self._streams.give_credit()

    def receive_early(self, content: bytes, now: float) -> None:
        if self._ended:
            return
        self._active_at = now
        try:
            for frame in parse_frames(content, EARLY_FRAMES):
                if type(frame) is not Padding:
                    _HANDLERS[type(frame)](self, self._connections[0], frame, now)
        except PeerError as error:
            raise ProtocolViolation(error.reason, error.detail) from None

    def _receive_other(
        self, connection: Connection, content_type: int, content: memoryview, now: float
    ) -> TrafficKeys | None:
        if content_type == ContentType.HANDSHAKE:
            keys = connection.receive_handshake(content, now)
            self.paths.keys.note(connection)
            return keys
        if content_type != ContentType.ALERT or connection.mid_message:
            raise connection.refuse(content_type)
        alert = connection.receive_alert(content, now)
        if alert == Alert.CLOSE_NOTIFY:
            self._receive_close_notify(now)
        elif ends_session(alert):
            self._end_by_alert(alert)
        return None

    def _receive_close_notify(self, now: float) -> None:
        if self._close.state is _State.CLOSED:
            self._end_by_close(self._close.error)
            return
        # The peer sends nothing more. What is queued here still goes, then this end closes too (draft section 3.5).
        self._close.by_peer = True
        self.close(0, "", now)
        for stream_id in self._streams.receiving:
            self._streams.say_readable(stream_id)

    def _receive_frames(self, connection: Connection, content: memoryview, now: float) -> None:
        """Any record of frames. This is where a `PeerError` becomes a `ProtocolViolation`."""
        if self._lent_to:
            # What these frames do to a stream comes behind what it was lent.
            self.settle()
        empty, eliciting = True, False
        try:
            for frame in parse_frames(content, self._frame_table):
                kind = type(frame)
                if kind is not Padding:
                    empty = False
                    eliciting |= kind is not Ack
                    if not self._close.deaf or kind in _HEARD_AT_THE_END:
                        _HANDLERS[kind](self, connection, frame, now)
            pending = len(self._outbox) + len(connection.unacknowledged_frames) + len(connection.own)
            # Of each stream there may be one that tells its credit, and streams have a limit of their own.
            if pending > MAX_PENDING_FRAMES + len(self._receiving):
                raise PeerError(Reason.TOO_MANY_REQUESTS, "control frames that the peer does not take")
        except ProtocolViolation:
            raise
        except PeerError as error:
            raise ProtocolViolation(error.reason, error.detail) from None
        if empty:
            connection.count_empty(now)
        if eliciting:
            connection.elicited += 1
            if connection.elicited >= self._ack_records:
                connection.ack_due = True
            elif connection.ack_deadline is None:
                connection.ack_deadline = now + self._ack_delay
        if self._close.frame is not None:
            self._end_by_peer(self._close.frame)

    def _end_by_peer(self, frame: SessionClose) -> None:
        self._alert = Alert.CLOSE_NOTIFY
        acks_due = self._acks_due
        for connection in self._connections.values():
            connection.ack_due = acks_due
        self._end_by_close(SessionClosed(frame.code, frame.reason))

    # Frames in. Each handler gets the connection that the frame came on.

    def _on_ping(self, connection: Connection, frame: Ping, now: float) -> None:
        connection.ack_due = True

    def _on_stream(self, connection: Connection, frame: Stream, now: float) -> None:
        self._streams.receive_data(frame)

    def _on_ack(self, connection: Connection, frame: Ack, now: float) -> None:
        about = self._connections.get(frame.connection_id) or self.paths.sent_on(frame.connection_id)
        if about is None:
            if not self.paths.may_exist(frame.connection_id):
                raise PeerError(Reason.UNKNOWN_CONNECTION, f"{frame.connection_id}")
            return
        acknowledged = about.acknowledged(frame.highest)
        self._streams.unacknowledged -= acknowledged.size
        for ping_id, sent_at in acknowledged.pings:
            if ping_id != OWN_PING:
                self._events.append(Pong(ping_id, now - sent_at))
        for stream_id in acknowledged.ended:
            self._streams.retire(stream_id)
        if not about.gone:
            self.paths.acknowledged(about, frame.highest, now)

    def _on_stream_change(self, connection: Connection, frame: StreamChange, now: float) -> None:
        self.paths.announcements.stream_change(connection.connection_id, frame)

    def _on_token(self, connection: Connection, frame: NewToken | JoinToken, now: float) -> None:
        if self.paths.announcements.new_token(frame):
            self._events.append(TokenReceived())

    def _on_address(self, connection: Connection, frame: NewAddress | RemoveAddress, now: float) -> None:
        known = self.paths.announcements
        if known.new_address(frame) if isinstance(frame, NewAddress) else known.remove_address(frame):
            self._events.append(PathsChanged())

    def _on_session_close(self, connection: Connection, frame: SessionClose, now: float) -> None:
        # Acted upon when the record's other frames, which came before it, have been handled.
        self._close.frame = frame

    def _on_parameters(self, connection: Connection, frame: ParametersFrame, now: float) -> None:
        if self._role is Role.CLIENT or self._peer is None:
            raise PeerError(Reason.WRONG_ROLE, "Parameters")
        if self._late_parameters is None:
            self._late_parameters = frame.parameters
            self._peer = self._peer.updated(Parameters.read(frame.parameters))
            self._apply_peer_parameters()
            self._streams.peer_announced(self._peer)
            self.paths.supply_tokens(now)
        elif self._late_parameters != frame.parameters:
            raise PeerError(Reason.DUPLICATE, "Parameters")

    def _on_option(self, connection: Connection, frame: TcpOption, now: float) -> None:
        if frame.connection_id != ALL_CONNECTIONS and not self.paths.may_exist(frame.connection_id):
            raise PeerError(Reason.UNKNOWN_CONNECTION, f"{frame.connection_id}")
        self.control.receive(frame)

    def _on_program_offer(self, connection: Connection, frame: ProgramOfferFrame, now: float) -> None:
        for connection_id in frame.connections:
            if not self.paths.may_exist(connection_id):
                raise PeerError(Reason.UNKNOWN_CONNECTION, f"{connection_id}")
        self.control.receive(frame)

    # The end of a connection.

    def connection_ended(self, connection_id: int, error: str | None, now: float) -> None:
        connection = self._connections.get(connection_id)
        if self._ended or connection is None:
            return
        if self._close.state is _State.CLOSED and self._close.error.code:
            self._end_by_close(self._close.error)
        elif self.handshaking or not self.paths.can_lose(connection, clean=error is None):
            self._end_by_loss(error)
        elif self._close.by_peer and error is None and len(self._connections) == 1:
            # The peer has ended its connections, not a network.
            self._end_by_loss(error)
        else:
            self.paths.lose(connection, error, now)

    def _end_by_loss(self, error: str | None) -> None:
        why = f"the connection failed: {error}" if error else "the connection ended without a close"
        self._end(SessionLost(why, self._streams.missing()))

    def _close_again(self, lost: Connection, now: float) -> None:
        """What was said last went with the connection that said it."""
        if lost.finished_sending and self._close.state is _State.CLOSED:
            self._close.state = _State.FLUSHING
            self._close.sent = False
            self._close.deadline = now + self._config.close_timeout

    def fail(self, connection_id: int, error: PeerError, now: float) -> None:
        connection = self._connections.get(connection_id)
        if connection is None or self._ended:
            return
        # Whoever puts bytes into one TCP connection can end that one, as by a reset, and no more.
        forged = connection.state is ConnectionState.JOINING or error.reason in _FORGED
        if forged and self._survives(connection):
            self.paths.give_up(connection, str(error), now)
        else:
            super().fail(connection_id, error, now)

    def _survives(self, connection: Connection) -> bool:
        """Whether the session outlives this connection: not while its first handshake goes on."""
        return not self.handshaking and self.paths.can_lose(connection)

    def set_blocked(self, connection_id: int, blocked: bool) -> None:
        self.paths.set_blocked(connection_id, blocked)

    def _close_connections(self) -> None:
        for connection_id in self._connections:
            self._ask_to_close(connection_id)

    # Records out.

    def transmit(self, connection_id: int, sink: RecordSink, now: float) -> None:
        connection = self._connections.get(connection_id)
        if connection is None or connection.finished_sending:
            return
        if connection.messages and self._alert in (None, Alert.CLOSE_NOTIFY):
            # A peer that has closed already still keeps its tickets.
            connection.put_messages(sink)
        if self._alert is not None:
            self._put_last(connection, sink, self._alert)
            return
        if self._ended:
            return
        before, data = connection.sent, connection.data_sent
        self._put_records(connection, sink, now)
        if connection.data_sent != data and self._close.deadline is not None:
            self._close.deadline = now + self._config.close_timeout
        if self._close.state is not _State.OPEN:
            self._put_close(connection, sink, now)
        if connection.sent != before:
            if connection.unanswered_at is None and connection.outstanding:
                connection.unanswered_at = now
            if self._heard_since_sent:
                # The first thing said after the peer was heard counts as activity; silence in answer to it does not.
                self._heard_since_sent = False
                self._active_at = now

    def _put_records(self, connection: Connection, sink: RecordSink, now: float) -> None:
        keys, connections = self.paths.keys, self._connections
        several = len(connections) > 1
        load = self.paths.load(connection)
        while sink.room:
            if keys.due(connections.values()):
                self.update_keys(False)
            if connection.update_due:
                connection.put_update(sink)
                continue
            if self._close.state is _State.CLOSING:
                load = replace(load, data=False, pinned=False)
            if not self._writer.put_some(connection, sink, now, load):
                break
            if several:
                load = self.paths.load(connection)

    @property
    def _acks_due(self) -> bool:
        """Whether the last words are to say what was received. What said so on another connection may come later."""
        return len(self._connections) > 1 or any(each.elicited for each in self._connections.values())

    def _may_close_on(self, connection: Connection) -> bool:
        """Whether all that was queued went ahead of what is put on this connection now, and can arrive no later."""
        if self._close.state is not _State.FLUSHING:
            return True
        if self._outbox or self._streams.unsent or self.handshaking or connection not in self.paths.candidates():
            return False
        if self.paths.scheduler.redundant:
            return not self._writer.behind(connection)
        others = [each for each in self._connections.values() if each is not connection and each.carries_data]
        for each in others:
            each.ask_for_ack()
        return not others

    def _put_close(self, connection: Connection, sink: RecordSink, now: float) -> None:
        """The end of this end's sending, once nothing else is left to be sent: Session Close, then close_notify."""
        if not self._may_close_on(connection):
            return
        if self._close.state is _State.CLOSED or not sink.room:
            return
        if self._peer is not None and not self._close.sent:
            close = encode(SessionClose(self._close.error.code, self._close.error.reason))
            if self._acks_due:
                close += self._writer.acks(self._connections.values())
            sink.put(APPLICATION_DATA, close)
            connection.sent += 1
            self._close.sent = True
        if sink.room:
            self._close.state = _State.CLOSED
            self._close.deaf = True
            self._close.deadline = None
            self._put_last(connection, sink, Alert.CLOSE_NOTIFY)
            if self._close.by_peer:
                self._end_by_close(self._close.error)

    def _put_last(self, connection: Connection, sink: RecordSink, alert: int) -> None:
        if sink.room and alert == Alert.CLOSE_NOTIFY and connection.ack_due:
            # What was received on the others too: the peer may hear the end from this one first.
            sink.put(APPLICATION_DATA, self._writer.acks(self._connections.values()))
            connection.sent += 1
        if sink.room:
            connection.put_alert(sink, alert)
            if not self._ended:
                self._ask_to_close(connection.connection_id)

    # Time.

    def next_timer(self) -> float | None:
        if self._ended:
            return None
        earliest = self.paths.next_timer()
        if self._idle_timeout is not None:
            earliest = min(earliest, self._active_at + self._idle_timeout)
        if self._close.deadline is not None:
            earliest = min(earliest, self._close.deadline)
        for connection in self._connections.values():
            if connection.ack_deadline is not None and connection.ack_deadline < earliest and not connection.ack_due:
                earliest = connection.ack_deadline
        return None if earliest == math.inf else earliest

    def timer_expired(self, now: float) -> None:
        if self._ended:
            return
        for connection in self._connections.values():
            if connection.ack_deadline is not None and connection.ack_deadline <= now:
                connection.ack_due = True
        if self._close.deadline is not None and self._close.deadline <= now:
            # Session Close would say that all was sent.
            self._alert = Alert.INTERNAL_ERROR
            stuck = self._stuck(self._streams.waiting, self._config.close_timeout)
            self._end(self._close.error if self._close.error.code else stuck)
        elif self._idle_timeout is not None and self._active_at + self._idle_timeout <= now:
            self._alert = Alert.CLOSE_NOTIFY
            self._end(SessionLost(f"nothing was heard for {self._idle_timeout:g} s", self._streams.missing()))
        elif not self.paths.timer_expired(now):
            self._alert = Alert.INTERNAL_ERROR
            self._end(self._without_path())

    def _without_path(self) -> SessionLost:
        missing = self._streams.missing()
        size = sum(written - acknowledged for acknowledged, written in missing.values())
        seconds = self._config.reconnect_timeout
        return SessionLost(f"no connection worked for {seconds:g} s, and {size} bytes are not acknowledged", missing)

    # What the shell asks.

    @property
    def reading_paused(self) -> bool:
        return self._peer is None and self._streams.buffered >= self._config.receive_buffer

    @property
    def delivered(self) -> bool:
        """A peer with extensions acknowledges what it has when it closes; a pure draft-04 peer only closes."""
        if self._local.failover and self._peer is not None:
            # A peer that has every byte and ends the session has no use for the news that a stream has ended too.
            return all(has >= written for has, written in self._streams.missing().values())
        if self._streams.unsent:
            return False
        if self._peer is None:
            return self._error is None
        return all(each.data_sent <= each.data_acknowledged for each in self._connections.values())

    @property
    def credit_due(self) -> bool:
        return bool(self._outbox) or self._peer is None

    @property
    def peer_parameters(self) -> Parameters | None:
        """What the peer has announced so far; None for a pure draft-04 peer."""
        return self._peer

    def records_sent(self, connection_id: int) -> int:
        """The number of the next record on this connection, counted over changes of keys."""
        return self._connections[connection_id].sent

    @property
    def role(self) -> Role:
        return self._role

    # The application.

    def _check_open(self) -> None:
        if self._ended:
            raise self._final_error()
        if self._close.state is not _State.OPEN:
            raise SessionClosed(self._close.error.code, self._close.error.reason)

    def open_stream(self) -> int | None:
        self._check_open()
        return self._streams.open()

    def announce(self, stream_id: int) -> None:
        self._check_open()
        self._streams.announce(stream_id)

    def send(self, stream_id: int, data: bytes, now: float, more: bool = False) -> None:
        self._check_open()
        self._streams.send(stream_id, data, more)

    def sent_early(self, data: bytes) -> int:
        """This client's early data, all of which the server has taken; the stream that it began.

        No ACK is about early records: what tells that the server has them is an ACK of any later one.
        """
        stream_id, connection = self._streams.sent_early(data), self._connections[0]
        if self._local.failover:
            connection.in_flight += len(data)
            connection.unacknowledged.append((connection.sent, self._streams.sending[stream_id], 0, len(data), False))
            self._streams.unacknowledged += len(data)
        connection.data_sent = connection.sent + 1
        return stream_id

    def send_messages(self, messages: bytes) -> None:
        self._connections[0].messages += messages

    def push(self, stream_id: int) -> None:
        if not self._ended:
            self._streams.push(stream_id)

    def send_capacity(self, stream_id: int) -> int:
        self._check_open()
        return self._streams.capacity(stream_id)

    def unsent(self, stream_id: int) -> int:
        return self._streams.unsent_of(stream_id)

    def finish(self, stream_id: int) -> None:
        if self._ended:
            return
        stream = self._streams.finish(stream_id)
        if stream is not None:
            self._outbox.append(Stream(stream_id, stream.written, b"", fin=True))

    def send_finished(self, stream_id: int) -> bool:
        return self._streams.send_finished(stream_id)

    def reset(self, stream_id: int, code: int) -> None:
        if not self._ended:
            self._streams.reset(stream_id, code)

    def stop_sending(self, stream_id: int, code: int) -> None:
        if not self._ended:
            self._streams.stop_sending(stream_id, code)

    def receive(self, stream_id: int, limit: int) -> bytes | None:
        received = self._streams.receive(stream_id, limit)
        if received is None and (self._ended or self._close.by_peer):
            raise self._final_error()
        return received

    def close(self, code: int, reason: str, now: float) -> None:
        """With code 0 what was queued before is sent first, and the session is lost once `close_timeout` has passed
        without any of it leaving. With another code it is dropped."""
        if self._ended or self._close.state is not _State.OPEN:
            return
        if not 0 <= code <= 0xFFFFFFFF:
            raise ApiMisuse("a close code has 32 bits")
        self._close.state = _State.CLOSING if code else _State.FLUSHING
        self._close.error = SessionClosed(code, frames.clip(reason, frames.MAX_REASON))
        self._close.deadline = now + self._config.close_timeout
        self._streams.push_all()

    def pin_stream(self, stream_id: int, connection_id: int | None) -> None:
        """Has one connection alone carry what this end sends on a stream, or any (None).

        A connection that is lost or retired lets go of its streams. Raises `ApiMisuse`.
        """
        self._check_open()
        self.paths.pin(stream_id, connection_id)

    def ping(self, now: float) -> int:
        self._check_open()
        pings = sum(each.pings for each in self._connections.values())
        if len(self._writer.pings_waiting) + pings >= MAX_PINGS:
            raise ApiMisuse(f"{MAX_PINGS} pings are unanswered already")
        ping_id = self._next_ping
        self._next_ping += 1
        self._writer.pings_waiting.append(ping_id)
        self._outbox.append(Ping())
        return ping_id

    def update_keys(self, request: bool) -> None:
        self.paths.update_keys(request)

    def _update_asked(self, connection: Connection) -> None:
        """A KeyUpdate asks for one of this end's: the first of all connections that brings its generation."""
        if connection.read_secret.generation > self.paths.keys.read.generation:
            self.paths.update_keys(False)


_HEARD_AT_THE_END = (Ack, ConnectionReset)
"""What an end that has closed is still told: what of its own arrived, and what did not."""

_HANDLERS: dict[type[Frame], Callable[[Session, Connection, Any, float], None]] = {
    Ping: Session._on_ping,
    Stream: Session._on_stream,
    Ack: Session._on_ack,
    NewToken: Session._on_token,
    JoinToken: Session._on_token,
    ConnectionReset: lambda session, connection, frame, now: session.paths.receive_reset(frame, connection, now),
    NewAddress: Session._on_address,
    RemoveAddress: Session._on_address,
    StreamChange: Session._on_stream_change,
    MaxData: lambda session, connection, frame, now: session._streams.max_data(frame.maximum),
    MaxStreamData: lambda session, connection, frame, now: session._streams.max_stream_data(frame),
    MaxStreams: lambda session, connection, frame, now: session._streams.max_streams(frame.maximum),
    ResetStream: lambda session, connection, frame, now: session._streams.receive_reset(frame),
    StopSending: lambda session, connection, frame, now: session._streams.receive_stop(frame),
    SessionClose: Session._on_session_close,
    PathStatus: lambda session, connection, frame, now: session.paths.receive_status(frame),
    ParametersFrame: Session._on_parameters,
    TcpOption: Session._on_option,
    TcpOptionResult: lambda session, connection, frame, now: session.control.receive(frame),
    ProgramOfferFrame: Session._on_program_offer,
    ProgramRequest: lambda session, connection, frame, now: session.control.receive(frame),
    ProgramData: lambda session, connection, frame, now: session.control.receive(frame),
    ProgramResult: lambda session, connection, frame, now: session.control.receive(frame),
    ProgramDetach: lambda session, connection, frame, now: session.control.receive(frame),
}
