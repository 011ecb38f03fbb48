"""The crypto engine over the `cryptography` package, which brings its own OpenSSL."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property, lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mlkem, padding, rsa, x448, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509.oid import PublicKeyAlgorithmOID

from tcpls.errors import CertificateError, ConfigurationError, HandshakeError, Reason
from tcpls.tls.algorithms import Group, SignatureScheme
from tcpls.tls.engine import HashState, Hmac, PrivateShare, PublicKey
from tcpls.tls.engines.mac import hmac_over
from tcpls.tls.key_exchange import HYBRIDS, MLKEM_SEED, HybridShare, Kem, answer_hybrid
from tcpls.tls.suites import Aead, CipherSuite, Random, TrafficKeys
from tcpls.tls.x509.algorithms import SCHEMES, KeyKind
from tcpls.tls.x509.certificate import Certificate, public_key_of
from tcpls.tls.x509.der import DerError

_HASHES = {"sha256": hashlib.sha256, "sha384": hashlib.sha384}

_CURVES: dict[Group, tuple[ec.EllipticCurve, int, int]] = {
    # Curve, order of its base point (SEC 2 version 2, 2.4.2, 2.5.1 and 2.6.1), bytes of a coordinate.
    Group.SECP256R1: (
        ec.SECP256R1(),
        0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
        32,
    ),
    Group.SECP384R1: (
        ec.SECP384R1(),
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
        48,
    ),
    Group.SECP521R1: (
        ec.SECP521R1(),
        (1 << 521) - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
        66,
    ),
}

_ALWAYS = frozenset((Group.SECP256R1, Group.SECP384R1, Group.SECP521R1, Group.X25519))
"""The groups of every OpenSSL; of the others, the builds of some systems lack one or another."""


def _pss(algorithm: hashes.HashAlgorithm) -> tuple[padding.PSS, hashes.HashAlgorithm]:
    # RFC 8446 4.2.3: the salt is as long as the digest, and MGF1 uses the same hash.
    return padding.PSS(mgf=padding.MGF1(algorithm), salt_length=algorithm.digest_size), algorithm


_PARAMETERS: dict[SignatureScheme, tuple[object, ...]] = {
    SignatureScheme.ECDSA_SECP256R1_SHA256: (ec.ECDSA(hashes.SHA256()),),
    SignatureScheme.ECDSA_SECP384R1_SHA384: (ec.ECDSA(hashes.SHA384()),),
    SignatureScheme.ECDSA_SECP521R1_SHA512: (ec.ECDSA(hashes.SHA512()),),
    SignatureScheme.RSA_PSS_RSAE_SHA256: _pss(hashes.SHA256()),
    SignatureScheme.RSA_PSS_RSAE_SHA384: _pss(hashes.SHA384()),
    SignatureScheme.RSA_PSS_RSAE_SHA512: _pss(hashes.SHA512()),
    SignatureScheme.RSA_PSS_PSS_SHA256: _pss(hashes.SHA256()),
    SignatureScheme.RSA_PSS_PSS_SHA384: _pss(hashes.SHA384()),
    SignatureScheme.RSA_PSS_PSS_SHA512: _pss(hashes.SHA512()),
    SignatureScheme.ED25519: (),
    SignatureScheme.ED448: (),
}
"""What a key's `sign` and `verify` take last."""

_KIND_OF_CURVE = {"secp256r1": KeyKind.P256, "secp384r1": KeyKind.P384, "secp521r1": KeyKind.P521}

_LEAST_RSA_BITS = 2048
_MOST_RSA_BITS = 8192
"""A signature of a larger key takes too long to check for what a peer may ask; the other engine has this bound too."""

KEPT_KEYS = 64
"""Certificates whose keys are kept, the last ones met; each is bounded by the size of a handshake message."""

UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What the package raises, sooner or later, for a certificate that is not well formed."""


class X25519Share:
    """An ephemeral X25519 key (RFC 7748)."""

    __slots__ = ("_key", "public")

    group = Group.X25519

    def __init__(self, private: bytes) -> None:
        self._key = x25519.X25519PrivateKey.from_private_bytes(private)
        self.public = self._key.public_key().public_bytes_raw()

    def exchange(self, peer: bytes) -> bytes:
        # RFC 8446 7.4.2: a shared secret of zeros must end the handshake; OpenSSL refuses to give it out.
        try:
            return self._key.exchange(x25519.X25519PublicKey.from_public_bytes(peer))
        except ValueError:
            raise HandshakeError(Reason.BAD_KEY_SHARE, "x25519") from None


class X448Share:
    """An ephemeral X448 key (RFC 7748)."""

    __slots__ = ("_key", "public")

    group = Group.X448

    def __init__(self, private: bytes) -> None:
        self._key = x448.X448PrivateKey.from_private_bytes(private)
        self.public = self._key.public_key().public_bytes_raw()

    def exchange(self, peer: bytes) -> bytes:
        # RFC 8446 7.4.2: as for X25519.
        try:
            return self._key.exchange(x448.X448PublicKey.from_public_bytes(peer))
        except ValueError:
            raise HandshakeError(Reason.BAD_KEY_SHARE, "x448") from None


_KEMS: dict[
    Kem,
    tuple[
        type[mlkem.MLKEM768PrivateKey] | type[mlkem.MLKEM1024PrivateKey],
        type[mlkem.MLKEM768PublicKey] | type[mlkem.MLKEM1024PublicKey],
    ],
] = {
    Kem.MLKEM768: (mlkem.MLKEM768PrivateKey, mlkem.MLKEM768PublicKey),
    Kem.MLKEM1024: (mlkem.MLKEM1024PrivateKey, mlkem.MLKEM1024PublicKey),
}


class MLKEMKey:
    """An ephemeral ML-KEM key pair (FIPS 203)."""

    __slots__ = ("_key", "public")

    def __init__(self, kem: Kem, seed: bytes) -> None:
        self._key = _KEMS[kem][0].from_seed_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()

    def decapsulate(self, ciphertext: bytes) -> bytes:
        return self._key.decapsulate(ciphertext)


def _encapsulate(kem: Kem, key: bytes) -> tuple[bytes, bytes]:
    # FIPS 203 7.2: OpenSSL checks that the coefficients are reduced.
    try:
        secret, ciphertext = _KEMS[kem][1].from_public_bytes(key).encapsulate()
    except ValueError:
        raise HandshakeError(Reason.BAD_KEY_SHARE, kem.label) from None
    return ciphertext, secret


class CurveShare:
    """An ephemeral key of a NIST curve."""

    __slots__ = ("_curve", "_key", "_size", "group", "public")

    def __init__(self, group: Group, random: Random) -> None:
        curve, order, size = _CURVES[group]
        # 64 bits more than the order has make the bias of the reduction negligible (FIPS 186-5 A.2.1).
        scalar = int.from_bytes(random(size + 8), "big") % (order - 1) + 1
        self.group = group
        self._curve = curve
        self._size = 1 + 2 * size
        self._key = ec.derive_private_key(scalar, curve)
        self.public = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def exchange(self, peer: bytes) -> bytes:
        # RFC 8446 4.2.8.2: uncompressed points only, and the point must be on the curve.
        if len(peer) != self._size or peer[0] != 4:
            raise HandshakeError(Reason.BAD_KEY_SHARE, self.group.label)
        try:
            return self._key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(self._curve, peer))
        except ValueError:
            raise HandshakeError(Reason.BAD_KEY_SHARE, self.group.label) from None


PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
VerifyKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey


def _kind_of(key: object) -> KeyKind | None:
    """None for a kind that is not supported. The package does not tell a key for PSS alone from others."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _KIND_OF_CURVE.get(key.curve.name)
    if isinstance(key, rsa.RSAPublicKey):
        return KeyKind.RSA if _LEAST_RSA_BITS <= key.key_size <= _MOST_RSA_BITS else None
    if isinstance(key, ed25519.Ed25519PublicKey):
        return KeyKind.ED25519
    return KeyKind.ED448 if isinstance(key, ed448.Ed448PublicKey) else None


def schemes_of(key: object, certified: KeyKind | None = None) -> tuple[SignatureScheme, ...]:
    """The schemes of TLS 1.3 for a public key; none if its kind is not supported. `certified`: what its owner says."""
    kind = _kind_of(key)
    if kind is None:
        return ()
    return SCHEMES[kind if certified is None or kind is not KeyKind.RSA else certified]


def certified_kind(certificate: x509.Certificate) -> KeyKind | None:
    """What a certificate says of a key for PSS alone; None for all others. Raises `CertificateError`."""
    if certificate.public_key_algorithm_oid != PublicKeyAlgorithmOID.RSASSA_PSS:
        return None
    try:
        kind = Certificate.parse(certificate.public_bytes(Encoding.DER)).public_key.kind
    except DerError:
        raise CertificateError(Reason.BAD_CERTIFICATE) from None
    if kind is None:
        raise CertificateError(Reason.UNSUPPORTED_CERTIFICATE)
    return kind


class OpenSSLSigner:
    """A private key that signs handshakes. Raises `ConfigurationError` for a kind of key that TLS 1.3 cannot use.

    `certified`: the kind of key that its certificate says it is, if it is for PSS alone.
    """

    __slots__ = ("_key", "_sign", "schemes")

    def __init__(self, key: object, certified: KeyKind | None = None) -> None:
        if not isinstance(key, PrivateKey):
            raise ConfigurationError("the private key is neither ECDSA, RSA, Ed25519 nor Ed448")
        self._key = key
        self._sign: Callable[..., bytes] = key.sign
        self.schemes = schemes_of(key.public_key(), certified)
        if not self.schemes:
            raise ConfigurationError("the private key is of a curve or size that is not supported")

    @property
    def public_key_info(self) -> bytes:
        return self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, scheme: SignatureScheme, data: bytes) -> bytes:
        return self._sign(data, *_PARAMETERS[scheme])


class OpenSSLPublicKey:
    """A public key that verifies handshakes."""

    __slots__ = ("_size", "_verify", "schemes")

    def __init__(self, key: VerifyKey, schemes: tuple[SignatureScheme, ...]) -> None:
        self._size = (key.key_size + 7) // 8 if isinstance(key, rsa.RSAPublicKey) else None
        """Bytes of a signature; None where the library is strict about it."""
        self._verify: Callable[..., None] = key.verify
        self.schemes = schemes

    def verify(self, scheme: SignatureScheme, signature: bytes, data: bytes) -> None:
        # RFC 8017 8.1.2 step 1: as long as the modulus. OpenSSL would take one without its leading zeros.
        if self._size is not None and len(signature) != self._size:
            raise HandshakeError(Reason.BAD_SIGNATURE)
        try:
            self._verify(signature, data, *_PARAMETERS[scheme])
        except InvalidSignature:
            raise HandshakeError(Reason.BAD_SIGNATURE) from None


class OpenSSLEngine:
    """`CryptoEngine` over `cryptography`."""

    name = "openssl"
    hmacs: Mapping[str, Hmac] = {"sha256": hmac_over(hashlib.sha256, 64), "sha384": hmac_over(hashlib.sha384, 128)}
    invalid_tag: type[Exception] = InvalidTag

    @cached_property
    def groups(self) -> frozenset[Group]:
        found = set(_ALWAYS)
        with suppress(UnsupportedAlgorithm):
            X448Share(bytes(56))
            found.add(Group.X448)
        with suppress(UnsupportedAlgorithm):
            MLKEMKey(Kem.MLKEM768, bytes(MLKEM_SEED))
            found.update(HYBRIDS)
        return frozenset(found)

    def aead(self, keys: TrafficKeys) -> Aead:
        if keys.suite is CipherSuite.CHACHA20_POLY1305_SHA256:
            return ChaCha20Poly1305(keys.key)
        return AESGCM(keys.key)

    def hash(self, name: str) -> HashState:
        return _HASHES[name]()

    def private_share(self, group: Group, random: Random) -> PrivateShare:
        if group is Group.X25519:
            return X25519Share(random(32))
        if group is Group.X448:
            return X448Share(random(56))
        if group in HYBRIDS:
            classical = self.private_share(HYBRIDS[group].classical, random)
            return HybridShare(group, classical, MLKEMKey(HYBRIDS[group].kem, random(MLKEM_SEED)))
        return CurveShare(group, random)

    def answer_share(self, group: Group, peer: bytes, random: Random) -> tuple[bytes, bytes]:
        if group in HYBRIDS:
            classical = self.private_share(HYBRIDS[group].classical, random)
            return answer_hybrid(group, peer, classical, _encapsulate)
        share = self.private_share(group, random)
        return share.public, share.exchange(peer)

    def static_share(self, group: Group, private: bytes) -> PrivateShare:
        if group is Group.X25519 and len(private) == 32:
            return X25519Share(private)
        scalar = int.from_bytes(private, "big")
        if group is not Group.SECP256R1 or len(private) != 32 or not 1 <= scalar < _CURVES[group][1]:
            raise ConfigurationError(f"this is no private key of {group.label}")
        # CurveShare makes the key n + 1 from the number n.
        return CurveShare(group, lambda size: (scalar - 1).to_bytes(size, "big"))

    def raw_public_key(self, info: bytes) -> PublicKey:
        try:
            kind = public_key_of(info).kind
            key = load_der_public_key(info)
        except UnsupportedAlgorithm:
            raise CertificateError(Reason.UNSUPPORTED_CERTIFICATE) from None
        except UNREADABLE:
            raise CertificateError(Reason.BAD_CERTIFICATE) from None
        schemes = schemes_of(key, kind) if kind is not None else ()
        if not schemes or not isinstance(key, VerifyKey):
            raise CertificateError(Reason.UNSUPPORTED_CERTIFICATE)
        return OpenSSLPublicKey(key, schemes)

    def public_key(self, certificate: bytes) -> PublicKey:
        return _public_key(certificate)


@lru_cache(maxsize=KEPT_KEYS)
def _public_key(certificate: bytes) -> OpenSSLPublicKey:
    """Reading a certificate's key costs as much as two key schedules, and a client meets the same servers again."""
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        key = parsed.public_key()
        schemes = schemes_of(key, certified_kind(parsed))
    except UnsupportedAlgorithm:
        raise CertificateError(Reason.UNSUPPORTED_CERTIFICATE) from None
    except UNREADABLE:
        raise CertificateError(Reason.BAD_CERTIFICATE) from None
    # RFC 8446 4.4.2.2: X.509 version 3.
    if not schemes or not isinstance(key, VerifyKey) or parsed.version is not x509.Version.v3:
        raise CertificateError(Reason.UNSUPPORTED_CERTIFICATE)
    return OpenSSLPublicKey(key, schemes)


OPENSSL = OpenSSLEngine()
"""The engine has no state; one serves everybody."""
