"""Standard input and output joined to a stream."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sys
import threading
from collections.abc import Awaitable, Callable

from tcpls import Stream, StreamReset
from tcpls.cli.exits import FileError

PIECE = 1 << 16


class StandardInput:
    """Standard input as an asynchronous source. A thread of its own reads, one piece ahead at most.

    The thread cannot be stopped while it waits for a terminal, so it is a daemon: it ends with the process.
    """

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[bytes | OSError] = asyncio.Queue(maxsize=1)
        self._taken = threading.Semaphore(1)
        self._over = False
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        piece: bytes | OSError = b"x"
        while piece and isinstance(piece, bytes):
            self._taken.acquire()
            try:
                piece = os.read(self._descriptor, PIECE)
            except OSError as error:
                piece = error
            with contextlib.suppress(RuntimeError):  # The loop has been closed: nobody listens any more.
                self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    async def read(self) -> bytes:
        """The next piece; b"" at the end, and ever after. Raises `FileError`."""
        if self._over:
            return b""
        piece = await self._pieces.get()
        self._over = not piece
        if isinstance(piece, OSError):
            raise FileError(f"standard input: {piece.strerror}") from piece
        self._taken.release()
        return piece


class StandardOutput:
    """Standard output as an asynchronous sink.

    A thread of its own writes, and it is a daemon: somebody who does not read keeps this process from nothing.
    """

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    async def write(self, data: bytes) -> None:
        """Returns when all of it is written. Raises `FileError`."""
        written: asyncio.Future[None] = self._loop.create_future()
        self._jobs.put((data, written))
        await written

    def _run(self) -> None:
        while True:
            data, written = self._jobs.get()
            failure = self._write_all(memoryview(data))
            try:
                self._loop.call_soon_threadsafe(_settle, written, failure)
            except RuntimeError:
                return  # The loop has been closed: nobody waits any more.

    def _write_all(self, view: memoryview) -> OSError | None:
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            return error
        return None


def _settle(written: asyncio.Future[None], failure: OSError | None) -> None:
    if written.done():
        return
    if failure is None:
        written.set_result(None)
    else:
        written.set_exception(FileError(f"standard output: {failure.strerror}"))


async def join(
    stream: Stream, until: Callable[[], Awaitable[object]] | None = None, source: StandardInput | None = None
) -> None:
    """Joins standard input and output to `stream` until the other end has finished it.

    The end of input ends only the sending direction. With `until`, the other end's ends only the receiving one: input
    is sent until it ends, or `until()` has been awaited. Raises the stream's error when it did not end cleanly.
    `source` is standard input, when some of it was read before.
    """
    output = StandardOutput()
    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(_send_input(stream, source or StandardInput()))
        async for data in stream:
            await output.write(data)
        if until is not None:
            await _first(sending, asyncio.ensure_future(until()))
        sending.cancel()
    if not sending.cancelled() and (stopped := sending.result()) is not None:
        raise stopped
    await stream.write_eof()


async def _first(sending: asyncio.Task[StreamReset | None], until: asyncio.Future[object]) -> None:
    """Waits for either; the second is given up then."""
    try:
        await asyncio.wait((sending, until), return_when=asyncio.FIRST_COMPLETED)
    finally:
        until.cancel()


async def _send_input(stream: Stream, source: StandardInput) -> StreamReset | None:
    """Sends all of standard input; what is returned says that the other end stopped reading, and may still talk."""
    try:
        while piece := await source.read():
            await stream.write(piece)
    except StreamReset as stopped:
        return stopped
    await stream.write_eof()
    return None


def occupy_standard_descriptors() -> None:
    """A standard stream that is closed fails when it is used; its number must not come to mean a socket of ours.

    To be called before anything is opened: the lowest free number is given away first.
    """
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
