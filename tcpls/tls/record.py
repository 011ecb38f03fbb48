"""Record protection (RFC 8446 section 5) in user space: many records sealed into one send buffer, opened in place
out of one receive buffer.

This is one of the three places where throughput is decided. Sealing copies the content once, into the send
buffer, and encrypts it there; opening decrypts in the receive buffer and lends the plaintext. Per record there is one
call into the AEAD and no object that outlives the record.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Protocol

from tcpls.errors import ProtocolViolation, Reason
from tcpls.tls.suites import IV_SIZE, TAG_SIZE, Aead, TrafficKeys
from tcpls.wire import Buffer

HEADER_SIZE = 5
MAX_CONTENT = 1 << 14
"""Bytes of content in one record (RFC 8446 5.1)."""
MAX_CIPHERTEXT = MAX_CONTENT + 256
"""Bytes after the header of one protected record (RFC 8446 5.2)."""
RECORD_ROOM = HEADER_SIZE + MAX_CONTENT + 1 + TAG_SIZE
"""Bytes that a full record of ours takes on the wire."""
MIN_CONTENT = 63
"""Bytes of content that every peer takes in a record: RFC 8449 section 4, less the content type."""


class ContentType(enum.IntEnum):
    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23


class RecordSink(Protocol):
    """Where the records of one connection go: sealed in user space, or handed to the kernel in plaintext."""

    @property
    def room(self) -> bool:
        """Whether a full record can be put now."""

    @property
    def sequence(self) -> int:
        """The sequence number that the next record will have."""

    @property
    def max_content(self) -> int:
        """Bytes of content that the peer takes in one record: `MAX_CONTENT`, or less (RFC 8449)."""

    def put(self, content_type: int, *parts: Buffer) -> None:
        """Makes one record of the parts, at most `max_content` bytes together. They are not held after the call."""

    def put_run(self, content_type: int, data: memoryview, trailers: Sequence[bytes]) -> int:
        """Makes records of `max_content`: one of `trailers` in each, all of one size, and ahead what fits of `data`.

        Returns how many were put, which is at least one when there is room, and ends where the room does.
        """

    @property
    def can_switch_keys(self) -> bool:
        """Whether `switch_keys` works: some kernels' TLS cannot. To be asked before a KeyUpdate is put."""

    def switch_keys(self, keys: TrafficKeys) -> None:
        """Everything put from now on is protected with `keys`."""


class RecordSource(Protocol):
    """Where the records of one connection come from."""

    def next_record(self) -> tuple[int, memoryview] | None:
        """The next record's content type and content, or None when more must be received.

        The content is lent: it is overwritten when more is received. Raises `ProtocolViolation`.
        """

    @property
    def full_records(self) -> int:
        """How many records of `RECORD_ROOM` bytes the received bytes have room for: what `open_run` may open."""

    def open_run(self, content_type: int, trailer_size: int, trailers: Iterator[bytes]) -> list[memoryview]:
        """Opens the next records as long as they are full, of this type, and each ends with the next of `trailers`.

        Returns what stands in front of the trailers, lent. Whatever else comes is left to `next_record`, errors too.
        """

    def switch_keys(self, keys: TrafficKeys) -> None:
        """The next record is protected with `keys`."""


AeadFactory = Callable[[TrafficKeys], Aead]


def _full_header(room: int) -> bytes:
    """Of records that take `room` bytes."""
    return b"\x17\x03\x03" + (room - HEADER_SIZE).to_bytes(2, "big")


_FULL_HEADER = _full_header(RECORD_ROOM)

_Slot = tuple[memoryview, memoryview, memoryview, memoryview, memoryview]
"""The places of a full record: its header, content, trailer with content type, plaintext (both of them), and all of
what is protected, tag included."""


def _full_record(view: memoryview, start: int, room: int, trailer_size: int) -> _Slot:
    body = start + HEADER_SIZE
    end = start + room
    middle = end - TAG_SIZE
    trailer = middle - 1 - trailer_size
    return view[start:body], view[body:trailer], view[trailer:middle], view[body:middle], view[body:end]


class _Slots:
    """The places of full records that follow each other in a buffer.

    Making a view costs more than copying a kilobyte, and in bulk transfers records lie at the same places again and
    again: those that start with the buffer are kept. `room`: bytes of one full record.
    """

    __slots__ = ("_kept", "_room", "_trailer_size", "_view")

    def __init__(self, view: memoryview, room: int = RECORD_ROOM) -> None:
        self._view = view
        self._room = room
        self._trailer_size = -1
        self._kept: list[_Slot] = []

    def places(self, start: int, count: int, trailer_size: int) -> Iterator[_Slot]:
        """The next `count` from `start` on; the caller knows that they fit."""
        room = self._room
        first, aside = divmod(start, room)
        if aside:
            starts = range(start, start + count * room, room)
            return (_full_record(self._view, at, room, trailer_size) for at in starts)
        kept = self._kept
        if trailer_size != self._trailer_size:
            self._trailer_size = trailer_size
            kept.clear()
        while len(kept) < first + count:
            kept.append(_full_record(self._view, len(kept) * room, room, trailer_size))
        return islice(kept, first, first + count)


class RecordSealer:
    """Seals records into a send buffer that grows from one record to `capacity` bytes while they are in demand.

    `max_content`: what the peer takes in a record. `padding`: records are padded to a multiple of that many bytes.
    """

    __slots__ = (
        "_aead",
        "_buffer",
        "_capacity",
        "_end",
        "_factory",
        "_iv",
        "_limit",
        "_slots",
        "_start",
        "_view",
        "max_content",
        "padding",
        "sequence",
    )

    def __init__(
        self,
        factory: AeadFactory,
        keys: TrafficKeys,
        capacity: int = 32 * RECORD_ROOM,
        *,
        max_content: int = MAX_CONTENT,
        padding: int = 1,
    ) -> None:
        self._factory = factory
        self._capacity = max(capacity, 2 * RECORD_ROOM)
        self.padding = padding
        self.max_content = max_content
        self._use(bytearray())
        self._start = 0
        self._end = 0
        self.switch_keys(keys)

    def switch_keys(self, keys: TrafficKeys) -> None:
        self._aead = self._factory(keys)
        self._iv = int.from_bytes(keys.iv, "big")
        self._limit = keys.suite.record_limit
        self.sequence = keys.sequence

    @property
    def can_switch_keys(self) -> bool:
        return True

    def limit_content(self, most: int) -> None:
        """The peer has told what it takes in a record."""
        self.max_content = most
        self._use(self._buffer)

    @property
    def room(self) -> bool:
        return self._capacity - self._end >= RECORD_ROOM

    @property
    def pending(self) -> memoryview:
        """The sealed bytes that wait to be sent, lent until the next call of `sent` or `put`."""
        return self._view[self._start : self._end]

    def sent(self, count: int) -> None:
        """`count` bytes of `pending` were handed to the network."""
        self._start += count
        if self._start == self._end:
            self._start = self._end = 0

    def release(self) -> None:
        """Gives the buffer back when nothing is pending: an idle connection holds no send buffer."""
        if not self._end:
            self._use(bytearray())

    def _use(self, buffer: bytearray) -> None:
        self._buffer = buffer
        self._view = memoryview(buffer)
        self._slots = _Slots(self._view, HEADER_SIZE + self.max_content + 1 + TAG_SIZE)

    def _grow(self) -> None:
        size = min(self._capacity, max(2 * RECORD_ROOM, 4 * len(self._buffer)))
        grown = bytearray(size)
        grown[: self._end] = self._view[: self._end]
        self._use(grown)

    def put(self, content_type: int, *parts: Buffer) -> None:
        start = self._end
        if start + RECORD_ROOM > len(self._buffer):
            self._grow()
        view = self._view
        body = at = start + HEADER_SIZE
        for part in parts:
            begin = at
            at += len(part)
            view[begin:at] = part
        view[at] = content_type
        at += 1
        if self.padding > 1:
            at = self._pad(body, at)
        end = at + TAG_SIZE
        size = end - body
        # RFC 8446 5.2: the outer type is application_data and the version 1.2, whatever the content.
        header = b"\x17\x03\x03" + size.to_bytes(2, "big")
        view[start:body] = header
        sequence = self.sequence
        if sequence >= self._limit:
            # RFC 8446 5.5: a key must not protect more than this; the session updates its keys long before.
            raise ProtocolViolation(Reason.KEY_EXHAUSTED)
        self._aead.encrypt_into((self._iv ^ sequence).to_bytes(IV_SIZE, "big"), view[body:at], header, view[body:end])
        self.sequence = sequence + 1
        self._end = end

    def _pad(self, body: int, at: int) -> int:
        """Zeros behind the content type, as far as the peer takes them; returns where they end."""
        block = self.padding
        # RFC 8446 5.4: any length of zeros, within the limit of the record; RFC 8449 section 4: which counts them.
        padded = min(body + -(-(at - body) // block) * block, body + self.max_content + 1)
        self._view[at:padded] = bytes(padded - at)
        return padded

    def put_run(self, content_type: int, data: memoryview, trailers: Sequence[bytes]) -> int:
        """`put` for many full records, with everything that they share done once. There is no room for padding."""
        size = self.max_content
        room = HEADER_SIZE + size + 1 + TAG_SIZE
        while self._end + len(trailers) * room > len(self._buffer) < self._capacity:
            self._grow()
        count = min(len(trailers), (len(self._buffer) - self._end) // room)
        sequence, iv = self.sequence, self._iv
        if sequence + count > self._limit:
            # RFC 8446 5.5, as in `put`.
            raise ProtocolViolation(Reason.KEY_EXHAUSTED)
        trailer_size = len(trailers[0])
        size -= trailer_size
        full_header = _full_header(room)
        encrypt_into = self._aead.encrypt_into
        kind = bytes((content_type,))
        at = 0
        slots = self._slots.places(self._end, count, trailer_size)
        for (header, content, end, plaintext, sealed), trailer in zip(slots, trailers, strict=False):
            header[:] = full_header
            content[:] = data[at : at + size]
            end[:] = trailer + kind
            encrypt_into((iv ^ sequence).to_bytes(IV_SIZE, "big"), plaintext, full_header, sealed)
            sequence += 1
            at += size
        self.sequence = sequence
        self._end += count * room
        return count


class RecordOpener:
    """Opens records in place in a receive buffer that grows from `initial` to `capacity` while it comes back full."""

    __slots__ = (
        "_aead",
        "_ahead",
        "_buffer",
        "_capacity",
        "_end",
        "_factory",
        "_initial",
        "_invalid",
        "_iv",
        "_slots",
        "_start",
        "_view",
        "max_content",
        "sequence",
    )

    def __init__(
        self,
        factory: AeadFactory,
        keys: TrafficKeys,
        invalid: type[Exception],
        *,
        initial: int = HEADER_SIZE + MAX_CIPHERTEXT,
        capacity: int = 32 * RECORD_ROOM,
        max_content: int = MAX_CONTENT,
    ) -> None:
        """`invalid` is the exception by which the factory's AEADs tell that a record is not genuine.

        `max_content`: what was agreed that the peer puts into a record, padding included (RFC 8449).
        """
        self.max_content = max_content
        self._factory = factory
        self._invalid = invalid
        self._initial = max(initial, HEADER_SIZE + MAX_CIPHERTEXT)
        self._capacity = max(capacity, self._initial)
        self._use(bytearray(self._initial))
        self._start = 0
        self._end = 0
        self._ahead = 0
        """Where the plaintext of a record starts that `open_run` opened and left to `next_record`."""
        self.switch_keys(keys)

    def switch_keys(self, keys: TrafficKeys) -> None:
        self._aead = self._factory(keys)
        self._iv = int.from_bytes(keys.iv, "big")
        self.sequence = keys.sequence

    @property
    def buffered(self) -> int:
        """Bytes received and not opened: not zero at the end of input means a record was cut."""
        return self._end - self._start

    def writable(self) -> memoryview:
        """Where received bytes are to be written. Everything lent before is invalid from here on."""
        start, end = self._start, self._end
        if start == end:
            self._start = self._end = 0
            if end == len(self._buffer):
                # The buffer came back full: records come faster than they are read.
                self._resize(min(self._capacity, 4 * len(self._buffer)))
        elif start:
            rest = end - start
            self._view[:rest] = bytes(self._view[start:end])
            if end == len(self._buffer):
                self._start, self._end = 0, rest
                self._resize(min(self._capacity, 4 * len(self._buffer)))
            self._start, self._end = 0, rest
        elif end == len(self._buffer):
            # Fed to the brim and not read yet: without room, a receive of nothing would look like the end of input.
            self._resize(end + self._initial)
        return self._view[self._end :]

    def received(self, count: int) -> None:
        """`count` bytes were written to the start of `writable`."""
        self._end += count

    def feed(self, data: Buffer) -> None:
        """Appends bytes that were received elsewhere, such as those behind a Finished."""
        if self._start == self._end:
            self._start = self._end = 0
        if self._end + len(data) > len(self._buffer):
            self._resize(self._end + len(data))
        self._view[self._end : self._end + len(data)] = data
        self._end += len(data)

    def discard(self) -> None:
        """Drops what is buffered, such as a record that could not be opened and is not to be."""
        self._start = self._end = self._ahead = 0

    def release(self) -> None:
        """Shrinks to one record's room when nothing is buffered: for connections that fell idle."""
        if self._start == self._end and len(self._buffer) > self._initial:
            self._start = self._end = 0
            self._resize(self._initial)

    def _use(self, buffer: bytearray) -> None:
        self._buffer = buffer
        self._view = memoryview(buffer)
        self._slots = _Slots(self._view)

    def _resize(self, size: int) -> None:
        if size == len(self._buffer):
            return
        resized = bytearray(size)
        resized[: self._end] = self._view[: self._end]
        self._use(resized)

    @property
    def full_records(self) -> int:
        return (self._end - self._start) // RECORD_ROOM if self.max_content == MAX_CONTENT else 0

    def open_run(self, content_type: int, trailer_size: int, trailers: Iterator[bytes]) -> list[memoryview]:
        """`next_record` for many full records, with everything that they share done once."""
        contents: list[memoryview] = []
        sequence, iv, decrypt_into = self.sequence, self._iv, self._aead.decrypt_into
        kind = bytes((content_type,))
        slots = self._slots.places(self._start, self.full_records, trailer_size)
        for (header, content, end, plaintext, sealed), trailer in zip(slots, trailers, strict=False):
            if header != _FULL_HEADER:
                break
            try:
                decrypt_into((iv ^ sequence).to_bytes(IV_SIZE, "big"), sealed, _FULL_HEADER, plaintext)
            except self._invalid:
                # What came before it is genuine, and is to be handled first. It will not be genuine the next time.
                break
            sequence += 1
            if end != trailer + kind:
                self._ahead = self._start + len(contents) * RECORD_ROOM + HEADER_SIZE
                break
            contents.append(content)
        self.sequence = sequence
        self._start += (len(contents) + bool(self._ahead)) * RECORD_ROOM
        return contents

    def next_record(self) -> tuple[int, memoryview] | None:
        start = self._start
        if self._ahead:
            body, self._ahead = self._ahead, 0
            return self._content(body, start - TAG_SIZE)
        body = start + HEADER_SIZE
        if body > self._end:
            return None
        view = self._view
        size = view[start + 3] << 8 | view[start + 4]
        end = body + size
        if end > self._end:
            # Judged before the rest is awaited, so that no peer makes us wait for a record that cannot be.
            self._check_header(view[start], size)
            return None
        header = bytes(view[start:body])
        # RFC 8446 5.2: opaque_type is always application_data once records are protected.
        if header[0] != 23 or size > MAX_CIPHERTEXT or size <= TAG_SIZE:
            self._check_header(header[0], size)
        at = end - TAG_SIZE
        nonce = (self._iv ^ self.sequence).to_bytes(IV_SIZE, "big")
        try:
            self._aead.decrypt_into(nonce, view[body:end], header, view[body:at])
        except self._invalid:
            raise ProtocolViolation(Reason.BAD_RECORD_MAC) from None
        self.sequence += 1
        self._start = end
        return self._content(body, at)

    def _content(self, body: int, at: int) -> tuple[int, memoryview]:
        """The content type and the content of the plaintext between these places."""
        if at - body > self.max_content + 1:
            # RFC 8446 5.4: the full TLSInnerPlaintext must not exceed 2^14 + 1 bytes, padding included.
            # RFC 8449 section 4: nor the limit that this end has announced; either is a record_overflow.
            raise ProtocolViolation(Reason.RECORD_OVERFLOW)
        view = self._view
        # RFC 8446 5.4: the content type is the last byte that is not zero; what follows it is padding.
        at -= 1
        content_type = view[at]
        if not content_type:
            padded = bytes(view[body:at]).rstrip(b"\0")
            if not padded:
                raise ProtocolViolation(Reason.UNEXPECTED_RECORD, "a record of padding alone")
            at = body + len(padded) - 1
            content_type = padded[-1]
        return content_type, view[body:at]

    @staticmethod
    def _check_header(outer_type: int, size: int) -> None:
        if outer_type != ContentType.APPLICATION_DATA:
            known = outer_type in (20, 21, 22)
            raise ProtocolViolation(
                Reason.UNEXPECTED_RECORD if known else Reason.BAD_RECORD_HEADER, f"outer type {outer_type}"
            )
        if size > MAX_CIPHERTEXT:
            raise ProtocolViolation(Reason.RECORD_OVERFLOW, f"{size} bytes")
        if size <= TAG_SIZE:
            # Shorter than a tag and a content type: it cannot be genuine (RFC 8446 5.2).
            raise ProtocolViolation(Reason.BAD_RECORD_MAC, f"{size} bytes")
