"""By what a server shows that it uses the ClientHello that was encrypted (RFC 9849 7.2)."""

from __future__ import annotations

from dataclasses import replace

from tcpls.tls.engine import CryptoEngine
from tcpls.tls.extensions import ExtensionType
from tcpls.tls.key_schedule import expand_label
from tcpls.tls.messages import ServerHello
from tcpls.tls.suites import CipherSuite
from tcpls.tls.transcript import Transcript

CONFIRMATION_SIZE = 8


def accept_confirmation(
    engine: CryptoEngine, transcript: Transcript, suite: CipherSuite, client_random: bytes, hello: ServerHello
) -> bytes:
    """The last bytes of `ServerHello.random`. The transcript is that of the inner hellos, up to `hello`."""
    # RFC 9849 7.2: over the ServerHello with zeros in its place.
    blank = replace(hello, random=hello.random[:-CONFIRMATION_SIZE] + bytes(CONFIRMATION_SIZE))
    return _confirm(engine, transcript, suite, client_random, blank, b"ech accept confirmation")


def retry_confirmation(
    engine: CryptoEngine, transcript: Transcript, suite: CipherSuite, client_random: bytes, request: ServerHello
) -> bytes:
    """The extension of a HelloRetryRequest, which has one. The transcript holds the first hello."""
    # RFC 9849 7.2.1: as before.
    blank = replace(
        request, extensions={**request.extensions, ExtensionType.ENCRYPTED_CLIENT_HELLO: bytes(CONFIRMATION_SIZE)}
    )
    return _confirm(engine, transcript, suite, client_random, blank, b"hrr ech accept confirmation")


def _confirm(
    engine: CryptoEngine,
    transcript: Transcript,
    suite: CipherSuite,
    client_random: bytes,
    blank: ServerHello,
    label: bytes,
) -> bytes:
    secret = engine.hmacs[suite.hash_name](bytes(suite.hash_size), client_random)
    digest = transcript.digest_with(suite, blank.write())
    return expand_label(engine, suite, secret, label, digest, CONFIRMATION_SIZE)
