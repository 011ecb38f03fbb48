"""What the server gives: the files of a folder, `/<bytes>` for measuring, and, when allowed, a place to put files."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from io import FileIO
from pathlib import Path
from urllib.parse import unquote_to_bytes

import h11

from tcpls import ApiMisuse, Session, Stream
from tcpls.cli.exits import FileError
from tcpls.cli.http import Head, Incoming, digest_header, file_digest
from tcpls.cli.progress import summary
from tcpls.errors import StreamReset

logger = logging.getLogger("tcpls.server")

BLOCK = 1 << 20
"""Bytes read from a file, or made up, and queued at a time."""

HEAD_TIMEOUT = 60.0
"""Seconds that an idle client may take between requests."""

MOST_DIGESTS = 1024
"""Digests remembered at a time."""

MOST_BYTES = 1 << 44
"""The most that `/<bytes>` gives."""

NOT_ALLOWED = 403, "uploads are not allowed here\n"
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(slots=True)
class FileService:
    """Serves `root` (None: only `/<bytes>`). Uploads need `writable`. Digests are remembered per unchanged file."""

    root: Path | None
    writable: bool = False
    _digests: dict[tuple[int, int, int, int], bytes] = field(default_factory=dict)
    _filler: bytes = field(default_factory=lambda: os.urandom(BLOCK), repr=False)

    async def session(self, session: Session) -> None:
        """Serves every stream of a session, at the same time, until the client closes it."""
        async with asyncio.TaskGroup() as streams:
            async for stream in session.streams():
                streams.create_task(self._stream(session, stream))

    async def _stream(self, session: Session, stream: Stream) -> None:
        try:
            await self._requests(session, stream)
        except StreamReset as reset:
            logger.info("stream %d: %s", stream.id, reset)
            stream.reset(1)
        except (OSError, FileError) as error:
            # A disk's trouble with one file is this stream's, and nobody else's.
            logger.warning("stream %d: %s", stream.id, error)
            stream.reset(1)
        # Whatever else comes is not wanted: unread, it would keep the session's other streams from sending.
        stream.stop_sending()

    async def _requests(self, session: Session, stream: Stream) -> None:
        """Request after request on one stream, as HTTP/1.1 has it."""
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=16384)
        incoming = Incoming(stream, connection)
        try:
            while head := await self._head(stream, incoming):
                await Response(self, session, connection, incoming, head).give()
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    break
                connection.start_next_cycle()
        except h11.RemoteProtocolError as error:
            logger.info("stream %d: not a request: %s", stream.id, error)
            if connection.our_state in (h11.SEND_BODY, h11.DONE):
                raise FileError("the rest of the request is not HTTP") from None
            await stream.write(BAD_REQUEST)
        await stream.write_eof()

    @staticmethod
    async def _head(stream: Stream, incoming: Incoming) -> Head | None:
        try:
            async with asyncio.timeout(HEAD_TIMEOUT):
                return await incoming.head()
        except TimeoutError:
            logger.info("stream %d: no request in %d s", stream.id, HEAD_TIMEOUT)
            return None

    def resolve(self, target: str) -> Path | None:
        """What a request's target names under the root, or None. Nothing outside of the root, nor the root itself."""
        if self.root is None:
            return None
        # File names are bytes, and need not be UTF-8.
        name = os.fsdecode(unquote_to_bytes(path_of(target))).lstrip("/")
        if "\0" in name:
            return None
        try:
            path = (self.root / name).resolve()
        except (OSError, RuntimeError):  # A loop of symbolic links, a name too long.
            return None
        return path if self.root in path.parents else None

    def made_up(self, target: str) -> int | None:
        """The number in `/<bytes>`."""
        number = path_of(target).removeprefix("/")
        if number.isascii() and number.isdigit() and len(number) < 16 and int(number) <= MOST_BYTES:
            return int(number)
        return None

    def filler(self, size: int) -> Iterator[bytes]:
        while size > 0:
            yield self._filler if size >= BLOCK else self._filler[:size]
            size -= BLOCK

    def open(self, target: str) -> FileIO | None:
        """The regular file that a request's target names, opened; None when there is none. Raises PermissionError."""
        path = self.resolve(target)
        if path is None:
            return None
        try:
            # Not blocking: a named pipe would otherwise hold up the whole process.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except PermissionError:
            raise
        except OSError:
            return None
        # Looked at before it becomes a file object: `fdopen` refuses a folder and leaves its descriptor open.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        return os.fdopen(descriptor, "rb", buffering=0)

    async def digest(self, file: FileIO) -> bytes:
        facts = os.fstat(file.fileno())
        key = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
        if key not in self._digests:
            if len(self._digests) >= MOST_DIGESTS:
                self._digests.clear()
            self._digests[key] = await asyncio.to_thread(_digest_of, file)
        return self._digests[key]


def path_of(target: str) -> str:
    """The path of a request's target, in its origin form or its absolute one (RFC 9112 3.2)."""
    if not target.startswith("/"):
        target = "/" + target.partition("://")[2].partition("/")[2]
    return target.partition("?")[0].partition("#")[0]


def _digest_of(file: FileIO) -> bytes:
    """SHA-256 of an open file, from its beginning. Blocks: call it in a thread."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").digest()


class Response:
    """The answer to one request."""

    def __init__(
        self, service: FileService, session: Session, connection: h11.Connection, incoming: Incoming, head: Head
    ) -> None:
        self._service = service
        self._session = session
        self._h11 = connection
        self._incoming = incoming
        self._stream = incoming.stream
        self._head = head
        self._opening = b""

    async def give(self) -> None:
        method = self._head.method
        if method in ("GET", "HEAD"):
            await self._get()
        elif method == "PUT":
            await self._put()
        else:
            await self._say(405, headers=[("Allow", "GET, HEAD, PUT")], close=True)

    # GET and HEAD.

    async def _get(self) -> None:
        made_up = self._service.made_up(self._head.target)
        try:
            file = self._service.open(self._head.target)
        except PermissionError:
            await self._say(403, f"{self._head.target}: permission denied\n")
            return
        if file is not None:
            with file:
                await self._give_file(file)
        elif made_up is not None:
            await self._give_bytes(made_up)
        else:
            await self._say(404, f"{self._head.target}: no such file\n")

    async def _give_file(self, file: FileIO) -> None:
        size = os.fstat(file.fileno()).st_size
        headers = [("Content-Type", "application/octet-stream")]
        if "sha-256" in self._head.headers.get("want-repr-digest", ""):
            headers.append(("Repr-Digest", digest_header(await self._service.digest(file))))
        self._start(200, size, headers)
        if self._head.method == "HEAD":
            await self._finish()
            return
        started = time.monotonic()
        await self._send_file(file.fileno(), size)
        self._tell(size, started)

    async def _send_file(self, descriptor: int, size: int) -> None:
        """Reads one block ahead in a thread, so that a slow disk holds up nobody else."""
        offset = 0
        ahead = asyncio.create_task(asyncio.to_thread(os.pread, descriptor, min(BLOCK, size), 0))
        try:
            while offset < size:
                block = await ahead
                if not block:
                    # The length has been promised, so the only honest end is one that cannot be taken for whole.
                    self._stream.reset(1)
                    raise FileError(f"{self._head.target} shrank while it was sent")
                offset += len(block)
                ahead = asyncio.create_task(asyncio.to_thread(os.pread, descriptor, min(BLOCK, size - offset), offset))
                await self._write(block)
        finally:
            await ahead
        await self._finish()

    async def _give_bytes(self, size: int) -> None:
        self._start(200, size, [("Content-Type", "application/octet-stream")])
        if self._head.method == "GET":
            started = time.monotonic()
            for block in self._service.filler(size):
                await self._write(block)
            self._tell(size, started)
        await self._finish()

    # PUT.

    async def _put(self) -> None:
        if self._stream.early:
            # RFC 8470 3: what is not safe to be done twice waits until it cannot be a replay.
            await self._session.wait_handshake()
        path = self._service.resolve(self._head.target)
        refused = self._refused(path)
        if path is None or refused is not None:
            await self._say(*(refused or NOT_ALLOWED), close=True)
            return
        if self._head.headers.get("expect", "").lower() == "100-continue":
            await self._stream.write(self._h11.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        started = time.monotonic()
        try:
            size, digest = await self._store(path)
        except OSError as error:
            logger.warning("PUT %s: %s", self._head.target, error.strerror)
            await self._say(507, f"{self._head.target}: {error.strerror}\n", close=True)
            return
        self._tell(size, started, f"; sha-256 {digest.hex()}")
        await self._say(201, headers=[("Repr-Digest", digest_header(digest))], close=True)

    def _refused(self, path: Path | None) -> tuple[int, str] | None:
        """Why nothing is stored there: a status and a sentence."""
        target = self._head.target
        if not self._service.writable or path is None:
            return NOT_ALLOWED
        if path_of(target).endswith("/") or path.is_dir():
            return 409, f"{target}: a folder\n"
        if not path.parent.is_dir():
            return 409, f"{target}: there is no such folder\n"
        if self._head.body_size == 0 and "content-length" not in self._head.headers:
            return 411, "how long is it? Content-Length or chunks are needed\n"
        return None

    async def _store(self, path: Path) -> tuple[int, bytes]:
        """Writes the body beside its place and moves it there when it is whole: nobody ever sees half a file.

        Returns its size and SHA-256.
        """
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".upload-", delete=False) as file:
            try:
                async for piece in self._incoming.body(self._head):
                    file.write(piece)
                file.flush()
                size = file.tell()
                digest = await asyncio.to_thread(file_digest, Path(file.name))
                Path(file.name).chmod(0o644)
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
        return size, digest

    # The parts of a response.

    def _tell(self, size: int, started: float, more: str = "") -> None:
        """Says what went through, and by which congestion control, as the kernel reports it on this socket."""
        try:
            algorithm = self._session.congestion()
        except (ApiMisuse, OSError):
            algorithm = "gone"
        said = summary(f"{self._head.method} {self._head.target}", size, time.monotonic() - started)
        logger.info("%s; congestion control %s%s", said, algorithm, more)

    async def _say(
        self, status: int, text: str = "", headers: list[tuple[str, str]] | None = None, *, close: bool = False
    ) -> None:
        headers = [*(headers or []), ("Content-Type", "text/plain; charset=utf-8")]
        if close:
            headers.append(("Connection", "close"))
        body = b"" if self._head.method == "HEAD" else text.encode()
        self._start(status, len(text.encode()), headers)
        if body:
            await self._write(body)
        await self._finish()

    def _start(self, status: int, size: int, headers: list[tuple[str, str]]) -> None:
        response = h11.Response(
            status_code=status,
            reason=HTTPStatus(status).phrase.encode(),
            headers=[*headers, ("Content-Length", str(size))],
        )
        # Kept for the first of the body, so that a short answer is one record.
        self._opening = self._h11.send(response) or b""

    async def _write(self, data: bytes) -> None:
        for part in self._h11.send_with_data_passthrough(h11.Data(data=data)) or []:
            opening, self._opening = self._opening, b""
            await self._stream.write(opening + part if opening else part)

    async def _finish(self) -> None:
        if self._opening:
            await self._stream.write(self._opening)
        self._h11.send(h11.EndOfMessage())
        if self._h11.their_state is h11.SEND_BODY:
            # GET with nothing behind it: h11 wants to be asked before the next request can begin.
            self._h11.next_event()
