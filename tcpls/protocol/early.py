"""What a client's early data looks like: frames under what the server had announced when it gave the ticket."""

from __future__ import annotations

from tcpls.protocol.frames import ParametersFrame, Stream, encode
from tcpls.protocol.parameters import Parameters
from tcpls.protocol.resumption import Remembered
from tcpls.protocol.streams import MAX_STREAM_DATA
from tcpls.tls.record import MAX_CONTENT

STREAM_ID = 0
"""The first stream that a client opens."""
_OVERHEAD = MAX_CONTENT - MAX_STREAM_DATA


def early_records(remembered: Remembered, local: Parameters, data: bytes, room: int) -> tuple[list[bytes], int]:
    """The contents of records that carry the beginning of `data` on the first stream, and how much of it is in them.

    `room` is how many bytes the ticket allows, frames and all. `local` is what this end announces: it goes ahead, so
    that the server can answer at once.
    """
    if not remembered.tcpls:
        return _cut(data[:room], MAX_CONTENT), min(room, len(data))
    records = []
    allowed = len(data)
    if (server := remembered.server) is not None:
        records.append(encode(ParametersFrame(local.write())))
        allowed = min(allowed, server.session_window, server.stream_window) if server.stream_limit else 0
    room -= sum(map(len, records))
    sent = 0
    while sent < allowed and room > _OVERHEAD:
        part = data[sent : min(allowed, sent + min(MAX_STREAM_DATA, room - _OVERHEAD))]
        records.append(encode(Stream(STREAM_ID, sent, part, fin=False)))
        sent += len(part)
        room -= len(part) + _OVERHEAD
    return (records, sent) if sent else ([], 0)


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]
