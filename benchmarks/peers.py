"""What is measured against: a sender that is asked for bytes and a receiver that counts them, in two processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import trustme

BLOCK = 1 << 18
SUITE = "TLS_AES_128_GCM_SHA256"
CONGESTION = "cubic"
"""For every contender: some machines' default paces, and a sender that is paced on loopback measures its pacing."""


@dataclass(frozen=True)
class Files:
    ca: str
    certificate: str
    key: str


@contextlib.contextmanager
def certificates() -> Iterator[Files]:
    """An authority and a certificate for localhost (ECDSA P-256), for as long as the block lasts."""
    with tempfile.TemporaryDirectory() as folder:
        authority = trustme.CA()
        leaf = authority.issue_cert("localhost")
        files = Files(f"{folder}/ca.pem", f"{folder}/cert.pem", f"{folder}/key.pem")
        authority.cert_pem.write_to_path(files.ca)
        leaf.cert_chain_pems[0].write_to_path(files.certificate)
        leaf.private_key_pem.write_to_path(files.key)
        # Python's ssl cannot choose the suite of TLS 1.3 itself before 3.14; OpenSSL's configuration can.
        configuration = Path(folder) / "openssl.cnf"
        sections = "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\n"
        configuration.write_text(f"{sections}Ciphersuites = {SUITE}\nGroups = X25519\n")
        os.environ["OPENSSL_CONF"] = str(configuration)
        yield files


Peer = Callable[[Connection, Files], None]


@contextlib.contextmanager
def running(server: Peer, files: Files) -> Iterator[int]:
    """Runs `server` in a process of its own; it sends the port that it listens on."""
    with running_with_pipe(server, files) as (port, _):
        yield port


@contextlib.contextmanager
def running_with_pipe(server: Peer, files: Files) -> Iterator[tuple[int, Connection]]:
    """The same for a server that answers questions through its pipe."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=server, args=(theirs, files), daemon=True)
    process.start()
    try:
        if not ours.poll(30):
            raise RuntimeError(f"{server.__name__} does not listen")
        yield int(ours.recv()), ours
    finally:
        process.terminate()
        process.join()


# Python's ssl and plain TCP over blocking sockets: eight bytes ask for that many.


def _serve_blocking(pipe: Connection, wrap: Callable[[socket.socket], socket.socket]) -> None:
    block = os.urandom(BLOCK)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION.encode())
        pipe.send(listener.getsockname()[1])
        while True:
            accepted, _ = listener.accept()
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(OSError), wrap(accepted) as sock:
                missing = int.from_bytes(sock.recv(8), "big")
                while missing:
                    sock.sendall(block if missing >= BLOCK else block[:missing])
                    missing -= min(BLOCK, missing)
                sock.recv(1)


def ssl_server(pipe: Connection, files: Files) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    context.num_tickets = 0
    _serve_blocking(pipe, lambda sock: context.wrap_socket(sock, server_side=True))


def raw_server(pipe: Connection, files: Files) -> None:
    _serve_blocking(pipe, lambda sock: sock)


def _receive_blocking(sock: socket.socket, size: int) -> None:
    sock.sendall(size.to_bytes(8, "big"))
    room = memoryview(bytearray(BLOCK))
    missing = size
    while missing:
        count = sock.recv_into(room)
        if not count:
            raise RuntimeError("the sender stopped early")
        missing -= count


def client_context(files: Files) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=files.ca)


def ssl_receive(port: int, files: Files, size: int) -> None:
    plain = socket.create_connection(("127.0.0.1", port))
    with client_context(files).wrap_socket(plain, server_hostname="localhost") as sock:
        if sock.cipher()[0] != SUITE:  # type: ignore[index]
            raise RuntimeError("another suite was chosen")
        _receive_blocking(sock, size)


def raw_receive(port: int, files: Files, size: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        _receive_blocking(sock, size)
