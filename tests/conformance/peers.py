"""Who the features are run against, and which version that is here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

SUITES = ("tlsfuzzer", "BoGo")
"""Not peers but sets of tests that others wrote; the page has a table of their own for them."""


def _says(*command: str) -> str:
    """The first number with dots in what a program says of itself."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    program = shutil.which(command[0], path=path)
    if program is None:
        return ""
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=20)
    found = re.search(r"\d+(\.\d+)+\w*", done.stdout)
    return found[0] if found else ""


def _debian(package: str) -> str:
    """NSS's programs do not say their version."""
    command = "dpkg-query", "-W", "-f=${Version}", package
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    return done.stdout.partition(":")[2].partition("-")[0]


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


_VERSIONS: dict[str, Callable[[], str]] = {
    "OpenSSL": lambda: _says("openssl", "version"),
    "GnuTLS": lambda: _says("gnutls-cli", "--version"),
    "NSS": lambda: _debian("libnss3-tools"),
    "Go": lambda: _says("go", "version"),
    "curl": lambda: _says("curl", "--version"),
}


def version_of(peer: str) -> str:
    """Empty for what has no version, or none that can be asked for: what is not known is taken for a Python package."""
    return _VERSIONS.get(peer, lambda: _package(peer))()
