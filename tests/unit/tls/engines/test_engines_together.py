"""A client of one engine and a server of the other, both ways round."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tcpls.tls.algorithms import Group
from tcpls.tls.config import ClientConfig, ServerConfig
from tcpls.tls.connection import ClientConnection, ServerConnection
from tcpls.tls.engines.libraries import library
from tcpls.tls.record import RecordOpener, RecordSealer
from tcpls.tls.suites import CipherSuite
from tests.unit.tls.pair import KINDS, NAME, TIME, authority, leaf, seeded, shake

PAIRS = [("openssl", "minicrypto"), ("minicrypto", "openssl")]


def configs(client: str, server: str, kind: str = "p256") -> tuple[ClientConfig, ServerConfig]:
    ours, theirs = library(client), library(server)
    identity = theirs.identity_from_pem(leaf(kind).pem, leaf(kind).key_pem)
    return (
        ClientConfig(NAME, ours.trust_from_pem(authority().pem, "authority"), engine=ours.engine),
        ServerConfig((identity,), engine=theirs.engine),
    )


def converse(client_config: ClientConfig, server_config: ServerConfig) -> str:
    """Shakes hands, sends a record each way and exports the same secret; the group."""
    ends = shake(
        ClientConnection(client_config, random=seeded(1), time=TIME),
        ServerConnection(server_config, random=seeded(2), time=TIME),
    )
    for sender, receiver in (ends, ends[::-1]):
        sealing, opening = sender.write_secret.engine, receiver.read_secret.engine
        sealer = RecordSealer(sealing.aead, sender.write_secret.next().keys())
        sealer.put(23, b"content")
        opener = RecordOpener(opening.aead, receiver.read_secret.next().keys(), opening.invalid_tag)
        opener.feed(bytes(sealer.pending))
        record = opener.next_record()
        assert record is not None
        assert (record[0], bytes(record[1])) == (23, b"content")
    assert ends[0].export(b"label", b"context", 40) == ends[1].export(b"label", b"context", 40)
    assert ends[0].signature_scheme == ends[1].signature_scheme
    return ends[0].group


@pytest.mark.parametrize(("client", "server"), PAIRS)
@pytest.mark.parametrize("suite", CipherSuite)
def test_suites(client: str, server: str, suite: CipherSuite) -> None:
    client_config, server_config = configs(client, server)
    converse(replace(client_config, suites=(suite,)), server_config)


@pytest.mark.parametrize(("client", "server"), PAIRS)
@pytest.mark.parametrize("group", Group)
def test_groups(client: str, server: str, group: Group) -> None:
    client_config, server_config = configs(client, server)
    assert converse(replace(client_config, groups=(group,)), server_config) == group.label


@pytest.mark.parametrize(("client", "server"), PAIRS)
@pytest.mark.parametrize("kind", KINDS)
def test_keys(client: str, server: str, kind: str) -> None:
    converse(*configs(client, server, kind))
