"""The cipher suites of TLS 1.3 (RFC 8446 appendix B.4), the keys of one direction, and the AEAD's interface."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tcpls.wire import Buffer

TAG_SIZE = 16
IV_SIZE = 12

Random = Callable[[int], bytes]
"""A source of cryptographically strong random bytes: `random(32)` gives 32 of them."""


class CipherSuite(enum.Enum):
    """Value: code point, name, hash, key size in bytes, and records allowed under one key.

    The limits are RFC 8446 section 5.5's: 2^24.5 full-size records for AES-GCM; for ChaCha20-Poly1305 the
    sequence number would wrap first, so the bound is the one that keeps a counter far away from wrapping.
    """

    AES_128_GCM_SHA256 = (0x1301, "TLS_AES_128_GCM_SHA256", "sha256", 16, 23_726_566)
    AES_256_GCM_SHA384 = (0x1302, "TLS_AES_256_GCM_SHA384", "sha384", 32, 23_726_566)
    CHACHA20_POLY1305_SHA256 = (0x1303, "TLS_CHACHA20_POLY1305_SHA256", "sha256", 32, 1 << 48)

    def __init__(self, code: int, label: str, hash_name: str, key_size: int, record_limit: int) -> None:
        self.code = code
        self.label = label
        self.hash_name = hash_name
        self.key_size = key_size
        self.record_limit = record_limit
        self.hash_size = 48 if hash_name == "sha384" else 32


SUITE_BY_CODE = {suite.code: suite for suite in CipherSuite}


@dataclass(frozen=True, slots=True)
class TrafficKeys:
    """Key and static IV of one direction of one connection, and the sequence number of its next record.

    The TCPLS nonce is ``write_iv XOR (connection id << 64) XOR sequence`` (draft section 3.3). `for_connection`
    folds the connection id into the IV once, so that user space and the kernel use the very same object.
    """

    suite: CipherSuite
    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)
    sequence: int = 0

    def for_connection(self, connection_id: int) -> TrafficKeys:
        """These keys for the connection `connection_id` (32 bits). The connection 0 is the identity."""
        folded = int.from_bytes(self.iv, "big") ^ (connection_id << 64)
        return TrafficKeys(self.suite, self.key, folded.to_bytes(IV_SIZE, "big"), self.sequence)

    def at(self, sequence: int) -> TrafficKeys:
        return TrafficKeys(self.suite, self.key, self.iv, sequence)


class Aead(Protocol):
    """One AEAD under one key. `buf` may be the very memory of `data`: both engines work in place."""

    def encrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int:
        """Writes ciphertext and tag, `len(data) + 16` bytes, which is exactly the size of `buf`."""

    def decrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int:
        """Writes the plaintext, `len(data) - 16` bytes. Raises the engine's `invalid_tag` if it is not genuine."""
