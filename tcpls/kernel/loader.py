"""From a checked object to a registered algorithm. Runs in a child of the helper, one child per load.

The algorithm is registered through a link: it exists as long as some process holds the link's descriptor, so whoever
owns the connections holds it, and nothing is left behind however that process ends.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import mmap
import secrets
import time
from dataclasses import dataclass

from tcpls.errors import KernelUnavailable, ProgramRefused
from tcpls.kernel import bpf
from tcpls.kernel.bpf import Libbpf
from tcpls.kernel.elf_check import Places
from tcpls.kernel.verifier_types import Verified, check_log

PREFIX = "tcpls_"
STAGE = "verifier"
_LOG_SIZE = 8 << 20
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Loaded:
    """A registered algorithm. `link_fd` is the caller's."""

    algorithm: str
    link_fd: int
    verified: tuple[Verified, ...]
    timings: dict[str, float]


def new_name() -> str:
    """A name that nobody else has: the prefix and 45 random bits, 15 characters in all."""
    return PREFIX + base64.b32encode(secrets.token_bytes(6))[:9].decode("ascii").lower()


def prepare(image: bytes, places: Places, name: str, *, needs_ecn: bool, arguments: int) -> bytes:
    """The image with our name, our flags, and the kernel's number of arguments where the program asks for it."""
    ready = bytearray(image)
    patches = [(places.name, name.encode("ascii").ljust(16, b"\0"))]
    if places.flags:
        # Never more than this: one flag would put the algorithm on the list that everybody may use.
        patches.append((places.flags, (2 if needs_ecn else 0).to_bytes(4, "little")))
    if places.arguments:
        patches.append((places.arguments, arguments.to_bytes(4, "little")))
    for at, value in patches:
        if not 0 < at <= len(image) - len(value):
            raise ProgramRefused("the static check gave an impossible place", stage="static check")
        ready[at : at + len(value)] = value
    return bytes(ready)


def load(library: Libbpf, image: bytes, places: Places, *, needs_ecn: bool) -> Loaded:
    """Loads `image`, checks what the verifier saw, registers it. Raises `ProgramRefused` and `KernelUnavailable`."""
    if not bpf.kernel_has_links():
        raise KernelUnavailable("links for struct_ops", "needs Linux 6.4 or later with BTF")
    arguments = library.cong_control_arguments() if places.arguments else 0
    for _ in range(_ATTEMPTS):
        name = new_name()
        ready = prepare(image, places, name, needs_ecn=needs_ecn, arguments=arguments)
        started = time.monotonic()
        map_fd, map_handle, logs = _load(library, ready)
        verified_at = time.monotonic()
        verified = tuple(check_log(function, log) for function, log in logs)
        checked_at = time.monotonic()
        link_fd = _register(library, map_fd, map_handle)
        if link_fd is None:
            continue
        timings = {
            "load": 1000 * (verified_at - started),
            "types": 1000 * (checked_at - verified_at),
            "register": 1000 * (time.monotonic() - checked_at),
        }
        return Loaded(name, link_fd, verified, timings)
    raise ProgramRefused("found no free name for it", stage="attached")


class _Log:
    """Memory for one program's verifier log, which costs nothing until the kernel writes to it."""

    def __init__(self, function: str) -> None:
        self.function = function
        self._memory = mmap.mmap(-1, _LOG_SIZE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))

    def text(self) -> str:
        end = self._memory.find(b"\0")
        return self._memory[: end if end >= 0 else _LOG_SIZE].decode("ascii", "replace")


def _load(library: Libbpf, image: bytes) -> tuple[int, int, list[tuple[str, str]]]:
    """The descriptor and handle of the controller's map, and each program's verifier log."""
    call = library.call
    try:
        handle = library.open(image)
    except OSError as error:
        raise ProgramRefused(_explain("libbpf cannot read it", error.errno or 0, library), stage=STAGE) from None
    tables = [entry for entry in library.maps(handle) if call.bpf_map__type(entry) == bpf.MAP_TYPE_STRUCT_OPS]
    if len(tables) != 1:
        raise ProgramRefused("libbpf finds not exactly one controller", stage=STAGE)
    call.bpf_map__set_map_flags(tables[0], bpf.F_LINK)
    logs = []
    for entry in library.programs(handle):
        log = _Log(call.bpf_program__name(entry).decode("ascii", "replace"))
        call.bpf_program__set_log_buf(entry, log.address, _LOG_SIZE)
        call.bpf_program__set_log_level(entry, 2)
        logs.append(log)
    result: int = call.bpf_object__load(handle)
    if result:
        _refuse_load(-result, logs, library)
    return call.bpf_map__fd(tables[0]), tables[0], [(log.function, log.text()) for log in logs]


def _refuse_load(code: int, logs: list[_Log], library: Libbpf) -> None:
    if code == errno.ENOSPC:
        raise ProgramRefused("too complex: its verifier log has no end", stage=STAGE)
    if code == errno.EPERM:
        raise KernelUnavailable("CAP_BPF and CAP_PERFMON", "the kernel did not let this process load programs")
    lines = [line for log in logs if "\nprocessed" in log.text() for line in log.text().splitlines()[-12:]]
    raise ProgramRefused(_explain("the kernel does not accept it", code, library), stage=STAGE, log="\n".join(lines))


def _explain(what: str, code: int, library: Libbpf) -> str:
    name = errno.errorcode.get(code, str(code))
    detail = next((message for message in library.messages if "struct_ops" in message or "CO-RE" in message), "")
    return f"{what} ({name})" + (f": {detail[:200]}" if detail else "")


def _register(library: Libbpf, map_fd: int, map_handle: int) -> int | None:
    """Fills the map and links it. None: another algorithm has this name."""
    link = library.call.bpf_map__attach_struct_ops(map_handle)
    if not link:
        code = ctypes.get_errno()
        if code == errno.EEXIST:
            return None
        raise ProgramRefused(_explain("the kernel does not register it", code, library), stage="attached")
    # libbpf from 1.2 on makes the link itself; earlier it only fills the map and gives back the map.
    made: int = library.call.bpf_link__fd(link)
    if made != map_fd:
        return made
    try:
        return bpf.create_struct_ops_link(map_fd)
    except FileExistsError:
        return None
    except OSError as error:
        reason = _explain("the kernel does not register it", error.errno or 0, library)
        raise ProgramRefused(reason, stage="attached") from None
