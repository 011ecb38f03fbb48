"""Compiling a congestion controller with clang, the way `check_object` wants it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tcpls.errors import ConfigurationError, KernelUnavailable

SOURCE_SUFFIX = ".bpf.c"
_HINT = "needed to compile only: apt-get install clang llvm libbpf-dev"
# -g makes the type information that relocation to the running kernel needs; llvm-strip takes the rest of it away.
_FLAGS = ("-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror", "-Wno-unused-function")


def project_root() -> Path:
    """The source tree that this package is part of: it has the headers and the programs."""
    return Path(__file__).resolve().parents[2]


def find_sources(wanted: Sequence[str], programs: Path) -> list[Path]:
    """Source files for paths, or names of folders in `programs`; all programs when nothing is named."""
    if not wanted:
        found = sorted(programs.glob(f"*/*{SOURCE_SUFFIX}"))
        if not found:
            raise ConfigurationError(f"{programs}: no programs here; name a source file")
        return found
    return [_find_source(name, programs) for name in wanted]


def _find_source(name: str, programs: Path) -> Path:
    path = Path(name)
    if path.is_file():
        if not path.name.endswith(SOURCE_SUFFIX):
            raise ConfigurationError(f"{name}: the name of a program's source ends in {SOURCE_SUFFIX}")
        return path
    shipped = programs / name / f"{name}{SOURCE_SUFFIX}"
    if not shipped.is_file():
        raise ConfigurationError(f"{name}: neither a source file nor a program in {programs}")
    return shipped


def build(source: Path, folder: Path, *, include: Path) -> Path:
    """Compiles `source` to `folder`/NAME.bpf.o.

    Raises `KernelUnavailable` when a tool is missing, `ConfigurationError` with the compiler's words when it fails.
    """
    clang, strip = _tool("clang"), _tool("llvm-strip")
    target = folder / (source.name.removesuffix(SOURCE_SUFFIX) + ".bpf.o")
    fresh = target.with_name(target.name + ".new")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Paths of this machine do not belong into an object that is shipped, and would make builds differ.
        home, headers = source.resolve().parent, include.resolve()
        command = [clang, *_FLAGS, f"-ffile-prefix-map={home}/=", f"-ffile-prefix-map={headers}/="]
        command += ["-fdebug-compilation-dir=.", "-I", str(headers), "-c", str(home / source.name)]
        _run([*command, "-o", str(fresh.resolve())], cwd=home, what=str(source))
        _run([strip, "-g", str(fresh.resolve())], cwd=folder, what=str(source))
        fresh.replace(target)
    except OSError as error:
        raise ConfigurationError(f"{folder}: {error.strerror}") from None
    finally:
        fresh.unlink(missing_ok=True)
    return target


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise KernelUnavailable(name, _HINT)
    return path


def _run(command: list[str], *, cwd: Path, what: str) -> None:
    try:
        result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"{what}: {Path(command[0]).name} did not end within a minute") from None
    if result.returncode:
        raise ConfigurationError(f"{what}: does not compile\n{result.stderr.strip()}")
