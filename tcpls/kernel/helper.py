"""The privileged process: it loads programs and gives sockets an algorithm, and nothing else.

It is started with a Unix socket to the network process and gives up everything but CAP_BPF, CAP_PERFMON and
CAP_NET_ADMIN. The network process talks to hostile peers and is not trusted: the policy is fixed by its first message,
sent before any peer was heard, and judged here again for every program. The helper has no state that matters: links
belong to the network process, and when either of the two ends, nothing stays registered.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import gc
import json
import os
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tcpls.errors import ConfigurationError, KernelUnavailable, ProgramRefused
from tcpls.kernel import bpf, child, loader, privileges
from tcpls.kernel.bpf import Libbpf
from tcpls.kernel.elf_check import Places, check_object
from tcpls.kernel.program import Offer, ProgramPolicy

MAX_MESSAGE = 64 * 1024
MAX_DESCRIPTORS = 3
CHECK_SECONDS = 5.0
LOAD_SECONDS = 10.0
# Some kernels warn when the list of algorithms outgrows its buffer of 2048 bytes.
MAX_ALGORITHMS = 100
CAPABILITIES = frozenset({privileges.BPF, privileges.PERFMON, privileges.NET_ADMIN})
_AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
_ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")

Reply = tuple[dict[str, Any], list[int]]


class BadRequest(Exception):
    """The network process broke the helper's protocol."""


def tcp_algorithm(sock: socket.socket) -> str:
    """The congestion control algorithm of a TCP socket, as the kernel reports it."""
    raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return raw.split(b"\0", 1)[0].decode("ascii", "replace")


class Helper:
    """Answers one request after another. Every method either replies or raises one of our errors."""

    def __init__(self, policy: ProgramPolicy, library: Libbpf, *, audit: int | None = None) -> None:
        self._policy = policy
        self._library = library
        self._audit = audit
        self._programs: dict[bytes, str] = {}
        self._formers: set[str] = set()
        self._tokens = float(policy.max_loads_per_minute)
        self._filled_at = time.monotonic()
        self._verbs: dict[str, Callable[[dict[str, Any], list[int]], Reply]] = {
            "status": self._status,
            "load": self._load,
            "attach": self._attach,
            "set": self._set,
        }

    def answer(self, data: bytes, descriptors: list[int]) -> Reply:
        """The reply to one message, errors included. The descriptors that came with it are the caller's to close."""
        verb = "?"
        fields: dict[str, Any] = {}
        try:
            fields = _parse(data)
            verb = str(fields.get("verb"))
            if verb not in self._verbs:
                raise BadRequest("no such verb")
            reply = self._verbs[verb](fields, descriptors)
        except ProgramRefused as error:
            reply = {"refused": error.reason, "stage": error.stage, "log": error.log}, []
        except KernelUnavailable as error:
            reply = {"feature": error.feature, "hint": error.hint}, []
        except BadRequest as error:
            reply = {"misuse": str(error)}, []
        except OSError as error:
            reply = {"refused": f"{error.strerror}", "stage": "attached", "log": ""}, []
        self._record(verb, fields, reply[0])
        return reply

    def _record(self, verb: str, fields: dict[str, Any], answer: dict[str, Any]) -> None:
        if self._audit is None or verb == "status":
            return
        kept = {key: fields[key] for key in ("name", "digest", "key_id", "algorithm") if key in fields}
        said = {key: answer[key] for key in ("algorithm", "refused", "stage", "feature", "misuse") if key in answer}
        line = json.dumps({"time": time.time(), "verb": verb, "request": kept, "answer": said}) + "\n"
        with contextlib.suppress(OSError):
            os.write(self._audit, line.encode())

    # Verbs

    def _status(self, fields: dict[str, Any], descriptors: list[int]) -> Reply:
        live = [{"digest": digest.hex(), "algorithm": name} for digest, name in self._live().items()]
        return {"live": live, "libbpf": self._library.version, "uid": os.getuid(), "pid": os.getpid()}, []

    def _load(self, fields: dict[str, Any], descriptors: list[int]) -> Reply:
        started = time.monotonic()
        offer = self._judged(fields)
        digest, size = offer.digest, offer.size
        if len(descriptors) != 2:
            raise BadRequest("load takes an image and a socket")
        image = _read_image(descriptors[0], size)
        self._policy.judge_image(image, digest, size)
        timings = {"policy": 1000 * (time.monotonic() - started)}
        with _tcp_socket(descriptors[1]) as sock:
            self._make_room()
            loaded = self._check_and_load(image, timings)
            link_fd = loaded.link_fd
            try:
                former = self._give(sock, loaded.algorithm, timings)
            except BaseException:
                os.close(link_fd)
                raise
        self._programs[digest] = loaded.algorithm
        return {"algorithm": loaded.algorithm, "former": former, "timings": timings}, [link_fd]

    def _attach(self, fields: dict[str, Any], descriptors: list[int]) -> Reply:
        """One more socket for a program that is loaded: of the session that it was accepted for, or by a new offer."""
        digest = self._judged(fields).digest if "name" in fields else _bytes(fields, "digest")
        if len(descriptors) != 1:
            raise BadRequest("attach takes a socket")
        algorithm = self._live().get(digest)
        if algorithm is None:
            raise ProgramRefused("not loaded", stage="attached")
        timings: dict[str, float] = {}
        with _tcp_socket(descriptors[0]) as sock:
            former = self._give(sock, algorithm, timings)
        return {"algorithm": algorithm, "former": former, "timings": timings}, []

    def _set(self, fields: dict[str, Any], descriptors: list[int]) -> Reply:
        """Gives a socket an algorithm that was its own before, or that is allowed on this machine or by policy."""
        name = _text(fields, "algorithm")
        if len(descriptors) != 1:
            raise BadRequest("set takes a socket")
        allowed = {*_words(_ALLOWED), *self._policy.algorithms, *self._formers}
        if name not in allowed:
            raise ProgramRefused(f"{name[:16]} is not an algorithm that the helper may select", stage="policy")
        with _tcp_socket(descriptors[0]) as sock:
            self._give(sock, name, {})
        return {"algorithm": name}, []

    # Parts

    def _judged(self, fields: dict[str, Any]) -> Offer:
        """The offer in a request, if policy wants it."""
        offer = Offer(
            _text(fields, "name"),
            _bytes(fields, "digest"),
            _number(fields, "size"),
            _text(fields, "abi"),
            _bytes(fields, "signature"),
            _bytes(fields, "key_id"),
        )
        self._policy.judge(offer, peer_authenticated=fields.get("peer_authenticated") is True)
        return offer

    def _live(self) -> dict[bytes, str]:
        """Our programs that are still registered."""
        known = set(_words(_AVAILABLE))
        self._programs = {digest: name for digest, name in self._programs.items() if name in known}
        return self._programs

    def _make_room(self) -> None:
        now = time.monotonic()
        rate = self._policy.max_loads_per_minute
        self._tokens = min(float(rate), self._tokens + (now - self._filled_at) * rate / 60)
        self._filled_at = now
        if self._tokens < 1:
            raise ProgramRefused(f"more than {rate} programs in a minute", stage="policy")
        self._tokens -= 1
        if len(self._live()) >= self._policy.max_live:
            raise ProgramRefused(f"{self._policy.max_live} programs are live already", stage="policy")
        if len(_words(_AVAILABLE)) >= MAX_ALGORITHMS:
            raise ProgramRefused("this machine has too many algorithms registered", stage="policy")

    def _check_and_load(self, image: bytes, timings: dict[str, float]) -> loader.Loaded:
        started = time.monotonic()
        try:
            found, _ = child.run(lambda: (_check(image), []), _confine_check, seconds=CHECK_SECONDS)
        except child.ChildDied as error:
            raise ProgramRefused(f"its check {error}", stage="static check") from None
        places = Places(*found["places"])
        checked_at = time.monotonic()
        timings["static check"] = 1000 * (checked_at - started)

        def step() -> child.Answer:
            loaded = loader.load(self._library, image, places, needs_ecn=found["needs_ecn"])
            return {"algorithm": loaded.algorithm, "timings": loaded.timings}, [loaded.link_fd]

        try:
            answer, links = child.run(step, _confine_load, seconds=LOAD_SECONDS)
        except child.ChildDied as error:
            raise ProgramRefused(f"loading {error}", stage="verifier") from None
        timings |= answer["timings"]
        timings["process"] = 1000 * (time.monotonic() - checked_at) - sum(answer["timings"].values())
        return loader.Loaded(answer["algorithm"], links[0], (), answer["timings"])

    def _give(self, sock: socket.socket, algorithm: str, timings: dict[str, float]) -> str:
        """Sets the algorithm, reads it back, and gives the one that the socket had before."""
        started = time.monotonic()
        former = tcp_algorithm(sock)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, algorithm.encode("ascii", "replace"))
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "?")
            raise ProgramRefused(f"the kernel does not give it to the socket ({name})", stage="attached") from None
        if tcp_algorithm(sock) != algorithm:
            raise ProgramRefused("the kernel reports another algorithm", stage="attached")
        timings["attach"] = 1000 * (time.monotonic() - started)
        if not former.startswith(loader.PREFIX):
            self._formers.add(former)
        return former


def _parse(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise BadRequest("not a message") from None
    if not isinstance(fields, dict):
        raise BadRequest("not a message")
    return fields


def _text(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or len(value) > 256:
        raise BadRequest(f"no {key}")
    return value


def _bytes(fields: dict[str, Any], key: str) -> bytes:
    try:
        return bytes.fromhex(_text(fields, key))
    except ValueError:
        raise BadRequest(f"no {key}") from None


def _number(fields: dict[str, Any], key: str) -> int:
    value = fields.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRequest(f"no {key}")
    return value


def _words(path: Path) -> list[str]:
    try:
        return path.read_text("ascii", "replace").split()
    except OSError:
        return []


def _read_image(fd: int, size: int) -> bytes:
    """The content of a sealed memory file: it cannot change under us, and reading it cannot block."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        raise BadRequest("the image is no memory file") from None
    if seals & (fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK) != fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK:
        raise BadRequest("the image is not sealed")
    return os.pread(fd, size + 1, 0)


@contextlib.contextmanager
def _tcp_socket(fd: int) -> Iterator[socket.socket]:
    """The passed descriptor as a socket, if it is one connection of plain TCP."""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        raise BadRequest("the descriptor is no socket")
    sock = socket.socket(fileno=os.dup(fd))
    try:
        kind = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        protocol = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL)
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or (kind, protocol) != (
            socket.SOCK_STREAM,
            socket.IPPROTO_TCP,
        ):
            raise BadRequest("the socket is not TCP")
        # Connections accepted later would inherit the algorithm; a peer is given its own connection only.
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise BadRequest("the socket listens")
        yield sock
    finally:
        sock.close()


def _check(image: bytes) -> dict[str, Any]:
    facts = check_object(image)
    places = facts.places
    return {"places": [places.name, places.flags, places.arguments], "needs_ecn": facts.needs_ecn}


def _confine_check() -> None:
    privileges.keep_only(frozenset())
    privileges.limit(cpu_seconds=4, memory=2 << 30, files=64)
    privileges.confine_calls()


def _confine_load() -> None:
    privileges.keep_only(frozenset({privileges.BPF, privileges.PERFMON}))
    privileges.limit(cpu_seconds=8, memory=4 << 30, files=128)


def _missing() -> list[str]:
    return [name for number, name in privileges.CAPABILITY_NAMES.items() if number not in privileges.held()]


def _start(fields: dict[str, Any], descriptors: list[int]) -> Helper:
    """Takes the policy, drops privileges, opens the library. Raises what the client is to be told."""
    policy = ProgramPolicy.from_json(fields["policy"])
    uid = fields["uid"]
    if missing := _missing():
        raise KernelUnavailable(" and ".join(missing), "start as root, or with these capabilities")
    privileges.become(privileges.NOBODY if uid is None else uid, CAPABILITIES)
    if not bpf.KERNEL_BTF.exists():
        raise KernelUnavailable("BPF type information", "needs a kernel with CONFIG_DEBUG_INFO_BTF")
    if not bpf.kernel_has_links():
        raise KernelUnavailable("links for struct_ops", "needs Linux 6.4 or later")
    return Helper(policy, Libbpf(), audit=descriptors[0] if descriptors else None)


def _reply(channel: socket.socket, reply: Reply) -> None:
    answer, descriptors = reply
    socket.send_fds(channel, [json.dumps(answer).encode()], descriptors)


def serve(channel: socket.socket) -> None:
    """The helper's life: a first message with the policy, then requests until the network process is gone."""
    data, descriptors, _, _ = socket.recv_fds(channel, MAX_MESSAGE, MAX_DESCRIPTORS)
    if not data:
        return
    try:
        helper = _start(_parse(data), descriptors)
    except KernelUnavailable as error:
        _reply(channel, ({"feature": error.feature, "hint": error.hint}, []))
        return
    except (BadRequest, ConfigurationError, KeyError, ValueError, TypeError, OSError) as error:
        _reply(channel, ({"misuse": f"{type(error).__name__}: {error}"}, []))
        return
    gc.freeze()  # children are forked: what is here now stays shared with them
    _reply(channel, helper.answer(b'{"verb": "status"}', []))
    while True:
        data, descriptors, _, _ = socket.recv_fds(channel, MAX_MESSAGE, MAX_DESCRIPTORS)
        if not data:
            return
        reply = helper.answer(data, descriptors)
        try:
            _reply(channel, reply)
        finally:
            for fd in (*descriptors, *reply[1]):
                os.close(fd)
            child.reap()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tcpls.kernel.helper", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--fd", type=int, required=True, help="the Unix socket to the network process")
    fd = parser.parse_args(arguments).fd
    os.closerange(3, fd)
    os.closerange(fd + 1, 65536)
    channel = socket.socket(fileno=fd)
    with channel, contextlib.suppress(ConnectionError):
        serve(channel)
    return 0


if __name__ == "__main__":
    sys.exit(main())
