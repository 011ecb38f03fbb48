"""The key log's file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tcpls import ConfigurationError, FileKeyLog
from tcpls.tls.connection import ClientConnection, ServerConnection
from tests.unit.tls.pair import TIME, client_config, seeded, server_config, shake


@pytest.mark.clause("RFC 9850 2")
def test_both_roles_write_the_same_lines(tmp_path: Path) -> None:
    paths = tmp_path / "client", tmp_path / "server"
    client = ClientConnection(client_config(), random=seeded(1), time=TIME, key_log=FileKeyLog(paths[0]))
    server = ServerConnection(server_config(), random=seeded(2), time=TIME, key_log=FileKeyLog(paths[1]))
    shake(client, server)
    lines = paths[0].read_text().splitlines()
    assert sorted(lines) == sorted(paths[1].read_text().splitlines())
    assert sorted(line.split()[0] for line in lines) == [
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_TRAFFIC_SECRET_0",
        "EXPORTER_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_TRAFFIC_SECRET_0",
    ]
    for line in lines:
        _, random, secret = line.split(" ")
        assert (len(bytes.fromhex(random)), len(bytes.fromhex(secret))) == (32, 32)


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        FileKeyLog(tmp_path / "log").secret("LABEL", b"r", b"s")
    finally:
        os.umask(old)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
    FileKeyLog(tmp_path / "log").secret("LABEL", b"r", b"t")
    assert (tmp_path / "log").read_text() == "LABEL 72 73\nLABEL 72 74\n"


def test_it_says_when_others_may_read_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The file may be there already, of another program: it is used, because the user has asked for it."""
    path = tmp_path / "log"
    FileKeyLog(path)
    assert not caplog.text
    path.chmod(0o644)
    FileKeyLog(path).secret("LABEL", b"r", b"s")
    assert "log: others may read it, and with it what is sent" in caplog.text
    assert path.read_text() == "LABEL 72 73\n"
    if os.geteuid() == 0:
        path.chmod(0o600)
        os.chown(path, 1234, -1)
        caplog.clear()
        FileKeyLog(path)
        assert "others may read it" in caplog.text


def test_a_place_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        FileKeyLog(tmp_path)
