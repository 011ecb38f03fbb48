"""Giving up privileges: capabilities, user, resource limits, system calls. Linux only, through libc."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct

NET_ADMIN = 12
PERFMON = 38
BPF = 39
CAPABILITY_NAMES = {NET_ADMIN: "CAP_NET_ADMIN", PERFMON: "CAP_PERFMON", BPF: "CAP_BPF"}
NOBODY = 65534

_LAST_CAPABILITY = 63
_VERSION_3 = 0x20080522
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_SET_SECCOMP = 1, 4, 8, 22
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 24, 38, 47, 4

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


def _last_error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))


def _prctl(option: int, first: int = 0, second: int = 0) -> None:
    if _libc.prctl(option, first, second, 0, 0) < 0:
        raise _last_error()


def _capabilities() -> tuple[frozenset[int], frozenset[int]]:
    """The capabilities of this process: in effect, and permitted."""
    header = ctypes.create_string_buffer(struct.pack("<Ii", _VERSION_3, 0), 8)
    data = ctypes.create_string_buffer(24)
    if _libc.capget(header, data) < 0:
        raise _last_error()
    words = struct.unpack("<6I", data.raw)
    sets = (words[0] | words[3] << 32, words[1] | words[4] << 32)
    effective, permitted = (frozenset(bit for bit in range(64) if bits >> bit & 1) for bits in sets)
    return effective, permitted


def held() -> frozenset[int]:
    """The capabilities in effect for this process."""
    return _capabilities()[0]


def keep_only(wanted: frozenset[int]) -> None:
    """Gives up every capability but `wanted`, the inheritable, ambient and (if allowed) bounding ones too."""
    _empty_bounding_set()
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    bits = sum(1 << capability for capability in wanted & _capabilities()[1])
    low, high = bits & 0xFFFFFFFF, bits >> 32
    header = ctypes.create_string_buffer(struct.pack("<Ii", _VERSION_3, 0), 8)
    data = ctypes.create_string_buffer(struct.pack("<6I", low, low, 0, high, high, 0), 24)
    if _libc.capset(header, data) < 0:
        raise _last_error()


def _empty_bounding_set() -> None:
    """Stops at the first refusal: that is behind the last capability, or this process may not (lacks CAP_SETPCAP)."""
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except OSError:
            return


def become(uid: int, wanted: frozenset[int], *, gid: int | None = None) -> None:
    """Turns this process into user `uid` with only the capabilities `wanted`, for good. Its group: the same number."""
    if os.getuid() != uid and os.geteuid() == 0:
        # Changing the user would clear the permitted set too, and then nothing is left to empty the bounding set with.
        _prctl(_PR_SET_KEEPCAPS, 1)
        _empty_bounding_set()
        os.setgroups([])
        group = uid if gid is None else gid
        os.setresgid(group, group, group)
        os.setresuid(uid, uid, uid)
    keep_only(wanted)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)


def die_with_parent() -> None:
    """A child of the helper is of no use without it. (Not relied upon: what it holds is gone with it in any case.)"""
    _prctl(_PR_SET_PDEATHSIG, 9)


def limit(*, cpu_seconds: int, memory: int, files: int) -> None:
    """Bounds what this process may use. Limits that are lower already stay."""
    for kind, wanted in (
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (value, value))


# What Python needs to compute on memory and answer over a descriptor that is open already.
# By architecture, as the audit subsystem numbers it; the second table is the generic one.
# read write close fstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn sched_yield mremap
# madvise getpid sendto sendmsg exit gettimeofday futex clock_gettime exit_group getrandom
_CALLS = {
    "x86_64": (0xC000003E, "0 1 3 5 7 8 9 10 11 12 13 14 15 24 25 28 39 44 46 60 96 202 228 231 318"),
    "aarch64": (
        0xC00000B7,
        "63 64 57 80 73 62 222 226 215 214 134 135 139 124 216 233 172 206 211 93 169 98 113 94 278",
    ),
}
_ALLOW, _KILL = 0x7FFF0000, 0x80000000


def confine_calls() -> None:
    """From here on any other system call than those listed kills the process. Nothing on machines without a list."""
    if platform.machine() not in _CALLS:
        return
    architecture, calls = _CALLS[platform.machine()]
    load, equal, answer = 0x20, 0x15, 0x06
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), (answer, 0, 0, _KILL), (load, 0, 0, 0)]
    for call in map(int, calls.split()):
        program += [(equal, 0, 1, call), (answer, 0, 0, _ALLOW)]
    program.append((answer, 0, 0, _KILL))
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in program))
    filter_ = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_SECCOMP, 2, ctypes.addressof(filter_))
