"""`tcpls cc`: build, look at, sign and try out congestion controllers that can be shipped to a peer."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tcpls.cli.exits import Exit
from tcpls.errors import ConfigurationError, ProgramRefused
from tcpls.kernel import build as builder
from tcpls.kernel.elf_check import ObjectFacts, check_object
from tcpls.kernel.helper_client import HelperClient
from tcpls.kernel.program import (
    ProgramFile,
    ProgramPolicy,
    key_id,
    private_pem,
    public_pem,
    read_private_key,
    read_public_key,
    signature_path,
)
from tcpls.kernel.registered import registered


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `cc` and its commands; each sets `run`, a function from the parsed arguments to an exit code."""
    parser = subparsers.add_parser("cc", help="congestion controllers: build, inspect, sign, try")
    commands = parser.add_subparsers(dest="cc_command", required=True, metavar="COMMAND")

    build = commands.add_parser("build", help="compile programs with clang")
    build.add_argument(
        "source", nargs="*", metavar="SRC|NAME", help="a NAME.bpf.c, or a folder of cc_programs; default: all"
    )
    build.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: build/cc of the source tree")
    build.set_defaults(run=_build)

    inspect = commands.add_parser("inspect", help="check a program as a receiver would, and show what is in it")
    inspect.add_argument("file", type=Path)
    inspect.add_argument("--json", action="store_true", help="for machines")
    inspect.set_defaults(run=_refusable(_inspect))

    keygen = commands.add_parser("keygen", help="make a key to sign programs with: NAME.key and NAME.pub")
    keygen.add_argument("name", type=Path, metavar="NAME")
    keygen.set_defaults(run=_keygen)

    sign = commands.add_parser("sign", help="sign a program: writes FILE.sig")
    sign.add_argument("-k", "--key", type=Path, required=True, metavar="KEY", help="private key in PEM (Ed25519)")
    sign.add_argument("file", type=Path)
    sign.set_defaults(run=_refusable(_sign))

    verify = commands.add_parser("verify", help="would a receiver that trusts KEY accept this program?")
    verify.add_argument(
        "-k", "--key", type=Path, required=True, action="append", metavar="KEY", help="public key in PEM"
    )
    verify.add_argument("file", type=Path)
    verify.set_defaults(run=_refusable(_verify))

    list_ = commands.add_parser("list", help="our algorithms that this kernel has registered now (needs root)")
    list_.add_argument("--json", action="store_true", help="for machines")
    list_.set_defaults(run=_list)

    load = commands.add_parser(
        "load", help="check, load and attach a program on this machine, and unload it (needs root)"
    )
    load.add_argument("file", type=Path)
    load.add_argument("--repeat", type=int, default=1, metavar="N", help="N times, and give the medians")
    load.add_argument("--json", action="store_true", help="for machines")
    load.set_defaults(run=_refusable(_load))


def _refusable(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """A refused program is about a file: one sentence and that exit code."""

    def run(arguments: argparse.Namespace) -> int:
        try:
            return command(arguments)
        except ProgramRefused as error:
            print(f"tcpls: {arguments.file}: refused at the stage {error}", file=sys.stderr)
            if error.log:
                print(error.log, file=sys.stderr)
            return Exit.FILES

    return run


def _build(arguments: argparse.Namespace) -> int:
    root = builder.project_root()
    folder = arguments.output or root / "build" / "cc"
    for source in builder.find_sources(arguments.source, root / "cc_programs"):
        target = builder.build(source, folder, include=root / "bpf")
        print(f"{target}  {target.stat().st_size} bytes")
    return Exit.OK


def _inspect(arguments: argparse.Namespace) -> int:
    program = ProgramFile.read(arguments.file)
    facts = check_object(program.image)
    if arguments.json:
        print(json.dumps(_as_json(program, facts), indent=2))
        return Exit.OK
    rows = [
        ("name", f"{program.name} (algorithm {facts.name}; a receiver gives it a name of its own)"),
        ("sha256", program.digest.hex()),
        ("size", f"{facts.size} bytes"),
        ("licence", facts.license),
        ("signed by", program.key_id.hex() or "nobody"),
        ("helpers", ", ".join(facts.helpers) or "none"),
        ("kernel functions", ", ".join(facts.kfuncs) or "none"),
        ("instructions", f"{facts.instructions} in {len(facts.programs)} programs"),
    ]
    rows += [("", f"{entry.member:<14}{entry.instructions:>6}  {entry.function}") for entry in facts.programs]
    rows += [("map", f"{entry.name}: {entry.kind}, {entry.max_entries} entries") for entry in facts.maps]
    for label, value in rows:
        print(f"{label:<18}{value}")
    return Exit.OK


def _as_json(program: ProgramFile, facts: ObjectFacts) -> dict[str, Any]:
    fields = {"file_name": program.name, "sha256": program.digest.hex(), "key_id": program.key_id.hex() or None}
    described = dataclasses.asdict(facts)
    del described["places"]
    return fields | described


def _keygen(arguments: argparse.Namespace) -> int:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = arguments.name.with_name(arguments.name.name + ".key")
    public = arguments.name.with_name(arguments.name.name + ".pub")
    try:
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(private_pem(key))
        public.write_bytes(public_pem(key.public_key()))
    except OSError as error:
        raise ConfigurationError(f"{error.filename or private}: {error.strerror}") from None
    print(f"{private}\n{public}\nkey id {key_id(key.public_key()).hex()}")
    return Exit.OK


def _sign(arguments: argparse.Namespace) -> int:
    key = read_private_key(arguments.key)
    program = ProgramFile.read(arguments.file, ignore_signature=True)
    check_object(program.image)
    target = signature_path(arguments.file)
    try:
        target.write_text(program.sign(key).sidecar())
    except OSError as error:
        raise ConfigurationError(f"{target}: {error.strerror}") from None
    print(target)
    return Exit.OK


def _verify(arguments: argparse.Namespace) -> int:
    program = ProgramFile.read(arguments.file)
    ProgramPolicy.signed(read_public_key(path) for path in arguments.key).judge(program.offer)
    check_object(program.image)
    print(f"{program.name}: signed by {program.key_id.hex()}, and its static check passes")
    return Exit.OK


def _list(arguments: argparse.Namespace) -> int:
    found = registered()
    if arguments.json:
        print(json.dumps([dataclasses.asdict(entry) for entry in found], indent=2))
        return Exit.OK
    for entry in found:
        links = ", ".join(map(str, entry.links)) or "none"
        print(f"{entry.algorithm:<16} {entry.state:<12} map {entry.map_id} ({entry.variable}), links: {links}")
    if not found:
        print("none of ours is registered")
    return Exit.OK


def _load(arguments: argparse.Namespace) -> int:
    program = ProgramFile.read(arguments.file)
    started = time.monotonic()
    with HelperClient.spawn(ProgramPolicy.pinned([program.digest])) as helper:
        spawned = 1000 * (time.monotonic() - started)
        runs = [_load_once(helper, program) for _ in range(max(arguments.repeat, 1))]
    algorithm = runs[-1][0]
    steps = {step: statistics.median(timings[step] for _, timings in runs) for step in runs[0][1]}
    if arguments.json:
        print(json.dumps({"algorithm": algorithm, "runs": len(runs), "helper_start_ms": spawned, "median_ms": steps}))
        return Exit.OK
    print(f"the kernel reports {algorithm} on a connection over loopback")
    print(f"{'helper start':<16}{spawned:8.2f} ms, once")
    for step, milliseconds in steps.items():
        print(f"{step:<16}{milliseconds:8.2f} ms")
    return Exit.OK


def _load_once(helper: HelperClient, program: ProgramFile) -> tuple[str, dict[str, float]]:
    """One load, one attachment of the loaded program to another socket, and the way back. Milliseconds per step."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        started = time.monotonic()
        first = helper.load(program.offer, program.image, client.fileno())
        loaded = time.monotonic()
        with first:
            raw = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
            seen = raw.split(b"\0", 1)[0].decode("ascii")
            again = time.monotonic()
            second = helper.attach(program.digest, server.fileno())
            attached = time.monotonic()
            second.close()
            helper.set_algorithm(client.fileno(), first.former)
            helper.set_algorithm(server.fileno(), second.former)
    timings = dict(first.timings)
    timings["in all"] = 1000 * (loaded - started)
    timings["attach again"] = 1000 * (attached - again)
    return seen, timings
