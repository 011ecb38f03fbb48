"""Files of secrets: their modes, who may use them, and what many processes do to one at the same time."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tcpls.aio.private_file import PrivateFile
from tcpls.errors import ConfigurationError


def private(path: Path, limit: int = 1000, patience: float = 0.05) -> PrivateFile:
    return PrivateFile(path, "secrets", limit, patience)


def test_it_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    file = private(tmp_path / "file")
    assert file.read() == b""
    assert not (tmp_path / "file").exists()
    before = os.umask(0)
    try:
        file.update(lambda data: data + b"one")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert file.read() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    file = private(tmp_path / "file")
    file.update(lambda data: b"kept")

    def fail(data: bytes) -> bytes:
        raise ConfigurationError("no")

    with pytest.raises(ConfigurationError):
        file.update(fail)
    assert file.read() == b"kept"
    file.update(lambda data: data + b" and more")
    assert file.read() == b"kept and more"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622, 0o666, 0o610])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    path.chmod(mode)
    for use in (private(path).read, lambda: private(path).update(lambda data: b"y")):
        with pytest.raises(ConfigurationError, match=r"secrets .*file: others may read or change it: chmod 600"):
            use()
    assert path.read_bytes() == b"x"


def _link(path: Path) -> None:
    (path.parent / "target").write_bytes(b"secret")
    path.symlink_to(path.parent / "target")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_link, "symbolic links are not followed"),
        (lambda path: path.mkdir(), "(not a regular file|Is a directory)"),
        (lambda path: os.mkfifo(path, 0o600), "not a regular file"),
        (lambda path: path.write_bytes(bytes(1001)) and path.chmod(0o600), "larger than 1000 bytes"),
    ],
)
def test_what_is_no_file_of_ours_is_refused(tmp_path: Path, make: object, reason: str) -> None:
    path = tmp_path / "file"
    assert callable(make)
    make(path)
    for use in (private(path).read, lambda: private(path).update(lambda data: b"y")):
        with pytest.raises(ConfigurationError, match=reason):
            use()


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        private(tmp_path / "no" / "file").update(lambda data: b"x")


def test_another_users_file(tmp_path: Path) -> None:
    """Refused, root's case included, unless that user was named; then it stays that user's."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    path = tmp_path / "file"
    path.write_bytes(b"x")
    path.chmod(0o600)
    os.chown(path, 1234, 1235)
    for other in (None, 4321):
        file = PrivateFile(path, "secrets", 1000, owner=other)
        for use in (file.read, lambda file=file: file.update(lambda data: b"y")):
            with pytest.raises(ConfigurationError, match="it belongs to another user"):
                use()
    PrivateFile(path, "secrets", 1000, owner=1234).update(lambda data: data + b"y")
    status = path.stat()
    assert (path.read_bytes(), status.st_uid, status.st_gid, status.st_mode & 0o777) == (b"xy", 1234, 1235, 0o600)


def test_a_lock_that_is_never_released_ends_in_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    private(path).update(lambda data: b"x")
    with path.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(ConfigurationError, match=r"another process holds it for more than 0.05 s"):
            private(path).update(lambda data: b"y")
        assert private(path).read() == b"x", "readers need no lock"
    private(path).update(lambda data: b"y")


COUNT = """
import sys
from tcpls.aio.private_file import PrivateFile
file = PrivateFile(sys.argv[1], "count", 1000, 30)
for _ in range(50):
    file.update(lambda data: b"%d" % (int(data or b"0") + 1))
"""


def test_no_update_is_lost_among_processes(tmp_path: Path) -> None:
    path = tmp_path / "count"
    running = [subprocess.Popen([sys.executable, "-c", COUNT, str(path)]) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    assert path.read_bytes() == b"200"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]
