"""Files and bytes, both ways, between our own commands."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.conftest import IMPATIENT, Pki, RunClient, StartServer


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "small.txt").write_bytes(b"a small file\n")
    (folder / "empty").write_bytes(b"")
    (folder / "large.bin").write_bytes(os.urandom(3_000_001))
    return folder


def test_get_saves_the_file_and_compares_digests(
    start_server: StartServer, run_client: RunClient, site: Path, tmp_path: Path
) -> None:
    server = start_server("--root", site)
    done = run_client(server, "get", "large.bin")
    assert done.code == 0, done.err
    assert (tmp_path / "large.bin").read_bytes() == (site / "large.bin").read_bytes()
    digest = hashlib.sha256((site / "large.bin").read_bytes()).hexdigest()
    assert f"sha-256 {digest}, equal at both ends" in done.err
    assert "TCPLS: on" in done.err
    server.wait_for(r"GET /large\.bin: 3000001 bytes")
    server.wait_for("session 1: closed")


def test_get_of_bytes_counts_and_saves_nothing(
    start_server: StartServer, run_client: RunClient, site: Path, tmp_path: Path
) -> None:
    done = run_client(start_server("--root", site), "get", "/12345678")
    assert done.code == 0, done.err
    assert "12345678 bytes" in done.err
    assert not list(tmp_path.iterdir())


def test_get_to_standard_output_and_of_nothing(
    start_server: StartServer, run_client: RunClient, site: Path, tmp_path: Path
) -> None:
    server = start_server("--root", site)
    assert run_client(server, "get", "small.txt", "-").out == b"a small file\n"
    assert run_client(server, "get", "empty").code == 0
    assert (tmp_path / "empty").read_bytes() == b""


def test_put_stores_the_file_whole(
    start_server: StartServer, run_client: RunClient, site: Path, tmp_path: Path
) -> None:
    (tmp_path / "up.bin").write_bytes(os.urandom(5_000_003))
    server = start_server("--root", site, "--allow-put")
    done = run_client(server, "put", "up.bin", "stored.bin")
    assert done.code == 0, done.err
    assert "equal at both ends" in done.err
    assert (site / "stored.bin").read_bytes() == (tmp_path / "up.bin").read_bytes()
    assert {path.name for path in site.iterdir()} == {"small.txt", "empty", "large.bin", "stored.bin"}


@pytest.mark.parametrize("words", [("get", "missing"), ("get", "../../etc/passwd"), ("put", "up.bin")])
def test_what_is_not_there_or_not_allowed_is_refused(
    start_server: StartServer, run_client: RunClient, site: Path, tmp_path: Path, words: tuple[str, str]
) -> None:
    (tmp_path / "up.bin").write_bytes(bytes(3_000_000))
    server = start_server("--root", site)
    done = run_client(server, *words)
    assert done.code == 3, done.err
    assert "the server answered 40" in done.err
    assert run_client(server, "get", "small.txt").code == 0


def test_plain_tls_both_ways(start_server: StartServer, run_client: RunClient, site: Path, tmp_path: Path) -> None:
    (tmp_path / "up.bin").write_bytes(os.urandom(2_000_000))
    server = start_server("--root", site, "--allow-put", "--plain")
    done = run_client(server, "get", "large.bin")
    assert done.code == 0, done.err
    assert "TCPLS: off, the server did not accept TCPLS" in done.err
    assert (tmp_path / "large.bin").read_bytes() == (site / "large.bin").read_bytes()
    assert run_client(server, "put", "up.bin").code == 0
    assert (site / "up.bin").read_bytes() == (tmp_path / "up.bin").read_bytes()
    assert run_client(server, "--require-tcpls", "get", "small.txt").code == 7


def test_standard_input_and_output_are_joined(start_server: StartServer, run_client: RunClient) -> None:
    text = os.urandom(1_500_000)
    server = start_server("--echo")
    done = run_client(server, stdin=text)
    assert done.code == 0, done.err
    assert done.out == text
    plain = run_client(server, "--plain", stdin=text[:100_000])
    assert plain.code == 0, plain.err
    assert plain.out == text[:100_000]


def test_requests_can_be_typed(start_server: StartServer, run_client: RunClient, site: Path) -> None:
    done = run_client(start_server("--root", site), stdin=b"GET /small.txt HTTP/1.0\r\n\r\n")
    assert done.code == 0, done.err
    assert done.out.endswith(b"\r\n\r\na small file\n")


def test_a_server_without_root_joins_its_own_standard_streams(start_server: StartServer, run_client: RunClient) -> None:
    server = start_server(stdin=subprocess.PIPE)
    assert server.process.stdin is not None and server.process.stdout is not None
    server.process.stdin.write("from the server\n")
    server.process.stdin.close()
    done = run_client(server, stdin=b"from the client\n")
    assert done.code == 0, done.err
    assert done.out == b"from the server\n"
    assert server.process.wait(10) == 0
    assert server.process.stdout.read() == "from the client\n"


def test_a_full_disk_is_said_and_leaves_nothing(
    start_server: StartServer, pki: Pki, site: Path, tmp_path: Path
) -> None:
    server = start_server("--root", site)
    # RLIMIT_FSIZE fails a write just as a full disk does, and needs no disk of our own.
    script = "ulimit -f 1000; trap '' XFSZ; exec \"$@\""
    command = [
        sys.executable,
        "-m",
        "tcpls.client",
        "--ca-certs",
        str(pki.ca),
        f"127.0.0.1:{server.port}",
        "get",
        "large.bin",
    ]
    done = subprocess.run(
        ["bash", "-c", script, "sh", *command], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.returncode == 3, done.stderr
    assert "large.bin: File too large" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("victim", ["client", "server"])
def test_a_peer_that_vanishes_in_mid_file(
    start_server: StartServer, pki: Pki, site: Path, tmp_path: Path, victim: str
) -> None:
    server = start_server("--root", site)
    command = [
        sys.executable,
        "-m",
        "tcpls.client",
        *IMPATIENT,
        "--ca-certs",
        str(pki.ca),
        f"127.0.0.1:{server.port}",
        "get",
        "/99999999999",
    ]
    client = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        server.wait_for("session 1: connection 0")
        if victim == "client":
            client.send_signal(signal.SIGKILL)
            client.wait(30)
            server.wait_for("session 1: lost")
        else:
            server.process.send_signal(signal.SIGKILL)
            assert client.wait(30) == 9
            assert client.stderr is not None
            # By what is known of it then: the reset alone, or that nobody answers any more.
            assert re.search(r"the connection failed|no connection worked for 1 s", client.stderr.read())
    finally:
        client.kill()
        client.wait()
        if client.stderr is not None:
            client.stderr.close()
