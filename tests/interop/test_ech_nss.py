"""Encrypted ClientHello in both roles against NSS, as Debian has it, over loopback."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from tcpls.errors import AlertReceived, EchRejected
from tcpls.tls.algorithms import Group
from tcpls.tls.config import ClientConfig
from tcpls.tls.ech.configs import EchConfig, read_configs, write_configs
from tcpls.tls.ech.status import EchStatus
from tcpls.tls.hpke import AeadId, Kdf
from tests.interop.conftest import PUBLIC_NAME, Pki
from tests.interop.nss_peer import nss_database as nss_database
from tests.interop.nss_peer import selfserv, tstclnt
from tests.interop.peer import connect, listening
from tests.interop.test_ech_go import client_config, keys_of, new, server_config
from tests.unit.tls.pair import NAME

SUITES = [(kdf, aead) for kdf in Kdf for aead in AeadId]
RETRY = "-I", "P384"
"""A group that a client of ours has no share of."""
BOTH = "-I", "x25519,P384"

REQUEST = b"GET / HTTP/1.0\r\n\r\n"

known = pytest.mark.xfail(
    strict=True,
    reason="selfserv of NSS 3.87, with keys, behind a HelloRetryRequest to a client that it rejected: records that its "
    "own tstclnt cannot open either",
)


@pytest.mark.feature("Encrypted ClientHello", peer="NSS", role="client")
@pytest.mark.parametrize("retry", [False, True], ids=["at once", "retry"])
@pytest.mark.parametrize(("kdf", "aead"), SUITES)
def test_client_accepted(pki: Pki, nss_database: str, kdf: Kdf, aead: AeadId, retry: bool) -> None:
    file = new(kdf=kdf, aead=aead)
    with (
        selfserv(nss_database, file, *(RETRY if retry else ())) as (port, _),
        connect(port, client_config(pki, file.configs)) as channel,
    ):
        assert channel.established.ech is EchStatus.ACCEPTED
        assert channel.established.retried is retry
        channel.send(REQUEST)
        assert channel.receive().startswith(b"HTTP/1.0 200")


@pytest.mark.feature("Encrypted ClientHello: retry configurations", peer="NSS", role="client")
@pytest.mark.parametrize("retry", [False, pytest.param(True, marks=known)], ids=["at once", "retry"])
def test_client_rejected(pki: Pki, nss_database: str, retry: bool) -> None:
    current = new()
    with selfserv(nss_database, current, *(RETRY if retry else ())) as (port, process):
        with pytest.raises(EchRejected) as caught, connect(port, client_config(pki, new().configs)):
            pass
        assert caught.value.retry_configs == write_configs(current.configs)
        process.wait_for("ECH required")
        with connect(port, client_config(pki, read_configs(caught.value.retry_configs))) as channel:
            assert channel.established.ech is EchStatus.ACCEPTED


@pytest.mark.feature("Encrypted ClientHello: retry configurations", peer="NSS", role="client")
@pytest.mark.parametrize("retry", [False, True], ids=["at once", "retry"])
def test_client_of_a_server_without(pki: Pki, nss_database: str, retry: bool) -> None:
    with selfserv(nss_database, None, *(RETRY if retry else ())) as (port, _):
        with pytest.raises(EchRejected) as caught, connect(port, client_config(pki, new().configs)):
            pass
        assert caught.value.retry_configs == b""


@pytest.mark.feature("Encrypted ClientHello: grease", peer="NSS", role="client")
@pytest.mark.parametrize(
    ("has_keys", "retry"), [(False, False), (False, True), (True, False), pytest.param(True, True, marks=known)]
)
def test_client_grease(pki: Pki, nss_database: str, has_keys: bool, retry: bool) -> None:
    with (
        selfserv(nss_database, new() if has_keys else None, *(RETRY if retry else ())) as (port, _),
        connect(port, ClientConfig(NAME, pki.trust, ech_grease=True)) as channel,
    ):
        assert channel.established.ech is EchStatus.GREASE
        assert channel.established.retried is retry
        channel.send(REQUEST)
        assert channel.receive().startswith(b"HTTP/1.0 200")


def test_the_known_failure_is_not_ours(nss_database: str) -> None:
    with (
        selfserv(nss_database, new(), *RETRY) as (port, _),
        tstclnt(nss_database, port, *BOTH, "-N", _base64(new().configs)) as process,
    ):
        assert "SSL_ERROR_BAD_MAC_READ" in process.finish()


# The server


def _base64(configs: tuple[EchConfig, ...]) -> str:
    return base64.b64encode(write_configs(configs)).decode("ascii")


@pytest.mark.feature("Encrypted ClientHello", peer="NSS", role="server")
@pytest.mark.parametrize("retry", [False, True], ids=["at once", "retry"])
@pytest.mark.parametrize(("kdf", "aead"), SUITES)
def test_server_accepts(pki: Pki, nss_database: str, kdf: Kdf, aead: AeadId, retry: bool) -> None:
    file = new(kdf=kdf, aead=aead)
    groups = {"groups": (Group.SECP384R1,)} if retry else {}
    with (
        listening() as listener,
        tstclnt(nss_database, listener.port, *BOTH, "-N", _base64(file.configs)) as process,
        listener.accept(server_config(pki, keys_of(file), **groups)) as channel,
    ):
        assert channel.established.ech is EchStatus.ACCEPTED
        assert channel.established.retried is retry
        assert channel.established.server_name == NAME
        channel.send(b"seen\n")
        process.wait_for("seen")


@pytest.mark.feature("Encrypted ClientHello: retry configurations", peer="NSS", role="server")
@pytest.mark.parametrize("retry", [False, True], ids=["at once", "retry"])
def test_server_rejects(pki: Pki, nss_database: str, retry: bool) -> None:
    groups = {"groups": (Group.SECP384R1,)} if retry else {}
    # tstclnt compares the certificate with the name that it wants, not with the public one.
    config = replace(server_config(pki, keys_of(new()), **groups), identities=(pki.certificates["both"].identity,))
    with (
        listening() as listener,
        tstclnt(nss_database, listener.port, *BOTH, "-N", _base64(new().configs)) as process,
        listener.accept(config) as channel,
    ):
        assert channel.established.ech is EchStatus.REJECTED
        assert channel.established.retried is retry
        assert channel.established.server_name == PUBLIC_NAME
        with pytest.raises(AlertReceived) as caught:
            channel.receive()
        assert caught.value.alert == 121
        assert "SSL_ERROR_ECH_RETRY_WITH_ECH" in process.finish()


@pytest.mark.feature("Encrypted ClientHello: retry configurations", peer="NSS", role="server")
def test_server_without(pki: Pki, nss_database: str) -> None:
    config = replace(server_config(pki, None), identities=(pki.certificates["both"].identity,))
    with (
        listening() as listener,
        tstclnt(nss_database, listener.port, "-N", _base64(new().configs)) as process,
        listener.accept(config) as channel,
    ):
        assert channel.established.ech is EchStatus.REJECTED
        assert "SSL_ERROR_ECH_RETRY_WITHOUT_ECH" in process.finish()


@pytest.mark.feature("Encrypted ClientHello: grease", peer="NSS", role="server")
@pytest.mark.parametrize("retry", [False, True], ids=["at once", "retry"])
@pytest.mark.parametrize("has_keys", [False, True], ids=["no keys", "keys"])
def test_server_grease(pki: Pki, nss_database: str, has_keys: bool, retry: bool) -> None:
    groups = {"groups": (Group.SECP384R1,)} if retry else {}
    with (
        listening() as listener,
        tstclnt(nss_database, listener.port, *BOTH, "-i", "100") as process,
        listener.accept(server_config(pki, keys_of(new()) if has_keys else None, **groups)) as channel,
    ):
        assert channel.established.ech is EchStatus.REJECTED
        assert channel.established.retried is retry
        assert channel.established.server_name == NAME
        channel.send(b"seen\n")
        process.wait_for("seen")


@pytest.mark.feature("Encrypted ClientHello: resumption", peer="NSS", role="client")
@pytest.mark.parametrize("retry", [False, True], ids=["at once", "retry"])
def test_client_resumption(pki: Pki, nss_database: str, retry: bool) -> None:
    file = new()
    config = client_config(pki, file.configs)
    with selfserv(nss_database, file, "-u", *(RETRY if retry else ())) as (port, _):
        with connect(port, config) as channel:
            channel.send(REQUEST)
            assert channel.receive().startswith(b"HTTP/1.0 200")
            ticket = channel.tickets[0]
        with connect(port, replace(config, ticket=ticket)) as channel:
            assert channel.established.ech is EchStatus.ACCEPTED
            assert (channel.established.resumed, channel.established.retried) == (True, retry)
            channel.send(REQUEST)
            assert channel.receive().startswith(b"HTTP/1.0 200")
