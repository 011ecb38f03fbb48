"""The transcript hash (RFC 8446 section 4.4.1)."""

from __future__ import annotations

from tcpls.tls.engine import CryptoEngine, HashState
from tcpls.tls.suites import CipherSuite

_MESSAGE_HASH = 254


class Transcript:
    """Hashes the handshake messages. Until the suite is known it keeps them, because the hash is not known either."""

    __slots__ = ("_engine", "_hash", "_kept")

    def __init__(self, engine: CryptoEngine) -> None:
        self._engine = engine
        self._kept = b""
        self._hash: HashState | None = None

    def add(self, message: bytes) -> None:
        """A whole message with its header."""
        if self._hash is None:
            self._kept += message
        else:
            self._hash.update(message)

    def choose(self, suite: CipherSuite) -> None:
        """The suite is agreed on. Again after a retry, when it cannot be another one."""
        if self._hash is None:
            self._hash = self._engine.hash(suite.hash_name)
            self._hash.update(self._kept)
            self._kept = b""

    def retry(self, suite: CipherSuite) -> None:
        """Replaces the first ClientHello by its hash, ahead of the HelloRetryRequest."""
        first = self._engine.hash(suite.hash_name)
        first.update(self._kept)
        digest = first.digest()
        self._kept = bytes((_MESSAGE_HASH, 0, 0, len(digest))) + digest
        self.choose(suite)

    def digest(self) -> bytes:
        """The hash of everything added so far. The suite has been chosen."""
        if self._hash is None:
            raise RuntimeError("the transcript's hash is not chosen yet")
        return self._hash.copy().digest()

    def digest_with(self, suite: CipherSuite, partial: bytes) -> bytes:
        """The hash of everything added so far and of `partial` behind it, as binders need it.

        Once a suite has been chosen (RFC 8446 4.2.11.2: after a retry), `suite` has its hash.
        """
        if self._hash is None:
            running = self._engine.hash(suite.hash_name)
            running.update(self._kept)
        else:
            running = self._hash.copy()
        running.update(partial)
        return running.digest()
