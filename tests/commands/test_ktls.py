"""kTLS as users switch it on. What needs a kernel with TLS runs in the second kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tcpls.kernel import ktls
from tests.commands.conftest import Pki, RunClient, StartServer


@pytest.mark.skipif(not ktls.probe().reason, reason="this kernel has TLS: the tests below show it")
def test_without_it_require_exits_8_and_says_why(
    start_server: StartServer, run_client: RunClient, tmp_path: Path
) -> None:
    server = start_server("--root", tmp_path, "--ktls")
    server_lines = run_client(server, "--ktls", "get", "/1000")
    assert server_lines.code == 0
    assert "kTLS sending: off, the kernel has no TLS" in server_lines.err
    server.wait_for("kTLS sending: off, the kernel has no TLS")
    done = run_client(server, "--ktls=require", "get", "/1000")
    assert done.code == 8, done.err
    assert "kernel TLS" in done.err


@pytest.mark.skipif(not ktls.probe().reason, reason="this kernel has TLS: the tests below show it")
def test_a_server_that_requires_it_does_not_start(pki: Pki) -> None:
    command = [
        sys.executable,
        "-m",
        "tcpls.server",
        "-c",
        pki.certificate,
        "-k",
        pki.key,
        "--echo",
        "--ktls=require",
        "127.0.0.1:0",
    ]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=30)
    assert done.returncode == 8, done.stderr


SUITES = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]


@pytest.mark.ktls
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("mode", ["tcpls", "plain"])
def test_files_both_ways_through_the_kernel(
    start_server: StartServer, run_client: RunClient, tmp_path: Path, suite: str, mode: str
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "down").write_bytes(os.urandom(5_000_001))
    (tmp_path / "up").write_bytes(os.urandom(3_000_003))
    plain = ["--plain"] if mode == "plain" else []
    server = start_server("--root", site, "--allow-put", "--ktls=require", *plain)
    # The server's tickets are sealed before the kernel takes over in the middle of its sequence numbers.
    for words, how in ((["get", "down"], "ecdsa"), (["put", "up"], "resumed")):
        done = run_client(server, "--ktls=require", "--suites", suite, "-s", "tickets", *words)
        assert done.code == 0, done.err
        assert suite in done.err
        assert how in done.err.splitlines()[0]
        assert "kTLS sending: on" in done.err
    assert (tmp_path / "down").read_bytes() == (site / "down").read_bytes()
    assert (site / "up").read_bytes() == (tmp_path / "up").read_bytes()
    server.wait_for("kTLS sending: on")
    server.wait_for("session 2: closed")


@pytest.mark.ktls
@pytest.mark.parametrize("mode", [(), ("--plain",)])
def test_early_data_is_answered_through_the_kernel(
    start_server: StartServer, run_client: RunClient, tmp_path: Path, mode: tuple[str, ...]
) -> None:
    """What the kernel sealed ahead of the client's Finished, and the tickets behind it."""
    (tmp_path / "page").write_bytes(os.urandom(100_000))
    server = start_server("--root", tmp_path, "--ktls=require", "--zero-rtt", *mode)
    for says in ("not offered, there is no ticket for this server", "accepted", "accepted", "accepted"):
        done = run_client(server, "--ktls=require", *mode, "-e", "-s", "tickets", "get", "page", "copy")
        assert done.code == 0, done.err
        assert f"0-RTT: {says}" in done.err
        assert (tmp_path / "copy").read_bytes() == (tmp_path / "page").read_bytes()
    server.wait_for("session 4: 0-RTT: accepted")


@pytest.mark.ktls
def test_the_kernel_counts_our_sessions_and_others_can_read_them(
    start_server: StartServer, pki: Pki, tmp_path: Path
) -> None:
    """OpenSSL's client in user space reads what the kernel sealed for our server."""
    (tmp_path / "page").write_bytes(b"sealed by the kernel\n" * 10_000)
    server = start_server("--root", tmp_path, "--ktls=require")
    before = _sessions()  # The server's own look at what the kernel can do is counted too.
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-CAfile", str(pki.ca),
         "-servername", "localhost", "-verify_return_error", "-quiet"],
        input=b"GET /page HTTP/1.0\r\n\r\n", capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.endswith(b"sealed by the kernel\n" * 10_000), done.stderr[-500:]
    assert _sessions() == before + 1


def _sessions() -> int:
    for line in Path("/proc/net/tls_stat").read_text().splitlines():
        name, value = line.split()
        if name == "TlsTxSw":
            return int(value)
    raise AssertionError("no TlsTxSw in tls_stat")
