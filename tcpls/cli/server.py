"""`python -m tcpls.server`: files of a folder, an echo, or standard input and output."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from tcpls import (
    Alert,
    AlertReceived,
    ClientAuth,
    ConfigurationError,
    FileReplayStore,
    ServerConfig,
    Session,
    SessionLost,
    Stream,
    StreamReset,
    TCPLSError,
    TicketKeyFile,
    serve,
)
from tcpls.cli import identity, options, privileges, programs
from tcpls.cli.exits import UsageError
from tcpls.cli.progress import summary
from tcpls.cli.run import first, run
from tcpls.cli.stdio import join
from tcpls.no_openssl import told

logger = logging.getLogger("tcpls.server")

EARLY_LIMIT = 16384
"""Bytes of early data that `--zero-rtt` allows when it is not told."""

Handler = Callable[[Session], Awaitable[None]]

EPILOG = """\
With --root, GET of the folder's files and of /N (N bytes, for measuring), over streams of TCPLS and to ordinary
HTTPS clients; with --allow-put, PUT too. With --echo, what comes goes back. With neither, the first stream is joined
to standard input and output, and the server ends with it.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tcpls server",
        usage="%(prog)s [options] [-c FILE -k FILE] [HOST[:PORT]] [PORT]",
        description="A TCPLS server, which serves ordinary TLS 1.3 clients too.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    own = parser.add_argument_group("identity")
    identity.add_certificates(own)
    identity.add_server_names(own)
    identity.add_client_authentication(own)
    service = parser.add_argument_group("service")
    service.add_argument("--root", metavar="DIR", help="serve the files of this folder")
    service.add_argument("--allow-put", action="store_true", help="let clients put files into the folder")
    service.add_argument("--echo", action="store_true", help="send back what comes")
    service.add_argument("--max-sessions", type=int, default=1000, metavar="N", help="sessions at a time (1000)")
    service.add_argument("--once", action="store_true", help="end after the first session")
    tickets = add_tickets(parser)
    tickets.add_argument(
        "--zero-rtt",
        type=int,
        default=0,
        metavar="[=BYTES]",
        help=f"let clients say so much before the handshake is complete ({EARLY_LIMIT}); off by default",
    )
    tickets.add_argument(
        "--replay-store", metavar="FILE", help="where it is kept which tickets were used for 0-RTT, with --ticket-keys"
    )
    add_hiding(parser)
    options.add_common(parser)
    return parser


def add_tickets(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    tickets = parser.add_argument_group("session tickets")
    tickets.add_argument("--tickets", type=int, default=2, metavar="N", help="how many a client gets (2)")
    tickets.add_argument(
        "--ticket-lifetime", type=int, default=86400, metavar="SECONDS", help="how long they may be used (86400)"
    )
    tickets.add_argument("--no-tickets", action="store_true", help="give none out and take none")
    tickets.add_argument(
        "--ticket-keys", metavar="FILE", help="keys shared with other processes, and with the next start of this one"
    )
    return tickets


def add_hiding(parser: argparse.ArgumentParser) -> None:
    hiding = parser.add_argument_group("Encrypted ClientHello")
    hiding.add_argument(
        "--ech-keys", action="append", default=[], metavar="FILE", help="a key of tcpls ech keygen; may be repeated"
    )
    hiding.add_argument(
        "--ech-old-keys", action="append", default=[], metavar="FILE", help="one that clients are not told any more"
    )
    hiding.add_argument("--ech-trial", action="store_true", help="try every key, whatever id the client names")
    hiding.add_argument(
        "--esni-keys", nargs=2, action="append", default=[], metavar=("FILE", "KEY"), help="of the older Encrypted SNI"
    )


async def echo(session: Session) -> None:
    """Sends back whatever comes on any stream."""
    async with asyncio.TaskGroup() as streams:
        async for stream in session.streams():
            streams.create_task(_echo_stream(stream))


async def _echo_stream(stream: Stream) -> None:
    count = 0
    started = asyncio.get_running_loop().time()
    try:
        async for data in stream:
            count += len(data)
            await stream.write(data)
        await stream.write_eof()
    except StreamReset as reset:
        logger.info("stream %d: %s", stream.id, reset)
        stream.reset()
        stream.stop_sending()
    logger.info("%s", summary("echoed", count, asyncio.get_running_loop().time() - started))


async def standard_io(session: Session) -> None:
    """Joins the first stream to standard input and output; a client that has said all may still listen."""
    await join(await session.accept_stream(), until=session.wait_ended)


def choose_handler(arguments: argparse.Namespace) -> Handler:
    """What a session gets. Raises `ConfigurationError` for a root that is no folder."""
    if arguments.echo:
        if arguments.root:
            raise UsageError("--echo and --root exclude each other")
        return echo
    if arguments.root is None:
        return standard_io
    root = Path(arguments.root)
    if not root.is_dir():
        raise ConfigurationError(f"--root {root}: not a folder")
    try:
        from tcpls.cli.files import FileService
    except ImportError as error:
        raise ConfigurationError(f"--root needs the package {error.name}: pip install 'tcpls[cli]'") from None
    return FileService(root.resolve(), writable=arguments.allow_put).session


def ticket_keys(arguments: argparse.Namespace) -> TicketKeyFile | None:
    """Raises `ConfigurationError` for a file that is none of keys, or that others may use."""
    if not arguments.ticket_keys:
        return None
    return TicketKeyFile(arguments.ticket_keys, privileges.number_of(arguments.user) if arguments.user else None)


def replay_store(arguments: argparse.Namespace) -> FileReplayStore | None:
    """Raises `UsageError`, and `ConfigurationError` for a file that cannot be used."""
    if not 0 <= arguments.zero_rtt <= 0xFFFFFFFF:
        raise UsageError("--zero-rtt is a number of bytes, up to 4294967295")
    if not arguments.replay_store:
        return None
    if not arguments.zero_rtt:
        raise UsageError("--replay-store needs --zero-rtt")
    owner = privileges.number_of(arguments.user) if arguments.user else None
    return FileReplayStore(arguments.replay_store, owner=owner)


class Sessions:
    """Tells of each session, and when the last one that is wanted has ended."""

    def __init__(self, handler: Handler, once: bool) -> None:
        self._handler = handler
        self._once = once
        self._count = 0
        self.finished = asyncio.Event()

    async def __call__(self, session: Session) -> None:
        self._count += 1
        name = f"session {self._count}"
        for line in session.info().lines():
            logger.info("%s: %s", name, line)
        counts = True
        try:
            await self._handler(session)
            # Here already: with `once` the process ends as soon as this is over.
            await session.close()
            logger.info("%s: closed", name)
        except* SessionLost as lost:
            logger.warning("%s: lost: %s", name, lost.exceptions[0])
            await session.abort()
        except* (TCPLSError, OSError) as failed:
            logger.warning("%s: %s", name, first(failed))
            counts = not comes_again(first(failed))
            await session.close(1, "the server failed")
        finally:
            if self._once and counts:
                self.finished.set()


def comes_again(error: BaseException) -> bool:
    """Whether this was a client that has now got the keys for Encrypted ClientHello which it had not."""
    return isinstance(error, AlertReceived) and error.alert == Alert.ECH_REQUIRED


def own_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """A server's configuration as far as it does not depend on what is served to whom.

    Raises `UsageError`, `ConfigurationError`.
    """
    if arguments.max_sessions < 1:
        raise UsageError("--max-sessions is at least 1")
    credentials = identity.credentials(arguments)
    if not arguments.psk and not credentials:
        raise UsageError("a server needs -c and -k, --raw-key or --psk")
    return {
        "credentials": credentials,
        "certificate_compressions": identity.compressions(arguments),
        "known_names_only": arguments.known_names_only,
        "max_sessions": arguments.max_sessions,
        "tickets": 0 if arguments.no_tickets else arguments.tickets,
        "ticket_lifetime": arguments.ticket_lifetime,
        "ticket_keys": ticket_keys(arguments),
        "ech_keys": tuple(arguments.ech_keys),
        "ech_old_keys": tuple(arguments.ech_old_keys),
        "ech_trial": arguments.ech_trial,
        "esni_keys": tuple((keys, private) for keys, private in arguments.esni_keys),
        **options.common_settings(arguments),
    }


async def server(arguments: argparse.Namespace) -> None:
    settings = own_settings(arguments)
    clients = identity.client_authentication(arguments)
    handler = choose_handler(arguments)
    host, port, rest = options.parse_endpoint(arguments.words)
    if rest:
        raise UsageError(f"{rest[0]!r} is one word too many")
    policy = programs.policy(arguments)
    knows_clients = clients["client_auth"] is not ClientAuth.NONE or bool(arguments.psk)
    identity.check_policy(policy, knows_peers=knows_clients, how="--client-auth or --psk")
    helper = programs.spawn_helper(policy)
    try:
        sessions = Sessions(handler, arguments.once or handler is standard_io)
        config = ServerConfig(
            zero_rtt=arguments.zero_rtt,
            replay_store=replay_store(arguments),
            programs=policy,
            helper=helper,
            **clients,
            **settings,
        )
        async with serve(sessions, host or None, port, config=config) as listening:
            if arguments.user:
                privileges.become(arguments.user)
            for address in listening.addresses:
                logger.info("listening on %s", address)
            if arguments.engine != "openssl":
                logger.info("engine: %s, %s", arguments.engine, told())
            if held := privileges.held():
                logger.warning("this process keeps privileges (%s): --user gives them up", held)
            logger.info("congestion controllers from peers: %s", policy.mode.value)
            await sessions.finished.wait()
    finally:
        if helper is not None:
            helper.close()


def execute(arguments: argparse.Namespace) -> int:
    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.INFO, format="%(message)s", stream=sys.stderr
    )
    return run(lambda: server(arguments))


def main(argv: Sequence[str] | None = None) -> int:
    return execute(options.parse(build_parser(), argv, options.BARE | {"--zero-rtt": f"--zero-rtt={EARLY_LIMIT}"}))
