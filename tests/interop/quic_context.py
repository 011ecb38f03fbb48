"""This package's handshake in place of aioquic's own TLS, inside an otherwise unchanged `QuicConnection`.

aioquic makes one TLS context per connection and talks to it by handshake messages per epoch, callbacks for traffic
secrets, and one callback when the peer's transport parameters can be read (RFC 9001 section 4.1). That is what
`tcpls.tls.handshake` gives; `Context` translates between the two.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast
from unittest.mock import patch

from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic import connection as quic
from cryptography.hazmat.primitives.serialization import Encoding

from tcpls.errors import AlertReceived, PeerError, Reason
from tcpls.tls.config import Answer, ClientConfig, Identity, ServerConfig
from tcpls.tls.early_data import QUIC_LIMIT, EarlyDataPolicy
from tcpls.tls.engines.openssl import OpenSSLSigner
from tcpls.tls.flow import Epoch, FlowEvent, MessageToSend, Outcome, ReadSecret, WriteSecret
from tcpls.tls.handshake import ClientHandshake, Handshake, ServerHandshake
from tcpls.tls.messages import ClientHello, KeyUpdate, NewSessionTicket
from tcpls.tls.post_handshake import PostHandshake
from tcpls.tls.replay import MemoryReplayStore
from tcpls.tls.suites import CipherSuite
from tcpls.tls.ticket_keys import TicketKeys
from tcpls.tls.tickets import Ticket, TicketSource
from tests.engine import ENGINE, LIBRARY

_EPOCHS = {
    Epoch.INITIAL: tls.Epoch.INITIAL,
    Epoch.EARLY: tls.Epoch.ZERO_RTT,
    Epoch.HANDSHAKE: tls.Epoch.HANDSHAKE,
    Epoch.APPLICATION: tls.Epoch.ONE_RTT,
}


class Alert(tls.Alert):
    """What aioquic turns into CONNECTION_CLOSE with a crypto error (RFC 9001 section 4.8)."""

    def __init__(self, description: int, text: str) -> None:
        super().__init__(text)
        self.description = tls.AlertDescription(description)


def _now() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


@dataclass(frozen=True)
class Resumption:
    """What a server needs to give tickets, and with a policy, to accept early data."""

    keys: TicketKeys = field(default_factory=lambda: TicketKeys(ENGINE, secrets.token_bytes))
    early_data: EarlyDataPolicy | None = field(
        # RFC 9001 section 4.6.1: a ticket says 0xffffffff, and QUIC's own limits hold.
        default_factory=lambda: EarlyDataPolicy(MemoryReplayStore(_now() - 1), QUIC_LIMIT)
    )


@dataclass
class KeptTicket(tls.SessionTicket):
    """A ticket as aioquic keeps them, with more in it."""

    kept: Ticket | None = None


class Context:
    """The part of `aioquic.tls.Context` that `QuicConnection` uses."""

    def __init__(self, is_client: bool, alpn_protocols: list[str], resumption: Resumption, **settings: Any) -> None:
        self._is_client = is_client
        self._resumption = resumption
        self._settings = settings
        self._alpn = tuple(name.encode() for name in alpn_protocols)
        self._handshake: Handshake | None = None
        self._after: PostHandshake | None = None
        # What the connection sets before it starts.
        self.certificate: Any = None
        self.certificate_chain: list[Any] = []
        self.certificate_private_key: Any = None
        self.handshake_extensions: list[tuple[int, bytes]] = []
        self.session_ticket: Any = None
        self.alpn_cb: Any = None
        self.get_session_ticket_cb: Any = None
        self.new_session_ticket_cb: Any = None
        self.update_traffic_key_cb: Any = None
        # What the connection asks for.
        self.state = tls.State.CLIENT_HANDSHAKE_START if is_client else tls.State.SERVER_EXPECT_CLIENT_HELLO
        self.alpn_negotiated: str | None = None
        self.received_extensions: list[tuple[int, bytes]] = []
        self.legacy_session_id = b""
        self.client_random = bytes(32)
        self.early_data_accepted = False
        self.session_resumed = False
        self.outcome: Outcome | None = None

    def handle_message(self, data: bytes, buffers: dict[Any, Buffer]) -> None:
        try:
            self._handle(data, buffers)
        except PeerError as error:
            raise Alert(error.alert, str(error)) from None
        except AlertReceived as error:
            raise Alert(error.alert, str(error)) from None

    def _handle(self, data: bytes, buffers: dict[Any, Buffer]) -> None:
        if self._handshake is None:
            self._handshake = self._client() if self._is_client else self._server()
        if self._after is not None:
            for message in self._after.receive(data):
                # RFC 9001 section 6: keys are updated by packets, a KeyUpdate message is an unexpected_message.
                if isinstance(message, KeyUpdate):
                    raise PeerError(Reason.UNEXPECTED_MESSAGE, "KeyUpdate")
                self._keep(message)
            return
        try:
            if data:
                self._handshake.receive(self._handshake.read_epoch, data)
        finally:
            for event in self._handshake.events():
                self._perform(event, buffers)
        if self._is_client and self.state is tls.State.CLIENT_HANDSHAKE_START:
            self.state = tls.State.CLIENT_EXPECT_SERVER_HELLO

    def _keep(self, message: NewSessionTicket) -> None:
        outcome = self.outcome
        if self.new_session_ticket_cb is None or outcome is None:
            return
        now = datetime.now(UTC)
        source = TicketSource(outcome.resumption, outcome.server_name, outcome.alpn, outcome.verified, outcome.until)
        ticket = source.ticket(message, now.timestamp())
        if ticket is not None:
            self.new_session_ticket_cb(
                KeptTicket(
                    age_add=ticket.age_add,
                    cipher_suite=tls.CipherSuite(ticket.suite.code),
                    not_valid_after=now + timedelta(seconds=ticket.lifetime),
                    not_valid_before=now,
                    resumption_secret=ticket.key,
                    server_name=ticket.server_name or "",
                    ticket=ticket.identity,
                    max_early_data_size=ticket.max_early_data or None,
                    other_extensions=self.received_extensions,
                    kept=ticket,
                )
            )

    def _perform(self, event: FlowEvent, buffers: dict[Any, Buffer]) -> None:
        match event:
            case MessageToSend(epoch, message):
                buffers[_EPOCHS[epoch]].push_bytes(message)
            case WriteSecret(epoch, secret):
                suite = tls.CipherSuite(secret.suite.code)
                self.update_traffic_key_cb(tls.Direction.ENCRYPT, _EPOCHS[epoch], suite, secret.secret)
            case ReadSecret(epoch, secret):
                if self._is_client and epoch is Epoch.HANDSHAKE:
                    self.state = tls.State.CLIENT_EXPECT_ENCRYPTED_EXTENSIONS
                suite = tls.CipherSuite(secret.suite.code)
                self.update_traffic_key_cb(tls.Direction.DECRYPT, _EPOCHS[epoch], suite, secret.secret)
            case Outcome():
                self._complete(event)

    def _complete(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.session_resumed = outcome.resumed
        self.early_data_accepted = outcome.early_data.accepted
        self._after = PostHandshake(is_client=self._is_client)
        if self._is_client:
            self.alpn_negotiated = None if outcome.alpn is None else outcome.alpn.decode()
            self.received_extensions = list(outcome.peer_extensions.items())
            self.alpn_cb(self.alpn_negotiated)
            self.state = tls.State.CLIENT_POST_HANDSHAKE
        else:
            self.state = tls.State.SERVER_POST_HANDSHAKE

    @property
    def _suites(self) -> tuple[CipherSuite, ...]:
        wanted = self._settings["cipher_suites"] or [0x1301, 0x1302, 0x1303]
        known = {suite.code: suite for suite in CipherSuite}
        return tuple(known[int(code)] for code in wanted)

    def _client(self) -> ClientHandshake:
        config = ClientConfig(
            engine=ENGINE,
            server_name=self._settings["server_name"],
            trust=LIBRARY.trust_from_pem(self._settings["cadata"], "cadata"),
            suites=self._suites,
            alpn=self._alpn,
            extra_extensions=tuple(self.handshake_extensions),
            # RFC 9001 section 8.4: QUIC has no compatibility mode.
            middlebox_compatibility=False,
            tickets=2 if self.new_session_ticket_cb is not None else 0,
            ticket=None if self.session_ticket is None else self.session_ticket.kept,
            early_data=self.session_ticket is not None,
        )
        return ClientHandshake(config, random=secrets.token_bytes, time=datetime.now(UTC), end_of_early_data=False)

    def _server(self) -> ServerHandshake:
        chain = tuple(each.public_bytes(Encoding.DER) for each in (self.certificate, *self.certificate_chain))
        config = ServerConfig(
            engine=ENGINE,
            identities=(Identity(chain, OpenSSLSigner(self.certificate_private_key)),),
            suites=self._suites,
            alpn=self._alpn,
            answer=self._answer,
            ticket_keys=self._resumption.keys,
            early_data=self._resumption.early_data,
        )
        return ServerHandshake(config, random=secrets.token_bytes, time=datetime.now(UTC), end_of_early_data=False)

    def _answer(self, hello: ClientHello) -> Answer:
        """The client's transport parameters are read before ours are sent."""
        self.client_random = hello.random
        self.legacy_session_id = hello.session_id
        self.received_extensions = list(hello.extensions.items())
        self.alpn_negotiated = next(name.decode() for name in self._alpn if name in hello.alpn)
        self.alpn_cb(self.alpn_negotiated)
        return Answer(tuple(self.handshake_extensions))


class Connection(quic.QuicConnection):
    """aioquic's connection, unchanged but for who does its handshake."""

    def __init__(self, *, resumption: Resumption | None = None, **settings: Any) -> None:
        self._resumption = resumption or Resumption()
        super().__init__(**settings)

    def _initialize(self, peer_cid: bytes) -> None:
        with patch("aioquic.quic.connection.tls.Context", partial(Context, resumption=self._resumption)):
            super()._initialize(peer_cid)

    @property
    def context(self) -> Context:
        return cast("Context", self.tls)
