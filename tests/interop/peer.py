"""Blocking sockets under the TLS engine, and the processes of other TLS libraries to talk to. For tests only."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tcpls.errors import AlertReceived, TCPLSError
from tcpls.observe import NULL_KEY_LOG, KeyLog
from tcpls.tls.config import ClientConfig, ServerConfig
from tcpls.tls.connection import ClientConnection, Established, ServerConnection, TLSConnection
from tcpls.tls.messages import KeyUpdate
from tcpls.tls.post_handshake import PostHandshake
from tcpls.tls.record import ContentType, RecordOpener, RecordSealer
from tcpls.tls.tickets import Ticket
from tests.engine import ENGINE

TIMEOUT = 20.0


def need(program: str) -> str:
    """The path of a program, or a skip that names it."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


class Channel:
    """A connection whose handshake is complete: application data both ways, key updates obeyed."""

    def __init__(self, sock: socket.socket, established: Established, *, is_client: bool, padding: int = 1) -> None:
        self.established = established
        self.key_updates = 0
        self.early = b""
        """Early data that a server was sent."""
        self.tickets: list[Ticket] = []
        """Those that came so far: servers send them ahead of their first data."""
        self._socket = sock
        self._read_secret, self._write_secret = established.read_secret, established.write_secret
        self._opener = RecordOpener(
            ENGINE.aead,
            self._read_secret.keys(established.read_sequence),
            ENGINE.invalid_tag,
            max_content=established.max_received,
        )
        self._opener.feed(established.unread)
        self._sealer = RecordSealer(
            ENGINE.aead,
            self._write_secret.keys(established.write_sequence),
            max_content=established.max_sent,
            padding=padding,
        )
        self._post = PostHandshake(is_client=is_client)

    def _put(self, content_type: ContentType, content: bytes) -> None:
        self._sealer.put(content_type, content)
        self._socket.sendall(self._sealer.pending)
        self._sealer.sent(len(self._sealer.pending))

    def send(self, data: bytes) -> None:
        most = self.established.max_sent
        for start in range(0, len(data), most):
            self._put(ContentType.APPLICATION_DATA, data[start : start + most])

    def close(self) -> None:
        self._put(ContentType.ALERT, b"\x01\x00")

    def update_keys(self, *, request: bool) -> None:
        self._put(ContentType.HANDSHAKE, PostHandshake.key_update(request))
        self._write_secret = self._write_secret.next()
        self._sealer.switch_keys(self._write_secret.keys())

    def receive(self) -> bytes:
        """The next application data; b"" after close_notify."""
        while (data := self._receive_one()) is None:
            continue
        return data

    def await_key_updates(self, count: int) -> None:
        """Receives until the peer has updated its keys `count` times in all. Nothing else may come."""
        while self.key_updates < count:
            assert self._receive_one() is None

    def _receive_one(self) -> bytes | None:
        """Application data, or b"" for close_notify; None for handshake content and empty records."""
        while True:
            record = self._opener.next_record()
            if record is None:
                data = self._socket.recv(1 << 16)
                if not data:
                    raise EOFError("the peer ended without close_notify")
                self._opener.feed(data)
                continue
            content_type, content = record
            if content_type == ContentType.APPLICATION_DATA:
                return bytes(content) or None
            if content_type == ContentType.ALERT:
                if content[1] == 0:
                    return b""
                raise AlertReceived(content[1])
            self._handshake(content)
            return None

    def _handshake(self, content: memoryview) -> None:
        for message in self._post.receive(content):
            if isinstance(message, KeyUpdate):
                self.key_updates += 1
                self._read_secret = self._read_secret.next()
                self._opener.switch_keys(self._read_secret.keys())
                if message.request:
                    self.update_keys(request=False)
            else:
                ticket = self.established.ticket(message, time.time())
                assert ticket is not None
                self.tickets.append(ticket)

    def echo(self, line: bytes = b"hello\n", answer: bytes = b"") -> None:
        """Says a line to a peer that says it back, or this."""
        self.send(line)
        assert self.receive_until(b"\n") == (answer or line)

    def hear(self, process: Process, line: str = "hello\n") -> None:
        """Has the peer's program say a line."""
        process.say(line)
        assert self.receive_until(b"\n") == line.encode()

    def receive_until(self, ending: bytes) -> bytes:
        received = b""
        while not received.endswith(ending):
            data = self.receive()
            if not data:
                break
            received += data
        return received


def _handshake(sock: socket.socket, connection: TLSConnection, early: bytearray | None = None) -> Established:
    """`early` takes the early data that a server is sent."""
    try:
        while True:
            data = connection.data_to_send()
            if data:
                sock.sendall(data)
            if connection.handshake_complete:
                return connection.established()
            received = sock.recv(1 << 16)
            if not received:
                connection.receive_eof()
            connection.receive_data(received)
            if early is not None and isinstance(connection, ServerConnection):
                early += b"".join(connection.early_records())
    except TCPLSError:
        sock.sendall(connection.data_to_send())
        sock.shutdown(socket.SHUT_WR)
        raise


@contextmanager
def connect(port: int, config: ClientConfig, early: bytes = b"", key_log: KeyLog = NULL_KEY_LOG) -> Iterator[Channel]:
    """`early` is sent as early data, as far as that is possible."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as sock:
        sock.settimeout(TIMEOUT)
        ours = replace(config, engine=ENGINE)
        connection = ClientConnection(ours, random=os.urandom, time=datetime.now(UTC), key_log=key_log)
        connection.send_early(early)
        yield Channel(sock, _handshake(sock, connection), is_client=True, padding=config.padding.data)


def first_ticket(port: int, config: ClientConfig, answer: bytes = b"") -> Ticket:
    """The last ticket of a session in which a line went there and came back, as `Channel.echo` has it."""
    with connect(port, config) as channel:
        assert not channel.established.resumed
        channel.echo(answer=answer)
        channel.close()
        return channel.tickets[-1]


class Listener:
    """Accepts one connection and shakes hands on it."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(TIMEOUT)
        self.port: int = self._listener.getsockname()[1]

    @contextmanager
    def accept(
        self, config: ServerConfig, later: timedelta = timedelta(0), key_log: KeyLog = NULL_KEY_LOG
    ) -> Iterator[Channel]:
        """`later`: how far the server's clock is ahead."""
        sock, _ = self._listener.accept()
        with sock:
            sock.settimeout(TIMEOUT)
            now = datetime.now(UTC) + later
            ours = replace(config, engine=ENGINE)
            connection = ServerConnection(ours, random=os.urandom, time=now, key_log=key_log)
            early = bytearray()
            established = _handshake(sock, connection, early)
            channel = Channel(sock, established, is_client=False, padding=config.padding.data)
            channel.early = bytes(early)
            yield channel

    def close(self) -> None:
        self._listener.close()


@contextmanager
def listening() -> Iterator[Listener]:
    listener = Listener()
    try:
        yield listener
    finally:
        listener.close()


class Process:
    """A peer in a process of its own, whose output is collected."""

    def __init__(self, arguments: list[str]) -> None:
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._output = b""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        while data := os.read(stdout.fileno(), 1 << 16):
            with self._changed:
                self._output += data
                self._changed.notify_all()

    @property
    def output(self) -> str:
        return self._output.decode(errors="replace")

    def wait_for(self, text: str, times: int = 1) -> None:
        with self._changed:
            found = self._changed.wait_for(lambda: self._output.count(text.encode()) >= times, TIMEOUT)
        assert found, f"{text!r} is not in the output: {self.output}"

    def say(self, line: str) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(line.encode())
        stdin.flush()

    def finish(self) -> str:
        """All of the output, once the process has ended by itself."""
        self._process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        return self.output

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(TIMEOUT)
        # The pipe is closed only when nobody reads it: its number may be another's at once.
        self._reader.join(TIMEOUT)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue


@contextmanager
def running(*arguments: str | Path) -> Iterator[Process]:
    process = Process([str(argument) for argument in arguments])
    try:
        yield process
    finally:
        process.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
