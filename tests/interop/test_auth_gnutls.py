"""Certificates in both directions against gnutls-serv and gnutls-cli: client authentication, raw public keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from tcpls.errors import AlertReceived, CertificateError, HandshakeError, Reason
from tcpls.tls.config import ClientAuth, ClientConfig, Identity, ServerConfig
from tests.engine import LIBRARY
from tests.interop.conftest import Pki
from tests.interop.peer import connect, free_port, listening, need, running
from tests.interop.test_auth_openssl import CLIENT_AUTH, verifying
from tests.interop.test_tls_gnutls import gnutls_cli, priority
from tests.unit.tls.pair import KINDS, NAME


@contextmanager
def serv(pki: Pki, *arguments: str) -> Iterator[int]:
    """A server that may ask for certificates, which the other tests' does not."""
    files, port = pki.certificates["p256"], free_port()
    with running(
        need("gnutls-serv"), "--port", str(port), "--echo", "--x509certfile", files.certificate, "--x509keyfile",
        files.key, "--x509cafile", pki.authority, "--priority", priority(), *arguments,
    ) as process:  # fmt: skip
        process.wait_for("done")
        yield port


@pytest.mark.feature(CLIENT_AUTH, peer="GnuTLS", role="client")
@pytest.mark.parametrize("kind", KINDS)
def test_client_shows_its_certificate(pki: Pki, kind: str) -> None:
    config = ClientConfig(NAME, pki.trust, identities=(pki.certificates[kind].identity,))
    with (
        serv(pki, "--require-client-cert", "--verify-client-cert") as port,
        connect(port, config) as channel,
    ):
        channel.echo()


@pytest.mark.feature(CLIENT_AUTH, peer="GnuTLS", role="client")
def test_client_without_a_certificate(pki: Pki) -> None:
    config = ClientConfig(NAME, pki.trust)
    with serv(pki) as port, connect(port, config) as channel:
        channel.echo()
    with (
        serv(pki, "--require-client-cert") as port,
        connect(port, config) as channel,
        pytest.raises((AlertReceived, EOFError, ConnectionError)),
    ):
        channel.send(b"hello\n")
        channel.receive()


def own(pki: Pki, kind: str) -> tuple[str, ...]:
    files = pki.certificates[kind]
    return "--x509certfile", str(files.certificate), "--x509keyfile", str(files.key)


@pytest.mark.feature(CLIENT_AUTH, peer="GnuTLS", role="server")
@pytest.mark.parametrize("kind", KINDS)
def test_server_knows_its_client(pki: Pki, kind: str) -> None:
    with (
        listening() as listener,
        gnutls_cli(listener.port, pki, priority(), *own(pki, kind)) as process,
        listener.accept(verifying(pki)) as channel,
    ):
        assert channel.established.peer_certificates == pki.certificates[kind].identity.chain
        assert channel.established.verified
        process.wait_for("Handshake was completed")
        channel.hear(process)


@pytest.mark.feature(CLIENT_AUTH, peer="GnuTLS", role="server")
def test_server_refuses_its_client(pki: Pki) -> None:
    with listening() as listener, gnutls_cli(listener.port, pki, priority(), *own(pki, "expired")) as process:
        with pytest.raises(CertificateError) as caught, listener.accept(verifying(pki)):
            pass
        assert caught.value.reason is Reason.CERTIFICATE_EXPIRED
        process.wait_for("expired")
    with listening() as listener, gnutls_cli(listener.port, pki, priority()) as process:
        with pytest.raises(HandshakeError) as refused, listener.accept(verifying(pki)):
            pass
        assert refused.value.reason is Reason.CERTIFICATE_REQUIRED
        process.wait_for("Certificate is required")


RAW_KEYS = "raw public keys"


@dataclass(frozen=True)
class RawKey:
    private: Path
    public: Path

    @property
    def identity(self) -> Identity:
        return LIBRARY.load_raw_identity(self.private)

    @property
    def info(self) -> bytes:
        return self.identity.signer.public_key_info

    @property
    def arguments(self) -> tuple[str, ...]:
        return "--rawpkkeyfile", str(self.private), "--rawpkfile", str(self.public)


@pytest.fixture
def raw(pki: Pki, tmp_path: Path, kind: str) -> RawKey:
    """The key of a certificate, as GnuTLS wants it."""
    public = tmp_path / f"{kind}.pub"
    key = load_pem_private_key(pki.certificates[kind].key.read_bytes(), None)
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return RawKey(pki.certificates[kind].key, public)


@contextmanager
def raw_serv(pki: Pki, raw: RawKey, types: str, *arguments: str) -> Iterator[int]:
    port = free_port()
    with running(
        need("gnutls-serv"), "--port", str(port), "--echo", *raw.arguments, "--x509cafile", pki.authority,
        "--priority", priority() + types, *arguments,
    ) as process:  # fmt: skip
        process.wait_for("done")
        yield port


RAW_KINDS = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.feature(RAW_KEYS, peer="GnuTLS", role="client")
@RAW_KINDS
def test_client_and_a_servers_raw_key(pki: Pki, raw: RawKey) -> None:
    config = ClientConfig(NAME, None, server_keys=(raw.info,))
    with (
        raw_serv(pki, raw, ":+CTYPE-SRV-RAWPK", "--disable-client-cert") as port,
        connect(port, config) as channel,
    ):
        assert channel.established.peer_raw_key == raw.info
        channel.echo()


@pytest.mark.feature(RAW_KEYS, peer="GnuTLS", role="client")
@RAW_KINDS
def test_client_shows_a_raw_key(pki: Pki, raw: RawKey) -> None:
    config = ClientConfig(NAME, None, server_keys=(raw.info,), identities=(raw.identity,))
    with (
        raw_serv(pki, raw, ":+CTYPE-SRV-RAWPK:+CTYPE-CLI-RAWPK", "--require-client-cert") as port,
        connect(port, config) as channel,
    ):
        channel.echo()


@pytest.mark.feature(RAW_KEYS, peer="GnuTLS", role="client")
@pytest.mark.parametrize("kind", ["p256"])
def test_client_refuses_another_raw_key(pki: Pki, raw: RawKey) -> None:
    config = ClientConfig(NAME, None, server_keys=(pki.certificates["rsa"].identity.signer.public_key_info,))
    with raw_serv(pki, raw, ":+CTYPE-SRV-RAWPK", "--disable-client-cert") as port:
        with pytest.raises(CertificateError) as caught, connect(port, config):
            pass
        assert caught.value.reason is Reason.UNKNOWN_KEY


@pytest.mark.feature(RAW_KEYS, peer="GnuTLS", role="server")
@RAW_KINDS
def test_server_with_a_raw_key_and_a_client_with_one(pki: Pki, raw: RawKey) -> None:
    config = ServerConfig((raw.identity,), client_auth=ClientAuth.REQUIRE, client_keys=(raw.info,))
    text = priority() + ":+CTYPE-SRV-RAWPK:+CTYPE-CLI-RAWPK"
    with (
        listening() as listener,
        gnutls_cli(listener.port, pki, text, "--insecure", *raw.arguments) as process,
        listener.accept(config) as channel,
    ):
        assert channel.established.peer_raw_key == raw.info
        assert channel.established.verified
        process.wait_for("Handshake was completed")
        channel.hear(process)


@pytest.mark.feature(RAW_KEYS, peer="GnuTLS", role="server")
@pytest.mark.parametrize("kind", ["p256"])
def test_server_with_a_raw_key_and_a_client_of_certificates(pki: Pki, raw: RawKey) -> None:
    with listening() as listener, gnutls_cli(listener.port, pki, priority()) as process:
        with pytest.raises(HandshakeError) as caught, listener.accept(ServerConfig((raw.identity,))):
            pass
        assert caught.value.reason is Reason.NO_COMMON_CERTIFICATE_TYPE
        process.wait_for("Certificate is not supported")
