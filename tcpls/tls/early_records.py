"""Records of early data: what a client may still send, and what a server has received (RFC 8446 section 4.2.10)."""

from __future__ import annotations

from tcpls.errors import HandshakeError, Reason
from tcpls.tls.record import MAX_CONTENT, ContentType, RecordSealer

MAX_EMPTY = 32
"""Records of early data that carry nothing: each costs a decryption, and none counts against the limit."""


class EarlyWriter:
    """Seals early data as long as the ticket's limit allows it."""

    def __init__(self, sealer: RecordSealer, limit: int) -> None:
        self._sealer = sealer
        self.room = limit
        """Bytes that may still be sent. RFC 8446 4.2.10: content counts, padding and content type do not."""

    def seal(self, data: bytes) -> bytes:
        """The records for as many bytes of `data` as there is room for."""
        sealer, sealed = self._sealer, bytearray()
        data = data[: self.room]
        for start in range(0, len(data), MAX_CONTENT):
            sealer.put(ContentType.APPLICATION_DATA, data[start : start + MAX_CONTENT])
            sealed += sealer.pending
            sealer.sent(len(sealer.pending))
        self.room -= len(data)
        return bytes(sealed)


class EarlyReader:
    """Keeps the early data that was received, by records, until somebody takes it."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._empty = 0
        self._records: list[bytes] = []

    def receive(self, content: memoryview) -> None:
        # RFC 8446 4.2.10: more than max_early_data_size is an unexpected_message.
        if len(content) > self._left:
            raise HandshakeError(Reason.TOO_MUCH_EARLY_DATA)
        self._left -= len(content)
        if content:
            self._records.append(bytes(content))
            return
        self._empty += 1
        if self._empty > MAX_EMPTY:
            raise HandshakeError(Reason.TOO_MANY_RECORDS, "empty early data")

    def take(self) -> list[bytes]:
        """Drains."""
        records, self._records = self._records, []
        return records
