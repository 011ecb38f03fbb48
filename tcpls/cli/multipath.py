"""The options about several connections of one session, and what becomes of it when one fails."""

from __future__ import annotations

import argparse
import math
from typing import Any

from tcpls.cli.exits import UsageError
from tcpls.protocol.base import SessionConfig
from tcpls.protocol.schedulers import SCHEDULERS

_DEFAULTS = SessionConfig()


def add(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("connections of a session")
    group.add_argument(
        "--failover",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep what the peer has not acknowledged, and go on over another connection when one fails",
    )
    group.add_argument(
        "--multipath",
        choices=list(SCHEDULERS),
        metavar="[=SCHEDULER]",
        help=f"use several connections at a time: {', '.join(SCHEDULERS)} (without this: backup; alone: weighted)",
    )
    group.add_argument(
        "--max-connections", type=int, default=8, metavar="N", help="connections of a session at a time, 1 to 256 (8)"
    )
    group.add_argument(
        "--path-timeout",
        type=float,
        default=_DEFAULTS.path_timeout,
        metavar="SECONDS",
        help="silence after which a connection is given up where there is another way (2; 0: only TCP itself tells)",
    )
    group.add_argument(
        "--reconnect-timeout",
        type=float,
        default=_DEFAULTS.reconnect_timeout,
        metavar="SECONDS",
        help="how long a session without a connection waits for one (30)",
    )
    group.add_argument(
        "--user-timeout",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="without acknowledgment for so long, TCP gives a connection up (60)",
    )


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """For either configuration. Raises `UsageError`."""
    if not 1 <= arguments.max_connections <= 256:
        raise UsageError(f"--max-connections {arguments.max_connections}: 1 to 256")
    return {
        "failover": arguments.failover,
        "max_connections": arguments.max_connections,
        "scheduler": arguments.multipath or "backup",
        "user_timeout": _seconds("--user-timeout", arguments.user_timeout),
    }


def session_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """For `SessionConfig`. Raises `UsageError`."""
    return {
        "path_timeout": _seconds("--path-timeout", arguments.path_timeout),
        "reconnect_timeout": _seconds("--reconnect-timeout", arguments.reconnect_timeout),
    }


def _seconds(name: str, value: float) -> float:
    if not math.isfinite(value) or not 0 <= value <= 3600:
        raise UsageError(f"{name} {value:g}: 0 to 3600 seconds")
    return value
