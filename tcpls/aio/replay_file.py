"""What early data was accepted with, in a file: for several processes of one machine, and for their next start."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tcpls.errors import ConfigurationError

logger = logging.getLogger("tcpls")

DEFAULT_CAPACITY = 1 << 20
"""Claims held: about 70 MB."""

PATIENCE = 0.25
"""Seconds that a handshake may wait for other processes, which need less than a millisecond each."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_FORM = "tcpls replay store 1"

_TROUBLE = (OSError, sqlite3.Error, UnicodeDecodeError)
"""What a file, or what is in it, can make of a statement; the last when SQLite's own words are no text."""

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (name BLOB PRIMARY KEY, expires INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ends ON claims (expires);
INSERT OR IGNORE INTO facts VALUES ('held', 0), ('forgotten', 0);
"""


class FileReplayStore:
    """A `ReplayStore` in an SQLite database of mode 0600.

    Raises `ConfigurationError` when it is made and cannot be used; later, whatever goes wrong refuses the claim and is
    said in the log. A process may be killed at any time: a claim is in the file before it is granted. After the
    machine itself went down the last claims may be missing, and so everything before its start counts as unknown; this
    is why no claim has to wait for a disk.
    """

    def __init__(
        self,
        path: Path | str,
        capacity: int = DEFAULT_CAPACITY,
        *,
        owner: int | None = None,
        now: int | None = None,
        boot_id: str = "",
    ) -> None:
        """`owner`: the number of the user who is going to use it, if that is not this one; its folder must be writable
        for that user. `boot_id` tells this start of the machine from others (None: the kernel's own).
        """
        self.path = Path(path)
        self._capacity = capacity
        self._owner = owner
        try:
            self._boot_id = boot_id or _BOOT_ID.read_text().strip()
            self._open(int(time.time() * 1000) if now is None else now)
        except _TROUBLE as error:
            raise ConfigurationError(f"replay store {self.path}: {error}") from None

    def _open(self, now: int) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            status = os.fstat(descriptor)
            self._check(status)
            if self._owner is not None:
                os.fchown(descriptor, self._owner, -1)
        finally:
            os.close(descriptor)
        self._database = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
        self._database.execute("PRAGMA synchronous = OFF")
        with self._transaction():
            self._prepare(now)
        self._file = (status.st_dev, status.st_ino)

    def _check(self, status: os.stat_result) -> None:
        why = ""
        if not stat.S_ISREG(status.st_mode):
            why = "not a regular file"
        # Its user could take claims out of it, root's own case included.
        elif status.st_uid not in (os.geteuid(), self._owner):
            why = "it belongs to another user"
        elif status.st_mode & 0o077:
            why = "others may read or change it: chmod 600"
        if why:
            raise ConfigurationError(f"replay store {self.path}: {why}")

    def _prepare(self, now: int) -> None:
        database = self._database
        there = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        if there and self._fact("form") != _FORM:
            raise ConfigurationError(f"replay store {self.path}: another kind of database; it is left as it is")
        for statement in _TABLES.strip().split(";\n"):
            database.execute(statement.rstrip(";"))
        if self._fact("boot") != self._boot_id:
            facts = (("form", _FORM), ("boot", self._boot_id), ("since", now))
            database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts)
        self.since = self._number("since")
        """Nothing is known of what was claimed before."""

    def _fact(self, name: str) -> str:
        try:
            row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        except sqlite3.OperationalError:
            return ""
        return "" if row is None else str(row[0])

    def _number(self, name: str) -> int:
        try:
            return int(self._fact(name))
        except ValueError:
            raise OSError(f"{name} is not what was written there") from None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Nobody else writes meanwhile, and all of it happens or nothing."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def claim(self, name: bytes, expires: int, now: int) -> bool:
        try:
            status = self.path.stat(follow_symlinks=False)
            if (status.st_dev, status.st_ino) != self._file:
                # Other processes may know another file by now: what is claimed in this one alone is not safe.
                raise OSError("it was moved away or replaced; early data is refused until the next start")
            with self._transaction():
                return self._claim(name, expires, now)
        except _TROUBLE as error:
            logger.warning("replay store %s: %s", self.path, error)
            return False

    def _claim(self, name: bytes, expires: int, now: int) -> bool:
        database = self._database
        # What expires by then may have been claimed and forgotten, should the clock go back.
        forgotten = max(self._number("forgotten"), now)
        gone = database.execute("DELETE FROM claims WHERE expires <= ?", (forgotten,)).rowcount
        held = self._number("held") - gone
        granted = expires > forgotten and held < self._capacity
        if granted:
            granted = database.execute("INSERT OR IGNORE INTO claims VALUES (?, ?)", (name, expires)).rowcount == 1
        facts = ((forgotten, "forgotten"), (held + granted, "held"))
        database.executemany("UPDATE facts SET value = ? WHERE name = ?", facts)
        return granted

    def close(self) -> None:
        self._database.close()
