"""Other people's programs at either end of our commands."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.commands.conftest import Pki, RunClient, StartServer


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def test_curl_gets_files_over_http_1_0_and_1_1(start_server: StartServer, pki: Pki, tmp_path: Path) -> None:
    curl = _tool("curl")
    (tmp_path / "page.txt").write_text("for everybody\n")
    server = start_server("--root", tmp_path, "--allow-put")
    base = [curl, "-sS", "--fail", "--max-time", "30", "--tlsv1.3", "--cacert", str(pki.ca)]
    url = f"https://localhost:{server.port}/"
    to = ["--resolve", f"localhost:{server.port}:127.0.0.1"]
    for version in ("--http1.0", "--http1.1"):
        done = subprocess.run([*base, *to, version, url + "page.txt"], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "for everybody\n"), done.stderr
    # Two requests on one connection, and a body that is longer than any window.
    report = ["-o", "/dev/null", "-o", "/dev/null", "-w", "%{size_download} %{num_connects}\n"]
    sizes = subprocess.run([*base, *to, *report, url + "30000000", url + "17"], capture_output=True, text=True)
    assert sizes.stdout.split("\n")[:2] == ["30000000 1", "17 0"], sizes.stderr
    (tmp_path / "up").write_bytes(bytes(2_000_000))
    put = subprocess.run([*base, *to, "-T", str(tmp_path / "up"), url + "stored"], capture_output=True, text=True)
    assert put.returncode == 0, put.stderr
    assert (tmp_path / "stored").read_bytes() == bytes(2_000_000)
    missing = subprocess.run([*base, *to, url + "missing"], capture_output=True, text=True)
    assert "404" in missing.stderr


def test_openssl_s_client_talks_to_our_server(start_server: StartServer, pki: Pki) -> None:
    openssl = _tool("openssl")
    server = start_server("--echo")
    done = subprocess.run(
        [openssl, "s_client", "-connect", f"127.0.0.1:{server.port}", "-CAfile", str(pki.ca), "-verify_return_error",
         "-servername", "localhost", "-tls1_3", "-quiet", "-no_ign_eof"],
        input=b"hello\n", capture_output=True, timeout=30,
    )  # fmt: skip
    assert b"verify return:1" in done.stderr
    server.wait_for("TCPLS: off, the client did not offer TCPLS")
    server.wait_for("session 1: closed")


@contextmanager
def _openssl_server(pki: Pki, *options: str, cwd: Path) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(
        [_tool("openssl"), "s_server", "-accept", f"127.0.0.1:{port}", "-cert", str(pki.certificate),
         "-key", str(pki.key), "-tls1_3", *options],
        cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(100):
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def test_our_client_falls_back_to_an_ordinary_server(pki: Pki, run_client: RunClient, tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_bytes(b"x" * 100_000)
    with _openssl_server(pki, "-WWW", cwd=tmp_path) as port:
        done = run_client(port, "get", "page.txt", "copy.txt")
        assert done.code == 0, done.err
        assert "TCPLS: off, the server did not accept TCPLS" in done.err
        assert (tmp_path / "copy.txt").read_bytes() == b"x" * 100_000
        required = run_client(port, "--require-tcpls", "get", "page.txt")
        assert required.code == 7, required.err
        shipped = run_client(port, "--peer-option", "no_delay=1", "get", "page.txt", "-")
        assert shipped.code == 7 and "this needs TCPLS" in shipped.err
        assert shipped.out == b"x" * 100_000


def test_our_client_reads_a_gnutls_echo(pki: Pki, run_client: RunClient, tmp_path: Path) -> None:
    gnutls = _tool("gnutls-serv")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(
        [gnutls, "--echo", "-p", str(port), "--x509certfile", str(pki.certificate), "--x509keyfile", str(pki.key),
         "--priority", "NORMAL:-VERS-ALL:+VERS-TLS1.3"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path,
    )  # fmt: skip
    try:
        for _ in range(100):
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        done = run_client(port, stdin=b"over to GnuTLS\n")
        assert done.out == b"over to GnuTLS\n", done.err
        assert done.code == 0, done.err
    finally:
        process.kill()
        process.wait()


def test_curl_resumes(start_server: StartServer, pki: Pki, tmp_path: Path) -> None:
    """Two connections of one curl, because the server closes each behind its answer to a request that wants that."""
    server = start_server("--root", tmp_path)
    url = f"https://localhost:{server.port}/17"
    done = subprocess.run(
        [_tool("curl"), "-sS", "--fail", "--max-time", "30", "--tlsv1.3", "--cacert", str(pki.ca), "-H",
         "Connection: close", "--resolve", f"localhost:{server.port}:127.0.0.1", "-o", "/dev/null", "-o", "/dev/null",
         url, url],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    server.wait_for("session 1: TLS 1.3, .*, ecdsa_secp256r1_sha256")
    server.wait_for("session 2: TLS 1.3, .*, resumed")


def test_our_client_resumes_at_an_ordinary_server(pki: Pki, run_client: RunClient, tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_bytes(b"x" * 1000)
    with _openssl_server(pki, "-WWW", cwd=tmp_path) as port:
        for how in ("ecdsa_secp256r1_sha256", "resumed", "resumed"):
            done = run_client(port, "-s", "tickets", "get", "page.txt", "-")
            assert (done.code, done.out) == (0, b"x" * 1000), done.err
            assert done.err.splitlines()[0].endswith(how), done.err
