"""`tcpls ech`: what it writes, and what it says of it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tcpls.cli.exits import Exit
from tcpls.cli.main import main
from tests.unit.tls.ech.test_configs import PUBLISHED


def test_a_new_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ech.pem"
    words = ["ech", "keygen", "--public-name", "public.example", "--config-id", "9", "-o", str(path)]
    assert main(words) == Exit.OK
    said = capsys.readouterr().out
    assert "public.example" in said and "config id     9\n" in said
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # A key is not lost by a second call.
    assert main(words) == Exit.FILES
    capsys.readouterr()
    assert main(["ech", "show", str(path)]) == Exit.OK
    shown = capsys.readouterr().out
    assert shown == said.partition("\n")[2]
    assert "private key   in this file" in shown and "usable        yes" in shown


def test_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ech", "keygen", "--public-name", "a.example", "--kem", "p256"]) == Exit.OK
    path = tmp_path / "ech.pem"
    path.write_text(capsys.readouterr().out)
    assert main(["ech", "show", str(path)]) == Exit.OK
    assert "secp256r1" in capsys.readouterr().out


def test_base64(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ech", "show", PUBLISHED]) == Exit.OK
    said = capsys.readouterr().out
    assert "example.com" in said and "private key   not here" in said and f"ech={PUBLISHED}" in said


def test_a_long_base64_is_no_name_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ech", "show", "A" * 5000]) == Exit.FILES
    assert "no list of ECH configurations" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["ech", "show", "nonsense"], "'nonsense', which is no file"),
        (["ech", "keygen", "--public-name", "192.0.2.1"], "not a host name"),
        (["ech", "keygen", "--public-name", "a.example", "-o", "/nonexistent/x"], "/nonexistent/x"),
    ],
)
def test_complaints(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == Exit.FILES
    assert complaint in capsys.readouterr().err
