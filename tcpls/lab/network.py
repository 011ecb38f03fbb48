"""The emulated network: two namespaces, a client's and a server's, joined by paths.

Nothing in it has a name outside, and every process of it ends when its control socket does. So however the process
that made it ends, nothing is left.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import TracebackType

from tcpls.errors import KernelUnavailable, TCPLSError
from tcpls.lab.devices import TUN_DEVICE
from tcpls.lab.emulator import Conditions

START_TIMEOUT = 20.0
END_TIMEOUT = 5.0
"""Seconds until a process that should have ended is killed."""

ANSWER = 1 << 20
"""More bytes than a process answers with."""

CLIENT, SERVER = 0, 1


class LaboratoryFailed(TCPLSError):
    """A part of the laboratory could not do what it was asked: a mistake of the scenario or of the program."""


@dataclass(frozen=True, kw_only=True)
class PathPlan:
    """A path as a scenario has it. `back` is the direction from the server to the client; None: the same.
    `families` are the address families that it has: 4, 6 or both."""

    there: Conditions
    back: Conditions | None = None
    families: tuple[int, ...] = (4,)


@dataclass(frozen=True)
class PathAddresses:
    """A path's addresses at one end, by family."""

    device: str
    of: dict[int, str] = field(default_factory=dict)
    """Family -> address, without the length of its prefix."""

    @property
    def first(self) -> str:
        return next(iter(self.of.values()))

    def with_prefix(self, family: int) -> str:
        return f"{self.of[family]}/{24 if family == 4 else 64}"


def addresses(number: int, end: int, plan: PathPlan) -> PathAddresses:
    """The addresses of the `number`th path (from 0) at the client's end (0) or the server's (1)."""
    of = {
        4: str(IPv4Address(f"10.77.{number + 1}.{end + 1}")),
        6: str(IPv6Address(f"fd77:0:0:{number + 1}::{end + 1}")),
    }
    return PathAddresses(f"path{number + 1}", {family: of[family] for family in plan.families})


def unavailable() -> KernelUnavailable | None:
    """Why there can be no emulated network here; None if there can."""
    if os.geteuid() != 0:
        return KernelUnavailable("network namespaces", "the laboratory needs root: for namespaces and TUN devices")
    if not Path(TUN_DEVICE).exists():
        return KernelUnavailable("TUN devices", f"there is no {TUN_DEVICE}: modprobe tun, or allow it to the container")
    for command in ("unshare", "nsenter"):
        if shutil.which(command) is None:
            return KernelUnavailable("network namespaces", f"the command {command} is missing (package util-linux)")
    return None


class Worker:
    """A process that is asked over a socket, and that ends when the socket does."""

    def __init__(self, command: Sequence[str], kind: socket.SocketKind, descriptors: Sequence[int] = ()) -> None:
        """`command`; the word "SOCKET" in it becomes the number of its descriptor of the socket."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        with theirs:
            number = str(theirs.fileno())
            self.process = subprocess.Popen(
                [number if word == "SOCKET" else word for word in command],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *descriptors),
                start_new_session=True,  # A Ctrl-C is for who made the network, who then ends this.
            )
        self._name = command[-1] if "-m" not in command else command[command.index("-m") + 1]
        self._socket = ours
        self._socket.settimeout(START_TIMEOUT)
        self.descriptors: list[int] = []
        """What came with the last answer."""

    def ready(self) -> None:
        """Waits until it answers. Raises `LaboratoryFailed`."""
        self._answer()

    def ask(self, do: str, **words: object) -> dict[str, object]:
        """Its answer, which has `at`, the time when it did it. Raises `LaboratoryFailed`."""
        try:
            self._socket.sendall(json.dumps({"do": do, **words}).encode() + b"\n")
        except OSError as error:
            raise LaboratoryFailed(f"{self._name} has ended: {error.strerror}") from None
        return self._answer()

    def _answer(self) -> dict[str, object]:
        try:
            message, self.descriptors, _, _ = socket.recv_fds(self._socket, ANSWER, 64)
        except OSError as error:
            raise LaboratoryFailed(f"{self._name} does not answer: {error.strerror or error}") from None
        if not message:
            raise LaboratoryFailed(f"{self._name} has ended")
        answer: dict[str, object] = json.loads(message)
        if "error" in answer:
            raise LaboratoryFailed(f"{self._name}: {answer['error']}")
        return answer

    def close(self) -> None:
        self._socket.close()

    def wait(self) -> None:
        end(self.process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Waits for a process that has been told to end, and kills it when it does not."""
    try:
        process.wait(END_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Network:
    """Two namespaces and the paths between them, as a context manager.

    Raises `KernelUnavailable` where there can be none, `LaboratoryFailed`.
    """

    def __init__(self, plans: Sequence[PathPlan], *, seed: int = 1) -> None:
        self.plans = tuple(plans)
        self.client = [addresses(number, CLIENT, plan) for number, plan in enumerate(plans)]
        self.server = [addresses(number, SERVER, plan) for number, plan in enumerate(plans)]
        self._seed = seed
        self._workers: list[Worker] = []

    def __enter__(self) -> Network:
        if (error := unavailable()) is not None:
            raise error
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make(self) -> None:
        holder = ["unshare", "--net", "--", sys.executable, "-m", "tcpls.lab.space", "SOCKET"]
        self.spaces = [self._start(holder, socket.SOCK_SEQPACKET) for _ in (CLIENT, SERVER)]
        ends: list[list[int]] = []
        try:
            for space, here in zip(self.spaces, (self.client, self.server), strict=True):
                space.ready()
                devices = [
                    {"name": path.device, "addresses": [path.with_prefix(family) for family in path.of]}
                    for path in here
                ]
                by_source = here is self.client
                space.ask("configure", devices=devices, by_source=by_source)
                ends.append(space.descriptors)
            plan = {
                "seed": self._seed,
                "devices": list(zip(*ends, strict=True)),
                "conditions": [[asdict(plan.there), asdict(plan.back or plan.there)] for plan in self.plans],
            }
            command = [sys.executable, "-m", "tcpls.lab.emulator", "SOCKET", json.dumps(plan)]
            self.emulator = self._start(command, socket.SOCK_STREAM, [fd for pair in ends for fd in pair])
        finally:
            # The devices are to be gone when the emulator is.
            for fd in (fd for pair in ends for fd in pair):
                os.close(fd)
        self.emulator.ready()

    def _start(self, command: Sequence[str], kind: socket.SocketKind, descriptors: Sequence[int] = ()) -> Worker:
        worker = Worker(command, kind, descriptors)
        self._workers.append(worker)
        return worker

    def close(self) -> None:
        """Ends every process, and with them the devices and the namespaces."""
        for worker in self._workers:
            worker.close()
        for worker in self._workers:
            worker.wait()
        self._workers.clear()

    def namespace(self, end: int) -> Path:
        """The file of the client's namespace (0) or the server's (1), as long as the network is there."""
        return Path(f"/proc/{self.spaces[end].process.pid}/ns/net")

    def start(self, end: int, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Starts a process in the client's namespace (0) or the server's (1), with pipes to and from it."""
        return subprocess.Popen(
            ["nsenter", f"--net={self.namespace(end)}", "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    # What may happen to a path. Each gives the time when it happened, of the clock `time.monotonic`.

    def blackhole(self, path: int) -> float:
        """Nothing comes out of the path any more."""
        return _at(self.emulator.ask("blackhole", path=path))

    def heal(self, path: int) -> float:
        return _at(self.emulator.ask("heal", path=path))

    def reset(self, path: int) -> float:
        """Both ends of the path's busiest TCP connection get a reset. Raises `LaboratoryFailed` if it has none."""
        answer = self.emulator.ask("reset", path=path)
        if not answer["flows"]:
            raise LaboratoryFailed(f"there is no TCP connection on path {path + 1} to reset")
        return _at(answer)

    def change(self, path: int, **conditions: float) -> float:
        """Other conditions, both ways: rate, delay, queue, loss."""
        return _at(self.emulator.ask("change", path=path, conditions=conditions))

    def remove_address(self, path: int, family: int) -> float:
        """Takes the client's address of that family away."""
        here = self.client[path]
        return _at(self.spaces[CLIENT].ask("remove_address", name=here.device, address=here.with_prefix(family)))

    def add_address(self, path: int, family: int) -> float:
        """Gives the client its address back."""
        here = self.client[path]
        return _at(self.spaces[CLIENT].ask("add_address", name=here.device, address=here.with_prefix(family)))

    def counts(self) -> dict[str, object]:
        """`counts`: for each path and direction, what became of its packets; `cpu`: seconds of the emulator's."""
        return self.emulator.ask("counts")

    def retransmitted(self, end: int) -> int:
        """TCP segments that were sent again in a namespace, of all connections."""
        return int(str(self.spaces[end].ask("facts")["retransmitted"]))


def _at(answer: dict[str, object]) -> float:
    return float(str(answer["at"]))


def until(moment: float) -> None:
    """Sleeps until a time of `time.monotonic`."""
    while (left := moment - time.monotonic()) > 0:
        time.sleep(left)
