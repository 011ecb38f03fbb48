"""Encrypted SNI: what others have sent, both roles, and what either refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tcpls.errors import Alert, ConfigurationError, HandshakeError, PeerError, Reason
from tcpls.tls.algorithms import Group
from tcpls.tls.ech.status import EchStatus
from tcpls.tls.esni import DRAFT_02, DRAFT_03, EncryptedSni, EsniKey, EsniKeys, write_keys
from tcpls.tls.extensions import Extensions, ExtensionType, write_server_name
from tcpls.tls.flow import Epoch
from tcpls.tls.handshake import ClientHandshake, ServerHandshake
from tcpls.tls.hpke import Kem
from tcpls.tls.messages import ClientHello, EncryptedExtensions, Message
from tcpls.tls.psk import PreSharedKey
from tcpls.tls.suites import CipherSuite
from tcpls.wire import Reader
from tests.engine import ENGINE
from tests.unit.tls.ech.sealing import FILE, ech_client, ech_server, handshake, read_ech
from tests.unit.tls.pair import NAME, TIME, client_config, refused, seeded, server_config
from tests.unit.tls.test_client_states import refuses, sent

ESNI = ExtensionType.ENCRYPTED_SERVER_NAME
NOW = int(TIME.timestamp())
VALID = NOW - 10, NOW + 10
ILLEGAL = Alert.ILLEGAL_PARAMETER
VECTORS = Path(__file__).parents[2] / "vectors" / "esni_picotls.json"
CASES: list[dict[str, Any]] = json.loads(VECTORS.read_text())["cases"]


def made(version: int = DRAFT_03, group: Group = Group.X25519, **changes: Any) -> EsniKey:
    share = ENGINE.private_share(group, seeded(5))
    name = "public.example" if version == DRAFT_03 else ""
    settings: dict[str, Any] = {"public_name": name, "version": version, **changes}
    raw = write_keys(ENGINE, (share,), VALID, **settings)
    return EsniKey.of(EsniKeys.read(ENGINE, raw), (share,))


KEY = made()


def client(key: EsniKey = KEY, **changes: Any) -> ClientHandshake:
    return ClientHandshake(client_config(esni=key.keys, **changes), random=seeded(1), time=TIME)


def server(*keys: EsniKey, **changes: Any) -> ServerHandshake:
    return ServerHandshake(server_config(esni=keys or (KEY,), **changes), random=seeded(2), time=TIME)


def first_hello(handshake: ClientHandshake) -> ClientHello:
    (message,) = sent(handshake)
    return ClientHello.read(Reader(message[4:]))


@pytest.mark.parametrize("case", CASES, ids=[case["what"] for case in CASES])
def test_what_picotls_sent(case: dict[str, Any]) -> None:
    share = ENGINE.static_share(Kem(case["kem"]).group, bytes.fromhex(case["private"]))
    key = EsniKey.of(EsniKeys.read(ENGINE, bytes.fromhex(case["keys"])), (share,))
    handshake = server(key)
    handshake.receive(Epoch.INITIAL, bytes.fromhex(case["hello"]))
    # A name that no certificate here is for: the first is shown, and the answer says that the name was read.
    hello = ClientHello.read(Message(1, bytes.fromhex(case["hello"])).body())
    encrypted = EncryptedExtensions.read(Reader(sent(handshake)[1][4:]), hello.extensions.keys())
    assert len(encrypted.extensions[ESNI]) == (16 if key.keys.version == DRAFT_02 else 17)
    assert case["name"].encode() not in bytes.fromhex(case["hello"])


@pytest.mark.parametrize("psk", [False, True])
@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("suite", CipherSuite)
@pytest.mark.parametrize("group", [Group.X25519, Group.SECP256R1])
@pytest.mark.parametrize("version", [DRAFT_02, DRAFT_03])
def test_both_roles(version: int, group: Group, suite: CipherSuite, retry: bool, psk: bool) -> None:
    key = made(version, group, suites=(suite,))
    keys = (PreSharedKey(b"identity", bytes(32)),) if psk else ()
    groups = {"groups": (Group.SECP384R1,)} if retry else {}
    ours, theirs = handshake(client(key, psks=keys), server(made(), key, psks=keys, **groups))
    assert ours.ech is theirs.ech is EchStatus.ESNI
    assert theirs.server_name == NAME
    assert ours.retried is theirs.retried is retry


@pytest.mark.parametrize("version", [DRAFT_02, DRAFT_03])
def test_the_name_is_not_seen(version: int) -> None:
    hello = first_hello(client(made(version)))
    assert NAME.encode() not in hello.write()
    assert hello.server_name == ("public.example" if version == DRAFT_03 else None)
    sizes = {len(first_hello(client(server_name=name)).extensions[ESNI]) for name in ("a", "x" * 60, NAME)}
    assert len(sizes) == 1


def test_no_key_is_used_twice() -> None:
    hellos = client(), server(groups=(Group.SECP384R1,))
    first = first_hello(hellos[0])
    hellos[1].receive(Epoch.INITIAL, first.write())
    hellos[0].receive(Epoch.INITIAL, sent(hellos[1])[0])
    second = first_hello(hellos[0])
    before, after = (EncryptedSni.read(hello.extensions[ESNI]) for hello in (first, second))
    assert before.public != after.public and before.record_digest == after.record_digest


# What a server refuses


def _changed(change: Callable[[EncryptedSni], EncryptedSni]) -> ClientHello:
    hello = first_hello(client())
    sni = change(EncryptedSni.read(hello.extensions[ESNI]))
    return replace(hello, extensions={**hello.extensions, ESNI: sni.write()})


@pytest.mark.parametrize(
    ("change", "reason", "alert"),
    [
        (lambda sni: replace(sni, record_digest=bytes(32)), Reason.ILLEGAL_CHOICE, ILLEGAL),
        (lambda sni: replace(sni, record_digest=b""), Reason.ILLEGAL_CHOICE, ILLEGAL),
        (lambda sni: replace(sni, group=Group.SECP256R1), Reason.ILLEGAL_CHOICE, ILLEGAL),
        (lambda sni: replace(sni, public=bytes(32)), Reason.BAD_KEY_SHARE, ILLEGAL),
        (lambda sni: replace(sni, public=sni.public[:-1]), Reason.BAD_KEY_SHARE, ILLEGAL),
        (lambda sni: replace(sni, public=b"\x09" + bytes(31)), Reason.ECH_NOT_OPENED, Alert.DECRYPT_ERROR),
        (lambda sni: replace(sni, sealed=sni.sealed[:-1]), Reason.ECH_NOT_OPENED, Alert.DECRYPT_ERROR),
        (lambda sni: replace(sni, sealed=bytes(16)), Reason.ECH_NOT_OPENED, Alert.DECRYPT_ERROR),
        (lambda sni: replace(sni, sealed=bytes(15)), Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        (lambda sni: replace(sni, sealed=b""), Reason.BAD_LENGTH, Alert.DECODE_ERROR),
    ],
)
def test_extensions_that_are_refused(
    change: Callable[[EncryptedSni], EncryptedSni], reason: Reason, alert: Alert
) -> None:
    refuses(server(), Epoch.INITIAL, _changed(change).write(), reason, alert)


@pytest.mark.parametrize("contents", [b"", b"\x13\x01", b"\x13\x01\x00\x1d\x00\x00", b"\x13\x02" + bytes(3)])
def test_extensions_that_do_not_parse(contents: bytes) -> None:
    hello = first_hello(client())
    hello = replace(hello, extensions={**hello.extensions, ESNI: contents})
    with pytest.raises(HandshakeError) as caught:
        server().receive(Epoch.INITIAL, hello.write())
    assert caught.value.alert is Alert.DECODE_ERROR


def test_another_key_share() -> None:
    """It is authenticated, so that nobody in between can put their own there and read the answer."""
    hello = first_hello(client())
    other = first_hello(ClientHandshake(client_config(), random=seeded(7), time=TIME))
    kind = ExtensionType.KEY_SHARE
    hello = replace(hello, extensions={**hello.extensions, kind: other.extensions[kind]})
    refuses(server(), Epoch.INITIAL, hello.write(), Reason.ECH_NOT_OPENED, Alert.DECRYPT_ERROR)


def test_suites_that_are_not_of_the_keys() -> None:
    key = made(suites=(CipherSuite.AES_128_GCM_SHA256,))
    narrow = replace(key, keys=replace(key.keys, suites=(CipherSuite.AES_256_GCM_SHA384.code,)))
    refuses(server(narrow), Epoch.INITIAL, first_hello(client(key)).write(), Reason.ILLEGAL_CHOICE, ILLEGAL)
    hello = first_hello(client())
    contents = b"\x7f\x7f" + hello.extensions[ESNI][2:]
    hello = replace(hello, extensions={**hello.extensions, ESNI: contents})
    refuses(server(), Epoch.INITIAL, hello.write(), Reason.ILLEGAL_CHOICE, ILLEGAL)


def _sealed(plain: bytes) -> ClientHello:
    """A hello with `plain` in it, under real keys."""
    hello = first_hello(client())
    share = ENGINE.private_share(Group.X25519, seeded(6))
    suite = CipherSuite.AES_128_GCM_SHA256
    sni = EncryptedSni(suite, Group.X25519, share.public, KEY.keys.digest(ENGINE, suite), b"")
    keys = sni.keys(ENGINE, share.exchange(KEY.keys.keys[0][1]), hello.random)
    sealed = bytearray(len(plain) + 16)
    ENGINE.aead(keys).encrypt_into(keys.iv, plain, hello.extensions[ExtensionType.KEY_SHARE], sealed)
    return replace(hello, extensions={**hello.extensions, ESNI: replace(sni, sealed=bytes(sealed)).write()})


_LIST = write_server_name("a.example")


@pytest.mark.parametrize(
    ("plain", "reason"),
    [
        (bytes(16) + _LIST.ljust(260, b"\0")[:-1] + b"\x01", Reason.BAD_INNER_HELLO),
        (bytes(16) + _LIST.ljust(259, b"\0"), Reason.BAD_INNER_HELLO),
        (bytes(16) + _LIST.ljust(261, b"\0"), Reason.BAD_INNER_HELLO),
        (bytes(16) + b"\x00\x04\x07\x00\x01x".ljust(260, b"\0"), Reason.BAD_INNER_HELLO),
        (bytes(16) + bytes(260), Reason.BAD_LENGTH),
        (bytes(16) + b"\x02\x00".ljust(260, b"\0"), Reason.TRUNCATED),
        (bytes(10), Reason.TRUNCATED),
        (b"", Reason.TRUNCATED),
    ],
)
def test_names_that_are_refused(plain: bytes, reason: Reason) -> None:
    with pytest.raises(HandshakeError) as caught:
        server().receive(Epoch.INITIAL, _sealed(plain).write())
    assert caught.value.reason is reason


@pytest.mark.parametrize("contents", [None, "the first"])
def test_second_hellos_that_are_refused(contents: str | None) -> None:
    ours, theirs = client(), server(groups=(Group.SECP384R1,))
    first = first_hello(ours)
    theirs.receive(Epoch.INITIAL, first.write())
    ours.receive(Epoch.INITIAL, sent(theirs)[0])
    second = first_hello(ours)
    extensions: Extensions = {kind: value for kind, value in second.extensions.items() if kind != ESNI}
    if contents is not None:
        extensions[ESNI] = first.extensions[ESNI]
    reason = Reason.MISSING_EXTENSION if contents is None else Reason.ECH_NOT_OPENED
    with pytest.raises(HandshakeError) as caught:
        theirs.receive(Epoch.INITIAL, replace(second, extensions=extensions).write())
    assert caught.value.reason is reason


def test_another_name_in_the_second_hello() -> None:
    """Two clients with one random: what the second of them would send is well made, but for another name."""
    ours, other = client(), client(server_name="other.example")
    theirs = server(groups=(Group.SECP384R1,))
    theirs.receive(Epoch.INITIAL, first_hello(ours).write())
    assert first_hello(other).random == ours._flow.client_random
    other.receive(Epoch.INITIAL, sent(theirs)[0])
    refuses(theirs, Epoch.INITIAL, first_hello(other).write(), Reason.CHANGED_HELLO, ILLEGAL)


def test_a_server_without_keys_knows_only_what_it_sees() -> None:
    hello = first_hello(client())
    plain = ServerHandshake(server_config(), random=seeded(2))
    plain.receive(Epoch.INITIAL, hello.write())
    encrypted = EncryptedExtensions.read(Reader(sent(plain)[1][4:]), hello.extensions.keys())
    assert ESNI not in encrypted.extensions


def test_encrypted_client_hello_goes_ahead() -> None:
    ours, _ = handshake(ech_client(FILE.configs), ech_server(esni=(KEY,)))
    assert ours.ech is EchStatus.ACCEPTED
    assert read_ech(first_hello(ech_client(FILE.configs))).enc


# What a client refuses


@pytest.mark.parametrize("version", [DRAFT_02, DRAFT_03])
def test_servers_that_have_not_read_the_name(version: int) -> None:
    plain = ServerHandshake(server_config(), random=seeded(2), time=TIME)
    with pytest.raises(HandshakeError) as caught:
        handshake(client(made(version)), plain)
    refused(caught.value, Reason.ILLEGAL_CHOICE, ILLEGAL)


def test_configurations_that_cannot_be() -> None:
    with pytest.raises(ConfigurationError, match="host names"):
        client(server_name=None, trust=None)
    with pytest.raises(ConfigurationError, match="host names"):
        client(server_name="192.0.2.1")
    with pytest.raises(ConfigurationError, match="longer"):
        client(made(padded_length=10))
    for validity in ((NOW + 1, NOW + 2), (NOW - 2, NOW - 1)):
        raw = write_keys(ENGINE, (ENGINE.private_share(Group.X25519, seeded(5)),), validity)
        with pytest.raises(ConfigurationError, match="not valid now"):
            ClientHandshake(client_config(esni=EsniKeys.read(ENGINE, raw)), random=seeded(1), time=TIME)
    other = ENGINE.private_share(Group.X25519, seeded(8))
    with pytest.raises(ConfigurationError, match="none of the keys"):
        EsniKey.of(KEY.keys, (other,))
    unknown = replace(KEY.keys, suites=(0x7F7F,))
    with pytest.raises(ConfigurationError, match="no kind"):
        ClientHandshake(client_config(esni=unknown), random=seeded(1), time=TIME)


# Keys


@pytest.mark.parametrize("version", [DRAFT_02, DRAFT_03])
def test_keys_that_are_cut_off_or_changed(version: int) -> None:
    raw = made(version).keys.raw
    assert EsniKeys.read(ENGINE, raw).raw == raw
    for size in range(len(raw)):
        with pytest.raises(PeerError):
            EsniKeys.read(ENGINE, raw[:size])
    for at in range(len(raw)):
        with pytest.raises(PeerError):
            EsniKeys.read(ENGINE, raw[:at] + bytes((raw[at] ^ 1,)) + raw[at + 1 :])
