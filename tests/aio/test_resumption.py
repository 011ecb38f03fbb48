"""Sessions that resume earlier ones: what is agreed on anew, and when a ticket is not used."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import trustme

import tcpls
from tests.aio.ends import Ends, run

MODES = [tcpls.Negotiate.OFFER, tcpls.Negotiate.OFF]


async def echo(session: tcpls.Session) -> None:
    stream = await session.accept_stream()
    while data := await stream.read(1 << 16):
        await stream.write(data)
    await stream.write_eof()
    await session.wait_ended()


async def visit(ends: Ends, port: int, **settings: Any) -> tcpls.SessionInfo:
    """One session from beginning to end, in which everything that was sent came back."""
    async with ends.connect(port, **settings) as session:
        info = session.info()
        stream = await session.open_stream()
        await stream.write(b"hello")
        await stream.write_eof()
        received = b""
        async for data in stream:
            received += data
        assert received == b"hello"
    return info


@pytest.mark.parametrize("ktls", [tcpls.KTLS.OFF, tcpls.KTLS.WHERE_POSSIBLE])
@pytest.mark.parametrize("engine", ["openssl", "minicrypto"])
@pytest.mark.parametrize("mode", MODES)
def test_the_second_session_resumes_the_first(ends: Ends, mode: tcpls.Negotiate, engine: str, ktls: tcpls.KTLS) -> None:
    async def test() -> None:
        infos: list[tcpls.SessionInfo] = []

        async def handler(session: tcpls.Session) -> None:
            infos.append(session.info())
            await echo(session)

        settings: dict[str, Any] = {"tcpls": mode, "tickets": tcpls.MemoryTicketStore(), "engine": engine, "ktls": ktls}
        async with ends.serve(handler, ktls=ktls) as server:
            first = await visit(ends, server.port, **settings)
            second = await visit(ends, server.port, **settings)
            third = await visit(ends, server.port, **settings)
        assert [each.resumed for each in (first, second, third)] == [False, True, True]
        assert [each.resumed for each in infos] == [False, True, True]
        assert first.signature and not second.signature and not third.signature
        assert second.lines()[0].endswith(", resumed")
        assert {each.tcpls == "on" for each in (first, second, third)} == {mode is tcpls.Negotiate.OFFER}

    run(test())


def test_sessions_without_a_store_ask_for_nothing_and_resume_nothing(ends: Ends) -> None:
    async def test() -> None:
        async with ends.serve(echo) as server:
            assert not (await visit(ends, server.port)).resumed
            assert not (await visit(ends, server.port)).resumed

    run(test())


def test_a_server_without_tickets(ends: Ends) -> None:
    async def test() -> None:
        store = tcpls.MemoryTicketStore()
        async with ends.serve(echo, tickets=0) as server:
            assert not (await visit(ends, server.port, tickets=store)).resumed
            assert not (await visit(ends, server.port, tickets=store)).resumed

    run(test())


def test_sessions_at_the_same_time_use_a_ticket_each(ends: Ends) -> None:
    async def test() -> None:
        store = tcpls.MemoryTicketStore()
        async with ends.serve(echo) as server:
            await visit(ends, server.port, tickets=store)
            infos = await asyncio.gather(*(visit(ends, server.port, tickets=store) for _ in range(5)))
            # The first session brought two.
            assert sum(info.resumed for info in infos) == 2
            infos = await asyncio.gather(*(visit(ends, server.port, tickets=store) for _ in range(4)))
            assert all(info.resumed for info in infos)

    run(test())


@pytest.mark.parametrize(
    "change",
    [
        {"tcpls": tcpls.Negotiate.OFF},
        {"verify": False, "ca_file": None},
        {"ocsp": True},
        {"server_name": "127.0.0.1", "verify": False, "ca_file": None},
    ],
)
def test_a_session_of_other_settings_is_not_resumed(ends: Ends, change: dict[str, Any]) -> None:
    async def test() -> None:
        store = tcpls.MemoryTicketStore()
        async with ends.serve(echo) as server:
            await visit(ends, server.port, tickets=store)
            settings: dict[str, Any] = {"ca_file": ends.ca, "server_name": "localhost", "tickets": store}
            changed = tcpls.ClientConfig(**(settings | change))
            async with tcpls.connect("127.0.0.1", server.port, config=changed) as session:
                assert not session.info().resumed
            assert (await visit(ends, server.port, tickets=store)).resumed

    run(test())


def test_other_authorities_do_not_take_over_what_was_verified_before(ends: Ends, tmp_path: Path) -> None:
    """A ticket of a server that one bundle verified says nothing to whoever trusts another bundle."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))

    async def test() -> None:
        store = tcpls.MemoryTicketStore()
        async with ends.serve(echo) as server:
            await visit(ends, server.port, tickets=store)
            config = tcpls.ClientConfig(ca_file=tmp_path / "other.pem", server_name="localhost", tickets=store)
            with pytest.raises(tcpls.CertificateError):
                await tcpls.connect("127.0.0.1", server.port, config=config)

    run(test())


def test_alpn_and_tcpls_are_agreed_on_anew(ends: Ends) -> None:
    async def test() -> None:
        store = tcpls.MemoryTicketStore()
        async with ends.serve(echo, alpn=("one", "two"), tcpls=tcpls.Negotiate.OFF) as server:
            first = await visit(ends, server.port, tickets=store, alpn=("one",))
            second = await visit(ends, server.port, tickets=store, alpn=("two",))
        assert (first.alpn, second.alpn, second.resumed) == ("one", "two", True)
        assert second.tcpls == "off, the server did not accept TCPLS"

    run(test())


def test_a_server_of_the_same_key_file_resumes_and_another_does_not(ends: Ends, tmp_path: Path) -> None:
    async def test() -> None:
        store = tcpls.FileTicketStore(tmp_path / "tickets")
        shared = tmp_path / "keys"
        async with (
            ends.serve(echo, ticket_keys=tcpls.TicketKeyFile(shared)) as one,
            ends.serve(echo, ticket_keys=tcpls.TicketKeyFile(shared)) as two,
        ):
            await visit(ends, one.port, tickets=store)
            contents = (tmp_path / "tickets").read_text().replace(f'"port": {one.port}', f'"port": {two.port}')
            (tmp_path / "tickets").write_text(contents)
            assert (await visit(ends, two.port, tickets=store)).resumed
            port = two.port
        async with ends.serve(echo) as other:
            contents = (tmp_path / "tickets").read_text().replace(f'"port": {port}', f'"port": {other.port}')
            (tmp_path / "tickets").write_text(contents)
            assert not (await visit(ends, other.port, tickets=store)).resumed, "it has keys of its own"
        assert shared.stat().st_mode & 0o777 == 0o600

    run(test())


@pytest.mark.parametrize("first", MODES)
def test_a_ticket_of_either_kind_of_session_resumes_the_other(
    ends: Ends, tmp_path: Path, first: tcpls.Negotiate
) -> None:
    """The server learns TCPLS, or forgets it, from one start to the next."""

    async def test() -> None:
        store, shared = tcpls.FileTicketStore(tmp_path / "tickets"), tmp_path / "keys"
        async with ends.serve(echo, ticket_keys=tcpls.TicketKeyFile(shared), tcpls=first) as server:
            before = await visit(ends, server.port, tickets=store)
            port = server.port
        (then,) = (mode for mode in MODES if mode is not first)
        async with ends.serve(echo, ticket_keys=tcpls.TicketKeyFile(shared), tcpls=then) as server:
            contents = (tmp_path / "tickets").read_text().replace(f'"port": {port}', f'"port": {server.port}')
            (tmp_path / "tickets").write_text(contents)
            after = await visit(ends, server.port, tickets=store)
        assert after.resumed
        assert (before.tcpls == "on", after.tcpls == "on") == (
            first is tcpls.Negotiate.OFFER,
            then is tcpls.Negotiate.OFFER,
        )

    run(test())


def test_a_key_file_that_breaks_stops_no_handshake(
    ends: Ends, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        store = tcpls.MemoryTicketStore()
        shared = tmp_path / "keys"
        async with ends.serve(echo, ticket_keys=tcpls.TicketKeyFile(shared)) as server:
            shared.write_text("broken")
            shared.chmod(0o600)
            assert not (await visit(ends, server.port, tickets=store)).resumed
            assert (await visit(ends, server.port, tickets=store)).resumed
        assert shared.read_text() == "broken"
        with pytest.raises(tcpls.ConfigurationError, match="no file of ticket keys"):
            tcpls.TicketKeyFile(shared)

    run(test())
    assert "going on with a key of this process's own" in caplog.text


def test_a_store_that_fails_at_take_ends_the_attempt(ends: Ends) -> None:
    class Broken(tcpls.MemoryTicketStore):
        async def take(self, scope: tcpls.TicketScope) -> tcpls.Ticket | None:
            raise tcpls.ConfigurationError("the store is gone")

    async def test() -> None:
        async with ends.serve(echo) as server:
            with pytest.raises(tcpls.ConfigurationError, match="the store is gone"):
                await ends.connect(server.port, tickets=Broken())

    run(test())
