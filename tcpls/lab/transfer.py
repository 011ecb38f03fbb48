"""What is transferred, and when it arrived: data that any end can make anew, and a record of arrivals."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import defaultdict

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

CHUNK = 64 * 1024
TICK = 0.001
"""Seconds that a record of arrivals tells apart."""

_ZEROS = bytes(CHUNK)


class WrongData(Exception):
    """Something else arrived than was sent."""


class Pattern:
    """Bytes that are a pseudo-random function of their offset: AES-128 in counter mode under a key of the seed's."""

    def __init__(self, seed: int) -> None:
        key = hashlib.sha256(b"tcpls lab %d" % seed).digest()[:16]
        self._stream = Cipher(AES(key), CTR(bytes(16))).encryptor()
        self.offset = 0

    def next(self, count: int) -> bytes:
        """The next `count` bytes."""
        self.offset += count
        whole, rest = divmod(count, CHUNK)
        return b"".join([*(self._stream.update(_ZEROS) for _ in range(whole)), self._stream.update(_ZEROS[:rest])])


class Arrivals:
    """Checks what arrives against a pattern, and notes when it did, in ticks of `TICK` since `begin`."""

    def __init__(self, seed: int, size: int, begin: float) -> None:
        self.size = size
        self.begin = begin
        self._pattern = Pattern(seed)
        self._ticks: defaultdict[int, int] = defaultdict(int)

    @property
    def received(self) -> int:
        return self._pattern.offset

    @property
    def complete(self) -> bool:
        return self.received == self.size

    def take(self, data: bytes | bytearray | memoryview, now: float | None = None) -> None:
        """Notes that `data` has arrived. Raises `WrongData`."""
        offset = self.received
        if offset + len(data) > self.size:
            raise WrongData(f"more than {self.size} bytes")
        if not hmac.compare_digest(self._pattern.next(len(data)), data):
            raise WrongData(f"not what was sent, between the bytes {offset} and {offset + len(data)}")
        if len(data):
            moment = time.monotonic() if now is None else now
            self._ticks[int((moment - self.begin) / TICK)] += len(data)

    def ticks(self) -> list[tuple[int, int]]:
        """The ticks in which something arrived, and how many bytes."""
        return sorted(self._ticks.items())
