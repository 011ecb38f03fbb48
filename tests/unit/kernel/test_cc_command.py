"""`tcpls cc`: what it prints, writes and returns."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from tcpls.cli import cc
from tcpls.errors import ConfigurationError, KernelUnavailable
from tcpls.kernel import bpf, privileges
from tests.unit.kernel.objects import ROOT, controller, needs_clang, shipped


def run(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    cc.add_parser(parser.add_subparsers(required=True))
    arguments = parser.parse_args(["cc", *map(str, words)])
    return int(arguments.run(arguments))


@pytest.fixture
def reno(tmp_path: Path) -> Path:
    path = tmp_path / "reno.bpf.o"
    path.write_bytes(shipped("reno").image)
    return path


@needs_clang
def test_build_takes_names_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("build", "reno", ROOT / "cc_programs/vegas/vegas.bpf.c", "-o", tmp_path / "made") == 0
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["reno.bpf.o", "vegas.bpf.o"]
    assert (tmp_path / "made" / "reno.bpf.o").read_bytes() == shipped("reno").image, "builds do not differ by place"
    assert "reno.bpf.o" in capsys.readouterr().out


@needs_clang
def test_build_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="neither a source file nor a program"):
        run("build", "no_such_program")
    broken = tmp_path / "broken.bpf.c"
    broken.write_text("int main(")
    with pytest.raises(ConfigurationError, match="does not compile"):
        run("build", broken, "-o", tmp_path)
    assert not list(tmp_path.glob("*.o*"))
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(KernelUnavailable, match="apt-get install clang"):
        run("build", "reno", "-o", tmp_path)


@needs_clang
def test_inspect_for_people_and_machines(reno: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", reno) == 0
    assert "Dual BSD/GPL" in capsys.readouterr().out
    assert run("inspect", "--json", reno) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["variable"], facts["sha256"]) == ("reno", shipped("reno").digest.hex())
    assert {program["member"] for program in facts["programs"]} == {"ssthresh", "cong_avoid", "undo_cwnd"}


@needs_clang
def test_a_refused_program_is_one_sentence_and_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.bpf.o"
    path.write_bytes(controller(ssthresh="bpf_send_signal(9);"))
    assert run("inspect", path) == 3
    assert capsys.readouterr().err.count("\n") == 1
    path.write_bytes(b"noise")
    assert run("inspect", path) == 3
    assert "static check: not a 64-bit" in capsys.readouterr().err


@needs_clang
def test_keys_signatures_and_their_verification(reno: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("keygen", tmp_path / "lab") == 0
    assert (tmp_path / "lab.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigurationError, match="File exists"):
        run("keygen", tmp_path / "lab")
    run("keygen", tmp_path / "other")
    assert run("verify", "-k", tmp_path / "lab.pub", reno) == 3
    assert run("sign", "-k", tmp_path / "lab.key", reno) == 0
    assert run("verify", "-k", tmp_path / "lab.pub", reno) == 0
    assert run("verify", "-k", tmp_path / "other.pub", reno) == 3
    reno.write_bytes(shipped("vegas").image)
    with pytest.raises(ConfigurationError, match="sign it again"):
        run("verify", "-k", tmp_path / "lab.pub", reno)
    assert run("sign", "-k", tmp_path / "lab.key", reno) == 0, (
        "a stale signature does not stand in the way of a new one"
    )
    capsys.readouterr()


@pytest.mark.kernel
@needs_clang
def test_load_proves_that_this_machine_can(reno: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not bpf.kernel_has_links() or not {privileges.BPF, privileges.NET_ADMIN} <= privileges.held():
        pytest.skip("loading programs needs Linux 6.4 with BTF, CAP_BPF and CAP_NET_ADMIN")
    assert run("load", "--json", "--repeat", "2", reno) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["algorithm"].startswith("tcpls_")
    assert {"static check", "load", "in all", "attach again"} <= set(shown["median_ms"])
    assert run("list", "--json") == 0
    assert shown["algorithm"] not in capsys.readouterr().out
