"""What a local program says until it is known where it wants to go, and what it is told: bytes in, bytes out."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Protocol

from tcpls.proxy.message import Code
from tcpls.proxy.target import Target

Passwords = Mapping[bytes, bytes]
"""By user. An empty one lets nobody in; None, where it is allowed, asks nobody."""


class Dialogue(Protocol):
    """One program's. Any bytes lead to a target or to `over`, within a bounded number of them."""

    target: Target | None
    """Where it wants to go, once it has said so: `answer` is awaited then, and no more is received."""
    over: bool
    """Whether there is nothing to wait for: what is to be said is said, and the connection closed."""
    why: str
    """Why it is over, for the log."""

    def receive(self, data: bytes) -> None: ...

    def data_to_send(self) -> bytes:
        """Drains."""

    def answer(self, code: Code) -> None:
        """What became of the target."""

    @property
    def trailing(self) -> bytes:
        """What came behind the request already: it belongs to the connection."""


def knows(passwords: Passwords, user: bytes, password: bytes) -> bool:
    """In a time that says nothing about the password, nor whether there is such a user."""
    kept = passwords.get(user)
    same = hmac.compare_digest(b"" if kept is None else kept, password)
    return same and kept is not None


class Forward:
    """A port that leads to one target: the program says nothing, and is told nothing."""

    over = False
    why = ""
    trailing = b""

    def __init__(self, target: Target) -> None:
        self.target: Target | None = target

    def receive(self, data: bytes) -> None:
        """Never called: the target is known."""

    def data_to_send(self) -> bytes:
        return b""

    def answer(self, code: Code) -> None:
        """There is nobody to tell: a connection that was not made is closed."""
