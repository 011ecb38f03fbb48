"""Pre-shared keys and tickets in both roles: what is agreed on, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tcpls.errors import Alert, ApiMisuse, ConfigurationError, HandshakeError, Reason
from tcpls.tls import client_hello, client_states
from tcpls.tls.algorithms import Group
from tcpls.tls.config import Answer
from tcpls.tls.connection import ClientConnection, Established, ServerConnection
from tcpls.tls.engines.openssl import OPENSSL
from tcpls.tls.extensions import ExtensionType, write_client_shares, write_server_share, write_u16
from tcpls.tls.flow import Epoch, MessageToSend
from tcpls.tls.handshake import ClientHandshake, ServerHandshake
from tcpls.tls.key_schedule import BinderKind, EarlySecrets
from tcpls.tls.messages import CertificateRequest, ClientHello, EncryptedExtensions, NewSessionTicket, ServerHello
from tcpls.tls.post_handshake import PostHandshake
from tcpls.tls.psk import OfferedPsks, PreSharedKey, PskMode, bind, import_psk, unbound
from tcpls.tls.record import RecordOpener
from tcpls.tls.suites import CipherSuite
from tcpls.tls.ticket_keys import TicketKeys
from tcpls.tls.tickets import DEFAULT_TICKETS, Ticket
from tcpls.tls.transcript import Transcript
from tcpls.wire import Reader
from tests.unit.tls.pair import TIME, client_config, refused, seeded, server_config, shake, trust

ILLEGAL = Alert.ILLEGAL_PARAMETER
PSK = PreSharedKey(b"device 7", b"k" * 32)
LONG_PSK = PreSharedKey(b"device 8", b"K" * 48, suite=CipherSuite.AES_256_GCM_SHA384)
BOTH = (PskMode.PSK_DHE_KE, PskMode.PSK_KE)
NOW = TIME.timestamp()
AES_128, AES_256, CHACHA = CipherSuite


def make_keys(lifetime: int = 3600) -> TicketKeys:
    return TicketKeys(OPENSSL, seeded(9), lifetime)


def run(
    client: dict[str, Any], server: dict[str, Any], *, later: float = 0.0, seed: int = 1
) -> tuple[Established, Established]:
    time = TIME + timedelta(seconds=later)
    return shake(
        ClientConnection(client_config(**client), random=seeded(seed), time=time),
        ServerConnection(server_config(**server), random=seeded(seed + 1), time=time),
    )


def tickets_of(established: Established, now: float = NOW, remembered: bytes = b"") -> list[Ticket]:
    """What the server has sent behind its Finished."""
    opener = RecordOpener(OPENSSL.aead, established.read_secret.keys(), OPENSSL.invalid_tag)
    opener.feed(established.unread)
    record = opener.next_record()
    if record is None:
        return []
    tickets = []
    for message in PostHandshake(is_client=True).receive(record[1]):
        assert isinstance(message, NewSessionTicket)
        ticket = established.ticket(message, now, remembered)
        assert ticket is not None
        tickets.append(ticket)
    return tickets


def first_session(keys: TicketKeys, client: dict[str, Any] | None = None, **server: Any) -> Ticket:
    """A ticket, as a client has it that was given one after a full handshake."""
    established, _ = run({"tickets": 1, **(client or {})}, {"ticket_keys": keys, **server}, seed=5)
    (ticket,) = tickets_of(established)
    return ticket


@pytest.mark.clause("RFC 8446 4.2.9", "RFC 8446 4.2.11")
@pytest.mark.parametrize("modes", [(PskMode.PSK_DHE_KE,), (PskMode.PSK_KE,), BOTH])
@pytest.mark.parametrize("psk", [PSK, LONG_PSK])
def test_external_keys(psk: PreSharedKey, modes: tuple[PskMode, ...]) -> None:
    client, server = run({"psks": (psk,), "psk_modes": modes}, {"psks": (PSK, LONG_PSK), "psk_modes": BOTH})
    assert client.suite is server.suite
    assert client.suite.hash_name == psk.suite.hash_name
    assert client.group == server.group
    assert (client.group == "") is (modes == (PskMode.PSK_KE,))
    assert client.signature_scheme == server.signature_scheme == ""
    assert client.psk_identity == server.psk_identity == psk.identity
    assert not client.resumed
    assert client.verified
    assert client.peer_certificates == ()
    assert client.export(b"label", b"", 32) == server.export(b"label", b"", 32)


def test_server_without_a_certificate() -> None:
    client, _ = run({"psks": (PSK,)}, {"psks": (PSK,), "identities": ()})
    assert client.psk_identity == PSK.identity
    with pytest.raises(HandshakeError) as caught:
        run({}, {"psks": (PSK,), "identities": ()})
    refused(caught.value, Reason.NO_COMMON_PSK, Alert.UNKNOWN_PSK_IDENTITY)


@pytest.mark.clause("RFC 8446 4.2.9")
@pytest.mark.parametrize(
    ("client", "server"),
    [
        ({"psks": (replace(PSK, identity=b"nobody"),)}, {"psks": (PSK,)}),
        ({"psks": (PSK,)}, {}),
        ({"psks": (PSK,), "psk_modes": (PskMode.PSK_KE,)}, {"psks": (PSK,)}),
        ({"psks": (PSK,)}, {"psks": (PSK,), "psk_modes": (PskMode.PSK_KE,)}),
        ({"psks": (LONG_PSK,)}, {"psks": (LONG_PSK,), "suites": (AES_128, CHACHA)}),
    ],
)
def test_certificates_when_no_key_is_usable(client: dict[str, Any], server: dict[str, Any]) -> None:
    established, _ = run(client, server)
    assert established.psk_identity is None
    assert len(established.peer_certificates) == 1
    assert established.verified


@pytest.mark.clause("RFC 8446 4.2.11")
def test_the_first_usable_identity_is_taken() -> None:
    unknown = tuple(PreSharedKey(b"%d" % number, b"x" * 32) for number in range(5))
    client, server = run({"psks": (*unknown, LONG_PSK, PSK)}, {"psks": (PSK, LONG_PSK)})
    assert client.psk_identity == server.psk_identity == LONG_PSK.identity


def test_identities_beyond_the_limit_are_ignored() -> None:
    unknown = tuple(PreSharedKey(b"%d" % number, b"x" * 32) for number in range(32))
    client, _ = run({"psks": (*unknown, PSK)}, {"psks": (PSK,)})
    assert client.psk_identity is None


@pytest.mark.clause("RFC 8446 4.2.11", "RFC 8446 4.2.11.2")
def test_a_wrong_key_is_a_wrong_binder() -> None:
    with pytest.raises(HandshakeError) as caught:
        run({"psks": (replace(PSK, key=b"other" * 7),)}, {"psks": (PSK,)})
    refused(caught.value, Reason.BAD_BINDER, Alert.DECRYPT_ERROR)


@pytest.mark.clause("RFC 8446 4.1.4", "RFC 8446 4.2.11.2")
def test_retry_with_a_key() -> None:
    client, server = run({"psks": (LONG_PSK, PSK)}, {"psks": (PSK,), "groups": (Group.SECP256R1,)})
    assert client.retried
    assert client.psk_identity == server.psk_identity == PSK.identity
    assert client.group == "secp256r1"


@pytest.mark.clause("RFC 8446 4.1.2", "RFC 8446 4.1.4")
def test_keys_that_do_not_fit_the_retry_are_left_out() -> None:
    server = {"psks": (PSK,), "groups": (Group.SECP256R1,), "suites": (AES_128,)}
    first = ClientHandshake(client_config(psks=(LONG_PSK, PSK)), random=seeded(1), time=TIME)
    accepting = ServerHandshake(server_config(**server), random=seeded(2))
    accepting.receive(Epoch.INITIAL, sent(first))
    first.receive(Epoch.INITIAL, sent(accepting))
    second = ClientHello.read(Reader(sent(first)[4:]))
    offered = OfferedPsks.read(second.extensions[ExtensionType.PRE_SHARED_KEY])
    assert [name for name, _ in offered.identities] == [PSK.identity]


@pytest.mark.clause("RFC 9258 3")
def test_imported_keys() -> None:
    """RFC 9258: one per hash, bound to the context; an external key of that name is another key."""
    ours = import_psk(OPENSSL, b"name", b"secret", b"context")
    assert [len(psk.key) for psk in ours] == [32, 48]
    for suites in ((AES_128,), (AES_256,)):
        client, server = run({"psks": ours, "suites": suites}, {"psks": ours})
        assert client.psk_identity == server.psk_identity == ours[suites == (AES_256,)].identity
    other = import_psk(OPENSSL, b"name", b"secret", b"another context")
    assert {psk.identity for psk in ours}.isdisjoint(psk.identity for psk in other)
    with pytest.raises(HandshakeError) as caught:
        external = tuple(replace(psk, kind=BinderKind.EXTERNAL) for psk in ours)
        run({"psks": external}, {"psks": ours})
    refused(caught.value, Reason.BAD_BINDER, Alert.DECRYPT_ERROR)


# Tickets.


@pytest.mark.clause("RFC 8446 4.6.1", "RFC 8446 4.2.11")
@pytest.mark.parametrize("suite", CipherSuite)
@pytest.mark.parametrize("retry", [False, True])
def test_resumption(suite: CipherSuite, retry: bool) -> None:
    keys = make_keys()
    ticket = first_session(keys, {"suites": (suite,), "alpn": (b"h2",)}, alpn=(b"h2",))
    groups = (Group.SECP256R1,) if retry else (Group.X25519,)
    client, server = run({"ticket": ticket, "tickets": 1}, {"ticket_keys": keys, "groups": groups}, later=100)
    assert client.resumed
    assert server.resumed
    assert client.suite is suite
    assert client.retried is retry
    assert client.verified
    (again,) = tickets_of(client, NOW + 100)
    assert again.identity != ticket.identity
    assert again.key != ticket.key
    third, _ = run({"ticket": again}, {"ticket_keys": keys}, later=200)
    assert third.resumed


@pytest.mark.clause("RFC 8446 4.6.1")
def test_a_suite_of_the_same_hash_resumes() -> None:
    keys = make_keys()
    ticket = first_session(keys, {"suites": (AES_128,)})
    client, _ = run({"ticket": ticket, "suites": (CHACHA,)}, {"ticket_keys": keys})
    assert client.resumed
    assert client.suite is CHACHA


@pytest.mark.clause("RFC 8446 4.2.11", "RFC 8446 4.6.1")
@pytest.mark.parametrize(
    ("client", "server", "later"),
    [
        ({}, {}, 3600.0),
        ({}, {}, -1.0),
        ({"server_name": "other.example", "trust": None}, {}, 0.0),
        ({"suites": (AES_256,)}, {}, 0.0),
        ({}, {"suites": (AES_256,)}, 0.0),
        ({}, {"ticket_keys": None}, 0.0),
        ({}, {"ticket_keys": TicketKeys(OPENSSL, seeded(77))}, 0.0),
    ],
)
def test_what_is_not_resumed(client: dict[str, Any], server: dict[str, Any], later: float) -> None:
    keys = make_keys()
    ticket = first_session(keys, {"suites": (AES_128,)})
    established, _ = run({"ticket": ticket, **client}, {"ticket_keys": keys, **server}, later=later)
    assert not established.resumed
    assert established.peer_certificates


def test_an_unverified_session_does_not_become_a_verified_one() -> None:
    keys = make_keys()
    ticket = first_session(keys, {"trust": None})
    assert not ticket.verified
    strict, _ = run({"ticket": ticket, "trust": trust()}, {"ticket_keys": keys})
    assert not strict.resumed
    client, _ = run({"ticket": ticket, "trust": None, "tickets": 1}, {"ticket_keys": keys})
    assert client.resumed
    assert not tickets_of(client)[0].verified


@pytest.mark.clause("RFC 8446 4.6.1")
def test_another_name_at_the_server() -> None:
    """The server judges too: this client offers the ticket of another name."""
    keys = make_keys()
    ticket = replace(first_session(keys), server_name="other.example")
    client, _ = run({"ticket": ticket, "server_name": "other.example", "trust": None}, {"ticket_keys": keys})
    assert not client.resumed


@pytest.mark.clause("RFC 8446 4.2.9", "RFC 9149 3")
@pytest.mark.parametrize(
    ("client", "server", "count"),
    [
        ({}, {}, 0),
        ({"psks": (PSK,)}, {}, 2),
        ({"psks": (PSK,)}, {"tickets": 5}, 5),
        ({"psks": (PSK,), "psk_modes": (PskMode.PSK_KE,)}, {}, 0),
        ({"tickets": 1}, {}, 1),
        ({"tickets": 8}, {}, 8),
        ({"tickets": 3}, {"tickets": 0}, 3),
        ({"tickets": 3}, {"ticket_keys": None}, 0),
    ],
)
def test_how_many_tickets(client: dict[str, Any], server: dict[str, Any], count: int) -> None:
    established, _ = run(client, {"ticket_keys": make_keys(), **server})
    tickets = tickets_of(established)
    assert len(tickets) == count
    assert len({ticket.key for ticket in tickets}) == count
    assert len({ticket.age_add for ticket in tickets}) == count


@pytest.mark.clause("RFC 8446 4.2.9")
def test_a_client_that_lists_no_modes_has_excluded_none(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = client_hello.write_hello_extensions

    def narrow(*arguments: Any, **more: Any) -> dict[int, bytes]:
        return {kind: contents for kind, contents in whole(*arguments, **more).items() if kind not in (45, 58)}

    monkeypatch.setattr(client_states, "write_hello_extensions", narrow)
    established, _ = run({}, {"ticket_keys": make_keys()})
    assert len(tickets_of(established)) == DEFAULT_TICKETS


def test_what_the_application_remembers() -> None:
    keys = make_keys()
    ticket = first_session(keys, answer=lambda hello: Answer(remembered=b"windows"))
    _, server = run({"ticket": ticket}, {"ticket_keys": keys})
    assert server.remembered == b"windows"


@pytest.mark.clause("RFC 8446 4.6.1")
@pytest.mark.parametrize("who", ["client", "server"])
def test_resumptions_of_resumptions_end_seven_days_after_the_full_handshake(who: str) -> None:
    """At either end: a client of a server that does not care, and a server of a client that does not."""
    day = 24 * 3600
    keys = make_keys(2 * day)
    ticket = first_session(keys)
    assert ticket.lifetime == 2 * day
    lifetimes = []
    for number in range(1, 6):
        later = 1.5 * day * number
        if not ticket.alive(NOW + later):
            break
        if who == "server":
            ticket = replace(ticket, until=None)
        client, server = run({"ticket": ticket, "tickets": 1}, {"ticket_keys": keys}, later=later)
        assert client.resumed and server.resumed
        if who == "client":
            # What a server would send that starts anew each time.
            message = NewSessionTicket(2 * day, 0, b"", b"ticket", {})
            made = client.ticket(message, NOW + later)
            assert made is not None
            lifetimes.append(made.lifetime)
        tickets = tickets_of(client, NOW + later)
        if who == "server":
            lifetimes += [each.lifetime for each in tickets]
        (ticket,) = tickets or (ticket,)
    # The days that are left: 5.5, 4, 2.5, 1; and then the last ticket is over after one day.
    assert lifetimes == [2 * day, 2 * day, 2 * day, day]


@pytest.mark.clause("RFC 8446 4.6.1")
def test_no_ticket_comes_when_there_is_no_time_left() -> None:
    week = 7 * 24 * 3600
    keys = make_keys(week)
    ticket = first_session(keys)
    client, _ = run({"ticket": ticket, "tickets": 1}, {"ticket_keys": keys}, later=week - 1)
    assert client.resumed
    (last,) = tickets_of(client, NOW + week - 1)
    assert last.lifetime == 1
    client, _ = run({"ticket": ticket, "tickets": 1}, {"ticket_keys": keys}, later=week - 0.5)
    assert client.resumed
    assert tickets_of(client, NOW + week - 0.5) == []
    assert client.ticket(NewSessionTicket(10, 0, b"", b"ticket", {}), NOW + week - 0.5) is None


def test_a_key_that_was_replaced_takes_its_sessions_with_it() -> None:
    """Under the same identity: whoever knew the former key is not known by the new one."""
    keys, new = make_keys(), replace(PSK, key=b"another key".ljust(32))
    established, _ = run({"tickets": 1, "psks": (PSK,)}, {"ticket_keys": keys, "psks": (PSK,)}, seed=5)
    ticket = tickets_of(established)[0]
    client, server = run({"ticket": ticket, "tickets": 1}, {"ticket_keys": keys, "psks": (PSK,)})
    assert server.resumed
    for each in (ticket, *tickets_of(client)):
        _, server = run({"ticket": each}, {"ticket_keys": keys, "psks": (new,)})
        assert not server.resumed


@pytest.mark.clause("RFC 8446 4.1.2")
def test_doubled_suites_in_a_resumption_with_a_retry() -> None:
    server = ServerHandshake(server_config(psks=(PSK,), groups=(Group.SECP256R1,)), random=seeded(2))
    client = ClientHandshake(client_config(psks=(PSK,)), random=seeded(1), time=TIME)
    first = ClientHello.read(Reader(sent(client)[4:]))
    first = replace(first, suites=first.suites * 5000)
    first_message = bound(first)
    server.receive(Epoch.INITIAL, first_message)
    request = sent(server)
    transcript = Transcript(OPENSSL)
    transcript.add(first_message)
    transcript.retry(AES_128)
    transcript.add(request)
    share = OPENSSL.private_share(Group.SECP256R1, seeded(3))
    shares = write_client_shares([(share.group, share.public)])
    server.receive(Epoch.INITIAL, bound(extension(51, shares)(first), transcript))
    flight = sent(server)
    answer = ServerHello.read(Reader(flight[4 : 4 + int.from_bytes(flight[1:4], "big")]))
    assert answer.extensions[ExtensionType.PRE_SHARED_KEY] == b"\0\0"


def test_a_server_knows_whose_session_is_resumed() -> None:
    keys = make_keys()
    established, _ = run({"tickets": 1, "psks": (PSK,)}, {"ticket_keys": keys, "psks": (PSK, LONG_PSK)}, seed=5)
    ticket = tickets_of(established)[0]
    for _ in range(3):
        client, server = run({"ticket": ticket, "tickets": 1}, {"ticket_keys": keys, "psks": (LONG_PSK, PSK)})
        assert (server.resumed, server.psk_identity, server.verified) == (True, PSK.identity, True)
        ticket = tickets_of(client)[0]
    _, server = run({"ticket": first_session(keys)}, {"ticket_keys": keys, "psks": (PSK,)})
    assert (server.resumed, server.psk_identity, server.verified) == (True, None, False)


def test_a_key_that_is_taken_away_takes_its_sessions_along() -> None:
    keys = make_keys()
    established, _ = run({"tickets": 1, "psks": (PSK,)}, {"ticket_keys": keys, "psks": (PSK,)}, seed=5)
    ticket = tickets_of(established)[0]
    _, server = run({"ticket": ticket}, {"ticket_keys": keys, "psks": (LONG_PSK,)})
    assert (server.resumed, server.psk_identity, server.verified) == (False, None, False)


def test_a_ticket_that_no_client_would_keep_is_not_sent() -> None:
    psk = PreSharedKey(bytes(20_000), b"k" * 32)
    established, _ = run({"tickets": 1, "psks": (psk,)}, {"ticket_keys": make_keys(), "psks": (psk,)})
    assert tickets_of(established) == []


def test_configurations() -> None:
    for wrong in (
        {"psks": (PSK, PSK)},
        {"psk_modes": ()},
        {"tickets": 9},
        {"tickets": -1},
    ):
        with pytest.raises(ConfigurationError):
            client_config(**wrong)
        with pytest.raises(ConfigurationError):
            server_config(**wrong)
    for lifetime in (0, 7 * 24 * 3600 + 1):
        with pytest.raises(ConfigurationError):
            make_keys(lifetime)
    for identity_, key in ((b"", b"k"), (b"x" * 65536, b"k"), (b"x", b"")):
        with pytest.raises(ConfigurationError):
            PreSharedKey(identity_, key)
    assert "kkk" not in repr(PSK)
    assert repr(make_keys()) == "TicketKeys(lifetime=3600)"


# Hostile clients.


def sent(handshake: ClientHandshake | ServerHandshake) -> bytes:
    return b"".join(event.data for event in handshake.events() if isinstance(event, MessageToSend))


def hello_with(change: Callable[[ClientHello], ClientHello], **config: Any) -> bytes:
    client = ClientHandshake(client_config(**{"psks": (PSK,), **config}), random=seeded(1), time=TIME)
    return change(ClientHello.read(Reader(sent(client)[4:]))).write()


def extension(kind: int, contents: bytes | None) -> Callable[[ClientHello], ClientHello]:
    def change(hello: ClientHello) -> ClientHello:
        extensions = {**hello.extensions, kind: contents or b""}
        if contents is None:
            del extensions[kind]
        return replace(hello, extensions=extensions)

    return change


def without(*kinds: int) -> Callable[[ClientHello], ClientHello]:
    return lambda hello: replace(
        hello, extensions={kind: data for kind, data in hello.extensions.items() if kind not in kinds}
    )


IDENTITIES = b"\0\x0e\0\x08device 7\0\0\0\0"
BINDERS = b"\0\x21\x20" + bytes(32)


@pytest.mark.clause("RFC 8446 4.2.3", "RFC 8446 4.2.9", "RFC 8446 4.2.11", "RFC 8446 4.2.11.2", "RFC 8446 9.2")
@pytest.mark.parametrize(
    ("change", "reason", "alert"),
    [
        (extension(41, b""), Reason.TRUNCATED, Alert.DECODE_ERROR),
        (extension(41, b"\0\0" + BINDERS), Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        (extension(41, IDENTITIES + b"\0\0"), Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        (extension(41, IDENTITIES + b"\0\x22\x1f" + bytes(33)), Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        (extension(41, IDENTITIES + BINDERS + b"\0"), Reason.TRAILING_BYTES, Alert.DECODE_ERROR),
        (extension(41, b"\0\x07\0\0\0\0\0\0\0" + BINDERS), Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        (extension(41, IDENTITIES[:-1] + BINDERS), Reason.TRUNCATED, Alert.DECODE_ERROR),
        (extension(41, IDENTITIES + b"\0\x42" + 2 * BINDERS[2:]), Reason.BAD_VALUE, ILLEGAL),
        (extension(41, IDENTITIES + BINDERS), Reason.BAD_BINDER, Alert.DECRYPT_ERROR),
        (extension(41, IDENTITIES + b"\0\x31\x30" + bytes(48)), Reason.BAD_BINDER, Alert.DECRYPT_ERROR),
        (extension(45, None), Reason.MISSING_EXTENSION, Alert.MISSING_EXTENSION),
        (extension(45, b"\0"), Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        (extension(45, b"\2\1"), Reason.TRUNCATED, Alert.DECODE_ERROR),
        (extension(58, b""), Reason.MISPLACED_EXTENSION, ILLEGAL),
        (without(10), Reason.MISSING_EXTENSION, Alert.MISSING_EXTENSION),
        (without(51), Reason.MISSING_EXTENSION, Alert.MISSING_EXTENSION),
        # With the key alone in a mode that this server does not have, the others are missing after all.
        (without(10, 51), Reason.MISSING_EXTENSION, Alert.MISSING_EXTENSION),
        (lambda hello: extension(45, b"\1\0")(without(13)(hello)), Reason.MISSING_EXTENSION, Alert.MISSING_EXTENSION),
    ],
)
def test_hostile_hellos(change: Callable[[ClientHello], ClientHello], reason: Reason, alert: Alert) -> None:
    server = ServerHandshake(server_config(psks=(PSK,)), random=seeded(2))
    with pytest.raises(HandshakeError) as caught:
        server.receive(Epoch.INITIAL, hello_with(change))
    refused(caught.value, reason, alert)


@pytest.mark.clause("RFC 9149 3")
@pytest.mark.parametrize("contents", [b"", b"\1", b"\1\1\1"])
def test_ticket_request_of_a_wrong_size(contents: bytes) -> None:
    server = ServerHandshake(server_config(), random=seeded(2))
    with pytest.raises(HandshakeError) as caught:
        server.receive(Epoch.INITIAL, hello_with(extension(58, contents), psks=(), tickets=2))
    assert caught.value.alert is Alert.DECODE_ERROR


def bound(hello: ClientHello, transcript: Transcript | None = None) -> bytes:
    """The hello with the right binders for what it has otherwise."""
    placed = replace(hello, extensions={**hello.extensions, 41: unbound([PSK], [0]).write()})
    return bind(OPENSSL, transcript or Transcript(OPENSSL), placed.write(), [PSK])


@pytest.mark.clause("RFC 8446 9.2")
def test_a_key_alone_needs_neither_groups_nor_schemes() -> None:
    """RFC 8446 9.2."""
    server = ServerHandshake(server_config(psks=(PSK,), psk_modes=BOTH), random=seeded(2))
    client = ClientHandshake(client_config(psks=(PSK,), psk_modes=(PskMode.PSK_KE,)), random=seeded(1), time=TIME)
    hello = ClientHello.read(Reader(sent(client)[4:]))
    server.receive(Epoch.INITIAL, bound(without(10, 13, 50, 51)(hello)))
    message = next(event.data for event in server.events() if isinstance(event, MessageToSend))
    answer = ServerHello.read(Reader(message[4:]))
    assert ExtensionType.KEY_SHARE not in answer.extensions
    assert answer.extensions[ExtensionType.PRE_SHARED_KEY] == b"\0\0"


@pytest.mark.clause("RFC 8446 4.1.2")
@pytest.mark.parametrize("change", ["added", "moved"])
def test_keys_added_after_a_retry(change: str) -> None:
    offered = () if change == "added" else (PSK, replace(PSK, identity=b"another"))
    client = ClientHandshake(client_config(psks=offered, tickets=1), random=seeded(1), time=TIME)
    server = ServerHandshake(server_config(groups=(Group.SECP256R1,)), random=seeded(2))
    server.receive(Epoch.INITIAL, sent(client))
    client.receive(Epoch.INITIAL, sent(server))
    second = ClientHello.read(Reader(sent(client)[4:]))
    psks = (PSK,) if change == "added" else tuple(reversed(offered))
    changed = extension(41, unbound(psks, [0] * len(psks)).write())(second)
    with pytest.raises(HandshakeError) as caught:
        server.receive(Epoch.INITIAL, changed.write())
    refused(caught.value, Reason.CHANGED_HELLO, ILLEGAL)


@pytest.mark.clause("RFC 8446 4.2.11", "RFC 8446 4.2.11.2")
def test_a_wrong_binder_after_a_retry() -> None:
    client = ClientHandshake(client_config(psks=(PSK,)), random=seeded(1), time=TIME)
    server = ServerHandshake(server_config(psks=(PSK,), groups=(Group.SECP256R1,)), random=seeded(2))
    server.receive(Epoch.INITIAL, sent(client))
    client.receive(Epoch.INITIAL, sent(server))
    second = ClientHello.read(Reader(sent(client)[4:]))
    # The binder without the first hello and the retry in its transcript, as that of a hello of its own would be.
    with pytest.raises(HandshakeError) as caught:
        server.receive(Epoch.INITIAL, bound(second))
    refused(caught.value, Reason.BAD_BINDER, Alert.DECRYPT_ERROR)


# Hostile servers.

SHARE = write_server_share(Group.X25519, bytes(31) + b"\x09")


@pytest.mark.clause("RFC 8446 4.2.8", "RFC 8446 4.2.9", "RFC 8446 4.2.11")
@pytest.mark.parametrize(
    ("config", "suite", "extensions", "reason", "alert"),
    [
        ({}, AES_128, {41: write_u16(2), 51: SHARE}, Reason.ILLEGAL_CHOICE, ILLEGAL),
        ({}, AES_128, {41: write_u16(1), 51: SHARE}, Reason.ILLEGAL_CHOICE, ILLEGAL),
        ({}, AES_256, {41: write_u16(0), 51: SHARE}, Reason.ILLEGAL_CHOICE, ILLEGAL),
        ({}, AES_128, {41: write_u16(0)}, Reason.ILLEGAL_CHOICE, ILLEGAL),
        ({}, AES_128, {41: b"\0", 51: SHARE}, Reason.TRUNCATED, Alert.DECODE_ERROR),
        ({}, AES_128, {41: b"\0\0\0", 51: SHARE}, Reason.TRAILING_BYTES, Alert.DECODE_ERROR),
        ({"psk_modes": (PskMode.PSK_KE,)}, AES_128, {41: write_u16(0), 51: SHARE}, Reason.ILLEGAL_CHOICE, ILLEGAL),
        ({"psk_modes": BOTH}, AES_128, {}, Reason.MISSING_EXTENSION, Alert.MISSING_EXTENSION),
        ({"psks": ()}, AES_128, {41: b"\0\0", 51: SHARE}, Reason.UNSUPPORTED_EXTENSION, Alert.UNSUPPORTED_EXTENSION),
        ({}, AES_128, {45: b"\1\1", 51: SHARE}, Reason.MISPLACED_EXTENSION, ILLEGAL),
    ],
)
def test_hostile_server_hellos(
    config: dict[str, Any], suite: CipherSuite, extensions: dict[int, bytes], reason: Reason, alert: Alert
) -> None:
    client = ClientHandshake(client_config(**{"psks": (PSK, LONG_PSK), **config}), random=seeded(1), time=TIME)
    hello = ClientHello.read(Reader(sent(client)[4:]))
    answer = ServerHello(bytes(32), hello.session_id, suite.code, {43: write_u16(0x0304), **extensions})
    with pytest.raises(HandshakeError) as caught:
        client.receive(Epoch.INITIAL, answer.write())
    refused(caught.value, reason, alert)


def at_encrypted_extensions() -> ClientHandshake:
    client = ClientHandshake(client_config(psks=(PSK,), tickets=1), random=seeded(1), time=TIME)
    server = ServerHandshake(server_config(psks=(PSK,)), random=seeded(2))
    server.receive(Epoch.INITIAL, sent(client))
    client.receive(Epoch.INITIAL, next(event.data for event in server.events() if isinstance(event, MessageToSend)))
    return client


@pytest.mark.clause("RFC 8446 4.2", "RFC 9149 3")
@pytest.mark.parametrize(
    ("extensions", "reason", "alert"),
    [
        ({58: b""}, Reason.TRUNCATED, Alert.DECODE_ERROR),
        ({58: b"\1\1"}, Reason.TRAILING_BYTES, Alert.DECODE_ERROR),
        ({41: b"\0\0"}, Reason.MISPLACED_EXTENSION, ILLEGAL),
        ({42: b""}, Reason.UNSUPPORTED_EXTENSION, Alert.UNSUPPORTED_EXTENSION),
    ],
)
def test_hostile_encrypted_extensions(extensions: dict[int, bytes], reason: Reason, alert: Alert) -> None:
    client = at_encrypted_extensions()
    with pytest.raises(HandshakeError) as caught:
        client.receive(Epoch.HANDSHAKE, EncryptedExtensions(extensions).write())
    refused(caught.value, reason, alert)


@pytest.mark.clause("RFC 8446 4.3.2")
def test_no_certificates_with_a_key() -> None:
    """RFC 8446 4.3.2: not even a request for one."""
    client = at_encrypted_extensions()
    client.receive(Epoch.HANDSHAKE, EncryptedExtensions({}).write())
    with pytest.raises(HandshakeError) as caught:
        client.receive(Epoch.HANDSHAKE, CertificateRequest(b"", {13: b"\0\2\4\3"}).write())
    refused(caught.value, Reason.UNEXPECTED_MESSAGE, Alert.UNEXPECTED_MESSAGE)


@pytest.mark.clause("RFC 8446 4.2.11")
def test_pre_shared_key_is_the_last_extension() -> None:
    config = client_config(psks=(PSK,), extra_extensions=((0xFA00, b""),))
    hello = ClientHello.read(Reader(sent(ClientHandshake(config, random=seeded(1), time=TIME))[4:]))
    assert list(hello.extensions)[-1] == ExtensionType.PRE_SHARED_KEY


@pytest.mark.clause("RFC 8446 7.1")
def test_early_secret_without_a_key_is_that_of_zeros() -> None:
    for suite in CipherSuite:
        assert EarlySecrets.derive(OPENSSL, suite) == EarlySecrets.derive(OPENSSL, suite, bytes(suite.hash_size))


def test_tickets_need_the_time() -> None:
    with pytest.raises(ApiMisuse):
        ServerConnection(server_config(ticket_keys=make_keys()), random=seeded(1))
