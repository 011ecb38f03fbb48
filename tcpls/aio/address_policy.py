"""Which addresses a session uses, and for what: rules as users write them, and the paths that follow from them."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network
from itertools import islice

from tcpls.aio.addresses import LocalAddress
from tcpls.aio.endpoints import Endpoint, can_pair, parse_local
from tcpls.aio.netlink import IPAddress
from tcpls.errors import ConfigurationError


class AddressUse(enum.Enum):
    """What an address is for. A path is off when one of its ends is, else on standby when one of its ends is.

    DEFAULT: every address of either end has a path, and there are no more paths than that takes. FULLMESH: this one has
    a path to every address of the other end. BACKUP: as DEFAULT, on standby. OFF: no path.
    """

    DEFAULT = "default"
    BACKUP = "backup"
    FULLMESH = "fullmesh"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Rule:
    """`subject` is a network, the name of an interface (for its addresses at this end), or ``*`` for the rest."""

    subject: IPv4Network | IPv6Network | str
    use: AddressUse

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Reads ``eth1=backup``, ``192.0.2.7=off``, ``2001:db8::/32=fullmesh`` or ``*=off``.

        Raises `ConfigurationError`.
        """
        subject, equals, name = text.rpartition("=")
        uses = {use.value: use for use in AddressUse}
        if not equals or name not in uses:
            raise ConfigurationError(f"{text!r} is not ADDRESS|NETWORK|INTERFACE|*={{{','.join(uses)}}}")
        if subject == "*":
            return cls(subject, uses[name])
        if "/" in subject:
            try:
                return cls(ip_network(subject), uses[name])
            except ValueError as error:
                raise ConfigurationError(f"{text}: {error}") from None
        parsed = parse_local(subject)
        return cls(
            parsed if isinstance(parsed, str) else ip_network(int(parsed).to_bytes(parsed.max_prefixlen // 8)),
            uses[name],
        )


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Rules for this end's addresses and the peer's. Of those that fit, the longest prefix counts, then the interface,
    then ``*``; where none does, an address is `AddressUse.DEFAULT`."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> AddressPolicy:
        """A rule for each text. Raises `ConfigurationError`, also for two with the same subject."""
        rules = tuple(Rule.parse(text) for text in texts)
        subjects = [rule.subject for rule in rules]
        for subject in subjects:
            if subjects.count(subject) > 1:
                raise ConfigurationError(f"there are two rules for {subject}")
        return cls(rules)

    def use(self, address: IPAddress, interface: str | None = None) -> AddressUse:
        """What `address` is for: one of this end's, on `interface`, or one of the peer's."""
        return self._rule(address, interface).use

    def names(self, local: LocalAddress) -> bool:
        """Whether a rule is for this address alone."""
        subject = self._rule(local.address, None).subject
        return not isinstance(subject, str) and subject.prefixlen == subject.max_prefixlen

    def _rule(self, address: IPAddress, interface: str | None) -> Rule:
        best, weight = Rule("*", AddressUse.DEFAULT), -3
        for rule in self.rules:
            if isinstance(rule.subject, str):
                fits, heavy = rule.subject in ("*", interface), -2 if rule.subject == "*" else -1
            else:
                fits, heavy = address in rule.subject, rule.subject.prefixlen
            if fits and heavy > weight:
                best, weight = rule, heavy
        return best


@dataclass(frozen=True, slots=True)
class Path:
    """A connection that exists, by the names of this end's socket."""

    connection_id: int
    local: IPAddress
    remote: Endpoint


@dataclass(frozen=True, slots=True)
class PlannedPath:
    """A connection to open."""

    local: LocalAddress
    remote: Endpoint
    standby: bool


@dataclass(frozen=True, slots=True)
class PathPlan:
    """What to do, in this order: a session that opens before it drops is not without a path in between."""

    open: tuple[PlannedPath, ...]
    """Most wanted first."""
    standby: frozenset[int]
    """Connections that belong on standby, of those that exist and are not dropped."""
    drop: frozenset[int]
    """Connections that a rule forbids."""
    dead: frozenset[int]
    """Connections from addresses that this machine has no more."""


def plan(
    policy: AddressPolicy,
    local: Collection[LocalAddress],
    dialed: Sequence[Endpoint],
    announced: Sequence[Endpoint],
    paths: Collection[Path],
    room: int | None = None,
) -> PathPlan:
    """What follows from the addresses of both ends for the `paths` that there are. It depends on nothing else.

    `dialed` are the peer's addresses that this end's user named or that have answered as this peer; `announced` are
    those that the peer has told, in its order: of these, whatever does not look like an address of its (`believable`)
    is left out. `room` is how many connections may be opened. Applied to its own outcome, it asks for nothing more.
    """
    known = _single(local)
    dead = frozenset(path.connection_id for path in paths if path.local not in known)
    uses: dict[int, AddressUse] = {}
    for path in paths:
        if (source := known.get(path.local)) is not None:
            own = policy.use(source.address, source.interface)
            uses[path.connection_id] = _together(own, policy.use(path.remote.address))
    live = [path for path in paths if uses.get(path.connection_id, AddressUse.OFF) is not AddressUse.OFF]
    remotes = [*dialed, *(one for one in announced if believable(one, dialed))]
    remotes = [one for one in dict.fromkeys(remotes) if policy.use(one.address) is not AddressUse.OFF]
    wanted = _wanted(policy, _sources(policy, known.values(), live), remotes, live)
    return PathPlan(
        open=tuple(wanted if room is None else islice(wanted, max(room, 0))),
        standby=frozenset(number for number, use in uses.items() if use is AddressUse.BACKUP),
        drop=frozenset(number for number, use in uses.items() if use is AddressUse.OFF),
        dead=dead,
    )


def announceable(
    policy: AddressPolicy, local: Collection[LocalAddress], connected: Collection[IPAddress]
) -> tuple[LocalAddress, ...]:
    """Which of this end's addresses the peer is told of, besides those that it is `connected` to.

    Not those that are off; not temporary ones, which are there so that nobody knows them (RFC 8981), nor deprecated
    ones; not link-local ones, which mean nothing elsewhere; loopback ones only to a peer on this machine.
    """
    here = any(one.is_loopback for one in connected)
    return tuple(
        one
        for one in _single(local).values()
        if one.address not in connected
        and not (one.temporary or one.deprecated or one.link_local)
        and one.loopback is here
        and policy.use(one.address, one.interface) is not AddressUse.OFF
    )


def believable(announced: Endpoint, dialed: Iterable[Endpoint]) -> bool:
    """Whether a peer may send this end there. Its word must not make this end knock on doors of its own machine or link
    that it was not sent to by its user, and must not go round the rules in another spelling (RFC 4291 2.5.5.2)."""
    address = announced.address
    if not announced.port or address.is_multicast or address.is_unspecified:
        return False
    if address.is_reserved and not address.is_loopback:
        # Of IPv6, that is whatever is outside of the blocks that are assigned, and ::1 too.
        return False
    if isinstance(address, IPv6Address) and (address.ipv4_mapped is not None or address.is_link_local):
        # A frame has no place for the link of a link-local address.
        return False
    return _reach(address) == 0 or any(_reach(one.address) == _reach(address) for one in dialed)


def _reach(address: IPAddress) -> int:
    """How far an address means the same: everywhere or at least on some network, on one link, on this machine."""
    return 2 if address.is_loopback else 1 if address.is_link_local else 0


def _together(one: AddressUse, other: AddressUse) -> AddressUse:
    """The use of a path, by those of its ends."""
    order = (AddressUse.OFF, AddressUse.BACKUP, AddressUse.FULLMESH, AddressUse.DEFAULT)
    return min(one, other, key=order.index)


def _order(local: LocalAddress) -> tuple[int, bool, bool, int]:
    # IPv6 first (RFC 8305), of IPv6 the temporary ones (RFC 6724 5, rule 7).
    return local.index, local.address.version == 4, not local.temporary, int(local.address)


def _single(local: Iterable[LocalAddress]) -> dict[IPAddress, LocalAddress]:
    """By address, in order. One that two interfaces have is that of the first: a socket is bound to addresses only."""
    found: dict[IPAddress, LocalAddress] = {}
    for one in sorted(local, key=_order):
        found.setdefault(one.address, one)
    return found


def _sources(policy: AddressPolicy, local: Collection[LocalAddress], live: Collection[Path]) -> list[LocalAddress]:
    """The addresses to open paths from, best first.

    Of those that an interface has in one network, one: they are the same path. That is one that has a path already,
    else a temporary one. Those that a rule names are there besides.
    """
    used = {path.local for path in live}
    interfaces = {one.interface for one in local if one.address in used}
    usable = [
        one
        for one in sorted(local, key=lambda one: (one.address not in used, _order(one)))
        if not one.deprecated and policy.use(one.address, one.interface) is not AddressUse.OFF
    ]
    chosen: dict[object, LocalAddress] = {}
    for one in usable:
        network = one.index, ip_network((one.address.packed, one.prefix), strict=False)
        chosen.setdefault(one.address if policy.names(one) else network, one)

    def rank(one: LocalAddress) -> tuple[object, ...]:
        standby = policy.use(one.address, one.interface) is AddressUse.BACKUP
        # An interface without a path is worth more than another address of one that has.
        return standby, one.interface in interfaces, _order(one)

    return sorted(chosen.values(), key=rank)


def _wanted(
    policy: AddressPolicy, sources: Sequence[LocalAddress], remotes: Sequence[Endpoint], live: Collection[Path]
) -> Iterator[PlannedPath]:
    have = {(path.local, path.remote) for path in live}
    # How many paths each end has.
    count = Counter[IPAddress | Endpoint](end for pair in have for end in pair)
    mine = {one: policy.use(one.address, one.interface) for one in sources}
    theirs = {one: policy.use(one.address) for one in remotes}

    def fits(source: LocalAddress, remote: Endpoint) -> bool:
        return can_pair(source.address, remote.address) and _reach(source.address) == _reach(remote.address)

    def planned(source: LocalAddress, remote: Endpoint) -> PlannedPath:
        have.add((source.address, remote))
        count.update((source.address, remote))
        return PlannedPath(source, remote, _together(mine[source], theirs[remote]) is AddressUse.BACKUP)

    # Each address of this end once, then each of the peer's, to or from whichever has the fewest paths.
    for source in sources:
        if not count[source.address] and (there := [one for one in remotes if fits(source, one)]):
            yield planned(source, min(there, key=lambda one: count[one]))
    for remote in remotes:
        if not count[remote] and (here := [one for one in sources if fits(one, remote)]):
            yield planned(min(here, key=lambda one: count[one.address]), remote)
    for source in sources:
        for remote in remotes:
            meshed = AddressUse.FULLMESH in (mine[source], theirs[remote])
            if meshed and fits(source, remote) and (source.address, remote) not in have:
                yield planned(source, remote)
