"""What is refused around early data, with reason and alert."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tcpls.errors import Alert, AlertReceived, HandshakeError, Reason
from tcpls.tls.connection import MAX_SKIPPED
from tcpls.tls.early_data import EarlyData, EarlyDataPolicy
from tcpls.tls.early_records import MAX_EMPTY
from tcpls.tls.extensions import ExtensionType
from tcpls.tls.flow import Epoch, MessageToSend
from tcpls.tls.handshake import ClientHandshake, ServerHandshake
from tcpls.tls.messages import ClientHello, EncryptedExtensions, EndOfEarlyData, HandshakeType
from tcpls.tls.tickets import Ticket
from tcpls.wire import Reader
from tests.unit.tls.early import AES_128, CHACHA, PSK, Hostile, Server, client, record, refuses, sealed, ticket_of
from tests.unit.tls.pair import TIME, SecretLog, client_config, move, refused, seeded, server_config

UNEXPECTED = Alert.UNEXPECTED_MESSAGE


# Hostile clients.


@pytest.mark.clause("RFC 8446 4.2.10")
@pytest.mark.parametrize("step", [1, 100, 16384])
def test_too_much(step: int) -> None:
    hostile = Hostile(limit=1000)
    whole = 1000 // step
    for _ in range(whole):
        hostile.server.receive_data(sealed(hostile.early, 23, bytes(step)))
    refuses(hostile.server, sealed(hostile.early, 23, bytes(step)), Reason.TOO_MUCH_EARLY_DATA, UNEXPECTED)
    assert b"".join(hostile.server.early_records()) == bytes(whole * step)


def test_too_many_that_carry_nothing() -> None:
    hostile = Hostile()
    for _ in range(MAX_EMPTY):
        hostile.server.receive_data(sealed(hostile.early, 23, b""))
    refuses(hostile.server, sealed(hostile.early, 23, b""), Reason.TOO_MANY_RECORDS, UNEXPECTED)


END = EndOfEarlyData().write()


@pytest.mark.clause("RFC 8446 4.5", "RFC 8446 5", "RFC 8446 5.1", "RFC 8446 2")
@pytest.mark.parametrize(
    ("records", "reason", "alert"),
    [
        # Early data behind its end, under its own keys and under those of the handshake.
        ([("early", 22, END), ("early", 23, b"late")], Reason.BAD_RECORD_MAC, Alert.BAD_RECORD_MAC),
        ([("early", 22, END), ("handshake", 23, b"late")], Reason.UNEXPECTED_RECORD, UNEXPECTED),
        # The end twice, or under the wrong keys, or not empty, or missing.
        ([("early", 22, END), ("handshake", 22, END)], Reason.UNEXPECTED_MESSAGE, UNEXPECTED),
        ([("handshake", 22, END)], Reason.BAD_RECORD_MAC, Alert.BAD_RECORD_MAC),
        ([("early", 22, b"\x05\0\0\1x")], Reason.TRAILING_BYTES, Alert.DECODE_ERROR),
        ([("handshake", 22, b"\x14\0\0\x20" + bytes(32))], Reason.BAD_RECORD_MAC, Alert.BAD_RECORD_MAC),
        ([("early", 22, b"\x14\0\0\x20" + bytes(32))], Reason.UNEXPECTED_MESSAGE, UNEXPECTED),
        # A message across the change of keys; data within a message; other content.
        ([("early", 22, END + b"\x14")], Reason.MESSAGE_ACROSS_KEYS, UNEXPECTED),
        ([("early", 22, END[:2]), ("early", 23, b"data")], Reason.UNEXPECTED_RECORD, UNEXPECTED),
        ([("early", 22, b"")], Reason.EMPTY_RECORD, UNEXPECTED),
        ([("early", 20, b"\x01")], Reason.UNEXPECTED_RECORD, UNEXPECTED),
        ([("early", 24, b"x")], Reason.UNEXPECTED_RECORD, UNEXPECTED),
        ([("early", 22, b"\x01\0\0\0")], Reason.UNEXPECTED_MESSAGE, UNEXPECTED),
        ([("early", 22, b"\x18\0\0\1\0")], Reason.UNEXPECTED_MESSAGE, UNEXPECTED),
    ],
)
def test_hostile_records(records: list[tuple[str, int, bytes]], reason: Reason, alert: Alert) -> None:
    hostile = Hostile()
    for sealer, content_type, content in records[:-1]:
        hostile.server.receive_data(sealed(getattr(hostile, sealer), content_type, content))
    sealer, content_type, content = records[-1]
    refuses(hostile.server, sealed(getattr(hostile, sealer), content_type, content), reason, alert)


@pytest.mark.clause("RFC 8446 4.2.10", "RFC 8446 5.2")
def test_a_forged_record_of_accepted_early_data() -> None:
    hostile = Hostile()
    forged = bytearray(sealed(hostile.early, 23, b"early"))
    forged[-1] ^= 1
    refuses(hostile.server, bytes(forged), Reason.BAD_RECORD_MAC, Alert.BAD_RECORD_MAC)


@pytest.mark.clause("RFC 8446 5")
def test_plaintext_where_early_data_is_protected() -> None:
    for plain in (record(22, END), record(20, b"\x02")):
        refuses(Hostile().server, plain, Reason.UNEXPECTED_RECORD, UNEXPECTED)


def test_alerts_behind_early_data() -> None:
    """A client that refuses the server's flight has only the keys of early data, or none."""
    for protect in (True, False):
        hostile = Hostile()
        hostile.server.receive_data(sealed(hostile.early, 23, b"early"))
        alert = b"\x02" + bytes((Alert.HANDSHAKE_FAILURE,))
        data = sealed(hostile.early, 21, alert) if protect else record(21, alert)
        with pytest.raises(AlertReceived) as caught:
            hostile.server.receive_data(data)
        assert caught.value.alert == Alert.HANDSHAKE_FAILURE


@pytest.mark.clause("RFC 8446 4.5")
def test_end_of_early_data_without_early_data() -> None:
    log, side = SecretLog(), Server()
    plain = client(ticket_of(side), early_data=False, suites=(AES_128,))
    server = side.connection(key_log=log)
    move(plain, server)
    end = sealed(Hostile.sealer(log["CLIENT_HANDSHAKE_TRAFFIC_SECRET"]), 22, END)
    refuses(server, end, Reason.UNEXPECTED_MESSAGE, UNEXPECTED)


@pytest.mark.clause("RFC 8446 4.5")
def test_end_of_rejected_early_data() -> None:
    """RFC 8446 4.5: there must be none when it was not accepted."""
    log, side = SecretLog(), Server()
    early = client(ticket_of(side), suites=(AES_128,))
    server = side.connection(key_log=log, early_data=None)
    move(early, server)
    end = sealed(Hostile.sealer(log["CLIENT_HANDSHAKE_TRAFFIC_SECRET"]), 22, END)
    refuses(server, end, Reason.UNEXPECTED_MESSAGE, UNEXPECTED)


@pytest.mark.clause("RFC 8446 4.2.10")
def test_rejected_early_data_is_skipped_up_to_what_a_ticket_allowed() -> None:
    side = Server(limit=100_000)
    early = client(ticket_of(side))
    server = side.connection(60.0)
    server.receive_data(early.data_to_send())
    assert server.early_data is EarlyData.OUT_OF_TIME
    junk = record(23, bytes(16_000))
    for _ in range((100_000 + MAX_SKIPPED) // len(junk)):
        server.receive_data(junk)
    refuses(server, junk, Reason.TOO_MUCH_EARLY_DATA, UNEXPECTED)


@pytest.mark.clause("RFC 8446 4.2.10")
@pytest.mark.parametrize("contents", [b"\0", b"\0\0\x40\0"])
def test_early_data_is_empty_in_a_hello(contents: bytes) -> None:
    side = Server()
    hello = ClientHello.read(Reader(client(None).data_to_send()[9:]))
    changed = replace(hello, extensions={ExtensionType.EARLY_DATA: contents, **hello.extensions})
    refuses(side.connection(), record(22, changed.write()), Reason.BAD_LENGTH, Alert.DECODE_ERROR)


def test_the_limit_is_that_of_the_ticket() -> None:
    """A server that allows more since then, still takes no more with this ticket."""
    side = Server(limit=100)
    ticket = ticket_of(side)
    more = EarlyDataPolicy(side.policy.replay, 1000)
    log = SecretLog()
    early, server = client(ticket, 1.0), side.connection(1.0, early_data=more, key_log=log)
    move(early, server)
    sealer = Hostile.sealer(log["CLIENT_EARLY_TRAFFIC_SECRET"])
    refuses(server, sealed(sealer, 23, bytes(101)), Reason.TOO_MUCH_EARLY_DATA, UNEXPECTED)


# Hostile servers.


def hostile_flight(
    change: Callable[[dict[int, bytes]], dict[int, bytes]], ticket: Ticket, side: Server, **config: Any
) -> tuple[ClientHandshake, bytes]:
    """A client that has had ServerHello, and the EncryptedExtensions of its server as `change` makes them."""
    settings = client_config(ticket=ticket, early_data=True, **config)
    early = ClientHandshake(settings, random=seeded(1), time=TIME)
    server = side.connection(alpn=(b"h2", b"h3"))._handshake
    server.receive(Epoch.INITIAL, next(event.data for event in early.events() if isinstance(event, MessageToSend)))
    said = [event.data for event in server.events() if isinstance(event, MessageToSend)]
    early.receive(Epoch.INITIAL, said[0])
    assert said[1][0] == HandshakeType.ENCRYPTED_EXTENSIONS
    block = Reader(said[1][4:])
    extensions = EncryptedExtensions.read(block, range(1 << 16)).extensions
    return early, EncryptedExtensions(change(extensions)).write()


@pytest.mark.clause("RFC 8446 4.2.10", "RFC 8446 4.2.11")
@pytest.mark.parametrize(
    ("contents", "first", "config", "reason", "alert"),
    [
        (b"\0", {}, {}, Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        # Another protocol, suite or key than the ticket's, where early data is said to be accepted.
        (b"", {"alpn": (b"h3",)}, {"alpn": (b"h2", b"h3")}, Reason.ILLEGAL_CHOICE, Alert.ILLEGAL_PARAMETER),
        (b"", {}, {"alpn": (b"h2",)}, Reason.ILLEGAL_CHOICE, Alert.ILLEGAL_PARAMETER),
        (b"", {}, {"suites": (CHACHA, AES_128)}, Reason.ILLEGAL_CHOICE, Alert.ILLEGAL_PARAMETER),
    ],
)
def test_hostile_acceptance(
    contents: bytes, first: dict[str, Any], config: dict[str, Any], reason: Reason, alert: Alert
) -> None:
    side = Server()
    ticket = ticket_of(side, {"suites": (AES_128,), **first}, alpn=(b"h3",))
    if "suites" in config:
        # The server resumes under the suite that it likes best, as one may that rejects early data.
        ticket = replace(ticket, suite=CHACHA)
    early, extensions = hostile_flight(
        lambda sent: {**sent, ExtensionType.EARLY_DATA: contents}, ticket, side, **config
    )
    with pytest.raises(HandshakeError) as caught:
        early.receive(Epoch.HANDSHAKE, extensions)
    refused(caught.value, reason, alert)


@pytest.mark.clause("RFC 8446 4.2.11")
def test_acceptance_with_another_key() -> None:
    """RFC 8446 4.2.11: with early data, the selected identity must be 0."""
    side = Server()
    early = ClientHandshake(
        client_config(ticket=ticket_of(side), psks=(PSK,), early_data=True), random=seeded(1), time=TIME
    )
    server = ServerHandshake(server_config(psks=(PSK,)), random=seeded(2))
    server.receive(Epoch.INITIAL, next(event.data for event in early.events() if isinstance(event, MessageToSend)))
    early.receive(Epoch.INITIAL, next(event.data for event in server.events() if isinstance(event, MessageToSend)))
    with pytest.raises(HandshakeError) as caught:
        early.receive(Epoch.HANDSHAKE, EncryptedExtensions({ExtensionType.EARLY_DATA: b""}).write())
    refused(caught.value, Reason.ILLEGAL_CHOICE, Alert.ILLEGAL_PARAMETER)


@pytest.mark.clause("RFC 8446 4.2")
def test_acceptance_of_what_was_not_offered() -> None:
    side = Server()
    for settings in ({"early_data": False}, {"ticket": None}):
        config = client_config(**{"ticket": ticket_of(side), "early_data": True, **settings})
        early = ClientHandshake(config, random=seeded(1), time=TIME)
        server = ServerHandshake(server_config(ticket_keys=side.keys), random=seeded(2), time=TIME)
        server.receive(Epoch.INITIAL, next(event.data for event in early.events() if isinstance(event, MessageToSend)))
        early.receive(Epoch.INITIAL, next(event.data for event in server.events() if isinstance(event, MessageToSend)))
        with pytest.raises(HandshakeError) as caught:
            early.receive(Epoch.HANDSHAKE, EncryptedExtensions({ExtensionType.EARLY_DATA: b""}).write())
        refused(caught.value, Reason.UNSUPPORTED_EXTENSION, Alert.UNSUPPORTED_EXTENSION)
