"""`tcpls proxy` as users run it: processes, curl, ssh, and a target that is this test's."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol

import asyncssh
import pytest
import trustme

from tcpls.proxy.carry import PIECE
from tests.commands.conftest import IMPATIENT, TIMEOUT, Pki, RunningServer

BODY = bytes(range(256)) * 8192
WINDOW = 1 << 17


@dataclass(frozen=True)
class Clients:
    """A client whom the gateway's authority knows, and one whom another does."""

    certificate: Path
    key: Path
    stranger: Path
    stranger_key: Path
    authority: Path


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    folder = tmp_path_factory.mktemp("clients")
    ours, other = trustme.CA(), trustme.CA()
    made = Clients(*(folder / name for name in ("client.pem", "client.key", "other.pem", "other.key", "ca.pem")))
    ours.cert_pem.write_to_path(str(made.authority))
    for authority, name, certificate, key in (
        (ours, "laptop.example", made.certificate, made.key),
        (other, "stranger.example", made.stranger, made.stranger_key),
    ):
        leaf = authority.issue_cert(name)
        certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(str(key))
    return made


class Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def web() -> Iterator[int]:
    """The port of an HTTP server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()


class StartProxy(Protocol):
    def __call__(self, *words: object) -> RunningServer: ...


def command(*words: object) -> list[str]:
    return [str(word) for word in (sys.executable, "-m", "tcpls", "proxy", *words)]


@pytest.fixture
def start() -> Iterator[StartProxy]:
    """`start("gateway", ...)` starts a command that listens, and waits until it does; `port` is the first one's."""
    started: list[RunningServer] = []

    def begin(*words: object) -> RunningServer:
        process = subprocess.Popen(
            command(*words), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        running = RunningServer(process)
        threading.Thread(target=running.follow, daemon=True).start()
        started.append(running)
        running.port = int(running.wait_for(r"^listening on 127\.0\.0\.1:(\d+)")[1])
        return running

    yield begin
    for each in started:
        each.stop()


@dataclass(frozen=True)
class Setup:
    """What both ends are told of each other."""

    pki: Pki
    clients: Clients
    start: StartProxy

    def gateway_words(self, *more: object, port: int = 0) -> list[object]:
        return [
            "gateway", "--listen", f"127.0.0.1:{port}", "-c", self.pki.certificate, "-k", self.pki.key,
            "--client-ca", self.clients.authority, *more,
        ]  # fmt: skip

    def known(self) -> list[object]:
        return ["-c", self.clients.certificate, "-k", self.clients.key]

    def client_words(self, verb: str, gateway: int, *more: object, who: list[object] | None = None) -> list[object]:
        return [
            verb, "--gateway", f"127.0.0.1:{gateway}", "--servername", "localhost", "--ca-certs", self.pki.ca,
            *IMPATIENT, *(self.known() if who is None else who), *more,
        ]  # fmt: skip

    def both(self, target: int, *more: object) -> tuple[RunningServer, RunningServer]:
        gateway = self.start(*self.gateway_words("--allow-egress", f"localhost:{target}", *more))
        return gateway, self.start(*self.client_words("client", gateway.port, "--socks", "127.0.0.1:0"))


@pytest.fixture
def setup(pki: Pki, clients: Clients, start: StartProxy) -> Setup:
    return Setup(pki, clients, start)


def curl(*words: object) -> subprocess.CompletedProcess[bytes]:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    return subprocess.run(
        ["curl", "-sS", *map(str, words)], capture_output=True, timeout=TIMEOUT, env=environment, check=False
    )


def finished(*words: object, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(*words), input=given, capture_output=True, timeout=TIMEOUT, check=False)


def test_curl_by_each_protocol_and_what_the_gateway_writes_down(setup: Setup, web: int) -> None:
    gateway = setup.start(
        *setup.gateway_words("--allow-egress", f"localhost:{web}", "--allow-egress", f"127.0.0.1:{web}")
    )
    client = setup.start(
        *setup.client_words("client", gateway.port, "--socks", "127.0.0.1:0", "--forward", f"0=localhost:{web}")
    )
    forward = client.wait_for(rf"^listening on 127\.0\.0\.1:(\d+) \(to localhost:{web}\)$")[1]
    proxy = f"127.0.0.1:{client.port}"
    for words in (
        ["--socks5-hostname", proxy],
        ["-x", f"socks5://{proxy}"],
        ["-x", f"socks4a://{proxy}"],
        ["-p", "-x", f"http://{proxy}"],
    ):
        done = curl(*words, f"http://localhost:{web}/" if "socks5://" not in words[1] else f"http://127.0.0.1:{web}/")
        assert done.stdout == BODY, (words, done.stderr)
    assert curl(f"http://127.0.0.1:{forward}/").stdout == BODY
    said = gateway.wait_for(
        rf"^laptop\.example, certificate [0-9a-f]{{64}}, verified: localhost:{web} \((127|::).*closed$"
    )
    counts = re.search(r": (\d+) bytes to the target, (\d+) back, [0-9.]+ s, closed", said[0])
    assert counts and int(counts[1]) > 10 and int(counts[2]) > len(BODY)
    # What is not allowed is said in each one's words, and written down.
    assert curl("--socks5-hostname", proxy, "http://localhost:1/").returncode == 97
    assert b"403" in curl("-p", "-x", f"http://{proxy}", "http://localhost:1/").stderr
    gateway.wait_for(r"verified: localhost:1: refused: not allowed by the gateway's rules$")
    assert client.stop() == 143
    assert gateway.stop() == 143


def test_only_those_who_know_a_password_are_served(setup: Setup, web: int, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("# for the test\njoe:secret\n")
    passwords.chmod(0o600)
    gateway = setup.start(*setup.gateway_words("--allow-egress", f"localhost:{web}"))
    words = setup.client_words("client", gateway.port, "--socks", "127.0.0.1:0", "--socks-auth", passwords)
    client = setup.start(*words)
    for scheme in ("socks5h", "http"):
        for user, served in (("joe:secret@", True), ("joe:wrong@", False), ("", False)):
            done = curl("-p", "-x", f"{scheme}://{user}127.0.0.1:{client.port}", f"http://localhost:{web}/")
            assert (done.stdout == BODY) is served, (scheme, user, done.stderr)
    passwords.chmod(0o644)
    done = finished(*words)
    assert done.returncode == 3 and b"others may read it" in done.stderr


@pytest.mark.parametrize("who", ["nobody", "stranger"])
def test_a_client_that_the_gateway_does_not_know_is_refused(setup: Setup, who: str) -> None:
    gateway = setup.start(*setup.gateway_words("--allow-egress", "localhost:1"))
    stranger: list[object] = ["-c", setup.clients.stranger, "-k", setup.clients.stranger_key]
    for verb, words in (("client", ["--socks", "127.0.0.1:0"]), ("connect", ["localhost", "1"])):
        done = finished(*setup.client_words(verb, gateway.port, *words, who=[] if who == "nobody" else stranger))
        assert done.returncode == 5, done.stderr
        assert b"certificate" in done.stderr
    assert gateway.process.poll() is None


def test_a_gateway_that_is_not_trusted_and_one_that_is_not_there(setup: Setup) -> None:
    gateway = setup.start(*setup.gateway_words("--allow-egress", "localhost:1"))
    done = finished(*setup.client_words("client", gateway.port, "--ca-certs", setup.clients.authority))
    assert done.returncode == 6
    gateway.stop()
    assert finished(*setup.client_words("client", gateway.port)).returncode == 4


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--listen", "127.0.0.1:0", "--allow-egress", "a.example:1"], "a gateway knows its clients"),
        (["--listen", "127.0.0.1:0", "--allow-anonymous"], "no --allow-egress names"),
        (["--listen", "0.0.0.0:0", "--allow-anonymous", "--allow-egress", "a.example:1"], "loopback address"),
        (["--allow-anonymous", "--allow-egress", "a.example:1"], "loopback address"),
        (["--listen", "127.0.0.1:0", "--allow-anonymous", "--allow-egress", "a.example"], "HOST:PORTS is wanted"),
        (["--listen", "127.0.0.1:0", "--allow-anonymous", "--allow-egress", "127.0.0.0/8:*"], "one by one"),
        (["--listen", "127.0.0.1:0", "--allow-anonymous", "--allow-egress", "a.example:1", "--alpn", "h2"], "--alpn"),
        (["--listen", "127.0.0.1:0", "--allow-anonymous", "--allow-egress", "a.example:1", "--plain"], "--plain"),
    ],
    ids=[
        "no-clients",
        "no-rules",
        "anonymous-anywhere",
        "anonymous-everywhere",
        "no-ports",
        "too-wide",
        "alpn",
        "plain",
    ],
)
def test_a_gateway_that_would_be_open_or_useless_does_not_start(pki: Pki, words: list[str], why: str) -> None:
    done = finished("gateway", "-c", pki.certificate, "-k", pki.key, *words)
    assert done.returncode == 2 and why in done.stderr.decode(), done.stderr


def test_anonymous_clients_where_that_is_allowed(pki: Pki, start: StartProxy, web: int) -> None:
    own: list[object] = ["-c", pki.certificate, "-k", pki.key, "--allow-egress", f"localhost:{web}"]
    gateway = start("gateway", "--listen", "127.0.0.1:0", *own, "--allow-anonymous")
    words = ["--servername", "localhost", "--ca-certs", pki.ca]
    client = start("client", "--gateway", f"127.0.0.1:{gateway.port}", "--socks", "127.0.0.1:0", *words)
    assert curl("--socks5-hostname", f"127.0.0.1:{client.port}", f"http://localhost:{web}/").stdout == BODY
    gateway.wait_for(r"^anonymous: localhost:")
    anywhere = start("gateway", "--listen", "127.0.0.1:0", *own, "--allow-anonymous=anywhere")
    anywhere.wait_for(r"^warning: --allow-anonymous: whoever reaches this gateway may use it$")


def test_the_gateway_is_started_again_while_the_client_runs(setup: Setup, web: int) -> None:
    gateway, client = setup.both(web)
    proxy = f"127.0.0.1:{client.port}"
    for number in (signal.SIGTERM, signal.SIGKILL):
        open_one = socket.create_connection(("127.0.0.1", client.port), TIMEOUT)
        open_one.sendall(b"\4\1" + web.to_bytes(2, "big") + b"\0\0\0\1\0localhost\0")
        assert open_one.recv(8, socket.MSG_WAITALL) == b"\0\x5a" + bytes(6)
        gateway.process.send_signal(number)
        gateway.process.wait(TIMEOUT)
        # What was open is reset, and not ended as if that were all.
        with pytest.raises(ConnectionResetError):
            open_one.recv(1)
        open_one.close()
        assert curl("--socks5-hostname", proxy, f"http://localhost:{web}/").returncode == 97
        words = setup.gateway_words("--allow-egress", f"localhost:{web}", port=gateway.port)
        gateway = setup.start(*words)
        assert curl("--socks5-hostname", proxy, f"http://localhost:{web}/").stdout == BODY
    client.wait_for(r"^a new session with the gateway$")


def test_connect_joins_standard_input_and_output(setup: Setup) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            sock, _ = listener.accept()
            with sock, sock.makefile("rb") as file:
                sock.sendall(file.read()[::-1])

        target = threading.Thread(target=answer, daemon=True)
        target.start()
        gateway = setup.start(
            *setup.gateway_words("--allow-egress", f"127.0.0.1:{port}", "--allow-egress", "127.0.0.1:1")
        )
        done = finished(*setup.client_words("connect", gateway.port, "127.0.0.1", port), given=BODY)
        assert (done.returncode, done.stdout) == (0, BODY[::-1]), done.stderr
        target.join(TIMEOUT)
    refused = finished(*setup.client_words("connect", gateway.port, "127.0.0.1", 1))
    assert refused.returncode == 4 and b"connection refused" in refused.stderr
    forbidden = finished(*setup.client_words("connect", gateway.port, "example.org", 443))
    assert forbidden.returncode == 3 and b"not allowed by the gateway's rules" in forbidden.stderr


def test_a_connection_that_was_cut_is_no_success(setup: Setup) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        gateway = setup.start(*setup.gateway_words("--allow-egress", f"127.0.0.1:{port}"))
        process = subprocess.Popen(
            command(*setup.client_words("connect", gateway.port, "127.0.0.1", port)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        sock, _ = listener.accept()
        # What is said after the connection was answered: a reset overtakes what was not read yet.
        assert process.stdin is not None
        process.stdin.write(b"x")
        process.stdin.flush()
        assert sock.recv(1) == b"x"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        _, said = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 9 and b"reset the stream" in said


def test_connect_that_is_hung_up_closes_in_order(setup: Setup) -> None:
    """As ssh does it with its ProxyCommand."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        gateway = setup.start(*setup.gateway_words("--allow-egress", f"127.0.0.1:{port}"))
        process = subprocess.Popen(
            command(*setup.client_words("connect", gateway.port, "127.0.0.1", port)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        sock, _ = listener.accept()
        with sock:
            sock.sendall(b"x")
            assert process.stdout is not None and process.stdout.read(1) == b"x"
            process.send_signal(signal.SIGHUP)
            process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0
        gateway.wait_for(r"verified: session closed$")


def resident(process: subprocess.Popen[str]) -> int:
    """Bytes of memory that a process has."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_memory_is_bounded_by_windows_and_not_by_what_is_sent(setup: Setup) -> None:
    """Twenty targets that talk without end, to programs that do not listen."""
    count = 20
    with socket.create_server(("127.0.0.1", 0), backlog=count) as listener, contextlib.ExitStack() as stack:
        port = listener.getsockname()[1]
        words: list[object] = ["--window", WINDOW]
        gateway = setup.start(*setup.gateway_words("--allow-egress", f"localhost:{port}", *words))
        client = setup.start(*setup.client_words("client", gateway.port, "--forward", f"0=localhost:{port}", *words))
        before = [resident(each.process) for each in (gateway, client)]
        programs = [
            stack.enter_context(socket.create_connection(("127.0.0.1", client.port), TIMEOUT)) for _ in range(count)
        ]
        targets = [stack.enter_context(listener.accept()[0]) for _ in programs]
        for target in targets:
            target.setblocking(False)
        sent = 0
        # Until none of them could say anything more for a second.
        while sent < 1 << 30 and (ready := select.select([], targets, [], 1.0)[1]):
            for target in ready:
                with contextlib.suppress(BlockingIOError):
                    sent += target.send(BODY)
        # A window at one end, a send buffer at the other, a piece in the hand of each of their tasks; and the kernel's
        # sockets, which are nobody's memory here, hold the rest.
        most = count * (2 * WINDOW + 2 * PIECE) + (16 << 20)
        assert sent > 2 * most
        after = [resident(each.process) for each in (gateway, client)]
        grown = [now - then for now, then in zip(after, before, strict=True)]
        assert max(grown) < most, (grown, sent)


def test_ssh_by_a_proxy_command(setup: Setup) -> None:
    """A session of ssh that lasts, with asyncssh at both ends, and this command between them."""

    class Server(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return username != "guest"

    async def digest(process: asyncssh.SSHServerProcess[bytes]) -> None:
        process.stdout.write(hashlib.sha256(await process.stdin.read()).digest())
        process.exit(0)

    async def test() -> None:
        key = asyncssh.generate_private_key("ssh-ed25519")
        server = await asyncssh.listen(
            "127.0.0.1", 0, server_factory=Server, server_host_keys=[key], process_factory=digest, encoding=None
        )
        port = server.sockets[0].getsockname()[1]
        words = setup.gateway_words("--allow-egress", f"127.0.0.1:{port}")
        gateway = await asyncio.to_thread(setup.start, *words)
        async with asyncssh.connect(
            "127.0.0.1", port, username="guest", known_hosts=None, config=None, client_keys=None, agent_path=None,
            proxy_command=command(*setup.client_words("connect", gateway.port, "127.0.0.1", port)),
        ) as connection:  # fmt: skip
            for _ in range(3):
                done = await connection.run(input=BODY, encoding=None)
                assert done.stdout == hashlib.sha256(BODY).digest()
        server.close()
        await server.wait_closed()

    asyncio.run(asyncio.wait_for(test(), TIMEOUT))


def sshd_path() -> str | None:
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@pytest.mark.skipif(
    sshd_path() is None or shutil.which("ssh") is None, reason="needs Debian's openssh-server and openssh-client"
)
def test_openssh_by_its_proxy_command(setup: Setup, tmp_path: Path) -> None:
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    shutil.copy(tmp_path / "user.pub", tmp_path / "authorized")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/authorized\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
    )
    daemon = subprocess.Popen(
        [str(sshd_path()), "-D", "-e", "-f", tmp_path / "sshd_config"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert daemon.stderr is not None and "listening" in daemon.stderr.readline()
        gateway = setup.start(*setup.gateway_words("--allow-egress", f"127.0.0.1:{port}"))
        through = " ".join(command(*setup.client_words("connect", gateway.port, "%h", "%p")))
        done = subprocess.run(
            [
                "ssh", "-F", "none", "-o", f"ProxyCommand={through}", "-o", "StrictHostKeyChecking=no",
                "-o", f"UserKnownHostsFile={tmp_path}/known", "-i", tmp_path / "user", "-p", str(port), "127.0.0.1",
                "sha256sum",
            ],
            input=BODY, capture_output=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        expected = subprocess.run(["sha256sum"], input=BODY, capture_output=True, check=True)
        assert done.stdout == expected.stdout, done.stderr
        gateway.wait_for(r"verified: session closed$")
    finally:
        daemon.terminate()
        daemon.wait(TIMEOUT)
