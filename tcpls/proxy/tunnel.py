"""The near end's session with a gateway, kept up: lost ones are followed by others, with pauses that grow."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from tcpls import NotNegotiated, Session, SessionClosed, SessionLost, Stream, TCPLSError
from tcpls.errors import PeerError, StreamReset
from tcpls.proxy.carry import give_up
from tcpls.proxy.message import ALPN, RESET, Answer, Code, TargetRefused, receive_answer, write_open
from tcpls.proxy.target import Target

logger = logging.getLogger("tcpls.proxy")

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 15.0
"""Seconds between attempts: twice as long after each that failed, up to here."""

Dial = Callable[[], Awaitable[Session]]


class Link:
    """One session, and its end as something that many can watch."""

    def __init__(self, session: Session, keepalive: float) -> None:
        self.session = session
        self.ended: asyncio.Future[Exception | None] = asyncio.ensure_future(session.wait_ended())
        self._pinging = asyncio.create_task(self._ping(keepalive))

    async def _ping(self, interval: float) -> None:
        """Has the session's idle timeout find out when nobody is there any more."""
        with contextlib.suppress(TCPLSError):
            while True:
                await asyncio.sleep(interval)
                await self.session.ping()

    async def close(self) -> None:
        self._pinging.cancel()
        try:
            await self.session.close()
        finally:
            self.ended.cancel()


class Tunnel:
    """Opens streams to targets over one session at a time."""

    def __init__(self, dial: Dial, *, timeout: float = 20.0, keepalive: float = 20.0) -> None:
        """`timeout`: seconds for a stream to be opened, a new session included. `keepalive`: between pings."""
        self._dial = dial
        self._timeout = timeout
        self._keepalive = keepalive
        self._link: Link | None = None
        self._dialling: asyncio.Task[Link] | None = None
        self._pause = 0.0
        self._due = 0.0
        self._sessions = 0

    async def start(self) -> Session:
        """The first session. Raises what kept it from being made, or had it ended at once."""
        link = await self._current()
        # In TLS 1.3 a client has finished before the server has judged its certificate; this is answered after.
        await link.session.ping()
        return link.session

    async def open(self, target: Target) -> tuple[Stream, Link]:
        """A stream that is connected to the target. Raises `TargetRefused`."""
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    return await self._open(target)
                except (SessionLost, SessionClosed):
                    # It may have been dead for a while, and nobody had noticed. Nothing but the opening was said on it.
                    return await self._open(target)
        except TimeoutError:
            raise TargetRefused(Code.TIMED_OUT, f"in {self._timeout:g} s") from None
        except TargetRefused:
            raise
        except (TCPLSError, OSError) as error:
            raise TargetRefused(Code.FAILED, f"no session with the gateway: {error}") from error

    async def _open(self, target: Target) -> tuple[Stream, Link]:
        link = await self._current()
        stream = await link.session.open_stream()
        try:
            await stream.write(write_open(target))
            answer = await _answer(stream)
            if answer.code is not Code.CONNECTED:
                raise TargetRefused(answer.code, answer.text)
        except BaseException:
            give_up(stream, RESET)
            raise
        return stream, link

    # The session.

    async def _current(self) -> Link:
        if self._link is not None and not self._link.session.ended:
            return self._link
        if self._dialling is None:
            self._dialling = asyncio.create_task(self._connect())
            self._dialling.add_done_callback(self._dialled)
        # Others wait for it too: that one of them gives up is no reason to stop.
        return await asyncio.shield(self._dialling)

    def _dialled(self, task: asyncio.Task[Link]) -> None:
        self._dialling = None
        if not task.cancelled():
            task.exception()  # Whoever waits is told; if nobody does any more, that is no mistake.

    async def _connect(self) -> Link:
        loop = asyncio.get_running_loop()
        if self._link is not None:
            # It has ended, but those who watch it hear of that only in the loop's next turns.
            why = await asyncio.shield(self._link.ended)
            logger.warning("the session with the gateway has ended: %s", why or "closed")
            with contextlib.suppress(TCPLSError):
                await self._link.close()
            self._link = None
        await asyncio.sleep(max(0.0, self._due - loop.time()))
        try:
            session = await self._dial()
            if session.alpn != ALPN or not session.tcpls:
                await session.close(1, "not a gateway")
                raise NotNegotiated(f"this server is no gateway: it does not speak {ALPN}")
        except (TCPLSError, OSError) as error:
            self._pause = min(max(FIRST_PAUSE, self._pause * 2), LONGEST_PAUSE)
            self._due = loop.time() + self._pause
            if self._sessions:
                logger.warning("no session with the gateway, again in %g s: %s", self._pause, error)
            raise
        self._sessions += 1
        self._link = Link(session, self._keepalive)
        # One that ends at once, as when a client is not wanted, is not tried again at once.
        self._due = loop.time() + FIRST_PAUSE
        self._pause = 0.0
        if self._sessions > 1:
            logger.warning("a new session with the gateway")
        return self._link

    async def close(self) -> None:
        """Raises what `Session.close` raises when something that was sent may not have arrived."""
        if self._dialling is not None:
            self._dialling.cancel()
            with contextlib.suppress(asyncio.CancelledError, TCPLSError, OSError):
                await self._dialling
        if self._link is not None:
            await self._link.close()


async def _answer(stream: Stream) -> Answer:
    """Raises `TargetRefused` where there is none, and what ended the session."""
    try:
        return await receive_answer(stream)
    except StreamReset as error:
        raise TargetRefused(Code.FAILED, f"no answer: {error}") from None
    except PeerError as error:
        raise TargetRefused(Code.FAILED, f"the gateway's answer: {error}") from None
