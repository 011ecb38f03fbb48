"""What both cores have in common: the queues towards the shell and the ways a session ends."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from tcpls.errors import Alert, AlertReceived, PeerError, SessionClosed, SessionLost
from tcpls.observe import NULL_OBSERVER, Observer
from tcpls.protocol.actions import Action, CloseConnection
from tcpls.protocol.events import Event, SessionEnded
from tcpls.protocol.options import OptionPolicy
from tcpls.protocol.streams import ReceiveStream
from tcpls.tls.record import RecordSource
from tcpls.tls.suites import TrafficKeys


class Role(enum.Enum):
    CLIENT = "client"
    SERVER = "server"

    @property
    def bit(self) -> int:
        """The lowest bit of the ids of the streams and programs that this role opens (draft section 3.1)."""
        return 0 if self is Role.CLIENT else 1


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What this end keeps to, beyond the parameters that it announces. Sizes in bytes, times in seconds."""

    send_buffer: int = 1 << 20
    """Bytes of one stream that may wait to be put in records."""
    receive_buffer: int = 8 << 20
    """Bytes buffered from a peer without flow control before reading pauses."""
    unacknowledged_limit: int = 16 << 20
    """Bytes in records that were not acknowledged, with failover: more wait."""
    close_timeout: float = 30.0
    """How long a close waits while nothing of what is queued leaves; each byte that does starts it anew."""
    update_keys_after: int | None = None
    """Records under one key; None: short of the limit of the cipher suite."""
    option_policy: OptionPolicy = field(default_factory=OptionPolicy)
    open_requests: int = 32
    """Option requests open at once, in each direction."""
    program_transfers: int = 4
    """Programs being offered or transferred at once, in each direction."""
    program_total: int = 16
    """Programs of the peer's known at once, attached ones included."""
    path_timeout: float = 2.0
    """How long a connection may be silent where the peer owes an answer, before it is given up for another one; never
    less than three round trips. 0: only TCP itself finds out."""
    probe_after: float = 10.0
    """How long a connection may say nothing while a stream is open, before a client that could have another one asks
    whether the peer is there. 0: never."""
    reconnect_timeout: float = 30.0
    """How long a session waits for a connection that works when it has none."""
    spare_tokens: int = 8
    """Unused tokens that a server lets its client have."""
    token_lifetime: float = 24 * 3600.0
    """How long a token is good for."""


class CoreBase(ABC):
    """Records in, events, actions, and the end of a session."""

    def __init__(self, observer: Observer = NULL_OBSERVER) -> None:
        self._observer = observer
        self._events: list[Event] = []
        self._actions: list[Action] = []
        self._ended = False
        self._error: Exception | None = None
        self._alert: int | None = None
        """The alert that is still to be put."""
        self.handshaking = False
        """Whether early data is answered while the handshake goes on: the end of sending waits for its tickets."""
        self._run_of: ReceiveStream | None = None
        """The stream that the last record was a full record of: more of the kind may follow."""

    def receive_records(self, connection_id: int, source: RecordSource, now: float) -> None:
        """Every record that `source` has. Raises `PeerError`, after which the shell calls `fail`."""
        receive_record, next_record = self.receive_record, source.next_record
        try:
            while (record := next_record()) is not None:
                keys = receive_record(connection_id, record[0], record[1], now)
                if keys is not None:
                    source.switch_keys(keys)
                elif self._run_of is not None:
                    stream, self._run_of = self._run_of, None
                    if source.full_records and not self._ended:
                        self._receive_run(connection_id, stream, source, now)
        finally:
            self.settle()

    @abstractmethod
    def receive_record(
        self, connection_id: int, content_type: int, content: memoryview, now: float
    ) -> TrafficKeys | None:
        """See `Core`."""

    @abstractmethod
    def receive_early(self, content: bytes, now: float) -> None:
        """See `Core`."""

    @abstractmethod
    def _receive_run(self, connection_id: int, stream: ReceiveStream, source: RecordSource, now: float) -> None:
        """Full records that carry on where the last one of `stream` ended, as many as there are, in one go."""

    @abstractmethod
    def settle(self) -> None:
        """See `Core`."""

    @abstractmethod
    def set_blocked(self, connection_id: int, blocked: bool) -> None:
        """See `Core`."""

    def events(self) -> list[Event]:
        drained = self._events.copy()
        self._events.clear()
        return drained

    def actions(self) -> list[Action]:
        drained = self._actions.copy()
        self._actions.clear()
        return drained

    @property
    def ended(self) -> bool:
        return self._ended

    def fail(self, connection_id: int, error: PeerError, now: float) -> None:
        """Ends the session because of what the peer sent; `transmit` then puts the alert."""
        if not self._ended:
            self._alert = error.alert
            self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._ended:
            return
        self._ended = True
        self._error = error
        self._events.append(SessionEnded(error))
        self._close_connections()
        self._observer.event("session:ended", error=None if error is None else str(error))

    def _end_by_close(self, close: SessionClosed) -> None:
        """Either end closed; code 0 is no error."""
        self._end(close if close.code else None)

    def abandon(self) -> None:
        """The shell has closed every connection: nothing more is said or heard."""
        self._end(SessionLost("this end gave the session up"))

    def _end_by_alert(self, alert: int) -> None:
        """The peer sent an alert other than close_notify: it sends and reads nothing more."""
        self._end(AlertReceived(alert))

    def _end_by_loss(self, error: str | None) -> None:
        self._end(SessionLost(f"the connection failed: {error}" if error else "the connection ended without a close"))

    @staticmethod
    def _stuck(size: int, seconds: float) -> SessionLost:
        """The error of a close whose data did not leave."""
        return SessionLost(f"the peer took nothing for {seconds:g} s, and {size} bytes were still to be sent")

    def _final_error(self) -> Exception:
        """What an operation raises once the session has ended."""
        # Raised from many calls: without the traceback of the one before.
        return SessionClosed() if self._error is None else self._error.with_traceback(None)

    def _close_connections(self) -> None:
        """The session has ended: so do its connections."""
        self._ask_to_close(0)

    def _ask_to_close(self, connection_id: int) -> None:
        action = CloseConnection(connection_id)
        if action not in self._actions:
            self._actions.append(action)


def ends_session(alert: int) -> bool:
    """RFC 8446 6.1: user_canceled announces a close_notify and means nothing by itself; all others are final."""
    return alert != Alert.USER_CANCELED
