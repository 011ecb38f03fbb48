"""Tokens by which connections join the sessions of a server."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcpls.protocol.frames import TOKEN_SIZE
from tcpls.tls.engine import CryptoEngine
from tcpls.tls.suites import IV_SIZE, TAG_SIZE, CipherSuite, TrafficKeys

if TYPE_CHECKING:
    from tcpls.aio.paths import ServerPaths

OWNER_SIZE = TOKEN_SIZE - IV_SIZE - TAG_SIZE
_SUITE = CipherSuite.AES_256_GCM_SHA384
_KEY_SIZE = 32


class TokenMint:
    """Makes tokens that nobody else can make: a random nonce, and encrypted under a key of the server's who owns them.

    Whether a token is genuine takes the same time whatever it looks like, and only a genuine one is looked up.
    """

    def __init__(self, engine: CryptoEngine, owner: bytes | None = None) -> None:
        """`owner`: 4 bytes that say which process has the session."""
        keys = TrafficKeys(_SUITE, secrets.token_bytes(_KEY_SIZE), bytes(IV_SIZE))
        self._aead = engine.aead(keys)
        self._invalid = engine.invalid_tag
        self._owner = owner or secrets.token_bytes(OWNER_SIZE)

    def make(self) -> bytes:
        nonce = secrets.token_bytes(IV_SIZE)
        sealed = bytearray(OWNER_SIZE + TAG_SIZE)
        self._aead.encrypt_into(nonce, self._owner, None, sealed)
        return nonce + sealed

    def is_ours(self, token: bytes) -> bool:
        if len(token) != TOKEN_SIZE:
            return False
        opened = bytearray(OWNER_SIZE)
        try:
            self._aead.decrypt_into(token[:IV_SIZE], token[IV_SIZE:], None, opened)
        except self._invalid:
            return False
        return opened == self._owner


@dataclass(frozen=True, slots=True)
class Claim:
    """What a token is good for: one connection, of this id, of this session."""

    paths: ServerPaths
    connection_id: int


class TokenRegistry:
    """The unused tokens of a server's sessions."""

    def __init__(self, engine: CryptoEngine) -> None:
        self._mint = TokenMint(engine)
        self._claims: dict[bytes, Claim] = {}

    def issue(self, paths: ServerPaths, connection_id: int) -> bytes:
        token = self._mint.make()
        self._claims[token] = Claim(paths, connection_id)
        return token

    def find(self, token: bytes) -> Claim | None:
        """None for what is not genuine, and for what was used or forgotten."""
        return self._claims.get(token) if self._mint.is_ours(token) else None

    def forget(self, token: bytes) -> None:
        self._claims.pop(token, None)
