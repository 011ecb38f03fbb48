"""The two halves of a stream against a model: any order, any overlap, any sizes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tcpls.errors import PeerError, Reason
from tcpls.protocol.streams import MAX_GAPS, ReceiveStream, SendStream

CONTENT = bytes(index * 7 % 251 for index in range(40_000))
pieces = st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(0, 3000)), max_size=60)


def covered_to(ranges: list[tuple[int, int]]) -> int:
    """How far `ranges` reach from 0 without a gap."""
    reach = 0
    for start, end in sorted(ranges):
        if start > reach:
            break
        reach = max(reach, end)
    return reach


@given(pieces, st.lists(st.integers(1, 5000), min_size=1, max_size=10))
def test_pieces_in_any_order_come_out_once_in_order(arriving: list[tuple[int, int]], limits: list[int]) -> None:
    stream = ReceiveStream(0, None)
    known: list[tuple[int, int]] = []
    received = bytearray()
    for number, (start, size) in enumerate(arriving):
        end = min(len(CONTENT), start + size)
        stream.check(end, False)
        stream.insert(start, memoryview(CONTENT)[start:end], False)
        known.append((start, end))
        received += stream.take(limits[number % len(limits)])
        assert stream.offset == covered_to(known)
        assert stream.highest == max(stream.offset, *(end for _, end in known))
        distinct = len({at for start, end in known for at in range(start, end)})
        assert stream.buffered == distinct - stream.offset
    while data := stream.take(1 << 16):
        received += data
    assert bytes(received) == CONTENT[: covered_to(known)]


@given(pieces, st.randoms(use_true_random=False))
def test_a_whole_stream_cut_and_shuffled_is_whole(extra: list[tuple[int, int]], random: object) -> None:
    cuts = sorted({0, len(CONTENT), *(start for start, _ in extra)})
    parts = list(pairwise(cuts))
    parts += [(start, min(len(CONTENT), start + size)) for start, size in extra]
    random.shuffle(parts)  # type: ignore[attr-defined]
    stream = ReceiveStream(0, len(CONTENT))
    for start, end in parts:
        fin = end == len(CONTENT)
        stream.check(end, fin)
        stream.insert(start, CONTENT[start:end], fin)
    assert stream.ended
    assert stream.buffered == 0
    assert stream.take(len(CONTENT)) == CONTENT


@given(st.integers(1, 600))
def test_gaps_are_bounded(count: int) -> None:
    stream = ReceiveStream(0, None)
    try:
        for number in range(count):
            stream.insert(2 * number + 2, b"x", False)
    except PeerError as error:
        assert error.reason is Reason.FLOW_CONTROL
        assert count > MAX_GAPS
    else:
        assert count <= MAX_GAPS


@given(st.lists(st.integers(0, 5000), max_size=20), st.lists(st.integers(1, 4000), min_size=1, max_size=20))
def test_what_is_queued_is_taken_in_order(chunks: list[int], limits: list[int]) -> None:
    stream = SendStream(0, 1 << 40, retain=True)
    at = 0
    for size in chunks:
        stream.append((CONTENT * 3)[at : at + size])
        at += size
    taken = bytearray()
    records = []
    turn = 0
    while stream.sendable:
        start = stream.sent
        limit = limits[turn % len(limits)]
        turn += 1
        got = b"".join(bytes(part) for part in stream.take(limit))
        assert 0 < len(got) <= limit
        assert len(got) == limit or not stream.sendable
        records.append((start, stream.sent))
        taken += got
    assert bytes(taken) == (CONTENT * 3)[:at]
    for start, end in reversed(records):
        stream.acknowledge(start, end, False)
    assert stream.acknowledged == at
    assert not stream._retained
    assert not stream._acknowledged_ahead
