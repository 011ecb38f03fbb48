"""What a server opens, what it ignores, and what it refuses, with reason and alert (RFC 9849 sections 5 and 7)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tcpls.errors import Alert, Reason
from tcpls.tls.algorithms import Group
from tcpls.tls.ech.configs import write_configs
from tcpls.tls.ech.extension import INNER, OuterEch, write_outer_extensions
from tcpls.tls.ech.inner import encode_inner
from tcpls.tls.ech.keys import EchKeys
from tcpls.tls.ech.status import EchStatus
from tcpls.tls.extensions import ExtensionType, write_client_shares, write_offered_versions
from tcpls.tls.flow import Epoch, MessageToSend
from tcpls.tls.handshake import ServerHandshake
from tcpls.tls.messages import ClientHello, EncryptedExtensions, ServerHello
from tcpls.wire import Reader
from tests.engine import ENGINE
from tests.unit.tls.ech.sealing import (
    ECH,
    FILE,
    KEYS,
    OTHER,
    OUTER_EXTENSIONS,
    Sealing,
    ech_client,
    ech_server,
    handshake,
    inner_hello,
    outer_hello,
    read_ech,
)
from tests.unit.tls.ech.test_keys import made
from tests.unit.tls.pair import NAME, seeded
from tests.unit.tls.test_server_states import refuses, with_extensions

ILLEGAL = Alert.ILLEGAL_PARAMETER
DECODE = Alert.DECODE_ERROR
BAD_INNER = Reason.BAD_INNER_HELLO
GROUPS, SHARE = ExtensionType.SUPPORTED_GROUPS, ExtensionType.KEY_SHARE
SCHEMES = ExtensionType.SIGNATURE_ALGORITHMS


def flight(server: ServerHandshake) -> list[bytes]:
    return [event.data for event in server.events() if isinstance(event, MessageToSend)]


def answer(server: ServerHandshake, hello: ClientHello) -> tuple[ServerHello, EncryptedExtensions]:
    server.receive(server.read_epoch, hello.write())
    first, second, *_ = flight(server)
    return ServerHello.read(Reader(first[4:])), EncryptedExtensions.read(Reader(second[4:]), hello.extensions.keys())


def opened(server: ServerHandshake, hello: ClientHello) -> None:
    """The name that was hidden is the one that is answered to."""
    _, encrypted = answer(server, hello)
    assert ECH not in encrypted.extensions


def ignored(server: ServerHandshake, hello: ClientHello, keys: EchKeys = KEYS) -> None:
    """The handshake goes on with the outer ClientHello, and tells what to use."""
    _, encrypted = answer(server, hello)
    assert encrypted.extensions[ECH] == write_configs(keys.retry)


@pytest.mark.clause("RFC 9849 7.1")
@pytest.mark.parametrize("shared", [(), (GROUPS, SCHEMES), (SHARE,)], ids=["whole", "two", "share"])
def test_what_a_good_client_sends(shared: tuple[int, ...]) -> None:
    opened(ech_server(), Sealing().of(inner_hello(), shared))


@pytest.mark.clause("RFC 9849 7.1")
@pytest.mark.parametrize(
    "changes",
    [
        {"payload": b"x"},
        {"payload": bytes(15)},
        {"payload": bytes(16)},
        {"payload": bytes(400)},
        {"config_id": (FILE.configs[0].config_id + 1) % 256},
        {"kdf": 2},
        {"kdf": 0x7777},
        {"aead": 2},
        {"aead": 0xFFFF},
        {"enc": b""},
        {"enc": bytes(31)},
        {"enc": bytes(32)},
        {"enc": bytes(33)},
        {"enc": b"\x09" + bytes(31)},
    ],
    ids=str,
)
def test_what_does_not_open_is_ignored(changes: dict[str, Any]) -> None:
    ignored(ech_server(), Sealing().of(inner_hello(), **changes))


@pytest.mark.clause("RFC 9849 7.1")
def test_keys_of_others_are_ignored() -> None:
    ignored(ech_server(), Sealing(OTHER[0]).of(inner_hello(), config_id=FILE.configs[0].config_id))


@pytest.mark.clause("RFC 9849 5.2")
@pytest.mark.parametrize("where", ["random", "suites", "extension", "order"])
def test_the_outer_hello_is_authenticated(where: str) -> None:
    hello = Sealing().of(inner_hello())
    changed = {
        "random": replace(hello, random=b"x" * 32),
        "suites": replace(hello, suites=hello.suites[:1]),
        "extension": with_extensions(hello, {0xFA01: b""}),
        "order": replace(hello, extensions=dict(reversed(hello.extensions.items()))),
    }[where]
    ignored(ech_server(), changed)


@pytest.mark.clause("RFC 9849 10.4")
def test_every_key_is_tried_only_where_that_is_wanted() -> None:
    first, second = made(1), made(3)
    both = (*first.keys(ENGINE, "file"), *second.keys(ENGINE, "file"))
    named = EchKeys(both, first.configs)
    hello = Sealing(second.configs[0]).of(inner_hello(), config_id=(second.configs[0].config_id + 1) % 256)
    ignored(ech_server(named), hello, named)
    opened(ech_server(replace(named, trial=True)), hello)
    opened(ech_server(named), Sealing(second.configs[0]).of(inner_hello()))


def test_two_keys_of_one_id() -> None:
    keys = [made(seed) for seed in (1, 2)]
    keys = [replace(file, configs=(replace(file.configs[0], config_id=9),)) for file in keys]
    both = EchKeys(tuple(key for file in keys for key in file.keys(ENGINE, "file")), keys[0].configs)
    for file in keys:
        opened(ech_server(both), Sealing(file.configs[0]).of(inner_hello()))


def test_a_server_without_keys() -> None:
    _, encrypted = answer(ech_server(None), Sealing().of(inner_hello()))
    assert ECH not in encrypted.extensions


@pytest.mark.clause("RFC 9849 5", "RFC 9849 7")
@pytest.mark.parametrize(
    ("contents", "reason", "alert"),
    [
        (b"", Reason.TRUNCATED, DECODE),
        (INNER, Reason.BAD_VALUE, ILLEGAL),
        (INNER + b"\0", Reason.BAD_VALUE, ILLEGAL),
        (b"\x02", Reason.BAD_VALUE, ILLEGAL),
        (b"\xff" + OuterEch(1, 1, 0, bytes(32), bytes(64)).write()[1:], Reason.BAD_VALUE, ILLEGAL),
        (OuterEch(1, 1, 0, bytes(32), b"").write(), Reason.BAD_LENGTH, DECODE),
        (OuterEch(1, 1, 0, bytes(32), bytes(64)).write()[:-1], Reason.TRUNCATED, DECODE),
        (OuterEch(1, 1, 0, bytes(32), bytes(64)).write() + b"\0", Reason.TRAILING_BYTES, DECODE),
        (OuterEch(1, 1, 0, bytes(32), bytes(64)).write()[:6], Reason.TRUNCATED, DECODE),
    ],
)
@pytest.mark.parametrize("keys", [KEYS, None], ids=["keys", "no keys"])
def test_extensions_that_are_none(keys: EchKeys | None, contents: bytes, reason: Reason, alert: Alert) -> None:
    hello = with_extensions(inner_hello(), {ECH: contents})
    refuses(ech_server(keys), hello.write(), reason, alert)


def refused_inner(encoded: bytes, reason: Reason = BAD_INNER, alert: Alert = ILLEGAL, **changes: Any) -> None:
    outer = with_extensions(outer_hello(inner_hello()), changes.pop("outer", {}))
    refuses(ech_server(), Sealing().hello(encoded, outer, **changes).write(), reason, alert)


@pytest.mark.clause("RFC 9849 5.1")
def test_padding_that_is_not_zero() -> None:
    encoded = encode_inner(inner_hello(), (), 0)
    assert encoded[-1] == 0
    refused_inner(encoded[:-1] + b"\x01")
    refused_inner(encoded + bytes(100) + b"x")
    opened(ech_server(), Sealing().hello(encoded + bytes(1000), outer_hello(inner_hello())))


@pytest.mark.clause("RFC 9849 5.1")
def test_a_session_id_inside() -> None:
    hello = inner_hello()
    assert hello.session_id
    refused_inner(hello.write()[4:])


def test_an_inner_hello_that_is_cut_off() -> None:
    encoded = replace(inner_hello(), session_id=b"").write()[4:]
    # Whatever is left out at the end, lengths then promise more than there is.
    for size in (0, 1, 33, 34, 40, 60, len(encoded) - 1):
        refused_inner(encoded[:size], Reason.TRUNCATED, DECODE)


def _encoded(changes: dict[int, bytes | None]) -> bytes:
    return replace(with_extensions(inner_hello(), changes), session_id=b"").write()[4:]


@pytest.mark.clause("RFC 9849 7.1")
@pytest.mark.parametrize(
    "changes",
    [
        {ECH: None},
        {ECH: b""},
        {ECH: b"\x00"},
        {ECH: INNER + b"\0"},
        {ECH: OuterEch(1, 1, 0, b"", b"x").write()},
        {ExtensionType.SUPPORTED_VERSIONS: None},
        {ExtensionType.SUPPORTED_VERSIONS: write_offered_versions((0x0304, 0x0303))},
        {ExtensionType.SUPPORTED_VERSIONS: write_offered_versions((0x0301, 0x0304))},
        {ExtensionType.SUPPORTED_VERSIONS: write_offered_versions((0x0305,))},
    ],
    ids=str,
)
def test_inner_hellos_that_must_not_be(changes: dict[int, bytes | None]) -> None:
    refused_inner(_encoded(changes))


def test_versions_that_nobody_knows_are_ignored() -> None:
    versions = write_offered_versions((0x0A0A, 0x0304, 0xFAFA))
    opened(
        ech_server(),
        Sealing().hello(_encoded({ExtensionType.SUPPORTED_VERSIONS: versions}), outer_hello(inner_hello())),
    )


def _referring(*kinds: int, remove: tuple[int, ...] = (GROUPS, SCHEMES, SHARE)) -> bytes:
    changes: dict[int, bytes | None] = dict.fromkeys(remove)
    return _encoded({**changes, OUTER_EXTENSIONS: write_outer_extensions(kinds)})


@pytest.mark.clause("RFC 9849 5.1", "RFC 9849 A")
def test_extensions_out_of_the_outer_hello() -> None:
    order = [kind for kind in inner_hello().extensions if kind in (GROUPS, SCHEMES, SHARE)]
    outer = outer_hello(inner_hello())
    opened(ech_server(), Sealing().hello(_referring(*order), outer))
    refused_inner(_referring(*reversed(order)))
    refused_inner(_referring(order[0], *order))
    refused_inner(_referring(*order, order[-1]))
    refused_inner(_referring(*order, 0xFA01))
    refused_inner(_referring(*order, ECH))
    refused_inner(_referring(ECH))
    # It would stand twice, here and there.
    refused_inner(_referring(*order, remove=(GROUPS, SHARE)), Reason.DUPLICATE)


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (b"", Reason.TRUNCATED),
        (b"\x00", Reason.BAD_LENGTH),
        (b"\x01\x00", Reason.BAD_LENGTH),
        (b"\x03\x00\x0a\x00", Reason.BAD_LENGTH),
        (b"\x04\x00\x0a", Reason.TRUNCATED),
        (b"\x02\x00\x0a\x00", Reason.TRAILING_BYTES),
        (b"\xff" + bytes(255), Reason.BAD_LENGTH),
    ],
)
def test_lists_of_extensions_that_are_none(contents: bytes, reason: Reason) -> None:
    refused_inner(_encoded({OUTER_EXTENSIONS: contents}), reason, DECODE)


def test_two_lists_of_extensions() -> None:
    one = _referring(GROUPS)
    extension = OUTER_EXTENSIONS.to_bytes(2, "big") + b"\x00\x03\x02" + GROUPS.to_bytes(2, "big")
    assert one.endswith(extension)
    at = len(one) - sum(4 + len(contents) for contents in _extensions(one).values()) - 2
    size = int.from_bytes(one[at : at + 2], "big") + len(extension)
    refused_inner(one[:at] + size.to_bytes(2, "big") + one[at + 2 :] + extension, Reason.DUPLICATE)


def _extensions(encoded: bytes) -> dict[int, bytes]:
    return ClientHello.read(Reader(encoded)).extensions


@pytest.mark.clause("RFC 9849 5.1")
def test_the_list_is_for_the_encrypted_form_alone() -> None:
    listed: dict[int, bytes | None] = {OUTER_EXTENSIONS: write_outer_extensions((GROUPS,))}
    refused_inner(_encoded({}), Reason.MISPLACED_EXTENSION, outer=listed)
    refused_inner(_referring(OUTER_EXTENSIONS), Reason.MISPLACED_EXTENSION, outer=listed)
    refuses(
        ech_server(), with_extensions(inner_hello(), {ECH: None, **listed}).write(), Reason.MISPLACED_EXTENSION, ILLEGAL
    )


def test_the_largest_that_can_be() -> None:
    """Whatever is copied stands in the outer hello beside the payload, so that the inner one is never longer."""
    big = {0xFA00 + number: bytes(14000) for number in range(3)}
    many = {0x7000 + number: b"" for number in range(3000)}
    hello = inner_hello()
    outer = with_extensions(outer_hello(hello), {**many, **big})
    encoded = _encoded({OUTER_EXTENSIONS: write_outer_extensions((*range(0x7000 + 2990, 0x7000 + 3000), *big))})
    opened(ech_server(), Sealing().hello(encoded, outer))


# HelloRetryRequest


class Retried:
    """A server that has answered a first ClientHello with a HelloRetryRequest, and what may come then."""

    def __init__(self, *, accepted: bool = True, keys: EchKeys | None = KEYS) -> None:
        self.server = ech_server(keys, groups=(Group.SECP384R1,))
        self.sealing = Sealing() if accepted else Sealing(OTHER[0])
        self.first = inner_hello()
        self.first_outer = self.sealing.of(self.first)
        self.server.receive(Epoch.INITIAL, self.first_outer.write())
        (raw,) = flight(self.server)
        self.request = ServerHello.read(Reader(raw[4:]))
        share = ENGINE.private_share(Group.SECP384R1, seeded(4))
        self.share = write_client_shares(((share.group, share.public),))
        self.second = with_extensions(self.first, {SHARE: self.share})

    def refuses(self, hello: ClientHello, reason: Reason, alert: Alert = ILLEGAL) -> None:
        refuses(self.server, hello.write(), reason, alert)


@pytest.mark.clause("RFC 9849 7.1.1")
def test_a_second_hello() -> None:
    retried = Retried()
    assert len(retried.request.extensions[ECH]) == 8
    opened(retried.server, retried.sealing.of(retried.second, (SHARE,), enc=b""))


@pytest.mark.clause("RFC 9849 7.1.1")
@pytest.mark.parametrize(
    "changes",
    [
        {"enc": Sealing().enc},
        {"enc": b"x"},
        {"enc": b"", "config_id": (FILE.configs[0].config_id + 1) % 256},
        {"enc": b"", "kdf": 2},
        {"enc": b"", "aead": 3},
    ],
    ids=["enc", "other enc", "id", "kdf", "aead"],
)
def test_a_second_hello_with_another_extension(changes: dict[str, Any]) -> None:
    retried = Retried()
    retried.refuses(retried.sealing.of(retried.second, **changes), Reason.CHANGED_HELLO)


@pytest.mark.clause("RFC 9849 7.1.1")
def test_a_second_hello_without_the_extension() -> None:
    retried = Retried()
    hello = with_extensions(retried.second, {ECH: None})
    retried.refuses(hello, Reason.MISSING_EXTENSION, Alert.MISSING_EXTENSION)


@pytest.mark.clause("RFC 9849 7.1.1")
@pytest.mark.parametrize("payload", [b"x", bytes(16), bytes(300)], ids=len)
def test_a_second_hello_that_does_not_open(payload: bytes) -> None:
    retried = Retried()
    hello = retried.sealing.of(retried.second, enc=b"", payload=payload)
    retried.refuses(hello, Reason.ECH_NOT_OPENED, Alert.DECRYPT_ERROR)


@pytest.mark.clause("RFC 9849 7.1.1")
def test_a_second_hello_of_another_context() -> None:
    """Or else somebody in between could put a hello of their own behind the client's first."""
    retried = Retried()
    hello = Sealing().of(retried.second, enc=b"")
    retried.refuses(hello, Reason.ECH_NOT_OPENED, Alert.DECRYPT_ERROR)
    retried = Retried()
    retried.refuses(with_extensions(retried.second, {ECH: INNER}), Reason.BAD_VALUE)


@pytest.mark.clause("RFC 8446 4.1.2", "RFC 9849 6.1.5")
def test_a_second_inner_hello_that_changes() -> None:
    for changed in (
        lambda hello: replace(hello, random=b"x" * 32),
        lambda hello: with_extensions(hello, {ExtensionType.SERVER_NAME: None}),
        lambda hello: with_extensions(hello, {0xFA01: b""}),
    ):
        retried = Retried()
        retried.refuses(retried.sealing.of(changed(retried.second), enc=b""), Reason.CHANGED_HELLO)
    retried = Retried()
    hello = with_extensions(retried.second, {ECH: None})
    retried.refuses(retried.sealing.of(hello, enc=b""), BAD_INNER)


@pytest.mark.clause("RFC 9849 7.1.1")
@pytest.mark.parametrize(
    "contents", [None, b"", INNER, OuterEch(1, 1, 0, b"", b"x").write()], ids=["none", "empty", "inner", "other"]
)
def test_the_second_hello_of_a_client_that_was_rejected(contents: bytes | None) -> None:
    retried = Retried(accepted=False)
    # RFC 9849 7.1: as if it had been accepted, for whoever looks on.
    assert len(retried.request.extensions[ECH]) == 8
    hello = with_extensions(retried.first_outer, {SHARE: retried.share, ECH: contents})
    retried.server.receive(Epoch.INITIAL, hello.write())
    _, encrypted, *_ = flight(retried.server)
    told = EncryptedExtensions.read(Reader(encrypted[4:]), retried.first_outer.extensions.keys())
    assert told.extensions[ECH] == write_configs(KEYS.retry)


def test_a_server_without_keys_says_nothing_in_its_retry() -> None:
    assert ECH not in Retried(keys=None).request.extensions


@pytest.mark.clause("RFC 8446 4.1.2")
def test_an_extension_that_only_the_second_hello_has() -> None:
    server = ech_server(groups=(Group.SECP384R1,))
    first = with_extensions(inner_hello(), {ECH: None})
    server.receive(Epoch.INITIAL, first.write())
    share = ENGINE.private_share(Group.SECP384R1, seeded(4))
    second = with_extensions(first, {SHARE: write_client_shares(((share.group, share.public),))})
    hello = Sealing().of(with_extensions(second, {ECH: INNER}))
    refuses(server, with_extensions(second, {ECH: hello.extensions[ECH]}).write(), Reason.CHANGED_HELLO, ILLEGAL)


def test_what_the_outcome_says() -> None:
    for client, status, name in (
        (ech_client(), EchStatus.ACCEPTED, NAME),
        (ech_client((), ech_grease=True), EchStatus.REJECTED, NAME),
        (ech_client(()), EchStatus.NOT_OFFERED, NAME),
    ):
        _, outcome = handshake(client, ech_server())
        assert (outcome.ech, outcome.server_name) == (status, name)


def test_the_real_client_uses_the_id_and_a_suite_of_the_configuration() -> None:
    (event,) = ech_client().events()
    assert isinstance(event, MessageToSend)
    ech = read_ech(ClientHello.read(Reader(event.data[4:])))
    assert ech.config_id == FILE.configs[0].config_id
    assert (ech.kdf, ech.aead) in FILE.configs[0].suites
