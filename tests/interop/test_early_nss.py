"""0-RTT in both roles against NSS's selfserv and tstclnt."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tcpls.tls.algorithms import Group
from tcpls.tls.config import ClientConfig, ServerConfig
from tcpls.tls.early_data import EarlyData, EarlyDataPolicy
from tcpls.tls.replay import MemoryReplayStore
from tcpls.tls.ticket_keys import TicketKeys
from tests.engine import ENGINE
from tests.interop.conftest import Pki
from tests.interop.nss_peer import NICKNAME, selfserv, tstclnt
from tests.interop.nss_peer import nss_database as nss_database
from tests.interop.peer import connect, listening
from tests.unit.tls.pair import NAME

EARLY = "0-RTT"
REQUEST = b"GET / HTTP/1.0\r\n\r\n"


@pytest.mark.feature(EARLY, peer="NSS", role="client")
def test_client(pki: Pki, nss_database: str) -> None:
    """selfserv rejects early data in its first ten seconds, because of what it may have forgotten."""
    config = ClientConfig(NAME, pki.trust, tickets=1, early_data=True)
    with selfserv(nss_database, None, "-u", "-Z") as (port, _):
        for _ in range(100):
            # Each time from the beginning: its tickets of resumed sessions have the age of the first.
            with connect(port, config) as channel:
                channel.send(REQUEST)
                assert channel.receive().startswith(b"HTTP/1.0 200")
                ticket = channel.tickets[-1]
            assert ticket.max_early_data
            with connect(port, replace(config, ticket=ticket), REQUEST) as channel:
                assert channel.established.resumed
                early = channel.established.early_data
                if not early.accepted:
                    channel.send(REQUEST)
                assert channel.receive().startswith(b"HTTP/1.0 200")
            if early.accepted:
                break
            assert early is EarlyData.REFUSED
            time.sleep(0.25)
    assert early is EarlyData.ACCEPTED


@pytest.mark.feature(EARLY, peer="NSS", role="server")
@pytest.mark.parametrize("verdict", ["accepted", "retried", "switched off"])
def test_server(pki: Pki, nss_database: str, verdict: str, tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.write_bytes(b"early words\n")
    policy = EarlyDataPolicy(MemoryReplayStore(int(time.time() * 1000) - 1))
    config = ServerConfig(
        (pki.certificates[NICKNAME].identity,), ticket_keys=TicketKeys(ENGINE, os.urandom), early_data=policy
    )
    with (
        listening() as listener,
        tstclnt(nss_database, listener.port, "-u", "-Z", "-L", "2", "-A", str(words)) as process,
    ):
        with listener.accept(config) as channel:
            assert channel.established.early_data is EarlyData.NOT_ASKED
            assert channel.receive_until(b"\n") == b"early words\n"
            channel.send(b"first answer\n")
            channel.close()
        if verdict == "retried":
            config = replace(config, groups=(Group.SECP384R1,))
        elif verdict == "switched off":
            config = replace(config, early_data=None)
        with listener.accept(config) as channel:
            assert channel.established.resumed
            sees = {"accepted": EarlyData.ACCEPTED, "retried": EarlyData.RETRIED}.get(verdict, EarlyData.SWITCHED_OFF)
            assert channel.established.early_data is sees
            if verdict != "accepted":
                assert channel.early == b""
            # tstclnt reads them from its file ahead of the server's flight, or behind it.
            assert (channel.early or channel.receive_until(b"\n")) == b"early words\n"
            channel.send(b"second answer\n")
            channel.close()
        process.wait_for("second answer")
