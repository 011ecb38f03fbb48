"""0-RTT in both roles against openssl s_server and s_client."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tcpls.tls.algorithms import Group
from tcpls.tls.config import ClientConfig, ServerConfig
from tcpls.tls.early_data import EarlyData, EarlyDataPolicy
from tcpls.tls.replay import MemoryReplayStore
from tcpls.tls.suites import CipherSuite
from tcpls.tls.ticket_keys import TicketKeys
from tcpls.tls.tickets import Ticket
from tests.engine import ENGINE
from tests.interop.conftest import Pki
from tests.interop.peer import Channel, Process, connect, listening
from tests.interop.test_psk_openssl import serve_line
from tests.interop.test_tls_openssl import client_config, s_client, s_server

SUITES = list(CipherSuite)
LIMIT = 16384
EARLY = "0-RTT"


def from_server(channel: Channel, process: Process, line: str) -> None:
    """A line that the process sends. All tickets have come by then."""
    process.say(f"{line}\n")
    assert channel.receive_until(b"\n") == line.encode() + b"\n"


def first_ticket(port: int, process: Process, config: ClientConfig) -> Ticket:
    with connect(port, config) as channel:
        assert channel.established.early_data is EarlyData.NO_TICKET
        process.wait_for("END SSL SESSION")
        from_server(channel, process, "hello")
        channel.close()
        ticket = channel.tickets[-1]
        assert ticket.max_early_data == LIMIT
        return ticket


def asking(pki: Pki) -> ClientConfig:
    return replace(client_config(pki), tickets=1, early_data=True)


@pytest.mark.feature(EARLY, peer="OpenSSL", role="client")
@pytest.mark.clause("RFC 8446 4.2.10", "RFC 8446 4.5")
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("compatible", [True, False])
def test_client(pki: Pki, suite: CipherSuite, compatible: bool) -> None:
    config = replace(asking(pki), suites=(suite,), alpn=(b"one",), middlebox_compatibility=compatible)
    with s_server(pki, "p256", "-early_data", "-alpn", "one") as (port, process):
        ticket = first_ticket(port, process, config)
        for number in range(2):
            with connect(port, replace(config, ticket=ticket), b"early words %d" % number) as channel:
                assert channel.established.resumed
                assert channel.established.early_data is EarlyData.ACCEPTED
                process.wait_for(f"early words {number}")
                process.wait_for("End of early data")
                channel.send(b"and more %d\n" % number)
                process.wait_for(f"and more {number}")
                from_server(channel, process, "back")
                ticket = channel.tickets[-1]
                channel.close()


@pytest.mark.feature(EARLY, peer="OpenSSL", role="client")
def test_client_sends_as_much_as_the_ticket_allows(pki: Pki) -> None:
    config = asking(pki)
    with s_server(pki, "p256", "-early_data") as (port, process):
        ticket = first_ticket(port, process, config)
        with connect(port, replace(config, ticket=ticket), b"x" * 30_000) as channel:
            assert channel.established.early_data is EarlyData.ACCEPTED
            process.wait_for("End of early data")
            assert process.output.count("x" * 1000) >= LIMIT // 1000
            from_server(channel, process, "back")


@pytest.mark.feature(EARLY, peer="OpenSSL", role="client")
@pytest.mark.parametrize("why", ["replayed", "retried", "another server", "switched off"])
def test_client_is_rejected(pki: Pki, why: str) -> None:
    """OpenSSL takes a ticket for early data once: the second time, there is no such session."""
    config = replace(asking(pki), groups=(Group.X25519, Group.SECP256R1))
    sees = {"retried": EarlyData.RETRIED, "switched off": EarlyData.REFUSED}.get(why, EarlyData.NOT_RESUMED)
    arguments = ["-groups", "P-256"] if why == "retried" else []
    with s_server(pki, "p256", "-early_data", *arguments) as (port, process):
        ticket = first_ticket(port, process, config)
        if why == "replayed":
            with connect(port, replace(config, ticket=ticket), b"early words"):
                process.wait_for("early words")
        if why in ("replayed", "retried"):
            with connect(port, replace(config, ticket=ticket), b"second words") as channel:
                assert channel.established.early_data is sees
                from_server(channel, process, "back")
                assert "second words" not in process.output
            return
    with s_server(pki, "p256", *([] if why == "switched off" else ["-early_data"])) as (port, process):
        if why == "switched off":
            # Its own ticket, which does not allow what this client sends with it.
            with connect(port, config) as channel:
                process.wait_for("END SSL SESSION")
                from_server(channel, process, "hello")
                channel.close()
                ticket = replace(channel.tickets[-1], max_early_data=LIMIT)
        with connect(port, replace(config, ticket=ticket), b"second words") as channel:
            assert channel.established.early_data is sees
            from_server(channel, process, "back")
            assert "second words" not in process.output


# Our server.


def give_and_take(pki: Pki, **changes: object) -> ServerConfig:
    now = int(time.time() * 1000)
    policy = EarlyDataPolicy(MemoryReplayStore(now - 1), LIMIT)
    config = replace(pki.server(), ticket_keys=TicketKeys(ENGINE, os.urandom), early_data=policy)
    return replace(config, **changes)  # type: ignore[arg-type]


class Visits:
    """One openssl client after another at one server, with the session that the last one has left."""

    def __init__(self, pki: Pki, folder: Path) -> None:
        self._pki = pki
        self._session, self._early = folder / "session", folder / "early"
        self._early.write_bytes(b"early words" * 1000)

    def visit(
        self, config: ServerConfig, *arguments: str, says: str, later: timedelta = timedelta(0), keep: bool = True
    ) -> Channel:
        resumes = ["-sess_in", str(self._session), "-early_data", str(self._early)] if self._session.exists() else []
        keeps = ["-sess_out", str(self._session)] if keep else []
        with (
            listening() as listener,
            s_client(listener.port, self._pki, *keeps, *resumes, *arguments) as process,
            listener.accept(config, later) as channel,
        ):
            serve_line(channel, process)
            assert f"Early data was {says}" in process.output
        return channel

    @property
    def said(self) -> bytes:
        return self._early.read_bytes()


@pytest.mark.feature(EARLY, peer="OpenSSL", role="server")
@pytest.mark.clause("RFC 8446 4.2.10", "RFC 8446 4.5")
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("arguments", [[], ["-no_middlebox"]])
def test_server(pki: Pki, suite: CipherSuite, arguments: list[str], tmp_path: Path) -> None:
    config = give_and_take(pki, suites=(suite,), alpn=(b"one",))
    visits = Visits(pki, tmp_path)
    visits.visit(config, *arguments, "-alpn", "one", says="not sent")
    for _ in range(2):
        channel = visits.visit(config, *arguments, "-alpn", "one", says="accepted")
        assert channel.established.early_data is EarlyData.ACCEPTED
        assert channel.early == visits.said


@pytest.mark.feature(EARLY, peer="OpenSSL", role="server")
@pytest.mark.clause("RFC 8446 8.1")
def test_server_takes_a_ticket_once(pki: Pki, tmp_path: Path) -> None:
    config = give_and_take(pki)
    visits = Visits(pki, tmp_path)
    visits.visit(config, says="not sent")
    assert visits.visit(config, says="accepted", keep=False).early == visits.said
    for _ in range(2):
        channel = visits.visit(config, says="rejected", keep=False)
        assert channel.established.early_data is EarlyData.REPLAYED
        assert channel.established.resumed
        assert channel.early == b""


@pytest.mark.feature(EARLY, peer="OpenSSL", role="server")
@pytest.mark.clause("RFC 8446 4.2.10", "RFC 8446 8.3")
@pytest.mark.parametrize("why", ["retried", "switched off", "restarted", "late", "other keys"])
def test_server_rejects(pki: Pki, why: str, tmp_path: Path) -> None:
    config = give_and_take(pki)
    visits = Visits(pki, tmp_path)
    visits.visit(config, says="not sent")
    later, sees = timedelta(0), EarlyData.NOT_RESUMED
    if why == "retried":
        config, sees = replace(config, groups=(Group.SECP384R1,)), EarlyData.RETRIED
    elif why == "switched off":
        config, sees = replace(config, early_data=None), EarlyData.SWITCHED_OFF
    elif why == "restarted":
        config = replace(config, early_data=EarlyDataPolicy(MemoryReplayStore(int(time.time() * 1000)), LIMIT))
        sees = EarlyData.BEFORE_START
    elif why == "late":
        later, sees = timedelta(seconds=30), EarlyData.OUT_OF_TIME
    else:
        config = give_and_take(pki)
    channel = visits.visit(config, "-groups", "X25519:P-384", says="rejected", later=later)
    assert channel.established.early_data is sees
    assert channel.established.resumed is (why != "other keys")
    assert channel.early == b""
