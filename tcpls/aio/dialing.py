"""Connections raced against each other (RFC 8305): the first that is there is used, the slower ones may follow."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tcpls.aio.endpoints import Candidate, socket_name
from tcpls.errors import ConnectError

ATTEMPT_DELAY = 0.25
"""RFC 8305 5: seconds between the starts of two attempts."""

LATE_TIMEOUT = 10.0
"""Seconds that slower attempts have to complete after the first did."""

# Linux, not in the socket module before Python 3.12: the port is chosen by connect, which knows the whole pair, so that
# many connections to different peers may share one.
_IP_BIND_ADDRESS_NO_PORT = 24

Connect = Callable[[Candidate], Awaitable[socket.socket]]


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection that was made, and what it was made for. Whoever is given it closes it."""

    candidate: Candidate
    sock: socket.socket


async def open_tcp(candidate: Candidate, prepare: Callable[[socket.socket], None]) -> socket.socket:
    """Makes the one connection. `prepare` sets the socket up before it connects. Raises OSError, and what that does."""
    sock = socket.socket(candidate.remote.family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        prepare(sock)
        if candidate.local is not None:
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind(socket_name(candidate.local, 0))
        await asyncio.get_running_loop().sock_connect(sock, candidate.remote.name)
    except BaseException:
        sock.close()
        raise
    return sock


class Race:
    """Attempts at `candidates`, best first: ``async with Race(...) as race: first = await race.first()``.

    The next attempt starts when one has failed, or `delay` seconds after the last start. Once one has succeeded no
    further ones start, and those under way go on: ``async for connected in race`` gives them one by one until none is
    left, or `late_timeout` seconds have passed since the first. The end of the block ends every attempt and closes
    every connection that was not given out.
    """

    def __init__(
        self,
        candidates: Iterable[Candidate],
        *,
        connect: Connect,
        delay: float = ATTEMPT_DELAY,
        timeout: float,
        late_timeout: float = LATE_TIMEOUT,
    ) -> None:
        """`timeout`: seconds until the first connection must be there. `connect` raises OSError when it fails."""
        self._waiting = deque(candidates)
        self._connect = connect
        self._delay = delay
        self._timeout = timeout
        self._late_timeout = late_timeout
        self._late_until = 0.0
        self._attempts: dict[asyncio.Task[socket.socket], Candidate] = {}
        """In the order in which they started."""
        self._ready: deque[Connected] = deque()
        self.failures: list[tuple[Candidate, str]] = []
        """What did not succeed, and why, in words."""
        self._numbers: set[int] = set()

    async def first(self) -> Connected:
        """The first connection. Raises `ConnectError`, and what `connect` raises besides OSError; to be called once."""
        try:
            async with asyncio.timeout(self._timeout):
                while not self._ready:
                    if self._waiting:
                        self._start(self._waiting.popleft())
                    elif not self._attempts:
                        raise self._error()
                    await self._wait(self._delay if self._waiting else None)
        except TimeoutError:
            # None of those that were not even started is an answer that was waited for.
            self.failures += [(one, f"no answer in {self._timeout:g} s") for one in self._attempts.values()]
            self._numbers.add(0)
            raise self._error() from None
        self._waiting.clear()
        self._late_until = asyncio.get_running_loop().time() + self._late_timeout
        return self._ready.popleft()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Connected:
        """One of the slower connections. Failures are noted in `failures`, and end nothing."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._late_until):
                while not self._ready and self._attempts:
                    await self._wait(None)
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    async def close(self) -> None:
        """Ends whatever is under way. No attempt and no connection outlives it, except those that were given out."""
        self._waiting.clear()
        while self._ready:
            self._ready.popleft().sock.close()
        attempts = list(self._attempts)
        self._attempts.clear()
        for attempt in attempts:
            attempt.add_done_callback(_close_result)
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _start(self, candidate: Candidate) -> None:
        self._attempts[asyncio.ensure_future(self._connect(candidate))] = candidate

    async def _wait(self, timeout: float | None) -> None:
        """Until an attempt is over, and at most `timeout` seconds; then what is over is sorted."""
        done, _ = await asyncio.wait(self._attempts, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for attempt in [one for one in self._attempts if one in done]:
            error = attempt.exception()
            if error is not None and not isinstance(error, OSError):
                raise error
            candidate = self._attempts.pop(attempt)
            if error is None:
                self._ready.append(Connected(candidate, attempt.result()))
            else:
                # asyncio replaces the error's text by its own; the number is what the kernel said.
                self._numbers.add(error.errno or 0)
                self.failures.append((candidate, os.strerror(error.errno) if error.errno else str(error)))

    def _error(self) -> ConnectError:
        told = "; ".join(f"{candidate}: {reason}" for candidate, reason in self.failures)
        return ConnectError(told or "there is no address", self._numbers.pop() if len(self._numbers) == 1 else 0)


def _close_result(attempt: asyncio.Future[socket.socket]) -> None:
    """For an attempt that succeeded when it was already being ended."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
