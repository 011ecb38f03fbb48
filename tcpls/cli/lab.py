"""`tcpls lab`: scenarios on an emulated network, with TCPLS, Multipath TCP and plain TCP, as figures and pictures."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tcpls.cli.exits import Exit, UsageError
from tcpls.errors import KernelUnavailable

if TYPE_CHECKING:
    from tcpls.lab.identity import Files
    from tcpls.lab.results import Run
    from tcpls.lab.scenarios import Scenario

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

# The laboratory is imported by what needs it: other commands begin sooner, and without OpenSSL, which it brings.


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "lab",
        help="scenarios on an emulated network, TCPLS beside Multipath TCP",
        description="Runs named scenarios (failover, migration, aggregation) on a network that is emulated on this "
        "machine, in namespaces of its own. Needs root. docs/lab.md says more.",
    )
    commands = parser.add_subparsers(dest="lab_command", required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="the scenarios")
    listing.set_defaults(run=_list)
    run = commands.add_parser("run", help="run scenarios, and write CSV, JSON and a plot of each")
    run.add_argument("scenario", nargs="+", metavar="SCENARIO", help="a name of `tcpls lab list`, or `all`")
    run.add_argument(
        "--transport",
        action="append",
        metavar="NAME",
        help="tcpls, mptcp or tcp; may be repeated; default: those that make sense in the scenario",
    )
    run.add_argument(
        "--repeat", type=_count, default=1, metavar="N", help="runs of each transport, in turn; default: 1"
    )
    run.add_argument("--seed", type=int, default=1, help="of data and losses; each run has the next one; default: 1")
    run.add_argument(
        "--output", type=Path, default=Path("lab"), metavar="DIR", help="where the files go; default: %(default)s"
    )
    run.add_argument("--no-plot", action="store_true", help="no PNG, which needs matplotlib (tcpls[lab])")
    run.set_defaults(run=_run)


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError
    return count


def _list(arguments: argparse.Namespace) -> int:
    from tcpls.lab.scenarios import SCENARIOS

    width = max(map(len, SCENARIOS))
    for name, scenario in SCENARIOS.items():
        print(f"{name:{width}}  {scenario.about}")
        print(f"{'':{width}}  {scenario.size / 1e6:g} MB; {', '.join(scenario.transports)}")
    return Exit.OK


def _run(arguments: argparse.Namespace) -> int:
    from tcpls.lab import identity, network, plot, results
    from tcpls.lab.transports import TRANSPORTS

    chosen = _chosen(arguments.scenario)
    for name in arguments.transport or ():
        if name not in TRANSPORTS:
            raise UsageError(f"there is no transport {name}; there are {', '.join(TRANSPORTS)}")
    if (error := network.unavailable()) is not None:
        raise error
    if not arguments.no_plot:
        plot.check()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tcpls-lab-") as folder:
        files = identity.make(Path(folder))
        for scenario in chosen:
            transports = _transports(scenario, arguments.transport)
            runs = _runs(scenario, transports, arguments, files)
            for one in runs:
                results.write_csv(one, arguments.output)
            written = [results.write_json(scenario, runs, arguments.output)]
            if not arguments.no_plot:
                written.append(plot.write_png(scenario, runs, arguments.output))
            _print(scenario, runs)
            print(f"  {', '.join(map(str, written))}; {len(runs)} CSV files", flush=True)
    return Exit.OK


def _chosen(names: list[str]) -> list[Scenario]:
    from tcpls.lab.scenarios import SCENARIOS

    if "all" in names:
        return list(SCENARIOS.values())
    for name in names:
        if name not in SCENARIOS:
            raise UsageError(f"there is no scenario {name}; there are {', '.join(SCENARIOS)}")
    return [SCENARIOS[name] for name in dict.fromkeys(names)]


def _transports(scenario: Scenario, asked: list[str] | None) -> list[str]:
    """Those asked for; or those of the scenario that this kernel has."""
    from tcpls.lab.over_tcp import mptcp_missing

    names = list(dict.fromkeys(asked or scenario.transports))
    if "mptcp" in names and (reason := mptcp_missing()):
        if asked:
            raise KernelUnavailable("Multipath TCP", reason)
        print(f"tcpls: mptcp is left out: {reason}", file=sys.stderr)
        names.remove("mptcp")
    return names


def _runs(scenario: Scenario, transports: list[str], arguments: argparse.Namespace, files: Files) -> list[Run]:
    """All runs, the transports in turn: whatever else the machine does meets each of them."""
    from tcpls.lab.run import run

    runs = []
    for number in range(1, arguments.repeat + 1):
        for transport in transports:
            one = run(scenario, transport, seed=arguments.seed + number - 1, number=number, files=files)
            said = one.ended or f"{one.total_time:.2f} s, largest gap {one.largest_gap():.3f} s"
            print(f"tcpls: {scenario.name}, {transport}, run {number} of {arguments.repeat}: {said}", file=sys.stderr)
            runs.append(one)
    return runs


def _print(scenario: Scenario, runs: list[Run]) -> None:
    from tcpls.lab.results import by_transport, medians

    print(f"{scenario.name}: {scenario.about}")
    for transport, same in by_transport(runs).items():
        middle = medians(same)
        time = f"{middle['total_time']} s" if middle["total_time"] is not None else "not complete"
        print(
            f"  {transport:6} {middle['complete']} of {middle['runs']} complete; {time}, "
            f"{float(str(middle['goodput'])) / 1e6:.1f} Mb/s, largest gap {middle['largest_gap']} s"
        )
        events = middle["events"]
        for event in events if isinstance(events, list) else []:
            back = f"{event['recovered']} s" if event["recovered"] is not None else "never"
            print(f"         {event['what']}: gap {event['gap']} s, recovered after {back}")
