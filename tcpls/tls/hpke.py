"""Hybrid public key encryption (RFC 9180): base mode, with DHKEM over X25519 and P-256, and the AEADs of TLS 1.3."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from tcpls.errors import ApiMisuse
from tcpls.tls.algorithms import Group
from tcpls.tls.engine import CryptoEngine, PrivateShare
from tcpls.tls.suites import IV_SIZE, TAG_SIZE, CipherSuite, Random, TrafficKeys
from tcpls.wire import Buffer

_MODE_BASE = 0

_MAX_SEQUENCE = (1 << 8 * IV_SIZE) - 1
"""RFC 9180 5.2: the sequence number must not reach 256^Nn - 1."""


class Kem(enum.IntEnum):
    """Key encapsulation mechanisms (RFC 9180 7.1). Both use HKDF-SHA256."""

    P256_HKDF_SHA256 = 0x0010
    X25519_HKDF_SHA256 = 0x0020

    @property
    def group(self) -> Group:
        return Group.X25519 if self is Kem.X25519_HKDF_SHA256 else Group.SECP256R1

    @property
    def public_size(self) -> int:
        """Bytes of a public key and of an encapsulated key (Npk, Nenc)."""
        return 32 if self is Kem.X25519_HKDF_SHA256 else 65

    @property
    def label(self) -> str:
        return f"DHKEM({self.group.label}, HKDF-SHA256)"


class Kdf(enum.IntEnum):
    """Key derivation functions (RFC 9180 7.2) with a hash that TLS 1.3 has."""

    HKDF_SHA256 = 0x0001
    HKDF_SHA384 = 0x0002

    @property
    def hash_name(self) -> str:
        return "sha256" if self is Kdf.HKDF_SHA256 else "sha384"

    @property
    def hash_size(self) -> int:
        return 32 if self is Kdf.HKDF_SHA256 else 48

    @property
    def label(self) -> str:
        return self.name.replace("_", "-")


class AeadId(enum.IntEnum):
    """AEADs (RFC 9180 7.3). TLS 1.3 has all three, with the same sizes of nonce and tag."""

    AES_128_GCM = 0x0001
    AES_256_GCM = 0x0002
    CHACHA20_POLY1305 = 0x0003

    @property
    def suite(self) -> CipherSuite:
        """The cipher suite of TLS 1.3 with this AEAD: the engine knows AEADs by their suites."""
        return _SUITES[self]

    @property
    def label(self) -> str:
        return self.name.replace("_", "-")


_SUITES = {
    AeadId.AES_128_GCM: CipherSuite.AES_128_GCM_SHA256,
    AeadId.AES_256_GCM: CipherSuite.AES_256_GCM_SHA384,
    AeadId.CHACHA20_POLY1305: CipherSuite.CHACHA20_POLY1305_SHA256,
}


@dataclass(frozen=True, slots=True)
class HpkeSuite:
    """What both ends have to agree on."""

    kem: Kem
    kdf: Kdf
    aead: AeadId

    @property
    def identifier(self) -> bytes:
        """`suite_id` of RFC 9180 5.1."""
        return b"HPKE" + b"".join(code.to_bytes(2, "big") for code in (self.kem, self.kdf, self.aead))


@dataclass(frozen=True, slots=True)
class _Labeled:
    """LabeledExtract and LabeledExpand (RFC 9180 section 4) for one hash and one suite_id."""

    engine: CryptoEngine
    hash_name: str
    identifier: bytes

    def extract(self, salt: bytes, label: bytes, material: bytes) -> bytes:
        # RFC 5869 2.2: HMAC pads its key with zeros, so that no salt and a salt of zeros are the same.
        return self.engine.hmacs[self.hash_name](salt, b"HPKE-v1" + self.identifier + label + material)

    def expand(self, secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
        info = length.to_bytes(2, "big") + b"HPKE-v1" + self.identifier + label + info
        output = block = b""
        for counter in range(1, 256):
            block = self.engine.hmacs[self.hash_name](secret, b"%b%b%c" % (block, info, counter))
            output += block
            if len(output) >= length:
                return output[:length]
        raise ApiMisuse("HKDF-Expand gives 255 blocks at most (RFC 5869 2.3)")


@dataclass(slots=True)
class Context:
    """One direction's messages under one encapsulated key (RFC 9180 5.2). Each `seal` or `open` takes a number."""

    engine: CryptoEngine = field(repr=False)
    suite: HpkeSuite
    _keys: TrafficKeys = field(repr=False)
    _exporter: bytes = field(repr=False)
    shared: bytes = field(repr=False)
    """The shared secret of the KEM, which a key log may want."""
    _sequence: int = 0

    @property
    def overhead(self) -> int:
        """Bytes by which a ciphertext is longer than its plaintext."""
        return TAG_SIZE

    def _nonce(self) -> bytes:
        if self._sequence >= _MAX_SEQUENCE:
            raise ApiMisuse("the context is used up")
        return (int.from_bytes(self._keys.iv, "big") ^ self._sequence).to_bytes(IV_SIZE, "big")

    def seal(self, associated_data: Buffer, plaintext: Buffer) -> bytes:
        buffer = bytearray(len(plaintext) + TAG_SIZE)
        self.engine.aead(self._keys).encrypt_into(self._nonce(), plaintext, associated_data, buffer)
        self._sequence += 1
        return bytes(buffer)

    def open(self, associated_data: Buffer, ciphertext: Buffer) -> bytes | None:
        """The plaintext; None for what is not genuine, which takes no number."""
        if len(ciphertext) < TAG_SIZE:
            return None
        buffer = bytearray(len(ciphertext) - TAG_SIZE)
        try:
            self.engine.aead(self._keys).decrypt_into(self._nonce(), ciphertext, associated_data, buffer)
        except self.engine.invalid_tag:
            return None
        self._sequence += 1
        return bytes(buffer)

    def export(self, context: bytes, length: int) -> bytes:
        """A secret that both ends can derive (RFC 9180 5.3)."""
        labeled = _Labeled(self.engine, self.suite.kdf.hash_name, self.suite.identifier)
        return labeled.expand(self._exporter, b"sec", context, length)


def setup_sender(
    engine: CryptoEngine, suite: HpkeSuite, public_key: bytes, info: bytes, random: Random
) -> tuple[bytes, Context]:
    """SetupBaseS: the encapsulated key, and the sender's context. Raises `HandshakeError(BAD_KEY_SHARE)`."""
    return sender_with(engine, suite, public_key, info, engine.private_share(suite.kem.group, random))


def sender_with(
    engine: CryptoEngine, suite: HpkeSuite, public_key: bytes, info: bytes, ephemeral: PrivateShare
) -> tuple[bytes, Context]:
    """`setup_sender` with an ephemeral key that the caller made, and uses once."""
    shared = _kem_secret(
        engine, suite.kem, ephemeral.exchange(public_key), encapsulated=ephemeral.public, public_key=public_key
    )
    return ephemeral.public, _key_schedule(engine, suite, shared, info)


def setup_receiver(
    engine: CryptoEngine, suite: HpkeSuite, encapsulated: bytes, private: PrivateShare, info: bytes
) -> Context:
    """SetupBaseR: the receiver's context. Raises `HandshakeError(BAD_KEY_SHARE)` when `encapsulated` is no point."""
    shared = _kem_secret(
        engine, suite.kem, private.exchange(encapsulated), encapsulated=encapsulated, public_key=private.public
    )
    return _key_schedule(engine, suite, shared, info)


def _kem_secret(engine: CryptoEngine, kem: Kem, exchanged: bytes, *, encapsulated: bytes, public_key: bytes) -> bytes:
    """ExtractAndExpand of DHKEM (RFC 9180 4.1)."""
    labeled = _Labeled(engine, "sha256", b"KEM" + kem.to_bytes(2, "big"))
    secret = labeled.extract(b"", b"eae_prk", exchanged)
    return labeled.expand(secret, b"shared_secret", encapsulated + public_key, 32)


def _key_schedule(engine: CryptoEngine, suite: HpkeSuite, shared: bytes, info: bytes) -> Context:
    """RFC 9180 5.1, without a pre-shared key."""
    labeled = _Labeled(engine, suite.kdf.hash_name, suite.identifier)
    context = (
        bytes((_MODE_BASE,)) + labeled.extract(b"", b"psk_id_hash", b"") + labeled.extract(b"", b"info_hash", info)
    )
    secret = labeled.extract(shared, b"secret", b"")
    keys = TrafficKeys(
        suite.aead.suite,
        labeled.expand(secret, b"key", context, suite.aead.suite.key_size),
        labeled.expand(secret, b"base_nonce", context, IV_SIZE),
    )
    return Context(engine, suite, keys, labeled.expand(secret, b"exp", context, suite.kdf.hash_size), shared)
