"""This machine's addresses: which there are, and what becomes of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tcpls.aio.netlink import AddressState, IPAddress, LinkState, NetlinkSocket, Overflow, State
from tcpls.errors import ApiMisuse, KernelUnavailable

logger = logging.getLogger("tcpls")

BATCH = 64
"""Messages that are taken in one turn of the event loop."""

RESYNC_INTERVAL = 0.05
"""Seconds from one fresh look at everything to the next, while notices keep getting lost."""

RETRY_INTERVAL = 1.0
"""Seconds until a fresh look that failed is tried again."""


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """An address of this machine that connections can use: on a link that is up, and past duplicate address detection.

    `index` is the interface's, and the scope of a link-local IPv6 address. `temporary` (RFC 8981): made to be
    forgotten, so not to be told to anybody. `deprecated` (RFC 4862 5.5.4): what exists goes on, but nothing new begins.
    """

    address: IPAddress
    interface: str
    index: int
    prefix: int
    temporary: bool = False
    deprecated: bool = False

    @property
    def link_local(self) -> bool:
        return self.address.is_link_local

    @property
    def loopback(self) -> bool:
        return self.address.is_loopback


@dataclass(frozen=True, slots=True)
class AddressAdded:
    """An address can be used from now on."""

    address: LocalAddress


@dataclass(frozen=True, slots=True)
class AddressRemoved:
    """An address cannot be used any more: it was taken away, or its link went down (`LinkDown` came before)."""

    address: LocalAddress


@dataclass(frozen=True, slots=True)
class AddressChanged:
    """An address became deprecated, or is not any more, or is known by another prefix or interface name."""

    address: LocalAddress


@dataclass(frozen=True, slots=True)
class LinkUp:
    """An interface is there, switched on and has a carrier."""

    interface: str
    index: int


@dataclass(frozen=True, slots=True)
class LinkDown:
    """An interface is gone, switched off or without a carrier."""

    interface: str
    index: int


AddressEvent = AddressAdded | AddressRemoved | AddressChanged | LinkUp | LinkDown
Listener = Callable[[AddressEvent], None]


class AddressTable:
    """What the kernel has told, and what of it connections can use. A later word replaces an earlier one."""

    def __init__(self) -> None:
        self._links: dict[int, LinkState] = {}
        self._states: dict[tuple[int, IPAddress, int], AddressState] = {}
        self._up: dict[int, str] = {}
        self._usable: dict[tuple[int, IPAddress], LocalAddress] = {}

    @property
    def usable(self) -> frozenset[LocalAddress]:
        return frozenset(self._usable.values())

    def update(self, states: Iterable[State]) -> list[AddressEvent]:
        """Takes what has come since, in its order. What came and went within it has not happened."""
        for state in states:
            self._take(state)
        return self._events()

    def replace(self, states: Iterable[State]) -> list[AddressEvent]:
        """Takes what there is: what is not among it is gone."""
        self._links.clear()
        self._states.clear()
        return self.update(states)

    def _take(self, state: State) -> None:
        if isinstance(state, LinkState):
            if state.gone:
                self._links.pop(state.index, None)
                self._states = {key: one for key, one in self._states.items() if key[0] != state.index}
            else:
                self._links[state.index] = state
            return
        key = (state.index, state.address, state.prefix)
        if state.gone:
            self._states.pop(key, None)
        else:
            self._states[key] = state

    def _events(self) -> list[AddressEvent]:
        """What is different from the last time. Whatever a link's state means for its addresses follows it."""
        up, usable = self._links_up(), self._addresses()
        old_up, old = self._up, self._usable
        self._up, self._usable = up, usable
        return [
            *(LinkDown(name, index) for index, name in old_up.items() if index not in up),
            *(AddressRemoved(one) for key, one in old.items() if key not in usable),
            *(LinkUp(name, index) for index, name in up.items() if index not in old_up),
            *(AddressAdded(one) for key, one in usable.items() if key not in old),
            *(AddressChanged(one) for key, one in usable.items() if old.get(key, one) != one),
        ]

    def _links_up(self) -> dict[int, str]:
        return {link.index: link.name for link in self._links.values() if link.up}

    def _addresses(self) -> dict[tuple[int, IPAddress], LocalAddress]:
        """By interface and address: what an interface has with two prefixes is there once, with the shorter one."""
        found: dict[tuple[int, IPAddress], LocalAddress] = {}
        for (index, address, prefix), state in sorted(self._states.items(), key=lambda item: -item[0][2]):
            link = self._links.get(index)
            if link is not None and link.up and state.usable:
                found[index, address] = LocalAddress(
                    address, link.name, index, prefix, state.temporary, state.deprecated
                )
        return found


def local_addresses() -> frozenset[LocalAddress]:
    """The addresses that connections can use at this moment. Raises `KernelUnavailable`."""
    table = AddressTable()
    table.replace(_dump())
    return table.usable


def _dump() -> list[State]:
    sock = NetlinkSocket(notices=False)
    try:
        return sock.dump()
    finally:
        sock.close()


class AddressWatcher:
    """This machine's addresses, followed: ``async with AddressWatcher(listener) as watcher``.

    `listener` is called in the event loop with each `AddressEvent`; `current()` then is as it is after the last of
    those that came together. It must not block, and may start and stop watchers. All watchers of an event loop share
    one socket, of the network namespace that the first one was started in.
    """

    def __init__(self, listener: Listener | None = None) -> None:
        self._listener = listener
        self._source: _Source | None = None

    def start(self) -> None:
        """Raises `KernelUnavailable` where netlink is not to be had. The kernel answers at once, so this is no wait."""
        if self._source is None:
            source = _Source.of(asyncio.get_running_loop())
            source.watchers[self] = self._listener
            self._source = source

    def stop(self) -> None:
        """Nothing is told from here on, not even what has happened already."""
        source, self._source = self._source, None
        if source is not None:
            del source.watchers[self]
            source.close_if_unused()

    def current(self) -> frozenset[LocalAddress]:
        """The addresses that connections can use."""
        if self._source is None:
            raise ApiMisuse("the watcher was not started")
        return self._source.usable

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


_sources: dict[asyncio.AbstractEventLoop, _Source] = {}


class _Source:
    """What the watchers of one event loop share."""

    @staticmethod
    def of(loop: asyncio.AbstractEventLoop) -> _Source:
        """The one of this loop. Raises `KernelUnavailable`."""
        for other in [one for one in _sources if one.is_closed()]:
            # Left behind by a program that ended its loop and not its watchers.
            _sources.pop(other).sock.close()
        if loop not in _sources:
            _sources[loop] = _Source(loop)
        return _sources[loop]

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.watchers: dict[AddressWatcher, Listener | None] = {}
        self.sock = NetlinkSocket(notices=True)
        self._loop = loop
        self._table = AddressTable()
        self._looked = loop.time()
        self._timer: asyncio.TimerHandle | None = None
        try:
            # Notices are on already: what changes while this is read is told behind it.
            self._table.replace(_dump())
        except KernelUnavailable:
            self.sock.close()
            raise
        self.usable = self._table.usable
        loop.add_reader(self.sock.fileno(), self._readable)

    def close_if_unused(self) -> None:
        if self.watchers or _sources.get(self._loop) is not self:
            return
        del _sources[self._loop]
        self._loop.remove_reader(self.sock.fileno())
        if self._timer is not None:
            self._timer.cancel()
        self.sock.close()

    def _readable(self) -> None:
        states: list[State] = []
        try:
            for _ in range(BATCH):
                some = self.sock.receive()
                if some is None:
                    break
                states += some
        except (Overflow, OSError):
            # What was read before is part of what the fresh look will see.
            self._look_afresh(self._looked + RESYNC_INTERVAL - self._loop.time())
            return
        self._tell(self._table.update(states))

    def _look_afresh(self, delay: float) -> None:
        """Later rather than at once where it was done just now: a storm of changes is no reason to do nothing else."""
        self._loop.remove_reader(self.sock.fileno())
        self._timer = self._loop.call_later(max(delay, 0.0), self._resync)

    def _resync(self) -> None:
        self._timer = None
        self._looked = self._loop.time()
        try:
            # In this order: whatever comes in between is told again behind the dump, and the last word counts.
            self.sock.discard()
            states = _dump()
        except (KernelUnavailable, OSError) as error:
            logger.warning("local addresses are not known at the moment: %s", error)
            self._look_afresh(RETRY_INTERVAL)
            return
        self._loop.add_reader(self.sock.fileno(), self._readable)
        self._tell(self._table.replace(states))

    def _tell(self, events: list[AddressEvent]) -> None:
        if not events:
            return
        self.usable = self._table.usable
        for event in events:
            for watcher, listener in list(self.watchers.items()):
                if listener is None or watcher not in self.watchers:
                    continue
                try:
                    listener(event)
                except Exception as error:
                    self._loop.call_exception_handler(
                        {"message": "a listener for addresses failed", "exception": error}
                    )
