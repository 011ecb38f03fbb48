"""Early data over sockets: what a client sends ahead of its handshake, and how a server reads while it is under way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tcpls.aio.session import Session
from tcpls.aio.stream import Stream
from tcpls.errors import Alert, AlertReceived, HandshakeError, PeerError, Reason
from tcpls.protocol.connections import FATAL
from tcpls.protocol.core import Core
from tcpls.protocol.early import early_records
from tcpls.protocol.negotiation import Outcome
from tcpls.protocol.parameters import Parameters
from tcpls.protocol.resumption import Remembered
from tcpls.tls.connection import ClientConnection, Established, ServerConnection
from tcpls.tls.record import ContentType, RecordOpener
from tcpls.tls.suites import TrafficKeys
from tcpls.tls.tickets import Ticket

RECEIVE_SIZE = 1 << 16


@dataclass(frozen=True, slots=True)
class FirstWords:
    """What a client was given to say first. `ahead` bytes of it went as early data."""

    data: bytes
    ahead: int

    @classmethod
    def send(cls, tls: ClientConnection, ticket: Ticket | None, local: Parameters, data: bytes) -> FirstWords:
        """Puts as much of the data behind the ClientHello as the ticket and the server's windows allow."""
        if ticket is None or not tls.early_room:
            return cls(data, 0)
        try:
            remembered = Remembered.read(ticket.remembered)
        except PeerError:  # Of another version of this program.
            return cls(data, 0)
        records, ahead = early_records(remembered, local, data, tls.early_room)
        for record in records:
            tls.send_early(record)
        return cls(data, ahead)

    def accepted(self, ticket: Ticket | None, established: Established, outcome: Outcome) -> bytes:
        """What the server has taken. It was made for what the server had announced then, which must still hold."""
        if not self.ahead or not established.early_data.accepted or ticket is None:
            return b""
        if Remembered.by_client(outcome).write() != ticket.remembered:
            raise HandshakeError(Reason.ILLEGAL_CHOICE, "early data was accepted, but under other parameters of TCPLS")
        return self.data[: self.ahead]

    async def say(self, session: Session) -> Stream:
        """Says what was not accepted, for the first time or once more. The stream that begins with the data."""
        stream, said = session.first_stream, self.ahead
        if stream is None:
            stream, said = await session.open_stream(), 0
        if said < len(self.data):
            await stream.write(self.data[said:])
        return stream


class EarlySource:
    """Where a server that answers early data reads from: at first its handshake, then records as ever.

    `done` is called once, when the handshake is complete, with what may take this object's place.
    """

    def __init__(
        self, tls: ServerConnection, core: Core, done: Callable[[RecordOpener], None], now: Callable[[], float]
    ) -> None:
        self._tls = tls
        self._core = core
        self._done = done
        self._now = now
        self._buffer = memoryview(bytearray(RECEIVE_SIZE))
        self._received = 0
        self._opener: RecordOpener | None = None
        self._alert: int | None = None
        core.handshaking = True

    # What the transport does.

    @property
    def buffered(self) -> int:
        return 0 if self._opener is None else self._opener.buffered

    def writable(self) -> memoryview:
        return self._buffer

    def received(self, count: int) -> None:
        self._received = count

    def release(self) -> None:
        """There is nothing to be given back before the handshake is complete."""

    # What the core does.

    def next_record(self) -> tuple[int, memoryview] | None:
        if self._opener is None:
            self._shake_hands()
        if self._alert is not None:
            alert, self._alert = bytes((FATAL, self._alert)), None
            return ContentType.ALERT, memoryview(alert)
        return None if self._opener is None else self._opener.next_record()

    def _shake_hands(self) -> None:
        tls, core = self._tls, self._core
        data, self._received = self._buffer[: self._received], 0
        try:
            if data:
                tls.receive_data(data)
        except AlertReceived as received:
            # RFC 8446 6.1: close_notify ends data, and that of a client which has not finished is not all there. Nor
            # is it with user_canceled, which ends the handshake, whatever would follow it.
            if received.alert in (Alert.CLOSE_NOTIFY, Alert.USER_CANCELED):
                raise HandshakeError(Reason.CONNECTION_CLOSED) from None
            self._alert = received.alert
        finally:
            # What came ahead of an error is genuine.
            for record in tls.early_records():
                core.receive_early(record, self._now())
        if tls.handshake_complete:
            established = tls.established()
            core.handshaking = False
            core.send_messages(tls.messages_to_send())
            keys = established.read_secret.keys(established.read_sequence)
            engine = established.read_secret.engine
            self._opener = RecordOpener(engine.aead, keys, engine.invalid_tag, max_content=established.max_received)
            self._opener.feed(established.unread)
            self._done(self._opener)

    @property
    def full_records(self) -> int:
        return 0 if self._opener is None else self._opener.full_records

    def open_run(self, content_type: int, trailer_size: int, trailers: Iterator[bytes]) -> list[memoryview]:
        return [] if self._opener is None else self._opener.open_run(content_type, trailer_size, trailers)

    def switch_keys(self, keys: TrafficKeys) -> None:
        if self._opener is not None:
            self._opener.switch_keys(keys)
