"""What this machine, its kernel and this process's privileges can do, each found out by trying, not by a version."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import re
import shutil
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tcpls.errors import KernelUnavailable
from tcpls.kernel import bpf, ktls, privileges
from tcpls.tls.suites import CipherSuite

BPF_MAP_CREATE = 0
SYS_ADMIN = 21
IPPROTO_MPTCP = 262
CLONE_NEWNET = 0x40000000
ENOTSUPP = 524
"""Linux's own error, outside of POSIX: "this is understood, and there is no such thing"."""

IPV4_SYSCTL = Path("/proc/sys/net/ipv4")


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing found out: whether it is there, what was seen, and what to do when it is not."""

    group: str
    name: str
    ok: bool
    fact: str
    fix: str = ""


def _first_line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _kernel() -> Fact:
    system = os.uname()
    return Fact("kernel", "version", system.sysname == "Linux", f"{system.sysname} {system.release}", "needs Linux")


def _user_mode_linux() -> Fact:
    path = shutil.which("linux.uml")
    return Fact(
        "kernel",
        "user-mode Linux",
        path is not None,
        path or "not installed",
        "only for tests in a second kernel: apt-get install user-mode-linux, or let scripts/kernel-vm do it",
    )


def _btf() -> Fact:
    name = "type information (BTF)"
    try:
        data = bpf.KERNEL_BTF.read_bytes()
    except OSError as error:
        fix = "needs a kernel with CONFIG_DEBUG_INFO_BTF"
        return Fact("congestion control by BPF", name, False, f"{bpf.KERNEL_BTF}: {error.strerror}", fix)
    known = b"\0tcp_congestion_ops\0" in data
    seen = f"{len(data)} bytes, tcp_congestion_ops {'is known' if known else 'is not in it'}"
    return Fact("congestion control by BPF", name, known, seen, "needs a kernel with CONFIG_BPF_JIT and TCP")


def struct_ops_answer() -> str:
    """Asks the kernel for a struct_ops map with a link, of a type that does not exist; "" when only the type was wrong.

    The order of the kernel's checks makes the answer exact: an unknown map type or flag is EINVAL, a missing privilege
    EPERM, and only a kernel and a process that could do it get as far as the type, ENOTSUPP.
    """
    attributes = struct.pack("=IIIII", bpf.MAP_TYPE_STRUCT_OPS, 4, 8, 1, bpf.F_LINK)
    # inner_map_fd, numa_node, map_name, map_ifindex, btf_fd and two types of it; the kernel's type 1 is no struct_ops.
    attributes += struct.pack("=II16sIIIII", 0, 0, b"tcpls_probe", 0, 0, 0, 0, 1)
    try:
        os.close(bpf.bpf(BPF_MAP_CREATE, attributes))
    except KernelUnavailable as unavailable:
        return unavailable.hint
    except OSError as error:
        if error.errno in (ENOTSUPP, errno.EOPNOTSUPP):
            return ""
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return ""


_STRUCT_OPS_FIX = {
    "EPERM": "needs the capabilities BPF, PERFMON and NET_ADMIN, and a seccomp filter that lets bpf(2) through",
    "EACCES": "a security module refuses bpf(2) to this process",
    "ENOSYS": "a seccomp filter hides bpf(2), or the kernel has none (CONFIG_BPF_SYSCALL)",
    "EINVAL": "needs Linux 6.4 or newer with CONFIG_BPF_JIT",
}


def _struct_ops() -> Fact:
    answer = struct_ops_answer()
    return Fact(
        "congestion control by BPF",
        "struct_ops with links",
        not answer,
        "the kernel accepts it from this process" if not answer else f"bpf(2) answers {answer}",
        _STRUCT_OPS_FIX.get(answer, answer),
    )


def _capabilities() -> list[Fact]:
    held = privileges.held()
    facts = []
    for bit, name in privileges.CAPABILITY_NAMES.items():
        # CAP_SYS_ADMIN stands in for the two that were split off from it.
        ok = bit in held or (bit != privileges.NET_ADMIN and SYS_ADMIN in held)
        purpose = "to select a program" if bit == privileges.NET_ADMIN else "to load a program"
        fix = f"start as root, or give it: {name} (in a container: --cap-add {name.removeprefix('CAP_')})"
        fact = f"held ({purpose})" if ok else f"not held ({purpose})"
        facts.append(Fact("congestion control by BPF", name, ok, fact, fix))
    return facts


def _library() -> Fact:
    found = ctypes.util.find_library("bcc") or ctypes.util.find_library("bpf")
    return Fact(
        "congestion control by BPF",
        "bcc's library",
        found is not None,
        found or "not found",
        "apt-get install python3-bpfcc",
    )


def _controllers() -> Fact:
    available = _first_line(IPV4_SYSCTL / "tcp_available_congestion_control")
    allowed = _first_line(IPV4_SYSCTL / "tcp_allowed_congestion_control")
    current = _first_line(IPV4_SYSCTL / "tcp_congestion_control")
    fact = f"{available or 'none'} (default {current}; without privilege: {allowed})"
    return Fact("TCP", "congestion controllers", bool(available), fact, "needs /proc/sys/net")


def _multipath() -> Fact:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
    except OSError as error:
        fix = "only for comparison, TCPLS does not use it: Linux 5.6 with CONFIG_MPTCP, sysctl net.mptcp.enabled=1"
        return Fact("TCP", "Multipath TCP", False, str(error.strerror), fix)
    return Fact("TCP", "Multipath TCP", True, "the kernel has it (TCPLS does not use it)")


def _in_child(action: Callable[[], int]) -> int:
    """What `action` returns (0 to 255) in a process of its own."""
    child = os.fork()
    if not child:
        status = 255
        try:
            status = action()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _unshare_network() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.unshare(CLONE_NEWNET) else 0


def _namespaces() -> Fact:
    code = _in_child(_unshare_network)
    fix = "only for the laboratory and its tests: start as root, in a container with --privileged"
    fact = "this process may make them" if not code else os.strerror(code)
    return Fact("TCP", "network namespaces", not code, fact, fix)


def _kernel_tls() -> list[Fact]:
    support = ktls.probe()
    group = "kernel TLS"
    if not support.transmit and not support.receive:
        return [Fact(group, "every suite", False, "not in the kernel", support.reason)]
    facts = []
    for suite in CipherSuite:
        able = (("sending", support.transmit), ("receiving", support.receive))
        ways = [way for way, suites in able if suite in suites]
        facts.append(Fact(group, suite.label, bool(ways), " and ".join(ways) or "not in the kernel", support.reason))
    changes = "keys can be changed" if support.rekey else "keys cannot be changed on a running connection"
    facts.append(Fact(group, "key update", support.rekey, changes, ktls.REKEY_HINT))
    acceleration = ktls.check_accelerated()
    fix = "without it kernel TLS is slower than user space: load the processor's module (x86: modprobe aesni_intel)"
    driver = acceleration.driver or "the kernel has set up no AES-GCM"
    facts.append(Fact(group, "accelerated AES-GCM", acceleration.accelerated, driver, fix))
    return facts


_OPTIONAL = re.compile(r"""([A-Za-z0-9_.-]+).*\bextra == ["']([^"']+)["']""")


def _packages() -> list[Fact]:
    """The extras that this package's own metadata names, but for those of its developers."""
    group = "optional packages"
    try:
        wanted = metadata.requires("tcpls") or []
    except metadata.PackageNotFoundError:
        return [
            Fact(group, "tcpls", False, "runs from a folder", "install it to have its extras looked up: pip install .")
        ]
    facts = []
    for match in filter(None, map(_OPTIONAL.match, wanted)):
        name, extra = match.groups()
        if extra == "dev":
            continue
        try:
            facts.append(Fact(group, name, True, metadata.version(name)))
        except metadata.PackageNotFoundError:
            facts.append(Fact(group, name, False, "not installed", f"pip install 'tcpls[{extra}]'"))
    return facts


def examine() -> list[Fact]:
    """Everything, in the order in which it is best read. Opens sockets on the loopback only and changes nothing."""
    return [
        _kernel(),
        _user_mode_linux(),
        _btf(),
        _struct_ops(),
        *_capabilities(),
        _library(),
        *_kernel_tls(),
        _controllers(),
        _multipath(),
        _namespaces(),
        *_packages(),
    ]
