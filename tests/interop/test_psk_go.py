"""Resumption in both roles against Go's crypto/tls, which has psk_dhe_ke alone and no external keys."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tcpls.tls.algorithms import Group
from tcpls.tls.config import ClientConfig, ServerConfig
from tcpls.tls.psk import PskMode
from tcpls.tls.suites import CipherSuite
from tcpls.tls.ticket_keys import TicketKeys
from tests.engine import ENGINE
from tests.interop.conftest import Pki
from tests.interop.go_peer import go_client, go_server
from tests.interop.go_peer import go_peer as go_peer
from tests.interop.peer import connect, first_ticket, listening
from tests.unit.tls.pair import NAME

SUITES = list(CipherSuite)


@pytest.mark.feature("resumption", peer="Go", role="client")
@pytest.mark.feature("resumption after HelloRetryRequest", peer="Go", role="client")
@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("suite", SUITES)
def test_client_resumes(pki: Pki, go_peer: Path, suite: CipherSuite, retry: bool) -> None:
    groups = (Group.SECP384R1, Group.X25519) if retry else (Group.X25519,)
    config = ClientConfig(NAME, pki.trust, suites=(suite,), groups=groups, tickets=1)
    with go_server(go_peer, pki, "-groups", str(int(Group.X25519))) as (port, process):
        ticket = first_ticket(port, config)
        for _ in range(2):
            with connect(port, replace(config, ticket=ticket)) as channel:
                assert channel.established.resumed
                assert channel.established.retried is retry
                assert channel.established.suite is suite
                channel.echo()
                ticket = channel.tickets[-1]
                channel.close()
        process.wait_for("ech false resumed true\n", times=2)


@pytest.mark.feature("resumption", peer="Go", role="client")
def test_client_is_not_resumed(pki: Pki, go_peer: Path) -> None:
    config = ClientConfig(NAME, pki.trust, tickets=1)
    with go_server(go_peer, pki) as (port, _):
        ticket = first_ticket(port, config)
        # Go takes no key alone; and a ticket of another server is nothing to it.
        with connect(port, replace(config, ticket=ticket, psk_modes=(PskMode.PSK_KE,))) as channel:
            assert not channel.established.resumed
            channel.echo()
    with go_server(go_peer, pki) as (port, process), connect(port, replace(config, ticket=ticket)) as channel:
        assert not channel.established.resumed
        channel.echo()
        process.wait_for("resumed false")


@pytest.mark.feature("resumption", peer="Go", role="client")
def test_client_gets_no_ticket(pki: Pki, go_peer: Path) -> None:
    config = ClientConfig(NAME, pki.trust, tickets=1)
    with go_server(go_peer, pki, "-no-tickets") as (port, _), connect(port, config) as channel:
        channel.echo()
        assert channel.tickets == []


@pytest.mark.feature("resumption", peer="Go", role="server")
@pytest.mark.feature("resumption after HelloRetryRequest", peer="Go", role="server")
@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("suite", SUITES)
def test_server_resumes(pki: Pki, go_peer: Path, suite: CipherSuite, retry: bool) -> None:
    config = ServerConfig(
        (pki.certificates["p256"].identity,),
        suites=(suite,),
        groups=(Group.SECP384R1 if retry else Group.X25519,),
        ticket_keys=TicketKeys(ENGINE, os.urandom),
    )
    groups = ",".join(str(int(group)) for group in (Group.X25519, Group.SECP384R1))
    with (
        listening() as listener,
        go_client(go_peer, pki, listener.port, "-connections", "3", "-groups", groups) as process,
    ):
        for resumed in (False, True, True):
            with listener.accept(config) as channel:
                assert channel.established.resumed is resumed
                assert channel.established.retried is retry
                assert channel.established.suite is suite
                assert channel.receive_until(b"\n") == b"hello\n"
                channel.send(b"olleh\n")
        assert process.finish().count("resumed true") == 2
        assert process.output.count("answer olleh") == 3


@pytest.mark.feature("resumption", peer="Go", role="server")
@pytest.mark.parametrize("change", ["keys", "none"])
def test_server_does_not_resume(pki: Pki, go_peer: Path, change: str) -> None:
    config = ServerConfig((pki.certificates["p256"].identity,), ticket_keys=TicketKeys(ENGINE, os.urandom))
    keys = TicketKeys(ENGINE, os.urandom) if change == "keys" else None
    with (
        listening() as listener,
        go_client(go_peer, pki, listener.port, "-connections", "2") as process,
    ):
        for each in (config, replace(config, ticket_keys=keys)):
            with listener.accept(each) as channel:
                assert not channel.established.resumed
                assert channel.receive_until(b"\n") == b"hello\n"
                channel.send(b"olleh\n")
        assert process.finish().count("resumed false") == 2
