"""Encrypted ClientHello in both roles against Go's crypto/tls over loopback."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tcpls.errors import AlertReceived, EchRejected
from tcpls.tls.algorithms import Group
from tcpls.tls.config import ClientConfig, ServerConfig
from tcpls.tls.ech.configs import EchConfig, read_configs, write_configs
from tcpls.tls.ech.keys import EchFile, EchKeys, generate, write_pem
from tcpls.tls.ech.status import EchStatus
from tcpls.tls.hpke import AeadId, Kdf, Kem
from tcpls.tls.ticket_keys import TicketKeys
from tests.engine import ENGINE
from tests.interop.conftest import PUBLIC_NAME, Pki
from tests.interop.go_peer import go_client, go_server
from tests.interop.go_peer import go_peer as go_peer
from tests.interop.peer import Channel, Process, connect, listening
from tests.unit.tls.pair import NAME

SUITES = [(kem, kdf, aead) for kem in Kem for kdf in Kdf for aead in AeadId]
RETRY = "-groups", str(int(Group.SECP384R1))
"""A group that a client of ours has no share of."""


def new(kem: Kem = Kem.X25519_HKDF_SHA256, kdf: Kdf = Kdf.HKDF_SHA256, aead: AeadId = AeadId.AES_128_GCM) -> EchFile:
    return generate(ENGINE, os.urandom, PUBLIC_NAME, kem=kem, suites=((kdf, aead),), maximum_name_length=50)


def written(folder: Path, name: str, file: EchFile) -> str:
    path = folder / name
    path.write_text(write_pem(file))
    return str(path)


def client_config(pki: Pki, configs: tuple[EchConfig, ...]) -> ClientConfig:
    return ClientConfig(NAME, pki.trust, alpn=(b"secret",), ech=configs, tickets=1, engine=ENGINE)


@pytest.mark.feature("Encrypted ClientHello", peer="Go", role="client")
@pytest.mark.parametrize("retry", [False, True], ids=["at once", "retry"])
@pytest.mark.parametrize(("kem", "kdf", "aead"), SUITES)
def test_client_accepted(
    pki: Pki, go_peer: Path, tmp_path: Path, kem: Kem, kdf: Kdf, aead: AeadId, retry: bool
) -> None:
    file = new(kem, kdf, aead)
    keys = "-ech-keys", written(tmp_path, "ech.pem", file)
    with (
        go_server(go_peer, pki, *keys, *(RETRY if retry else ())) as (port, process),
        connect(port, client_config(pki, file.configs)) as channel,
    ):
        assert channel.established.ech is EchStatus.ACCEPTED
        assert channel.established.retried is retry
        channel.echo(b"abc\n")
        process.wait_for("ech true resumed false\n")


@pytest.mark.feature("Encrypted ClientHello: retry configurations", peer="Go", role="client")
@pytest.mark.parametrize("retry", [False, True], ids=["at once", "retry"])
def test_client_rejected(pki: Pki, go_peer: Path, tmp_path: Path, retry: bool) -> None:
    current = new()
    keys = "-ech-keys", written(tmp_path, "ech.pem", current)
    with go_server(go_peer, pki, *keys, *(RETRY if retry else ())) as (port, process):
        with pytest.raises(EchRejected) as caught, connect(port, client_config(pki, new().configs)):
            pass
        assert caught.value.public_name == PUBLIC_NAME
        assert caught.value.retry_configs == write_configs(current.configs)
        process.wait_for("ech false resumed false\n")
        with connect(port, client_config(pki, read_configs(caught.value.retry_configs))) as channel:
            assert channel.established.ech is EchStatus.ACCEPTED
            assert channel.established.server_name == NAME


@pytest.mark.feature("Encrypted ClientHello: retry configurations", peer="Go", role="client")
def test_client_of_a_server_without(pki: Pki, go_peer: Path) -> None:
    with go_server(go_peer, pki) as (port, _):
        with pytest.raises(EchRejected) as caught, connect(port, client_config(pki, new().configs)):
            pass
        assert caught.value.retry_configs == b""


@pytest.mark.feature("Encrypted ClientHello: grease", peer="Go", role="client")
@pytest.mark.parametrize("retry", [False, True], ids=["at once", "retry"])
@pytest.mark.parametrize("has_keys", [False, True], ids=["no keys", "keys"])
def test_client_grease(pki: Pki, go_peer: Path, tmp_path: Path, retry: bool, has_keys: bool) -> None:
    keys = ("-ech-keys", written(tmp_path, "ech.pem", new())) if has_keys else ()
    config = ClientConfig(NAME, pki.trust, ech_grease=True)
    with (
        go_server(go_peer, pki, *keys, *(RETRY if retry else ())) as (port, process),
        connect(port, config) as channel,
    ):
        assert channel.established.ech is EchStatus.GREASE
        assert channel.established.retried is retry
        process.wait_for("ech false resumed false\n")


@pytest.mark.feature("Encrypted ClientHello: resumption", peer="Go", role="client")
@pytest.mark.parametrize("retry", [False, True], ids=["at once", "retry"])
def test_client_resumption(pki: Pki, go_peer: Path, tmp_path: Path, retry: bool) -> None:
    file = new()
    keys = "-ech-keys", written(tmp_path, "ech.pem", file)
    config = client_config(pki, file.configs)
    with go_server(go_peer, pki, *keys, *(RETRY if retry else ())) as (port, process):
        with connect(port, config) as channel:
            channel.echo(b"abc\n")
            ticket = channel.tickets[0]
        again = ClientConfig(NAME, pki.trust, ech=file.configs, ticket=ticket, engine=ENGINE)
        with connect(port, again) as channel:
            assert channel.established.ech is EchStatus.ACCEPTED
            assert channel.established.resumed
            assert channel.established.retried is retry
            process.wait_for("ech true resumed true\n")
        # A server that rejects it sees a key in the outer ClientHello that nobody has.
        with (
            pytest.raises(EchRejected),
            connect(port, ClientConfig(NAME, pki.trust, ech=new().configs, ticket=ticket, engine=ENGINE)),
        ):
            pass


# The server


def server_config(pki: Pki, keys: EchKeys | None, **changes: object) -> ServerConfig:
    identities = tuple(pki.certificates[name].identity for name in ("p256", "public"))
    return ServerConfig(identities, ech=keys, **changes)  # type: ignore[arg-type]


def keys_of(*files: EchFile) -> EchKeys:
    return EchKeys(tuple(key for file in files for key in file.keys(ENGINE, "file")), files[0].configs)


@contextmanager
def asked(
    program: Path, pki: Pki, config: ServerConfig, configs: tuple[EchConfig, ...]
) -> Iterator[tuple[Channel, Process]]:
    """A client of Go's that encrypts to the `configs`, and the channel to it."""
    text = base64.b64encode(write_configs(configs)).decode("ascii")
    with (
        listening() as listener,
        go_client(program, pki, listener.port, "-ech", text) as process,
        listener.accept(config) as channel,
    ):
        yield channel, process


@pytest.mark.feature("Encrypted ClientHello", peer="Go", role="server")
@pytest.mark.parametrize("retry", [False, True], ids=["at once", "retry"])
@pytest.mark.parametrize(("kem", "kdf", "aead"), SUITES)
def test_server_accepts(pki: Pki, go_peer: Path, kem: Kem, kdf: Kdf, aead: AeadId, retry: bool) -> None:
    file = new(kem, kdf, aead)
    groups = {"groups": (Group.SECP384R1,)} if retry else {}
    config = server_config(pki, keys_of(new(), file), **groups)
    with asked(go_peer, pki, config, file.configs) as (channel, process):
        assert channel.established.ech is EchStatus.ACCEPTED
        assert channel.established.retried is retry
        assert channel.established.server_name == NAME
        assert channel.receive_until(b"\n") == b"hello\n"
        channel.send(b"olleh\n")
        said = process.finish()
        assert "ech true resumed false\n" in said and "answer olleh" in said


@pytest.mark.feature("Encrypted ClientHello: resumption", peer="Go", role="server")
@pytest.mark.parametrize("retry", [False, True], ids=["at once", "retry"])
def test_server_resumption(pki: Pki, go_peer: Path, retry: bool) -> None:
    file = new()
    groups = {"groups": (Group.SECP384R1,)} if retry else {}
    config = server_config(pki, keys_of(file), ticket_keys=TicketKeys(ENGINE, os.urandom), **groups)
    text = base64.b64encode(write_configs(file.configs)).decode("ascii")
    with listening() as listener, go_client(go_peer, pki, listener.port, "-ech", text, "-connections", "2") as process:
        for resumed in (False, True):
            with listener.accept(config) as channel:
                assert channel.established.ech is EchStatus.ACCEPTED
                assert (channel.established.resumed, channel.established.retried) == (resumed, retry)
                assert channel.receive_until(b"\n") == b"hello\n"
                channel.send(b"olleh\n")
                process.wait_for(f"ech true resumed {str(resumed).lower()}\n")


@pytest.mark.feature("Encrypted ClientHello: retry configurations", peer="Go", role="server")
@pytest.mark.parametrize("retry", [False, True], ids=["at once", "retry"])
def test_server_rejects(pki: Pki, go_peer: Path, retry: bool) -> None:
    current, unknown = new(), new()
    groups = {"groups": (Group.SECP384R1,)} if retry else {}
    with asked(go_peer, pki, server_config(pki, keys_of(current), **groups), unknown.configs) as (channel, process):
        assert channel.established.ech is EchStatus.REJECTED
        assert channel.established.server_name == PUBLIC_NAME
        with pytest.raises(AlertReceived) as caught:
            channel.receive()
        assert caught.value.alert == 121
        told = base64.b64encode(write_configs(current.configs)).decode("ascii")
        assert f"rejected {told}\n" in process.finish()


@pytest.mark.feature("Encrypted ClientHello: retry configurations", peer="Go", role="server")
def test_server_without(pki: Pki, go_peer: Path) -> None:
    with asked(go_peer, pki, server_config(pki, None), new().configs) as (channel, process):
        assert channel.established.ech is EchStatus.REJECTED
        assert "rejected \n" in process.finish()
