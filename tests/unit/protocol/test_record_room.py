"""A session whose peer takes short records only (RFC 8449)."""

from __future__ import annotations

import pytest

from tcpls.protocol.events import Stage
from tcpls.protocol.frames import (
    MAX_ABI,
    MAX_LOG,
    MAX_PARAMETERS,
    MAX_REASON,
    MAX_SIGNATURE,
    MaxData,
    MaxStreamData,
    ParametersFrame,
    ProgramData,
    ProgramOfferFrame,
    ProgramRequest,
    ProgramResult,
    SessionClose,
    Stream,
    Want,
    encode,
)
from tcpls.protocol.negotiation import LEAST_CONTENT
from tests.unit.protocol.ends import Sink, client, give


@pytest.mark.clause("RFC 8449 4")
def test_records_are_no_longer_than_the_peer_takes() -> None:
    """Streams, runs of them, pieces of a program and the control frames beside them: the sink refuses longer ones."""
    core = client()
    core.open_stream()
    core.open_stream()
    data = bytes(range(256)) * 400
    core.send(0, data, 0.0)
    core.send(2, data[:50_000], 0.0)
    image = bytes(30_000)
    program = core.control.offer_program("vegas", image, "bpfel")
    sink = Sink(max_content=LEAST_CONTENT)
    core.transmit(0, sink, 0.0)
    give(core, ProgramRequest(program, Want.SEND, 0))
    give(core, MaxData(1 << 20), MaxStreamData(0, 1 << 20), MaxStreamData(2, 1 << 20))
    core.transmit(0, sink, 0.0)
    sizes = [len(content) for _, content in sink.records]
    assert max(sizes) == LEAST_CONTENT
    received: dict[int, bytes] = {0: b"", 2: b""}
    shipped = b""
    for frame in sink.frames():
        if isinstance(frame, Stream):
            assert frame.offset == len(received[frame.stream_id])
            received[frame.stream_id] += frame.data
        elif isinstance(frame, ProgramData):
            shipped += frame.data
    assert received == {0: data, 2: data[:50_000]}
    assert shipped == image


def test_the_largest_control_frames_fit_into_the_least_record() -> None:
    result = ProgramResult(1 << 31, Stage.ATTACHED, True, "a" * 63, "r" * MAX_REASON, "l" * MAX_LOG)
    offer = ProgramOfferFrame(
        1 << 31, 1, bytes(32), "n" * 63, "a" * MAX_ABI, bytes(MAX_SIGNATURE), bytes(255), tuple(range(255))
    )
    for frame in (result, offer, ParametersFrame(bytes(MAX_PARAMETERS)), SessionClose(1, "r" * MAX_REASON)):
        assert len(encode(frame)) <= LEAST_CONTENT
