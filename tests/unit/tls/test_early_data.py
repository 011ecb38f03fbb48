"""0-RTT in both roles: when it is offered and accepted, what is refused, and that nothing is accepted twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tcpls.errors import Alert, ApiMisuse, ConfigurationError, EchRejected, Reason
from tcpls.tls.algorithms import Group
from tcpls.tls.config import Answer
from tcpls.tls.connection import ClientConnection, Established, ServerConnection
from tcpls.tls.early_data import EarlyData, EarlyDataPolicy
from tcpls.tls.ech.status import EchStatus
from tcpls.tls.extensions import ExtensionType
from tcpls.tls.flow import Epoch, MessageToSend, ReadSecret, WriteSecret
from tcpls.tls.handshake import ClientHandshake, ServerHandshake
from tcpls.tls.messages import ClientHello, HandshakeType
from tcpls.tls.psk import bind, unbound
from tcpls.tls.record import ContentType, RecordOpener, RecordSealer
from tcpls.tls.replay import MemoryReplayStore
from tcpls.tls.suites import CipherSuite
from tcpls.tls.ticket_keys import TicketKeys
from tcpls.tls.transcript import Transcript
from tcpls.wire import Reader
from tests.engine import ENGINE
from tests.unit.tls.early import AES_128, CHACHA, LIMIT, NOW, PSK, Server, client, record, refuses, ticket_of
from tests.unit.tls.ech.sealing import CONFIG, KEYS, public_identity
from tests.unit.tls.pair import TIME, SecretLog, client_config, identity, move, seeded, server_config, shake
from tests.unit.tls.test_psk import tickets_of

CHANGE_CIPHER_SPEC = b"\x14\x03\x03\x00\x01\x01"


# What works.


@pytest.mark.clause("RFC 8446 2.3", "RFC 8446 4.2.10", "RFC 8446 4.5")
@pytest.mark.parametrize("chunk", [None, 1, 100])
@pytest.mark.parametrize("compatible", [True, False])
@pytest.mark.parametrize("suite", CipherSuite)
def test_accepted(suite: CipherSuite, compatible: bool, chunk: int | None) -> None:
    side = Server()
    ticket = ticket_of(side, {"suites": (suite,), "alpn": (b"h2",)}, alpn=(b"h2",))
    assert ticket.max_early_data == LIMIT
    logs = SecretLog(), SecretLog()
    early = client(ticket, 5.0, logs[0], alpn=(b"h2",), suites=(suite,), middlebox_compatibility=compatible)
    server = side.connection(5.0, key_log=logs[1], alpn=(b"h2",))
    assert early.early_data is EarlyData.OFFERED
    assert early.early_room == LIMIT
    assert early.send_early(b"first") == 5
    assert early.send_early(b"second") == 6
    move(early, server, chunk)
    assert server.early_records() == [b"first", b"second"]
    assert not server.handshake_complete
    assert server.early_data is EarlyData.ACCEPTED
    assert early.send_early(b"third") == 5
    move(early, server, chunk)
    assert server.early_records() == [b"third"]
    of_client, of_server = shake(early, server, chunk)
    assert of_client.early_data is of_server.early_data is EarlyData.ACCEPTED
    assert of_client.resumed
    for label in ("CLIENT_EARLY_TRAFFIC_SECRET", "EARLY_EXPORTER_SECRET"):
        assert logs[0][label] == logs[1][label]
    assert of_client.early_exporter is not None
    assert of_server.early_exporter is not None
    assert of_client.early_exporter.export(b"x", b"", 20) == of_server.early_exporter.export(b"x", b"", 20)
    assert of_client.export(b"x", b"", 20) == of_server.export(b"x", b"", 20)
    # The next ticket allows it again.
    (again,) = tickets_of(of_client)
    assert again.max_early_data == LIMIT


@pytest.mark.clause("RFC 8446 D.4")
def test_change_cipher_spec_is_behind_the_first_hello() -> None:
    side = Server()
    early, server = client(ticket_of(side)), side.connection()
    early.send_early(b"early")
    flight = early.data_to_send()
    end = 5 + int.from_bytes(flight[3:5], "big")
    assert flight[end:].startswith(CHANGE_CIPHER_SPEC + b"\x17")
    server.receive_data(flight)
    early.receive_data(server.data_to_send())
    # Once only: the second flight begins with EndOfEarlyData.
    assert early.data_to_send().startswith(b"\x17")


@pytest.mark.clause("RFC 8446 4.2.10")
def test_the_ticket_limits_what_is_sent() -> None:
    side = Server(limit=40_000)
    early, server = client(ticket_of(side)), side.connection()
    assert early.send_early(bytes(30_000)) == 30_000
    assert early.send_early(bytes(30_000)) == 10_000
    assert early.early_room == early.send_early(b"x") == 0
    move(early, server)
    assert b"".join(server.early_records()) == bytes(40_000)
    shake(early, server)


def test_nothing_early_once_it_is_over() -> None:
    side = Server()
    early, server = client(ticket_of(side)), side.connection()
    move(early, server)
    move(server, early)
    assert early.handshake_complete
    assert early.early_room == early.send_early(b"late") == 0


# Not offered, or rejected: the handshake goes on, and both know why.


@pytest.mark.clause("RFC 8446 2.3", "RFC 8446 4.2.10", "RFC 8446 E.5")
@pytest.mark.parametrize(
    ("change", "config", "why"),
    [
        ({}, {"early_data": False}, EarlyData.NOT_ASKED),
        ({"lifetime": 0}, {}, EarlyData.NO_TICKET),
        ({"max_early_data": 0}, {}, EarlyData.NOT_ALLOWED),
        ({}, {"suites": (CHACHA,)}, EarlyData.OTHER_SUITE),
        ({"alpn": b"h2"}, {"alpn": (b"h3",)}, EarlyData.OTHER_PROTOCOL),
        ({"alpn": b"h2"}, {}, EarlyData.OTHER_PROTOCOL),
    ],
)
def test_not_offered(change: dict[str, Any], config: dict[str, Any], why: EarlyData) -> None:
    side = Server()
    ticket = replace(ticket_of(side, {"suites": (AES_128,)}), **change)
    early, server = client(ticket, **config), side.connection()
    assert early.send_early(b"early") == 0
    hello = early.data_to_send()
    assert ExtensionType.EARLY_DATA not in ClientHello.read(Reader(hello[9:])).extensions
    server.receive_data(hello)
    of_client, of_server = shake(early, server)
    assert of_client.early_data is why
    assert not why.offered
    assert of_server.early_data is EarlyData.NOT_ASKED


def rejected(
    side: Server, early: ClientConnection, server: ServerConnection, why: EarlyData, sees: EarlyData
) -> Established:
    early.send_early(b"early")
    move(early, server)
    assert early.send_early(b"more") == 4
    of_client, of_server = shake(early, server)
    assert server.early_records() == []
    assert of_server.early_data is why
    assert of_client.early_data is sees
    assert why.offered
    assert sees.offered
    assert of_client.early_exporter is None
    return of_client


@pytest.mark.clause("RFC 8446 4.2.10", "RFC 8446 8.2", "RFC 8446 8.3")
@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"early_data": None}, EarlyData.SWITCHED_OFF),
        ({"suites": (CHACHA,)}, EarlyData.CHANGED_SUITE),
        ({"alpn": (b"h3",)}, EarlyData.CHANGED_PROTOCOL),
        ({"alpn": ()}, EarlyData.CHANGED_PROTOCOL),
        ({"early_data": EarlyDataPolicy(MemoryReplayStore(NOW - 1), LIMIT - 1)}, EarlyData.OVER_LIMIT),
        ({"early_data": EarlyDataPolicy(MemoryReplayStore(NOW), LIMIT)}, EarlyData.BEFORE_START),
        ({"early_data": EarlyDataPolicy(MemoryReplayStore(NOW - 1, capacity=0), LIMIT)}, EarlyData.REPLAYED),
        ({"answer": lambda hello: Answer(remembered=b"other windows")}, EarlyData.CHANGED_APPLICATION),
    ],
)
def test_rejected_but_resumed(config: dict[str, Any], why: EarlyData) -> None:
    side = Server()
    ticket = ticket_of(side, {"alpn": (b"h2",), "suites": (AES_128,)}, alpn=(b"h2",))
    early = client(ticket, 1.0, alpn=(b"h2", b"h3"))
    server = side.connection(1.0, **{"alpn": (b"h2",), **config})
    assert rejected(side, early, server, why, EarlyData.REFUSED).resumed


@pytest.mark.clause("RFC 8446 4.2.10", "RFC 8446 8.3")
@pytest.mark.parametrize(("behind", "accepted"), [(9.9, True), (-9.9, True), (10.1, False), (-10.1, False)])
def test_the_window_of_freshness_in_both_directions(behind: float, accepted: bool) -> None:
    """The client's clock runs `behind` seconds slower or faster than the server's; or its hello was held back."""
    side = Server()
    early, server = client(ticket_of(side), 100.0), side.connection(100.0 + behind)
    if not accepted:
        rejected(side, early, server, EarlyData.OUT_OF_TIME, EarlyData.REFUSED)
        return
    early.send_early(b"early")
    move(early, server)
    assert server.early_records() == [b"early"]


@pytest.mark.clause("RFC 8446 4.2.10", "RFC 8446 4.1.2")
@pytest.mark.parametrize("compatible", [True, False])
def test_a_retry_rejects(compatible: bool) -> None:
    side = Server()
    early = client(ticket_of(side), 1.0, middlebox_compatibility=compatible)
    server = side.connection(1.0, groups=(Group.SECP384R1,))
    established = rejected(side, early, server, EarlyData.RETRIED, EarlyData.RETRIED)
    assert established.retried
    assert established.resumed


@pytest.mark.clause("RFC 8446 4.2.10")
def test_no_early_data_behind_a_retry() -> None:
    side = Server()
    early, server = client(ticket_of(side), 1.0), side.connection(1.0, groups=(Group.SECP384R1,))
    early.send_early(b"early")
    move(early, server)
    move(server, early)
    assert early.send_early(b"late") == 0
    second = early.data_to_send()
    assert second[0] == ContentType.HANDSHAKE
    assert ExtensionType.EARLY_DATA not in ClientHello.read(Reader(second[9:])).extensions


@pytest.mark.clause("RFC 8446 4.2.10")
def test_certificates_reject() -> None:
    side = Server()
    ticket = ticket_of(side)
    server = side.connection(1.0, ticket_keys=TicketKeys(ENGINE, seeded(8)))
    established = rejected(side, client(ticket, 1.0), server, EarlyData.NOT_RESUMED, EarlyData.NOT_RESUMED)
    assert not established.resumed


@pytest.mark.clause("RFC 8446 4.2.10", "RFC 8446 4.2.11")
def test_another_key_than_the_first_rejects() -> None:
    side = Server()
    early = client(ticket_of(side), 1.0, psks=(PSK,))
    server = side.connection(1.0, psks=(PSK,), ticket_keys=TicketKeys(ENGINE, seeded(8)))
    established = rejected(side, early, server, EarlyData.NOT_RESUMED, EarlyData.NOT_RESUMED)
    assert established.psk_identity == PSK.identity


@pytest.mark.clause("RFC 8446 4.2.10")
def test_a_ticket_that_is_not_the_first_rejects() -> None:
    """No client of ours does this: an unknown key, and behind it the ticket."""
    side = Server()
    ticket = ticket_of(side)
    config = client_config(psks=(PSK,), early_data=True)
    hello = ClientHello.read(Reader(ClientConnection(config, random=seeded(1), time=TIME).data_to_send()[9:]))
    psks = (PSK, ticket.psk)
    offered = unbound(psks, (0, ticket.obfuscated_age(TIME.timestamp() + 1))).write()
    extensions = {**hello.extensions, ExtensionType.EARLY_DATA: b"", ExtensionType.PRE_SHARED_KEY: offered}
    del extensions[ExtensionType.PRE_SHARED_KEY]
    hello = replace(hello, extensions={**extensions, ExtensionType.PRE_SHARED_KEY: offered})
    server = side.connection(1.0)
    server.receive_data(record(22, bind(ENGINE, Transcript(ENGINE), hello.write(), psks)))
    assert server.early_data is EarlyData.NOT_FIRST


# Replay.


@pytest.mark.clause("RFC 8446 8.1", "RFC 8446 8.2")
def test_the_same_bytes_twice_are_accepted_once() -> None:
    side = Server()
    early = client(ticket_of(side), 1.0)
    early.send_early(b"pay 10")
    flight = early.data_to_send()
    taken = []
    for seed in range(5):
        server = side.connection(1.0 + seed, seed=seed)
        server.receive_data(flight)
        taken += server.early_records()
        assert server.early_data is (EarlyData.REPLAYED if seed else EarlyData.ACCEPTED)
    assert taken == [b"pay 10"]
    # Held back past the window, it is refused without the memory.
    server = side.connection(60.0)
    server.receive_data(flight)
    assert server.early_data is EarlyData.OUT_OF_TIME
    assert server.early_records() == []


@pytest.mark.clause("RFC 8446 8.1")
def test_a_ticket_serves_once() -> None:
    """Another ClientHello with the same ticket is no replay, but a ticket is for one use."""
    side = Server()
    ticket = ticket_of(side)
    for later, why in ((1.0, EarlyData.ACCEPTED), (2.0, EarlyData.REPLAYED), (3000.0, EarlyData.REPLAYED)):
        early, server = client(ticket, later), side.connection(later)
        move(early, server)
        assert server.early_data is why
        shake(early, server)


@pytest.mark.clause("RFC 8446 8.2")
def test_what_cannot_be_verified_claims_nothing() -> None:
    """RFC 8446 8.2: only a ClientHello with the right binder is recorded."""
    side = Server()
    early = client(ticket_of(side), 1.0)
    flight = early.data_to_send()
    end = 5 + int.from_bytes(flight[3:5], "big")
    forged = flight[: end - 1] + bytes((flight[end - 1] ^ 1,)) + flight[end:]
    refuses(side.connection(1.0), forged, Reason.BAD_BINDER, Alert.DECRYPT_ERROR)
    server = side.connection(1.0)
    server.receive_data(flight)
    assert server.early_data is EarlyData.ACCEPTED


@pytest.mark.clause("RFC 8446 8.2")
def test_a_replay_at_a_server_that_has_lost_its_memory() -> None:
    side = Server()
    early = client(ticket_of(side), 1.0)
    early.send_early(b"early")
    flight = early.data_to_send()
    side.connection(1.0).receive_data(flight)
    restarted = EarlyDataPolicy(MemoryReplayStore(NOW + 1500), LIMIT)
    server = side.connection(2.0, early_data=restarted)
    server.receive_data(flight)
    assert server.early_data is EarlyData.BEFORE_START
    assert server.early_records() == []


def test_memory_store() -> None:
    store = MemoryReplayStore(1000, capacity=2)
    assert store.claim(b"a", 5000, 1000)
    assert not store.claim(b"a", 5000, 1001)
    assert store.claim(b"b", 3000, 1000)
    assert not store.claim(b"c", 9000, 2999)
    # Room for it when b has expired, but not for b again.
    assert store.claim(b"c", 9000, 3000)
    assert not store.claim(b"b", 3000, 3000)
    # The clock goes back: b was forgotten, and so is everything that may have been with it.
    assert not store.claim(b"b", 3000, 2000)
    assert not store.claim(b"d", 2500, 2000)
    assert not store.claim(b"a", 5000, 2000)


# Without records.


@pytest.mark.clause("RFC 9001 8.3", "RFC 9001 4.1.4")
@pytest.mark.parametrize("accepts", [True, False])
def test_without_a_message_that_ends_it(accepts: bool) -> None:
    """RFC 9001 section 8.3: QUIC has no EndOfEarlyData, and both ends have the keys of the handshake at once."""
    side = Server()
    settings = client_config(ticket=ticket_of(side), early_data=True, middlebox_compatibility=False)
    early = ClientHandshake(settings, random=seeded(1), time=TIME, end_of_early_data=False)
    policy = side.policy if accepts else None
    server = ServerHandshake(
        server_config(ticket_keys=side.keys, early_data=policy),
        random=seeded(2),
        time=TIME,
        end_of_early_data=False,
    )
    seen: dict[str, list[Any]] = {"client": [], "server": []}
    for _ in range(3):
        for name, sender, receiver in (("client", early, server), ("server", server, early)):
            for event in sender.events():
                seen[name].append(event)
                if isinstance(event, MessageToSend) and event.epoch is not Epoch.APPLICATION:
                    receiver.receive(event.epoch, event.data)
    written = {event.epoch: event.secret for event in seen["client"] if isinstance(event, WriteSecret)}
    read = {event.epoch: event.secret for event in seen["server"] if isinstance(event, ReadSecret)}
    assert list(written) == [Epoch.EARLY, Epoch.HANDSHAKE, Epoch.APPLICATION]
    assert list(read) == ([Epoch.EARLY] if accepts else []) + [Epoch.HANDSHAKE, Epoch.APPLICATION]
    assert {epoch: written[epoch].secret for epoch in read} == {epoch: read[epoch].secret for epoch in read}
    assert HandshakeType.END_OF_EARLY_DATA not in [
        event.data[0] for event in seen["client"] if isinstance(event, MessageToSend)
    ]
    assert seen["client"][-1].early_data is (EarlyData.ACCEPTED if accepts else EarlyData.REFUSED)


def test_configurations() -> None:
    store = MemoryReplayStore(NOW)
    for limit, window in ((0, 1), (1 << 32, 1), (1, 0)):
        with pytest.raises(ConfigurationError):
            EarlyDataPolicy(store, limit, window)
    with pytest.raises(ConfigurationError):
        server_config(early_data=EarlyDataPolicy(store))
    assert str(EarlyData.ACCEPTED) == "accepted"
    assert str(EarlyData.RETRIED) == "rejected, the handshake needed another ClientHello"


@pytest.mark.clause("RFC 8446 4.2.10")
def test_what_the_ticket_remembers_still_holds() -> None:
    side = Server()
    announced: dict[str, Any] = {"answer": lambda hello: Answer(remembered=b"windows")}
    ticket = ticket_of(side, **announced)
    early, server = client(ticket), side.connection(**announced)
    early.send_early(b"early")
    move(early, server)
    assert server.early_records() == [b"early"]


# Answers ahead of the client's Finished.


@pytest.mark.clause("RFC 8446 2.3", "RFC 8446 4.4.4")
def test_a_server_answers_early_data_before_the_client_has_finished() -> None:
    side = Server()
    early, server = client(ticket_of(side)), side.connection()
    early.send_early(b"question")
    move(early, server)
    assert server.answerable
    flight = server.data_to_send()
    begun = server.established_early()
    sealer = RecordSealer(ENGINE.aead, begun.write_secret.keys(begun.write_sequence))
    sealer.put(23, b"answer")
    early.receive_data(flight + bytes(sealer.pending))
    of_client = early.established()
    server.receive_data(early.data_to_send())
    assert server.data_to_send() == b""
    of_server = server.established()
    assert (begun.read_secret, begun.early_data) == (of_server.read_secret, EarlyData.ACCEPTED)
    # The tickets are for whoever writes now.
    sealer.put(22, server.messages_to_send())
    opener = RecordOpener(ENGINE.aead, of_client.read_secret.keys(), ENGINE.invalid_tag)
    opener.feed(of_client.unread + bytes(sealer.pending)[len(of_client.unread) :])
    assert opened(opener) == (23, b"answer")
    content_type, tickets = opened(opener)
    assert (content_type, tickets[0]) == (22, HandshakeType.NEW_SESSION_TICKET)
    assert of_server.resumption == of_client.resumption


def opened(opener: RecordOpener) -> tuple[int, bytes]:
    record = opener.next_record()
    assert record is not None
    return record[0], bytes(record[1])


def test_nobody_answers_what_was_not_accepted() -> None:
    side = Server()
    early, server = client(ticket_of(side)), side.connection(early_data=None)
    move(early, server)
    assert not server.answerable
    with pytest.raises(ApiMisuse):
        server.established_early()


def test_an_alert_after_the_writing_was_given_away_is_not_sent_twice() -> None:
    side = Server()
    early, server = client(ticket_of(side)), side.connection()
    move(early, server)
    with pytest.raises(ApiMisuse):
        server.established_early()
    server.data_to_send()
    server.established_early()
    refuses(server, record(23, bytes(40)), Reason.BAD_RECORD_MAC, Alert.BAD_RECORD_MAC)
    assert server.data_to_send() == b""


# Behind an encrypted ClientHello.


@pytest.mark.clause("RFC 9849 6.1.3")
@pytest.mark.parametrize("knows", [True, False])
def test_early_data_of_an_inner_hello(knows: bool) -> None:
    """It goes with the inner ClientHello; a server that cannot read that one skips it."""
    side = Server()
    ticket = ticket_of(side)
    early = client(ticket, 1.0, ech=(CONFIG,))
    identities = (public_identity(), identity())
    server = side.connection(1.0, ech=KEYS if knows else None, identities=identities)
    early.send_early(b"hidden words")
    move(early, server)
    assert server.early_records() == ([b"hidden words"] if knows else [])
    if knows:
        of_client, of_server = shake(early, server)
        assert of_client.early_data is of_server.early_data is EarlyData.ACCEPTED
        assert of_client.ech is EchStatus.ACCEPTED
        return
    with pytest.raises(EchRejected):
        move(server, early)
    assert early.early_data is EarlyData.NOT_RESUMED
