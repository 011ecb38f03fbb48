"""Giving up root."""

from __future__ import annotations

import os
import pwd

from tcpls.errors import ConfigurationError
from tcpls.kernel import privileges


def _entry(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise ConfigurationError(f"--user: there is no user {user}") from None


def number_of(user: str) -> int:
    """Raises `ConfigurationError`."""
    return _entry(user).pw_uid


def become(user: str) -> None:
    """Makes this process an ordinary user's, for good: groups, group, user, no capability and no way back to one.

    Raises `ConfigurationError`.
    """
    entry = _entry(user)
    if os.geteuid() not in (0, entry.pw_uid):
        raise ConfigurationError(f"--user {user}: only root can become another user")
    privileges.become(entry.pw_uid, frozenset(), gid=entry.pw_gid)


def held() -> str:
    """What this process may do that an ordinary user's may not; "" when that is nothing."""
    count = len(privileges.held())
    parts = ["root"] if os.geteuid() == 0 else []
    return ", ".join([*parts, f"{count} capabilities"]) if count else "".join(parts)
