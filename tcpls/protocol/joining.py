"""The bytes of a connection that joins a session, until its first record is opened (draft section 4.1.2).

It looks like the beginning of any TLS 1.3 connection: a ClientHello with the token, a ServerHello, change_cipher_spec.
Neither proves anything. What does is the first record that opens with keys of the session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tcpls.errors import AlertReceived, HandshakeError, ProtocolViolation, Reason
from tcpls.protocol.keys import JoinKeys
from tcpls.tls.engine import CryptoEngine
from tcpls.tls.messages import HandshakeType, Reassembly, ServerHello
from tcpls.tls.record import HEADER_SIZE, MAX_CIPHERTEXT, MAX_CONTENT, ContentType, RecordOpener
from tcpls.tls.suites import TrafficKeys

CHANGE_CIPHER_SPEC = b"\x14\x03\x03\x00\x01\x01"
RECEIVE_SIZE = HEADER_SIZE + MAX_CIPHERTEXT
"""Bytes that are received at once, and at most kept, before the first record is opened."""


class JoinSource:
    """A record source that becomes one with its first record.

    `keys` gives the session's keys of now, when that record is there. `proven` is told, once, by which candidate of
    `JoinKeys.read` it was opened, ahead of the record itself.
    """

    def __init__(
        self,
        keys: Callable[[], JoinKeys],
        engine: CryptoEngine,
        *,
        is_client: bool,
        max_content: int,
        proven: Callable[[int], None] = lambda candidate: None,
    ) -> None:
        self._keys = keys
        self._engine = engine
        self._max_content = max_content
        self._proven = proven
        self._hello = Reassembly() if is_client else None
        """None once the server's ServerHello has come."""
        self._change_cipher_spec = False
        self._inbound = bytearray()
        self._room = memoryview(bytearray(RECEIVE_SIZE))
        self._first: tuple[int, memoryview] | None = None
        self.opener: RecordOpener | None = None
        """What may take this object's place once the first record was given out."""

    # What a transport does.

    @property
    def buffered(self) -> int:
        return len(self._inbound) if self.opener is None else self.opener.buffered

    def writable(self) -> memoryview:
        return self._room if self.opener is None else self.opener.writable()

    def received(self, count: int) -> None:
        if self.opener is None:
            self._inbound += self._room[:count]
        else:
            self.opener.received(count)

    def feed(self, data: bytes) -> None:
        """What was received before this object was made."""
        self._inbound += data

    def release(self) -> None:
        if self.opener is not None:
            self.opener.release()

    # What the core does.

    def next_record(self) -> tuple[int, memoryview] | None:
        """Raises what `prove` does."""
        if self.opener is None:
            candidate = self.prove()
            if candidate is None:
                return None
            self._proven(candidate)
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return None if self.opener is None else self.opener.next_record()

    def prove(self) -> int | None:
        """The candidate that opens the first record, once that has come; `next_record` then gives it.

        Raises `PeerError` for what cannot begin a connection that joins, and `AlertReceived`.
        """
        while (record := self._next_raw()) is not None:
            if (candidate := self._take(record)) is not None:
                return candidate
        return None

    def _next_raw(self) -> bytes | None:
        inbound = self._inbound
        if len(inbound) < HEADER_SIZE:
            return None
        size = inbound[3] << 8 | inbound[4]
        # RFC 8446 5.1 and 5.2.
        if size > (MAX_CIPHERTEXT if inbound[0] == ContentType.APPLICATION_DATA else MAX_CONTENT):
            raise ProtocolViolation(Reason.RECORD_OVERFLOW, f"{size} bytes")
        end = HEADER_SIZE + size
        if len(inbound) < end:
            return None
        record = bytes(inbound[:end])
        del inbound[:end]
        return record

    def _take(self, record: bytes) -> int | None:
        kind, content = record[0], record[HEADER_SIZE:]
        if kind == ContentType.ALERT and self._hello is not None and len(content) == 2:
            # The server knows no such token, and has no keys to say so under.
            raise AlertReceived(content[1])
        if kind == ContentType.HANDSHAKE and self._hello is not None:
            self._receive_hello(self._hello, content)
        elif kind == ContentType.CHANGE_CIPHER_SPEC and content == b"\x01" and not self._change_cipher_spec:
            self._change_cipher_spec = True
        elif kind == ContentType.APPLICATION_DATA and self._hello is None:
            return self._open(record)
        else:
            raise ProtocolViolation(Reason.UNEXPECTED_RECORD, f"outer type {kind}")
        return None

    def _receive_hello(self, reassembly: Reassembly, content: bytes) -> None:
        """It has to be a ServerHello; what it says is for those who watch."""
        reassembly.feed(content)
        message = reassembly.next((HandshakeType.SERVER_HELLO,))
        if message is None:
            return
        hello = ServerHello.read(message.body())
        if hello.is_retry or reassembly.pending:
            raise HandshakeError(Reason.UNEXPECTED_MESSAGE, "in answer to a join")
        self._hello = None

    def _open(self, record: bytes) -> int:
        for candidate, keys in enumerate(self._keys().read):
            # Each has a copy: what could not be opened is overwritten by the attempt.
            opener = self._opener_with(keys)
            opener.feed(record)
            try:
                opened = opener.next_record()
            except ProtocolViolation as error:
                if error.reason is not Reason.BAD_RECORD_MAC:
                    raise
                continue
            if opened is not None:
                self._first = opened[0], memoryview(bytes(opened[1]))
                opener.feed(self._inbound)
                self._inbound.clear()
                self._room = memoryview(b"")
                self.opener = opener
                return candidate
        raise ProtocolViolation(Reason.BAD_RECORD_MAC, "the first record of a connection that joins")

    def _opener_with(self, keys: TrafficKeys) -> RecordOpener:
        engine = self._engine
        return RecordOpener(engine.aead, keys, engine.invalid_tag, max_content=self._max_content)

    @property
    def full_records(self) -> int:
        return 0 if self.opener is None else self.opener.full_records

    def open_run(self, content_type: int, trailer_size: int, trailers: Iterator[bytes]) -> list[memoryview]:
        return [] if self.opener is None else self.opener.open_run(content_type, trailer_size, trailers)

    def switch_keys(self, keys: TrafficKeys) -> None:
        if self.opener is not None:
            self.opener.switch_keys(keys)
