"""KeyUpdate and NewSessionTicket: reassembly, order and bounds."""

from __future__ import annotations

import pytest

from tcpls.errors import Alert, ProtocolViolation, Reason
from tcpls.tls.messages import KeyUpdate, NewSessionTicket
from tcpls.tls.post_handshake import PostHandshake
from tests.unit.tls.pair import refused

TICKET = NewSessionTicket(7200, 1, b"n", b"ticket", {0xFA01: b"", 42: b"\0\0\0\0"})


@pytest.mark.clause("RFC 8446 4.6.3")
@pytest.mark.parametrize("request_", [False, True])
def test_key_update(request_: bool) -> None:
    message = PostHandshake.key_update(request_)
    post = PostHandshake(is_client=False)
    for at, byte in enumerate(message):
        received = post.receive(bytes((byte,)))
        assert received == ([KeyUpdate(request_)] if at == len(message) - 1 else [])
        assert post.boundary is (at < len(message) - 1)


@pytest.mark.clause("RFC 8446 4.6", "RFC 8446 4.6.1", "RFC 8446 5.1")
def test_tickets_and_a_key_update_in_one_record() -> None:
    post = PostHandshake(is_client=True)
    payload = TICKET.write() * 2 + PostHandshake.key_update(False)
    assert post.receive(memoryview(payload)) == [TICKET, TICKET, KeyUpdate(False)]
    assert not post.boundary


@pytest.mark.clause("RFC 8446 5.1")
def test_a_ticket_over_two_records() -> None:
    post = PostHandshake(is_client=True)
    message = TICKET.write()
    assert post.receive(message[:10]) == []
    assert post.receive(message[10:]) == [TICKET]


@pytest.mark.clause(
    "RFC 8446 4", "RFC 8446 4.1.2", "RFC 8446 4.6.1", "RFC 8446 4.6.2", "RFC 8446 4.6.3", "RFC 8446 5.1", "RFC 8446 6.2"
)
@pytest.mark.parametrize(
    ("is_client", "payload", "reason", "alert"),
    [
        (True, b"", Reason.EMPTY_RECORD, Alert.UNEXPECTED_MESSAGE),
        (True, b"\x18\0\0\1\2", Reason.BAD_KEY_UPDATE, Alert.ILLEGAL_PARAMETER),
        (True, b"\x18\0\0\0", Reason.TRUNCATED, Alert.DECODE_ERROR),
        (True, b"\x18\0\0\2\0\0", Reason.TRAILING_BYTES, Alert.DECODE_ERROR),
        (True, b"\x18\0\0\1\0\x04", Reason.MESSAGE_ACROSS_KEYS, Alert.UNEXPECTED_MESSAGE),
        (True, b"\x18\0\0\1\0" * 2, Reason.MESSAGE_ACROSS_KEYS, Alert.UNEXPECTED_MESSAGE),
        (True, b"\x04\1\0\0", Reason.BAD_LENGTH, Alert.DECODE_ERROR),
        (True, b"\x0d", Reason.UNEXPECTED_MESSAGE, Alert.UNEXPECTED_MESSAGE),
        (True, b"\x01", Reason.UNEXPECTED_MESSAGE, Alert.UNEXPECTED_MESSAGE),
        (False, b"\x04", Reason.UNEXPECTED_MESSAGE, Alert.UNEXPECTED_MESSAGE),
        (False, b"\x01", Reason.UNEXPECTED_MESSAGE, Alert.UNEXPECTED_MESSAGE),
        (
            True,
            NewSessionTicket(1, 1, b"", b"t", {51: b""}).write(),
            Reason.MISPLACED_EXTENSION,
            Alert.ILLEGAL_PARAMETER,
        ),
        (True, NewSessionTicket(1, 1, b"", b"", {}).write(), Reason.BAD_LENGTH, Alert.DECODE_ERROR),
    ],
)
def test_refusals(is_client: bool, payload: bytes, reason: Reason, alert: Alert) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        PostHandshake(is_client=is_client).receive(payload)
    refused(caught.value, reason, alert)
