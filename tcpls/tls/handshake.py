"""The handshake without records: messages in and out per epoch, secrets as events. QUIC can stand on it as TLS does."""

from __future__ import annotations

from datetime import datetime

from tcpls.errors import ApiMisuse, HandshakeError, PeerError, Reason
from tcpls.observe import NULL_KEY_LOG, KeyLog
from tcpls.tls.client_states import start
from tcpls.tls.config import ClientConfig, ServerConfig
from tcpls.tls.early_data import EarlyData
from tcpls.tls.flow import Epoch, Flow, FlowEvent, State
from tcpls.tls.messages import Reassembly
from tcpls.tls.server_finish import Server
from tcpls.tls.server_states import ExpectClientHello
from tcpls.tls.suites import Random
from tcpls.wire import Buffer


class Handshake:
    """Either role. Drain `events` after making one, and after every `receive`, even one that raised."""

    def __init__(self, flow: Flow, state: State) -> None:
        self._flow = flow
        self._state = state
        self._reassembly = Reassembly()
        self._failed = False

    @property
    def read_epoch(self) -> Epoch:
        """The epoch that the next message is awaited in."""
        return self._flow.read_epoch

    @property
    def compatible(self) -> bool:
        """Whether change_cipher_spec records are to be sent (RFC 8446 D.4)."""
        return self._flow.compatible

    @property
    def early_data(self) -> EarlyData:
        """What has become of early data so far."""
        return self._flow.early_data

    @property
    def max_sent(self) -> int:
        """Bytes of content that the peer takes in one protected record."""
        return self._flow.max_sent

    @property
    def max_received(self) -> int:
        """Bytes of content, padding included, that the peer may put into one protected record."""
        return self._flow.max_received

    @property
    def max_early_data(self) -> int:
        """Bytes of early data that may be sent or received, if it is offered or accepted."""
        return self._flow.max_early_data

    @property
    def skips_early_data(self) -> bool:
        """Whether early data may come, which is to be skipped (RFC 8446 4.2.10)."""
        return self._flow.skips_early_data

    @property
    def incomplete(self) -> bool:
        """Whether a part of a message was received, so that nothing else may come now (RFC 8446 5.1)."""
        return self._reassembly.pending

    def events(self) -> list[FlowEvent]:
        """What happened since the last call, in order. Messages and secrets take effect in that order."""
        return self._flow.events()

    def receive(self, epoch: Epoch, data: Buffer) -> None:
        """Handshake bytes in any fragmentation. Raises `HandshakeError`; the handshake is dead then."""
        if self._failed:
            raise ApiMisuse("the handshake has failed")
        try:
            self._receive(epoch, data)
        except PeerError as error:
            self._failed = True
            if isinstance(error, HandshakeError):
                raise
            raise HandshakeError(error.reason, error.detail) from None

    def _receive(self, epoch: Epoch, data: Buffer) -> None:
        flow = self._flow
        if epoch is not flow.read_epoch:
            raise HandshakeError(Reason.UNEXPECTED_MESSAGE, f"in the {epoch.value} epoch")
        self._reassembly.feed(data)
        while message := self._reassembly.next(self._state.accepts):
            self._state = self._state.receive(message)
            # RFC 8446 5.1: a message must not span a change of keys.
            if flow.read_epoch is not epoch and self._reassembly.pending:
                raise HandshakeError(Reason.MESSAGE_ACROSS_KEYS)
            # RFC 8446 4.1.4: what follows a retry answers it, and cannot have come along with what led to it.
            if flow.flight_over and self._reassembly.pending:
                # The answer stays here: a peer that had it would await what comes next in place of the alert.
                flow.withdraw()
                raise HandshakeError(Reason.UNEXPECTED_MESSAGE, "ahead of its turn")
            flow.flight_over = False


class ClientHandshake(Handshake):
    """Starts with a ClientHello in `events`. `time`: at which certificates are judged, aware of its zone.

    `end_of_early_data` is False in QUIC, which has no such message (RFC 9001 section 8.3).
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        random: Random,
        time: datetime,
        key_log: KeyLog = NULL_KEY_LOG,
        end_of_early_data: bool = True,
    ) -> None:
        flow = Flow(config.engine, key_log, end_of_early_data=end_of_early_data)
        super().__init__(flow, start(config, flow, random, time))


class ServerHandshake(Handshake):
    """Waits for a ClientHello. `time`, aware of its zone, is needed for tickets and for clients' certificates.

    `end_of_early_data`: as above.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        random: Random,
        time: datetime | None = None,
        key_log: KeyLog = NULL_KEY_LOG,
        end_of_early_data: bool = True,
    ) -> None:
        if time is None and (config.ticket_keys is not None or config.client_trust is not None):
            raise ApiMisuse("tickets and clients' certificates need the time")
        flow = Flow(config.engine, key_log, end_of_early_data=end_of_early_data)
        super().__init__(flow, ExpectClientHello(Server(config, flow, random, time)))
