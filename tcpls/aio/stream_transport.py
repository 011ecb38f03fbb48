"""An asyncio transport over one stream, for protocols that know nothing of TCPLS."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio.constants import _SendfileMode
from asyncio.transports import _FlowControlMixin
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from tcpls.aio.connection_errors import as_connection_error
from tcpls.aio.socket_view import SocketView
from tcpls.aio.stream import Stream
from tcpls.errors import NotNegotiated, SessionClosed, SessionLost, TCPLSError
from tcpls.wire import Buffer

if TYPE_CHECKING:
    from tcpls.aio.session import Session

logger = logging.getLogger("tcpls")

READ_SIZE = 1 << 18
"""Bytes that a protocol is given in one turn of the loop, as asyncio's own transports do."""

ABORTED = 1
"""The code by which the peer is told that a protocol gave its connection up."""

WARN_AFTER = 5
"""Writes behind the end of a connection that pass in silence."""


class StreamTransport(_FlowControlMixin):
    """A stream as an `asyncio.Transport`. Made by `create_connection`, `create_server` and `stream_transport`.

    The rules are those of Python's documentation, "Transports and Protocols". What is particular:

    - Data that is written goes to the stream, whose send buffer (`SessionConfig.send_buffer`) takes the place of the
      kernel's; the write buffer is what there is beyond it.
    - `pause_reading` stops the peer by the stream's flow control, without holding other streams up.
    - `close` ends the stream behind what was written and asks the peer to send nothing more. If the session is the
      connection's own, it is closed too: `connection_lost(None)` then says that the peer has everything.
    - `abort` resets the stream, so that the peer can tell it from an end.
    - Errors are those of TCPLS (`StreamReset`, `SessionLost`, `SessionClosed`, ...) and `ConnectionError` at once.
    """

    if TYPE_CHECKING:
        # Of the base class: the protocol's pause_writing and resume_writing, by the limits that were set.
        def _maybe_pause_protocol(self) -> None: ...

        def _maybe_resume_protocol(self) -> None: ...

    # loop.sendfile() reads the file and writes it here.
    _sendfile_compatible = _SendfileMode.FALLBACK

    def __init__(
        self,
        stream: Stream,
        protocol: asyncio.BaseProtocol,
        *,
        owns_session: bool = False,
        made: asyncio.Future[None] | None = None,
    ) -> None:
        """`made` is done when the protocol knows of the connection."""
        loop = asyncio.get_running_loop()
        super().__init__(_addresses(stream.session), loop)
        self._loop = loop
        self._protocol: asyncio.BaseProtocol | None = protocol
        self._protocol_paused = False
        self._stream = stream
        self._session: Session = stream.session
        self._owns_session = owns_session
        self._started = False
        self._paused = False
        self._read_due = False
        self._write_due = False
        self._wrote = False
        self._eof_sent = False
        self._eof_received = False
        self._closing = False
        self._ended = False
        """Whether `connection_lost` was called, or is about to be."""
        self._late_writes = 0
        self._task: asyncio.Task[None] | None = None
        self.lost: asyncio.Future[None] = loop.create_future()
        """Done when the protocol knows of the end."""
        stream.watch(self)
        loop.call_soon(self._start, made)

    def __repr__(self) -> str:
        state = "closed" if self._ended else "closing" if self._closing else "open"
        return f"<StreamTransport of stream {self._stream.id}, {state}>"

    def _start(self, made: asyncio.Future[None] | None) -> None:
        assert self._protocol is not None  # noqa: S101
        try:
            # What it raises is the loop's to report, and the connection goes on.
            self._protocol.connection_made(self)
        finally:
            self._started = True
            if not (self._wrote or self._eof_sent or self._closing):
                self._announce()
            self.readable()
            if made is not None and not made.done():
                made.set_result(None)

    def _announce(self) -> None:
        """The other end's protocol may be the one that speaks first."""
        # Where the session is over, the first attempt to read finds it out.
        self._quietly(self._stream.announce)

    # What there is to know.

    def get_extra_info(self, name: str, default: object = None) -> object:
        """'sockname' and 'peername' are those of the session's connection at first; 'socket' is a `SocketView`.

        'cipher' is as of ssl (suite, version, bits of its keys); 'alpn' and 'peer' are texts, those of
        `Session.info()`; 'tcpls_session' and 'tcpls_stream' are what this is a transport over. 'ssl_object' and
        'sslcontext' are not there: programs take them for a transport that cannot be half-closed.
        """
        match name:
            case "tcpls_session":
                return self._session
            case "tcpls_stream":
                return self._stream
            case "alpn":
                return self._session.alpn or default
            case "cipher":
                info = self._session.info()
                return info.suite, "TLSv1.3", 128 if "128" in info.suite else 256
            case "peer":
                return self._session.info().peer or default
        return super().get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[return-value]  # None behind the end, as of asyncio's own

    def is_closing(self) -> bool:
        return self._closing

    # Reading.

    def is_reading(self) -> bool:
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self.readable()

    def readable(self) -> None:
        """The stream has something; the protocol is told by the loop, never from inside a call of its own."""
        if self._started and not (self._read_due or self._paused or self._closing or self._eof_received):
            self._read_due = True
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        self._read_due = False
        left = READ_SIZE
        while left > 0 and not (self._paused or self._closing or self._eof_received):
            size = self._deliver()
            if not size:
                return
            left -= size
        self.readable()

    def _deliver(self) -> int:
        """Gives the protocol what can be received now. Returns how many bytes that was; 0 when there is no more."""
        protocol = self._protocol
        try:
            buffer = None
            if isinstance(protocol, asyncio.BufferedProtocol):
                buffer = memoryview(protocol.get_buffer(-1)).cast("B")
                if not len(buffer):
                    raise RuntimeError("get_buffer() returned an empty buffer")
            data = self._receive(READ_SIZE if buffer is None else len(buffer))
            if data is None:
                return 0
            if not data:
                self._receive_eof()
            elif buffer is not None:
                buffer[: len(data)] = data
                protocol.buffer_updated(len(data))  # type: ignore[union-attr]
            else:
                protocol.data_received(data)  # type: ignore[union-attr]
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fail(error)
            return 0
        return len(data)

    def _receive(self, limit: int) -> bytes | None:
        try:
            return self._stream.receive_now(limit)
        except SessionClosed as closed:
            if closed.code:
                raise
            # The peer said that all was sent: an end of the stream, though not by its own frame.
            return b""

    def _receive_eof(self) -> None:
        self._eof_received = True
        if not self._protocol.eof_received():  # type: ignore[union-attr]
            self.close()
        else:
            self.writable()

    # Writing.

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        try:
            return self._stream.excess
        except TCPLSError:
            return 0

    def write(self, data: Buffer) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._eof_sent:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data:
            return
        if self._closing:
            self._late_writes += 1
            if self._late_writes >= WARN_AFTER:
                logger.warning("%r: a protocol writes behind the end", self)
            return
        self._wrote = True
        try:
            self._stream.send_now(bytes(data))
        except TCPLSError as error:
            self._fail(error)
        else:
            self._maybe_pause_protocol()

    def write_eof(self) -> None:
        if not (self._closing or self._eof_sent):
            self._eof_sent = True
            self._stream.finish()

    def writable(self) -> None:
        """The send buffer has room, or nothing can be sent any more."""
        if self._started and not (self._write_due or self._ended):
            self._write_due = True
            self._loop.call_soon(self._look_at_writing)

    def _look_at_writing(self) -> None:
        self._write_due = False
        if self._ended:
            return
        try:
            excess = self._stream.excess
        except TCPLSError as error:
            self._cannot_write(error)
            return
        self._maybe_resume_protocol()
        if (self._closing and not excess) or (self._session.ended and self._eof_received):
            self._end(None)

    def _cannot_write(self, error: TCPLSError) -> None:
        """The session is over. What was received before is the protocol's all the same."""
        if self._closing or self._eof_received or self._protocol_paused:
            closed = isinstance(error, SessionClosed) and not error.code and not self._stream.unsent
            self._end(None if closed else error)

    # The end.

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._quietly(self._stream.finish)
        if not (self._owns_session or self._eof_received):
            self._quietly(lambda: self._stream.stop_sending(0))
        self.writable()

    def abort(self) -> None:
        self._force_close(None)

    def _fail(self, error: BaseException) -> None:
        """What cannot be mended; errors of the protocol's own are told to the loop."""
        if not isinstance(error, TCPLSError | OSError):
            context = {"message": "Fatal error: the protocol failed", "exception": error}
            self._loop.call_exception_handler(context | {"transport": self, "protocol": self._protocol})
        self._force_close(error)

    def _force_close(self, error: BaseException | None) -> None:
        if self._ended:
            return
        self._closing = True
        if not self._owns_session:
            try:
                self._stream.reset(ABORTED)
                self._quietly(lambda: self._stream.stop_sending(ABORTED))
            except NotNegotiated:
                # A pure draft-04 peer cannot be told that data of a stream is missing, but that something is.
                self._owns_session = True
        self._end(error, aborted=True)

    @staticmethod
    def _quietly(step: Callable[[], None]) -> None:
        """What can no longer be said to the peer has no need to be."""
        try:
            step()
        except TCPLSError as error:
            logger.debug("a stream that is over already: %s", error)

    def _end(self, error: BaseException | None, *, aborted: bool = False) -> None:
        self._ended = self._closing = True
        if not self._owns_session:
            self._loop.call_soon(self._tell_lost, error)
        elif aborted or error is not None:
            self._loop.call_soon(self._tell_lost, error)
            self._spawn(self._session.close(ABORTED, "the connection was given up"))
        else:
            self._spawn(self._close_session())

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        # The session is held by the loop, and this transport by the session.
        self._task = self._loop.create_task(work)

    async def _close_session(self) -> None:
        """Tells the protocol once the peer has confirmed that it has everything, or why that is not known."""
        error: TCPLSError | None = SessionLost("the program ended before its connection was closed")
        try:
            await self._session.close()
            error = None
        except TCPLSError as unconfirmed:
            error = unconfirmed
        finally:
            self._loop.call_soon(self._tell_lost, error)

    def _tell_lost(self, error: BaseException | None) -> None:
        protocol, self._protocol = self._protocol, None
        try:
            if protocol is not None:
                told = as_connection_error(error) if isinstance(error, TCPLSError) else error
                protocol.connection_lost(told)  # type: ignore[arg-type]  # what the protocol raised is its own
        finally:
            self._stream.watch(None)
            if not self.lost.done():
                self.lost.set_result(None)


def _addresses(session: Session) -> dict[str, object]:
    """What is still to be known when the connection is over."""
    known: dict[str, object] = {}
    sock = session.socket()
    if sock is not None:
        known["socket"] = SocketView(session, sock)
        with contextlib.suppress(OSError):
            known["sockname"] = sock.getsockname()
            known["peername"] = sock.getpeername()
    return known


def stream_transport(stream: Stream, protocol: asyncio.BaseProtocol) -> StreamTransport:
    """Puts `protocol` on a stream of a session: from now on the stream is the transport's alone.

    ``connection_made`` is called in the next turn of the loop. The end of the connection is that of the stream; the
    session stays. On ordinary TLS, which has the one stream, the session is still to be closed by whoever has it.
    """
    return StreamTransport(stream, protocol)
