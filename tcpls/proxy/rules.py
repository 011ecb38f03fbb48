"""Where a gateway lets its clients go: nowhere, but for what its rules say.

::

    db.internal:5432            this name, wherever it leads
    *.internal:22,8000-8999     every name that ends so
    10.1.0.0/16:*               these addresses, by whatever name; every port
    [2001:db8::/32]:443
    *:443                       every name and every address that is public

What a name leads to is looked up first, and judged then. Loopback, link-local addresses, those at which clouds tell
machines their secrets, and the gateway's own are reached only by a rule that names that very address.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from tcpls.errors import ConfigurationError
from tcpls.proxy.target import Address

Network = IPv4Network | IPv6Network

NEVER: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",  # RFC 1122 3.2.1.3: this host; Linux connects to itself.
            "224.0.0.0/4",
            "255.255.255.255/32",
            "::/128",
            "ff00::/8",
        ),
    )
)
"""What no rule reaches: nothing that TCP connects to."""

GUARDED: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "127.0.0.0/8",
            "::1/128",
            "169.254.0.0/16",  # RFC 3927; with 169.254.169.254, where most clouds have their metadata.
            "fe80::/10",
            "fd00:ec2::/32",  # Amazon's metadata by IPv6, with its name and time servers.
            "fd20:ce::254/128",  # Google's.
            "100.100.100.200/32",  # Alibaba's.
            "168.63.129.16/32",  # Azure's.
            "192.0.0.192/32",  # Oracle's.
        ),
    )
)
"""What only a rule for that very address reaches."""

LOCALHOST = frozenset(map(ip_address, ("127.0.0.1", "::1")))
"""RFC 6761 6.3: what the name localhost means, and nothing else."""

NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052 2.1: the last 32 bits are an IPv4 address."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`network` None: a rule of names, which match `glob`."""

    text: str
    network: Network | None
    glob: str
    ports: tuple[range, ...]

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Raises `ConfigurationError` for what is no rule, and for one that could never be of use."""
        host, colon, ports = text.strip().rpartition(":")
        if not colon or not host:
            raise _bad(text, "HOST:PORTS is wanted, and HOST:* for all ports")
        return cls(text.strip(), *_host(text, host.lower()), _ports(text, ports))

    def has_port(self, port: int) -> bool:
        return any(port in each for each in self.ports)

    @property
    def exact(self) -> bool:
        """Whether this names one address."""
        return self.network is not None and self.network.prefixlen == self.network.max_prefixlen

    def has_name(self, name: str) -> bool:
        return self.network is None and fnmatch.fnmatchcase(name, self.glob)


def _bad(text: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"the rule {text!r}: {why}")


def _host(text: str, host: str) -> tuple[Network | None, str]:
    bracketed = re.fullmatch(r"\[([^][]+)\]", host)
    bare = bracketed[1] if bracketed else host
    try:
        network = ip_network(bare)
    except ValueError as error:
        if bracketed or "/" in bare or ":" in bare or re.fullmatch(r"[0-9.*?]*[0-9][0-9.*?]*", bare):
            raise _bad(text, f"addresses are written as 192.0.2.1, 192.0.2.0/24 or [2001:db8::/32] ({error})") from None
        if not re.fullmatch(r"[a-z0-9_.*?-]+", bare):
            raise _bad(text, "names have letters, digits, hyphens, dots, and * and ? for any of them") from None
        return None, bare.removesuffix(".")
    if (network.version == 6) is not bool(bracketed):
        raise _bad(text, "IPv6 addresses stand in brackets, and nothing else does")
    if isinstance(network, IPv6Network) and (mapped := network.network_address.ipv4_mapped) is not None:
        raise _bad(text, f"this is the IPv4 address {mapped}")
    if _within(network, NEVER):
        raise _bad(text, "no connection can be made to that")
    if network.prefixlen < network.max_prefixlen and _within(network, GUARDED):
        raise _bad(text, "loopback, link-local and metadata addresses are allowed one by one")
    return network, ""


def _ports(text: str, ports: str) -> tuple[range, ...]:
    if ports == "*":
        return (range(1, 65536),)
    found = []
    for part in ports.split(","):
        match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part.strip(), re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 0 < first <= last < 65536:
            raise _bad(text, f"{part!r} is neither a port, nor two with a hyphen, nor *")
        found.append(range(first, last + 1))
    return tuple(found)


def _within(network: Network, those: Iterable[Network]) -> bool:
    """Whether it is part of one of them."""
    return any(
        each.version == network.version and network.network_address in each and network.prefixlen >= each.prefixlen
        for each in those
    )


class EgressRules:
    """All of them: what one allows is allowed."""

    def __init__(self, rules: Iterable[str]) -> None:
        """Raises `ConfigurationError`."""
        self._rules = tuple(map(Rule.parse, rules))

    def may_resolve(self, name: str, port: int) -> bool:
        """Whether any rule might allow what this name leads to: if none might, nobody is asked for it."""
        return any(rule.has_port(port) and (rule.network is not None or rule.has_name(name)) for rule in self._rules)

    def allow(self, name: str | None, address: Address, port: int, *, own: bool = False) -> bool:
        """Whether a client may be connected to that address, which is what `name` leads to (None: it said so itself).

        `own`: the address is one of this machine's.
        """
        if _among(address, NEVER):
            return False
        rules = [rule for rule in self._rules if rule.has_port(port)]
        if own or any(_among(each, GUARDED) for each in (address, *_embedded(address))):
            return any(_names_exactly(rule, name, address) for rule in rules)
        return any(_covers(rule, name, address) for rule in rules)


def _among(address: Address, networks: Iterable[Network]) -> bool:
    return any(each.version == address.version and address in each for each in networks)


def _embedded(address: Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses to which an IPv6 one may be translated on the way."""
    if not isinstance(address, IPv6Address):
        return ()
    found = (
        address.ipv4_mapped,
        address.sixtofour,
        address.teredo[1] if address.teredo else None,
        IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else None,
    )
    return tuple(each for each in found if each is not None)


def _names_exactly(rule: Rule, name: str | None, address: Address) -> bool:
    if rule.exact:
        return rule.network is not None and rule.network.network_address == address
    return rule.glob == "localhost" and name == "localhost" and address in LOCALHOST


def _covers(rule: Rule, name: str | None, address: Address) -> bool:
    if rule.network is not None:
        return rule.network.version == address.version and address in rule.network
    if not (rule.glob == "*" if name is None else rule.has_name(name)):
        return False
    if re.search(r"[a-z0-9]", rule.glob):
        return True
    # A pattern without a letter: whoever owns a name can have it lead into this network, so that none is meant that
    # the rule does not say.
    return address.is_global and all(each.is_global for each in _embedded(address))
