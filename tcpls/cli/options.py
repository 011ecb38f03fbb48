"""What both commands understand: endpoints, common options, and how they become a configuration."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tcpls import (
    KTLS,
    ConfigurationError,
    FileKeyLog,
    Negotiate,
    OptionPolicy,
    Padding,
    SessionConfig,
)
from tcpls.cli import multipath, programs, psk
from tcpls.cli.exits import UsageError
from tcpls.observe import NULL_KEY_LOG, KeyLog
from tcpls.tls.engines.libraries import ENGINE_NAMES
from tcpls.tls.extensions import MAX_RECORD_SIZE_LIMIT

DEFAULT_PORT = 4433


def parse_endpoint(words: list[str]) -> tuple[str, int, list[str]]:
    """`HOST PORT ...`, `HOST:PORT ...`, `[V6]:PORT ...` or `HOST ...`: host, port, and the words behind.

    Raises `UsageError` for a port that is none.
    """
    if not words:
        return "", DEFAULT_PORT, []
    first, rest = words[0], words[1:]
    bracketed = re.fullmatch(r"\[([^]]+)\](?::(\d+))?", first)
    if bracketed:
        host, port = bracketed[1], bracketed[2]
    elif first.count(":") == 1:
        host, port = first.split(":")
    else:
        host, port = first, None
    if port is None and rest and re.fullmatch(r"\d+", rest[0]):
        port = rest.pop(0)
    if port is None:
        return host, DEFAULT_PORT, rest
    if not port.isdigit() or not 0 <= int(port) <= 65535:
        raise UsageError(f"{port!r} is not a port")
    return host, int(port), rest


BARE = {"--ktls": "--ktls=tx", "--multipath": "--multipath=weighted"}


def parse(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, bare: Mapping[str, str] = BARE
) -> argparse.Namespace:
    """Options may stand between the words. The `bare` ones take no word behind them for their value."""
    words = sys.argv[1:] if argv is None else argv
    return parser.parse_intermixed_args([bare.get(word, word) for word in words])


def add_common(parser: argparse.ArgumentParser) -> None:
    """What both roles have."""
    _add_tls(parser)
    _add_transport(parser)
    multipath.add(parser)
    programs.add(parser)
    process = parser.add_argument_group("process")
    process.add_argument("--user", metavar="NAME", help="become this user once everything that needs root is done")
    process.add_argument("-v", "--verbose", action="count", default=0, help="say more")


def _add_tls(parser: argparse.ArgumentParser) -> None:
    tls = parser.add_argument_group("TLS")
    tls.add_argument("--suites", metavar="LIST", help="cipher suites in order, by standard name, comma-separated")
    tls.add_argument("--groups", metavar="LIST", help="key exchange groups in order, for example X25519MLKEM768,x25519")
    tls.add_argument("--alpn", metavar="LIST", help="application protocols in order, comma-separated")
    tls.add_argument(
        "--engine",
        default="openssl",
        choices=ENGINE_NAMES,
        help="the cryptographic library",
    )
    psk.add(tls)
    tls.add_argument(
        "--padding",
        metavar="[handshake:]N",
        help="pad records to a multiple of N bytes, with handshake: those of the handshake alone",
    )
    tls.add_argument(
        "--record-size-limit",
        type=int,
        default=MAX_RECORD_SIZE_LIMIT,
        metavar="N",
        help="bytes that the peer may put into a record, 64 to 16385; below 10242 with --plain only",
    )
    tls.add_argument("-l", "--secrets-log", metavar="FILE", help="write TLS secrets to FILE (also: SSLKEYLOGFILE)")


def _add_transport(parser: argparse.ArgumentParser) -> None:
    transport = parser.add_argument_group("transport")
    transport.add_argument(
        "--ktls",
        default="off",
        choices=["off", "tx", "require"],
        metavar="[=require]",
        help="let the kernel protect what is sent, where it can; with =require, exit 8 where it cannot",
    )
    transport.add_argument("--congestion", default="", metavar="NAME", help="congestion control of this end's sockets")
    transport.add_argument("--plain", action="store_true", help="ordinary TLS 1.3 only: no TCPLS")
    transport.add_argument("--require-tcpls", action="store_true", help="refuse peers without TCPLS (exit 7)")
    transport.add_argument(
        "--allow-option", action="append", default=[], metavar="NAME", help="a TCP option that the peer may set here"
    )


def read_bytes(name: str) -> bytes:
    """A file's contents. Raises `ConfigurationError`."""
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{name}: {error.strerror}") from None


def split(value: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if value else ()


def _padding(text: str | None) -> Padding:
    """Raises `UsageError`."""
    if text is None:
        return Padding()
    scope, _, number = text.rpartition(":")
    if scope not in ("", "handshake") or not number.isdigit():
        raise UsageError(f"--padding {text}: a number of bytes, or handshake: and one")
    size = int(number)
    return Padding(handshake=size, data=1 if scope else size)


def key_log(path: str | None, environment: Mapping[str, str] = os.environ) -> KeyLog:
    name = path or environment.get("SSLKEYLOGFILE")
    return FileKeyLog(Path(name)) if name else NULL_KEY_LOG


def _option_policy(names: list[str]) -> OptionPolicy:
    """The default policy, and what the user adds to it. Raises `UsageError` for an unknown name."""
    default = OptionPolicy()
    try:
        return replace(default, allowed=default.allowed | {name.replace("-", "_") for name in names})
    except ConfigurationError as error:
        raise UsageError(f"--allow-option: {error}") from None


def common_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments that both configurations share."""
    negotiate = Negotiate.OFFER
    if arguments.plain and arguments.require_tcpls:
        raise UsageError("--plain and --require-tcpls exclude each other")
    if arguments.plain:
        negotiate = Negotiate.OFF
    elif arguments.require_tcpls:
        negotiate = Negotiate.REQUIRE
    return {
        "suites": split(arguments.suites),
        "groups": split(arguments.groups),
        "alpn": split(arguments.alpn),
        "psks": psk.keys(arguments),
        "psk_modes": split(arguments.psk_modes),
        "engine": arguments.engine,
        "tcpls": negotiate,
        "ktls": KTLS(arguments.ktls),
        "congestion": arguments.congestion,
        "key_log": key_log(arguments.secrets_log),
        "padding": _padding(arguments.padding),
        "record_size_limit": arguments.record_size_limit,
        "session": SessionConfig(
            option_policy=_option_policy(arguments.allow_option), **multipath.session_settings(arguments)
        ),
        **multipath.settings(arguments),
    }
