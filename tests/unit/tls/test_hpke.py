"""HPKE: what is not genuine, keys that are none, and suites that RFC 9180 has no vectors for."""

from __future__ import annotations

import itertools

import pytest

from tcpls.errors import Alert, ApiMisuse, ConfigurationError, HandshakeError, Reason
from tcpls.tls.algorithms import Group
from tcpls.tls.hpke import AeadId, Context, HpkeSuite, Kdf, Kem, setup_receiver, setup_sender
from tests.engine import ENGINE
from tests.unit.tls.pair import refused, seeded

SUITES = [HpkeSuite(*each) for each in itertools.product(Kem, Kdf, AeadId)]
SUITE = HpkeSuite(Kem.X25519_HKDF_SHA256, Kdf.HKDF_SHA256, AeadId.AES_128_GCM)


def pair(suite: HpkeSuite = SUITE, *, sent: bytes = b"info", received: bytes = b"info") -> tuple[Context, Context]:
    private = ENGINE.private_share(suite.kem.group, seeded(1))
    encapsulated, sender = setup_sender(ENGINE, suite, private.public, sent, seeded(2))
    assert len(encapsulated) == len(private.public) == suite.kem.public_size
    return sender, setup_receiver(ENGINE, suite, encapsulated, private, received)


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_every_suite(suite: HpkeSuite) -> None:
    sender, receiver = pair(suite)
    for number in range(3):
        sealed = sender.seal(b"aad", b"plaintext %d" % number)
        assert len(sealed) == 11 + sender.overhead
        assert receiver.open(b"aad", sealed) == b"plaintext %d" % number
    assert sender.export(b"context", 100) == receiver.export(b"context", 100)


def test_what_is_not_genuine_takes_no_number() -> None:
    sender, receiver = pair()
    sealed = sender.seal(b"aad", b"plaintext")
    changed = bytes((sealed[0] ^ 1,)) + sealed[1:]
    for aad, ciphertext in (
        (b"other", sealed),
        (b"aad", changed),
        (b"aad", sealed[:-1]),
        (b"aad", b"short"),
        (b"", b""),
    ):
        assert receiver.open(aad, ciphertext) is None
    assert receiver.open(b"aad", sealed) == b"plaintext"
    assert receiver.open(b"aad", sealed) is None


def test_info_binds_the_context() -> None:
    sender, receiver = pair(received=b"other")
    assert receiver.open(b"", sender.seal(b"", b"x")) is None


@pytest.mark.parametrize(
    ("kem", "point"),
    [
        (Kem.X25519_HKDF_SHA256, bytes(32)),
        (Kem.X25519_HKDF_SHA256, b"\1" * 31),
        (Kem.P256_HKDF_SHA256, b"\4" + bytes(64)),
        (Kem.P256_HKDF_SHA256, b"\2" + bytes(32)),
        (Kem.P256_HKDF_SHA256, b""),
    ],
)
def test_no_point(kem: Kem, point: bytes) -> None:
    suite = HpkeSuite(kem, Kdf.HKDF_SHA256, AeadId.AES_128_GCM)
    private = ENGINE.private_share(kem.group, seeded(1))
    with pytest.raises(HandshakeError) as sending:
        setup_sender(ENGINE, suite, point, b"", seeded(2))
    with pytest.raises(HandshakeError) as receiving:
        setup_receiver(ENGINE, suite, point, private, b"")
    for raised in (sending, receiving):
        refused(raised.value, Reason.BAD_KEY_SHARE, Alert.ILLEGAL_PARAMETER)


@pytest.mark.parametrize(
    ("group", "private"),
    [
        (Group.X25519, bytes(31)),
        (Group.SECP256R1, bytes(32)),
        (Group.SECP256R1, b"\xff" * 32),
        (Group.SECP256R1, b"\1" * 31),
        (Group.SECP384R1, b"\1" * 48),
    ],
)
def test_no_private_key(group: Group, private: bytes) -> None:
    with pytest.raises(ConfigurationError, match="no private key"):
        ENGINE.static_share(group, private)


def test_an_export_is_bounded() -> None:
    sender, _ = pair()
    assert len(sender.export(b"", 255 * 32)) == 255 * 32
    with pytest.raises(ApiMisuse):
        sender.export(b"", 255 * 32 + 1)


def test_no_secret_in_the_repr() -> None:
    sender, _ = pair()
    assert sender._keys.key.hex() not in repr(sender)
    assert repr(sender._exporter) not in repr(sender)
