"""Which of several certificates an end shows."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tcpls.errors import Alert, HandshakeError, Reason
from tcpls.tls.algorithms import CertificateType, SignatureScheme
from tcpls.tls.config import ClientAuth, Identity
from tcpls.tls.extensions import ExtensionType, write_authorities, write_code_points
from tcpls.tls.flow import Epoch, MessageToSend
from tcpls.tls.handshake import ClientHandshake, ServerHandshake
from tcpls.tls.identity_choice import Wanted, choose_for_client, choose_for_server
from tcpls.tls.messages import CertificateRequest, ClientHello
from tcpls.tls.oid_filters import write_oid_filters
from tcpls.wire import Reader
from tests.der_writer import sequence
from tests.unit.tls.pair import (
    NAME,
    TIME,
    Pair,
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
from tests.unit.tls.test_client_states import sent

ECDSA, RSA = SignatureScheme.ECDSA_SECP256R1_SHA256, SignatureScheme.RSA_PSS_RSAE_SHA256
EVERY = tuple(SignatureScheme)
RSA_AUTHORITY = issue(ca=True, names=(), subject="an authority of RSA", kind="rsa")
BY_RSA = issue(RSA_AUTHORITY)
MIDDLE = issue(RSA_AUTHORITY, ca=True, names=(), subject="middle")
BELOW = issue(MIDDLE).identity(MIDDLE)


def name_of(pair: Pair) -> bytes:
    return pair.certificate.subject.public_bytes()


def wanted(*schemes: int, certificates: tuple[int, ...] | None = None, authorities: tuple[bytes, ...] = ()) -> Wanted:
    extensions: dict[int, bytes] = {ExtensionType.SIGNATURE_ALGORITHMS: write_code_points(schemes)}
    if certificates is not None:
        extensions[ExtensionType.SIGNATURE_ALGORITHMS_CERT] = write_code_points(certificates)
    if authorities:
        extensions[ExtensionType.CERTIFICATE_AUTHORITIES] = write_authorities(authorities)
    return Wanted.read(extensions, (CertificateType.X509,))


def of_server(identities: tuple[Identity, ...], asked: Wanted, name: str | None = NAME, **changes: Any) -> Identity:
    return choose_for_client(server_config(identities=identities, **changes), name, asked).identity


def of_client(identities: tuple[Identity, ...], asked: Wanted) -> Identity | None:
    chosen = choose_for_server(client_config(identities=identities), asked)
    return None if chosen is None else chosen.identity


ONE, OTHER = identity(), BY_RSA.identity()


@pytest.mark.clause("RFC 8446 4.2.3", "RFC 8446 4.4.2.2")
def test_a_server_prefers_a_chain_that_the_client_can_follow() -> None:
    assert of_server((ONE, OTHER), wanted(*EVERY)) is ONE
    # An RSA certificate is signed by rsa_pkcs1_sha256.
    assert of_server((ONE, OTHER), wanted(*EVERY, certificates=(0x0401,))) is OTHER
    assert of_server((OTHER, ONE), wanted(ECDSA)) is ONE
    # When there is none, it goes on.
    assert of_server((ONE, OTHER), wanted(ECDSA, certificates=(0x0807,))) is ONE
    assert of_server((BELOW, ONE), wanted(ECDSA, certificates=(ECDSA,))) is ONE


@pytest.mark.clause("RFC 8446 4.2.4")
def test_a_server_prefers_an_authority_of_the_client() -> None:
    every = (*EVERY, 0x0401)
    assert of_server((ONE, OTHER), wanted(*every, authorities=(name_of(RSA_AUTHORITY),))) is OTHER
    assert of_server((ONE, BELOW), wanted(*every, authorities=(name_of(RSA_AUTHORITY),))) is BELOW
    assert of_server((ONE, OTHER), wanted(*every, authorities=(b"another",))) is ONE
    # That it can follow the chain goes ahead of who has issued it.
    assert of_server((ONE, OTHER), wanted(ECDSA, authorities=(name_of(RSA_AUTHORITY),))) is ONE


def test_the_name_goes_ahead_of_all_that() -> None:
    named = issue(authority(), names=(x509.DNSName("other.example"),)).identity()
    assert of_server((OTHER, ONE, named), wanted(*EVERY, certificates=(0x0401,)), "other.example") is named
    with pytest.raises(HandshakeError) as caught:
        of_server((identity("rsa"), named), wanted(RSA), "other.example")
    refused(caught.value, Reason.NO_COMMON_SIGNATURE, Alert.HANDSHAKE_FAILURE)


@pytest.mark.clause("RFC 6066 3")
@pytest.mark.parametrize("name", ["unknown.example", "a.b.wild.example", "wild.example", ".wild.example"])
def test_names_that_nobody_has(name: str) -> None:
    wild = issue(authority(), names=(x509.DNSName("*.wild.example"),)).identity()
    assert of_server((ONE, wild), wanted(*EVERY), name) is ONE
    with pytest.raises(HandshakeError) as caught:
        of_server((ONE, wild), wanted(*EVERY), name, known_names_only=True)
    refused(caught.value, Reason.UNKNOWN_NAME, Alert.UNRECOGNIZED_NAME)
    for known in ("a.wild.example", "A.WILD.example"):
        assert of_server((ONE, wild), wanted(*EVERY), known, known_names_only=True) is wild
    assert of_server((ONE, wild), wanted(*EVERY), None, known_names_only=True) is ONE


def test_a_client_hears_that_its_name_is_unknown() -> None:
    client = make_client(server_name="unknown.example")
    with pytest.raises(HandshakeError) as caught:
        shake(client, make_server(known_names_only=True))
    refused(caught.value, Reason.UNKNOWN_NAME, Alert.UNRECOGNIZED_NAME)


@pytest.mark.clause("RFC 8446 4.4.2.3")
def test_a_client_shows_only_what_fulfils_everything() -> None:
    assert of_client((ONE, OTHER), wanted(ECDSA, certificates=(0x0401,))) is OTHER
    assert of_client((ONE,), wanted(ECDSA, certificates=(0x0401,))) is None
    assert of_client((ONE, OTHER), wanted(*EVERY, 0x0401, authorities=(name_of(RSA_AUTHORITY),))) is OTHER
    assert of_client((ONE,), wanted(*EVERY, authorities=(b"another",))) is None
    assert of_client((BELOW,), wanted(*EVERY, 0x0401, authorities=(name_of(MIDDLE),))) is BELOW
    assert of_client((), wanted(*EVERY)) is None


@pytest.mark.clause("RFC 8446 4.2.3")
def test_what_is_self_signed_may_be_signed_by_anything() -> None:
    alone = issue(kind="rsa").identity()
    assert of_client((alone,), wanted(RSA, certificates=(0x0807,))) is alone
    with_root = Identity((*ONE.chain, RSA_AUTHORITY.der), ONE.signer, ONE.names)
    assert of_client((with_root,), wanted(ECDSA, certificates=(ECDSA,))) is with_root


def test_what_cannot_be_read_here_keeps_a_chain_from_nothing() -> None:
    strange = Identity((b"strange",), identity().signer, (NAME,))
    assert of_client((strange,), wanted(ECDSA, certificates=(0x0807,))) is strange
    assert of_client((strange,), wanted(ECDSA, authorities=(b"another",))) is None


@pytest.mark.parametrize("auth", [ClientAuth.NONE, ClientAuth.REQUEST])
def test_both_ends_say_what_they_can_use(auth: ClientAuth) -> None:
    client = ClientHandshake(client_config(), random=seeded(1), time=TIME)
    (event,) = (event for event in client.events() if isinstance(event, MessageToSend))
    hello = ClientHello.read(Reader(event.data[4:]))
    asked = Wanted.read(hello.extensions, (CertificateType.X509,))
    assert set(asked.certificate_schemes) == {*asked.schemes, 0x0401, 0x0501, 0x0601}
    server = ServerHandshake(server_config(client_auth=auth), random=seeded(2), time=TIME)
    server.receive(Epoch.INITIAL, event.data)
    assert any(event.data[0] == 13 for event in server.events() if isinstance(event, MessageToSend)) is (
        auth is ClientAuth.REQUEST
    )


CLIENTS, MAIL = bytes.fromhex("06082b06010505070302"), bytes.fromhex("06082b06010505070304")
EKU = bytes.fromhex("551d25")


def filtered(*purposes: bytes) -> Wanted:
    filters = write_oid_filters({b"\x55\x1d\x0f": b"anything", EKU: sequence(*purposes)})
    schemes: dict[int, bytes] = {ExtensionType.SIGNATURE_ALGORITHMS: write_code_points(EVERY)}
    return Wanted.read({**schemes, ExtensionType.OID_FILTERS: filters}, (CertificateType.X509,))


@pytest.mark.clause("RFC 8446 4.2.5", "RFC 8446 4.4.2.3")
def test_filters_of_a_server() -> None:
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.EMAIL_PROTECTION]
    for_clients = issue(authority(), extensions=((x509.ExtendedKeyUsage(usages[:1]), False),)).identity()
    for_both = issue(authority(), extensions=((x509.ExtendedKeyUsage(usages), False),)).identity()
    for_all = issue(
        authority(), extensions=((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False),)
    ).identity()
    offered = (ONE, for_all, for_clients, for_both)
    assert of_client(offered, filtered(CLIENTS)) is for_clients
    assert of_client(offered, filtered(MAIL, CLIENTS)) is for_both
    assert of_client((ONE, for_all), filtered(CLIENTS)) is None
    assert of_client(offered, wanted(*EVERY)) is ONE


@pytest.mark.clause("RFC 8446 4.2.5")
@pytest.mark.parametrize(
    ("contents", "reason", "alert"),
    [
        (b"", Reason.TRUNCATED, Alert.DECODE_ERROR),
        (b"\0\1", Reason.TRUNCATED, Alert.DECODE_ERROR),
        (b"\0\3\0\0\0", Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        (b"\0\0\0", Reason.TRAILING_BYTES, Alert.DECODE_ERROR),
        (2 * (b"\6\3\x55\x1d\x0f", b""), Reason.DUPLICATE, Alert.ILLEGAL_PARAMETER),
        ((b"junk", b""), Reason.BAD_VALUE, Alert.ILLEGAL_PARAMETER),
        ((b"\6\3" + EKU, b"junk"), Reason.BAD_VALUE, Alert.ILLEGAL_PARAMETER),
        ((b"\6\3" + EKU, sequence()), Reason.BAD_VALUE, Alert.ILLEGAL_PARAMETER),
        ((b"\6\3" + EKU, sequence(bytes.fromhex("0604551d2500"))), Reason.BAD_VALUE, Alert.ILLEGAL_PARAMETER),
    ],
)
def test_filters_of_no_good_form(contents: bytes | tuple[bytes, ...], reason: Reason, alert: Alert) -> None:
    if isinstance(contents, tuple):
        pairs = zip(contents[::2], contents[1::2], strict=True)
        body = b"".join(bytes((len(oid),)) + oid + len(values).to_bytes(2, "big") + values for oid, values in pairs)
        contents = len(body).to_bytes(2, "big") + body
    client = ClientHandshake(client_config(), random=seeded(1), time=TIME)
    server = ServerHandshake(server_config(), random=seeded(2))
    server.receive(Epoch.INITIAL, sent(client)[0])
    hello, encrypted, *_ = sent(server)
    client.receive(Epoch.INITIAL, hello)
    client.receive(Epoch.HANDSHAKE, encrypted)
    request = CertificateRequest(b"", {13: b"\0\2\4\3", ExtensionType.OID_FILTERS: contents})
    with pytest.raises(HandshakeError) as caught:
        client.receive(Epoch.HANDSHAKE, request.write())
    refused(caught.value, reason, alert)
