"""Congestion controllers from the peer: which ones it may have attached here."""

from __future__ import annotations

import argparse
from pathlib import Path

from tcpls import HelperClient, ProgramMode, ProgramPolicy, read_public_key
from tcpls.cli.exits import UsageError


def add(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("congestion controllers from the peer")
    group.add_argument(
        "--accept-cc",
        default="off",
        choices=["off", "pinned", "signed", "authenticated"],
        help="which programs the peer may have attached here (off)",
    )
    group.add_argument("--cc-pin", action="append", default=[], metavar="SHA256", help="a digest for =pinned")
    group.add_argument("--cc-trust", action="append", default=[], metavar="FILE", help="a public key for =signed")


def policy(arguments: argparse.Namespace) -> ProgramPolicy:
    """Raises `UsageError` when the mode and what it needs do not go together, `ConfigurationError` for a key file."""
    match arguments.accept_cc:
        case "pinned":
            if not arguments.cc_pin:
                raise UsageError("--accept-cc pinned needs --cc-pin")
            return ProgramPolicy.pinned(_digest(text) for text in arguments.cc_pin)
        case "signed":
            if not arguments.cc_trust:
                raise UsageError("--accept-cc signed needs --cc-trust")
            return ProgramPolicy.signed(read_public_key(Path(name)) for name in arguments.cc_trust)
        case "authenticated":
            return ProgramPolicy(ProgramMode.AUTHENTICATED)
        case _:
            return ProgramPolicy()


def _digest(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise UsageError(f"--cc-pin {text}: not a SHA-256 in hexadecimal")
    return digest


def spawn_helper(accepted: ProgramPolicy) -> HelperClient | None:
    """The privileged process, started while this process still may, and only when programs are accepted at all."""
    return None if accepted.mode is ProgramMode.OFF else HelperClient.spawn(accepted)
