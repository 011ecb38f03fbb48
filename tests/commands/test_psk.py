"""Pre-shared keys through the commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.conftest import RunClient, StartServer
from tests.commands.test_resumption import RESUMED, first_line

KEY = "00112233445566778899aabbccddeeff"
OTHER = "ffeeddccbbaa99887766554433221100"


def test_a_key_and_no_certificate(start_server: StartServer, run_client: RunClient, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"device 7:{KEY}\ndevice 8:{OTHER}\n")
    tickets = tmp_path / "tickets"
    server = start_server("--root", tmp_path, "--psk", f"@{tmp_path / 'keys'}", certificate=False)
    done = run_client(server, "--psk", f"device 7:{KEY}", "-s", tickets, "get", "/1000")
    assert "X25519MLKEM768, pre-shared key 'device 7'" in first_line(done)
    server.wait_for("session 1: .* pre-shared key 'device 7'")
    assert RESUMED in first_line(run_client(server, "--psk", f"device 7:{KEY}", "-s", tickets, "get", "/1000"))
    alone = run_client(server, "--psk", f"device 8:{OTHER}", "--psk-modes", "psk_ke", "get", "/1000")
    assert alone.code == 5, "a server takes a key alone only when it is told to"
    assert "unknown_psk_identity" in alone.err


def test_a_key_alone(start_server: StartServer, run_client: RunClient, tmp_path: Path) -> None:
    server = start_server("--root", tmp_path, "--psk", f"a:{KEY}", "--psk-modes", "psk_dhe_ke,psk_ke")
    done = run_client(server, "--psk", f"a:{KEY}", "--psk-modes", "psk_ke", "get", "/1000")
    assert "no key exchange, pre-shared key 'a'" in first_line(done)


def test_a_wrong_key_is_refused(start_server: StartServer, run_client: RunClient, tmp_path: Path) -> None:
    server = start_server("--root", tmp_path, "--psk", f"a:{KEY}")
    done = run_client(server, "--psk", f"a:{OTHER}", "get", "/1000")
    assert (done.code, "decrypt_error" in done.err) == (5, True), done.err
    server.wait_for("no session: the binder of a pre-shared key is wrong")
    unknown = run_client(server, "--psk", f"b:{KEY}", "get", "/1000")
    assert "ecdsa_secp256r1_sha256" in first_line(unknown), "it is known by its certificate then"


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"])
def test_imported_keys(start_server: StartServer, run_client: RunClient, tmp_path: Path, suite: str) -> None:
    server = start_server("--root", tmp_path, "--psk", f"a:{KEY}", "--psk-import")
    done = run_client(server, "--psk", f"a:{KEY}", "--psk-import", "--suites", suite, "get", "/1000")
    assert f"{suite}, X25519MLKEM768, pre-shared key 'a'" in first_line(done)


def test_a_server_of_nothing() -> None:
    done = subprocess.run([sys.executable, "-m", "tcpls.server", "--echo"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (2, "tcpls: a server needs -c and -k, --raw-key or --psk\n")
