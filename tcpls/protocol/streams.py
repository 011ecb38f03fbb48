"""The two halves of a stream: what is queued to be sent, and what was received and not read yet.

A half knows offsets, credit and its own state; the session's sums and the table of streams are stream_table.py's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING

from tcpls.errors import PeerError, Reason
from tcpls.protocol.frames import MAX_OFFSET, STREAM_TRAILER
from tcpls.protocol.ranges import RangeSet
from tcpls.tls.record import MAX_CONTENT
from tcpls.wire import Buffer

if TYPE_CHECKING:
    from tcpls.protocol.connections import Connection

MAX_STREAM_DATA = MAX_CONTENT - STREAM_TRAILER.size
"""Bytes of a stream in a record that carries nothing else: 16,369."""

MAX_GAPS = 256
"""Gaps in what was received of one stream. Each connection of a session adds about one; a peer that needs more
is making the reorder buffer cost more than the bytes in it."""
SMALL = 1024
"""Received pieces below this are put together, so that what is buffered never costs much more than its bytes."""
COALESCED = 16384

EMPTY = memoryview(b"")


class SendStream:
    """Queued bytes are never copied: records are views of them. With `retain` they are kept until acknowledged."""

    __slots__ = (
        "_acknowledged_ahead",
        "_at",
        "_chunk",
        "_chunk_end",
        "_lost",
        "_queue",
        "_retained",
        "_view",
        "acknowledged",
        "carrier",
        "fin_acknowledged",
        "fin_lost",
        "fin_queued",
        "fin_sent",
        "max_data",
        "pinned",
        "pushed",
        "resending",
        "retain",
        "room_wanted",
        "scheduled",
        "seams",
        "sent",
        "stop_code",
        "stream_id",
        "was_reset",
        "written",
    )

    def __init__(self, stream_id: int, max_data: int, retain: bool) -> None:
        self.stream_id = stream_id
        self.max_data = max_data
        """The end of what the peer allows."""
        self.retain = retain
        self.written = 0
        """The end of what was queued."""
        self.pushed = 0
        """The end of what is to be sent whatever follows; what is behind it goes in full records only."""
        self.sent = 0
        """The end of what was put in records."""
        self.acknowledged = 0
        """The end of what was acknowledged without a gap."""
        self.fin_queued = False
        self.fin_sent = False
        self.fin_acknowledged = False
        self.fin_lost = False
        """Whether the FIN went with a connection, and goes again."""
        self.resending = False
        """Whether something is to be sent again."""
        self.pinned: int | None = None
        """The connection that alone carries this stream."""
        self.carrier: Connection | None = None
        """The connection that the last record of this stream went on."""
        self.seams: list[tuple[int, Connection, int]] = []
        """Where it went on on another connection: offset, the connection before, and the records that had gone there.
        The receiver may have a gap at each of which not all has arrived."""
        self.was_reset = False
        self.stop_code: int | None = None
        """The code of the Stop Sending that the peer sent."""
        self.scheduled = False
        self.room_wanted = False
        self._queue: deque[bytes] = deque()
        self._chunk = b""
        self._chunk_end = 0
        self._view = EMPTY
        self._at = 0
        self._retained: deque[tuple[int, bytes]] = deque()
        self._acknowledged_ahead = RangeSet()
        self._lost = RangeSet()
        """What went with a connection and is to be sent again."""

    def append(self, data: bytes, more: bool = False) -> None:
        """`more`: what does not fill a record waits for more to come, or for `push`."""
        if data:
            self._queue.append(data)
            self.written += len(data)
        if not more:
            self.pushed = self.written

    def push(self) -> None:
        self.pushed = self.written

    @property
    def sendable(self) -> bool:
        sent = self.sent
        if self.resending:
            return True
        return sent < self.max_data and (sent < self.pushed or self.written - sent >= MAX_STREAM_DATA)

    def take(self, limit: int) -> tuple[memoryview, ...]:
        """The next bytes, at most `limit` of them and at least one; the caller knows that some are sendable."""
        limit = min(limit, self.max_data - self.sent)
        part = self._view[self._at : self._at + limit]
        size = len(part)
        if size == limit:
            self._at += size
            self.sent += size
            if self.sent == self.written:
                self._next_chunk()
            return (part,)
        parts = [part] if size else []
        while size < limit and self._next_chunk():
            part = self._view[: limit - size]
            self._at = len(part)
            size += len(part)
            parts.append(part)
        self.sent += size
        if self.sent == self.written:
            self._next_chunk()
        return tuple(parts)

    def peek(self, limit: int) -> memoryview:
        """The next bytes, at most `limit` of them, as far as one piece of the queue and the peer's credit go.

        Never the last byte that is queued.
        """
        limit = min(limit, self.max_data - self.sent, self.written - self.sent - 1)
        return self._view[self._at : self._at + max(limit, 0)]

    def skip(self, count: int) -> None:
        """The first `count` bytes of what `peek` gave went into records."""
        self._at += count
        self.sent += count

    def skip_all(self) -> None:
        """All that is queued was put into records elsewhere."""
        while self._next_chunk():
            continue
        self.sent = self.written

    def _next_chunk(self) -> bool:
        """Lets go of the current chunk, all of which was taken, and makes the next of the queue current."""
        if self.retain and self._chunk:
            self._retained.append((self._chunk_end, self._chunk))
        if not self._queue:
            self._chunk = b""
            self._view = EMPTY
            self._at = 0
            return False
        self._chunk = self._queue.popleft()
        self._chunk_end += len(self._chunk)
        self._view = memoryview(self._chunk)
        self._at = 0
        return True

    def drop(self) -> None:
        """Lets go of everything queued and retained: the stream was reset."""
        self._queue.clear()
        self._retained.clear()
        self._acknowledged_ahead.clear()
        self._lost.clear()
        self.seams.clear()
        self.resending = self.fin_lost = False
        self._chunk = b""
        self._view = EMPTY
        self._at = 0
        self.written = self.pushed = self.sent

    @property
    def unacknowledged(self) -> int:
        """Bytes that were sent and not acknowledged."""
        return self.sent - self.acknowledged - self._acknowledged_ahead.size

    def acknowledge(self, start: int, end: int, fin: bool) -> int:
        """The peer has `start`..`end`, the range of one record. Ranges of several connections may come in any order.

        Returns how many bytes of it were not acknowledged before.
        """
        if self.was_reset:
            return 0
        if fin:
            self.fin_acknowledged = True
        ahead = self._acknowledged_ahead
        if start > self.acknowledged:
            return ahead.add(start, end)
        newly = end - self.acknowledged
        if newly <= 0:
            return 0
        self.acknowledged = end
        while ahead and ahead.first[0] <= self.acknowledged:
            begin, finish = ahead.first
            newly -= min(finish, self.acknowledged) - begin
            self.acknowledged = max(self.acknowledged, finish)
            ahead.remove(begin, finish)
        while self._retained and self._retained[0][0] <= self.acknowledged:
            self._retained.popleft()
        return newly

    def first_unacknowledged(self, start: int, end: int) -> tuple[int, int]:
        """The first part of `start`..`end` that the peer is not known to have; an empty one when there is none."""
        return self._acknowledged_ahead.missing(min(max(start, self.acknowledged), end), end)

    # What went with a connection.

    def lose(self, start: int, end: int, fin: bool) -> None:
        """A record with this range may not have arrived: what of it was not acknowledged otherwise goes again."""
        if self.was_reset:
            return
        self._lost.add(max(start, self.acknowledged), end)
        if self._acknowledged_ahead:
            self._lost.remove_all(self._acknowledged_ahead)
        self.fin_lost |= fin and not self.fin_acknowledged
        self.resending = self.fin_lost or bool(self._lost)

    def take_lost(self, limit: int) -> tuple[int, tuple[memoryview, ...], bool]:
        """What is to be sent again first: its offset, at most `limit` bytes, and whether the FIN goes with them.

        There may be no bytes: when the FIN alone is left, or all was acknowledged meanwhile.
        """
        lost = self._lost
        lost.remove(0, self.acknowledged)
        if self._acknowledged_ahead:
            lost.remove_all(self._acknowledged_ahead)
        start = end = self.written
        parts: tuple[memoryview, ...] = ()
        if lost:
            start, end = lost.first
            end = min(end, start + limit)
            parts = self.pieces(start, end)
            lost.remove(start, end)
        fin = self.fin_lost and not self.fin_acknowledged and not lost and end == self.written
        if fin or self.fin_acknowledged:
            self.fin_lost = False
        self.resending = self.fin_lost or bool(lost)
        return start, parts, fin

    def pieces(self, start: int, end: int) -> tuple[memoryview, ...]:
        """The bytes of a range that was sent and not acknowledged."""
        kept = self._retained
        at = bisect_right(kept, start, key=lambda each: each[0])
        parts = []
        while start < end:
            piece_end, piece = kept[at] if at < len(kept) else (self._chunk_end, self._chunk)
            piece_start = piece_end - len(piece)
            upto = min(end, piece_end)
            parts.append(memoryview(piece)[start - piece_start : upto - piece_start])
            start = upto
            at += 1
        return tuple(parts)

    @property
    def finished(self) -> bool:
        """Whether nothing of this half is left to be done."""
        if self.was_reset:
            return True
        if not self.fin_sent:
            return False
        return not self.retain or (self.fin_acknowledged and self.acknowledged == self.written)


class _Range:
    """Bytes received behind a gap: `start`..`end` of the stream, in pieces."""

    __slots__ = ("end", "pieces", "start")

    def __init__(self, start: int, data: bytes) -> None:
        self.start = start
        self.end = start + len(data)
        self.pieces: deque[Buffer] = deque((data,))


def _append(pieces: deque[Buffer], data: Buffer) -> None:
    """Appends a copy of `data`; small pieces are put together."""
    if len(data) >= SMALL:
        pieces.append(bytes(data))
        return
    last = pieces[-1] if pieces else None
    if isinstance(last, bytearray) and len(last) < COALESCED:
        last += data
    else:
        pieces.append(bytearray(data))


class ReceiveStream:
    """Bytes received in order wait in `pieces`; those behind a gap wait in ranges.

    `session.py` appends a view of the data of a record to `lent` itself when it starts at `offset` and ends at or
    below `in_order_limit`, and lets it be copied by `settle`; everything else goes through `insert`.
    """

    __slots__ = (
        "_ranges",
        "buffered",
        "consumed",
        "end_told",
        "final_size",
        "in_order_limit",
        "lent",
        "max_data",
        "offset",
        "pieces",
        "readable_said",
        "reset_code",
        "stopped",
        "stream_id",
        "window",
    )

    def __init__(self, stream_id: int, window: int | None) -> None:
        """`window` None: there is no flow control, and what may come is bounded elsewhere."""
        self.stream_id = stream_id
        self.window = window
        self.max_data = MAX_OFFSET if window is None else window
        """The end of what the peer was allowed."""
        self.offset = 0
        """The end of what was received in order."""
        self.consumed = 0
        """The end of what was given to the application, or dropped."""
        self.buffered = 0
        """Bytes behind gaps."""
        self.pieces: deque[Buffer] = deque()
        self.lent: list[memoryview] = []
        """Behind `pieces`: views of records that are still in the receive buffer."""
        self.in_order_limit = self.max_data
        """The highest end of data that may take the short way; -1 when none may."""
        self.final_size: int | None = None
        self.reset_code: int | None = None
        self.end_told = False
        self.stopped = False
        self.readable_said = False
        self._ranges: list[_Range] = []

    @property
    def highest(self) -> int:
        """The end of everything that counts against the session's window."""
        if self.final_size is not None and self.reset_code is not None:
            return self.final_size
        return self._ranges[-1].end if self._ranges else self.offset

    @property
    def ended(self) -> bool:
        """Whether all was received, or the peer reset it."""
        return self.reset_code is not None or self.offset == self.final_size

    @property
    def finished(self) -> bool:
        """Whether nothing of this half is left to be done: all was given to the application, or nobody wants it."""
        if self.reset_code is not None:
            return self.end_told or self.stopped
        return self.final_size is not None and self.consumed == self.final_size and (self.end_told or self.stopped)

    def check(self, end: int, fin: bool) -> int:
        """By how much data up to `end` would raise `highest`. Raises `PeerError`: FINAL_SIZE, FLOW_CONTROL."""
        highest = self.highest
        final = self.final_size
        if final is not None:
            if end > final or (fin and end != final):
                raise PeerError(Reason.FINAL_SIZE, f"stream {self.stream_id}")
        elif fin and end < highest:
            raise PeerError(Reason.FINAL_SIZE, f"stream {self.stream_id}")
        if end > self.max_data:
            raise PeerError(Reason.FLOW_CONTROL, f"stream {self.stream_id}")
        return max(0, end - highest)

    def insert(self, offset: int, data: Buffer, fin: bool) -> None:
        """Data at any offset, after `check`. What was received before is dropped."""
        end = offset + len(data)
        if fin:
            self.final_size = end
        if self.stopped:
            # Nobody reads it: only the offsets are kept.
            self.offset = self.consumed = max(self.offset, end)
        elif self.reset_code is None and end > self.offset:
            if offset <= self.offset:
                self._append_in_order(memoryview(data)[self.offset - offset :])
            else:
                self._insert_behind_gap(offset, memoryview(data))
        self._judge_short_way()

    def _append_in_order(self, data: memoryview) -> None:
        end = self.offset + len(data)
        if not self._ranges:
            _append(self.pieces, data)
            self.offset = end
            return
        while self._ranges and self._ranges[0].start <= end:
            # Ranges never touch what is in order, so some of the data is new before each of them.
            first = self._ranges.pop(0)
            self.buffered -= first.end - first.start
            _append(self.pieces, data[: first.start - self.offset])
            self.pieces.extend(first.pieces)
            data = data[first.end - self.offset :]
            self.offset = first.end
        if len(data):
            _append(self.pieces, data)
            self.offset += len(data)

    @staticmethod
    def _skip(part: _Range, count: int) -> None:
        while count:
            first = part.pieces.popleft()
            if len(first) > count:
                part.pieces.appendleft(memoryview(first)[count:])
                return
            count -= len(first)

    def _insert_behind_gap(self, offset: int, data: memoryview) -> None:
        """Fills what is missing of `data` into the ranges, which stay disjoint, sorted, and joined where they touch."""
        end = offset + len(data)
        ranges = self._ranges
        at = bisect_right(ranges, offset, key=lambda each: each.start)
        if at and ranges[at - 1].end >= offset:
            at -= 1
            known = ranges[at].end - offset
            if known >= len(data):
                return
            _append(ranges[at].pieces, data[known:])
            self.buffered += len(data) - known
            ranges[at].end = end
        else:
            if len(ranges) >= MAX_GAPS:
                raise PeerError(Reason.FLOW_CONTROL, f"stream {self.stream_id}: more than {MAX_GAPS} gaps")
            ranges.insert(at, _Range(offset, bytes(data)))
            self.buffered += len(data)
        grown = ranges[at]
        while at + 1 < len(ranges) and ranges[at + 1].start <= grown.end:
            behind = ranges.pop(at + 1)
            overlap = min(grown.end, behind.end) - behind.start
            self.buffered -= overlap
            self._skip(behind, overlap)
            grown.pieces.extend(behind.pieces)
            grown.end = max(grown.end, behind.end)

    def reset(self, final_size: int, code: int) -> None:
        """The peer gave the stream up; after `check`. A reset behind the complete data changes nothing."""
        if self.ended:
            return
        self.final_size = final_size
        self.reset_code = code
        # All of it counts as consumed from here on: a stop_sending that follows must not count it again.
        self.consumed = final_size
        self.drop()

    def drop(self) -> None:
        """Lets go of everything buffered; it counts as consumed."""
        self.pieces.clear()
        self._ranges.clear()
        self.buffered = 0
        self._judge_short_way()

    def stop(self) -> None:
        """Nobody reads this stream any more."""
        highest = self.highest
        self.stopped = True
        self.drop()
        self.offset = self.consumed = highest

    def settle(self) -> None:
        """Copies what was lent, all of it at once and into one piece: small records cost no more than large ones."""
        if self.pieces and len(self.lent[0]) < SMALL:
            for view in self.lent:
                _append(self.pieces, view)
        else:
            self.pieces.append(b"".join(self.lent))
        self.lent.clear()

    def take(self, limit: int) -> bytes:
        """Up to `limit` bytes in order, b"" when there are none now."""
        pieces = self.pieces
        if not pieces or limit <= 0:
            return b""
        first = pieces[0]
        size = len(first)
        if size > limit:
            whole = memoryview(first)
            pieces[0] = whole[limit:]
            taken = bytes(whole[:limit])
        elif len(pieces) == 1 or size + len(pieces[1]) > limit:
            pieces.popleft()
            taken = bytes(first)
        else:
            gathered = []
            room = limit
            while pieces and len(pieces[0]) <= room:
                gathered.append(pieces.popleft())
                room -= len(gathered[-1])
            taken = b"".join(gathered)
        self.consumed += len(taken)
        return taken

    def credit(self) -> int | None:
        """A new `max_data` to announce, once half a window was consumed."""
        if self.window is None or self.final_size is not None or self.stopped:
            return None
        maximum = self.consumed + self.window
        if maximum - self.max_data < max(1, self.window // 2):
            return None
        self.max_data = maximum
        self._judge_short_way()
        return maximum

    def _judge_short_way(self) -> None:
        plain = not self._ranges and self.final_size is None and not self.stopped
        self.in_order_limit = self.max_data if plain else -1
