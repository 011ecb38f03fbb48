"""The schemes of each kind of key, and keys that are for RSA-PSS alone, which no Python library certifies."""

from __future__ import annotations

import base64
from functools import cache

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tcpls.errors import Alert, CertificateError, ConfigurationError, HandshakeError, Reason
from tcpls.tls.algorithms import DEFAULT_SCHEMES, SignatureScheme
from tcpls.tls.config import Identity
from tcpls.tls.flow import Epoch
from tcpls.tls.handshake import ClientHandshake, ServerHandshake
from tcpls.tls.messages import Certificate as CertificateMessage
from tcpls.tls.messages import CertificateVerify, signed_content
from tcpls.tls.x509.algorithms import KeyKind
from tcpls.tls.x509.certificate import Certificate
from tests import der_writer
from tests.engine import ENGINE, LIBRARY
from tests.unit.tls.pair import (
    KINDS,
    NAME,
    TIME,
    authority,
    client_config,
    identity,
    leaf,
    make_client,
    make_server,
    refused,
    seeded,
    server_config,
    shake,
)
from tests.unit.tls.test_client_states import sent

SCHEMES = {
    "p256": "ecdsa_secp256r1_sha256",
    "p384": "ecdsa_secp384r1_sha384",
    "p521": "ecdsa_secp521r1_sha512",
    "rsa": "rsa_pss_rsae_sha256",
    "ed25519": "ed25519",
    "ed448": "ed448",
}
PSS_KINDS = {
    KeyKind.RSA_PSS: (0x0809, 0x080A, 0x080B),
    KeyKind.RSA_PSS_SHA256: (0x0809,),
    KeyKind.RSA_PSS_SHA384: (0x080A,),
    KeyKind.RSA_PSS_SHA512: (0x080B,),
}


@pytest.mark.clause("RFC 8446 4.2.3")
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_key(kind: str) -> None:
    client, _ = shake(make_client(), make_server(identities=(identity(kind),)))
    assert client.signature_scheme == SCHEMES[kind]


@pytest.mark.clause("RFC 8446 4.2.3")
@pytest.mark.parametrize("scheme", [0x0804, 0x0805, 0x0806])
def test_each_hash_of_rsa(scheme: int) -> None:
    client = make_client(schemes=(SignatureScheme(scheme),))
    assert shake(client, make_server(identities=(identity("rsa"),)))[0].signature_scheme.endswith(
        {0x0804: "256", 0x0805: "384", 0x0806: "512"}[scheme]
    )


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def pss_certificate(algorithm: bytes, bits: int = 2048) -> bytes:
    """A certificate of the authority for a key whose AlgorithmIdentifier is this."""
    numbers = rsa_key(bits).public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    names = der_writer.sequence(der_writer.tlv(0x82, NAME.encode()))
    key = der_writer.sequence(algorithm, der_writer.bits(numbers))
    issuer = authority().certificate.subject.public_bytes()
    extensions = der_writer.extension("2.5.29.17", names)

    def made(signature: bytes) -> bytes:
        return der_writer.certificate(
            key=key, issuer=issuer, extensions=extensions, signature=der_writer.bits(signature)
        )

    signer = authority().key
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    return made(signer.sign(Certificate.parse(made(b"")).signed, ec.ECDSA(hashes.SHA256())))


def pss_identity(algorithm: bytes, bits: int = 2048) -> Identity:
    pem = b"-----BEGIN CERTIFICATE-----\n%s-----END CERTIFICATE-----\n"
    chain = pem % base64.encodebytes(pss_certificate(algorithm, bits))
    key = rsa_key(bits).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return LIBRARY.identity_from_pem(chain, key)


@pytest.mark.clause("RFC 8446 4.2.3")
@pytest.mark.parametrize("kind", PSS_KINDS)
def test_keys_for_pss_alone(kind: KeyKind) -> None:
    made = pss_identity(kind.value)
    assert made.signer.schemes == ENGINE.public_key(made.chain[0]).schemes == PSS_KINDS[kind]
    for scheme in PSS_KINDS[kind]:
        client = make_client(schemes=(SignatureScheme(scheme),))
        assert shake(client, make_server(identities=(made,)))[0].signature_scheme == SignatureScheme(scheme).label
    others = tuple(scheme for scheme in DEFAULT_SCHEMES if scheme not in PSS_KINDS[kind])
    with pytest.raises(HandshakeError) as caught:
        shake(make_client(schemes=others), make_server(identities=(made,)))
    refused(caught.value, Reason.NO_COMMON_SIGNATURE, Alert.HANDSHAKE_FAILURE)


def flight(certificate: bytes) -> ClientHandshake:
    """A client that awaits the CertificateVerify for this certificate."""
    client = ClientHandshake(client_config(), random=seeded(1), time=TIME)
    server = ServerHandshake(server_config(), random=seeded(2))
    server.receive(Epoch.INITIAL, sent(client)[0])
    hello, encrypted, *_ = sent(server)
    client.receive(Epoch.INITIAL, hello)
    client.receive(Epoch.HANDSHAKE, encrypted)
    client.receive(Epoch.HANDSHAKE, CertificateMessage(b"", (certificate,)).write())
    return client


@pytest.mark.clause("RFC 8446 4.2.3", "RFC 8446 4.4.3")
@pytest.mark.parametrize(
    ("certificate", "scheme"),
    [
        (lambda: pss_certificate(KeyKind.RSA_PSS.value), 0x0804),
        (lambda: pss_certificate(KeyKind.RSA_PSS_SHA256.value), 0x080A),
        (lambda: leaf("rsa").der, 0x0809),
        (lambda: leaf("p256").der, 0x0503),
        (lambda: leaf("p521").der, 0x0403),
        (lambda: leaf("ed448").der, 0x0807),
    ],
)
def test_schemes_that_are_another_keys(certificate: object, scheme: int) -> None:
    assert callable(certificate)
    client = flight(certificate())
    with pytest.raises(HandshakeError) as caught:
        client.receive(Epoch.HANDSHAKE, CertificateVerify(scheme, b"x").write())
    refused(caught.value, Reason.ILLEGAL_CHOICE, Alert.ILLEGAL_PARAMETER)


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_that_was_changed(kind: str) -> None:
    client = flight(leaf(kind).der)
    scheme = identity(kind).signer.schemes[0]
    content = signed_content(client._flow.transcript.digest())
    signature = bytearray(identity(kind).signer.sign(scheme, content))
    signature[-1] ^= 1
    with pytest.raises(HandshakeError) as caught:
        client.receive(Epoch.HANDSHAKE, CertificateVerify(scheme, bytes(signature)).write())
    refused(caught.value, Reason.BAD_SIGNATURE, Alert.DECRYPT_ERROR)


SHA1_PARAMETERS = bytes.fromhex("300d06092a864886f70d01010a3000")
LONG_SALT = KeyKind.RSA_PSS_SHA256.value[:-1] + b"\x30"


@pytest.mark.parametrize("algorithm", [SHA1_PARAMETERS, LONG_SALT])
def test_parameters_that_tls_has_no_scheme_for(algorithm: bytes) -> None:
    with pytest.raises(CertificateError) as caught:
        ENGINE.public_key(pss_certificate(algorithm))
    refused(caught.value, Reason.UNSUPPORTED_CERTIFICATE, Alert.UNSUPPORTED_CERTIFICATE)
    with pytest.raises(ConfigurationError, match="kind that is not supported"):
        pss_identity(algorithm)


@pytest.mark.parametrize("algorithm", [KeyKind.RSA.value, KeyKind.RSA_PSS.value])
def test_short_keys(algorithm: bytes) -> None:
    with pytest.raises(CertificateError) as caught:
        ENGINE.public_key(pss_certificate(algorithm, 1024))
    refused(caught.value, Reason.UNSUPPORTED_CERTIFICATE, Alert.UNSUPPORTED_CERTIFICATE)
    with pytest.raises(ConfigurationError, match="curve or size"):
        pss_identity(algorithm, 1024)
