"""HTTP over a stream, with h11: what the server serves and what `get` and `put` speak.

On a TCPLS session every stream is an HTTP/1.1 connection of its own; on ordinary TLS the one stream is. Bodies of a
known length go past h11, straight between stream and file.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import h11

from tcpls import Stream
from tcpls.cli.exits import FileError

MAX_HEAD = 16384
"""Bytes of request or response head that are read before it is refused."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request or a response: what it is about, and how long its body is.

    `body_size` None: the body ends where its chunks say, or a response's with the stream.
    """

    status: int
    method: str
    target: str
    headers: dict[str, str]
    body_size: int | None


class Incoming:
    """One side's reading of heads and bodies out of a stream."""

    def __init__(self, stream: Stream, connection: h11.Connection) -> None:
        self.stream = stream
        self._h11 = connection

    async def head(self) -> Head | None:
        """The next head; None when the stream ends before one begins. Raises `h11.RemoteProtocolError`."""
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                self._h11.receive_data(await self.stream.read())
            elif isinstance(event, h11.InformationalResponse):
                continue
            elif isinstance(event, h11.Request | h11.Response):
                return _head(event)
            else:
                return None

    async def body(self, head: Head) -> AsyncIterator[bytes]:
        """The body in pieces. Raises `FileError` when the stream ends before the body does."""
        if head.body_size is None:
            async for piece in self._framed_body():
                yield piece
            return
        early, _ = self._h11.trailing_data
        missing = head.body_size
        if early and missing:
            yield early[:missing]
            missing -= min(missing, len(early))
        while missing:
            piece = await self.stream.read(min(missing, 1 << 18))
            if not piece:
                raise FileError(f"the other end stopped {missing} bytes before the end of the body")
            missing -= len(piece)
            yield piece

    async def _framed_body(self) -> AsyncIterator[bytes]:
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                self._h11.receive_data(await self.stream.read())
            elif isinstance(event, h11.Data):
                yield bytes(event.data)
            else:
                return


def _head(event: h11.Request | h11.Response) -> Head:
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
    chunked = "chunked" in headers.get("transfer-encoding", "")
    length = headers.get("content-length")
    size = None if chunked or length is None else int(length)
    if isinstance(event, h11.Request):
        size = size if chunked else size or 0
        return Head(0, event.method.decode("ascii"), event.target.decode("ascii"), headers, size)
    return Head(event.status_code, "", "", headers, size)


def digest_header(digest: bytes) -> str:
    """A SHA-256 as `Repr-Digest` has it (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(digest).decode()}:"


def digest_of_header(value: str) -> bytes | None:
    """The SHA-256 of a `Repr-Digest` header, or None when there is none."""
    for part in value.split(","):
        name, _, encoded = part.strip().partition("=")
        if name == "sha-256":
            try:
                digest = base64.b64decode(encoded.strip(":"), validate=True)
            except ValueError:
                return None
            return digest if len(digest) == 32 else None
    return None


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file. Blocks: call it in a thread."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
