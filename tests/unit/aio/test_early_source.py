"""What a server hears of its handshake while it answers early data, from clients that give up or break the rules."""

from __future__ import annotations

import pytest

from tcpls.aio.early import EarlySource
from tcpls.errors import Alert, AlertReceived, HandshakeError, Reason
from tcpls.protocol.base import Role
from tcpls.protocol.events import SessionEnded
from tcpls.protocol.plain import PlainSession
from tcpls.tls.record import ContentType
from tests.unit.tls.early import Hostile, sealed


class Answering:
    """A server that has taken the early data of a hostile client, and reads on."""

    def __init__(self) -> None:
        self.hostile = Hostile()
        established = self.hostile.server.established_early()
        self.core = PlainSession(Role.SERVER, established.read_secret, established.write_secret)
        self.source = EarlySource(self.hostile.server, self.core, lambda opener: None, lambda: 0.0)

    def receive(self, data: bytes) -> None:
        self.source.writable()[: len(data)] = data
        self.source.received(len(data))
        self.core.receive_records(0, self.source, 0.0)

    def alert(self, alert: int) -> bytes:
        return sealed(self.hostile.early, ContentType.ALERT, bytes((1, alert)))


@pytest.mark.clause("RFC 8446 6.1")
@pytest.mark.parametrize("alert", [Alert.CLOSE_NOTIFY, Alert.USER_CANCELED])
def test_a_client_that_gives_up(alert: Alert) -> None:
    """It has not finished, so that nothing which it may say later can count."""
    server = Answering()
    with pytest.raises(HandshakeError) as caught:
        server.receive(server.alert(alert))
    assert caught.value.reason is Reason.CONNECTION_CLOSED


def test_a_client_that_refuses_the_server() -> None:
    server = Answering()
    server.receive(server.alert(Alert.BAD_CERTIFICATE))
    (error,) = [event.error for event in server.core.events() if isinstance(event, SessionEnded)]
    assert isinstance(error, AlertReceived)
    assert error.alert == Alert.BAD_CERTIFICATE
