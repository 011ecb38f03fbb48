"""Encrypted ClientHello through the commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from tests.commands.conftest import Done, Pki, RunClient, StartServer

ECH = "Encrypted ClientHello"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    folder = tmp_path_factory.mktemp("pki")
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost", "public.example")
    made = Pki(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(str(made.ca))
    made.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(str(made.key))
    return made


def keygen(path: Path, *options: str) -> Path:
    command = [sys.executable, "-m", "tcpls", "ech", "keygen", "--public-name", "public.example", *options]
    subprocess.run([*command, "-o", str(path)], check=True, capture_output=True, timeout=60)
    return path


def base64_of(path: Path) -> str:
    said = subprocess.run(
        [sys.executable, "-m", "tcpls", "ech", "show", str(path)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    return said.strip().splitlines()[-1].partition("ech=")[2]


def about_ech(done: Done) -> list[str]:
    assert done.code == 0, done.err
    return [line for line in done.err.splitlines() if line.startswith(ECH)]


def test_keys_of_both_kinds(pki: Pki, start_server: StartServer, run_client: RunClient, tmp_path: Path) -> None:
    current, old = keygen(tmp_path / "current.pem"), keygen(tmp_path / "old.pem", "--kem", "p256")
    log = tmp_path / "secrets"
    server = start_server("--root", tmp_path, "--ech-keys", current, "--ech-old-keys", old)
    for number, what in enumerate((current, base64_of(current), old, base64_of(old)), 1):
        done = run_client(server, "--ech", what, "-l", log, "get", "/1000")
        assert about_ech(done) == [f"{ECH}: accepted"]
        server.wait_for(f"session {number}: {ECH}: accepted")
    labels = [line.split()[0] for line in log.read_text().splitlines()]
    assert labels.count("ECH_SECRET") == labels.count("ECH_CONFIG") == 4
    assert about_ech(run_client(server, "--ech-grease", "get", "/1000")) == [f"{ECH}: grease"]
    assert about_ech(run_client(server, "get", "/1000")) == []


def test_a_key_that_the_server_has_not(
    pki: Pki, start_server: StartServer, run_client: RunClient, tmp_path: Path
) -> None:
    current, unknown = keygen(tmp_path / "current.pem"), keygen(tmp_path / "unknown.pem")
    server = start_server("--root", tmp_path, "--ech-keys", current)
    (line,) = about_ech(run_client(server, "--ech", unknown, "get", "/1000"))
    assert line.endswith("accepted, with configurations that the server sent: the ones given are out of date")
    server.wait_for("the peer sent the alert ech_required")
    done = run_client(server, "--ech", unknown, "--insecure", "get", "/1000")
    assert done.code == 5 and "is believed of a verified certificate only" in done.err


@pytest.mark.parametrize("mode", [("--echo", "--once"), ()], ids=["once", "standard output"])
def test_a_server_for_one_session_waits_for_the_second_try(
    start_server: StartServer, run_client: RunClient, tmp_path: Path, mode: tuple[str, ...]
) -> None:
    current, unknown = keygen(tmp_path / "current.pem"), keygen(tmp_path / "unknown.pem")
    server = start_server(*mode, "--ech-keys", current)
    (line,) = about_ech(run_client(server, "--ech", unknown, stdin=b"hello"))
    assert "accepted, with configurations" in line
    assert server.process.wait(60) == 0


def test_a_server_that_does_not_know_it(
    pki: Pki, start_server: StartServer, run_client: RunClient, tmp_path: Path
) -> None:
    server = start_server("--root", tmp_path)
    done = run_client(server, "--ech", keygen(tmp_path / "ech.pem"), "get", "/1000")
    assert done.code == 5
    assert "without --ech, the server's name would go out unencrypted" in done.err


def test_the_older_form(pki: Pki, start_server: StartServer, run_client: RunClient, tmp_path: Path) -> None:
    keys = tmp_path / "esni"
    command = [sys.executable, "-m", "tcpls", "ech", "esni-keygen", "--public-name", "public.example", "-o", str(keys)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    assert said.split() == [f"{keys}.key", str(keys)]
    server = start_server("--root", tmp_path, "--esni-keys", keys, f"{keys}.key")
    (line,) = about_ech(run_client(server, "--esni", keys, "get", "/1000"))
    assert "Encrypted SNI" in line
    server.wait_for(f"session 1: {ECH}: accepted, in the older form")
    assert about_ech(run_client(server, "get", "/1000")) == []
    done = run_client(server, "--esni", pki.ca, "get", "/1000")
    assert done.code == 3 and "no keys for Encrypted SNI" in done.err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--ech", "nonsense"), "'nonsense', which is no file"),
        (("--ech", "AAX+CgABeA=="), "no configuration is of a version that is known"),
    ],
)
def test_lists_that_are_none(run_client: RunClient, options: tuple[str, ...], complaint: str) -> None:
    done = run_client(9, *options, "get", "/1000")
    assert done.code == 3 and complaint in done.err


def test_servers_refuse_files_that_are_none(pki: Pki, tmp_path: Path) -> None:
    for options, complaint in (
        (("--ech-keys", tmp_path / "absent"), "absent: No such file"),
        (("--ech-keys", pki.key), "no list of ECH configurations"),
        (("--ech-old-keys", keygen(tmp_path / "old.pem")), "must be current"),
    ):
        command = [sys.executable, "-m", "tcpls.server", "-c", pki.certificate, "-k", pki.key, *options, "127.0.0.1:0"]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
        assert done.returncode == 3 and complaint in done.stderr
