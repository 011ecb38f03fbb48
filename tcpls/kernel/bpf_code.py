"""What a program's instructions may be: the scan of the bytes themselves, before any of them reaches a kernel.

The encoding is that of RFC 9669.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

# Helpers that read the clock or the program's own maps, or send an ACK. None reads kernel memory, names a task, sends
# a signal, changes socket options or takes a function to call. The numbers are part of the kernel's user interface.
HELPERS: dict[int, str] = {
    1: "map_lookup_elem",
    2: "map_update_elem",
    3: "map_delete_elem",
    5: "ktime_get_ns",
    7: "get_prandom_u32",
    107: "sk_storage_get",
    108: "sk_storage_delete",
    116: "tcp_send_ack",
    118: "jiffies64",
    125: "ktime_get_boot_ns",
    130: "ringbuf_output",
    131: "ringbuf_reserve",
    132: "ringbuf_submit",
    133: "ringbuf_discard",
    134: "ringbuf_query",
    160: "ktime_get_coarse_ns",
}

# Kernel functions of the built-in controllers, which work on the connection that they are given.
KFUNCS: frozenset[str] = frozenset(
    {"tcp_reno_ssthresh", "tcp_reno_cong_avoid", "tcp_reno_undo_cwnd", "tcp_slow_start", "tcp_cong_avoid_ai"}
    | {f"cubictcp_{part}" for part in ("init", "recalc_ssthresh", "cong_avoid", "state", "cwnd_event", "acked")}
    | {f"bbr_{part}" for part in ("init", "main", "sndbuf_expand", "undo_cwnd", "cwnd_event", "ssthresh")}
    | {"bbr_min_tso_segs", "bbr_set_state"}
)

_LOAD_64 = 0x18
_CALL = 0x85
_EXIT = 0x95
_CLASS_LD, _CLASS_LDX, _CLASS_ST, _CLASS_STX, _CLASS_ALU, _CLASS_JMP, _CLASS_JMP32, _CLASS_ALU64 = range(8)
_MODE_MEM, _MODE_MEMSX, _MODE_ATOMIC = 0x60, 0x80, 0xC0
# Jumps of the 64-bit class other than call and exit: conditions 0x0-0x7 and 0xa-0xd of the upper half.
_JUMPS = frozenset({0x0, 0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0xA, 0xB, 0xC, 0xD})


class CodeError(ValueError):
    """An instruction that a program may not have."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a helper (`helper` is its number) or of something that a relocation or an offset names (`helper` 0)."""

    at: int
    helper: int
    offset: int


@dataclass(frozen=True, slots=True)
class Code:
    """What one section's instructions refer to. Positions are in bytes from the section's start."""

    instructions: int
    calls: tuple[Call, ...]
    wide_loads: frozenset[int]


def scan(data: bytes) -> Code:
    """Reads all instructions of a section. Raises `CodeError`."""
    if len(data) % 8:
        raise CodeError("half an instruction")
    calls: list[Call] = []
    wide: set[int] = set()
    count = 0
    for at, opcode, source, immediate in _instructions(data, wide):
        count += 1
        if opcode == _CALL:
            calls.append(_call(at, source, immediate))
        elif opcode != _LOAD_64:
            _check_opcode(opcode)
    return Code(count + len(wide), tuple(calls), frozenset(wide))


def _instructions(data: bytes, wide: set[int]) -> Iterator[tuple[int, int, int, int]]:
    records = struct.iter_unpack("<BBhi", data)
    at = 0
    for opcode, registers, _, immediate in records:
        source = registers >> 4
        if registers & 0xF > 10 or source > 10:
            raise CodeError("an instruction names a register that does not exist")
        yield at, opcode, source, immediate
        if opcode == _LOAD_64:
            # A source register other than 0 makes the constant a map's descriptor or an address. Only the loader may
            # say that, from a relocation.
            if source:
                raise CodeError("a 64-bit load that is not of a plain constant")
            second = next(records, None)
            if second is None or second[:3] != (0, 0, 0):
                raise CodeError("a 64-bit load without its second half")
            wide.add(at)
            at += 8
        at += 8


def _call(at: int, source: int, immediate: int) -> Call:
    if source == 0:
        if immediate not in HELPERS:
            raise CodeError(f"calls helper {immediate}, which shipped programs may not use")
        return Call(at, immediate, 0)
    if source == 1:
        return Call(at, 0, immediate)
    raise CodeError("calls a kernel function by number")


def _check_opcode(opcode: int) -> None:
    kind = opcode & 7
    if kind in (_CLASS_ALU, _CLASS_ALU64):
        allowed = opcode >> 4 <= 0xD
    elif kind in (_CLASS_JMP, _CLASS_JMP32):
        allowed = opcode >> 4 in _JUMPS or opcode == _EXIT
    elif kind == _CLASS_LD:
        allowed = False
    else:
        modes = {_CLASS_LDX: (_MODE_MEM, _MODE_MEMSX), _CLASS_ST: (_MODE_MEM,), _CLASS_STX: (_MODE_MEM, _MODE_ATOMIC)}
        allowed = opcode & 0xE0 in modes[kind]
    if not allowed:
        raise CodeError(f"has an instruction that shipped programs may not use (0x{opcode:02x})")
