"""The peers of Debian's libnss3-tools: selfserv and tstclnt, with a database of certificates that certutil makes."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tcpls.tls.ech.configs import write_configs
from tcpls.tls.ech.keys import EchFile
from tests.interop.conftest import Pki
from tests.interop.peer import Process, free_port, need, running
from tests.unit.tls.pair import NAME

NICKNAME = "both"


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def nss_database(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The authority, and the one identity that a server shows for both of its names: it cannot choose by name."""
    folder = tmp_path_factory.mktemp("nss")
    database, files, bag = f"sql:{folder}", pki.certificates[NICKNAME], folder / "both.p12"
    _run(need("certutil"), "-N", "-d", database, "--empty-password")
    _run(need("certutil"), "-A", "-d", database, "-n", "authority", "-t", "C,,", "-i", pki.authority)
    _run(
        need("openssl"), "pkcs12", "-export", "-in", files.certificate, "-inkey", files.key, "-name", NICKNAME,
        "-out", bag, "-passout", "pass:",
    )  # fmt: skip
    _run(need("pk12util"), "-d", database, "-i", bag, "-W", "")
    return database


def _element(tag: int, contents: bytes) -> bytes:
    return bytes((tag, len(contents))) + contents


def _parameters(file: EchFile) -> str:
    """What selfserv takes: PKCS #8 of the kind that NSS has, where X25519 is a curve like others, and the list."""
    assert file.private is not None
    curve = bytes.fromhex("06072a8648ce3d020106092b06010401da470f01")
    point = _element(0xA1, _element(0x03, b"\0" + file.configs[0].public_key))
    key = _element(0x30, b"\x02\x01\x01" + _element(0x04, file.private) + point)
    wrapped = _element(0x30, b"\x02\x01\x00" + _element(0x30, curve) + _element(0x04, key))
    contents = len(wrapped).to_bytes(2, "big") + wrapped + write_configs(file.configs)
    return base64.b64encode(contents).decode("ascii")


@contextmanager
def selfserv(database: str, file: EchFile | None, *arguments: str) -> Iterator[tuple[int, Process]]:
    port, ech = free_port(), () if file is None else ("-X", _parameters(file))
    with running(
        need("selfserv"), "-n", NICKNAME, "-p", str(port), "-d", database, "-V", "tls1.3:tls1.3", "-v", *ech, *arguments
    ) as process:
        process.wait_for("About to call accept")
        yield port, process


@contextmanager
def tstclnt(database: str, port: int, *arguments: str) -> Iterator[Process]:
    with running(
        need("tstclnt"), "-h", "127.0.0.1", "-a", NAME, "-p", str(port), "-d", database, "-V", "tls1.3:tls1.3",
        "-v", *arguments,
    ) as process:  # fmt: skip
        yield process
