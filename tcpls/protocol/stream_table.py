"""All streams of a session: which are open, whose turn it is to send, and the credit of the session."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tcpls.errors import ApiMisuse, NotNegotiated, PeerError, Reason, StreamReset
from tcpls.protocol.base import Role
from tcpls.protocol.events import Event, StreamOpened, StreamReadable, StreamsAvailable, StreamWritable
from tcpls.protocol.frames import (
    MAX_OFFSET,
    Frame,
    MaxData,
    MaxStreamData,
    MaxStreams,
    ResetStream,
    StopSending,
    Stream,
)
from tcpls.protocol.parameters import Parameters
from tcpls.protocol.streams import ReceiveStream, SendStream

STREAM_IDS = 1 << 31
"""Ids of one parity."""


class StreamTable:
    """`peer` None: a pure draft-04 peer, without flow control in either direction.

    Ids are used in sequence, so an id that is below the next of its parity and not in a table belongs to a stream
    that is over: nothing has to be kept of it.
    """

    def __init__(
        self,
        role: Role,
        local: Parameters,
        peer: Parameters | None,
        *,
        send_buffer: int,
        retain: bool,
        events: list[Event],
        queue: Callable[[Frame], None],
    ) -> None:
        self._bit = role.bit
        self._local = local
        self._extended = peer is not None
        self._send_buffer = send_buffer
        self._retain = retain
        self._events = events
        self._queue = queue
        self.sending: dict[int, SendStream] = {}
        self.receiving: dict[int, ReceiveStream] = {}
        self.ready: deque[SendStream] = deque()
        """The streams with bytes and credit to send, the next one first."""
        self.pinned: dict[int, deque[SendStream]] = {}
        """The same of those that one connection alone carries, by its id."""
        self._opened_here = 0
        self._opened_there = 0
        self._closed_there = 0
        self._streams_wanted = False
        self.unacknowledged = 0
        """Bytes that were sent and not acknowledged, and are kept for that, with `retain`."""
        # What the peer allows.
        self.sent = 0
        self.max_sent = peer.session_window if peer else MAX_OFFSET
        self._peer_stream_window = peer.stream_window if peer else MAX_OFFSET
        self._max_opened_here = peer.stream_limit if peer else STREAM_IDS
        # What the peer is allowed.
        self.received = 0
        self.consumed = 0
        self.max_received = local.session_window if self._extended else MAX_OFFSET
        self._max_opened_there = local.stream_limit

    # The peer's parameters and credit.

    def peer_announced(self, peer: Parameters) -> None:
        """The client's late parameters: what was 0 until now."""
        self._peer_stream_window = peer.stream_window
        self.max_data(peer.session_window)
        for stream in self.sending.values():
            self._raise_credit(stream, peer.stream_window)
        self.max_streams(peer.stream_limit)

    def max_data(self, maximum: int) -> None:
        self.max_sent = max(self.max_sent, maximum)

    def max_streams(self, maximum: int) -> None:
        if maximum > self._max_opened_here:
            self._max_opened_here = maximum
            if self._streams_wanted:
                self._streams_wanted = False
                self._events.append(StreamsAvailable())

    def max_stream_data(self, frame: MaxStreamData) -> None:
        self._admit(frame.stream_id)
        stream = self.sending.get(frame.stream_id)
        if stream is not None:
            self._raise_credit(stream, frame.maximum)

    def _raise_credit(self, stream: SendStream, maximum: int) -> None:
        if maximum > stream.max_data:
            stream.max_data = maximum
            self.schedule(stream)

    def schedule(self, stream: SendStream) -> None:
        if not stream.scheduled and stream.sendable:
            stream.scheduled = True
            self._lane(stream).append(stream)

    def _lane(self, stream: SendStream) -> deque[SendStream]:
        """Where the stream waits for its turn."""
        return self.ready if stream.pinned is None else self.pinned[stream.pinned]

    # Pinned streams.

    def pin(self, stream_id: int, connection_id: int | None) -> None:
        """Has one connection alone carry what is sent on the stream, or any (None). Raises `ApiMisuse`."""
        stream = self._of_sending(stream_id)
        self._unschedule(stream)
        stream.pinned = connection_id
        if connection_id is not None:
            self.pinned.setdefault(connection_id, deque())
        self.schedule(stream)

    def unpin(self, connection_id: int) -> None:
        """The connection takes nothing more: any may carry its streams."""
        if connection_id not in self.pinned:
            return
        for stream in self.sending.values():
            if stream.pinned == connection_id:
                self.pin(stream.stream_id, None)
        del self.pinned[connection_id]

    def _unschedule(self, stream: SendStream) -> None:
        if stream.scheduled:
            stream.scheduled = False
            self._lane(stream).remove(stream)

    def tell_credit(self) -> None:
        """Queues what the peer was allowed last: what said so may be lost."""
        if not self._extended:
            return
        self._queue(MaxData(self.max_received))
        self._queue(MaxStreams(self._max_opened_there))
        for stream in self.receiving.values():
            if stream.window is not None and stream.max_data > stream.window and stream.final_size is None:
                self._queue(MaxStreamData(stream.stream_id, stream.max_data))

    # Opening and retiring.

    def open(self) -> int | None:
        if self._opened_here >= self._max_opened_here:
            self._streams_wanted = True
            return None
        stream_id = self._opened_here << 1 | self._bit
        self._opened_here += 1
        self._add(stream_id)
        return stream_id

    def _add(self, stream_id: int) -> None:
        self.sending[stream_id] = SendStream(stream_id, self._peer_stream_window, self._retain)
        self.receiving[stream_id] = ReceiveStream(stream_id, self._local.stream_window if self._extended else None)

    def _admit(self, stream_id: int) -> None:
        """A frame names this stream: opens it, and the ones before it. Raises `PeerError`."""
        number = stream_id >> 1
        if stream_id & 1 == self._bit:
            if number >= self._opened_here:
                raise PeerError(Reason.STREAM_STATE, f"stream {stream_id} was not opened")
            return
        if number < self._opened_there:
            return
        if number >= self._max_opened_there:
            raise PeerError(Reason.STREAM_LIMIT, f"stream {stream_id}")
        while self._opened_there <= number:
            opened = self._opened_there << 1 | (1 - self._bit)
            self._opened_there += 1
            self._add(opened)
            self._events.append(StreamOpened(opened))

    def retire(self, stream_id: int) -> None:
        """Forgets the stream if both halves are over, and this end knows of it."""
        sending = self.sending.get(stream_id)
        receiving = self.receiving.get(stream_id)
        if sending is None or receiving is None or not (sending.finished and receiving.finished):
            return
        if sending.stop_code is not None and not sending.fin_queued:
            return  # The application may be waiting to write, and is still to be told that the peer stopped reading.
        del self.sending[stream_id], self.receiving[stream_id]
        if stream_id & 1 != self._bit:
            self._closed_there += 1
            maximum = min(self._closed_there + self._local.stream_limit, STREAM_IDS)
            # One frame for half the limit, not one for every stream.
            if maximum - self._max_opened_there >= max(1, self._local.stream_limit // 2):
                self._max_opened_there = maximum
                if self._extended:
                    self._queue(MaxStreams(maximum))

    @property
    def unsent(self) -> bool:
        """Whether bytes are queued, with or without credit to send them."""
        return any(stream.sent < stream.written or stream.resending for stream in self.sending.values())

    def missing(self) -> dict[int, tuple[int, int]]:
        """Of each stream that the peer is not known to have: bytes acknowledged, and written. With `retain` alone."""
        return {
            stream_id: (stream.acknowledged, stream.written)
            for stream_id, stream in self.sending.items()
            if not stream.was_reset
            and (stream.acknowledged < stream.written or (stream.fin_queued and not stream.fin_acknowledged))
        }

    @property
    def waiting(self) -> int:
        """Bytes that are queued."""
        return sum(stream.written - stream.sent for stream in self.sending.values())

    # Receiving.

    @property
    def buffered(self) -> int:
        """Bytes received and not consumed."""
        return self.received - self.consumed

    def receive_data(self, frame: Stream) -> None:
        """Any Stream frame. Raises `PeerError`."""
        self._admit(frame.stream_id)
        stream = self.receiving.get(frame.stream_id)
        if stream is None:
            return
        was = stream.offset, stream.ended
        end = frame.offset + len(frame.data)
        grown = stream.check(end, frame.fin)
        self._count_received(grown)
        stream.insert(frame.offset, frame.data, frame.fin)
        if stream.stopped or stream.reset_code is not None:
            self._count_consumed(grown)
            self.retire(frame.stream_id)
        elif (stream.offset, stream.ended) != was:
            self._say_readable(stream)

    def receive_reset(self, frame: ResetStream) -> None:
        self._admit(frame.stream_id)
        stream = self.receiving.get(frame.stream_id)
        if stream is None:
            return
        self._count_received(stream.check(frame.final_size, True))
        if stream.ended:
            return
        was = stream.consumed
        stream.reset(frame.final_size, frame.code)
        self._count_consumed(frame.final_size - was)
        if stream.stopped:
            self.retire(frame.stream_id)
        else:
            self._say_readable(stream)

    def receive_stop(self, frame: StopSending) -> None:
        self._admit(frame.stream_id)
        stream = self.sending.get(frame.stream_id)
        if stream is None or stream.was_reset or stream.stop_code is not None:
            return
        stream.stop_code = frame.code
        self._events.append(StreamWritable(frame.stream_id))
        self._reset(stream, frame.code)

    def _count_received(self, grown: int) -> None:
        if self.received + grown > self.max_received:
            raise PeerError(Reason.FLOW_CONTROL, "session")
        self.received += grown

    def _count_consumed(self, count: int) -> None:
        self.consumed += count
        self.give_credit()

    def give_credit(self) -> None:
        """Tells the peer of what may come of the session, once half a window was consumed, or more than it has left.

        Streams that nobody reads may hold any part of the window, so that a half might never be consumed. To be called
        when something was consumed, and when something came: what was left to be told may be all that there is now.
        """
        if not self._extended:
            return
        window = self._local.session_window
        gained = self.consumed + window - self.max_received
        if gained > 0 and gained >= min(window // 2, self.max_received - self.received):
            self.max_received += gained
            self._queue(MaxData(self.max_received))

    def say_readable(self, stream_id: int) -> None:
        self._say_readable(self.receiving[stream_id])

    def _say_readable(self, stream: ReceiveStream) -> None:
        if not stream.readable_said:
            stream.readable_said = True
            self._events.append(StreamReadable(stream.stream_id))

    # The application.

    def _of_sending(self, stream_id: int) -> SendStream:
        stream = self.sending.get(stream_id)
        if stream is None:
            raise ApiMisuse(f"the stream {stream_id} is not open")
        return stream

    def send(self, stream_id: int, data: bytes, more: bool) -> None:
        stream = self._of_sending(stream_id)
        if stream.stop_code is not None:
            self._end_told(stream)
            raise StreamReset(stream.stop_code, stopped=True)
        if stream.fin_queued or stream.was_reset:
            raise ApiMisuse(f"the stream {stream_id} was ended by this end")
        stream.append(data, more)
        if self._send_buffer <= stream.written - stream.sent:
            stream.room_wanted = True
        self.schedule(stream)

    def sent_early(self, data: bytes) -> int:
        """A stream of this end's whose first bytes were sent before the session began. Gives its id."""
        stream_id = self.open()
        if stream_id is None:
            raise ApiMisuse("early data comes before everything else, and where the peer lets streams be opened")
        stream = self.sending[stream_id]
        stream.append(data)
        stream.skip_all()
        self.sent += len(data)
        return stream_id

    def announce(self, stream_id: int) -> None:
        """Queues a frame that is about no data, and so says only that the stream is there, if the peer may not know."""
        self._of_sending(stream_id)
        if stream_id & 1 == self._bit:
            self._queue(Stream(stream_id, 0, b""))

    def push(self, stream_id: int) -> None:
        stream = self.sending.get(stream_id)
        if stream is not None:
            stream.push()
            self.schedule(stream)

    def push_all(self) -> None:
        for stream_id in self.sending:
            self.push(stream_id)

    def capacity(self, stream_id: int) -> int:
        stream = self._of_sending(stream_id)
        return self._send_buffer - (stream.written - stream.sent)

    def unsent_of(self, stream_id: int) -> int:
        stream = self.sending.get(stream_id)
        return 0 if stream is None else stream.written - stream.sent

    def _end_told(self, stream: SendStream) -> None:
        """The application has no more to do with this half, which the peer stopped."""
        stream.fin_queued = True
        self.retire(stream.stream_id)

    def sent_from(self, stream: SendStream, lane: deque[SendStream]) -> None:
        """The stream gave bytes to a record; it is the first of `lane`."""
        if not stream.sendable:
            stream.scheduled = False
            lane.popleft()
        elif len(lane) > 1:
            lane.rotate(-1)
        self._say_room(stream)

    def sent_aside(self, stream: SendStream) -> None:
        """The stream gave bytes to a record, out of its turn."""
        if not stream.sendable:
            self._unschedule(stream)
        self._say_room(stream)

    def _say_room(self, stream: SendStream) -> None:
        if stream.room_wanted and stream.written - stream.sent <= self._send_buffer // 2:
            stream.room_wanted = False
            self._events.append(StreamWritable(stream.stream_id))

    def finish(self, stream_id: int) -> SendStream | None:
        """Returns the stream if its FIN needs a frame of its own, because no data is left to carry it."""
        stream = self.sending.get(stream_id)
        if stream is None or stream.fin_queued:
            return None
        if stream.was_reset:
            self._end_told(stream)
            return None
        stream.fin_queued = True
        self.push(stream_id)
        return stream if stream.sent == stream.written else None

    def send_finished(self, stream_id: int) -> bool:
        stream = self.sending.get(stream_id)
        return stream is None or stream.finished

    def reset(self, stream_id: int, code: int) -> None:
        stream = self.sending.get(stream_id)
        if stream is not None and stream.stop_code is not None:
            self._end_told(stream)
        if stream is None or stream.was_reset or (stream.fin_sent and stream.finished):
            return
        if not self._extended:
            raise NotNegotiated("the peer knows no Reset Stream")
        self._reset(stream, code)

    def _reset(self, stream: SendStream, code: int) -> None:
        if stream.finished:
            return
        stream.was_reset = True
        if self._retain:
            self.unacknowledged -= stream.unacknowledged
        stream.drop()
        self._unschedule(stream)
        self._queue(ResetStream(stream.stream_id, stream.sent, code))
        self.retire(stream.stream_id)

    def stop_sending(self, stream_id: int, code: int) -> None:
        stream = self.receiving.get(stream_id)
        if stream is None or stream.stopped:
            return
        self._count_consumed(stream.highest - stream.consumed)
        if self._extended and not stream.ended:
            self._queue(StopSending(stream_id, code))
        stream.stop()
        self.retire(stream_id)

    def receive(self, stream_id: int, limit: int) -> bytes | None:
        stream = self.receiving.get(stream_id)
        if stream is None or stream.stopped:
            raise ApiMisuse(f"nothing can be received from the stream {stream_id}")
        if stream.reset_code is not None:
            stream.end_told = True
            self.retire(stream_id)
            raise StreamReset(stream.reset_code)
        taken = stream.take(limit)
        if taken:
            self._count_consumed(len(taken))
            maximum = stream.credit()
            if maximum is not None:
                self._queue(MaxStreamData(stream_id, maximum))
            return taken
        if stream.consumed == stream.final_size:
            stream.end_told = True
            self.retire(stream_id)
            return b""
        stream.readable_said = False
        return None
