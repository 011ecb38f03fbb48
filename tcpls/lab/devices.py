"""TUN devices: the ends of emulated paths."""

from __future__ import annotations

import fcntl
import os
import struct

MTU = 1500
TUN_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_TUN_WITHOUT_HEADER = 0x1001
"""IFF_TUN | IFF_NO_PI"""


def open_tun(name: str) -> int:
    """Makes a TUN device in this process's namespace. It is gone when its descriptor is closed."""
    fd = os.open(TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TUN_WITHOUT_HEADER))
    return fd
