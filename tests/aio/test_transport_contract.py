"""asyncio's rules for transports and protocols: the same scenario over asyncio's own TCP and over a stream of ours.

What the protocols saw over TCP is what they must see over a stream: each test compares the two.
"""

from __future__ import annotations

import array
import asyncio
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

import tcpls
from tests.aio.ends import Ends, run

MODES = [tcpls.Negotiate.OFFER, tcpls.Negotiate.OFF]
LARGE = bytes(range(256)) * (12 << 12)
"""12 MiB: more than the buffers of both ends, ours and the kernel's, hold for a reader that does not read."""


class Calls:
    """What a protocol was called with, in order; data of several calls counts as one."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.data = bytearray()
        self.size = 0
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[Exception | None] = loop.create_future()
        self.paused = asyncio.Event()
        self.resumed = asyncio.Event()
        self.ended = asyncio.Event()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self.keep_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert self.transport is None
        self.transport = cast("asyncio.Transport", transport)
        self.seen.append("made")

    def got(self, data: bytes) -> None:
        assert not self.ended.is_set()
        if not self.seen or self.seen[-1] != "data":
            self.seen.append("data")
        self.data += data
        self.size += len(data)
        for entry in list(self._waiting):
            if self.size >= entry[0]:
                self._waiting.remove(entry)
                entry[1].set_result(None)

    def eof_received(self) -> bool | None:
        self.seen.append("eof")
        self.ended.set()
        return self.keep_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.seen.append(("lost", _kind(exc)))
        self.lost.set_result(exc)

    def pause_writing(self) -> None:
        self.seen.append("pause")
        self.paused.set()

    def resume_writing(self) -> None:
        self.seen.append("resume")
        self.resumed.set()

    async def receive(self, size: int) -> None:
        """Waits until `size` bytes have come."""
        if self.size < size:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((size, waiter))
            await waiter


def _kind(error: Exception | None) -> object:
    if isinstance(error, ConnectionError):
        return "ConnectionError"
    return None if error is None else type(error).__name__


class Recorder(Calls, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.got(data)


class Buffered(Calls, asyncio.BufferedProtocol):
    """Its buffer is small, and of a format of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = bytearray(1000)

    def get_buffer(self, sizehint: int) -> memoryview:
        assert sizehint == -1 or sizehint > 0
        return memoryview(self.buffer)

    def buffer_updated(self, nbytes: int) -> None:
        assert 0 < nbytes <= len(self.buffer)
        self.got(bytes(self.buffer[:nbytes]))


Factory = Callable[[], Any]


class Net(ABC):
    """A server and clients of one kind of transport."""

    def __init__(self) -> None:
        self.servers: list[Any] = []
        self.reported: list[str] = []
        """What the loop's exception handler was told."""
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: self.reported.append(type(context.get("exception")).__name__)
        )

    @abstractmethod
    async def listen(self, factory: Factory) -> Any: ...

    @abstractmethod
    async def connect(self, factory: Factory) -> tuple[Any, Any]: ...

    @property
    def port(self) -> int:
        return int(self.servers[-1].sockets[0].getsockname()[1])

    async def pair(self, client: Factory = Recorder, server: Factory = Recorder) -> tuple[Any, Any]:
        """The two protocols of a connection."""
        accepted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def factory() -> Any:
            protocol = server()
            accepted.set_result(protocol)
            return protocol

        await self.listen(factory)
        _, protocol = await self.connect(client)
        other = await accepted
        while other.transport is None:
            await asyncio.sleep(0)
        return protocol, other

    async def close(self, *protocols: Any) -> None:
        for protocol in protocols:
            protocol.transport.abort()
        for server in self.servers:
            server.close()
            if isinstance(server, tcpls.StreamServer):
                server.abort_clients()
                await server.wait_closed()


class Tcp(Net):
    async def listen(self, factory: Factory) -> Any:
        server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
        self.servers.append(server)
        return server

    async def connect(self, factory: Factory) -> tuple[Any, Any]:
        return await asyncio.get_running_loop().create_connection(factory, "127.0.0.1", self.port)


class Tcpls(Net):
    def __init__(self, ends: Ends, mode: tcpls.Negotiate) -> None:
        super().__init__()
        # What ordinary TLS, which has no flow control, takes ahead of its reader.
        session = tcpls.SessionConfig(receive_buffer=1 << 20)
        self._server = tcpls.ServerConfig(
            certificate=ends.certificate, private_key=ends.key, session=session, failover=False
        )
        self._client = tcpls.ClientConfig(ca_file=ends.ca, server_name="localhost", tcpls=mode, failover=False)

    async def listen(self, factory: Factory) -> Any:
        server = await tcpls.create_server(factory, "127.0.0.1", 0, config=self._server)
        self.servers.append(server)
        return server

    async def connect(self, factory: Factory) -> tuple[Any, Any]:
        return await tcpls.create_connection(factory, "127.0.0.1", self.port, config=self._client)


Scenario = Callable[[Net], Awaitable[object]]


async def _turns() -> None:
    """As many turns of the loop as anything on its way through this machine needs, and more."""
    for _ in range(200):
        await asyncio.sleep(0)


# Scenarios. Each returns what is to be the same.


async def the_client_ends_its_direction_first(net: Net) -> object:
    client, server = await net.pair()
    server.keep_open = True
    client.transport.write(b"question")
    client.transport.write_eof()
    await server.ended.wait()
    server.transport.write(b"answer")
    server.transport.close()
    await asyncio.gather(client.lost, server.lost)
    assert (bytes(server.data), bytes(client.data)) == (b"question", b"answer")
    return client.seen, server.seen


async def the_client_closes(net: Net) -> object:
    client, server = await net.pair()
    client.transport.write(b"last words")
    client.transport.close()
    closing = client.transport.is_closing()
    await asyncio.gather(client.lost, server.lost)
    assert bytes(server.data) == b"last words"
    return closing, client.seen, server.seen


async def the_server_closes(net: Net) -> object:
    client, server = await net.pair()
    server.transport.write(b"last words")
    server.transport.close()
    await asyncio.gather(client.lost, server.lost)
    assert bytes(client.data) == b"last words"
    return client.seen, server.seen


async def the_server_closes_at_once(net: Net) -> object:
    class Closing(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            transport.close()

    client, server = await net.pair(server=Closing)
    await asyncio.gather(client.lost, server.lost)
    return client.seen, server.seen


async def the_client_gives_up_at_once(net: Net) -> object:
    class Aborting(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            cast("asyncio.Transport", transport).abort()

    await net.listen(Recorder)
    transport, client = await net.connect(Aborting)
    assert transport.is_closing()
    await client.lost
    return client.seen


async def the_server_speaks_first(net: Net) -> object:
    class Welcoming(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.write(b"welcome")

    client, server = await net.pair(server=Welcoming)
    await client.receive(7)
    client.transport.close()
    await asyncio.gather(client.lost, server.lost)
    return client.seen, server.seen, bytes(client.data)


async def a_connection_is_given_up(net: Net) -> object:
    client, _ = await net.pair()
    client.transport.abort()
    client.transport.abort()
    client.transport.close()
    await client.lost
    return client.seen


async def what_was_written_before_a_close_arrives(net: Net) -> object:
    client, server = await net.pair()
    client.transport.write(LARGE)
    client.transport.close()
    await asyncio.gather(client.lost, server.lost)
    assert bytes(server.data) == LARGE
    # The reader of TCP may have been paused just before the end, or not.
    return [call for call in client.seen if call not in ("pause", "resume")], server.seen


async def what_was_written_before_an_end_arrives(net: Net) -> object:
    client, server = await net.pair()
    server.keep_open = True
    server.transport.pause_reading()
    client.transport.write(LARGE)
    client.transport.write_eof()
    server.transport.resume_reading()
    await server.ended.wait()
    assert bytes(server.data) == LARGE
    server.transport.write(LARGE)
    server.transport.close()
    await asyncio.gather(client.lost, server.lost)
    assert bytes(client.data) == LARGE
    return client.seen, [call for call in server.seen if call not in ("pause", "resume")]


async def a_reader_that_pauses_stops_its_writer(net: Net) -> object:
    client, server = await net.pair()
    facts: list[object] = [server.transport.is_reading(), client.transport.get_write_buffer_size()]
    server.transport.pause_reading()
    server.transport.pause_reading()
    facts.append(server.transport.is_reading())
    client.transport.write(LARGE)
    await client.paused.wait()
    # What is beyond the limit stays so while nobody reads.
    facts += [server.size, client.transport.get_write_buffer_size() > client.transport.get_write_buffer_limits()[1]]
    server.transport.resume_reading()
    server.transport.resume_reading()
    facts.append(server.transport.is_reading())
    await client.resumed.wait()
    facts.append(client.transport.get_write_buffer_size() <= client.transport.get_write_buffer_limits()[0])
    await server.receive(len(LARGE))
    assert bytes(server.data) == LARGE
    client.transport.close()
    await asyncio.gather(client.lost, server.lost)
    return facts, client.seen, server.seen


async def a_close_waits_for_its_reader(net: Net) -> object:
    client, server = await net.pair()
    client.transport.pause_reading()
    server.transport.write(LARGE)
    server.transport.close()
    await _turns()
    early = server.lost.done()
    client.transport.resume_reading()
    await asyncio.gather(client.lost, server.lost)
    assert bytes(client.data) == LARGE
    return early, client.seen, server.seen


async def nothing_comes_while_reading_is_paused(net: Net) -> object:
    class Pausing(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.pause_reading()

    client, server = await net.pair(server=Pausing)
    client.transport.write(b"one")
    await server.receive(3)
    client.transport.write(b"two")
    client.transport.write_eof()
    await _turns()
    seen = [list(server.seen), bytes(server.data)]
    server.transport.resume_reading()
    await server.receive(6)
    await _turns()
    seen += [list(server.seen), bytes(server.data)]
    server.transport.resume_reading()
    await server.lost
    return seen, server.seen


async def limits_of_the_write_buffer(net: Net) -> object:
    client, server = await net.pair()
    transport = client.transport
    limits = [transport.get_write_buffer_limits()]
    for arguments in ({"high": 0}, {"high": 1000}, {"low": 1000}, {"high": 1000, "low": 1000}, {}):
        transport.set_write_buffer_limits(**arguments)
        limits.append(transport.get_write_buffer_limits())
    for high, low in ((1, 2), (-1, None), (None, -1)):
        with pytest.raises(ValueError):
            transport.set_write_buffer_limits(high=high, low=low)
    # A limit that is above what waits stops nobody.
    transport.set_write_buffer_limits(high=2 * len(LARGE))
    server.transport.pause_reading()
    transport.write(LARGE)
    await _turns()
    seen = list(client.seen)
    transport.set_write_buffer_limits(high=1000, low=0)
    seen += client.seen
    server.transport.resume_reading()
    await client.resumed.wait()
    assert transport.get_write_buffer_size() == 0
    client.transport.close()
    await asyncio.gather(client.lost, server.lost)
    return limits, seen, client.seen


async def what_may_be_written(net: Net) -> object:
    client, server = await net.pair()
    transport = client.transport
    changing = bytearray(b"as it was")
    transport.write(changing)
    changing[:] = b"-" * len(changing)
    transport.write(memoryview(b" a view"))
    transport.write(memoryview(array.array("H", (0x2020,) * 8)))
    transport.write(b"")
    transport.writelines([b" and", b" some", b" lines"])
    for wrong in ("text", None, 5):
        with pytest.raises(TypeError):
            transport.write(wrong)
    may = transport.can_write_eof()
    transport.write_eof()
    transport.write_eof()
    with pytest.raises(RuntimeError, match="write_eof"):
        transport.write(b"more")
    await server.lost
    await client.lost
    return may, bytes(server.data), client.seen, server.seen


async def what_is_written_behind_the_end_is_dropped(net: Net) -> object:
    client, server = await net.pair()
    client.transport.write(b"before")
    client.transport.close()
    client.transport.write(b"behind")
    client.transport.write_eof()
    client.transport.resume_reading()
    client.transport.pause_reading()
    await asyncio.gather(client.lost, server.lost)
    for _ in range(10):
        client.transport.write(b"behind")
    client.transport.close()
    client.transport.abort()
    await _turns()
    return client.transport.is_closing(), client.transport.is_reading(), bytes(server.data), client.seen, server.seen


async def nothing_comes_behind_a_close(net: Net) -> object:
    class Closing(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.close()

    client, server = await net.pair(server=Closing)
    client.transport.write(b"one")
    await server.lost
    await client.lost
    return server.seen, client.seen


async def the_protocol_is_replaced(net: Net) -> object:
    class Second(Recorder):
        pass

    class First(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            second.transport = self.transport
            self.transport.set_protocol(second)
            assert self.transport.get_protocol() is second
            self.transport.write(b"go on")

    second = Second()
    client, server = await net.pair(server=First)
    client.transport.write(b"one")
    await client.receive(5)
    client.transport.write(b"two")
    await second.receive(3)
    client.transport.close()
    await second.lost
    return server.seen, second.seen, bytes(second.data)


async def a_protocol_becomes_a_buffered_one(net: Net) -> object:
    class First(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            buffered.transport = self.transport
            self.transport.set_protocol(buffered)
            self.transport.write(b"go on")

    buffered = Buffered()
    client, _ = await net.pair(server=First)
    client.transport.write(b"one")
    await client.receive(5)
    client.transport.write(LARGE[:100_000])
    await buffered.receive(100_000)
    client.transport.close()
    await buffered.lost
    return buffered.seen, bytes(buffered.data)


async def a_buffered_protocol_gets_everything(net: Net) -> object:
    client, server = await net.pair(server=Buffered)
    server.keep_open = True
    client.transport.write(LARGE[:1_000_000])
    client.transport.write_eof()
    await server.ended.wait()
    assert bytes(server.data) == LARGE[:1_000_000]
    server.transport.close()
    await asyncio.gather(client.lost, server.lost)
    return server.seen


async def a_buffered_protocol_without_a_buffer(net: Net) -> object:
    class Empty(Buffered):
        def get_buffer(self, sizehint: int) -> memoryview:
            return memoryview(b"")

    client, server = await net.pair(server=Empty)
    client.transport.write(b"x")
    await server.lost
    return server.seen, net.reported


def failing_in(method: str) -> Scenario:
    async def the_protocol_fails(net: Net) -> object:
        class Failing(Recorder):
            pass

        def fail(self: Calls, *arguments: object) -> None:
            getattr(super(Failing, self), method)(*arguments)
            raise LookupError(method)

        setattr(Failing, method, fail)
        client, server = await net.pair(server=Failing)
        client.transport.write(b"x")
        await server.receive(1)
        client.transport.close()
        await server.lost
        await _turns()
        return server.seen, net.reported

    the_protocol_fails.__name__ += f"_in_{method}"
    return the_protocol_fails


async def a_file_is_sent(net: Net) -> object:
    client, server = await net.pair()
    with tempfile.TemporaryFile() as file:
        file.write(LARGE)
        file.flush()
        sent = await asyncio.get_running_loop().sendfile(client.transport, file, 100, len(LARGE) - 100)
    await server.receive(len(LARGE) - 100)
    assert bytes(server.data) == LARGE[100:]
    client.transport.write(b"behind it")
    client.transport.close()
    await asyncio.gather(client.lost, server.lost)
    return sent, bytes(server.data[-9:]), server.seen


async def a_server_without_clients(net: Net) -> object:
    server = await net.listen(Recorder)
    facts: list[object] = [server.is_serving(), len(server.sockets), server.get_loop() is asyncio.get_running_loop()]
    server.close()
    server.close()
    await server.wait_closed()
    return [*facts, server.is_serving(), len(server.sockets)]


async def a_server_that_is_closed_leaves_its_connections(net: Net) -> object:
    client, server = await net.pair()
    net.servers[0].close()
    client.transport.write(b"still here")
    await server.receive(10)
    server.transport.write(b"so am I")
    await client.receive(7)
    server.transport.close()
    await asyncio.gather(client.lost, server.lost)
    await net.servers[0].wait_closed()
    return client.seen, server.seen


async def a_server_serves_until_it_is_cancelled(net: Net) -> object:
    server = await net.listen(Recorder)
    serving = asyncio.create_task(server.serve_forever())
    _, client = await net.connect(Recorder)
    with pytest.raises(RuntimeError, match="already"):
        await asyncio.gather(asyncio.sleep(0), server.serve_forever())
    client.transport.close()
    await client.lost
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    return server.is_serving(), client.seen


async def nobody_listens(net: Net) -> object:
    server = await net.listen(Recorder)
    port = net.port
    server.close()
    await server.wait_closed()
    net.servers = [Gone(port)]
    with pytest.raises(ConnectionRefusedError) as refused:
        await net.connect(Recorder)
    net.servers.clear()
    return refused.value.errno


class Gone:
    """A server of which only the port is left."""

    def __init__(self, port: int) -> None:
        self.sockets = [self]
        self._port = port

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", self._port


SCENARIOS: list[Scenario] = [
    the_client_ends_its_direction_first,
    the_client_closes,
    the_server_closes,
    the_server_closes_at_once,
    the_client_gives_up_at_once,
    the_server_speaks_first,
    a_connection_is_given_up,
    what_was_written_before_a_close_arrives,
    what_was_written_before_an_end_arrives,
    a_reader_that_pauses_stops_its_writer,
    a_close_waits_for_its_reader,
    nothing_comes_while_reading_is_paused,
    limits_of_the_write_buffer,
    what_may_be_written,
    what_is_written_behind_the_end_is_dropped,
    nothing_comes_behind_a_close,
    the_protocol_is_replaced,
    a_protocol_becomes_a_buffered_one,
    a_buffered_protocol_gets_everything,
    a_buffered_protocol_without_a_buffer,
    failing_in("connection_made"),
    failing_in("data_received"),
    failing_in("eof_received"),
    failing_in("connection_lost"),
    a_file_is_sent,
    a_server_without_clients,
    a_server_that_is_closed_leaves_its_connections,
    a_server_serves_until_it_is_cancelled,
    nobody_listens,
]


def outcome(scenario: Scenario, make: Callable[[], Net]) -> object:
    results: list[object] = []

    async def test() -> None:
        net = make()
        try:
            results.append(await scenario(net))
        finally:
            await net.close()

    run(test())
    return results[0]


@pytest.mark.parametrize("mode", MODES, ids=["tcpls", "ordinary_tls"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_protocols_see_what_they_see_over_tcp(ends: Ends, scenario: Scenario, mode: tcpls.Negotiate) -> None:
    assert outcome(scenario, lambda: Tcpls(ends, mode)) == outcome(scenario, Tcp)
