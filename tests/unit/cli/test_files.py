"""What the server opens for a request, and what it leaves behind of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tcpls.cli.files import FileService


@pytest.fixture
def service(tmp_path: Path) -> FileService:
    (tmp_path / "page").write_bytes(b"hello")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    return FileService(tmp_path.resolve())


def test_a_regular_file_is_opened(service: FileService) -> None:
    file = service.open("/page")
    assert file is not None
    with file:
        assert file.read() == b"hello"


@pytest.mark.parametrize("target", ["/", "/folder", "/pipe", "/missing", "/../page%00"])
def test_nothing_else_is_opened_and_no_descriptor_stays(service: FileService, target: str) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert service.open(target) is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before
