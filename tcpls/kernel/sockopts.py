"""TCP options by portable names, set on a socket and read back; what the kernel knows about a connection (`TCP_INFO`).

Numbers are those of Linux's ``include/uapi/linux/tcp.h`` and ``asm-generic/socket.h``.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from tcpls.errors import KernelUnavailable

TCP_INFO = 11
TCP_NOTSENT_LOWAT = 25
SO_MAX_PACING_RATE = 47
CONGESTION_NAME_SIZE = 16
RAW_READ_SIZE = 256

Value = int | str


class Unsupported(KernelUnavailable):
    """The option's name is not known here, or this kind of socket does not have it."""


@dataclass(frozen=True, slots=True)
class _Integer:
    """An option whose value is a C int; `keepalive` turns SO_KEEPALIVE on with it."""

    level: int
    number: int
    keepalive: bool = False

    def set(self, sock: socket.socket, value: int) -> int:
        sock.setsockopt(self.level, self.number, struct.pack("@i", value))
        if self.keepalive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return sock.getsockopt(self.level, self.number)


_INTEGERS = {
    "user_timeout": _Integer(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    "keepalive_idle": _Integer(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, keepalive=True),
    "keepalive_interval": _Integer(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, keepalive=True),
    "keepalive_count": _Integer(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, keepalive=True),
    "no_delay": _Integer(socket.IPPROTO_TCP, socket.TCP_NODELAY),
    "quick_ack": _Integer(socket.IPPROTO_TCP, socket.TCP_QUICKACK),
    "not_sent_lowat": _Integer(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT),
    "window_clamp": _Integer(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP),
    "send_buffer": _Integer(socket.SOL_SOCKET, socket.SO_SNDBUF),
    "receive_buffer": _Integer(socket.SOL_SOCKET, socket.SO_RCVBUF),
    "linger2": _Integer(socket.IPPROTO_TCP, socket.TCP_LINGER2),
    "priority": _Integer(socket.SOL_SOCKET, socket.SO_PRIORITY),
    "maximum_segment_size": _Integer(socket.IPPROTO_TCP, socket.TCP_MAXSEG),
}


def _set_pacing_rate(sock: socket.socket, value: Value) -> Value:
    # An unsigned long: as an int, rates above 2 GB/s could not be said.
    sock.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, struct.pack("@L", value))
    size = struct.calcsize("@L")
    return int(struct.unpack("@L", sock.getsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, size))[0])


def _carries_ipv4(sock: socket.socket) -> bool:
    """Whether an IPv6 socket has an IPv4 peer, so that its packets have IPv4's header."""
    try:
        peer = ipaddress.ip_address(sock.getpeername()[0].partition("%")[0])
    except OSError:
        return False
    return isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped is not None


def _set_traffic_class(sock: socket.socket, value: Value) -> Value:
    """The byte with DSCP and ECN; the two ECN bits of a TCP socket belong to the kernel."""
    if sock.family == socket.AF_INET6 and not _carries_ipv4(sock):
        option = socket.IPPROTO_IPV6, socket.IPV6_TCLASS
    else:
        option = socket.IPPROTO_IP, socket.IP_TOS
    sock.setsockopt(*option, int(value))
    return sock.getsockopt(*option)


def _set_raw(sock: socket.socket, value: Value) -> Value:
    """`value` is ``level:option:bytes``, the bytes in hexadecimal as the kernel lays them out; so is the answer."""
    try:
        level, number, data = str(value).split(":")
        option = int(level), int(number)
        content = bytes.fromhex(data)
    except ValueError:
        raise Unsupported("raw", "the value is level:option:bytes, two numbers and hexadecimal digits") from None
    sock.setsockopt(*option, content)
    try:
        shown = sock.getsockopt(*option, RAW_READ_SIZE)
    except OSError:
        # Some options can only be set.
        shown = b""
    return f"{option[0]}:{option[1]}:{shown.hex()}"


def congestion(sock: socket.socket) -> str:
    """The name of the congestion controller in use."""
    name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION_NAME_SIZE)
    return name.partition(b"\0")[0].decode("ascii", "replace")


def set_congestion(sock: socket.socket, name: str) -> str:
    """Selects a controller that is registered and allowed to this process; the name that the kernel reports then."""
    encoded = name.encode()
    if not 0 < len(encoded) < CONGESTION_NAME_SIZE or b"\0" in encoded:
        # The kernel would cut it, and could so select another one.
        raise Unsupported(f"congestion controller {name!r}", "a name has 1 to 15 bytes")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, encoded)
    return congestion(sock)


_OTHERS: dict[str, Callable[[socket.socket, Value], Value]] = {
    "congestion": lambda sock, value: set_congestion(sock, str(value)),
    "max_pacing_rate": _set_pacing_rate,
    "traffic_class": _set_traffic_class,
    "raw": _set_raw,
}

NAMES = frozenset(_INTEGERS) | frozenset(_OTHERS)


def apply(sock: socket.socket, name: str, value: Value) -> Value:
    """Sets the option `name` and returns what the kernel says it is then.

    Units: user_timeout in milliseconds; keepalive_idle, keepalive_interval and linger2 in seconds (any keepalive_*
    also turns keep-alive on); max_pacing_rate in bytes a second; buffers and windows in bytes. The kernel's answer
    may differ from `value`: send_buffer and receive_buffer come back doubled, because the kernel counts its own
    bookkeeping, and limited by the machine's maximum; quick_ack is a wish of the moment.

    Raises the kernel's `OSError`, or `Unsupported` for what cannot be asked of this socket at all.
    """
    try:
        if (integer := _INTEGERS.get(name)) is not None:
            return integer.set(sock, int(value))
        if (other := _OTHERS.get(name)) is not None:
            return other(sock, value)
    except (OverflowError, ValueError, struct.error) as error:
        raise Unsupported(name, f"{value!r} is not a value that this option can have") from error
    raise Unsupported(name, "no TCP option of this name is known here")


TCP_STATES = (
    "",
    "established",
    "syn-sent",
    "syn-received",
    "fin-wait-1",
    "fin-wait-2",
    "time-wait",
    "closed",
    "close-wait",
    "last-ack",
    "listen",
    "closing",
    "new-syn-received",
)


@dataclass(frozen=True, slots=True)
class TCPInfo:
    """A connection as the kernel sees it. What an older kernel does not tell is 0.

    Times are in microseconds, those since the last data and the last ACK in milliseconds; the congestion window,
    thresholds and packet counts in segments; rates in bytes a second.
    """

    state: str = ""
    retransmits: int = 0
    rto: int = 0
    snd_mss: int = 0
    rcv_mss: int = 0
    unacked: int = 0
    lost: int = 0
    retrans: int = 0
    last_data_recv: int = 0
    last_ack_recv: int = 0
    pmtu: int = 0
    rtt: int = 0
    rttvar: int = 0
    snd_ssthresh: int = 0
    snd_cwnd: int = 0
    total_retrans: int = 0
    pacing_rate: int = 0
    max_pacing_rate: int = 0
    bytes_acked: int = 0
    bytes_received: int = 0
    notsent_bytes: int = 0
    min_rtt: int = 0
    delivery_rate: int = 0
    busy_time: int = 0
    bytes_sent: int = 0
    bytes_retrans: int = 0
    delivered: int = 0
    delivered_ce: int = 0


# Offsets in ``struct tcp_info``, which only ever grows at its end.
_LAYOUT = {
    "retransmits": (2, "B"),
    "rto": (8, "I"),
    "snd_mss": (16, "I"),
    "rcv_mss": (20, "I"),
    "unacked": (24, "I"),
    "lost": (32, "I"),
    "retrans": (36, "I"),
    "last_data_recv": (52, "I"),
    "last_ack_recv": (56, "I"),
    "pmtu": (60, "I"),
    "rtt": (68, "I"),
    "rttvar": (72, "I"),
    "snd_ssthresh": (76, "I"),
    "snd_cwnd": (80, "I"),
    "total_retrans": (100, "I"),
    "pacing_rate": (104, "Q"),
    "max_pacing_rate": (112, "Q"),
    "bytes_acked": (120, "Q"),
    "bytes_received": (128, "Q"),
    "notsent_bytes": (144, "I"),
    "min_rtt": (148, "I"),
    "delivery_rate": (160, "Q"),
    "busy_time": (168, "Q"),
    "delivered": (192, "I"),
    "delivered_ce": (196, "I"),
    "bytes_sent": (200, "Q"),
    "bytes_retrans": (208, "Q"),
}
_STRUCTS = {name: (offset, struct.Struct("=" + code)) for name, (offset, code) in _LAYOUT.items()}


def parse_tcp_info(data: bytes) -> TCPInfo:
    """`TCPInfo` out of a ``struct tcp_info`` of any length."""
    known = {
        name: layout.unpack_from(data, offset)[0]
        for name, (offset, layout) in _STRUCTS.items()
        if offset + layout.size <= len(data)
    }
    state = data[0] if data else 0
    return TCPInfo(state=TCP_STATES[state] if state < len(TCP_STATES) else str(state), **known)


def tcp_info(sock: socket.socket) -> TCPInfo:
    """What the kernel knows about the connection of `sock`."""
    return parse_tcp_info(sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 512))
