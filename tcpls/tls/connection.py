"""TLS 1.3 connections until the handshake is complete: records, alerts and change_cipher_spec around a `Handshake`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from tcpls.errors import Alert, AlertReceived, ApiMisuse, HandshakeError, PeerError, ProtocolViolation, Reason
from tcpls.observe import NULL_KEY_LOG, KeyLog
from tcpls.tls.config import NO_PADDING, ClientConfig, Padding, ServerConfig
from tcpls.tls.early_data import EarlyData
from tcpls.tls.early_records import EarlyReader, EarlyWriter
from tcpls.tls.ech.status import EchStatus
from tcpls.tls.engine import CryptoEngine
from tcpls.tls.flow import Answerable, Epoch, HandedOver, MessageToSend, Outcome, ReadSecret, WriteSecret
from tcpls.tls.handshake import ClientHandshake, Handshake, ServerHandshake
from tcpls.tls.key_schedule import Exporter, ResumptionSecret, TrafficSecret
from tcpls.tls.messages import NewSessionTicket
from tcpls.tls.record import HEADER_SIZE, MAX_CIPHERTEXT, MAX_CONTENT, ContentType, RecordOpener, RecordSealer
from tcpls.tls.suites import CipherSuite, Random
from tcpls.tls.tickets import Ticket, TicketSource
from tcpls.wire import Buffer

_FATAL = 2

# The members of an enumeration take as long to look up as a call, and some are asked for with each record.
_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE, _APPLICATION_DATA = ContentType
_INITIAL, _EARLY = Epoch.INITIAL, Epoch.EARLY

_CHANGE_CIPHER_SPEC_RECORD = b"\x14\x03\x03\x00\x01\x01"

MAX_CHANGE_CIPHER_SPECS = 4
"""Records that are dropped. A compatible peer sends one, or two around early data (RFC 8446 D.4)."""

MAX_SKIPPED = 1 << 16
"""Bytes of refused early data that are skipped besides those that a ticket of ours may allow (RFC 8446 4.2.10): what
is around them, and what a ticket of another server allowed."""


@dataclass(slots=True)
class Established:
    """What a complete handshake leaves to whoever reads and writes records from now on.

    `group` and `signature_scheme` are "" where there was none: with a pre-shared key. `resumed`: by a ticket;
    `psk_identity`: of the external key that was used; a server has that of the session that is resumed, too.
    `remembered`: what the ticket held of the application's own. `until`: as in `Ticket`, for tickets of this session.
    `early_data`: what became of it, and why; `early_exporter` is there when it was accepted.
    """

    suite: CipherSuite
    group: str
    signature_scheme: str
    alpn: bytes | None
    server_name: str | None
    peer_certificates: tuple[bytes, ...]
    peer_raw_key: bytes
    peer_extensions: dict[int, bytes]
    read_secret: TrafficSecret
    write_secret: TrafficSecret
    read_sequence: int
    write_sequence: int
    unread: bytes
    retried: bool
    exporter: Exporter = field(repr=False)
    resumption: ResumptionSecret
    verified: bool
    ocsp_response: bytes = field(repr=False)
    ocsp_verified: bool
    resumed: bool
    psk_identity: bytes | None
    remembered: bytes = field(repr=False)
    until: float | None
    ech: EchStatus
    early_data: EarlyData
    early_exporter: Exporter | None = field(repr=False)
    max_sent: int = MAX_CONTENT
    """Bytes of content that the peer takes in one record (RFC 8449)."""
    max_received: int = MAX_CONTENT
    """Bytes of content, padding included, that the peer may put into one record."""
    note: bytes = field(default=b"", repr=False)
    """What a server's `Answer` had for its caller."""

    def export(self, label: bytes, context: bytes, length: int) -> bytes:
        """Keying material for other protocols (RFC 8446 7.5)."""
        return self.exporter.export(label, context, length)

    def ticket(self, message: NewSessionTicket, now: float, remembered: bytes = b"") -> Ticket | None:
        """What a client keeps of a NewSessionTicket that came at `now`, in seconds since 1970; None if nothing.

        `remembered` is the application's own.
        """
        return self.ticket_source.ticket(message, now, remembered)

    @property
    def ticket_source(self) -> TicketSource:
        """What `ticket` needs, for whoever waits for tickets and has no use for the rest."""
        return TicketSource(self.resumption, self.server_name, self.alpn, self.verified, self.until)


class TLSConnection:
    """Bytes in, bytes out, until `handshake_complete`; then `established` hands over, and this object is done."""

    def __init__(self, handshake: Handshake, engine: CryptoEngine, padding: Padding = NO_PADDING) -> None:
        self._handshake = handshake
        self._engine = engine
        self._padding = padding
        self._inbound = bytearray()
        self._outbound = bytearray()
        self._opener: RecordOpener | None = None
        self._sealer: RecordSealer | None = None
        self._next_secret: WriteSecret | None = None
        self._outcome: Outcome | None = None
        self._answerable: Outcome | None = None
        self._finished_with = False
        self._handed_over: HandedOver | None = None
        self._peer_spoke = False
        """Whether a handshake message was sent or received, from when on change_cipher_spec may come."""
        self._opened_any = False
        self._sent_change_cipher_spec = False
        self._sent_any = False
        self._dropped = 0
        self._skipped = 0
        self._most_skipped = MAX_SKIPPED
        self._early_writer: EarlyWriter | None = None
        self._early_reader: EarlyReader | None = None
        self._perform()

    @property
    def handshake_complete(self) -> bool:
        return self._outcome is not None

    @property
    def early_data(self) -> EarlyData:
        """What has become of early data so far."""
        return self._handshake.early_data

    def data_to_send(self) -> bytes:
        """Drains. Alerts are here too, after `receive_data` raised."""
        data = bytes(self._outbound)
        self._outbound.clear()
        return data

    def receive_data(self, data: Buffer) -> None:
        """Bytes from the peer in any fragmentation. Raises `HandshakeError`, `CertificateError` or `AlertReceived`."""
        if self._finished_with:
            raise ApiMisuse("the connection has failed or was handed over")
        self._inbound += data
        try:
            # What comes behind the peer's Finished is for the layer above.
            while self._outcome is None and self._handed_over is None and (record := self._next_record()):
                self._receive_record(*record)
        except AlertReceived:
            self._finished_with = True
            raise
        except PeerError as error:
            self._finished_with = True
            self._write_alert(error.alert)
            if isinstance(error, HandshakeError):
                raise
            raise HandshakeError(error.reason, error.detail) from None

    def _write_alert(self, alert: Alert) -> None:
        self._write(_ALERT, bytes((_FATAL, alert)))

    def receive_eof(self) -> None:
        """The peer will send nothing more. Raises `HandshakeError` while the handshake is not complete."""
        if self._finished_with or self._outcome is not None:
            return
        self._finished_with = True
        raise HandshakeError(Reason.CONNECTION_CLOSED)

    def established(self) -> Established:
        """Once, when the handshake is complete. Take `data_to_send` too: the last flight may wait there."""
        outcome = self._outcome
        if outcome is None or self._finished_with:
            raise ApiMisuse("the handshake is not complete, or was handed over already")
        self._finished_with = True
        return self._established(outcome)

    def _established(self, outcome: Outcome) -> Established:
        return Established(
            suite=outcome.suite,
            group="" if outcome.group is None else outcome.group.label,
            signature_scheme="" if outcome.signature_scheme is None else outcome.signature_scheme.label,
            alpn=outcome.alpn,
            server_name=outcome.server_name,
            peer_certificates=outcome.peer_certificates,
            peer_raw_key=outcome.peer_raw_key,
            peer_extensions=outcome.peer_extensions,
            read_secret=outcome.read_secret,
            write_secret=outcome.write_secret,
            read_sequence=0,
            write_sequence=0 if self._sealer is None or self._next_secret is not None else self._sealer.sequence,
            unread=bytes(self._inbound),
            retried=outcome.retried,
            exporter=outcome.exporter,
            resumption=outcome.resumption,
            verified=outcome.verified,
            ocsp_response=outcome.ocsp_response,
            ocsp_verified=outcome.ocsp_verified,
            resumed=outcome.resumed,
            psk_identity=outcome.psk_identity,
            remembered=outcome.remembered,
            until=outcome.until,
            ech=outcome.ech,
            max_sent=self._handshake.max_sent,
            max_received=self._handshake.max_received,
            early_data=outcome.early_data,
            early_exporter=outcome.early_exporter,
            note=outcome.note,
        )

    # Receiving

    def _next_record(self) -> tuple[int, bytes] | None:
        """The next whole record: outer type, and the record with its header, by which it is judged at once."""
        inbound = self._inbound
        if len(inbound) < HEADER_SIZE:
            # Nothing but a known type is waited for.
            if inbound:
                self._check_outer_type(inbound[0])
            return None
        outer_type = inbound[0]
        self._check_outer_type(outer_type)
        # RFC 8446 5.1: legacy_record_version is ignored for all purposes.
        size = inbound[3] << 8 | inbound[4]
        # RFC 8446 5.1 and 5.2.
        if size > (MAX_CIPHERTEXT if outer_type == _APPLICATION_DATA else MAX_CONTENT):
            raise HandshakeError(Reason.RECORD_OVERFLOW, f"{size} bytes")
        end = HEADER_SIZE + size
        if len(inbound) < end:
            return None
        record = bytes(inbound[:end])
        del inbound[:end]
        return outer_type, record

    def _check_outer_type(self, outer_type: int) -> None:
        if self._opener is None:
            expected = outer_type in (_HANDSHAKE, _ALERT) or (
                outer_type == _APPLICATION_DATA and self._handshake.skips_early_data
            )
        else:
            # The peer that refuses our first flight has no keys to protect its alert with.
            expected = outer_type == _APPLICATION_DATA or (outer_type == _ALERT and not self._opened_any)
        # RFC 8446 5: change_cipher_spec may come after the first ClientHello and until the peer's Finished.
        if not expected and not (outer_type == _CHANGE_CIPHER_SPEC and self._peer_spoke):
            # RFC 8446 5: an unexpected record type is an unexpected_message.
            known = outer_type in (_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE, _APPLICATION_DATA)
            reason = Reason.UNEXPECTED_RECORD if known else Reason.BAD_RECORD_HEADER
            raise HandshakeError(reason, f"outer type {outer_type}")

    def _receive_record(self, outer_type: int, record: bytes) -> None:
        if outer_type == _CHANGE_CIPHER_SPEC:
            self._drop_change_cipher_spec(record)
        elif outer_type != _APPLICATION_DATA:
            self._receive_content(outer_type, memoryview(record)[HEADER_SIZE:])
        elif self._opener is None:
            self._skip(record)
        else:
            self._open(self._opener, record)

    def _drop_change_cipher_spec(self, record: bytes) -> None:
        # RFC 8446 5: the single byte 1, or else an unexpected_message. 5.1: not between parts of a message.
        if record[HEADER_SIZE:] != b"\x01" or self._handshake.incomplete:
            raise HandshakeError(Reason.UNEXPECTED_RECORD, "change_cipher_spec")
        self._dropped += 1
        if self._dropped > MAX_CHANGE_CIPHER_SPECS:
            raise HandshakeError(Reason.TOO_MANY_RECORDS, "change_cipher_spec")

    def _open(self, opener: RecordOpener, record: bytes) -> None:
        opener.feed(record)
        try:
            opened = opener.next_record()
        except ProtocolViolation as error:
            # RFC 8446 4.2.10: what cannot be opened at first is the early data that this end has refused.
            skips = self._handshake.skips_early_data and not self._opened_any
            if error.reason is not Reason.BAD_RECORD_MAC or not skips:
                raise
            opener.discard()
            self._skip(record)
            return
        # The peer that sends early data has no keys for an alert about our flight either.
        self._opened_any = self._handshake.read_epoch is not _EARLY
        if opened is not None:
            self._receive_content(*opened)

    def _skip(self, record: bytes) -> None:
        self._skipped += len(record)
        if self._skipped > self._most_skipped:
            raise HandshakeError(Reason.TOO_MUCH_EARLY_DATA)

    def _receive_content(self, content_type: int, content: memoryview) -> None:
        if content_type == _HANDSHAKE:
            # RFC 8446 5.1: no zero-length fragments of handshake messages.
            if not content:
                raise HandshakeError(Reason.EMPTY_RECORD, "handshake")
            self._peer_spoke = True
            try:
                self._handshake.receive(self._handshake.read_epoch, content)
            finally:
                self._perform()
        elif content_type == _ALERT:
            # RFC 8446 5.1: one record holds exactly one alert, and the whole of it. 6: its level is ignored.
            if not content:
                raise HandshakeError(Reason.EMPTY_RECORD, "alert")
            if len(content) != 2:
                raise HandshakeError(Reason.BAD_LENGTH, "alert")
            raise AlertReceived(content[1])
        elif self._early_reader is not None and self._handshake.read_epoch is _EARLY:
            if content_type != _APPLICATION_DATA:
                raise HandshakeError(Reason.UNEXPECTED_RECORD, f"content type {content_type}")
            # RFC 8446 5.1: no other content between the parts of a message.
            if self._handshake.incomplete:
                raise HandshakeError(Reason.UNEXPECTED_RECORD, "within a handshake message")
            self._early_reader.receive(content)
        else:
            # RFC 8446 2: application data must not come before Finished. 5: nor a protected change_cipher_spec.
            raise HandshakeError(Reason.UNEXPECTED_RECORD, f"content type {content_type}")

    # Sending

    def _perform(self) -> None:
        """Does what the handshake has said. Messages of one epoch share records."""
        flight = b""
        for event in self._handshake.events():
            if isinstance(event, MessageToSend):
                if event.epoch is _INITIAL:
                    # RFC 8446 4.1.4: a retry's ClientHello goes out in plaintext, even behind early data.
                    self._early_writer = self._sealer = self._next_secret = None
                flight += event.data
                continue
            if flight:
                self._send(flight)
                flight = b""
            if isinstance(event, WriteSecret):
                self._write_with(event)
            elif isinstance(event, ReadSecret):
                self._read_with(event)
            elif isinstance(event, Answerable):
                self._answerable = event.outcome
            elif isinstance(event, HandedOver):
                self._handed_over = event
            else:
                self._outcome = event
        if flight:
            self._send(flight)
        # RFC 8449 section 4: early data is sent before the client knows this end's limit.
        if self._opener is not None and self._handshake.read_epoch is not _EARLY:
            self._opener.max_content = self._handshake.max_received

    def _send(self, flight: bytes) -> None:
        """Sends whole messages of one epoch, with what the role sends around them."""
        self._write(_HANDSHAKE, flight)

    def _read_with(self, event: ReadSecret) -> None:
        # The application's records are for the layer above to open; but not the early ones.
        if event.epoch is Epoch.APPLICATION:
            return
        self._opener = RecordOpener(self._engine.aead, event.secret.keys(), self._engine.invalid_tag)
        if event.epoch is _EARLY:
            self._early_reader = EarlyReader(self._handshake.max_early_data)

    def _write_with(self, event: WriteSecret) -> None:
        early = event.epoch is _EARLY
        if early:
            # RFC 8446 D.4: with early data, it stands right behind the first ClientHello.
            self._send_change_cipher_spec()
        self._next_secret = event
        sealer = self._writer() if early else None
        self._early_writer = None if sealer is None else EarlyWriter(sealer, self._handshake.max_early_data)

    def _writer(self) -> RecordSealer | None:
        """What protects the next record, if anything does.

        Keys are made when there is a record for them: with those of the application, this end may never send one here.
        """
        event = self._next_secret
        if event is None:
            return self._sealer
        self._next_secret = None
        keys = event.secret.keys()
        if self._sealer is None:
            self._sealer = RecordSealer(self._engine.aead, keys)
        else:
            self._sealer.switch_keys(keys)
        application = event.epoch in (_EARLY, Epoch.APPLICATION)
        self._sealer.padding = self._padding.data if application else self._padding.handshake
        return self._sealer

    def _write(self, content_type: ContentType, content: bytes) -> None:
        sealer = self._writer()
        most = MAX_CONTENT
        if sealer is not None:
            # RFC 8449 section 4: the limit is one of protected records.
            most = self._handshake.max_sent
            if sealer.max_content != most:
                sealer.limit_content(most)
        for start in range(0, len(content), most):
            part = content[start : start + most]
            if sealer is None:
                # RFC 8446 5.1: the first record of a client may say 1.0, for servers that want it; all others say 1.2.
                self._outbound += bytes((content_type, 3, 3 if self._sent_any else 1)) + len(part).to_bytes(2, "big")
                self._outbound += part
                self._sent_any = True
            else:
                sealer.put(content_type, part)
                self._outbound += sealer.pending
                sealer.sent(len(sealer.pending))

    def _send_change_cipher_spec(self) -> None:
        """RFC 8446 D.4. Once, and only when the client asked for the compatible form."""
        if self._handshake.compatible and not self._sent_change_cipher_spec:
            self._outbound += _CHANGE_CIPHER_SPEC_RECORD
            self._sent_change_cipher_spec = True


class ClientConnection(TLSConnection):
    """`time`: at which certificates are judged, aware of its zone. The ClientHello is in `data_to_send` at once.

    Early data may follow it, by `send_early`, as long as there is `early_room`; whether the server took it is known
    when the handshake is complete (`Established.early_data`), and when not, everything is to be sent again.
    """

    def __init__(self, config: ClientConfig, *, random: Random, time: datetime, key_log: KeyLog = NULL_KEY_LOG) -> None:
        handshake = ClientHandshake(config, random=random, time=time, key_log=key_log)
        super().__init__(handshake, config.engine, config.padding)
        self._peer_spoke = True

    @property
    def early_room(self) -> int:
        """Bytes of early data that may be sent now: none where it is not offered, or is over."""
        return 0 if self._early_writer is None else self._early_writer.room

    def send_early(self, data: bytes) -> int:
        """How many bytes of `data` go out as early data: what there is room for. Up to a full record is one record."""
        if self._early_writer is None:
            return 0
        before = self._early_writer.room
        self._outbound += self._early_writer.seal(data)
        return before - self._early_writer.room

    def _send(self, flight: bytes) -> None:
        # RFC 8446 D.4: ahead of the client's second flight.
        if self._sent_any:
            self._send_change_cipher_spec()
        super()._send(flight)

    def _write_alert(self, alert: Alert) -> None:
        # RFC 8446 D.4: an alert that is protected stands where the second flight would.
        if self._writer() is not None:
            self._send_change_cipher_spec()
        super()._write_alert(alert)


class ServerConnection(TLSConnection):
    """Waits for a ClientHello. `time`, aware of its zone, is needed for tickets and for clients' certificates.

    Early data that is accepted comes out of `early_records` before the handshake is complete. Whoever sent it is not
    known to be there: it may be a replay to another server, so that nothing is to be done for it that may not be done
    twice (RFC 8446 section 8). It may be answered before the handshake is complete, by whoever takes over the writing
    with `established_early`: this object then only reads on.
    """

    def __init__(
        self, config: ServerConfig, *, random: Random, time: datetime | None = None, key_log: KeyLog = NULL_KEY_LOG
    ) -> None:
        self._writing_given_away = False
        self._messages = bytearray()
        handshake = ServerHandshake(config, random=random, time=time, key_log=key_log)
        super().__init__(handshake, config.engine, config.padding)
        self._sent_any = True
        if config.early_data is not None:
            self._most_skipped += config.early_data.limit

    @property
    def answerable(self) -> bool:
        """Whether early data was accepted, so that `established_early` gives what it takes to answer it."""
        return self._answerable is not None

    def established_early(self) -> Established:
        """What is known before the client's Finished, `read_secret` included, which is not in use yet.

        Take `data_to_send` first: from here on, `messages_to_send` and alerts are the caller's to put into records.
        """
        if self._answerable is None or self._writing_given_away or self._finished_with or self._outbound:
            raise ApiMisuse("there is no early data to answer, or not now")
        self._writing_given_away = True
        return self._established(self._answerable)

    @property
    def handed_over(self) -> bool:
        """Whether the handshake has ended with a ServerHello alone (`Answer.hello_only`)."""
        return self._handed_over is not None

    def hand_over(self) -> tuple[dict[int, bytes], bytes]:
        """When `handed_over`: the ClientHello's extensions that TLS does not know, and what came behind it.

        Take `data_to_send` too.
        """
        if self._handed_over is None or self._finished_with:
            raise ApiMisuse("this handshake is not to be handed over, or was")
        self._finished_with = True
        return self._handed_over.extensions, bytes(self._inbound)

    def messages_to_send(self) -> bytes:
        """Handshake messages for whoever took over the writing: the tickets. Drains."""
        messages = bytes(self._messages)
        self._messages.clear()
        return messages

    def _send(self, flight: bytes) -> None:
        if self._writing_given_away:
            self._messages += flight
            return
        super()._send(flight)
        # RFC 8446 D.4: behind the server's first message.
        self._send_change_cipher_spec()

    def _write_alert(self, alert: Alert) -> None:
        if not self._writing_given_away:
            super()._write_alert(alert)

    def early_records(self) -> list[bytes]:
        """The contents of the records of early data that have come. Drains."""
        return [] if self._early_reader is None else self._early_reader.take()
