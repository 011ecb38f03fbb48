"""Reading and writing of wire formats: bounded readers from either end of a buffer, and a writer.

Every length opens a sub-reader of exactly that size, and every reader can be asked whether all of it was consumed,
so that a parser states the shape of a message instead of checking it afterwards.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager

from tcpls.errors import PeerError, Reason

Buffer = bytes | bytearray | memoryview

_TYPE_AND_LENGTH = struct.Struct(">HH")


class Reader:
    """Reads big-endian fields from the front of `data`, or of its part from `start` to `end`, which is not copied.

    Raises `PeerError(TRUNCATED)` when a field does not fit.
    """

    __slots__ = ("_at", "_data", "_end")

    def __init__(self, data: Buffer, start: int = 0, end: int | None = None) -> None:
        self._data = data
        self._at = start
        self._end = len(data) if end is None else end

    @property
    def remaining(self) -> int:
        return self._end - self._at

    def _skip(self, count: int) -> int:
        """Moves behind the next `count` bytes and returns where they start."""
        start = self._at
        end = start + count
        if end > self._end:
            raise PeerError(Reason.TRUNCATED)
        self._at = end
        return start

    def _number(self, count: int) -> int:
        start = self._skip(count)
        return int.from_bytes(self._data[start : start + count], "big")

    def u8(self) -> int:
        return self._data[self._skip(1)]

    def u16(self) -> int:
        start = self._skip(2)
        data = self._data
        return data[start] << 8 | data[start + 1]

    def u24(self) -> int:
        return self._number(3)

    def u32(self) -> int:
        return self._number(4)

    def u64(self) -> int:
        return self._number(8)

    def take(self, count: int) -> bytes:
        """The next `count` bytes, copied."""
        start = self._skip(count)
        return bytes(self._data[start : start + count])

    def rest(self) -> bytes:
        """Everything that is left, copied."""
        return self.take(self.remaining)

    def _measured(self, length_bytes: int, least: int, most: int | None) -> int:
        """Moves behind a length and as many bytes as it says, and returns where those start."""
        start = self._at + length_bytes
        if start > self._end:
            raise PeerError(Reason.TRUNCATED)
        length = int.from_bytes(self._data[self._at : start], "big")
        if length < least or (most is not None and length > most):
            raise PeerError(Reason.BAD_LENGTH, f"{length} bytes")
        end = start + length
        if end > self._end:
            raise PeerError(Reason.TRUNCATED)
        self._at = end
        return start

    def vector(self, length_bytes: int, *, least: int = 0, most: int | None = None) -> Reader:
        """A sub-reader over a length-prefixed vector. Raises `BAD_LENGTH` outside `least`..`most`."""
        start = self._measured(length_bytes, least, most)
        return Reader(self._data, start, self._at)

    def opaque(self, length_bytes: int, *, least: int = 0, most: int | None = None) -> bytes:
        """A length-prefixed byte string, copied."""
        start = self._measured(length_bytes, least, most)
        return bytes(self._data[start : self._at])

    def u16s(self, length_bytes: int, *, least: int = 0, most: int | None = None) -> tuple[int, ...]:
        """A length-prefixed vector of numbers of 16 bits. Raises `BAD_LENGTH` for half a number as well."""
        start = self._measured(length_bytes, least, most)
        size = self._at - start
        if size % 2:
            raise PeerError(Reason.BAD_LENGTH, f"{size} bytes")
        return struct.unpack_from(f">{size // 2}H", self._data, start)

    def typed(self) -> Iterator[tuple[int, bytes]]:
        """Everything that is left, as fields that each have a type and a length of 16 bits in front; copied."""
        data, end = self._data, self._end
        while self._at != end:
            start = self._at + 4
            if start > end:
                raise PeerError(Reason.TRUNCATED)
            kind, length = _TYPE_AND_LENGTH.unpack_from(data, self._at)
            self._at = start + length
            if self._at > end:
                raise PeerError(Reason.TRUNCATED)
            yield kind, bytes(data[start : self._at])

    def end(self) -> None:
        """Raises `TRAILING_BYTES` unless everything was consumed."""
        if self._at != self._end:
            raise PeerError(Reason.TRAILING_BYTES, f"{self.remaining} bytes")


class TailReader:
    """Reads big-endian fields from the end of `data` towards its beginning (TCPLS draft section 4.2)."""

    __slots__ = ("_end", "_view")

    def __init__(self, data: Buffer) -> None:
        self._view = memoryview(data)
        self._end = len(self._view)

    @property
    def remaining(self) -> int:
        return self._end

    def view(self, count: int) -> memoryview:
        """The `count` bytes before the ones read so far, lent: valid as long as the record's buffer is."""
        start = self._end - count
        if start < 0:
            raise PeerError(Reason.TRUNCATED)
        taken = self._view[start : self._end]
        self._end = start
        return taken

    def u8(self) -> int:
        return self.view(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.view(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self.view(4), "big")

    def u64(self) -> int:
        return int.from_bytes(self.view(8), "big")

    def take(self, count: int) -> bytes:
        return bytes(self.view(count))

    def opaque(self, length_bytes: int, *, least: int = 0, most: int | None = None) -> bytes:
        """A byte string whose length stands after it, copied."""
        length = int.from_bytes(self.view(length_bytes), "big")
        if length < least or (most is not None and length > most):
            raise PeerError(Reason.BAD_LENGTH, f"{length} bytes")
        return self.take(length)


class _Vector:
    """The block of a `Writer.vector`: a generator would do, and cost more than what is written in it."""

    __slots__ = ("_data", "_length_bytes", "_start")

    def __init__(self, data: bytearray, length_bytes: int) -> None:
        self._data = data
        self._length_bytes = length_bytes

    def __enter__(self) -> None:
        self._data += bytes(self._length_bytes)
        self._start = len(self._data)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        start, data = self._start, self._data
        data[start - self._length_bytes : start] = (len(data) - start).to_bytes(self._length_bytes, "big")


class Writer:
    """Appends big-endian fields. `vector` writes a length prefix for whatever is written inside it.

    A value that does not fit its field is a mistake of the caller and raises `OverflowError`.
    """

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def __len__(self) -> int:
        return len(self._data)

    def u8(self, value: int) -> None:
        self._data += value.to_bytes(1, "big")

    def u16(self, value: int) -> None:
        self._data += value.to_bytes(2, "big")

    def u24(self, value: int) -> None:
        self._data += value.to_bytes(3, "big")

    def u32(self, value: int) -> None:
        self._data += value.to_bytes(4, "big")

    def u64(self, value: int) -> None:
        self._data += value.to_bytes(8, "big")

    def put(self, data: Buffer) -> None:
        self._data += data

    def vector(self, length_bytes: int) -> AbstractContextManager[None]:
        return _Vector(self._data, length_bytes)

    def opaque(self, length_bytes: int, data: Buffer) -> None:
        """A byte string with its length in front."""
        self._data += len(data).to_bytes(length_bytes, "big")
        self._data += data

    def opaque_tail(self, length_bytes: int, data: Buffer) -> None:
        """A byte string with its length behind it, as `TailReader.opaque` reads it."""
        self._data += data
        self._data += len(data).to_bytes(length_bytes, "big")

    def bytes(self) -> bytes:
        return bytes(self._data)
