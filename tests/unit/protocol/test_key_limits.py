"""Keys are changed before they have protected as much as their cipher may (RFC 8446 5.5), whatever the core."""

from __future__ import annotations

import pytest

from tcpls.protocol.base import Role, SessionConfig
from tcpls.protocol.connections import KEY_UPDATE_MARGIN
from tcpls.protocol.plain import PlainSession
from tcpls.protocol.session import Session
from tcpls.tls.key_schedule import TrafficSecret
from tcpls.tls.record import RECORD_ROOM, RecordOpener, RecordSealer
from tcpls.tls.suites import CipherSuite
from tests.engine import ENGINE
from tests.unit.protocol.ends import LOCAL, PEER, Sink

BEFORE = 3
"""Records between the start and the limit."""


def secret(suite: CipherSuite, byte: int) -> TrafficSecret:
    return TrafficSecret(ENGINE, suite, bytes((byte,)) * suite.hash_size)


def make(kind: str, suite: CipherSuite, sequence: int, **settings: int) -> PlainSession | Session:
    config = SessionConfig(**settings)  # type: ignore[arg-type]
    read, write = secret(suite, 1), secret(suite, 2)
    if kind == "plain":
        return PlainSession(Role.CLIENT, read, write, config=config, write_sequence=sequence)
    return Session(Role.CLIENT, config, LOCAL, PEER, read, write, write_sequence=sequence)


@pytest.mark.clause("RFC 8446 5.5", "RFC 8446 4.6.3")
@pytest.mark.parametrize("suite", CipherSuite)
@pytest.mark.parametrize("kind", ["plain", "tcpls"])
def test_keys_change_at_the_limit_of_the_suite(kind: str, suite: CipherSuite) -> None:
    # RFC 8446 5.5: 2^24.5 full records for AES-GCM; for ChaCha20-Poly1305 there is none that can be reached.
    assert suite.record_limit == (1 << 48 if suite.label.startswith("TLS_CHACHA") else int(2**24.5))
    start = suite.record_limit - KEY_UPDATE_MARGIN - BEFORE
    core, sink = make(kind, suite, start), Sink()
    core.open_stream()
    for _ in range(2 * BEFORE):
        core.send(0, b"data", 0.0)
        core.transmit(0, sink, 0.0)
    updates = [at for at, (content_type, _) in enumerate(sink.records) if content_type == 22]
    assert updates == [BEFORE]
    # No update of the peer's keys is asked for: its own limits are its own affair.
    assert sink.records[BEFORE] == (22, b"\x18\0\0\1\0")
    ((at, keys),) = sink.keys
    assert at == BEFORE + 1
    assert keys == secret(suite, 2).next().keys()


@pytest.mark.clause("RFC 8446 5.5", "RFC 8446 4.6.3")
@pytest.mark.parametrize("suite", CipherSuite)
def test_records_are_opened_across_many_changes(suite: CipherSuite) -> None:
    """The peer follows each generation; a record of the former one opens nothing."""
    client = make("plain", suite, 0, update_keys_after=4)
    server = PlainSession(Role.SERVER, secret(suite, 2), secret(suite, 1))
    sealer = RecordSealer(ENGINE.aead, secret(suite, 2).keys(), 8 * RECORD_ROOM)
    opener = RecordOpener(ENGINE.aead, secret(suite, 2).keys(), ENGINE.invalid_tag)
    client.open_stream()
    received = b""
    for number in range(40):
        client.send(0, b"%d " % number, 0.0)
        client.transmit(0, sealer, 0.0)
        opener.feed(sealer.pending)
        sealer.sent(len(sealer.pending))
        server.receive_records(0, opener, 0.0)
        received += server.receive(0, 1 << 16) or b""
    assert received == b"".join(b"%d " % number for number in range(40))
    assert opener.sequence < 4
