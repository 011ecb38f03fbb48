"""Where a connection is to go: a name or an address, and a port."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from tcpls.errors import PeerError, Reason

Address = IPv4Address | IPv6Address

MAX_NAME = 253
"""Octets of a name as it is written, without the dot at its end (RFC 1035 2.3.4: 255 with all the lengths)."""

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class Target:
    """`host` is a name in lower case, without a dot at its end, or an address; an IPv4 one is never inside an IPv6."""

    host: str | Address
    port: int

    @classmethod
    def of(cls, host: str | Address, port: int) -> Target:
        """Whoever spells an address as a name means the address. Raises `PeerError(BAD_VALUE)` for what is neither."""
        if isinstance(host, str):
            host = _address(host) or _name(host)
        if isinstance(host, IPv6Address):
            if host.scope_id is not None:
                # A zone is a number of this machine's, and means nothing on another.
                raise PeerError(Reason.BAD_VALUE, "an address with a zone")
            # The kernel takes it for the IPv4 address, and so do the rules.
            host = host.ipv4_mapped or host
        if not 0 < port < 65536:
            raise PeerError(Reason.BAD_VALUE, f"port {port}")
        return cls(host, port)

    @classmethod
    def parse(cls, text: str) -> Target:
        """`HOST:PORT` or `[IPV6]:PORT`. Raises `PeerError(BAD_VALUE)`."""
        host, _, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise PeerError(Reason.BAD_VALUE, "an IPv6 address stands in brackets")
        if not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII):
            raise PeerError(Reason.BAD_VALUE, "not HOST:PORT")
        return cls.of(host, int(port))

    @property
    def name(self) -> str | None:
        """The name, if it is one."""
        return self.host if isinstance(self.host, str) else None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if isinstance(self.host, IPv6Address) else f"{self.host}:{self.port}"


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _name(text: str) -> str:
    """Letters, digits, hyphens and, because they are in use, underscores: nothing that a log or a resolver minds."""
    text = text.removesuffix(".")
    if len(text) > MAX_NAME or not _NAME.fullmatch(text):
        raise PeerError(Reason.BAD_VALUE, "not a host name")
    return text.lower()
