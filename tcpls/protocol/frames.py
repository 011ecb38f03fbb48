"""Every TCPLS frame: its layout, read and write side by side (docs/wire-format.md, draft-piraux-tcpls-04 section 4.2).

A frame is read from its end: the type byte, then the fixed fields, then the length of what varies and what varies
itself. `read` gets a `TailReader` that stands before the type byte; `write` appends the whole frame, type included.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from tcpls.errors import PeerError, Reason
from tcpls.protocol.events import OptionStatus, Stage
from tcpls.wire import Buffer, TailReader, Writer

ALL_CONNECTIONS = 0xFFFFFFFF
"""The connection id that stands for every connection of the session."""
TOKEN_SIZE = 32
DIGEST_SIZE = 32
MAX_OFFSET = (1 << 62) - 1
"""The highest offset of a stream's end and the highest credit, so that no sum of two overflows 64 bits."""
MAX_REASON = 1024
MAX_LOG = 8192
MAX_NAME = 63
MAX_ABI = 64
MAX_SIGNATURE = 4096
MAX_OPTION_VALUE = 256
MAX_PARAMETERS = 4096
MAX_FRAMES_PER_RECORD = 1024
"""A run of Padding counts once, so a record of 2^14 bytes has no use for more."""

STREAM_TRAILER = struct.Struct(">HQIB")
"""What stands behind the data of a Stream frame: length, offset, stream id, type."""
STREAM_TYPE = 0x02
STREAM_FIN_TYPE = 0x03


def _text(reader: TailReader, length_bytes: int, most: int) -> str:
    try:
        return reader.opaque(length_bytes, most=most).decode()
    except UnicodeDecodeError:
        raise PeerError(Reason.BAD_VALUE, "text is not UTF-8") from None


def _offset(reader: TailReader) -> int:
    value = reader.u64()
    if value > MAX_OFFSET:
        raise PeerError(Reason.BAD_VALUE, "an offset above 2^62 - 1")
    return value


@dataclass(frozen=True, slots=True)
class Padding:
    """A run of Padding frames, each of which is its type byte alone."""

    TYPE: ClassVar[int] = 0x00
    count: int = 1

    @classmethod
    def read(cls, reader: TailReader) -> Padding:
        return cls()

    def write(self, writer: Writer) -> None:
        writer.put(bytes(self.count))


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for an acknowledgment at once."""

    TYPE: ClassVar[int] = 0x01

    @classmethod
    def read(cls, reader: TailReader) -> Ping:
        return cls()

    def write(self, writer: Writer) -> None:
        writer.u8(self.TYPE)


@dataclass(frozen=True, slots=True)
class Stream:
    """`data` of a stream at `offset`. Read frames lend it: it is a view of the record."""

    TYPE: ClassVar[int] = STREAM_TYPE
    stream_id: int
    offset: int
    data: Buffer = field(repr=False)
    fin: bool = False

    @classmethod
    def read(cls, reader: TailReader, fin: bool = False) -> Stream:
        stream_id = reader.u32()
        offset = reader.u64()
        data = reader.view(reader.u16())
        if offset + len(data) > MAX_OFFSET:
            raise PeerError(Reason.BAD_VALUE, "a stream ends above 2^62 - 1")
        return cls(stream_id, offset, data, fin)

    @classmethod
    def read_fin(cls, reader: TailReader) -> Stream:
        return cls.read(reader, fin=True)

    def write(self, writer: Writer) -> None:
        writer.put(self.data)
        kind = STREAM_FIN_TYPE if self.fin else STREAM_TYPE
        writer.put(STREAM_TRAILER.pack(len(self.data), self.offset, self.stream_id, kind))


@dataclass(frozen=True, slots=True)
class Ack:
    """All records of `connection_id` up to the number `highest` were received."""

    TYPE: ClassVar[int] = 0x04
    connection_id: int
    highest: int

    @classmethod
    def read(cls, reader: TailReader) -> Ack:
        return cls(reader.u32(), reader.u64())

    def write(self, writer: Writer) -> None:
        writer.u64(self.highest)
        writer.u32(self.connection_id)
        writer.u8(self.TYPE)


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token for one join; `sequence` becomes the id of the connection that joins with it."""

    TYPE: ClassVar[int] = 0x05
    sequence: int
    token: bytes = field(repr=False)

    @classmethod
    def read(cls, reader: TailReader) -> NewToken:
        return cls(reader.u8(), reader.take(TOKEN_SIZE))

    def write(self, writer: Writer) -> None:
        writer.put(self.token)
        writer.u8(self.sequence)
        writer.u8(self.TYPE)


@dataclass(frozen=True, slots=True)
class ConnectionReset:
    """The sender of this frame saw the connection `connection_id` fail."""

    TYPE: ClassVar[int] = 0x06
    connection_id: int

    @classmethod
    def read(cls, reader: TailReader) -> ConnectionReset:
        return cls(reader.u32())

    def write(self, writer: Writer) -> None:
        writer.u32(self.connection_id)
        writer.u8(self.TYPE)


@dataclass(frozen=True, slots=True)
class NewAddress:
    """An address of the sender's for further connections: 4 bytes (IPv4) or 16 (IPv6), and a port."""

    TYPE: ClassVar[int] = 0x07
    address_id: int
    address: bytes
    port: int

    @classmethod
    def read(cls, reader: TailReader) -> NewAddress:
        address_id = reader.u8()
        version = reader.u8()
        if version not in (4, 6):
            raise PeerError(Reason.BAD_VALUE, f"address version {version}")
        address = reader.take(4 if version == 4 else 16)
        return cls(address_id, address, reader.u16())

    def write(self, writer: Writer) -> None:
        writer.u16(self.port)
        writer.put(self.address)
        writer.u8(4 if len(self.address) == 4 else 6)
        writer.u8(self.address_id)
        writer.u8(self.TYPE)


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    TYPE: ClassVar[int] = 0x08
    address_id: int

    @classmethod
    def read(cls, reader: TailReader) -> RemoveAddress:
        return cls(reader.u8())

    def write(self, writer: Writer) -> None:
        writer.u8(self.address_id)
        writer.u8(self.TYPE)


@dataclass(frozen=True, slots=True)
class StreamChange:
    """A hint: the next record on this connection starts with this stream at this offset."""

    TYPE: ClassVar[int] = 0x09
    stream_id: int
    offset: int

    @classmethod
    def read(cls, reader: TailReader) -> StreamChange:
        # The draft draws the offset behind the stream id, so the offset is what is read first.
        offset = reader.u64()
        return cls(reader.u32(), offset)

    def write(self, writer: Writer) -> None:
        writer.u32(self.stream_id)
        writer.u64(self.offset)
        writer.u8(self.TYPE)


@dataclass(frozen=True, slots=True)
class MaxData:
    """The peer may send `maximum` bytes on all streams together, counted from the start of the session."""

    TYPE: ClassVar[int] = 0x20
    maximum: int

    @classmethod
    def read(cls, reader: TailReader) -> MaxData:
        return cls(_offset(reader))

    def write(self, writer: Writer) -> None:
        writer.u64(self.maximum)
        writer.u8(self.TYPE)


@dataclass(frozen=True, slots=True)
class MaxStreamData:
    """The peer may send `maximum` bytes on this stream."""

    TYPE: ClassVar[int] = 0x21
    stream_id: int
    maximum: int

    @classmethod
    def read(cls, reader: TailReader) -> MaxStreamData:
        return cls(reader.u32(), _offset(reader))

    def write(self, writer: Writer) -> None:
        writer.u64(self.maximum)
        writer.u32(self.stream_id)
        writer.u8(self.TYPE)


@dataclass(frozen=True, slots=True)
class MaxStreams:
    """The peer may open `maximum` streams, counted from the start of the session."""

    TYPE: ClassVar[int] = 0x22
    maximum: int

    @classmethod
    def read(cls, reader: TailReader) -> MaxStreams:
        maximum = reader.u32()
        if maximum > 1 << 31:
            raise PeerError(Reason.BAD_VALUE, "more streams than there are ids")
        return cls(maximum)

    def write(self, writer: Writer) -> None:
        writer.u32(self.maximum)
        writer.u8(self.TYPE)


@dataclass(frozen=True, slots=True)
class ResetStream:
    """The sender gives up this stream, of which it has sent `final_size` bytes."""

    TYPE: ClassVar[int] = 0x23
    stream_id: int
    final_size: int
    code: int

    @classmethod
    def read(cls, reader: TailReader) -> ResetStream:
        return cls(reader.u32(), _offset(reader), reader.u32())

    def write(self, writer: Writer) -> None:
        writer.u32(self.code)
        writer.u64(self.final_size)
        writer.u32(self.stream_id)
        writer.u8(self.TYPE)


@dataclass(frozen=True, slots=True)
class StopSending:
    """The receiver no longer wants this stream; the sender answers with Reset Stream."""

    TYPE: ClassVar[int] = 0x24
    stream_id: int
    code: int

    @classmethod
    def read(cls, reader: TailReader) -> StopSending:
        return cls(reader.u32(), reader.u32())

    def write(self, writer: Writer) -> None:
        writer.u32(self.code)
        writer.u32(self.stream_id)
        writer.u8(self.TYPE)


@dataclass(frozen=True, slots=True)
class SessionClose:
    """The authenticated end of the session."""

    TYPE: ClassVar[int] = 0x25
    code: int
    reason: str

    @classmethod
    def read(cls, reader: TailReader) -> SessionClose:
        return cls(reader.u32(), _text(reader, 2, MAX_REASON))

    def write(self, writer: Writer) -> None:
        writer.opaque_tail(2, self.reason.encode())
        writer.u32(self.code)
        writer.u8(self.TYPE)


class PathState(enum.IntEnum):
    AVAILABLE = 0
    STANDBY = 1
    CLOSING = 2


@dataclass(frozen=True, slots=True)
class PathStatus:
    """How the sender would like a connection to be used. Of two, the one with the higher `sequence` counts."""

    TYPE: ClassVar[int] = 0x26
    connection_id: int
    sequence: int
    state: PathState
    priority: int

    @classmethod
    def read(cls, reader: TailReader) -> PathStatus:
        connection_id = reader.u32()
        sequence = reader.u32()
        state = reader.u8()
        if state > max(PathState):
            raise PeerError(Reason.BAD_VALUE, f"path state {state}")
        return cls(connection_id, sequence, PathState(state), reader.u8())

    def write(self, writer: Writer) -> None:
        writer.u8(self.priority)
        writer.u8(self.state)
        writer.u32(self.sequence)
        writer.u32(self.connection_id)
        writer.u8(self.TYPE)


@dataclass(frozen=True, slots=True)
class ParametersFrame:
    """The client's parameters that did not go into its ClientHello, as parameters.py writes them."""

    TYPE: ClassVar[int] = 0x27
    parameters: bytes

    @classmethod
    def read(cls, reader: TailReader) -> ParametersFrame:
        return cls(reader.opaque(2, most=MAX_PARAMETERS))

    def write(self, writer: Writer) -> None:
        writer.opaque_tail(2, self.parameters)
        writer.u8(self.TYPE)


@dataclass(frozen=True, slots=True)
class TcpOption:
    """Asks for a TCP option. `value` is in the form of options.py's registry; the kind of value comes with the id."""

    TYPE: ClassVar[int] = 0x28
    request_id: int
    connection_id: int
    option_id: int
    value: bytes

    @classmethod
    def read(cls, reader: TailReader) -> TcpOption:
        return cls(reader.u32(), reader.u32(), reader.u16(), reader.opaque(2, most=MAX_OPTION_VALUE))

    def write(self, writer: Writer) -> None:
        writer.opaque_tail(2, self.value)
        writer.u16(self.option_id)
        writer.u32(self.connection_id)
        writer.u32(self.request_id)
        writer.u8(self.TYPE)


@dataclass(frozen=True, slots=True)
class TcpOptionResult:
    """The answer to a TCP Option. `value` is what the kernel reports, empty when there is nothing to report."""

    TYPE: ClassVar[int] = 0x29
    request_id: int
    status: OptionStatus
    errno: int
    value: bytes

    @classmethod
    def read(cls, reader: TailReader) -> TcpOptionResult:
        request_id = reader.u32()
        status = reader.u8()
        if status > max(OptionStatus):
            raise PeerError(Reason.BAD_VALUE, f"option status {status}")
        return cls(request_id, OptionStatus(status), reader.u32(), reader.opaque(2, most=MAX_OPTION_VALUE))

    def write(self, writer: Writer) -> None:
        writer.opaque_tail(2, self.value)
        writer.u32(self.errno)
        writer.u8(self.status)
        writer.u32(self.request_id)
        writer.u8(self.TYPE)


@dataclass(frozen=True, slots=True)
class ProgramOfferFrame:
    """A program that the sender would like the receiver to attach to `connections` (none: to all)."""

    TYPE: ClassVar[int] = 0x30
    program_id: int
    size: int
    digest: bytes
    name: str
    abi: str
    signature: bytes = b""
    key_id: bytes = b""
    connections: tuple[int, ...] = ()

    @classmethod
    def read(cls, reader: TailReader) -> ProgramOfferFrame:
        program_id = reader.u32()
        size = reader.u32()
        digest = reader.take(DIGEST_SIZE)
        name = _text(reader, 1, MAX_NAME)
        abi = _text(reader, 1, MAX_ABI)
        signature = reader.opaque(2, most=MAX_SIGNATURE)
        key_id = reader.opaque(1)
        connections = tuple(reader.u32() for _ in range(reader.u8()))
        return cls(program_id, size, digest, name, abi, signature, key_id, connections)

    def write(self, writer: Writer) -> None:
        for connection_id in reversed(self.connections):
            writer.u32(connection_id)
        writer.u8(len(self.connections))
        writer.opaque_tail(1, self.key_id)
        writer.opaque_tail(2, self.signature)
        writer.opaque_tail(1, self.abi.encode())
        writer.opaque_tail(1, self.name.encode())
        writer.put(self.digest)
        writer.u32(self.size)
        writer.u32(self.program_id)
        writer.u8(self.TYPE)


class Want(enum.IntEnum):
    """The answer to a Program Offer."""

    SEND = 0
    CACHED = 1
    REFUSED = 2


@dataclass(frozen=True, slots=True)
class ProgramRequest:
    """`SEND`: everything before `offset` is here, send on from there. `REFUSED` has a reason."""

    TYPE: ClassVar[int] = 0x31
    program_id: int
    want: Want
    offset: int = 0
    reason: str = ""

    @classmethod
    def read(cls, reader: TailReader) -> ProgramRequest:
        program_id = reader.u32()
        want = reader.u8()
        if want > max(Want):
            raise PeerError(Reason.BAD_VALUE, f"program request {want}")
        return cls(program_id, Want(want), reader.u32(), _text(reader, 2, MAX_REASON))

    def write(self, writer: Writer) -> None:
        writer.opaque_tail(2, self.reason.encode())
        writer.u32(self.offset)
        writer.u8(self.want)
        writer.u32(self.program_id)
        writer.u8(self.TYPE)


@dataclass(frozen=True, slots=True)
class ProgramData:
    """Bytes of a program at `offset`. Read frames lend `data`."""

    TYPE: ClassVar[int] = 0x32
    program_id: int
    offset: int
    data: Buffer = field(repr=False)

    @classmethod
    def read(cls, reader: TailReader) -> ProgramData:
        return cls(reader.u32(), reader.u32(), reader.view(reader.u16()))

    def write(self, writer: Writer) -> None:
        writer.opaque_tail(2, self.data)
        writer.u32(self.offset)
        writer.u32(self.program_id)
        writer.u8(self.TYPE)


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """How far a program came at its receiver."""

    TYPE: ClassVar[int] = 0x33
    program_id: int
    stage: Stage
    ok: bool
    algorithm: str = ""
    reason: str = ""
    log: str = ""

    @classmethod
    def read(cls, reader: TailReader) -> ProgramResult:
        program_id = reader.u32()
        stage = reader.u8()
        ok = reader.u8()
        if stage > max(Stage) or ok > 1:
            raise PeerError(Reason.BAD_VALUE, f"program stage {stage}, ok {ok}")
        algorithm = _text(reader, 1, MAX_NAME)
        return cls(
            program_id, Stage(stage), bool(ok), algorithm, _text(reader, 2, MAX_REASON), _text(reader, 2, MAX_LOG)
        )

    def write(self, writer: Writer) -> None:
        writer.opaque_tail(2, self.log.encode())
        writer.opaque_tail(2, self.reason.encode())
        writer.opaque_tail(1, self.algorithm.encode())
        writer.u8(self.ok)
        writer.u8(self.stage)
        writer.u32(self.program_id)
        writer.u8(self.TYPE)


@dataclass(frozen=True, slots=True)
class ProgramDetach:
    """The program's sender takes it back."""

    TYPE: ClassVar[int] = 0x34
    program_id: int

    @classmethod
    def read(cls, reader: TailReader) -> ProgramDetach:
        return cls(reader.u32())

    def write(self, writer: Writer) -> None:
        writer.u32(self.program_id)
        writer.u8(self.TYPE)


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What New Token is, with room for a session's later connections: their ids do not end at 255."""

    TYPE: ClassVar[int] = 0x2A
    sequence: int
    token: bytes = field(repr=False)

    @classmethod
    def read(cls, reader: TailReader) -> JoinToken:
        return cls(reader.u32(), reader.take(TOKEN_SIZE))

    def write(self, writer: Writer) -> None:
        writer.put(self.token)
        writer.u32(self.sequence)
        writer.u8(self.TYPE)


Frame = (
    Padding
    | Ping
    | Stream
    | Ack
    | NewToken
    | ConnectionReset
    | NewAddress
    | RemoveAddress
    | StreamChange
    | MaxData
    | MaxStreamData
    | MaxStreams
    | ResetStream
    | StopSending
    | SessionClose
    | PathStatus
    | ParametersFrame
    | TcpOption
    | TcpOptionResult
    | ProgramOfferFrame
    | ProgramRequest
    | ProgramData
    | ProgramResult
    | ProgramDetach
    | JoinToken
)

DRAFT_FRAMES: dict[int, Callable[[TailReader], Frame]] = {
    Padding.TYPE: Padding.read,
    Ping.TYPE: Ping.read,
    STREAM_TYPE: Stream.read,
    STREAM_FIN_TYPE: Stream.read_fin,
    Ack.TYPE: Ack.read,
    NewToken.TYPE: NewToken.read,
    ConnectionReset.TYPE: ConnectionReset.read,
    NewAddress.TYPE: NewAddress.read,
    RemoveAddress.TYPE: RemoveAddress.read,
    StreamChange.TYPE: StreamChange.read,
}
"""What an end understands that did not send tcpls_parameters."""

ALL_FRAMES: dict[int, Callable[[TailReader], Frame]] = DRAFT_FRAMES | {
    MaxData.TYPE: MaxData.read,
    MaxStreamData.TYPE: MaxStreamData.read,
    MaxStreams.TYPE: MaxStreams.read,
    ResetStream.TYPE: ResetStream.read,
    StopSending.TYPE: StopSending.read,
    SessionClose.TYPE: SessionClose.read,
    PathStatus.TYPE: PathStatus.read,
    ParametersFrame.TYPE: ParametersFrame.read,
    TcpOption.TYPE: TcpOption.read,
    TcpOptionResult.TYPE: TcpOptionResult.read,
    ProgramOfferFrame.TYPE: ProgramOfferFrame.read,
    ProgramRequest.TYPE: ProgramRequest.read,
    ProgramData.TYPE: ProgramData.read,
    ProgramResult.TYPE: ProgramResult.read,
    ProgramDetach.TYPE: ProgramDetach.read,
    JoinToken.TYPE: JoinToken.read,
}

EARLY_FRAMES: dict[int, Callable[[TailReader], Frame]] = {
    Padding.TYPE: Padding.read,
    STREAM_TYPE: Stream.read,
    STREAM_FIN_TYPE: Stream.read_fin,
    ParametersFrame.TYPE: ParametersFrame.read,
}
"""What may stand in early data: what does nothing but begin streams, because it may be a replay."""


def parse_frames(content: Buffer, table: dict[int, Callable[[TailReader], Frame]] = ALL_FRAMES) -> Iterator[Frame]:
    """The frames of one record, from the last to the first. Raises `PeerError`."""
    reader = TailReader(content)
    for _ in range(MAX_FRAMES_PER_RECORD):
        if not reader.remaining:
            return
        kind = reader.u8()
        read = table.get(kind)
        if read is None:
            raise PeerError(Reason.UNKNOWN_FRAME, f"type 0x{kind:02x}")
        if kind:
            yield read(reader)
        else:
            rest = bytes(content[: reader.remaining])
            zeros = len(rest) - len(rest.rstrip(b"\0"))
            reader.view(zeros)
            yield Padding(1 + zeros)
    if reader.remaining:
        raise PeerError(Reason.TOO_LARGE, f"more than {MAX_FRAMES_PER_RECORD} frames in a record")


def encode(*frames: Frame) -> bytes:
    """The frames one behind the other, in wire order: the receiver handles the last one first."""
    writer = Writer()
    for frame in frames:
        frame.write(writer)
    return writer.bytes()


def clip(text: str, most: int) -> str:
    """The text, cut to `most` bytes of UTF-8 between two characters."""
    return text.encode(errors="replace")[:most].decode(errors="ignore")
