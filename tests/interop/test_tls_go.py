"""Both roles against Go's crypto/tls over loopback: what Debian's OpenSSL and GnuTLS do not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from tcpls.errors import AlertReceived, HandshakeError, Reason
from tcpls.tls.algorithms import DEFAULT_GROUPS, Group
from tcpls.tls.config import ClientConfig, ServerConfig
from tests.interop.conftest import Pki
from tests.interop.go_peer import go_client, go_server
from tests.interop.go_peer import go_peer as go_peer
from tests.interop.peer import connect, listening
from tests.unit.tls.pair import NAME

# All that Go has of ours: it lacks X448.
GROUPS = tuple(group for group in Group if group is not Group.X448)


@pytest.mark.feature("groups and HelloRetryRequest", peer="Go", role="client")
@pytest.mark.feature("ML-KEM hybrids", peer="Go", role="client")
@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("group", GROUPS)
def test_client_groups(pki: Pki, go_peer: Path, group: Group, retry: bool) -> None:
    other = Group.SECP384R1 if group is not Group.SECP384R1 else Group.X25519
    config = ClientConfig(NAME, pki.trust, groups=(other, group) if retry else (group, other))
    with (
        go_server(go_peer, pki, "-groups", str(int(group))) as (port, process),
        connect(port, config) as channel,
    ):
        assert channel.established.group == group.label
        assert channel.established.retried is retry
        channel.echo(b"abc\n")
        process.wait_for(f"group {int(group)}\n")


# Go sends a share for its first group, in an order of its own that X25519MLKEM768 leads, and one for that one's curve.
SERVER_CASES = [
    *((group, None) for group in GROUPS),
    *((group, Group.X25519MLKEM768) for group in GROUPS if group not in (Group.X25519MLKEM768, Group.X25519)),
    (Group.X25519, Group.SECP256R1MLKEM768),
]


@pytest.mark.feature("groups and HelloRetryRequest", peer="Go", role="server")
@pytest.mark.feature("ML-KEM hybrids", peer="Go", role="server")
@pytest.mark.parametrize(("group", "before"), SERVER_CASES)
def test_server_groups(pki: Pki, go_peer: Path, group: Group, before: Group | None) -> None:
    retry = before is not None
    offered = ",".join(str(int(each)) for each in (before, group) if each is not None)
    config = ServerConfig((pki.certificates["p256"].identity,), groups=(group,))
    with (
        listening() as listener,
        go_client(go_peer, pki, listener.port, "-groups", offered) as process,
        listener.accept(config) as channel,
    ):
        assert channel.established.group == group.label
        assert channel.established.retried is retry
        assert channel.receive_until(b"\n") == b"hello\n"
        channel.send(b"olleh\n")
        assert "answer olleh" in process.finish()
        assert f"group {int(group)}\n" in process.output


@pytest.mark.feature("ML-KEM hybrids", peer="Go", role="client")
@pytest.mark.feature("ML-KEM hybrids", peer="Go", role="server")
def test_defaults_of_both(pki: Pki, go_peer: Path) -> None:
    with go_server(go_peer, pki) as (port, _), connect(port, ClientConfig(NAME, pki.trust)) as channel:
        assert channel.established.group == "X25519MLKEM768"
        assert not channel.established.retried
    config = ServerConfig((pki.certificates["p256"].identity,))
    with (
        listening() as listener,
        go_client(go_peer, pki, listener.port),
        listener.accept(config) as channel,
    ):
        assert channel.established.group == "X25519MLKEM768"
        assert not channel.established.retried


@pytest.mark.feature("groups and HelloRetryRequest", peer="Go", role="client")
def test_peers_without_ml_kem(pki: Pki, go_peer: Path) -> None:
    """The second share of the default spares them the retry."""
    with (
        go_server(go_peer, pki, "-groups", str(int(Group.X25519))) as (port, _),
        connect(port, ClientConfig(NAME, pki.trust)) as channel,
    ):
        assert channel.established.group == "x25519"
        assert not channel.established.retried


@pytest.mark.feature("nothing in common", peer="Go", role="client")
@pytest.mark.feature("nothing in common", peer="Go", role="server")
def test_nothing_in_common(pki: Pki, go_peer: Path) -> None:
    config = ClientConfig(NAME, pki.trust, groups=(Group.X448,))
    with go_server(go_peer, pki) as (port, process):
        with pytest.raises(AlertReceived), connect(port, config):
            pass
        process.wait_for("error")
    server = ServerConfig((pki.certificates["p256"].identity,), groups=DEFAULT_GROUPS[:2])
    with listening() as listener, go_client(go_peer, pki, listener.port, "-groups", "29") as process:
        with pytest.raises(HandshakeError) as caught, listener.accept(server):
            pass
        assert caught.value.reason is Reason.NO_COMMON_GROUP
        assert "handshake failure" in process.finish()
