"""A small file of secrets that several processes read and write: always whole, never seen by anybody else."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tcpls.errors import ConfigurationError

PATIENCE = 5.0
"""Seconds that an update waits for another process, which needs milliseconds."""
LOOK_AGAIN = 0.005

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class PrivateFile:
    """`what` is what errors call it; `limit` bounds its size in bytes. Every method raises `ConfigurationError`.

    The file is made with mode 0600, and refused when others may read or change it, or it belongs to another user than
    this process's, or `owner`. It is replaced as a whole, so that readers need no lock and a crash leaves the old one;
    writers lock it. All methods block.
    """

    def __init__(
        self, path: Path | str, what: str, limit: int, patience: float = PATIENCE, owner: int | None = None
    ) -> None:
        self.path = Path(path)
        self._owner = owner
        self._what = what
        self._limit = limit
        self._patience = patience

    def read(self) -> bytes:
        """All of it; nothing when there is no such file."""
        with self._errors():
            try:
                descriptor = self._open(os.O_RDONLY)
            except FileNotFoundError:
                return b""
            try:
                return self._contents(descriptor)
            finally:
                os.close(descriptor)

    def update(self, change: Callable[[bytes], bytes]) -> None:
        """Replaces the contents by what `change` makes of them, which may raise: then nothing is touched."""
        with self._errors():
            descriptor = self._locked()
            try:
                before = self._contents(descriptor)
                after = change(before)
                if after != before:
                    self._replace(after, descriptor)
            finally:
                os.close(descriptor)

    def error(self, reason: str) -> ConfigurationError:
        return ConfigurationError(f"{self._what} {self.path}: {reason}")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self.error("symbolic links are not followed") from None
            raise self.error(error.strerror or str(error)) from None

    def _open(self, flags: int) -> int:
        descriptor = os.open(self.path, flags | _FLAGS, 0o600)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise self.error("not a regular file")
            # Another's file holds secrets that the other knows, root's own case included.
            if status.st_uid not in (os.geteuid(), self._owner):
                raise self.error("it belongs to another user")
            if status.st_mode & 0o077:
                raise self.error("others may read or change it: chmod 600")
            if status.st_size > self._limit:
                raise self.error(f"larger than {self._limit} bytes")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _contents(self, descriptor: int) -> bytes:
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(self._limit)

    def _locked(self) -> int:
        """A descriptor of the file that stands there now, locked by this process alone."""
        until = time.monotonic() + self._patience
        while True:
            descriptor = self._open(os.O_RDWR | os.O_CREAT)
            try:
                self._lock(descriptor, until)
                # Whoever had the lock before may have put another file in its place.
                if _same(os.fstat(descriptor), self.path):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _lock(self, descriptor: int, until: float) -> None:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise self.error(f"another process holds it for more than {self._patience:g} s") from None
                time.sleep(LOOK_AGAIN)

    def _replace(self, contents: bytes, former: int) -> None:
        # 0600 from the first moment on.
        descriptor, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                status = os.fstat(former)
                if status.st_uid != os.geteuid():
                    os.fchown(file.fileno(), status.st_uid, status.st_gid)
                file.write(contents)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _same(status: os.stat_result, path: Path) -> bool:
    try:
        there = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (status.st_dev, status.st_ino) == (there.st_dev, there.st_ino)
