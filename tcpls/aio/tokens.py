"""Tokens by which connections join the sessions of a server."""

from __future__ import annotations

import asyncio
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
    """The unused tokens of a server's sessions.

    One is given with the handshake, ahead of its session: a connection that comes with it before the client's last
    flight is there waits for the session.
    """

    def __init__(self, engine: CryptoEngine, patience: float) -> None:
        """`patience`: seconds that a handshake may take."""
        self._mint = TokenMint(engine)
        self._patience = patience
        self._claims: dict[bytes, Claim] = {}
        self._reserved: dict[bytes, _Reservation] = {}

    def reserve(self) -> bytes:
        """A token for a session that is being made. `bind` follows, or nothing when the handshake fails."""
        loop = asyncio.get_running_loop()
        now, token = loop.time(), self._mint.make()
        while self._reserved and (oldest := next(iter(self._reserved))) and self._reserved[oldest].until <= now:
            self.forget(oldest)
        self._reserved[token] = _Reservation(loop.create_future(), now + self._patience)
        return token

    def bind(self, token: bytes, paths: ServerPaths, connection_id: int) -> None:
        """The session of a reserved token is there."""
        self._claims[token] = Claim(paths, connection_id)
        self._settle(token)

    def issue(self, paths: ServerPaths, connection_id: int) -> bytes:
        token = self._mint.make()
        self._claims[token] = Claim(paths, connection_id)
        return token

    def knows(self, token: bytes) -> bool:
        """Whether a token is genuine, and neither used nor forgotten."""
        return self._mint.is_ours(token) and (token in self._claims or token in self._reserved)

    async def find(self, token: bytes) -> Claim | None:
        """What a token is good for, once its session is there; None when it is good for nothing."""
        if not self._mint.is_ours(token):
            return None
        if (reserved := self._reserved.get(token)) is not None:
            await asyncio.wait((reserved.settled,), timeout=self._patience)
        return self._claims.get(token)

    def forget(self, token: bytes) -> None:
        self._claims.pop(token, None)
        self._settle(token)

    def _settle(self, token: bytes) -> None:
        if (reserved := self._reserved.pop(token, None)) is not None:
            reserved.settled.set_result(None)


@dataclass(frozen=True, slots=True)
class _Reservation:
    """`settled` is done when the token's session is there, or will not be. Times are those of the event loop."""

    settled: asyncio.Future[None]
    until: float
