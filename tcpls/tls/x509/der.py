"""Reading DER (X.690) strictly: definite and shortest lengths, low tags, everything consumed. What X.509 needs."""

from __future__ import annotations

SEQUENCE = 0x30
SET = 0x31
BOOLEAN = 0x01
INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
OID = 0x06

_MAX_OID = 40
"""Bytes of an object identifier: more than any in use, so that a certificate cannot make one of great numbers."""

_MAX_NAMED = 2
"""Bytes of a bit string whose bits have names: KeyUsage has nine (RFC 5280 4.2.1.3)."""


class DerError(ValueError):
    """This is not DER, or not of the shape that was expected."""


class Der:
    """Reads elements one after the other. `take` and its kin name the tag that must come."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def tag(self) -> int | None:
        """The tag of the next element; None at the end."""
        return self._data[self._at] if self._at < len(self._data) else None

    def _bounds(self) -> tuple[int, int]:
        """Where the contents of the next element start and end."""
        data, at = self._data, self._at
        if at + 2 > len(data):
            raise DerError("an element is cut off")
        if data[at] & 0x1F == 0x1F:
            raise DerError("a tag of several bytes")
        size, at = data[at + 1], at + 2
        if size >= 0x80:
            # X.690 10.1: the shortest form. Three bytes are more than a handshake message can hold.
            count = size & 0x7F
            if not 1 <= count <= 3 or at + count > len(data):
                raise DerError("a length that is indefinite, too large or cut off")
            size = int.from_bytes(data[at : at + count], "big")
            at += count
            if size < 0x80 or size >> (8 * (count - 1)) == 0:
                raise DerError("a length that is not the shortest")
        if at + size > len(data):
            raise DerError("an element is longer than what holds it")
        return at, at + size

    def any(self) -> tuple[int, bytes]:
        """Tag and contents of the next element."""
        start, end = self._bounds()
        tag, self._at = self._data[self._at], end
        return tag, self._data[start:end]

    def whole(self, tag: int) -> bytes:
        """The next element with its header."""
        if self.tag != tag:
            raise DerError(f"not the tag {tag:#04x}")
        at, (_, end) = self._at, self._bounds()
        self._at = end
        return self._data[at:end]

    def take(self, tag: int) -> bytes:
        """The contents of the next element."""
        if self.tag != tag:
            raise DerError(f"not the tag {tag:#04x}")
        return self.any()[1]

    def optional(self, tag: int) -> bytes | None:
        """The contents of the next element if it has this tag."""
        return self.take(tag) if self.tag == tag else None

    def sub(self, tag: int = SEQUENCE) -> Der:
        return Der(self.take(tag))

    def end(self) -> None:
        if self.tag is not None:
            raise DerError("bytes that belong to nothing")

    def boolean(self) -> bool:
        contents = self.take(BOOLEAN)
        # X.690 11.1.
        if contents not in (b"\x00", b"\xff"):
            raise DerError("a boolean that is neither")
        return contents == b"\xff"

    def flag(self) -> bool:
        """A BOOLEAN DEFAULT FALSE."""
        if self.tag != BOOLEAN:
            return False
        # X.690 11.5: a default value is left out.
        if not self.boolean():
            raise DerError("a default value that is written out")
        return True

    def integer(self) -> int:
        contents = self.take(INTEGER)
        # X.690 8.3.2: not nine equal bits in front.
        if not contents or (len(contents) > 1 and contents[0] in (0, 0xFF) and contents[1] >> 7 == contents[0] & 1):
            raise DerError("a number that is not the shortest")
        return int.from_bytes(contents, "big", signed=True)

    def bytes_of_bits(self) -> bytes:
        """A bit string of whole bytes."""
        contents = self.take(BIT_STRING)
        if not contents or contents[0]:
            raise DerError("a bit string of a part of a byte")
        return contents[1:]

    def named_bits(self) -> frozenset[int]:
        """A bit string as the numbers of the bits that are set."""
        contents = self.take(BIT_STRING)
        # X.690 11.2.2: no zeros at the end, in the last byte or beyond.
        if not 1 <= len(contents) <= 1 + _MAX_NAMED or contents[0] > 7 or (len(contents) == 1 and contents[0]):
            raise DerError("a bit string that is too long, or counts its unused bits wrongly")
        if len(contents) > 1 and (contents[-1] & ((1 << contents[0]) - 1) or not contents[-1] >> contents[0] & 1):
            raise DerError("a bit string with bits that should not be there")
        value = contents[1:]
        return frozenset(8 * i + j for i, byte in enumerate(value) for j in range(8) if byte << j & 0x80)

    def oid(self) -> str:
        contents = self.take(OID)
        if not 1 <= len(contents) <= _MAX_OID or contents[-1] & 0x80:
            raise DerError("an object identifier that is cut off or too long")
        arcs: list[int] = []
        value, fresh = 0, True
        for byte in contents:
            # X.690 8.19.2: no zeros in front.
            if fresh and byte == 0x80:
                raise DerError("an object identifier that is not the shortest")
            value, fresh = value << 7 | byte & 0x7F, not byte & 0x80
            if fresh:
                arcs.append(value)
                value = 0
        first = min(arcs[0] // 40, 2)
        return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))
