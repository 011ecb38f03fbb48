"""The client's `get` and `put`."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO
from urllib.parse import quote

import h11

from tcpls import Session, Stream
from tcpls.cli.exits import FileError
from tcpls.cli.http import Head, Incoming, digest_of_header, file_digest
from tcpls.cli.progress import progress_bar, summary
from tcpls.cli.stdio import StandardOutput

BLOCK = 1 << 20

Take = Callable[[bytes], Awaitable[None]]
"""Takes a piece of a body."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Runs one transfer after the other on streams of `session`, `patience` seconds without progress at most."""

    session: Session
    host: str
    patience: float
    quiet: bool = False
    asked: list[Stream] = field(default_factory=list)
    """The stream on which the first request was made already, as early data."""

    async def get(self, name: str, output: str | None) -> None:
        """Fetches `name` into `output` ("-": standard output; None: the name's last part, or nothing for `/<bytes>`).

        The file appears when it is whole; on TCPLS its SHA-256 is compared with the server's.
        """
        target = target_of(name)
        measuring = output is None and name.lstrip("/").isdigit()
        incoming = await self._request("GET", target, [])
        head = await self._response(incoming, target)
        started = time.monotonic()
        if measuring or output == "-":
            count = await self._drain(incoming, head, target, _nothing if measuring else StandardOutput().write)
            await self._finish(incoming)
            self._say(summary(f"got {target}", count, time.monotonic() - started))
            return
        path = Path(output or Path(name).name)
        count, digest = await self._save(incoming, head, target, path)
        self._say(summary(f"got {path}", count, time.monotonic() - started))
        await self._compare(target, digest)

    async def put(self, file_name: str, name: str | None) -> None:
        """Sends a file; the server answers with the SHA-256 of what it stored, which is compared."""
        path = Path(file_name)
        target = target_of(name or path.name)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            started = time.monotonic()
            incoming = await self._request("PUT", target, [("Content-Length", str(size))])
            sending = asyncio.create_task(self._send(incoming, file, size, target))
            answering = asyncio.create_task(self._response(incoming, target))
            try:
                # A refusal comes while the body is still on its way: whichever is first counts.
                await asyncio.wait([sending, answering], return_when=asyncio.FIRST_COMPLETED)
                if not answering.done():
                    await sending
                head = await answering
            finally:
                await _ended(sending, answering)
        self._say(summary(f"put {path}", size, time.monotonic() - started))
        stored = digest_of_header(head.headers.get("repr-digest", ""))
        if stored is not None:
            self._judge(target, await asyncio.to_thread(file_digest, path), stored)
        await self._finish(incoming)

    # One request, its response.

    async def _request(self, method: str, target: str, headers: list[tuple[str, str]]) -> Incoming:
        connection = h11.Connection(h11.CLIENT)
        head = request_head(connection, method, target, self.host, headers)
        if self.asked:
            stream = self.asked.pop()
        else:
            stream = await self.session.open_stream()
            await stream.write(head)
        if method != "PUT":
            connection.send(h11.EndOfMessage())
            if self.session.tcpls:
                await stream.write_eof()
        return Incoming(stream, connection)

    async def _response(self, incoming: Incoming, target: str) -> Head:
        async with asyncio.timeout(self.patience):
            try:
                head = await incoming.head()
            except h11.RemoteProtocolError as error:
                raise FileError(f"{target}: the server's answer is not HTTP: {error}") from error
        if head is None:
            raise FileError(f"{target}: the server closed without an answer")
        if head.status not in (200, 201):
            reason = b"".join([part async for part in incoming.body(head)])[:200].decode("utf-8", "replace").strip()
            raise FileError(f"{target}: the server answered {head.status}" + (f": {reason}" if reason else ""))
        return head

    async def _finish(self, incoming: Incoming) -> None:
        """Sees the end of the stream: only then is it known that the other end closed cleanly."""
        await incoming.stream.write_eof()
        async with asyncio.timeout(self.patience):
            while await incoming.stream.read():
                pass

    async def _drain(self, incoming: Incoming, head: Head, target: str, take: Take) -> int:
        count = 0
        with progress_bar(target, head.body_size, quiet=self.quiet) as bar:
            async with self._patient() as patience:
                async for piece in incoming.body(head):
                    count += len(piece)
                    patience.reschedule(None)  # Whoever reads the output may take all the time in the world.
                    await take(piece)
                    bar.advance(len(piece))
                    patience.reschedule(asyncio.get_running_loop().time() + self.patience)
        return count

    async def _save(self, incoming: Incoming, head: Head, target: str, path: Path) -> tuple[int, bytes]:
        parent = path.parent
        try:
            with tempfile.NamedTemporaryFile(dir=parent, prefix=f".{path.name}.", delete=False) as file:
                partial = Path(file.name)
                try:
                    count = await self._drain(incoming, head, target, _into(file))
                    file.flush()
                    await self._finish(incoming)
                    digest = await asyncio.to_thread(file_digest, partial)
                    partial.chmod(0o644)
                    partial.replace(path)
                except BaseException:
                    partial.unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise FileError(f"{path}: {error.strerror or error}") from error
        return count, digest

    async def _send(self, incoming: Incoming, file: BinaryIO, size: int, target: str) -> None:
        missing = size
        with progress_bar(target, size, quiet=self.quiet) as bar:
            async with self._patient() as patience:
                while missing:
                    block = await asyncio.to_thread(file.read, min(BLOCK, missing))
                    if not block:
                        incoming.stream.reset(1)
                        raise FileError(f"{file.name} shrank while it was sent")
                    await incoming.stream.write(block)
                    missing -= len(block)
                    bar.advance(len(block))
                    patience.reschedule(asyncio.get_running_loop().time() + self.patience)
        if self.session.tcpls:
            await incoming.stream.write_eof()

    @asynccontextmanager
    async def _patient(self) -> AsyncIterator[asyncio.Timeout]:
        try:
            async with asyncio.timeout(self.patience) as patience:
                yield patience
        except TimeoutError:
            raise TimeoutError(f"nothing moved for {self.patience:g} s") from None

    # Both ends have the same?

    async def _compare(self, target: str, digest: bytes) -> None:
        """Asks the server for the file's SHA-256, on a stream of its own (RFC 9530)."""
        if not self.session.tcpls:
            self._say(f"sha-256 {digest.hex()}")
            return
        incoming = await self._request("HEAD", target, [("Want-Repr-Digest", "sha-256=1")])
        head = await self._response(incoming, target)
        await self._finish(incoming)
        theirs = digest_of_header(head.headers.get("repr-digest", ""))
        if theirs is None:
            self._say(f"sha-256 {digest.hex()}; the server does not tell its own")
        else:
            self._judge(target, digest, theirs)

    def _judge(self, target: str, ours: bytes, theirs: bytes) -> None:
        if ours != theirs:
            raise FileError(f"{target}: sha-256 is {ours.hex()} here and {theirs.hex()} at the server")
        self._say(f"sha-256 {ours.hex()}, equal at both ends")

    def _say(self, line: str) -> None:
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)


def target_of(name: str) -> str:
    return "/" + quote(os.fsencode(name.lstrip("/")))


def request_head(
    connection: h11.Connection, method: str, target: str, host: str, headers: list[tuple[str, str]]
) -> bytes:
    request = h11.Request(method=method, target=target, headers=[("Host", host), ("Connection", "close"), *headers])
    return connection.send(request) or b""


def first_words(name: str, host: str) -> bytes:
    """The request of a `get`, to be made ahead of the handshake."""
    return request_head(h11.Connection(h11.CLIENT), "GET", target_of(name), host, [])


async def _ended(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _nothing(piece: bytes) -> None:
    """For measuring."""


def _into(file: IO[bytes]) -> Take:
    async def take(piece: bytes) -> None:
        file.write(piece)

    return take
