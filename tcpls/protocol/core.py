"""The interface between a core and its shell. `Session` (TCPLS) and `PlainSession` (ordinary TLS 1.3) implement it."""

from __future__ import annotations

from typing import Protocol

from tcpls.errors import PeerError
from tcpls.protocol.actions import Action
from tcpls.protocol.events import Event
from tcpls.tls.record import RecordSink, RecordSource
from tcpls.tls.suites import TrafficKeys


class Core(Protocol):
    """`now` is a monotonic time in seconds. No method blocks, and none touches the world."""

    # What the shell calls.

    def receive_records(self, connection_id: int, source: RecordSource, now: float) -> None:
        """Takes every record that `source` has, and keeps nothing of its memory. Raises `PeerError`: call `fail`."""

    def receive_record(
        self, connection_id: int, content_type: int, content: memoryview, now: float
    ) -> TrafficKeys | None:
        """One opened record, lent until `settle`, for shells that have no source.

        Keys returned open this connection's next record.
        """

    handshaking: bool
    """Set by a shell that lets early data be answered, until the handshake is complete: a close without error waits."""

    def receive_early(self, content: bytes, now: float) -> None:
        """A record of early data on connection 0 (RFC 8446 2.3). It has no number and is not acknowledged.

        To be called while `receive_records` runs, or followed by `settle`. Raises `PeerError`.
        """

    def sent_early(self, data: bytes) -> int:
        """A client's early data, all of which went in records before the session began and was accepted.

        To be called before any stream is opened; gives the id of the one that it began.
        """

    def send_messages(self, messages: bytes) -> None:
        """Handshake messages that connection 0 is to carry behind what was put there already."""

    def settle(self) -> None:
        """Copies what is wanted of the records lent so far: their memory is about to be used again."""

    def connection_ended(self, connection_id: int, error: str | None, now: float) -> None:
        """The TCP connection ended: with a FIN (None), or with an error that says how.

        After `CloseConnection` the shell says so too when it gives up waiting: None when all was sent and only the
        peer's end is missing.
        """

    def fail(self, connection_id: int, error: PeerError, now: float) -> None:
        """`receive_records` raised: queue the alert, end the session with this error."""

    def transmit(self, connection_id: int, sink: RecordSink, now: float) -> None:
        """Put records into `sink` while it has room and there is something to say."""

    def set_blocked(self, connection_id: int, blocked: bool) -> None:
        """Whether the kernel takes no more records of this connection now."""

    def next_timer(self) -> float | None:
        """When `timer_expired` wants to be called, or None."""

    def timer_expired(self, now: float) -> None: ...

    def events(self) -> list[Event]: ...

    def actions(self) -> list[Action]: ...

    @property
    def reading_paused(self) -> bool:
        """True while nothing more should be received. Only ever towards a peer that has no flow control."""

    @property
    def credit_due(self) -> bool:
        """Whether `receive` left the shell something to do: credit to send to the peer, or reading to go on.

        So that an application that reads in small pieces does not run the whole shell for each of them.
        """

    @property
    def ended(self) -> bool:
        """Whether `SessionEnded` has been said."""

    @property
    def delivered(self) -> bool:
        """Once ended: whether the peer is known to have taken all that was sent and not given up."""

    def abandon(self) -> None:
        """The shell has closed every connection: the session ends here, and the peer is told nothing."""

    # What the application calls, through the shell. Each may raise `ApiMisuse`, and what it documents.

    def open_stream(self) -> int | None:
        """A new stream's id, or None when the peer's limit is reached (then `StreamsAvailable` follows)."""

    def announce(self, stream_id: int) -> None:
        """The peer is told of a stream that was opened, though there is no data for it yet."""

    def send(self, stream_id: int, data: bytes, now: float, more: bool = False) -> None:
        """Queues all of `data`, which is not copied. Callers wait for `send_capacity` first; it may go below zero.

        With `more`, what does not fill a record waits for more data, or for `push`. Raises `StreamReset` when the
        peer stopped reading, and the session's error when it ended.
        """

    def push(self, stream_id: int) -> None:
        """What was queued goes out whether it fills a record or not."""

    def send_capacity(self, stream_id: int) -> int:
        """Bytes that may be queued now without holding more than the send buffer's bound. Raises what `send` raises
        when the stream or the session is over, so that nobody waits for room that never comes."""

    def unsent(self, stream_id: int) -> int:
        """Bytes that were queued and not put in records; also when they never will be. 0 of streams that are over."""

    def finish(self, stream_id: int) -> None:
        """The stream ends behind what was queued (FIN). Idempotent."""

    def send_finished(self, stream_id: int) -> bool:
        """Whether all of the stream, FIN included, has been handed to a connection (acknowledged, with failover)."""

    def reset(self, stream_id: int, code: int) -> None:
        """Gives up sending the stream: what was not sent is dropped."""

    def stop_sending(self, stream_id: int, code: int) -> None:
        """Gives up receiving the stream: what arrives is dropped, and the peer is asked to stop."""

    def receive(self, stream_id: int, limit: int) -> bytes | None:
        """Up to `limit` bytes in order; b"" at the end of the stream; None when nothing is there now.

        Raises `StreamReset`, and the session's error once all that came before it was received.
        """

    def close(self, code: int, reason: str, now: float) -> None:
        """Authenticated close of the whole session. Idempotent."""

    def ping(self, now: float) -> int:
        """Asks the peer for an acknowledgment; `Pong` follows. Raises `NotNegotiated` on plain TLS."""

    def update_keys(self, request: bool) -> None:
        """Changes the sending keys; with `request`, asks the peer to change its own (RFC 8446 4.6.3)."""
