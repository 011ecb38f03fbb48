"""The key schedule (RFC 8446 section 7.1) as types: each stage gives out only the secrets of its epoch."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from functools import cache

from tcpls.errors import ApiMisuse
from tcpls.tls.engine import CryptoEngine
from tcpls.tls.suites import IV_SIZE, CipherSuite, TrafficKeys


def expand_label(
    engine: CryptoEngine, suite: CipherSuite, secret: bytes, label: bytes, context: bytes, length: int
) -> bytes:
    """HKDF-Expand-Label (RFC 8446 7.1)."""
    info = b"%b%c%b%b%c%b" % (length.to_bytes(2, "big"), len(label) + 6, b"tls13 ", label, len(context), context)
    hmac = engine.hmacs[suite.hash_name]
    block = hmac(secret, info + b"\x01")
    if length <= len(block):
        return block[:length]
    # HKDF-Expand (RFC 5869 2.3). Its bound of 255 blocks is the counter's single byte.
    output = bytearray(block)
    for counter in range(2, -(-length // len(block)) + 1):
        block = hmac(secret, b"%b%b%c" % (block, info, counter))
        output += block
    return bytes(output[:length])


def _keys(engine: CryptoEngine, suite: CipherSuite, secret: bytes, sequence: int) -> TrafficKeys:
    """RFC 8446 7.3."""
    return TrafficKeys(
        suite,
        expand_label(engine, suite, secret, b"key", b"", suite.key_size),
        expand_label(engine, suite, secret, b"iv", b"", IV_SIZE),
        sequence,
    )


@dataclass(frozen=True, slots=True)
class HandshakeTrafficSecret:
    """One direction's handshake traffic secret."""

    engine: CryptoEngine = field(repr=False, compare=False)
    suite: CipherSuite
    secret: bytes = field(repr=False)

    def keys(self) -> TrafficKeys:
        return _keys(self.engine, self.suite, self.secret, 0)

    def verify_data(self, transcript_hash: bytes) -> bytes:
        """The contents of this direction's Finished (RFC 8446 4.4.4)."""
        key = expand_label(self.engine, self.suite, self.secret, b"finished", b"", self.suite.hash_size)
        return self.engine.hmacs[self.suite.hash_name](key, transcript_hash)


@dataclass(frozen=True, slots=True)
class TrafficSecret:
    """One direction's application traffic secret of one generation."""

    engine: CryptoEngine = field(repr=False, compare=False)
    suite: CipherSuite
    secret: bytes = field(repr=False)
    generation: int = 0

    def keys(self, sequence: int = 0) -> TrafficKeys:
        return _keys(self.engine, self.suite, self.secret, sequence)

    def next(self) -> TrafficSecret:
        """The secret after a KeyUpdate (RFC 8446 7.2)."""
        secret = expand_label(self.engine, self.suite, self.secret, b"traffic upd", b"", self.suite.hash_size)
        return TrafficSecret(self.engine, self.suite, secret, self.generation + 1)


MAX_LABEL = 255 - len("tls13 ")


@dataclass(frozen=True, slots=True)
class Exporter:
    """The exporter master secret (RFC 8446 7.5)."""

    engine: CryptoEngine = field(repr=False, compare=False)
    suite: CipherSuite
    secret: bytes = field(repr=False)

    def export(self, label: bytes, context: bytes, length: int) -> bytes:
        """`length` bytes that only the two ends of this connection know."""
        # RFC 8446 7.1: a label has 255 bytes with its prefix, and HKDF (RFC 5869 2.3) gives 255 hashes.
        if not 0 < len(label) <= MAX_LABEL or not 0 < length <= 255 * self.suite.hash_size:
            raise ApiMisuse(
                f"an exporter's label has 1 to {MAX_LABEL} bytes, what it gives 1 to {255 * self.suite.hash_size}"
            )
        of_context = self.engine.hash(self.suite.hash_name)
        of_context.update(context)
        empty = _hash_of_nothing(self.engine, self.suite)
        derived = expand_label(self.engine, self.suite, self.secret, label, empty, self.suite.hash_size)
        return expand_label(self.engine, self.suite, derived, b"exporter", of_context.digest(), length)


@dataclass(frozen=True, slots=True)
class ApplicationSecrets:
    """What the master secret gives, for the transcript up to the server's Finished."""

    client: TrafficSecret
    server: TrafficSecret
    exporter: Exporter


@dataclass(frozen=True, slots=True)
class ResumptionSecret:
    """The resumption master secret: what the keys of this connection's tickets are made of."""

    engine: CryptoEngine = field(repr=False, compare=False)
    suite: CipherSuite
    secret: bytes = field(repr=False)

    def key(self, nonce: bytes) -> bytes:
        """The pre-shared key of the ticket with this nonce (RFC 8446 4.6.1)."""
        return expand_label(self.engine, self.suite, self.secret, b"resumption", nonce, self.suite.hash_size)


@dataclass(frozen=True, slots=True)
class HandshakeSecrets:
    """What the handshake secret gives, for the transcript up to ServerHello."""

    engine: CryptoEngine = field(repr=False, compare=False)
    suite: CipherSuite
    client: HandshakeTrafficSecret
    server: HandshakeTrafficSecret
    master: bytes = field(repr=False)

    def application(self, transcript_hash: bytes) -> ApplicationSecrets:
        engine, suite = self.engine, self.suite
        client, server, exporter = (
            expand_label(engine, suite, self.master, label, transcript_hash, suite.hash_size)
            for label in (b"c ap traffic", b"s ap traffic", b"exp master")
        )
        return ApplicationSecrets(
            TrafficSecret(engine, suite, client),
            TrafficSecret(engine, suite, server),
            Exporter(engine, suite, exporter),
        )

    def resumption(self, transcript_hash: bytes) -> ResumptionSecret:
        """For the transcript up to the client's Finished."""
        engine, suite = self.engine, self.suite
        secret = expand_label(engine, suite, self.master, b"res master", transcript_hash, suite.hash_size)
        return ResumptionSecret(engine, suite, secret)


class BinderKind(enum.Enum):
    """Where a pre-shared key comes from, and the label of its binder key (RFC 8446 7.1, RFC 9258 section 5.2)."""

    EXTERNAL = b"ext binder"
    RESUMPTION = b"res binder"
    IMPORTED = b"imp binder"


@dataclass(frozen=True, slots=True)
class EarlyTrafficSecret:
    """The client's early traffic secret, which protects its 0-RTT data and its EndOfEarlyData."""

    engine: CryptoEngine = field(repr=False, compare=False)
    suite: CipherSuite
    secret: bytes = field(repr=False)

    def keys(self) -> TrafficKeys:
        return _keys(self.engine, self.suite, self.secret, 0)


@dataclass(frozen=True, slots=True)
class EarlySecrets:
    """What the early secret gives. `suite`: of a pre-shared key only the suite's hash matters here.

    `salt`: what the handshake secret is extracted with.
    """

    engine: CryptoEngine = field(repr=False, compare=False)
    suite: CipherSuite
    secret: bytes = field(repr=False)
    salt: bytes = field(repr=False)

    @classmethod
    def derive(cls, engine: CryptoEngine, suite: CipherSuite, key: bytes | None = None) -> EarlySecrets:
        """From a pre-shared key; without one, from zeros (RFC 8446 7.1)."""
        if key is None:
            return _early_without_key(engine, suite)
        secret = engine.hmacs[suite.hash_name](bytes(suite.hash_size), key)
        return cls(engine, suite, secret, _salt(engine, suite, secret))

    def _derived(self, secret: bytes, label: bytes, transcript_hash: bytes) -> bytes:
        """Derive-Secret (RFC 8446 7.1)."""
        return expand_label(self.engine, self.suite, secret, label, transcript_hash, self.suite.hash_size)

    def binder(self, kind: BinderKind, transcript_hash: bytes) -> bytes:
        """For the transcript up to the ClientHello without its binders (RFC 8446 4.2.11.2)."""
        nothing = _hash_of_nothing(self.engine, self.suite)
        base = HandshakeTrafficSecret(self.engine, self.suite, self._derived(self.secret, kind.value, nothing))
        return base.verify_data(transcript_hash)

    def traffic(self, transcript_hash: bytes) -> EarlyTrafficSecret:
        """For the transcript of the ClientHello."""
        return EarlyTrafficSecret(self.engine, self.suite, self._derived(self.secret, b"c e traffic", transcript_hash))

    def exporter(self, transcript_hash: bytes) -> Exporter:
        """The early exporter, for the transcript of the ClientHello (RFC 8446 7.5)."""
        return Exporter(self.engine, self.suite, self._derived(self.secret, b"e exp master", transcript_hash))

    def handshake(self, shared: bytes | None, transcript_hash: bytes) -> HandshakeSecrets:
        """From the (EC)DHE shared secret; None with a pre-shared key alone. For the transcript up to ServerHello."""
        name, size = self.suite.hash_name, self.suite.hash_size
        zeros = bytes(size)
        ingredient = zeros if shared is None else shared
        secret = self.engine.hmacs[name](self.salt, ingredient)
        client = self._derived(secret, b"c hs traffic", transcript_hash)
        server = self._derived(secret, b"s hs traffic", transcript_hash)
        return HandshakeSecrets(
            self.engine,
            self.suite,
            HandshakeTrafficSecret(self.engine, self.suite, client),
            HandshakeTrafficSecret(self.engine, self.suite, server),
            self.engine.hmacs[name](_salt(self.engine, self.suite, secret), zeros),
        )


@cache
def _early_without_key(engine: CryptoEngine, suite: CipherSuite) -> EarlySecrets:
    """The same for every handshake with certificates: nothing secret is in it."""
    return EarlySecrets.derive(engine, suite, bytes(suite.hash_size))


def _salt(engine: CryptoEngine, suite: CipherSuite, secret: bytes) -> bytes:
    """Derive-Secret of no messages, between two stages (RFC 8446 7.1)."""
    return expand_label(engine, suite, secret, b"derived", _hash_of_nothing(engine, suite), suite.hash_size)


@cache
def _hash_of_nothing(engine: CryptoEngine, suite: CipherSuite) -> bytes:
    return engine.hash(suite.hash_name).digest()
