"""A server that ends a handshake with its ServerHello: what comes behind the ClientHello is its caller's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tcpls.errors import ApiMisuse
from tcpls.tls.config import Answer
from tcpls.tls.connection import ServerConnection
from tests.unit.tls.pair import make_client, make_server, seeded, server_config

CHANGE_CIPHER_SPEC = b"\x14\x03\x03\x00\x01\x01"


def handed_over() -> ServerConnection:
    config = replace(server_config(), answer=lambda hello: Answer(hello_only=True))
    return ServerConnection(config, random=seeded(5))


def test_a_server_hello_and_nothing_else() -> None:
    client, server = make_client(extra_extensions=((0xFF77, b"x"),)), handed_over()
    server.receive_data(client.data_to_send() + CHANGE_CIPHER_SPEC + b"whatever else")
    said = server.data_to_send()
    # One record with a ServerHello, and what makes the handshake look like any (RFC 8446 D.4).
    size = int.from_bytes(said[3:5], "big")
    assert (said[0], said[5]) == (22, 2)
    assert said[5 + size :] == CHANGE_CIPHER_SPEC
    assert server.handed_over and not server.handshake_complete
    assert server.hand_over() == ({0xFF77: b"x"}, CHANGE_CIPHER_SPEC + b"whatever else")
    with pytest.raises(ApiMisuse):
        server.hand_over()
    with pytest.raises(ApiMisuse):
        server.receive_data(b"more")


def test_its_shape_is_that_of_any_server_hello() -> None:
    client = make_client()
    hello = client.data_to_send()
    said = []
    for server in (handed_over(), make_server()):
        server.receive_data(hello)
        data = server.data_to_send()
        said.append(data[: 5 + int.from_bytes(data[3:5], "big")])
    first, second = said
    assert len(first) == len(second)
    # But for the random and the key share, which end it.
    assert first[:11] == second[:11] and first[11:43] != second[11:43]


def test_nothing_is_handed_over_of_an_ordinary_handshake() -> None:
    with pytest.raises(ApiMisuse):
        make_server().hand_over()
