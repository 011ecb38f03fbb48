"""Pre-shared keys on the command line and in files."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from tcpls import ConfigurationError, ExternalPsk
from tcpls.cli import options, psk
from tcpls.cli.exits import UsageError

KEY = "00112233445566778899aabbccddeeff"


def psks(*words: str) -> tuple[ExternalPsk, ...]:
    parser = argparse.ArgumentParser()
    options.add_common(parser)
    return psk.keys(parser.parse_args(words))


def test_on_the_command_line() -> None:
    assert psks() == ()
    assert psks("--psk", f"a:b:{KEY}", "--psk", f"ü:{KEY.upper()}") == (
        ExternalPsk(b"a:b", bytes.fromhex(KEY)),
        ExternalPsk("ü".encode(), bytes.fromhex(KEY)),
    )
    assert psks("--psk", f"a:{KEY}", "--psk-import") == (ExternalPsk(b"a", bytes.fromhex(KEY), imported=True),)


def test_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"# made today\n\none:%s\n  two:%s  \n\xff:%s" % ((KEY.encode(),) * 3))
    assert [psk.identity for psk in psks("--psk", f"@{file}", "--psk", f"four:{KEY}")] == [
        b"one",
        b"two",
        b"\xff",
        b"four",
    ]


@pytest.mark.parametrize("text", ["", ":", KEY, f":{KEY}", "a:", "a:0", "a:0g", f"{KEY}:a", f"a:{KEY} "])
def test_what_has_not_the_form(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        psks("--psk", text)
    assert KEY not in str(caught.value)
    if text.strip() and not text.endswith(" "):
        (tmp_path / "keys").write_text(f"ok:{KEY}\n{text}\n")
        with pytest.raises(ConfigurationError, match="keys: line 2 is not IDENTITY:HEXKEY") as of_file:
            psks("--psk", f"@{tmp_path / 'keys'}")
        assert KEY not in str(of_file.value)


def test_what_does_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--psk-import needs --psk"):
        psks("--psk-import")
    with pytest.raises(ConfigurationError, match=r"--psk .*nothing: No such file"):
        psks("--psk", f"@{tmp_path / 'nothing'}")
    with pytest.raises(ConfigurationError, match="less than 16 bytes"):
        psks("--psk", "a:00")
