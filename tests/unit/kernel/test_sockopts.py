"""Every option on a real loopback connection, set and read back; TCP_INFO of any length."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tcpls.errors import KernelUnavailable
from tcpls.kernel import sockopts


@contextmanager
def pair(family: socket.AddressFamily, listen: str, connect: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    try:
        listener = socket.create_server((listen, 0), family=family, dualstack_ipv6=listen == "::")
    except OSError as error:
        pytest.skip(f"no {family.name} here: {error}")
    with listener:
        client = socket.create_connection((connect, listener.getsockname()[1]), timeout=10)
        server, _ = listener.accept()
        server.settimeout(10)
    with client, server:
        yield client, server


@pytest.fixture
def connected() -> Iterator[socket.socket]:
    with pair(socket.AF_INET, "127.0.0.1", "127.0.0.1") as (client, _):
        yield client


@pytest.fixture
def connected6() -> Iterator[socket.socket]:
    with pair(socket.AF_INET6, "::1", "::1") as (client, _):
        yield client


EXACT = [
    ("user_timeout", 1500),
    ("user_timeout", 0),
    ("keepalive_idle", 11),
    ("keepalive_interval", 7),
    ("keepalive_count", 4),
    ("no_delay", 1),
    ("no_delay", 0),
    ("quick_ack", 1),
    ("quick_ack", 0),
    ("not_sent_lowat", 16384),
    ("window_clamp", 100_000),
    ("max_pacing_rate", 1_250_000),
    ("max_pacing_rate", 12_500_000_000),
    ("linger2", 30),
    ("traffic_class", 0xB8),
    ("priority", 3),
    ("congestion", "reno"),
    ("congestion", "cubic"),
]


def set_or_skip(sock: socket.socket, name: str, value: int | str) -> int | str:
    try:
        return sockopts.apply(sock, name, value)
    except OSError as error:
        if name == "congestion" and error.errno in (errno.ENOENT, errno.EPERM):
            pytest.skip(f"{value} is not available to this process on this kernel")
        raise


@pytest.mark.parametrize(("name", "value"), EXACT)
def test_option_comes_back(connected: socket.socket, name: str, value: int | str) -> None:
    assert set_or_skip(connected, name, value) == value


@pytest.mark.parametrize(("name", "value"), EXACT)
def test_option_comes_back_over_ipv6(connected6: socket.socket, name: str, value: int | str) -> None:
    assert set_or_skip(connected6, name, value) == value


def test_every_name_is_tried() -> None:
    elsewhere = {"send_buffer", "receive_buffer", "maximum_segment_size", "raw"}
    assert {name for name, _ in EXACT} | elsewhere == sockopts.NAMES


@pytest.mark.parametrize("name", ["keepalive_idle", "keepalive_interval", "keepalive_count"])
def test_keepalive_is_turned_on(connected: socket.socket, name: str) -> None:
    assert not connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    sockopts.apply(connected, name, 5)
    assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.parametrize("name", ["send_buffer", "receive_buffer"])
def test_buffers_come_back_doubled(connected: socket.socket, name: str) -> None:
    assert sockopts.apply(connected, name, 50_000) == 100_000


def test_maximum_segment_size() -> None:
    with socket.socket() as fresh:
        assert sockopts.apply(fresh, "maximum_segment_size", 1000) == 1000
    with pair(socket.AF_INET, "127.0.0.1", "127.0.0.1") as (client, _):
        # Too late to be announced: the kernel says the size in use.
        assert isinstance(sockopts.apply(client, "maximum_segment_size", 1000), int)


def test_traffic_class_is_set_where_it_counts() -> None:
    with pair(socket.AF_INET6, "::1", "::1") as (client, _):
        sockopts.apply(client, "traffic_class", 0x28)
        assert client.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS) == 0x28
    with pair(socket.AF_INET6, "::", "127.0.0.1") as (_, server):
        assert server.family == socket.AF_INET6
        assert sockopts.apply(server, "traffic_class", 0x28) == 0x28
        assert server.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 0x28


def test_ecn_bits_stay_the_kernels(connected: socket.socket) -> None:
    assert sockopts.apply(connected, "traffic_class", 0xB8 | 3) == 0xB8


def test_raw(connected: socket.socket) -> None:
    value = struct.pack("=i", 2500).hex()
    option = f"{socket.IPPROTO_TCP}:{socket.TCP_USER_TIMEOUT}"
    assert sockopts.apply(connected, "raw", f"{option}:{value}") == f"{option}:{value}"
    assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2500


@pytest.mark.parametrize("value", ["", "6", "6:18", "6:18:xyz", "6:eighteen:00", "6:18:00:00", 7])
def test_raw_of_another_form(connected: socket.socket, value: int | str) -> None:
    with pytest.raises(sockopts.Unsupported):
        sockopts.apply(connected, "raw", value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("no_such_option", 1),
        ("user_timeout", "soon"),
        ("user_timeout", 1 << 40),
        ("max_pacing_rate", -1),
        ("congestion", ""),
        ("congestion", "a_name_of_16_byt"),
        ("congestion", "reno\0"),
    ],
)
def test_what_cannot_be_asked(connected: socket.socket, name: str, value: int | str) -> None:
    with pytest.raises(KernelUnavailable):
        sockopts.apply(connected, name, value)


@pytest.mark.parametrize(
    ("name", "value", "number"),
    [
        ("keepalive_count", 0, errno.EINVAL),
        ("keepalive_idle", 1 << 20, errno.EINVAL),
        ("user_timeout", -1, errno.EINVAL),
        ("maximum_segment_size", 1, errno.EINVAL),
        ("congestion", "no_such_name", errno.ENOENT),
        ("raw", "6:9999:00000000", errno.ENOPROTOOPT),
    ],
)
def test_the_kernels_refusal_is_passed_on(connected: socket.socket, name: str, value: int | str, number: int) -> None:
    with pytest.raises(OSError) as caught:
        sockopts.apply(connected, name, value)
    assert caught.value.errno == number


def test_congestion_is_told(connected: socket.socket) -> None:
    assert sockopts.set_congestion(connected, "reno") == "reno"
    assert sockopts.congestion(connected) == "reno"


def test_tcp_info_of_a_connection() -> None:
    with pair(socket.AF_INET, "127.0.0.1", "127.0.0.1") as (client, server):
        sockopts.set_congestion(client, "reno")
        client.sendall(bytes(100_000))
        received = 0
        while received < 100_000:
            received += len(server.recv(65536))
        server.sendall(b"seen")
        assert client.recv(10) == b"seen"
        info = sockopts.tcp_info(client)
        assert info.state == "established"
        assert 100_000 <= info.bytes_acked <= 100_001
        assert info.bytes_received == 4 and info.bytes_sent == 100_000
        assert 0 < info.min_rtt <= info.rtt < 10_000_000
        assert info.snd_cwnd >= 10 and info.snd_mss > 500 and info.pmtu > info.snd_mss
        assert info.pacing_rate > 0 and info.delivery_rate > 0
        assert info.unacked == info.retransmits == info.notsent_bytes == 0
        assert sockopts.tcp_info(server).bytes_received == 100_000
        server.close()
        assert client.recv(10) == b""
        assert sockopts.tcp_info(client).state == "close-wait"


@pytest.mark.parametrize("size", [0, 1, 7, 8, 84, 104, 111, 192, 280, 400])
def test_tcp_info_of_an_older_kernel(size: int) -> None:
    data = bytes((1,)) + b"\xff" * 399
    info = sockopts.parse_tcp_info(data[:size])
    assert info.state == ("established" if size else "")
    assert info.snd_cwnd == (0xFFFFFFFF if size >= 84 else 0)
    assert info.pacing_rate == (0xFFFFFFFFFFFFFFFF if size >= 112 else 0)
    assert info.bytes_retrans == (0xFFFFFFFFFFFFFFFF if size >= 216 else 0)


def test_an_unknown_state_is_a_number() -> None:
    assert sockopts.parse_tcp_info(bytes((200,))).state == "200"
