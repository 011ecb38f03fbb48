"""bpf(2), and libbpf through bcc's library. Only ctypes; libbpf is loaded by the privileged helper alone."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import platform
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tcpls.errors import KernelUnavailable

MAP_LOOKUP_ELEM, MAP_GET_NEXT_ID, MAP_GET_FD_BY_ID = 1, 12, 14
OBJ_GET_INFO_BY_FD, LINK_CREATE, LINK_GET_FD_BY_ID, LINK_GET_NEXT_ID = 15, 28, 30, 31
MAP_TYPE_STRUCT_OPS = 26
ATTACH_TYPE_STRUCT_OPS = 44
LINK_TYPE_STRUCT_OPS = 9
F_LINK = 1 << 13
KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")

_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361}
_libc = ctypes.CDLL(None, use_errno=True)


def bpf(command: int, attributes: bytes | ctypes.Array[ctypes.c_char], size: int = 0) -> int:
    """One bpf(2) call; the kernel may write into `attributes` if that is a buffer. Raises OSError."""
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise KernelUnavailable("bpf(2)", f"not supported on {platform.machine()}")
    buffer = ctypes.create_string_buffer(attributes, len(attributes)) if isinstance(attributes, bytes) else attributes
    result: int = _libc.syscall(number, ctypes.c_int(command), buffer, ctypes.c_uint(size or len(buffer)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def create_struct_ops_link(map_fd: int) -> int:
    """Registers a filled struct_ops map for as long as the descriptor that this returns, or a copy of it, is open."""
    return bpf(LINK_CREATE, struct.pack("<IIII", map_fd, 0, ATTACH_TYPE_STRUCT_OPS, 0))


def next_ids(command: int) -> Iterator[int]:
    """All ids of maps, programs or links on this machine (needs CAP_SYS_ADMIN)."""
    current = 0
    while True:
        buffer = ctypes.create_string_buffer(struct.pack("<III", current, 0, 0), 12)
        try:
            bpf(command, buffer)
        except FileNotFoundError:
            return
        current = struct.unpack_from("<I", buffer.raw, 4)[0]
        yield current


def object_info(fd: int, size: int = 96) -> bytes:
    """The kernel's description of a map, program or link."""
    info = ctypes.create_string_buffer(size)
    bpf(OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", fd, size, ctypes.addressof(info)))
    return info.raw


def lookup(map_fd: int, key: bytes, value_size: int) -> bytes:
    value = ctypes.create_string_buffer(value_size)
    held = ctypes.create_string_buffer(key, len(key))
    attributes = struct.pack("<IIQQQ", map_fd, 0, ctypes.addressof(held), ctypes.addressof(value), 0)
    bpf(MAP_LOOKUP_ELEM, attributes)
    return value.raw


@functools.cache
def kernel_has_links() -> bool:
    """Does this kernel know links for struct_ops (Linux 6.4)? Its own type information names the flag."""
    try:
        return b"\0BPF_F_LINK\0" in KERNEL_BTF.read_bytes()
    except OSError:
        return False


class _OpenOptions(ctypes.Structure):
    """struct bpf_object_open_opts up to the fields that libbpf 1.0 and later know."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("object_name", ctypes.c_char_p),
        ("relaxed_maps", ctypes.c_bool),
        ("pin_root_path", ctypes.c_char_p),
        ("reserved", ctypes.c_uint32),
        ("kconfig", ctypes.c_char_p),
        ("btf_custom_path", ctypes.c_char_p),
        ("kernel_log_buf", ctypes.c_void_p),
        ("kernel_log_size", ctypes.c_size_t),
        ("kernel_log_level", ctypes.c_uint32),
    )


_POINTER = ctypes.c_void_p
_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, _POINTER)
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "libbpf_version_string": (ctypes.c_char_p,),
    "libbpf_set_print": (_POINTER, _PRINT),
    "bpf_object__open_mem": (_POINTER, ctypes.c_char_p, ctypes.c_size_t, _POINTER),
    "bpf_object__load": (ctypes.c_int, _POINTER),
    "bpf_object__next_map": (_POINTER, _POINTER, _POINTER),
    "bpf_object__next_program": (_POINTER, _POINTER, _POINTER),
    "bpf_map__type": (ctypes.c_int, _POINTER),
    "bpf_map__fd": (ctypes.c_int, _POINTER),
    "bpf_map__set_map_flags": (ctypes.c_int, _POINTER, ctypes.c_uint32),
    "bpf_map__attach_struct_ops": (_POINTER, _POINTER),
    "bpf_link__fd": (ctypes.c_int, _POINTER),
    "bpf_program__name": (ctypes.c_char_p, _POINTER),
    "bpf_program__set_log_level": (ctypes.c_int, _POINTER, ctypes.c_uint32),
    "bpf_program__set_log_buf": (ctypes.c_int, _POINTER, _POINTER, ctypes.c_size_t),
    "btf__load_vmlinux_btf": (_POINTER,),
    "btf__find_by_name_kind": (ctypes.c_int, _POINTER, ctypes.c_char_p, ctypes.c_uint32),
    "btf__type_by_id": (_POINTER, _POINTER, ctypes.c_uint32),
    "btf__name_by_offset": (ctypes.c_char_p, _POINTER, ctypes.c_uint32),
}
_DEBIAN_BCC = Path("/usr/lib/python3/dist-packages/bcc/__init__.py")


def _through_bcc_package() -> ctypes.CDLL | None:
    """bcc's own handle: the package if it can be imported, or else Debian's by its file.

    Loading by file keeps every other package of Debian's Python out of this process.
    """
    if importlib.util.find_spec("bcc") is not None:
        spec = importlib.util.find_spec("bcc")
    elif _DEBIAN_BCC.exists():
        places = [str(_DEBIAN_BCC.parent)]
        spec = importlib.util.spec_from_file_location("bcc", _DEBIAN_BCC, submodule_search_locations=places)
    else:
        return None
    if spec is None or spec.loader is None:
        return None
    package = importlib.util.module_from_spec(spec)
    sys.modules["bcc"] = package
    try:
        spec.loader.exec_module(package)
        handle = importlib.import_module("bcc.libbcc").lib
    except Exception:  # a bcc of another Python, or half installed: the library itself may still be there
        sys.modules.pop("bcc", None)
        return None
    return handle if isinstance(handle, ctypes.CDLL) else None


def _open_library() -> ctypes.CDLL:
    """The first handle that knows libbpf: bcc's package, bcc's library (it is linked to libbpf), libbpf itself."""
    handle = _through_bcc_package()
    if handle is not None and hasattr(handle, "bpf_object__open_mem"):
        return handle
    for name in ("libbcc.so.0", "libbpf.so.1"):
        try:
            handle = ctypes.CDLL(name, use_errno=True)
        except OSError:
            continue
        if hasattr(handle, "bpf_object__open_mem"):
            return handle
    raise KernelUnavailable("bcc's library", "install it: apt-get install python3-bpfcc")


class Libbpf:
    """libbpf with typed functions, and its messages kept in `messages` instead of written to stderr."""

    def __init__(self) -> None:
        self._handle = _open_library()
        for name, (result, *arguments) in _SIGNATURES.items():
            try:
                function = getattr(self._handle, name)
            except AttributeError:
                raise KernelUnavailable("libbpf 1.0 or later", f"this one has no {name}") from None
            function.restype = result
            function.argtypes = arguments
        self.messages: list[str] = []
        self._format = _libc.vsnprintf
        self._format.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, _POINTER]
        self._callback = _PRINT(self._keep)
        self.call.libbpf_set_print(self._callback)

    @property
    def call(self) -> Any:
        """The functions, by their own names."""
        return self._handle

    @property
    def version(self) -> str:
        version: bytes = self.call.libbpf_version_string()
        return version.decode("ascii", "replace")

    def _keep(self, level: int, pattern: bytes, arguments: int) -> int:
        if level == 0 and len(self.messages) < 100:
            buffer = ctypes.create_string_buffer(2048)
            self._format(buffer, len(buffer), pattern, arguments)
            self.messages.append(buffer.value.decode("utf-8", "replace").strip())
        return 0

    def open(self, image: bytes) -> int:
        """An object from memory. Raises OSError."""
        options = _OpenOptions(size=ctypes.sizeof(_OpenOptions))
        ctypes.set_errno(0)
        handle: int | None = self.call.bpf_object__open_mem(image, len(image), ctypes.addressof(options))
        if not handle:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return handle

    def maps(self, handle: int) -> Iterator[int]:
        entry = self.call.bpf_object__next_map(handle, None)
        while entry:
            yield entry
            entry = self.call.bpf_object__next_map(handle, entry)

    def programs(self, handle: int) -> Iterator[int]:
        entry = self.call.bpf_object__next_program(handle, None)
        while entry:
            yield entry
            entry = self.call.bpf_object__next_program(handle, entry)

    def cong_control_arguments(self) -> int:
        """How many arguments this kernel passes to cong_control: 2, or 4 from Linux 6.10 on."""
        types = self.call.btf__load_vmlinux_btf()
        if not types:
            raise KernelUnavailable("the kernel's type information", "needs a kernel with CONFIG_DEBUG_INFO_BTF")

        def entry(number: int) -> tuple[int, int, int, int]:
            place = self.call.btf__type_by_id(types, number)
            name, info, size = struct.unpack("<III", ctypes.string_at(place, 12))
            return name, info, size, place

        number = self.call.btf__find_by_name_kind(types, b"tcp_congestion_ops", 4)
        if number <= 0:
            raise KernelUnavailable("tcp_congestion_ops", "this kernel does not describe its congestion controllers")
        _, info, _, place = entry(number)
        for index in range(info & 0xFFFF):
            name, type_id, _ = struct.unpack("<III", ctypes.string_at(place + 12 + 12 * index, 12))
            if self.call.btf__name_by_offset(types, name) == b"cong_control":
                pointer = entry(type_id)
                return entry(pointer[2])[1] & 0xFFFF
        raise KernelUnavailable("cong_control", "this kernel has no such member")
