"""What a handshake tells the layer below it, in order: messages to send, secrets to use, and how it ended."""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

from tcpls.observe import KeyLog
from tcpls.tls.algorithms import Group, SignatureScheme
from tcpls.tls.ech.status import EchStatus
from tcpls.tls.engine import CryptoEngine
from tcpls.tls.key_schedule import (
    ApplicationSecrets,
    Exporter,
    HandshakeSecrets,
    HandshakeTrafficSecret,
    ResumptionSecret,
    TrafficSecret,
)
from tcpls.tls.messages import Message
from tcpls.tls.record import MAX_CONTENT
from tcpls.tls.suites import CipherSuite
from tcpls.tls.transcript import Transcript


class Epoch(enum.Enum):
    """Which keys protect a message. There is no early data, and so no epoch for it."""

    INITIAL = "initial"
    HANDSHAKE = "handshake"
    APPLICATION = "application"


@dataclass(frozen=True, slots=True)
class MessageToSend:
    """A whole handshake message with its header."""

    epoch: Epoch
    data: bytes


@dataclass(frozen=True, slots=True)
class WriteSecret:
    """Everything after this is sent with keys of this secret."""

    epoch: Epoch
    secret: HandshakeTrafficSecret | TrafficSecret


@dataclass(frozen=True, slots=True)
class ReadSecret:
    """Everything after the message being received is protected with keys of this secret."""

    epoch: Epoch
    secret: HandshakeTrafficSecret | TrafficSecret


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a complete handshake agreed on. `peer_extensions` are those that TLS itself does not know.

    `group` is None for psk_ke, `signature_scheme` for a handshake without certificates, which was authenticated by a
    ticket (`resumed`) or by an external key (`psk_identity`). `verified`: the client knows who the server is.
    `remembered`: what the ticket held of the application's own.
    """

    suite: CipherSuite
    group: Group | None
    signature_scheme: SignatureScheme | None
    alpn: bytes | None
    server_name: str | None
    peer_certificates: tuple[bytes, ...]
    peer_extensions: dict[int, bytes]
    read_secret: TrafficSecret
    write_secret: TrafficSecret
    exporter: Exporter = field(repr=False)
    retried: bool
    resumption: ResumptionSecret
    verified: bool = False
    resumed: bool = False
    psk_identity: bytes | None = None
    remembered: bytes = field(default=b"", repr=False)
    ech: EchStatus = EchStatus.NOT_OFFERED


FlowEvent = MessageToSend | WriteSecret | ReadSecret | Outcome


class Flow:
    """One handshake's transcript and its events. The states write to it."""

    def __init__(self, engine: CryptoEngine, key_log: KeyLog) -> None:
        self.engine = engine
        self.transcript = Transcript(engine)
        self.client_random = b""
        self.read_epoch = Epoch.INITIAL
        self.compatible = False
        """Whether change_cipher_spec records are to be sent (RFC 8446 D.4)."""
        self.early_data = False
        """Whether the client sends early data, which this end refuses and so has to skip (RFC 8446 4.2.10)."""
        self.max_sent = MAX_CONTENT
        self.max_received = MAX_CONTENT
        """Bytes of content in a protected record, that the peer takes and that this end does (RFC 8449)."""
        self.flight_over = False
        """Whether the peer has nothing more to say before it has read an answer that goes out now."""
        self._key_log = key_log
        self._write_epoch = Epoch.INITIAL
        self._events: list[FlowEvent] = []

    def events(self) -> list[FlowEvent]:
        """Drains."""
        events, self._events = self._events, []
        return events

    def send(self, message: bytes, hashed: bytes | None = None) -> None:
        """`hashed`: what the transcript takes in place of a message that only wraps it (RFC 9849 6.1.5)."""
        self.transcript.add(message if hashed is None else hashed)
        self._events.append(MessageToSend(self._write_epoch, message))

    def write_with(self, epoch: Epoch, secret: HandshakeTrafficSecret | TrafficSecret) -> None:
        self._write_epoch = epoch
        self._events.append(WriteSecret(epoch, secret))

    def read_with(self, epoch: Epoch, secret: HandshakeTrafficSecret | TrafficSecret) -> None:
        self.read_epoch = epoch
        self._events.append(ReadSecret(epoch, secret))

    def complete(self, outcome: Outcome) -> None:
        self._events.append(outcome)

    def log_ech(self, outer_random: bytes, secret: bytes, config: bytes) -> None:
        """RFC 9850 2.3 (its labels for ECH): by the random that everybody sees."""
        self._key_log.secret("ECH_SECRET", outer_random, secret)
        self._key_log.secret("ECH_CONFIG", outer_random, config)

    def limit_records(self, announced: int, own: int) -> None:
        """Both ends have told their record_size_limit: from now on they hold."""
        # RFC 8449 section 4: it counts the content type too; a greater one than the protocol's is not enforced.
        self.max_sent = min(announced - 1, MAX_CONTENT)
        self.max_received = own - 1

    def log_handshake(self, secrets: HandshakeSecrets) -> None:
        self._key_log.secret("CLIENT_HANDSHAKE_TRAFFIC_SECRET", self.client_random, secrets.client.secret)
        self._key_log.secret("SERVER_HANDSHAKE_TRAFFIC_SECRET", self.client_random, secrets.server.secret)

    def log_application(self, secrets: ApplicationSecrets) -> None:
        self._key_log.secret("CLIENT_TRAFFIC_SECRET_0", self.client_random, secrets.client.secret)
        self._key_log.secret("SERVER_TRAFFIC_SECRET_0", self.client_random, secrets.server.secret)
        self._key_log.secret("EXPORTER_SECRET", self.client_random, secrets.exporter.secret)


class State(Protocol):
    """The handshake awaits one message, of a type that it accepts."""

    @property
    def accepts(self) -> Collection[int]: ...

    def receive(self, message: Message) -> State:
        """Gives the state that awaits the next message. Raises `PeerError`."""


class Complete:
    """The handshake is over: no message is accepted."""

    accepts: Collection[int] = ()

    def receive(self, message: Message) -> State:
        return self
