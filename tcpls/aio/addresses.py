"""This machine's addresses: which there are, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tcpls.aio.netlink import AddressState, IPAddress, LinkState, NetlinkSocket, State


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


class AddressTable:
    """What the kernel has told, and what of it connections can use. A later word replaces an earlier one."""

    def __init__(self, states: Iterable[State] = ()) -> None:
        self._links: dict[int, LinkState] = {}
        self._addresses: dict[tuple[int, IPAddress, int], AddressState] = {}
        for state in states:
            self.take(state)

    def take(self, state: State) -> None:
        if isinstance(state, LinkState):
            if state.gone:
                self._links.pop(state.index, None)
                self._addresses = {key: one for key, one in self._addresses.items() if key[0] != state.index}
            else:
                self._links[state.index] = state
            return
        key = (state.index, state.address, state.prefix)
        if state.gone:
            self._addresses.pop(key, None)
        else:
            self._addresses[key] = state

    def usable(self) -> dict[tuple[int, IPAddress], LocalAddress]:
        """By interface and address. What an interface has with two prefixes is there once, with the shorter one."""
        found: dict[tuple[int, IPAddress], LocalAddress] = {}
        for (index, address, prefix), state in sorted(self._addresses.items(), key=lambda item: -item[0][2]):
            link = self._links.get(index)
            if link is not None and link.up and state.usable:
                found[index, address] = LocalAddress(
                    address, link.name, index, prefix, state.temporary, state.deprecated
                )
        return found


def local_addresses() -> frozenset[LocalAddress]:
    """The addresses that connections can use at this moment. Raises `KernelUnavailable`."""
    sock = NetlinkSocket(notices=False)
    try:
        return frozenset(AddressTable(sock.dump()).usable().values())
    finally:
        sock.close()
