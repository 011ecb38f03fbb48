"""A connection to the runner and its handshake, over a blocking socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tcpls.errors import Alert, AlertReceived, HandshakeError, PeerError, TCPLSError
from tcpls.tls.connection import Established, ServerConnection, TLSConnection
from tcpls.tls.extensions import TLS_1_3, ExtensionType, read_offered_versions
from tcpls.tls.messages import ClientHello, HandshakeType, Reassembly
from tcpls.tls.record import ContentType, RecordSealer
from tcpls.wire import Reader
from tests.interop.bogo.credentials import ADDRESS, ENGINE
from tests.interop.bogo.flags import Settings, Unimplemented

TIMEOUT = 20.0
"""Longer than the runner waits for anything."""
RECEIVE_SIZE = 1 << 16
TLS_1_0 = 0x0301


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


def shake_hands(sock: socket.socket, tls: TLSConnection, early: EarlyAnswers | None = None) -> Established:
    """Raises what the engine raises, once its alert was sent, and `Unimplemented` for peers of older versions.

    `early`: by whom early data is answered, of a server that does.
    """
    received = b""
    try:
        while True:
            send(sock, tls.data_to_send())
            if early is not None:
                early.answer()
            if tls.handshake_complete:
                return tls.established()
            if data := receive(sock):
                received += data
                tls.receive_data(data)
            else:
                tls.receive_eof()
    except TCPLSError as error:
        send(sock, tls.data_to_send())
        if early is not None and isinstance(error, HandshakeError):
            early.refuse(error)
        refused = isinstance(error, AlertReceived) and error.alert == Alert.PROTOCOL_VERSION
        if _is_older(received) if isinstance(tls, ServerConnection) else refused:
            raise Unimplemented("versions before TLS 1.3") from None
        raise


class EarlyAnswers:
    """What a server writes ahead of the client's Finished: its application answers early data as it does all data."""

    def __init__(self, sock: socket.socket, tls: ServerConnection) -> None:
        self._socket = sock
        self._tls = tls
        self.sink: RecordSealer | None = None
        """Who writes from then on, once there was early data to answer."""

    def answer(self) -> None:
        if self.sink is None and self._tls.answerable:
            early = self._tls.established_early()
            keys = early.write_secret.keys(early.write_sequence)
            self.sink = RecordSealer(ENGINE.aead, keys, max_content=early.max_sent)
        if self.sink is None:
            return
        for data in self._tls.early_records():
            self._put(self.sink, ContentType.APPLICATION_DATA, turned(data))
        if messages := self._tls.messages_to_send():
            self._put(self.sink, ContentType.HANDSHAKE, messages)

    def refuse(self, error: HandshakeError) -> None:
        """The alert is the writer's to send."""
        if self.sink is not None:
            self._put(self.sink, ContentType.ALERT, bytes((2, error.alert)))

    def _put(self, sink: RecordSealer, content_type: ContentType, content: bytes) -> None:
        sink.put(content_type, content)
        send(self._socket, sink.pending)
        sink.sent(len(sink.pending))


def turned(data: bytes) -> bytes:
    """What an application answers in the runner's tests: every bit is turned over."""
    return bytes(byte ^ 0xFF for byte in data)


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


def send(sock: socket.socket, data: bytes | memoryview) -> None:
    """What the runner has closed its ears to shows when it is read from."""
    try:
        sock.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return


def receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(RECEIVE_SIZE)
    except ConnectionResetError:
        return b""
