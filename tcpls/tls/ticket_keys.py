"""The keys that a server seals its tickets with (RFC 8446 section 4.6.1, RFC 5077 section 4): they rotate, and may be
shared by several processes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from tcpls.errors import ConfigurationError, PeerError
from tcpls.tls.engine import CryptoEngine
from tcpls.tls.suites import IV_SIZE, TAG_SIZE, Aead, CipherSuite, Random, TrafficKeys
from tcpls.tls.tickets import DEFAULT_LIFETIME, MAX_LIFETIME, TicketState

_NAME_SIZE = 16
_KEY_SIZE = 32
_SEALED_LIMIT = 1 << 28
"""Tickets that one process seals under one key. Random nonces must not be used for more than 2^32 in all (NIST SP
800-38D 8.3), which leaves room for sixteen processes with the same keys."""
MAX_KEYS = 8
"""Keys held. Two are enough while tickets last as long for all who share them."""
SKEW = 60_000
"""Milliseconds by which a key may come from the future: of another process, whose clock was read a little later."""
LOOK_AGAIN = 1000
"""Milliseconds between two looks at shared keys, however many unknown tickets come."""


@dataclass(frozen=True, slots=True)
class TicketKey:
    """`since`: when it began to seal, in milliseconds since 1970."""

    name: bytes
    key: bytes = field(repr=False)
    since: int


_HEADER = "tcpls ticket keys 1"
_LINE = re.compile(rf"([0-9a-f]{{{2 * _NAME_SIZE}}}) ([0-9]{{1,18}}) ([0-9a-f]{{{2 * _KEY_SIZE}}})")


def write_keys(keys: Iterable[TicketKey]) -> bytes:
    """The text form: a header, then a line for each key."""
    lines = [_HEADER, *(f"{key.name.hex()} {key.since} {key.key.hex()}" for key in keys)]
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def read_keys(data: bytes) -> tuple[TicketKey, ...]:
    """Of nothing, none. Raises `ConfigurationError` for what `write_keys` has not written."""
    if not data:
        return ()
    header, *lines = data.decode("latin-1").removesuffix("\n").split("\n")
    if header != _HEADER:
        raise ConfigurationError("this is no file of ticket keys")
    if len(lines) > MAX_KEYS:
        raise ConfigurationError(f"more than {MAX_KEYS} ticket keys")
    keys = []
    for number, line in enumerate(lines, 2):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigurationError(f"line {number} is no ticket key")
        keys.append(TicketKey(bytes.fromhex(match[1]), bytes.fromhex(match[3]), int(match[2])))
    return tuple(keys)


Keys = tuple[TicketKey, ...]


class KeyVault(Protocol):
    """Where several processes, or a server and its next start, have the same keys. Never raises."""

    def load(self) -> Keys | None:
        """The keys there are; None when they cannot be had."""

    def update(self, change: Callable[[Keys], Keys]) -> Keys | None:
        """Replaces the keys by what `change` makes of them, while nobody else can. None when that was impossible."""


class TicketKeys:
    """Seals and opens tickets with keys that change every `lifetime` seconds, which is as long as tickets live.

    Two keys are held: the one that seals, and the one before, whose tickets may still be alive. What was sealed
    earlier cannot be opened by anybody any more. A third one comes only when a key has sealed its fill. With a
    `vault`, they are its keys; what it cannot give or take, this process does without.
    """

    def __init__(
        self, engine: CryptoEngine, random: Random, lifetime: int = DEFAULT_LIFETIME, vault: KeyVault | None = None
    ) -> None:
        # RFC 8446 4.6.1: servers must not use a value greater than seven days.
        if not 1 <= lifetime <= MAX_LIFETIME:
            raise ConfigurationError("tickets live from 1 second to 7 days")
        self.lifetime = lifetime
        self._engine = engine
        self._random = random
        self._vault = vault
        self._looked_at = 0
        self._keys: Keys = ()
        self._sealed: dict[bytes, int] = {}

    def __repr__(self) -> str:
        return f"TicketKeys(lifetime={self.lifetime})"

    def seal(self, state: TicketState, now: int) -> bytes:
        """`now`: milliseconds since 1970."""
        key = self._current(now)
        self._sealed[key.name] = self._sealed.get(key.name, 0) + 1
        plaintext, nonce = state.write(), self._random(IV_SIZE)
        sealed = bytearray(len(plaintext) + TAG_SIZE)
        self._aead(key).encrypt_into(nonce, plaintext, key.name, sealed)
        return key.name + nonce + sealed

    def open(self, ticket: bytes, now: int) -> TicketState | None:
        """None for what this server has not sealed, or can no longer open, or what has expired."""
        name, nonce = ticket[:_NAME_SIZE], ticket[_NAME_SIZE : _NAME_SIZE + IV_SIZE]
        sealed = ticket[_NAME_SIZE + IV_SIZE :]
        key = self._named(name, now) if len(sealed) > TAG_SIZE else None
        if key is None:
            return None
        plaintext = bytearray(len(sealed) - TAG_SIZE)
        try:
            self._aead(key).decrypt_into(nonce, sealed, name, plaintext)
            state = TicketState.read(plaintext)
        except (self._engine.invalid_tag, PeerError):
            return None
        return state if state.alive(now) else None

    def _aead(self, key: TicketKey) -> Aead:
        return self._engine.aead(TrafficKeys(CipherSuite.AES_256_GCM_SHA384, key.key, bytes(IV_SIZE)))

    def _named(self, name: bytes, now: int) -> TicketKey | None:
        for _ in range(2):
            self._hold(self._keys, now)
            for key in self._keys:
                if key.name == name:
                    return key
            # It may be a key that another process has made since.
            if self._vault is None or 0 <= now - self._looked_at < LOOK_AGAIN:
                return None
            self._looked_at = now
            self._hold((*self._keys, *(self._vault.load() or ())), now)
        return None

    def _current(self, now: int) -> TicketKey:
        self._hold(self._keys, now)
        if not self._good(self._keys, now):
            there = None if self._vault is None else self._vault.update(lambda keys: self._renewed(keys, now))
            self._hold((*self._keys, *(there or ())), now)
            if not self._good(self._keys, now):
                self._hold(self._renewed(self._keys, now), now)
        return self._keys[0]

    def _good(self, keys: Keys, now: int) -> bool:
        """Whether the first of the keys may seal."""
        return bool(keys) and now - keys[0].since < self.lifetime * 1000 and self._room(keys[0])

    def _room(self, key: TicketKey) -> bool:
        return self._sealed.get(key.name, 0) < _SEALED_LIMIT

    def _renewed(self, keys: Keys, now: int) -> Keys:
        """The keys that are alive, with one in front that may seal."""
        keys = self._alive(keys, now)
        return keys if self._good(keys, now) else (self._made(now), *keys)[:MAX_KEYS]

    def _made(self, now: int) -> TicketKey:
        return TicketKey(self._random(_NAME_SIZE), self._random(_KEY_SIZE), now)

    def _hold(self, keys: Keys, now: int) -> None:
        """Keeps those of the keys that are alive, and forgets everything about all others."""
        self._keys = self._alive(keys, now)
        self._sealed = {key.name: self._sealed[key.name] for key in self._keys if key.name in self._sealed}

    def _alive(self, keys: Keys, now: int) -> Keys:
        """Each once, without those whose last ticket has expired, the newest first."""
        limit = 2 * self.lifetime * 1000
        alive = {key.name: key for key in keys if -SKEW <= now - key.since < limit}
        return tuple(sorted(alive.values(), key=lambda key: key.since, reverse=True))[:MAX_KEYS]
