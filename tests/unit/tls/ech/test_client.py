"""What a client shows and hides, when it believes a server, and what it refuses (RFC 9849 section 6)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tcpls.errors import Alert, CertificateError, ConfigurationError, EchRejected, HandshakeError, Reason
from tcpls.tls.algorithms import Group
from tcpls.tls.config import ClientAuth
from tcpls.tls.connection import ClientConnection, ServerConnection
from tcpls.tls.ech.configs import write_configs
from tcpls.tls.ech.status import EchStatus
from tcpls.tls.extensions import Extensions, ExtensionType, write_cookie, write_u16
from tcpls.tls.flow import Epoch, MessageToSend, Outcome
from tcpls.tls.handshake import ClientHandshake, Handshake, ServerHandshake
from tcpls.tls.hpke import Kem
from tcpls.tls.messages import RETRY_RANDOM, Certificate, ClientHello, EncryptedExtensions, ServerHello
from tcpls.tls.psk import OfferedPsks, PreSharedKey, PskMode
from tcpls.tls.record import ContentType, RecordOpener
from tcpls.tls.suites import CipherSuite
from tcpls.tls.tickets import Ticket
from tcpls.wire import Reader
from tests.fuzz.null_engine import NullEngine, NullKey
from tests.unit.tls.ech.sealing import (
    CONFIG,
    ECH,
    FILE,
    KEYS,
    OTHER,
    PUBLIC_NAME,
    ech_client,
    ech_server,
    handshake,
    public_identity,
    read_ech,
)
from tests.unit.tls.ech.test_keys import made
from tests.unit.tls.pair import (
    NAME,
    TIME,
    client_config,
    identity,
    make_client,
    make_server,
    move,
    refused,
    seeded,
    server_config,
    shake,
)
from tests.unit.tls.test_client_states import refuses, sent

ILLEGAL = Alert.ILLEGAL_PARAMETER
KEY = PreSharedKey(b"an identity to hide", bytes(range(32)))
PSK = ExtensionType.PRE_SHARED_KEY
SECRET = (0xFA01, b"an extension to hide")


def first_hello(client: Handshake) -> ClientHello:
    (message,) = sent(client)
    return ClientHello.read(Reader(message[4:]))


def groups_of(retry: bool) -> dict[str, Any]:
    """Of a server: one that the client has no share of, or its own."""
    return {"groups": (Group.SECP384R1,)} if retry else {}


# What everybody sees


@pytest.mark.clause("RFC 9849 6.1", "RFC 9849 10.5")
@pytest.mark.parametrize("retry", [False, True], ids=["at once", "retry"])
def test_nothing_secret_is_seen(retry: bool) -> None:
    changes: dict[str, Any] = {"alpn": (b"secret/1",), "psks": (KEY,), "extra_extensions": (SECRET,), "tickets": 1}
    client = make_client(ech=FILE.configs, **changes)
    server = make_server(ech=KEYS, alpn=(b"secret/1",), **groups_of(retry))
    seen = b""
    while data := client.data_to_send():
        seen += data
        server.receive_data(data)
        move(server, client)
    outcome = client.established()
    assert (outcome.ech, outcome.retried, outcome.alpn) == (EchStatus.ACCEPTED, retry, b"secret/1")
    assert server.established().server_name == NAME
    assert seen.count(PUBLIC_NAME.encode()) == 1 + retry
    for secret in (NAME.encode(), b"secret/1", KEY.identity, SECRET[1], outcome.read_secret.secret):
        assert secret not in seen


@pytest.mark.clause("RFC 9849 6.1")
def test_the_outer_hello() -> None:
    client = ech_client(alpn=(b"h2",), extra_extensions=(SECRET,))
    outer = first_hello(client)
    inner_random = client._flow.client_random
    # RFC 9849 6.1: a random of its own; 6.1 again: it is TLS 1.3 with the public name.
    assert outer.random != inner_random and outer.server_name == PUBLIC_NAME
    assert ExtensionType.ALPN not in outer.extensions and SECRET[0] not in outer.extensions
    plain = first_hello(ClientHandshake(client_config(), random=seeded(9), time=TIME))
    assert outer.extensions.keys() - {ECH} == plain.extensions.keys()
    assert outer.suites == plain.suites and len(outer.session_id) == 32
    assert len(read_ech(outer).payload) % 32 == 16


@pytest.mark.clause("RFC 9849 6.1.3")
def test_names_have_no_length() -> None:
    configs = (replace(CONFIG, maximum_name_length=60),)

    def size(name: str | None, **changes: Any) -> int:
        hello = first_hello(ech_client(configs, server_name=name, **changes))
        return len(read_ech(hello).payload)

    names = ["a", "a.example", "x" * 60, f"{'y' * 40}.example"]
    assert len({size(name) for name in [*names, "192.0.2.1"]}) == 1
    assert size(None, trust=None) == size("a")
    assert size(f"{'z' * 60}.{'z' * 60}.example") > size("a")


@pytest.mark.clause("RFC 9849 6.1.2")
def test_a_pre_shared_key_has_a_double() -> None:
    other = PreSharedKey(b"another", bytes(48), suite=CipherSuite.AES_256_GCM_SHA384)
    outer = first_hello(ech_client(psks=(KEY, other)))
    assert next(reversed(outer.extensions)) == PSK
    assert ExtensionType.PSK_KEY_EXCHANGE_MODES in outer.extensions
    psks = OfferedPsks.read(outer.extensions[PSK])
    assert [len(identity) for identity, _ in psks.identities] == [len(KEY.identity), len(other.identity)]
    assert [len(binder) for binder in psks.binders] == [32, 48]
    assert KEY.identity not in outer.write() and all(age for _, age in psks.identities)


# Acceptance


@pytest.mark.clause("RFC 9849 6.1.4", "RFC 9849 7.2", "RFC 9849 7.2.1")
@pytest.mark.parametrize("suite", CipherSuite)
@pytest.mark.parametrize("psk", [False, True], ids=["certificate", "psk"])
@pytest.mark.parametrize("retry", [False, True], ids=["at once", "retry"])
def test_accepted(retry: bool, psk: bool, suite: CipherSuite) -> None:
    keys = (replace(KEY, suite=suite),) if psk else ()
    groups = groups_of(retry)
    client, server = ech_client(psks=keys), ech_server(psks=keys, suites=(suite,), **groups)
    ours, theirs = handshake(client, server)
    assert ours.ech is theirs.ech is EchStatus.ACCEPTED
    assert ours.retried is theirs.retried is retry
    assert theirs.server_name == NAME
    assert (ours.psk_identity == KEY.identity) is psk


def test_an_address_is_hidden_too() -> None:
    ours, theirs = handshake(ech_client(server_name="192.0.2.1", trust=None), ech_server())
    assert ours.ech is EchStatus.ACCEPTED and theirs.server_name is None


@pytest.mark.clause("RFC 9850 2.3")
@pytest.mark.parametrize("configs", [FILE.configs, OTHER], ids=["accepted", "rejected"])
def test_the_key_log(configs: Any) -> None:
    logs = [Log(), Log()]
    client = ClientHandshake(client_config(ech=configs), random=seeded(1), time=TIME, key_log=logs[0])
    config = server_config(identities=(identity(), public_identity()), ech=KEYS)
    server = ServerHandshake(config, random=seeded(2), key_log=logs[1])
    outer = client.events()[0]
    assert isinstance(outer, MessageToSend)
    server.receive(Epoch.INITIAL, outer.data)
    for message in sent(server):
        try:
            client.receive(client.read_epoch, message)
        except EchRejected:
            assert configs is OTHER
    outer_random = ClientHello.read(Reader(outer.data[4:])).random
    ours, theirs = logs[0].entries, logs[1].entries
    assert ours["ECH_CONFIG"] == (outer_random, configs[0].write())
    assert (len(ours["ECH_SECRET"][1]), ours["ECH_SECRET"][0]) == (32, outer_random)
    assert (theirs.get("ECH_SECRET") == ours["ECH_SECRET"]) is (configs is FILE.configs)
    label = "SERVER_TRAFFIC_SECRET_0"
    assert ours[label] == theirs[label]
    assert (ours[label][0] == outer_random) is (configs is OTHER)


class Log:
    def __init__(self) -> None:
        self.entries: dict[str, tuple[bytes, bytes]] = {}

    def secret(self, label: str, client_random: bytes, secret: bytes) -> None:
        self.entries[label] = client_random, secret


# Rejection


def rejected(client: ClientHandshake, server: ServerHandshake) -> EchRejected:
    with pytest.raises(EchRejected) as caught:
        handshake(client, server)
    refused(caught.value, Reason.ECH_REJECTED, Alert.ECH_REQUIRED)
    return caught.value


@pytest.mark.clause("RFC 9849 6.1.6", "RFC 9849 6.1.7")
@pytest.mark.parametrize("retry", [False, True], ids=["at once", "retry"])
def test_rejected(retry: bool) -> None:
    groups = groups_of(retry)
    error = rejected(ech_client(OTHER, psks=(KEY,), alpn=(b"h2",)), ech_server(psks=(KEY,), alpn=(b"h2",), **groups))
    assert (error.public_name, error.retry_configs) == (PUBLIC_NAME, write_configs(FILE.configs))
    error = rejected(ech_client(), ech_server(None, **groups))
    assert error.retry_configs == b""


@pytest.mark.clause("RFC 9849 6.1.6")
def test_the_alert_follows_finished() -> None:
    config = server_config(identities=(identity(), public_identity()), ech=KEYS)
    client, server = make_client(ech=OTHER), ServerConnection(config, random=seeded(2))
    with pytest.raises(EchRejected):
        shake(client, server)
    move(client, server)
    established = server.established()
    assert established.server_name == PUBLIC_NAME and established.ech is EchStatus.REJECTED
    # What is left unread is the alert, under the client's application keys.
    engine = established.read_secret.engine
    opener = RecordOpener(engine.aead, established.read_secret.keys(), engine.invalid_tag)
    opener.feed(established.unread)
    record = opener.next_record()
    assert record is not None and (record[0], bytes(record[1])) == (ContentType.ALERT, b"\x02\x79")


@pytest.mark.clause("RFC 9849 6.1.7")
@pytest.mark.parametrize("retry", [False, True], ids=["at once", "retry"])
def test_the_public_name_must_be_proved(retry: bool) -> None:
    groups = groups_of(retry)
    server = ServerHandshake(server_config(ech=KEYS, **groups), random=seeded(2))
    with pytest.raises(CertificateError) as caught:
        handshake(ech_client(OTHER), server)
    refused(caught.value, Reason.WRONG_NAME, Alert.BAD_CERTIFICATE)


@pytest.mark.clause("RFC 9849 6.1.7")
def test_the_public_server_does_not_see_who_the_client_is() -> None:
    for auth, shown in ((ClientAuth.NONE, False), (ClientAuth.REQUEST, True)):
        client = ech_client(OTHER, identities=(identity(),))
        rejected(client, ech_server(client_auth=auth))
        message, *finished = sent(client)
        assert (message == Certificate(b"", ()).write()) is shown
        assert len(finished) == shown


@pytest.mark.clause("RFC 9849 6.1.6")
def test_without_verification_nothing_is_handed_out() -> None:
    assert rejected(ech_client(OTHER, trust=None), ech_server()).retry_configs is None


@pytest.mark.clause("RFC 9849 6.1.6")
def test_retry_configurations_of_unknown_versions_are_none() -> None:
    client, flight = _null_flight(OTHER, lambda extensions: extensions | {ECH: b"\x00\x05\xfe\x0a\x00\x01x"})
    with pytest.raises(EchRejected) as caught:
        feed(client, flight)
    assert caught.value.retry_configs == b""


# Hostile servers. With an engine that protects nothing, every message can be another.


def null_client(configs: Any, **changes: Any) -> ClientHandshake:
    config = client_config(ech=configs, engine=NullEngine(), trust=_Trusting(), groups=(Group.X25519, Group.SECP256R1))
    return ClientHandshake(replace(config, **changes), random=seeded(1), time=TIME)


class _Trusting:
    """Trusts whoever is asked for by the public name."""

    subjects: tuple[bytes, ...] = ()

    def validate(self, chain: Any, name: str | None, time: Any) -> None:
        if name != PUBLIC_NAME:
            raise CertificateError(Reason.WRONG_NAME)

    def check_status(self, response: bytes, chain: Any, time: Any) -> bool:
        return False


def _null_server(keys: Any) -> ServerHandshake:
    config = server_config(engine=NullEngine(), ech=keys, groups=(Group.X25519,))
    return ServerHandshake(replace(config, identities=(replace(identity(), signer=NullKey()),)), random=seeded(2))


def _null_flight(
    configs: Any, change: Any, *, accept: bool = False, **changes: Any
) -> tuple[ClientHandshake, list[bytes]]:
    """The client, and the server's flight to it with other EncryptedExtensions."""
    client = null_client(configs, **changes)
    server = _null_server(None)
    hello = first_hello(client)
    server.receive(Epoch.INITIAL, hello.write())
    first, second, *others = sent(server)
    answer = ServerHello.read(Reader(first[4:]))
    # Every MAC of this engine is zeros, and so is the confirmation.
    first = replace(answer, random=answer.random[:24] + (bytes(8) if accept else b"rejected")).write()
    extensions: Extensions = EncryptedExtensions.read(Reader(second[4:]), hello.extensions.keys()).extensions
    return client, [first, EncryptedExtensions(change(extensions)).write(), *others]


def feed(client: ClientHandshake, messages: list[bytes]) -> None:
    for message in messages:
        client.receive(client.read_epoch, message)


@pytest.mark.clause("RFC 9849 6.1.6", "RFC 9849 6.2")
@pytest.mark.parametrize(
    "contents", [b"", b"\x00\x00", b"\x00\x05\xfe\x0d\x00\x01x", write_configs(FILE.configs) + b"x"]
)
@pytest.mark.parametrize("offer", [{"ech": OTHER}, {"ech": (), "ech_grease": True}], ids=["rejected", "grease"])
def test_lists_that_are_none(offer: dict[str, Any], contents: bytes) -> None:
    client, (first, second, *_) = _null_flight((), lambda extensions: extensions | {ECH: contents}, **offer)
    client.receive(Epoch.INITIAL, first)
    with pytest.raises(HandshakeError) as caught:
        client.receive(client.read_epoch, second)
    assert caught.value.alert is Alert.DECODE_ERROR


@pytest.mark.clause("RFC 9849 6.2")
def test_grease_takes_no_notice_of_what_it_is_told() -> None:
    told = write_configs(FILE.configs)
    client, flight = _null_flight((), lambda extensions: extensions | {ECH: told}, ech_grease=True, trust=None)
    feed(client, flight)
    outcome = client.events()[-1]
    assert isinstance(outcome, Outcome) and outcome.ech is EchStatus.GREASE


@pytest.mark.clause("RFC 9849 5")
def test_an_answer_to_the_inner_hello() -> None:
    told = write_configs(FILE.configs)
    client, (first, second, *_) = _null_flight(FILE.configs, lambda ext: ext | {ECH: told}, accept=True)
    client.receive(Epoch.INITIAL, first)
    refuses(client, client.read_epoch, second, Reason.UNSUPPORTED_EXTENSION, Alert.UNSUPPORTED_EXTENSION)


def test_an_answer_to_nothing() -> None:
    client, (first, second, *_) = _null_flight((), lambda ext: ext | {ECH: b""})
    client.receive(Epoch.INITIAL, first)
    refuses(client, client.read_epoch, second, Reason.UNSUPPORTED_EXTENSION, Alert.UNSUPPORTED_EXTENSION)


@pytest.mark.clause("RFC 9849 5")
def test_the_extension_in_server_hello() -> None:
    client = ech_client()
    hello = first_hello(client)
    answer = ServerHello(bytes(32), hello.session_id, hello.suites[0], {43: write_u16(0x0304), ECH: bytes(8)})
    refuses(client, Epoch.INITIAL, answer.write(), Reason.MISPLACED_EXTENSION, ILLEGAL)


@pytest.mark.clause("RFC 9849 6.1.2")
def test_a_server_that_takes_the_double_of_a_key() -> None:
    client = ech_client(psks=(KEY,))
    hello = first_hello(client)
    chosen = {43: write_u16(0x0304), PSK: write_u16(0)}
    answer = ServerHello(bytes(32), hello.session_id, hello.suites[0], chosen)
    refuses(client, Epoch.INITIAL, answer.write(), Reason.ILLEGAL_CHOICE, ILLEGAL)


def retry_request(hello: ClientHello, extensions: Extensions) -> bytes:
    asked = {43: write_u16(0x0304), ExtensionType.KEY_SHARE: write_u16(Group.SECP384R1)}
    return ServerHello(RETRY_RANDOM, hello.session_id, hello.suites[0], {**asked, **extensions}).write()


@pytest.mark.clause("RFC 9849 6.1.4", "RFC 9849 6.2")
@pytest.mark.parametrize("size", [0, 1, 7, 9, 100])
@pytest.mark.parametrize("grease", [False, True], ids=["real", "grease"])
def test_confirmations_of_another_length(grease: bool, size: int) -> None:
    client = ech_client(() if grease else FILE.configs, ech_grease=grease)
    request = retry_request(first_hello(client), {ECH: bytes(size)})
    refuses(client, Epoch.INITIAL, request, Reason.BAD_LENGTH, Alert.DECODE_ERROR)


@pytest.mark.clause("RFC 9849 6.1.4", "RFC 9849 6.1.6", "RFC 8446 4.1.2")
@pytest.mark.parametrize("extensions", [{}, {ECH: bytes(8)}], ids=["no confirmation", "a wrong one"])
def test_the_second_hello_after_a_rejection(extensions: Extensions) -> None:
    client = ech_client(psks=(KEY,))
    outer = first_hello(client)
    cookie: Extensions = {ExtensionType.COOKIE: write_cookie(b"cookie")}
    client.receive(Epoch.INITIAL, retry_request(outer, {**extensions, **cookie}))
    second = first_hello(client)
    changed = {ExtensionType.KEY_SHARE, ExtensionType.COOKIE, PSK}
    assert (second.random, second.server_name) == (outer.random, PUBLIC_NAME)
    assert {k: v for k, v in outer.extensions.items() if k not in changed} == {
        k: v for k, v in second.extensions.items() if k not in changed
    }


@pytest.mark.clause("RFC 9849 6.1.5")
def test_the_second_hello_after_an_acceptance() -> None:
    client, server = ech_client(psks=(KEY,)), ech_server(groups=(Group.SECP384R1,))
    outer = first_hello(client)
    server.receive(Epoch.INITIAL, outer.write())
    (request,) = sent(server)
    client.receive(Epoch.INITIAL, request)
    second = first_hello(client)
    before, after = read_ech(outer), read_ech(second)
    assert replace(before, enc=b"", payload=after.payload) == after
    assert before.enc and after.payload != before.payload
    assert (second.random, second.session_id) == (outer.random, outer.session_id)
    # RFC 9849 6.1.5: what is not of the second inner hello is as it was.
    assert second.extensions[PSK] == outer.extensions[PSK]
    assert list(second.extensions) == list(outer.extensions)


@pytest.mark.clause("RFC 9849 6.1.5")
def test_accepted_by_the_retry_alone() -> None:
    client, server = ech_client(), ech_server(groups=(Group.SECP384R1,))
    server.receive(Epoch.INITIAL, first_hello(client).write())
    (request,) = sent(server)
    client.receive(Epoch.INITIAL, request)
    server.receive(Epoch.INITIAL, first_hello(client).write())
    answer = ServerHello.read(Reader(sent(server)[0][4:]))
    changed = replace(answer, random=answer.random[:-1] + bytes((answer.random[-1] ^ 1,)))
    refuses(client, Epoch.INITIAL, changed.write(), Reason.ILLEGAL_CHOICE, ILLEGAL)


def test_a_second_retry() -> None:
    client, server = ech_client(), ech_server(groups=(Group.SECP384R1,))
    server.receive(Epoch.INITIAL, first_hello(client).write())
    (request,) = sent(server)
    client.receive(Epoch.INITIAL, request)
    refuses(client, Epoch.INITIAL, request, Reason.SECOND_RETRY, Alert.UNEXPECTED_MESSAGE)


@pytest.mark.clause("RFC 9849 6.1.4")
@pytest.mark.parametrize("at", [6, 30, 37])
def test_somebody_who_changes_the_confirmation(at: int) -> None:
    """The client goes on with the hello that the server has not used, and finds that out."""
    client, server = make_client(ech=FILE.configs), make_server(ech=KEYS)
    move(client, server)
    flight = bytearray(server.data_to_send())
    flight[5 + at] ^= 1
    with pytest.raises(HandshakeError) as caught:
        client.receive_data(bytes(flight))
    assert caught.value.reason is Reason.BAD_RECORD_MAC
    # Its alert is under keys that the server has not either.
    with pytest.raises(HandshakeError):
        move(client, server)


# Grease


@pytest.mark.clause("RFC 9849 6.2")
def test_grease_looks_like_the_real_thing() -> None:
    # The real one to a configuration that knows no longest name, with one extension more in its outer form.
    for changes in ({}, {"psks": (KEY,), "alpn": (b"h2",)}):
        real = read_ech(first_hello(ech_client((replace(CONFIG, maximum_name_length=0),), **changes)))
        hello = first_hello(ech_client((), ech_grease=True, **changes))
        grease = read_ech(hello)
        assert (len(grease.enc), len(grease.payload)) == (len(real.enc), len(real.payload))
        assert hello.server_name == NAME


@pytest.mark.clause("RFC 9849 6.2")
def test_grease_varies() -> None:
    found = set()
    for seed in range(60):
        client = ClientHandshake(client_config(ech_grease=True), random=seeded(seed), time=TIME)
        ech = read_ech(first_hello(client))
        found.add((ech.kdf, ech.aead))
    assert len(found) == 6


@pytest.mark.clause("RFC 9849 6.2")
@pytest.mark.parametrize("psk", [False, True])
def test_grease_stays_after_a_retry(psk: bool) -> None:
    client = ech_client((), ech_grease=True, psks=(KEY,) if psk else ())
    first = first_hello(client)
    client.receive(Epoch.INITIAL, retry_request(first, {ECH: bytes(8)}))
    second = first_hello(client)
    assert second.extensions[ECH] == first.extensions[ECH]
    order = [kind for kind in first.extensions if kind != PSK]
    assert [kind for kind in second.extensions if kind != PSK] == order
    assert (next(reversed(second.extensions)) == PSK) is psk


def test_grease_may_resume() -> None:
    ours, _ = handshake(ech_client((), ech_grease=True, psks=(KEY,)), ech_server(psks=(KEY,)))
    assert ours.psk_identity == KEY.identity


def test_a_configuration_goes_ahead_of_grease() -> None:
    ours, _ = handshake(ech_client(ech_grease=True), ech_server())
    assert ours.ech is EchStatus.ACCEPTED


# Configurations


def test_configurations_that_cannot_be_used() -> None:
    unusable = replace(CONFIG, kem=0x7777)
    with pytest.raises(ConfigurationError, match="KEM 0x7777"):
        client_config(ech=(unusable,))
    ours, _ = handshake(ech_client((unusable, CONFIG)), ech_server())
    assert ours.ech is EchStatus.ACCEPTED


def test_a_key_that_is_no_point() -> None:
    config = replace(made(kem=Kem.P256_HKDF_SHA256).configs[0], public_key=b"\x04" + bytes(64))
    with pytest.raises(ConfigurationError, match=r"public\.example has a key that is none"):
        ech_client((config,))


def test_resumption_stays_hidden() -> None:
    ticket = Ticket(
        b"a ticket of before", bytes(32), CipherSuite.AES_128_GCM_SHA256, 7, TIME.timestamp(), 7200, NAME, None, True
    )
    hello = first_hello(ech_client(ticket=ticket))
    assert PSK in hello.extensions and ticket.identity not in hello.write()


def test_psk_alone() -> None:
    modes = (PskMode.PSK_KE,)
    ours, _ = handshake(ech_client(psks=(KEY,), psk_modes=modes), ech_server(psks=(KEY,), psk_modes=modes))
    assert ours.group is None and ours.ech is EchStatus.ACCEPTED


def test_the_connection_says_it() -> None:
    client = ClientConnection(client_config(ech=FILE.configs), random=seeded(1), time=TIME)
    ours, theirs = shake(client, make_server(ech=KEYS))
    assert ours.ech is theirs.ech is EchStatus.ACCEPTED
