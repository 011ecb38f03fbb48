"""What is written is read back, for every handshake message and extension."""

from __future__ import annotations

from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st

from tcpls.tls.compression import CertificateCompression, CompressedCertificate, compress
from tcpls.tls.extensions import (
    PLACES,
    read_alpn,
    read_client_shares,
    read_code_points,
    read_cookie,
    read_offered_versions,
    read_server_name,
    read_server_share,
    read_u16,
    write_alpn,
    write_client_shares,
    write_code_points,
    write_cookie,
    write_offered_versions,
    write_server_name,
    write_server_share,
    write_u16,
)
from tcpls.tls.messages import (
    Certificate,
    CertificateRequest,
    CertificateVerify,
    ClientHello,
    EncryptedExtensions,
    Finished,
    KeyUpdate,
    NewSessionTicket,
    Reassembly,
    ServerHello,
)
from tcpls.wire import Reader

T = TypeVar("T")

u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
unknown = u16.filter(lambda kind: kind not in PLACES)
extensions = st.dictionaries(unknown, st.binary(max_size=50), max_size=5)
randoms = st.binary(min_size=32, max_size=32)
session_ids = st.binary(max_size=32)


def body(message: bytes) -> Reader:
    assert int.from_bytes(message[1:4], "big") == len(message) - 4
    return Reader(message[4:])


@given(
    st.builds(
        ClientHello,
        randoms,
        session_ids,
        st.lists(u16, min_size=1, max_size=20).map(tuple),
        extensions,
        u16,
        st.binary(min_size=1, max_size=5),
    )
)
def test_client_hello(hello: ClientHello) -> None:
    assert ClientHello.read(body(hello.write())) == hello


@given(st.builds(ServerHello, randoms, session_ids, u16, extensions, u16, st.integers(0, 255)))
def test_server_hello(hello: ServerHello) -> None:
    assert ServerHello.read(body(hello.write())) == hello


@given(st.builds(EncryptedExtensions, extensions))
def test_encrypted_extensions(message: EncryptedExtensions) -> None:
    assert EncryptedExtensions.read(body(message.write()), message.extensions) == message


@given(st.builds(CertificateRequest, st.binary(max_size=255), extensions))
def test_certificate_request(message: CertificateRequest) -> None:
    assert CertificateRequest.read(body(message.write())) == message


@given(
    st.builds(
        CompressedCertificate, st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFF), st.binary(min_size=1, max_size=300)
    )
)
def test_compressed_certificate(message: CompressedCertificate) -> None:
    assert CompressedCertificate.read(body(message.write())) == message


@given(st.sampled_from(CertificateCompression), st.binary(min_size=1, max_size=40), st.integers(1, 200))
def test_compression(algorithm: CertificateCompression, data: bytes, times: int) -> None:
    message = Certificate(b"", (data * times,)).write()
    sent = compress(algorithm, message)
    assert len(sent) <= len(message)
    if sent != message:
        assert CompressedCertificate.read(body(sent)).expand((algorithm,)) == message[4:]


@given(
    st.builds(
        Certificate, st.binary(max_size=255), st.lists(st.binary(min_size=1, max_size=300), max_size=5).map(tuple)
    )
)
def test_certificate(message: Certificate) -> None:
    assert Certificate.read(body(message.write()), ()) == message


@given(st.builds(CertificateVerify, u16, st.binary(max_size=500)))
def test_certificate_verify(message: CertificateVerify) -> None:
    assert CertificateVerify.read(body(message.write())) == message


@given(st.builds(Finished, st.binary(max_size=64)))
def test_finished(message: Finished) -> None:
    assert Finished.read(body(message.write()), len(message.verify_data)) == message


@given(st.builds(NewSessionTicket, u32, u32, st.binary(max_size=255), st.binary(min_size=1, max_size=300), extensions))
def test_new_session_ticket(message: NewSessionTicket) -> None:
    assert NewSessionTicket.read(body(message.write())) == message


@given(st.builds(KeyUpdate, st.booleans()))
def test_key_update(message: KeyUpdate) -> None:
    assert KeyUpdate.read(body(message.write())) == message


@given(st.lists(u16, min_size=1, max_size=100))
def test_code_points(points: list[int]) -> None:
    assert read_code_points(write_code_points(tuple(points))) == tuple(points)
    assert read_offered_versions(write_offered_versions(points)) == tuple(points)
    assert read_u16(write_u16(points[0])) == points[0]


@given(st.lists(st.binary(min_size=1, max_size=255), min_size=1, max_size=10))
def test_alpn(names: list[bytes]) -> None:
    assert read_alpn(write_alpn(names)) == names


@given(st.dictionaries(u16, st.binary(min_size=1, max_size=100), max_size=5))
def test_key_shares(shares: dict[int, bytes]) -> None:
    assert read_client_shares(write_client_shares(shares.items())) == shares
    for group, public in shares.items():
        assert read_server_share(write_server_share(group, public)) == (group, public)


@given(st.binary(min_size=1, max_size=500))
def test_cookie(cookie: bytes) -> None:
    assert read_cookie(write_cookie(cookie)) == cookie


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=200))
def test_server_name(name: str) -> None:
    assert read_server_name(write_server_name(name)) == name


@given(st.lists(st.binary(max_size=200), max_size=5), st.data())
def test_reassembly(bodies: list[bytes], data: st.DataObject) -> None:
    messages = [b"\x14" + len(each).to_bytes(3, "big") + each for each in bodies]
    stream = b"".join(messages)
    reassembly, found, at = Reassembly(), [], 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream) - at))
        reassembly.feed(stream[at : at + step])
        at += step
        while message := reassembly.next({0x14}):
            found.append(message.raw)
    assert found == messages
    assert not reassembly.pending
