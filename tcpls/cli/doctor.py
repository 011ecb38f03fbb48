"""`tcpls doctor`: what this machine can do, and what to do about what it cannot."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from typing import TYPE_CHECKING

from tcpls.cli.exits import Exit
from tcpls.kernel.probe import Fact, examine

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="what this machine can do",
        description="Asks the kernel what it can do for TCPLS, and says how to get what is missing.",
    )
    parser.add_argument("--json", action="store_true", help="as a list of objects: group, name, ok, fact, fix")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    facts = examine()
    if arguments.json:
        print(json.dumps([dataclasses.asdict(fact) for fact in facts], indent=2))
    elif not _print_table(facts):
        print(plain(facts), end="")
    return Exit.OK


def plain(facts: list[Fact]) -> str:
    """The report without any decoration, one line per fact and an indented one per fix."""
    width = max(len(fact.name) for fact in facts)
    lines = []
    group = ""
    for fact in facts:
        if fact.group != group:
            group = fact.group
            lines.append(f"{group}:")
        lines.append(f"  {'ok' if fact.ok else 'no':3} {fact.name:{width}}  {fact.fact}")
        if not fact.ok and fact.fix:
            lines.append(f"      {'':{width}}  -> {fact.fix}")
    return "\n".join(lines) + "\n"


def _print_table(facts: list[Fact]) -> bool:
    """The report as a table, when there is a terminal to show it on and rich is installed."""
    if not sys.stdout.isatty():
        return False
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    table = Table(show_edge=False, pad_edge=False)
    for heading in ("", "what", "found", "how to get it"):
        table.add_column(heading)
    group = ""
    for fact in facts:
        if fact.group != group:
            group = fact.group
            table.add_row("", Text(group, style="bold"), "", "")
        mark = Text("ok", style="green") if fact.ok else Text("no", style="yellow")
        table.add_row(mark, Text(fact.name), Text(fact.fact), Text("" if fact.ok else fact.fix))
    Console(no_color=bool(os.environ.get("NO_COLOR"))).print(table)
    return True
