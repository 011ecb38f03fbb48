"""What an application does with a connection to the runner, once its handshake is complete."""

from __future__ import annotations

import os
import socket
import time

from tcpls.errors import PeerError, SessionLost
from tcpls.protocol.base import Role
from tcpls.protocol.events import TicketReceived
from tcpls.protocol.plain import STREAM_ID, PlainSession
from tcpls.tls.connection import Established
from tcpls.tls.messages import NewSessionTicket
from tcpls.tls.record import ContentType, RecordOpener, RecordSealer
from tests.interop.bogo.credentials import ENGINE
from tests.interop.bogo.flags import Settings
from tests.interop.bogo.handshake import RECEIVE_SIZE, receive, send, turned

DECOMPRESSION_FAILURE = 30
"""An alert of older versions, by which the runner knows the one that it asked for."""
RECORD_SIZES = (0, 1, 255, 256, 257, 16383, 16384, 16385, 32767, 32768, 32769)


class Exchange:
    """The connection after its handshake."""

    def __init__(
        self, sock: socket.socket, established: Established, role: Role, sink: RecordSealer | None = None
    ) -> None:
        """`sink`: who has written so far, if somebody has."""
        if sink is None:
            keys = established.write_secret.keys(established.write_sequence)
            sink = RecordSealer(ENGINE.aead, keys, max_content=established.max_sent)
        self._sink = sink
        self._socket = sock
        self.established = established
        self._core = PlainSession(
            role,
            established.read_secret,
            established.write_secret,
            read_sequence=established.read_sequence,
            write_sequence=sink.sequence,
        )
        keys = established.read_secret.keys(established.read_sequence)
        self._source = RecordOpener(ENGINE.aead, keys, ENGINE.invalid_tag, max_content=established.max_received)
        self._source.feed(established.unread)
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
            self.write(turned(data))

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
        data = receive(self._socket)
        self._source.feed(data)
        return bool(data)

    def _flush(self) -> None:
        self._core.transmit(0, self._sink, time.monotonic())
        while len(self._sink.pending):
            send(self._socket, self._sink.pending)
            self._sink.sent(len(self._sink.pending))
            self._core.transmit(0, self._sink, time.monotonic())
