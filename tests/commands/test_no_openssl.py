"""The commands with the engine minicrypto: no OpenSSL in their processes, or a line that says so."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tcpls.no_openssl import mapped
from tests.commands.conftest import RunClient, StartServer

WITHOUT = "engine: minicrypto, no OpenSSL in this process"


def test_both_commands(start_server: StartServer, run_client: RunClient, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    content = os.urandom(1_000_001)
    (site / "file").write_bytes(content)
    server = start_server("--engine", "minicrypto", "--root", site, "--allow-put")
    server.wait_for(f"^{WITHOUT}$")
    for engine in ("--engine=minicrypto",), ("--engine", "openssl"):
        done = run_client(server, *engine, "get", "file")
        assert done.code == 0, done.err
        assert f"sha-256 {hashlib.sha256(content).hexdigest()}, equal at both ends" in done.err
        assert (WITHOUT in done.err) is (engine == ("--engine=minicrypto",))
        assert "TCPLS: on" in done.err
    # Now that it has served, resumed and hashed.
    maps = Path(f"/proc/{server.process.pid}/maps").read_text().splitlines()
    assert mapped(maps) == []
    assert any("/Crypto/" in line for line in maps)


def test_with_the_other_engine_it_would_be_seen(start_server: StartServer) -> None:
    server = start_server("--echo")
    found = mapped(Path(f"/proc/{server.process.pid}/maps").read_text().splitlines())
    assert any("libcrypto" in path for path in found)
    assert any("_rust.abi3" in path for path in found)


@pytest.mark.parametrize("words", [["server"], ["client"]])
def test_the_one_door(words: list[str]) -> None:
    """`tcpls server`: the same command."""
    script = (
        "import sys, pathlib; from tcpls.__main__ import main\n"
        f"sys.argv = ['tcpls', *{words}, '--engine', 'minicrypto', '--help']\n"
        "try: main()\n"
        "except SystemExit: print(pathlib.Path('/proc/self/maps').read_text())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert mapped(done.stdout.splitlines()) == []


def test_a_server_that_takes_signed_programs(start_server: StartServer, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tcpls", "cc", "keygen", tmp_path / "signer"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    trusted = tmp_path / "signer.pub"
    server = start_server("--engine", "minicrypto", "--echo", "--accept-cc", "signed", "--cc-trust", trusted)
    server.wait_for(f"^{WITHOUT}$")


def test_it_says_when_openssl_is_there_all_the_same(start_server: StartServer) -> None:
    """A word that argparse understands and no_openssl.py does not."""
    server = start_server("--engin", "minicrypto", "--echo")
    server.wait_for("^engine: minicrypto, OpenSSL is in this process all the same: .*libcrypto")
