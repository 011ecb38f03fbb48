"""`tcpls`, and `python -m tcpls`: one door to every command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tcpls.cli import cc, client, doctor, ech, lab, proxy, server
from tcpls.cli.run import guarded

COMMANDS = {"client": client.main, "proxy": proxy.main, "server": server.main}
"""These have options before and between their words, so they parse their own."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tcpls", description="TCPLS: TLS 1.3 and TCP working together.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    subparsers.add_parser("client", help="connect to a server", add_help=False)
    subparsers.add_parser("server", help="serve files, an echo, or standard input and output", add_help=False)
    subparsers.add_parser("proxy", help="carry any TCP program over one session", add_help=False)
    cc.add_parser(subparsers)
    doctor.add_parser(subparsers)
    ech.add_parser(subparsers)
    lab.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in COMMANDS:
        return COMMANDS[words[0]](words[1:])
    arguments = build_parser().parse_args(words)
    return guarded(lambda: int(arguments.run(arguments)))
