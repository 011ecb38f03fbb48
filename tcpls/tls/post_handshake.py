"""Handshake messages after the handshake (RFC 8446 section 4.6): KeyUpdate and NewSessionTicket."""

from __future__ import annotations

from tcpls.errors import PeerError, ProtocolViolation, Reason
from tcpls.tls.messages import HandshakeType, KeyUpdate, NewSessionTicket, Reassembly
from tcpls.wire import Buffer

_FROM_CLIENT = frozenset({HandshakeType.KEY_UPDATE})
_FROM_SERVER = frozenset({HandshakeType.KEY_UPDATE, HandshakeType.NEW_SESSION_TICKET})


class PostHandshake:
    """The handshake content of one connection, from the end of the handshake on."""

    __slots__ = ("_accepts", "_reassembly")

    def __init__(self, *, is_client: bool) -> None:
        # RFC 8446 4.6.1: tickets come from servers. 4.6.2: nobody was told that a CertificateRequest may come.
        self._accepts = _FROM_SERVER if is_client else _FROM_CLIENT
        self._reassembly = Reassembly()

    @property
    def boundary(self) -> bool:
        """Whether a message is incomplete: other content and a change of keys may not come now (RFC 8446 5.1)."""
        return self._reassembly.pending

    def receive(self, payload: Buffer) -> list[KeyUpdate | NewSessionTicket]:
        """The messages that one record of handshake content completes. A KeyUpdate is always the last of them."""
        # RFC 8446 5.1: no zero-length fragments of handshake content.
        if not len(payload):
            raise ProtocolViolation(Reason.EMPTY_RECORD)
        try:
            return self._read(payload)
        except ProtocolViolation:
            raise
        except PeerError as error:
            raise ProtocolViolation(error.reason, error.detail) from None

    def _read(self, payload: Buffer) -> list[KeyUpdate | NewSessionTicket]:
        messages: list[KeyUpdate | NewSessionTicket] = []
        self._reassembly.feed(payload)
        while message := self._reassembly.next(self._accepts):
            if message.kind == HandshakeType.NEW_SESSION_TICKET:
                messages.append(NewSessionTicket.read(message.body()))
                continue
            messages.append(KeyUpdate.read(message.body()))
            # RFC 8446 5.1: the message before a change of keys ends its record.
            if self._reassembly.pending:
                raise ProtocolViolation(Reason.MESSAGE_ACROSS_KEYS)
        return messages

    @staticmethod
    def key_update(request: bool) -> bytes:
        """A KeyUpdate message, to be sent in one record under the old keys."""
        return KeyUpdate(request).write()
