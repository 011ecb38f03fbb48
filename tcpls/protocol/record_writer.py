"""What goes into the records of a connection: control frames, stream data, pieces of programs.

The loop of `_put_streams` is one of the places where throughput is decided: per record it makes the views of the data,
the trailer, and with failover one small tuple.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from tcpls.protocol import frames
from tcpls.protocol.connections import Connection
from tcpls.protocol.frames import (
    Ack,
    Frame,
    MaxData,
    MaxStreamData,
    MaxStreams,
    NewAddress,
    Padding,
    Ping,
    ProgramData,
    ProgramDetach,
    ProgramOfferFrame,
    ProgramRequest,
    ProgramResult,
    RemoveAddress,
    Stream,
    TcpOption,
    TcpOptionResult,
    encode,
)
from tcpls.protocol.programs import ProgramSender
from tcpls.protocol.ranges import RangeSet
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

CREDIT = (MaxData, MaxStreamData, MaxStreams)
_NOT_KEPT = (Ack, Padding, *CREDIT)
"""Frames that are not kept until they are acknowledged: their current values can be written at any time."""
_ORDERED = (
    NewAddress,
    RemoveAddress,
    TcpOption,
    TcpOptionResult,
    ProgramOfferFrame,
    ProgramRequest,
    ProgramData,
    ProgramResult,
    ProgramDetach,
)
"""Frames that the peer has to handle in the order in which they were sent, on however many connections."""
MOST_SEAMS = 128
"""Changes of the connection within what is on its way of one stream: a receiver takes 256 gaps, and each connection
that is lost may add to them."""

Parts = tuple[memoryview, ...]

_pack_trailer = frames.STREAM_TRAILER.pack


OWN_PING = -1
"""The id of pings that nobody waits for."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a connection may carry now: control frames, streams of its own, those that any may carry."""

    control: bool
    pinned: bool
    data: bool
    redundant: bool = False
    """Whether it carries all of them, and not only what no other carries."""


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
        self._ordered: tuple[Connection, int] | None = None
        """Where the last frame of those in order went."""
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
            if load.redundant:
                records += self._put_all(connection, sink, tail)
            else:
                records += self._put_streams(connection, sink, tail, self.streams.ready)
        if records:
            connection.data_sent = connection.sent
        elif tail:
            sink.put(APPLICATION_DATA, tail)
            connection.sent += 1
        if load.control and self._shipping.busy and sink.room and not self.outbox and self._in_order(connection):
            # Not ahead of pieces that go again: they are taken in order only.
            self._put_program_data(connection, sink)
        return connection.sent != before

    def _put_program_data(self, connection: Connection, sink: RecordSink) -> None:
        """One record between those of the streams, so that neither keeps the other waiting."""
        frame = self._shipping.next_data(sink.max_content)
        if frame is not None:
            sink.put(APPLICATION_DATA, encode(frame))
            self._ordered = connection, connection.sent
            if self._retain:
                connection.unacknowledged_frames.append((connection.sent, frame))
            connection.sent += 1

    def _in_order(self, connection: Connection) -> bool:
        """Whether what must be handled in order may go on this connection now.

        What went on another one has to be acknowledged first. If that one is lost, it goes again ahead of the rest.
        """
        if self._ordered is None or self._ordered[0] is connection:
            return True
        before, number = self._ordered
        if before.gone or before.data_acknowledged > number:
            return True
        before.ask_for_ack()
        return False

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
            if isinstance(frame, _ORDERED):
                if not self._in_order(connection):
                    break
                self._ordered = connection, connection.sent
            outbox.popleft()
            chosen.append(encoded)
            size += len(encoded)
            if isinstance(frame, Ping):
                connection.ping_sent(self.pings_waiting.popleft(), now)
            elif isinstance(frame, Stream) and frame.fin:
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

    def acks(self, connections: Iterable[Connection]) -> bytes:
        """What was received on each connection, said once more."""
        return b"".join(encode(Ack(each.connection_id, each.received - 1)) for each in connections if each.received)

    def _bare_sent(self, connection: Connection, frame: Stream) -> None:
        """A stream's FIN goes into the next record without data."""
        stream = self.streams.sending.get(frame.stream_id)
        if stream is not None:
            stream.fin_sent = True
            connection.data_sent = connection.sent + 1
            if self._retain:
                connection.unacknowledged.append((connection.sent, stream, frame.offset, frame.offset, True))
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
            allowed = min(allowed, self._limit - self.streams.unacknowledged)
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
            self.streams.unacknowledged += size
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
        records = passed = 0
        while ready and records < STREAM_RECORDS and sink.room:
            stream = ready[0]
            limit = min(most, table.max_sent - table.sent)
            if retain:
                limit = min(limit, self._limit - table.unacknowledged)
            if limit <= 0 and not stream.resending and not _next_lost(ready):
                break
            stream = ready[0]
            if stream.carrier is not connection and not self._may_move(stream, connection):
                passed += 1
                if passed >= len(ready):
                    break
                ready.rotate(-1)
                continue
            if stream.resending:
                records += self._put_lost(connection, sink, stream, tail, most)
                tail, most = b"", full
                table.sent_from(stream, ready)
                continue
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
                table.unacknowledged += end - start
                connection.in_flight += end - start
            connection.sent += 1
            connection.given += end - start
            table.sent_from(stream, ready)
            if fin:
                stream.fin_sent = True
                table.retire(stream.stream_id)
        return records

    def _may_move(self, stream: SendStream, connection: Connection) -> bool:
        """Whether the stream may go on on this connection, where its last record went on another.

        Not when that could give the receiver more gaps than it takes: then what is on its way has to arrive first.
        """
        before = stream.carrier
        if before is not None:
            seams = stream.seams
            if len(seams) >= MOST_SEAMS:
                # A lost connection's records are acknowledged as offsets of the stream, on others.
                seams = stream.seams = [
                    (offset, carrier, number)
                    for offset, carrier, number in seams
                    if (stream.acknowledged < offset if self._retain else carrier.data_acknowledged < number)
                ]
                if len(seams) >= MOST_SEAMS and not before.gone:
                    for _, carrier, _ in seams:
                        carrier.ask_for_ack()
                    return False
            seams.append((stream.sent, before, before.sent))
        stream.carrier = connection
        return True

    def _put_record(
        self,
        connection: Connection,
        sink: RecordSink,
        stream: SendStream,
        start: int,
        parts: Parts,
        fin: bool,
        tail: bytes,
    ) -> None:
        """One record of a stream that is kept."""
        size = sum(map(len, parts))
        kind = frames.STREAM_FIN_TYPE if fin else frames.STREAM_TYPE
        sink.put(APPLICATION_DATA, *parts, _pack_trailer(size, start, stream.stream_id, kind), tail)
        connection.unacknowledged.append((connection.sent, stream, start, start + size, fin))
        connection.in_flight += size
        connection.sent += 1
        connection.given += size

    # What a connection took with it.

    def _put_lost(self, connection: Connection, sink: RecordSink, stream: SendStream, tail: bytes, most: int) -> int:
        """One record of what a connection took with it. It has the peer's credit, and its place in what is kept."""
        start, parts, fin = stream.take_lost(most)
        if not parts and not fin:
            if tail:
                sink.put(APPLICATION_DATA, tail)
                connection.sent += 1
                return 1
            return 0
        self._put_record(connection, sink, stream, start, parts, fin, tail)
        return 1

    def recover(self, streams: Iterable[SendStream], connections: Iterable[Connection]) -> None:
        """Each connection has carried all, and no more: what is on its way on none of them goes again."""
        under_way: dict[int, RangeSet] = {}
        ends = set()
        for each in connections:
            for _, stream, start, end, fin in each.unacknowledged:
                under_way.setdefault(stream.stream_id, RangeSet()).add(start, end)
                if fin:
                    ends.add(stream.stream_id)
        for stream in streams:
            carried = under_way.get(stream.stream_id, RangeSet())
            start, end = carried.missing(stream.acknowledged, stream.sent)
            while start < end:
                stream.lose(start, end, False)
                start, end = carried.missing(end, stream.sent)
            stream.lose(stream.written, stream.written, stream.fin_sent and stream.stream_id not in ends)
            self.streams.schedule(stream)

    # All over each connection.

    def _put_all(self, connection: Connection, sink: RecordSink, tail: bytes) -> int:
        """Records of all streams that this connection has not carried, and the peer is not known to have."""
        table = self.streams
        waiting = deque(each for each in table.sending.values() if self._behind(connection, each))
        if len(connection.cursors) > 2 * len(table.sending) + MOST_SEAMS:
            connection.cursors = {key: at for key, at in connection.cursors.items() if key in table.sending}
        # Those that were not served last time come first.
        waiting.rotate(-(connection.sent % max(1, len(waiting))))
        full = sink.max_content - frames.STREAM_TRAILER.size
        records = 0
        while waiting and records < STREAM_RECORDS and sink.room:
            stream = waiting.popleft()
            if stream.resending:
                put = self._put_lost(connection, sink, stream, tail, full - len(tail))
                table.sent_aside(stream)
            else:
                put = self._put_next(connection, sink, stream, tail, full - len(tail))
            if put:
                records += put
                tail = b""
            if self._behind(connection, stream):
                waiting.append(stream)
        return records

    def behind(self, connection: Connection) -> bool:
        """Whether there is something that this connection has not carried."""
        return any(self._behind(connection, each) for each in self.streams.sending.values())

    def _behind(self, connection: Connection, stream: SendStream) -> bool:
        if stream.pinned is not None or stream.was_reset:
            return False
        if stream.resending:
            return True
        cursor = connection.cursors.get(stream.stream_id, 0)
        start, end = stream.first_unacknowledged(cursor, stream.sent)
        if start < end or self._new(stream):
            return True
        only_end = stream.fin_queued and not stream.fin_acknowledged and stream.sent == stream.written
        return only_end and cursor <= stream.written

    def _new(self, stream: SendStream) -> int:
        """Bytes that no connection has carried yet and that may go now."""
        if not stream.sendable:
            return 0
        table = self.streams
        return max(0, min(table.max_sent - table.sent, self._limit - table.unacknowledged))

    def _put_next(self, connection: Connection, sink: RecordSink, stream: SendStream, tail: bytes, most: int) -> int:
        table = self.streams
        number = stream.stream_id
        start, end = stream.first_unacknowledged(connection.cursors.get(number, 0), stream.sent)
        parts: Parts = ()
        if start < end:
            end = min(end, start + most)
            parts = stream.pieces(start, end)
        elif (limit := min(most, self._new(stream))) > 0:
            start = stream.sent
            parts = stream.take(limit)
            end = stream.sent
            table.sent += end - start
            table.unacknowledged += end - start
            stream.carrier = connection
        else:
            start = end = stream.sent
        fin = stream.fin_queued and end == stream.written
        connection.cursors[number] = end + fin
        if not parts and not fin:
            return 0
        self._put_record(connection, sink, stream, start, parts, fin, tail)
        stream.fin_sent |= fin
        table.sent_aside(stream)
        return 1


def _next_lost(ready: deque[SendStream]) -> bool:
    """Turns to a stream of which something goes again: that has its credit. False when there is none."""
    for index, stream in enumerate(ready):
        if stream.resending:
            ready.rotate(-index)
            return True
    return False
