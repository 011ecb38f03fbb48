"""`tcpls_parameters`: what an end announces about itself beyond the draft (docs/wire-format.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from tcpls.errors import PeerError, Reason
from tcpls.protocol.frames import MAX_ABI, MAX_OFFSET
from tcpls.wire import Buffer, Reader, Writer

MAX_STREAM_LIMIT = 1 << 20
MAX_IDLE_TIMEOUT = 7 * 24 * 3600 * 1000
MAX_ACK_RECORDS = 4096
MAX_ACK_DELAY = 10_000
MAX_CONNECTIONS = 256
"""Connection ids are token sequence numbers, which have 8 bits."""
MAX_PROGRAM_SIZE = 1 << 24
MAX_UNKNOWN = 64
"""Parameters of unknown ids that are skipped in one list."""

PROGRAMS_PINNED = 1
PROGRAMS_SIGNED = 2
PROGRAMS_AUTHENTICATED = 4


@dataclass(frozen=True, slots=True)
class ProgramSupport:
    """Which programs this end takes: a set of the `PROGRAMS_` bits, the largest size, and the BPF ABI it runs."""

    modes: int
    size_limit: int
    abi: str


@dataclass(frozen=True, slots=True)
class Parameters:
    """What one end announces. The values here are those of a parameter that is absent.

    Windows are in bytes, times in milliseconds. `ack_records` and `ack_delay` are what this end asks of its peer;
    `options` are the ids of TCP options that may be asked of this end.
    """

    session_window: int = 0
    stream_window: int = 0
    stream_limit: int = 0
    idle_timeout: int = 0
    ack_records: int = 32
    ack_delay: int = 25
    failover: bool = False
    max_connections: int = 1
    options: tuple[int, ...] = ()
    programs: ProgramSupport | None = None

    def write(self) -> bytes:
        """The list of parameters, those with the value of an absent one left out."""
        writer = Writer()
        for parameter_id, entry in _REGISTRY.items():
            values = tuple(getattr(self, name) for name in entry.names)
            if values != tuple(getattr(ABSENT, name) for name in entry.names):
                writer.u16(parameter_id)
                with writer.vector(2):
                    entry.write(writer, *values)
        return writer.bytes()

    @classmethod
    def read(cls, data: Buffer) -> Parameters:
        """Unknown ids are skipped. Raises `PeerError`: DUPLICATE, BAD_VALUE, TRUNCATED, TRAILING_BYTES, TOO_LARGE."""
        reader = Reader(data)
        values: dict[str, Any] = {}
        seen: set[int] = set()
        while reader.remaining:
            parameter_id = reader.u16()
            value = reader.vector(2)
            if parameter_id in seen:
                raise PeerError(Reason.DUPLICATE, f"parameter {parameter_id}")
            seen.add(parameter_id)
            entry = _REGISTRY.get(parameter_id)
            if entry is None:
                if len(seen) > MAX_UNKNOWN:
                    raise PeerError(Reason.TOO_LARGE, "too many parameters")
                continue
            values.update(zip(entry.names, entry.read(value), strict=True))
            value.end()
        return cls(**values)

    def updated(self, late: Parameters) -> Parameters:
        """These with the values that `late` has. Raises `PeerError(DUPLICATE)` where both have one."""
        values: dict[str, Any] = {}
        for item in fields(self):
            ours, theirs, absent = (getattr(each, item.name) for each in (self, late, ABSENT))
            if ours != absent and theirs != absent:
                raise PeerError(Reason.DUPLICATE, f"parameter {item.name}")
            values[item.name] = ours if theirs == absent else theirs
        return Parameters(**values)


@dataclass(frozen=True, slots=True)
class _Entry:
    """How one parameter is read and written, and which fields of `Parameters` it has."""

    names: tuple[str, ...]
    read: Callable[[Reader], tuple[Any, ...]]
    write: Callable[..., None]


def _ranged(value: int, most: int, least: int = 0) -> int:
    if not least <= value <= most:
        raise PeerError(Reason.BAD_VALUE, f"{value} is outside {least}..{most}")
    return value


def _read_options(reader: Reader) -> tuple[tuple[int, ...]]:
    ids = []
    while reader.remaining:
        ids.append(reader.u16())
    if len(set(ids)) != len(ids):
        raise PeerError(Reason.DUPLICATE, "an option id")
    return (tuple(ids),)


def _write_options(writer: Writer, ids: tuple[int, ...]) -> None:
    for option_id in ids:
        writer.u16(option_id)


def _read_programs(reader: Reader) -> tuple[ProgramSupport]:
    modes = _ranged(reader.u8(), 7, 1)
    size_limit = _ranged(reader.u32(), MAX_PROGRAM_SIZE, 1)
    try:
        abi = reader.opaque(1, most=MAX_ABI).decode("ascii")
    except UnicodeDecodeError:
        raise PeerError(Reason.BAD_VALUE, "an ABI that is not ASCII") from None
    return (ProgramSupport(modes, size_limit, abi),)


def _write_programs(writer: Writer, programs: ProgramSupport) -> None:
    writer.u8(programs.modes)
    writer.u32(programs.size_limit)
    writer.opaque(1, programs.abi.encode("ascii"))


def _read_ack(reader: Reader) -> tuple[int, int]:
    return _ranged(reader.u16(), MAX_ACK_RECORDS, 1), _ranged(reader.u16(), MAX_ACK_DELAY)


def _write_ack(writer: Writer, records: int, delay: int) -> None:
    writer.u16(records)
    writer.u16(delay)


_REGISTRY: dict[int, _Entry] = {
    1: _Entry(("session_window",), lambda r: (_ranged(r.u64(), MAX_OFFSET),), Writer.u64),
    2: _Entry(("stream_window",), lambda r: (_ranged(r.u64(), MAX_OFFSET),), Writer.u64),
    3: _Entry(("stream_limit",), lambda r: (_ranged(r.u32(), MAX_STREAM_LIMIT),), Writer.u32),
    4: _Entry(("idle_timeout",), lambda r: (_ranged(r.u32(), MAX_IDLE_TIMEOUT),), Writer.u32),
    5: _Entry(("ack_records", "ack_delay"), _read_ack, _write_ack),
    6: _Entry(("failover",), lambda r: (bool(_ranged(r.u8(), 1)),), Writer.u8),
    7: _Entry(("max_connections",), lambda r: (_ranged(r.u16(), MAX_CONNECTIONS, 1),), Writer.u16),
    8: _Entry(("options",), _read_options, _write_options),
    9: _Entry(("programs",), _read_programs, _write_programs),
}

ABSENT = Parameters()
"""What a peer that sent an empty tcpls_parameters has announced."""
