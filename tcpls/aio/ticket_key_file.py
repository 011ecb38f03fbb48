"""Ticket keys in a file, for several processes of a server, and for its next start."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from tcpls.aio.private_file import PrivateFile
from tcpls.errors import ConfigurationError
from tcpls.tls.ticket_keys import Keys, read_keys, write_keys

logger = logging.getLogger("tcpls")

MOST_FILE_BYTES = 4096
PATIENCE = 0.25
"""Seconds that a handshake may wait for another process that makes a key; then this one makes its own."""


class TicketKeyFile:
    """A `KeyVault` in a file of mode 0600. Reads it once when made, and then raises `ConfigurationError`.

    `owner` is the number of another user that the file may belong to: of the one that this process is going to be.
    Later it says what goes wrong in the log, and the server goes on with the keys that it has: a file of some hundred
    bytes is read by a handshake at most once a second, and written once in the life of a key.
    """

    def __init__(self, path: Path | str, owner: int | None = None) -> None:
        self._file = PrivateFile(path, "ticket keys", MOST_FILE_BYTES, PATIENCE, owner)
        self._read(self._file.read())

    def _read(self, data: bytes) -> Keys:
        try:
            return read_keys(data)
        except ConfigurationError as error:
            raise self._file.error(str(error)) from None

    def load(self) -> Keys | None:
        try:
            return self._read(self._file.read())
        except ConfigurationError as error:
            logger.warning("%s; going on with the keys that this process has", error)
            return None

    def update(self, change: Callable[[Keys], Keys]) -> Keys | None:
        made: list[Keys] = []

        def rewrite(data: bytes) -> bytes:
            made.append(change(self._read(data)))
            return write_keys(made[0])

        try:
            self._file.update(rewrite)
        except ConfigurationError as error:
            logger.warning("%s; going on with a key of this process's own", error)
            return None
        return made[0]
