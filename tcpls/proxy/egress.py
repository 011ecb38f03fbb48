"""From a target to a connection: looked up, judged by the rules, and connected to what was judged."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading
from ipaddress import IPv6Address, ip_address

from tcpls.errors import PeerError
from tcpls.proxy.carry import prepare
from tcpls.proxy.message import Code, TargetRefused
from tcpls.proxy.rules import EgressRules
from tcpls.proxy.target import Address, Target

LOOKUPS = 32
"""Names looked up at a time; more wait. The system's resolver cannot be interrupted, so each keeps its thread."""

MAX_ADDRESSES = 8
"""Addresses of a name that are tried."""

_CODES = {
    errno.ECONNREFUSED: Code.REFUSED,
    errno.ENETUNREACH: Code.NETWORK_UNREACHABLE,
    errno.EADDRNOTAVAIL: Code.NETWORK_UNREACHABLE,
    errno.EAFNOSUPPORT: Code.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: Code.HOST_UNREACHABLE,
    errno.ETIMEDOUT: Code.TIMED_OUT,
    errno.EMFILE: Code.TOO_MANY,
    errno.ENFILE: Code.TOO_MANY,
}

_NOWHERE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""What says that there is no way to an address."""


class Egress:
    """Connects where the rules allow it."""

    def __init__(self, rules: EgressRules, timeout: float) -> None:
        """`timeout`: seconds for a connection, looking its name up included."""
        self._rules = rules
        self._timeout = timeout
        self._lookups = asyncio.Semaphore(LOOKUPS)

    async def connect(self, target: Target) -> tuple[socket.socket, Address]:
        """A socket that is connected, and the address. Raises `TargetRefused`."""
        try:
            async with asyncio.timeout(self._timeout):
                allowed = await self._allowed(target)
                return await self._first(allowed, target.port)
        except TimeoutError:
            raise TargetRefused(Code.TIMED_OUT, f"in {self._timeout:g} s") from None

    async def _allowed(self, target: Target) -> list[Address]:
        name = target.name
        if isinstance(target.host, str):
            if not self._rules.may_resolve(target.host, target.port):
                raise TargetRefused(Code.NOT_ALLOWED)
            found = await self._look_up(target.host)
        else:
            found = [target.host]
        allowed = [each for each in found if self._rules.allow(name, each, target.port, own=is_own(each))]
        if not allowed:
            raise TargetRefused(Code.NOT_ALLOWED)
        return allowed[:MAX_ADDRESSES]

    async def _look_up(self, name: str) -> list[Address]:
        """The name's addresses, in the order of the system's policy (RFC 6724). Raises `TargetRefused`."""
        await self._lookups.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Address] | OSError] = loop.create_future()

        def settle(found: list[Address] | OSError) -> None:
            self._lookups.release()
            if not answer.done():
                answer.set_result(found)

        def look() -> None:
            found = _addresses(name)
            with contextlib.suppress(RuntimeError):  # The loop has been closed: nobody waits any more.
                loop.call_soon_threadsafe(settle, found)

        # A daemon: a resolver that takes its time does not keep the process from ending.
        threading.Thread(target=look, daemon=True).start()
        found = await answer
        if isinstance(found, OSError):
            raise TargetRefused(Code.NO_SUCH_NAME, found.strerror or "")
        return found

    async def _first(self, addresses: list[Address], port: int) -> tuple[socket.socket, Address]:
        """The first that answers; each gets its share of the time. Raises `TargetRefused` for the last one's reason."""
        share = self._timeout / len(addresses)
        refused = TargetRefused(Code.FAILED)
        for address in addresses:
            try:
                async with asyncio.timeout(share):
                    return await _connected(address, port), address
            except OSError as error:
                # asyncio replaces the error's text by its own; the number is what the kernel said.
                number = error.errno or errno.ETIMEDOUT
                refused = TargetRefused(_CODES.get(number, Code.FAILED), os.strerror(number))
        raise refused


def _addresses(name: str) -> list[Address] | OSError:
    """Blocks."""
    try:
        rows = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        targets = [Target.of(ip_address(row[4][0]), 1).host for row in rows]
    except OSError as error:
        return error
    except (UnicodeError, PeerError, ValueError) as error:
        return OSError(0, str(error))
    return [host for host in dict.fromkeys(targets) if not isinstance(host, str)]


async def _connected(address: Address, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET, socket.SOCK_STREAM)
    try:
        prepare(sock)
        # A numeric address: nobody is asked again what it means.
        await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
    except BaseException:
        sock.close()
        raise
    return sock


def is_own(address: Address) -> bool:
    """Whether packets to that address stay on this machine: asked of its routes, and nothing is sent.

    True also where that cannot be asked: what is not known to be elsewhere is guarded.
    """
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((str(address), 9))
            return bool(ip_address(sock.getsockname()[0]) == address)
    except OSError as error:
        return error.errno not in _NOWHERE
