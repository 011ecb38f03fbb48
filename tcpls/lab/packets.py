"""IP and TCP headers, as far as a middlebox needs them: which flow a packet is of, and the reset that ends it."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TCP = 6
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
SEQUENCE = 1 << 32

Endpoint = tuple[bytes, int]
"""An address, as it stands in the header, and a port."""


@dataclass(frozen=True)
class Segment:
    """A TCP segment. `length` is what it takes of the sequence space: its data, and one each for SYN and FIN."""

    source: Endpoint
    target: Endpoint
    sequence: int
    acknowledgment: int
    flags: int
    length: int

    @property
    def flow(self) -> frozenset[Endpoint]:
        """The same for both ways."""
        return frozenset((self.source, self.target))


def parse(packet: bytes) -> Segment | None:
    """The TCP segment in an IP packet; None if there is none, or not the beginning of one.

    IPv6 extension headers are not followed: TCP as Linux sends it has none.
    """
    if len(packet) < 40:
        return None
    version = packet[0] >> 4
    if version == 4:
        begin = 4 * (packet[0] & 15)
        end = int.from_bytes(packet[2:4], "big")
        fragment = int.from_bytes(packet[6:8], "big") & 0x1FFF
        protocol, source, target = packet[9], packet[12:16], packet[16:20]
        if fragment:
            return None
    elif version == 6:
        begin, end = 40, 40 + int.from_bytes(packet[4:6], "big")
        protocol, source, target = packet[6], packet[8:24], packet[24:40]
    else:
        return None
    if protocol != TCP or begin + 20 > min(end, len(packet)):
        return None
    source_port, target_port, sequence, acknowledgment, offset, flags = struct.unpack_from("!HHIIBB", packet, begin)
    length = end - begin - 4 * (offset >> 4) + bool(flags & SYN) + bool(flags & FIN)
    return Segment((source, source_port), (target, target_port), sequence, acknowledgment, flags, length)


def later(one: int, other: int) -> bool:
    """Whether a sequence number comes after another (RFC 9293 3.4: modulo 2**32)."""
    return 0 < (one - other) % SEQUENCE < SEQUENCE // 2


def next_expected(sent: Iterable[Segment], delivered: Sequence[Segment]) -> int | None:
    """What an end of a flow expects next (RCV.NXT), from the segments it `sent` and those `delivered` to it.

    Its last acknowledgment says it, but for what was delivered since and has not been acknowledged.
    None if nothing was seen of it.
    """
    expected: int | None = None
    for segment in sent:
        if segment.flags & ACK and (expected is None or later(segment.acknowledgment, expected)):
            expected = segment.acknowledgment
    if expected is None:
        return None
    advanced = True
    while advanced:
        advanced = False
        for segment in delivered:
            end = (segment.sequence + segment.length) % SEQUENCE
            if later(end, expected) and not later(segment.sequence, expected):
                expected, advanced = end, True
    return expected


def reset(source: Endpoint, target: Endpoint, sequence: int, acknowledgment: int) -> bytes:
    """The packet that ends a flow at `target`, as if `source` had sent it.

    RFC 5961 3.2: only a reset whose sequence number is exactly the next that is expected counts.
    """
    ports = (source[1], target[1])
    header = struct.pack("!HHIIBBHHH", *ports, sequence, acknowledgment, 5 << 4, RST | ACK, 0, 0, 0)
    if len(source[0]) == 4:
        pseudo = source[0] + target[0] + struct.pack("!BBH", 0, TCP, len(header))
        outer = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(header), 0, 0, 64, TCP, 0, source[0], target[0])
        outer = outer[:10] + struct.pack("!H", checksum(outer)) + outer[12:]
    else:
        pseudo = source[0] + target[0] + struct.pack("!IHBB", len(header), 0, 0, TCP)
        outer = struct.pack("!IHBB16s16s", 6 << 28, len(header), TCP, 64, source[0], target[0])
    return outer + header[:16] + struct.pack("!H", checksum(pseudo + header)) + header[18:]


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
