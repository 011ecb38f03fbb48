"""`python -m tcpls.client`: stdin and stdout joined to a stream, `get`, `put`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tcpls import (
    ClientConfig,
    ConfigurationError,
    FileTicketStore,
    NotNegotiated,
    OptionRefused,
    ProgramFile,
    ProgramRefused,
    Session,
    TCPLSError,
    connect,
    parse_option,
)
from tcpls.cli import identity, options, paths, privileges, programs, progress
from tcpls.cli.ech import read_list
from tcpls.cli.exits import UsageError
from tcpls.cli.run import run
from tcpls.cli.stdio import StandardInput, join
from tcpls.no_openssl import told

EPILOG = """\
commands:
  (none)            join standard input and output to a stream
  get NAME [FILE]   fetch NAME into FILE (its own name if none; - is standard output)
  get /N            fetch N bytes and throw them away: for measuring
  put FILE [NAME]   send FILE
Several commands run one after the other in one session: get a.bin put b.bin

exit codes: 0 ok, 2 usage, 3 files or refused by the peer, 4 resolve or connect, 5 TLS alert, 6 certificate not trusted,
7 no TCPLS, 8 kernel feature absent, 9 session lost, 10 protocol violation, 28 timeout, 130/143 signals
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tcpls client",
        usage="%(prog)s [options] HOST[:PORT] [PORT] [get NAME [FILE] | put FILE [NAME]]...",
        description="A TCPLS client. It falls back to ordinary TLS 1.3 when the server does not know TCPLS.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    add_session_options(parser)
    ask = parser.add_argument_group("what the server is asked for")
    ask.add_argument(
        "-e",
        "--zero-rtt",
        action="store_true",
        help="wait for input, and send its beginning, or a get's request, ahead of the handshake (0-RTT); needs -s",
    )
    ask.add_argument(
        "--peer-option", action="append", default=[], metavar="NAME=VALUE,...", help="TCP options for its sockets"
    )
    ask.add_argument(
        "--ship-cc", metavar="FILE", help="a compiled congestion controller for its side (FILE.sig signs it)"
    )
    ask.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="give up when nothing moves (60)")
    ask.add_argument("--quiet", action="store_true", help="say nothing but errors")
    return parser


def add_session_options(parser: argparse.ArgumentParser) -> None:
    """How a session with a server is made and what it is like, whatever it is for."""
    trust = parser.add_argument_group("trust")
    trust.add_argument("--ca-certs", metavar="FILE", help="PEM authorities to trust instead of the system's")
    trust.add_argument(
        "--server-keys",
        metavar="FILE",
        help="PEM public keys that the server may show instead (must, without --ca-certs)",
    )
    trust.add_argument(
        "--check-ocsp", action="store_true", help="ask for an OCSP response, and refuse what it says is revoked"
    )
    trust.add_argument("--servername", metavar="NAME", help="the name to ask and check for (HOST)")
    trust.add_argument("--insecure", action="store_true", help="trust any certificate; says so")
    trust.add_argument(
        "-s", "--session-ticket", metavar="FILE", help="resume sessions by the tickets in FILE, and keep new ones there"
    )
    identity.add_certificates(parser.add_argument_group("identity, for servers that ask for it"))
    hiding = parser.add_argument_group("Encrypted ClientHello")
    hiding.add_argument(
        "--ech", metavar="FILE|BASE64", help="encrypt the server's name and all else in the ClientHello, or fail"
    )
    hiding.add_argument("--ech-grease", action="store_true", help="without --ech, look as if")
    hiding.add_argument("--esni", metavar="FILE", help="the older Encrypted SNI instead, by the ESNIKeys in FILE")
    parser.add_argument_group("key exchange").add_argument(
        "--key-shares", type=int, metavar="N", help="guess that the server takes one of the first N of --groups"
    )
    paths.add(parser)
    options.add_common(parser)


@dataclass(frozen=True, slots=True)
class Command:
    """`get` or `put`, what it is about, and the other name if there is one."""

    verb: str
    name: str
    other: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The command line, checked: nothing that the user wrote can fail later for its form."""

    host: str
    port: int
    commands: tuple[Command, ...]
    config: ClientConfig
    peer_options: tuple[tuple[str, int | str], ...]
    program: ProgramFile | None
    zero_rtt: bool
    timeout: float
    quiet: bool


def parse_commands(words: Sequence[str]) -> tuple[Command, ...]:
    """`get A put B C` is two commands; a file of such a name is written `./get`. Raises `UsageError`."""
    commands: list[list[str]] = []
    for word in words:
        if word in ("get", "put"):
            commands.append([word])
        elif commands:
            commands[-1].append(word)
        else:
            raise UsageError(f"{word!r} is no command: get or put")
    for command in commands:
        if not 2 <= len(command) <= 3:
            raise UsageError(f"{command[0]} takes one name or two")
    return tuple(Command(verb, names[0], names[1] if len(names) > 1 else None) for verb, *names in commands)


def ticket_store(arguments: argparse.Namespace) -> FileTicketStore | None:
    """Raises `ConfigurationError` for a file that is none of tickets, or that others may use."""
    if not arguments.session_ticket:
        return None
    owner = privileges.number_of(arguments.user) if arguments.user else None
    return FileTicketStore(arguments.session_ticket, owner=owner)


def session_config(arguments: argparse.Namespace, port: int = options.DEFAULT_PORT) -> ClientConfig:
    """What `add_session_options` asked for, its files read. Starts the helper if there is to be one.

    The user that this process becomes afterwards need not be able to do either. `port` is the server's.
    Raises `UsageError`, `ConfigurationError`.
    """
    if arguments.insecure and arguments.server_keys:
        raise UsageError("--insecure and --server-keys exclude each other")
    policy = programs.policy(arguments)
    identity.check_policy(policy, knows_peers=not arguments.insecure, how="a server that is verified")
    config = ClientConfig(
        ca_file=arguments.ca_certs,
        server_keys=arguments.server_keys,
        ocsp=arguments.check_ocsp,
        credentials=identity.credentials(arguments),
        certificate_compressions=identity.compressions(arguments),
        verify=not arguments.insecure,
        server_name=arguments.servername,
        remotes=paths.remotes(arguments, port),
        locals=paths.locals_(arguments),
        key_shares=arguments.key_shares,
        ech=read_list(arguments.ech) if arguments.ech else b"",
        ech_grease=arguments.ech_grease,
        esni=options.read_bytes(arguments.esni) if arguments.esni else b"",
        tickets=ticket_store(arguments),
        programs=policy,
        **options.common_settings(arguments),
    ).with_files_read()
    return replace(config, helper=programs.spawn_helper(policy))


def plan(arguments: argparse.Namespace) -> Plan:
    host, port, words = options.parse_endpoint(arguments.words)
    commands = parse_commands(words)
    if not arguments.timeout > 0:
        raise UsageError("--timeout is a number of seconds above 0")
    if not host:
        raise UsageError("which HOST?")
    if arguments.zero_rtt and not arguments.session_ticket:
        raise UsageError("--zero-rtt needs --session-ticket")
    try:
        peer_options = tuple(parse_option(text) for group in arguments.peer_option for text in options.split(group))
    except ConfigurationError as error:
        raise UsageError(f"--peer-option: {error}") from None
    return Plan(
        host=host,
        port=port,
        commands=commands,
        config=session_config(arguments, port),
        peer_options=peer_options,
        program=ProgramFile.read(Path(arguments.ship_cc)) if arguments.ship_cc else None,
        zero_rtt=arguments.zero_rtt,
        timeout=arguments.timeout,
        quiet=arguments.quiet,
    )


async def client(todo: Plan) -> None:
    """Does everything that was asked for. What the peer refused is raised at the end: it keeps nothing else from
    being done, and is not forgotten either."""
    early, source = await _first_words(todo) if todo.zero_rtt else (None, None)
    async with connect(todo.host, todo.port, config=todo.config, early_data=early) as session:
        for line in session.info().lines():
            _say(todo, line)
        if todo.config.engine != "openssl":
            _say(todo, f"engine: {todo.config.engine}, {told()}")
        refused = [error async for error in _ask_peer(session, todo)]
        for error in refused:
            _say(todo, str(error))
        await _run_commands(session, todo, source)
        for line in session.info().connection_lines() if todo.commands else ():
            _say(todo, line)
    ended = await session.wait_ended()
    if ended is not None:
        raise ended
    if refused:
        raise refused[0]


async def _first_words(todo: Plan) -> tuple[bytes | None, StandardInput | None]:
    """What to send ahead of the handshake, and standard input if it was taken from there."""
    if not todo.commands:
        source = StandardInput()
        return await source.read(), source
    if todo.commands[0].verb == "get":
        from tcpls.cli.transfer import first_words

        return first_words(todo.commands[0].name, todo.host), None
    _say(todo, "0-RTT: not offered, a put is not to be done twice")
    return None, None


async def _ask_peer(session: Session, todo: Plan) -> AsyncIterator[TCPLSError]:
    """Sets the peer's options and ships the program; yields what was refused."""
    for name, value in todo.peer_options:
        try:
            _say(todo, f"server's {name} is {await session.set_peer_option(name, value)}")
        except (OptionRefused, NotNegotiated) as refused:
            yield refused
    program = todo.program
    if program is not None:
        _say(todo, f"shipping {program.name}, {program.size} bytes, sha-256 {program.digest.hex()}")
        try:
            shipment = await session.ship_program(program)
        except (ProgramRefused, NotNegotiated) as refused:
            yield refused
        else:
            _say(todo, f"the server's kernel reports {shipment.algorithm} on this connection")


async def _run_commands(session: Session, todo: Plan, source: StandardInput | None) -> None:
    """One after the other, each on streams of its own of the one session."""
    if not todo.commands:
        await join(session.first_stream or await session.open_stream(), source=source)
        return
    from tcpls.cli.transfer import Transfer

    asked = [] if session.first_stream is None else [session.first_stream]
    transfer = Transfer(session, todo.host, todo.timeout, todo.quiet, asked)
    for command in todo.commands:
        if command.verb == "get":
            await transfer.get(command.name, command.other)
        else:
            await transfer.put(command.name, command.other)


def _load_transfers() -> None:
    """Loads what commands need while this process can still read the files that it is made of."""
    try:
        import tcpls.cli.transfer  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(f"get and put need the package {error.name}: pip install 'tcpls[cli]'") from None
    progress.preload()


def _say(todo: Plan, line: str) -> None:
    if not todo.quiet:
        print(line, file=sys.stderr, flush=True)


def execute(arguments: argparse.Namespace) -> int:
    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.WARNING, format="%(message)s", stream=sys.stderr
    )
    if arguments.insecure:
        print("warning: --insecure: any certificate is trusted", file=sys.stderr)

    async def work() -> None:
        todo = plan(arguments)
        try:
            if todo.commands:
                _load_transfers()
            if arguments.user:
                privileges.become(arguments.user)
            await client(todo)
        finally:
            if todo.config.helper is not None:
                todo.config.helper.close()

    return run(work)


def main(argv: Sequence[str] | None = None) -> int:
    return execute(options.parse(build_parser(), argv))
