"""What the kernel says of links and addresses, by pyroute2's reading of netlink (rtnetlink(7))."""

from __future__ import annotations

import errno
import os
import socket
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from tcpls.errors import KernelUnavailable

IPAddress = IPv4Address | IPv6Address

FEATURE = "watching addresses"

_GROUPS = 0x1 | 0x10 | 0x100
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR."""

_RECEIVE_SIZE = 1 << 17
"""More than any one message: a dump comes in pieces of 32 KiB at most."""

_DUMP_TIMEOUT = 5.0
_DUMP_TRIES = 5
"""A dump that the kernel marks as inconsistent, because something changed meanwhile, is made again."""

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP, _NLM_F_DUMP_INTR = 0x1, 0x300, 0x10
_RTEXT_FILTER_SKIP_STATS = 0x8
_IFF_UP, _IFF_RUNNING = 0x1, 0x40

# linux/if_addr.h. The first has another meaning for IPv4: secondary.
_IFA_F_TEMPORARY, _IFA_F_OPTIMISTIC, _IFA_F_DADFAILED = 0x01, 0x04, 0x08
_IFA_F_DEPRECATED, _IFA_F_TENTATIVE = 0x20, 0x40


@dataclass(frozen=True, slots=True)
class LinkState:
    """A link is up when it is switched on and has a carrier; `gone` when it is no more."""

    index: int
    name: str
    up: bool
    gone: bool = False


@dataclass(frozen=True, slots=True)
class AddressState:
    """An address on a link. `usable`: duplicate address detection has let it through, or need not be waited for."""

    index: int
    address: IPAddress
    prefix: int
    usable: bool
    temporary: bool
    deprecated: bool
    gone: bool = False


State = LinkState | AddressState


class Overflow(Exception):
    """The kernel had more to tell than there was room for: what is known must be asked for anew."""


class NetlinkSocket:
    """A socket for notices of links and addresses, and for asking what there is. Needs no privilege.

    The thread's network namespace of now is what it is about. Raises `KernelUnavailable`.
    """

    def __init__(self, *, notices: bool, receive_buffer: int | None = None) -> None:
        self._marshal = _marshal()
        try:
            self._sock = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
            )
        except OSError as error:
            raise _unavailable(error) from None
        try:
            if receive_buffer is not None:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self._sock.bind((0, _GROUPS if notices else 0))
        except OSError as error:
            self._sock.close()
            raise _unavailable(error) from None

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def receive(self) -> list[State] | None:
        """What has come; None when nothing has. Raises `Overflow`, and OSError for a socket that is of no use."""
        try:
            data, _, flags, sender = self._sock.recvmsg(_RECEIVE_SIZE)
        except BlockingIOError:
            return None
        except OSError as error:
            # netlink(7): ENOBUFS tells that notices were lost.
            if error.errno == errno.ENOBUFS:
                raise Overflow from None
            raise
        if flags & socket.MSG_TRUNC:
            raise Overflow
        # Only the kernel, whose port is 0, is believed.
        return [] if sender[0] else [state for message in self._parse(data) for state in _states(message)]

    def discard(self) -> bool:
        """Drops what has come; returns whether there was anything."""
        some = False
        while True:
            try:
                self._sock.recv(1)
            except BlockingIOError:
                return some
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
            some = True

    def dump(self) -> list[State]:
        """All links, then all addresses. Raises `KernelUnavailable`. The kernel answers within the call."""
        try:
            self._sock.settimeout(_DUMP_TIMEOUT)
            return [*self._ask(_RTM_GETLINK), *self._ask(_RTM_GETADDR)]
        except OSError as error:
            raise _unavailable(error) from None

    def _ask(self, request: int) -> list[State]:
        for sequence in range(1, _DUMP_TRIES + 1):
            self._sock.send(_request(request, sequence))
            answer, consistent = self._answer(sequence)
            if consistent:
                break
        return answer

    def _answer(self, sequence: int) -> tuple[list[State], bool]:
        states: list[State] = []
        consistent = True
        while True:
            data, sender = self._sock.recvfrom(_RECEIVE_SIZE)
            for message in () if sender[0] else self._parse(data):
                header = message["header"]
                if header["sequence_number"] != sequence:
                    continue
                if header["type"] == _NLMSG_ERROR:
                    raise OSError(header["error"].code, os.strerror(header["error"].code))
                consistent &= not header["flags"] & _NLM_F_DUMP_INTR
                if header["type"] == _NLMSG_DONE:
                    return states, consistent
                states += _states(message)

    def _parse(self, data: bytes) -> Iterator[Any]:
        return iter(self._marshal.parse(data))


def _marshal() -> Any:
    """pyroute2's reader of messages. Its import costs 0.1 s and 13 MB, which only those pay who ask."""
    try:
        import ssl  # noqa: F401
    except ImportError:
        # A process that keeps OpenSSL out (no_openssl.py): pyroute2 imports ssl for probes that nobody makes here.
        # asyncio, which it imports too, is to see that there is none.
        import asyncio  # noqa: F401

        sys.modules["ssl"] = types.ModuleType("ssl")
        try:
            from pyroute2.netlink.rtnl.marshal import MarshalRtnl
        finally:
            del sys.modules["ssl"]
    else:
        from pyroute2.netlink.rtnl.marshal import MarshalRtnl
    return MarshalRtnl()


def _request(kind: int, sequence: int) -> bytes:
    """A dump request for links or addresses of all families."""
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    message = ifinfmsg() if kind == _RTM_GETLINK else ifaddrmsg()
    message["family"] = socket.AF_UNSPEC
    if kind == _RTM_GETLINK:
        message["attrs"] = [("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS)]
    message["header"]["type"] = kind
    message["header"]["flags"] = _NLM_F_REQUEST | _NLM_F_DUMP
    message["header"]["sequence_number"] = sequence
    message.encode()
    return bytes(message.data)


def _states(message: Any) -> Iterator[State]:
    """What one message says; nothing for those of other kinds."""
    kind = message["header"]["type"]
    if kind in (_RTM_NEWLINK, _RTM_DELLINK) and message["family"] == socket.AF_UNSPEC:
        # Of the family AF_BRIDGE it is about a port of a bridge: a DELLINK then is no end of the link.
        flags = message["flags"]
        yield LinkState(
            index=message["index"],
            name=message.get_attr("IFLA_IFNAME") or "",
            up=bool(flags & _IFF_UP and flags & _IFF_RUNNING),
            gone=kind == _RTM_DELLINK,
        )
    elif kind in (_RTM_NEWADDR, _RTM_DELADDR) and message["family"] in (socket.AF_INET, socket.AF_INET6):
        # rtnetlink(7): IFA_ADDRESS is the far end's on a point-to-point link, and IFA_LOCAL then is this end's.
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        flags = message.get_attr("IFA_FLAGS")
        if flags is None:
            flags = message["flags"]
        address = ip_address(text)
        if isinstance(address, IPv6Address) and address.is_link_local:
            address = IPv6Address(f"{text}%{message['index']}")
        # RFC 4429: an optimistic address may be used while its detection runs.
        waiting = bool(flags & _IFA_F_TENTATIVE) and not flags & _IFA_F_OPTIMISTIC
        yield AddressState(
            index=message["index"],
            address=address,
            prefix=message["prefixlen"],
            usable=not waiting and not flags & _IFA_F_DADFAILED,
            temporary=address.version == 6 and bool(flags & _IFA_F_TEMPORARY),
            deprecated=bool(flags & _IFA_F_DEPRECATED),
            gone=kind == _RTM_DELADDR,
        )


def _unavailable(error: OSError) -> KernelUnavailable:
    forbidden = error.errno in (errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
    hint = ", perhaps for a seccomp filter" if forbidden else ""
    return KernelUnavailable(FEATURE, f"this process cannot use netlink{hint}: {error.strerror or 'no answer'}")
