"""The commands of docs/tls.md, run as they stand there: only the port is another."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tls.md"
TIMEOUT = 60.0


@dataclass(frozen=True)
class Line:
    """A command, and what it is said to say."""

    command: str
    says: str

    @property
    def is_server(self) -> bool:
        return self.command.startswith("tcpls server")


@dataclass(frozen=True)
class Block:
    title: str
    lines: tuple[Line, ...]


def _blocks() -> list[Block]:
    found, title = [], ""
    for heading, code in re.findall(r"^## ([^\n]*)$|^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        title = heading or title
        if code:
            lines = [line.partition(" # ")[::2] for line in code.splitlines()]
            found.append(Block(title, tuple(Line(c.strip(), s.partition("says: ")[2].strip()) for c, s in lines)))
    return found


BLOCKS = _blocks()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files that the page asks for, by name."""
    authority = trustme.CA()
    files = {"ca.pem": authority.cert_pem.bytes()}
    for name, certificate, key in (
        ("localhost", "cert.pem", "key.pem"),
        ("client.example", "client.pem", "client.key"),
        ("public.example", "public.pem", "public.key"),
    ):
        leaf = authority.issue_cert(name)
        files[certificate] = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        files[key] = leaf.private_key_pem.bytes()
    return files


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _words(command: str, port: int) -> list[str]:
    words = shlex.split(command.replace("8443", str(port)))
    return [sys.executable, "-m", *words] if words[0] == "tcpls" else words


def _wait_until_it_listens(port: int, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + TIMEOUT
    while time.monotonic() < until and server.poll() is None:
        # A connection that says nothing and goes is no session, and the server goes on.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), TIMEOUT):
            return
        time.sleep(0.05)
    pytest.fail("the server does not listen")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.title.replace(" ", "-"))
def test_the_page(block: Block, made: dict[str, bytes], tmp_path: Path) -> None:
    for name, contents in made.items():
        (tmp_path / name).write_bytes(contents)
        (tmp_path / name).chmod(0o600)
    (tmp_path / "www").mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "SSLKEYLOGFILE"}
    port, server = _free_port(), None
    try:
        for line in block.lines:
            words = _words(line.command, port)
            if line.is_server:
                assert server is None, "one server a block"
                with (tmp_path / "server.log").open("wb") as log:
                    server = subprocess.Popen(words, cwd=tmp_path, stderr=log, env=environment)
                _wait_until_it_listens(port, server)
                continue
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, timeout=TIMEOUT, env=environment)
            said = (done.stdout + done.stderr).decode()
            assert done.returncode == 0, said + (tmp_path / "server.log").read_text()
            assert line.says in said
    finally:
        if server is not None:
            server.terminate()
            server.wait(TIMEOUT)


def test_there_is_something_to_run() -> None:
    said = [line.says for block in BLOCKS for line in block.lines if line.says]
    assert len(BLOCKS) >= 8
    assert len(said) >= 8
