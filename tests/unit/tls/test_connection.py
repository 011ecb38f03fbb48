"""Whole handshakes in memory, and everything that may go wrong in their records."""

from __future__ import annotations

import pytest

from tcpls.errors import Alert, AlertReceived, ApiMisuse, HandshakeError, PeerError, Reason
from tcpls.tls.algorithms import Group
from tcpls.tls.config import Answer, Identity
from tcpls.tls.connection import (
    MAX_CHANGE_CIPHER_SPECS,
    MAX_SKIPPED,
    ClientConnection,
    ServerConnection,
    TLSConnection,
)
from tcpls.tls.extensions import ExtensionType
from tcpls.tls.key_schedule import HandshakeTrafficSecret
from tcpls.tls.messages import ClientHello
from tcpls.tls.record import ContentType, RecordOpener, RecordSealer
from tcpls.tls.suites import CipherSuite
from tcpls.wire import Reader
from tests.engine import ENGINE
from tests.unit.tls.pair import (
    KINDS,
    NAME,
    SecretLog,
    identity,
    make_client,
    make_server,
    move,
    refused,
    seeded,
    server_config,
    shake,
)

CHANGE_CIPHER_SPEC = b"\x14\x03\x03\x00\x01\x01"


def record(content_type: int, content: bytes) -> bytes:
    return bytes((content_type, 3, 3)) + len(content).to_bytes(2, "big") + content


def next_record(opener: RecordOpener) -> tuple[int, bytes]:
    opened = opener.next_record()
    assert opened is not None
    return opened[0], bytes(opened[1])


def refuses(connection: TLSConnection, data: bytes, reason: Reason, alert: Alert) -> None:
    """The data is refused, an alert of the right kind is queued (unless it is encrypted), and the object is dead."""
    connection.data_to_send()
    with pytest.raises(HandshakeError) as caught:
        connection.receive_data(data)
    refused(caught.value, reason, alert)
    sent = connection.data_to_send()
    assert sent[0] != ContentType.ALERT or sent == record(ContentType.ALERT, bytes((2, alert)))
    with pytest.raises(ApiMisuse):
        connection.receive_data(b"\x16")


@pytest.mark.parametrize("suite", CipherSuite)
@pytest.mark.parametrize("group", Group)
@pytest.mark.parametrize("kind", KINDS)
def test_every_algorithm(suite: CipherSuite, group: Group, kind: str) -> None:
    client, server = shake(make_client(suites=(suite,), groups=(group,)), make_server(identities=(identity(kind),)))
    for end in (client, server):
        assert (end.suite, end.group) == (suite, group.label)
        assert not end.retried
    assert client.signature_scheme == server.signature_scheme
    assert client.read_secret == server.write_secret
    assert client.write_secret == server.read_secret
    assert client.peer_certificates == identity(kind).chain
    assert client.export(b"label", b"context", 99) == server.export(b"label", b"context", 99)
    assert client.export(b"label", b"context", 32) != client.export(b"label", b"other", 32)


@pytest.mark.clause("RFC 8446 5.1")
@pytest.mark.parametrize("chunk", [1, 2, 7, 100])
def test_any_chunking(chunk: int) -> None:
    client, server = shake(make_client(), make_server(), chunk)
    assert client.read_secret == server.write_secret


@pytest.mark.parametrize("compatible", [False, True])
@pytest.mark.parametrize("chunk", [None, 1])
def test_retry(chunk: int | None, compatible: bool) -> None:
    client = make_client(groups=(Group.X25519, Group.SECP384R1), middlebox_compatibility=compatible)
    ends = shake(client, make_server(groups=(Group.SECP384R1,)), chunk)
    for end in ends:
        assert end.retried
        assert end.group == "secp384r1"


def test_several_shares_need_no_retry() -> None:
    client, _ = shake(make_client(shares=5), make_server(groups=(Group.SECP384R1,)))
    assert not client.retried


def test_names_and_extensions() -> None:
    seen: list[ClientHello] = []

    def answer(hello: ClientHello) -> Answer:
        seen.append(hello)
        return Answer(((0xFA01, b"answer"),))

    client, server = shake(
        make_client(alpn=(b"a", b"b"), extra_extensions=((0xFA01, b"question"), (0xFA02, b""))),
        make_server(alpn=(b"c", b"b"), answer=answer),
    )
    assert client.alpn == server.alpn == b"b"
    assert server.server_name == NAME
    assert client.peer_extensions == {0xFA01: b"answer"}
    assert server.peer_extensions == {0xFA01: b"question", 0xFA02: b""}
    assert len(seen) == 1
    assert seen[0].alpn == (b"a", b"b")


def test_answer_is_asked_once_for_the_second_hello() -> None:
    seen: list[ClientHello] = []

    def answer(hello: ClientHello) -> Answer:
        seen.append(hello)
        return Answer()

    client = make_client(groups=(Group.X25519, Group.SECP256R1))
    shake(client, make_server(groups=(Group.SECP256R1,), answer=answer))
    assert len(seen) == 1


@pytest.mark.parametrize("kind", [0xFA01, ExtensionType.ALPN])
def test_answer_that_was_not_asked_for(kind: int) -> None:
    client, server = make_client(), make_server(answer=lambda hello: Answer(((kind, b""),)))
    with pytest.raises(ApiMisuse):
        move(client, server)


def test_answer_that_refuses() -> None:
    def answer(hello: ClientHello) -> Answer:
        raise PeerError(Reason.BAD_TOKEN, "no such token")

    client = make_client(extra_extensions=((0xFA01, b""),))
    refuses(make_server(answer=answer), client.data_to_send(), Reason.BAD_TOKEN, Alert.ILLEGAL_PARAMETER)


def test_unread_and_records_afterwards() -> None:
    client, server = make_client(), make_server()
    move(client, server)
    move(server, client)
    move(client, server)
    end = server.established()
    sealer = RecordSealer(ENGINE.aead, end.write_secret.keys(end.write_sequence))
    sealer.put(23, b"hello")
    client.receive_data(bytes(sealer.pending[:9]))
    client.receive_data(bytes(sealer.pending[9:]))
    other = client.established()
    opener = RecordOpener(ENGINE.aead, other.read_secret.keys(other.read_sequence), ENGINE.invalid_tag)
    opener.feed(other.unread)
    assert next_record(opener) == (23, b"hello")


def test_established_once() -> None:
    client = make_client()
    with pytest.raises(ApiMisuse):
        client.established()
    shake(client, make_server())
    with pytest.raises(ApiMisuse):
        client.established()
    with pytest.raises(ApiMisuse):
        client.receive_data(b"")


@pytest.mark.clause("RFC 8446 7.5")
def test_secrets_are_in_no_repr() -> None:
    client, _ = shake(make_client(), make_server())
    assert client.read_secret.secret.hex() not in repr(client)
    assert repr(client.read_secret.secret) not in repr(client)
    assert repr(client.exporter.secret) not in repr(client)


@pytest.mark.clause("RFC 8446 D.4")
def test_change_cipher_spec_is_where_it_belongs() -> None:
    """RFC 8446 D.4: behind ServerHello, and ahead of the client's second flight; not at all if not asked for."""
    client, server = make_client(), make_server()
    move(client, server)
    flight = server.data_to_send()
    hello_end = 5 + int.from_bytes(flight[3:5], "big")
    assert flight[hello_end:].startswith(CHANGE_CIPHER_SPEC)
    client.receive_data(flight)
    assert client.data_to_send().startswith(CHANGE_CIPHER_SPEC)
    client, server = make_client(middlebox_compatibility=False), make_server()
    move(client, server)
    flight = server.data_to_send()
    assert CHANGE_CIPHER_SPEC not in flight
    client.receive_data(flight)
    assert not client.data_to_send().startswith(CHANGE_CIPHER_SPEC)


@pytest.mark.clause("RFC 8446 D.4")
@pytest.mark.parametrize("compatible", [True, False])
def test_change_cipher_spec_is_ahead_of_a_protected_alert(compatible: bool) -> None:
    """RFC 8446 D.4: what is protected looks like the rest of a resumption, a refusal too."""
    client, server = make_client(server_name="other.example", middlebox_compatibility=compatible), make_server()
    move(client, server)
    with pytest.raises(HandshakeError):
        client.receive_data(server.data_to_send())
    refusal = client.data_to_send()
    assert refusal.startswith(CHANGE_CIPHER_SPEC + b"\x17" if compatible else b"\x17")
    with pytest.raises(AlertReceived) as caught:
        server.receive_data(refusal)
    assert caught.value.alert == Alert.BAD_CERTIFICATE


@pytest.mark.clause("RFC 8446 5", "RFC 8446 D.4")
def test_change_cipher_spec_is_dropped_and_bounded() -> None:
    client, server = make_client(), make_server()
    client.receive_data(CHANGE_CIPHER_SPEC)
    move(client, server)
    server.receive_data(CHANGE_CIPHER_SPEC)
    shake(client, server)
    client = make_client()
    refuses(
        client,
        CHANGE_CIPHER_SPEC * (MAX_CHANGE_CIPHER_SPECS + 1),
        Reason.TOO_MANY_RECORDS,
        Alert.UNEXPECTED_MESSAGE,
    )


@pytest.mark.clause("RFC 8446 5", "RFC 8446 5.1", "RFC 8446 6", "RFC 8446 6.2", "RFC 8446 D.5")
@pytest.mark.parametrize(
    ("data", "reason", "alert"),
    [
        (record(20, b"\x02"), Reason.UNEXPECTED_RECORD, Alert.UNEXPECTED_MESSAGE),
        (record(20, b"\x01\x01"), Reason.UNEXPECTED_RECORD, Alert.UNEXPECTED_MESSAGE),
        (record(20, b""), Reason.UNEXPECTED_RECORD, Alert.UNEXPECTED_MESSAGE),
        (record(22, b""), Reason.EMPTY_RECORD, Alert.UNEXPECTED_MESSAGE),
        (record(21, b""), Reason.EMPTY_RECORD, Alert.UNEXPECTED_MESSAGE),
        (record(21, b"\x02"), Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        (record(21, b"\x02\x28\x02\x28"), Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        (record(23, b"early"), Reason.UNEXPECTED_RECORD, Alert.UNEXPECTED_MESSAGE),
        (record(24, b"heartbeat"), Reason.BAD_RECORD_HEADER, Alert.UNEXPECTED_MESSAGE),
        (b"HTTP/1.1 400 Bad Request", Reason.BAD_RECORD_HEADER, Alert.UNEXPECTED_MESSAGE),
        (b"\x80", Reason.BAD_RECORD_HEADER, Alert.UNEXPECTED_MESSAGE),
        (b"\x16\x03\x03\x40\x01", Reason.RECORD_OVERFLOW, Alert.RECORD_OVERFLOW),
        (record(22, b"\x02\x00\x00") + CHANGE_CIPHER_SPEC, Reason.UNEXPECTED_RECORD, Alert.UNEXPECTED_MESSAGE),
        (record(22, b"\x02\x01\x00\x00"), Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        (record(22, b"\x01"), Reason.UNEXPECTED_MESSAGE, Alert.UNEXPECTED_MESSAGE),
    ],
)
def test_records_that_a_client_refuses_at_first(data: bytes, reason: Reason, alert: Alert) -> None:
    refuses(make_client(), data, reason, alert)


@pytest.mark.clause("RFC 8446 5", "RFC 8446 5.1")
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (CHANGE_CIPHER_SPEC, Reason.UNEXPECTED_RECORD),
        (record(23, b"data"), Reason.UNEXPECTED_RECORD),
        (b"GET / HTTP/1.1\r\n", Reason.BAD_RECORD_HEADER),
        (record(22, b"\x14"), Reason.UNEXPECTED_MESSAGE),
    ],
)
def test_records_that_a_server_refuses_at_first(data: bytes, reason: Reason) -> None:
    refuses(make_server(), data, reason, Alert.UNEXPECTED_MESSAGE)


@pytest.mark.clause("RFC 8446 5.1")
def test_record_version_is_ignored() -> None:
    """RFC 8446 5.1."""
    client, server = make_client(), make_server()
    hello = bytearray(client.data_to_send())
    hello[1:3] = b"\x09\x09"
    server.receive_data(hello)
    shake(client, server)


def split(flight: bytes) -> list[bytes]:
    records = []
    while flight:
        size = 5 + int.from_bytes(flight[3:5], "big")
        records.append(flight[:size])
        flight = flight[size:]
    return records


def awaiting_flight() -> tuple[ClientConnection, bytes, SecretLog]:
    """A client that has its ServerHello, the server's encrypted flight, and the server's secrets."""
    log = SecretLog()
    client = make_client()
    server = ServerConnection(server_config(), random=seeded(2), key_log=log)
    move(client, server)
    hello, _, flight = split(server.data_to_send())
    client.receive_data(hello)
    return client, flight, log


@pytest.mark.clause("RFC 8446 5", "RFC 8446 5.1", "RFC 8446 5.2")
@pytest.mark.parametrize(
    ("data", "reason", "alert"),
    [
        (record(22, b"\x08\x00\x00\x02\x00\x00"), Reason.UNEXPECTED_RECORD, Alert.UNEXPECTED_MESSAGE),
        (record(23, bytes(40)), Reason.BAD_RECORD_MAC, Alert.BAD_RECORD_MAC),
        (record(23, bytes(16)), Reason.BAD_RECORD_MAC, Alert.BAD_RECORD_MAC),
        (record(23, b""), Reason.BAD_RECORD_MAC, Alert.BAD_RECORD_MAC),
        (b"\x17\x03\x03\x41\x01", Reason.RECORD_OVERFLOW, Alert.RECORD_OVERFLOW),
        (record(20, b"\x00"), Reason.UNEXPECTED_RECORD, Alert.UNEXPECTED_MESSAGE),
    ],
)
def test_records_that_a_client_refuses_under_keys(data: bytes, reason: Reason, alert: Alert) -> None:
    client, _, _ = awaiting_flight()
    refuses(client, data, reason, alert)


@pytest.mark.clause("RFC 8446 5", "RFC 8446 6.2")
def test_plain_alert_until_the_peer_has_keys() -> None:
    client, _, _ = awaiting_flight()
    with pytest.raises(AlertReceived) as caught:
        client.receive_data(record(21, b"\x02\x28"))
    assert caught.value.alert == Alert.HANDSHAKE_FAILURE
    client, _, log = awaiting_flight()
    client.receive_data(sealed(log, (22, b"\x08")))
    refuses(client, record(21, b"\x02\x28"), Reason.UNEXPECTED_RECORD, Alert.UNEXPECTED_MESSAGE)


@pytest.mark.clause("RFC 8446 5.2")
def test_a_flight_that_was_changed() -> None:
    client, flight, _ = awaiting_flight()
    changed = bytearray(flight)
    changed[-1] ^= 1
    refuses(client, bytes(changed), Reason.BAD_RECORD_MAC, Alert.BAD_RECORD_MAC)


def sealed(log: SecretLog, *parts: tuple[int, bytes]) -> bytes:
    """Records as the server whose secrets were logged would write them first."""
    secret = HandshakeTrafficSecret(ENGINE, CipherSuite.AES_128_GCM_SHA256, log["SERVER_HANDSHAKE_TRAFFIC_SECRET"])
    sealer = RecordSealer(ENGINE.aead, secret.keys())
    for content_type, content in parts:
        sealer.put(content_type, content)
    return bytes(sealer.pending)


@pytest.mark.clause("RFC 8446 2", "RFC 8446 4", "RFC 8446 5", "RFC 8446 5.1", "RFC 8446 5.4", "RFC 8446 6")
@pytest.mark.parametrize(
    ("content_type", "content", "reason", "alert"),
    [
        (23, b"data", Reason.UNEXPECTED_RECORD, Alert.UNEXPECTED_MESSAGE),
        (20, b"\x01", Reason.UNEXPECTED_RECORD, Alert.UNEXPECTED_MESSAGE),
        (22, b"", Reason.EMPTY_RECORD, Alert.UNEXPECTED_MESSAGE),
        (21, b"", Reason.EMPTY_RECORD, Alert.UNEXPECTED_MESSAGE),
        (21, b"\x02", Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        (99, b"x", Reason.UNEXPECTED_RECORD, Alert.UNEXPECTED_MESSAGE),
        (22, b"\x0b", Reason.UNEXPECTED_MESSAGE, Alert.UNEXPECTED_MESSAGE),
    ],
)
def test_contents_that_a_client_refuses(content_type: int, content: bytes, reason: Reason, alert: Alert) -> None:
    client, _, log = awaiting_flight()
    refuses(client, sealed(log, (content_type, content)), reason, alert)


@pytest.mark.clause("RFC 8446 5.1")
def test_only_handshake_between_the_parts_of_a_message() -> None:
    client, _, log = awaiting_flight()
    client.receive_data(sealed(log, (22, b"\x08\x00")))
    refuses(client, CHANGE_CIPHER_SPEC, Reason.UNEXPECTED_RECORD, Alert.UNEXPECTED_MESSAGE)


@pytest.mark.clause("RFC 8446 6", "RFC 8446 6.1", "RFC 8446 6.2")
@pytest.mark.parametrize("alert", [Alert.CLOSE_NOTIFY, Alert.USER_CANCELED, Alert.HANDSHAKE_FAILURE, 100, 200])
def test_alerts_received(alert: int) -> None:
    client, _, log = awaiting_flight()
    with pytest.raises(AlertReceived) as caught:
        client.receive_data(sealed(log, (21, bytes((1, alert)))))
    assert caught.value.alert == alert
    assert client.data_to_send() == b""
    with pytest.raises(ApiMisuse):
        client.receive_data(b"")


@pytest.mark.clause("RFC 8446 6.2")
def test_alert_of_a_client_reaches_the_server_encrypted() -> None:
    client, server = make_client(), make_server()
    move(client, server)
    hello, *_ = split(server.data_to_send())
    client.receive_data(hello)
    with pytest.raises(HandshakeError):
        client.receive_data(record(23, bytes(40)))
    with pytest.raises(AlertReceived) as caught:
        move(client, server)
    assert caught.value.alert == Alert.BAD_RECORD_MAC


@pytest.mark.clause("RFC 8446 6.2")
def test_alert_of_a_server_reaches_the_client_under_its_last_keys() -> None:
    client, server = make_client(), make_server()
    move(client, server)
    move(server, client)
    client.data_to_send()
    with pytest.raises(HandshakeError):
        server.receive_data(record(23, bytes(40)))
    client.receive_data(server.data_to_send())
    end = client.established()
    opener = RecordOpener(ENGINE.aead, end.read_secret.keys(), ENGINE.invalid_tag)
    opener.feed(end.unread)
    assert next_record(opener) == (21, bytes((2, Alert.BAD_RECORD_MAC)))


@pytest.mark.clause("RFC 8446 5.1")
def test_message_across_keys() -> None:
    """RFC 8446 5.1: nothing may follow ServerHello or Finished in their records."""
    client, server = make_client(), make_server()
    move(client, server)
    hello, *_ = split(server.data_to_send())
    refuses(client, record(22, hello[5:] + b"\x08"), Reason.MESSAGE_ACROSS_KEYS, Alert.UNEXPECTED_MESSAGE)
    server = make_server()
    client_hello = make_client().data_to_send()
    refuses(server, record(22, client_hello[5:] + b"\x14"), Reason.MESSAGE_ACROSS_KEYS, Alert.UNEXPECTED_MESSAGE)


@pytest.mark.clause("RFC 8446 6.1")
def test_end_of_input() -> None:
    client = make_client()
    with pytest.raises(HandshakeError) as caught:
        client.receive_eof()
    assert caught.value.reason is Reason.CONNECTION_CLOSED
    with pytest.raises(ApiMisuse):
        client.receive_data(b"")
    client, server = make_client(), make_server()
    shake(client, server)
    client.receive_eof()


def with_early_data(hello_record: bytes) -> bytes:
    hello = ClientHello.read(Reader(hello_record[9:]))
    extensions = {ExtensionType.EARLY_DATA: b"", **hello.extensions}
    changed = ClientHello(hello.random, hello.session_id, hello.suites, extensions)
    return record(22, changed.write())


@pytest.mark.clause("RFC 8446 4.2.10")
def test_early_data_is_skipped() -> None:
    """RFC 8446 4.2.10: what the server cannot open is dropped, up to a bound."""
    client, server = make_client(), make_server()
    server.receive_data(with_early_data(client.data_to_send()))
    server.receive_data(record(23, bytes(1000)) * 3)
    assert not server.handshake_complete
    refuses(
        server, record(23, bytes(16000)) * (MAX_SKIPPED // 16000), Reason.TOO_MUCH_EARLY_DATA, Alert.UNEXPECTED_MESSAGE
    )


@pytest.mark.clause("RFC 8446 4.2.10")
def test_early_data_is_skipped_before_the_second_hello() -> None:
    client, server = make_client(), make_server(groups=(Group.SECP256R1,))
    server.receive_data(with_early_data(client.data_to_send()))
    server.receive_data(record(23, bytes(1000)) * 3)
    client.receive_data(server.data_to_send())
    # The transcript differs by the extension that was put in, and so do the keys.
    move(client, server)
    with pytest.raises(HandshakeError) as caught:
        move(server, client)
    assert caught.value.reason is Reason.BAD_RECORD_MAC


@pytest.mark.clause("RFC 8446 4.2.10")
def test_no_early_data_after_the_second_hello() -> None:
    client, server = make_client(), make_server(groups=(Group.SECP256R1,))
    server.receive_data(with_early_data(client.data_to_send()))
    client.receive_data(server.data_to_send())
    move(client, server)
    refuses(server, record(23, bytes(100)), Reason.BAD_RECORD_MAC, Alert.BAD_RECORD_MAC)


@pytest.mark.clause("RFC 8446 5.1")
def test_a_flight_larger_than_a_record() -> None:
    chain = identity().chain + identity("rsa").chain * 30
    big = Identity(chain, identity().signer)
    client, server = make_client(trust=None), make_server(identities=(big,))
    assert len(shake(client, server)[0].peer_certificates) == 31
