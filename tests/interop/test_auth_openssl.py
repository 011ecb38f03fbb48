"""Certificates in both directions against openssl s_server and s_client."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tcpls.errors import Alert, AlertReceived, CertificateError, HandshakeError, Reason
from tcpls.tls.config import ClientAuth, ServerConfig
from tests.interop.conftest import PUBLIC_NAME, Pki
from tests.interop.peer import connect, listening
from tests.interop.test_tls_openssl import client_config, s_client, s_server, server_config
from tests.unit.tls.pair import KINDS

CLIENT_AUTH = "client authentication"
NAMES = "a certificate for each name and scheme"


def verifying(pki: Pki, auth: ClientAuth = ClientAuth.REQUIRE) -> ServerConfig:
    return replace(server_config(pki), client_auth=auth, client_trust=pki.trust)


def verify(pki: Pki, mode: str = "-Verify") -> tuple[str, ...]:
    return mode, "1", "-CAfile", str(pki.authority), "-verify_return_error"


@pytest.mark.feature(CLIENT_AUTH, peer="OpenSSL", role="client")
@pytest.mark.parametrize("mode", ["-verify", "-Verify"])
@pytest.mark.parametrize("kind", KINDS)
def test_client_shows_its_certificate(pki: Pki, kind: str, mode: str) -> None:
    config = replace(client_config(pki), identities=(pki.certificates[kind].identity,))
    with s_server(pki, "p256", *verify(pki, mode)) as (port, process), connect(port, config) as channel:
        process.wait_for(f"depth=0 CN = {kind}")
        process.wait_for("BEGIN SSL SESSION")
        process.say("hello\n")
        assert channel.receive_until(b"\n") == b"hello\n"
        channel.close()


@pytest.mark.feature(CLIENT_AUTH, peer="OpenSSL", role="client")
@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        # The chains are signed by the first of these, and what is not must not be shown (RFC 8446 4.4.2.3).
        (("-client_sigalgs", "ECDSA+SHA256:ECDSA+SHA384"), "p384"),
        (("-client_sigalgs", "ECDSA+SHA256:RSA-PSS+SHA256"), "rsa"),
        (("-client_sigalgs", "ECDSA+SHA256:ed448"), "ed448"),
    ],
)
def test_client_chooses_by_scheme(pki: Pki, arguments: tuple[str, ...], kind: str) -> None:
    identities = tuple(pki.certificates[each].identity for each in ("p384", "rsa", "ed448", "p256"))
    config = replace(client_config(pki), identities=identities)
    with s_server(pki, "p256", *verify(pki), *arguments) as (port, process), connect(port, config):
        process.wait_for(f"depth=0 CN = {kind}")


@pytest.mark.feature(CLIENT_AUTH, peer="OpenSSL", role="client")
@pytest.mark.parametrize(
    ("kind", "alert"),
    [("expired", Alert.CERTIFICATE_EXPIRED), ("unknown-ca", Alert.UNKNOWN_CA), ("self-signed", Alert.UNKNOWN_CA)],
)
def test_client_is_refused(pki: Pki, kind: str, alert: Alert) -> None:
    config = replace(client_config(pki), identities=(pki.certificates[kind].identity,))
    # With authorities that it does not list: a client shows nothing to a server that lists others.
    arguments = "-Verify", "1", "-verifyCAfile", str(pki.authority), "-verify_return_error"
    with s_server(pki, "p256", *arguments) as (port, _), connect(port, config) as channel:
        with pytest.raises(AlertReceived) as caught:
            channel.receive()
        assert caught.value.alert == alert


@pytest.mark.feature(CLIENT_AUTH, peer="OpenSSL", role="server")
@pytest.mark.parametrize("auth", [ClientAuth.REQUEST, ClientAuth.REQUIRE])
@pytest.mark.parametrize("kind", KINDS)
def test_server_knows_its_client(pki: Pki, kind: str, auth: ClientAuth) -> None:
    files = pki.certificates[kind]
    with (
        listening() as listener,
        s_client(listener.port, pki, "-cert", str(files.certificate), "-key", str(files.key)) as process,
        listener.accept(verifying(pki, auth)) as channel,
    ):
        # It sends the authority's too.
        assert channel.established.peer_certificates[:1] == files.identity.chain
        assert channel.established.verified
        process.wait_for("Acceptable client certificate CA names\nCN = authority")
        process.say("hello\n")
        assert channel.receive_until(b"\n") == b"hello\n"


@pytest.mark.feature(CLIENT_AUTH, peer="OpenSSL", role="server")
def test_server_without_a_certificate_of_its_client(pki: Pki) -> None:
    with (
        listening() as listener,
        s_client(listener.port, pki) as process,
        listener.accept(verifying(pki, ClientAuth.REQUEST)) as channel,
    ):
        assert channel.established.peer_certificates == ()
        assert not channel.established.verified
        process.wait_for("Verify return code: 0 (ok)")
    with listening() as listener, s_client(listener.port, pki, "-msg") as process:
        with pytest.raises(HandshakeError) as caught, listener.accept(verifying(pki)):
            pass
        assert caught.value.reason is Reason.CERTIFICATE_REQUIRED
        process.wait_for("02 74")


@pytest.mark.feature(CLIENT_AUTH, peer="OpenSSL", role="server")
@pytest.mark.parametrize(
    ("kind", "reason", "alert"),
    [
        ("expired", Reason.CERTIFICATE_EXPIRED, "certificate_expired"),
        ("unknown-ca", Reason.UNTRUSTED_CERTIFICATE, "unknown_ca"),
    ],
)
def test_server_refuses_its_client(pki: Pki, kind: str, reason: Reason, alert: str) -> None:
    files = pki.certificates[kind]
    arguments = "-msg", "-cert", str(files.certificate), "-key", str(files.key)
    with listening() as listener, s_client(listener.port, pki, *arguments) as process:
        with pytest.raises(CertificateError) as caught, listener.accept(verifying(pki)):
            pass
        assert caught.value.reason is reason
        process.wait_for(f"fatal {alert}")


@pytest.mark.feature(NAMES, peer="OpenSSL", role="server")
@pytest.mark.parametrize(
    ("arguments", "subject"),
    [
        (("-servername", PUBLIC_NAME, "-verify_hostname", PUBLIC_NAME), "public"),
        ((), "p384"),
        (("-sigalgs", "rsa_pss_rsae_sha256:ECDSA+SHA256"), "rsa"),
        (("-sigalgs", "ed448:ECDSA+SHA256"), "ed448"),
        (("-servername", "unknown.example"), "p384"),
    ],
)
def test_server_has_a_certificate_for_each(pki: Pki, arguments: tuple[str, ...], subject: str) -> None:
    identities = tuple(pki.certificates[each].identity for each in ("p384", "rsa", "ed448", "public"))
    with (
        listening() as listener,
        s_client(listener.port, pki, *arguments) as process,
        listener.accept(ServerConfig(identities)),
    ):
        process.wait_for(f"subject=CN = {subject}")


@pytest.mark.feature(NAMES, peer="OpenSSL", role="client")
@pytest.mark.parametrize("name", [PUBLIC_NAME, "server.example"])
def test_client_asks_by_name(pki: Pki, name: str) -> None:
    public = pki.certificates["public"]
    second = "-cert2", str(public.certificate), "-key2", str(public.key), "-servername", PUBLIC_NAME
    config = replace(client_config(pki), server_name=name)
    with s_server(pki, "p256", *second) as (port, _), connect(port, config) as channel:
        shown = public if name == PUBLIC_NAME else pki.certificates["p256"]
        assert channel.established.peer_certificates == shown.identity.chain
