"""Where the client goes and comes from."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.aio.holes import hole
from tests.commands.conftest import RunClient, StartServer


def test_the_first_that_answers_is_used(start_server: StartServer, run_client: RunClient) -> None:
    server = start_server("--root", "/usr/share/doc/base-files")
    with hole() as dead:
        # The host is a name only: nothing listens at its address.
        done = run_client(
            1, "get", "/10", "--remote", f"127.0.0.9:{dead.endpoint.port}", "--remote", f"127.0.0.1:{server.port}",
            "--local", "127.0.0.5", "--local", "lo", "--servername", "localhost", "-v",
        )  # fmt: skip
    assert done.code == 0, done.err
    assert f"127.0.0.1:{server.port}" in done.err


def test_an_interface_is_looked_up_without_openssl(run_client: RunClient) -> None:
    """pyroute2 would bring it in."""
    done = run_client(1, "--engine", "minicrypto", "--local", "lo")
    assert (done.code, done.err) == (4, "tcpls: 127.0.0.1 port 1 from 127.0.0.1: Connection refused\n")
    script = (
        "import tcpls.no_openssl as door; door.keep_out(['--engine=minicrypto'])\n"
        "from tcpls.aio.addresses import local_addresses\n"
        "assert any(one.loopback for one in local_addresses()); print(door.told())\n"
    )
    alone = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert alone.stdout == "no OpenSSL in this process\n", alone.stderr


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--remote", "example.org"], 2, "--remote: 'example.org' is not an IP address"),
        (["--remote", "[::1]:70000"], 2, "--remote: [::1]:70000: 70000 is not a port"),
        (["--local", "a/b"], 2, "--local: 'a/b' is neither an IP address nor the name of an interface"),
        (["--local", "none0"], 4, "none0: there is no such interface, or it is down, or has no address"),
        (["--local", "::1"], 4, "no local address is of a kind with those of 127.0.0.1"),
        (
            ["--remote", "127.0.0.1:1", "--remote", "[::1]:2"],
            4,
            "127.0.0.1 port 1: Connection refused; ::1 port 2: Connection refused",
        ),
    ],
)
def test_what_cannot_be_gets_a_sentence(run_client: RunClient, words: list[str], code: int, told: str) -> None:
    done = run_client(1, *words)
    assert (done.code, done.err) == (code, f"tcpls: {told}\n")
