"""The replay store in a file: shared, bounded, and closed whenever it cannot know."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tcpls.aio.replay_file import FileReplayStore
from tcpls.errors import ConfigurationError


def store(path: Path, now: int = 1000, capacity: int = 10, boot_id: str = "this start") -> FileReplayStore:
    return FileReplayStore(path, capacity, now=now, boot_id=boot_id)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "replay"


@pytest.mark.clause("RFC 8446 8.1")
def test_a_name_is_claimed_once(path: Path) -> None:
    first = store(path)
    assert first.since == 1000
    assert path.stat().st_mode & 0o777 == 0o600
    assert first.claim(b"a", 5000, 1000)
    assert not first.claim(b"a", 5000, 1001)
    second = store(path, 3000)
    # Another process, or the next start: it knows what the first one has claimed, and since when.
    assert second.since == 1000
    assert not second.claim(b"a", 5000, 3000)
    assert second.claim(b"b", 6000, 3000)
    assert not first.claim(b"b", 6000, 3001)


@pytest.mark.clause("RFC 8446 8.2")
def test_what_is_alive_is_not_forgotten(path: Path) -> None:
    full = store(path, capacity=2)
    assert full.claim(b"a", 5000, 1000)
    assert full.claim(b"b", 3000, 1000)
    assert not full.claim(b"c", 9000, 2999)
    assert full.claim(b"c", 9000, 3000)
    assert not full.claim(b"b", 3000, 3000)
    # The clock goes back: b was forgotten, and with it everything that would have expired by then.
    assert not full.claim(b"b", 3000, 2000)
    assert not full.claim(b"d", 2500, 2000)
    assert not full.claim(b"a", 5000, 2000)
    # The room that is left is counted right.
    assert full.claim(b"d", 9000, 5000)
    assert not full.claim(b"e", 9000, 5000)


@pytest.mark.clause("RFC 8446 8.2")
def test_another_start_of_the_machine_knows_nothing_of_before(path: Path) -> None:
    store(path, 1000, boot_id="first").claim(b"a", 9000, 1500)
    later = store(path, 4000, boot_id="second")
    assert later.since == 4000
    assert not later.claim(b"a", 9000, 4000)
    assert store(path, 5000, boot_id="second").since == 4000


def test_a_file_that_was_replaced_is_not_used_any_more(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = store(path)
    assert first.claim(b"a", 5000, 1000)
    path.rename(path.with_suffix(".old"))
    assert not first.claim(b"b", 5000, 1000)
    assert "No such file" in caplog.text
    assert store(path, 2000).claim(b"b", 5000, 2000)
    assert not first.claim(b"c", 5000, 2000)
    assert "moved away or replaced" in caplog.text


def test_a_store_that_somebody_holds_refuses(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    waiting = store(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert not waiting.claim(b"a", 5000, 1000)
    assert "locked" in caplog.text
    other.execute("ROLLBACK")
    assert waiting.claim(b"a", 5000, 1000)


def test_a_damaged_store_refuses(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    damaged = store(path)
    assert damaged.claim(b"a", 5000, 1000)
    damaged.close()
    assert not damaged.claim(b"b", 5000, 1000)
    assert "closed" in caplog.text
    path.write_bytes(b"not a database at all" * 400)
    with pytest.raises(ConfigurationError, match="not a database"):
        store(path)


def test_a_schema_that_is_no_text(path: Path) -> None:
    """What SQLite says of it holds the bytes themselves."""
    store(path).close()
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE claims", b"CREATE TABL\xff claims"))
    with pytest.raises(ConfigurationError, match="replay store"):
        store(path)


def test_files_that_are_not_taken(path: Path, tmp_path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE facts (name TEXT, value)")
    other.close()
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="another kind"):
        store(path)
    path.unlink()
    path.touch(0o644)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        store(path)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(ConfigurationError, match="symbolic"):
        store(link)
    with pytest.raises(ConfigurationError, match="No such file"):
        store(tmp_path / "nowhere" / "replay")


def test_another_users_store(path: Path) -> None:
    """Whoever has it can take claims out of it. It may be of the user that this process is going to be."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    store(path).close()
    os.chown(path, 1234, -1)
    for owner in (None, 4321):
        with pytest.raises(ConfigurationError, match="it belongs to another user"):
            FileReplayStore(path, 10, now=1000, boot_id="this start", owner=owner)
        assert path.stat().st_uid == 1234
    FileReplayStore(path, 10, now=1000, boot_id="this start", owner=1234).close()
    os.chown(path, 0, -1)
    FileReplayStore(path, 10, now=1000, boot_id="this start", owner=1234).close()
    assert path.stat().st_uid == 1234


def test_what_is_no_file(path: Path) -> None:
    os.mkfifo(path, 0o600)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        store(path)


@pytest.mark.parametrize("fact", ["since", "forgotten", "held"])
@pytest.mark.parametrize("value", ["yesterday", b"\xff\xfe", None])
def test_facts_that_are_none(path: Path, caplog: pytest.LogCaptureFixture, fact: str, value: object) -> None:
    store(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("UPDATE facts SET value = ? WHERE name = ?", (value, fact))
    other.close()
    if fact == "since":
        with pytest.raises(ConfigurationError, match="not what was written"):
            store(path)
    else:
        assert not store(path).claim(b"a", 5000, 1000)
        assert "not what was written" in caplog.text


CLAIM_ALL = """
import sys
from tcpls.aio.replay_file import FileReplayStore
store = FileReplayStore(sys.argv[1], now=1000)
print("ready", flush=True)
sys.stdin.readline()
for number in range(400):
    if store.claim(b"%d" % number, 1 << 40, 2000):
        print(number, flush=True)
print("done", flush=True)
"""


def _processes(path: Path, count: int) -> list[subprocess.Popen[str]]:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM_ALL, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(count)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    return processes


@pytest.mark.clause("RFC 8446 8.1")
def test_several_processes_at_once(path: Path) -> None:
    """Of all claims of a name, in whatever process, one is granted. One process is killed in the middle."""
    processes = _processes(path, 3)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    victim = processes[0]
    assert victim.stdout is not None
    said = [victim.stdout.readline() for _ in range(3)]
    victim.send_signal(signal.SIGKILL)
    granted = [line for line in [*said, *victim.stdout.read().splitlines()] if line.strip().isdigit()]
    for process in processes[1:]:
        assert process.stdout is not None
        lines = process.stdout.read().split()
        assert lines[-1] == "done"
        granted += lines[:-1]
    for process in processes:
        process.communicate(timeout=60)
    numbers = [int(line) for line in granted]
    assert len(numbers) == len(set(numbers))
    # The one that was killed may have taken one more than it could tell.
    assert 399 <= len(numbers) <= 400
    assert not FileReplayStore(path).claim(b"7", 1 << 40, 5000)
