"""What a core tells the application."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from tcpls.tls.messages import NewSessionTicket


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The peer opened a stream."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamReadable:
    """Data, the end, or a reset can be received. Said once until `receive` has returned None."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamWritable:
    """A stream whose `send_capacity` was used up has capacity again, or the peer stopped reading it."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamsAvailable:
    """The peer allows more streams than before; `open_stream` may succeed now."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The Ping `ping_id` was acknowledged after `rtt` seconds."""

    ping_id: int
    rtt: float


@dataclass(frozen=True, slots=True)
class OptionAnswered:
    """The peer answered a request for a TCP option. `value` is what its kernel reports, or None."""

    request_id: int
    name: str
    status: OptionStatus
    value: int | str | None
    errno: int


class OptionStatus(enum.IntEnum):
    APPLIED = 0
    REFUSED = 1
    UNSUPPORTED = 2
    FAILED = 3


class Stage(enum.IntEnum):
    """How far a program came at its receiver. The numbers are those of Program Result on the wire."""

    OFFERED = 0
    RECEIVED = 1
    DIGEST = 2
    SIGNATURE = 3
    POLICY = 4
    STATIC_CHECK = 5
    VERIFIER = 6
    ATTACHED = 7
    DETACHED = 8


@dataclass(frozen=True, slots=True)
class ProgramProgress:
    """`sent` bytes of the `size` of program `program_id` have gone to the peer."""

    program_id: int
    sent: int
    size: int


@dataclass(frozen=True, slots=True)
class ProgramFinished:
    """The peer's last word on a program: attached (with the name its kernel reports), or where and why it stopped."""

    program_id: int
    stage: Stage
    ok: bool
    algorithm: str
    reason: str
    log: str


@dataclass(frozen=True, slots=True)
class TicketReceived:
    """The server gave a ticket with which a later session may resume this one. Told to clients only."""

    message: NewSessionTicket


@dataclass(frozen=True, slots=True)
class TokenReceived:
    """The server lets another connection join. Told to clients only."""


@dataclass(frozen=True, slots=True)
class ConnectionJoined:
    """A connection belongs to the session now: each end has opened a record of the other's on it."""

    connection_id: int


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """A connection failed. What it carried goes again, on others."""

    connection_id: int
    why: str


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """A connection was retired by either end, and nothing that it carried is missing."""

    connection_id: int


@dataclass(frozen=True, slots=True)
class ConnectionSuspected:
    """The only connection is silent where the peer owes an answer. It is given up once there is another one."""

    connection_id: int
    why: str


@dataclass(frozen=True, slots=True)
class ConnectionRecovered:
    """A suspected connection is heard again."""

    connection_id: int


@dataclass(frozen=True, slots=True)
class PathsChanged:
    """The peer announced an address, or took one back: see `PeerAnnouncements.addresses`."""


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """Nothing more comes. `error` is None after an authenticated close without error code."""

    error: Exception | None


Event = (
    StreamOpened
    | StreamReadable
    | StreamWritable
    | StreamsAvailable
    | Pong
    | OptionAnswered
    | ProgramProgress
    | ProgramFinished
    | TicketReceived
    | TokenReceived
    | ConnectionJoined
    | ConnectionLost
    | ConnectionClosed
    | ConnectionSuspected
    | ConnectionRecovered
    | PathsChanged
    | SessionEnded
)
