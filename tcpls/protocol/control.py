"""What one end asks of the other's kernel: TCP options, and congestion controllers (docs/wire-format.md, section 5)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tcpls.errors import ApiMisuse, NotNegotiated
from tcpls.protocol.actions import Action
from tcpls.protocol.base import Role, SessionConfig
from tcpls.protocol.events import Event, OptionStatus, Stage
from tcpls.protocol.frames import (
    Frame,
    ProgramData,
    ProgramDetach,
    ProgramOfferFrame,
    ProgramRequest,
    ProgramResult,
    TcpOption,
    TcpOptionResult,
)
from tcpls.protocol.options import OptionExchange, OptionValue
from tcpls.protocol.parameters import Parameters, ProgramSupport
from tcpls.protocol.programs import ProgramReceiver, ProgramSender

ControlFrame = (
    TcpOption
    | TcpOptionResult
    | ProgramOfferFrame
    | ProgramRequest
    | ProgramData
    | ProgramResult
    | ProgramDetach
)  # fmt: skip
"""The frames that `PeerControl.receive` takes."""


class PeerControl:
    """Requests in both directions. `peer` gives what the peer has announced by now, None for a pure draft-04 peer.

    `check_open` raises when the session takes nothing new, `connection_exists` knows the ids.
    """

    def __init__(
        self,
        role: Role,
        config: SessionConfig,
        programs: ProgramSupport | None,
        outbox: deque[Frame],
        events: list[Event],
        actions: list[Action],
        *,
        peer: Callable[[], Parameters | None],
        check_open: Callable[[], None],
        connection_exists: Callable[[int], bool],
    ) -> None:
        self._peer = peer
        self._check_open = check_open
        self._connection_exists = connection_exists
        self._options = OptionExchange(
            config.option_policy, config.open_requests, outbox.append, events.append, actions.append
        )
        self.shipping = ProgramSender(role, config.program_transfers, outbox.append, events.append)
        self._arriving = ProgramReceiver(
            role, programs, config.program_transfers, config.program_total, outbox.append, actions.append
        )

    # What the peer says.

    def receive(self, frame: ControlFrame) -> None:
        """Raises `PeerError`."""
        match frame:
            case TcpOption():
                self._options.receive_request(frame)
            case TcpOptionResult():
                self._options.receive_result(frame)
            case ProgramOfferFrame():
                self._arriving.receive_offer(frame)
            case ProgramRequest():
                self.shipping.receive_request(frame)
            case ProgramData():
                self._arriving.receive_data(frame)
            case ProgramResult():
                self.shipping.receive_result(frame)
            case ProgramDetach():
                self._arriving.receive_detach(frame)

    # What the application asks.

    def request_option(self, name: str, value: OptionValue, connection_id: int | None = 0) -> int:
        """Asks the peer for a TCP option on one connection, or on all (None). `OptionAnswered` follows.

        Raises `ApiMisuse` for a name or value that the registry does not have, and `NotNegotiated`.
        """
        self._check_open()
        offered = self._extended_peer().options
        if connection_id is not None and not self._connection_exists(connection_id):
            raise ApiMisuse(f"there is no connection {connection_id}")
        return self._options.request(name, value, connection_id, offered)

    def offer_program(
        self,
        name: str,
        image: bytes,
        abi: str,
        signature: bytes = b"",
        key_id: bytes = b"",
        connections: tuple[int, ...] = (),
    ) -> int:
        """Offers a program for the peer's side of `connections` (none: of all). `ProgramFinished` follows.

        Raises `NotNegotiated` when the peer has not announced that it takes such a program, and `ApiMisuse`.
        """
        self._check_open()
        support = self._extended_peer().programs
        return self.shipping.offer(support, name, image, abi, signature, key_id, connections)

    def detach_program(self, program_id: int) -> None:
        """Takes a program of ours back. `ProgramFinished` with the stage `DETACHED` follows."""
        self._check_open()
        self.shipping.detach(program_id)

    def _extended_peer(self) -> Parameters:
        peer = self._peer()
        if peer is None:
            raise NotNegotiated("the peer speaks draft-04 without extensions")
        return peer

    # What the shell answers. Once the session has ended, nobody hears it.

    def option_result(self, request_id: int, status: OptionStatus, value: OptionValue | None, errno: int = 0) -> None:
        """The answer to `ApplyOption`. Raises `ApiMisuse`."""
        self._options.result(request_id, status, value, errno)

    def answer_offer(
        self, program_id: int, accept: bool, reason: str = "", *, cached: bool = False, have: bytes = b""
    ) -> None:
        """The answer to `JudgeProgram`. `cached`: the shell has the image and asks for no byte of it.

        `have` is the beginning of the image, kept from a transfer that was cut.
        """
        self._arriving.answer(program_id, accept, reason, cached, have)

    def program_result(
        self, program_id: int, stage: Stage, ok: bool, algorithm: str = "", reason: str = "", log: str = ""
    ) -> None:
        """How far a program of the peer's came; `DETACHED` may also be said unasked."""
        self._arriving.result(program_id, stage, ok, algorithm, reason, log)
