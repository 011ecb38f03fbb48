"""Controllers shipped between real commands: attached to that connection only, refused, never left behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tcpls.kernel.program import ProgramFile, public_pem, signature_path
from tests.commands.conftest import IMPATIENT, Pki, RunClient, RunningServer, StartServer
from tests.kernel.conftest import available, until, why_not
from tests.unit.kernel.objects import SHIPPED, controller, shipped

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def _kernel() -> None:
    if reason := why_not():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def write(folder: Path, name: str, image: bytes, key: Ed25519PrivateKey | None) -> Path:
    """An object file, with its signature beside it when there is a key."""
    path = folder / f"{name}.bpf.o"
    path.write_bytes(image)
    if key is not None:
        signature_path(path).write_text(ProgramFile(name, image).sign(key).sidecar())
    return path


@pytest.fixture
def signed_server(start_server: StartServer, key: Ed25519PrivateKey) -> Iterator[RunningServer]:
    # Not one of pytest's folders: the ordinary user that the server becomes could not enter them.
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    public = folder / "signer.pub"
    public.write_bytes(public_pem(key.public_key()))
    yield start_server("--root", folder, "--accept-cc", "signed", "--cc-trust", public, "--user", "nobody")
    shutil.rmtree(folder)


def algorithms_of(port: int) -> list[str]:
    """The shipped algorithms that `ss` shows on sockets of this port, one entry a socket."""
    done = subprocess.run(["ss", "-tinH", "state", "established"], capture_output=True, text=True, check=True)
    blocks = re.findall(r"^(\d.*)\n(\s.*)$", done.stdout, re.MULTILINE)
    return [
        found[0] for head, facts in blocks if f":{port} " in f"{head} " and (found := re.findall(r"tcpls_\w+", facts))
    ]


@contextmanager
def endless_client(pki: Pki, server: RunningServer, program: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A client that has shipped a program and fetches more than it will ever get."""
    command = [
        sys.executable, "-m", "tcpls.client", "--ca-certs", str(pki.ca), "--servername", "localhost",
        *IMPATIENT, "--ship-cc", str(program), f"127.0.0.1:{server.port}", "get", "/99999999999",
    ]  # fmt: skip
    client = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder)
    try:
        yield client
    finally:
        client.kill()
        client.wait()
        if client.stderr is not None:
            client.stderr.close()


def attached(server: RunningServer) -> str:
    return server.wait_for(r"^program '\w+' attached as (tcpls_\w+)$")[1]


def gone(algorithm: str) -> bool:
    return until(lambda: algorithm not in available(), 30.0)


@pytest.mark.parametrize("name", SHIPPED)
def test_each_program_is_attached_and_gone_afterwards(
    signed_server: RunningServer, run_client: RunClient, key: Ed25519PrivateKey, tmp_path: Path, name: str
) -> None:
    program = write(tmp_path, name, shipped(name).image, key)
    done = run_client(signed_server, "--ship-cc", program, "get", "/40000000")
    assert done.code == 0, done.err
    algorithm = attached(signed_server)
    assert f"the server's kernel reports {algorithm} on this connection" in done.err
    signed_server.wait_for(rf"GET /40000000: 40000000 bytes .* congestion control {algorithm}$")
    assert gone(algorithm)


def test_it_is_on_this_connection_and_on_no_other(
    signed_server: RunningServer, run_client: RunClient, pki: Pki, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    program = write(tmp_path, "cubic", shipped("cubic").image, key)
    with endless_client(pki, signed_server, program, tmp_path):
        algorithm = attached(signed_server)
        assert run_client(signed_server, "get", "/1000").code == 0
        other = subprocess.Popen(
            [sys.executable, "-m", "tcpls.client", "--ca-certs", str(pki.ca), "--servername", "localhost",
             f"127.0.0.1:{signed_server.port}"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path,
        )  # fmt: skip
        try:
            signed_server.wait_for("session 3: connection 0")
            assert algorithms_of(signed_server.port) == [algorithm]
        finally:
            other.kill()
            other.wait()
            assert other.stdin is not None
            other.stdin.close()
    assert gone(algorithm)


def _helper_of(server: RunningServer) -> int:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    assert len(children) == 1, children
    return int(children[0])


@pytest.mark.parametrize("victim", ["server", "helper", "client"])
def test_killing_any_process_leaves_nothing_behind(
    signed_server: RunningServer, run_client: RunClient, pki: Pki, key: Ed25519PrivateKey, tmp_path: Path, victim: str
) -> None:
    program = write(tmp_path, "vegas", shipped("vegas").image, key)
    with endless_client(pki, signed_server, program, tmp_path) as client:
        algorithm = attached(signed_server)
        assert algorithm in available()
        if victim == "helper":
            os.kill(_helper_of(signed_server), signal.SIGKILL)
            time.sleep(0.5)
            assert client.poll() is None, "the session goes on"
            assert algorithms_of(signed_server.port) == [algorithm], "with the algorithm that it had"
            # Without its helper the server refuses programs and serves everything else.
            second = run_client(signed_server, "--ship-cc", program, "get", "/1000")
            assert second.code == 3 and "the privileged helper" in second.err
        elif victim == "server":
            signed_server.process.send_signal(signal.SIGKILL)
            assert client.wait(30) == 9
        else:
            client.send_signal(signal.SIGKILL)
            signed_server.wait_for("session 1: lost")
    assert gone(algorithm)


def test_programs_that_are_refused(
    signed_server: RunningServer, run_client: RunClient, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    good = shipped("reno").image
    stranger = Ed25519PrivateKey.generate()
    refused_by_verifier = controller(cong_avoid="*(volatile u32 *)((char *)sk + 4) = 1;")
    cases = {
        "unsigned": (write(tmp_path, "unsigned", good, None), "offered: not signed"),
        "stranger": (
            write(tmp_path, "stranger", good, stranger),
            "offered: signed by a key that this end does not trust",
        ),
        "truncated": (write(tmp_path, "truncated", good[: len(good) // 2], key), "static check"),
        "text": (write(tmp_path, "text", b"this is no program" * 50, key), "static check"),
        "not_struct_ops": (write(tmp_path, "ls", Path("/bin/true").read_bytes(), key), "static check"),
        "verifier": (write(tmp_path, "verifier", refused_by_verifier, key), "verifier"),
    }
    for name, (path, sentence) in cases.items():
        done = run_client(signed_server, "--ship-cc", path, "get", "/1000")
        assert done.code == 3, (name, done.err)
        assert sentence in done.err, (name, done.err)
        assert "got /1000: 1000 bytes" in done.err, "the session goes on as it was"
    damaged = write(tmp_path, "damaged", good, key)
    damaged.write_bytes(good[:-1] + b"?")
    done = run_client(signed_server, "--ship-cc", damaged, "get", "/1000")
    assert done.code == 3 and "the signature is for another version" in done.err
    too_large = tmp_path / "large.bpf.o"
    too_large.write_bytes(bytes(200_000))
    done = run_client(signed_server, "--ship-cc", too_large, "get", "/1000")
    assert done.code == 3 and "larger than" in done.err
    assert run_client(signed_server, "get", "/1000").code == 0


def test_pinned_accepts_only_the_digest(start_server: StartServer, run_client: RunClient, tmp_path: Path) -> None:
    cubic = write(tmp_path, "cubic", shipped("cubic").image, None)
    reno = write(tmp_path, "reno", shipped("reno").image, None)
    server = start_server("--root", tmp_path, "--accept-cc", "pinned", "--cc-pin", shipped("cubic").digest.hex())
    assert run_client(server, "--ship-cc", cubic, "get", "/1000").code == 0
    refused = run_client(server, "--ship-cc", reno, "get", "/1000")
    assert refused.code == 3 and "digest is not among" in refused.err


def test_a_server_that_takes_no_programs_says_so(
    start_server: StartServer, run_client: RunClient, tmp_path: Path
) -> None:
    cubic = write(tmp_path, "cubic", shipped("cubic").image, None)
    server = start_server("--root", tmp_path)
    done = run_client(server, "--ship-cc", cubic, "get", "/1000")
    assert "the peer takes no programs" in done.err
    assert done.code == 3, done.err
    assert "1000 bytes" in done.err


def test_peer_options_are_set_and_read_back(start_server: StartServer, run_client: RunClient, tmp_path: Path) -> None:
    server = start_server("--root", tmp_path)
    done = run_client(server, "--peer-option", "user_timeout=250ms,congestion=reno,no_delay=off", "get", "/1000")
    assert done.code == 0, done.err
    for sentence in ("server's user_timeout is 250", "server's congestion is reno", "server's no_delay is 0"):
        assert sentence in done.err
    server.wait_for("GET /1000: .* congestion control reno")
    refused = run_client(server, "--peer-option", "send_buffer=1m", "get", "/1000")
    assert refused.code == 3 and "send_buffer: refused" in refused.err
    allowing = start_server("--root", tmp_path, "--allow-option", "send_buffer")
    assert run_client(allowing, "--peer-option", "send_buffer=100k", "get", "/1000").code == 0
