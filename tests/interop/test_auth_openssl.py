"""Certificates in both directions against openssl s_server and s_client."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from tcpls.errors import Alert, AlertReceived, CertificateError, HandshakeError, Reason
from tcpls.tls.config import ClientAuth, ServerConfig
from tests.engine import ENGINE
from tests.interop.conftest import PUBLIC_NAME, Pki
from tests.interop.peer import connect, listening, need
from tests.interop.test_tls_openssl import client_config, s_client, s_server
from tests.unit.tls.pair import KINDS

CLIENT_AUTH = "client authentication"
NAMES = "a certificate for each name and scheme"


def verifying(pki: Pki, auth: ClientAuth = ClientAuth.REQUIRE) -> ServerConfig:
    return replace(pki.server(), client_auth=auth, client_trust=pki.trust)


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
        channel.hear(process)
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
        channel.hear(process)


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


STAPLE = "OCSP staple"


@pytest.fixture(scope="module")
def staples(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Responses about the certificate p256, by its authority: made by openssl's own responder."""
    folder = tmp_path_factory.mktemp("ocsp")
    certificate = pki.certificates["p256"].certificate
    serial = x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number
    made = {}
    for name, state in (("good", "V\t301231235959Z\t"), ("revoked", "R\t301231235959Z\t250101000000Z")):
        index, made[name] = folder / f"{name}.txt", folder / f"{name}.der"
        digits = f"{serial:X}"
        index.write_text(f"{state}\t{'0' * (len(digits) % 2)}{digits}\tunknown\t/CN=p256\n")
        subprocess.run(
            [need("openssl"), "ocsp", "-index", index, "-CA", pki.authority, "-rsigner", pki.authority, "-rkey",
             pki.authority.with_suffix(".key"), "-issuer", pki.authority, "-cert", certificate, "-ndays", "1",
             "-no_nonce", "-respout", made[name]],
            check=True, capture_output=True, timeout=30,
        )  # fmt: skip
    return made


@pytest.mark.feature(STAPLE, peer="OpenSSL", role="client")
def test_client_and_a_staple(pki: Pki, staples: dict[str, Path]) -> None:
    config = replace(client_config(pki), ocsp=True)
    with s_server(pki, "p256", "-status_file", str(staples["good"])) as (port, _), connect(port, config) as channel:
        assert channel.established.ocsp_response == staples["good"].read_bytes()
        assert channel.established.ocsp_verified is (ENGINE.name == "openssl")
    with s_server(pki, "p256") as (port, _), connect(port, config) as channel:
        assert channel.established.ocsp_response == b""
    if ENGINE.name == "openssl":
        with s_server(pki, "p256", "-status_file", str(staples["revoked"])) as (port, process):
            with pytest.raises(CertificateError) as caught, connect(port, config):
                pass
            assert caught.value.reason is Reason.CERTIFICATE_REVOKED
            process.wait_for("alert certificate revoked")


@pytest.mark.feature(STAPLE, peer="OpenSSL", role="server")
@pytest.mark.parametrize(("name", "status"), [("good", "Cert Status: good"), ("revoked", "Cert Status: revoked")])
def test_server_and_a_staple(pki: Pki, staples: dict[str, Path], name: str, status: str) -> None:
    response = staples[name].read_bytes()
    config = ServerConfig((replace(pki.certificates["p256"].identity, ocsp_response=response),))
    with listening() as listener, s_client(listener.port, pki, "-status") as process, listener.accept(config):
        process.wait_for("OCSP Response Status: successful")
        process.wait_for(status)
