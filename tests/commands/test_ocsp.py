"""OCSP staples through the commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from tests.commands.conftest import Pki, RunClient, StartServer


def respond(folder: Path, authority: trustme.CA, pki: Pki, state: str) -> Path:
    """What openssl's responder says, with the authority's own key. `state`: a line's beginning of its index."""
    key, index, response = folder / "ca.key", folder / f"{state[0]}.txt", folder / f"{state[0]}.der"
    authority.private_key_pem.write_to_path(str(key))
    digits = f"{x509.load_pem_x509_certificate(pki.certificate.read_bytes()).serial_number:X}"
    index.write_text(f"{state}\t{'0' * (len(digits) % 2)}{digits}\tunknown\t/CN=localhost\n")
    subprocess.run(
        ["openssl", "ocsp", "-index", index, "-CA", pki.ca, "-rsigner", pki.ca, "-rkey", key, "-issuer", pki.ca,
         "-cert", pki.certificate, "-ndays", "1", "-no_nonce", "-respout", response],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    return response


def test_staples(start_server: StartServer, run_client: RunClient, tmp_path: Path) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    mine = Pki(tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem")
    authority.cert_pem.write_to_path(str(mine.ca))
    leaf.cert_chain_pems[0].write_to_path(str(mine.certificate))
    leaf.private_key_pem.write_to_path(str(mine.key))
    good = respond(tmp_path, authority, mine, "V\t301231235959Z\t")
    server = start_server("--root", tmp_path, "--ocsp", good, identity=mine)
    done = run_client(server, "--check-ocsp", "get", "/1000", ca=mine.ca)
    assert done.code == 0, done.err
    assert "verified, not revoked (OCSP)" in done.err
    done = run_client(server, "get", "/1000", ca=mine.ca)
    assert done.code == 0 and "OCSP" not in done.err, done.err
    revoked = respond(tmp_path, authority, mine, "R\t301231235959Z\t250101000000Z")
    server = start_server("--root", tmp_path, "--ocsp", revoked, identity=mine)
    done = run_client(server, "--check-ocsp", "get", "/1000", ca=mine.ca)
    assert (done.code, "the peer's certificate is revoked" in done.err) == (6, True), done.err
    server.wait_for(r"certificate_revoked \(44\)")
    assert run_client(server, "get", "/1000", ca=mine.ca).code == 0, "who does not ask is not told"


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("--ocsp", "CERT"), 3, "not an OCSP response in DER"),
        (("--ocsp", "/nowhere"), 3, "/nowhere: No such file"),
        (("--ocsp", "CERT", "--ocsp", "CERT"), 2, "each --ocsp needs its -c"),
    ],
)
def test_files(pki: Pki, words: tuple[str, ...], code: int, complaint: str) -> None:
    named = [str(pki.certificate) if word == "CERT" else word for word in words]
    command = [sys.executable, "-m", "tcpls.server", "-c", str(pki.certificate), "-k", str(pki.key), "--echo", *named]
    done = subprocess.run([*command, "127.0.0.1:0"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, complaint in done.stderr) == (code, True), done.stderr
