"""Both roles against gnutls-serv and gnutls-cli over loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tcpls.errors import Alert, AlertReceived, CertificateError, HandshakeError, Reason
from tcpls.tls.algorithms import Group
from tcpls.tls.config import ClientConfig, Padding
from tcpls.tls.suites import CipherSuite
from tests.interop.conftest import Pki
from tests.interop.peer import Process, connect, free_port, listening, need, running
from tests.unit.tls.pair import KINDS, NAME

SUITES = {
    CipherSuite.AES_128_GCM_SHA256: "AES-128-GCM",
    CipherSuite.AES_256_GCM_SHA384: "AES-256-GCM",
    CipherSuite.CHACHA20_POLY1305_SHA256: "CHACHA20-POLY1305",
}
GROUPS = {
    Group.X25519: "X25519",
    Group.SECP256R1: "SECP256R1",
    Group.SECP384R1: "SECP384R1",
    Group.SECP521R1: "SECP521R1",
    Group.X448: "X448",
}


def priority(suite: CipherSuite | None = None, *groups: Group) -> str:
    text = "NORMAL:-VERS-ALL:+VERS-TLS1.3"
    if suite is not None:
        text += f":-CIPHER-ALL:+{SUITES[suite]}"
    if groups:
        text += ":-GROUP-ALL" + "".join(f":+GROUP-{GROUPS[group]}" for group in groups)
    return text


@contextmanager
def gnutls_serv(pki: Pki, kind: str, text: str, *arguments: str) -> Iterator[int]:
    files, port = pki.certificates[kind], free_port()
    with running(
        need("gnutls-serv"), "--port", str(port), "--echo", "--x509certfile", files.certificate, "--x509keyfile",
        files.key, "--priority", text, "--disable-client-cert", *arguments,
    ) as process:  # fmt: skip
        # It says where it will listen, and "done" when it does.
        process.wait_for("done")
        yield port


@contextmanager
def gnutls_cli(port: int, pki: Pki, text: str, *arguments: str) -> Iterator[Process]:
    with running(
        need("gnutls-cli"), "--port", str(port), "--x509cafile", pki.authority, "--sni-hostname", NAME,
        "--verify-hostname", NAME, "--priority", text, *arguments, "127.0.0.1",
    ) as process:  # fmt: skip
        yield process


@pytest.mark.feature("cipher suites and kinds of certificates", peer="GnuTLS", role="client")
@pytest.mark.feature("KeyUpdate", peer="GnuTLS", role="client")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suite", CipherSuite)
def test_client_suites_and_certificates(pki: Pki, suite: CipherSuite, kind: str) -> None:
    config = ClientConfig(NAME, pki.trust, suites=(suite,))
    with gnutls_serv(pki, kind, priority()) as port, connect(port, config) as channel:
        assert channel.established.suite is suite
        channel.echo()
        channel.update_keys(request=True)
        channel.echo(b"again\n")
        assert channel.key_updates == 1
        channel.close()


@pytest.mark.feature("groups and HelloRetryRequest", peer="GnuTLS", role="client")
@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("group", GROUPS)
def test_client_groups(pki: Pki, group: Group, retry: bool) -> None:
    others = tuple(other for other in GROUPS if other is not group)
    config = ClientConfig(NAME, pki.trust, groups=(*others, group) if retry else (group, *others))
    with gnutls_serv(pki, "p256", priority(None, group)) as port, connect(port, config) as channel:
        assert channel.established.group == group.label
        assert channel.established.retried is retry
        channel.echo()


@pytest.mark.feature("ALPN", peer="GnuTLS", role="client")
def test_client_alpn(pki: Pki) -> None:
    config = ClientConfig(NAME, pki.trust, alpn=(b"one", b"two"))
    with gnutls_serv(pki, "p256", priority(), "--alpn", "two") as port, connect(port, config) as channel:
        assert channel.established.alpn == b"two"


@pytest.mark.feature("refused certificates", peer="GnuTLS", role="client")
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("expired", Reason.CERTIFICATE_EXPIRED),
        ("self-signed", Reason.UNTRUSTED_CERTIFICATE),
        ("unknown-ca", Reason.UNTRUSTED_CERTIFICATE),
    ],
)
def test_client_refuses_certificates(pki: Pki, kind: str, reason: Reason) -> None:
    with gnutls_serv(pki, kind, priority()) as port:
        with pytest.raises(CertificateError) as caught, connect(port, ClientConfig(NAME, pki.trust)):
            pass
        assert caught.value.reason is reason


@pytest.mark.feature("cipher suites and kinds of certificates", peer="GnuTLS", role="server")
@pytest.mark.feature("KeyUpdate", peer="GnuTLS", role="server")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suite", CipherSuite)
def test_server_suites_and_certificates(pki: Pki, suite: CipherSuite, kind: str) -> None:
    with (
        listening() as listener,
        gnutls_cli(listener.port, pki, priority(suite)) as process,
        listener.accept(pki.server(kind)) as channel,
    ):
        assert channel.established.suite is suite
        assert channel.established.server_name == NAME
        process.wait_for("Handshake was completed")
        channel.hear(process)
        channel.update_keys(request=True)
        channel.send(b"hello from here\n")
        process.wait_for("hello from here")
        channel.hear(process, "again\n")
        assert channel.key_updates == 1
        channel.close()


@pytest.mark.feature("groups and HelloRetryRequest", peer="GnuTLS", role="server")
@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("group", GROUPS)
def test_server_groups(pki: Pki, group: Group, retry: bool) -> None:
    others = tuple(other for other in GROUPS if other is not group)
    # gnutls sends shares for the first two groups if their kinds differ; with --single-key-share, for the first.
    text = priority(None, *((*others, group) if retry else (group, *others)))
    config = replace(pki.server(), groups=(group,))
    with (
        listening() as listener,
        gnutls_cli(listener.port, pki, text, "--single-key-share") as process,
        listener.accept(config) as channel,
    ):
        assert channel.established.group == group.label
        assert channel.established.retried is retry
        process.wait_for("Handshake was completed")


@pytest.mark.feature("ALPN", peer="GnuTLS", role="server")
def test_server_alpn(pki: Pki) -> None:
    config = replace(pki.server(), alpn=(b"two",))
    with (
        listening() as listener,
        gnutls_cli(listener.port, pki, priority(), "--alpn", "one", "--alpn", "two") as process,
        listener.accept(config) as channel,
    ):
        assert channel.established.alpn == b"two"
        process.wait_for("Application protocol: two")


@pytest.mark.feature("refused certificates", peer="GnuTLS", role="server")
def test_server_is_refused(pki: Pki) -> None:
    with listening() as listener, gnutls_cli(listener.port, pki, priority()) as process:
        with (
            pytest.raises((AlertReceived, ConnectionError, EOFError, HandshakeError)),
            listener.accept(pki.server("expired")) as channel,
        ):
            # gnutls-cli judges the certificate when the handshake is over.
            channel.receive()
            raise EOFError("closed")
        process.wait_for("The certificate is NOT trusted")


@pytest.mark.feature("refusal of TLS 1.2", peer="GnuTLS", role="server")
def test_server_meets_tls_1_2(pki: Pki) -> None:
    with listening() as listener, gnutls_cli(listener.port, pki, "NORMAL:-VERS-ALL:+VERS-TLS1.2") as process:
        with pytest.raises(HandshakeError) as caught, listener.accept(pki.server()):
            pass
        assert caught.value.reason is Reason.UNSUPPORTED_VERSION
        process.wait_for("protocol version")


@pytest.mark.feature("record_size_limit", peer="GnuTLS", role="client")
def test_client_record_size_limit(pki: Pki) -> None:
    config = ClientConfig(NAME, pki.trust, record_size_limit=1000)
    with gnutls_serv(pki, "p256", priority(), "--recordsize", "700") as port, connect(port, config) as channel:
        assert (channel.established.max_sent, channel.established.max_received) == (700, 999)
        line = b"x" * 5000 + b"\n"
        channel.send(line)
        # Longer records than were agreed on would be refused on arrival.
        assert channel.receive_until(b"\n") == line


@pytest.mark.feature("record_size_limit", peer="GnuTLS", role="server")
def test_server_record_size_limit(pki: Pki) -> None:
    config = replace(pki.server(), record_size_limit=600)
    with (
        listening() as listener,
        gnutls_cli(listener.port, pki, priority(), "--recordsize", "700") as process,
        listener.accept(config) as channel,
    ):
        assert (channel.established.max_sent, channel.established.max_received) == (700, 599)
        process.wait_for("Handshake was completed")
        channel.send(b"y" * 5000 + b" from here\n")
        process.wait_for(" from here")
        process.say("x" * 1500 + "\n")
        # What is beyond the one record that it may send, gnutls-cli drops.
        assert channel.receive() == b"x" * 599


@pytest.mark.feature("padding of what is sent", peer="GnuTLS", role="client")
def test_client_pads(pki: Pki) -> None:
    config = ClientConfig(NAME, pki.trust, padding=Padding(handshake=1024, data=512))
    with gnutls_serv(pki, "p256", priority()) as port, connect(port, config) as channel:
        channel.echo()


@pytest.mark.feature("padding of what is sent", peer="GnuTLS", role="server")
def test_server_pads(pki: Pki) -> None:
    config = replace(pki.server(), padding=Padding(handshake=1024, data=512))
    with (
        listening() as listener,
        gnutls_cli(listener.port, pki, priority()) as process,
        listener.accept(config) as channel,
    ):
        process.wait_for("Handshake was completed")
        channel.send(b"hello from here\n")
        process.wait_for("hello from here")


@pytest.mark.feature("CertificateRequest, answered with none", peer="GnuTLS", role="client")
def test_client_is_asked_for_a_certificate(pki: Pki) -> None:
    files, port = pki.certificates["p256"], free_port()
    with running(
        need("gnutls-serv"), "--port", str(port), "--echo", "--x509certfile", files.certificate, "--x509keyfile",
        files.key, "--priority", priority(),
    ) as process:  # fmt: skip
        process.wait_for("done")
        with connect(port, ClientConfig(NAME, pki.trust)) as channel:
            channel.echo()


@pytest.mark.feature("certificates that are not verified", peer="GnuTLS", role="client")
def test_client_that_does_not_verify(pki: Pki) -> None:
    config = ClientConfig("any.example", None)
    with gnutls_serv(pki, "unknown-ca", priority()) as port, connect(port, config) as channel:
        assert len(channel.established.peer_certificates) == 1


@pytest.mark.feature("without middlebox compatibility", peer="GnuTLS", role="client")
def test_client_without_compatibility(pki: Pki) -> None:
    config = ClientConfig(NAME, pki.trust, middlebox_compatibility=False)
    with gnutls_serv(pki, "p256", priority()) as port, connect(port, config) as channel:
        channel.echo()


@pytest.mark.feature("without middlebox compatibility", peer="GnuTLS", role="server")
def test_server_without_compatibility(pki: Pki) -> None:
    with (
        listening() as listener,
        gnutls_cli(listener.port, pki, priority() + ":%DISABLE_TLS13_COMPAT_MODE") as process,
        listener.accept(pki.server()) as channel,
    ):
        process.wait_for("Handshake was completed")
        channel.send(b"hello from here\n")
        process.wait_for("hello from here")


@pytest.mark.feature("refusal of TLS 1.2", peer="GnuTLS", role="client")
def test_client_meets_tls_1_2(pki: Pki) -> None:
    with gnutls_serv(pki, "p256", "NORMAL:-VERS-ALL:+VERS-TLS1.2") as port:
        with pytest.raises(AlertReceived) as caught, connect(port, ClientConfig(NAME, pki.trust)):
            pass
        # A GnuTLS without TLS 1.3 does not look at the versions.
        assert caught.value.alert == Alert.HANDSHAKE_FAILURE


@pytest.mark.feature("nothing in common", peer="GnuTLS", role="client")
def test_client_with_nothing_in_common(pki: Pki) -> None:
    config = ClientConfig(NAME, pki.trust, suites=(CipherSuite.AES_128_GCM_SHA256,))
    with gnutls_serv(pki, "p256", priority(CipherSuite.AES_256_GCM_SHA384)) as port:
        with pytest.raises(AlertReceived) as caught, connect(port, config):
            pass
        assert caught.value.alert == Alert.HANDSHAKE_FAILURE


@pytest.mark.feature("nothing in common", peer="GnuTLS", role="server")
def test_server_with_nothing_in_common(pki: Pki) -> None:
    config = replace(pki.server(), suites=(CipherSuite.AES_128_GCM_SHA256,))
    with (
        listening() as listener,
        gnutls_cli(listener.port, pki, priority(CipherSuite.AES_256_GCM_SHA384)) as process,
    ):
        with pytest.raises(HandshakeError) as caught, listener.accept(config):
            pass
        assert caught.value.reason is Reason.NO_COMMON_SUITE
        process.wait_for("Handshake failed")


LABEL = "EXPORTER-tcpls-test"
EXPORT = ("--keymatexport", LABEL, "--keymatexportsize", "100")


@pytest.mark.feature("exporters", peer="GnuTLS", role="server")
@pytest.mark.clause("RFC 8446 7.5")
def test_server_exports(pki: Pki) -> None:
    with (
        listening() as listener,
        gnutls_cli(listener.port, pki, priority(), *EXPORT) as process,
        listener.accept(pki.server()) as channel,
    ):
        process.wait_for("Handshake was completed")
        channel.send(b"hello from here\n")
        process.wait_for("hello from here")
        assert channel.established.export(LABEL.encode(), b"", 100).hex() in process.output.lower()
