"""Client authentication in both roles: what is asked for and shown, what is refused, what a resumption inherits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tcpls.errors import Alert, AlertReceived, ApiMisuse, CertificateError, HandshakeError, ProtocolViolation, Reason
from tcpls.tls.algorithms import SignatureScheme
from tcpls.tls.config import ClientAuth, Identity
from tcpls.tls.connection import ClientConnection, Established, ServerConnection
from tcpls.tls.extensions import ExtensionType, read_authorities, read_code_points, write_authorities
from tcpls.tls.flow import Epoch, MessageToSend
from tcpls.tls.handshake import ClientHandshake, Handshake, ServerHandshake
from tcpls.tls.messages import (
    Certificate,
    CertificateRequest,
    CertificateVerify,
    EncryptedExtensions,
    Finished,
    HandshakeType,
    frame,
    signed_content,
)
from tcpls.tls.post_handshake import PostHandshake
from tcpls.tls.psk import PreSharedKey
from tcpls.tls.record import RecordOpener
from tcpls.tls.ticket_keys import TicketKeys
from tcpls.tls.tickets import Ticket
from tcpls.wire import Reader
from tests.engine import ENGINE
from tests.unit.tls.pair import (
    KINDS,
    NAME,
    TIME,
    Pair,
    authority,
    client_config,
    issue,
    leaf,
    make_client,
    refused,
    seeded,
    server_config,
    shake,
    trust,
    trust_in,
)
from tests.unit.tls.test_client_states import BAD_SIGNATURES

ILLEGAL = Alert.ILLEGAL_PARAMETER
UNEXPECTED = Alert.UNEXPECTED_MESSAGE
REQUIRE = {"client_auth": ClientAuth.REQUIRE, "client_trust": trust()}
REQUEST = {"client_auth": ClientAuth.REQUEST, "client_trust": trust()}


def client_pair(kind: str = "p256", issuer: Pair | None = None, **changes: Any) -> Pair:
    """A certificate that is for clients alone, and names nobody."""
    usage = ((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),)
    return issue(issuer or authority(), kind=kind, **{"names": (), "extensions": usage, **changes})


def run(client: dict[str, Any], server: dict[str, Any], *, later: float = 0.0) -> tuple[Established, Established]:
    time = TIME + timedelta(seconds=later)
    return shake(
        ClientConnection(client_config(**client), random=seeded(1), time=time),
        ServerConnection(server_config(**server), random=seeded(2), time=time),
    )


@pytest.mark.clause("RFC 8446 4.4.2", "RFC 8446 4.4.3")
@pytest.mark.parametrize("auth", [ClientAuth.REQUEST, ClientAuth.REQUIRE])
@pytest.mark.parametrize("kind", KINDS)
def test_a_client_shows_its_certificate(kind: str, auth: ClientAuth) -> None:
    pair = client_pair(kind)
    client, server = run({"identities": (pair.identity(),)}, {**REQUIRE, "client_auth": auth})
    assert server.peer_certificates == (pair.der,)
    assert server.verified
    assert client.verified
    assert client.export(b"label", b"", 32) == server.export(b"label", b"", 32)


def test_with_an_intermediate() -> None:
    middle = issue(authority(), ca=True, names=(), subject="middle")
    pair = client_pair(issuer=middle)
    _, server = run({"identities": (pair.identity(middle),)}, REQUIRE)
    assert server.peer_certificates == (pair.der, middle.der)
    with pytest.raises(CertificateError) as caught:
        run({"identities": (pair.identity(),)}, {**REQUIRE, "client_trust": trust_in(authority(), middle_alike())})
    refused(caught.value, Reason.UNTRUSTED_CERTIFICATE, Alert.UNKNOWN_CA)


def middle_alike() -> Pair:
    """An authority with the name of another one, and a key of its own: its clients are asked for."""
    return issue(ca=True, names=(), subject="middle")


def test_nobody_is_asked_by_default() -> None:
    _, server = run({"identities": (client_pair().identity(),)}, {})
    assert server.peer_certificates == ()
    assert not server.verified


def test_a_server_that_trusts_anybody_knows_nobody() -> None:
    pair = issue(names=())
    _, server = run({"identities": (pair.identity(),)}, {"client_auth": ClientAuth.REQUIRE})
    assert server.peer_certificates == (pair.der,)
    assert not server.verified


@pytest.mark.clause("RFC 8446 4.4.2.4")
def test_a_client_without_a_certificate() -> None:
    _, server = run({}, REQUEST)
    assert server.peer_certificates == ()
    assert not server.verified
    with pytest.raises(HandshakeError) as caught:
        run({}, REQUIRE)
    refused(caught.value, Reason.CERTIFICATE_REQUIRED, Alert.CERTIFICATE_REQUIRED)


OLD = timedelta(days=300)
SERVERS_ONLY = ((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),)
ANY_PURPOSE = ((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False),)


@pytest.mark.clause("RFC 8446 4.4.2.2")
@pytest.mark.parametrize("auth", [ClientAuth.REQUEST, ClientAuth.REQUIRE])
@pytest.mark.parametrize(
    ("pair", "reason", "alert"),
    [
        (lambda: client_pair(age=OLD), Reason.CERTIFICATE_EXPIRED, Alert.CERTIFICATE_EXPIRED),
        (lambda: client_pair(extensions=SERVERS_ONLY), Reason.UNTRUSTED_CERTIFICATE, Alert.UNKNOWN_CA),
        (lambda: client_pair(issuer=alike()), Reason.UNTRUSTED_CERTIFICATE, Alert.UNKNOWN_CA),
    ],
)
def test_certificates_that_are_refused(
    pair: Callable[[], Pair], reason: Reason, alert: Alert, auth: ClientAuth
) -> None:
    """Whether or not one is required: what is shown must be good."""
    with pytest.raises(CertificateError) as caught:
        run({"identities": (pair().identity(),)}, {**REQUIRE, "client_auth": auth})
    refused(caught.value, reason, alert)


def alike() -> Pair:
    return issue(ca=True, names=(), subject="authority")


@pytest.mark.parametrize("extensions", [ANY_PURPOSE, ()])
@pytest.mark.parametrize("names", [(), (x509.DNSName("client.example"),), (x509.RFC822Name("a@client.example"),)])
def test_certificates_that_are_accepted(names: tuple[x509.GeneralName, ...], extensions: Any) -> None:
    _, server = run({"identities": (client_pair(names=names, extensions=extensions).identity(),)}, REQUIRE)
    assert server.verified


def test_a_client_certificate_is_none_of_a_server() -> None:
    with pytest.raises(CertificateError) as caught:
        run({}, {"identities": (client_pair(names=(x509.DNSName(NAME),)).identity(),)})
    refused(caught.value, Reason.UNTRUSTED_CERTIFICATE, Alert.UNKNOWN_CA)


# What a client chooses


def requested(**server: Any) -> CertificateRequest:
    """What a server asks for."""
    _, flight = met({}, server)
    return CertificateRequest.read(Reader(flight[1][4:]))


@pytest.mark.clause("RFC 8446 4.3.2")
def test_what_a_server_asks_for() -> None:
    request = requested(**REQUIRE)
    assert request.context == b""
    assert SignatureScheme.ED25519 in read_code_points(request.extensions[ExtensionType.SIGNATURE_ALGORITHMS])
    assert 0x0401 in read_code_points(request.extensions[ExtensionType.SIGNATURE_ALGORITHMS_CERT])
    names = read_authorities(request.extensions[ExtensionType.CERTIFICATE_AUTHORITIES])
    assert names == [authority().certificate.subject.public_bytes()]
    assert ExtensionType.CERTIFICATE_AUTHORITIES not in requested(client_auth=ClientAuth.REQUEST).extensions


def test_a_client_chooses_by_authority() -> None:
    other = issue(ca=True, names=(), subject="other")
    pairs = [client_pair(issuer=other), client_pair("rsa"), client_pair()]
    identities = tuple(pair.identity() for pair in pairs)
    for authorities, shown in ((authority(), 1), (other, 0)):
        _, server = run({"identities": identities}, {**REQUIRE, "client_trust": trust_in(authorities)})
        assert server.peer_certificates == (pairs[shown].der,)
    stranger = issue(ca=True, names=(), subject="stranger")
    _, server = run({"identities": identities}, {**REQUEST, "client_trust": trust_in(stranger)})
    assert server.peer_certificates == ()


def test_a_client_chooses_by_scheme() -> None:
    pairs = [client_pair("rsa"), client_pair("ed25519"), client_pair()]
    identities = tuple(pair.identity() for pair in pairs)
    schemes = (SignatureScheme.ECDSA_SECP256R1_SHA256,)
    _, server = run({"identities": identities}, {**REQUIRE, "schemes": schemes})
    assert server.peer_certificates == (pairs[2].der,)
    _, server = run({"identities": identities[:2]}, {**REQUEST, "schemes": schemes})
    assert server.peer_certificates == ()


# Hostile clients


def sent(handshake: Handshake) -> list[bytes]:
    return [event.data for event in handshake.events() if isinstance(event, MessageToSend)]


def met(client: dict[str, Any], server: dict[str, Any]) -> tuple[ServerHandshake, list[bytes]]:
    """A server that has the ClientHello, and its flight behind ServerHello."""
    peer = ClientHandshake(client_config(**client), random=seeded(1), time=TIME)
    handshake = ServerHandshake(server_config(**server), random=seeded(2), time=TIME)
    handshake.receive(Epoch.INITIAL, sent(peer)[0])
    return handshake, sent(handshake)[1:]


def client_flight(identity: Identity | None, **server: Any) -> tuple[ServerHandshake, list[bytes]]:
    """A server, and what an honest client of it says in the end: Certificate, CertificateVerify, Finished."""
    identities = () if identity is None else (identity,)
    client = ClientHandshake(client_config(identities=identities), random=seeded(1), time=TIME)
    handshake = ServerHandshake(server_config(**{**REQUIRE, **server}), random=seeded(2), time=TIME)
    handshake.receive(Epoch.INITIAL, sent(client)[0])
    hello, *rest = sent(handshake)
    client.receive(Epoch.INITIAL, hello)
    client.receive(Epoch.HANDSHAKE, b"".join(rest))
    return handshake, sent(client)


def refuses(handshake: Handshake, message: bytes, reason: Reason, alert: Alert) -> None:
    with pytest.raises(HandshakeError) as caught:
        handshake.receive(handshake.read_epoch, message)
    refused(caught.value, reason, alert)


GOOD = Certificate(b"", (leaf().der,))


@pytest.mark.clause("RFC 8446 4.4.2")
@pytest.mark.parametrize(
    ("message", "reason", "alert"),
    [
        (Certificate(b"x", (leaf().der,)).write(), Reason.BAD_VALUE, ILLEGAL),
        (Certificate(b"x", ()).write(), Reason.BAD_VALUE, ILLEGAL),
        (Certificate(b"", (b"junk",)).write(), Reason.BAD_CERTIFICATE, Alert.BAD_CERTIFICATE),
        (Certificate(b"", (leaf().der, b"junk")).write(), Reason.BAD_CERTIFICATE, Alert.BAD_CERTIFICATE),
        (frame(HandshakeType.CERTIFICATE, b"\0\0\0\5\0\0\0\0\0"), Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        (frame(HandshakeType.CERTIFICATE, b"\0\0\0\0\0"), Reason.TRAILING_BYTES, Alert.DECODE_ERROR),
        (frame(HandshakeType.CERTIFICATE, b"\0\0\0\1"), Reason.TRUNCATED, Alert.DECODE_ERROR),
        (replace(GOOD, extensions={5: b""}).write(), Reason.UNSUPPORTED_EXTENSION, Alert.UNSUPPORTED_EXTENSION),
        (replace(GOOD, extensions={51: b""}).write(), Reason.MISPLACED_EXTENSION, ILLEGAL),
        (CertificateVerify(0x0403, b"").write(), Reason.UNEXPECTED_MESSAGE, UNEXPECTED),
        (Finished(bytes(32)).write(), Reason.UNEXPECTED_MESSAGE, UNEXPECTED),
        (CertificateRequest(b"", {13: b"\0\2\4\3"}).write(), Reason.UNEXPECTED_MESSAGE, UNEXPECTED),
    ],
)
def test_certificates_of_a_client(message: bytes, reason: Reason, alert: Alert) -> None:
    refuses(met({}, REQUIRE)[0], message, reason, alert)


@pytest.mark.clause("RFC 8446 4.4.2")
def test_a_certificate_that_nobody_has_asked_for() -> None:
    refuses(met({}, {})[0], GOOD.write(), Reason.UNEXPECTED_MESSAGE, UNEXPECTED)


@pytest.mark.clause("RFC 8446 4.4.3")
@pytest.mark.parametrize(("scheme", "signature", "reason", "alert"), BAD_SIGNATURES)
def test_certificate_verify_of_a_client(scheme: int, signature: bytes, reason: Reason, alert: Alert) -> None:
    server, flight = client_flight(client_pair().identity())
    server.receive(Epoch.HANDSHAKE, flight[0])
    refuses(server, CertificateVerify(scheme, signature).write(), reason, alert)


@pytest.mark.clause("RFC 8446 4.4.3")
def test_scheme_that_was_not_offered_to_a_client() -> None:
    server, flight = client_flight(client_pair().identity(), schemes=(SignatureScheme.ED25519,), client_trust=None)
    assert Certificate.read(Reader(flight[0][4:]), ()).chain == ()
    server.receive(Epoch.HANDSHAKE, GOOD.write())
    refuses(server, CertificateVerify(0x0403, b"x").write(), Reason.ILLEGAL_CHOICE, ILLEGAL)


@pytest.mark.clause("RFC 8446 4.4.3")
@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_over_the_right_transcript_as_if_by_a_server(kind: str) -> None:
    """The two ends sign under different contexts, so that one's signature is of no use to the other."""
    identity = client_pair(kind).identity()
    scheme = identity.signer.schemes[0]
    for by_client in (True, False):
        server, flight = client_flight(identity)
        server.receive(Epoch.HANDSHAKE, flight[0])
        content = signed_content(server._flow.transcript.digest(), by_client=by_client)
        message = CertificateVerify(scheme, identity.signer.sign(scheme, content)).write()
        if by_client:
            server.receive(Epoch.HANDSHAKE, message)
        else:
            refuses(server, message, Reason.BAD_SIGNATURE, Alert.DECRYPT_ERROR)


@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_messages_that_are_left_out(left_out: int) -> None:
    server, flight = client_flight(client_pair().identity())
    del flight[left_out]
    if left_out == 2:
        flight.append(Finished(bytes(32)).write())
    reason = Reason.BAD_FINISHED if left_out == 2 else Reason.UNEXPECTED_MESSAGE
    refuses(server, b"".join(flight), reason, Alert.DECRYPT_ERROR if left_out == 2 else UNEXPECTED)


def test_certificate_verify_behind_an_empty_certificate() -> None:
    server, flight = client_flight(None, client_auth=ClientAuth.REQUEST)
    server.receive(Epoch.HANDSHAKE, flight[0])
    refuses(server, CertificateVerify(0x0403, b"x").write(), Reason.UNEXPECTED_MESSAGE, UNEXPECTED)


def test_two_certificates() -> None:
    server, flight = client_flight(None, client_auth=ClientAuth.REQUEST)
    server.receive(Epoch.HANDSHAKE, flight[0])
    refuses(server, flight[0], Reason.UNEXPECTED_MESSAGE, UNEXPECTED)


def test_certificate_of_a_weak_key() -> None:
    weak = issue(authority(), kind="rsa1024", names=())
    refuses(
        met({}, REQUIRE)[0],
        Certificate(b"", (weak.der,)).write(),
        Reason.UNSUPPORTED_CERTIFICATE,
        Alert.UNSUPPORTED_CERTIFICATE,
    )


# Hostile servers


@pytest.mark.clause("RFC 8446 4.3.2", "RFC 8446 4.2.4")
@pytest.mark.parametrize(
    ("extensions", "reason", "alert"),
    [
        ({47: b"\0\0"}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        ({47: b"\0\2\0\0"}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        ({47: b"\0\4\0\0\0\0"}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        ({47: b"\0\3\0\2x"}, Reason.TRUNCATED, Alert.DECODE_ERROR),
        ({47: write_authorities((b"name",)) + b"\0"}, Reason.TRAILING_BYTES, Alert.DECODE_ERROR),
        ({50: b"\0\0"}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        ({13: b"\0\3\4\3\4"}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        ({13: b""}, Reason.TRUNCATED, Alert.DECODE_ERROR),
    ],
)
def test_requests(extensions: dict[int, bytes], reason: Reason, alert: Alert) -> None:
    client = ClientHandshake(client_config(), random=seeded(1), time=TIME)
    server = ServerHandshake(server_config(), random=seeded(2))
    server.receive(Epoch.INITIAL, sent(client)[0])
    hello, encrypted, *_ = sent(server)
    client.receive(Epoch.INITIAL, hello)
    client.receive(Epoch.HANDSHAKE, encrypted)
    refuses(client, CertificateRequest(b"", {13: b"\0\2\4\3", **extensions}).write(), reason, alert)


@pytest.mark.clause("RFC 8446 4.3.2")
def test_no_request_with_a_pre_shared_key() -> None:
    psk = PreSharedKey(b"identity", bytes(range(32)))
    client = ClientHandshake(client_config(psks=(psk,)), random=seeded(1), time=TIME)
    server = ServerHandshake(server_config(psks=(psk,), **REQUIRE), random=seeded(2), time=TIME)
    server.receive(Epoch.INITIAL, sent(client)[0])
    hello, *flight = sent(server)
    assert [message[0] for message in flight] == [HandshakeType.ENCRYPTED_EXTENSIONS, HandshakeType.FINISHED]
    client.receive(Epoch.INITIAL, hello)
    client.receive(Epoch.HANDSHAKE, EncryptedExtensions({}).write())
    refuses(client, CertificateRequest(b"", {13: b"\0\2\4\3"}).write(), Reason.UNEXPECTED_MESSAGE, UNEXPECTED)


@pytest.mark.clause("RFC 8446 4.6.2")
def test_nothing_about_certificates_after_the_handshake() -> None:
    """The client has not offered post_handshake_auth."""
    (hello,) = sent(ClientHandshake(client_config(), random=seeded(1), time=TIME))
    assert b"\0\x31\0\0" not in hello
    for is_client in (True, False):
        for message in (CertificateRequest(b"x", {13: b"\0\2\4\3"}).write(), GOOD.write()):
            with pytest.raises(ProtocolViolation) as caught:
                PostHandshake(is_client=is_client).receive(memoryview(message))
            refused(caught.value, Reason.UNEXPECTED_MESSAGE, UNEXPECTED)


def test_a_client_hears_that_one_is_required() -> None:
    """In a record of the application's epoch: the server has sent its Finished."""
    client = make_client()
    server = ServerConnection(server_config(**REQUIRE), random=seeded(2), time=TIME)
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    with pytest.raises(HandshakeError):
        server.receive_data(client.data_to_send())
    established = client.established()
    opener = RecordOpener(ENGINE.aead, established.read_secret.keys(), ENGINE.invalid_tag)
    opener.feed(server.data_to_send())
    record = opener.next_record()
    assert record is not None
    assert AlertReceived(record[1][1]).alert == Alert.CERTIFICATE_REQUIRED


def test_the_time_is_needed() -> None:
    with pytest.raises(ApiMisuse):
        ServerConnection(server_config(**REQUIRE), random=seeded(2))


# Tickets


def ticket_of(client: Established) -> Ticket | None:
    opener = RecordOpener(ENGINE.aead, client.read_secret.keys(), ENGINE.invalid_tag)
    opener.feed(client.unread)
    record = opener.next_record()
    if record is None:
        return None
    (message,) = PostHandshake(is_client=True).receive(record[1])
    ticket = client.ticket(message, TIME.timestamp())  # type: ignore[arg-type]
    assert ticket is not None
    return ticket


def tickets_of(identity: Identity | None, **server: Any) -> tuple[Ticket, dict[str, Any]]:
    """A ticket of a session in which a client showed this, and the server's configuration with its keys."""
    changes = {"ticket_keys": TicketKeys(ENGINE, seeded(9)), **REQUIRE, **server}
    client, _ = run({"identities": () if identity is None else (identity,), "tickets": 1}, changes)
    ticket = ticket_of(client)
    assert ticket is not None
    return ticket, changes


def test_a_resumption_is_the_same_client() -> None:
    pair = client_pair()
    ticket, changes = tickets_of(pair.identity())
    client, server = run({"ticket": ticket}, changes, later=10)
    assert client.resumed
    assert server.resumed
    assert server.verified
    assert server.peer_certificates == (pair.der,)


def test_a_resumption_does_not_get_around_a_requirement() -> None:
    ticket, changes = tickets_of(None, client_auth=ClientAuth.REQUEST)
    assert run({"ticket": ticket}, changes)[1].resumed
    pair = client_pair()
    client, server = run({"ticket": ticket, "identities": (pair.identity(),)}, {**changes, **REQUIRE})
    assert not client.resumed
    assert not server.resumed
    assert server.peer_certificates == (pair.der,)
    with pytest.raises(HandshakeError) as caught:
        run({"ticket": ticket}, {**changes, **REQUIRE})
    refused(caught.value, Reason.CERTIFICATE_REQUIRED, Alert.CERTIFICATE_REQUIRED)


@pytest.mark.parametrize("trusts", [True, False])
def test_certificates_in_tickets_are_judged_again(trusts: bool) -> None:
    pair = client_pair(life=timedelta(days=1, seconds=100))
    ticket, changes = tickets_of(pair.identity())
    assert run({"ticket": ticket}, changes, later=50)[1].resumed
    if not trusts:
        changes["client_trust"] = trust_in(alike())
    _, server = run({"ticket": ticket}, {**changes, "client_auth": ClientAuth.REQUEST}, later=200 if trusts else 50)
    assert not server.resumed
    assert not server.verified


def test_a_client_that_was_never_verified_does_not_become_so() -> None:
    pair = issue(names=())
    ticket, changes = tickets_of(pair.identity(), client_trust=None)
    _, server = run({"ticket": ticket}, changes)
    assert server.resumed
    assert server.peer_certificates == (pair.der,)
    assert not server.verified
    assert not run({"ticket": ticket}, {**changes, **REQUEST})[1].resumed


def test_no_tickets_with_more_certificates_than_a_ticket_holds() -> None:
    filler = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), bytes(16_000))
    pair = client_pair(extensions=((filler, False),))
    changes = {"ticket_keys": TicketKeys(ENGINE, seeded(9)), **REQUIRE}
    client, server = run({"identities": (pair.identity(),), "tickets": 1}, changes)
    assert server.verified
    assert ticket_of(client) is None


def test_an_external_key_is_an_authentication() -> None:
    psk = PreSharedKey(b"identity", bytes(range(32)))
    _, server = run({"psks": (psk,)}, {"psks": (psk,), **REQUIRE})
    assert server.verified
    assert server.psk_identity == b"identity"
