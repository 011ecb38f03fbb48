"""Certificates in both directions against gnutls-serv and gnutls-cli: client authentication."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tcpls.errors import AlertReceived, CertificateError, HandshakeError, Reason
from tcpls.tls.config import ClientConfig
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
        channel.send(b"hello\n")
        assert channel.receive_until(b"\n") == b"hello\n"


@pytest.mark.feature(CLIENT_AUTH, peer="GnuTLS", role="client")
def test_client_without_a_certificate(pki: Pki) -> None:
    config = ClientConfig(NAME, pki.trust)
    with serv(pki) as port, connect(port, config) as channel:
        channel.send(b"hello\n")
        assert channel.receive_until(b"\n") == b"hello\n"
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
        process.say("hello\n")
        assert channel.receive_until(b"\n") == b"hello\n"


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
