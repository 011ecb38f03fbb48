"""Raw public keys (RFC 7250) in both directions: what is negotiated, who is known, what is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tcpls.errors import Alert, CertificateError, ConfigurationError, HandshakeError, Reason
from tcpls.tls.algorithms import CertificateType
from tcpls.tls.config import ClientAuth, Identity
from tcpls.tls.connection import ClientConnection, Established, ServerConnection
from tcpls.tls.extensions import ExtensionType, read_certificate_types, write_certificate_types
from tcpls.tls.flow import Epoch
from tcpls.tls.handshake import ClientHandshake, Handshake, ServerHandshake
from tcpls.tls.messages import Certificate, CertificateVerify, ClientHello, EncryptedExtensions
from tcpls.tls.psk import PreSharedKey
from tcpls.tls.ticket_keys import TicketKeys
from tcpls.wire import Reader
from tests.engine import ENGINE, LIBRARY
from tests.unit.tls.pair import (
    KINDS,
    NAME,
    TIME,
    client_config,
    identity,
    leaf,
    refused,
    seeded,
    server_config,
    shake,
    trust,
)
from tests.unit.tls.test_client_auth import sent, ticket_of

X509, RAW = CertificateType
ILLEGAL = Alert.ILLEGAL_PARAMETER
UNSUPPORTED = (Reason.NO_COMMON_CERTIFICATE_TYPE, Alert.UNSUPPORTED_CERTIFICATE)


def raw(kind: str = "p256") -> Identity:
    return Identity((), identity(kind).signer)


def info(kind: str = "p256") -> bytes:
    return raw(kind).signer.public_key_info


PINNED: dict[str, Any] = {"server_keys": (info("rsa"), info()), "trust": None}
RAW_SERVER: dict[str, Any] = {"identities": (raw(),)}
REQUIRE: dict[str, Any] = {"client_auth": ClientAuth.REQUIRE, "client_keys": (info("rsa"), info("p384"))}


def run(client: dict[str, Any], server: dict[str, Any], later: float = 0) -> tuple[Established, Established]:
    time = TIME + timedelta(seconds=later)
    return shake(
        ClientConnection(client_config(**client), random=seeded(1), time=time),
        ServerConnection(server_config(**server), random=seeded(2), time=time),
    )


@pytest.mark.clause("RFC 7250 4.2", "RFC 8446 4.4.2")
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_with_a_key_alone(kind: str) -> None:
    client, server = run({"server_keys": (info(kind),), "trust": None}, {"identities": (raw(kind),)})
    assert client.peer_raw_key == info(kind)
    assert client.peer_certificates == ()
    assert client.verified
    assert server.peer_raw_key == b""
    assert client.signature_scheme == identity(kind).signer.schemes[0].label


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_with_a_key_alone(kind: str) -> None:
    server = {"client_auth": ClientAuth.REQUIRE, "client_keys": (info(kind),)}
    client, accepted = run({"identities": (raw(kind),)}, server)
    assert accepted.peer_raw_key == info(kind)
    assert accepted.verified
    assert client.peer_certificates == identity().chain


def test_both_ends_with_keys_alone() -> None:
    client, server = run({**PINNED, "identities": (raw("p384"),)}, {**RAW_SERVER, **REQUIRE})
    assert (client.peer_raw_key, server.peer_raw_key) == (info(), info("p384"))


@pytest.mark.clause("RFC 7250 4.1")
@pytest.mark.parametrize(
    ("changes", "of_server", "of_client"),
    [
        ({}, None, None),
        ({"identities": (identity(),)}, None, None),
        (PINNED, b"\2", None),
        ({"server_keys": (info(),)}, b"\2\0", None),
        ({"identities": (raw(), identity())}, None, b"\2\0"),
        ({"identities": (identity(), raw("rsa"), raw())}, None, b"\0\2"),
        ({"identities": (raw(),)}, None, b"\2"),
    ],
)
def test_what_a_client_lists(changes: dict[str, Any], of_server: bytes | None, of_client: bytes | None) -> None:
    extensions = hello_of(**changes).extensions
    for kind, types in (
        (ExtensionType.SERVER_CERTIFICATE_TYPE, of_server),
        (ExtensionType.CLIENT_CERTIFICATE_TYPE, of_client),
    ):
        assert (read_certificate_types(extensions[kind]) if kind in extensions else None) == types


def hello_of(**changes: Any) -> ClientHello:
    (message,) = sent(ClientHandshake(client_config(**changes), random=seeded(1), time=TIME))
    return ClientHello.read(Reader(message[4:]))


@pytest.mark.clause("RFC 7250 4.2")
@pytest.mark.parametrize(
    ("client", "server", "shown"),
    [
        ({"server_keys": (info(),)}, {"identities": (identity(), raw())}, RAW),
        ({"server_keys": (info(),)}, {"identities": (identity(),)}, X509),
        ({}, {"identities": (raw(), identity())}, X509),
        (PINNED, {"identities": (identity(), raw())}, RAW),
        # No identity is for the name, or no name is asked for: the first of those that the client can use.
        ({"server_name": None, "trust": None}, {"identities": (raw(), identity())}, X509),
        ({"server_name": None, **PINNED}, {"identities": (identity(), raw())}, RAW),
    ],
)
def test_the_server_chooses_by_the_clients_order(
    client: dict[str, Any], server: dict[str, Any], shown: CertificateType
) -> None:
    established, _ = run(client, server)
    assert bool(established.peer_raw_key) is (shown is RAW)
    assert bool(established.peer_certificates) is (shown is X509)
    assert established.verified is (client.get("trust", trust()) is not None or bool(client.get("server_keys")))


@pytest.mark.parametrize(
    ("client", "server", "shown"),
    [
        ({"identities": (raw("rsa"), identity())}, {**REQUIRE, "client_trust": trust()}, RAW),
        ({"identities": (identity(), raw("rsa"))}, {**REQUIRE, "client_trust": trust()}, RAW),
        ({"identities": (identity(),)}, {**REQUIRE, "client_trust": trust()}, X509),
        ({"identities": (identity(), raw("rsa"))}, {"client_auth": ClientAuth.REQUIRE, "client_trust": trust()}, X509),
    ],
)
def test_what_a_client_is_asked_for(client: dict[str, Any], server: dict[str, Any], shown: CertificateType) -> None:
    _, established = run(client, server)
    assert bool(established.peer_raw_key) is (shown is RAW)
    assert bool(established.peer_certificates) is (shown is X509)
    assert established.verified


@pytest.mark.clause("RFC 7250 4.2")
@pytest.mark.parametrize(
    ("client", "server"),
    [
        (PINNED, {}),
        ({}, RAW_SERVER),
        ({"identities": (identity(),)}, REQUIRE),
        ({}, REQUIRE),
        ({"identities": (raw(),)}, {"client_auth": ClientAuth.REQUEST, "client_trust": trust()}),
    ],
)
def test_no_type_in_common(client: dict[str, Any], server: dict[str, Any]) -> None:
    with pytest.raises(HandshakeError) as caught:
        run(client, server)
    refused(caught.value, *UNSUPPORTED)


def test_a_client_that_has_said_nothing_is_not_asked_for_what_it_may_not_have() -> None:
    _, server = run({"identities": (identity(),)}, {**REQUIRE, "client_auth": ClientAuth.REQUEST})
    assert not server.verified
    assert server.peer_certificates == ()


def test_keys_that_are_not_expected() -> None:
    for client, server in (
        ({"server_keys": (info("rsa"),), "trust": None}, RAW_SERVER),
        ({"identities": (raw(),)}, REQUIRE),
    ):
        with pytest.raises(CertificateError) as caught:
            run(client, server)
        refused(caught.value, Reason.UNKNOWN_KEY, Alert.CERTIFICATE_UNKNOWN)


def test_a_client_without_a_key() -> None:
    client = {"identities": (raw("rsa"),), "schemes": identity().signer.schemes, "trust": None}
    server = {**REQUIRE, "schemes": identity("p384").signer.schemes}
    with pytest.raises(HandshakeError) as caught:
        run(client, server)
    refused(caught.value, Reason.CERTIFICATE_REQUIRED, Alert.CERTIFICATE_REQUIRED)


# Hostile ends


def awaiting(role: str, certificate_type: CertificateType | None = RAW) -> Handshake:
    """An end that awaits the other's Certificate. The client was told this type; None: nothing."""
    if role == "server":
        server = ServerHandshake(server_config(**REQUIRE), random=seeded(2), time=TIME)
        server.receive(Epoch.INITIAL, hello_of(identities=(raw("rsa"),)).write())
        return server
    client = ClientHandshake(client_config(**PINNED), random=seeded(1), time=TIME)
    peer = ServerHandshake(server_config(**RAW_SERVER), random=seeded(2))
    peer.receive(Epoch.INITIAL, sent(client)[0])
    client.receive(Epoch.INITIAL, sent(peer)[0])
    told = {} if certificate_type is None else {20: bytes((certificate_type,))}
    client.receive(Epoch.HANDSHAKE, EncryptedExtensions(told).write())
    return client


def refuses(handshake: Handshake, message: bytes, reason: Reason, alert: Alert) -> None:
    with pytest.raises(HandshakeError) as caught:
        handshake.receive(handshake.read_epoch, message)
    refused(caught.value, reason, alert)


@pytest.mark.clause("RFC 8446 4.4.2")
@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize(
    ("entries", "reason", "alert"),
    [
        ((info("rsa"), info("rsa")), Reason.BAD_VALUE, ILLEGAL),
        ((b"junk",), Reason.BAD_CERTIFICATE, Alert.BAD_CERTIFICATE),
        ((leaf("rsa").der,), Reason.BAD_CERTIFICATE, Alert.BAD_CERTIFICATE),
        ((info("rsa") + b"\0",), Reason.BAD_CERTIFICATE, Alert.BAD_CERTIFICATE),
        ((info("ed25519"),), Reason.UNKNOWN_KEY, Alert.CERTIFICATE_UNKNOWN),
        # An algorithm that is not known here: X25519, which cannot sign.
        (
            (bytes.fromhex("302a300506032b656e032100") + bytes(32),),
            Reason.UNSUPPORTED_CERTIFICATE,
            Alert.UNSUPPORTED_CERTIFICATE,
        ),
    ],
)
def test_entries(role: str, entries: tuple[bytes, ...], reason: Reason, alert: Alert) -> None:
    refuses(awaiting(role), Certificate(b"", entries).write(), reason, alert)


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_signature_of_another_key(role: str) -> None:
    handshake = awaiting(role)
    handshake.receive(Epoch.HANDSHAKE, Certificate(b"", (info("rsa"),)).write())
    refuses(handshake, CertificateVerify(0x0804, b"x").write(), Reason.BAD_SIGNATURE, Alert.DECRYPT_ERROR)
    handshake = awaiting(role)
    handshake.receive(Epoch.HANDSHAKE, Certificate(b"", (info("rsa"),)).write())
    refuses(handshake, CertificateVerify(0x0403, b"x").write(), Reason.ILLEGAL_CHOICE, ILLEGAL)


@pytest.mark.clause("RFC 7250 4.2")
def test_a_server_that_does_not_know_types() -> None:
    """Its certificate is not what was asked for, however good it is."""
    client = awaiting("client", None)
    message = Certificate(b"", identity().chain).write()
    refuses(client, message, Reason.UNSUPPORTED_CERTIFICATE, Alert.UNSUPPORTED_CERTIFICATE)


@pytest.mark.clause("RFC 7250 4.2")
@pytest.mark.parametrize(
    ("changes", "extensions", "reason", "alert"),
    [
        (PINNED, {20: b"\0"}, Reason.ILLEGAL_CHOICE, ILLEGAL),
        (PINNED, {20: b"\1"}, Reason.ILLEGAL_CHOICE, ILLEGAL),
        (PINNED, {20: b""}, Reason.TRUNCATED, Alert.DECODE_ERROR),
        (PINNED, {20: b"\2\2"}, Reason.TRAILING_BYTES, Alert.DECODE_ERROR),
        (PINNED, {19: b"\2"}, Reason.UNSUPPORTED_EXTENSION, Alert.UNSUPPORTED_EXTENSION),
        ({}, {20: b"\2"}, Reason.UNSUPPORTED_EXTENSION, Alert.UNSUPPORTED_EXTENSION),
        ({"identities": (raw(),)}, {19: b"\0"}, Reason.ILLEGAL_CHOICE, ILLEGAL),
    ],
)
def test_types_of_a_server(changes: dict[str, Any], extensions: dict[int, bytes], reason: Reason, alert: Alert) -> None:
    client = ClientHandshake(client_config(**changes), random=seeded(1), time=TIME)
    server = ServerHandshake(server_config(identities=(identity(), raw())), random=seeded(2))
    server.receive(Epoch.INITIAL, sent(client)[0])
    client.receive(Epoch.INITIAL, sent(server)[0])
    refuses(client, EncryptedExtensions(extensions).write(), reason, alert)


@pytest.mark.parametrize("kind", [19, 20])
@pytest.mark.parametrize("contents", [b"", b"\0", b"\1\2\0", b"\2\2"])
def test_lists_of_a_client(kind: int, contents: bytes) -> None:
    hello = hello_of()
    hello = replace(hello, extensions={**hello.extensions, kind: contents})
    server = ServerHandshake(server_config(), random=seeded(2))
    with pytest.raises(HandshakeError) as caught:
        server.receive(Epoch.INITIAL, hello.write())
    assert caught.value.alert is Alert.DECODE_ERROR


def test_types_that_nobody_knows_are_ignored() -> None:
    hello = hello_of()
    types = write_certificate_types((1, 0x3A, RAW))
    server = ServerHandshake(server_config(**RAW_SERVER), random=seeded(2))
    server.receive(Epoch.INITIAL, replace(hello, extensions={**hello.extensions, 20: types}).write())
    assert Certificate.read(Reader(sent(server)[2][4:]), ()).chain == (info(),)


# Without certificates at all


def test_with_a_pre_shared_key_there_is_no_type() -> None:
    psk = PreSharedKey(b"identity", bytes(range(32)))
    client, server = run(
        {**PINNED, "psks": (psk,), "identities": (raw("rsa"),)}, {**RAW_SERVER, **REQUIRE, "psks": (psk,)}
    )
    assert (client.peer_raw_key, server.peer_raw_key) == (b"", b"")
    assert server.verified


def test_a_resumption_is_the_same_client() -> None:
    changes = {**RAW_SERVER, **REQUIRE, "ticket_keys": TicketKeys(ENGINE, seeded(9))}
    client, _ = run({**PINNED, "identities": (raw("rsa"),), "tickets": 1}, changes)
    ticket = ticket_of(client)
    assert ticket is not None and ticket.verified
    resumed, server = run({**PINNED, "ticket": ticket}, changes, later=10)
    assert resumed.resumed and resumed.verified
    assert server.peer_raw_key == info("rsa")
    assert server.verified
    # Whoever takes a key away takes what it has begun away too.
    changes["client_keys"] = (info("p384"),)
    changes["client_auth"] = ClientAuth.REQUEST
    assert not run({**PINNED, "ticket": ticket}, changes)[1].resumed


def test_certificates_do_not_get_around_a_requirement_of_keys() -> None:
    """A ticket of when the server took certificates, or asked for any, is none for a server that wants keys alone."""
    changes: dict[str, Any] = {"ticket_keys": TicketKeys(ENGINE, seeded(9)), "client_auth": ClientAuth.REQUEST}
    client, _ = run({"identities": (identity(),), "tickets": 1}, changes)
    ticket = ticket_of(client)
    assert ticket is not None
    assert run({"ticket": ticket}, changes)[1].resumed
    _, server = run({"ticket": ticket, "identities": (raw("rsa"),)}, {**changes, **REQUIRE})
    assert not server.resumed
    assert server.peer_raw_key == info("rsa")
    with pytest.raises(HandshakeError) as caught:
        run({"ticket": ticket}, {**changes, **REQUIRE})
    refused(caught.value, *UNSUPPORTED)


def test_a_session_that_was_never_verified_is_not_resumed_by_who_pins_keys() -> None:
    changes = {"ticket_keys": TicketKeys(ENGINE, seeded(9))}
    client, _ = run({"trust": None, "tickets": 1}, changes)
    ticket = ticket_of(client)
    assert ticket is not None and not ticket.verified
    (message,) = sent(ClientHandshake(client_config(**PINNED, ticket=ticket), random=seeded(1), time=TIME))
    assert ExtensionType.PRE_SHARED_KEY not in ClientHello.read(Reader(message[4:])).extensions


def test_files(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(leaf("ed25519").key_pem)
    loaded = LIBRARY.load_raw_identity(tmp_path / "key.pem")
    assert loaded.chain == ()
    assert loaded.entries == (info("ed25519"),)
    assert loaded.serves(NAME)
    with pytest.raises(ConfigurationError, match=r"absent\.pem: No such file"):
        LIBRARY.load_raw_identity(tmp_path / "absent.pem")
    (tmp_path / "cert.pem").write_bytes(leaf().pem)
    with pytest.raises(ConfigurationError, match="no private key"):
        LIBRARY.load_raw_identity(tmp_path / "cert.pem")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bytes_as_in_the_certificate(kind: str) -> None:
    assert info(kind) in leaf(kind).der
