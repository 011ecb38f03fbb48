"""What a handshake tells the layer below it, in order: messages to send, secrets to use, and how it ended."""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

from tcpls.observe import KeyLog
from tcpls.tls.algorithms import Group, SignatureScheme
from tcpls.tls.early_data import EarlyData
from tcpls.tls.ech.status import EchStatus
from tcpls.tls.engine import CryptoEngine
from tcpls.tls.key_schedule import (
    ApplicationSecrets,
    EarlySecrets,
    EarlyTrafficSecret,
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

Secret = EarlyTrafficSecret | HandshakeTrafficSecret | TrafficSecret
"""Of one direction in one epoch."""


class Epoch(enum.Enum):
    """Which keys protect a message. Of the handshake, only EndOfEarlyData is in the epoch of early data."""

    INITIAL = "initial"
    EARLY = "early"
    HANDSHAKE = "handshake"
    APPLICATION = "application"


@dataclass(frozen=True, slots=True)
class MessageToSend:
    """A whole handshake message with its header."""

    epoch: Epoch
    data: bytes


@dataclass(frozen=True, slots=True)
class WriteSecret:
    """Everything after this is sent with keys of this secret.

    In the epoch of early data that is the application's, until the next secret, or a message in another epoch.
    """

    epoch: Epoch
    secret: Secret


@dataclass(frozen=True, slots=True)
class ReadSecret:
    """Everything after the message being received is protected with keys of this secret."""

    epoch: Epoch
    secret: Secret


@dataclass(frozen=True, slots=True)
class Peer:
    """Who the peer is. `certificates`: its chain in DER; or else `raw_key`: its SubjectPublicKeyInfo (RFC 7250).

    `verified`: this end knows the peer by one of them, or by a key that
    both share. `ocsp_response`: what came with the chain; `ocsp_verified`: it says that the certificate is good, and
    may say so now.
    """

    certificates: tuple[bytes, ...] = ()
    raw_key: bytes = b""
    verified: bool = False
    ocsp_response: bytes = field(default=b"", repr=False)
    ocsp_verified: bool = False


@dataclass(slots=True)
class Outcome:
    """What a complete handshake agreed on; a server fills in the client's part when that comes.

    `peer_extensions` are those that TLS itself does not know.

    `group` is None for psk_ke, `signature_scheme` (the server's) for a handshake without certificates, which was
    authenticated by a ticket (`resumed`) or by an external key (`psk_identity`). `verified`: this end knows who the
    peer is. `remembered`: what the ticket held of the application's own. `early_exporter` is there when early data was
    accepted. `until`: when tickets of this session, and of those that resume it, are over, in seconds since 1970. A
    server has the `psk_identity` of the session that is resumed, too.
    """

    suite: CipherSuite
    group: Group | None
    signature_scheme: SignatureScheme | None
    alpn: bytes | None
    server_name: str | None
    peer_certificates: tuple[bytes, ...]
    peer_raw_key: bytes
    peer_extensions: dict[int, bytes]
    read_secret: TrafficSecret
    write_secret: TrafficSecret
    exporter: Exporter = field(repr=False)
    retried: bool
    resumption: ResumptionSecret
    verified: bool = False
    ocsp_response: bytes = field(default=b"", repr=False)
    ocsp_verified: bool = False
    resumed: bool = False
    psk_identity: bytes | None = None
    remembered: bytes = field(default=b"", repr=False)
    until: float | None = None
    ech: EchStatus = EchStatus.NOT_OFFERED
    early_data: EarlyData = EarlyData.NOT_ASKED
    early_exporter: Exporter | None = field(default=None, repr=False)
    note: bytes = field(default=b"", repr=False)
    """What the server's `Answer` had."""


@dataclass(frozen=True, slots=True)
class Answerable:
    """A server that has accepted early data may answer it from here on: what is agreed on, but for the client's part.

    The client is not known to be there before its Finished; and `resumption` is not known yet.
    """

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The handshake ends with what was sent, and without keys of its own: the connection is the caller's.

    `extensions` are those of the ClientHello that TLS does not know.
    """

    extensions: dict[int, bytes]


FlowEvent = MessageToSend | WriteSecret | ReadSecret | Answerable | HandedOver | Outcome


class Flow:
    """One handshake's transcript and its events. The states write to it."""

    def __init__(self, engine: CryptoEngine, key_log: KeyLog, *, end_of_early_data: bool = True) -> None:
        self.engine = engine
        self.transcript = Transcript(engine)
        self.client_random = b""
        self.read_epoch = Epoch.INITIAL
        self.compatible = False
        """Whether change_cipher_spec records are to be sent (RFC 8446 D.4)."""
        self.end_of_early_data = end_of_early_data
        """Whether a message ends early data. In QUIC, none does (RFC 9001 section 8.3)."""
        self.skips_early_data = False
        """Whether the client sends early data, which this end refuses and so has to skip (RFC 8446 4.2.10)."""
        self.max_sent = MAX_CONTENT
        self.max_received = MAX_CONTENT
        """Bytes of content in a protected record, that the peer takes and that this end does (RFC 8449)."""
        self.early_data = EarlyData.NOT_ASKED
        """What has become of early data so far."""
        self.max_early_data = 0
        """Bytes of early data that the ticket allows, when it is offered or accepted."""
        self.early_exporter: Exporter | None = None
        self.flight_over = False
        """Whether the peer has nothing more to say before it has read an answer that goes out now."""
        self._key_log = key_log
        self._write_epoch = Epoch.INITIAL
        self._events: list[FlowEvent] = []

    def events(self) -> list[FlowEvent]:
        """Drains."""
        events, self._events = self._events, []
        return events

    def withdraw(self) -> None:
        """Takes back what was said and has not been drained: nothing of it may go out any more."""
        self._events.clear()

    def send(self, message: bytes, hashed: bytes | None = None, *, epoch: Epoch | None = None) -> None:
        """`hashed`: what the transcript takes in place of a message that only wraps it (RFC 9849 6.1.5).

        `epoch`: None for that of the last `write_with`, early data aside.
        """
        self.transcript.add(message if hashed is None else hashed)
        self._events.append(MessageToSend(epoch or self._write_epoch, message))

    def write_with(self, epoch: Epoch, secret: Secret) -> None:
        # What follows a ClientHello with early data may be another one in plaintext.
        if epoch is not Epoch.EARLY:
            self._write_epoch = epoch
        self._events.append(WriteSecret(epoch, secret))

    def read_with(self, epoch: Epoch, secret: Secret) -> None:
        self.read_epoch = epoch
        self._events.append(ReadSecret(epoch, secret))

    def early(self, secrets: EarlySecrets) -> EarlyTrafficSecret:
        """The secret of early data, for the transcript that ends with the ClientHello; logged, as its exporter is."""
        digest = self.transcript.digest_with(secrets.suite, b"")
        traffic, self.early_exporter = secrets.traffic(digest), secrets.exporter(digest)
        self._key_log.secret("CLIENT_EARLY_TRAFFIC_SECRET", self.client_random, traffic.secret)
        self._key_log.secret("EARLY_EXPORTER_SECRET", self.client_random, self.early_exporter.secret)
        return traffic

    def may_answer(self, outcome: Outcome) -> None:
        self._events.append(Answerable(outcome))

    def hand_over(self, extensions: dict[int, bytes]) -> None:
        self._events.append(HandedOver(extensions))

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
