"""What the probe and `tcpls doctor` say, against what the system shows by other means."""

from __future__ import annotations

import argparse
import errno
import json
import os
import socket
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from tcpls.cli import doctor
from tcpls.errors import KernelUnavailable
from tcpls.kernel import bpf, ktls, probe
from tcpls.kernel.probe import Fact
from tcpls.tls.suites import CipherSuite


@pytest.fixture(scope="module")
def facts() -> Iterator[dict[str, Fact]]:
    yield {fact.name: fact for fact in probe.examine()}


def test_what_is_absent_says_how_to_get_it(facts: dict[str, Fact]) -> None:
    assert all(fact.fact for fact in facts.values())
    assert not [fact.name for fact in facts.values() if not fact.ok and not fact.fix]


def test_the_kernel_is_named(facts: dict[str, Fact]) -> None:
    assert facts["version"] == Fact("kernel", "version", True, f"Linux {os.uname().release}", "needs Linux")


def test_capabilities_are_those_of_the_process(facts: dict[str, Fact]) -> None:
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    assert facts["CAP_NET_ADMIN"].ok == bool(effective >> 12 & 1)
    for name, bit in (("CAP_PERFMON", 38), ("CAP_BPF", 39)):
        assert facts[name].ok == bool((effective >> bit | effective >> 21) & 1)


def test_congestion_controllers_are_listed(facts: dict[str, Fact]) -> None:
    with socket.socket() as sock:
        name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
    assert facts["congestion controllers"].ok
    assert name in facts["congestion controllers"].fact


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        (probe.ENOTSUPP, ""),
        (errno.EPERM, "EPERM"),
        (errno.EINVAL, "EINVAL"),
        (errno.ENOSYS, "ENOSYS"),
    ],
)
def test_answers_about_struct_ops(monkeypatch: pytest.MonkeyPatch, number: int, answer: str) -> None:
    def refuse(command: int, attributes: bytes) -> int:
        assert command == 0 and len(attributes) == 64
        raise OSError(number, "refused")

    monkeypatch.setattr(bpf, "bpf", refuse)
    assert probe.struct_ops_answer() == answer
    fact = probe._struct_ops()
    assert fact.ok == (not answer)
    assert fact.ok or "needs" in fact.fix or "seccomp" in fact.fix


def test_no_struct_ops_on_an_unknown_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(command: int, attributes: bytes) -> int:
        raise KernelUnavailable("bpf(2)", "not supported on vax")

    monkeypatch.setattr(bpf, "bpf", refuse)
    assert probe.struct_ops_answer() == "not supported on vax"


def test_struct_ops_needs_privilege() -> None:
    def ask_as_nobody() -> int:
        os.setgroups([])
        os.setresuid(65534, 65534, 65534)
        return 0 if probe.struct_ops_answer() in ("EPERM", "EINVAL", "ENOSYS") else 1

    if os.geteuid():
        pytest.skip("needs root, to give it up")
    assert probe._in_child(ask_as_nobody) == 0


def test_kernel_tls_per_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    aes = CipherSuite.AES_128_GCM_SHA256
    support = ktls.KTLSSupport(frozenset((aes,)), frozenset(), False, "the kernel lacks something")
    monkeypatch.setattr(ktls, "probe", lambda: support)
    monkeypatch.setattr(ktls, "check_accelerated", lambda: ktls.Acceleration("slow", False))
    facts = {fact.name: fact for fact in probe._kernel_tls()}
    assert facts[aes.label].ok and facts[aes.label].fact == "sending"
    absent = facts[CipherSuite.CHACHA20_POLY1305_SHA256.label]
    assert not absent.ok and absent.fix == "the kernel lacks something"
    assert not facts["key update"].ok and "6.14" in facts["key update"].fix
    assert not facts["accelerated AES-GCM"].ok and facts["accelerated AES-GCM"].fact == "slow"


def test_optional_packages_come_from_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["cryptography>=48", 'pytest; extra == "dev"', 'pip>=1; extra == "cli"', "no-such-package; extra == 'lab'"]
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    facts = probe._packages()
    assert [(fact.name, fact.ok) for fact in facts] == [("pip", True), ("no-such-package", False)]
    assert facts[1].fix == "pip install 'tcpls[lab]'"


def run_doctor(*words: str) -> int:
    parser = argparse.ArgumentParser()
    doctor.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["doctor", *words])
    return int(arguments.run(arguments))


def test_doctor_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_doctor("--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert {"group", "name", "ok", "fact", "fix"} == set(report[0])
    assert [entry["name"] for entry in report] == [fact.name for fact in probe.examine()]


def test_doctor_in_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_doctor() == 0
    shown = capsys.readouterr().out
    assert f"Linux {os.uname().release}" in shown and "kernel TLS:" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("no_color", ["", "1"])
def test_doctor_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_color: str
) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert run_doctor() == 0
    shown = capsys.readouterr().out
    assert "how to get it" in shown
    assert ("\x1b[32m" in shown) == (not no_color)


def test_fixes_are_shown_only_where_something_is_absent() -> None:
    facts = [Fact("a", "one", True, "seen", "unneeded"), Fact("a", "two", False, "absent", "do this")]
    assert doctor.plain(facts) == "a:\n  ok  one  seen\n  no  two  absent\n           -> do this\n"
