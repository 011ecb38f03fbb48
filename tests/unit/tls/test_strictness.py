"""Rules that BoringSSL's test runner found this engine lax in, each with the reason and the alert."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tcpls.errors import Alert, HandshakeError, Reason
from tcpls.tls.algorithms import Group
from tcpls.tls.extensions import Extensions, ExtensionType, write_code_points, write_u16
from tcpls.tls.flow import Epoch, MessageToSend
from tcpls.tls.handshake import ClientHandshake, Handshake, ServerHandshake
from tcpls.tls.messages import (
    RETRY_RANDOM,
    CertificateRequest,
    ClientHello,
    EncryptedExtensions,
    HandshakeType,
    Message,
    ServerHello,
)
from tcpls.tls.psk import PreSharedKey
from tcpls.wire import Reader
from tests.unit.tls.pair import TIME, client_config, make_client, refused, seeded, server_config
from tests.unit.tls.test_psk import first_session, make_keys

HANDSHAKE, ALERT = 22, 21
PSK = PreSharedKey(b"identity", b"0123456789abcdef")
OTHER_PSK = PreSharedKey(b"other", b"fedcba9876543210")


def sent(handshake: Handshake) -> list[bytes]:
    return [event.data for event in handshake.events() if isinstance(event, MessageToSend)]


def read_hello(message: bytes) -> ClientHello:
    return ClientHello.read(Reader(message[4:]))


def refuses(handshake: Handshake, message: bytes, reason: Reason, alert: Alert) -> None:
    with pytest.raises(HandshakeError) as caught:
        handshake.receive(Epoch.INITIAL, message)
    refused(caught.value, reason, alert)


def record(content_type: int, content: bytes) -> bytes:
    return bytes((content_type, 3, 3)) + len(content).to_bytes(2, "big") + content


@pytest.mark.clause("RFC 6066 3")
@pytest.mark.parametrize("resume", [False, True])
def test_a_resumption_does_not_acknowledge_the_name(resume: bool) -> None:
    keys = make_keys()
    ticket = first_session(keys) if resume else None
    client = ClientHandshake(client_config(ticket=ticket), random=seeded(1), time=TIME)
    server = ServerHandshake(server_config(ticket_keys=keys), random=seeded(2), time=TIME)
    hello = sent(client)[0]
    server.receive(Epoch.INITIAL, hello)
    message = sent(server)[1]
    assert message[0] == HandshakeType.ENCRYPTED_EXTENSIONS
    answer = EncryptedExtensions.read(Message(message[0], message).body(), read_hello(hello).extensions.keys())
    assert answer.extensions.get(ExtensionType.SERVER_NAME) == (None if resume else b"")


@pytest.mark.clause("RFC 8446 4.1.4", "RFC 8446 5.1")
def test_what_a_refused_retry_asked_for_stays_here() -> None:
    """A server that has the second ClientHello would go on, and read the alert as a record of the handshake's keys."""
    client = make_client()
    hello = read_hello(client.data_to_send()[5:])
    extensions: Extensions = {43: write_u16(0x0304), 51: write_u16(Group.SECP256R1)}
    request = ServerHello(RETRY_RANDOM, hello.session_id, 0x1301, extensions).write()
    with pytest.raises(HandshakeError) as caught:
        client.receive_data(record(HANDSHAKE, request + bytes((HandshakeType.SERVER_HELLO,))))
    refused(caught.value, Reason.UNEXPECTED_MESSAGE, Alert.UNEXPECTED_MESSAGE)
    assert client.data_to_send() == record(ALERT, bytes((2, Alert.UNEXPECTED_MESSAGE)))


@pytest.mark.clause("RFC 8446 4.1.2")
@pytest.mark.parametrize("offered", [(PSK,), (PSK, OTHER_PSK)])
def test_the_key_that_a_retry_is_for_is_offered_again(offered: tuple[PreSharedKey, ...]) -> None:
    client = ClientHandshake(client_config(psks=offered), random=seeded(1), time=TIME)
    server = ServerHandshake(server_config(psks=(PSK,), groups=(Group.SECP384R1,)), random=seeded(2), time=TIME)
    server.receive(Epoch.INITIAL, sent(client)[0])
    client.receive(Epoch.INITIAL, sent(server)[0])
    second = read_hello(sent(client)[0])
    rest = ClientHandshake(client_config(psks=offered[1:]), random=seeded(1), time=TIME)
    extensions = dict(second.extensions)
    del extensions[ExtensionType.PRE_SHARED_KEY]
    if offered[1:]:
        extensions |= {
            kind: contents
            for kind, contents in read_hello(sent(rest)[0]).extensions.items()
            if kind == ExtensionType.PRE_SHARED_KEY
        }
    changed = replace(second, extensions=extensions).write()
    refuses(server, changed, Reason.CHANGED_HELLO, Alert.ILLEGAL_PARAMETER)


AUTHORITIES = [
    (b"", Reason.TRUNCATED),
    (b"\0\0", Reason.BAD_LENGTH),
    (b"\0\2\0\0", Reason.BAD_LENGTH),
    (b"\0\4\0\0\0\0", Reason.BAD_LENGTH),
    (b"\0\3\0\1a\0", Reason.TRAILING_BYTES),
    (b"\0\4\0\1a\0", Reason.TRUNCATED),
]


@pytest.mark.clause("RFC 8446 4.2.4")
@pytest.mark.parametrize(("contents", "reason"), AUTHORITIES)
def test_authorities_of_a_client(contents: bytes, reason: Reason) -> None:
    client = ClientHandshake(client_config(), random=seeded(1), time=TIME)
    hello = read_hello(sent(client)[0])
    server = ServerHandshake(server_config(), random=seeded(2), time=TIME)
    extensions = {**hello.extensions, ExtensionType.CERTIFICATE_AUTHORITIES: contents}
    refuses(server, replace(hello, extensions=extensions).write(), reason, Alert.DECODE_ERROR)


@pytest.mark.clause("RFC 8446 4.2.4")
@pytest.mark.parametrize(("contents", "reason"), AUTHORITIES)
def test_authorities_of_a_request(contents: bytes, reason: Reason) -> None:
    extensions: Extensions = {
        ExtensionType.SIGNATURE_ALGORITHMS: write_code_points((0x0403,)),
        ExtensionType.CERTIFICATE_AUTHORITIES: contents,
    }
    message = CertificateRequest(b"", extensions).write()
    client = ClientHandshake(client_config(), random=seeded(1), time=TIME)
    server = ServerHandshake(server_config(), random=seeded(2), time=TIME)
    server.receive(Epoch.INITIAL, sent(client)[0])
    hello, encrypted = sent(server)[:2]
    client.receive(Epoch.INITIAL, hello)
    client.receive(Epoch.HANDSHAKE, encrypted)
    with pytest.raises(HandshakeError) as caught:
        client.receive(Epoch.HANDSHAKE, message)
    refused(caught.value, reason, Alert.DECODE_ERROR)


@pytest.mark.clause("RFC 8446 4.2.4")
def test_authorities_in_good_form_are_ignored() -> None:
    client = ClientHandshake(client_config(), random=seeded(1), time=TIME)
    hello = read_hello(sent(client)[0])
    server = ServerHandshake(server_config(), random=seeded(2), time=TIME)
    extensions = {**hello.extensions, ExtensionType.CERTIFICATE_AUTHORITIES: b"\0\3\0\1a"}
    server.receive(Epoch.INITIAL, replace(hello, extensions=extensions).write())
    assert sent(server)[0][0] == HandshakeType.SERVER_HELLO


@pytest.mark.clause("RFC 7250 4.1")
@pytest.mark.parametrize("kind", [ExtensionType.SERVER_CERTIFICATE_TYPE, ExtensionType.CLIENT_CERTIFICATE_TYPE])
@pytest.mark.parametrize(
    ("contents", "reason", "alert"),
    [
        (b"\1\0", Reason.BAD_VALUE, Alert.ILLEGAL_PARAMETER),
        (b"\0", Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        (b"\2\0", Reason.TRUNCATED, Alert.DECODE_ERROR),
        (b"\1\2\0", Reason.TRAILING_BYTES, Alert.DECODE_ERROR),
    ],
)
def test_types_of_certificates(kind: int, contents: bytes, reason: Reason, alert: Alert) -> None:
    client = ClientHandshake(client_config(), random=seeded(1), time=TIME)
    hello = read_hello(sent(client)[0])
    server = ServerHandshake(server_config(), random=seeded(2), time=TIME)
    refuses(server, replace(hello, extensions={**hello.extensions, kind: contents}).write(), reason, alert)
