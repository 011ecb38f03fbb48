"""What goes into the records of a connection: control frames, stream data, pieces of programs.

The loop of `_put_streams` is one of the places where throughput is decided: per record it makes the views of the data,
the trailer, and with failover one small tuple.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from tcpls.protocol import frames
from tcpls.protocol.connections import Connection
from tcpls.protocol.frames import (
    Ack,
    Frame,
    MaxData,
    MaxStreamData,
    MaxStreams,
    Padding,
    Ping,
    Stream,
    encode,
)
from tcpls.protocol.programs import ProgramSender
from tcpls.protocol.stream_table import StreamTable
from tcpls.protocol.streams import SendStream
from tcpls.tls.record import ContentType, RecordSink

MAX_CONTROL = 1 << 13
"""Bytes of control frames that ride behind stream data; a larger frame gets a record of its own."""
STREAM_RECORDS = 16
"""Records of streams between two looks at what else waits."""
RUN_AMONG_OTHERS = 4
"""Records that a stream puts in its turn when others wait for theirs."""
APPLICATION_DATA = int(ContentType.APPLICATION_DATA)

_NOT_KEPT = (Ack, Padding, MaxData, MaxStreamData, MaxStreams)
"""Frames that are not kept until they are acknowledged: their current values can be written at any time."""

_pack_trailer = frames.STREAM_TRAILER.pack


OWN_PING = -1
"""The id of pings that nobody waits for."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a connection may carry now: control frames, streams of its own, those that any may carry."""

    control: bool
    pinned: bool
    data: bool


class RecordWriter:
    """`retain`: what records carry is kept until it is acknowledged, at most `limit` bytes of streams."""

    def __init__(
        self, outbox: deque[Frame], streams: StreamTable, shipping: ProgramSender, *, retain: bool, limit: int
    ) -> None:
        self.outbox = outbox
        """Control frames that wait for a record."""
        self.streams = streams
        self._shipping = shipping
        self._retain = retain
        self._limit = limit
        self.unacknowledged = 0
        """Bytes of streams in records that were not acknowledged."""
        self.pings_waiting: deque[int] = deque()
        """The ids of the pings in the outbox."""

    def put_some(self, connection: Connection, sink: RecordSink, now: float, load: Load) -> bool:
        """A few records of what waits. False when nothing waits, or nothing may be sent."""
        before = connection.sent
        tail = b""
        if (load.control and self.outbox) or connection.own or connection.ack_due:
            tail = self._control(connection, sink, now, load)
        records = 0
        if load.pinned and (lane := self.streams.pinned.get(connection.connection_id)):
            records = self._put_streams(connection, sink, tail, lane)
            tail = b"" if records else tail
        if load.data and sink.room:
            records += self._put_streams(connection, sink, tail, self.streams.ready)
        if tail and not records:
            sink.put(APPLICATION_DATA, tail)
            connection.sent += 1
        if load.control and load.pinned and self._shipping.busy and sink.room and not self.outbox:
            # Not ahead of pieces that go again: they are taken in order only.
            self._put_program_data(connection, sink)
        return connection.sent != before

    def _put_program_data(self, connection: Connection, sink: RecordSink) -> None:
        """One record between those of the streams, so that neither keeps the other waiting."""
        frame = self._shipping.next_data(sink.max_content)
        if frame is not None:
            sink.put(APPLICATION_DATA, encode(frame))
            if self._retain:
                connection.unacknowledged_frames.append((connection.sent, frame))
            connection.sent += 1

    def _control(self, connection: Connection, sink: RecordSink, now: float, load: Load) -> bytes:
        """The control frames for the next record, in the order in which the peer handles them: the first one last."""
        chosen: list[bytes] = []
        size = 0
        most = min(MAX_CONTROL, sink.max_content)
        if connection.ack_due:
            chosen.append(self.ack(connection))
        own, outbox = connection.own, self.outbox
        while own and size < most // 2:
            frame = own.popleft()
            encoded = encode(frame)
            chosen.append(encoded)
            size += len(encoded)
            if isinstance(frame, Ping):
                connection.ping_sent(OWN_PING, now)
            elif self._retain:
                connection.unacknowledged_frames.append((connection.sent, frame))
        while outbox and load.control:
            frame = outbox[0]
            encoded = encode(frame)
            if chosen and size + len(encoded) > most:
                break
            outbox.popleft()
            chosen.append(encoded)
            size += len(encoded)
            if isinstance(frame, Ping):
                connection.ping_sent(self.pings_waiting.popleft(), now)
            elif isinstance(frame, Stream):
                self._bare_sent(connection, frame)
            elif self._retain and not isinstance(frame, _NOT_KEPT):
                connection.unacknowledged_frames.append((connection.sent, frame))
        chosen.reverse()
        return b"".join(chosen)

    def ack(self, connection: Connection) -> bytes:
        connection.ack_due = False
        connection.ack_deadline = None
        connection.elicited = 0
        return encode(Ack(connection.connection_id, connection.received - 1))

    def _bare_sent(self, connection: Connection, frame: Stream) -> None:
        """A stream's FIN, or its announcement, goes into the next record without data."""
        stream = self.streams.sending.get(frame.stream_id)
        if stream is not None:
            stream.fin_sent |= frame.fin
            if self._retain:
                connection.unacknowledged.append((connection.sent, stream, frame.offset, frame.offset, frame.fin))
            self.streams.retire(frame.stream_id)

    def _put_run(
        self, connection: Connection, sink: RecordSink, stream: SendStream, most: int, *, several: bool
    ) -> int:
        """Full records out of one piece of queued data, which differ in nothing but their offsets, put in one go.

        Never the last of what is queued: that may have to carry the FIN. Returns how many were put, 0 for none.
        """
        if several:
            most = min(most, RUN_AMONG_OTHERS)
        allowed = self.streams.max_sent - self.streams.sent
        if self._retain:
            allowed = min(allowed, self._limit - self.unacknowledged)
        full = sink.max_content - frames.STREAM_TRAILER.size
        data = stream.peek(min(allowed, most * full))
        start, stream_id = stream.sent, stream.stream_id
        offsets = range(start, start + len(data) - full + 1, full)
        if len(offsets) < 2:
            return 0
        trailers = [_pack_trailer(full, offset, stream_id, frames.STREAM_TYPE) for offset in offsets]
        count = sink.put_run(APPLICATION_DATA, data, trailers)
        size = count * full
        stream.skip(size)
        self.streams.sent += size
        if self._retain:
            self.unacknowledged += size
            connection.in_flight += size
            first = connection.sent
            connection.unacknowledged.extend(
                (first + index, stream, offsets[index], offsets[index] + full, False) for index in range(count)
            )
        connection.sent += count
        connection.given += size
        return count

    def _put_streams(self, connection: Connection, sink: RecordSink, tail: bytes, ready: deque[SendStream]) -> int:
        """Records of stream data, each stream in its turn, the first with the control frames of `tail` behind it."""
        table = self.streams
        put = sink.put
        retain = self._retain
        full = sink.max_content - frames.STREAM_TRAILER.size
        most = full - len(tail)
        records = 0
        while ready and records < STREAM_RECORDS and sink.room:
            stream = ready[0]
            if stream.resending:
                records += self._put_lost(connection, sink, stream, tail, most)
                tail, most = b"", full
                table.sent_from(stream, ready)
                continue
            limit = min(most, table.max_sent - table.sent)
            if retain:
                limit = min(limit, self._limit - self.unacknowledged)
            if limit <= 0:
                break
            if limit == full and (
                run := self._put_run(connection, sink, stream, STREAM_RECORDS - records, several=len(ready) > 1)
            ):
                records += run
                table.sent_from(stream, ready)
                continue
            start = stream.sent
            parts = stream.take(limit)
            end = stream.sent
            fin = stream.fin_queued and end == stream.written
            trailer = _pack_trailer(
                end - start, start, stream.stream_id, frames.STREAM_FIN_TYPE if fin else frames.STREAM_TYPE
            )
            if tail:
                put(APPLICATION_DATA, *parts, trailer, tail)
                tail = b""
                most = full
            else:
                put(APPLICATION_DATA, *parts, trailer)
            records += 1
            table.sent += end - start
            if retain:
                connection.unacknowledged.append((connection.sent, stream, start, end, fin))
                self.unacknowledged += end - start
                connection.in_flight += end - start
            connection.sent += 1
            connection.given += end - start
            table.sent_from(stream, ready)
            if fin:
                stream.fin_sent = True
                table.retire(stream.stream_id)
        return records

    def _put_lost(self, connection: Connection, sink: RecordSink, stream: SendStream, tail: bytes, most: int) -> int:
        """One record of what a connection took with it. It has the peer's credit, and its place in what is kept."""
        start, parts, fin = stream.take_lost(most)
        if not parts and not fin:
            if tail:
                sink.put(APPLICATION_DATA, tail)
                connection.sent += 1
                return 1
            return 0
        size = sum(map(len, parts))
        kind = frames.STREAM_FIN_TYPE if fin else frames.STREAM_TYPE
        sink.put(APPLICATION_DATA, *parts, _pack_trailer(size, start, stream.stream_id, kind), tail)
        connection.unacknowledged.append((connection.sent, stream, start, start + size, fin))
        connection.in_flight += size
        self.unacknowledged += size
        connection.sent += 1
        connection.given += size
        return 1
