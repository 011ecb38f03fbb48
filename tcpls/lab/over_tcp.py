"""The application over TLS 1.3 as Python has it, over one TCP connection or one of Multipath TCP."""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress

from tcpls.lab.jobs import SERVER_NAME, Job, Orders, Say
from tcpls.lab.transfer import CHUNK, Arrivals, Pattern

IPPROTO_MPTCP = getattr(socket, "IPPROTO_MPTCP", 262)

BACKLOG = 8


def mptcp_missing() -> str:
    """Why there is no Multipath TCP here; "" if there is."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
    except OSError as error:
        return f"this kernel has no Multipath TCP (CONFIG_MPTCP, net.mptcp.enabled): {error.strerror}"
    return ""


def _socket(job: Job) -> socket.socket:
    """A socket for both families: a connection of one of them can only have subflows of the other if it is IPv6's."""
    protocol = IPPROTO_MPTCP if job.transport == "mptcp" else socket.IPPROTO_TCP
    sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, protocol)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return sock


def _prepare(sock: socket.socket, job: Job) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, job.congestion.encode())
    if job.user_timeout and job.transport == "tcp":
        # Multipath TCP's sockets do not have the option.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, job.user_timeout)


def _either(address: str) -> str:
    return address if ":" in address else f"::ffff:{address}"


def serve(job: Job, say: Say) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(job.certificate, job.key)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with _socket(job) as listener:
        _prepare(listener, job)  # What it accepts inherits it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("::", job.port))
        listener.listen(BACKLOG)
        say(listening=True)
        # It must go on listening: subflows of Multipath TCP come to it too.
        sock, _ = listener.accept()
        with sock, context.wrap_socket(sock, server_side=True) as connection:
            try:
                _send(connection, job)
            except OSError as error:
                say(detail=f"{type(error).__name__}: {error}")


def _send(connection: ssl.SSLSocket, job: Job) -> None:
    pattern = Pattern(job.seed)
    while left := job.size - pattern.offset:
        connection.sendall(pattern.next(min(CHUNK, left)))
    connection.settimeout(job.limit)
    # The client's end: until then nothing may be thrown away.
    with suppress(ssl.SSLEOFError):
        connection.recv(1)


def fetch(job: Job, arrivals: Arrivals, orders: Orders, say: Say) -> None:
    """Neither transport takes orders, or has anything to tell: with Multipath TCP it is the kernel that is told."""
    context = ssl.create_default_context(cafile=job.authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    place = job.places[job.begin[0]]
    buffer = bytearray(4 * CHUNK)
    view = memoryview(buffer)
    end = arrivals.begin + job.limit
    with _socket(job) as sock:
        _prepare(sock, job)
        sock.settimeout(job.limit)
        sock.bind((_either(place.local), 0))
        sock.connect((_either(place.remote), job.port))
        with context.wrap_socket(sock, server_hostname=SERVER_NAME) as connection:
            while not arrivals.complete:
                connection.settimeout(max(end - time.monotonic(), 0.001))
                count = connection.recv_into(buffer)
                if not count:
                    raise ConnectionError("the server has ended early")
                arrivals.take(view[:count])
