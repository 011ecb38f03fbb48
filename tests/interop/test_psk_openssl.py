"""Pre-shared keys and resumption in both roles against openssl s_server and s_client."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
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
from tests.interop.test_tls_openssl import client_config, s_client, s_server
from tests.unit.tls.pair import NAME

PSK = PreSharedKey(b"device 7", bytes(range(32)))
SUITES = [CipherSuite.AES_128_GCM_SHA256, CipherSuite.AES_256_GCM_SHA384, CipherSuite.CHACHA20_POLY1305_SHA256]
ALONE, WITH_EXCHANGE = PskMode.PSK_KE, PskMode.PSK_DHE_KE
KEY_ARGUMENTS = ("-psk_identity", PSK.identity.decode(), "-psk", PSK.key.hex())


REVERSED = b"olleh\n"
"""The answer to hello. All tickets have come by then."""


def asking(pki: Pki) -> ClientConfig:
    return replace(client_config(pki), tickets=1)


@pytest.mark.feature("resumption", peer="OpenSSL", role="client")
@pytest.mark.clause("RFC 8446 4.6.1", "RFC 8446 4.2.11")
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("stateful", [False, True])
def test_client_resumes(pki: Pki, suite: CipherSuite, stateful: bool) -> None:
    """OpenSSL's tickets hold all of the session, or, with -no_ticket, only a number for it."""
    config = replace(asking(pki), suites=(suite,))
    with s_server(pki, "p256", "-rev", *(["-no_ticket"] if stateful else [])) as (port, _):
        ticket = first_ticket(port, config, REVERSED)
        assert len(ticket.identity) == 32 if stateful else len(ticket.identity) > 100
        for _ in range(3):
            with connect(port, replace(config, ticket=ticket)) as channel:
                assert channel.established.resumed
                assert channel.established.suite is suite
                assert channel.established.group and not channel.established.signature_scheme
                channel.echo(answer=REVERSED)
                ticket = channel.tickets[-1]
                channel.close()


@pytest.mark.feature("resumption", peer="OpenSSL", role="client")
def test_client_is_not_resumed_by_another_server(pki: Pki) -> None:
    config = asking(pki)
    with s_server(pki, "p256", "-rev") as (port, _):
        ticket = first_ticket(port, config, REVERSED)
    with s_server(pki, "p256", "-rev") as (port, _), connect(port, replace(config, ticket=ticket)) as channel:
        assert not channel.established.resumed
        assert channel.established.verified and channel.established.signature_scheme
        channel.echo(answer=REVERSED)


@pytest.mark.feature("resumption after HelloRetryRequest", peer="OpenSSL", role="client")
@pytest.mark.clause("RFC 8446 4.1.4", "RFC 8446 4.2.11.2")
@pytest.mark.parametrize("suite", SUITES)
def test_client_resumes_after_a_retry(pki: Pki, suite: CipherSuite) -> None:
    config = replace(asking(pki), suites=(suite,), groups=(Group.X25519, Group.SECP256R1))
    with s_server(pki, "p256", "-rev", "-groups", "P-256") as (port, _):
        ticket = first_ticket(port, config, REVERSED)
        with connect(port, replace(config, ticket=ticket)) as channel:
            assert channel.established.retried and channel.established.resumed
            assert channel.established.group == "secp256r1"
            channel.echo(answer=REVERSED)


@pytest.mark.feature("resumption without a key exchange (psk_ke)", peer="OpenSSL", role="client")
@pytest.mark.clause("RFC 8446 4.2.9")
@pytest.mark.parametrize("modes", [(ALONE,), (WITH_EXCHANGE, ALONE)])
def test_client_resumes_with_the_key_alone(pki: Pki, modes: tuple[PskMode, ...]) -> None:
    config = replace(asking(pki), psk_modes=modes)
    with s_server(pki, "p256", "-rev", "-allow_no_dhe_kex") as (port, _):
        ticket = first_ticket(port, config, REVERSED)
        with connect(port, replace(config, ticket=ticket)) as channel:
            assert channel.established.resumed
            # With both to choose from, it takes the one with an exchange.
            assert bool(channel.established.group) is (WITH_EXCHANGE in modes)
            channel.echo(answer=REVERSED)


@contextmanager
def psk_server(pki: Pki, *arguments: str) -> Iterator[tuple[int, Process]]:
    port = free_port()
    with running(
        need("openssl"), "s_server", "-accept", f"127.0.0.1:{port}", "-nocert", "-tls1_3", "-rev", *KEY_ARGUMENTS,
        *arguments,
    ) as process:  # fmt: skip
        process.wait_for("ACCEPT")
        yield port, process


@pytest.mark.feature("external pre-shared keys", peer="OpenSSL", role="client")
@pytest.mark.parametrize("retry", [False, True])
def test_client_with_a_key(pki: Pki, retry: bool) -> None:
    config = replace(
        client_config(pki), psks=(replace(PSK, identity=b"nobody"), PSK), groups=(Group.X25519, Group.SECP256R1)
    )
    with psk_server(pki, *(["-groups", "P-256"] if retry else [])) as (port, _), connect(port, config) as channel:
        assert channel.established.psk_identity == PSK.identity
        assert channel.established.retried is retry
        channel.echo(answer=REVERSED)


@pytest.mark.feature("external pre-shared keys without a key exchange", peer="OpenSSL", role="client")
def test_client_with_a_key_alone(pki: Pki) -> None:
    config = replace(client_config(pki), psks=(PSK,), psk_modes=(ALONE,))
    with psk_server(pki, "-allow_no_dhe_kex") as (port, _), connect(port, config) as channel:
        assert (channel.established.psk_identity, channel.established.group) == (PSK.identity, "")
        channel.echo(answer=REVERSED)


@pytest.mark.feature("external pre-shared keys", peer="OpenSSL", role="client")
@pytest.mark.clause("RFC 8446 4.2.11")
def test_client_with_a_wrong_key(pki: Pki) -> None:
    config = replace(client_config(pki), psks=(replace(PSK, key=b"x" * 32),))
    with psk_server(pki) as (port, process):
        with pytest.raises(AlertReceived) as caught, connect(port, config):
            pass
        assert caught.value.alert == Alert.ILLEGAL_PARAMETER
        process.wait_for("binder does not verify")


@pytest.mark.feature("external pre-shared keys", peer="OpenSSL", role="client")
def test_client_resumes_a_session_of_a_key(pki: Pki) -> None:
    config = replace(asking(pki), psks=(PSK,))
    with psk_server(pki) as (port, _):
        ticket = first_ticket(port, config, REVERSED)
        with connect(port, replace(config, ticket=ticket)) as channel:
            assert channel.established.resumed and channel.established.verified
            channel.echo(answer=REVERSED)


# Our server.


def give_and_take(pki: Pki) -> ServerConfig:
    return replace(pki.server(), ticket_keys=TicketKeys(ENGINE, os.urandom))


def serve_line(channel: Channel, process: Process) -> None:
    """One line from the client and one back, then the end from the client's side, which has kept its tickets."""
    channel.hear(process)
    channel.send(b"and back\n")
    process.wait_for("and back")
    process.say("Q\n")
    process.finish()


@pytest.mark.feature("resumption", peer="OpenSSL", role="server")
@pytest.mark.clause("RFC 8446 4.6.1", "RFC 8446 4.2.11")
@pytest.mark.parametrize("suite", SUITES)
def test_server_resumes(pki: Pki, suite: CipherSuite, tmp_path: Path) -> None:
    config, session = replace(give_and_take(pki), suites=(suite,)), str(tmp_path / "session")
    with listening() as listener:
        for resumed in (False, True, True):
            arguments = ["-sess_out", session, *(["-sess_in", session] if resumed else [])]
            with s_client(listener.port, pki, *arguments) as process, listener.accept(config) as channel:
                assert channel.established.resumed is resumed
                assert channel.established.suite is suite
                assert channel.established.server_name == NAME
                serve_line(channel, process)
                assert ("Reused, TLSv1.3" if resumed else "New, TLSv1.3") in process.output


@pytest.mark.feature("resumption", peer="OpenSSL", role="server")
@pytest.mark.parametrize("change", ["keys", "name", "expired"])
def test_server_does_not_resume(pki: Pki, tmp_path: Path, change: str) -> None:
    config, session = give_and_take(pki), str(tmp_path / "session")
    with listening() as listener:
        with (
            s_client(listener.port, pki, "-sess_out", session) as process,
            listener.accept(config) as channel,
        ):
            serve_line(channel, process)
        if change == "keys":
            config = give_and_take(pki)
        # OpenSSL itself offers a ticket that has expired, or that is for another name, when it is told to.
        name = "other.example" if change == "name" else NAME
        with running(
            need("openssl"), "s_client", "-connect", f"127.0.0.1:{listener.port}", "-servername", name,
            "-CAfile", pki.authority, "-sess_in", session,
        ) as process:  # fmt: skip
            later = timedelta(days=1, hours=1) if change == "expired" else timedelta(0)
            with listener.accept(config, later) as channel:
                assert not channel.established.resumed
                serve_line(channel, process)


@pytest.mark.feature("resumption after HelloRetryRequest", peer="OpenSSL", role="server")
@pytest.mark.clause("RFC 8446 4.1.4", "RFC 8446 4.2.11.2")
@pytest.mark.parametrize("suite", SUITES)
def test_server_resumes_after_a_retry(pki: Pki, suite: CipherSuite, tmp_path: Path) -> None:
    config = replace(give_and_take(pki), suites=(suite,), groups=(Group.SECP256R1,))
    session = str(tmp_path / "session")
    with listening() as listener:
        for resumed in (False, True):
            arguments = ["-groups", "X25519:P-256", "-sess_out", session, *(["-sess_in", session] if resumed else [])]
            with s_client(listener.port, pki, *arguments) as process, listener.accept(config) as channel:
                assert channel.established.retried
                assert channel.established.resumed is resumed
                serve_line(channel, process)


@pytest.mark.feature("resumption without a key exchange (psk_ke)", peer="OpenSSL", role="server")
@pytest.mark.clause("RFC 8446 4.2.9")
def test_server_resumes_with_the_key_alone(pki: Pki, tmp_path: Path) -> None:
    config, session = replace(give_and_take(pki), psk_modes=(ALONE,)), str(tmp_path / "session")
    with listening() as listener:
        for resumed in (False, True):
            arguments = ["-allow_no_dhe_kex", "-sess_out", session, *(["-sess_in", session] if resumed else [])]
            with s_client(listener.port, pki, *arguments) as process, listener.accept(config) as channel:
                assert channel.established.resumed is resumed
                assert bool(channel.established.group) is not resumed
                serve_line(channel, process)
        # Without a mode in common, certificates.
        with s_client(listener.port, pki, "-sess_in", session) as process, listener.accept(config) as channel:
            assert not channel.established.resumed
            serve_line(channel, process)


@pytest.mark.feature("external pre-shared keys", peer="OpenSSL", role="server")
@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("certificate", [False, True])
def test_server_with_a_key(pki: Pki, retry: bool, certificate: bool) -> None:
    config = replace(pki.server(), psks=(replace(PSK, identity=b"other"), PSK))
    if not certificate:
        config = replace(config, identities=())
    if retry:
        config = replace(config, groups=(Group.SECP384R1,))
    with (
        listening() as listener,
        s_client(listener.port, pki, *KEY_ARGUMENTS) as process,
        listener.accept(config) as channel,
    ):
        assert channel.established.psk_identity == PSK.identity
        assert channel.established.retried is retry
        assert not channel.established.signature_scheme
        serve_line(channel, process)


@pytest.mark.feature("external pre-shared keys without a key exchange", peer="OpenSSL", role="server")
def test_server_with_a_key_alone(pki: Pki) -> None:
    config = replace(pki.server(), psks=(PSK,), psk_modes=(ALONE,))
    with (
        listening() as listener,
        s_client(listener.port, pki, "-allow_no_dhe_kex", *KEY_ARGUMENTS) as process,
        listener.accept(config) as channel,
    ):
        assert (channel.established.psk_identity, channel.established.group) == (PSK.identity, "")
        serve_line(channel, process)


@pytest.mark.feature("external pre-shared keys", peer="OpenSSL", role="server")
@pytest.mark.clause("RFC 8446 4.2.11")
def test_server_refuses_a_wrong_key(pki: Pki) -> None:
    config = replace(pki.server(), psks=(replace(PSK, key=b"x" * 32),))
    with listening() as listener, s_client(listener.port, pki, *KEY_ARGUMENTS) as process:
        with pytest.raises(HandshakeError) as caught, listener.accept(config):
            pass
        assert caught.value.reason is Reason.BAD_BINDER
        process.wait_for("decrypt error")


@pytest.mark.feature("external pre-shared keys", peer="OpenSSL", role="server")
def test_server_knows_no_such_key(pki: Pki) -> None:
    config = replace(pki.server(), identities=(), psks=(replace(PSK, identity=b"other"),))
    with listening() as listener, s_client(listener.port, pki, *KEY_ARGUMENTS) as process:
        with pytest.raises(HandshakeError) as caught, listener.accept(config):
            pass
        assert caught.value.reason is Reason.NO_COMMON_PSK
        process.wait_for("unknown psk identity")
