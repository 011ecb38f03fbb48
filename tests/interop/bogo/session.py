"""A run of the shim: one connection, and those that resume it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from tcpls.errors import EchRejected, PeerError, TCPLSError
from tcpls.protocol.base import Role
from tcpls.tls.connection import ClientConnection, Established, ServerConnection
from tcpls.tls.early_data import EarlyDataPolicy
from tcpls.tls.replay import MemoryReplayStore
from tcpls.tls.ticket_keys import TicketKeys
from tcpls.tls.tickets import Ticket
from tests.interop.bogo.configure import client_config, server_config
from tests.interop.bogo.credentials import ENGINE, Verdict, verdict
from tests.interop.bogo.ech import check_rejection
from tests.interop.bogo.exchange import Exchange
from tests.interop.bogo.expect import ExpectationFailed, check_established, check_names, check_tickets, expect
from tests.interop.bogo.flags import Settings, Unimplemented, parse
from tests.interop.bogo.handshake import EarlyAnswers, dialled, shake_hands

EARLY_LIMIT = 14336
"""Bytes of early data that the runner knows to be allowed."""
ROLE = "TCPLS_BOGO_ROLE"
"""Names the one role that is to be tested, "client" or "server"."""


def run(arguments: Sequence[str]) -> int:
    """The exit code. Raises `Unimplemented`."""
    initial, resume, retry = parse(arguments)
    if os.environ.get(ROLE) == ("client" if initial.server else "server"):
        raise Unimplemented("the other role")
    session = _Session(retry)
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


class Clock:
    """The time of day, which stands still but for the runner's leaps: it counts the milliseconds of a ticket's age."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def pass_by(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass(frozen=True)
class _Attempt:
    """One connection. `used`: the numbers of the credentials that have signed."""

    settings: Settings
    resumes: bool
    judge: Verdict
    used: list[int] = field(default_factory=list)

    def check(self, settings: Settings, established: Established) -> None:
        """`settings`: those that hold now, which are others once early data was refused."""
        check_established(settings, established, self.used, resumes=self.resumes)
        check_names(settings, self.judge.asked)


class _Session:
    """What is kept from one connection to the next. `retry`: the settings once early data was refused."""

    def __init__(self, retry: Settings) -> None:
        self.clock = Clock()
        self._retry = retry
        self._ticket: Ticket | None = None
        self._ticket_keys = TicketKeys(ENGINE, os.urandom)
        # What is issued in the millisecond in which it begins to remember would not be good for early data.
        self._replay = MemoryReplayStore(self._milliseconds - 1)

    @property
    def _milliseconds(self) -> int:
        return int(self.clock.now.timestamp() * 1000)

    def connect(self, settings: Settings, *, resumes: bool) -> None:
        attempt = _Attempt(settings, resumes, verdict(settings, self._retry))
        if settings.server:
            server = self._server(attempt)
            with dialled(settings) as sock:
                _serve(sock, server, attempt)
        else:
            client = self._client(attempt)
            with dialled(settings) as sock:
                self._visit(sock, client, attempt)

    def _server(self, attempt: _Attempt) -> ServerConnection:
        settings = attempt.settings
        config = server_config(settings, attempt.judge, attempt.used)
        if not settings.no_ticket:
            early = EarlyDataPolicy(self._replay, limit=EARLY_LIMIT) if settings.enable_early_data else None
            config = replace(config, ticket_keys=self._ticket_keys, early_data=early)
        if settings.skip_ticket:
            config = replace(config, tickets=0)
        return ServerConnection(config, random=os.urandom, time=self.clock.now)

    def _client(self, attempt: _Attempt) -> ClientConnection:
        ticket = self._ticket if attempt.resumes and not attempt.settings.no_ticket else None
        config = client_config(attempt.settings, ticket, attempt.judge, attempt.used)
        return ClientConnection(config, random=os.urandom, time=self.clock.now)

    def _visit(self, sock: socket.socket, connection: ClientConnection, attempt: _Attempt) -> None:
        settings = attempt.settings
        # In one write each, as an application makes them.
        sent = sum(connection.send_early(data) for data in settings.initial_writes)
        offered = connection.early_data.offered
        try:
            established = shake_hands(sock, connection)
        except EchRejected as rejection:
            # Early data that was offered is refused with it.
            settings = self._retry if offered else settings
            check_names(settings, attempt.judge.asked)
            check_rejection(settings, rejection)
            raise
        if offered and not established.early_data.accepted:
            expect("early data refused", True, settings.expect_reject_early_data)
            settings, sent = self._retry, 0
        check_rejection(settings, None)
        attempt.check(settings, established)
        exchange = Exchange(sock, established, Role.CLIENT)
        exchange.run(settings, sent)
        self._keep_ticket(settings, established, exchange)
        exchange.shut_down(check=settings.check_close_notify)

    def _keep_ticket(self, settings: Settings, established: Established, exchange: Exchange) -> None:
        check_tickets(settings, exchange.tickets)
        now = self.clock.now.timestamp()
        made = [established.ticket(message, now) for message in exchange.tickets]
        self._ticket = next((ticket for ticket in reversed(made) if ticket is not None), None)


def _serve(sock: socket.socket, connection: ServerConnection, attempt: _Attempt) -> None:
    settings = attempt.settings
    early = EarlyAnswers(sock, connection)
    established = shake_hands(sock, connection, early)
    attempt.check(settings, established)
    exchange = Exchange(sock, established, Role.SERVER, early.sink)
    exchange.run(settings)
    exchange.shut_down(check=settings.check_close_notify)
