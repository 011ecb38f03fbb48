"""0-RTT through the commands, and from OpenSSL's client to the server command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.conftest import TIMEOUT, Done, Pki, RunClient, RunningServer, StartServer

MODES = [(), ("--plain",)]
ACCEPTED = "0-RTT: accepted"
NO_TICKET = "0-RTT: not offered, there is no ticket for this server"


def verdict(done: Done) -> str:
    assert done.code == 0, done.err
    return next(line for line in done.err.splitlines() if line.startswith("0-RTT"))


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    return tmp_path / "tickets"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("engine", ["openssl", "minicrypto"])
def test_input_goes_ahead_of_the_handshake(
    start_server: StartServer, run_client: RunClient, tickets: Path, mode: tuple[str, ...], engine: str
) -> None:
    server = start_server("--echo", "--zero-rtt", "--engine", engine)
    for says, words in ((NO_TICKET, b"hello"), (ACCEPTED, b"hello again"), (ACCEPTED, b"x" * 100_000), (ACCEPTED, b"")):
        done = run_client(server, *mode, "--engine", engine, "-e", "-s", tickets, stdin=words)
        assert verdict(done) == says
        assert done.out == words
    server.wait_for(f"session 4: {ACCEPTED}")


@pytest.mark.parametrize("mode", MODES)
def test_the_request_of_a_get_goes_ahead(
    start_server: StartServer, run_client: RunClient, tmp_path: Path, tickets: Path, mode: tuple[str, ...]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "some file").write_bytes(b"contents" * 1000)
    server = start_server("--root", root, "--zero-rtt=4096")
    for says in (NO_TICKET, ACCEPTED, ACCEPTED):
        assert verdict(run_client(server, *mode, "-e", "-s", tickets, "get", "some file")) == says
        assert (tmp_path / "some file").read_bytes() == b"contents" * 1000
    more = () if mode else ("get", "/5000")
    assert verdict(run_client(server, *mode, "-e", "-s", tickets, "get", "some file", *more)) == ACCEPTED


def test_a_server_without_it_is_told_once_the_handshake_is_complete(
    start_server: StartServer, run_client: RunClient, tmp_path: Path, tickets: Path
) -> None:
    keys, store = tmp_path / "keys", tmp_path / "store"
    first = start_server("--echo", "--ticket-keys", keys, "--zero-rtt", "--replay-store", store)
    assert run_client(first, "-s", tickets, stdin=b"hello").out == b"hello"
    first.stop()
    for options, says in (
        (("--zero-rtt", "--replay-store", store), ACCEPTED),
        ((), "0-RTT: rejected, the server did not take it"),
    ):
        server = start_server("--echo", "--ticket-keys", keys, *options)
        contents = json.loads(tickets.read_bytes())
        for entry in contents["tickets"]:
            entry["port"] = server.port
        tickets.write_text(json.dumps(contents))
        done = run_client(server, "-e", "-s", tickets, stdin=b"hello")
        assert (verdict(done), done.out) == (says, b"hello")


def test_a_put_is_not_sent_ahead(
    start_server: StartServer, run_client: RunClient, tmp_path: Path, tickets: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "file").write_bytes(b"contents")
    server = start_server("--root", root, "--allow-put", "--zero-rtt")
    for _ in range(2):
        done = run_client(server, "-e", "-s", tickets, "put", "file")
        assert verdict(done) == "0-RTT: not offered, a put is not to be done twice"
    assert (root / "file").read_bytes() == b"contents"


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--zero-rtt", "--ticket-keys", "KEYS"), 3, "needs a replay store"),
        (("--zero-rtt", "--no-tickets"), 3, "needs tickets"),
        (("--replay-store", "STORE"), 2, "needs --zero-rtt"),
        (("--zero-rtt=-1",), 2, "a number of bytes"),
        (("--zero-rtt", "--replay-store", "no/such/folder"), 3, "no/such/folder"),
    ],
)
def test_what_does_not_go_together(pki: Pki, tmp_path: Path, options: tuple[str, ...], code: int, says: str) -> None:
    identity = ["-c", pki.certificate, "-k", pki.key]
    command = [sys.executable, "-m", "tcpls.server", *identity, "--echo", *options, "127.0.0.1:0"]
    done = subprocess.run([str(word) for word in command], capture_output=True, timeout=TIMEOUT, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stderr.decode()


def test_a_client_without_a_file_of_tickets(run_client: RunClient) -> None:
    done = run_client(1, "-e", "get", "/1")
    assert done.code == 2
    assert "--session-ticket" in done.err


# OpenSSL's client, whose HTTP is what it is given.


def openssl(server: RunningServer, pki: Pki, folder: Path, early: bytes | None, stdin: bytes = b"") -> str:
    session, words = folder / "session", folder / "words"
    resume: list[str] = []
    if early is not None:
        words.write_bytes(early)
        resume = ["-sess_in", str(session), "-early_data", str(words)]
    done = subprocess.run(
        [
            "openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-servername", "localhost", "-CAfile",
            str(pki.ca), "-sess_out", str(session), "-ign_eof", *resume,
        ],
        input=stdin, capture_output=True, timeout=TIMEOUT,
    )  # fmt: skip
    return done.stdout.decode(errors="replace")


GET = b"GET /20 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
PUT = b"PUT /new HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 8\r\n\r\ncontents"


@pytest.mark.feature("0-RTT", peer="OpenSSL", role="server")
def test_requests_of_openssl(start_server: StartServer, pki: Pki, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    server = start_server("--root", root, "--allow-put", "--zero-rtt")
    assert "HTTP/1.1 200 OK" in openssl(server, pki, tmp_path, None, GET)
    said = openssl(server, pki, tmp_path, GET)
    assert "Early data was accepted" in said
    assert "HTTP/1.1 200 OK" in said
    server.wait_for(f"session 2: {ACCEPTED}")
    # Not done before it is certain that the client is there; then once.
    said = openssl(server, pki, tmp_path, PUT)
    assert "Early data was accepted" in said
    assert "HTTP/1.1 201 Created" in said
    assert (root / "new").read_bytes() == b"contents"
