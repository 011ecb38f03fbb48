"""Early data, client certificates and raw keys under Encrypted ClientHello: accepted with it, and lost with it."""

from __future__ import annotations

from typing import Any

import pytest

from tcpls.errors import EchRejected
from tcpls.tls.algorithms import Group
from tcpls.tls.config import ClientAuth, Identity
from tcpls.tls.early_data import EarlyData
from tcpls.tls.ech.configs import write_configs
from tcpls.tls.ech.status import EchStatus
from tcpls.tls.extensions import ExtensionType
from tcpls.tls.messages import ClientHello
from tcpls.wire import Reader
from tests.unit.tls.early import Server, client, ticket_of
from tests.unit.tls.ech.sealing import FILE, KEYS, OTHER, public_identity
from tests.unit.tls.pair import NAME, SecretLog, identity, make_client, make_server, move, shake, trust

RETRY: dict[str, Any] = {"groups": (Group.SECP384R1,)}
IDENTITIES: dict[str, Any] = {"identities": (identity(), public_identity())}


@pytest.mark.clause("RFC 9849 6.1")
def test_accepted() -> None:
    side = Server()
    ticket = ticket_of(side, {"ech": FILE.configs}, ech=KEYS)
    logs = SecretLog(), SecretLog()
    early, server = client(ticket, key_log=logs[0], ech=FILE.configs), side.connection(key_log=logs[1], ech=KEYS)
    assert early.send_early(b"early") == 5
    flight = early.data_to_send()
    outer = ClientHello.read(Reader(flight[9 : 5 + int.from_bytes(flight[3:5], "big")]))
    # RFC 9849 6.1: both hellos have it, so that a server that rejects knows what to skip.
    assert outer.extensions[ExtensionType.EARLY_DATA] == b"" and ticket.identity not in flight
    server.receive_data(flight)
    assert server.early_records() == [b"early"]
    ours, theirs = shake(early, server)
    assert ours.early_data is theirs.early_data is EarlyData.ACCEPTED
    assert ours.ech is theirs.ech is EchStatus.ACCEPTED
    assert ours.resumed and logs[0]["CLIENT_EARLY_TRAFFIC_SECRET"] == logs[1]["CLIENT_EARLY_TRAFFIC_SECRET"]


def test_accepted_behind_a_retry() -> None:
    side = Server()
    ticket = ticket_of(side, {"ech": FILE.configs}, ech=KEYS)
    early, server = client(ticket, ech=FILE.configs), side.connection(ech=KEYS, **RETRY)
    early.send_early(b"early")
    ours, theirs = shake(early, server)
    assert ours.early_data is theirs.early_data is EarlyData.RETRIED
    assert ours.ech is theirs.ech is EchStatus.ACCEPTED
    assert ours.resumed


@pytest.mark.clause("RFC 9849 6.1", "RFC 9849 6.1.6")
@pytest.mark.parametrize("keys", [KEYS, None], ids=["other keys", "no keys"])
@pytest.mark.parametrize("retry", [False, True], ids=["at once", "retry"])
def test_rejected(retry: bool, keys: Any) -> None:
    side = Server()
    ticket = ticket_of(side, {"ech": FILE.configs}, ech=KEYS)
    early = client(ticket, ech=OTHER)
    server = side.connection(ech=keys, **IDENTITIES, **(RETRY if retry else {}))
    early.send_early(b"early")
    with pytest.raises(EchRejected) as caught:
        shake(early, server)
    assert (caught.value.retry_configs == b"") is (keys is None)
    move(early, server)
    assert server.early_records() == []
    established = server.established()
    assert established.server_name == "public.example" and not established.resumed


@pytest.mark.parametrize("retry", [False, True], ids=["at once", "retry"])
def test_grease(retry: bool) -> None:
    side = Server()
    early = client(ticket_of(side), ech_grease=True)
    server = side.connection(ech=KEYS, **(RETRY if retry else {}))
    early.send_early(b"early")
    ours, _ = shake(early, server)
    assert ours.early_data is (EarlyData.RETRIED if retry else EarlyData.ACCEPTED)
    assert (ours.ech, ours.resumed) == (EchStatus.GREASE, True)


@pytest.mark.clause("RFC 9849 6.1.7")
@pytest.mark.parametrize("retry", [False, True], ids=["at once", "retry"])
def test_a_client_shows_its_certificate_to_the_server_that_it_means(retry: bool) -> None:
    asks: dict[str, Any] = {"client_auth": ClientAuth.REQUEST, **(RETRY if retry else {})}
    mine: dict[str, Any] = {"identities": (identity("p384"),)}
    ours, theirs = shake(make_client(ech=FILE.configs, **mine), make_server(ech=KEYS, **asks))
    assert ours.ech is EchStatus.ACCEPTED and theirs.peer_certificates == identity("p384").chain
    rejected, server = make_client(ech=OTHER, **mine), make_server(ech=KEYS, **IDENTITIES, **asks)
    with pytest.raises(EchRejected):
        shake(rejected, server)
    move(rejected, server)
    assert server.established().peer_certificates == ()


@pytest.mark.clause("RFC 9849 6.1.7")
@pytest.mark.parametrize("knows_authorities", [False, True])
def test_raw_public_keys_are_for_the_server_that_is_meant(knows_authorities: bool) -> None:
    wanted: dict[str, Any] = {
        "server_keys": (identity("p384").signer.public_key_info,),
        "trust": trust() if knows_authorities else None,
    }
    identities = (Identity((), identity("p384").signer, (NAME,)), public_identity())
    ours, _ = shake(make_client(ech=FILE.configs, **wanted), make_server(ech=KEYS, identities=identities))
    assert ours.ech is EchStatus.ACCEPTED and ours.verified
    # The public server shows a certificate, which is believed of authorities alone.
    with pytest.raises(EchRejected) as caught:
        shake(make_client(ech=OTHER, **wanted), make_server(ech=KEYS, identities=identities))
    assert caught.value.retry_configs == (write_configs(FILE.configs) if knows_authorities else None)
