"""The commands as users run them: real processes, real sockets on loopback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

TIMEOUT = 60.0


@dataclass(frozen=True)
class Pki:
    """A development authority with one certificate for localhost."""

    ca: Path
    certificate: Path
    key: Path


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    folder = tmp_path_factory.mktemp("pki")
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost", "127.0.0.1", "::1")
    made = Pki(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(str(made.ca))
    made.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(str(made.key))
    return made


@dataclass
class RunningServer:
    """A server process; `lines` is what it has said so far."""

    process: subprocess.Popen[str]
    port: int = 0
    lines: list[str] = field(default_factory=list)
    _said: threading.Condition = field(default_factory=threading.Condition)

    def follow(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._said:
                self.lines.append(line.rstrip("\n"))
                self._said.notify_all()
        with self._said:
            self.lines.append("(end)")
            self._said.notify_all()

    def wait_for(self, pattern: str, timeout: float = TIMEOUT) -> re.Match[str]:
        """Waits until a line matches; fails with everything said when none does."""

        def found() -> re.Match[str] | None:
            return next((match for line in self.lines if (match := re.search(pattern, line))), None)

        with self._said:
            self._said.wait_for(lambda: found() or "(end)" in self.lines, timeout)
            match = found()
        assert match, f"no line {pattern!r} in {self.lines}"
        return match

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT)


IMPATIENT = ("--reconnect-timeout", "1")
"""An end that loses its peer does not wait for it longer than a test has time."""

StartServer = Callable[..., RunningServer]


@pytest.fixture
def start_server(pki: Pki) -> Iterator[StartServer]:
    """`start_server("--root", folder)` starts a server on a free port of 127.0.0.1 and waits until it listens."""
    started: list[RunningServer] = []

    def start(
        *options: object, identity: Pki | None = None, certificate: bool = True, stdin: int = subprocess.DEVNULL
    ) -> RunningServer:
        files = identity or pki
        identified = ["-c", files.certificate, "-k", files.key] if certificate else []
        command = [sys.executable, "-m", "tcpls.server", *identified, *IMPATIENT, *options, "127.0.0.1:0"]
        process = subprocess.Popen(
            [str(word) for word in command], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        server = RunningServer(process)
        threading.Thread(target=server.follow, daemon=True).start()
        started.append(server)
        server.port = int(server.wait_for(r"^listening on 127\.0\.0\.1:(\d+)$")[1])
        return server

    yield start
    for server in started:
        server.stop()
        for pipe in (server.process.stdin, server.process.stdout):
            if pipe is not None:
                pipe.close()


@dataclass(frozen=True)
class Done:
    code: int
    out: bytes
    err: str


RunClient = Callable[..., Done]


@pytest.fixture
def run_client(pki: Pki, tmp_path: Path) -> RunClient:
    """`run_client(server, "get", "/1000")` runs the client to its end, in a folder of its own."""

    def run(
        server: RunningServer | int, *words: object, stdin: bytes = b"", ca: Path | None = None, name: str = "localhost"
    ) -> Done:
        port = server if isinstance(server, int) else server.port
        command = [
            sys.executable, "-m", "tcpls.client", "--ca-certs", ca or pki.ca, "--servername", name,
            *IMPATIENT, "127.0.0.1", port, *words,
        ]  # fmt: skip
        environment = {key: value for key, value in os.environ.items() if key != "SSLKEYLOGFILE"}
        done = subprocess.run(
            [str(word) for word in command],
            input=stdin,
            capture_output=True,
            timeout=TIMEOUT,
            cwd=tmp_path,
            env=environment,
        )
        return Done(done.returncode, done.stdout, done.stderr.decode())

    return run
