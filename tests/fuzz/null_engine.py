"""An engine that protects nothing, so that a fuzzer's bytes reach what stands behind the encryption.

Records are plaintext with a tag of zeros that is never checked, every key exchange gives the same secret, every MAC is
zeros, and every signature is right. The hash is real, because the transcript's length of digest is what matters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from tcpls.tls.algorithms import DEFAULT_SCHEMES, Group, SignatureScheme
from tcpls.tls.engine import HashState, Hmac, PrivateShare, PublicKey
from tcpls.tls.suites import TAG_SIZE, Aead, Random, TrafficKeys
from tcpls.wire import Buffer

SHARE = bytes(32)


class NullAead:
    def encrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int:
        room = memoryview(buf)
        room[: len(data)] = bytes(data)
        room[len(data) : len(data) + TAG_SIZE] = bytes(TAG_SIZE)
        return len(data) + TAG_SIZE

    def decrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int:
        content = bytes(data)[:-TAG_SIZE]
        memoryview(buf)[: len(content)] = content
        return len(content)

    def encrypt(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None) -> bytes:
        return bytes(data) + bytes(TAG_SIZE)

    def decrypt(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None) -> bytes:
        return bytes(data)[:-TAG_SIZE]


class NullShare:
    def __init__(self, group: Group) -> None:
        self.group = group
        self.public = SHARE

    def exchange(self, peer: bytes) -> bytes:
        return SHARE


class NullKey:
    schemes: tuple[SignatureScheme, ...] = DEFAULT_SCHEMES
    public_key_info = b"a public key"

    def verify(self, scheme: SignatureScheme, signature: bytes, data: bytes) -> None:
        """Everything is genuine."""

    def sign(self, scheme: SignatureScheme, data: bytes) -> bytes:
        return b"signature"


class NullEngine:
    name = "null"
    hmacs: Mapping[str, Hmac] = {"sha256": lambda key, data: bytes(32), "sha384": lambda key, data: bytes(48)}
    groups = frozenset(Group)
    invalid_tag: type[Exception] = ValueError

    def aead(self, keys: TrafficKeys) -> Aead:
        return NullAead()

    def hash(self, name: str) -> HashState:
        return hashlib.new(name)

    def private_share(self, group: Group, random: Random) -> PrivateShare:
        return NullShare(group)

    def answer_share(self, group: Group, peer: bytes, random: Random) -> tuple[bytes, bytes]:
        return SHARE, SHARE

    def static_share(self, group: Group, private: bytes) -> PrivateShare:
        return NullShare(group)

    def raw_public_key(self, info: bytes) -> PublicKey:
        return NullKey()

    def public_key(self, certificate: bytes) -> PublicKey:
        return NullKey()
