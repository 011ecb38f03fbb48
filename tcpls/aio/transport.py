"""One TCP connection of a session: moves records between a socket and the core."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Protocol

from tcpls.errors import AlertReceived, KernelUnavailable, PeerError, ProtocolViolation
from tcpls.kernel import sockopts
from tcpls.protocol.core import Core
from tcpls.tls.record import RecordSealer, RecordSink, RecordSource

FLUSHES_PER_WAKE = 8
"""Full send buffers handed to the kernel in one callback, for the same reason."""

UNSENT_SHARED = 1 << 17
"""Bytes that wait in a socket for the congestion window, where the session has other connections."""

IDLE = 1.0
"""Seconds without a record after which a connection holds no more buffer than it needs to listen."""

LINGER = 5.0
"""Seconds that a closed connection waits for the peer's end once the peer's TCP has everything."""


HEAP_KEPT = 4 << 20
"""Bytes of free heap that the process keeps (twice this, in fact) rather than give them back at once."""


def _keep_freed_memory() -> None:
    """Teaches glibc's allocator that blocks of this size come and go.

    What streams receive is allocated and freed hundreds of times a second in pieces of up to half a mebibyte. By
    default each of them is mapped and unmapped, or the heap's top trimmed, and every page faults anew: 45 faults a
    MiB, a sixth of the throughput. Freeing one mapped block raises both thresholds to its size (mallopt(3),
    M_MMAP_THRESHOLD); other allocators take no notice.
    """
    bytearray(HEAP_KEPT)


_keep_freed_memory()


class SocketSource(RecordSource, Protocol):
    """A record source that bytes from a socket are written into: `RecordOpener`'s interface."""

    @property
    def buffered(self) -> int: ...

    def writable(self) -> memoryview: ...

    def received(self, count: int) -> None: ...

    def release(self) -> None: ...


class SocketSink(RecordSink, Protocol):
    """A record sink that knows its socket."""

    def flush(self) -> bool:
        """Hands what was put to the kernel; True when nothing is left. Raises OSError when the connection is dead."""


class UserSpaceSink(RecordSealer):
    """Seals in user space and sends many records in one call."""

    __slots__ = ("_socket",)

    def attach(self, sock: socket.socket) -> UserSpaceSink:
        self._socket = sock
        return self

    def flush(self) -> bool:
        try:
            while pending := len(self.pending):
                sent = self._socket.send(self.pending)
                self.sent(sent)
                if sent < pending:
                    return False
        except (BlockingIOError, InterruptedError):
            return False
        return True


class RecordTransport:
    """Drives one connection. `wake` is called after the core was told something, so that its owner drains it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        connection_id: int,
        core: Core,
        source: SocketSource,
        sink: SocketSink,
        wake: Callable[[], None],
        ktls_tx: str,
        patience: float = LINGER,
    ) -> None:
        """`patience`: seconds that a closed connection waits while the peer's TCP takes nothing of what is left."""
        self.socket = sock
        # By its number: asyncio's selector makes a text of what it does not know yet, and a socket's asks the kernel.
        self._descriptor = sock.fileno()
        self.connection_id = connection_id
        self.sink = sink
        self.source = source
        self.ktls_tx = ktls_tx
        self.ktls_rx = "off, records are opened in user space"
        self.bytes_received = 0
        self.shared = False
        """Whether the session has other connections."""
        self._loop = loop
        self._core = core
        self._wake = wake
        self._reading = False
        self._writing = False
        self._receiving_over = False
        self._sending_over = False
        self._closing = False
        self._ending = False
        self._patience = patience
        self._linger: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None
        self.closed: asyncio.Future[str | None] = loop.create_future()
        """Done when the socket is closed; the result is an error that cut off what was still to be sent."""

    # Receiving.

    def start(self) -> None:
        """Takes the records that came along with the handshake, then listens to the socket."""
        self._take_records()
        self.update_reading()
        self._wake()

    def update_reading(self) -> None:
        """Listens to the socket unless the core asks for a pause (back-pressure by TCP's own window)."""
        wanted = not self._receiving_over and not self._core.reading_paused
        if wanted and not self._reading:
            self._loop.add_reader(self._descriptor, self._readable)
        elif self._reading and not wanted:
            self._loop.remove_reader(self._descriptor)
        self._reading = wanted

    def _readable(self) -> None:
        """One receive call: what it brings is read by the application before more comes, while it is in the cache."""
        if self._receive():
            self._wake()

    def _receive(self) -> bool:
        """Whether there was anything to receive, the end included."""
        try:
            count = self.socket.recv_into(self.source.writable())
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._stop_receiving()
            self._connection_ended(error.strerror or str(error))
        else:
            if count:
                self.bytes_received += count
                self.source.received(count)
                self._take_records()
            else:
                self._stop_receiving()
                # RFC 8446 6.1: an end without close_notify is a truncation; the core knows which it is.
                self._connection_ended("the connection ended inside a record" if self.source.buffered else None)
        return True

    def _take_records(self) -> None:
        now = self._loop.time()
        try:
            self._core.receive_records(self.connection_id, self.source, now)
        except PeerError as error:
            self._stop_receiving()
            self._core.fail(self.connection_id, error, now)
        except AlertReceived as refused:
            # Of a connection that wanted to join.
            self._stop_receiving()
            self._core.connection_ended(self.connection_id, str(refused), now)

    def _stop_receiving(self) -> None:
        self._receiving_over = True
        if self._reading:
            self._loop.remove_reader(self._descriptor)
            self._reading = False

    def _connection_ended(self, error: str | None) -> None:
        self._core.connection_ended(self.connection_id, error, self._loop.time())
        if error is not None or (self._sending_over and not self._writing):
            self.abort(error)

    # Sending.

    def flush(self) -> None:
        """Builds and sends records until there is nothing to say or the socket takes no more."""
        if self._writing or self._sending_over:
            return
        core, sink, now = self._core, self.sink, self._loop.time()
        try:
            for _ in range(FLUSHES_PER_WAKE):
                before = sink.sequence
                core.transmit(self.connection_id, sink, now)
                if not sink.flush() or (self.shared and self._is_full()):
                    break
                if sink.sequence == before:
                    self._all_sent()
                    return
        except OSError as error:
            self._fail_sending(error.strerror or str(error))
            return
        except (ProtocolViolation, KernelUnavailable) as error:
            self._fail_sending(str(error))
            return
        self._writing = True
        core.set_blocked(self.connection_id, True)
        self._loop.add_writer(self._descriptor, self._writable)

    @property
    def blocked(self) -> bool:
        """Whether the kernel takes no more now."""
        return self._writing

    def _is_full(self) -> bool:
        """Whether the kernel has as much as it should: what it cannot send soon is better kept for other paths."""
        return sockopts.tcp_info(self.socket).notsent_bytes > UNSENT_SHARED

    def share(self) -> None:
        """There are other connections: no more than a little waits in this one's socket from now on."""
        if not self.shared:
            self.shared = True
            with contextlib.suppress(OSError):
                sockopts.apply(self.socket, "not_sent_lowat", UNSENT_SHARED)

    def _writable(self) -> None:
        self._loop.remove_writer(self._descriptor)
        self._writing = False
        self._core.set_blocked(self.connection_id, False)
        self.flush()
        self._wake()

    def _fail_sending(self, error: str) -> None:
        self._sending_over = True
        # What the peer sent before it went is still there to be read.
        while not self._receiving_over and not self._core.reading_paused and self._receive():
            pass
        self._core.connection_ended(self.connection_id, error, self._loop.time())
        self.abort(error)
        self._wake()

    def _all_sent(self) -> None:
        if self._idle is None and not self._closing:
            self._idle = self._loop.call_later(IDLE, self._release_if_idle, self.sink.sequence, self.bytes_received)
        if (self._closing or self._ending) and not self._sending_over:
            self._sending_over = True
            if isinstance(self.sink, UserSpaceSink):
                self._shut_down()
                return
            # With kTLS a record that send() took may still be outside TCP; it is inside once the socket is
            # writable again. Shutting down before that would cut it.
            self._writing = True
            self._loop.add_writer(self._descriptor, self._drained)

    def _drained(self) -> None:
        self._loop.remove_writer(self._descriptor)
        self._writing = False
        self._shut_down()

    def _shut_down(self) -> None:
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._fail_sending(error.strerror or str(error))
            return
        if self._receiving_over and self._closing:
            self.abort()

    def _release_if_idle(self, sequence: int, bytes_received: int) -> None:
        """Gives the buffers back when nothing was sent or received for a while."""
        self._idle = None
        if sequence != self.sink.sequence or bytes_received != self.bytes_received:
            self._idle = self._loop.call_later(IDLE, self._release_if_idle, self.sink.sequence, self.bytes_received)
            return
        self.source.release()
        if isinstance(self.sink, UserSpaceSink):
            self.sink.release()

    # Closing.

    def end_sending(self) -> None:
        """Sends what is pending and ends the sending direction alone."""
        self._ending = True
        self.flush()

    def close(self) -> None:
        """Sends what is pending, ends the sending direction, and waits a bounded time for the peer's end."""
        if self._closing or self.closed.done():
            return
        self._closing = True
        # Most connections are over before the first look.
        self._await_end_later(0, self._loop.time())
        if self._sending_over and self._receiving_over and not self._writing:
            self.abort()
        self.flush()

    def _await_end_later(self, acknowledged: int, since: float) -> None:
        self._linger = self._loop.call_later(min(self._patience, LINGER) / 4, self._await_end, acknowledged, since)

    def _await_end(self, acknowledged: int, since: float) -> None:
        """Looks from time to time whether the peer's TCP still takes something, and gives up when it has not."""
        info, now = sockopts.tcp_info(self.socket), self._loop.time()
        if info.bytes_acked > acknowledged:
            since = now
        waiting = bool(info.unacked or info.notsent_bytes) or not self._sending_over
        if now - since < (self._patience if waiting else LINGER):
            self._await_end_later(info.bytes_acked, since)
            return
        failed = f"the peer took nothing for {self._patience:g} s" if waiting else None
        self._core.connection_ended(self.connection_id, failed, now)
        self.abort(failed)
        self._wake()

    def reset(self, error: str) -> None:
        """Closes the socket now and has the kernel tell the peer by a reset, dropping what it still has."""
        if not self.closed.done():
            with contextlib.suppress(OSError):
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.abort(error)

    def abort(self, error: str | None = None) -> None:
        """Closes the socket now. `error`: why it could not be used to its end."""
        if self.closed.done():
            return
        for timer in (self._linger, self._idle):
            if timer is not None:
                timer.cancel()
        self._stop_receiving()
        self._sending_over = True
        if self._writing:
            self._loop.remove_writer(self._descriptor)
            self._writing = False
        self.socket.close()
        self.closed.set_result(error)
