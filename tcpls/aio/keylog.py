"""The NSS key log file (RFC 9850), for tools that look into captures."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from tcpls.errors import ConfigurationError

logger = logging.getLogger("tcpls")


class FileKeyLog:
    """Appends to a file, which only its owner can read if it is new; if others can, a warning says so.

    Raises `ConfigurationError` when it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(f"key log {path}: {error.strerror}") from None
        status = os.fstat(self._descriptor)
        if status.st_mode & 0o077 or status.st_uid != os.geteuid():
            logger.warning("key log %s: others may read it, and with it what is sent", path)

    def secret(self, label: str, client_random: bytes, secret: bytes) -> None:
        # One write a line: several processes may share the file.
        os.write(self._descriptor, f"{label} {client_random.hex()} {secret.hex()}\n".encode())
