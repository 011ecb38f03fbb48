"""`--remote` and `--local`: the addresses that a session goes to and comes from."""

from __future__ import annotations

import argparse

from tcpls import ConfigurationError, Endpoint, parse_local
from tcpls.cli.exits import UsageError


def add(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "addresses: the first that answers begins the session, and a connection for each other one joins it"
    )
    group.add_argument(
        "--remote",
        action="append",
        default=[],
        metavar="ADDR[:PORT]",
        help="an address of the server, in place of those of HOST; may be repeated; IPv6 with a port is [ADDR]:PORT",
    )
    group.add_argument(
        "--local",
        action="append",
        default=[],
        metavar="ADDR|INTERFACE",
        help="come from this address, or from the addresses of this interface; may be repeated",
    )


def remotes(arguments: argparse.Namespace, port: int) -> tuple[Endpoint, ...]:
    """Where to; `port` is for those without. Raises `UsageError` for what is no address."""
    try:
        return tuple(Endpoint.parse(text, port) for text in arguments.remote)
    except ConfigurationError as error:
        raise UsageError(f"--remote: {error}") from None


def locals_(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Where from. Raises `UsageError` for what is neither an address nor a name."""
    try:
        for text in arguments.local:
            parse_local(text)
    except ConfigurationError as error:
        raise UsageError(f"--local: {error}") from None
    return tuple(arguments.local)
