"""What the tests of programs need: a kernel that takes them, connections, paths, and a look at what is registered."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tcpls.kernel import bpf, privileges
from tcpls.kernel.helper_client import HelperClient
from tcpls.kernel.program import ProgramPolicy
from tcpls.lab.emulator import Conditions
from tcpls.lab.network import CLIENT, SERVER, Network, PathPlan, unavailable
from tests.unit.kernel.objects import SHIPPED, shipped

CLONE_NEWNET = 0x40000000


def why_not() -> str:
    """Why controllers cannot be loaded here; empty if they can. A kernel that should be able to must not skip."""
    if not bpf.KERNEL_BTF.exists():
        return "this kernel has no BPF type information (CONFIG_DEBUG_INFO_BTF)"
    if not bpf.kernel_has_links():
        return "this kernel has no links for struct_ops (Linux 6.4)"
    if not {privileges.BPF, privileges.PERFMON, privileges.NET_ADMIN} <= privileges.held():
        return "loading programs needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"
    if shutil.which("clang") is None:
        return "programs are compiled with clang, which is not installed"
    return ""


@pytest.fixture
def kernel() -> None:
    """Skips where the kernel or this process's privilege cannot load programs."""
    reason = why_not()
    if reason:
        pytest.skip(reason)


@pytest.fixture
def helper(kernel: None) -> Iterator[HelperClient]:
    """A helper that accepts the project's own programs."""
    with HelperClient.spawn(ProgramPolicy.pinned(shipped(name).digest for name in SHIPPED)) as client:
        yield client


@pytest.fixture
def pair() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """Makes TCP connections over loopback, closed after the test."""
    opened: list[socket.socket] = []

    def connect() -> tuple[socket.socket, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
        opened.extend((client, server))
        return client, server

    yield connect
    for sock in opened:
        sock.close()


def algorithm(sock: socket.socket) -> str:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).split(b"\0", 1)[0].decode()


def available() -> list[str]:
    return Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Waits for the kernel to get round to something (it frees programs after a grace period)."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@dataclass(frozen=True)
class TcpState:
    """What the kernel says of a connection. RTT in milliseconds, windows in segments."""

    cwnd: int
    ssthresh: int
    rtt: float
    retransmits: int

    @classmethod
    def of(cls, sock: socket.socket) -> TcpState:
        raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        ssthresh, cwnd = struct.unpack_from("<II", raw, 76)
        return cls(cwnd, ssthresh, struct.unpack_from("<I", raw, 68)[0] / 1000, struct.unpack_from("<I", raw, 100)[0])


class Flow:
    """A sender that never stops and a receiver that counts, over an emulated path."""

    def __init__(self, sender: socket.socket, receiver: socket.socket) -> None:
        self.sender = sender
        self.receiver = receiver
        self.received = 0
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        for sock in (self.sender, self.receiver):
            # Without a path what is unsent would keep the socket, and its program, in the kernel for many minutes.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(5)

    def _send(self) -> None:
        data = bytes(64 * 1024)
        try:
            while True:
                self.sender.send(data)
        except OSError:
            return

    def _receive(self) -> None:
        buffer = bytearray(256 * 1024)
        try:
            while count := self.receiver.recv_into(buffer):
                self.received += count
        except OSError:
            return

    def watch(self, seconds: float, *, step: float = 0.01) -> tuple[list[TcpState], float]:
        """The sender's states over some time, and the receiver's rate in Mbit/s."""
        states = []
        before, started = self.received, time.monotonic()
        while (now := time.monotonic()) < started + seconds:
            states.append(TcpState.of(self.sender))
            time.sleep(step)
        return states, 8e-6 * (self.received - before) / (now - started)


def inside(space: Path, work: Callable[[], socket.socket]) -> socket.socket:
    """Runs `work` in a namespace: in a thread of its own, because a thread's namespace is its own too."""
    made: list[socket.socket] = []

    def run() -> None:
        fd = os.open(space, os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            made.append(work())
        finally:
            os.close(fd)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    return made[0]


@contextmanager
def emulated_path(**forward: Any) -> Iterator[Callable[[], Flow]]:
    """An emulated path; gives a function that makes a flow over it. Options are the forward direction's `Conditions`;
    the way back has the same delay, and nothing else."""
    if (missing := unavailable()) is not None:
        pytest.skip(str(missing))
    back = Conditions(delay=forward.get("delay", 0.0))
    plan = PathPlan(there=Conditions(**forward), back=back)
    flows: list[Flow] = []
    with Network([plan]) as network:

        def connect() -> Flow:
            first, second = (network.namespace(end) for end in (CLIENT, SERVER))
            listener = inside(second, lambda: socket.create_server((network.server[0].first, 0)))
            sender = inside(first, lambda: socket.create_connection(listener.getsockname(), 10))
            sender.settimeout(None)
            receiver, _ = listener.accept()
            listener.close()
            flow = Flow(sender, receiver)
            flows.append(flow)
            return flow

        try:
            yield connect
        finally:
            for flow in flows:
                flow.stop()
                flow.sender.close()
                flow.receiver.close()
