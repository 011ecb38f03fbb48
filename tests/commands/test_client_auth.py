"""Certificates of clients, and several of a server, through the commands; curl and OpenSSL as the other end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from tests.commands.conftest import Pki, RunClient, StartServer


def issue(authority: trustme.CA, folder: Path, *names: str) -> Pki:
    leaf = authority.issue_cert(*names)
    stem = names[0].replace("*", "any")
    made = Pki(folder / "clients.pem", folder / f"{stem}.pem", folder / f"{stem}.key")
    authority.cert_pem.write_to_path(str(made.ca))
    made.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(str(made.key))
    return made


@pytest.fixture(scope="session")
def alice(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return issue(trustme.CA(), tmp_path_factory.mktemp("alice"), "alice@client.example")


@pytest.fixture(scope="session")
def mallory(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return issue(trustme.CA(), tmp_path_factory.mktemp("mallory"), "alice@client.example")


def own(pki: Pki) -> tuple[object, ...]:
    return "-c", pki.certificate, "-k", pki.key


@pytest.mark.parametrize("engine", ["openssl", "minicrypto"])
def test_required(
    start_server: StartServer, run_client: RunClient, tmp_path: Path, alice: Pki, mallory: Pki, engine: str
) -> None:
    server = start_server("--root", tmp_path, "--client-auth", "require", "--client-ca", alice.ca, "--engine", engine)
    done = run_client(server, *own(alice), "--engine", engine, "get", "/1000")
    assert done.code == 0, done.err
    assert "the server is localhost" in done.err
    server.wait_for("session 1: the client is .*, certificate [0-9a-f]{64}, verified")
    done = run_client(server, "get", "/1000")
    assert (done.code, "certificate_required" in done.err) == (5, True), done.err
    server.wait_for("no session: the client sent no certificate, and one is required")
    # The server lists its authorities, and this one is not among them: nothing is shown.
    done = run_client(server, *own(mallory), "get", "/1000")
    assert (done.code, "wants a certificate of this end that it trusts (-c, -k)" in done.err) == (5, True), done.err


def test_requested(start_server: StartServer, run_client: RunClient, tmp_path: Path, alice: Pki) -> None:
    server = start_server("--root", tmp_path, "--client-auth", "request", "--client-ca", alice.ca)
    assert run_client(server, "get", "/1000").code == 0
    assert run_client(server, *own(alice), "get", "/1000").code == 0
    server.wait_for("session 2: the client is .*, verified")
    assert not any("session 1: the client is" in line for line in server.lines)


@pytest.mark.feature("client authentication", peer="curl", role="server")
def test_curl_with_a_certificate(start_server: StartServer, tmp_path: Path, alice: Pki, pki: Pki) -> None:
    (tmp_path / "file").write_text("contents\n")
    server = start_server("--root", tmp_path, "--client-auth", "require", "--client-ca", alice.ca)
    base = ["curl", "-sS", "--cacert", str(pki.ca), "--max-time", "20"]
    url = f"https://localhost:{server.port}/file"
    done = subprocess.run(
        [*base, "--cert", alice.certificate, "--key", alice.key, url], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (0, "contents\n"), done.stderr
    done = subprocess.run([*base, url], capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert "certificate required" in done.stderr


def test_several_certificates(start_server: StartServer, run_client: RunClient, tmp_path: Path) -> None:
    authority = trustme.CA()
    one, two = issue(authority, tmp_path, "one.example"), issue(authority, tmp_path, "*.two.example")
    server = start_server("--root", tmp_path, *own(one), *own(two))
    for name in ("one.example", "www.two.example"):
        done = run_client(server, "get", "/1000", ca=one.ca, name=name)
        assert done.code == 0, done.err
    assert run_client(server, "get", "/1000").code == 0
    assert run_client(server, "get", "/1000", ca=one.ca, name="two.example").code == 6
    strict = start_server("--root", tmp_path, *own(one), "--known-names-only")
    done = run_client(strict, "get", "/1000", ca=one.ca, name="two.example")
    assert (done.code, "unrecognized_name" in done.err) == (5, True), done.err
    assert run_client(strict, "get", "/1000").code == 0


@pytest.mark.parametrize("names", ["none", "zlib", "brotli", "zstd,zlib"])
def test_compression(start_server: StartServer, run_client: RunClient, tmp_path: Path, names: str) -> None:
    server = start_server("--root", tmp_path, "--compress-certificates", names)
    assert run_client(server, "--compress-certificates", names, "get", "/1000").code == 0
    done = run_client(server, "--compress-certificates", "lzma", "get", "/1000")
    assert (done.code, "'lzma' is no compression of certificates" in done.err) == (3, True), done.err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--client-auth", "require"), "--client-auth require needs --client-ca or --client-keys"),
        (("--client-ca", "ca.pem"), "--client-ca and --client-keys need --client-auth"),
        (("-c", "more.pem"), "each -c needs its -k, and each -k its -c"),
        (("--accept-cc", "authenticated"), "--accept-cc authenticated needs --client-auth or --psk"),
    ],
)
def test_usage(pki: Pki, words: tuple[str, ...], complaint: str) -> None:
    command = [sys.executable, "-m", "tcpls.server", "-c", str(pki.certificate), "-k", str(pki.key), "--echo", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (2, f"tcpls: {complaint}\n")


def test_a_client_that_does_not_care_who_the_server_is() -> None:
    command = [sys.executable, "-m", "tcpls.client", "--insecure", "--accept-cc", "authenticated", "localhost:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "--accept-cc authenticated needs a server that is verified" in done.stderr


@pytest.mark.parametrize("engine", ["openssl", "minicrypto"])
def test_raw_public_keys(
    start_server: StartServer, run_client: RunClient, tmp_path: Path, alice: Pki, engine: str
) -> None:
    def generated(name: str) -> tuple[Path, Path]:
        key, public = tmp_path / f"{name}.key", tmp_path / f"{name}.pub"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True, timeout=30)
        subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True, timeout=30)
        return key, public

    (server_key, server_public), (client_key, client_public) = generated("server"), generated("client")
    server = start_server(
        "--root", tmp_path, "--raw-key", server_key, "--client-auth", "require", "--client-keys", client_public,
        "--client-ca", alice.ca, "--engine", engine,
    )  # fmt: skip
    words = "--server-keys", server_public, "--engine", engine
    # run_client names authorities too, so that a certificate would do as well.
    done = run_client(server, *words, "--raw-key", client_key, "get", "/1000")
    assert done.code == 0, done.err
    assert "the server is raw public key " in done.err
    server.wait_for("session 1: the client is raw public key [0-9a-f]{64}, verified")
    assert run_client(server, *words, *own(alice), "get", "/1000").code == 0
    server.wait_for("session 2: the client is .*, certificate [0-9a-f]{64}, verified")
    done = run_client(server, "--server-keys", client_public, "--raw-key", client_key, "get", "/1000")
    assert (done.code, "none of those that are expected" in done.err) == (6, True), done.err
    done = run_client(server, *words, "--raw-key", server_key, "get", "/1000")
    assert (done.code, "certificate_unknown" in done.err) == (5, True), done.err
