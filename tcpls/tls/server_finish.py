"""The client's last flight, and the tickets that follow it (RFC 8446 sections 4.4 and 4.6.1)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from hmac import compare_digest

from tcpls.errors import HandshakeError, Reason
from tcpls.tls.config import ServerConfig
from tcpls.tls.ech.server import NO_ECH, ServerEch
from tcpls.tls.extensions import Extensions, ExtensionType
from tcpls.tls.flow import Complete, Epoch, Flow, Outcome, State
from tcpls.tls.key_schedule import ApplicationSecrets, HandshakeSecrets
from tcpls.tls.messages import (
    Finished,
    HandshakeType,
    Message,
    NewSessionTicket,
)
from tcpls.tls.suites import Random
from tcpls.tls.tickets import MAX_TICKET_CHAIN, TicketState, lifetime_until


@dataclass(frozen=True, slots=True)
class Server:
    """What every state of one server's handshake shares. `time`: of the handshake, for tickets and certificates."""

    config: ServerConfig
    flow: Flow
    random: Random
    time: datetime | None = None
    ech: ServerEch = NO_ECH

    @property
    def now(self) -> int:
        """Milliseconds since 1970."""
        return 0 if self.time is None else int(self.time.timestamp() * 1000)


def psk_mark(config: ServerConfig, identity: bytes | None) -> bytes:
    """Of the key that has this identity; b"" if none has."""
    return next((psk.mark(config.engine) for psk in config.psks if psk.identity == identity), b"")


@dataclass(slots=True)
class ExpectFinished:
    """The client's Finished."""

    flow: Flow
    secrets: HandshakeSecrets
    application: ApplicationSecrets
    outcome: Outcome
    issue: Issue
    accepts: Collection[int] = field(default=(HandshakeType.FINISHED,), init=False)

    def receive(self, message: Message) -> State:
        finished = Finished.read(message.body(), self.outcome.suite.hash_size)
        # RFC 8446 4.4.4: a wrong Finished is a decrypt_error.
        expected = self.secrets.client.verify_data(self.flow.transcript.digest())
        if not compare_digest(finished.verify_data, expected):
            raise HandshakeError(Reason.BAD_FINISHED)
        self.flow.transcript.add(message.raw)
        self.outcome.resumption = self.secrets.resumption(self.flow.transcript.digest())
        self.flow.read_with(Epoch.APPLICATION, self.application.client)
        self.issue.send(self.outcome)
        self.flow.complete(self.outcome)
        return Complete()


@dataclass(frozen=True, slots=True)
class Issue:
    """The tickets that follow a handshake."""

    server: Server
    count: int
    remembered: bytes

    def send(self, outcome: Outcome) -> None:
        server, keys = self.server, self.server.config.ticket_keys
        # A ticket that no client would keep is of no use.
        known_by = sum(map(len, outcome.peer_certificates)) + len(outcome.psk_identity or b"")
        if keys is None or known_by > MAX_TICKET_CHAIN:
            return
        lifetime = lifetime_until(outcome.until, server.now / 1000, keys.lifetime)
        limit = 0 if server.config.early_data is None else server.config.early_data.limit
        for number in range(self.count):
            # RFC 8446 4.6.1: the nonce tells the tickets of one connection apart; age_add is fresh for each.
            nonce, age_add = bytes((number,)), int.from_bytes(server.random(4), "big")
            state = TicketState(
                key=outcome.resumption.key(nonce),
                suite=outcome.suite,
                issued=server.now,
                lifetime=lifetime,
                age_add=age_add,
                server_name=outcome.server_name,
                alpn=outcome.alpn,
                remembered=self.remembered,
                max_early_data=limit,
                peer_certificates=outcome.peer_certificates,
                peer_raw_key=outcome.peer_raw_key,
                psk_identity=outcome.psk_identity,
                psk_mark=psk_mark(server.config, outcome.psk_identity),
                until=outcome.until,
            )
            # RFC 8446 4.2.10: how many bytes of early data the ticket allows.
            extensions: Extensions = {ExtensionType.EARLY_DATA: limit.to_bytes(4, "big")} if limit else {}
            ticket = NewSessionTicket(lifetime, age_add, nonce, keys.seal(state, server.now), extensions)
            server.flow.send(ticket.write())
