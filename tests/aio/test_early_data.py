"""0-RTT over sockets: what is heard before the handshake is complete, answered, rejected, said again, and replayed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import tcpls
from tcpls.aio.tickets import TicketScope
from tcpls.tls.tickets import Ticket
from tests.aio.ends import Ends, Relay, run

MODES = [tcpls.Negotiate.OFFER, tcpls.Negotiate.OFF]
LIMIT = 16384


@dataclass
class Hearing:
    """A handler that keeps what it hears, says it back reversed, and notes how far the handshake was."""

    words: list[bytes] = field(default_factory=list)
    complete: list[bool] = field(default_factory=list)
    infos: list[tcpls.SessionInfo] = field(default_factory=list)

    async def __call__(self, session: tcpls.Session) -> None:
        self.infos.append(session.info())
        stream = await session.accept_stream()
        assert stream.early is not session.handshake_complete
        data = await stream.read()
        self.complete.append(session.handshake_complete)
        self.words.append(data)
        await stream.write(data[::-1])
        await session.wait_handshake()
        assert session.handshake_complete
        async for more in stream:
            self.words[-1] += more
        await stream.write_eof()
        await session.wait_ended()


async def ask(session: tcpls.Session, size: int) -> bytes:
    stream = session.first_stream
    assert stream is not None
    return await stream.readexactly(size)


async def visit(ends: Ends, port: int, words: bytes, **settings: Any) -> str:
    """A session that begins with these words; what became of 0-RTT."""
    async with ends.connect(port, words, **settings) as session:
        stream = session.first_stream
        assert stream is not None
        await stream.write_eof()
        answer = await stream.readall()
        # What was heard at first, reversed: of many words, some.
        assert answer
        assert words.startswith(answer[::-1])
        said = session.info().early_data
        assert said == str(session.early_data)
    return said


@pytest.mark.clause("RFC 8446 2.3", "RFC 8446 4.2.10")
@pytest.mark.parametrize("ktls", [tcpls.KTLS.OFF, tcpls.KTLS.WHERE_POSSIBLE])
@pytest.mark.parametrize("engine", ["openssl", "minicrypto"])
@pytest.mark.parametrize("mode", MODES)
def test_early_data_is_heard_before_the_handshake_is_complete(
    ends: Ends, mode: tcpls.Negotiate, engine: str, ktls: tcpls.KTLS
) -> None:
    async def test() -> None:
        hearing = Hearing()
        settings: dict[str, Any] = {"tickets": tcpls.MemoryTicketStore(), "tcpls": mode, "engine": engine, "ktls": ktls}
        async with ends.serve(hearing, zero_rtt=LIMIT, engine=engine, ktls=ktls) as server:
            said = [await visit(ends, server.port, b"words %d" % number, **settings) for number in range(3)]
        assert said == ["not offered, there is no ticket for this server", "accepted", "accepted"]
        assert hearing.words == [b"words 0", b"words 1", b"words 2"]
        assert hearing.complete == [True, False, False]
        assert [info.early_data for info in hearing.infos] == ["not offered", "accepted", "accepted"]
        assert "0-RTT: accepted" in hearing.infos[1].lines()
        assert {info.tcpls == "on" for info in hearing.infos} == {mode is tcpls.Negotiate.OFFER}

    run(test())


class Holding(Relay):
    """Lets the first connection pass. Of the next, it holds what the client says after its first flight."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.first = b""
        self.released = asyncio.Event()
        self.change = False
        """Whether what was held is changed by a bit."""

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if writer is not self.writers[-1] or len(self.writers) == 2:
            return await super()._pass(reader, writer)
        self.first = await reader.read(1 << 17)
        writer.write(self.first)
        await self.released.wait()
        while data := await reader.read(1 << 16):
            writer.write(data[:-1] + bytes((data[-1] ^ self.change,)))
        writer.write_eof()
        return None


async def with_ticket(ends: Ends, port: int, **settings: Any) -> dict[str, Any]:
    settings = {"tickets": tcpls.MemoryTicketStore(), **settings}
    await visit(ends, port, b"first words", **settings)
    return settings


@pytest.mark.parametrize("mode", MODES)
def test_the_answer_comes_with_the_first_flight_of_the_server(ends: Ends, mode: tcpls.Negotiate) -> None:
    """One round trip, as 0-RTT is for: the client's Finished is still on its way when the answer is there."""

    async def test() -> None:
        hearing = Hearing()
        async with ends.serve(hearing, zero_rtt=LIMIT) as server, Holding(server.port) as relay:
            settings = await with_ticket(ends, relay.port, tcpls=mode)
            session = await ends.connect(relay.port, b"question", **settings)
            assert await ask(session, 8) == b"noitseuq"
            assert hearing.complete[-1] is False
            relay.released.set()
            stream = session.first_stream
            assert stream is not None
            await stream.write(b" and more")
            await stream.write_eof()
            assert await stream.readall() == b""
            await session.close()
        assert hearing.words[-1] == b"question and more"

    run(test())


class Counting(tcpls.MemoryTicketStore):
    received = 0

    async def put(self, scope: TicketScope, tickets: Sequence[Ticket]) -> None:
        self.received += len(tickets)
        await super().put(scope, tickets)


@pytest.mark.parametrize("leaves", ["with its answer", "with the end of the stream"])
@pytest.mark.parametrize("mode", MODES)
def test_who_leaves_ahead_of_the_tickets_gets_them(ends: Ends, mode: tcpls.Negotiate, leaves: str) -> None:
    """Tickets come behind the client's Finished, an early answer ahead of it; a close reads on to the server's end."""

    async def reverse(session: tcpls.Session) -> None:
        stream = await session.accept_stream()
        await stream.write((await stream.read())[::-1])
        await stream.write_eof()

    async def leave(session: tcpls.Session) -> None:
        stream = session.first_stream
        assert stream is not None
        assert await stream.readexactly(8) == b"noitseuq"
        left.set()
        if leaves == "with the end of the stream":
            await stream.write_eof()
            assert await stream.readall() == b""
        await session.close()

    async def test() -> None:
        async with ends.serve(reverse, zero_rtt=LIMIT) as server, Holding(server.port) as relay:
            store = Counting()
            settings = await with_ticket(ends, relay.port, tcpls=mode, tickets=store)
            before = store.received
            leaving = asyncio.create_task(leave(await ends.connect(relay.port, b"question", **settings)))
            # The client has said that it closes when this test goes on.
            await left.wait()
            assert store.received == before
            relay.released.set()
            await leaving
            assert store.received == 2 * before

    left = asyncio.Event()
    run(test())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [100, LIMIT, 300_000])
def test_what_does_not_fit_follows_behind_the_handshake(ends: Ends, mode: tcpls.Negotiate, size: int) -> None:
    async def test() -> None:
        hearing = Hearing()
        words = bytes(range(256)) * (size // 256) + b"." * (size % 256)
        async with ends.serve(hearing, zero_rtt=LIMIT) as server:
            settings = await with_ticket(ends, server.port, tcpls=mode)
            assert await visit(ends, server.port, words, **settings) == "accepted"
        assert hearing.words[-1] == words
        assert hearing.complete[-1] is False

    run(test())


@pytest.mark.clause("RFC 8446 4.2.10")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"zero_rtt": 0}, "rejected, the server did not take it"),
        ({"zero_rtt": LIMIT // 2}, "rejected, the server did not take it"),
        ({"stream_window": 1 << 16}, "rejected, the server did not take it"),
        ({"groups": ("secp384r1",)}, "rejected, the handshake needed another ClientHello"),
        ({"tickets": 0, "zero_rtt": 0}, "rejected, the session was not resumed"),
    ],
)
def test_rejected_early_data_is_said_once_more(
    ends: Ends, tmp_path: Path, mode: tcpls.Negotiate, other: dict[str, Any], says: str
) -> None:
    async def test() -> None:
        hearing = Hearing()
        shared: dict[str, Any] = {
            "ticket_keys": tcpls.TicketKeyFile(tmp_path / "keys"),
            "replay_store": tcpls.FileReplayStore(tmp_path / "replay"),
        }
        async with ends.serve(hearing, zero_rtt=LIMIT, **shared) as server:
            settings = await with_ticket(ends, server.port, tcpls=mode)
            port = server.port
        # The server's next start is another one in one respect. A ticket is for the port too.
        config = tcpls.ServerConfig(
            certificate=ends.certificate, private_key=ends.key, **{**shared, "zero_rtt": LIMIT, **other}
        )
        async with tcpls.serve(hearing, "127.0.0.1", port, config=config):
            # Ordinary TLS announces no window, so that nothing has changed.
            plain = mode is tcpls.Negotiate.OFF and "stream_window" in other
            assert await visit(ends, port, b"words" * 3000, **settings) == ("accepted" if plain else says)
        assert hearing.words[1:] == [b"words" * 3000]

    run(test())


@pytest.mark.clause("RFC 8446 8.1")
@pytest.mark.parametrize("file", [True, False])
def test_a_replay_is_not_heard(ends: Ends, tmp_path: Path, file: bool) -> None:
    """The first flight as it was, over connections of its own: before and after the original is complete."""

    async def replay(port: int, flight: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(flight)
        assert (await reader.read(1 << 16))[0] == 22
        writer.close()

    async def test() -> None:
        hearing = Hearing()
        store = {"replay_store": tcpls.FileReplayStore(tmp_path / "replay")} if file else {}
        async with ends.serve(hearing, zero_rtt=LIMIT, **store) as server:
            async with Holding(server.port) as relay:
                settings = await with_ticket(ends, relay.port)
                session = await ends.connect(relay.port, b"pay", **settings)
                assert await ask(session, 3) == b"yap"
                await replay(server.port, relay.first)
                relay.released.set()
                await replay(server.port, relay.first)
                await session.close()
            await replay(server.port, relay.first)
        assert hearing.words[1:] == [b"pay"]

    run(test())


def test_a_handshake_that_is_never_completed(ends: Ends) -> None:
    """Early data alone does not keep a session, and nobody who waits for the handshake is told that it is complete."""

    async def test() -> None:
        ended: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        hearing = Hearing()

        async def handler(session: tcpls.Session) -> None:
            try:
                await hearing(session)
            except tcpls.SessionLost as lost:
                ended.set_result(lost)
                raise

        async with (
            ends.serve(handler, zero_rtt=LIMIT, handshake_timeout=0.5) as server,
            Holding(server.port) as relay,
        ):
            settings = await with_ticket(ends, relay.port)
            session = await ends.connect(relay.port, b"early words", **settings)
            assert "the handshake took longer than 0.5 s" in str(await ended)
            await session.abort()
        assert hearing.complete[-1] is False

    run(test())


@pytest.mark.clause("RFC 8446 4.4.4")
def test_a_wrong_last_flight(ends: Ends) -> None:
    async def test() -> None:
        ended: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        hearing = Hearing()

        async def handler(session: tcpls.Session) -> None:
            try:
                await hearing(session)
            except tcpls.PeerError as error:
                ended.set_result(error)
                raise

        async with ends.serve(handler, zero_rtt=LIMIT) as server, Holding(server.port) as relay:
            settings = await with_ticket(ends, relay.port, failover=False)
            relay.change = True
            session = await ends.connect(relay.port, b"early words", **settings)
            relay.released.set()
            error = await ended
            assert isinstance(error, tcpls.PeerError)
            assert error.reason is tcpls.Reason.BAD_RECORD_MAC
            with pytest.raises(tcpls.AlertReceived) as caught:
                await ask(session, 1 << 20)
            assert caught.value.alert == tcpls.Alert.BAD_RECORD_MAC
            await session.abort()

    run(test())


def test_configurations(ends: Ends, tmp_path: Path) -> None:
    async def test() -> None:
        wrong: list[dict[str, Any]] = [{"tickets": 0}, {"ticket_keys": tcpls.TicketKeyFile(tmp_path / "keys")}]
        for settings in wrong:
            with pytest.raises(tcpls.ConfigurationError):
                await ends.serve(Hearing(), zero_rtt=LIMIT, **settings)
        with pytest.raises(tcpls.ConfigurationError):
            await ends.serve(Hearing(), zero_rtt=-1)

    run(test())


def test_words_without_a_store(ends: Ends) -> None:
    """Early data is a wish: without any ticket it is said as soon as that is possible."""

    async def test() -> None:
        hearing = Hearing()
        async with ends.serve(hearing) as server:
            assert await visit(ends, server.port, b"words") == "not offered, there is no ticket for this server"
        assert hearing.words == [b"words"]

    run(test())


@pytest.mark.parametrize("mode", MODES)
def test_a_server_that_closes_at_once_gives_its_tickets_first(ends: Ends, mode: tcpls.Negotiate) -> None:
    """Its answer leaves ahead of the handshake's end, its close behind it: what comes in between is not lost."""

    async def test() -> None:
        async def handler(session: tcpls.Session) -> None:
            stream = await session.accept_stream()
            await stream.write((await stream.read())[::-1])
            await stream.write_eof()

        async def visit(port: int, **settings: Any) -> str:
            session = await ends.connect(port, b"words", **settings)
            stream = session.first_stream
            assert stream is not None
            assert await stream.readall() == b"sdrow"
            await session.close()
            return str(session.early_data)

        async with ends.serve(handler, zero_rtt=LIMIT, tickets=1) as server:
            settings: dict[str, Any] = {"tickets": tcpls.MemoryTicketStore(), "tcpls": mode}
            said = [await visit(server.port, **settings) for _ in range(5)]
        assert said[1:] == ["accepted"] * 4

    run(test())


def test_a_stream_of_the_servers_own_is_not_early(ends: Ends) -> None:
    async def test() -> None:
        early: list[tuple[bool, bool]] = []

        async def handler(session: tcpls.Session) -> None:
            stream = await session.accept_stream()
            other = await session.open_stream()
            early.append((stream.early, other.early))
            await stream.write(await stream.read())
            await session.wait_ended()

        async with ends.serve(handler, zero_rtt=LIMIT) as server:
            settings: dict[str, Any] = {"tickets": tcpls.MemoryTicketStore()}
            for _ in range(2):
                async with ends.connect(server.port, b"words", **settings) as session:
                    assert await ask(session, 5) == b"words"
        assert early == [(False, False), (True, False)]

    run(test())
