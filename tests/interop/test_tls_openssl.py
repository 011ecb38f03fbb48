"""Both roles against openssl s_server and s_client over loopback."""

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

GROUPS = {
    Group.X25519: "X25519",
    Group.SECP256R1: "P-256",
    Group.SECP384R1: "P-384",
    Group.SECP521R1: "P-521",
    Group.X448: "X448",
}
"""What OpenSSL 3.0 has: ML-KEM came with 3.5. test_tls_go.py has it."""


@contextmanager
def s_server(pki: Pki, kind: str, *arguments: str) -> Iterator[tuple[int, Process]]:
    files, port = pki.certificates[kind], free_port()
    with running(
        need("openssl"), "s_server", "-accept", f"127.0.0.1:{port}", "-cert", files.certificate, "-key", files.key,
        "-tls1_3", *arguments,
    ) as process:  # fmt: skip
        process.wait_for("ACCEPT")
        yield port, process


@contextmanager
def s_client(port: int, pki: Pki, *arguments: str) -> Iterator[Process]:
    with running(
        need("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-servername", NAME, "-verify_hostname", NAME,
        "-CAfile", pki.authority, "-verify_return_error", *arguments,
    ) as process:  # fmt: skip
        yield process


def client_config(pki: Pki) -> ClientConfig:
    return ClientConfig(NAME, pki.trust)


@pytest.mark.feature("cipher suites and kinds of certificates", peer="OpenSSL", role="client")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suite", CipherSuite)
def test_client_suites_and_certificates(pki: Pki, suite: CipherSuite, kind: str) -> None:
    config = replace(client_config(pki), suites=(suite,))
    with s_server(pki, kind, "-rev") as (port, _), connect(port, config) as channel:
        assert channel.established.suite is suite
        channel.send(b"hello\n")
        assert channel.receive_until(b"\n") == b"olleh\n"
        channel.close()


@pytest.mark.feature("groups and HelloRetryRequest", peer="OpenSSL", role="client")
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("retry", [False, True])
def test_client_groups(pki: Pki, group: Group, retry: bool) -> None:
    others = tuple(other for other in GROUPS if other is not group)
    groups = (*others, group) if retry else (group, *others)
    config = replace(client_config(pki), groups=groups)
    with s_server(pki, "p256", "-groups", GROUPS[group], "-rev") as (port, _), connect(port, config) as channel:
        assert channel.established.group == group.label
        assert channel.established.retried is retry
        channel.send(b"abc\n")
        assert channel.receive_until(b"\n") == b"cba\n"


@pytest.mark.feature("ALPN", peer="OpenSSL", role="client")
@pytest.mark.feature("without middlebox compatibility", peer="OpenSSL", role="client")
def test_client_alpn_and_no_compatibility(pki: Pki) -> None:
    config = replace(client_config(pki), alpn=(b"one", b"two"), middlebox_compatibility=False)
    with s_server(pki, "p256", "-alpn", "two") as (port, _), connect(port, config) as channel:
        assert channel.established.alpn == b"two"


@pytest.mark.feature("CertificateRequest, answered with none", peer="OpenSSL", role="client")
def test_client_is_asked_for_a_certificate(pki: Pki) -> None:
    with s_server(pki, "p256", "-verify", "1", "-rev") as (port, _), connect(port, client_config(pki)) as channel:
        channel.send(b"abc\n")
        assert channel.receive_until(b"\n") == b"cba\n"


@pytest.mark.feature("CertificateRequest, answered with none", peer="OpenSSL", role="client")
def test_client_without_a_certificate_that_is_needed(pki: Pki) -> None:
    with s_server(pki, "p256", "-Verify", "1") as (port, _), connect(port, client_config(pki)) as channel:
        with pytest.raises(AlertReceived) as caught:
            channel.receive()
        assert caught.value.alert == Alert.CERTIFICATE_REQUIRED


@pytest.mark.feature("KeyUpdate", peer="OpenSSL", role="client")
def test_client_key_updates(pki: Pki) -> None:
    with s_server(pki, "p256") as (port, process), connect(port, client_config(pki)) as channel:
        process.wait_for("BEGIN SSL SESSION")
        process.say("k\n")
        channel.await_key_updates(1)
        channel.hear(process, "one\n")
        process.say("K\n")
        channel.await_key_updates(2)
        channel.hear(process, "two\n")
        channel.send(b"after the update\n")
        process.wait_for("after the update")
        channel.update_keys(request=True)
        channel.send(b"of our own\n")
        process.wait_for("of our own")
        channel.hear(process, "three\n")
        assert channel.key_updates == 3


@pytest.mark.feature("refused certificates", peer="OpenSSL", role="client")
@pytest.mark.parametrize(
    ("kind", "name", "reason", "alert"),
    [
        ("expired", NAME, Reason.CERTIFICATE_EXPIRED, "certificate expired"),
        ("p256", "other.example", Reason.WRONG_NAME, "bad certificate"),
        ("self-signed", NAME, Reason.UNTRUSTED_CERTIFICATE, "unknown ca"),
        ("unknown-ca", NAME, Reason.UNTRUSTED_CERTIFICATE, "unknown ca"),
    ],
)
def test_client_refuses_certificates(pki: Pki, kind: str, name: str, reason: Reason, alert: str) -> None:
    config = ClientConfig(name, pki.trust)
    with s_server(pki, kind) as (port, process):
        with pytest.raises(CertificateError) as caught, connect(port, config):
            pass
        assert caught.value.reason is reason
        process.wait_for(f"alert {alert}")


@pytest.mark.feature("certificates that are not verified", peer="OpenSSL", role="client")
@pytest.mark.parametrize("kind", ["expired", "self-signed", "unknown-ca"])
def test_client_that_does_not_verify(pki: Pki, kind: str) -> None:
    with s_server(pki, kind) as (port, _), connect(port, ClientConfig("any.example", None)) as channel:
        assert len(channel.established.peer_certificates) == 1


@pytest.mark.feature("refusal of TLS 1.2", peer="OpenSSL", role="client")
def test_client_meets_tls_1_2(pki: Pki) -> None:
    files, port = pki.certificates["p256"], free_port()
    with running(
        need("openssl"), "s_server", "-accept", f"127.0.0.1:{port}", "-cert", files.certificate, "-key", files.key,
        "-tls1_2",
    ) as process:  # fmt: skip
        process.wait_for("ACCEPT")
        with pytest.raises(AlertReceived) as caught, connect(port, client_config(pki)):
            pass
        assert caught.value.alert == Alert.PROTOCOL_VERSION


@pytest.mark.feature("nothing in common", peer="OpenSSL", role="client")
def test_client_with_nothing_in_common(pki: Pki) -> None:
    config = replace(client_config(pki), suites=(CipherSuite.AES_128_GCM_SHA256,))
    with s_server(pki, "p256", "-ciphersuites", "TLS_AES_256_GCM_SHA384") as (port, _):
        with pytest.raises(AlertReceived) as caught, connect(port, config):
            pass
        assert caught.value.alert == Alert.HANDSHAKE_FAILURE


@pytest.mark.feature("cipher suites and kinds of certificates", peer="OpenSSL", role="server")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suite", CipherSuite)
def test_server_suites_and_certificates(pki: Pki, suite: CipherSuite, kind: str) -> None:
    with (
        listening() as listener,
        s_client(listener.port, pki, "-ciphersuites", suite.label, "-quiet") as process,
        listener.accept(pki.server(kind)) as channel,
    ):
        assert channel.established.suite is suite
        assert channel.established.server_name == NAME
        channel.send(b"hello from here\n")
        process.wait_for("hello from here")
        channel.hear(process)
        channel.close()
        process.finish()


@pytest.mark.feature("groups and HelloRetryRequest", peer="OpenSSL", role="server")
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("retry", [False, True])
def test_server_groups(pki: Pki, group: Group, retry: bool) -> None:
    others = [GROUPS[other] for other in GROUPS if other is not group]
    offered = ":".join([*others, GROUPS[group]] if retry else [GROUPS[group], *others])
    config = replace(pki.server(), groups=(group,))
    with (
        listening() as listener,
        s_client(listener.port, pki, "-groups", offered, "-quiet") as process,
        listener.accept(config) as channel,
    ):
        assert channel.established.group == group.label
        assert channel.established.retried is retry
        channel.hear(process)


@pytest.mark.feature("ALPN", peer="OpenSSL", role="server")
@pytest.mark.feature("without middlebox compatibility", peer="OpenSSL", role="server")
def test_server_alpn_and_no_compatibility(pki: Pki) -> None:
    config = replace(pki.server(), alpn=(b"two", b"one"))
    with (
        listening() as listener,
        s_client(listener.port, pki, "-alpn", "one,two", "-no_middlebox") as process,
        listener.accept(config) as channel,
    ):
        assert channel.established.alpn == b"two"
        process.wait_for("ALPN protocol: two")


@pytest.mark.feature("ALPN", peer="OpenSSL", role="server")
@pytest.mark.feature("nothing in common", peer="OpenSSL", role="server")
def test_server_without_a_common_protocol(pki: Pki) -> None:
    config = replace(pki.server(), alpn=(b"three",))
    with listening() as listener, s_client(listener.port, pki, "-msg", "-alpn", "one,two") as process:
        with pytest.raises(HandshakeError) as caught, listener.accept(config):
            pass
        assert caught.value.reason is Reason.NO_COMMON_ALPN
        # openssl has no name for this alert here; its last byte is 120.
        process.wait_for("fatal ???\n    02 78")


@pytest.mark.feature("KeyUpdate", peer="OpenSSL", role="server")
def test_server_key_updates(pki: Pki) -> None:
    with (
        listening() as listener,
        s_client(listener.port, pki) as process,
        listener.accept(pki.server()) as channel,
    ):
        process.wait_for("Verify return code: 0 (ok)")
        process.say("k\n")
        channel.await_key_updates(1)
        channel.hear(process, "one\n")
        process.say("K\n")
        channel.await_key_updates(2)
        channel.hear(process, "two\n")
        channel.send(b"after the update\n")
        process.wait_for("after the update")
        channel.update_keys(request=True)
        channel.send(b"of our own\n")
        process.wait_for("of our own")
        channel.hear(process, "three\n")
        assert channel.key_updates == 3


@pytest.mark.feature("refused certificates", peer="OpenSSL", role="server")
@pytest.mark.parametrize(
    ("kind", "alert"),
    [
        ("expired", Alert.CERTIFICATE_EXPIRED),
        ("self-signed", Alert.UNKNOWN_CA),
        ("unknown-ca", Alert.UNKNOWN_CA),
    ],
)
def test_server_is_refused(pki: Pki, kind: str, alert: Alert) -> None:
    with listening() as listener, s_client(listener.port, pki):
        with pytest.raises(AlertReceived) as caught, listener.accept(pki.server(kind)):
            pass
        # openssl says unknown_ca as bad_certificate for some chains.
        assert caught.value.alert in (alert, Alert.BAD_CERTIFICATE)


@pytest.mark.feature("refusal of TLS 1.2", peer="OpenSSL", role="server")
def test_server_meets_tls_1_2(pki: Pki) -> None:
    with listening() as listener, s_client(listener.port, pki, "-msg", "-tls1_2") as process:
        with pytest.raises(HandshakeError) as caught, listener.accept(pki.server()):
            pass
        assert caught.value.reason is Reason.UNSUPPORTED_VERSION
        process.wait_for("fatal protocol_version")


@pytest.mark.feature("nothing in common", peer="OpenSSL", role="server")
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("-ciphersuites", "TLS_AES_128_CCM_SHA256"), Reason.NO_COMMON_SUITE),
        (("-groups", "P-521"), Reason.NO_COMMON_GROUP),
        (("-sigalgs", "rsa_pss_rsae_sha256"), Reason.NO_COMMON_SIGNATURE),
    ],
)
def test_server_with_nothing_in_common(pki: Pki, arguments: tuple[str, str], reason: Reason) -> None:
    with listening() as listener, s_client(listener.port, pki, "-msg", "-tls1_3", *arguments) as process:
        config = replace(pki.server(), groups=(Group.X25519, Group.SECP256R1))
        with pytest.raises(HandshakeError) as caught, listener.accept(config):
            pass
        assert caught.value.reason is reason
        process.wait_for("fatal handshake_failure")


@pytest.mark.feature("padding of what is sent", peer="OpenSSL", role="client")
@pytest.mark.feature("padding of what is received", peer="OpenSSL", role="client")
def test_client_padding(pki: Pki) -> None:
    config = replace(client_config(pki), padding=Padding(handshake=1024, data=512))
    with s_server(pki, "p256", "-rev", "-record_padding", "4096") as (port, _), connect(port, config) as channel:
        channel.send(b"hello\n")
        assert channel.receive_until(b"\n") == b"olleh\n"


@pytest.mark.feature("padding of what is sent", peer="OpenSSL", role="server")
@pytest.mark.feature("padding of what is received", peer="OpenSSL", role="server")
def test_server_padding(pki: Pki) -> None:
    config = replace(pki.server(), padding=Padding(handshake=1024, data=512))
    with (
        listening() as listener,
        s_client(listener.port, pki, "-quiet", "-record_padding", "4096") as process,
        listener.accept(config) as channel,
    ):
        channel.send(b"hello from here\n")
        process.wait_for("hello from here")
        channel.hear(process)


@pytest.mark.feature("max_fragment_length, ignored", peer="OpenSSL", role="server")
def test_server_ignores_max_fragment_length(pki: Pki) -> None:
    with (
        listening() as listener,
        s_client(listener.port, pki, "-quiet", "-maxfraglen", "512") as process,
        listener.accept(pki.server()) as channel,
    ):
        assert channel.established.max_sent == 1 << 14
        channel.send(b"x" * 10_000 + b" from here\n")
        process.wait_for(" from here")
