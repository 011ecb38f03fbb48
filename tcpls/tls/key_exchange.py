"""Key exchange beyond one curve: hybrids with ML-KEM (draft-ietf-tls-ecdhe-mlkem), and which shares a client makes.

A hybrid is not symmetric: the client sends an encapsulation key, the server answers with a ciphertext. So the client
makes a `PrivateShare` and the server *answers* a share; for Diffie-Hellman both are the same computation.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from tcpls.errors import ConfigurationError, HandshakeError, Reason
from tcpls.tls.algorithms import DEFAULT_GROUPS, Group
from tcpls.tls.engine import CryptoEngine, PrivateShare
from tcpls.tls.suites import Random

MLKEM_SEED = 64
"""Bytes of the seed that a key pair is made from (FIPS 203, 3.3)."""


class Kem(enum.Enum):
    """The parameter sets of ML-KEM that are used, with the bytes of key and ciphertext (FIPS 203 table 3)."""

    MLKEM768 = (768, 1184, 1088)
    MLKEM1024 = (1024, 1568, 1568)

    def __init__(self, level: int, key_size: int, ciphertext_size: int) -> None:
        self.label = f"ML-KEM-{level}"
        self.key_size = key_size
        self.ciphertext_size = ciphertext_size


class KemKey(Protocol):
    """The private key of an ML-KEM key pair."""

    @property
    def public(self) -> bytes:
        """The encapsulation key."""

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """The shared secret. The ciphertext has the right length; one that is not genuine gives another secret."""


Encapsulate = Callable[[Kem, bytes], tuple[bytes, bytes]]
"""From an encapsulation key of the right length: ciphertext and shared secret.

Raises `HandshakeError(BAD_KEY_SHARE)` when a coefficient is not reduced (FIPS 203 7.2, the modulus check).
"""


@dataclass(frozen=True, slots=True)
class Hybrid:
    """How a hybrid group puts its two halves together, in the shares and in the shared secret alike."""

    classical: Group
    classical_size: int
    kem: Kem
    kem_first: bool

    def join(self, classical: bytes, kem: bytes) -> bytes:
        return kem + classical if self.kem_first else classical + kem

    def split(self, group: Group, share: bytes, kem_size: int) -> tuple[bytes, bytes]:
        """The classical half and ML-KEM's."""
        # draft-ietf-tls-ecdhe-mlkem 4.1 and 4.2: another length is an illegal_parameter.
        if len(share) != self.classical_size + kem_size:
            raise HandshakeError(Reason.BAD_KEY_SHARE, group.label)
        if self.kem_first:
            return share[kem_size:], share[:kem_size]
        return share[: self.classical_size], share[self.classical_size :]


# draft-ietf-tls-ecdhe-mlkem section 4: ML-KEM comes first with X25519, and last with P-256 and P-384, for the sake of
# FIPS 140.
HYBRIDS = {
    Group.X25519MLKEM768: Hybrid(Group.X25519, 32, Kem.MLKEM768, kem_first=True),
    Group.SECP256R1MLKEM768: Hybrid(Group.SECP256R1, 65, Kem.MLKEM768, kem_first=False),
    Group.SECP384R1MLKEM1024: Hybrid(Group.SECP384R1, 97, Kem.MLKEM1024, kem_first=False),
}


class HybridShare:
    """A client's share of a hybrid group."""

    __slots__ = ("_hybrid", "_kem", "classical", "group", "public")

    def __init__(self, group: Group, classical: PrivateShare, kem: KemKey) -> None:
        self.group = group
        self.classical = classical
        self._hybrid = HYBRIDS[group]
        self._kem = kem
        self.public = self._hybrid.join(classical.public, kem.public)

    def exchange(self, peer: bytes) -> bytes:
        classical, ciphertext = self._hybrid.split(self.group, peer, self._hybrid.kem.ciphertext_size)
        return self._hybrid.join(self.classical.exchange(classical), self._kem.decapsulate(ciphertext))


def answer_hybrid(group: Group, peer: bytes, classical: PrivateShare, encapsulate: Encapsulate) -> tuple[bytes, bytes]:
    """A server's share and the shared secret, for a client's share of a hybrid group."""
    hybrid = HYBRIDS[group]
    point, key = hybrid.split(group, peer, hybrid.kem.key_size)
    secret = classical.exchange(point)
    ciphertext, encapsulated = encapsulate(hybrid.kem, key)
    return hybrid.join(classical.public, ciphertext), hybrid.join(secret, encapsulated)


def usable_groups(groups: tuple[Group, ...], engine: CryptoEngine) -> tuple[Group, ...]:
    """The default, as far as the engine has it; anything else as it is. Raises `ConfigurationError` if it cannot be."""
    if groups is DEFAULT_GROUPS:
        groups = tuple(group for group in groups if group in engine.groups)
    if not groups:
        raise ConfigurationError("at least one key exchange group is needed")
    for group in groups:
        if group not in engine.groups:
            raise ConfigurationError(f"{group.label}: the cryptographic library of the engine {engine.name} lacks it")
    return groups


def _first_shares(groups: Sequence[Group], count: int | None) -> Collection[Group]:
    """The groups of the first ClientHello's shares.

    Without a `count`: the first group, and with a hybrid also its curve alone, which costs the client 36 bytes and
    saves a server that has no ML-KEM the retry.
    """
    if count is not None:
        return groups[:count]
    first = groups[0]
    hybrid = HYBRIDS.get(first)
    return (first, hybrid.classical) if hybrid is not None and hybrid.classical in groups else (first,)


def client_shares(
    engine: CryptoEngine, groups: Sequence[Group], count: int | None, random: Random
) -> dict[Group, PrivateShare]:
    """The shares of a first ClientHello, in the order of `groups` (RFC 8446 4.2.8).

    A curve uses the key that a hybrid has made for it (draft-ietf-tls-hybrid-design 3.2 allows it): the server chooses
    one of the two groups, so that the key is used once, as it would be alone.
    """
    chosen = _first_shares(groups, count)
    made: dict[Group, PrivateShare] = {}
    for group in chosen:
        if group in HYBRIDS:
            made[group] = share = engine.private_share(group, random)
            if isinstance(share, HybridShare):
                made.setdefault(share.classical.group, share.classical)
    return {group: made.get(group) or engine.private_share(group, random) for group in chosen}
