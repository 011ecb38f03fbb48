"""Early data (0-RTT; RFC 8446 sections 2.3, 4.2.10 and 8): when it is offered and accepted, and what became of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from tcpls.errors import ConfigurationError
from tcpls.tls.engine import CryptoEngine
from tcpls.tls.replay import ReplayStore
from tcpls.tls.suites import CipherSuite
from tcpls.tls.tickets import TicketState

DEFAULT_LIMIT = 1 << 14
DEFAULT_WINDOW = 10_000
"""Milliseconds (RFC 8446 8.3: "on the order of ten seconds" are reasonable for clients on the Internet)."""

QUIC_LIMIT = 0xFFFFFFFF
"""What a ticket says in QUIC, which has limits of its own (RFC 9001 section 4.6.1)."""


class EarlyData(enum.Enum):
    """What became of early data, with the reason in words for people."""

    NOT_ASKED = "not offered", ""
    NO_TICKET = "not offered", "there is no ticket for this server"
    NOT_ALLOWED = "not offered", "the ticket does not allow it"
    OTHER_SUITE = "not offered", "the ticket's cipher suite is not among those of this connection"
    OTHER_PROTOCOL = "not offered", "the ticket's application protocol is not among those of this connection"
    OFFERED = "offered", "the server has not answered yet"
    ACCEPTED = "accepted", ""
    # As a client sees it.
    REFUSED = "rejected", "the server did not take it"
    NOT_RESUMED = "rejected", "the session was not resumed"
    RETRIED = "rejected", "the handshake needed another ClientHello"
    # As a server decides it.
    SWITCHED_OFF = "rejected", "it is switched off here"
    NOT_FIRST = "rejected", "the key in use is not the first that was offered"
    OVER_LIMIT = "rejected", "the ticket allows none, or more than this server takes now"
    CHANGED_SUITE = "rejected", "the cipher suite is not the ticket's"
    CHANGED_PROTOCOL = "rejected", "the application protocol is not the ticket's"
    CHANGED_APPLICATION = "rejected", "what the application announces now is not what the ticket remembers"
    OUT_OF_TIME = "rejected", "the ClientHello was not made just now"
    BEFORE_START = "rejected", "the ticket is older than the memory of what was replayed"
    REPLAYED = "rejected", "the ticket was used for it before, or there is no room to remember it"

    def __init__(self, verdict: str, why: str) -> None:
        self.verdict = verdict
        self.why = why
        self.offered = verdict != "not offered"
        self.accepted = verdict == "accepted"

    def __str__(self) -> str:
        return f"{self.verdict}, {self.why}" if self.why else self.verdict


@dataclass(frozen=True, slots=True)
class EarlyRequest:
    """What a client asks for: the ticket as it came and what it holds, the age that the client says it has, and what
    the connection is going to use. `remembered`: what a ticket of this connection is going to hold of the
    application's own. `now`: milliseconds since 1970.
    """

    ticket: bytes
    state: TicketState
    obfuscated_age: int
    suite: CipherSuite
    alpn: bytes | None
    remembered: bytes
    now: int

    @property
    def displacement(self) -> int:
        """Milliseconds by which the ClientHello seems to be older than now (RFC 8446 8.3)."""
        return self.now - (self.state.issued + self.state.age(self.obfuscated_age))


@dataclass(frozen=True, slots=True)
class EarlyDataPolicy:
    """How a server accepts early data: up to `limit` bytes with each of the tickets that it gives out from now on.

    `window`, in milliseconds, is by how much a ClientHello may seem to be older or newer than it is.
    """

    replay: ReplayStore
    limit: int = DEFAULT_LIMIT
    window: int = DEFAULT_WINDOW

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= 0xFFFFFFFF:
            raise ConfigurationError("early data is limited to 1 to 4294967295 bytes")
        if self.window < 1:
            raise ConfigurationError("a window of freshness has at least 1 ms")

    def judge(self, request: EarlyRequest, engine: CryptoEngine) -> EarlyData:
        """For the ticket that the session is resumed with, once its binder was found to be right.

        To be asked when nothing else is left to decide: what it accepts, it has claimed.
        """
        state = request.state
        if not 0 < state.max_early_data <= self.limit:
            return EarlyData.OVER_LIMIT
        # RFC 8446 4.2.10: the same cipher suite, not only one with the same hash; the same application protocol.
        if state.suite is not request.suite:
            return EarlyData.CHANGED_SUITE
        if state.alpn != request.alpn:
            return EarlyData.CHANGED_PROTOCOL
        # Early data was made under what the application had announced then: no more and no less may hold now.
        if state.remembered != request.remembered:
            return EarlyData.CHANGED_APPLICATION
        # RFC 8446 8.3: made just now, by this server's clock. In both directions: clocks drift apart.
        if abs(request.displacement) > self.window:
            return EarlyData.OUT_OF_TIME
        # RFC 8446 8.2: what was accepted before this memory began cannot be told from what was not.
        if state.issued <= self.replay.since:
            return EarlyData.BEFORE_START
        # RFC 8446 8.1, 8.2: by the ticket, whose binder is checked; other parts of a hello may change in a replay.
        name = engine.hash("sha256")
        name.update(request.ticket)
        if not self.replay.claim(name.digest(), state.issued + state.lifetime * 1000, request.now):
            return EarlyData.REPLAYED
        return EarlyData.ACCEPTED
