"""`tcpls proxy`: any TCP program over one session. `client` and `connect` are the near end, `gateway` the far one."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from tcpls import (
    ClientAuth,
    ClientConfig,
    ConfigurationError,
    MemoryTicketStore,
    Negotiate,
    PeerError,
    ServerConfig,
    Session,
    Stream,
    TCPLSError,
    connect,
    serve,
)
from tcpls.cli import identity, options, privileges, programs
from tcpls.cli.client import add_session_options, session_config
from tcpls.cli.exits import UsageError
from tcpls.cli.run import run
from tcpls.cli.server import add_hiding, add_tickets, own_settings
from tcpls.cli.stdio import join
from tcpls.proxy.carry import give_up
from tcpls.proxy.dialogue import Passwords
from tcpls.proxy.front import Begin, Front, proxy_dialogue
from tcpls.proxy.gateway import Gateway, Limits
from tcpls.proxy.message import ALPN, RESET, TargetRefused
from tcpls.proxy.rules import EgressRules
from tcpls.proxy.target import Target
from tcpls.proxy.tunnel import Tunnel

logger = logging.getLogger("tcpls.proxy")

SOCKS_PORT = 1080
CONNECTIONS = 256
WINDOW = 1 << 20
"""Bytes that may wait at the receiving end of each connection."""
SEND_BUFFER = 1 << 18
"""Bytes that may wait at the sending end of each connection."""
KEEPALIVE = 20.0
SILENCE = 3
"""Intervals of keepalive without a word after which a session is over."""
HANG_UP_SECONDS = 1.0
"""For what was said before SIGHUP."""
DESCRIPTORS = 64
"""What the process has open besides its connections."""

CONFIG = TypeVar("CONFIG", ClientConfig, ServerConfig)

BARE = {**options.BARE, "--allow-anonymous": "--allow-anonymous=loopback"}

USAGE = """\
usage: tcpls proxy client  --gateway HOST[:PORT] [--socks [HOST:]PORT] [--forward [HOST:]PORT=HOST:PORT]... [options]
       tcpls proxy connect --gateway HOST[:PORT] [options] HOST PORT
       tcpls proxy gateway --listen HOST[:PORT] -c FILE -k FILE --client-ca FILE --allow-egress HOST:PORTS... [options]
"""


def _add_carrying(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    carrying = parser.add_argument_group("connections")
    carrying.add_argument(
        "--window", type=int, default=WINDOW, metavar="BYTES", help=f"that may wait for a slow reader, each ({WINDOW})"
    )
    carrying.add_argument(
        "--idle-timeout", type=float, metavar="SECONDS", help="reset those over which nothing goes for so long (never)"
    )
    return carrying


def _add_gateway(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gateway", required=True, metavar="HOST[:PORT]", help="where to (port 4433)")
    parser.add_argument(
        "--keepalive", type=float, default=KEEPALIVE, metavar="SECONDS", help=f"between pings ({KEEPALIVE:g})"
    )
    parser.add_argument("--timeout", type=float, default=20.0, metavar="SECONDS", help="for a connection (20)")


def client_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tcpls proxy client",
        description="Local ports whose connections are carried over one session to a gateway, and on from there.",
    )
    _add_gateway(parser)
    parser.add_argument(
        "--socks",
        action="append",
        default=[],
        metavar="[HOST:]PORT",
        help="SOCKS 5, SOCKS 4a and HTTP CONNECT there (127.0.0.1:1080, unless there are forwards); may be repeated",
    )
    parser.add_argument("--socks-auth", metavar="FILE", help="for those who know a USER:PASSWORD of this file only")
    parser.add_argument(
        "--forward",
        action="append",
        default=[],
        metavar="[HOST:]PORT=HOST:PORT",
        help="a port here that leads to one there; may be repeated",
    )
    _add_carrying(parser).add_argument(
        "--connections", type=int, default=CONNECTIONS, metavar="N", help=f"at a time ({CONNECTIONS}); more wait"
    )
    add_session_options(parser)
    return parser


def connect_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tcpls proxy connect",
        description="Standard input and output joined to one connection: ssh -o ProxyCommand='tcpls proxy connect "
        "--gateway GATEWAY %%h %%p' HOST",
    )
    parser.add_argument("host", metavar="HOST")
    parser.add_argument("port", metavar="PORT", type=int)
    _add_gateway(parser)
    _add_carrying(parser)
    add_session_options(parser)
    return parser


def gateway_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tcpls proxy gateway", description="The far end: connects for clients that it knows, where its rules say."
    )
    parser.add_argument("--listen", default="", metavar="HOST[:PORT]", help="where (every address, port 4433)")
    who = parser.add_argument_group("clients")
    who.add_argument("--client-ca", metavar="FILE", help="PEM authorities that their certificates must lead to")
    who.add_argument("--client-keys", metavar="FILE", help="PEM public keys that they may show instead")
    who.add_argument(
        "--allow-anonymous",
        default="off",
        choices=["off", "loopback", "anywhere"],
        metavar="[=anywhere]",
        help="serve those too whom nobody knows; elsewhere than on loopback, =anywhere is to be written",
    )
    where = parser.add_argument_group("targets")
    where.add_argument(
        "--allow-egress",
        action="append",
        default=[],
        metavar="HOST:PORTS",
        help="db.internal:5432, *.internal:22,80, 10.1.0.0/16:*, [2001:db8::/32]:8000-8999, *:443 (all that is public);"
        " may be repeated; what none allows is refused",
    )
    where.add_argument("--connect-timeout", type=float, default=10.0, metavar="SECONDS", help="for a target (10)")
    carrying = _add_carrying(parser)
    carrying.add_argument("--connections", type=int, default=1024, metavar="N", help="of all clients at a time (1024)")
    carrying.add_argument(
        "--connections-per-client", type=int, default=CONNECTIONS, metavar="N", help=f"at a time ({CONNECTIONS})"
    )
    carrying.add_argument("--max-sessions", type=int, default=1000, metavar="N", help="sessions at a time (1000)")
    own = parser.add_argument_group("identity")
    identity.add_certificates(own)
    identity.add_server_names(own)
    add_tickets(parser)
    add_hiding(parser)
    options.add_common(parser)
    return parser


# From words to plans.


def _positive(arguments: argparse.Namespace, *names: str) -> None:
    for name in names:
        value = getattr(arguments, name)
        if value is not None and not value > 0:
            raise UsageError(f"--{name.replace('_', '-')} is above 0")


def _carrying(arguments: argparse.Namespace, config: CONFIG, connections: int) -> CONFIG:
    """The configuration of a session that carries so many connections. Raises `UsageError`."""
    if arguments.alpn:
        raise UsageError(f"--alpn: what is spoken here is {ALPN}")
    if arguments.plain:
        raise UsageError("--plain: a proxy needs TCPLS")
    _positive(arguments, "window", "idle_timeout")
    if not 16384 <= arguments.window <= 1 << 26:
        raise UsageError("--window is between 16384 and 67108864")
    changed: dict[str, Any] = {
        "alpn": (ALPN,),
        "tcpls": Negotiate.REQUIRE,
        "stream_window": arguments.window,
        # Those whose program does not read keep nothing from the others: all of them together hold half of this, and
        # as much as the other half may have been read without the sender being told yet.
        "session_window": 2 * arguments.window * connections,
        "stream_limit": connections,
        "session": replace(config.session, send_buffer=min(SEND_BUFFER, arguments.window)),
    }
    return replace(config, **changed)


@dataclass(frozen=True, slots=True)
class Listening:
    """A local port, and what it is for: a target, or whoever connects says it."""

    host: str
    port: int
    target: Target | None


def _place(text: str) -> tuple[str, int]:
    """`[HOST:]PORT`; the host is 127.0.0.1. Raises `UsageError`."""
    host, _, port = text.rpartition(":")
    if not port.isdigit():
        raise UsageError(f"{text!r} is not [HOST:]PORT")
    host, number, _ = options.parse_endpoint([f"{host or '127.0.0.1'}:{port}"])
    return host, number


def _listenings(arguments: argparse.Namespace) -> list[Listening]:
    """Raises `UsageError`."""
    socks = arguments.socks or ([] if arguments.forward else [str(SOCKS_PORT)])
    found = [Listening(*_place(text), None) for text in socks]
    for text in arguments.forward:
        here, equals, there = text.partition("=")
        try:
            if not equals:
                raise UsageError("[HOST:]PORT=HOST:PORT is wanted")
            found.append(Listening(*_place(here), Target.parse(there)))
        except (UsageError, PeerError) as error:
            raise UsageError(f"--forward {text}: {error}") from None
    return found


def read_passwords(path: str) -> Passwords:
    """The lines USER:PASSWORD of a file that nobody else may read. Raises `ConfigurationError`, which shows no line."""
    try:
        with Path(path).open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ConfigurationError(f"{path}: others may read it (chmod 600)")
            lines = file.read().splitlines()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    passwords: dict[bytes, bytes] = {}
    for number, line in enumerate(lines, 1):
        if not line or line.startswith(b"#"):
            continue
        user, colon, password = line.partition(b":")
        # RFC 1929 section 2: 1 to 255 bytes each.
        if not colon or not 1 <= len(user) <= 255 or not 1 <= len(password) <= 255 or user in passwords:
            raise ConfigurationError(f"{path}: line {number} is not USER:PASSWORD, or that user stands there twice")
        passwords[user] = password
    if not passwords:
        raise ConfigurationError(f"{path}: there is no USER:PASSWORD in it")
    return passwords


def _is_loopback(host: str) -> bool:
    """Of a name, whether all its addresses are."""
    try:
        found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return False
    return all(ip_address(str(row[4][0]).partition("%")[0]).is_loopback for row in found)


def _tunnel(arguments: argparse.Namespace, connections: int) -> tuple[Tunnel, ClientConfig]:
    """Raises `UsageError`, `ConfigurationError`."""
    _positive(arguments, "keepalive", "timeout")
    host, port, rest = options.parse_endpoint([arguments.gateway])
    if not host or rest:
        raise UsageError("--gateway HOST[:PORT]")
    config = _carrying(arguments, session_config(arguments, port), connections)
    # A gateway opens no streams.
    config = replace(
        config,
        stream_limit=0,
        idle_timeout=SILENCE * arguments.keepalive,
        tickets=config.tickets or MemoryTicketStore(),
    ).with_files_read()

    async def dial() -> Session:
        return await connect(host, port, config=config)

    return Tunnel(dial, timeout=arguments.timeout, keepalive=arguments.keepalive), config


# The commands.


async def client(arguments: argparse.Namespace) -> None:
    _positive(arguments, "connections")
    listenings = _listenings(arguments)
    passwords = read_passwords(arguments.socks_auth) if arguments.socks_auth else None
    begin: Begin = proxy_dialogue(passwords)
    tunnel, config = _tunnel(arguments, arguments.connections)
    _allow_descriptors(arguments.connections + len(listenings))
    front = Front(tunnel, connections=arguments.connections, idle_timeout=arguments.idle_timeout)
    try:
        session = await tunnel.start()
        for line in session.info().lines():
            logger.info("%s", line)
        for each in listenings:
            addresses = front.listen(each.host, each.port, each.target or begin)
            what = "SOCKS 5, SOCKS 4a, HTTP CONNECT" if each.target is None else f"to {each.target}"
            for where in addresses:
                print(f"listening on {where} ({what})", file=sys.stderr, flush=True)
            if each.target is None and passwords is None and not _is_loopback(each.host):
                print(f"warning: whoever reaches {each.host} may use it: --socks-auth", file=sys.stderr)
        if arguments.user:
            privileges.become(arguments.user)
        await asyncio.Event().wait()
    finally:
        await front.close()
        await _end(tunnel, config)


async def _end(tunnel: Tunnel, config: ClientConfig) -> None:
    try:
        await tunnel.close()
    except TCPLSError as error:
        logger.info("the session was not closed in order: %s", error)
    finally:
        if config.helper is not None:
            config.helper.close()


async def connect_one(arguments: argparse.Namespace) -> None:
    try:
        target = Target.of(arguments.host.removeprefix("[").removesuffix("]"), arguments.port)
    except PeerError as error:
        raise UsageError(f"{arguments.host} {arguments.port}: {error}") from None
    tunnel, config = _tunnel(arguments, 1)
    try:
        try:
            stream, _ = await tunnel.open(target)
        except TargetRefused as refused:
            # Why there is no session says more, and has an exit code of its own.
            raise refused.__cause__ or refused from None
        if arguments.user:
            privileges.become(arguments.user)
        await _join_until_hung_up(stream)
        await tunnel.close()
    finally:
        await _end(tunnel, config)


async def _join_until_hung_up(stream: Stream) -> None:
    """SIGHUP is how ssh says that it needs its ProxyCommand no more: what it has said still goes, and the session is
    closed in order."""
    hung_up = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up.set)
    joining, waiting = asyncio.ensure_future(join(stream)), asyncio.ensure_future(hung_up.wait())
    try:
        await asyncio.wait((joining, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not joining.done():
            await asyncio.wait((joining,), timeout=HANG_UP_SECONDS)
        if joining.done():
            joining.result()
        else:
            give_up(stream, RESET)
    finally:
        for task in (joining, waiting):
            task.cancel()
        await asyncio.gather(joining, waiting, return_exceptions=True)


def _clients(arguments: argparse.Namespace, host: str) -> dict[str, Any]:
    """Who is served. Raises `UsageError` where that would be everybody, and nobody has said so."""
    known = arguments.client_ca or arguments.client_keys
    if arguments.allow_anonymous == "off":
        if not known and not arguments.psk:
            raise UsageError("a gateway knows its clients: --client-ca, --client-keys or --psk")
        auth = ClientAuth.REQUIRE if known else ClientAuth.NONE
    else:
        if arguments.allow_anonymous == "loopback" and not _is_loopback(host):
            raise UsageError(
                "--allow-anonymous is for a loopback address (--listen); --allow-anonymous=anywhere serves whoever "
                "reaches it"
            )
        auth = ClientAuth.REQUEST if known else ClientAuth.NONE
        if arguments.allow_anonymous == "anywhere":
            print("warning: --allow-anonymous: whoever reaches this gateway may use it", file=sys.stderr)
    return {"client_auth": auth, "client_ca_file": arguments.client_ca, "client_keys": arguments.client_keys}


async def gateway(arguments: argparse.Namespace) -> None:
    _positive(arguments, "connections", "connections_per_client", "connect_timeout")
    host, port, _ = options.parse_endpoint([arguments.listen] if arguments.listen else [])
    clients = _clients(arguments, host)
    if not arguments.allow_egress:
        raise UsageError("a gateway connects to nothing that no --allow-egress names")
    try:
        rules = EgressRules(arguments.allow_egress)
    except ConfigurationError as error:
        raise UsageError(f"--allow-egress: {error}") from None
    limits = Limits(
        connections=arguments.connections,
        per_client=arguments.connections_per_client,
        connect_timeout=arguments.connect_timeout,
        idle_timeout=arguments.idle_timeout,
    )
    _allow_descriptors(arguments.connections + arguments.max_sessions)
    settings = own_settings(arguments)
    policy = programs.policy(arguments)
    identity.check_policy(policy, knows_peers=arguments.allow_anonymous == "off", how="clients that are known")
    helper = programs.spawn_helper(policy)
    try:
        config = ServerConfig(programs=policy, helper=helper, **clients, **settings)
        config = _carrying(arguments, config, arguments.connections_per_client)
        handler = Gateway(rules, limits, anonymous=arguments.allow_anonymous != "off")
        async with serve(handler, host or None, port, config=config) as listening:
            if arguments.user:
                privileges.become(arguments.user)
            for address in listening.addresses:
                logger.info("listening on %s", address)
            if held := privileges.held():
                logger.warning("this process keeps privileges (%s): --user gives them up", held)
            await asyncio.Event().wait()
    finally:
        if helper is not None:
            helper.close()


def _allow_descriptors(connections: int) -> None:
    """Raises this process's own limit of open files, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + DESCRIPTORS
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        logger.warning("this process may have %d files open, and so fewer connections than it is to carry", allowed)


Command = tuple[Callable[[], argparse.ArgumentParser], Callable[[argparse.Namespace], Awaitable[None]], tuple[int, int]]

COMMANDS: dict[str, Command] = {
    "client": (client_parser, client, (logging.WARNING, logging.INFO)),
    "connect": (connect_parser, connect_one, (logging.ERROR, logging.INFO)),
    "gateway": (gateway_parser, gateway, (logging.INFO, logging.DEBUG)),
}


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] not in COMMANDS:
        asked = bool(words) and words[0] in ("-h", "--help")
        print(USAGE, end="", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    build, command, levels = COMMANDS[words[0]]
    arguments = options.parse(build(), words[1:], BARE)
    logging.basicConfig(level=levels[bool(arguments.verbose)], format="%(message)s", stream=sys.stderr)
    if getattr(arguments, "insecure", False):
        print("warning: --insecure: any certificate is trusted", file=sys.stderr)
    return run(lambda: command(arguments))
