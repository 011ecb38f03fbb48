"""What a server refuses in a ClientHello, how it chooses, and what it ignores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509

from tcpls.errors import Alert, HandshakeError, Reason
from tcpls.tls.algorithms import Group
from tcpls.tls.connection import ServerConnection
from tcpls.tls.extensions import write_alpn, write_client_shares, write_code_points, write_server_name
from tcpls.tls.flow import Epoch, MessageToSend
from tcpls.tls.handshake import ClientHandshake, ServerHandshake
from tcpls.tls.identity_choice import Wanted
from tcpls.tls.messages import MAX_CLIENT_HELLO, ClientHello, Finished, HandshakeType, ServerHello, frame
from tcpls.tls.offer import Offer
from tcpls.tls.suites import CipherSuite
from tcpls.tls.ticket_keys import TicketKeys
from tcpls.wire import Reader
from tests.engine import ENGINE
from tests.unit.tls.pair import (
    TIME,
    authority,
    client_config,
    identity,
    issue,
    make_client,
    make_server,
    refused,
    seeded,
    server_config,
    shake,
)

ILLEGAL = Alert.ILLEGAL_PARAMETER
SHARE = (Group.X25519, bytes(31) + b"\x09")
P256_SHARE = (Group.SECP256R1, b"\4" + bytes(64))


def first_hello(**changes: Any) -> ClientHello:
    client = ClientHandshake(client_config(**changes), random=seeded(1), time=TIME)
    (event,) = client.events()
    assert isinstance(event, MessageToSend)
    return ClientHello.read(Reader(event.data[4:]))


def with_extensions(hello: ClientHello, changes: dict[int, bytes | None]) -> ClientHello:
    """The hello with extensions put in or replaced, and those that are None taken out."""
    merged = {**hello.extensions, **changes}
    return replace(hello, extensions={kind: contents for kind, contents in merged.items() if contents is not None})


def make(**changes: Any) -> ServerHandshake:
    return ServerHandshake(server_config(**changes), random=seeded(2))


def refuses(server: ServerHandshake, message: bytes, reason: Reason, alert: Alert) -> None:
    with pytest.raises(HandshakeError) as caught:
        server.receive(server.read_epoch, message)
    refused(caught.value, reason, alert)


def accepts(server: ServerHandshake, hello: ClientHello) -> ServerHello:
    server.receive(Epoch.INITIAL, hello.write())
    answer = server.events()[0]
    assert isinstance(answer, MessageToSend)
    return ServerHello.read(Reader(answer.data[4:]))


@pytest.mark.clause(
    "RFC 6066 3",
    "RFC 7301 3.1",
    "RFC 8446 4.2",
    "RFC 8446 4.2.1",
    "RFC 8446 4.2.3",
    "RFC 8446 4.2.8",
    "RFC 8446 4.2.8.2",
    "RFC 8446 4.2.9",
    "RFC 8446 4.2.11",
    "RFC 8446 7.4.2",
    "RFC 8446 9.2",
)
@pytest.mark.parametrize(
    ("changes", "reason", "alert"),
    [
        ({43: None}, Reason.UNSUPPORTED_VERSION, Alert.PROTOCOL_VERSION),
        ({43: b"\2\3\3"}, Reason.UNSUPPORTED_VERSION, Alert.PROTOCOL_VERSION),
        ({43: b"\3\3\4\3"}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        ({43: b"\0"}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        ({43: b"\2\3\4\0"}, Reason.TRAILING_BYTES, Alert.DECODE_ERROR),
        ({10: None}, Reason.MISSING_EXTENSION, Alert.MISSING_EXTENSION),
        ({13: None}, Reason.MISSING_EXTENSION, Alert.MISSING_EXTENSION),
        ({51: None}, Reason.MISSING_EXTENSION, Alert.MISSING_EXTENSION),
        ({10: b"\0\0"}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        ({10: b"\0\3\0\x1d\0"}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        ({13: b"\0\2\4\3\0"}, Reason.TRAILING_BYTES, Alert.DECODE_ERROR),
        ({50: b"\0\0"}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        ({51: write_client_shares([SHARE, SHARE])}, Reason.DUPLICATE, ILLEGAL),
        ({51: write_client_shares([(0x0100, b"x"), SHARE])}, Reason.ILLEGAL_CHOICE, ILLEGAL),
        ({51: write_client_shares([(Group.X25519, bytes(32))])}, Reason.BAD_KEY_SHARE, ILLEGAL),
        ({51: write_client_shares([P256_SHARE])}, Reason.BAD_KEY_SHARE, ILLEGAL),
        ({51: write_client_shares([(Group.X25519, b"")])}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        ({0: b"\0\0"}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        ({0: b"\0\4\0\0\1\xff"}, Reason.BAD_VALUE, ILLEGAL),
        ({0: b"\0\4\0\0\1\0"}, Reason.BAD_VALUE, ILLEGAL),
        ({0: b"\0\x08\0\0\1a\0\0\1b"}, Reason.DUPLICATE, ILLEGAL),
        ({0: write_server_name(".".join(["a" * 63] * 4))}, Reason.BAD_VALUE, ILLEGAL),
        ({16: b"\0\0"}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        ({16: b"\0\1\0"}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        ({48: b""}, Reason.MISPLACED_EXTENSION, ILLEGAL),
        ({41: b"", 45: b"\1\1"}, Reason.MISPLACED_EXTENSION, ILLEGAL),
        ({41: b""}, Reason.MISSING_EXTENSION, Alert.MISSING_EXTENSION),
        ({45: b"\0"}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
    ],
)
def test_extensions(changes: dict[int, bytes | None], reason: Reason, alert: Alert) -> None:
    refuses(make(), with_extensions(first_hello(), changes).write(), reason, alert)


def test_the_longest_name_is_accepted() -> None:
    """And fits a ticket."""
    name = ".".join(["a" * 63] * 3 + ["a" * 61])
    client = make_client(server_name=name, trust=None, tickets=1)
    config = server_config(ticket_keys=TicketKeys(ENGINE, seeded(9)))
    _, server = shake(client, ServerConnection(config, random=seeded(2), time=TIME))
    assert server.server_name == name


class Compared(int):
    """A number that counts how often it is compared."""

    count = 0
    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        self.count += 1
        return int(self) == other


def test_lists_of_thousands_are_looked_through_once() -> None:
    """Each share is looked up among the groups, each authority among those of each certificate, and so on."""
    points = (SHARE[0], *range(0x4000, 0x4000 + 6000))
    shares = write_client_shares([SHARE, *((point, b"x") for point in points[1:])])
    hello = with_extensions(first_hello(), {10: write_code_points(points), 13: write_code_points(points), 51: shares})
    wanted = Wanted.read(hello.extensions, ())
    last = Compared(points[-1])
    for found in (Offer.read(hello).groups, wanted.schemes):
        assert last in found
    assert last.count < 10


@pytest.mark.clause("RFC 8446 4.1.2", "RFC 8446 4.2.1", "RFC 8446 4.1.1", "RFC 8446 D.5")
@pytest.mark.parametrize(
    ("changes", "reason", "alert"),
    [
        ({"legacy_version": 0x0300}, Reason.UNSUPPORTED_VERSION, Alert.PROTOCOL_VERSION),
        ({"extensions": {}}, Reason.UNSUPPORTED_VERSION, Alert.PROTOCOL_VERSION),
        ({"extensions": {}, "compression": b"\1\0"}, Reason.UNSUPPORTED_VERSION, Alert.PROTOCOL_VERSION),
        ({"compression": b"\1\0"}, Reason.BAD_VALUE, ILLEGAL),
        ({"compression": b"\1"}, Reason.BAD_VALUE, ILLEGAL),
        ({"compression": b""}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        ({"session_id": bytes(33)}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        ({"suites": ()}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        ({"suites": (0x1304, 0x0A0A, 0x00FF)}, Reason.NO_COMMON_SUITE, Alert.HANDSHAKE_FAILURE),
    ],
)
def test_fields(changes: dict[str, Any], reason: Reason, alert: Alert) -> None:
    refuses(make(), replace(first_hello(), **changes).write(), reason, alert)


@pytest.mark.clause("RFC 8446 4.1.2", "RFC 8446 4.2.1", "RFC 8446 D.2")
def test_hello_without_an_extension_block() -> None:
    hello = replace(first_hello(), extensions={}).write()[4:-2]
    refuses(make(), frame(HandshakeType.CLIENT_HELLO, hello), Reason.UNSUPPORTED_VERSION, Alert.PROTOCOL_VERSION)


@pytest.mark.clause("RFC 8446 4.1.1", "RFC 8446 4.2.3", "RFC 7301 3.2")
@pytest.mark.parametrize(
    ("changes", "reason", "alert"),
    [
        ({10: write_code_points((0x0100,)), 51: b"\0\0"}, Reason.NO_COMMON_GROUP, Alert.HANDSHAKE_FAILURE),
        ({13: write_code_points((0x0804, 0x0401))}, Reason.NO_COMMON_SIGNATURE, Alert.HANDSHAKE_FAILURE),
        ({16: write_alpn((b"x",))}, Reason.NO_COMMON_ALPN, Alert.NO_APPLICATION_PROTOCOL),
    ],
)
def test_nothing_in_common(changes: dict[int, bytes | None], reason: Reason, alert: Alert) -> None:
    refuses(make(alpn=(b"h2",)), with_extensions(first_hello(), changes).write(), reason, alert)


@pytest.mark.clause("RFC 8446 4.1.2", "RFC 8446 4.2", "RFC 8446 4.2.1", "RFC 8446 9.3")
def test_grease_and_the_unknown_are_ignored() -> None:
    """RFC 8701, and RFC 8446 9.3."""
    hello = first_hello(alpn=(b"h2",))
    shares = write_client_shares([(0x2A2A, b"\0"), SHARE])
    changes: dict[int, bytes | None] = {
        0x0A0A: b"",
        0xEAEA: b"\0",
        10: write_code_points((0x2A2A, 0x001D, 0x11EC)),
        13: write_code_points((0x5A5A, 0x0403, 0x0603)),
        16: write_alpn((b"\x4a\x4a", b"h2")),
        43: b"\6\x7a\x7a\3\4\3\3",
        45: b"\2\x0b\1",
        51: shares,
        23: b"",
        0xFF01: b"\0",
        5: b"\1\0\0\0\0",
        18: b"",
        27: b"\2\0\2",
        21: bytes(100),
        50: write_code_points((0x5A5A, 0x0201, 0x0403)),
    }
    changed = replace(with_extensions(hello, changes), suites=(0x1A1A, *hello.suites, 0x00FF))
    assert accepts(make(alpn=(b"h2",)), changed).suite == 0x1301


@pytest.mark.clause("RFC 8446 4.1.2")
def test_the_longest_hello_is_accepted() -> None:
    hello = first_hello()
    suites = (*hello.suites, *range(0x2000, 0x2000 + 0x7FFF - len(hello.suites)))
    extensions = {**hello.extensions, 0xFA01: b""}
    rest = 0xFFFF - sum(4 + len(contents) for contents in extensions.values())
    longest = replace(hello, session_id=bytes(32), suites=suites, extensions={**extensions, 0xFA01: bytes(rest)})
    # TLS 1.3 has one compression method, where the syntax has room for 255.
    assert len(longest.write()) == 4 + MAX_CLIENT_HELLO - 254
    assert accepts(make(), longest).suite == 0x1301


@pytest.mark.clause("RFC 8446 6.2")
def test_a_longer_hello_is_refused_by_its_header() -> None:
    header = b"\1" + (MAX_CLIENT_HELLO + 1).to_bytes(3, "big")
    refuses(make(), header, Reason.BAD_LENGTH, Alert.DECODE_ERROR)


def test_server_prefers_its_own_order() -> None:
    suites = (CipherSuite.CHACHA20_POLY1305_SHA256, CipherSuite.AES_128_GCM_SHA256)
    assert accepts(make(suites=suites), first_hello()).suite == 0x1303


def test_protocols_are_ignored_by_a_server_that_has_none() -> None:
    client, server = shake(make_client(alpn=(b"h2",)), make_server())
    assert client.alpn is server.alpn is None


def test_identities_by_name_and_scheme() -> None:
    other = issue(authority(), kind="ed25519", names=(x509.DNSName("*.other.example"),)).identity()
    identities = (identity("rsa"), other, identity("p256"))
    assert shake(make_client(), make_server(identities=identities))[0].signature_scheme == "rsa_pss_rsae_sha256"
    client = make_client(server_name="www.other.example")
    assert shake(client, make_server(identities=identities))[0].peer_certificates == other.chain
    schemes = tuple(identity("p256").signer.schemes)
    assert (
        shake(make_client(schemes=schemes), make_server(identities=identities))[0].peer_certificates
        == identity("p256").chain
    )
    client = make_client(server_name="unknown.example", trust=None)
    assert shake(client, make_server(identities=identities))[0].peer_certificates == identity("rsa").chain


def retried(**changes: Any) -> tuple[ServerHandshake, ClientHello, ClientHello]:
    """A server that asked for a retry, and the client's two hellos."""
    client = ClientHandshake(client_config(**changes), random=seeded(1), time=TIME)
    server = make(groups=(Group.SECP256R1,))
    hellos = []
    for _ in range(2):
        (event,) = (event for event in client.events() if isinstance(event, MessageToSend))
        hellos.append(ClientHello.read(Reader(event.data[4:])))
        if len(hellos) == 1:
            server.receive(Epoch.INITIAL, event.data)
            (request,) = server.events()
            assert isinstance(request, MessageToSend)
            client.receive(Epoch.INITIAL, request.data)
    return server, hellos[0], hellos[1]


@pytest.mark.clause("RFC 8446 4.1.4")
def test_a_second_hello_does_not_come_ahead_of_the_retry() -> None:
    _, first, second = retried()
    server = make(groups=(Group.SECP256R1,))
    both = first.write() + second.write()[:1]
    refuses(server, both, Reason.UNEXPECTED_MESSAGE, Alert.UNEXPECTED_MESSAGE)


@pytest.mark.clause("RFC 8446 4.1.2")
@pytest.mark.parametrize(
    "changes",
    [
        {"random": bytes(32)},
        {"session_id": bytes(32)},
        {"suites": (0x1301,)},
        {"legacy_version": 0x0302},
    ],
)
def test_fields_that_may_not_change(changes: dict[str, Any]) -> None:
    server, _, second = retried()
    refuses(server, replace(second, **changes).write(), Reason.CHANGED_HELLO, ILLEGAL)


@pytest.mark.clause("RFC 8446 4.1.2", "RFC 8446 4.2.2", "RFC 8446 4.2.8", "RFC 8446 4.2.10")
@pytest.mark.parametrize(
    "changes",
    [
        {0: None},
        {0xFA01: b""},
        {16: write_alpn((b"h2",))},
        {44: b"\0\1x"},
        {42: b""},
        {13: write_code_points((0x0403,))},
        {51: write_client_shares([SHARE])},
        {51: b"\0\0"},
        {51: write_client_shares([P256_SHARE, SHARE])},
    ],
)
def test_extensions_that_may_not_change(changes: dict[int, bytes | None]) -> None:
    server, _, second = retried()
    refuses(server, with_extensions(second, changes).write(), Reason.CHANGED_HELLO, ILLEGAL)


@pytest.mark.clause("RFC 8446 4.1.2")
def test_the_order_of_extensions_may_not_change() -> None:
    server, _, second = retried()
    reversed_hello = replace(second, extensions=dict(reversed(second.extensions.items())))
    refuses(server, reversed_hello.write(), Reason.CHANGED_HELLO, ILLEGAL)


@pytest.mark.clause("RFC 8446 4.1.2")
def test_the_share_may_move() -> None:
    server, _, second = retried()
    others = {kind: contents for kind, contents in second.extensions.items() if kind != 51}
    accepts(server, replace(second, extensions={**others, 51: second.extensions[51]}))


@pytest.mark.clause("RFC 8446 4.1.2")
def test_the_first_hello_again() -> None:
    server, first, _ = retried()
    refuses(server, first.write(), Reason.CHANGED_HELLO, ILLEGAL)


@pytest.mark.clause("RFC 8446 4.1.2")
def test_padding_may_change() -> None:
    server, _, second = retried()
    accepts(server, with_extensions(second, {21: bytes(10)}))


@pytest.mark.clause("RFC 8446 4.4.4", "RFC 8446 6.2")
@pytest.mark.parametrize(
    ("value", "reason", "alert"),
    [
        (bytes(32), Reason.BAD_FINISHED, Alert.DECRYPT_ERROR),
        (b"", Reason.TRUNCATED, Alert.DECODE_ERROR),
        (bytes(31), Reason.TRUNCATED, Alert.DECODE_ERROR),
        (bytes(33), Reason.TRAILING_BYTES, Alert.DECODE_ERROR),
        (bytes(0xFFFF), Reason.TRAILING_BYTES, Alert.DECODE_ERROR),
    ],
)
def test_finished(value: bytes, reason: Reason, alert: Alert) -> None:
    server = make()
    accepts(server, first_hello())
    refuses(server, Finished(value).write(), reason, alert)


@pytest.mark.clause("RFC 8446 4", "RFC 8446 4.5", "RFC 8446 4.6.3")
@pytest.mark.parametrize("kind", [1, 5, 11, 15, 24, 99])
def test_other_messages_than_finished(kind: int) -> None:
    server = make()
    accepts(server, first_hello())
    refuses(server, bytes((kind, 0, 0, 0)), Reason.UNEXPECTED_MESSAGE, Alert.UNEXPECTED_MESSAGE)
