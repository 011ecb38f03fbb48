"""Pre-shared keys and resumption in both roles against gnutls-serv and gnutls-cli."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tcpls.errors import Alert, AlertReceived, HandshakeError, Reason
from tcpls.tls.algorithms import Group
from tcpls.tls.config import ClientConfig, ServerConfig
from tcpls.tls.psk import PreSharedKey, PskMode
from tcpls.tls.suites import CipherSuite
from tcpls.tls.ticket_keys import TicketKeys
from tests.engine import ENGINE
from tests.interop.conftest import Pki
from tests.interop.peer import Channel, Process, connect, first_ticket, free_port, listening, need, running
from tests.interop.test_tls_gnutls import gnutls_cli, gnutls_serv, priority
from tests.unit.tls.pair import NAME

PSK = PreSharedKey(b"device 7", bytes(range(32)))
SUITES = list(CipherSuite)
ALONE = PskMode.PSK_KE
WITH_KEYS = ":+ECDHE-PSK:+DHE-PSK:+PSK"
KEYS_ALONE = ":-KX-ALL:+PSK"


@pytest.mark.feature("resumption", peer="GnuTLS", role="client")
@pytest.mark.parametrize("suite", SUITES)
def test_client_resumes(pki: Pki, suite: CipherSuite) -> None:
    config = ClientConfig(NAME, pki.trust, suites=(suite,), tickets=1)
    with gnutls_serv(pki, "p256", priority()) as port:
        ticket = first_ticket(port, config)
        for _ in range(2):
            with connect(port, replace(config, ticket=ticket)) as channel:
                assert channel.established.resumed
                assert channel.established.suite is suite
                channel.echo()
                ticket = channel.tickets[-1]
                channel.close()


@pytest.mark.feature("resumption", peer="GnuTLS", role="client")
def test_client_is_not_resumed(pki: Pki) -> None:
    config = ClientConfig(NAME, pki.trust, tickets=1)
    with gnutls_serv(pki, "p256", priority()) as port:
        ticket = first_ticket(port, config)
    for arguments in ([], ["--noticket"]):
        with (
            gnutls_serv(pki, "p256", priority(), *arguments) as port,
            connect(port, replace(config, ticket=ticket)) as channel,
        ):
            assert not channel.established.resumed
            channel.echo()
            assert bool(channel.tickets) is not bool(arguments)


@pytest.mark.feature("resumption after HelloRetryRequest", peer="GnuTLS", role="client")
@pytest.mark.parametrize("suite", SUITES)
def test_client_resumes_after_a_retry(pki: Pki, suite: CipherSuite) -> None:
    groups = (Group.X25519, Group.SECP384R1)
    config = ClientConfig(NAME, pki.trust, suites=(suite,), groups=groups, tickets=1)
    with gnutls_serv(pki, "p256", priority(None, Group.SECP384R1)) as port:
        ticket = first_ticket(port, config)
        with connect(port, replace(config, ticket=ticket)) as channel:
            assert channel.established.retried and channel.established.resumed
            channel.echo()


@pytest.fixture
def passwords(tmp_path: Path) -> Path:
    file = tmp_path / "passwords"
    file.write_text(f"someone:{'00' * 32}\n{PSK.identity.decode()}:{PSK.key.hex()}\n")
    return file


@pytest.mark.feature("resumption without a key exchange (psk_ke)", peer="GnuTLS", role="client")
def test_client_resumes_with_the_key_alone(pki: Pki, passwords: Path) -> None:
    config = ClientConfig(NAME, pki.trust, tickets=1, psk_modes=(ALONE,))
    with gnutls_serv(pki, "p256", priority() + ":+PSK", "--pskpasswd", str(passwords)) as port:
        ticket = first_ticket(port, config)
        with connect(port, replace(config, ticket=ticket)) as channel:
            assert (channel.established.resumed, channel.established.group) == (True, "")
            channel.echo()


@contextmanager
def psk_serv(passwords: Path, text: str) -> Iterator[int]:
    port = free_port()
    with running(
        need("gnutls-serv"), "--port", str(port), "--echo", "--pskpasswd", passwords, "--priority", text
    ) as process:
        process.wait_for("done")
        yield port


@pytest.mark.feature("external pre-shared keys", peer="GnuTLS", role="client")
@pytest.mark.parametrize("retry", [False, True])
def test_client_with_a_key(pki: Pki, passwords: Path, retry: bool) -> None:
    text = priority(None, *([Group.SECP384R1] if retry else [])) + WITH_KEYS
    config = ClientConfig(NAME, pki.trust, psks=(PSK,), groups=(Group.X25519, Group.SECP384R1))
    with psk_serv(passwords, text) as port, connect(port, config) as channel:
        assert channel.established.psk_identity == PSK.identity
        assert channel.established.retried is retry
        channel.echo()


@pytest.mark.feature("external pre-shared keys without a key exchange", peer="GnuTLS", role="client")
def test_client_with_a_key_alone(pki: Pki, passwords: Path) -> None:
    config = ClientConfig(NAME, pki.trust, psks=(PSK,), psk_modes=(ALONE,))
    with psk_serv(passwords, priority() + KEYS_ALONE) as port, connect(port, config) as channel:
        assert (channel.established.psk_identity, channel.established.group) == (PSK.identity, "")
        channel.echo()


@pytest.mark.feature("external pre-shared keys", peer="GnuTLS", role="client")
def test_client_with_a_wrong_key(pki: Pki, passwords: Path) -> None:
    config = ClientConfig(NAME, pki.trust, psks=(replace(PSK, key=b"x" * 32),))
    with psk_serv(passwords, priority() + WITH_KEYS) as port:
        with pytest.raises(AlertReceived) as caught, connect(port, config):
            pass
        assert caught.value.alert == Alert.ILLEGAL_PARAMETER


# Our server.


def give_and_take(pki: Pki) -> ServerConfig:
    return replace(pki.server(), ticket_keys=TicketKeys(ENGINE, os.urandom))


def serve_line(channel: Channel, process: Process) -> None:
    process.wait_for("Simple Client Mode")
    channel.hear(process)
    channel.send(b"and back\n")
    process.wait_for("and back")


@pytest.mark.feature("resumption", peer="GnuTLS", role="server")
@pytest.mark.feature("resumption after HelloRetryRequest", peer="GnuTLS", role="server")
@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("suite", SUITES)
def test_server_resumes(pki: Pki, suite: CipherSuite, retry: bool) -> None:
    """gnutls-cli --resume connects, waits for a ticket, ends, and comes again with it."""
    config = replace(give_and_take(pki), groups=(Group.SECP384R1 if retry else Group.X25519,))
    text = priority(suite, Group.X25519, Group.SECP384R1)
    with (
        listening() as listener,
        gnutls_cli(listener.port, pki, text, "--resume", "--waitresumption", "--single-key-share") as process,
    ):
        with listener.accept(config) as channel:
            assert not channel.established.resumed
            assert channel.established.retried is retry
            assert channel.receive() == b""
            channel.close()
        with listener.accept(config) as channel:
            assert channel.established.resumed
            assert channel.established.retried is retry
            assert channel.established.suite is suite
            process.wait_for("This is a resumed session")
            serve_line(channel, process)


@pytest.mark.feature("resumption", peer="GnuTLS", role="server")
def test_server_does_not_resume(pki: Pki) -> None:
    with (
        listening() as listener,
        gnutls_cli(listener.port, pki, priority(), "--resume", "--waitresumption") as process,
    ):
        with listener.accept(give_and_take(pki)) as channel:
            assert channel.receive() == b""
            channel.close()
        with listener.accept(give_and_take(pki)) as channel:
            assert not channel.established.resumed
            serve_line(channel, process)


def key_arguments(key: bytes = PSK.key) -> list[str]:
    return ["--pskusername", PSK.identity.decode(), "--pskkey", key.hex()]


@pytest.mark.feature("resumption without a key exchange (psk_ke)", peer="GnuTLS", role="server")
def test_server_resumes_with_the_key_alone(pki: Pki) -> None:
    """GnuTLS has the mode once it has a key of its own to use it with, which this server does not know."""
    config, text = replace(give_and_take(pki), psk_modes=(ALONE,)), priority() + ":+PSK"
    with (
        listening() as listener,
        gnutls_cli(listener.port, pki, text, "--resume", "--waitresumption", *key_arguments()) as process,
    ):
        with listener.accept(config) as channel:
            assert (channel.established.resumed, channel.established.psk_identity) == (False, None)
            assert channel.receive() == b""
            channel.close()
        with listener.accept(config) as channel:
            assert (channel.established.resumed, channel.established.group) == (True, "")
            serve_line(channel, process)


@pytest.mark.feature("external pre-shared keys", peer="GnuTLS", role="server")
@pytest.mark.parametrize("retry", [False, True])
def test_server_with_a_key(pki: Pki, retry: bool) -> None:
    config = ServerConfig((), psks=(PSK,), groups=(Group.SECP384R1 if retry else Group.X25519,))
    text = priority(None, Group.X25519, Group.SECP384R1) + WITH_KEYS
    with (
        listening() as listener,
        gnutls_cli(listener.port, pki, text, "--single-key-share", *key_arguments()) as process,
        listener.accept(config) as channel,
    ):
        assert channel.established.psk_identity == PSK.identity
        assert channel.established.retried is retry
        serve_line(channel, process)


@pytest.mark.feature("external pre-shared keys without a key exchange", peer="GnuTLS", role="server")
def test_server_with_a_key_alone(pki: Pki) -> None:
    config = ServerConfig((), psks=(PSK,), psk_modes=(ALONE,))
    with (
        listening() as listener,
        gnutls_cli(listener.port, pki, priority() + KEYS_ALONE, *key_arguments()) as process,
        listener.accept(config) as channel,
    ):
        assert (channel.established.psk_identity, channel.established.group) == (PSK.identity, "")
        serve_line(channel, process)


@pytest.mark.feature("external pre-shared keys", peer="GnuTLS", role="server")
def test_server_refuses_a_wrong_key(pki: Pki) -> None:
    config = ServerConfig((), psks=(PSK,))
    text = priority() + WITH_KEYS
    with listening() as listener, gnutls_cli(listener.port, pki, text, *key_arguments(b"x" * 32)) as process:
        with pytest.raises(HandshakeError) as caught, listener.accept(config):
            pass
        assert caught.value.reason is Reason.BAD_BINDER
        process.wait_for("Decrypt")
