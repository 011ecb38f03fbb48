"""Certificates in both directions against Go's crypto/tls."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from tcpls.errors import Alert, AlertReceived, HandshakeError, Reason
from tcpls.tls.config import ClientAuth, ClientConfig, ServerConfig
from tests.engine import ENGINE
from tests.interop.conftest import Pki
from tests.interop.go_peer import go_client, go_server
from tests.interop.go_peer import go_peer as go_peer
from tests.interop.peer import connect, listening
from tests.interop.test_auth_openssl import CLIENT_AUTH, STAPLE, verifying
from tests.interop.test_auth_openssl import staples as staples
from tests.unit.tls.pair import NAME

# What Go has of ours: it lacks Ed448.
KINDS = ("p256", "p384", "p521", "rsa", "ed25519")


@pytest.mark.feature(CLIENT_AUTH, peer="Go", role="client")
@pytest.mark.parametrize("auth", ["request", "require"])
@pytest.mark.parametrize("kind", KINDS)
def test_client_shows_its_certificate(pki: Pki, go_peer: Path, kind: str, auth: str) -> None:
    config = ClientConfig(NAME, pki.trust, identities=(pki.certificates[kind].identity,))
    arguments = "-client-auth", auth, "-client-ca", str(pki.authority)
    with go_server(go_peer, pki, *arguments) as (port, process), connect(port, config) as channel:
        channel.echo(b"abc\n")
        process.wait_for(f"peer {kind}\n")


@pytest.mark.feature(CLIENT_AUTH, peer="Go", role="client")
def test_client_is_refused(pki: Pki, go_peer: Path) -> None:
    arguments = "-client-auth", "require", "-client-ca", str(pki.authority)
    with go_server(go_peer, pki, *arguments) as (port, _):
        for identities, alert in (
            ((), Alert.CERTIFICATE_REQUIRED),
            ((pki.certificates["expired"].identity,), Alert.CERTIFICATE_EXPIRED),
        ):
            with connect(port, ClientConfig(NAME, pki.trust, identities=identities)) as channel:
                with pytest.raises(AlertReceived) as caught:
                    channel.receive()
                assert caught.value.alert == alert


@pytest.mark.feature(CLIENT_AUTH, peer="Go", role="server")
@pytest.mark.parametrize("kind", KINDS)
def test_server_knows_its_client(pki: Pki, go_peer: Path, kind: str) -> None:
    files = pki.certificates[kind]
    arguments = "-cert", str(files.certificate), "-key", str(files.key)
    with (
        listening() as listener,
        go_client(go_peer, pki, listener.port, *arguments) as process,
        listener.accept(verifying(pki)) as channel,
    ):
        assert channel.established.peer_certificates == files.identity.chain
        assert channel.established.verified
        assert channel.receive_until(b"\n") == b"hello\n"
        channel.send(b"olleh\n")
        assert "answer olleh" in process.finish()


@pytest.mark.feature(CLIENT_AUTH, peer="Go", role="server")
def test_server_without_a_certificate_of_its_client(pki: Pki, go_peer: Path) -> None:
    with (
        listening() as listener,
        go_client(go_peer, pki, listener.port),
        listener.accept(verifying(pki, ClientAuth.REQUEST)) as channel,
    ):
        assert channel.established.peer_certificates == ()
    with listening() as listener, go_client(go_peer, pki, listener.port) as process:
        with pytest.raises(HandshakeError) as caught, listener.accept(verifying(pki)):
            pass
        assert caught.value.reason is Reason.CERTIFICATE_REQUIRED
        assert "certificate required" in process.finish()


@pytest.mark.feature(STAPLE, peer="Go", role="client")
def test_client_and_a_staple(pki: Pki, go_peer: Path, staples: dict[str, Path]) -> None:
    config = ClientConfig(NAME, pki.trust, ocsp=True)
    with go_server(go_peer, pki, "-ocsp", str(staples["good"])) as (port, _), connect(port, config) as channel:
        assert channel.established.ocsp_response == staples["good"].read_bytes()
        assert channel.established.ocsp_verified is (ENGINE.name == "openssl")


@pytest.mark.feature(STAPLE, peer="Go", role="server")
def test_server_and_a_staple(pki: Pki, go_peer: Path, staples: dict[str, Path]) -> None:
    response = staples["good"].read_bytes()
    config = ServerConfig((replace(pki.certificates["p256"].identity, ocsp_response=response),))
    with listening() as listener, go_client(go_peer, pki, listener.port) as process, listener.accept(config):
        process.wait_for(f"staple {hashlib.sha256(response).hexdigest()}")
