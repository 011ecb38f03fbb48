"""Pre-shared keys on the command line and in files."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from pathlib import Path

from tcpls import ConfigurationError, ExternalPsk
from tcpls.cli.exits import UsageError


def add(parser: argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "--psk",
        action="append",
        default=[],
        metavar="IDENTITY:HEXKEY",
        help="a pre-shared key; @FILE: one such line for each (what stands here, others can see)",
    )
    parser.add_argument("--psk-import", action="store_true", help="import the pre-shared keys (RFC 9258)")
    parser.add_argument(
        "--psk-modes", metavar="LIST", help="how keys and tickets may be used: psk_dhe_ke, or also psk_ke (psk_dhe_ke)"
    )


def _external_psk(text: str, imported: bool) -> ExternalPsk | None:
    """None when the text has not the form IDENTITY:HEXKEY, in which the identity may have colons of its own."""
    identity, _, key = text.rpartition(":")
    if not identity or re.fullmatch(r"([0-9A-Fa-f]{2})+", key) is None:
        return None
    return ExternalPsk(os.fsencode(identity), bytes.fromhex(key), imported)


def _psks_of_file(path: Path, imported: bool) -> Iterator[ExternalPsk]:
    """A key for each line. Raises `ConfigurationError`, which never shows a line."""
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise ConfigurationError(f"--psk {path}: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            psk = _external_psk(line.strip(), imported)
            if psk is None:
                raise ConfigurationError(f"--psk {path}: line {number} is not IDENTITY:HEXKEY")
            yield psk


def keys(arguments: argparse.Namespace) -> tuple[ExternalPsk, ...]:
    """The pre-shared keys. Raises `UsageError` for one that has not the form, `ConfigurationError` for a file."""
    found: list[ExternalPsk] = []
    for text in arguments.psk:
        if text.startswith("@"):
            found += _psks_of_file(Path(text[1:]), arguments.psk_import)
            continue
        psk = _external_psk(text, arguments.psk_import)
        if psk is None:
            raise UsageError("--psk takes IDENTITY:HEXKEY, or @FILE with such lines")
        found.append(psk)
    if arguments.psk_import and not found:
        raise UsageError("--psk-import needs --psk")
    return tuple(found)
