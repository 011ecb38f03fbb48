"""Addresses that do not answer, on loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tcpls.aio.endpoints import Endpoint


@dataclass
class Hole:
    """A listener whose backlog is full, so that the kernel drops whatever else comes (tcp_abort_on_overflow is 0)."""

    listener: socket.socket
    filler: socket.socket

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint.of(self.listener.getsockname())

    def open(self) -> None:
        """Makes room: the next retransmission of a SYN gets through."""
        self.listener.accept()[0].close()


@contextmanager
def hole(host: str = "127.0.0.9") -> Iterator[Hole]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.bind((host, 0))
        listener.listen(0)
        # Linux takes one more than it was told.
        with socket.create_connection(listener.getsockname()[:2]) as filler:
            yield Hole(listener, filler)
