"""TCP segments, made for tests."""

from __future__ import annotations

import struct

from tcpls.lab.packets import ACK, TCP, Endpoint, checksum

CLIENT: Endpoint = (bytes([10, 77, 1, 1]), 40000)
SERVER: Endpoint = (bytes([10, 77, 1, 2]), 4433)


def segment(
    source: Endpoint, target: Endpoint, sequence: int, acknowledgment: int, size: int, *, flags: int = ACK
) -> bytes:
    """An IPv4 packet with `size` bytes of data."""
    header = struct.pack(
        "!HHIIBBHHH", source[1], target[1], sequence % 2**32, acknowledgment % 2**32, 5 << 4, flags, 0, 0, 0
    )
    outer = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40 + size, 0, 0, 64, TCP, 0, source[0], target[0])
    return outer[:10] + struct.pack("!H", checksum(outer)) + outer[12:] + header + bytes(size)
