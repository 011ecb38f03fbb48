"""0-RTT in both roles against gnutls-serv and gnutls-cli.

Not with a HelloRetryRequest: GnuTLS 3.7 sends its second ClientHello under the keys of early data, with early_data in
it once more, and as a server it does not skip the early data that it has refused by the request.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tcpls.tls.config import ClientConfig, ServerConfig
from tcpls.tls.early_data import EarlyData, EarlyDataPolicy
from tcpls.tls.replay import MemoryReplayStore
from tcpls.tls.suites import CipherSuite
from tcpls.tls.ticket_keys import TicketKeys
from tests.engine import ENGINE
from tests.interop.conftest import Pki
from tests.interop.peer import connect, first_ticket, free_port, listening, need, running
from tests.interop.test_psk_gnutls import serve_line
from tests.interop.test_tls_gnutls import gnutls_cli, gnutls_serv, priority
from tests.unit.tls.pair import NAME

SUITES = list(CipherSuite)
EARLY = "0-RTT"


ALLOWING = ("--earlydata", "--maxearlydata", "4096")


@pytest.mark.feature(EARLY, peer="GnuTLS", role="client")
@pytest.mark.parametrize("suite", SUITES)
def test_client(pki: Pki, suite: CipherSuite) -> None:
    config = ClientConfig(NAME, pki.trust, suites=(suite,), tickets=1, early_data=True)
    files, port = pki.certificates["p256"], free_port()
    with running(
        need("gnutls-serv"), "--port", str(port), "--echo", "--x509certfile", files.certificate, "--x509keyfile",
        files.key, "--priority", priority(), "--disable-client-cert", "-d", "5", *ALLOWING,
    ) as process:  # fmt: skip
        process.wait_for("done")
        ticket = first_ticket(port, config)
        assert ticket.max_early_data == 4096
        for number in range(2):
            words = b"early words" * (7 + number)
            with connect(port, replace(config, ticket=ticket), words) as channel:
                assert channel.established.early_data is EarlyData.ACCEPTED
                # gnutls-serv throws it away, but tells that it could be read.
                process.wait_for(f"decrypted early data with length: {len(words)}")
                channel.echo()
                ticket = channel.tickets[-1]
                channel.close()


@pytest.mark.feature(EARLY, peer="GnuTLS", role="client")
@pytest.mark.parametrize("why", ["late", "another server", "switched off"])
def test_client_is_rejected(pki: Pki, why: str) -> None:
    config = ClientConfig(NAME, pki.trust, tickets=1, early_data=True)
    sees = EarlyData.NOT_RESUMED if why == "another server" else EarlyData.REFUSED
    with gnutls_serv(pki, "p256", priority(), *ALLOWING) as port:
        ticket = first_ticket(port, config)
        if why == "late":
            # A ticket that seems to have been received an hour ago: outside of its window.
            ticket = replace(ticket, received=ticket.received - 3600)
            with connect(port, replace(config, ticket=ticket), b"early words\n") as channel:
                assert channel.established.early_data is sees
                channel.echo()
            return
    with gnutls_serv(pki, "p256", priority(), *([] if why == "switched off" else ALLOWING)) as port:
        if why == "switched off":
            with connect(port, config) as channel:
                channel.echo()
                ticket = replace(channel.tickets[-1], max_early_data=4096)
        with connect(port, replace(config, ticket=ticket), b"early words\n") as channel:
            assert channel.established.early_data is sees
            channel.echo()


# Our server.


@pytest.mark.feature(EARLY, peer="GnuTLS", role="server")
@pytest.mark.parametrize("verdict", ["accepted", "switched off"])
@pytest.mark.parametrize("suite", SUITES)
def test_server(pki: Pki, suite: CipherSuite, verdict: str, tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.write_bytes(b"early words" * 100)
    policy = EarlyDataPolicy(MemoryReplayStore(int(time.time() * 1000) - 1))
    config: ServerConfig = replace(pki.server(), ticket_keys=TicketKeys(ENGINE, os.urandom), early_data=policy)
    with (
        listening() as listener,
        gnutls_cli(
            listener.port, pki, priority(suite), "--resume", "--waitresumption", "--earlydata", str(words)
        ) as process,
    ):
        with listener.accept(config) as channel:
            assert channel.established.early_data is EarlyData.NOT_ASKED
            assert channel.receive() == b""
            channel.close()
        if verdict == "switched off":
            config = replace(config, early_data=None)
        with listener.accept(config) as channel:
            assert channel.established.resumed
            sees = EarlyData.ACCEPTED if verdict == "accepted" else EarlyData.SWITCHED_OFF
            assert channel.established.early_data is sees
            assert channel.early == (words.read_bytes() if verdict == "accepted" else b"")
            serve_line(channel, process)
