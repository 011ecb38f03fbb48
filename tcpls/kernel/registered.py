"""Which of our algorithms the kernel has registered now, read from the kernel itself with bpf(2). Needs root."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass

from tcpls.errors import KernelUnavailable
from tcpls.kernel import bpf

# In the value of a struct_ops map: a reference count, the state, then the kernel's own structure with the name in it.
_STATES = {0: "empty", 1: "in use", 2: "to be freed", 3: "ready"}
_OUR_NAME = re.compile(rb"(?<![\w.])(tcpls_[a-z2-7]{9})\0")


@dataclass(frozen=True, slots=True)
class Registered:
    """One of our algorithms. `links` are the ids of links that keep it; without one it lives by its sockets alone."""

    algorithm: str
    variable: str
    map_id: int
    state: str
    links: tuple[int, ...]


def registered() -> list[Registered]:
    """All algorithms with our prefix. Raises `KernelUnavailable` without CAP_SYS_ADMIN."""
    try:
        links = _links()
        maps = list(bpf.next_ids(bpf.MAP_GET_NEXT_ID))
    except PermissionError:
        raise KernelUnavailable("CAP_SYS_ADMIN", "listing the kernel's BPF objects needs root") from None
    found = []
    for map_id in maps:
        try:
            fd = bpf.bpf(bpf.MAP_GET_FD_BY_ID, struct.pack("<III", map_id, 0, 0))
        except FileNotFoundError:
            continue  # freed since it was listed
        try:
            entry = _read(fd, map_id, tuple(links.get(map_id, ())))
        finally:
            os.close(fd)
        if entry is not None:
            found.append(entry)
    return found


def _read(fd: int, map_id: int, links: tuple[int, ...]) -> Registered | None:
    kind, _, _, value_size = struct.unpack_from("<IIII", info := bpf.object_info(fd))
    if kind != bpf.MAP_TYPE_STRUCT_OPS:
        return None
    value = bpf.lookup(fd, bytes(4), value_size)
    name = _OUR_NAME.search(value)
    if name is None:
        return None
    state = _STATES.get(struct.unpack_from("<I", value, 4)[0], "unknown")
    variable = info[24:40].split(b"\0", 1)[0].decode("ascii", "replace")
    return Registered(name[1].decode("ascii"), variable, map_id, state, links)


def _links() -> dict[int, list[int]]:
    """The ids of struct_ops links by the map that they keep."""
    found: dict[int, list[int]] = {}
    for link_id in bpf.next_ids(bpf.LINK_GET_NEXT_ID):
        try:
            fd = bpf.bpf(bpf.LINK_GET_FD_BY_ID, struct.pack("<III", link_id, 0, 0))
        except FileNotFoundError:
            continue
        try:
            kind, _, _, _, map_id = struct.unpack_from("<IIIII", bpf.object_info(fd))
        finally:
            os.close(fd)
        if kind == bpf.LINK_TYPE_STRUCT_OPS:
            found.setdefault(map_id, []).append(link_id)
    return found
