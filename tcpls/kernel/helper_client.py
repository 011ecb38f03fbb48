"""The network process's side of the privileged helper. Only the standard library: no bcc, no libbpf, no privilege."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from tcpls.errors import ApiMisuse, KernelUnavailable, ProgramRefused
from tcpls.kernel.program import Offer, ProgramPolicy

START_SECONDS = 20.0
REQUEST_SECONDS = 20.0
_MAX_REPLY = 64 * 1024
# As `python -m tcpls.kernel.helper`, but without the package's public names, which would bring asyncio and the whole
# protocol into the privileged process, and isolated from PYTHON* variables and the working directory.
_BOOTSTRAP = """
import sys, types
package = sys.modules["tcpls"] = types.ModuleType("tcpls")
package.__path__ = [sys.argv.pop(1)]
from tcpls.kernel.helper import main
sys.exit(main(sys.argv[1:]))
"""


@dataclass(eq=False)
class Attachment:
    """A program in use by one connection. The algorithm stays registered until every attachment to it is closed.

    `former` is the algorithm that the socket had before. `timings` has the milliseconds of each step. Closing does not
    change the socket: give it `former` first, or close it.
    """

    algorithm: str
    digest: bytes
    former: str
    link_fd: int
    timings: dict[str, float] = field(repr=False)
    _client: HelperClient = field(repr=False)

    @property
    def closed(self) -> bool:
        return self.link_fd < 0

    def close(self) -> None:
        """Gives up this share of the algorithm. Can be called twice."""
        self._client._forget(self)

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class HelperClient:
    """Starts the helper and asks it. Methods block (a load takes tens of milliseconds) and may be called by any thread.

    A helper that died is reported by `KernelUnavailable`; connections and attachments are not affected by it.
    """

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self._process = process
        self._channel = channel
        self._lock = threading.Lock()
        self._attachments: dict[bytes, list[Attachment]] = {}
        self._dead = False

    @classmethod
    def spawn(cls, policy: ProgramPolicy, *, uid: int | None = None, audit: int | None = None) -> HelperClient:
        """Starts the helper with `policy`. To be called while this process still has the helper's privileges.

        The helper runs as user `uid`, or as nobody. `audit` is a descriptor to which it writes a line of JSON for each
        decision. Raises `KernelUnavailable` naming the capability, library or kernel feature that is missing.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        package = str(Path(__file__).parents[1])
        command = [sys.executable, "-I", "-c", _BOOTSTRAP, package, "--fd", str(theirs.fileno())]
        with theirs:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                cwd="/",
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
                start_new_session=True,
            )
        client = cls(process, ours)
        first = {"policy": policy.to_json(), "uid": uid}
        try:
            client._ask(first, [] if audit is None else [audit], seconds=START_SECONDS)
        except BaseException:
            client.close()
            raise
        return client

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._dead and self._process.poll() is None

    def load(self, offer: Offer, image: bytes, sock_fd: int, *, peer_authenticated: bool = False) -> Attachment:
        """Checks, loads and attaches a program to one TCP socket; a program that is loaded already is shared.

        Raises `ProgramRefused` (with the stage at which it stopped) and `KernelUnavailable`.
        """
        request = {
            "verb": "load",
            "name": offer.name,
            "digest": offer.digest.hex(),
            "size": offer.size,
            "abi": offer.abi,
            "signature": offer.signature.hex(),
            "key_id": offer.key_id.hex(),
            "peer_authenticated": peer_authenticated,
        }
        with self._lock:
            if self._attachments.get(offer.digest):
                with contextlib.suppress(ProgramRefused):
                    return self._share(offer.digest, {**request, "verb": "attach"}, sock_fd)
            memory = _memory_file(image)
            try:
                answer, links = self._exchange(request, [memory, sock_fd], REQUEST_SECONDS)
            finally:
                os.close(memory)
            return self._keep(offer.digest, answer, links[0])

    def attach(self, digest: bytes, sock_fd: int) -> Attachment:
        """Attaches a program that is loaded already, and was accepted then, to another TCP socket of the session."""
        with self._lock:
            if not self._attachments.get(digest):
                raise ApiMisuse("the program is not loaded")
            return self._share(digest, {"verb": "attach", "digest": digest.hex()}, sock_fd)

    def set_algorithm(self, sock_fd: int, name: str) -> None:
        """Gives a socket one of the kernel's algorithms: directly where the kernel lets us, else through the helper."""
        with socket.socket(fileno=os.dup(sock_fd)) as sock:
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode("ascii", "replace"))
                return
            except PermissionError:
                pass
            except OSError as error:
                raise ProgramRefused(f"{name}: {error.strerror}", stage="attached") from None
        self._ask({"verb": "set", "algorithm": name}, [sock_fd])

    def status(self) -> dict[str, Any]:
        """What the helper is (`pid`, `uid`, `libbpf`) and which programs are `live`."""
        return self._ask({"verb": "status"}, [])[0]

    def close(self) -> None:
        """Ends the helper. Attachments stay until they are closed themselves. Can be called twice."""
        self._dead = True
        self._channel.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                self._process.kill()
                self._process.wait(2)

    def __enter__(self) -> HelperClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _share(self, digest: bytes, request: dict[str, Any], sock_fd: int) -> Attachment:
        answer, _ = self._exchange(request, [sock_fd], REQUEST_SECONDS)
        return self._keep(digest, answer, os.dup(self._attachments[digest][0].link_fd))

    def _keep(self, digest: bytes, answer: dict[str, Any], link_fd: int) -> Attachment:
        attachment = Attachment(answer["algorithm"], digest, answer["former"], link_fd, answer["timings"], self)
        self._attachments.setdefault(digest, []).append(attachment)
        return attachment

    def _forget(self, attachment: Attachment) -> None:
        with self._lock:
            if attachment.closed:
                return
            os.close(attachment.link_fd)
            attachment.link_fd = -1
            kept = self._attachments[attachment.digest]
            kept.remove(attachment)
            if not kept:
                del self._attachments[attachment.digest]

    def _ask(
        self, request: dict[str, Any], descriptors: list[int], *, seconds: float = REQUEST_SECONDS
    ) -> tuple[dict[str, Any], list[int]]:
        with self._lock:
            return self._exchange(request, descriptors, seconds)

    def _exchange(
        self, request: dict[str, Any], descriptors: list[int], seconds: float
    ) -> tuple[dict[str, Any], list[int]]:
        """One request and its reply. The caller holds the lock."""
        if self._dead:
            raise _gone()
        try:
            self._channel.settimeout(seconds)
            socket.send_fds(self._channel, [json.dumps(request).encode()], descriptors)
            data, links, _, _ = socket.recv_fds(self._channel, _MAX_REPLY, 1)
        except OSError:
            data, links = b"", []
        if not data:
            # After a time-out the next reply would be the wrong one: this channel is over.
            self._dead = True
            self._channel.close()
            raise _gone()
        for link in links:
            fcntl.fcntl(link, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        return _judge(json.loads(data)), links


def _gone() -> KernelUnavailable:
    return KernelUnavailable("the privileged helper", "it has ended; start the program again to attach controllers")


def _judge(answer: dict[str, Any]) -> dict[str, Any]:
    if "refused" in answer:
        raise ProgramRefused(answer["refused"], stage=answer["stage"], log=answer["log"])
    if "feature" in answer:
        raise KernelUnavailable(answer["feature"], answer["hint"])
    if "misuse" in answer:
        raise ApiMisuse(answer["misuse"])
    return answer


def _memory_file(image: bytes) -> int:
    """The image as a sealed memory file, so that the helper reads the very bytes that it judges."""
    fd = os.memfd_create("tcpls-program", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(image)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd
