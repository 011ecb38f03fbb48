"""The crypto engine over `pycryptodome`, which has no OpenSSL in it: nor has a process that uses nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from types import ModuleType
from typing import Any

from Crypto.Cipher import AES, ChaCha20_Poly1305
from Crypto.Hash import SHA256, SHA384, SHA512
from Crypto.Protocol.DH import (
    import_x448_private_key,
    import_x448_public_key,
    import_x25519_private_key,
    import_x25519_public_key,
    key_agreement,
)
from Crypto.PublicKey import ECC, MLKEM, RSA
from Crypto.PublicKey.ECC import EccKey
from Crypto.Signature import DSS, eddsa, pkcs1_15, pss

from tcpls.errors import CertificateError, ConfigurationError, HandshakeError, Reason
from tcpls.tls.algorithms import Group, SignatureScheme
from tcpls.tls.engine import HashState, Hmac, PrivateShare, PublicKey
from tcpls.tls.engines.mac import hmac_over
from tcpls.tls.key_exchange import HYBRIDS, MLKEM_SEED, Encapsulate, HybridShare, Kem, answer_hybrid
from tcpls.tls.suites import TAG_SIZE, Aead, CipherSuite, Random, TrafficKeys
from tcpls.tls.x509.algorithms import RSA_KINDS, SCHEMES, KeyKind
from tcpls.tls.x509.certificate import Certificate, SubjectPublicKey, public_key_of
from tcpls.tls.x509.der import Der, DerError
from tcpls.wire import Buffer

_HASHES: dict[str, ModuleType] = {"sha256": SHA256, "sha384": SHA384}

_CURVES = {
    # Name, order of its base point (SEC 2 version 2, 2.4.2, 2.5.1 and 2.6.1), bytes of a coordinate.
    Group.SECP256R1: (
        "P-256",
        0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
        32,
    ),
    Group.SECP384R1: (
        "P-384",
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
        48,
    ),
    Group.SECP521R1: (
        "P-521",
        (1 << 521) - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
        66,
    ),
}

_PSS: dict[SignatureScheme, ModuleType] = {
    SignatureScheme.RSA_PSS_RSAE_SHA256: SHA256,
    SignatureScheme.RSA_PSS_RSAE_SHA384: SHA384,
    SignatureScheme.RSA_PSS_RSAE_SHA512: SHA512,
    SignatureScheme.RSA_PSS_PSS_SHA256: SHA256,
    SignatureScheme.RSA_PSS_PSS_SHA384: SHA384,
    SignatureScheme.RSA_PSS_PSS_SHA512: SHA512,
}

_ECDSA: dict[SignatureScheme, ModuleType] = {
    SignatureScheme.ECDSA_SECP256R1_SHA256: SHA256,
    SignatureScheme.ECDSA_SECP384R1_SHA384: SHA384,
    SignatureScheme.ECDSA_SECP521R1_SHA512: SHA512,
}

_CURVE_OF = {KeyKind.P256: "P-256", KeyKind.P384: "P-384", KeyKind.P521: "P-521"}
_KIND_OF = {f"NIST {curve}": kind for kind, curve in _CURVE_OF.items()} | {
    "Ed25519": KeyKind.ED25519,
    "Ed448": KeyKind.ED448,
}

_LEAST_RSA_BITS = 2048
_MOST_RSA_BITS = 8192
"""A signature of a larger key takes too long to check for what a peer may ask; rustls has this bound too."""

Key = EccKey | RSA.RsaKey


class InvalidTag(Exception):
    """A record, or another thing that an AEAD protects, is not genuine."""


class MiniAead:
    """An AEAD of pycryptodome, which makes an object for each nonce."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[Buffer], Any]) -> None:
        self._make = make

    def encrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int:
        cipher, size, room = self._make(nonce), len(data), memoryview(buf)
        if associated_data:
            cipher.update(associated_data)
        cipher.encrypt(data, output=room[:size])
        room[size : size + TAG_SIZE] = cipher.digest()
        return size + TAG_SIZE

    def decrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int:
        cipher, size = self._make(nonce), len(data) - TAG_SIZE
        if size < 0:
            raise InvalidTag
        if associated_data:
            cipher.update(associated_data)
        view, room = memoryview(data), memoryview(buf)[:size]
        tag = bytes(view[size:])
        cipher.decrypt(view[:size], output=room)
        try:
            cipher.verify(tag)
        except ValueError:
            # Nobody may see what was decrypted before it turned out not to be genuine.
            room[:] = bytes(size)
            raise InvalidTag from None
        return size


def _same(secret: bytes) -> bytes:
    return secret


class MontgomeryShare:
    """An ephemeral key of X25519 or X448 (RFC 7748)."""

    __slots__ = ("_import", "_key", "group", "public")

    def __init__(self, group: Group, private: bytes) -> None:
        self.group = group
        is_x25519 = group is Group.X25519
        self._import = import_x25519_public_key if is_x25519 else import_x448_public_key
        self._key = (import_x25519_private_key if is_x25519 else import_x448_private_key)(private)
        self.public = self._key.public_key().export_key(format="raw")

    def exchange(self, peer: bytes) -> bytes:
        # RFC 8446 7.4.2: a shared secret of zeros must end the handshake; the library refuses such points.
        try:
            secret = bytes(key_agreement(eph_priv=self._key, eph_pub=self._import(peer), kdf=_same))
        except ValueError:
            secret = b""
        if not any(secret):
            raise HandshakeError(Reason.BAD_KEY_SHARE, self.group.label)
        return secret


class CurveShare:
    """An ephemeral key of a NIST curve."""

    __slots__ = ("_curve", "_key", "_size", "group", "public")

    def __init__(self, group: Group, random: Random) -> None:
        self._curve, order, self._size = _CURVES[group]
        # 64 bits more than the order has make the bias of the reduction negligible (FIPS 186-5 A.2.1).
        scalar = int.from_bytes(random(self._size + 8), "big") % (order - 1) + 1
        self.group = group
        self._key = ECC.construct(curve=self._curve, d=scalar)
        self.public = self._key.public_key().export_key(format="SEC1")

    def exchange(self, peer: bytes) -> bytes:
        try:
            key = _point(self._curve, self._size, peer)
            return bytes(key_agreement(eph_priv=self._key, eph_pub=key, kdf=_same))
        except ValueError:
            raise HandshakeError(Reason.BAD_KEY_SHARE, self.group.label) from None


def _point(curve: str, size: int, encoded: bytes) -> EccKey:
    """A point in the uncompressed form, which is the only one of RFC 8446 4.2.8.2. Raises `ValueError`."""
    if len(encoded) != 1 + 2 * size or encoded[0] != 4:
        raise ValueError("not an uncompressed point")
    x, y = int.from_bytes(encoded[1 : 1 + size], "big"), int.from_bytes(encoded[1 + size :], "big")
    # The library refuses what is not on the curve, but reduces coordinates first (SEC 1 2.3.4 has them reduced).
    key = ECC.construct(curve=curve, point_x=x, point_y=y)
    if (int(key.pointQ.x), int(key.pointQ.y)) != (x, y) or key.pointQ.is_point_at_infinity():
        raise ValueError("not a point of the curve")
    return key


_KEMS = {Kem.MLKEM768: MLKEM.ML_KEM_768, Kem.MLKEM1024: MLKEM.ML_KEM_1024}


class MLKEMKey:
    """An ephemeral ML-KEM key pair (FIPS 203). The library has no public name for what TLS does with one yet."""

    __slots__ = ("_key", "public")

    def __init__(self, kem: Kem, seed: bytes) -> None:
        self._key = MLKEM.construct(param_set=_KEMS[kem], seed=seed)
        self.public = bytes(self._key.ek)

    def decapsulate(self, ciphertext: bytes) -> bytes:
        return bytes(self._key._decaps(ciphertext))


def _encapsulation(random: Random) -> Encapsulate:
    def encapsulate(kem: Kem, key: bytes) -> tuple[bytes, bytes]:
        # FIPS 203 7.2: the library checks that the coefficients are reduced.
        try:
            secret, ciphertext = MLKEM.construct(param_set=_KEMS[kem], ek=key)._encaps(random(32))
        except ValueError:
            raise HandshakeError(Reason.BAD_KEY_SHARE, kem.label) from None
        return ciphertext, secret

    return encapsulate


def kind_of(key: Key) -> KeyKind | None:
    return KeyKind.RSA if isinstance(key, RSA.RsaKey) else _KIND_OF.get(str(key.curve))


def schemes_of(key: Key, certified: KeyKind | None = None) -> tuple[SignatureScheme, ...]:
    """The schemes of TLS 1.3 for a key; none if its kind is not supported. `certified`: what its owner says."""
    if isinstance(key, RSA.RsaKey):
        if not _LEAST_RSA_BITS <= key.size_in_bits() <= _MOST_RSA_BITS:
            return ()
        return SCHEMES[KeyKind.RSA if certified is None else certified]
    kind = kind_of(key)
    return SCHEMES[kind] if kind is not None else ()


def read_public_key(key: SubjectPublicKey) -> Key | None:
    """None for a kind that is not supported. Raises `ValueError` for a key that is none."""
    if key.kind is None:
        return None
    if key.kind in RSA_KINDS:
        # RFC 8017 A.1.1.
        outer = Der(key.key)
        numbers = outer.sub()
        outer.end()
        modulus, exponent = numbers.integer(), numbers.integer()
        numbers.end()
        if modulus <= 0 or not 3 <= exponent < 1 << 33 or not exponent & 1 or not modulus & 1:
            raise DerError("not an RSA key")
        return RSA.construct((modulus, exponent), consistency_check=False)
    if key.kind in (KeyKind.ED25519, KeyKind.ED448):
        if len(key.key) != (32 if key.kind is KeyKind.ED25519 else 57):
            raise DerError("a key of another length")
        return eddsa.import_public_key(key.key)
    curve = _CURVE_OF[key.kind]
    return _point(curve, next(size for name, _, size in _CURVES.values() if name == curve), key.key)


def _verifies(check: Callable[[], object]) -> bool:
    try:
        check()
    except ValueError:
        return False
    return True


def verify_ecdsa(key: EccKey, hash_of: ModuleType, signature: bytes, data: bytes) -> bool:
    digest = hash_of.new(data)
    # Both modes verify alike, but FIPS 186's refuses a hash that is shorter than the curve, as in many certificates.
    return _verifies(lambda: DSS.new(key, "deterministic-rfc6979", encoding="der").verify(digest, signature))


def verify_rsa(key: RSA.RsaKey, hash_of: ModuleType, signature: bytes, data: bytes, *, is_pss: bool) -> bool:
    digest = hash_of.new(data)
    if is_pss:
        # RFC 8446 4.2.3: the salt is as long as the digest, and MGF1 uses the same hash.
        return _verifies(lambda: pss.new(key, salt_bytes=digest.digest_size).verify(digest, signature))
    return _verifies(lambda: pkcs1_15.new(key).verify(digest, signature))


def verify_eddsa(key: EccKey, signature: bytes, data: bytes) -> bool:
    return _verifies(lambda: eddsa.new(key, "rfc8032").verify(data, signature))


class MiniSigner:
    """A private key that signs handshakes. Raises `ConfigurationError` for a kind of key that TLS 1.3 cannot use.

    `certified`: the kind of key that its certificate says it is.
    """

    __slots__ = ("_key", "schemes")

    def __init__(self, key: Key, certified: KeyKind | None) -> None:
        self._key = key
        self.schemes = schemes_of(key, certified)
        if not self.schemes:
            raise ConfigurationError("the private key is of a curve or size that is not supported")

    @property
    def public_key_info(self) -> bytes:
        return bytes(self._key.public_key().export_key(format="DER"))

    def belongs_to(self, key: Key) -> bool:
        """Whether this is the private half of a public key."""
        return bool(self._key.public_key() == key)

    def sign(self, scheme: SignatureScheme, data: bytes) -> bytes:
        if isinstance(self._key, RSA.RsaKey):
            digest = _PSS[scheme].new(data)
            return bytes(pss.new(self._key, salt_bytes=digest.digest_size).sign(digest))
        if scheme in _ECDSA:
            return bytes(DSS.new(self._key, "fips-186-3", encoding="der").sign(_ECDSA[scheme].new(data)))
        return bytes(eddsa.new(self._key, "rfc8032").sign(data))


class MiniPublicKey:
    """A public key that verifies handshakes."""

    __slots__ = ("_key", "schemes")

    def __init__(self, key: Key, schemes: tuple[SignatureScheme, ...]) -> None:
        self._key = key
        self.schemes = schemes

    def verify(self, scheme: SignatureScheme, signature: bytes, data: bytes) -> None:
        if isinstance(self._key, RSA.RsaKey):
            genuine = verify_rsa(self._key, _PSS[scheme], signature, data, is_pss=True)
        elif scheme in _ECDSA:
            genuine = verify_ecdsa(self._key, _ECDSA[scheme], signature, data)
        else:
            genuine = verify_eddsa(self._key, signature, data)
        if not genuine:
            raise HandshakeError(Reason.BAD_SIGNATURE)


def _usable(public_key: SubjectPublicKey) -> MiniPublicKey:
    """Raises `ValueError` for a key that is none, and `CertificateError` for one that is not supported."""
    key = read_public_key(public_key)
    schemes = schemes_of(key, public_key.kind) if key is not None else ()
    if key is None or not schemes:
        raise CertificateError(Reason.UNSUPPORTED_CERTIFICATE)
    return MiniPublicKey(key, schemes)


class MiniCryptoEngine:
    """`CryptoEngine` over `pycryptodome`."""

    name = "minicrypto"
    hmacs: Mapping[str, Hmac] = {"sha256": hmac_over(SHA256.new, 64), "sha384": hmac_over(SHA384.new, 128)}
    invalid_tag: type[Exception] = InvalidTag

    @cached_property
    def groups(self) -> frozenset[Group]:
        found = {Group.X25519, Group.X448, *_CURVES}
        with suppress(AttributeError):
            # See `MLKEMKey`: another version of the library may have other names for it.
            key = MLKEMKey(Kem.MLKEM768, bytes(MLKEM_SEED))
            key.decapsulate(_encapsulation(bytes)(Kem.MLKEM768, key.public)[0])
            found.update(HYBRIDS)
        return frozenset(found)

    def aead(self, keys: TrafficKeys) -> Aead:
        key = keys.key
        if keys.suite is CipherSuite.CHACHA20_POLY1305_SHA256:
            return MiniAead(lambda nonce: ChaCha20_Poly1305.new(key=key, nonce=nonce))
        return MiniAead(lambda nonce: AES.new(key, AES.MODE_GCM, nonce=nonce))

    def hash(self, name: str) -> HashState:
        state: HashState = _HASHES[name].new()
        return state

    def private_share(self, group: Group, random: Random) -> PrivateShare:
        if group is Group.X25519:
            return MontgomeryShare(group, random(32))
        if group is Group.X448:
            return MontgomeryShare(group, random(56))
        if group in HYBRIDS:
            classical = self.private_share(HYBRIDS[group].classical, random)
            return HybridShare(group, classical, MLKEMKey(HYBRIDS[group].kem, random(MLKEM_SEED)))
        return CurveShare(group, random)

    def answer_share(self, group: Group, peer: bytes, random: Random) -> tuple[bytes, bytes]:
        if group in HYBRIDS:
            classical = self.private_share(HYBRIDS[group].classical, random)
            return answer_hybrid(group, peer, classical, _encapsulation(random))
        share = self.private_share(group, random)
        return share.public, share.exchange(peer)

    def static_share(self, group: Group, private: bytes) -> PrivateShare:
        if group is Group.X25519 and len(private) == 32:
            return MontgomeryShare(group, private)
        scalar = int.from_bytes(private, "big")
        if group is not Group.SECP256R1 or len(private) != 32 or not 1 <= scalar < _CURVES[group][1]:
            raise ConfigurationError(f"this is no private key of {group.label}")
        # CurveShare makes the key n + 1 from the number n.
        return CurveShare(group, lambda size: (scalar - 1).to_bytes(size, "big"))

    def raw_public_key(self, info: bytes) -> PublicKey:
        try:
            return _usable(public_key_of(info))
        except ValueError:
            raise CertificateError(Reason.BAD_CERTIFICATE) from None

    def public_key(self, certificate: bytes) -> PublicKey:
        try:
            parsed = Certificate.parse(certificate)
            key = _usable(parsed.public_key)
        except ValueError:
            raise CertificateError(Reason.BAD_CERTIFICATE) from None
        # RFC 8446 4.4.2.2: X.509 version 3.
        if not parsed.is_v3:
            raise CertificateError(Reason.UNSUPPORTED_CERTIFICATE)
        return key


MINICRYPTO = MiniCryptoEngine()
"""The engine has no state; one serves everybody."""
