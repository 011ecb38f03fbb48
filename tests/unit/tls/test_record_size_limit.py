"""record_size_limit (RFC 8449) in both roles, and padding, which counts against it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tcpls.errors import Alert, ConfigurationError, HandshakeError, ProtocolViolation, Reason
from tcpls.tls.algorithms import Group
from tcpls.tls.config import Identity, Padding
from tcpls.tls.connection import ClientConnection, Established, ServerConnection, TLSConnection
from tcpls.tls.extensions import ExtensionType
from tcpls.tls.flow import Epoch, MessageToSend
from tcpls.tls.handshake import ClientHandshake, ServerHandshake
from tcpls.tls.key_schedule import HandshakeTrafficSecret
from tcpls.tls.messages import ClientHello, EncryptedExtensions, NewSessionTicket
from tcpls.tls.record import HEADER_SIZE, MAX_CONTENT, RECORD_ROOM, RecordOpener, RecordSealer
from tcpls.tls.suites import TAG_SIZE, CipherSuite, TrafficKeys
from tcpls.tls.ticket_keys import TicketKeys
from tcpls.wire import Reader
from tests.engine import ENGINE
from tests.unit.tls.pair import (
    TIME,
    SecretLog,
    client_config,
    identity,
    make_client,
    make_server,
    refused,
    seeded,
    server_config,
    shake,
)

ILLEGAL = Alert.ILLEGAL_PARAMETER
KEYS = TrafficKeys(CipherSuite.AES_128_GCM_SHA256, bytes(16), bytes(12), 0)


def ticket_server(keys: TicketKeys, **changes: Any) -> ServerConnection:
    return ServerConnection(server_config(ticket_keys=keys, **changes), random=seeded(2), time=TIME)


def big_identity() -> Identity:
    return Identity(identity().chain + identity("rsa").chain * 30, identity().signer)


def limits(end: Established) -> tuple[int, int]:
    return end.max_sent, end.max_received


def shake_and_measure(client: TLSConnection, server: TLSConnection) -> tuple[list[int], list[int]]:
    """The sizes of TLSInnerPlaintext of the protected records of client and server."""
    sizes: tuple[list[int], list[int]] = ([], [])
    moved = True
    while moved:
        moved = False
        for sender, receiver, seen in ((client, server, sizes[0]), (server, client, sizes[1])):
            data = sender.data_to_send()
            moved = moved or bool(data)
            at = 0
            while at < len(data):
                size = int.from_bytes(data[at + 3 : at + 5], "big")
                if data[at] == 23:
                    seen.append(size - TAG_SIZE)
                at += HEADER_SIZE + size
            receiver.receive_data(data)
    return sizes


@pytest.mark.clause("RFC 8449 4")
@pytest.mark.parametrize(
    ("client", "server", "of_client", "of_server"),
    [
        (MAX_CONTENT + 1, MAX_CONTENT + 1, (MAX_CONTENT, MAX_CONTENT), (MAX_CONTENT, MAX_CONTENT)),
        (64, 1000, (999, 63), (63, 999)),
        (1000, 64, (63, 999), (999, 63)),
        (None, 64, (MAX_CONTENT, MAX_CONTENT), (MAX_CONTENT, MAX_CONTENT)),
        (64, None, (MAX_CONTENT, MAX_CONTENT), (MAX_CONTENT, MAX_CONTENT)),
    ],
)
def test_each_end_tells_its_own_limit(
    client: int | None, server: int | None, of_client: tuple[int, int], of_server: tuple[int, int]
) -> None:
    ends = shake(make_client(record_size_limit=client), make_server(record_size_limit=server))
    assert (limits(ends[0]), limits(ends[1])) == (of_client, of_server)


@pytest.mark.clause("RFC 8449 4")
@pytest.mark.parametrize("retry", [False, True])
def test_protected_records_of_the_handshake_keep_to_it(retry: bool) -> None:
    groups = (Group.SECP384R1,) if retry else (Group.X25519,)
    client = make_client(record_size_limit=64, trust=None, groups=(Group.X25519, Group.SECP384R1))
    server = make_server(record_size_limit=100, identities=(big_identity(),), groups=groups, compressions=())
    of_client, of_server = shake_and_measure(client, server)
    assert max(of_server) == 64
    assert len(of_server) > 200
    assert max(of_client) <= 100


@pytest.mark.clause("RFC 8449 4")
def test_tickets_keep_to_it_and_a_resumption_agrees_anew() -> None:
    keys = TicketKeys(ENGINE, seeded(3))
    client = make_client(record_size_limit=64, tickets=1)
    server = ticket_server(keys, record_size_limit=200)
    _, of_server = shake_and_measure(client, server)
    assert max(of_server) == 64
    first = client.established()
    opener = RecordOpener(ENGINE.aead, first.read_secret.keys(), ENGINE.invalid_tag, max_content=first.max_received)
    opener.feed(first.unread)
    content = b""
    while record := opener.next_record():
        content += bytes(record[1])
    ticket = first.ticket(NewSessionTicket.read(Reader(content[4:])), TIME.timestamp())
    ends = shake(make_client(ticket=ticket, record_size_limit=500), ticket_server(keys))
    assert ends[0].resumed
    assert [limits(end) for end in ends] == [(MAX_CONTENT, 499), (499, MAX_CONTENT)]


def hello_with(contents: bytes, **extra: Any) -> bytes:
    client = ClientHandshake(client_config(**extra), random=seeded(1), time=TIME)
    (event,) = client.events()
    assert isinstance(event, MessageToSend)
    hello = ClientHello.read(Reader(event.data[4:]))
    extensions = {**hello.extensions, ExtensionType.RECORD_SIZE_LIMIT: contents}
    return replace(hello, extensions=extensions).write()


@pytest.mark.clause("RFC 8449 4")
@pytest.mark.parametrize(
    ("contents", "reason", "alert"),
    [
        (b"\0\0", Reason.BAD_VALUE, ILLEGAL),
        (b"\0\x3f", Reason.BAD_VALUE, ILLEGAL),
        (b"\0", Reason.TRUNCATED, Alert.DECODE_ERROR),
        (b"", Reason.TRUNCATED, Alert.DECODE_ERROR),
        (b"\0\x40\0", Reason.TRAILING_BYTES, Alert.DECODE_ERROR),
    ],
)
def test_limits_that_a_server_refuses(contents: bytes, reason: Reason, alert: Alert) -> None:
    server = ServerHandshake(server_config(), random=seeded(2))
    with pytest.raises(HandshakeError) as caught:
        server.receive(Epoch.INITIAL, hello_with(contents))
    refused(caught.value, reason, alert)


@pytest.mark.clause("RFC 8449 4")
def test_a_server_takes_a_limit_beyond_the_protocols() -> None:
    server = ServerHandshake(server_config(), random=seeded(2))
    server.receive(Epoch.INITIAL, hello_with(b"\xff\xff"))
    assert server.max_sent == MAX_CONTENT


@pytest.mark.clause("RFC 8449 5", "RFC 6066 4")
@pytest.mark.parametrize("limit", [None, 100])
def test_max_fragment_length_is_ignored(limit: int | None) -> None:
    """With record_size_limit it has to be, and alone it may be: the server then does not answer it."""
    hello = ClientHello.read(Reader(hello_with(b"\0\x64")[4:]))
    extensions = {**hello.extensions, ExtensionType.MAX_FRAGMENT_LENGTH: b"\1"}
    if limit is None:
        del extensions[ExtensionType.RECORD_SIZE_LIMIT]
    server = ServerHandshake(server_config(), random=seeded(2))
    server.receive(Epoch.INITIAL, replace(hello, extensions=extensions).write())
    flight = [event.data for event in server.events() if isinstance(event, MessageToSend)]
    answered = EncryptedExtensions.read(Reader(flight[1][4:]), extensions.keys()).extensions
    assert ExtensionType.MAX_FRAGMENT_LENGTH not in answered
    assert (ExtensionType.RECORD_SIZE_LIMIT in answered) is (limit is not None)
    assert server.max_sent == (MAX_CONTENT if limit is None else limit - 1)


def awaiting_extensions(**changes: Any) -> ClientHandshake:
    client = ClientHandshake(client_config(**changes), random=seeded(1), time=TIME)
    server = ServerHandshake(server_config(), random=seeded(2))
    (hello,) = (event.data for event in client.events() if isinstance(event, MessageToSend))
    server.receive(Epoch.INITIAL, hello)
    client.receive(Epoch.INITIAL, next(event.data for event in server.events() if isinstance(event, MessageToSend)))
    return client


@pytest.mark.clause("RFC 8449 4", "RFC 8449 5")
@pytest.mark.parametrize(
    ("extensions", "changes", "reason", "alert"),
    [
        ({28: b"\0\x3f"}, {}, Reason.BAD_VALUE, ILLEGAL),
        ({28: b"\x40\x02"}, {}, Reason.BAD_VALUE, ILLEGAL),
        ({28: b"\x40"}, {}, Reason.TRUNCATED, Alert.DECODE_ERROR),
        ({28: b"\x40\x01"}, {"record_size_limit": None}, Reason.UNSUPPORTED_EXTENSION, Alert.UNSUPPORTED_EXTENSION),
        ({28: b"\x40\x01", 1: b"\1"}, {}, Reason.UNSUPPORTED_EXTENSION, Alert.UNSUPPORTED_EXTENSION),
    ],
)
def test_limits_that_a_client_refuses(
    extensions: dict[int, bytes], changes: dict[str, Any], reason: Reason, alert: Alert
) -> None:
    client = awaiting_extensions(**changes)
    with pytest.raises(HandshakeError) as caught:
        client.receive(Epoch.HANDSHAKE, EncryptedExtensions(extensions).write())
    refused(caught.value, reason, alert)


@pytest.mark.clause("RFC 8449 4")
def test_a_server_refuses_a_record_beyond_its_limit() -> None:
    log = SecretLog()
    client = ClientConnection(client_config(), random=seeded(1), time=TIME, key_log=log)
    server = make_server(record_size_limit=100)
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    secret = HandshakeTrafficSecret(ENGINE, CipherSuite.AES_128_GCM_SHA256, log["CLIENT_HANDSHAKE_TRAFFIC_SECRET"])
    sealer = RecordSealer(ENGINE.aead, secret.keys(), padding=101)
    sealer.put(22, b"\x14")
    with pytest.raises(HandshakeError) as caught:
        server.receive_data(sealer.pending)
    refused(caught.value, Reason.RECORD_OVERFLOW, Alert.RECORD_OVERFLOW)


@pytest.mark.clause("RFC 8449 4")
@pytest.mark.parametrize("limit", [64, 1000, MAX_CONTENT + 1])
def test_a_record_beyond_the_limit_is_an_overflow(limit: int) -> None:
    sealer = RecordSealer(ENGINE.aead, KEYS)
    opener = RecordOpener(ENGINE.aead, KEYS, ENGINE.invalid_tag, max_content=limit - 1)
    sealer.put(23, bytes(limit - 1))
    sealer.put(23, bytes(limit - 2))
    sealer.padding = limit + 1
    sealer.max_content = limit
    sealer.put(23, b"padded")
    opener.feed(sealer.pending)
    for size in (limit - 1, limit - 2):
        record = opener.next_record()
        assert record is not None
        assert len(record[1]) == size
    with pytest.raises(ProtocolViolation) as caught:
        opener.next_record()
    refused(caught.value, Reason.RECORD_OVERFLOW, Alert.RECORD_OVERFLOW)


@pytest.mark.parametrize("limit", [63, 1000, 16_000])
@pytest.mark.parametrize("trailer_size", [0, 15])
@pytest.mark.parametrize("before", [b"", b"what comes before"])
def test_runs_keep_to_the_limit(limit: int, trailer_size: int, before: bytes) -> None:
    """As single records would; and they are opened one by one, since their size is none that a run would have."""
    count, size = 40, limit - trailer_size
    trailers = [bytes([number]) * trailer_size for number in range(count)]
    data = memoryview(bytes(range(251)) * (count * size // 251 + 1))[: count * size]
    single, run = (RecordSealer(ENGINE.aead, KEYS, 64 * RECORD_ROOM, max_content=limit) for _ in range(2))
    for sealer in (single, run):
        if before:
            sealer.put(23, before[:limit])
    for number, trailer in enumerate(trailers):
        single.put(23, data[number * size : (number + 1) * size], trailer)
    assert run.put_run(23, data, trailers) == count
    assert run.pending == single.pending
    opener = RecordOpener(ENGINE.aead, KEYS, ENGINE.invalid_tag, max_content=limit)
    opener.feed(run.pending)
    assert opener.full_records == 0
    received = []
    while record := opener.next_record():
        received.append(bytes(record[1]))
    if before:
        assert received.pop(0) == before[:limit]
    assert b"".join(piece[:size] for piece in received) == data


@pytest.mark.parametrize("wrong", [0, 63, MAX_CONTENT + 2])
def test_limits_that_cannot_be_configured(wrong: int) -> None:
    for make in (client_config, server_config):
        with pytest.raises(ConfigurationError):
            make(record_size_limit=wrong)


# Padding.


@pytest.mark.clause("RFC 8446 5.4")
@pytest.mark.parametrize(
    ("padding", "limit", "size", "inner"),
    [
        (1, MAX_CONTENT, 10, 11),
        (64, MAX_CONTENT, 0, 64),
        (64, MAX_CONTENT, 63, 64),
        (64, MAX_CONTENT, 64, 128),
        (1000, MAX_CONTENT, 16_300, MAX_CONTENT + 1),
        (1000, MAX_CONTENT, MAX_CONTENT, MAX_CONTENT + 1),
        (MAX_CONTENT + 1, MAX_CONTENT, 1, MAX_CONTENT + 1),
        (100, 63, 10, 64),
        (50, 63, 49, 50),
        (50, 63, 50, 64),
    ],
)
def test_sizes_of_padded_records(padding: int, limit: int, size: int, inner: int) -> None:
    sealer = RecordSealer(ENGINE.aead, KEYS, max_content=limit, padding=padding)
    opener = RecordOpener(ENGINE.aead, KEYS, ENGINE.invalid_tag, max_content=limit)
    # What was in the buffer before does not show through.
    sealer.put(23, b"\xff" * limit)
    opener.feed(sealer.pending)
    assert opener.next_record() is not None
    sealer.sent(len(sealer.pending))
    content = bytes(range(256)) * 64
    sealer.put(22, content[:size])
    assert len(sealer.pending) == HEADER_SIZE + inner + TAG_SIZE
    opener.feed(sealer.pending)
    record = opener.next_record()
    assert record is not None
    assert (record[0], bytes(record[1])) == (22, content[:size])


@pytest.mark.clause("RFC 8446 5.4")
def test_padding_of_handshakes_and_of_data() -> None:
    """Certificates of other lengths give flights of the same length."""
    flights = set()
    for kind in ("p256", "ed25519"):
        client = make_client(padding=Padding(handshake=4096))
        server = make_server(padding=Padding(handshake=4096), identities=(identity(kind),))
        of_client, of_server = shake_and_measure(client, server)
        assert set(of_client) == {4096}
        flights.add(tuple(of_server))
    assert flights == {(4096,)}


def test_tickets_are_padded_as_data() -> None:
    keys = TicketKeys(ENGINE, seeded(3))
    client, server = make_client(tickets=2), ticket_server(keys, padding=Padding(data=1000))
    _, of_server = shake_and_measure(client, server)
    assert of_server[-1] % 1000 == 0
    assert of_server[0] % 1000


@pytest.mark.parametrize("wrong", [{"handshake": 0}, {"data": 0}, {"data": MAX_CONTENT + 2}])
def test_paddings_that_cannot_be_configured(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError):
        Padding(**wrong)
