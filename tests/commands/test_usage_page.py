"""The examples of docs/usage.md, run as they stand there: only the port is another."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

PAGE = Path(__file__).resolve().parents[2] / "docs" / "usage.md"
TIMEOUT = 60.0
PORT = "8443"

CHAPTERS = {
    "Overview",
    "Initializing the context",
    "Handshake",
    "Connecting with multiple addresses",
    "Adding addresses",
    "Managing the connection object",
    "Adding and closing streams",
    "Sending and receiving data",
    "asyncio parity",
}


@dataclass(frozen=True)
class Example:
    """A program, and what it is said to print."""

    name: str
    program: str
    prints: str


def _examples() -> list[Example]:
    """Raises `ValueError` for a program without what it prints, or the other way round."""
    found: list[Example] = []
    title, count = "", 0
    pattern = r"^## ([^\n]*)$|^```python\n(.*?)^```\n\n```text\n(.*?)^```$|^```(python|text)$"
    for match in re.finditer(pattern, PAGE.read_text(), re.MULTILINE | re.DOTALL):
        heading, program, prints, alone = match.groups()
        if alone:
            raise ValueError(f"{title}: a block of {alone} stands alone")
        if heading:
            title, count = heading, 0
        else:
            count += 1
            found.append(Example(f"{title} {count}".replace(" ", "-"), program, prints))
    return found


EXAMPLES = _examples()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("usage")
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    (made / "ca.pem").write_bytes(authority.cert_pem.bytes())
    (made / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    (made / "key.pem").write_bytes(leaf.private_key_pem.bytes())
    (made / "key.pem").chmod(0o600)
    return made


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_prints_what_the_page_says(example: Example, folder: Path) -> None:
    program = example.program.replace(PORT, str(_free_port()))
    environment = {key: value for key, value in os.environ.items() if key != "SSLKEYLOGFILE"}
    done = subprocess.run(
        # Warnings are errors: an example leaves nothing open and awaits everything.
        [sys.executable, "-W", "error", "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == example.prints
    # A server logs what it refuses; nothing else may be said there.
    assert all("no session: " in line for line in done.stderr.splitlines()), done.stderr


def test_every_chapter_is_there() -> None:
    chapters = set(re.findall(r"^## (.*)$", PAGE.read_text(), re.MULTILINE))
    assert chapters == CHAPTERS
    # All but the overview show something.
    assert {example.name.rpartition("-")[0] for example in EXAMPLES} == {
        name.replace(" ", "-") for name in CHAPTERS - {"Overview"}
    }
