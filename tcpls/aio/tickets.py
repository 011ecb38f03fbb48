"""Where a client keeps session tickets between sessions, and how they get there."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from tcpls.aio.private_file import PrivateFile
from tcpls.errors import PeerError
from tcpls.tls.messages import NewSessionTicket
from tcpls.tls.tickets import Ticket, TicketSource

logger = logging.getLogger("tcpls")

MOST_OF_ONE_SERVER = 4
MOST_TICKETS = 256
MOST_FILE_BYTES = 8 << 20
"""More than that many of the largest tickets take in base64."""

Clock = Callable[[], float]
"""Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class TicketScope:
    """What a ticket is good for: the same server, asked for under the same name, and judged in the same way.

    `settings` is a digest of what this client asks of a server: a session that was begun with other authorities,
    another key or another identity of its own is never resumed instead.
    """

    host: str
    port: int
    server_name: str
    settings: str


class TicketStore(Protocol):
    """Keeps tickets. What it raises at `take` ends the attempt to connect; what it raises at `put` is logged."""

    async def take(self, scope: TicketScope) -> Ticket | None:
        """A ticket for this scope, which the store does not have any more (RFC 8446 C.4: none is used twice)."""

    async def put(self, scope: TicketScope, tickets: Sequence[Ticket]) -> None:
        """Tickets that a server has just sent, the oldest first."""


Entry = tuple[TicketScope, Ticket]


def _taken(entries: Sequence[Entry], scope: TicketScope, now: float) -> tuple[list[Entry], Ticket | None]:
    """What is left of the entries, and the newest ticket of the scope."""
    alive = [entry for entry in entries if entry[1].alive(now)]
    for index in reversed(range(len(alive))):
        if alive[index][0] == scope:
            return alive, alive.pop(index)[1]
    return alive, None


def _with(entries: Sequence[Entry], scope: TicketScope, tickets: Iterable[Ticket], now: float) -> list[Entry]:
    """The entries and new ones behind them, bounded: the oldest go."""
    alive = [entry for entry in entries if entry[1].alive(now)]
    own = [entry for entry in alive if entry[0] == scope] + [(scope, ticket) for ticket in tickets]
    others = [entry for entry in alive if entry[0] != scope]
    return (others + own[-MOST_OF_ONE_SERVER:])[-MOST_TICKETS:]


class MemoryTicketStore:
    """Tickets of this process, for any number of sessions."""

    def __init__(self, clock: Clock = time.time) -> None:
        self._clock = clock
        self._entries: list[Entry] = []

    async def take(self, scope: TicketScope) -> Ticket | None:
        self._entries, ticket = _taken(self._entries, scope, self._clock())
        return ticket

    async def put(self, scope: TicketScope, tickets: Sequence[Ticket]) -> None:
        self._entries = _with(self._entries, scope, tickets, self._clock())


class FileTicketStore:
    """Tickets in a file of mode 0600, for any number of processes at the same time.

    Raises `ConfigurationError` for a file that is not one of tickets, that others may read, or that cannot be used;
    it is left as it is then. Looks at it once when made, so that this is known before anything is done. `owner` is the
    number of another user that the file may belong to: of the one that this process is going to be.
    """

    def __init__(self, path: Path | str, clock: Clock = time.time, owner: int | None = None) -> None:
        self._file = PrivateFile(path, "session tickets", MOST_FILE_BYTES, owner=owner)
        self._clock = clock
        self._read(self._file.read())

    def _read(self, data: bytes) -> list[Entry]:
        try:
            return _read_entries(data)
        except ValueError as error:
            raise self._file.error(f"not a file of session tickets ({error}); it is left as it is") from None

    async def take(self, scope: TicketScope) -> Ticket | None:
        taken: list[Ticket | None] = []

        def change(data: bytes) -> bytes:
            entries, ticket = _taken(self._read(data), scope, self._clock())
            taken.append(ticket)
            return _write_entries(entries) if data else data

        await asyncio.to_thread(self._file.update, change)
        return taken[0]

    async def put(self, scope: TicketScope, tickets: Sequence[Ticket]) -> None:
        def change(data: bytes) -> bytes:
            return _write_entries(_with(self._read(data), scope, tickets, self._clock()))

        await asyncio.to_thread(self._file.update, change)


_KIND = "tcpls session tickets"
_FORM = 1


def _write_entries(entries: Sequence[Entry]) -> bytes:
    tickets = [
        {**asdict(scope), "ticket": base64.b64encode(ticket.write()).decode("ascii")} for scope, ticket in entries
    ]
    return json.dumps({"kind": _KIND, "form": _FORM, "tickets": tickets}, indent=1).encode() + b"\n"


def _read_entries(data: bytes) -> list[Entry]:
    """Of an empty file, none. Raises `ValueError` for what `_write_entries` has not written."""
    if not data:
        return []
    try:
        contents = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(contents, dict) or contents.get("kind") != _KIND:
        raise ValueError("of another kind")
    if contents.get("form") != _FORM or not isinstance(contents.get("tickets"), list):
        raise ValueError("of another version")
    return [_read_entry(entry) for entry in contents["tickets"]]


def _read_entry(entry: Any) -> Entry:
    match entry:
        case {
            "host": str(host),
            "port": int(port),
            "server_name": str(server_name),
            "settings": str(settings),
            "ticket": str(ticket),
        }:
            scope = TicketScope(host, port, server_name, settings)
            try:
                return scope, Ticket.read(base64.b64decode(ticket, validate=True))
            except (binascii.Error, PeerError):
                raise ValueError("an entry is no ticket") from None
    raise ValueError("an entry lacks something")


class TicketKeeper:
    """Makes tickets of what the server of one session sends, and puts them into a store, in the background."""

    def __init__(self, store: TicketStore, scope: TicketScope, source: TicketSource, remembered: bytes) -> None:
        """`remembered` is what each ticket remembers of the session."""
        self._store = store
        self._scope = scope
        self._source = source
        self._remembered = remembered
        self._waiting: list[Ticket] = []
        self._putting: asyncio.Task[None] | None = None

    def receive(self, message: NewSessionTicket) -> None:
        ticket = self._source.ticket(message, time.time(), self._remembered)
        if ticket is None:
            return
        self._waiting.append(ticket)
        if self._putting is None or self._putting.done():
            self._putting = asyncio.create_task(self._put())

    async def _put(self) -> None:
        while self._waiting:
            tickets, self._waiting = self._waiting, []
            try:
                await self._store.put(self._scope, tickets)
            except Exception as error:
                # Stores are the application's. This session needs no tickets; only the next one has to do without.
                logger.warning("a session ticket is lost: %s", error)

    async def finish(self) -> None:
        """Returns once everything that came is in the store."""
        if self._putting is not None:
            await self._putting
