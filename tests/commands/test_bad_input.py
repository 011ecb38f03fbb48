"""What is wrong on either side gets a sentence and an exit code, and the server goes on serving."""

from __future__ import annotations

import datetime
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.commands.conftest import Pki, RunClient, StartServer


def _self_signed(folder: Path) -> Pki:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    made = Pki(folder / "self.pem", folder / "self.pem", folder / "self.key")
    made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


def _expired(folder: Path) -> Pki:
    authority = trustme.CA()
    leaf = authority.issue_cert(
        "localhost", not_after=datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    )
    made = Pki(folder / "old-ca.pem", folder / "old.pem", folder / "old.key")
    authority.cert_pem.write_to_path(str(made.ca))
    leaf.cert_chain_pems[0].write_to_path(str(made.certificate))
    leaf.private_key_pem.write_to_path(str(made.key))
    return made


def test_the_wrong_name_is_not_trusted(start_server: StartServer, run_client: RunClient) -> None:
    server = start_server("--root", "/usr/share/doc/base-files")
    done = run_client(server, "get", "/10", name="example.com")
    assert done.code == 6, done.err
    assert "not trusted" in done.err and "another name" in done.err
    server.wait_for("no session: .*bad_certificate")
    assert run_client(server, "get", "/10").code == 0


def test_an_unknown_authority_is_not_trusted(start_server: StartServer, run_client: RunClient, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    server = start_server("--root", tmp_path)
    done = run_client(server, "get", "/10", ca=tmp_path / "other.pem")
    assert done.code == 6, done.err
    assert "does not lead to a trusted authority (its issuer is unknown here)" in done.err
    server.wait_for("no session: .*unknown_ca")


def test_a_self_signed_certificate_is_not_trusted_unless_insecure(
    start_server: StartServer, run_client: RunClient, pki: Pki, tmp_path: Path
) -> None:
    server = start_server("--root", tmp_path, identity=_self_signed(tmp_path))
    assert run_client(server, "get", "/10").code == 6
    trusting = run_client(server, "--insecure", "get", "/10")
    assert trusting.code == 0, trusting.err
    assert "any certificate is trusted" in trusting.err


def test_an_expired_certificate_is_not_trusted(
    start_server: StartServer, run_client: RunClient, tmp_path: Path
) -> None:
    old = _expired(tmp_path)
    server = start_server("--root", tmp_path, identity=old)
    done = run_client(server, "get", "/10", ca=old.ca)
    assert done.code == 6, done.err
    assert "validity" in done.err
    server.wait_for("no session: .*certificate_expired")


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.0\r\n\r\n", os.urandom(4000), b"\x16\x03\x01\xff\xff", b"\x15\x03\x03\x00\x02\x02\x28"]
)
def test_garbage_on_the_port_costs_the_server_nothing(
    start_server: StartServer, run_client: RunClient, tmp_path: Path, garbage: bytes
) -> None:
    server = start_server("--root", tmp_path)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(garbage)
        answer = b""
        while data := sock.recv(4096):
            answer += data
        assert not answer or answer[0] == 0x15, "an alert, or nothing"
    server.wait_for("no session")
    assert run_client(server, "get", "/10").code == 0


def test_half_a_hello_and_silence_hold_up_nobody(
    start_server: StartServer, run_client: RunClient, tmp_path: Path
) -> None:
    server = start_server("--root", tmp_path)
    silent = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(5)]
    try:
        for sock in silent:
            sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        assert run_client(server, "get", "/10").code == 0
        begun = time.monotonic()
        assert silent[0].recv(100) in (b"", b"\x15\x03\x03\x00\x02\x01\x00")
        assert time.monotonic() - begun < 20
        server.wait_for("the handshake took longer than 10 s")
    finally:
        for sock in silent:
            sock.close()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["127.0.0.1:1"], 4, "Connection refused"),
        (["no-such-host.invalid"], 4, "no-such-host.invalid"),
        (["127.0.0.1:99999"], 2, "not a port"),
        (["localhost", "fetch", "x"], 2, "no command"),
        (["localhost", "get"], 2, "one name or two"),
        (["--ca-certs", "/nonexistent", "localhost"], 3, "/nonexistent"),
        (["--peer-option", "user_timeout=soon", "localhost"], 2, "not a number"),
        (["--ship-cc", "/nonexistent.o", "localhost"], 3, "/nonexistent.o"),
        (["--suites", "TLS_NULL", "localhost"], 3, "TLS_NULL"),
        (["--accept-cc", "signed", "localhost"], 2, "--cc-trust"),
        ([], 2, "HOST"),
    ],
)
def test_the_client_explains_what_is_wrong(words: list[str], code: int, sentence: str) -> None:
    done = subprocess.run([sys.executable, "-m", "tcpls.client", *words], capture_output=True, text=True, timeout=30)
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["-c", "/nonexistent", "-k", "/nonexistent"], 3, "/nonexistent"),
        (["-c", "KEY", "-k", "KEY"], 3, "no certificate in PEM form"),
        (["-c", "CERT", "-k", "CERT"], 3, "no private key in PEM form"),
        (["-c", "CERT", "-k", "KEY", "--root", "/nonexistent"], 3, "not a folder"),
        (["-c", "CERT", "-k", "KEY", "--root", "/", "--user", "nobody-there"], 3, "no user nobody-there"),
        (["-c", "CERT", "-k", "KEY", "192.0.2.1:0"], 4, "cannot listen"),
        ([], 2, "a server needs -c and -k"),
    ],
)
def test_the_server_explains_what_is_wrong(pki: Pki, words: list[str], code: int, sentence: str) -> None:
    files = {"CERT": str(pki.certificate), "KEY": str(pki.key)}
    command = [sys.executable, "-m", "tcpls.server", *(files.get(word, word) for word in words)]
    if "192.0.2.1:0" not in words:
        command.append("127.0.0.1:0")
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--padding", "many"), 2, "--padding many"),
        (("--padding", "flight:10"), 2, "--padding flight:10"),
        (("--padding", "0"), 3, "multiples of 1 to 16385"),
        (("--plain", "--record-size-limit", "63"), 3, "64 to 16385"),
        (("--record-size-limit", "1000"), 3, "TCPLS needs more than 10240"),
    ],
)
def test_records_that_nobody_can_make(
    start_server: StartServer, run_client: RunClient, options: tuple[str, ...], code: int, words: str
) -> None:
    server = start_server("--echo")
    done = run_client(server, *options)
    assert done.code == code, done.err
    assert words in done.err
