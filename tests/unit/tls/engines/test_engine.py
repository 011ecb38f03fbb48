"""The engine: signatures, certificates' keys, and the key schedule's labels."""

from __future__ import annotations

import hmac

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from tcpls.errors import Alert, CertificateError, HandshakeError, Reason
from tcpls.tls.key_schedule import TrafficSecret, expand_label
from tcpls.tls.suites import CipherSuite
from tests.engine import ENGINE
from tests.unit.tls.pair import KINDS, identity, leaf, refused


@pytest.mark.parametrize("kind", KINDS)
def test_signatures(kind: str) -> None:
    signer, key = identity(kind).signer, ENGINE.public_key(leaf(kind).der)
    assert signer.schemes == key.schemes
    for scheme in signer.schemes:
        signature = signer.sign(scheme, b"data")
        key.verify(scheme, signature, b"data")
        for bad in (signature[:-1], b"", signature[:-1] + bytes((signature[-1] ^ 1,))):
            with pytest.raises(HandshakeError) as caught:
                key.verify(scheme, bad, b"data")
            refused(caught.value, Reason.BAD_SIGNATURE, Alert.DECRYPT_ERROR)


@pytest.mark.parametrize("der", [b"", b"\x30\x00", b"junk", leaf().der[:-1], leaf().der + b"\0"])
def test_what_is_no_certificate(der: bytes) -> None:
    with pytest.raises(CertificateError) as caught:
        ENGINE.public_key(der)
    refused(caught.value, Reason.BAD_CERTIFICATE, Alert.BAD_CERTIFICATE)


@given(st.sampled_from(["sha256", "sha384"]), st.binary(max_size=300), st.binary(max_size=300))
def test_hmac(name: str, key: bytes, data: bytes) -> None:
    assert ENGINE.hmacs[name](key, data) == hmac.digest(key, data, name)


@pytest.mark.parametrize("suite", CipherSuite)
@pytest.mark.parametrize("length", [1, 12, 32, 48, 49, 100, 500])
def test_expand_label(suite: CipherSuite, length: int) -> None:
    """Against another implementation of HKDF-Expand, over the HkdfLabel of RFC 8446 7.1."""
    algorithm = hashes.SHA384() if suite.hash_name == "sha384" else hashes.SHA256()
    secret, context = bytes(range(suite.hash_size)), bytes(20)
    info = length.to_bytes(2, "big") + b"\x0atls13 test" + b"\x14" + context
    expected = HKDFExpand(algorithm, length, info).derive(secret)
    assert expand_label(ENGINE, suite, secret, b"test", context, length) == expected


def test_generations_of_a_traffic_secret() -> None:
    first = TrafficSecret(ENGINE, CipherSuite.AES_256_GCM_SHA384, bytes(48))
    second = first.next()
    assert (first.generation, second.generation) == (0, 1)
    assert second.secret != first.secret
    assert second.keys(5).sequence == 5
    assert second.keys().key != first.keys().key
    assert "secret=" not in repr(first)


@pytest.mark.parametrize("kind", KINDS)
def test_raw_keys(kind: str) -> None:
    """The key of a SubjectPublicKeyInfo is that of the certificate it stands in."""
    info = leaf(kind).certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    signer, key = identity(kind).signer, ENGINE.raw_public_key(info)
    assert key.schemes == signer.schemes
    for scheme in key.schemes:
        key.verify(scheme, signer.sign(scheme, b"data"), b"data")
    for wrong in (b"", info[:-1], info + b"\0"):
        with pytest.raises(CertificateError) as caught:
            ENGINE.raw_public_key(wrong)
        refused(caught.value, Reason.BAD_CERTIFICATE, Alert.BAD_CERTIFICATE)


def test_raw_keys_of_other_kinds() -> None:
    agreement = X25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    with pytest.raises(CertificateError) as caught:
        ENGINE.raw_public_key(agreement.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    refused(caught.value, Reason.UNSUPPORTED_CERTIFICATE, Alert.UNSUPPORTED_CERTIFICATE)
