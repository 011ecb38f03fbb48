"""What a client refuses in the server's messages, and with which alert."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tcpls.errors import Alert, CertificateError, HandshakeError, Reason
from tcpls.tls.algorithms import Group, SignatureScheme
from tcpls.tls.extensions import (
    MAX_COOKIE,
    ExtensionType,
    read_client_shares,
    read_cookie,
    write_alpn,
    write_code_points,
    write_cookie,
    write_server_share,
    write_u16,
)
from tcpls.tls.flow import Epoch, MessageToSend, Outcome
from tcpls.tls.handshake import ClientHandshake, Handshake, ServerHandshake
from tcpls.tls.messages import (
    RETRY_RANDOM,
    Certificate,
    CertificateRequest,
    CertificateVerify,
    ClientHello,
    EncryptedExtensions,
    Finished,
    HandshakeType,
    ServerHello,
    frame,
)
from tcpls.tls.suites import CipherSuite
from tcpls.tls.tickets import MAX_IDENTITY, Ticket
from tcpls.wire import Reader
from tests.unit.tls.pair import NAME, TIME, client_config, identity, issue, leaf, refused, seeded, server_config

ILLEGAL = Alert.ILLEGAL_PARAMETER
VERSION_1_3 = write_u16(0x0304)
SHARE = write_server_share(Group.X25519, bytes(31) + b"\x09")
RANDOM = bytes(range(32))


def sent(handshake: Handshake) -> list[bytes]:
    return [event.data for event in handshake.events() if isinstance(event, MessageToSend)]


def start(**changes: Any) -> tuple[ClientHandshake, ClientHello]:
    client = ClientHandshake(client_config(**changes), random=seeded(1), time=TIME)
    (hello,) = sent(client)
    return client, ClientHello.read(Reader(hello[4:]))


def refuses(client: Handshake, epoch: Epoch, message: bytes, reason: Reason, alert: Alert) -> None:
    with pytest.raises(HandshakeError) as caught:
        client.receive(epoch, message)
    refused(caught.value, reason, alert)


def server_hello(hello: ClientHello, **changes: Any) -> ServerHello:
    extensions: dict[int, bytes] = {43: VERSION_1_3, 51: SHARE}
    return replace(ServerHello(RANDOM, hello.session_id, 0x1301, extensions), **changes)


HELLOS: list[tuple[dict[str, Any], Reason, Alert]] = [
    ({"legacy_version": 0x0300}, Reason.UNSUPPORTED_VERSION, Alert.PROTOCOL_VERSION),
    ({"legacy_version": 0x0304}, Reason.ILLEGAL_CHOICE, ILLEGAL),
    ({"legacy_version": 0x0302}, Reason.ILLEGAL_CHOICE, ILLEGAL),
    ({"session_id": b"other"}, Reason.ILLEGAL_CHOICE, ILLEGAL),
    ({"session_id": b""}, Reason.ILLEGAL_CHOICE, ILLEGAL),
    ({"compression": 1}, Reason.ILLEGAL_CHOICE, ILLEGAL),
    ({"suite": 0x1304}, Reason.ILLEGAL_CHOICE, ILLEGAL),
    ({"suite": 0x1303}, Reason.ILLEGAL_CHOICE, ILLEGAL),
    ({"suite": 0x0A0A}, Reason.ILLEGAL_CHOICE, ILLEGAL),
    ({"extensions": {}}, Reason.UNSUPPORTED_VERSION, Alert.PROTOCOL_VERSION),
    ({"extensions": {}, "random": RANDOM[:24] + b"DOWNGRD\x01"}, Reason.DOWNGRADE, ILLEGAL),
    ({"extensions": {}, "random": RANDOM[:24] + b"DOWNGRD\x00"}, Reason.DOWNGRADE, ILLEGAL),
    ({"extensions": {43: VERSION_1_3}}, Reason.MISSING_EXTENSION, Alert.MISSING_EXTENSION),
    ({"extensions": {43: write_u16(0x0303), 51: SHARE}}, Reason.ILLEGAL_CHOICE, ILLEGAL),
    ({"extensions": {43: write_u16(0x7F1C), 51: SHARE}}, Reason.ILLEGAL_CHOICE, ILLEGAL),
    ({"extensions": {43: VERSION_1_3 + b"\0", 51: SHARE}}, Reason.TRAILING_BYTES, Alert.DECODE_ERROR),
    ({"extensions": {43: b"\x03", 51: SHARE}}, Reason.TRUNCATED, Alert.DECODE_ERROR),
    ({"extensions": {43: VERSION_1_3, 51: SHARE, 16: write_alpn([b"a"])}}, Reason.MISPLACED_EXTENSION, ILLEGAL),
    ({"extensions": {43: VERSION_1_3, 51: SHARE, 44: write_cookie(b"c")}}, Reason.MISPLACED_EXTENSION, ILLEGAL),
    (
        {"extensions": {43: VERSION_1_3, 51: SHARE, 41: b"\0\0"}},
        Reason.UNSUPPORTED_EXTENSION,
        Alert.UNSUPPORTED_EXTENSION,
    ),
    (
        {"extensions": {43: VERSION_1_3, 51: SHARE, 0xFA01: b""}},
        Reason.UNSUPPORTED_EXTENSION,
        Alert.UNSUPPORTED_EXTENSION,
    ),
    (
        {"extensions": {43: VERSION_1_3, 51: write_server_share(Group.SECP256R1, b"\4" + bytes(64))}},
        Reason.ILLEGAL_CHOICE,
        ILLEGAL,
    ),
    ({"extensions": {43: VERSION_1_3, 51: write_server_share(Group.X25519, bytes(32))}}, Reason.BAD_KEY_SHARE, ILLEGAL),
    ({"extensions": {43: VERSION_1_3, 51: write_server_share(Group.X25519, bytes(31))}}, Reason.BAD_KEY_SHARE, ILLEGAL),
    ({"extensions": {43: VERSION_1_3, 51: b"\0\x1d\0\0"}}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
]


@pytest.mark.clause(
    "RFC 8446 4.1.3",
    "RFC 8446 4.2",
    "RFC 8446 4.2.1",
    "RFC 8446 4.2.8",
    "RFC 8446 4.2.8.2",
    "RFC 8446 7.4.2",
    "RFC 8446 D.1",
    "RFC 8446 D.5",
)
@pytest.mark.parametrize(("changes", "reason", "alert"), HELLOS)
def test_server_hello(changes: dict[str, Any], reason: Reason, alert: Alert) -> None:
    client, hello = start(suites=(CipherSuite.AES_128_GCM_SHA256, CipherSuite.AES_256_GCM_SHA384))
    refuses(client, Epoch.INITIAL, server_hello(hello, **changes).write(), reason, alert)


@pytest.mark.clause("RFC 8446 4.2")
def test_duplicate_extension() -> None:
    client, hello = start()
    message = bytearray(server_hello(hello, extensions={43: VERSION_1_3, 51: SHARE}).write())
    twice = b"\0\x2b\0\x02\x03\x04"
    at = message.index(b"\0\x2b\0\x02") - 2
    message[at : at + 2] = (int.from_bytes(message[at : at + 2], "big") + len(twice)).to_bytes(2, "big")
    message += twice
    message[1:4] = (len(message) - 4).to_bytes(3, "big")
    refuses(client, Epoch.INITIAL, bytes(message), Reason.DUPLICATE, ILLEGAL)


@pytest.mark.clause("RFC 8446 4.1.3", "RFC 8446 6.2")
@pytest.mark.parametrize(("cut", "reason"), [(1, Reason.TRUNCATED), (-1, Reason.TRAILING_BYTES)])
def test_length_of_a_hello(cut: int, reason: Reason) -> None:
    client, hello = start()
    body = server_hello(hello).write()[4:]
    body = body[:-cut] if cut > 0 else body + b"\0"
    refuses(client, Epoch.INITIAL, frame(HandshakeType.SERVER_HELLO, body), reason, Alert.DECODE_ERROR)


@pytest.mark.clause("RFC 8446 4")
def test_wrong_epoch() -> None:
    client, hello = start()
    refuses(
        client,
        Epoch.HANDSHAKE,
        server_hello(hello).write(),
        Reason.UNEXPECTED_MESSAGE,
        Alert.UNEXPECTED_MESSAGE,
    )


def retry_request(hello: ClientHello, extensions: dict[int, bytes], suite: int = 0x1301) -> bytes:
    return ServerHello(RETRY_RANDOM, hello.session_id, suite, {43: VERSION_1_3, **extensions}).write()


@pytest.mark.clause("RFC 8446 4.1.4", "RFC 8446 4.2", "RFC 8446 4.2.2", "RFC 8446 4.2.8")
@pytest.mark.parametrize(
    ("extensions", "reason", "alert"),
    [
        ({}, Reason.POINTLESS_RETRY, ILLEGAL),
        ({51: write_u16(Group.X25519)}, Reason.ILLEGAL_CHOICE, ILLEGAL),
        ({51: write_u16(0x0100)}, Reason.ILLEGAL_CHOICE, ILLEGAL),
        ({51: write_u16(Group.SECP256R1) + b"\0"}, Reason.TRAILING_BYTES, Alert.DECODE_ERROR),
        ({44: b"\0\0"}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        ({44: write_cookie(bytes(MAX_COOKIE + 1))}, Reason.TOO_LARGE, ILLEGAL),
        # With it, no ClientHello could hold anything else.
        ({44: write_cookie(bytes(65400))}, Reason.TOO_LARGE, ILLEGAL),
        ({44: write_cookie(b"c"), 16: write_alpn([b"a"])}, Reason.MISPLACED_EXTENSION, ILLEGAL),
        ({44: write_cookie(b"c"), 0xFA01: b""}, Reason.UNSUPPORTED_EXTENSION, Alert.UNSUPPORTED_EXTENSION),
    ],
)
def test_retry_requests(extensions: dict[int, bytes], reason: Reason, alert: Alert) -> None:
    client, hello = start()
    refuses(client, Epoch.INITIAL, retry_request(hello, extensions), reason, alert)


@pytest.mark.clause("RFC 8446 4.1.2", "RFC 8446 4.2.2", "RFC 8446 4.2.8")
def test_cookie_and_group_of_a_retry() -> None:
    client, first = start(extra_extensions=((0xFA01, b"extra"),))
    client.receive(Epoch.INITIAL, retry_request(first, {44: write_cookie(b"cookie"), 51: write_u16(Group.SECP384R1)}))
    (message,) = sent(client)
    second = ClientHello.read(Reader(message[4:]))
    assert read_cookie(second.extensions[ExtensionType.COOKIE]) == b"cookie"
    assert list(read_client_shares(second.extensions[ExtensionType.KEY_SHARE])) == [Group.SECP384R1]
    changed = {ExtensionType.COOKIE, ExtensionType.KEY_SHARE}
    assert {k: v for k, v in second.extensions.items() if k not in changed} == {
        k: v for k, v in first.extensions.items() if k not in changed
    }
    assert (second.random, second.session_id, second.suites) == (first.random, first.session_id, first.suites)


@pytest.mark.clause("RFC 8446 4.1.4")
@pytest.mark.parametrize("size", [1, 4, 40])
def test_nothing_comes_along_with_a_retry(size: int) -> None:
    client, hello = start()
    both = retry_request(hello, {51: write_u16(Group.SECP256R1)}) + server_hello(hello).write()[:size]
    refuses(client, Epoch.INITIAL, both, Reason.UNEXPECTED_MESSAGE, Alert.UNEXPECTED_MESSAGE)


@pytest.mark.clause("RFC 8446 4.1.2", "RFC 8446 4.1.4")
def test_cookie_alone_keeps_the_share() -> None:
    client, first = start()
    client.receive(Epoch.INITIAL, retry_request(first, {44: write_cookie(b"cookie")}))
    (message,) = sent(client)
    second = ClientHello.read(Reader(message[4:]))
    assert second.extensions[ExtensionType.KEY_SHARE] == first.extensions[ExtensionType.KEY_SHARE]


def test_the_longest_cookie_fits_beside_the_largest_ticket() -> None:
    ticket = Ticket(
        identity=bytes(MAX_IDENTITY),
        key=bytes(32),
        suite=CipherSuite.AES_128_GCM_SHA256,
        age_add=0,
        received=TIME.timestamp(),
        lifetime=100,
        server_name=NAME,
        alpn=None,
        verified=True,
    )
    client, first = start(ticket=ticket, ech_grease=True)
    client.receive(Epoch.INITIAL, retry_request(first, {44: write_cookie(bytes(MAX_COOKIE))}))
    (message,) = sent(client)
    second = ClientHello.read(Reader(message[4:]))
    assert read_cookie(second.extensions[ExtensionType.COOKIE]) == bytes(MAX_COOKIE)
    assert ExtensionType.PRE_SHARED_KEY in second.extensions


@pytest.mark.clause("RFC 8446 4.1.4", "RFC 8446 D.1")
@pytest.mark.parametrize(
    ("changes", "reason", "alert"),
    [
        ({"extensions": {}}, Reason.UNSUPPORTED_VERSION, Alert.PROTOCOL_VERSION),
        ({"extensions": {43: write_u16(0x0303), 51: SHARE}}, Reason.ILLEGAL_CHOICE, ILLEGAL),
        ({"extensions": {}, "random": RANDOM[:24] + b"DOWNGRD\x01"}, Reason.DOWNGRADE, ILLEGAL),
    ],
)
def test_an_older_version_after_the_retry(changes: dict[str, Any], reason: Reason, alert: Alert) -> None:
    client, hello = start()
    client.receive(Epoch.INITIAL, retry_request(hello, {51: write_u16(Group.SECP256R1)}))
    refuses(client, Epoch.INITIAL, server_hello(hello, **changes).write(), reason, alert)


@pytest.mark.clause("RFC 8446 4.1.4")
def test_second_retry() -> None:
    client, hello = start()
    client.receive(Epoch.INITIAL, retry_request(hello, {51: write_u16(Group.SECP256R1)}))
    refuses(
        client,
        Epoch.INITIAL,
        retry_request(hello, {44: write_cookie(b"c")}),
        Reason.SECOND_RETRY,
        Alert.UNEXPECTED_MESSAGE,
    )


@pytest.mark.clause("RFC 8446 4.1.4")
def test_suite_changed_after_the_retry() -> None:
    client, hello = start()
    client.receive(Epoch.INITIAL, retry_request(hello, {51: write_u16(Group.SECP256R1)}))
    refuses(client, Epoch.INITIAL, server_hello(hello, suite=0x1302).write(), Reason.ILLEGAL_CHOICE, ILLEGAL)


@pytest.mark.clause("RFC 8446 4.2.8")
def test_group_other_than_the_retry_asked_for() -> None:
    client, hello = start()
    client.receive(Epoch.INITIAL, retry_request(hello, {51: write_u16(Group.SECP256R1)}))
    refuses(client, Epoch.INITIAL, server_hello(hello).write(), Reason.ILLEGAL_CHOICE, ILLEGAL)


def started(server_changes: dict[str, Any] | None = None, **changes: Any) -> tuple[ClientHandshake, list[bytes]]:
    """A client that has ServerHello, and the messages that its server sends next."""
    client = ClientHandshake(client_config(**changes), random=seeded(1), time=TIME)
    server = ServerHandshake(server_config(**(server_changes or {})), random=seeded(2))
    server.receive(Epoch.INITIAL, sent(client)[0])
    hello, *flight = sent(server)
    client.receive(Epoch.INITIAL, hello)
    return client, flight


@pytest.mark.clause("RFC 8446 4.2", "RFC 8446 4.3.1", "RFC 6066 3")
@pytest.mark.parametrize(
    ("extensions", "reason", "alert"),
    [
        ({16: write_alpn([b"a"])}, Reason.UNSUPPORTED_EXTENSION, Alert.UNSUPPORTED_EXTENSION),
        ({0xFA01: b""}, Reason.UNSUPPORTED_EXTENSION, Alert.UNSUPPORTED_EXTENSION),
        ({5: b""}, Reason.MISPLACED_EXTENSION, ILLEGAL),
        ({51: SHARE}, Reason.MISPLACED_EXTENSION, ILLEGAL),
        ({43: VERSION_1_3}, Reason.MISPLACED_EXTENSION, ILLEGAL),
        ({0: b"\0"}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        ({10: b"\0"}, Reason.TRUNCATED, Alert.DECODE_ERROR),
    ],
)
def test_encrypted_extensions(extensions: dict[int, bytes], reason: Reason, alert: Alert) -> None:
    client, _ = started()
    refuses(client, Epoch.HANDSHAKE, EncryptedExtensions(extensions).write(), reason, alert)


@pytest.mark.clause("RFC 7301 3.1", "RFC 7301 3.2")
@pytest.mark.parametrize(
    ("contents", "reason", "alert"),
    [
        (write_alpn([b"other"]), Reason.ILLEGAL_CHOICE, ILLEGAL),
        (write_alpn([b"a", b"b"]), Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        (b"\0\0", Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        (b"\0\x02\x01a\0", Reason.TRAILING_BYTES, Alert.DECODE_ERROR),
    ],
)
def test_alpn_of_the_server(contents: bytes, reason: Reason, alert: Alert) -> None:
    client, _ = started(alpn=(b"a", b"b"))
    refuses(client, Epoch.HANDSHAKE, EncryptedExtensions({16: contents}).write(), reason, alert)


@pytest.mark.clause("RFC 8446 4.2.7")
def test_groups_of_the_server_are_ignored() -> None:
    client, _ = started()
    client.receive(Epoch.HANDSHAKE, EncryptedExtensions({10: write_code_points((0x2A2A, 0x001D))}).write())


def after(count: int, **changes: Any) -> ClientHandshake:
    """A client that has `count` messages behind ServerHello."""
    client, flight = started(**changes)
    for message in flight[:count]:
        client.receive(Epoch.HANDSHAKE, message)
    return client


@pytest.mark.clause("RFC 8446 4", "RFC 8446 4.3.2", "RFC 8446 4.4.2", "RFC 8446 4.4.2.4")
@pytest.mark.parametrize(
    ("message", "reason", "alert"),
    [
        (Certificate(b"", ()).write(), Reason.NO_CERTIFICATE, Alert.DECODE_ERROR),
        (Certificate(b"x", (b"x",)).write(), Reason.BAD_VALUE, ILLEGAL),
        (Certificate(b"", (b"no certificate",)).write(), Reason.BAD_CERTIFICATE, Alert.BAD_CERTIFICATE),
        (Certificate(b"", (leaf().der, b"junk")).write(), Reason.BAD_CERTIFICATE, Alert.BAD_CERTIFICATE),
        (frame(HandshakeType.CERTIFICATE, b"\0\0\0\5\0\0\0\0\0"), Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        (CertificateRequest(b"x", {13: b"\0\2\4\3"}).write(), Reason.BAD_VALUE, ILLEGAL),
        (CertificateRequest(b"", {}).write(), Reason.MISSING_EXTENSION, Alert.MISSING_EXTENSION),
        (CertificateRequest(b"", {13: b"\0\2\4\3", 51: b""}).write(), Reason.MISPLACED_EXTENSION, ILLEGAL),
        (CertificateVerify(0x0403, b"").write(), Reason.UNEXPECTED_MESSAGE, Alert.UNEXPECTED_MESSAGE),
        (Finished(bytes(32)).write(), Reason.UNEXPECTED_MESSAGE, Alert.UNEXPECTED_MESSAGE),
        (frame(HandshakeType.NEW_SESSION_TICKET, b""), Reason.UNEXPECTED_MESSAGE, Alert.UNEXPECTED_MESSAGE),
    ],
)
def test_certificates(message: bytes, reason: Reason, alert: Alert) -> None:
    refuses(after(1), Epoch.HANDSHAKE, message, reason, alert)


@pytest.mark.clause("RFC 8446 4.2", "RFC 8446 4.4.2")
@pytest.mark.parametrize(
    ("kind", "reason", "alert"),
    [
        (5, Reason.UNSUPPORTED_EXTENSION, Alert.UNSUPPORTED_EXTENSION),
        (0xFA01, Reason.UNSUPPORTED_EXTENSION, Alert.UNSUPPORTED_EXTENSION),
        (51, Reason.MISPLACED_EXTENSION, ILLEGAL),
    ],
)
def test_extensions_of_a_certificate(kind: int, reason: Reason, alert: Alert) -> None:
    der = leaf().der
    entry = len(der).to_bytes(3, "big") + der + b"\0\4" + kind.to_bytes(2, "big") + b"\0\0"
    message = frame(HandshakeType.CERTIFICATE, b"\0" + len(entry).to_bytes(3, "big") + entry)
    refuses(after(1), Epoch.HANDSHAKE, message, reason, alert)


@pytest.mark.clause("RFC 8446 4.4.2.4")
def test_certificate_of_an_unsupported_key() -> None:
    message = Certificate(b"", (issue(kind="rsa1024").der,)).write()
    with pytest.raises(CertificateError) as caught:
        after(1).receive(Epoch.HANDSHAKE, message)
    refused(caught.value, Reason.UNSUPPORTED_CERTIFICATE, Alert.UNSUPPORTED_CERTIFICATE)


@pytest.mark.clause("RFC 8446 4.3.2", "RFC 8446 9.3")
def test_two_certificate_requests() -> None:
    client = after(1)
    request = CertificateRequest(b"", {13: b"\0\2\4\3", 0xFA01: b""}).write()
    client.receive(Epoch.HANDSHAKE, request)
    refuses(client, Epoch.HANDSHAKE, request, Reason.UNEXPECTED_MESSAGE, Alert.UNEXPECTED_MESSAGE)


BAD_SIGNATURES = [
    (0x0403, b"", Reason.BAD_SIGNATURE, Alert.DECRYPT_ERROR),
    (0x0403, bytes(70), Reason.BAD_SIGNATURE, Alert.DECRYPT_ERROR),
    (0x0804, b"x", Reason.ILLEGAL_CHOICE, ILLEGAL),
    (0x0401, b"x", Reason.ILLEGAL_CHOICE, ILLEGAL),
    (0x0203, b"x", Reason.ILLEGAL_CHOICE, ILLEGAL),
]
"""Schemes and signatures of a CertificateVerify by an ECDSA key, with what is said of them."""


@pytest.mark.clause("RFC 8446 4.4.3", "RFC 8446 4.2.3")
@pytest.mark.parametrize(("scheme", "signature", "reason", "alert"), BAD_SIGNATURES)
def test_certificate_verify(scheme: int, signature: bytes, reason: Reason, alert: Alert) -> None:
    refuses(after(2), Epoch.HANDSHAKE, CertificateVerify(scheme, signature).write(), reason, alert)


@pytest.mark.clause("RFC 8446 4.4.3")
def test_scheme_that_was_not_offered() -> None:
    client = after(2, schemes=(SignatureScheme.ECDSA_SECP256R1_SHA256,))
    refuses(client, Epoch.HANDSHAKE, CertificateVerify(0x0807, b"").write(), Reason.ILLEGAL_CHOICE, ILLEGAL)


@pytest.mark.clause("RFC 8446 4.4.3")
@pytest.mark.parametrize("kind", ["p256", "p384", "rsa", "ed25519"])
def test_signature_over_something_else(kind: str) -> None:
    client, flight = started({"identities": (identity(kind),)})
    for message in flight[:2]:
        client.receive(Epoch.HANDSHAKE, message)
    scheme = identity(kind).signer.schemes[0]
    signature = identity(kind).signer.sign(scheme, b"something else")
    message = CertificateVerify(scheme, signature).write()
    refuses(client, Epoch.HANDSHAKE, message, Reason.BAD_SIGNATURE, Alert.DECRYPT_ERROR)


@pytest.mark.clause("RFC 8446 4.4.4", "RFC 8446 6.2")
@pytest.mark.parametrize(
    ("value", "reason", "alert"),
    [
        (bytes(32), Reason.BAD_FINISHED, Alert.DECRYPT_ERROR),
        (b"", Reason.TRUNCATED, Alert.DECODE_ERROR),
        (bytes(33), Reason.TRAILING_BYTES, Alert.DECODE_ERROR),
    ],
)
def test_finished(value: bytes, reason: Reason, alert: Alert) -> None:
    refuses(after(3), Epoch.HANDSHAKE, Finished(value).write(), reason, alert)


@pytest.mark.clause("RFC 8446 4")
def test_nothing_after_finished() -> None:
    client, flight = started()
    client.receive(Epoch.HANDSHAKE, b"".join(flight))
    assert any(isinstance(event, Outcome) for event in client.events())
    refuses(client, Epoch.APPLICATION, b"\x04", Reason.UNEXPECTED_MESSAGE, Alert.UNEXPECTED_MESSAGE)
