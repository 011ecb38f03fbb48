"""BoringSSL's test runner, where it is built; and the shim that it drives, against our own engine, always."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tcpls.errors import Alert, AlertReceived, HandshakeError, Reason
from tcpls.protocol.base import Role
from tcpls.tls.config import ClientAuth, ClientConfig, ServerConfig
from tcpls.tls.connection import ClientConnection, ServerConnection
from tcpls.tls.early_data import EarlyDataPolicy
from tcpls.tls.ech.configs import write_configs
from tcpls.tls.ech.keys import EchKeys, generate
from tcpls.tls.ech.status import EchStatus
from tcpls.tls.messages import ClientHello
from tcpls.tls.replay import MemoryReplayStore
from tcpls.tls.ticket_keys import TicketKeys
from tcpls.tls.tickets import Ticket
from tests.engine import ENGINE
from tests.engine import NAME as ENGINE_NAME
from tests.interop.bogo.exchange import Exchange
from tests.interop.bogo.flags import UNIMPLEMENTED, Unimplemented, parse
from tests.interop.bogo.handshake import hang_up, shake_hands, turned
from tests.interop.conftest import Pki
from tests.unit.tls.pair import NAME

FOLDER = Path(__file__).parent / "bogo"
ROOT = FOLDER.parents[2]
VARIABLE = "TCPLS_BOGO"
TIMEOUT = 20.0
RUN_TIMEOUT = 1800
SHIM_ID = 0x0102030405060708


@pytest.mark.parametrize(
    ("role", "least"),
    [
        # A shim that refuses everything fails nothing either.
        pytest.param("client", 200, marks=pytest.mark.feature("all of its tests", peer="BoGo", role="client")),
        pytest.param("server", 200, marks=pytest.mark.feature("all of its tests", peer="BoGo", role="server")),
    ],
)
def test_runner(tmp_path: Path, role: str, least: int, record_property: Callable[[str, object], None]) -> None:
    results, said = run(tmp_path, {"TCPLS_BOGO_ROLE": role})
    failed, passed = named(results, "FAIL"), named(results, "PASS")
    record_property("passed", len(passed))
    record_property("of", len(passed) + len(failed))
    assert not failed, said[-20000:]
    assert len(passed) >= least


def test_what_is_left_out_would_fail(tmp_path: Path) -> None:
    """Nothing is on the list of what is not run that could be taken off it. Other protocols are not looked at."""
    left_out = json.loads((FOLDER / "config.json").read_text())["DisabledTests"]
    patterns = [pattern for pattern, reason in left_out.items() if "Another protocol" not in reason]
    assert len(patterns) > 50
    results, _ = run(tmp_path, {}, "-include-disabled", "-test", ";".join(patterns))
    assert named(results, "FAIL")
    assert named(results, "PASS") == []


def run(folder: Path, environment: dict[str, str], *arguments: str) -> tuple[dict[str, str], str]:
    """What became of each test, and what the runner said."""
    runner = os.environ.get(VARIABLE)
    if not runner:
        pytest.skip(f"{VARIABLE} names no binary of BoringSSL's test runner")
    output = folder / "results.json"
    command = [
        runner, "-shim-path", str(FOLDER / "shim"), "-shim-config", str(FOLDER / "config.json"), "-allow-unimplemented",
        "-pipe", "-num-workers", str(os.cpu_count() or 1), "-json-output", str(output), *arguments,
    ]  # fmt: skip
    # The path of a Unix socket is short, and pytest's folders are not.
    with tempfile.TemporaryDirectory() as place, forker(f"{place}/socket", environment) as around:
        done = subprocess.run(
            command,
            cwd=folder,
            env=around,
            timeout=RUN_TIMEOUT,
            stdout=subprocess.PIPE,
            errors="replace",
        )
    results = json.loads(output.read_text())["tests"]
    return {name: result["actual"] for name, result in results.items()}, done.stdout


def named(results: dict[str, str], outcome: str) -> list[str]:
    return sorted(name for name, actual in results.items() if actual == outcome)


@contextmanager
def forker(path: str, changes: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment of shims that are forks of one process, which is there as long as the context.

    `changes` are of the environment: the forks have that of the process.
    """
    command = [sys.executable, "-m", "tests.interop.bogo.forker", path]
    environment = os.environ | {"TCPLS_PYTHON": sys.executable, "TCPLS_TEST_ENGINE": ENGINE_NAME} | changes
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield environment | {"TCPLS_BOGO_FORKER": path}
        finally:
            process.kill()


# The shim alone


class Runner:
    """A listener in the runner's place, with the shim as its only client."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(TIMEOUT)
        self._shim: subprocess.Popen[str] | None = None

    def start(self, *flags: str | Path, environment: dict[str, str] | None = None) -> None:
        port = self._listener.getsockname()[1]
        command = [str(FOLDER / "shim"), "-port", str(port), "-shim-id", str(SHIM_ID), *map(str, flags)]
        environment = environment or os.environ | {"TCPLS_PYTHON": sys.executable, "TCPLS_TEST_ENGINE": ENGINE_NAME}
        self._shim = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    def accept(self) -> socket.socket:
        sock, _ = self._listener.accept()
        sock.settimeout(TIMEOUT)
        assert sock.recv(8, socket.MSG_WAITALL) == SHIM_ID.to_bytes(8, "little")
        return sock

    def finish(self) -> tuple[int, str]:
        """The shim's exit code, and what it said."""
        assert self._shim is not None
        _, said = self._shim.communicate(timeout=TIMEOUT)
        return self._shim.returncode, said

    def close(self) -> None:
        self._listener.close()
        if self._shim is not None:
            self._shim.kill()
            self._shim.communicate(timeout=TIMEOUT)


@pytest.fixture
def runner() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.close()


def serve_flags(pki: Pki) -> list[str | Path]:
    files = pki.certificates["p256"]
    return ["-server", "-cert-file", files.certificate, "-key-file", files.key]


def visit_flags(pki: Pki) -> list[str | Path]:
    return ["-host-name", NAME, "-trust-cert", pki.authority]


def visit(sock: socket.socket, pki: Pki, ticket: Ticket | None = None, **changes: Any) -> Exchange:
    """A client of ours, for a shim that serves."""
    config = ClientConfig(NAME, pki.trust, engine=ENGINE, tickets=1, ticket=ticket)
    connection = ClientConnection(replace(config, **changes), random=os.urandom, time=datetime.now(UTC))
    return Exchange(sock, shake_hands(sock, connection), Role.CLIENT)


def make_server(pki: Pki, keys: TicketKeys, **changes: Any) -> ServerConnection:
    config = ServerConfig((pki.certificates["p256"].identity,), engine=ENGINE, ticket_keys=keys)
    return ServerConnection(replace(config, **changes), random=os.urandom, time=datetime.now(UTC))


def serve(sock: socket.socket, pki: Pki, keys: TicketKeys, **changes: Any) -> Exchange:
    """A server of ours, for a shim that is a client."""
    connection = make_server(pki, keys, **changes)
    return Exchange(sock, shake_hands(sock, connection), Role.SERVER)


def talk(exchange: Exchange) -> None:
    """What the runner does in most of its tests."""
    exchange.write(b"\x00abc")
    assert exchange.read(16) == turned(b"\x00abc")
    exchange.shut_down(check=True)


def test_shim_serves_and_resumes(pki: Pki, runner: Runner) -> None:
    runner.start(*serve_flags(pki), "-resume-count", "1", "-check-close-notify", "-expect-server-name", NAME)
    ticket = None
    for resumed in (False, True):
        sock = runner.accept()
        exchange = visit(sock, pki, ticket)
        assert exchange.established.resumed is resumed
        talk(exchange)
        ticket = exchange.established.ticket(exchange.tickets[0], datetime.now(UTC).timestamp())
        hang_up(sock)
    assert runner.finish() == (0, "")


def test_shim_visits_and_resumes(pki: Pki, runner: Runner) -> None:
    runner.start(*visit_flags(pki), "-resume-count", "1", "-check-close-notify", "-expect-no-hrr")
    keys = TicketKeys(ENGINE, os.urandom)
    for resumed in (False, True):
        sock = runner.accept()
        exchange = serve(sock, pki, keys)
        assert exchange.established.resumed is resumed
        assert exchange.established.server_name == NAME
        talk(exchange)
        hang_up(sock)
    assert runner.finish() == (0, "")


def test_shim_asks_for_a_certificate(pki: Pki, runner: Runner) -> None:
    files = pki.certificates["ed25519"]
    flags: list[str | Path] = [
        "-require-any-client-certificate",
        "-trust-cert",
        pki.authority,
        "-expect-peer-cert-file",
    ]
    runner.start(*serve_flags(pki), *flags, files.certificate, "-check-close-notify")
    sock = runner.accept()
    talk(visit(sock, pki, identities=(files.identity,)))
    hang_up(sock)
    assert runner.finish() == (0, "")


def test_shim_shows_a_certificate(pki: Pki, runner: Runner) -> None:
    files = pki.certificates["rsa"]
    flags: list[str | Path] = ["-new-x509-credential", "-cert-file", files.certificate, "-key-file", files.key]
    runner.start(*visit_flags(pki), *flags, "-expect-selected-credential", "0", "-check-close-notify")
    sock = runner.accept()
    keys = TicketKeys(ENGINE, os.urandom)
    exchange = serve(sock, pki, keys, client_auth=ClientAuth.REQUIRE, client_trust=pki.trust)
    assert exchange.established.peer_certificates == files.identity.chain
    talk(exchange)
    hang_up(sock)
    assert runner.finish() == (0, "")


@pytest.mark.parametrize("accepted", [True, False])
def test_shim_sends_early_data(pki: Pki, runner: Runner, accepted: bool) -> None:
    flags = ["-enable-early-data", "-expect-ticket-supports-early-data", "-on-resume-shim-writes-first"]
    flags += ["-on-resume-expect-accept-early-data" if accepted else "-on-resume-expect-reject-early-data"]
    flags += ["-resume-count", "1", "-on-retry-expect-early-data-reason", "peer_declined"]
    runner.start(*visit_flags(pki), *flags, "-check-close-notify")
    keys = TicketKeys(ENGINE, os.urandom)
    replay = MemoryReplayStore(int(datetime.now(UTC).timestamp() * 1000) - 60_000)
    for resumed in (False, True):
        sock = runner.accept()
        policy = EarlyDataPolicy(replay, limit=1000 if accepted or not resumed else 1)
        server = make_server(pki, keys, early_data=policy)
        exchange = Exchange(sock, shake_hands(sock, server), Role.SERVER)
        assert exchange.established.early_data.accepted is (resumed and accepted)
        assert server.early_records() == ([b"hello"] if resumed and accepted else [])
        talk(exchange)
        hang_up(sock)
    assert runner.finish() == (0, "")


def test_shim_answers_early_data(pki: Pki, runner: Runner) -> None:
    flags = ["-enable-early-data", "-resume-count", "1", "-on-resume-expect-accept-early-data", "-check-close-notify"]
    runner.start(*serve_flags(pki), *flags)
    sock = runner.accept()
    first = visit(sock, pki)
    talk(first)
    hang_up(sock)
    ticket = first.established.ticket(first.tickets[0], datetime.now(UTC).timestamp())
    sock = runner.accept()
    config = ClientConfig(NAME, pki.trust, engine=ENGINE, tickets=1, ticket=ticket, early_data=True)
    client = ClientConnection(config, random=os.urandom, time=datetime.now(UTC))
    assert client.send_early(b"early") == 5
    exchange = Exchange(sock, shake_hands(sock, client), Role.CLIENT)
    assert exchange.established.early_data.accepted
    assert exchange.read(16) == turned(b"early")
    talk(exchange)
    hang_up(sock)
    assert runner.finish() == (0, "")


def test_shim_opens_an_encrypted_hello(pki: Pki, runner: Runner) -> None:
    file = generate(ENGINE, os.urandom, "public.example")
    assert file.private is not None
    private, config = (b64encode(each).decode() for each in (file.private, file.configs[0].write()))
    flags = ["-ech-server-config", config, "-ech-server-key", private, "-ech-is-retry-config", "1"]
    runner.start(*serve_flags(pki), *flags, "-expect-ech-accept", "-expect-server-name", NAME, "-check-close-notify")
    sock = runner.accept()
    talk(visit(sock, pki, ech=file.configs))
    hang_up(sock)
    assert runner.finish() == (0, "")


def test_shim_encrypts_its_hello(pki: Pki, runner: Runner) -> None:
    file = generate(ENGINE, os.urandom, "public.example")
    configs = b64encode(write_configs(file.configs)).decode()
    runner.start(*visit_flags(pki), "-ech-config-list", configs, "-expect-ech-accept", "-check-close-notify")
    sock = runner.accept()
    keys = EchKeys(file.keys(ENGINE, "a file"), file.configs)
    exchange = serve(sock, pki, TicketKeys(ENGINE, os.urandom), ech=keys)
    assert exchange.established.ech is EchStatus.ACCEPTED
    talk(exchange)
    hang_up(sock)
    assert runner.finish() == (0, "")


def test_a_shim_that_is_a_fork(pki: Pki, runner: Runner) -> None:
    with tempfile.TemporaryDirectory() as folder, forker(f"{folder}/socket", {}) as environment:
        for flags, outcome in (((), (0, "")), (("-no-such",), (UNIMPLEMENTED, "unimplemented: the flag -no-such\n"))):
            runner.start(*serve_flags(pki), "-check-close-notify", *flags, environment=environment)
            if not flags:
                sock = runner.accept()
                talk(visit(sock, pki))
                hang_up(sock)
            assert runner.finish() == outcome


def test_shim_exports(pki: Pki, runner: Runner) -> None:
    flags = ["-export-keying-material", "20", "-export-label", "label", "-export-context", "context"]
    runner.start(*serve_flags(pki), *flags, "-shim-writes-first", "-shim-shuts-down", "-check-close-notify")
    sock = runner.accept()
    exchange = visit(sock, pki)
    received = b""
    while len(received) < 25:
        received += exchange.read(25 - len(received))
    assert received == exchange.established.export(b"label", b"context", 20) + b"hello"
    exchange.shut_down(check=True)
    hang_up(sock)
    assert runner.finish() == (0, "")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["-expect-hrr"], "retried: got False, wanted True"),
        (["-select-alpn", "h2"], "application protocol: got b'', wanted b'h2'"),
        (["-expect-curve-id", "24"], "wanted 'secp384r1'"),
        (["-expect-server-name", "another.example"], "wanted 'another.example'"),
        (["-expect-no-server-name"], f"the client sent the server name {NAME}"),
        (["-handshake-never-done"], "the handshake was complete"),
    ],
)
def test_what_is_not_as_expected(pki: Pki, runner: Runner, flags: list[str], said: str) -> None:
    runner.start(*serve_flags(pki), *flags)
    sock = runner.accept()
    try:
        visit(sock, pki)
    except HandshakeError as error:
        assert error.reason is Reason.CONNECTION_CLOSED
    hang_up(sock)
    code, output = runner.finish()
    assert code == 1
    assert said in output


def test_shim_names_the_reason(pki: Pki, runner: Runner) -> None:
    runner.start(*serve_flags(pki))
    sock = runner.accept()
    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
    assert sock.recv(64) == bytes((21, 3, 3, 0, 2, 2, Alert.UNEXPECTED_MESSAGE))
    hang_up(sock)
    code, said = runner.finish()
    assert code == 1
    assert Reason.BAD_RECORD_HEADER.name in said


@pytest.mark.parametrize(
    ("flags", "alert"),
    [
        (["-verify-fail", "-verify-peer"], Alert.HANDSHAKE_FAILURE),
        (["-verify-fail", "-verify-peer", "-use-custom-verify-callback"], Alert.CERTIFICATE_UNKNOWN),
        (["-host-name", "another.example"], Alert.BAD_CERTIFICATE),
    ],
)
def test_shim_verifies(pki: Pki, runner: Runner, flags: list[str], alert: Alert) -> None:
    runner.start(*visit_flags(pki), *flags)
    sock = runner.accept()
    with pytest.raises(AlertReceived) as caught:
        serve(sock, pki, TicketKeys(ENGINE, os.urandom))
    assert caught.value.alert == alert
    hang_up(sock)
    code, said = runner.finish()
    assert code == 1
    assert Reason.BAD_CERTIFICATE.name in said or Reason.WRONG_NAME.name in said


@pytest.mark.parametrize("flags", [["-dtls"], ["-max-version", "771"], ["-curves", "21"], ["-verify-prefs", "513"]])
def test_what_is_not_implemented(runner: Runner, flags: list[str]) -> None:
    runner.start(*flags)
    code, said = runner.finish()
    assert code == UNIMPLEMENTED
    assert said.startswith("unimplemented: ")


def test_peers_of_older_versions(pki: Pki, runner: Runner) -> None:
    runner.start(*serve_flags(pki))
    sock = runner.accept()
    hello = ClientHello(bytes(32), b"", (0xC02F,), {}).write()
    half = len(hello) // 2
    for part in (hello[:half], hello[half:]):
        sock.sendall(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part)
    assert sock.recv(64)[-1] == Alert.PROTOCOL_VERSION
    hang_up(sock)
    assert runner.finish()[0] == UNIMPLEMENTED


def test_flags() -> None:
    line = (
        "-port 0x10 -curves 29 -curves 23 -on-resume-expect-session-miss -on-handshaker-server "
        "-on-shim-on-initial-host-name a -new-x509-credential -cert-file b -signing-prefs 1027 "
        "-new-psk-credential -psk-importer-key YWJj -on-retry-expect-selected-credential 1"
    )
    initial, resume, retry = parse(shlex.split(line))
    assert (initial.port, resume.port, retry.port) == (16, 16, 16)
    assert initial.curves == resume.curves == [29, 23]
    assert (initial.expect_session_miss, resume.expect_session_miss, retry.expect_session_miss) == (False, True, False)
    assert not initial.server
    assert (initial.host_name, resume.host_name) == ("a", "")
    first, second = retry.credentials
    assert (first.cert_file, first.signing_prefs, second.psk_importer_key) == ("b", [1027], b"abc")
    assert (initial.expect_selected_credential, retry.expect_selected_credential) == (None, 1)
    assert not retry.default.cert_file
    with pytest.raises(Unimplemented, match="the flag -no-such"):
        parse(["-server", "-no-such"])


def test_configuration() -> None:
    """Every test that is left out has a reason, and every name that the map gives to an error is one of ours."""
    config = json.loads((FOLDER / "config.json").read_text())
    assert all(reason.endswith(".") for reason in config["DisabledTests"].values())
    names = {f"{reason.name}:" for reason in Reason}
    alerts = {f"sent the alert {alert.label}" for alert in Alert}
    for error, ours in config["ErrorMap"].items():
        assert ours, error
        for each in ours:
            in_words = each[-1] != ":" and not each.startswith("sent the alert")
            assert in_words or each in names | alerts, each
