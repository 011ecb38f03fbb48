"""What a core asks of the shell. The shell answers with the method of the core that each action names."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ProgramOffer:
    """A program that the peer would like this end to attach, before any byte of it has come.

    `signature` and `key_id` are empty when it is not signed; `connections` are ids, empty for all of the session.
    """

    name: str
    digest: bytes
    size: int
    abi: str
    signature: bytes
    key_id: bytes
    connections: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ApplyOption:
    """Set the TCP option `name` (of options.py's registry). Answer: `option_result`. `connection_id` None: on all."""

    request_id: int
    connection_id: int | None
    name: str
    value: int | str


@dataclass(frozen=True, slots=True)
class JudgeProgram:
    """Does local policy want this program at all? Answer: `answer_offer`."""

    program_id: int
    offer: ProgramOffer


@dataclass(frozen=True, slots=True)
class LoadProgram:
    """The program has arrived and its digest is right: check, load and attach it. Answer: `program_result`."""

    program_id: int
    offer: ProgramOffer
    image: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class DetachProgram:
    """The peer takes its program back: give the connections their former algorithm. Answer: `program_result`."""

    program_id: int


@dataclass(frozen=True, slots=True)
class EndSending:
    """Send what is pending and shut down for writing; receiving goes on."""

    connection_id: int


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Send what is pending, shut down for writing, and close when the peer has closed or a bounded time has passed."""

    connection_id: int


@dataclass(frozen=True, slots=True)
class AbortConnection:
    """Close this connection at once: it is no part of the session any more."""

    connection_id: int
    why: str


@dataclass(frozen=True, slots=True)
class Reconnect:
    """A client has no connection left that it trusts: dial one and join with it. Answer: `Paths.join`.

    Until a connection has joined or is heard again, or the session ends, the shell goes on trying.
    """


@dataclass(frozen=True, slots=True)
class IssueTokens:
    """A server's client is to have so many more tokens. Answer: `Paths.add_token` for each."""

    count: int


@dataclass(frozen=True, slots=True)
class ProbeConnection:
    """For how long has the kernel heard nothing of the peer's on this connection? Answer: `Paths.probed`."""

    connection_id: int


Action = (
    ApplyOption
    | JudgeProgram
    | LoadProgram
    | DetachProgram
    | EndSending
    | CloseConnection
    | AbortConnection
    | Reconnect
    | IssueTokens
    | ProbeConnection
)
