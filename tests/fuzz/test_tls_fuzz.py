"""Any bytes in any chunking give a `PeerError` (and an alert is queued) or `AlertReceived`, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tcpls.errors import AlertReceived, CertificateError, HandshakeError, PeerError, ProtocolViolation
from tcpls.tls.algorithms import Group
from tcpls.tls.connection import TLSConnection
from tcpls.tls.extensions import PLACES
from tcpls.tls.flow import Epoch, MessageToSend
from tcpls.tls.handshake import ClientHandshake, Handshake, ServerHandshake
from tcpls.tls.messages import ClientHello
from tcpls.tls.post_handshake import PostHandshake
from tcpls.wire import Reader
from tests.engine import ENGINE
from tests.unit.tls.pair import (
    KINDS,
    NAME,
    TIME,
    client_config,
    leaf,
    make_client,
    make_server,
    move,
    seeded,
    server_config,
    trust,
)

EXAMPLES = 400


def feed(connection: TLSConnection, data: bytes, chunk: int) -> None:
    connection.data_to_send()
    try:
        for start in range(0, len(data), chunk):
            connection.receive_data(data[start : start + chunk])
    except AlertReceived:
        return
    except HandshakeError:
        assert connection.data_to_send()
        return
    if connection.handshake_complete:
        connection.established()


@cache
def flights() -> tuple[bytes, bytes, bytes, bytes]:
    """ClientHello, the server's flight, HelloRetryRequest, and the second ClientHello."""
    client, server = make_client(alpn=(b"h2",)), make_server(alpn=(b"h2",))
    hello = client.data_to_send()
    server.receive_data(hello)
    flight = server.data_to_send()
    client, server = make_client(), make_server(groups=(Group.SECP256R1,))
    move(client, server)
    retry = server.data_to_send()
    client.receive_data(retry)
    return hello, flight, retry, client.data_to_send()


mutations = st.lists(
    st.tuples(st.sampled_from(("set", "cut", "put", "repeat")), st.integers(0, 1 << 16), st.binary(max_size=6)),
    min_size=1,
    max_size=4,
)


def mutate(data: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    for kind, where, value in changes:
        at = where % (len(data) + 1)
        if kind == "set":
            data = data[:at] + value + data[at + len(value) :]
        elif kind == "cut":
            data = data[:at] + data[at + len(value) :]
        elif kind == "put":
            data = data[:at] + value + data[at:]
        else:
            data = data[:at] + data[at // 2 :]
    return data


chunks = st.sampled_from((1, 3, 50, 1 << 20))


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.binary(max_size=300), chunks)
@example(b"", 1)
def test_random_bytes(data: bytes, chunk: int) -> None:
    feed(make_client(), data, chunk)
    feed(make_server(), data, chunk)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(20, 23), st.binary(max_size=200), chunks)
def test_random_records(content_type: int, content: bytes, chunk: int) -> None:
    data = bytes((content_type, 3, 3)) + len(content).to_bytes(2, "big") + content
    feed(make_client(), data, chunk)
    feed(make_server(), data, chunk)


@settings(max_examples=EXAMPLES, deadline=None)
@given(mutations, chunks)
def test_mutated_flights(changes: list[tuple[str, int, bytes]], chunk: int) -> None:
    hello, flight, retry, second = flights()
    feed(make_server(alpn=(b"h2",)), mutate(hello, changes), chunk)
    feed(make_client(alpn=(b"h2",)), mutate(flight, changes), chunk)
    feed(make_client(), mutate(retry, changes), chunk)
    server = make_server(groups=(Group.SECP256R1,))
    server.receive_data(make_client().data_to_send())
    feed(server, mutate(second, changes), chunk)


def messages(handshake: Handshake) -> list[bytes]:
    return [event.data for event in handshake.events() if isinstance(event, MessageToSend)]


def with_length(message: bytes) -> bytes:
    """The message with a header that fits, so that the change is seen by the message's own reader."""
    return message[:1] + max(0, len(message) - 4).to_bytes(3, "big") + message[4:]


def refused_or_not(act: Callable[[], None]) -> None:
    try:
        act()
    except PeerError as error:
        assert isinstance(error, HandshakeError)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 4), mutations)
def test_mutated_messages(which: int, changes: list[tuple[str, int, bytes]]) -> None:
    """Below the records: the messages that are encrypted can be reached too."""
    extra = ((0xFA01, b"x"),)
    config = client_config(alpn=(b"h2",), extra_extensions=extra, trust=None if which % 2 else client_config().trust)
    client = ClientHandshake(config, random=seeded(1), time=TIME)
    server = ServerHandshake(server_config(alpn=(b"h2",)), random=seeded(2))
    (hello,) = messages(client)
    refused_or_not(lambda: _fresh_server().receive(Epoch.INITIAL, with_length(mutate(hello, changes))))
    server.receive(Epoch.INITIAL, hello)
    flight = messages(server)
    for at, message in enumerate(flight):
        epoch = Epoch.HANDSHAKE if at else Epoch.INITIAL
        if at == which:
            refused_or_not(lambda: client.receive(epoch, with_length(mutate(message, changes))))  # noqa: B023
            return
        client.receive(epoch, message)


def _fresh_server() -> ServerHandshake:
    return ServerHandshake(server_config(alpn=(b"h2",)), random=seeded(2))


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from(tuple(PLACES)), st.binary(max_size=40))
def test_random_extensions(kind: int, contents: bytes) -> None:
    """A ClientHello with one extension's contents replaced."""
    client = ClientHandshake(client_config(), random=seeded(1), time=TIME)
    hello = ClientHello.read(Reader(messages(client)[0][4:]))
    changed = replace(hello, extensions={**hello.extensions, kind: contents})
    refused_or_not(lambda: _fresh_server().receive(Epoch.INITIAL, changed.write()))


@settings(max_examples=5 * EXAMPLES, deadline=None)
@given(st.sampled_from(KINDS), mutations, st.booleans())
def test_mutated_certificates(kind: str, changes: list[tuple[str, int, bytes]], is_issuer: bool) -> None:
    """Their fields are parsed late, so a whole chain is judged, with the change at its end or behind it."""
    der = mutate(leaf(kind).der, changes)
    chain = [leaf().der, der] if is_issuer else [der]
    for act in (lambda: ENGINE.public_key(der), lambda: trust().validate(chain, NAME, TIME)):
        try:
            act()
        except PeerError as error:
            assert isinstance(error, CertificateError)


def test_a_certificate_whose_subject_is_no_name() -> None:
    at = leaf().der.rindex(b"\x06\x03\x55\x04\x03\x0c")
    changed = leaf().der[: at + 5] + b"\x05" + leaf().der[at + 6 :]
    with pytest.raises(CertificateError):
        trust().validate([changed], NAME, TIME)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.booleans(), st.lists(st.binary(max_size=60), max_size=5))
def test_after_the_handshake(is_client: bool, payloads: list[bytes]) -> None:
    post = PostHandshake(is_client=is_client)
    try:
        for payload in payloads:
            post.receive(payload)
    except ProtocolViolation:
        return
