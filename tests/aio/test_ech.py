"""Encrypted ClientHello in sessions: what both ends say of it, the second try, and what it does not come to."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

import tcpls
from tcpls.tls.algorithms import Group
from tcpls.tls.ech.configs import write_configs
from tcpls.tls.ech.keys import EchFile, generate, read_file, write_pem
from tcpls.tls.esni import write_keys
from tcpls.tls.hpke import Kem
from tests.aio.ends import Ends, Relay, run
from tests.aio.test_early_data import Hearing
from tests.aio.test_early_data import visit as begin
from tests.aio.test_resumption import echo, visit
from tests.engine import ENGINE, NAME

PUBLIC_NAME = "public.example"

MakeKey = Callable[[], tuple[Path, bytes]]


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Ends:
    """With a certificate for the public name too."""
    folder = tmp_path_factory.mktemp("identity")
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost", PUBLIC_NAME)
    made = Ends(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(str(made.ca))
    made.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(str(made.key))
    return made


@pytest.fixture
def make_key(tmp_path: Path) -> MakeKey:
    """A file for a server, and the list for its clients."""

    def make() -> tuple[Path, bytes]:
        file: EchFile = generate(ENGINE, os.urandom, PUBLIC_NAME)
        path = tmp_path / f"{os.urandom(8).hex()}.pem"
        path.write_text(write_pem(file))
        return path, write_configs(file.configs)

    return make


async def both(
    ends: Ends, server: dict[str, Any], **settings: Any
) -> tuple[tcpls.SessionInfo, list[tcpls.SessionInfo]]:
    """One visit: what the client says, and what the server says of every connection."""
    infos: list[tcpls.SessionInfo] = []

    async def handler(session: tcpls.Session) -> None:
        infos.append(session.info())
        await echo(session)

    async with ends.serve(handler, engine=NAME, **server) as listening:
        return await visit(ends, listening.port, engine=NAME, **settings), infos


@pytest.mark.parametrize("mode", [tcpls.Negotiate.OFFER, tcpls.Negotiate.OFF])
def test_accepted(ends: Ends, make_key: MakeKey, mode: tcpls.Negotiate) -> None:
    async def test() -> None:
        path, configs = make_key()
        ours, (theirs,) = await both(ends, {"ech_keys": (path,)}, ech=configs, tcpls=mode)
        assert ours.ech == theirs.ech == "accepted"
        assert (ours.tcpls == "on") is (mode is tcpls.Negotiate.OFFER)
        assert theirs.server_name == "localhost"
        assert "Encrypted ClientHello: accepted" in ours.lines()

    run(test())


def test_what_the_wire_shows(ends: Ends, make_key: MakeKey) -> None:
    seen = bytearray()

    class Tap(Relay):
        async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(1 << 16):
                seen.extend(data)
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def test() -> None:
        path, configs = make_key()
        async with ends.serve(echo, ech_keys=(path,)) as server, Tap(server.port) as tap:
            await visit(ends, tap.port, ech=configs)
            assert PUBLIC_NAME.encode() in seen and b"localhost" not in seen
            seen.clear()
            await visit(ends, tap.port)
            assert b"localhost" in seen

    run(test())


def test_the_second_try(ends: Ends, make_key: MakeKey) -> None:
    async def test() -> None:
        (path, _), (_, outdated) = make_key(), make_key()
        ours, infos = await both(ends, {"ech_keys": (path,)}, ech=outdated)
        assert ours.ech.startswith("accepted, with configurations that the server sent")
        assert [info.ech.partition(":")[0] for info in infos] == ["not opened", "accepted"]
        assert [info.server_name for info in infos] == [PUBLIC_NAME, "localhost"]

    run(test())


def test_keys_that_clients_are_not_told_any_more(ends: Ends, make_key: MakeKey) -> None:
    async def test() -> None:
        (new, _), (old, configs) = make_key(), make_key()
        ours, _ = await both(ends, {"ech_keys": (new,), "ech_old_keys": (old,)}, ech=configs)
        assert ours.ech == "accepted"

    run(test())


def test_there_is_no_third_try(ends: Ends, make_key: MakeKey) -> None:
    async def test() -> None:
        (path, _), (_, outdated), (_, other) = make_key(), make_key(), make_key()
        count = 0

        async def handler(session: tcpls.Session) -> None:
            nonlocal count
            count += 1
            await session.wait_ended()

        # A server that sends configurations of keys that it has not: its file has both.
        mixed = path.with_name("mixed.pem")
        pem = path.read_text().partition("-----BEGIN ECHCONFIG")[0]
        own = list_of(path)
        mixed.write_text(pem + armoured(other[2:] + own[2:]))
        async with ends.serve(handler, ech_keys=(mixed,)) as server:
            with pytest.raises(tcpls.EchRejected) as caught:
                await ends.connect(server.port, ech=outdated)
            assert caught.value.retry_configs is not None and caught.value.retry_configs[2:] == other[2:] + own[2:]
        assert count == 2

    run(test())


def list_of(path: Path) -> bytes:
    return write_configs(read_file(path.read_bytes(), "file").configs)


def armoured(entries: bytes) -> str:
    text = base64.b64encode(len(entries).to_bytes(2, "big") + entries).decode()
    return f"-----BEGIN ECHCONFIG-----\n{text}\n-----END ECHCONFIG-----\n"


def test_a_server_without(ends: Ends, make_key: MakeKey) -> None:
    async def test() -> None:
        _, configs = make_key()
        async with ends.serve(echo) as server:
            with pytest.raises(tcpls.EchRejected) as caught:
                await ends.connect(server.port, ech=configs)
        assert (caught.value.public_name, caught.value.retry_configs) == (PUBLIC_NAME, b"")

    run(test())


def test_nothing_is_believed_of_a_server_that_proves_nothing(ends: Ends, make_key: MakeKey) -> None:
    async def test() -> None:
        (path, _), (_, outdated) = make_key(), make_key()
        async with ends.serve(echo, ech_keys=(path,)) as server:
            with pytest.raises(tcpls.EchRejected) as caught:
                await ends.connect(server.port, ech=outdated, verify=False)
        assert caught.value.retry_configs is None

    run(test())


def test_resumption_and_grease(ends: Ends, make_key: MakeKey) -> None:
    async def test() -> None:
        path, configs = make_key()
        store = tcpls.MemoryTicketStore()
        async with ends.serve(echo, ech_keys=(path,)) as server:
            infos = [await visit(ends, server.port, ech=configs, tickets=store) for _ in range(2)]
            infos.append(await visit(ends, server.port, ech_grease=True, tickets=store))
        assert [(info.ech, info.resumed) for info in infos] == [
            ("accepted", False),
            ("accepted", True),
            ("grease", True),
        ]

    run(test())


@pytest.mark.parametrize("mode", [tcpls.Negotiate.OFFER, tcpls.Negotiate.OFF])
def test_early_data(ends: Ends, make_key: MakeKey, mode: tcpls.Negotiate) -> None:
    """Under keys that the server has not, it is said once more, and heard once."""

    async def test() -> None:
        (path, configs), (_, outdated) = make_key(), make_key()
        hearing = Hearing()
        settings: dict[str, Any] = {"tickets": tcpls.MemoryTicketStore(), "tcpls": mode, "engine": NAME}
        async with ends.serve(hearing, zero_rtt=1 << 14, ech_keys=(path,), engine=NAME) as server:
            said = [
                await begin(ends, server.port, b"words %d" % number, ech=ech, **settings)
                for number, ech in enumerate((configs, configs, outdated, configs))
            ]
        # The second try has the other one of the two tickets that the session before it gave.
        assert [each.partition(",")[0] for each in said] == ["not offered", "accepted", "accepted", "accepted"]
        assert hearing.words == [b"words 0", b"words 1", b"words 2", b"words 3"]

    run(test())


def test_a_name_that_is_not_proved_is_told(
    ends: Ends, make_key: MakeKey, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        file = tmp_path / "other.pem"
        file.write_text(write_pem(generate(ENGINE, os.urandom, "other.example")))
        with caplog.at_level(logging.WARNING, "tcpls"):
            async with ends.serve(echo, ech_keys=(file, make_key()[0])):
                pass

    run(test())
    assert [record.message for record in caplog.records] == [
        "no certificate is for the public name other.example: clients with old keys cannot get new ones"
    ]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"ech": b"nonsense"}, "no list of ECH configurations"),
        ({"ech": b"\x00\x05\xfe\x0a\x00\x01x"}, "no configuration"),
        ({"ech": b"\x00\x05\xfe\x0d\x00\x01x"}, "no list of ECH configurations"),
    ],
)
def test_lists_that_are_none(ends: Ends, settings: dict[str, Any], complaint: str) -> None:
    async def test() -> None:
        with pytest.raises(tcpls.ConfigurationError, match=complaint):
            await ends.connect(9, **settings)

    run(test())


def test_files_that_are_none(ends: Ends, make_key: MakeKey, tmp_path: Path) -> None:
    async def test() -> None:
        path, _ = make_key()
        for settings, complaint in (
            ({"ech_keys": (tmp_path / "absent",)}, "absent: No such file"),
            ({"ech_keys": (ends.key,)}, "no list of ECH configurations"),
            ({"ech_old_keys": (path,)}, "must be current"),
        ):
            with pytest.raises(tcpls.ConfigurationError, match=complaint):
                await ends.serve(echo, **settings)

    run(test())


def test_the_older_form(ends: Ends, tmp_path: Path) -> None:
    async def test() -> None:
        private = os.urandom(32)
        share = ENGINE.static_share(Group.X25519, private)
        published = write_keys(ENGINE, (share,), (0, 1 << 40), public_name=PUBLIC_NAME)
        files = tmp_path / "esni", tmp_path / "esni.key"
        files[0].write_bytes(published)
        files[1].write_text(write_pem(EchFile((), private, Kem.X25519_HKDF_SHA256)))
        ours, (theirs,) = await both(ends, {"esni_keys": (files,)}, esni=base64.b64encode(published))
        assert ours.ech == theirs.ech and "Encrypted SNI" in ours.ech
        assert theirs.server_name == "localhost"
        with pytest.raises(tcpls.ConfigurationError, match=r"esni\.key: no private key"):
            files[1].write_text("nothing")
            await ends.serve(echo, esni_keys=(files,))
        with pytest.raises(tcpls.ConfigurationError, match="no keys for Encrypted SNI"):
            await ends.connect(9, esni=b"nothing")

    run(test())
