"""asyncio's connections over TCPLS: what is particular to it, and its streams against those of asyncio's own TLS."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

import tcpls
from tests.aio.ends import Ends, Relay, run
from tests.aio.test_transport_contract import MODES, Recorder

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def client_config(ends: Ends, **settings: Any) -> tcpls.ClientConfig:
    return tcpls.ClientConfig(ca_file=ends.ca, server_name="localhost", failover=False, **settings)


def server_config(ends: Ends, **settings: Any) -> tcpls.ServerConfig:
    return tcpls.ServerConfig(certificate=ends.certificate, private_key=ends.key, failover=False, **settings)


def port_of(server: tcpls.StreamServer) -> int:
    return int(server.sockets[0].getsockname()[1])


class Accepting:
    """A factory of protocols that tells of each."""

    def __init__(self, kind: Callable[[], Recorder] = Recorder) -> None:
        self._kind = kind
        self.made: asyncio.Queue[Recorder] = asyncio.Queue()

    def __call__(self) -> Recorder:
        protocol = self._kind()
        self.made.put_nowait(protocol)
        return protocol


# Ends of connections.


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("by_server", [False, True])
def test_who_gives_up_tells_the_other_end(ends: Ends, mode: tcpls.Negotiate, by_server: bool) -> None:
    async def test() -> None:
        accepted = Accepting()
        async with await tcpls.create_server(accepted, "127.0.0.1", 0, config=server_config(ends)) as server:
            config = client_config(ends, tcpls=mode)
            _, client = await tcpls.create_connection(Recorder, "127.0.0.1", port_of(server), config=config)
            there = await accepted.made.get()
            client.transport.write(b"x")
            await there.receive(1)
            giving_up, told = (there, client) if by_server else (client, there)
            giving_up.transport.abort()
            assert await giving_up.lost is None
            error = await told.lost
            assert isinstance(error, ConnectionResetError)
            assert error.errno == 104
            if mode is tcpls.Negotiate.OFF:
                assert isinstance(error, tcpls.AlertReceived)
            elif by_server:
                # The stream is given up; the session is the client's.
                assert isinstance(error, tcpls.StreamReset)
                assert (error.code, error.stopped) == (1, False)
            else:
                assert isinstance(error, tcpls.SessionClosed)
                assert (error.code, error.reason) == (1, "the connection was given up")
            assert told.seen[-1] == ("lost", "ConnectionError")

    run(test())


def test_a_session_that_is_lost_is_a_reset_at_both_ends(ends: Ends) -> None:
    async def test() -> None:
        accepted = Accepting()
        async with (
            await tcpls.create_server(accepted, "127.0.0.1", 0, config=server_config(ends)) as server,
            Relay(port_of(server)) as relay,
        ):
            _, client = await tcpls.create_connection(Recorder, "127.0.0.1", relay.port, config=client_config(ends))
            there = await accepted.made.get()
            client.transport.write(b"before")
            await there.receive(6)
            relay.reset()
            for protocol in (client, there):
                error = await protocol.lost
                assert isinstance(error, tcpls.SessionLost)
                assert isinstance(error, ConnectionResetError)
                assert protocol.transport.is_closing()
                protocol.transport.write(b"nobody reads this")

    run(test())


def test_a_close_that_the_peer_cannot_confirm_is_told(ends: Ends) -> None:
    async def test() -> None:
        accepted = Accepting()
        async with (
            await tcpls.create_server(accepted, "127.0.0.1", 0, config=server_config(ends)) as server,
            Relay(port_of(server)) as relay,
        ):
            _, writer = await tcpls.open_connection("127.0.0.1", relay.port, config=client_config(ends))
            await accepted.made.get()
            relay.open.clear()
            writer.write(b"last words")
            writer.close()
            await asyncio.sleep(0)
            relay.end()
            with pytest.raises(tcpls.SessionLost) as lost:
                await writer.wait_closed()
            assert isinstance(lost.value, ConnectionResetError)

    run(test())


def test_what_came_before_a_loss_is_read_first(ends: Ends) -> None:
    """Even by a protocol that had paused."""

    async def test() -> None:
        accepted = Accepting()
        async with (
            await tcpls.create_server(accepted, "127.0.0.1", 0, config=server_config(ends)) as server,
            Relay(port_of(server)) as relay,
        ):
            _, client = await tcpls.create_connection(Recorder, "127.0.0.1", relay.port, config=client_config(ends))
            there = await accepted.made.get()
            while there.transport is None:
                await asyncio.sleep(0)
            there.transport.pause_reading()
            client.transport.write(bytes(500_000))
            session = there.transport.get_extra_info("tcpls_session")
            await client.transport.get_extra_info("tcpls_session").ping()
            relay.reset()
            await session.wait_ended()
            assert there.seen == ["made"]
            there.transport.resume_reading()
            assert isinstance(await there.lost, tcpls.SessionLost)
            assert there.size == 500_000

    run(test())


def test_a_peer_that_ends_the_session_ends_its_streams(ends: Ends) -> None:
    """A client that is no protocol: its close says that it has sent everything."""

    async def test() -> None:
        accepted = Accepting()
        async with await tcpls.create_server(accepted, "127.0.0.1", 0, config=server_config(ends)) as server:
            async with ends.connect(port_of(server)) as session:
                stream = await session.open_stream()
                await stream.write(b"all")
            there = await accepted.made.get()
            assert await there.lost is None
            assert there.seen == ["made", "data", "eof", ("lost", None)]

            # Also of those that would keep the connection open, whether they have ended their direction or not.
            for ended in (False, True):
                async with ends.connect(port_of(server)) as session:
                    await (await session.open_stream()).write(b"all")
                    there = await accepted.made.get()
                    there.keep_open = True
                    await there.receive(3)
                    if ended:
                        there.transport.write_eof()
                assert await there.lost is None
                assert there.seen == ["made", "data", "eof", ("lost", None)]

    run(test())


def test_a_peer_that_stops_reading_is_found_out_by_writing(ends: Ends) -> None:
    async def test() -> None:
        accepted = Accepting()
        async with await tcpls.create_server(accepted, "127.0.0.1", 0, config=server_config(ends)) as server:
            session = await ends.connect(port_of(server))
            stream = await session.open_stream()
            await stream.write(b"x")
            there = await accepted.made.get()
            await there.receive(1)
            stream.stop_sending(7)
            await session.ping()
            assert there.seen == ["made", "data"]
            there.transport.write(b"nobody reads this")
            error = await there.lost
            assert isinstance(error, tcpls.StreamReset)
            assert isinstance(error, ConnectionError)
            assert (error.code, error.stopped) == (7, True)
            await session.close()

    run(test())


def test_a_peer_that_closes_before_it_has_everything_is_told_to_who_wrote_it(ends: Ends) -> None:
    async def test() -> None:
        accepted = Accepting()
        async with await tcpls.create_server(accepted, "127.0.0.1", 0, config=server_config(ends)) as server:
            session = await ends.connect(port_of(server))
            stream = await session.open_stream()
            await stream.write(b"x")
            there = await accepted.made.get()
            there.keep_open = True
            await there.receive(1)
            # More than goes on its way, and less than the buffer that would make the protocol pause.
            there.transport.set_write_buffer_limits(high=1 << 30)
            there.transport.write(bytes(64 << 20))
            closing = asyncio.create_task(session.close())
            error = await there.lost
            assert isinstance(error, ConnectionResetError)
            assert "pause" not in there.seen
            await asyncio.gather(closing, return_exceptions=True)

    run(test())


def test_an_ordinary_client_that_stays_behind_the_end_is_left(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's protocol has closed: the session does not wait for whatever the client does."""
    monkeypatch.setattr("tcpls.aio.transport.LINGER", 0.1)

    class Closing(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.close()

    async def test() -> None:
        accepted = Accepting(Closing)
        config = server_config(ends, max_sessions=1)
        context = ssl.create_default_context(cafile=str(ends.ca))
        async with await tcpls.create_server(accepted, "127.0.0.1", 0, config=config) as server:
            plain = await asyncio.open_connection("127.0.0.1", port_of(server))
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    plain[1].write(outgoing.read())
                    incoming.write(await plain[0].read(1 << 16))
            tls.write(b"x")
            plain[1].write(outgoing.read())
            there = await accepted.made.get()
            # Nothing is closed here, and the one session that there may be is free again.
            assert await there.lost is None
            assert there.seen == ["made", "data", ("lost", None)]
            session = there.transport.get_extra_info("tcpls_session")
            await session.wait_ended()
            _, client = await tcpls.create_connection(
                Recorder, "127.0.0.1", port_of(server), config=client_config(ends)
            )
            client.transport.close()
            await client.lost
            plain[1].close()

    run(test())


def test_what_the_handshake_refuses_is_a_connection_error_too(ends: Ends) -> None:
    async def test() -> None:
        async with await tcpls.create_server(Recorder, "127.0.0.1", 0, config=server_config(ends)) as server:
            wrong = tcpls.ClientConfig(ca_file=ends.ca, server_name="elsewhere.example")
            with pytest.raises(ConnectionError) as refused:
                await tcpls.create_connection(Recorder, "127.0.0.1", port_of(server), config=wrong)
            assert isinstance(refused.value, tcpls.CertificateError)
            assert (refused.value.reason, refused.value.alert) == (tcpls.Reason.WRONG_NAME, 42)
        with pytest.raises(tcpls.ConfigurationError) as ours:
            await tcpls.create_server(Recorder, "127.0.0.1", 0, config=tcpls.ServerConfig())
        assert not isinstance(ours.value, OSError)

    run(test())


# Many connections in one session.


def test_each_stream_of_a_session_is_a_connection(ends: Ends) -> None:
    class Echo(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.write(data)

    async def test() -> None:
        accepted = Accepting(Echo)
        async with await tcpls.create_server(accepted, "127.0.0.1", 0, config=server_config(ends)) as server:
            port = port_of(server)
            transport, first = await tcpls.create_connection(Recorder, "127.0.0.1", port, config=client_config(ends))
            session = transport.get_extra_info("tcpls_session")
            assert isinstance(session, tcpls.Session)
            clients = [first]
            for _ in range(300):
                # More than may be open at a time: each makes room by its end.
                stream = await session.open_stream()
                protocol = Recorder()
                other = tcpls.stream_transport(stream, protocol)
                assert other.get_extra_info("tcpls_stream") is stream
                other.write(b"hello %d" % stream.id)
                await protocol.receive(len(b"hello %d" % stream.id))
                assert protocol.data == b"hello %d" % stream.id
                if stream.id % 4:
                    other.close()
                    assert await protocol.lost is None
                else:
                    clients.append(protocol)
                    if len(clients) > 100:
                        clients.pop(1).transport.abort()
            assert accepted.made.qsize() == 301
            sessions = set()
            while not accepted.made.empty():
                sessions.add((await accepted.made.get()).transport.get_extra_info("peername"))
            assert len(sessions) == 1
            # The connection whose session it is takes the others along.
            transport.close()
            assert await first.lost is None
            await asyncio.gather(*(protocol.lost for protocol in clients))

    run(test())


def test_a_stream_that_somebody_waits_for_is_taken(ends: Ends) -> None:
    async def test() -> None:
        async with ends.pair() as (client, _):
            stream = await client.open_stream()
            reading = asyncio.create_task(stream.read())
            await asyncio.sleep(0)
            with pytest.raises(tcpls.ApiMisuse, match="in use"):
                tcpls.stream_transport(stream, Recorder())
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            tcpls.stream_transport(stream, Recorder())
            with pytest.raises(tcpls.ApiMisuse, match="in use"):
                tcpls.stream_transport(stream, Recorder())

    run(test())


def test_a_session_keeps_nothing_of_connections_that_are_over(ends: Ends) -> None:
    async def test() -> None:
        accepted = Accepting()
        async with await tcpls.create_server(accepted, "127.0.0.1", 0, config=server_config(ends)) as server:
            session = await ends.connect(port_of(server))
            there = None
            for number in range(20):
                protocol = Recorder()
                transport = tcpls.stream_transport(await session.open_stream(), protocol)
                there = await accepted.made.get()
                if number % 2:
                    transport.abort()
                else:
                    transport.close()
                await asyncio.gather(protocol.lost, there.lost)
            await session.ping()
            assert there is not None
            server_session = there.transport.get_extra_info("tcpls_session")
            for each in (session, server_session):
                assert not each.held
                assert not cast("Any", each)._core._streams.sending
                assert not cast("Any", each)._core._streams.receiving
            assert there.transport.get_protocol() is None
            await session.close()

    run(test())


# Servers.


def test_a_server_that_is_closed_ends_sessions_as_their_connections_end(ends: Ends) -> None:
    async def test() -> None:
        accepted = Accepting()
        server = await tcpls.create_server(accepted, "127.0.0.1", 0, config=server_config(ends))
        idle = await ends.connect(port_of(server))
        busy = await ends.connect(port_of(server))
        protocol = Recorder()
        transport = tcpls.stream_transport(await busy.open_stream(), protocol)
        there = await accepted.made.get()
        server.close()
        waiting = asyncio.create_task(server.wait_closed())
        assert await idle.wait_ended() is None
        late = await busy.open_stream()
        await late.write(b"is anybody there?")
        with pytest.raises(tcpls.StreamReset):
            await late.read()
        assert not waiting.done()
        transport.write(b"still here")
        await there.receive(10)
        there.transport.write(bytes(1_000_000))
        there.transport.close()
        await protocol.receive(1_000_000)
        assert await protocol.lost is None
        assert await busy.wait_ended() is None
        await waiting
        assert server.sockets == ()

    run(test())


@pytest.mark.parametrize("mode", MODES)
def test_a_server_closes_or_gives_up_its_clients(ends: Ends, mode: tcpls.Negotiate) -> None:
    async def test(how: str) -> object:
        accepted = Accepting()
        server = await tcpls.create_server(accepted, "127.0.0.1", 0, config=server_config(ends))
        config = client_config(ends, tcpls=mode)
        _, client = await tcpls.create_connection(Recorder, "127.0.0.1", port_of(server), config=config)
        there = await accepted.made.get()
        there_made = there.transport is not None
        while not there_made:
            await asyncio.sleep(0)
            there_made = there.transport is not None
        there.transport.write(b"last words")
        server.close()
        getattr(server, how)()
        await server.wait_closed()
        return await client.lost, bytes(client.data)

    async def both() -> None:
        assert await test("close_clients") == (None, b"last words")
        error, _ = cast("tuple[Exception, bytes]", await test("abort_clients"))
        assert isinstance(error, ConnectionResetError)

    run(both())


def test_a_server_that_starts_later(ends: Ends) -> None:
    async def test() -> None:
        config = server_config(ends)
        server = await tcpls.create_server(Recorder, "127.0.0.1", 0, config=config, start_serving=False)
        assert not server.is_serving()
        port = port_of(server)
        connecting = asyncio.create_task(
            tcpls.create_connection(Recorder, "127.0.0.1", port, config=client_config(ends))
        )
        async with server:
            await server.start_serving()
            await server.start_serving()
            assert server.is_serving()
            _, client = await connecting
            client.transport.close()
            assert await client.lost is None
        unused = await tcpls.create_server(Recorder, "127.0.0.1", 0, config=config, start_serving=False)
        unused.close()
        await unused.wait_closed()
        with pytest.raises(RuntimeError, match="closed"):
            await unused.start_serving()

    run(test())


def test_a_factory_that_fails_costs_that_connection_alone(ends: Ends) -> None:
    async def test() -> None:
        reported: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
        accepted = Accepting()
        failing = [True]

        def factory() -> Recorder:
            if failing.pop():
                failing.append(False)
                raise LookupError("no protocol today")
            failing.append(False)
            return accepted()

        async with (
            await tcpls.create_server(factory, "127.0.0.1", 0, config=server_config(ends)) as server,
            ends.connect(port_of(server)) as session,
        ):
            stream = await session.open_stream()
            await stream.write(b"x")
            with pytest.raises(tcpls.StreamReset):
                await stream.read()
            stream = await session.open_stream()
            await stream.write(b"x")
            await (await accepted.made.get()).receive(1)
            await stream.write_eof()
        assert [type(error) for error in reported] == [LookupError]

    run(test())


def test_early_data_waits_for_the_handshake(ends: Ends) -> None:
    """No protocol sees a replay: what came early is given to it once the client is known to be there."""

    async def test() -> None:
        class Looking(Recorder):
            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                complete.append(self.transport.get_extra_info("tcpls_session").handshake_complete)
                self.transport.write(data[::-1])

        complete: list[bool] = []
        store = tcpls.MemoryTicketStore()
        config = server_config(ends, zero_rtt=1 << 14)
        async with await tcpls.create_server(Looking, "127.0.0.1", 0, config=config) as server:
            for expected in ("", "accepted"):
                async with ends.connect(port_of(server), early_data=b"early", tickets=store) as session:
                    assert expected in str(session.early_data)
                    assert session.first_stream is not None
                    assert await session.first_stream.readexactly(5) == b"ylrae"
                    await session.first_stream.write_eof()
        assert complete == [True, True]

    run(test())


# Readers and writers.


def test_readers_and_writers_are_asyncio_s(ends: Ends) -> None:
    async def lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"welcome\n")
        while line := await reader.readline():
            writer.writelines([b"you said: ", line])
            await writer.drain()
        writer.write(b"good bye")
        writer.write_eof()
        writer.close()
        await writer.wait_closed()

    async def test() -> None:
        async with await tcpls.start_server(lines, "127.0.0.1", 0, config=server_config(ends)) as server:
            port = port_of(server)
            reader, writer = await tcpls.open_connection("127.0.0.1", port, config=client_config(ends), limit=100)
            assert type(reader) is asyncio.StreamReader
            assert type(writer) is asyncio.StreamWriter
            assert await reader.readline() == b"welcome\n"
            writer.write(b"one\ntwo\n")
            assert await reader.readexactly(14) == b"you said: one\n"
            assert await reader.readuntil(b"two\n") == b"you said: two\n"
            writer.write(b"x" * 200 + b"\n")
            with pytest.raises(ValueError, match="limit"):
                await reader.readline()
            assert writer.can_write_eof()
            writer.write_eof()
            assert (await reader.read()).endswith(b"good bye")
            assert reader.at_eof()
            assert not writer.is_closing()
            writer.close()
            assert writer.is_closing()
            await writer.wait_closed()
            with pytest.raises(ConnectionResetError):
                await writer.drain()

    run(test())


def look_at(sock: Any, port: int) -> None:
    """A socket that can be seen, and neither changed nor waited for."""
    assert (sock.family, sock.type, sock.fileno()) == (socket.AF_INET, socket.SOCK_STREAM, -1)
    assert sock.getpeername() == ("127.0.0.1", port)
    assert sock.getsockname()[0] == "127.0.0.1"
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert len(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)) == 104
    # What is set already may be asked for.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, True)
    sock.setblocking(False)
    sock.settimeout(sock.gettimeout())
    changes: list[Callable[[], None]] = [
        lambda: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0),
        lambda: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 1),
        lambda: sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes(8)),
        lambda: sock.setblocking(True),
        lambda: sock.settimeout(1.0),
    ]
    for change in changes:
        with pytest.raises(PermissionError, match="no socket of its own"):
            change()


def test_what_writers_know(ends: Ends) -> None:
    async def test() -> None:
        seen: asyncio.Future[dict[str, object]] = asyncio.get_running_loop().create_future()

        async def look(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            names = ("peername", "sockname", "cipher", "alpn", "peer", "tcpls_stream", "tcpls_session")
            seen.set_result({name: writer.get_extra_info(name) for name in names})
            writer.close()

        config = server_config(ends, alpn=("lines",))
        async with await tcpls.start_server(look, "127.0.0.1", 0, config=config) as server:
            port = port_of(server)
            client = client_config(ends, alpn=("lines",), suites=("TLS_CHACHA20_POLY1305_SHA256",))
            reader, writer = await tcpls.open_connection("127.0.0.1", port, config=client)
            there = await seen
            here = writer.get_extra_info
            assert here("peername") == there["sockname"] == ("127.0.0.1", port)
            assert here("sockname") == there["peername"]
            assert here("cipher") == there["cipher"] == ("TLS_CHACHA20_POLY1305_SHA256", "TLSv1.3", 256)
            assert here("alpn") == there["alpn"] == "lines"
            assert "localhost" in here("peer")
            assert there["peer"] is None
            assert isinstance(here("tcpls_session"), tcpls.Session)
            assert isinstance(there["tcpls_stream"], tcpls.Stream)
            look_at(here("socket"), port)
            for name in ("ssl_object", "sslcontext", "anything"):
                assert here(name) is None
                assert here(name, "default") == "default"
            assert "StreamTransport of stream 0, open" in repr(writer)
            with pytest.raises(TypeError, match=r"not supported by start_tls"):
                await writer.start_tls(ssl.create_default_context())
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            # What is asked for behind the end is answered as before, and a socket is no more.
            assert here("peername") == ("127.0.0.1", port)
            with pytest.raises(OSError, match="Bad file descriptor"):
                here("socket").getpeername()
            assert writer.transport.is_closing()

    run(test())


def test_a_writer_waits_for_a_slow_reader(ends: Ends) -> None:
    data = os.urandom(24 << 20)

    async def test() -> None:
        began, go_on = asyncio.Event(), asyncio.Event()
        received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(1)
            began.set()
            await go_on.wait()
            received.set_result(await reader.read())
            writer.close()

        async with await tcpls.start_server(slow, "127.0.0.1", 0, config=server_config(ends)) as server:
            _, writer = await tcpls.open_connection("127.0.0.1", port_of(server), config=client_config(ends))
            writer.write(b"x")
            await began.wait()
            writer.write(data)
            draining = asyncio.create_task(writer.drain())
            await writer.get_extra_info("tcpls_session").ping()
            assert not draining.done()
            assert writer.transport.get_write_buffer_size() > 0
            go_on.set()
            await draining
            writer.write_eof()
            assert await received == data
            writer.close()
            await writer.wait_closed()

    run(test())


# asyncio's own TLS at the other end.


def test_asyncio_s_tls_client_is_served(ends: Ends) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def test() -> None:
        context = ssl.create_default_context(cafile=str(ends.ca))
        data = os.urandom(3 << 20)
        async with await tcpls.start_server(echo, "127.0.0.1", 0, config=server_config(ends)) as server:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port_of(server), ssl=context, server_hostname="localhost"
            )
            writer.write(data)
            assert await reader.readexactly(len(data)) == data
            writer.close()
            await writer.wait_closed()

    run(test())


def test_asyncio_s_tls_server_is_talked_to(ends: Ends) -> None:
    async def test() -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(ends.certificate, ends.key)
        data = os.urandom(3 << 20)

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"welcome")
            writer.write(await reader.readexactly(len(data)))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
        async with server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await tcpls.open_connection("127.0.0.1", port, config=client_config(ends))
            writer.write(data)
            assert await reader.read() == b"welcome" + data
            writer.close()
            await writer.wait_closed()

    run(test())
