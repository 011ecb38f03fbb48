"""Where a connection goes and where it comes from: addresses as users write them, and the order to try them in."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from tcpls.aio.addresses import LocalAddress, local_addresses
from tcpls.aio.netlink import IPAddress
from tcpls.errors import ConfigurationError, ConnectError, KernelUnavailable

MAX_CANDIDATES = 24
"""Pairs that one race tries: a name may have any number of addresses, and who answers for it decides how many."""

_INTERFACE = re.compile(r"[^\s/:\0]{1,15}")
"""What Linux allows as the name of an interface (dev_valid_name)."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a port. The scope of a link-local IPv6 address is the interface's index, in decimal."""

    address: IPAddress
    port: int

    @classmethod
    def parse(cls, text: str, port: int) -> Endpoint:
        """Reads ``192.0.2.7``, ``192.0.2.7:443``, ``2001:db8::7``, ``[2001:db8::7]:443`` or ``fe80::7%eth0``.

        `port` stands where the text has none. Raises `ConfigurationError`.
        """
        match = re.fullmatch(r"\[([^]]+)\](?::(\d{1,5}))?|([^:]+):(\d{1,5})|(.+)", text)
        if match is None:
            raise ConfigurationError(f"{text!r} is not an address with or without a port")
        number = int(match[2] or match[4] or port)
        if number > 65535:
            raise ConfigurationError(f"{text}: {number} is not a port")
        return cls(parse_address(match[1] or match[3] or match[5]), number)

    @classmethod
    def of(cls, name: tuple[Any, ...]) -> Endpoint:
        """A socket's name, as getsockname, getpeername and getaddrinfo give it."""
        return cls(_with_scope(str(name[0]).partition("%")[0], name[3] if len(name) == 4 else 0), int(name[1]))

    @property
    def family(self) -> socket.AddressFamily:
        return family(self.address)

    @property
    def name(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """What bind and connect take."""
        return socket_name(self.address, self.port)

    def __str__(self) -> str:
        return f"{self.address} port {self.port}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A connection that may be tried. `local` None: the kernel chooses where it comes from."""

    remote: Endpoint
    local: IPAddress | None = None

    def __str__(self) -> str:
        return f"{self.remote}" if self.local is None else f"{self.remote} from {self.local}"


def family(address: IPAddress) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def socket_name(address: IPAddress, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """An address and a port as the socket functions take them."""
    if isinstance(address, IPv4Address):
        return str(address), port
    # RFC 4007 11: the zone is a field of its own, not a part of the text.
    return str(address).partition("%")[0], port, 0, int(address.scope_id or 0)


def parse_address(text: str) -> IPAddress:
    """An address in numbers; a link-local one of IPv6 needs its interface, as in ``fe80::7%eth0``.

    Raises `ConfigurationError`.
    """
    bare, _, zone = text.partition("%")
    try:
        address = ip_address(bare)
    except ValueError:
        raise ConfigurationError(f"{text!r} is not an IP address") from None
    if not (isinstance(address, IPv6Address) and address.is_link_local):
        if zone:
            raise ConfigurationError(f"{text}: only link-local IPv6 addresses have an interface")
        return address
    if not zone:
        raise ConfigurationError(f"{text}: a link-local address needs its interface, as in {text}%eth0")
    try:
        return _with_scope(bare, int(zone) if zone.isdecimal() else socket.if_nametoindex(zone))
    except OSError:
        raise ConfigurationError(f"{text}: there is no interface {zone}") from None


def _with_scope(text: str, index: int) -> IPAddress:
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.is_link_local and index:
        return IPv6Address(f"{text}%{index}")
    return address


def parse_local(text: str) -> IPAddress | str:
    """An address of this machine, or the name of an interface. Raises `ConfigurationError`."""
    if ":" in text or "%" in text or re.fullmatch(r"[0-9.]+", text):
        return parse_address(text)
    if _INTERFACE.fullmatch(text) is None:
        raise ConfigurationError(f"{text!r} is neither an IP address nor the name of an interface")
    return text


def interleave(remotes: Iterable[Endpoint], first: socket.AddressFamily | None = None) -> list[Endpoint]:
    """RFC 8305 4: the families take turns, each in its own order, without doubles.

    `remotes` come in the order of RFC 6724, whose first decides which family begins, unless `first` does.
    """
    queues: dict[socket.AddressFamily, list[Endpoint]] = {}
    for remote in dict.fromkeys(remotes):
        queues.setdefault(remote.family, []).append(remote)
    turns = sorted(queues, key=lambda one: one != first)
    longest = max(map(len, queues.values()), default=0)
    return [queues[turn][place] for place in range(longest) for turn in turns if place < len(queues[turn])]


def can_pair(local: IPAddress, remote: IPAddress) -> bool:
    """Whether a socket of `local` can have `remote` as its peer at all: one family, and for links one link."""
    if local.version != remote.version:
        return False
    if isinstance(local, IPv6Address) and isinstance(remote, IPv6Address) and local.is_link_local:
        return remote.is_link_local and local.scope_id == remote.scope_id
    return True


def pair(remotes: Sequence[Endpoint], locals_: Sequence[IPAddress]) -> list[Candidate]:
    """Every pair that can work, in an order in which both ends change from one pair to the next.

    When one interface or one of the peer's addresses is dead, the next attempt is not lost on the same one.
    """
    if not locals_:
        return [Candidate(remote) for remote in remotes]
    usable = [[local for local in dict.fromkeys(locals_) if can_pair(local, remote.address)] for remote in remotes]
    # The number of a remote among those of its family, so that neighbours of one family begin with different locals.
    place = [sum(other.family == remote.family for other in remotes[:at]) for at, remote in enumerate(remotes)]
    return [
        Candidate(remote, options[(place[at] + turn) % len(options)])
        for turn in range(max(map(len, usable), default=0))
        for at, (remote, options) in enumerate(zip(remotes, usable, strict=True))
        if turn < len(options)
    ]


def usable_locals(wanted: Iterable[IPAddress | str], present: Iterable[LocalAddress]) -> list[IPAddress]:
    """What was asked for as addresses: an interface stands for those of its own that may begin a connection.

    Raises `ConnectError` when an interface is not there or has none.
    """
    found: list[IPAddress] = []
    present = sorted(present, key=lambda one: (one.link_local, not one.temporary, int(one.address)))
    for one in wanted:
        if not isinstance(one, str):
            found.append(one)
            continue
        # RFC 4862 5.5.4: a deprecated address is not for new connections.
        addresses = [local.address for local in present if local.interface == one and not local.deprecated]
        if not addresses:
            raise ConnectError(f"{one}: there is no such interface, or it is down, or has no address")
        found += addresses
    return found


async def resolve(host: str, port: int, *, timeout: float) -> list[Endpoint]:
    """A host's addresses in the order of RFC 6724, which getaddrinfo sorts by. Raises `ConnectError`."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise ConnectError(f"{host}: the name was not resolved in {timeout:g} s") from None
    except OSError as error:
        raise ConnectError(f"{host}: {error.strerror}") from None
    except UnicodeError:
        raise ConnectError(f"{host[:64]!r} is not a host name") from None
    internet = (socket.AF_INET, socket.AF_INET6)
    return [Endpoint.of(name) for kind, *_, name in found if kind in internet]


async def candidates(
    host: str,
    port: int,
    *,
    remotes: Sequence[Endpoint] = (),
    locals_: Sequence[str] = (),
    first: socket.AddressFamily | None = None,
    timeout: float,
) -> list[Candidate]:
    """What to try for `host`, best first, `MAX_CANDIDATES` at most.

    `remotes` are used in place of the addresses of `host`; `locals_` are addresses and interfaces to come from.
    Raises `ConfigurationError` and `ConnectError`.
    """
    wanted = [parse_local(text) for text in locals_]
    ordered = interleave(remotes or await resolve(host, port, timeout=timeout), first)[:MAX_CANDIDATES]
    present: frozenset[LocalAddress] = frozenset()
    if any(isinstance(one, str) for one in wanted):
        try:
            present = local_addresses()
        except KernelUnavailable as error:
            raise ConnectError(f"interfaces cannot be looked up: {error}") from None
    pairs = pair(ordered, usable_locals(wanted, present))
    if not pairs:
        raise ConnectError(
            f"{host} has no address" if not ordered else f"no local address is of a kind with those of {host}"
        )
    return pairs[:MAX_CANDIDATES]
