"""`tcpls lab`: what it says where it cannot run."""

from __future__ import annotations

import os
import sys

import pytest

from tcpls.cli.exits import Exit
from tcpls.cli.main import main
from tcpls.lab import devices, network, over_tcp
from tcpls.lab.scenarios import SCENARIOS


def test_it_lists_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "list"]) == Exit.OK
    said = capsys.readouterr().out
    for name, scenario in SCENARIOS.items():
        assert name in said
        assert scenario.about in said


def _fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["lab", "run", *words])
    said = capsys.readouterr().err
    assert said.count("\n") == 1, "one sentence"
    return code, said


@pytest.mark.parametrize(
    ("words", "what"), [(["nowhere"], "scenario nowhere"), (["migration", "--transport", "quic"], "transport quic")]
)
def test_unknown_names(words: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = _fails(words, capsys)
    assert code == Exit.USAGE
    assert what in said


def test_without_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    code, said = _fails(["migration"], capsys)
    assert code == Exit.KERNEL
    assert "needs root" in said


def test_without_tun_devices(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(network, "TUN_DEVICE", devices.TUN_DEVICE + "-missing")
    code, said = _fails(["migration"], capsys)
    assert code == Exit.KERNEL
    assert "modprobe tun" in said


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(network, "unavailable", lambda: None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, said = _fails(["migration"], capsys)
    assert code == Exit.FILES
    assert "tcpls[lab]" in said


def test_without_multipath_tcp(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(network, "unavailable", lambda: None)
    # A protocol that no kernel has.
    monkeypatch.setattr(over_tcp, "IPPROTO_MPTCP", 253)
    folder = str(tmp_path_factory.mktemp("out"))
    code, said = _fails(["migration", "--transport", "mptcp", "--no-plot", "--output", folder], capsys)
    assert code == Exit.KERNEL
    assert "CONFIG_MPTCP" in said
