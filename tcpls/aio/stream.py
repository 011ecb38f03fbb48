"""One stream of a session, as an application uses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Protocol

from tcpls.errors import ApiMisuse
from tcpls.protocol.core import Core
from tcpls.protocol.streams import MAX_STREAM_DATA
from tcpls.wire import Buffer

if TYPE_CHECKING:
    from tcpls.aio.session import Session

READ_SIZE = 1 << 19
"""Bytes that `read` returns at most when it is not told."""

TURN = 1 << 20
"""Bytes written after which everybody else gets a turn: about a millisecond of sealing and sending."""

LARGE = MAX_STREAM_DATA
"""A write of more than a record leaves by the end of the loop's turn, together with what else is written in it, or
before that once there is a batch of records; a smaller one leaves at once."""

BATCH = 32 * MAX_STREAM_DATA
"""Bytes that one system call takes along."""


class Watcher(Protocol):
    """Who is told what otherwise wakes tasks, from the midst of `pump`: it may not do more than take note."""

    def readable(self) -> None:
        """There may be something to receive: data, the end, or an error."""

    def writable(self) -> None:
        """The send buffer has room again, or nothing can be sent any more."""


class Stream:
    """A bidirectional stream of bytes with back-pressure both ways.

    One task may read and one may write at a time. Every coroutine can be cancelled without losing data: what
    `read` did not return stays, and what `write` took is sent.
    """

    def __init__(
        self,
        core: Core,
        stream_id: int,
        pump: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
        session: Session,
    ) -> None:
        self.early = False
        """Whether the client opened it by early data: what it begins with may be a replay, which `wait_handshake` of
        the session rules out."""
        self._core = core
        self._id = stream_id
        self._pump = pump
        self._loop = loop
        self._session = session
        self._watcher: Watcher | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._written = 0
        """Bytes since the last turn of others."""
        self._unsent = 0
        """Bytes that the shell was not run for yet."""
        self._push_due = False
        self._ended = False
        """Whether the end of what the peer sends was returned: the core may have forgotten the stream since."""

    @property
    def id(self) -> int:
        """The stream's number: even when the client opened it, odd when the server did (draft section 3.1)."""
        return self._id

    @property
    def session(self) -> Session:
        """The session that it belongs to."""
        return self._session

    def __repr__(self) -> str:
        return f"<Stream {self._id}>"

    async def read(self, limit: int = READ_SIZE) -> bytes:
        """At least one and at most `limit` bytes, or b"" at the end of the stream.

        Raises `StreamReset` when the peer gave the stream up, `SessionLost` when it ended without a close.
        """
        if limit < 1:
            raise ApiMisuse("a read is of at least one byte")
        while (data := self.receive_now(limit)) is None:
            if self._reader is not None:
                raise ApiMisuse(f"stream {self._id} is being read by another task")
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return data

    def receive_now(self, limit: int) -> bytes | None:
        """What `read` returns, or None when it would wait."""
        if self._ended:
            return b""
        data = self._core.receive(self._id, limit)
        if data is not None:
            self._ended = not data
            if self._core.credit_due:
                self._pump()
        return data

    async def readexactly(self, count: int) -> bytes:
        """Exactly `count` bytes. Raises `asyncio.IncompleteReadError` when the stream ends before."""
        parts: list[bytes] = []
        missing = count
        while missing:
            data = await self.read(missing)
            if not data:
                raise asyncio.IncompleteReadError(b"".join(parts), count)
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    async def readall(self, limit: int = 1 << 26) -> bytes:
        """Everything up to the end of the stream. Raises `ValueError` when that is more than `limit` bytes."""
        parts: list[bytes] = []
        size = 0
        while data := await self.read():
            size += len(data)
            if size > limit:
                raise ValueError(f"the stream is longer than {limit} bytes")
            parts.append(data)
        return b"".join(parts)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks()

    async def _chunks(self) -> AsyncIterator[bytes]:
        while data := await self.read():
            yield data

    async def write(self, data: Buffer) -> None:
        """Queues `data`, first waiting until the send buffer has room: a slow peer slows its writer down.

        Raises `StreamReset` when the peer stopped reading, `SessionLost` or `SessionClosed` when the session ended.
        """
        if self._written >= TURN:
            # A peer that takes everything at once never makes a writer wait: without this, nobody else would be heard.
            self._written = 0
            await asyncio.sleep(0)
        await self._capacity()
        self._written += len(data)
        self.send_now(data)

    def send_now(self, data: Buffer) -> None:
        """`write` without waiting, however much is queued already. Raises what it raises."""
        size = len(data)
        self._unsent += size
        more = size > LARGE
        # What is not immutable belongs to the caller, who may change it as soon as this returns.
        self._core.send(self._id, data if isinstance(data, bytes) else bytes(data), self._loop.time(), more)
        if more and not self._push_due:
            self._push_due = True
            self._loop.call_soon(self._push)
        if not more or self._unsent >= BATCH:
            self._unsent = 0
            self._pump()

    def _push(self) -> None:
        """The end of a turn in which much was written: what is left of it leaves, whether it fills a record or not."""
        self._push_due = False
        self._unsent = 0
        self._core.push(self._id)
        self._pump()

    async def drain(self) -> None:
        """Waits until the send buffer has room again."""
        await self._capacity()

    async def _capacity(self) -> None:
        while self._core.send_capacity(self._id) <= 0:
            if self._writer is not None:
                raise ApiMisuse(f"stream {self._id} is being written by another task")
            self._writer = self._loop.create_future()
            try:
                await self._writer
            finally:
                self._writer = None

    @property
    def excess(self) -> int:
        """Bytes that are queued beyond the send buffer's bound. Raises what `write` raises."""
        return 0 if self._core.send_finished(self._id) else max(0, -self._core.send_capacity(self._id))

    @property
    def unsent(self) -> int:
        """Bytes that are queued and went into no record, even if they never will."""
        return self._core.unsent(self._id)

    async def write_eof(self) -> None:
        """Ends the sending direction behind what was written; the other direction goes on."""
        self.finish()

    def finish(self) -> None:
        """`write_eof`, which never waits."""
        self._core.finish(self._id)
        self._pump()

    def announce(self) -> None:
        """Tells the peer that the stream is there, which it otherwise learns from the first data: for protocols in
        which the end speaks first that did not open the stream."""
        self._core.announce(self._id)
        self._pump()

    def reset(self, code: int = 0) -> None:
        """Gives up sending: what was not sent yet is dropped, and the peer's reader gets `StreamReset(code)`."""
        self._core.reset(self._id, code)
        self._pump()

    def stop_sending(self, code: int = 0) -> None:
        """Gives up receiving: what comes is dropped, and the peer's writer gets `StreamReset(code)`."""
        self._core.stop_sending(self._id, code)
        self._pump()

    def watch(self, watcher: Watcher | None) -> None:
        """From now on `watcher` is told, and the session holds the stream, and with it the watcher, until None is
        given. Raises `ApiMisuse` when somebody waits for the stream already."""
        if watcher is not None and (self._watcher or self._reader or self._writer):
            raise ApiMisuse(f"stream {self._id} is in use")
        self._watcher = watcher
        if watcher is None:
            self._session.held.discard(self)
        else:
            self._session.held.add(self)

    # Called by the session.

    def wake_reader(self) -> None:
        if self._watcher is not None:
            self._watcher.readable()
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def wake_writer(self) -> None:
        if self._watcher is not None:
            self._watcher.writable()
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)
