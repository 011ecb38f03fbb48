"""Clients with certificates, and servers with several: over the library."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

import tcpls
from tests.aio.ends import Ends, run
from tests.kernel.conftest import why_not
from tests.unit.kernel.objects import shipped


@dataclass(frozen=True)
class Clients:
    """An authority of clients, and one client of it."""

    ca: Path
    credential: tcpls.Credential
    fingerprint: str

    def server(self, auth: tcpls.ClientAuth = tcpls.ClientAuth.REQUIRE) -> dict[str, Any]:
        return {"client_auth": auth, "client_ca_file": self.ca}


def write(folder: Path, authority: trustme.CA, *names: str, **settings: Any) -> tuple[tcpls.Credential, str]:
    leaf = authority.issue_cert(*names, **settings)
    stem = names[0] if names else settings["common_name"]
    certificate, key = folder / f"{stem}.pem", folder / f"{stem}.key"
    certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(str(key))
    der = x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(Encoding.DER)
    return tcpls.Credential(certificate=certificate, private_key=key), hashlib.sha256(der).hexdigest()


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    folder = tmp_path_factory.mktemp("clients")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    return Clients(folder / "ca.pem", *write(folder, authority, "alice@client.example"))


def own(credential: tcpls.Credential) -> dict[str, Any]:
    return {"certificate": credential.certificate, "private_key": credential.private_key}


@pytest.mark.parametrize("auth", [tcpls.ClientAuth.REQUEST, tcpls.ClientAuth.REQUIRE])
def test_a_client_that_is_known(ends: Ends, clients: Clients, auth: tcpls.ClientAuth) -> None:
    async def test() -> None:
        async with ends.pair(server=clients.server(auth), **own(clients.credential)) as (client, server):
            assert server.info().peer.endswith(f"certificate {clients.fingerprint}, verified")
            assert f"the client is {server.info().peer}" in server.info().lines()
            assert client.info().peer.startswith("localhost, certificate ")
            assert client.info().peer.endswith(", verified")

    run(test())


def test_a_client_that_is_not(ends: Ends, clients: Clients) -> None:
    async def test() -> None:
        async with ends.pair(server=clients.server(tcpls.ClientAuth.REQUEST)) as (_, server):
            assert server.info().peer == ""
            assert not any(line.startswith("the client is") for line in server.info().lines())

    run(test())


async def _never(session: tcpls.Session) -> None:
    raise AssertionError("no session comes of this")


def test_a_client_that_is_not_known_hears_of_it(ends: Ends, clients: Clients) -> None:
    async def test() -> None:
        async with ends.serve(_never, **clients.server()) as server:
            client = await ends.connect(server.port)
            ended = await client.wait_ended()
            assert isinstance(ended, tcpls.AlertReceived)
            assert ended.alert == tcpls.Alert.CERTIFICATE_REQUIRED
            await client.abort()

    run(test())


def test_a_resumed_client_is_still_known(ends: Ends, clients: Clients) -> None:
    async def test() -> None:
        store = tcpls.MemoryTicketStore()

        async def handler(session: tcpls.Session) -> None:
            stream = await session.accept_stream()
            await stream.write(session.info().peer.encode())
            await stream.write_eof()

        async with ends.serve(handler, **clients.server()) as server:
            for resumed in (False, True):
                settings = {"tickets": store, **own(clients.credential)}
                async with ends.connect(server.port, **settings) as session:
                    assert session.info().resumed is resumed
                    stream = await session.open_stream()
                    await stream.write_eof()
                    said = await stream.read()
                    assert said.decode().endswith(f"certificate {clients.fingerprint}, verified")
                    expected = "localhost, as in the session that is resumed, verified"
                    assert (session.info().peer == expected) is resumed
            # The ticket is of a session with that client, and nobody else's.
            async with ends.connect(server.port, tickets=store) as session:
                assert not session.info().resumed

    run(test())


@pytest.mark.parametrize("engine", ["openssl", "minicrypto"])
def test_files_that_are_gone_by_the_time_of_a_connection(
    ends: Ends, clients: Clients, tmp_path: Path, engine: str
) -> None:
    """A configuration that has read them needs none, for any number of sessions; one that names others reads those."""

    async def until_its_end(session: tcpls.Session) -> None:
        await session.wait_ended()

    async def test() -> None:
        mine = tmp_path / "chain.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
        assert clients.credential.certificate is not None
        for copy, original in zip(
            mine, (clients.credential.certificate, clients.credential.private_key, ends.ca), strict=True
        ):
            copy.write_bytes(Path(original).read_bytes())
        named = tcpls.ClientConfig(
            ca_file=mine[2],
            server_name="localhost",
            credentials=(tcpls.Credential(certificate=mine[0], private_key=mine[1]),),
            tickets=tcpls.MemoryTicketStore(),
            engine=engine,
        )
        config = named.with_files_read()
        assert config == named
        for file in mine:
            file.unlink()
        async with ends.serve(until_its_end, **clients.server()) as server:
            for resumed in (False, True):
                async with tcpls.connect("127.0.0.1", server.port, config=config) as session:
                    assert session.info().resumed is resumed
                    await session.ping()
            for again in (named, replace(config, ca_file=tmp_path / "others.pem")):
                with pytest.raises(tcpls.ConfigurationError, match="No such file"):
                    await tcpls.connect("127.0.0.1", server.port, config=again)

    run(test())


def test_a_server_of_several_names(ends: Ends, tmp_path: Path) -> None:
    async def test() -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        made = [write(tmp_path, authority, name) for name in ("one.example", "*.two.example")]
        config = {"credentials": tuple(credential for credential, _ in made)}

        async def handler(session: tcpls.Session) -> None:
            await session.close()

        async with ends.serve(handler, **config) as server:
            for name, fingerprint in (("one.example", made[0][1]), ("a.two.example", made[1][1])):
                settings = tcpls.ClientConfig(ca_file=tmp_path / "ca.pem", server_name=name)
                async with tcpls.connect("127.0.0.1", server.port, config=settings) as session:
                    assert f"certificate {fingerprint}, verified" in session.info().peer
            async with ends.connect(server.port) as session:
                assert session.info().peer.startswith("localhost,")

    run(test())


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"client_auth": tcpls.ClientAuth.REQUIRE}, "client authentication needs the clients' authorities or keys"),
        ({"client_ca_file": "ca.pem"}, "client authentication needs the clients' authorities or keys"),
        ({"private_key": None}, "go together"),
        ({"certificate": None}, "go together"),
        ({"certificate": None, "private_key": None}, "a server needs a certificate"),
        ({"client_auth": tcpls.ClientAuth.REQUEST, "client_ca_file": "/nowhere/ca.pem"}, "/nowhere/ca.pem: No such"),
    ],
)
def test_configurations_of_servers(ends: Ends, settings: dict[str, Any], complaint: str) -> None:
    async def test() -> None:
        whole = {"certificate": ends.certificate, "private_key": ends.key, **settings}
        async with tcpls.serve(_never, "127.0.0.1", 0, config=tcpls.ServerConfig(**whole)):
            raise AssertionError("it listens")

    with pytest.raises(tcpls.ConfigurationError, match=complaint):
        run(test())


def public_key(path: Path, *credentials: tcpls.Credential) -> Path:
    """A file of the public halves."""
    keys = [load_pem_private_key(Path(each.private_key).read_bytes(), None) for each in credentials]
    path.write_bytes(
        b"".join(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for key in keys)
    )
    return path


@pytest.mark.parametrize("engine", ["openssl", "minicrypto"])
def test_raw_public_keys(ends: Ends, clients: Clients, tmp_path: Path, engine: str) -> None:
    server_key = tcpls.Credential(private_key=ends.key)
    client_key = tcpls.Credential(private_key=clients.credential.private_key)
    keys = public_key(tmp_path / "client.pub", client_key)
    pinned = public_key(tmp_path / "server.pub", client_key, server_key)

    async def handler(session: tcpls.Session) -> None:
        stream = await session.accept_stream()
        await stream.write(session.info().peer.encode())
        await stream.write_eof()

    async def test() -> None:
        server = tcpls.ServerConfig(
            credentials=(server_key,), client_auth=tcpls.ClientAuth.REQUIRE, client_keys=keys, engine=engine
        )
        client = tcpls.ClientConfig(
            server_keys=pinned, credentials=(client_key,), engine=engine, tickets=tcpls.MemoryTicketStore()
        )
        async with tcpls.serve(handler, "127.0.0.1", 0, config=server) as listening:
            for resumed in (False, True):
                async with tcpls.connect("127.0.0.1", listening.port, config=client) as session:
                    assert session.info().resumed is resumed
                    assert resumed or session.info().peer.startswith("raw public key ")
                    assert session.info().peer.endswith(", verified")
                    stream = await session.open_stream()
                    await stream.write_eof()
                    said = (await stream.read()).decode()
                    assert said.startswith("raw public key ") and said.endswith(", verified")
            wrong = tcpls.ClientConfig(server_keys=keys, credentials=(client_key,), engine=engine)
            with pytest.raises(tcpls.CertificateError, match="none of those that are expected"):
                await tcpls.connect("127.0.0.1", listening.port, config=wrong)

    run(test())


@pytest.mark.parametrize("contents", [b"", b"-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n"])
def test_files_that_have_no_public_keys(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "keys.pub").write_bytes(contents)
    config = tcpls.ClientConfig(server_keys=tmp_path / "keys.pub")
    with pytest.raises(tcpls.ConfigurationError, match=r"keys\.pub: no public keys"):
        run(_connect(config))


async def _connect(config: tcpls.ClientConfig) -> None:
    await tcpls.connect("127.0.0.1", 1, config=config)


@pytest.mark.kernel
def test_a_program_from_a_peer_that_is_known(ends: Ends, clients: Clients) -> None:
    if reason := why_not():
        pytest.skip(reason)
    policy = tcpls.ProgramPolicy(tcpls.ProgramMode.AUTHENTICATED)

    async def test() -> None:
        with tcpls.HelperClient.spawn(policy) as helper:
            receiving = {"programs": policy, "helper": helper, **clients.server(tcpls.ClientAuth.REQUEST)}
            async with ends.pair(server=receiving, **own(clients.credential)) as (client, server):
                shipment = await client.ship_program(shipped("reno"))
                assert server.congestion() == shipment.algorithm
            async with ends.pair(server=receiving) as (client, server):
                former = server.congestion()
                with pytest.raises(tcpls.ProgramRefused, match="needs an authenticated peer"):
                    await client.ship_program(shipped("reno"))
                assert server.congestion() == former
            # A client knows its server, unless it was told not to care.
            receiving = {"programs": policy, "helper": helper}
            for verify in (True, False):
                async with ends.pair(verify=verify, **receiving) as (client, server):
                    stream = await client.open_stream()
                    await stream.write(b"first")
                    await server.accept_stream()
                    if verify:
                        shipment = await server.ship_program(shipped("cubic"))
                        assert client.congestion() == shipment.algorithm
                    else:
                        with pytest.raises(tcpls.ProgramRefused, match="needs an authenticated peer"):
                            await server.ship_program(shipped("cubic"))

    run(test())
