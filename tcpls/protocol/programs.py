"""Both ends of a program transfer: offer, request, data, result, detach (docs/wire-format.md).

The data has a window of its own, `WINDOW` bytes behind what the last Program Request named, so that a transfer holds
little memory at the sender and never stands in the way of streams. What arrives is bytes and nothing else: whether it
may run is decided by the shell, before the first byte (`JudgeProgram`) and after the last (`LoadProgram`).

Frames that went with a connection come again, unchanged and in their order, and may have been handled before: each
`receive_` method lets pass what says nothing new.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tcpls.errors import ApiMisuse, NotNegotiated, PeerError, Reason
from tcpls.protocol.actions import Action, DetachProgram, JudgeProgram, LoadProgram, ProgramOffer
from tcpls.protocol.base import Role
from tcpls.protocol.events import Event, ProgramFinished, ProgramProgress, Stage
from tcpls.protocol.frames import (
    MAX_ABI,
    MAX_LOG,
    MAX_NAME,
    MAX_REASON,
    MAX_SIGNATURE,
    Frame,
    ProgramData,
    ProgramDetach,
    ProgramOfferFrame,
    ProgramRequest,
    ProgramResult,
    Want,
    clip,
)
from tcpls.protocol.parameters import ProgramSupport

WINDOW = 1 << 16
"""Bytes of a program that may be sent beyond the offset of the last Program Request."""
PIECE_FRAME = 11
"""Bytes that the fields of Program Data take."""


class ShipState(enum.Enum):
    OFFERED = "offered"
    SENDING = "sending"
    SENT = "sent, or cached there"
    ATTACHED = "attached"


@dataclass(slots=True)
class _Shipment:
    """A program of ours on its way."""

    image: bytes = field(repr=False)
    state: ShipState = ShipState.OFFERED
    sent: int = 0
    wanted: int = 0
    """The offset of the last Program Request."""
    detaching: bool = False
    cached: bool = False
    """Whether the peer asked for no byte of it."""


class ProgramSender:
    """The programs that this end ships."""

    def __init__(
        self, role: Role, most_open: int, queue: Callable[[Frame], None], tell: Callable[[Event], None]
    ) -> None:
        self._bit = role.bit
        self._most_open = most_open
        self._queue = queue
        self._tell = tell
        self._next = role.bit
        self._shipments: dict[int, _Shipment] = {}
        self._sending: deque[int] = deque()
        """Programs with bytes that may be sent, the next one first."""

    def offer(
        self,
        support: ProgramSupport | None,
        name: str,
        image: bytes,
        abi: str,
        signature: bytes,
        key_id: bytes,
        connections: tuple[int, ...],
    ) -> int:
        """Raises `NotNegotiated` for what the peer does not take by its parameters, and `ApiMisuse`."""
        if support is None:
            raise NotNegotiated("the peer takes no programs")
        if len(image) > support.size_limit:
            raise NotNegotiated(f"the peer takes programs of at most {support.size_limit} bytes")
        if not image or not 0 < len(name.encode()) <= MAX_NAME or not 0 < len(abi.encode()) <= MAX_ABI:
            raise ApiMisuse(f"a program has bytes, a name of 1 to {MAX_NAME} and an ABI of 1 to {MAX_ABI}")
        if len(signature) > MAX_SIGNATURE or len(key_id) > 255 or len(connections) > 255:
            raise ApiMisuse("a signature, key id or list of connections is too long")
        if sum(each.state is not ShipState.ATTACHED for each in self._shipments.values()) >= self._most_open:
            raise ApiMisuse(f"{self._most_open} programs are on their way already")
        program_id = self._next
        self._next += 2
        self._shipments[program_id] = _Shipment(image)
        digest = hashlib.sha256(image).digest()
        self._queue(ProgramOfferFrame(program_id, len(image), digest, name, abi, signature, key_id, tuple(connections)))
        return program_id

    def detach(self, program_id: int) -> None:
        """Takes a program back, at any stage. `ProgramFinished` follows. Raises `ApiMisuse`."""
        shipment = self._shipments.get(program_id)
        if shipment is None or shipment.detaching:
            raise ApiMisuse(f"the program {program_id} is not there to be detached")
        shipment.detaching = True
        if program_id in self._sending:
            self._sending.remove(program_id)
        self._queue(ProgramDetach(program_id))

    @property
    def busy(self) -> bool:
        return bool(self._sending)

    def next_data(self, room: int) -> ProgramData | None:
        """The next piece, of the programs in turn, for a record that takes `room` bytes."""
        if not self._sending:
            return None
        program_id = self._sending.popleft()
        shipment = self._shipments[program_id]
        start = shipment.sent
        most = shipment.wanted + WINDOW - start
        data = memoryview(shipment.image)[start : start + min(most, room - PIECE_FRAME)]
        shipment.sent = start + len(data)
        self._tell(ProgramProgress(program_id, shipment.sent, len(shipment.image)))
        if shipment.sent == len(shipment.image):
            shipment.state = ShipState.SENT
        else:
            self._schedule(program_id, shipment)
        return ProgramData(program_id, start, data)

    def _schedule(self, program_id: int, shipment: _Shipment) -> None:
        if shipment.sent < shipment.wanted + WINDOW and program_id not in self._sending:
            self._sending.append(program_id)

    def _find(self, program_id: int) -> _Shipment | None:
        """None for a program that is over: its last frames and the peer's crossed. Raises `PeerError`."""
        if program_id & 1 != self._bit or program_id >= self._next:
            raise PeerError(Reason.PROGRAM_STATE, f"program {program_id} was not offered")
        return self._shipments.get(program_id)

    def receive_request(self, frame: ProgramRequest) -> None:
        """Raises `PeerError`."""
        shipment = self._find(frame.program_id)
        if shipment is None or shipment.detaching:
            return
        if frame.want is Want.SEND:
            self._send_from(frame, shipment)
        elif frame.want is Want.CACHED and shipment.cached:
            return
        elif shipment.state is not ShipState.OFFERED:
            raise PeerError(Reason.PROGRAM_STATE, f"program {frame.program_id} was requested before")
        elif frame.want is Want.CACHED:
            shipment.state = ShipState.SENT
            shipment.cached = True
        else:
            self._finish(frame.program_id, ProgramResult(frame.program_id, Stage.OFFERED, False, reason=frame.reason))

    def _send_from(self, frame: ProgramRequest, shipment: _Shipment) -> None:
        if shipment.state is ShipState.OFFERED:
            if frame.offset >= len(shipment.image):
                raise PeerError(Reason.PROGRAM_STATE, f"program {frame.program_id} has no byte {frame.offset}")
            shipment.state = ShipState.SENDING
            shipment.sent = frame.offset
        elif frame.offset <= shipment.wanted:
            return
        elif shipment.state is ShipState.ATTACHED or frame.offset > shipment.sent:
            raise PeerError(Reason.PROGRAM_STATE, f"program {frame.program_id} requested from {frame.offset}")
        shipment.wanted = frame.offset
        if shipment.state is ShipState.SENDING:
            self._schedule(frame.program_id, shipment)

    def receive_result(self, frame: ProgramResult) -> None:
        """Raises `PeerError`."""
        shipment = self._find(frame.program_id)
        if shipment is None:
            return
        if frame.ok and frame.stage is Stage.ATTACHED:
            if shipment.state is ShipState.ATTACHED:
                return
            if shipment.state is not ShipState.SENT:
                raise PeerError(Reason.PROGRAM_STATE, f"program {frame.program_id} cannot be attached yet")
            shipment.state = ShipState.ATTACHED
            shipment.image = b""
            self._tell(_finished(frame))
        elif not frame.ok or frame.stage is Stage.DETACHED:
            self._finish(frame.program_id, frame)
        # A stage below that is passed says only that the program is on its way.

    def _finish(self, program_id: int, frame: ProgramResult) -> None:
        del self._shipments[program_id]
        if program_id in self._sending:
            self._sending.remove(program_id)
        self._tell(_finished(frame))


def _finished(frame: ProgramResult) -> ProgramFinished:
    return ProgramFinished(frame.program_id, frame.stage, frame.ok, frame.algorithm, frame.reason, frame.log)


class ArrivalState(enum.Enum):
    JUDGED = "judged by the shell"
    ARRIVING = "arriving"
    LOADING = "in the hands of the shell"
    ATTACHED = "attached"


@dataclass(slots=True)
class _Arrival:
    """A program of the peer's."""

    offer: ProgramOffer
    state: ArrivalState = ArrivalState.JUDGED
    image: bytearray = field(default_factory=bytearray, repr=False)
    have: int = 0
    """How much of it is here, or was before it was handed over."""
    requested: int = 0
    detaching: bool = False


class ProgramReceiver:
    """The programs that the peer ships to this end."""

    def __init__(
        self,
        role: Role,
        support: ProgramSupport | None,
        most_open: int,
        most: int,
        queue: Callable[[Frame], None],
        act: Callable[[Action], None],
    ) -> None:
        self._bit = 1 - role.bit
        self._support = support
        self._most_open = most_open
        self._most = most
        self._queue = queue
        self._act = act
        self._next = self._bit
        self._arrivals: dict[int, _Arrival] = {}

    def receive_offer(self, frame: ProgramOfferFrame) -> None:
        """Raises `PeerError`. What local limits forbid is refused by a frame."""
        program_id = frame.program_id
        if program_id & 1 == self._bit and program_id < self._next:
            return
        if program_id != self._next:
            raise PeerError(Reason.PROGRAM_STATE, f"program {program_id} is not the next one")
        self._next += 2
        if not frame.size or not frame.name or not frame.abi:
            raise PeerError(Reason.BAD_VALUE, "a program without size, name or ABI")
        refusal = self._refusal(frame)
        if refusal:
            self._queue(ProgramRequest(program_id, Want.REFUSED, reason=refusal))
            return
        offer = ProgramOffer(
            frame.name, frame.digest, frame.size, frame.abi, frame.signature, frame.key_id, frame.connections
        )
        self._arrivals[program_id] = _Arrival(offer)
        self._act(JudgeProgram(program_id, offer))

    def _refusal(self, frame: ProgramOfferFrame) -> str | None:
        if self._support is None:
            return "programs are not accepted"
        if frame.size > self._support.size_limit:
            return f"programs of at most {self._support.size_limit} bytes are accepted"
        attached = sum(each.state is ArrivalState.ATTACHED for each in self._arrivals.values())
        if len(self._arrivals) - attached >= self._most_open or len(self._arrivals) >= self._most:
            return "too many programs at once"
        return None

    def answer(self, program_id: int, accept: bool, reason: str, cached: bool, have: bytes) -> None:
        """The shell's answer to `JudgeProgram`. Nothing happens when the peer has taken the program back meanwhile."""
        arrival = self._arrivals.get(program_id)
        if arrival is None:
            return
        if arrival.state is not ArrivalState.JUDGED:
            raise ApiMisuse(f"the program {program_id} was judged before")
        if not accept:
            del self._arrivals[program_id]
            self._queue(ProgramRequest(program_id, Want.REFUSED, reason=clip(reason, MAX_REASON)))
        elif cached:
            arrival.state = ArrivalState.LOADING
            self._queue(ProgramRequest(program_id, Want.CACHED))
        else:
            if len(have) >= arrival.offer.size:
                raise ApiMisuse("all of the program is there: it is cached")
            arrival.state = ArrivalState.ARRIVING
            arrival.image += have
            arrival.have = len(have)
            self._request(program_id, arrival)

    def _request(self, program_id: int, arrival: _Arrival) -> None:
        arrival.requested = arrival.have
        self._queue(ProgramRequest(program_id, Want.SEND, arrival.requested))

    def _find(self, program_id: int) -> _Arrival | None:
        """None for a program that is over: its last frames and ours crossed. Raises `PeerError`."""
        if program_id & 1 != self._bit or program_id >= self._next:
            raise PeerError(Reason.PROGRAM_STATE, f"program {program_id} was not offered")
        return self._arrivals.get(program_id)

    def receive_data(self, frame: ProgramData) -> None:
        """Raises `PeerError`."""
        arrival = self._find(frame.program_id)
        if arrival is None:
            return
        end = frame.offset + len(frame.data)
        if len(frame.data) and end <= arrival.have:
            return
        if arrival.state is not ArrivalState.ARRIVING or frame.offset != arrival.have:
            raise PeerError(Reason.PROGRAM_STATE, f"program {frame.program_id}: data at {frame.offset}")
        if not len(frame.data) or end > arrival.offer.size:
            raise PeerError(Reason.BAD_LENGTH, f"program {frame.program_id}: {len(frame.data)} bytes")
        arrival.image += frame.data
        arrival.have = end
        if end == arrival.offer.size:
            self._complete(frame.program_id, arrival)
        elif end - arrival.requested >= WINDOW // 2:
            self._request(frame.program_id, arrival)

    def _complete(self, program_id: int, arrival: _Arrival) -> None:
        image = bytes(arrival.image)
        arrival.image = bytearray()
        if not hmac.compare_digest(hashlib.sha256(image).digest(), arrival.offer.digest):
            del self._arrivals[program_id]
            self._queue(ProgramResult(program_id, Stage.DIGEST, False, reason="the digest is not the one offered"))
            return
        arrival.state = ArrivalState.LOADING
        self._act(LoadProgram(program_id, arrival.offer, image))

    def result(self, program_id: int, stage: Stage, ok: bool, algorithm: str, reason: str, log: str) -> None:
        """The shell's word on a program. Nothing happens when it is over already. Raises `ApiMisuse`."""
        arrival = self._arrivals.get(program_id)
        if arrival is None:
            return
        if arrival.state not in (ArrivalState.LOADING, ArrivalState.ATTACHED):
            raise ApiMisuse(f"the program {program_id} is not being loaded")
        if not ok or stage is Stage.DETACHED:
            del self._arrivals[program_id]
        elif stage is Stage.ATTACHED:
            arrival.state = ArrivalState.ATTACHED
        self._queue(
            ProgramResult(
                program_id, stage, ok, clip(algorithm, MAX_NAME), clip(reason, MAX_REASON), clip(log, MAX_LOG)
            )
        )

    def receive_detach(self, frame: ProgramDetach) -> None:
        """Raises `PeerError`."""
        arrival = self._find(frame.program_id)
        if arrival is None:
            return
        if arrival.detaching:
            return
        arrival.detaching = True
        if arrival.state in (ArrivalState.LOADING, ArrivalState.ATTACHED):
            self._act(DetachProgram(frame.program_id))
        else:
            del self._arrivals[frame.program_id]
            self._queue(ProgramResult(frame.program_id, Stage.DETACHED, True))
