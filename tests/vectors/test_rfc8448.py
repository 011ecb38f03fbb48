"""The traces of RFC 8448, run through the client's states, the records and the key schedule."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from tcpls.tls.algorithms import Group, SignatureScheme
from tcpls.tls.client_hello import Client, send_early_secret
from tcpls.tls.client_states import ExpectServerHello
from tcpls.tls.config import ClientConfig
from tcpls.tls.connection import ClientConnection, Established, TLSConnection
from tcpls.tls.engine import PublicKey
from tcpls.tls.engines.openssl import OPENSSL, CurveShare, OpenSSLEngine, OpenSSLPublicKey, X25519Share
from tcpls.tls.extensions import ExtensionType
from tcpls.tls.flow import Flow
from tcpls.tls.handshake import Handshake
from tcpls.tls.key_schedule import BinderKind, EarlySecrets
from tcpls.tls.messages import ClientHello, EndOfEarlyData, NewSessionTicket
from tcpls.tls.post_handshake import PostHandshake
from tcpls.tls.psk import OfferedPsks, PreSharedKey, bind, binder_of
from tcpls.tls.record import HEADER_SIZE, ContentType, RecordOpener, RecordSealer
from tcpls.tls.suites import CipherSuite
from tcpls.tls.tickets import Ticket
from tcpls.tls.transcript import Transcript
from tcpls.wire import Reader

AES_128 = CipherSuite.AES_128_GCM_SHA256


def load(section: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    text = (Path(__file__).parent / f"rfc8448_section{section}.txt").read_text()
    for block in text.split("\n\n")[1:]:
        name, *lines = block.split()
        found[name] = bytes.fromhex("".join(lines))
    return found


class ShortKeys(OpenSSLEngine):
    """The traces' server has an RSA key of 1024 bits, which is refused everywhere else."""

    def public_key(self, certificate: bytes) -> PublicKey:
        key = x509.load_der_x509_certificate(certificate).public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        return OpenSSLPublicKey(key, (SignatureScheme.RSA_PSS_RSAE_SHA256,))


class Log(dict[str, bytes]):
    """A key log that keeps secrets by label."""

    def secret(self, label: str, client_random: bytes, secret: bytes) -> None:
        self[label] = secret


def message(record: bytes) -> bytes:
    return record[HEADER_SIZE:]


def next_record(opener: RecordOpener) -> tuple[int, bytes]:
    record = opener.next_record()
    assert record is not None
    return record[0], bytes(record[1])


def no_random(count: int) -> bytes:
    raise AssertionError("nothing random is needed here")


def hello_of(record: bytes) -> ClientHello:
    return ClientHello.read(Reader(record[HEADER_SIZE + 4 :]))


def make_client(log: Log) -> Client:
    engine = ShortKeys()
    config = ClientConfig("server", None, middlebox_compatibility=False, engine=engine)
    return Client(config, Flow(engine, log), no_random, datetime.now(UTC))


@pytest.fixture(scope="module")
def simple() -> dict[str, bytes]:
    return load(3)


@pytest.fixture(scope="module")
def retry() -> dict[str, bytes]:
    return load(5)


def shake_hands(trace: dict[str, bytes], log: Log) -> tuple[Established, bytes]:
    client = make_client(log)
    client.flow.transcript.add(message(trace["client_hello"]))
    share = X25519Share(trace["client_private_key"])
    state = ExpectServerHello(client, hello_of(trace["client_hello"]), {Group.X25519: share})
    connection = TLSConnection(Handshake(client.flow, state), client.config.engine)
    connection.receive_data(trace["server_hello"] + trace["server_flight"])
    sent = connection.data_to_send()
    return connection.established(), sent


def test_key_schedule(simple: dict[str, bytes]) -> None:
    share = X25519Share(simple["server_private_key"])
    shared = share.exchange(X25519Share(simple["client_private_key"]).public)
    assert shared == simple["shared_secret"]
    transcript = Transcript(OPENSSL)
    transcript.add(message(simple["client_hello"]))
    transcript.choose(AES_128)
    transcript.add(message(simple["server_hello"]))
    secrets = EarlySecrets.derive(OPENSSL, AES_128).handshake(shared, transcript.digest())
    assert secrets.client.secret == simple["client_handshake_traffic_secret"]
    assert secrets.server.secret == simple["server_handshake_traffic_secret"]
    assert secrets.master == simple["master_secret"]
    assert secrets.server.keys().key == simple["server_handshake_key"]
    assert secrets.server.keys().iv == simple["server_handshake_iv"]


def test_simple_handshake(simple: dict[str, bytes]) -> None:
    log = Log()
    established, sent = shake_hands(simple, log)
    assert sent == simple["client_finished"]
    assert established.suite is AES_128
    assert established.group == "x25519"
    assert established.signature_scheme == "rsa_pss_rsae_sha256"
    assert log["CLIENT_HANDSHAKE_TRAFFIC_SECRET"] == simple["client_handshake_traffic_secret"]
    assert log["CLIENT_TRAFFIC_SECRET_0"] == simple["client_application_traffic_secret"]
    assert log["SERVER_TRAFFIC_SECRET_0"] == simple["server_application_traffic_secret"]
    assert log["EXPORTER_SECRET"] == simple["exporter_master_secret"]


def test_records_of_the_server(simple: dict[str, bytes]) -> None:
    established, _ = shake_hands(simple, Log())
    opener = RecordOpener(OPENSSL.aead, established.read_secret.keys(), OPENSSL.invalid_tag)
    opener.feed(simple["server_ticket"] + simple["server_data"] + simple["server_close_notify"])
    ticket = opener.next_record()
    assert ticket is not None
    assert ticket[0] == ContentType.HANDSHAKE
    (parsed,) = PostHandshake(is_client=True).receive(ticket[1])
    assert isinstance(parsed, NewSessionTicket)
    assert parsed.lifetime == 30
    assert next_record(opener) == (ContentType.APPLICATION_DATA, bytes(range(50)))
    assert next_record(opener) == (ContentType.ALERT, b"\x01\x00")


def test_records_of_the_client(simple: dict[str, bytes]) -> None:
    established, _ = shake_hands(simple, Log())
    sealer = RecordSealer(OPENSSL.aead, established.write_secret.keys())
    sealer.put(ContentType.APPLICATION_DATA, bytes(range(50)))
    sealer.put(ContentType.ALERT, b"\x01\x00")
    assert sealer.pending == simple["client_data"] + simple["client_close_notify"]


def test_hello_retry_request(retry: dict[str, bytes]) -> None:
    client = make_client(Log())
    transcript = client.flow.transcript
    transcript.add(message(retry["client_hello_1"]))
    transcript.retry(AES_128)
    transcript.add(message(retry["hello_retry_request"]))
    transcript.add(message(retry["client_hello_2"]))
    scalar = int.from_bytes(retry["client_p256_private_key"], "big")
    share = CurveShare(Group.SECP256R1, lambda count: (scalar - 1).to_bytes(count, "big"))
    second = hello_of(retry["client_hello_2"])
    state = ExpectServerHello(client, second, {Group.SECP256R1: share}, AES_128)
    connection = TLSConnection(Handshake(client.flow, state), client.config.engine)
    connection.receive_data(retry["server_hello"] + retry["server_flight"])
    assert connection.data_to_send() == retry["client_finished"]
    established = connection.established()
    assert established.retried
    assert established.group == "secp256r1"
    opener = RecordOpener(OPENSSL.aead, established.read_secret.keys(), OPENSSL.invalid_tag)
    opener.feed(retry["server_close_notify"])
    assert next_record(opener) == (ContentType.ALERT, b"\x01\x00")
    sealer = RecordSealer(OPENSSL.aead, established.write_secret.keys())
    sealer.put(ContentType.ALERT, b"\x01\x00")
    assert sealer.pending == retry["client_close_notify"]


# Section 4: the session of section 3 resumed, with early data.


@pytest.fixture(scope="module")
def resumed() -> dict[str, bytes]:
    return load(4)


def resumption_psk(simple: dict[str, bytes]) -> PreSharedKey:
    """The key of the ticket that the server of section 3 has sent, as its client makes it."""
    established, _ = shake_hands(simple, Log())
    opener = RecordOpener(OPENSSL.aead, established.read_secret.keys(), OPENSSL.invalid_tag)
    opener.feed(simple["server_ticket"])
    (message,) = PostHandshake(is_client=True).receive(next_record(opener)[1])
    assert isinstance(message, NewSessionTicket)
    assert message.max_early_data == 1024
    ticket = established.ticket(message, 1.0)
    assert ticket is not None
    return ticket.psk


def test_key_of_a_ticket(simple: dict[str, bytes], resumed: dict[str, bytes]) -> None:
    established, _ = shake_hands(simple, Log())
    assert established.resumption.secret == resumed["resumption_master_secret"]
    assert resumption_psk(simple).key == resumed["resumption_key"]


def test_early_secrets(simple: dict[str, bytes], resumed: dict[str, bytes]) -> None:
    hello = message(resumed["client_hello"])
    early = resumption_psk(simple).early_secrets(OPENSSL)
    assert early.secret == resumed["early_secret"]
    assert early.binder(BinderKind.RESUMPTION, resumed["binder_hash"]) == resumed["binder"]
    transcript = Transcript(OPENSSL)
    transcript.add(hello)
    transcript.choose(AES_128)
    traffic = early.traffic(transcript.digest())
    assert traffic.secret == resumed["client_early_traffic_secret"]
    assert (traffic.keys().key, traffic.keys().iv) == (resumed["client_early_key"], resumed["client_early_iv"])
    assert early.exporter(transcript.digest()).secret == resumed["early_exporter_master_secret"]
    sealer = RecordSealer(OPENSSL.aead, traffic.keys())
    sealer.put(ContentType.APPLICATION_DATA, b"ABCDEF")
    assert sealer.pending == resumed["early_data"]


def test_binder_of_the_hello(simple: dict[str, bytes], resumed: dict[str, bytes]) -> None:
    hello, psk = message(resumed["client_hello"]), resumption_psk(simple)
    psks = OfferedPsks.read(hello_of(resumed["client_hello"]).extensions[ExtensionType.PRE_SHARED_KEY])
    assert psks.identities[0][0] == psk.identity
    assert binder_of(OPENSSL, Transcript(OPENSSL), hello[: -psks.binders_size], psk) == resumed["binder"]
    zeros = hello[:-32] + bytes(32)
    assert bind(OPENSSL, Transcript(OPENSSL), zeros, [psk]) == hello


class Traced(ClientConnection):
    """Around a handshake that is under way."""

    def __init__(self, handshake: Handshake, engine: OpenSSLEngine) -> None:
        TLSConnection.__init__(self, handshake, engine)


def test_handshake_with_early_data(simple: dict[str, bytes], resumed: dict[str, bytes]) -> None:
    """All that the client of section 4 sends, and what both say when the data is accepted."""
    log, engine = Log(), ShortKeys()
    psk = resumption_psk(simple)
    ticket = Ticket(psk.identity, psk.key, AES_128, 0, 0.0, 30, "server", None, verified=False, max_early_data=1024)
    config = ClientConfig("server", None, engine=engine, ticket=ticket, early_data=True)
    client = Client(config, Flow(engine, log), no_random, datetime.fromtimestamp(1, UTC))
    client.flow.transcript.add(message(resumed["client_hello"]))
    send_early_secret(client)
    share = X25519Share(resumed["client_private_key"])
    hello = hello_of(resumed["client_hello"])
    state = ExpectServerHello(client, hello, {Group.X25519: share}, psks=(psk,))
    connection = Traced(Handshake(client.flow, state), engine)
    assert connection.early_room == 1024
    assert connection.send_early(b"ABCDEF") == 6
    assert connection.data_to_send() == resumed["early_data"]
    connection.receive_data(resumed["server_hello"] + resumed["server_flight"])
    assert connection.data_to_send() == resumed["end_of_early_data"] + resumed["client_finished"]
    established = connection.established()
    assert established.early_data.accepted
    for label, name in (
        ("CLIENT_EARLY_TRAFFIC_SECRET", "client_early_traffic_secret"),
        ("EARLY_EXPORTER_SECRET", "early_exporter_master_secret"),
        ("CLIENT_HANDSHAKE_TRAFFIC_SECRET", "client_handshake_traffic_secret"),
        ("SERVER_HANDSHAKE_TRAFFIC_SECRET", "server_handshake_traffic_secret"),
        ("CLIENT_TRAFFIC_SECRET_0", "client_application_traffic_secret"),
        ("SERVER_TRAFFIC_SECRET_0", "server_application_traffic_secret"),
        ("EXPORTER_SECRET", "exporter_master_secret"),
    ):
        assert log[label] == resumed[name]
    opener = RecordOpener(OPENSSL.aead, established.read_secret.keys(), OPENSSL.invalid_tag)
    opener.feed(resumed["server_data"] + resumed["server_close_notify"])
    assert next_record(opener) == (ContentType.APPLICATION_DATA, bytes(range(50)))
    assert next_record(opener) == (ContentType.ALERT, b"\x01\x00")


def test_what_the_server_reads_of_early_data(simple: dict[str, bytes], resumed: dict[str, bytes]) -> None:
    early = resumption_psk(simple).early_secrets(OPENSSL)
    transcript = Transcript(OPENSSL)
    transcript.add(message(resumed["client_hello"]))
    traffic = early.traffic(transcript.digest_with(AES_128, b""))
    opener = RecordOpener(OPENSSL.aead, traffic.keys(), OPENSSL.invalid_tag)
    opener.feed(resumed["early_data"] + resumed["end_of_early_data"])
    assert next_record(opener) == (ContentType.APPLICATION_DATA, b"ABCDEF")
    assert next_record(opener) == (ContentType.HANDSHAKE, EndOfEarlyData().write())
