"""Session tickets through the commands: files, restarts, several clients and servers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.commands.conftest import Done, Pki, RunClient, StartServer

FULL = "TLS_AES_128_GCM_SHA256, X25519MLKEM768, ecdsa_secp256r1_sha256"
RESUMED = "TLS_AES_128_GCM_SHA256, X25519MLKEM768, resumed"


def first_line(done: Done) -> str:
    assert done.code == 0, done.err
    return done.err.splitlines()[0]


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    return tmp_path / "tickets"


@pytest.mark.parametrize("mode", [(), ("--plain",)])
def test_the_second_get_resumes(
    start_server: StartServer, run_client: RunClient, tmp_path: Path, tickets: Path, mode: tuple[str, ...]
) -> None:
    server = start_server("--root", tmp_path)
    assert FULL in first_line(run_client(server, *mode, "-s", tickets, "get", "/1000"))
    assert tickets.stat().st_mode & 0o777 == 0o600
    before = tickets.read_text()
    assert RESUMED in first_line(run_client(server, *mode, "-s", tickets, "get", "/1000"))
    server.wait_for(f"session 2: TLS 1.3, {RESUMED}")
    assert tickets.read_text() != before
    assert FULL in first_line(run_client(server, *mode, "get", "/1000")), "without -s, a session of its own"
    assert [path.name for path in tmp_path.iterdir()] == ["tickets"]


def test_an_echo_that_ends_by_the_clients_close_brings_its_tickets(
    start_server: StartServer, run_client: RunClient, tickets: Path
) -> None:
    server = start_server("--echo")
    for line in (FULL, RESUMED, RESUMED):
        done = run_client(server, "--plain", "-s", tickets, stdin=b"hello")
        assert done.out == b"hello"
        assert line in first_line(done)


def test_several_servers_share_a_file_of_tickets(
    start_server: StartServer, run_client: RunClient, tmp_path: Path, tickets: Path
) -> None:
    servers = [start_server("--root", tmp_path), start_server("--root", tmp_path)]
    for line in (FULL, RESUMED):
        for server in servers:
            assert line in first_line(run_client(server, "-s", tickets, "get", "/10"))
    kept = json.loads(tickets.read_bytes())["tickets"]
    assert {entry["port"] for entry in kept} == {server.port for server in servers}


def test_a_restarted_server_knows_its_tickets_by_its_key_file(
    start_server: StartServer, run_client: RunClient, tmp_path: Path, tickets: Path
) -> None:
    keys = tmp_path / "keys"
    first = start_server("--root", tmp_path, "--ticket-keys", keys)
    run_client(first, "-s", tickets, "get", "/10")
    first.stop()
    assert keys.stat().st_mode & 0o777 == 0o600

    def moved(port: int) -> None:
        contents = json.loads(tickets.read_bytes())
        for entry in contents["tickets"]:
            entry["port"] = port
        tickets.write_text(json.dumps(contents))

    second = start_server("--root", tmp_path, "--ticket-keys", keys)
    moved(second.port)
    assert RESUMED in first_line(run_client(second, "-s", tickets, "get", "/10"))
    second.stop()
    third = start_server("--root", tmp_path)
    moved(third.port)
    assert FULL in first_line(run_client(third, "-s", tickets, "get", "/10")), "it has not got the keys"


def test_a_server_without_tickets(start_server: StartServer, run_client: RunClient, tmp_path: Path) -> None:
    server = start_server("--root", tmp_path, "--no-tickets")
    for _ in range(2):
        assert FULL in first_line(run_client(server, "-s", tmp_path / "tickets", "get", "/10"))


def test_clients_at_the_same_time_share_a_file(
    start_server: StartServer, run_client: RunClient, tmp_path: Path, tickets: Path
) -> None:
    server = start_server("--root", tmp_path)
    run_client(server, "-s", tickets, "get", "/10")
    with ThreadPoolExecutor(4) as pool:
        rounds = [pool.submit(run_client, server, "-s", tickets, "get", "/10") for _ in range(12)]
        lines = [first_line(each.result()) for each in rounds]
    assert sum("resumed" in line for line in lines) >= 2, lines
    assert len(json.loads(tickets.read_bytes())["tickets"]) <= 4
    assert [path.name for path in tmp_path.iterdir()] == ["tickets"]
    assert RESUMED in first_line(run_client(server, "-s", tickets, "get", "/10"))


def test_a_ticket_is_used_once(
    start_server: StartServer, run_client: RunClient, tmp_path: Path, tickets: Path, pki: Pki
) -> None:
    """A client that is cut off has used up its ticket all the same: the file does not have it any more."""
    server = start_server("--root", tmp_path)
    run_client(server, "-s", tickets, "get", "/10")
    before = [entry["ticket"] for entry in json.loads(tickets.read_bytes())["tickets"]]
    server.stop()
    # Something listens where the server was, and takes the hello without a word.
    silent = subprocess.Popen(
        [sys.executable, "-c", f"import socket; s = socket.create_server(('127.0.0.1', {server.port})); "
         "print(flush=True); c = s.accept()[0]; print(c.recv(9999).hex()); c.close()"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert silent.stdout is not None
    silent.stdout.readline()
    assert run_client(server, "-s", tickets, "get", "/10").code == 5
    hello = silent.communicate(timeout=30)[0]
    after = [entry["ticket"] for entry in json.loads(tickets.read_bytes())["tickets"]]
    assert after == before[:-1]
    assert len(hello) > 1000


@pytest.mark.parametrize("contents", [b"garbage", b"{}", b"\0" * 100, b'{"kind": "tcpls session tickets"'])
def test_a_file_of_something_else_is_refused_and_left_alone(
    run_client: RunClient, tickets: Path, contents: bytes
) -> None:
    tickets.write_bytes(contents)
    tickets.chmod(0o600)
    done = run_client(1, "-s", tickets, "get", "/10")
    assert done.code == 3, done.err
    assert done.err.count("\n") == 1
    assert f"session tickets {tickets}: not a file of session tickets" in done.err
    assert tickets.read_bytes() == contents


def test_a_file_that_others_can_read_is_refused(run_client: RunClient, tickets: Path) -> None:
    tickets.touch()
    tickets.chmod(0o644)
    done = run_client(1, "-s", tickets, "get", "/10")
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert "others may read or change it: chmod 600" in done.err


def test_a_link_is_not_followed(run_client: RunClient, tickets: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    tickets.symlink_to(tmp_path / "victim")
    done = run_client(1, "-s", tickets, "get", "/10")
    assert done.code == 3
    assert "symbolic links are not followed" in done.err
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--ticket-lifetime", "0"], "tickets live from 1 second to 7 days"),
        (["--ticket-lifetime", "604801"], "tickets live from 1 second to 7 days"),
        (["--tickets", "9"], "0 to 8 tickets"),
        (["--ticket-keys", "KEYS"], "this is no file of ticket keys"),
    ],
)
def test_a_server_explains_what_is_wrong(pki: Pki, tmp_path: Path, words: list[str], sentence: str) -> None:
    keys = tmp_path / "keys"
    keys.write_text("garbage\n")
    keys.chmod(0o600)
    command = [sys.executable, "-m", "tcpls.server", "-c", pki.certificate, "-k", pki.key, "--echo", "127.0.0.1:0"]
    command += [keys if word == "KEYS" else word for word in words]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=30)
    assert done.returncode == 3, done.stderr
    assert sentence in done.stderr
    assert keys.read_text() == "garbage\n"


def test_tickets_expire(start_server: StartServer, run_client: RunClient, tmp_path: Path, tickets: Path) -> None:
    server = start_server("--root", tmp_path, "--ticket-lifetime", 1)
    run_client(server, "-s", tickets, "get", "/10")
    kept = json.loads(tickets.read_bytes())["tickets"]
    assert len(kept) == 2
    while time.time() < tickets.stat().st_mtime + 1.1:
        time.sleep(0.1)
    assert FULL in first_line(run_client(server, "-s", tickets, "get", "/10"))
    assert not {entry["ticket"] for entry in kept} & {
        entry["ticket"] for entry in json.loads(tickets.read_bytes())["tickets"]
    }
