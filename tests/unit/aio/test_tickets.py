"""The stores of tickets: what they give, what they keep, and what they refuse to read."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tcpls.aio.tickets import (
    MOST_OF_ONE_SERVER,
    MOST_TICKETS,
    FileTicketStore,
    MemoryTicketStore,
    TicketKeeper,
    TicketScope,
    TicketStore,
)
from tcpls.errors import ConfigurationError
from tcpls.tls.key_schedule import ResumptionSecret
from tcpls.tls.messages import NewSessionTicket
from tcpls.tls.suites import CipherSuite
from tcpls.tls.tickets import MAX_IDENTITY, Ticket, TicketSource
from tests.engine import ENGINE

SCOPE = TicketScope("server.example", 4433, "server.example", "settings")
OTHERS = [
    replace(SCOPE, host="192.0.2.1"),
    replace(SCOPE, port=443),
    replace(SCOPE, server_name="other.example"),
    replace(SCOPE, settings="others"),
]
NOW = 1_800_000_000.0
SUITE = CipherSuite.AES_128_GCM_SHA256
SOURCE = TicketSource(ResumptionSecret(ENGINE, SUITE, b"s" * 32), "server.example", b"h2", True, None)


def ticket(number: int, *, received: float = NOW, lifetime: int = 100) -> Ticket:
    identity = b"ticket %d" % number
    return Ticket(identity, bytes([number % 256]) * 32, SUITE, 7, received, lifetime, "server.example", b"h2", True)


def test_a_ticket_is_good_at_once_wherever_it_is_kept() -> None:
    """It is written in whole milliseconds; rounded up, a store would throw it away for another half of one."""
    for part in range(1000):
        now = NOW + part / 1_000_000
        made = SOURCE.ticket(NewSessionTicket(100, 7, b"", b"ticket", {}), now)
        assert made is not None
        kept = Ticket.read(made.write())
        assert kept == made
        assert kept.alive(now)


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


MakeStore = Callable[[], TicketStore]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "file"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> MakeStore:
    """Each call gives the same store; that of a file is opened anew."""
    if request.param == "file":
        return lambda: FileTicketStore(tmp_path / "tickets", clock)
    store = MemoryTicketStore(clock)
    return lambda: store


def put(store: TicketStore, *tickets: Ticket, scope: TicketScope = SCOPE) -> None:
    asyncio.run(store.put(scope, tickets))


def take(store: TicketStore, scope: TicketScope = SCOPE) -> Ticket | None:
    return asyncio.run(store.take(scope))


@pytest.mark.clause("RFC 8446 C.4")
def test_a_ticket_is_given_once_and_the_newest_first(make_store: MakeStore) -> None:
    assert take(make_store()) is None
    put(make_store(), ticket(1), ticket(2))
    put(make_store(), ticket(3))
    assert [take(make_store()) for _ in range(4)] == [ticket(3), ticket(2), ticket(1), None]


@pytest.mark.parametrize("other", OTHERS)
def test_a_ticket_is_for_its_scope_alone(make_store: MakeStore, other: TicketScope) -> None:
    put(make_store(), ticket(1))
    assert take(make_store(), other) is None
    put(make_store(), ticket(2), scope=other)
    assert take(make_store(), other) == ticket(2)
    assert take(make_store()) == ticket(1)


def test_what_has_expired_is_dropped(make_store: MakeStore, clock: Clock, tmp_path: Path) -> None:
    put(make_store(), ticket(1, lifetime=100), ticket(2, lifetime=50))
    clock.now = NOW + 50
    assert take(make_store()) == ticket(1, lifetime=100)
    put(make_store(), ticket(3, lifetime=10), scope=OTHERS[0])
    clock.now = NOW + 101
    put(make_store(), ticket(4, received=clock.now))
    if (tmp_path / "tickets").exists():
        assert len(json.loads((tmp_path / "tickets").read_bytes())["tickets"]) == 1
    clock.now = NOW
    assert take(make_store()) is None, "one from the future is not used either"


def test_there_is_a_bound_for_each_server(make_store: MakeStore) -> None:
    put(make_store(), *(ticket(number) for number in range(10)))
    put(make_store(), ticket(10))
    taken = [take(make_store()) for _ in range(MOST_OF_ONE_SERVER + 1)]
    assert taken == [*(ticket(number) for number in range(10, 10 - MOST_OF_ONE_SERVER, -1)), None]


def test_there_is_a_bound_for_all(make_store: MakeStore) -> None:
    scopes = [replace(SCOPE, port=port) for port in range(MOST_TICKETS + 5)]
    store = make_store()
    for port, scope in enumerate(scopes):
        put(store, ticket(port), scope=scope)
    assert [take(store, scope) for scope in scopes[:5]] == [None] * 5
    assert take(store, scopes[5]) == ticket(5)
    assert take(store, scopes[-1]) == ticket(MOST_TICKETS + 4)


def test_the_largest_file_can_be_read(tmp_path: Path) -> None:
    large = replace(ticket(1, lifetime=604800), identity=bytes(MAX_IDENTITY), remembered=bytes(1024))
    store = FileTicketStore(tmp_path / "tickets", Clock())
    for port in range(0, MOST_TICKETS, MOST_OF_ONE_SERVER):
        put(store, *[large] * MOST_OF_ONE_SERVER, scope=TicketScope("h" * 253, port, "s" * 253, "d" * 64))
    assert take(FileTicketStore(tmp_path / "tickets", Clock()), TicketScope("h" * 253, 0, "s" * 253, "d" * 64)) == large


def _contents(**changes: Any) -> bytes:
    entry = {
        "host": "h",
        "port": 1,
        "server_name": "n",
        "settings": "",
        "ticket": base64.b64encode(ticket(1).write()).decode(),
    }
    contents = {"kind": "tcpls session tickets", "form": 1, "tickets": [entry]}
    for name, value in changes.items():
        (entry if name in entry else contents)[name] = value
    return json.dumps(contents).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"not json",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"kind": ' + b"9" * 10_000 + b"}",
        _contents(kind="others"),
        _contents(form=2),
        _contents(tickets={}),
        _contents(tickets=[1]),
        _contents(tickets=[{}]),
        _contents(port="1"),
        _contents(host=None),
        _contents(ticket="!"),
        _contents(ticket=""),
        _contents(ticket=base64.b64encode(ticket(1).write() + b"x").decode()),
        _contents()[:-10],
    ],
)
def test_a_file_of_something_else_is_left_as_it_is(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tickets"
    put(store := FileTicketStore(path, Clock()), ticket(1))
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"session tickets .*tickets: not a file of session tickets"):
        FileTicketStore(path)
    with pytest.raises(ConfigurationError, match="it is left as it is"):
        take(store)
    with pytest.raises(ConfigurationError):
        put(store, ticket(2))
    assert path.read_bytes() == data


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tickets"
    path.touch(0o600)
    path.write_bytes(_contents())
    assert take(FileTicketStore(path, Clock()), TicketScope("h", 1, "n", "")) == ticket(1)


class Slow:
    """A store whose `put` takes as long as the test wants."""

    def __init__(self, error: Exception | None = None) -> None:
        self.go_on = asyncio.Event()
        self.put_in: list[list[bytes]] = []
        self.error = error

    async def take(self, scope: TicketScope) -> Ticket | None:
        return None

    async def put(self, scope: TicketScope, tickets: Any) -> None:
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        self.put_in.append([each.identity for each in tickets])


def message(number: int) -> NewSessionTicket:
    return NewSessionTicket(100, 7, bytes([number]), b"ticket %d" % number, {})


def test_the_keeper_finishes_when_all_is_in_the_store() -> None:
    async def run() -> None:
        store = Slow()
        keeper = TicketKeeper(store, SCOPE, SOURCE, b"windows")
        await keeper.finish()
        keeper.receive(message(1))
        await asyncio.sleep(0)
        keeper.receive(message(2))
        keeper.receive(message(3))
        finished = asyncio.create_task(keeper.finish())
        await asyncio.sleep(0)
        assert not finished.done()
        store.go_on.set()
        await finished
        assert store.put_in == [[b"ticket 1"], [b"ticket 2", b"ticket 3"]]

    asyncio.run(run())


def test_the_keeper_makes_tickets_of_messages() -> None:
    async def run() -> Ticket | None:
        store = MemoryTicketStore()
        keeper = TicketKeeper(store, SCOPE, SOURCE, b"windows")
        keeper.receive(message(1))
        # Of no use: it has expired already, or no ClientHello has room for it.
        keeper.receive(replace(message(2), lifetime=0))
        keeper.receive(replace(message(3), ticket=bytes(MAX_IDENTITY + 1)))
        await keeper.finish()
        kept = await store.take(SCOPE)
        assert await store.take(SCOPE) is None
        return kept

    kept = asyncio.run(run())
    assert kept is not None
    assert (kept.identity, kept.remembered, kept.lifetime, kept.verified) == (b"ticket 1", b"windows", 100, True)
    assert kept.key == SOURCE.secret.key(b"\1")


@pytest.mark.parametrize("error", [ConfigurationError("full"), OSError("full"), RuntimeError("full")])
def test_a_store_that_fails_costs_only_the_ticket(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        store = Slow(error)
        store.go_on.set()
        keeper = TicketKeeper(store, SCOPE, SOURCE, b"")
        keeper.receive(message(1))
        await keeper.finish()
        store.error = None
        keeper.receive(message(2))
        await keeper.finish()
        assert store.put_in == [[b"ticket 2"]]

    asyncio.run(run())
    assert "a session ticket is lost: full" in caplog.text
