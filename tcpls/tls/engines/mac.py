"""HMAC (RFC 2104) over a library's hash: the libraries' own take several times as long as the hashing in them."""

from __future__ import annotations

from collections.abc import Callable

from tcpls.tls.engine import HashState, Hmac

_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


def hmac_over(new: Callable[[bytes], HashState], block: int) -> Hmac:
    """`new` makes a hash and feeds it; `block` is the size of what it takes in one step, in bytes."""

    def hmac(key: bytes, data: bytes) -> bytes:
        if len(key) > block:
            key = new(key).digest()
        key = key.ljust(block, b"\0")
        return new(key.translate(_OUTER) + new(key.translate(_INNER) + data).digest()).digest()

    return hmac
