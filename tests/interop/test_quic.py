"""The handshake without records, proved by QUIC: aioquic with this package's TLS against an unchanged aioquic."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import pytest
from aioquic import tls
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated,
    HandshakeCompleted,
    ProtocolNegotiated,
    QuicEvent,
    StreamDataReceived,
)
from aioquic.tls import CipherSuite as QuicSuite
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from trustme import CA

from tcpls.tls.early_data import EarlyData
from tests.interop.quic_context import Connection, Resumption

CLIENT = ("127.0.0.1", 40000)
SERVER = ("127.0.0.1", 4433)
NAME = "server.example"
MESSAGE = b"quic " * 5000


def ours(feature: str) -> list[Any]:
    """Both roles as parameters, each marked with the feature."""
    return [
        pytest.param(role, marks=pytest.mark.feature(feature, peer="aioquic", role=role))
        for role in ("client", "server")
    ]


class Ends:
    """Two connections and a network between them, with a clock of its own."""

    def __init__(self, client: QuicConnection, server_of: Callable[[bytes], QuicConnection]) -> None:
        self.client = client
        self.server: QuicConnection | None = None
        self._server_of = server_of
        self.now = 0.0
        self.events: dict[str, list[QuicEvent]] = {"client": [], "server": []}

    def start(self) -> None:
        self.client.connect(SERVER, now=self.now)
        self.settle()

    def settle(self) -> None:
        for _ in range(200):
            moved = self._move()
            for name, end in (("client", self.client), ("server", self.server)):
                while end is not None and (event := end.next_event()) is not None:
                    self.events[name].append(event)
            if not moved:
                return
        raise TimeoutError("the ends do not come to rest")

    def _move(self) -> bool:
        self.now += 0.005
        moved = False
        for data, _ in self.client.datagrams_to_send(self.now):
            if self.server is None:
                # The destination connection id of the first Initial: its length is the byte behind the version.
                self.server = self._server_of(data[6 : 6 + data[5]])
            self.server.receive_datagram(data, CLIENT, now=self.now)
            moved = True
        if self.server is not None:
            for data, _ in self.server.datagrams_to_send(self.now):
                self.client.receive_datagram(data, SERVER, now=self.now)
                moved = True
        return moved

    def end(self) -> None:
        """Lets the time pass after which a closed connection is over for good."""
        self.now += 60.0
        for end in (self.client, self.server):
            if end is not None:
                end.handle_timer(self.now)
        self.settle()

    def of(self, end: str, kind: type[Any]) -> list[Any]:
        return [event for event in self.events[end] if isinstance(event, kind)]


@pytest.fixture(scope="module")
def authority() -> CA:
    return CA()


def configuration(is_client: bool, authority: CA, **settings: Any) -> QuicConfiguration:
    made = QuicConfiguration(is_client=is_client, alpn_protocols=["echo", "other"], **settings)
    if is_client:
        made.server_name = NAME
        made.load_verify_locations(cadata=authority.cert_pem.bytes())
        made.verify_mode = ssl.CERT_REQUIRED
        return made
    leaf = authority.issue_cert(NAME)
    made.certificate = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
    key = leaf.private_key_pem.bytes()
    private = load_pem_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    made.private_key = private
    return made


def ends(
    authority: CA, *, ours: str, client: dict[str, Any] | None = None, server: dict[str, Any] | None = None
) -> Ends:
    of_client: type[QuicConnection] = Connection if ours in ("client", "both") else QuicConnection
    of_server: type[QuicConnection] = Connection if ours in ("server", "both") else QuicConnection

    def make_server(destination: bytes) -> QuicConnection:
        return of_server(
            configuration=configuration(False, authority, **(server or {})),
            original_destination_connection_id=destination,
        )

    return Ends(of_client(configuration=configuration(True, authority, **(client or {}))), make_server)


@pytest.mark.parametrize("suite", [0x1301, 0x1302, 0x1303])
@pytest.mark.parametrize("ours", [*ours("cipher suites and kinds of certificates"), "both"])
def test_a_connection_and_data_both_ways(authority: CA, ours: str, suite: int) -> None:
    pair = ends(authority, ours=ours, client={"cipher_suites": [QuicSuite(suite)]})
    pair.start()
    for end in ("client", "server"):
        assert [event.alpn_protocol for event in pair.of(end, ProtocolNegotiated)] == ["echo"]
        assert [event.session_resumed for event in pair.of(end, HandshakeCompleted)] == [False]
    assert pair.server is not None
    stream = pair.client.get_next_available_stream_id()
    pair.client.send_stream_data(stream, MESSAGE, end_stream=True)
    pair.settle()
    assert b"".join(event.data for event in pair.of("server", StreamDataReceived)) == MESSAGE
    pair.server.send_stream_data(stream, MESSAGE[::-1], end_stream=True)
    pair.settle()
    assert b"".join(event.data for event in pair.of("client", StreamDataReceived)) == MESSAGE[::-1]
    # QUIC changes its keys without TLS (RFC 9001 section 6): from the secrets that the handshake gave.
    pair.client.request_key_update()
    pair.client.send_ping(7)
    pair.settle()
    assert not pair.of("client", ConnectionTerminated)


@pytest.mark.parametrize("ours", ours("groups and HelloRetryRequest"))
def test_a_retry_for_another_group(authority: CA, ours: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our client offers a group that aioquic's server does not take first, and the other way about."""
    whole = tls.Context.__init__

    def narrow(self: Any, *arguments: Any, **settings: Any) -> None:
        whole(self, *arguments, **settings)
        self._supported_groups = [tls.Group.SECP384R1]

    monkeypatch.setattr(tls.Context, "__init__", narrow)
    pair = ends(authority, ours=ours)
    pair.start()
    pair.end()
    context = (pair.client if ours == "client" else pair.server).context  # type: ignore[union-attr]
    if ours == "client":
        # aioquic's server has no HelloRetryRequest: it refuses, and says so by TLS's alert.
        assert pair.of("client", ConnectionTerminated)[0].error_code == 0x100 + 40
        return
    assert context.outcome is not None
    assert context.outcome.group.label == "secp384r1"


@pytest.mark.feature("refused certificates", peer="aioquic", role="client")
def test_an_untrusted_certificate_is_refused_by_its_alert(authority: CA) -> None:
    pair = ends(CA(), ours="client")
    pair._server_of = ends(authority, ours="client")._server_of
    pair.start()
    pair.end()
    (ended,) = pair.of("server", ConnectionTerminated)
    # RFC 9001 section 4.8: 0x100 and the alert, which is unknown_ca.
    assert ended.error_code == 0x100 + 48


@pytest.mark.parametrize("ours", ours("nothing in common"))
def test_without_a_protocol_in_common_there_is_no_connection(authority: CA, ours: str) -> None:
    pair = ends(authority, ours=ours)
    pair.client.configuration.alpn_protocols = ["nobody-knows-this"]
    pair.start()
    pair.end()
    (ended,) = pair.of("client", ConnectionTerminated)
    # RFC 9001 section 8.1: no_application_protocol.
    assert ended.error_code in (0x100 + 120, 0x100 + 40)
    if ours == "server":
        assert ended.error_code == 0x100 + 120


# Resumption and 0-RTT.

RESUMED, EARLY = "resumption", "0-RTT"


class Visits:
    """Several connections of one client to one server, each of which may use what an earlier one has left."""

    def __init__(self, authority: CA, ours: str, **resumption: Any) -> None:
        self._authority, self._ours = authority, ours
        self.tickets: list[Any] = []
        self.known: dict[bytes, Any] = {}
        self.resumption = Resumption(**resumption)

    def server(self, destination: bytes) -> QuicConnection:
        settings: dict[str, Any] = {
            "configuration": configuration(False, self._authority),
            "original_destination_connection_id": destination,
        }
        if self._ours == "server":
            return Connection(resumption=self.resumption, **settings)
        return QuicConnection(
            session_ticket_fetcher=lambda name: self.known.pop(name, None),
            session_ticket_handler=lambda ticket: self.known.update({ticket.ticket: ticket}),
            **settings,
        )

    def visit(self) -> Ends:
        """Another connection, which has not started yet; with the last ticket, if there is one."""
        settings = configuration(True, self._authority)
        if self.tickets:
            settings.session_ticket = self.tickets.pop()
        kind = Connection if self._ours == "client" else QuicConnection
        return Ends(kind(configuration=settings, session_ticket_handler=self.tickets.append), self.server)


def first_words(pair: Ends) -> None:
    """Says something before anything was heard."""
    pair.client.connect(SERVER, now=pair.now)
    pair.client.send_stream_data(pair.client.get_next_available_stream_id(), b"early", end_stream=True)
    pair.settle()


def heard(pair: Ends) -> bytes:
    return b"".join(event.data for event in pair.of("server", StreamDataReceived))


def completed(pair: Ends, end: str) -> HandshakeCompleted:
    (event,) = pair.of(end, HandshakeCompleted)
    assert isinstance(event, HandshakeCompleted)
    return event


@pytest.mark.parametrize("ours", ours(RESUMED))
def test_resumption(authority: CA, ours: str) -> None:
    visits = Visits(authority, ours)
    visits.visit().start()
    for _ in range(2):
        assert visits.tickets
        pair = visits.visit()
        pair.start()
        assert completed(pair, "client").session_resumed
        assert completed(pair, "server").session_resumed


@pytest.mark.parametrize("ours", ours(EARLY))
def test_early_data(authority: CA, ours: str) -> None:
    visits = Visits(authority, ours)
    visits.visit().start()
    pair = visits.visit()
    first_words(pair)
    assert heard(pair) == b"early"
    # It was there before the client had said the last of its handshake.
    kinds = [type(event) for event in pair.events["server"]]
    assert kinds.index(StreamDataReceived) < kinds.index(HandshakeCompleted)
    for end in ("client", "server"):
        assert completed(pair, end).early_data_accepted
        assert not pair.of(end, ConnectionTerminated)


@pytest.mark.parametrize("ours", ours(EARLY))
def test_rejected_early_data(authority: CA, ours: str) -> None:
    """QUIC sends it again by itself, when its packets are lost."""
    visits = Visits(authority, ours)
    visits.visit().start()
    pair = visits.visit()
    visits.known.clear()
    visits.resumption = Resumption(visits.resumption.keys, None)
    first_words(pair)
    assert heard(pair) == b"early"
    kinds = [type(event) for event in pair.events["server"]]
    assert kinds.index(StreamDataReceived) > kinds.index(HandshakeCompleted)
    for end in ("client", "server"):
        assert not completed(pair, end).early_data_accepted
        assert completed(pair, end).session_resumed is (ours == "server")


@pytest.mark.feature(EARLY, peer="aioquic", role="server")
def test_replayed_early_data_is_not_heard_twice(authority: CA) -> None:
    visits = Visits(authority, "server")
    visits.visit().start()
    client = visits.visit().client
    client.connect(SERVER, now=0.0)
    client.send_stream_data(client.get_next_available_stream_id(), b"early", end_stream=True)
    datagrams = [data for data, _ in client.datagrams_to_send(0.0)]
    heard = []
    for _ in range(3):
        server = visits.server(datagrams[0][6 : 6 + datagrams[0][5]])
        for data in datagrams:
            server.receive_datagram(data, CLIENT, now=0.0)
        while (event := server.next_event()) is not None:
            if isinstance(event, StreamDataReceived):
                heard.append(event.data)
    assert heard == [b"early"]
    assert isinstance(server, Connection)
    assert server.context._handshake is not None
    assert server.context._handshake.early_data is EarlyData.REPLAYED
