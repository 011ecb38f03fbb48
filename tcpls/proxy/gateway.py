"""The far end: takes streams of clients that are known, and connects them where the rules allow it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tcpls import Session, SessionClosed, SessionLost, Stream, TCPLSError
from tcpls.errors import PeerError
from tcpls.proxy.carry import Carriage, How, carry, give_up, reset
from tcpls.proxy.egress import Egress
from tcpls.proxy.message import ALPN, LATE, RESET, Answer, Code, TargetRefused, receive_open
from tcpls.proxy.rules import EgressRules
from tcpls.proxy.target import Target

logger = logging.getLogger("tcpls.proxy")

OPENING_SECONDS = 10.0
"""For a client to say where a stream is to go."""

FINISHING_SECONDS = 10.0
"""For targets to take what a client had sent when it closed its session."""

_ENDED = {
    How.SOCKET: "reset by the target",
    How.STREAM: "reset by the client",
    How.STOPPED: "the gateway ended",
}
"""For a gateway; the others are said as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`connections` at a time in all, and `per_client`; times in seconds, None is for ever."""

    connections: int = 1024
    per_client: int = 256
    connect_timeout: float = 10.0
    idle_timeout: float | None = None


class Gateway:
    """The handler of a server: `serve(Gateway(rules), ...)`. The server's ALPN is `message.ALPN`."""

    def __init__(self, rules: EgressRules, limits: Limits | None = None, *, anonymous: bool = False) -> None:
        """`anonymous`: clients that nobody knows are served too."""
        self._limits = limits or Limits()
        self._egress = Egress(rules, self._limits.connect_timeout)
        self._anonymous = anonymous
        self._carried: Counter[str] = Counter()

    async def __call__(self, session: Session) -> None:
        info = session.info()
        who = info.peer or "anonymous"
        if problem := self._problem(session, bool(info.peer)):
            logger.warning("%s: refused: %s", who, problem)
            await session.close(1, problem)
            return
        logger.info("%s: session begins%s", who, ", resumed" if info.resumed else "")
        ended = asyncio.ensure_future(session.wait_ended())
        streams: set[asyncio.Task[None]] = set()
        try:
            async for stream in session.streams():
                task = asyncio.create_task(self._serve(stream, who, ended))
                streams.add(task)
                task.add_done_callback(streams.discard)
            # What the client had sent when it closed is still to be delivered.
            if streams:
                await asyncio.wait(streams, timeout=FINISHING_SECONDS)
            logger.info("%s: session closed", who)
        except (SessionLost, SessionClosed) as error:
            logger.info("%s: session ends: %s", who, error)
        finally:
            rest = list(streams)
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            ended.cancel()

    def _problem(self, session: Session, known: bool) -> str:
        """Why a session is none for this gateway; "" when it is one."""
        if not session.tcpls:
            return "this gateway needs TCPLS"
        if session.alpn != ALPN:
            return f"this gateway speaks {ALPN}"
        if not known and not self._anonymous:
            return "this gateway serves clients that it knows"
        return ""

    async def _serve(self, stream: Stream, who: str, ended: asyncio.Future[Exception | None]) -> None:
        """One stream, from its opening to its end. Whatever goes wrong with it stays with it."""
        try:
            async with asyncio.timeout(OPENING_SECONDS):
                target = await receive_open(stream)
        except TimeoutError:
            logger.warning("%s: a stream was not opened in %g s", who, OPENING_SECONDS)
            give_up(stream, LATE)
            return
        except PeerError as error:
            logger.warning("%s: an opening is not understood: %s", who, error)
            await self._refuse(stream, TargetRefused(Code.NOT_UNDERSTOOD, str(error)))
            return
        except TargetRefused as refused:
            logger.warning("%s: an opening is not understood: %s", who, refused)
            await self._refuse(stream, refused)
            return
        except TCPLSError as error:
            logger.info("%s: a stream ended before it was opened: %s", who, error)
            give_up(stream, RESET)
            return
        try:
            with self._counted(who):
                await self._connect(stream, target, who, ended)
        except TargetRefused as refused:
            logger.warning("%s: %s: refused: %s", who, target, refused)
            await self._refuse(stream, refused)
        except Exception:
            logger.exception("%s: %s", who, target)
            give_up(stream, RESET)

    @contextmanager
    def _counted(self, who: str) -> Iterator[None]:
        """Raises `TargetRefused`."""
        if self._carried.total() >= self._limits.connections:
            raise TargetRefused(Code.TOO_MANY, "at this gateway")
        if self._carried[who] >= self._limits.per_client:
            raise TargetRefused(Code.TOO_MANY, "of this client")
        self._carried[who] += 1
        try:
            yield
        finally:
            self._carried[who] -= 1
            # Clients come and go, and are not to be remembered for ever.
            self._carried += Counter()

    async def _refuse(self, stream: Stream, refused: TargetRefused) -> None:
        with contextlib.suppress(TCPLSError):
            await stream.write(Answer(refused.code, refused.text).write())
            await stream.write_eof()
            stream.stop_sending(RESET)

    async def _connect(self, stream: Stream, target: Target, who: str, ended: asyncio.Future[Exception | None]) -> None:
        """Raises `TargetRefused`."""
        sock, address = await self._egress.connect(target)
        where = str(target) if target.name is None else f"{target} ({address})"
        started = asyncio.get_running_loop().time()
        carriage = Carriage()
        logger.debug("%s: %s: connected", who, where)
        try:
            try:
                await stream.write(Answer(Code.CONNECTED).write())
            except TCPLSError as error:
                carriage.how, carriage.why = How.STREAM, str(error)
                give_up(stream, RESET)
                return
            await carry(sock, stream, ended, carriage, idle_timeout=self._limits.idle_timeout)
        finally:
            reset(sock)
            logger.info(
                "%s: %s: %d bytes to the target, %d back, %.1f s, %s",
                who,
                where,
                carriage.to_socket,
                carriage.from_socket,
                asyncio.get_running_loop().time() - started,
                _ENDED.get(carriage.how, carriage.why or carriage.how.value),
            )
