"""`--engine minicrypto`: a command of that engine has no OpenSSL in its process, or says that it has.

CPython has an OpenSSL of its own, which asyncio, hashlib and hmac import where it is there, and do without where it is
not. So this comes ahead of every other import of a command, and imports next to nothing itself.
"""

import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

_OF_PYTHON = ("_ssl", "_hashlib")
"""What CPython has of OpenSSL."""

_LIBRARIES = ("libssl", "libcrypto", "_rust.abi3", *(f"{name}." for name in _OF_PYTHON))
"""How the names of the files begin; the third is that of `cryptography`, with an OpenSSL in it."""


def keep_out(words: Sequence[str]) -> None:
    """If a command's words ask for the other engine, nothing in this process can import CPython's OpenSSL."""
    if "--engine=minicrypto" in words or ("--engine", "minicrypto") in pairwise(words):
        for name in _OF_PYTHON:
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def mapped(maps: Iterable[str]) -> list[str]:
    """The files with OpenSSL in them, by the lines of /proc/PID/maps."""
    paths = {line.split(maxsplit=5)[-1].strip() for line in maps if "/" in line}
    return sorted(path for path in paths if path.rpartition("/")[2].startswith(_LIBRARIES))


def told() -> str:
    """What there is of OpenSSL in this process, as the kernel has it."""
    found = mapped(Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines())
    return f"OpenSSL is in this process all the same: {', '.join(found)}" if found else "no OpenSSL in this process"
