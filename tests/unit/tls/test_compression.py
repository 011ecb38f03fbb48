"""Certificate compression (RFC 8879): both directions, each algorithm, and what is refused."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import brotli
import pytest
from backports import zstd
from cryptography import x509

from tcpls.errors import Alert, ConfigurationError, HandshakeError, Reason
from tcpls.tls import compression
from tcpls.tls.compression import (
    DEFAULT_COMPRESSIONS,
    CertificateCompression,
    CompressedCertificate,
    compress,
    read_compressions,
    usable_compressions,
    write_compressions,
)
from tcpls.tls.config import ClientAuth, Identity
from tcpls.tls.connection import ClientConnection, ServerConnection
from tcpls.tls.flow import Epoch, MessageToSend
from tcpls.tls.handshake import ClientHandshake, Handshake, ServerHandshake
from tcpls.tls.messages import MAX_MESSAGE, Certificate, ClientHello, EncryptedExtensions, HandshakeType, frame
from tcpls.wire import Reader
from tests.unit.tls.pair import (
    TIME,
    authority,
    client_config,
    identity,
    issue,
    leaf,
    refused,
    seeded,
    server_config,
    shake,
    trust,
)

ZLIB, BROTLI, ZSTD = CertificateCompression
ILLEGAL = Alert.ILLEGAL_PARAMETER
REQUIRE = {"client_auth": ClientAuth.REQUIRE, "client_trust": trust()}

COMPRESS: dict[CertificateCompression, Callable[[bytes], bytes]] = {
    ZLIB: zlib.compress,
    BROTLI: lambda data: brotli.compress(data, quality=5),
    ZSTD: zstd.compress,
}


@cache
def bomb_of(algorithm: CertificateCompression) -> bytes:
    """16 MiB of zeros."""
    return COMPRESS[algorithm](bytes(1 << 24))


def long_identity() -> Identity:
    """A certificate that compresses well."""
    filler = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), bytes(4000))
    return issue(authority(), extensions=((filler, False),)).identity(authority())


def sent(handshake: Handshake) -> list[bytes]:
    return [event.data for event in handshake.events() if isinstance(event, MessageToSend)]


@pytest.mark.clause("RFC 8879 3", "RFC 8879 4")
@pytest.mark.parametrize("algorithm", CertificateCompression)
def test_both_directions(algorithm: CertificateCompression) -> None:
    shown = long_identity()
    client = ClientHandshake(client_config(compressions=(algorithm,), identities=(shown,)), random=seeded(1), time=TIME)
    server = ServerHandshake(server_config(identities=(shown,), **REQUIRE), random=seeded(2), time=TIME)
    server.receive(Epoch.INITIAL, sent(client)[0])
    hello, *flight = sent(server)
    compressed = flight[2]
    assert compressed[0] == 25
    message = CompressedCertificate.read(Reader(compressed[4:]))
    assert message.algorithm == algorithm
    plain = Certificate(b"", shown.chain).write()
    assert message.size == len(plain) - 4
    assert len(compressed) < len(plain)
    assert message.expand((algorithm,)) == plain[4:]
    client.receive(Epoch.INITIAL, hello)
    client.receive(Epoch.HANDSHAKE, b"".join(flight))
    certificate, *rest = sent(client)
    assert certificate[0] == 25
    assert CompressedCertificate.read(Reader(certificate[4:])).algorithm == algorithm
    server.receive(Epoch.HANDSHAKE, b"".join((certificate, *rest)))


def test_who_is_known_is_the_same() -> None:
    shown = long_identity()
    for compressions in (DEFAULT_COMPRESSIONS, ()):
        client, server = shake(
            ClientConnection(
                client_config(identities=(shown,), compressions=compressions), random=seeded(1), time=TIME
            ),
            ServerConnection(server_config(identities=(shown,), **REQUIRE), random=seeded(2), time=TIME),
        )
        assert client.peer_certificates == server.peer_certificates == shown.chain
        assert client.verified and server.verified


@pytest.mark.parametrize(
    ("client", "server", "kind"),
    [
        ((ZLIB, BROTLI), (ZSTD, BROTLI, ZLIB), BROTLI),
        ((ZLIB,), (ZSTD,), None),
        ((), DEFAULT_COMPRESSIONS, None),
        (DEFAULT_COMPRESSIONS, (), None),
    ],
)
def test_the_choice(
    client: tuple[CertificateCompression, ...],
    server: tuple[CertificateCompression, ...],
    kind: CertificateCompression | None,
) -> None:
    _, flight = started({"compressions": server, "identities": (long_identity(),)}, compressions=client)
    found = CompressedCertificate.read(Reader(flight[1][4:])).algorithm if flight[1][0] == 25 else None
    assert found == kind


def test_what_does_not_get_smaller_is_left() -> None:
    message = Certificate(b"", (seeded(1)(300),)).write()
    for algorithm in CertificateCompression:
        assert compress(algorithm, message) == message


@pytest.mark.parametrize(
    ("filler", "kind"), [(60, HandshakeType.CERTIFICATE), (120, HandshakeType.COMPRESSED_CERTIFICATE)]
)
def test_what_gets_a_little_smaller_is_left(filler: int, kind: HandshakeType) -> None:
    """Zeros behind what cannot be compressed: less than a tenth of the message, and more."""
    message = Certificate(b"", (seeded(1)(400) + bytes(filler),)).write()
    for algorithm in CertificateCompression:
        assert compress(algorithm, message)[0] == kind


def started(server: dict[str, Any] | None = None, **client: Any) -> tuple[ClientHandshake, list[bytes]]:
    """A client that has ServerHello, and the server's messages behind it."""
    handshake = ClientHandshake(client_config(**client), random=seeded(1), time=TIME)
    peer = ServerHandshake(server_config(**(server or {})), random=seeded(2))
    peer.receive(Epoch.INITIAL, sent(handshake)[0])
    hello, *flight = sent(peer)
    handshake.receive(Epoch.INITIAL, hello)
    return handshake, flight


def awaiting(role: str, **changes: Any) -> Handshake:
    """An end that awaits the other's certificate."""
    if role == "client":
        client, flight = started(**changes)
        client.receive(Epoch.HANDSHAKE, flight[0])
        return client
    client = ClientHandshake(client_config(), random=seeded(1), time=TIME)
    server = ServerHandshake(server_config(**REQUIRE, **changes), random=seeded(2), time=TIME)
    server.receive(Epoch.INITIAL, sent(client)[0])
    return server


BODY = Certificate(b"", (leaf().der,)).write()[4:]
LONGEST = Certificate(b"", (bytes(MAX_MESSAGE - 9),)).write()[4:]


def compressed(algorithm: CertificateCompression, body: bytes = BODY, **changes: Any) -> bytes:
    whole = CompressedCertificate(algorithm, len(body), COMPRESS[algorithm](body))
    return replace(whole, **changes).write()


def refuses(role: str, message: bytes, reason: Reason, alert: Alert, **changes: Any) -> None:
    handshake = awaiting(role, **changes)
    with pytest.raises(HandshakeError) as caught:
        handshake.receive(Epoch.HANDSHAKE, message)
    refused(caught.value, reason, alert)


BAD = (Reason.BAD_COMPRESSION, Alert.BAD_CERTIFICATE)
ROLES = pytest.mark.parametrize("role", ["client", "server"])
ALGORITHMS = pytest.mark.parametrize("algorithm", CertificateCompression)


@ROLES
@ALGORITHMS
def test_the_message_by_hand(role: str, algorithm: CertificateCompression) -> None:
    awaiting(role).receive(Epoch.HANDSHAKE, compressed(algorithm))
    # As long as may be: refused only for what it holds.
    refuses(role, compressed(algorithm, LONGEST), Reason.BAD_CERTIFICATE, Alert.BAD_CERTIFICATE)


@pytest.mark.clause("RFC 8879 4")
@ROLES
@ALGORITHMS
@pytest.mark.parametrize("off", [-1, 1, -len(BODY)], ids=["shorter", "longer", "nothing"])
def test_lengths_that_are_not_the_certificates(role: str, algorithm: CertificateCompression, off: int) -> None:
    refuses(role, compressed(algorithm, size=len(BODY) + off), *BAD)


@pytest.mark.clause("RFC 8879 4")
@ROLES
@ALGORITHMS
def test_data_that_is_damaged(role: str, algorithm: CertificateCompression) -> None:
    data = COMPRESS[algorithm](BODY)
    for broken in (data[:-1], data[: len(data) // 2], data + b"\0", data + data, b"\xff" + data[1:], b"x"):
        refuses(role, compressed(algorithm, data=broken), *BAD)


@pytest.mark.clause("RFC 8879 5")
@ROLES
@ALGORITHMS
@pytest.mark.parametrize(
    "size", [len(BODY), MAX_MESSAGE, MAX_MESSAGE + 1, 0xFFFFFF], ids=["true", "most", "above", "huge"]
)
def test_bombs(role: str, algorithm: CertificateCompression, size: int) -> None:
    bomb = bomb_of(algorithm)
    assert len(bomb) < MAX_MESSAGE
    refuses(role, compressed(algorithm, size=size, data=bomb), *BAD)


@ALGORITHMS
def test_a_bomb_is_not_expanded(algorithm: CertificateCompression) -> None:
    """What comes of the library in all is the size that was told, and a block."""
    codec = compression._codec(algorithm)
    assert codec is not None
    bomb = bomb_of(algorithm)
    tracemalloc.start()
    try:
        assert codec.expand(bomb, 100) is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 18
    finally:
        tracemalloc.stop()


@pytest.mark.clause("RFC 8879 4")
@ROLES
@pytest.mark.parametrize("algorithm", [0, 2, 4, 0x3A3A])
def test_algorithms_that_were_not_offered(role: str, algorithm: int) -> None:
    message = CompressedCertificate(algorithm, len(BODY), brotli.compress(BODY)).write()
    refuses(role, message, Reason.ILLEGAL_CHOICE, ILLEGAL, compressions=(ZLIB, ZSTD))


@pytest.mark.clause("RFC 8879 4")
@ROLES
def test_a_message_that_was_not_offered(role: str) -> None:
    refuses(role, compressed(ZLIB), Reason.UNEXPECTED_MESSAGE, Alert.UNEXPECTED_MESSAGE, compressions=())


@ROLES
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\0\1\0\0\1", Reason.TRUNCATED),
        (b"\0\1\0\0\1\0\0\0", Reason.BAD_LENGTH),
        (b"\0\1\0\0\1\0\0\1x\0", Reason.TRAILING_BYTES),
        (b"\0\1\0\0\1\0\0\2x", Reason.TRUNCATED),
    ],
)
def test_forms(role: str, body: bytes, reason: Reason) -> None:
    refuses(role, frame(HandshakeType.COMPRESSED_CERTIFICATE, body), reason, Alert.DECODE_ERROR)


@ROLES
def test_what_is_compressed_is_judged_like_any_other(role: str) -> None:
    for body, reason, alert in (
        (Certificate(b"x", (leaf().der,)).write()[4:], Reason.BAD_VALUE, ILLEGAL),
        (Certificate(b"", (b"junk" * 50,)).write()[4:], Reason.BAD_CERTIFICATE, Alert.BAD_CERTIFICATE),
        (BODY + b"\0", Reason.TRAILING_BYTES, Alert.DECODE_ERROR),
    ):
        refuses(role, compressed(ZLIB, body), reason, alert)
    empty = Certificate(b"", ()).write()[4:]
    if role == "client":
        refuses(role, compressed(ZLIB, empty), Reason.NO_CERTIFICATE, Alert.DECODE_ERROR)
    else:
        refuses(role, compressed(ZLIB, empty), Reason.CERTIFICATE_REQUIRED, Alert.CERTIFICATE_REQUIRED)


@pytest.mark.clause("RFC 8879 3")
@pytest.mark.parametrize("contents", [b"", b"\0", b"\1\0", b"\2\0\1\0", b"\3\0\1\0", b"\4\0\1"])
def test_the_extension(contents: bytes) -> None:
    with pytest.raises(HandshakeError) as caught:
        ServerHandshake(server_config(), random=seeded(2)).receive(Epoch.INITIAL, with_extension(contents))
    assert caught.value.alert is Alert.DECODE_ERROR


def with_extension(contents: bytes) -> bytes:
    client = ClientHandshake(client_config(extra_extensions=()), random=seeded(1), time=TIME)
    (message,) = sent(client)
    hello = ClientHello.read(Reader(message[4:]))
    return replace(hello, extensions={**hello.extensions, 27: contents}).write()


def test_it_is_no_answer() -> None:
    client, _ = started()
    with pytest.raises(HandshakeError) as caught:
        client.receive(Epoch.HANDSHAKE, EncryptedExtensions({27: write_compressions((ZLIB,))}).write())
    refused(caught.value, Reason.MISPLACED_EXTENSION, ILLEGAL)


def test_unknown_algorithms_are_ignored() -> None:
    assert read_compressions(write_compressions((0x0A0A, 2, 1))) == (0x0A0A, 2, 1)
    server = ServerHandshake(server_config(identities=(long_identity(),)), random=seeded(2))
    server.receive(Epoch.INITIAL, with_extension(write_compressions((0x0A0A, 1, 0x3A3A))))
    assert CompressedCertificate.read(Reader(sent(server)[2][4:])).algorithm == ZLIB


def test_an_engine_without_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> compression.Codec:
        raise ImportError("brotli")

    monkeypatch.setitem(compression._CODECS, BROTLI, absent)
    compression._codec.cache_clear()
    try:
        assert usable_compressions(DEFAULT_COMPRESSIONS) == (ZSTD, ZLIB)
        with pytest.raises(ConfigurationError, match=r"brotli needs its package: pip install 'tcpls\[compress\]'"):
            usable_compressions((ZLIB, BROTLI))
    finally:
        compression._codec.cache_clear()


def test_the_identity_is_what_is_compressed() -> None:
    """The same message twice is compressed once."""
    shown = identity()
    message = Certificate(b"", shown.chain).write()
    before = compress.cache_info().hits
    assert compress(BROTLI, message) == compress(BROTLI, message)
    assert compress.cache_info().hits > before
