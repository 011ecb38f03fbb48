"""One connection to the runner: the handshake, then what an application would do, over blocking sockets."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from tcpls.errors import Alert, AlertReceived, PeerError, SessionLost, TCPLSError
from tcpls.protocol.base import Role
from tcpls.protocol.events import TicketReceived
from tcpls.protocol.plain import STREAM_ID, PlainSession
from tcpls.tls.connection import Established, TLSConnection
from tcpls.tls.extensions import TLS_1_3, ExtensionType, read_offered_versions
from tcpls.tls.messages import ClientHello, HandshakeType, NewSessionTicket, Reassembly
from tcpls.tls.record import ContentType, RecordOpener, RecordSealer
from tcpls.wire import Reader
from tests.interop.bogo.credentials import ADDRESS, ENGINE
from tests.interop.bogo.flags import Settings, Unimplemented

TIMEOUT = 20.0
"""Longer than the runner waits for anything."""
RECEIVE_SIZE = 1 << 16
DECOMPRESSION_FAILURE = 30
"""An alert of older versions, by which the runner knows the one that it asked for."""
TLS_1_0 = 0x0301
RECORD_SIZES = (0, 1, 255, 256, 257, 16383, 16384, 16385, 32767, 32768, 32769)


class Clock:
    """The time of day, which stands still but for the runner's leaps: it counts the milliseconds of a ticket's age."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def pass_by(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)


@contextmanager
def dialled(settings: Settings) -> Iterator[socket.socket]:
    """A connection to the runner, which was told whose it is."""
    sock = socket.create_connection(("::1" if settings.ipv6 else ADDRESS, settings.port), timeout=TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(settings.shim_id.to_bytes(8, "little"))
    try:
        yield sock
    finally:
        hang_up(sock)


def hang_up(sock: socket.socket) -> None:
    """Lets the runner read all that was sent: input left unread would make the close a reset."""
    with sock:
        try:
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(RECEIVE_SIZE):
                pass
        except OSError:
            return


def shake_hands(sock: socket.socket, tls: TLSConnection, *, server: bool) -> Established:
    """Raises what the engine raises, once its alert was sent, and `Unimplemented` for peers of older versions."""
    received = b""
    try:
        while True:
            _send(sock, tls.data_to_send())
            if tls.handshake_complete:
                return tls.established()
            if data := _receive(sock):
                received += data
                tls.receive_data(data)
            else:
                tls.receive_eof()
    except TCPLSError as error:
        _send(sock, tls.data_to_send())
        refused = isinstance(error, AlertReceived) and error.alert == Alert.PROTOCOL_VERSION
        if refused if not server else _is_older(received):
            raise Unimplemented("versions before TLS 1.3") from None
        raise


def _is_older(records: bytes) -> bool:
    """Whether these are a ClientHello of a client that knows TLS 1.0 to 1.2, and nothing newer."""
    reader, messages = Reader(records), Reassembly()
    try:
        while reader.remaining:
            reader.take(3)
            messages.feed(reader.opaque(2))
        message = messages.next((HandshakeType.CLIENT_HELLO,))
        if message is None:
            return False
        hello = ClientHello.read(message.body())
        contents = hello.extensions.get(ExtensionType.SUPPORTED_VERSIONS)
        if contents is None:
            return hello.legacy_version >= TLS_1_0
        versions = read_offered_versions(contents)
    except PeerError:
        return False
    return TLS_1_3 not in versions and any(TLS_1_0 <= version < TLS_1_3 for version in versions)


def _send(sock: socket.socket, data: bytes | memoryview) -> None:
    """What the runner has closed its ears to shows when it is read from."""
    try:
        sock.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return


def _receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(RECEIVE_SIZE)
    except ConnectionResetError:
        return b""


class Exchange:
    """The connection after its handshake."""

    def __init__(self, sock: socket.socket, established: Established, role: Role) -> None:
        self._socket = sock
        self.established = established
        self._core = PlainSession(
            role,
            established.read_secret,
            established.write_secret,
            read_sequence=established.read_sequence,
            write_sequence=established.write_sequence,
        )
        keys = established.read_secret.keys(established.read_sequence)
        self._source = RecordOpener(ENGINE.aead, keys, ENGINE.invalid_tag, max_content=established.max_received)
        self._source.feed(established.unread)
        keys = established.write_secret.keys(established.write_sequence)
        self._sink = RecordSealer(ENGINE.aead, keys, max_content=established.max_sent)
        self.tickets: list[NewSessionTicket] = []
        self._ended = False
        """Whether the runner's side of the connection is over, with or without close_notify."""
        self._clean = False
        if role is Role.CLIENT:
            self._core.open_stream()

    def run(self, settings: Settings, sent: int = 0) -> None:
        """What the flags say that the application does. The first `sent` bytes went out as early data."""
        self._export(settings)
        if settings.send_alert:
            self._sink.put(ContentType.ALERT, bytes((2, DECOMPRESSION_FAILURE)))
            self._flush()
            return
        if settings.write_different_record_sizes:
            for size in RECORD_SIZES:
                self.write(b"\x42" * size)
        else:
            self.write(b"".join(settings.initial_writes)[sent:])
            if not settings.shim_shuts_down:
                self._echo(settings)

    def shut_down(self, *, check: bool) -> None:
        """Ends this side, and with `check` also waits for the peer's own close_notify. Raises `SessionLost`."""
        if not check:
            return
        if not self._ended:
            self._core.finish(STREAM_ID)
            self._flush()
            while self.read(RECEIVE_SIZE):
                pass
        elif self._clean:
            self._core.finish(STREAM_ID)
            self._flush()
        if not self._clean:
            raise SessionLost("the connection ended without close_notify")

    def _export(self, settings: Settings) -> None:
        established = self.established
        if settings.export_keying_material:
            # RFC 8446 7.5: no context and an empty one are the same.
            label, context = os.fsencode(settings.export_label), os.fsencode(settings.export_context)
            self.write(established.export(label, context, settings.export_keying_material))
        if settings.export_traffic_secrets:
            read, write = established.read_secret.secret, established.write_secret.secret
            self.write(len(read).to_bytes(2, "little") + read + write)

    def _echo(self, settings: Settings) -> None:
        """Sends back what comes, with every bit turned over, until the runner ends its side."""
        while True:
            if settings.key_update_before_read:
                self._core.update_keys(request=False)
                self._flush()
            data = self.read(settings.read_size)
            if settings.use_exporter_between_reads:
                self.established.export(b"label", b"", 1)
            if not data:
                return
            if settings.key_update:
                self._core.update_keys(request=False)
            self.write(bytes(byte ^ 0xFF for byte in data))

    def write(self, data: bytes) -> None:
        if data:
            self._core.send(STREAM_ID, data, time.monotonic())
        self._flush()

    def read(self, limit: int) -> bytes:
        """The next data; b"" at the end. Raises what the peer did wrong."""
        while not self._ended:
            try:
                data = self._core.receive(STREAM_ID, limit)
            except SessionLost:
                self._ended = True
                return b""
            if data:
                return data
            if data is not None:
                self._ended = self._clean = True
                return b""
            self._take()
        return b""

    def _take(self) -> None:
        """Handles the records that are there, or else waits for more. Answers wait for the application's next write."""
        if not self._source.buffered and not self._fill():
            self._core.connection_ended(0, None, time.monotonic())
            return
        before = self._source.buffered
        try:
            self._core.receive_records(0, self._source, time.monotonic())
        except PeerError as error:
            self._core.fail(0, error, time.monotonic())
            self._flush()
            raise
        finally:
            for event in self._core.events():
                if isinstance(event, TicketReceived):
                    self.tickets.append(event.message)
        # What is left is a record that is not whole.
        if self._source.buffered == before and not self._fill():
            self._core.connection_ended(0, None, time.monotonic())

    def _fill(self) -> bool:
        data = _receive(self._socket)
        self._source.feed(data)
        return bool(data)

    def _flush(self) -> None:
        self._core.transmit(0, self._sink, time.monotonic())
        while len(self._sink.pending):
            _send(self._socket, self._sink.pending)
            self._sink.sent(len(self._sink.pending))
            self._core.transmit(0, self._sink, time.monotonic())
