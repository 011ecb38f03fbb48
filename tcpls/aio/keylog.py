"""The NSS key log file (RFC 9850), for tools that look into captures."""

from __future__ import annotations

import os
from pathlib import Path

from tcpls.errors import ConfigurationError


class FileKeyLog:
    """Appends to a file that only its owner can read. Raises `ConfigurationError` when it cannot be opened."""

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(f"key log {path}: {error.strerror}") from None

    def secret(self, label: str, client_random: bytes, secret: bytes) -> None:
        # One write a line: several processes may share the file.
        os.write(self._descriptor, f"{label} {client_random.hex()} {secret.hex()}\n".encode())
