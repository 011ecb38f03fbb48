"""What is done to every socket before it connects, or when it was accepted."""

from __future__ import annotations

import socket

from tcpls.aio.config import KTLS, CommonConfig
from tcpls.errors import KernelUnavailable
from tcpls.kernel import ktls, sockopts


def prepare(sock: socket.socket, config: CommonConfig) -> None:
    """Options of every connection: no delay, dead peers noticed, the configured congestion control."""
    sock.setblocking(False)
    sockopts.apply(sock, "no_delay", 1)
    sockopts.apply(sock, "user_timeout", int(config.user_timeout * 1000))
    sockopts.apply(sock, "keepalive_idle", 30)
    sockopts.apply(sock, "keepalive_interval", 10)
    if config.congestion:
        try:
            sockopts.set_congestion(sock, config.congestion)
        except OSError as error:
            raise KernelUnavailable(
                f"congestion control {config.congestion}",
                f"{error.strerror}; see net.ipv4.tcp_available_congestion_control",
            ) from None


def attach_kernel(sock: socket.socket, config: CommonConfig) -> None:
    """Makes the kernel ready to protect the records of a connection that was just made.

    Raises `KernelUnavailable` when that is required. Behind the handshake it could be too late: a peer that has said
    everything may have ended its direction by then.
    """
    if config.ktls is KTLS.OFF or config.padding.data > 1:
        return
    try:
        # Where the other end has gone already, the handshake says what that means.
        ktls.attach_ulp(sock)
    except KernelUnavailable:
        if config.ktls is KTLS.REQUIRE:
            raise
