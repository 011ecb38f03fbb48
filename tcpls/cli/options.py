"""What both commands understand: endpoints, common options, and how they become a configuration."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tcpls import (
    KTLS,
    ConfigurationError,
    ExternalPsk,
    FileKeyLog,
    HelperClient,
    Negotiate,
    OptionPolicy,
    Padding,
    ProgramMode,
    ProgramPolicy,
    SessionConfig,
    read_public_key,
)
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


BARE = {"--ktls": "--ktls=tx"}


def parse(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, bare: Mapping[str, str] = BARE
) -> argparse.Namespace:
    """Options may stand between the words. The `bare` ones take no word behind them for their value."""
    words = sys.argv[1:] if argv is None else argv
    return parser.parse_intermixed_args([bare.get(word, word) for word in words])


def add_common(parser: argparse.ArgumentParser) -> None:
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
    tls.add_argument(
        "--psk",
        action="append",
        default=[],
        metavar="IDENTITY:HEXKEY",
        help="a pre-shared key; @FILE: one such line for each (what stands here, others can see)",
    )
    tls.add_argument("--psk-import", action="store_true", help="import the pre-shared keys (RFC 9258)")
    tls.add_argument(
        "--psk-modes", metavar="LIST", help="how keys and tickets may be used: psk_dhe_ke, or also psk_ke (psk_dhe_ke)"
    )
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
    programs = parser.add_argument_group("congestion controllers from the peer")
    programs.add_argument(
        "--accept-cc",
        default="off",
        choices=["off", "pinned", "signed", "authenticated"],
        help="which programs the peer may have attached here (off)",
    )
    programs.add_argument("--cc-pin", action="append", default=[], metavar="SHA256", help="a digest for =pinned")
    programs.add_argument("--cc-trust", action="append", default=[], metavar="FILE", help="a public key for =signed")
    process = parser.add_argument_group("process")
    process.add_argument("--user", metavar="NAME", help="become this user once everything that needs root is done")
    process.add_argument("-v", "--verbose", action="count", default=0, help="say more")


def read_bytes(name: str) -> bytes:
    """A file's contents. Raises `ConfigurationError`."""
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{name}: {error.strerror}") from None


def split(value: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if value else ()


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


def psks(arguments: argparse.Namespace) -> tuple[ExternalPsk, ...]:
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


def program_policy(arguments: argparse.Namespace) -> ProgramPolicy:
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


def spawn_helper(policy: ProgramPolicy) -> HelperClient | None:
    """The privileged process, started while this process still may, and only when programs are accepted at all."""
    return None if policy.mode is ProgramMode.OFF else HelperClient.spawn(policy)


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
        "psks": psks(arguments),
        "psk_modes": split(arguments.psk_modes),
        "engine": arguments.engine,
        "tcpls": negotiate,
        "ktls": KTLS(arguments.ktls),
        "congestion": arguments.congestion,
        "key_log": key_log(arguments.secrets_log),
        "padding": _padding(arguments.padding),
        "record_size_limit": arguments.record_size_limit,
        "session": SessionConfig(option_policy=_option_policy(arguments.allow_option)),
    }
