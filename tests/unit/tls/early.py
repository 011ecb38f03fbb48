"""Clients and servers with early data, and a hostile client's keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tcpls.errors import Alert, HandshakeError, Reason
from tcpls.observe import NULL_KEY_LOG, KeyLog
from tcpls.tls.connection import ClientConnection, ServerConnection
from tcpls.tls.early_data import EarlyDataPolicy
from tcpls.tls.key_schedule import HandshakeTrafficSecret
from tcpls.tls.psk import PreSharedKey
from tcpls.tls.record import RecordSealer
from tcpls.tls.replay import MemoryReplayStore
from tcpls.tls.suites import CipherSuite
from tcpls.tls.ticket_keys import TicketKeys
from tcpls.tls.tickets import Ticket
from tests.engine import ENGINE
from tests.unit.tls.pair import TIME, SecretLog, client_config, refused, seeded, server_config, shake
from tests.unit.tls.test_psk import tickets_of

NOW = int(TIME.timestamp() * 1000)
LIMIT = 1 << 14
AES_128, AES_256, CHACHA = CipherSuite
PSK = PreSharedKey(b"device 7", b"k" * 32)


class Server:
    """What is configured on one server, over any number of connections."""

    def __init__(self, limit: int = LIMIT, **policy: Any) -> None:
        self.keys = TicketKeys(ENGINE, seeded(9), 3600)
        self.policy = EarlyDataPolicy(**{"replay": MemoryReplayStore(NOW - 1), "limit": limit, **policy})

    def connection(self, later: float = 0.0, seed: int = 2, key_log: KeyLog = NULL_KEY_LOG, **changes: Any) -> Any:
        config = server_config(**{"ticket_keys": self.keys, "early_data": self.policy, **changes})
        time = TIME + timedelta(seconds=later)
        return ServerConnection(config, random=seeded(seed), time=time, key_log=key_log)


def client(
    ticket: Ticket | None, later: float = 0.0, key_log: KeyLog = NULL_KEY_LOG, **changes: Any
) -> ClientConnection:
    config = client_config(**{"ticket": ticket, "early_data": True, "tickets": 1, **changes})
    time = TIME + timedelta(seconds=later)
    return ClientConnection(config, random=seeded(1), time=time, key_log=key_log)


def ticket_of(server: Server, first: dict[str, Any] | None = None, **changes: Any) -> Ticket:
    established, _ = shake(client(None, **(first or {})), server.connection(**changes))
    (ticket,) = tickets_of(established)
    return ticket


def record(content_type: int, content: bytes) -> bytes:
    return bytes((content_type, 3, 3)) + len(content).to_bytes(2, "big") + content


def refuses(server: ServerConnection, data: bytes, reason: Reason, alert: Alert) -> None:
    with pytest.raises(HandshakeError) as caught:
        server.receive_data(data)
    refused(caught.value, reason, alert)


class Hostile:
    """A client's keys by its log, to seal what no client would send; and the server that has taken its early data."""

    def __init__(self, limit: int = LIMIT, **server: Any) -> None:
        self.side = Server(limit)
        self.client = client(ticket_of(self.side))
        self.hello = self.client.data_to_send()
        log = SecretLog()
        self.server = self.side.connection(1.0, key_log=log, **server)
        self.server.receive_data(self.hello)
        self.flight = self.server.data_to_send()
        self.early = self.sealer(log["CLIENT_EARLY_TRAFFIC_SECRET"])
        self.handshake = self.sealer(log["CLIENT_HANDSHAKE_TRAFFIC_SECRET"])

    @staticmethod
    def sealer(secret: bytes) -> RecordSealer:
        return RecordSealer(ENGINE.aead, HandshakeTrafficSecret(ENGINE, AES_128, secret).keys())


def sealed(sealer: RecordSealer, content_type: int, content: bytes) -> bytes:
    sealer.put(content_type, content)
    data = bytes(sealer.pending)
    sealer.sent(len(data))
    return data
