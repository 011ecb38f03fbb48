"""Giving up root."""

from __future__ import annotations

import os
import pwd

from tcpls.errors import ConfigurationError


def become(user: str) -> None:
    """Makes this process an ordinary user's: groups, group and user. Raises `ConfigurationError`."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise ConfigurationError(f"--user: there is no user {user}") from None
    if os.geteuid() == entry.pw_uid:
        return
    try:
        os.setgroups([])
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    except PermissionError:
        raise ConfigurationError(f"--user {user}: only root can become another user") from None
