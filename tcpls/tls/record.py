"""Record protection (RFC 8446 section 5) in user space: many records sealed into one send buffer, opened in place
out of one receive buffer.

This is one of the three places where throughput is decided. Sealing copies the content once, into the send
buffer, and encrypts it there; opening decrypts in the receive buffer and lends the plaintext. Per record there is one
call into the AEAD and no object that outlives the record.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
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

    def put(self, content_type: int, *parts: Buffer) -> None:
        """Makes one record of the parts, at most `MAX_CONTENT` bytes together. They are not held after the call."""

    def put_run(self, content_type: int, data: memoryview, size: int, trailers: Sequence[bytes]) -> int:
        """Makes records that all have the same size: the next `size` bytes of `data` and one of `trailers` in each.

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

    def switch_keys(self, keys: TrafficKeys) -> None:
        """The next record is protected with `keys`."""


AeadFactory = Callable[[TrafficKeys], Aead]


class RecordSealer:
    """Seals records into a send buffer that grows from one record to `capacity` bytes while they are in demand."""

    __slots__ = ("_aead", "_buffer", "_capacity", "_end", "_factory", "_iv", "_limit", "_start", "_view", "sequence")

    def __init__(self, factory: AeadFactory, keys: TrafficKeys, capacity: int = 32 * RECORD_ROOM) -> None:
        self._factory = factory
        self._capacity = max(capacity, 2 * RECORD_ROOM)
        self._buffer = bytearray()
        self._view = memoryview(self._buffer)
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
            self._view.release()
            self._buffer = bytearray()
            self._view = memoryview(self._buffer)

    def _grow(self) -> None:
        size = min(self._capacity, max(2 * RECORD_ROOM, 4 * len(self._buffer)))
        grown = bytearray(size)
        grown[: self._end] = self._view[: self._end]
        self._view.release()
        self._buffer = grown
        self._view = memoryview(grown)

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

    def put_run(self, content_type: int, data: memoryview, size: int, trailers: Sequence[bytes]) -> int:
        """`put` for many records of one size, with everything that they share done once."""
        trailer_size = len(trailers[0]) + 1
        sealed_size = size + trailer_size + TAG_SIZE
        header = b"\x17\x03\x03" + sealed_size.to_bytes(2, "big")
        while self._end + len(trailers) * RECORD_ROOM > len(self._buffer) < self._capacity:
            self._grow()
        count = min(len(trailers), (len(self._buffer) - self._end) // RECORD_ROOM)
        sequence, start, view, iv = self.sequence, self._end, self._view, self._iv
        if sequence + count > self._limit:
            # RFC 8446 5.5, as in `put`.
            raise ProtocolViolation(Reason.KEY_EXHAUSTED)
        encrypt_into = self._aead.encrypt_into
        kind = bytes((content_type,))
        at = 0
        for trailer in trailers[:count]:
            body = start + HEADER_SIZE
            middle = body + size
            end = middle + trailer_size
            view[start:body] = header
            view[body:middle] = data[at : at + size]
            view[middle:end] = trailer + kind
            start = end + TAG_SIZE
            encrypt_into((iv ^ sequence).to_bytes(IV_SIZE, "big"), view[body:end], header, view[body:start])
            sequence += 1
            at += size
        self.sequence = sequence
        self._end = start
        return count


class RecordOpener:
    """Opens records in place in a receive buffer that grows from `initial` to `capacity` while it comes back full."""

    __slots__ = (
        "_aead",
        "_buffer",
        "_capacity",
        "_end",
        "_factory",
        "_initial",
        "_invalid",
        "_iv",
        "_start",
        "_view",
        "sequence",
    )

    def __init__(
        self,
        factory: AeadFactory,
        keys: TrafficKeys,
        invalid: type[Exception],
        *,
        initial: int = HEADER_SIZE + MAX_CIPHERTEXT,
        capacity: int = 1 << 19,
    ) -> None:
        """`invalid` is the exception by which the factory's AEADs tell that a record is not genuine."""
        self._factory = factory
        self._invalid = invalid
        self._initial = max(initial, HEADER_SIZE + MAX_CIPHERTEXT)
        self._capacity = max(capacity, self._initial)
        self._buffer = bytearray(self._initial)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
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
        self._start = self._end = 0

    def release(self) -> None:
        """Shrinks to one record's room when nothing is buffered: for connections that fell idle."""
        if self._start == self._end and len(self._buffer) > self._initial:
            self._start = self._end = 0
            self._resize(self._initial)

    def _resize(self, size: int) -> None:
        if size == len(self._buffer):
            return
        resized = bytearray(size)
        resized[: self._end] = self._view[: self._end]
        self._buffer = resized
        self._view = memoryview(resized)

    def next_record(self) -> tuple[int, memoryview] | None:
        start = self._start
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
        if at - body > MAX_CONTENT + 1:
            # RFC 8446 5.4: the full TLSInnerPlaintext must not exceed 2^14 + 1 bytes, padding included.
            raise ProtocolViolation(Reason.RECORD_OVERFLOW)
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
