"""OCSP staples: who is asked, what is sent, what is believed and what is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from tcpls.errors import Alert, CertificateError, HandshakeError, Reason
from tcpls.tls.config import Identity
from tcpls.tls.extensions import ExtensionType
from tcpls.tls.flow import Epoch
from tcpls.tls.handshake import ClientHandshake, ServerHandshake
from tcpls.tls.messages import Certificate, ClientHello
from tcpls.tls.ocsp import STATUS_REQUEST, check_form, read_status, read_status_request, write_status
from tcpls.wire import Reader
from tests import der_writer
from tests.engine import ENGINE, LIBRARY
from tests.unit.tls.pair import (
    TIME,
    Pair,
    authority,
    client_config,
    issue,
    leaf,
    make_client,
    make_server,
    refused,
    seeded,
    server_config,
    shake,
    trust,
)
from tests.unit.tls.test_client_states import sent

JUDGES = ENGINE.name == "openssl"
judging = pytest.mark.skipif(not JUDGES, reason="minicrypto does not validate OCSP responses, and says so")
BAD = (Reason.BAD_STATUS, Alert.BAD_CERTIFICATE_STATUS_RESPONSE)
GOOD, REVOKED, UNKNOWN = ocsp.OCSPCertStatus.GOOD, ocsp.OCSPCertStatus.REVOKED, ocsp.OCSPCertStatus.UNKNOWN
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def staple(
    about: Pair | None = None,
    issuer: Pair | None = None,
    signer: Pair | None = None,
    status: ocsp.OCSPCertStatus = GOOD,
    since: timedelta = -HOUR,
    until: timedelta | None = DAY,
    certificates: tuple[Pair, ...] = (),
    identified: type[hashes.HashAlgorithm] = hashes.SHA1,
) -> bytes:
    signer = signer or authority()
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=(about or leaf()).certificate,
        issuer=(issuer or authority()).certificate,
        algorithm=identified(),
        cert_status=status,
        this_update=TIME + since,
        next_update=None if until is None else TIME + until,
        revocation_time=TIME - DAY if status is REVOKED else None,
        revocation_reason=None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
    if certificates:
        builder = builder.certificates([pair.certificate for pair in certificates])
    edwards = type(signer.key).__name__.startswith(("Ed25519", "Ed448"))
    response = builder.sign(signer.key, None if edwards else hashes.SHA256())
    return response.public_bytes(Encoding.DER)


def stapled(response: bytes, pair: Pair | None = None, *chain: Pair) -> Identity:
    return replace((pair or leaf()).identity(*chain), ocsp_response=response)


def established(identity: Identity, **client: Any) -> Any:
    return shake(make_client(**{"ocsp": True, **client}), make_server(identities=(identity,)))[0]


@pytest.mark.clause("RFC 8446 4.4.2.1")
def test_a_staple_comes_to_who_asks() -> None:
    response = staple()
    for compressions in ((), client_config().compressions):
        client = established(stapled(response), compressions=compressions)
        assert client.ocsp_response == response
        assert client.ocsp_verified is JUDGES
    client = established(stapled(response), ocsp=False)
    assert (client.ocsp_response, client.ocsp_verified) == (b"", False)
    client = established(leaf().identity())
    assert (client.ocsp_response, client.ocsp_verified) == (b"", False)
    client = established(stapled(response), trust=None)
    assert (client.ocsp_response, client.ocsp_verified) == (response, False)


def test_the_extension_in_the_hello() -> None:
    for asks in (True, False):
        (message,) = sent(ClientHandshake(client_config(ocsp=asks), random=seeded(1), time=TIME))
        found = ClientHello.read(Reader(message[4:])).extensions.get(ExtensionType.STATUS_REQUEST)
        assert found == (STATUS_REQUEST if asks else None)


@judging
@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "rsa", "ed25519", "ed448"])
def test_keys_of_authorities(kind: str) -> None:
    root = issue(ca=True, names=(), subject="root", kind=kind)
    end = issue(root)
    response = staple(about=end, issuer=root, signer=root)
    assert LIBRARY.trust_from_pem(root.pem, "root").check_status(response, [end.der], TIME)


def delegate(issuer: Pair | None = None, *, may: bool = True, **changes: Any) -> Pair:
    usage = ((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), False),) if may else ()
    return issue(issuer or authority(), names=(), subject="responder", extensions=usage, **changes)


@judging
@pytest.mark.parametrize(
    "made",
    [
        lambda: staple(),
        lambda: staple(until=None),
        lambda: staple(identified=hashes.SHA256),
        lambda: staple(since=timedelta(minutes=4)),
        lambda: delegated(delegate()),
        lambda: delegated(delegate(kind="rsa")),
        lambda: signed_again(hashes.SHA384(), "1.2.840.113549.1.1.12"),
    ],
)
def test_what_is_believed(made: Callable[[], bytes]) -> None:
    assert trust().check_status(made(), [leaf().der], TIME)


def delegated(responder: Pair, *certificates: Pair) -> bytes:
    return staple(signer=responder, certificates=certificates or (responder,))


def signed_again(algorithm: hashes.HashAlgorithm, oid: str) -> bytes:
    """A response whose RSA signature is over another hash: the library makes no such ones."""
    responder = delegate(kind="rsa")
    response = delegated(responder)
    loaded = ocsp.load_der_ocsp_response(response)
    assert isinstance(responder.key, rsa.RSAPrivateKey)
    signature = responder.key.sign(loaded.tbs_response_bytes, padding.PKCS1v15(), algorithm)
    before, after = response.split(loaded.tbs_response_bytes)
    sha256 = der_writer.oid("1.2.840.113549.1.1.11")
    after = after.replace(sha256, der_writer.oid(oid), 1).replace(loaded.signature, signature)
    return before + loaded.tbs_response_bytes + after


def twin() -> Pair:
    """An authority of the same name with another key."""
    return issue(ca=True, names=(), subject="authority")


@judging
@pytest.mark.clause("RFC 6960 3.2", "RFC 6960 4.2.2.2", "RFC 8446 4.4.2.1")
@pytest.mark.parametrize(
    ("made", "reason", "alert"),
    [
        (lambda: staple(status=REVOKED), Reason.CERTIFICATE_REVOKED, Alert.CERTIFICATE_REVOKED),
        (lambda: staple(status=UNKNOWN), *BAD),
        (lambda: staple(since=-2 * DAY, until=-HOUR), *BAD),
        (lambda: staple(since=-8 * DAY, until=None), *BAD),
        (lambda: staple(since=HOUR), *BAD),
        (lambda: staple(about=leaf("rsa")), *BAD),
        (lambda: staple(issuer=twin()), *BAD),
        (lambda: staple(signer=twin()), *BAD),
        (lambda: staple(signer=leaf("rsa")), *BAD),
        (lambda: delegated(delegate(may=False)), *BAD),
        (lambda: delegated(delegate(twin())), *BAD),
        (lambda: delegated(delegate(age=timedelta(days=300))), *BAD),
        (lambda: delegated(delegate(), leaf("rsa")), *BAD),
        (lambda: signed_again(hashes.MD5(), "1.2.840.113549.1.1.4"), *BAD),
        (lambda: signed_again(hashes.SHA1(), "1.2.840.113549.1.1.5"), *BAD),
        (lambda: signed_again(hashes.SHA224(), "1.2.840.113549.1.1.14"), *BAD),
        (lambda: staple()[:-1] + bytes((staple()[-1] ^ 1,)), *BAD),
        (lambda: ocsp_failure(), *BAD),
        (lambda: der_writer.sequence(der_writer.tlv(0x0A, b"\0"), der_writer.tlv(0xA0, basic(b"junk"))), *BAD),
    ],
)
def test_what_is_not(made: Callable[[], bytes], reason: Reason, alert: Alert) -> None:
    with pytest.raises(CertificateError) as caught:
        established(stapled(made()))
    refused(caught.value, reason, alert)


def ocsp_failure() -> bytes:
    """tryLater."""
    return der_writer.sequence(der_writer.tlv(0x0A, b"\3"))


def basic(contents: bytes) -> bytes:
    return der_writer.sequence(der_writer.oid("1.3.6.1.5.5.7.48.1.1"), der_writer.tlv(0x04, contents))


@judging
def test_the_issuer_comes_with_the_chain() -> None:
    middle = issue(authority(), ca=True, names=(), subject="middle")
    end = issue(middle)
    response = staple(about=end, issuer=middle, signer=middle)
    assert established(stapled(response, end, middle)).ocsp_verified
    revoked = staple(about=end, issuer=middle, signer=middle, status=REVOKED)
    with pytest.raises(CertificateError) as caught:
        established(stapled(revoked, end, middle))
    refused(caught.value, Reason.CERTIFICATE_REVOKED, Alert.CERTIFICATE_REVOKED)


# The form, under both engines


@pytest.mark.clause("RFC 6066 8", "RFC 8446 4.4.2.1")
@pytest.mark.parametrize(
    ("contents", "reason", "alert"),
    [
        (b"", Reason.TRUNCATED, Alert.DECODE_ERROR),
        (b"\1", Reason.TRUNCATED, Alert.DECODE_ERROR),
        (b"\1\0\0\0", Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        (b"\1\0\0\2x", Reason.TRUNCATED, Alert.DECODE_ERROR),
        (write_status(staple()) + b"\0", Reason.TRAILING_BYTES, Alert.DECODE_ERROR),
        (b"\2" + write_status(staple())[1:], *BAD),
        (write_status(b"junk"), *BAD),
        (write_status(staple() + b"\0"), *BAD),
        (write_status(staple()[:-1]), *BAD),
        (write_status(ocsp_failure()), *BAD),
        (write_status(der_writer.sequence(der_writer.tlv(0x0A, b"\0"))), *BAD),
        (write_status(der_writer.sequence(der_writer.tlv(0x0A, b"\0"), der_writer.tlv(0xA0, basic(b"")))), *BAD),
    ],
)
def test_responses_of_no_good_form(contents: bytes, reason: Reason, alert: Alert) -> None:
    client = ClientHandshake(client_config(ocsp=True, trust=None), random=seeded(1), time=TIME)
    server = ServerHandshake(server_config(), random=seeded(2))
    server.receive(Epoch.INITIAL, sent(client)[0])
    hello, encrypted, *_ = sent(server)
    client.receive(Epoch.INITIAL, hello)
    client.receive(Epoch.HANDSHAKE, encrypted)
    message = Certificate(b"", (leaf().der,), {ExtensionType.STATUS_REQUEST: contents}).write()
    with pytest.raises(HandshakeError) as caught:
        client.receive(Epoch.HANDSHAKE, message)
    refused(caught.value, reason, alert)


def test_a_good_form() -> None:
    response = staple()
    check_form(response)
    assert read_status(write_status(response)) == response


@pytest.mark.clause("RFC 6066 8", "RFC 8446 4.4.2.1")
@pytest.mark.parametrize(
    ("contents", "asked"), [(STATUS_REQUEST, True), (b"", True), (b"\1\0\3\0\1x\0\1y", True), (b"\2\0\0\0\0", False)]
)
def test_requests(contents: bytes, asked: bool) -> None:
    assert read_status_request(contents) is asked


@pytest.mark.parametrize("contents", [b"\1", b"\1\0", b"\1\0\0\0", b"\1\0\0\0\0\0", b"\1\0\1\0\0"])
def test_requests_of_no_good_form(contents: bytes) -> None:
    (message,) = sent(ClientHandshake(client_config(), random=seeded(1), time=TIME))
    hello = ClientHello.read(Reader(message[4:]))
    hello = replace(hello, extensions={**hello.extensions, ExtensionType.STATUS_REQUEST: contents})
    with pytest.raises(HandshakeError) as caught:
        ServerHandshake(server_config(), random=seeded(2)).receive(Epoch.INITIAL, hello.write())
    assert caught.value.alert is Alert.DECODE_ERROR
