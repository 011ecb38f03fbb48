"""Record protection: sequence numbers, limits, padding, split delivery, growth, connection ids, opening in place."""

from __future__ import annotations

import pytest

from tcpls.errors import Alert, PeerError, ProtocolViolation, Reason
from tcpls.tls.record import HEADER_SIZE, MAX_CIPHERTEXT, MAX_CONTENT, RECORD_ROOM, RecordOpener, RecordSealer
from tcpls.tls.suites import TAG_SIZE, CipherSuite, TrafficKeys
from tests.engine import ENGINE
from tests.unit.tls.pair import refused


def keys(suite: CipherSuite = CipherSuite.AES_128_GCM_SHA256, sequence: int = 0) -> TrafficKeys:
    return TrafficKeys(suite, bytes(range(suite.key_size)), bytes(range(12)), sequence)


def make_sealer(used: TrafficKeys | None = None, capacity: int = 32 * RECORD_ROOM) -> RecordSealer:
    return RecordSealer(ENGINE.aead, used or keys(), capacity)


def make_opener(used: TrafficKeys | None = None) -> RecordOpener:
    return RecordOpener(ENGINE.aead, used or keys(), ENGINE.invalid_tag)


def opened(opener: RecordOpener) -> tuple[int, bytes] | None:
    record = opener.next_record()
    return None if record is None else (record[0], bytes(record[1]))


def receive(opener: RecordOpener, data: bytes) -> None:
    """As a shell does, in as many pieces as there is room for."""
    while data:
        room = opener.writable()
        count = min(len(room), len(data))
        room[:count] = data[:count]
        opener.received(count)
        data = data[count:]


def raw_record(inner: bytes, used: TrafficKeys | None = None) -> bytes:
    """A record of any TLSInnerPlaintext."""
    used = used or keys()
    header = b"\x17\x03\x03" + (len(inner) + TAG_SIZE).to_bytes(2, "big")
    nonce = (int.from_bytes(used.iv, "big") ^ used.sequence).to_bytes(12, "big")
    sealed = bytearray(len(inner) + TAG_SIZE)
    ENGINE.aead(used).encrypt_into(nonce, inner, header, sealed)
    return header + sealed


def refuses(data: bytes, reason: Reason, alert: Alert) -> None:
    opener = make_opener()
    receive(opener, data)
    with pytest.raises(ProtocolViolation) as caught:
        opener.next_record()
    refused(caught.value, reason, alert)


@pytest.mark.clause("RFC 8446 5.3")
@pytest.mark.parametrize("suite", CipherSuite)
def test_many_records(suite: CipherSuite) -> None:
    sealer, opener = make_sealer(keys(suite)), make_opener(keys(suite))
    for number in range(20):
        sealer.put(23, b"record ", str(number).encode(), memoryview(b"!"))
        assert sealer.sequence == number + 1
    receive(opener, bytes(sealer.pending))
    for number in range(20):
        assert opened(opener) == (23, b"record %d!" % number)
        assert opener.sequence == number + 1
    assert opened(opener) is None
    assert opener.buffered == 0


@pytest.mark.clause("RFC 8446 5.1", "RFC 8446 5.2")
@pytest.mark.parametrize("size", [0, 1, 100, MAX_CONTENT - 1, MAX_CONTENT])
def test_sizes(size: int) -> None:
    sealer, opener = make_sealer(), make_opener()
    sealer.put(22, bytes(size))
    assert len(sealer.pending) == HEADER_SIZE + size + 1 + TAG_SIZE
    receive(opener, bytes(sealer.pending))
    assert opened(opener) == (22, bytes(size))


def test_split_delivery() -> None:
    sealer, opener = make_sealer(), make_opener()
    sealer.put(23, b"first")
    sealer.put(21, b"\1\0")
    found = []
    for byte in bytes(sealer.pending):
        receive(opener, bytes((byte,)))
        if record := opened(opener):
            found.append(record)
    assert found == [(23, b"first"), (21, b"\1\0")]


def test_room_and_partly_sent() -> None:
    sealer = make_sealer(capacity=2 * RECORD_ROOM)
    sealer.put(23, bytes(MAX_CONTENT))
    assert sealer.room
    sealer.put(23, bytes(MAX_CONTENT))
    assert not sealer.room
    whole = bytes(sealer.pending)
    sealer.sent(10)
    assert sealer.pending == whole[10:]
    assert not sealer.room
    sealer.sent(len(whole) - 10)
    assert sealer.room
    assert not sealer.pending
    sealer.release()
    sealer.put(23, b"again")
    opener = make_opener(keys(sequence=2))
    receive(opener, bytes(sealer.pending))
    assert opened(opener) == (23, b"again")


def test_growth_of_both_buffers() -> None:
    sealer, opener = make_sealer(), make_opener()
    count = 0
    while sealer.room:
        sealer.put(23, count.to_bytes(4, "big"), bytes(MAX_CONTENT - 4))
        count += 1
    assert count == 32
    data, found = bytes(sealer.pending), 0
    while data:
        room = opener.writable()
        taken = min(len(room), len(data))
        room[:taken] = data[:taken]
        opener.received(taken)
        data = data[taken:]
        while record := opener.next_record():
            assert record[1][:4] == found.to_bytes(4, "big")
            found += 1
    assert found == count
    opener.release()
    assert len(opener.writable()) == HEADER_SIZE + MAX_CIPHERTEXT


def test_feeding_does_not_grow_without_end() -> None:
    sealer, opener = make_sealer(), make_opener()
    for _ in range(100):
        sealer.put(23, bytes(1000))
        opener.feed(sealer.pending)
        sealer.sent(len(sealer.pending))
        assert opened(opener) == (23, bytes(1000))
    assert len(opener.writable()) == HEADER_SIZE + MAX_CIPHERTEXT


def test_room_behind_what_was_fed() -> None:
    sealer, opener = make_sealer(), make_opener()
    for _ in range(3):
        sealer.put(23, bytes(MAX_CONTENT))
    data = bytes(sealer.pending)
    opener.feed(data[:-1])
    room = opener.writable()
    room[:1] = data[-1:]
    opener.received(1)
    assert [opened(opener) for _ in range(3)] == [(23, bytes(MAX_CONTENT))] * 3


def test_discarded_records_take_no_sequence_number() -> None:
    sealer, opener = make_sealer(), make_opener()
    opener.feed(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ProtocolViolation):
        opener.next_record()
    opener.discard()
    sealer.put(23, b"data")
    opener.feed(sealer.pending)
    assert opened(opener) == (23, b"data")


@pytest.mark.clause("RFC 8446 5.4")
@pytest.mark.parametrize("padding", [1, 100, MAX_CONTENT - 4])
def test_padding(padding: int) -> None:
    opener = make_opener()
    receive(opener, raw_record(b"data\x17" + bytes(padding)))
    assert opened(opener) == (23, b"data")


@pytest.mark.clause("RFC 8446 5.4")
def test_padded_empty_content() -> None:
    opener = make_opener()
    receive(opener, raw_record(b"\x17" + bytes(10)))
    assert opened(opener) == (23, b"")


@pytest.mark.clause("RFC 8446 5", "RFC 8446 5.1", "RFC 8446 5.2", "RFC 8446 5.4")
@pytest.mark.parametrize(
    ("data", "reason", "alert"),
    [
        (raw_record(bytes(10)), Reason.UNEXPECTED_RECORD, Alert.UNEXPECTED_MESSAGE),
        (raw_record(b"x" * (MAX_CONTENT + 2)), Reason.RECORD_OVERFLOW, Alert.RECORD_OVERFLOW),
        (raw_record(b"x" * MAX_CONTENT + b"\x17\0"), Reason.RECORD_OVERFLOW, Alert.RECORD_OVERFLOW),
        (b"\x17\x03\x03\x41\x01", Reason.RECORD_OVERFLOW, Alert.RECORD_OVERFLOW),
        (b"\x17\x03\x03\x00\x10" + bytes(16), Reason.BAD_RECORD_MAC, Alert.BAD_RECORD_MAC),
        (b"\x17\x03\x03\x00\x00", Reason.BAD_RECORD_MAC, Alert.BAD_RECORD_MAC),
        (b"\x17\x03\x03\x00\x20" + bytes(32), Reason.BAD_RECORD_MAC, Alert.BAD_RECORD_MAC),
        (b"\x16\x03\x03\x00\x20" + bytes(32), Reason.UNEXPECTED_RECORD, Alert.UNEXPECTED_MESSAGE),
        (b"\x14\x03\x03\x00\x01\x01", Reason.UNEXPECTED_RECORD, Alert.UNEXPECTED_MESSAGE),
        (b"\x99\x03\x03\x00\x01\x01", Reason.BAD_RECORD_HEADER, Alert.UNEXPECTED_MESSAGE),
    ],
)
def test_refusals(data: bytes, reason: Reason, alert: Alert) -> None:
    refuses(data, reason, alert)


@pytest.mark.clause("RFC 8446 5.2")
def test_a_header_is_authenticated() -> None:
    """RFC 8446 5.2: the version is part of the additional data, though it is otherwise ignored."""
    record = bytearray(raw_record(b"data\x17"))
    record[2] = 1
    refuses(bytes(record), Reason.BAD_RECORD_MAC, Alert.BAD_RECORD_MAC)


@pytest.mark.clause("RFC 8446 5.3")
def test_a_replayed_record() -> None:
    refuses_second = make_opener()
    receive(refuses_second, raw_record(b"data\x17") * 2)
    assert opened(refuses_second) == (23, b"data")
    with pytest.raises(ProtocolViolation):
        refuses_second.next_record()


def test_connection_ids() -> None:
    """TCPLS draft section 3.3: the id stands in the top 32 bits of the nonce."""
    base = keys()
    assert base.for_connection(0) == base
    folded = base.for_connection(0x01020304)
    assert folded.iv == bytes(a ^ b for a, b in zip(base.iv, b"\1\2\3\4" + bytes(8), strict=True))
    sealer, opener, other = make_sealer(folded), make_opener(folded), make_opener(base)
    sealer.put(23, b"data")
    receive(opener, bytes(sealer.pending))
    assert opened(opener) == (23, b"data")
    receive(other, bytes(sealer.pending))
    with pytest.raises(ProtocolViolation):
        other.next_record()


@pytest.mark.clause("RFC 8446 4.6.3", "RFC 8446 5.3")
def test_switching_keys_and_sequences() -> None:
    second = TrafficKeys(CipherSuite.AES_256_GCM_SHA384, bytes(32), bytes(12), 7)
    sealer, opener = make_sealer(), make_opener()
    sealer.put(23, b"one")
    sealer.switch_keys(second)
    assert sealer.sequence == 7
    sealer.put(23, b"two")
    receive(opener, bytes(sealer.pending))
    assert opened(opener) == (23, b"one")
    opener.switch_keys(second)
    assert opened(opener) == (23, b"two")
    assert opener.sequence == 8


@pytest.mark.clause("RFC 8446 5.3", "RFC 8446 5.5")
def test_limit_of_a_key() -> None:
    limit = CipherSuite.AES_128_GCM_SHA256.record_limit
    sealer = make_sealer(keys(sequence=limit - 1))
    sealer.put(23, b"the last")
    with pytest.raises(PeerError) as caught:
        sealer.put(23, b"one too many")
    assert caught.value.reason is Reason.KEY_EXHAUSTED
    assert len(sealer.pending) == HEADER_SIZE + 8 + 1 + TAG_SIZE


TRAILERS = [bytes([number]) * 15 for number in range(40)]
FULL = MAX_CONTENT - 15


def run_data(count: int, size: int = FULL) -> memoryview:
    return memoryview(bytes(range(251)) * (count * size // 251 + 1))[: count * size]


def sealed_run(count: int, *, first: bytes = b"", used: TrafficKeys | None = None) -> bytes:
    """`count` full records, behind one with the content `first`, if any."""
    sealer = make_sealer(used, capacity=64 * RECORD_ROOM)
    if first:
        sealer.put(23, first)
    assert sealer.put_run(23, run_data(count), TRAILERS[:count]) == count
    return bytes(sealer.pending)


@pytest.mark.clause("RFC 8446 5.2", "RFC 8446 5.3")
@pytest.mark.parametrize("trailer_size", [0, 1, 15])
@pytest.mark.parametrize("before", [b"", b"what comes before"])
def test_a_run_is_what_single_records_would_be(trailer_size: int, before: bytes) -> None:
    size = MAX_CONTENT - trailer_size
    trailers = [trailer[:trailer_size] for trailer in TRAILERS[:20]]
    data = run_data(20, size)
    single, run = make_sealer(keys(sequence=7)), make_sealer(keys(sequence=7))
    for _ in range(3):
        for sealer in (single, run):
            if before:
                sealer.put(23, before)
        for number, trailer in enumerate(trailers):
            single.put(23, data[number * size : (number + 1) * size], trailer)
        assert run.put_run(23, data, trailers) == 20
        assert run.pending == single.pending
        assert run.sequence == single.sequence
        for sealer in (single, run):
            sealer.sent(len(sealer.pending))


def test_a_run_ends_where_the_room_does_and_goes_on_behind_it() -> None:
    data = run_data(10)
    sealer, opener = make_sealer(capacity=4 * RECORD_ROOM), make_opener()
    done = 0
    while done < 10:
        count = sealer.put_run(23, data[done * FULL :], TRAILERS[done:10])
        assert 1 <= count <= 4
        receive(opener, bytes(sealer.pending))
        sealer.sent(len(sealer.pending))
        for number in range(done, done + count):
            assert opened(opener) == (23, bytes(data[number * FULL : (number + 1) * FULL]) + TRAILERS[number])
        done += count


@pytest.mark.clause("RFC 8446 5.5")
def test_a_run_beyond_the_keys_limit_is_refused_whole() -> None:
    limit = CipherSuite.AES_128_GCM_SHA256.record_limit
    sealer = make_sealer(keys(sequence=limit - 2))
    with pytest.raises(ProtocolViolation) as caught:
        sealer.put_run(23, run_data(3), TRAILERS[:3])
    refused(caught.value, Reason.KEY_EXHAUSTED, Alert.INTERNAL_ERROR)
    assert not sealer.pending
    assert sealer.put_run(23, run_data(2), TRAILERS[:2]) == 2


@pytest.mark.parametrize("first", [b"", b"a record that moves the others"])
def test_a_run_is_opened_as_single_records_are(first: bytes) -> None:
    opener, data = make_opener(), run_data(9)
    receive(opener, sealed_run(9, first=first))
    if first:
        assert opened(opener) == (23, first)
    assert opener.full_records == 9
    contents = opener.open_run(23, 15, iter(TRAILERS))
    assert b"".join(contents) == data
    assert opener.full_records == 0
    assert opener.next_record() is None
    assert opener.sequence == 9 + bool(first)


def test_a_run_ends_at_a_record_that_ends_otherwise_and_that_record_is_the_next() -> None:
    opener, data = make_opener(), run_data(6)
    receive(opener, sealed_run(6))
    expected = [*TRAILERS[:2], b"x" * 15, *TRAILERS[3:]]
    assert b"".join(opener.open_run(23, 15, iter(expected))) == data[: 2 * FULL]
    assert opened(opener) == (23, bytes(data[2 * FULL : 3 * FULL]) + TRAILERS[2])
    assert b"".join(opener.open_run(23, 15, iter(TRAILERS[3:]))) == data[3 * FULL :]
    assert opener.buffered == 0


def test_a_run_ends_at_a_record_of_another_type() -> None:
    opener = make_opener()
    receive(opener, sealed_run(2))
    assert opener.open_run(22, 15, iter(TRAILERS)) == []
    assert opened(opener) == (23, bytes(run_data(1)) + TRAILERS[0])


def test_a_run_takes_no_more_than_it_was_asked_for_and_no_record_that_is_not_whole() -> None:
    opener = make_opener()
    whole = sealed_run(5)
    receive(opener, whole[:-1])
    assert len(opener.open_run(23, 15, iter(TRAILERS[:3]))) == 3
    assert opener.full_records == 1
    assert len(opener.open_run(23, 15, iter(TRAILERS[3:4]))) == 1
    assert opener.next_record() is None
    receive(opener, whole[-1:])
    assert opened(opener) == (23, bytes(run_data(5)[4 * FULL :]) + TRAILERS[4])


@pytest.mark.clause("RFC 8446 5.2")
def test_a_forged_record_ends_a_run_and_is_refused_by_name_behind_what_was_genuine() -> None:
    opener, data = make_opener(), run_data(4)
    forged = bytearray(sealed_run(4))
    forged[2 * RECORD_ROOM + 1000] ^= 1
    receive(opener, bytes(forged))
    assert b"".join(opener.open_run(23, 15, iter(TRAILERS))) == data[: 2 * FULL]
    with pytest.raises(ProtocolViolation) as caught:
        opener.next_record()
    refused(caught.value, Reason.BAD_RECORD_MAC, Alert.BAD_RECORD_MAC)


@pytest.mark.clause("RFC 8446 5.2")
def test_a_run_stops_before_a_header_that_is_not_that_of_a_full_record() -> None:
    opener = make_opener()
    data = bytearray(sealed_run(3))
    data[RECORD_ROOM] = 21
    receive(opener, bytes(data))
    assert len(opener.open_run(23, 15, iter(TRAILERS))) == 1
    with pytest.raises(ProtocolViolation) as caught:
        opener.next_record()
    refused(caught.value, Reason.UNEXPECTED_RECORD, Alert.UNEXPECTED_MESSAGE)


def test_runs_of_other_trailers_in_one_buffer() -> None:
    """The places that are kept belong to one size of trailer."""
    sealer, opener = make_sealer(), make_opener()
    for size in (15, 0, 15, 3):
        trailers = [trailer[:size] for trailer in TRAILERS[:3]]
        data = run_data(3, MAX_CONTENT - size)
        assert sealer.put_run(23, data, trailers) == 3
        receive(opener, bytes(sealer.pending))
        sealer.sent(len(sealer.pending))
        assert b"".join(opener.open_run(23, size, iter(trailers))) == data
