"""0-RTT in both roles against picotls's command `cli`.

It is in no registry of packages: TCPLS_PICOTLS names the program. In a checkout of github.com/h2o/picotls, without its
submodules, this makes it:

    cc -Iinclude -o cli t/cli.c lib/picotls.c lib/openssl.c lib/pembase64.c lib/hpke.c lib/asn1.c -lcrypto
"""

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
from tests.interop.peer import connect, free_port, listening, running
from tests.unit.tls.pair import NAME

VARIABLE = "TCPLS_PICOTLS"
EARLY = "0-RTT"
WORDS = b"early words\n"


@pytest.fixture
def cli() -> str:
    program = os.environ.get(VARIABLE, "")
    if not os.access(program, os.X_OK):
        pytest.skip(f"{VARIABLE} names no program")
    return program


@pytest.mark.feature(EARLY, peer="picotls", role="client")
@pytest.mark.parametrize("retry", [False, True])
def test_client(pki: Pki, cli: str, retry: bool, tmp_path: Path) -> None:
    """Its server has P-256 alone, unless it is told otherwise. Behind a HelloRetryRequest it does not resume."""
    said, port, files = tmp_path / "said", free_port(), pki.certificates["p256"]
    said.write_bytes(b"and back\n")
    groups = (Group.X25519, Group.SECP256R1) if retry else (Group.SECP256R1,)
    config = ClientConfig(NAME, pki.trust, groups=groups, tickets=1, early_data=True)
    with running(cli, "-c", files.certificate, "-k", files.key, "-e", "-i", said, "127.0.0.1", str(port)) as process:
        process.wait_for("waiting for connections")
        with connect(port, config) as channel:
            channel.send(b"first words\n")
            process.wait_for("first words")
            assert channel.receive_until(b"\n") == b"and back\n"
            ticket = channel.tickets[-1]
        assert ticket.max_early_data == 8192
        with connect(port, replace(config, ticket=ticket), WORDS) as channel:
            assert channel.established.resumed is not retry
            assert channel.established.early_data is (EarlyData.RETRIED if retry else EarlyData.ACCEPTED)
            if retry:
                channel.send(WORDS)
            process.wait_for("early words")
            assert channel.receive_until(b"\n") == b"and back\n"
        assert process.output.count("early words") == 1


@pytest.mark.feature(EARLY, peer="picotls", role="server")
@pytest.mark.parametrize("verdict", ["accepted", "switched off"])
def test_server(pki: Pki, cli: str, verdict: str, tmp_path: Path) -> None:
    """Not with a HelloRetryRequest: the program gives up then, because it may not go on sending early data."""
    words, session = tmp_path / "words", tmp_path / "session"
    words.write_bytes(WORDS)
    policy = EarlyDataPolicy(MemoryReplayStore(int(time.time() * 1000) - 1))
    config = ServerConfig(
        (pki.certificates["p256"].identity,), ticket_keys=TicketKeys(ENGINE, os.urandom), early_data=policy
    )
    with listening() as listener:
        for sees in (EarlyData.NOT_ASKED, None):
            with (
                running(
                    cli, "-s", session, "-e", "-N", "x25519", "-i", words, "-I", "127.0.0.1", str(listener.port)
                ) as process,
                listener.accept(config) as channel,
            ):  # fmt: skip
                early = channel.established.early_data
                if sees is None:
                    assert early is (EarlyData.ACCEPTED if verdict == "accepted" else EarlyData.SWITCHED_OFF)
                    assert channel.established.resumed
                else:
                    assert early is sees
                # What was rejected, it sends once more.
                assert channel.early == (WORDS if early.accepted else b"")
                assert channel.early or channel.receive_until(b"\n") == WORDS
                channel.send(b"answer\n")
                process.wait_for("answer")
                channel.close()
            if verdict == "switched off":
                config = replace(config, early_data=None)
