"""What is the engine minicrypto's own to refuse, where its library would not or says it in another way."""

from __future__ import annotations

import pytest
from Crypto.PublicKey import MLKEM

from tcpls.errors import Alert, CertificateError, ConfigurationError, HandshakeError, Reason
from tcpls.tls.algorithms import Group
from tcpls.tls.engines.minicrypto import MINICRYPTO, InvalidTag, MiniCryptoEngine
from tcpls.tls.key_exchange import HYBRIDS
from tcpls.tls.suites import TAG_SIZE, CipherSuite, TrafficKeys
from tests.der_writer import bits, certificate, integer, sequence
from tests.unit.tls.pair import refused, seeded

CURVES = {
    # The prime and b of y² = x³ - 3x + b (SEC 2 version 2, 2.4.2, 2.5.1 and 2.6.1).
    Group.SECP256R1: (
        2**256 - 2**224 + 2**192 + 2**96 - 1,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
        32,
    ),
    Group.SECP384R1: (
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
        48,
    ),
    Group.SECP521R1: (
        2**521 - 1,
        0x51953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF109E156193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00,
        66,
    ),
}


@pytest.mark.parametrize("suite", CipherSuite)
def test_nobody_sees_what_is_not_genuine(suite: CipherSuite) -> None:
    cipher = MINICRYPTO.aead(TrafficKeys(suite, bytes(suite.key_size), bytes(12)))
    sealed = bytearray(100 + TAG_SIZE)
    assert cipher.encrypt_into(bytes(12), b"x" * 100, b"data", sealed) == len(sealed)
    room = bytearray(100)
    assert cipher.decrypt_into(bytes(12), sealed, b"data", room) == 100
    assert room == b"x" * 100
    sealed[-1] ^= 1
    room = bytearray(b"?" * 100)
    with pytest.raises(InvalidTag):
        cipher.decrypt_into(bytes(12), sealed, b"data", room)
    assert room == bytes(100)
    for size in (0, TAG_SIZE - 1):
        with pytest.raises(InvalidTag):
            cipher.decrypt_into(bytes(12), bytes(size), b"data", bytearray(0))


def refuses(group: Group, peer: bytes) -> None:
    for act in (
        lambda: MINICRYPTO.private_share(group, seeded(1)).exchange(peer),
        lambda: MINICRYPTO.answer_share(group, peer, seeded(1)),
    ):
        with pytest.raises(HandshakeError) as caught:
            act()
        refused(caught.value, Reason.BAD_KEY_SHARE, Alert.ILLEGAL_PARAMETER)


@pytest.mark.parametrize("group", CURVES)
@pytest.mark.clause("RFC 8446 4.2.8.2")
def test_points(group: Group) -> None:
    prime, b, size = CURVES[group]
    good = MINICRYPTO.private_share(group, seeded(2)).public
    x, y = (int.from_bytes(good[at : at + size], "big") for at in (1, 1 + size))
    assert (y * y - x**3 + 3 * x - b) % prime == 0
    assert MINICRYPTO.private_share(group, seeded(1)).exchange(good) == MINICRYPTO.private_share(
        group, seeded(2)
    ).exchange(MINICRYPTO.private_share(group, seeded(1)).public)

    def point(x: int, y: int, form: int = 4) -> bytes:
        return bytes((form,)) + x.to_bytes(size, "big") + y.to_bytes(size, "big")

    wrong = [point(x, y ^ 1), point(y, x), point(0, 0), point(x, y, 6), point(x, y, 5), b"\0", good[:-1], good + b"\0"]
    wrong += [bytes((2 + y % 2,)) + x.to_bytes(size, "big"), b""]
    # x = 0 lies on the curve for a square b, and its coordinate can be written as the prime too.
    root = pow(b, (prime + 1) // 4, prime)
    assert root * root % prime == b
    assert MINICRYPTO.private_share(group, seeded(1)).exchange(point(0, root))
    if prime < 1 << 8 * size:
        wrong += [point(prime, root), point(0, root + prime)] if root + prime < 1 << 8 * size else [point(prime, root)]
    for peer in wrong:
        refuses(group, peer)


X25519_PRIME = 2**255 - 19
X448_PRIME = 2**448 - 2**224 - 1


@pytest.mark.parametrize(
    ("group", "size", "points"),
    [
        (
            Group.X25519,
            32,
            # The points of small order (RFC 7748 6.1 has the check; Bernstein's page on Curve25519 the list).
            [
                0,
                1,
                X25519_PRIME - 1,
                X25519_PRIME,
                X25519_PRIME + 1,
                325606250916557431795983626356110631294008115727848805560023387167927233504,
                39382357235489614581723060781553021112529911719440698176882885853963445705823,
            ],
        ),
        (Group.X448, 56, [0, 1, X448_PRIME - 1, X448_PRIME, X448_PRIME + 1]),
    ],
)
@pytest.mark.clause("RFC 8446 7.4.2")
def test_points_of_small_order(group: Group, size: int, points: list[int]) -> None:
    for point in points:
        refuses(group, point.to_bytes(size, "little"))
    for wrong in (b"", bytes(size - 1), bytes(size + 1)):
        refuses(group, wrong)


def test_encapsulation_keys_that_are_not_reduced() -> None:
    """FIPS 203 7.2: a coefficient of 3329 and more."""
    group = Group.X25519MLKEM768
    share = MINICRYPTO.private_share(group, seeded(1)).public
    MINICRYPTO.answer_share(group, share, seeded(2))
    refuses_answer(group, b"\x01\x0d" + share[2:])
    refuses_answer(group, b"\xff\xff\xff" + share[3:])


def refuses_answer(group: Group, peer: bytes) -> None:
    with pytest.raises(HandshakeError) as caught:
        MINICRYPTO.answer_share(group, peer, seeded(2))
    refused(caught.value, Reason.BAD_KEY_SHARE, Alert.ILLEGAL_PARAMETER)


def test_a_library_without_encapsulation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its methods have no public names: another version of it may lack them, and then there are no hybrids."""
    assert set(HYBRIDS) < MiniCryptoEngine().groups
    monkeypatch.delattr(type(MLKEM.construct(param_set=MLKEM.ML_KEM_768, seed=bytes(64))), "_encaps")
    assert not set(HYBRIDS) & MiniCryptoEngine().groups
    assert Group.X25519 in MiniCryptoEngine().groups


@pytest.mark.parametrize("scalar", [0, CURVES[Group.SECP256R1][0]])
def test_private_keys_that_are_none(scalar: int) -> None:
    with pytest.raises(ConfigurationError, match="secp256r1"):
        MINICRYPTO.static_share(Group.SECP256R1, scalar.to_bytes(32, "big"))
    with pytest.raises(ConfigurationError, match="x25519"):
        MINICRYPTO.static_share(Group.X25519, bytes(31))


RSA = bytes.fromhex("300d06092a864886f70d0101010500")
MODULUS = (1 << 2047) + 12345


def rsa_certificate(modulus: int, exponent: int, more: bytes = b"") -> bytes:
    return certificate(key=sequence(RSA, bits(sequence(integer(modulus), integer(exponent)) + more)))


@pytest.mark.parametrize("bits_of_modulus", [2048, 3072, 8192])
def test_rsa_keys(bits_of_modulus: int) -> None:
    for exponent in (3, 65537, (1 << 33) - 1):
        assert MINICRYPTO.public_key(rsa_certificate((1 << bits_of_modulus - 1) + 1, exponent)).schemes


@pytest.mark.parametrize(
    ("modulus", "exponent", "reason"),
    [
        ((1 << 2046) + 1, 65537, Reason.UNSUPPORTED_CERTIFICATE),
        ((1 << 8192) + 1, 65537, Reason.UNSUPPORTED_CERTIFICATE),
        (MODULUS + 1, 65537, Reason.BAD_CERTIFICATE),
        (-MODULUS, 65537, Reason.BAD_CERTIFICATE),
        (0, 65537, Reason.BAD_CERTIFICATE),
        (MODULUS, 1, Reason.BAD_CERTIFICATE),
        (MODULUS, 2, Reason.BAD_CERTIFICATE),
        (MODULUS, -3, Reason.BAD_CERTIFICATE),
        (MODULUS, (1 << 33) + 1, Reason.BAD_CERTIFICATE),
        (MODULUS, (1 << 2000) + 1, Reason.BAD_CERTIFICATE),
    ],
)
def test_weak_and_costly_rsa_keys(modulus: int, exponent: int, reason: Reason) -> None:
    with pytest.raises(CertificateError) as caught:
        MINICRYPTO.public_key(rsa_certificate(modulus, exponent))
    assert caught.value.reason is reason


def test_keys_that_are_not_of_their_form() -> None:
    p256 = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
    ed25519, ed448 = bytes.fromhex("300506032b6570"), bytes.fromhex("300506032b6571")
    for key in (
        sequence(RSA, bits(b"")),
        sequence(RSA, bits(sequence(integer(MODULUS)))),
        sequence(RSA, bits(sequence(integer(MODULUS), integer(3), integer(3)))),
        sequence(RSA, bits(sequence(integer(MODULUS), integer(3)) + b"\0")),
        sequence(p256, bits(b"")),
        sequence(p256, bits(b"\x04" + bytes(64))),
        sequence(p256, bits(b"\x02" + bytes(32))),
        sequence(ed25519, bits(bytes(31))),
        sequence(ed25519, bits(b"\xff" * 32)),
        sequence(ed448, bits(bytes(56))),
        sequence(ed448, bits(b"\xff" * 57)),
    ):
        with pytest.raises(CertificateError) as caught:
            MINICRYPTO.public_key(certificate(key=key))
        assert caught.value.reason is Reason.BAD_CERTIFICATE
