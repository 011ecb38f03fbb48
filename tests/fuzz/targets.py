"""What a fuzzer may throw bytes at. Every target takes any bytes and raises nothing: a peer's error is its answer.

`python -m tests.fuzz.coverage NAME` runs one of them under a coverage-guided fuzzer; `test_targets.py` runs all of them
over their seeds and mutations of them.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import cache

from tcpls.errors import (
    AlertReceived,
    ConfigurationError,
    HandshakeError,
    PeerError,
    ProtocolViolation,
)
from tcpls.protocol import frames
from tcpls.protocol.base import Role, SessionConfig
from tcpls.protocol.events import OptionStatus, Stage
from tcpls.protocol.frames import STREAM_TRAILER, encode
from tcpls.protocol.parameters import Parameters, ProgramSupport
from tcpls.protocol.plain import PlainSession
from tcpls.protocol.session import Session
from tcpls.tls.algorithms import Group
from tcpls.tls.compression import CertificateCompression, CompressedCertificate, compress, write_compressions
from tcpls.tls.config import ClientAuth, ClientConfig, Identity, ServerConfig
from tcpls.tls.connection import ClientConnection, ServerConnection, TLSConnection
from tcpls.tls.early_data import EarlyDataPolicy
from tcpls.tls.ech.configs import choose_config, read_configs, write_configs
from tcpls.tls.ech.extension import INNER
from tcpls.tls.ech.inner import decode_inner, encode_inner
from tcpls.tls.ech.keys import EchKeys, generate, read_file, write_pem
from tcpls.tls.esni import EsniKey, EsniKeys, hear_esni, write_keys
from tcpls.tls.extensions import ExtensionType, write_authorities, write_code_points
from tcpls.tls.flow import Epoch, MessageToSend
from tcpls.tls.handshake import ClientHandshake, Handshake, ServerHandshake
from tcpls.tls.identity_choice import Wanted, choose_for_server
from tcpls.tls.key_schedule import TrafficSecret
from tcpls.tls.messages import (
    HEADER_SIZE,
    MAX_MESSAGE,
    Certificate,
    CertificateRequest,
    ClientHello,
    KeyUpdate,
    Message,
    NewSessionTicket,
)
from tcpls.tls.oid_filters import write_oid_filters
from tcpls.tls.post_handshake import PostHandshake
from tcpls.tls.psk import PreSharedKey
from tcpls.tls.record import RecordOpener, RecordSealer
from tcpls.tls.replay import MemoryReplayStore
from tcpls.tls.suites import CipherSuite
from tcpls.tls.ticket_keys import TicketKeys
from tcpls.tls.tickets import Ticket, TicketState
from tcpls.wire import Reader
from tests.der_writer import oid, sequence
from tests.fuzz.crypto_targets import CRYPTO_TARGETS
from tests.fuzz.null_engine import NullEngine, NullKey
from tests.fuzz.proxy_targets import PROXY_TARGETS
from tests.fuzz.target import Target
from tests.unit.tls.pair import NAME, TIME, seeded

ENGINE = NullEngine()
SUITE = CipherSuite.AES_128_GCM_SHA256
SECRET = TrafficSecret(ENGINE, SUITE, bytes(32))
EXTRA = ((0xFA01, b"x"),)
PARAMETERS = Parameters(
    session_window=1 << 20,
    stream_window=1 << 18,
    stream_limit=16,
    options=(1, 2, 6),
    programs=ProgramSupport(1, 200_000, "bpfel+struct_ops"),
)


# The first byte of an input says what is configured.

RETRY, ALPN, NARROW, PSK, ECH, EARLY, AUTH, RAW = 1, 2, 4, 8, 16, 32, 64, 128
OPTIONS = (*range(64), AUTH, AUTH | RETRY, AUTH | ECH, AUTH | RAW)
KEY = PreSharedKey(b"identity", bytes(32))
ECH_FILE = generate(ENGINE, seeded(4), "public.example")
ECH_CONFIGS = ECH_FILE.configs
ESNI_SHARE = ENGINE.private_share(Group.X25519, seeded(5))
ESNI_KEY = EsniKey.of(
    EsniKeys.read(ENGINE, write_keys(ENGINE, (ESNI_SHARE,), (0, 1 << 40), public_name="public.example")), (ESNI_SHARE,)
)
ECH_KEYS = EchKeys(ECH_FILE.keys(ENGINE, "file"), ECH_CONFIGS)
NOW = int(TIME.timestamp())


def _ticket(keys: TicketKeys, options: int) -> Ticket:
    """Of a session that has just been: it allows early data, which only a retry or another choice rejects."""
    alpn = b"h2" if options & ALPN else None
    state = TicketState(bytes(32), SUITE, NOW * 1000, 3600, 7, NAME, alpn, 1000)
    identity = keys.seal(state, NOW * 1000)
    return Ticket(identity, bytes(32), SUITE, 7, NOW, 3600, NAME, alpn, verified=True, max_early_data=1000)


def _client_identities(options: int) -> tuple[Identity, ...]:
    if options & RAW:
        return (Identity((), NullKey()),)
    return (Identity((b"client's certificate" * 20,), NullKey()),) if options & AUTH else ()


def _client_config(options: int) -> ClientConfig:
    return ClientConfig(
        server_name=NAME,
        trust=None,
        alpn=(b"h2", b"http/1.1") if options & ALPN else (),
        groups=(Group.X25519, Group.SECP256R1),
        extra_extensions=EXTRA,
        psks=(KEY,) if options & PSK else (),
        ech=ECH_CONFIGS if options & ECH else (),
        ech_grease=True,
        tickets=2,
        ticket=_ticket(TicketKeys(ENGINE, seeded(3)), options) if options & EARLY else None,
        early_data=bool(options & EARLY),
        identities=_client_identities(options),
        server_keys=(NullKey.public_key_info,) if options & RAW else (),
        engine=ENGINE,
    )


def _server_config(options: int) -> ServerConfig:
    keys = TicketKeys(ENGINE, seeded(3))
    # Seeded alike, they are the keys of the client's ticket.
    _ticket(keys, options)
    return ServerConfig(
        # What is long goes out compressed.
        identities=(
            Identity((), NullKey())
            if options & RAW
            else Identity((b"certificate" * (20 if options & AUTH else 1), b"issuer"), NullKey(), (NAME,)),
        ),
        client_keys=(NullKey.public_key_info,) if options & RAW else (),
        alpn=(b"h2",) if options & ALPN else (),
        groups=(Group.SECP256R1,) if options & RETRY else (Group.X25519, Group.SECP256R1),
        suites=(SUITE,) if options & NARROW else tuple(CipherSuite),
        psks=(KEY,) if options & PSK else (),
        ech=ECH_KEYS if options & ECH else None,
        ticket_keys=keys,
        early_data=EarlyDataPolicy(MemoryReplayStore(NOW * 1000 - 1), 1000) if options & EARLY else None,
        client_auth=ClientAuth.REQUIRE if options & AUTH else ClientAuth.NONE,
        engine=ENGINE,
    )


def client_of(options: int) -> ClientHandshake:
    return ClientHandshake(_client_config(options), random=seeded(1), time=TIME)


def server_of(options: int) -> ServerHandshake:
    return ServerHandshake(_server_config(options), random=seeded(2), time=TIME)


def messages(data: bytes) -> list[bytes]:
    """The bytes cut where the headers say that messages end: a message must not span a change of keys."""
    cut = []
    while data:
        end = HEADER_SIZE + int.from_bytes(data[1:HEADER_SIZE], "big")
        cut.append(data[:end])
        data = data[end:]
    return cut


def _receive(handshake: Handshake, data: bytes) -> None:
    try:
        for message in messages(data):
            handshake.receive(handshake.read_epoch, message)
            handshake.events()
    except HandshakeError:
        handshake.events()


@cache
def flights(options: int) -> tuple[bytes, bytes]:
    """All that the client and the server say to each other."""
    client, server = client_of(options), server_of(options)
    said: tuple[list[bytes], list[bytes]] = ([], [])
    for _ in range(3):
        for number, (sender, receiver) in enumerate(((client, server), (server, client))):
            for event in sender.events():
                # Tickets follow the handshake: `post_handshake` is for them.
                if isinstance(event, MessageToSend) and event.epoch is not Epoch.APPLICATION:
                    said[number].append(event.data)
                    receiver.receive(receiver.read_epoch, event.data)
    return b"".join(said[0]), b"".join(said[1])


def client_handshake(data: bytes) -> None:
    if data:
        _receive(client_of(data[0]), data[1:])


def server_handshake(data: bytes) -> None:
    if data:
        _receive(server_of(data[0]), data[1:])


def _handshake_seeds(number: int) -> list[bytes]:
    return [bytes((options,)) + flights(options)[number] for options in OPTIONS]


# Whole connections: records, alerts, change_cipher_spec. The second byte is the size of the pieces that arrive.


def _connect(connection: TLSConnection, data: bytes, chunk: int) -> None:
    connection.data_to_send()
    try:
        for start in range(0, len(data), chunk):
            connection.receive_data(data[start : start + chunk])
            if isinstance(connection, ServerConnection):
                connection.early_records()
    except (HandshakeError, AlertReceived):
        connection.data_to_send()
        return
    if connection.handshake_complete:
        connection.established()
    else:
        with suppress(HandshakeError):
            connection.receive_eof()


def client_connection(data: bytes) -> None:
    if len(data) > 2:
        config = _client_config(data[0])
        _connect(ClientConnection(config, random=seeded(1), time=TIME), data[2:], data[1] * 8 + 1)


def server_connection(data: bytes) -> None:
    if len(data) > 2:
        _connect(ServerConnection(_server_config(data[0]), random=seeded(2), time=TIME), data[2:], data[1] * 8 + 1)


def _connection_seeds(number: int) -> list[bytes]:
    seeds = []
    for options in OPTIONS:
        client = ClientConnection(_client_config(options), random=seeded(1), time=TIME)
        server = ServerConnection(_server_config(options), random=seeded(2), time=TIME)
        said = [b"", b""]
        client.send_early(b"early data")
        for _ in range(3):
            for index, (sender, receiver) in enumerate(((client, server), (server, client))):
                data = sender.data_to_send()
                said[index] += data
                receiver.receive_data(data)
        seeds.append(bytes((options, 255)) + said[number])
    return seeds


# Records behind the handshake, down to the core.


FRAMES: tuple[frames.Frame, ...] = (
    frames.Padding(3),
    frames.Ping(),
    frames.Stream(0, 0, b"client's", fin=True),
    frames.Stream(1, 0, b"server's", fin=False),
    frames.Ack(0, 0),
    frames.NewToken(1, bytes(32)),
    frames.JoinToken(300, bytes(32)),
    frames.ConnectionReset(0),
    frames.NewAddress(1, bytes(4), 4433),
    frames.RemoveAddress(1),
    frames.StreamChange(0, 5),
    frames.MaxData(1 << 20),
    frames.MaxStreamData(0, 1 << 20),
    frames.MaxStreams(20),
    frames.ResetStream(0, 8, 1),
    frames.StopSending(0, 1),
    frames.SessionClose(3, "reason"),
    frames.PathStatus(0, 1, frames.PathState.STANDBY, 1),
    frames.ParametersFrame(PARAMETERS.write()),
    frames.TcpOption(1, 0, 1, b"\0\0\0\1"),
    frames.TcpOptionResult(1, OptionStatus.APPLIED, 0, b"\0\0\0\1"),
    frames.ProgramOfferFrame(0, 100, bytes(32), "vegas", "bpfel+struct_ops", b"", b"", ()),
    frames.ProgramRequest(0, frames.Want.SEND, 0, ""),
    frames.ProgramData(0, 0, b"data"),
    frames.ProgramResult(0, Stage.ATTACHED, True, "tcpls_vegas", "", ""),
    frames.ProgramDetach(0),
)


def _session(role: Role) -> Session:
    peer = PARAMETERS if role is Role.CLIENT else Parameters()
    return Session(role, SessionConfig(), PARAMETERS, peer, SECRET, SECRET)


def _sealed(*records: tuple[int, bytes]) -> bytes:
    sealer = RecordSealer(ENGINE.aead, SECRET.keys())
    for content_type, content in records:
        sealer.put(content_type, content)
    return bytes(sealer.pending)


def _records(core: Session | PlainSession, data: bytes) -> None:
    opener = RecordOpener(ENGINE.aead, SECRET.keys(), ENGINE.invalid_tag)
    opener.feed(data)
    try:
        core.receive_records(0, opener, 1.0)
    except PeerError as error:
        core.fail(0, error, 1.0)
    core.events()
    core.actions()
    sealer = RecordSealer(ENGINE.aead, SECRET.keys())
    core.transmit(0, sealer, 1.0)
    core.next_timer()
    core.timer_expired(1000.0)
    core.connection_ended(0, "reset", 1000.0)


def session_records(data: bytes) -> None:
    """The first byte's lowest bit is the role; what follows are records on the wire, nothing protected."""
    if data:
        _records(_session((Role.CLIENT, Role.SERVER)[data[0] & 1]), data[1:])


def plain_records(data: bytes) -> None:
    if data:
        _records(PlainSession((Role.CLIENT, Role.SERVER)[data[0] & 1], SECRET, SECRET), data[1:])


def early_data(data: bytes) -> None:
    """A record of early data at a server, and what it answers."""
    if not data:
        return
    session = Session(Role.SERVER, SessionConfig(), PARAMETERS, Parameters(), SECRET, SECRET)
    core = session if data[0] & 1 else PlainSession(Role.SERVER, SECRET, SECRET)
    core.handshaking = bool(data[0] & 2)
    try:
        core.receive_early(data[1:], 1.0)
        core.settle()
    except PeerError as error:
        core.fail(0, error, 1.0)
    core.close(0, "", 1.0)
    core.events()
    core.transmit(0, RecordSealer(ENGINE.aead, SECRET.keys()), 1.0)


def _early_seeds() -> list[bytes]:
    early = encode(frames.Stream(0, 0, b"early", fin=True)) + encode(frames.ParametersFrame(PARAMETERS.write()))
    return [bytes((options,)) + seed for options in range(4) for seed in (early, b"GET /", *map(encode, FRAMES))]


def _session_seeds() -> list[bytes]:
    full = [(23, bytes(16369) + STREAM_TRAILER.pack(16369, at * 16369, 0, 2)) for at in range(4)]
    seeds = [_sealed((23, encode(frame))) for frame in FRAMES]
    seeds.append(_sealed(*full))
    seeds.append(_sealed((22, KeyUpdate(True).write()), (21, b"\x01\x00")))
    return [bytes((role,)) + seed for role in (0, 1) for seed in seeds]


def _plain_seeds() -> list[bytes]:
    ticket = NewSessionTicket(7200, 1, b"\0", b"ticket", {42: bytes(4)}).write()
    seed = _sealed((22, ticket), (23, b"data"), (23, bytes(1 << 14)), (22, KeyUpdate(True).write()), (21, b"\x01\x00"))
    return [b"\0" + seed, b"\1" + seed]


# Messages after the handshake, and certificates.


def post_handshake(data: bytes) -> None:
    if not data:
        return
    post = PostHandshake(is_client=bool(data[0] & 1))
    with suppress(ProtocolViolation):
        for start in range(1, len(data), 1 + data[0] // 2):
            post.receive(data[start : start + 1 + data[0] // 2])


def tickets(data: bytes) -> None:
    for kind in (Ticket, TicketState):
        with suppress(PeerError):
            kind.read(kind.read(data).write())


# Encrypted ClientHello: lists and files of configurations, and the form that is encrypted.

_OUTER = ClientHello.read(Reader(messages(flights(ALPN)[0])[0][HEADER_SIZE:]))


def compressed_certificate(data: bytes) -> None:
    with suppress(PeerError):
        message = CompressedCertificate.read(Reader(data))
        assert len(message.expand(tuple(CertificateCompression))) == message.size <= MAX_MESSAGE


def _compressed_seeds() -> list[bytes]:
    plain = Certificate(b"", (b"a certificate" * 50, b"its issuer" * 50)).write()
    return [compress(algorithm, plain)[HEADER_SIZE:] for algorithm in CertificateCompression]


def certificate_request(data: bytes) -> None:
    with suppress(PeerError):
        choose_for_server(_client_config(AUTH), Wanted.read(CertificateRequest.read(Reader(data)).extensions, (0, 2)))


def _request_seeds() -> list[bytes]:
    everything: dict[int, bytes] = {
        ExtensionType.SIGNATURE_ALGORITHMS: write_code_points((0x0403, 0x0804)),
        ExtensionType.SIGNATURE_ALGORITHMS_CERT: write_code_points((0x0401,)),
        ExtensionType.CERTIFICATE_AUTHORITIES: write_authorities((b"a name", b"another")),
        ExtensionType.COMPRESS_CERTIFICATE: write_compressions((1, 2)),
        ExtensionType.STATUS_REQUEST: b"",
        ExtensionType.OID_FILTERS: write_oid_filters({bytes.fromhex("551d25"): sequence(oid("1.3.6.1.5.5.7.3.2"))}),
    }
    return [CertificateRequest(b"", everything).write()[HEADER_SIZE:]]


def ech_configurations(data: bytes) -> None:
    with suppress(PeerError):
        choose_config(read_configs(data))
    with suppress(ConfigurationError):
        write_pem(read_file(data, "file"))


def ech_inner(data: bytes) -> None:
    with suppress(PeerError):
        inner = decode_inner(data, _OUTER)
        # What is not said by its extensions is for `Offer`, which `server_handshake` reaches.
        assert len(inner.write()) <= len(data) + len(_OUTER.write())


def esni(data: bytes) -> None:
    hello = replace(_OUTER, extensions={**_OUTER.extensions, ExtensionType.ENCRYPTED_SERVER_NAME: data})
    message = hello.write()
    with suppress(PeerError):
        hear_esni(ENGINE, (ESNI_KEY,), Message(message[0], message), hello)
    with suppress(PeerError):
        EsniKeys.read(ENGINE, data)


def _esni_seeds() -> list[bytes]:
    config = replace(_client_config(0), esni=ESNI_KEY.keys)
    (event, *_) = ClientHandshake(config, random=seeded(1), time=TIME).events()
    assert isinstance(event, MessageToSend)
    hello = ClientHello.read(Reader(event.data[HEADER_SIZE:]))
    return [hello.extensions[ExtensionType.ENCRYPTED_SERVER_NAME], ESNI_KEY.keys.raw]


def _inner_seeds() -> list[bytes]:
    hello = replace(_OUTER, extensions={**_OUTER.extensions, ExtensionType.ENCRYPTED_CLIENT_HELLO: INNER})
    kinds = list(hello.extensions)[1:4]
    return [encode_inner(hello, (), 0), encode_inner(hello, kinds, 100)]


def _configuration_seeds() -> list[bytes]:
    return [write_configs(ECH_CONFIGS), write_pem(ECH_FILE).encode()]


def _ticket_seeds() -> list[bytes]:
    kept = Ticket(b"identity", bytes(32), SUITE, 7, 1000.0, 7200, NAME, b"h2", True, 16384, b"remembered")
    sealed = TicketState(bytes(32), SUITE, 1000, 7200, 7, NAME, b"h2", 16384, b"remembered", (b"certificate",))
    return [kept.write(), sealed.write()]


def _post_seeds() -> list[bytes]:
    ticket = NewSessionTicket(7200, 1, b"\0", b"ticket", {42: bytes(4)}).write()
    return [b"\xff" + ticket + KeyUpdate(False).write(), b"\x01" + ticket, b"\xfe" + KeyUpdate(True).write()]


TARGETS: dict[str, Target] = {
    "client_handshake": Target(client_handshake, lambda: _handshake_seeds(1)),
    "server_handshake": Target(server_handshake, lambda: _handshake_seeds(0)),
    "client_connection": Target(client_connection, lambda: _connection_seeds(1)),
    "server_connection": Target(server_connection, lambda: _connection_seeds(0)),
    "session_records": Target(session_records, _session_seeds),
    "plain_records": Target(plain_records, _plain_seeds),
    "early_data": Target(early_data, _early_seeds),
    "post_handshake": Target(post_handshake, _post_seeds),
    "tickets": Target(tickets, _ticket_seeds),
    "certificate_request": Target(certificate_request, _request_seeds),
    "compressed_certificate": Target(compressed_certificate, _compressed_seeds),
    "ech_configurations": Target(ech_configurations, _configuration_seeds),
    "ech_inner": Target(ech_inner, _inner_seeds),
    "esni": Target(esni, _esni_seeds),
    **CRYPTO_TARGETS,
    **PROXY_TARGETS,
}
