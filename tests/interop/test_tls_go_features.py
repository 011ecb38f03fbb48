"""What Go's crypto/tls has in common with the other peers, in both roles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tcpls.errors import AlertReceived, CertificateError, HandshakeError, Reason
from tcpls.tls.config import ClientConfig, Padding
from tcpls.tls.suites import CipherSuite
from tests.interop.conftest import Pki
from tests.interop.go_peer import go_client, go_server
from tests.interop.go_peer import go_peer as go_peer
from tests.interop.peer import connect, listening
from tests.unit.tls.pair import NAME

KINDS = ("p256", "p384", "p521", "rsa", "ed25519")
"""Go has no Ed448."""
LABEL = "EXPORTER-tcpls-test"


@pytest.mark.feature("cipher suites and kinds of certificates", peer="Go", role="client")
@pytest.mark.feature("KeyUpdate", peer="Go", role="client")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suite", CipherSuite)
def test_client_suites_and_certificates(pki: Pki, go_peer: Path, suite: CipherSuite, kind: str) -> None:
    config = ClientConfig(NAME, pki.trust, suites=(suite,))
    with go_server(go_peer, pki, certificate=kind) as (port, _), connect(port, config) as channel:
        assert channel.established.suite is suite
        channel.echo()
        channel.update_keys(request=True)
        channel.echo(b"again\n")
        assert channel.key_updates == 1


@pytest.mark.feature("cipher suites and kinds of certificates", peer="Go", role="server")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suite", CipherSuite)
def test_server_suites_and_certificates(pki: Pki, go_peer: Path, suite: CipherSuite, kind: str) -> None:
    config = replace(pki.server(kind), suites=(suite,))
    with (
        listening() as listener,
        go_client(go_peer, pki, listener.port) as process,
        listener.accept(config) as channel,
    ):
        assert channel.established.suite is suite
        assert channel.receive_until(b"\n") == b"hello\n"
        channel.send(b"olleh\n")
        process.wait_for("answer olleh")


@pytest.mark.feature("KeyUpdate", peer="Go", role="server")
def test_server_key_update(pki: Pki, go_peer: Path) -> None:
    with (
        listening() as listener,
        go_client(go_peer, pki, listener.port) as process,
        listener.accept(pki.server()) as channel,
    ):
        assert channel.receive_until(b"\n") == b"hello\n"
        channel.update_keys(request=True)
        channel.send(b"olleh\n")
        process.wait_for("answer olleh")
        # It ends behind the answer, and says so under its next keys.
        assert channel.receive() == b""
        assert channel.key_updates == 1


@pytest.mark.feature("ALPN", peer="Go", role="client")
@pytest.mark.feature("exporters", peer="Go", role="client")
@pytest.mark.clause("RFC 8446 7.5")
def test_client_alpn_and_exporter(pki: Pki, go_peer: Path) -> None:
    config = ClientConfig(NAME, pki.trust, alpn=(b"one", b"two"))
    with (
        go_server(go_peer, pki, "-alpn", "two", "-export", LABEL) as (port, process),
        connect(port, config) as channel,
    ):
        assert channel.established.alpn == b"two"
        material = channel.established.export(LABEL.encode(), b"context", 100)
        process.wait_for(f"protocol two material {material.hex()}\n")


@pytest.mark.feature("ALPN", peer="Go", role="server")
@pytest.mark.feature("exporters", peer="Go", role="server")
@pytest.mark.clause("RFC 8446 7.5")
def test_server_alpn_and_exporter(pki: Pki, go_peer: Path) -> None:
    with (
        listening() as listener,
        go_client(go_peer, pki, listener.port, "-alpn", "one,two", "-export", LABEL) as process,
        listener.accept(replace(pki.server(), alpn=(b"two",))) as channel,
    ):
        assert channel.established.alpn == b"two"
        material = channel.established.export(LABEL.encode(), b"context", 100)
        process.wait_for(f"protocol two material {material.hex()}\n")


@pytest.mark.feature("without middlebox compatibility", peer="Go", role="client")
@pytest.mark.feature("padding of what is sent", peer="Go", role="client")
def test_client_without_compatibility_and_with_padding(pki: Pki, go_peer: Path) -> None:
    config = ClientConfig(NAME, pki.trust, middlebox_compatibility=False, padding=Padding(handshake=1024, data=512))
    with go_server(go_peer, pki) as (port, _), connect(port, config) as channel:
        channel.echo()


@pytest.mark.feature("padding of what is sent", peer="Go", role="server")
def test_server_pads(pki: Pki, go_peer: Path) -> None:
    config = replace(pki.server(), padding=Padding(handshake=1024, data=512))
    with (
        listening() as listener,
        go_client(go_peer, pki, listener.port) as process,
        listener.accept(config) as channel,
    ):
        channel.send(b"olleh\n")
        process.wait_for("answer olleh")


@pytest.mark.feature("refused certificates", peer="Go", role="client")
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("expired", Reason.CERTIFICATE_EXPIRED),
        ("self-signed", Reason.UNTRUSTED_CERTIFICATE),
        ("unknown-ca", Reason.UNTRUSTED_CERTIFICATE),
    ],
)
def test_client_refuses_certificates(pki: Pki, go_peer: Path, kind: str, reason: Reason) -> None:
    with go_server(go_peer, pki, certificate=kind) as (port, process):
        with pytest.raises(CertificateError) as caught, connect(port, ClientConfig(NAME, pki.trust)):
            pass
        assert caught.value.reason is reason
        process.wait_for("error remote error: tls: ")


@pytest.mark.feature("refused certificates", peer="Go", role="server")
@pytest.mark.parametrize("kind", ["expired", "self-signed", "unknown-ca"])
def test_server_is_refused(pki: Pki, go_peer: Path, kind: str) -> None:
    with listening() as listener, go_client(go_peer, pki, listener.port) as process:
        with pytest.raises(AlertReceived), listener.accept(pki.server(kind)):
            pass
        assert "x509: certificate" in process.finish()


@pytest.mark.feature("certificates that are not verified", peer="Go", role="client")
def test_client_that_does_not_verify(pki: Pki, go_peer: Path) -> None:
    with (
        go_server(go_peer, pki, certificate="unknown-ca") as (port, _),
        connect(port, ClientConfig("any.example", None)) as channel,
    ):
        assert len(channel.established.peer_certificates) == 1


@pytest.mark.feature("refusal of TLS 1.2", peer="Go", role="client")
def test_client_meets_tls_1_2(pki: Pki, go_peer: Path) -> None:
    with go_server(go_peer, pki, "-tls12") as (port, process):
        with pytest.raises(AlertReceived) as caught, connect(port, ClientConfig(NAME, pki.trust)):
            pass
        assert caught.value.alert == 70
        process.wait_for("error")


@pytest.mark.feature("refusal of TLS 1.2", peer="Go", role="server")
def test_server_meets_tls_1_2(pki: Pki, go_peer: Path) -> None:
    with listening() as listener, go_client(go_peer, pki, listener.port, "-tls12") as process:
        with pytest.raises(HandshakeError) as caught, listener.accept(pki.server()):
            pass
        assert caught.value.reason is Reason.UNSUPPORTED_VERSION
        assert "protocol version" in process.finish()
