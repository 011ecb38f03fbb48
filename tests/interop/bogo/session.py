"""A run of the shim: one connection, and those that resume it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from tcpls.errors import PeerError, TCPLSError
from tcpls.protocol.base import Role
from tcpls.tls.connection import ClientConnection, Established, ServerConnection
from tcpls.tls.ticket_keys import TicketKeys
from tcpls.tls.tickets import Ticket
from tests.interop.bogo.configure import ENGINE, ExpectationFailed, client_config, server_config
from tests.interop.bogo.exchange import Clock, Exchange, dial, hang_up, shake_hands
from tests.interop.bogo.expect import check_established, check_tickets
from tests.interop.bogo.flags import Settings, Unimplemented, parse

ROLE = "TCPLS_BOGO_ROLE"
"""Names the one role that is to be tested, "client" or "server"."""


def run(arguments: Sequence[str]) -> int:
    """The exit code. Raises `Unimplemented`."""
    initial, resume, _ = parse(arguments)
    if os.environ.get(ROLE) == ("client" if initial.server else "server"):
        raise Unimplemented("the other role")
    session = _Session()
    for number in range(initial.resume_count + 1):
        settings = resume if number else initial
        try:
            session.connect(settings, resumes=number > 0)
        except (TCPLSError, ExpectationFailed) as error:
            print(f"connection {number + 1}: {describe(error)}", file=sys.stderr)
            return 1
        session.clock.pass_by(settings.resumption_delay)
    return 0


def describe(error: Exception) -> str:
    """A line in which config.json can find the name of the reason or of the alert."""
    reason = f" {error.reason.name}" if isinstance(error, PeerError) else ""
    return f"{type(error).__name__}{reason}: {error}"


class _Session:
    """What is kept from one connection to the next."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._ticket: Ticket | None = None
        self._ticket_keys = TicketKeys(ENGINE, os.urandom)

    def connect(self, settings: Settings, *, resumes: bool) -> None:
        used: list[int] = []
        connection = self._server(settings, used) if settings.server else self._client(settings, resumes)
        sock = dial(settings)
        try:
            established = shake_hands(sock, connection, server=settings.server)
            check_established(settings, established, used, resumes=resumes)
            exchange = Exchange(sock, established, Role.SERVER if settings.server else Role.CLIENT)
            exchange.run(settings)
            if not settings.server:
                self._keep_ticket(settings, established, exchange)
            exchange.shut_down(check=settings.check_close_notify)
        finally:
            hang_up(sock)

    def _client(self, settings: Settings, resumes: bool) -> ClientConnection:
        config = client_config(settings, self._ticket if resumes and not settings.no_ticket else None)
        return ClientConnection(config, random=os.urandom, time=self.clock.now)

    def _server(self, settings: Settings, used: list[int]) -> ServerConnection:
        keys = None if settings.no_ticket else self._ticket_keys
        config = replace(server_config(settings, used), ticket_keys=keys)
        if settings.skip_ticket:
            config = replace(config, tickets=0)
        return ServerConnection(config, random=os.urandom, time=self.clock.now)

    def _keep_ticket(self, settings: Settings, established: Established, exchange: Exchange) -> None:
        check_tickets(settings, exchange.tickets)
        now = self.clock.now.timestamp()
        made = [established.ticket(message, now) for message in exchange.tickets]
        self._ticket = next((ticket for ticket in reversed(made) if ticket is not None), None)
