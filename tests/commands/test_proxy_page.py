"""The commands of docs/proxy.md, run as they stand there: only the ports are others."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

PAGE = Path(__file__).resolve().parents[2] / "docs" / "proxy.md"
TIMEOUT = 60.0
PORTS = ("8000", "8080", "8443", "1080")


@dataclass(frozen=True)
class Line:
    """A command, and what it is said to say, whether it succeeds or fails."""

    command: str
    says: str
    fails: str

    @classmethod
    def of(cls, text: str) -> Line:
        command, _, remark = text.partition(" # ")
        kind, _, words = remark.strip().partition(": ")
        return cls(command.strip(), words if kind == "says" else "", words if kind == "fails" else "")

    @property
    def listens_on(self) -> str | None:
        """The port of a command that stays, as the page has it."""
        found = re.search(r"http\.server .* (\d+)$|--listen \S+:(\d+)|--socks (\d+)", self.command)
        return None if found is None or "curl" in self.command else found[1] or found[2] or found[3]


BLOCKS = [
    [Line.of(line) for line in code.splitlines()]
    for code in re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
]


def _free_ports() -> dict[str, str]:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in PORTS]
        return {name: str(each.getsockname()[1]) for name, each in zip(PORTS, listeners, strict=True)}


def _adapted(command: str, ports: dict[str, str]) -> str:
    command = re.sub(rf"\b({'|'.join(PORTS)})\b", lambda found: ports[found[1]], command)
    return re.sub(r"\btcpls proxy\b", f"{sys.executable} -m tcpls proxy", command)


def _wait_until_it_listens(port: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + TIMEOUT
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(port)), TIMEOUT):
            return
        time.sleep(0.05)
    pytest.fail(f"it does not listen: {log.read_text()}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the page asks for."""
    folder = tmp_path_factory.mktemp("page")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name, certificate, key in (
        ("localhost", "cert.pem", "key.pem"),
        ("client.example", "client.pem", "client.key"),
    ):
        leaf = authority.issue_cert(name)
        (folder / certificate).write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(str(folder / key))
    return folder


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_page(block: list[Line], made: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    environment.pop("SSLKEYLOGFILE", None)
    ports = _free_ports()
    log = made / "log"
    with contextlib.ExitStack() as stack:
        for line in block:
            words = _adapted(line.command, ports)
            if line.listens_on is not None:
                file = stack.enter_context(log.open("ab"))
                # As a shell does it that becomes its last command: what is stopped is the command itself.
                process = subprocess.Popen(
                    ["sh", "-c", f"exec {words}"], cwd=made, stderr=file, stdout=file, env=environment
                )
                stack.callback(process.wait, TIMEOUT)
                stack.callback(process.terminate)
                _wait_until_it_listens(ports[line.listens_on], process, log)
                continue
            done = subprocess.run(["sh", "-c", words], cwd=made, capture_output=True, timeout=TIMEOUT, env=environment)
            said = (done.stdout + done.stderr).decode()
            assert (done.returncode != 0) is bool(line.fails), said + log.read_text()
            assert (line.says or line.fails) in said


def test_there_is_something_to_run() -> None:
    assert len(BLOCKS) == 2
    assert all(any(line.says for line in block) for block in BLOCKS)
    assert any(line.fails for line in BLOCKS[0])


def test_the_table_of_codes_is_what_is_sent() -> None:
    from tcpls.proxy.message import Code

    rows = re.findall(r"^\| (\d+) \| [^|]+ \| \d \| \d{3} \|$", PAGE.read_text(), re.MULTILINE)
    assert sorted(map(int, rows)) == sorted(Code)
