"""The server's side of the handshake until its own flight (RFC 8446 sections 4.1 to 4.3)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from tcpls.tls.algorithms import Group
from tcpls.tls.client_certificate import authenticates
from tcpls.tls.early_data import EarlyData
from tcpls.tls.ech.server import NO_ECH, Heard, hear
from tcpls.tls.esni import hear_esni
from tcpls.tls.extensions import TLS_1_3, Extensions, ExtensionType, write_u16
from tcpls.tls.flow import State
from tcpls.tls.messages import RETRY_RANDOM, HandshakeType, Message, ServerHello
from tcpls.tls.offer import Offer, check_second, choose_group, choose_suite
from tcpls.tls.psk import PskMode
from tcpls.tls.psk_choice import ChosenPsk, check_binder, choose_psk
from tcpls.tls.server_finish import Server
from tcpls.tls.server_flight import Reply
from tcpls.tls.suites import CipherSuite


@dataclass(slots=True)
class ExpectClientHello:
    """The first ClientHello."""

    server: Server
    accepts: Collection[int] = field(default=(HandshakeType.CLIENT_HELLO,), init=False)

    def receive(self, message: Message) -> State:
        flow = self.server.flow
        heard = _hear(self.server, message)
        server = self.server if heard.ech is NO_ECH else replace(self.server, ech=heard.ech)
        message, offer = heard.message, _offer(heard)
        flow.client_random = offer.hello.random
        # RFC 8446 D.4: a client that wants the compatible form sends a session id.
        flow.compatible = bool(offer.hello.session_id)
        flow.skips_early_data = ExtensionType.EARLY_DATA in offer.hello.extensions
        psk = _choose_psk(server, offer, server.config.suites, message)
        suite = choose_suite(server.config, offer) if psk is None else psk.suite
        group = _choose_group(server, offer, psk)
        flow.transcript.add(message.raw)
        if group is None or group in offer.shares:
            return Reply(server, offer, suite, group, psk, retried=False).send()
        return _retry(server, offer, suite, group, psk)


def _hear(server: Server, message: Message) -> Heard:
    config, flow = server.config, server.flow
    heard = hear(config.ech, flow, message, server.random)
    if heard.ech is not NO_ECH:
        return heard
    return hear_esni(flow.engine, config.esni, message, heard.hello) or heard


def _offer(heard: Heard) -> Offer:
    offer = Offer.read(heard.hello)
    return offer if heard.server_name is None else replace(offer, server_name=heard.server_name)


def _retry(server: Server, offer: Offer, suite: CipherSuite, group: Group, psk: ChosenPsk | None) -> State:
    flow = server.flow
    if flow.skips_early_data:
        flow.early_data = EarlyData.RETRIED
    flow.transcript.retry(suite)
    extensions: Extensions = {
        ExtensionType.SUPPORTED_VERSIONS: write_u16(TLS_1_3),
        ExtensionType.KEY_SHARE: write_u16(group),
    }
    request = ServerHello(RETRY_RANDOM, offer.hello.session_id, suite.code, extensions)
    flow.send(server.ech.confirm_retry(flow, request, suite).write())
    flow.flight_over = True
    return ExpectSecondClientHello(server, offer, suite, group, psk)


def _choose_psk(server: Server, offer: Offer, suites: Sequence[CipherSuite], message: Message) -> ChosenPsk | None:
    """The pre-shared key to use, once its binder was found to be right; None for a handshake with certificates."""
    psk = choose_psk(server.config, offer, suites, server.now, lambda state: authenticates(server, state))
    if psk is None or offer.psks is None:
        offer.require_certificate()
        return None
    check_binder(server.flow.engine, server.flow.transcript, message.raw, offer.psks, psk)
    return psk


def _choose_group(server: Server, offer: Offer, psk: ChosenPsk | None) -> Group | None:
    """None where a pre-shared key does without."""
    return None if psk is not None and psk.mode is PskMode.PSK_KE else choose_group(server.config, offer)


@dataclass(slots=True)
class ExpectSecondClientHello:
    """The ClientHello after a HelloRetryRequest."""

    server: Server
    first: Offer
    suite: CipherSuite
    group: Group
    psk: ChosenPsk | None
    accepts: Collection[int] = field(default=(HandshakeType.CLIENT_HELLO,), init=False)

    def receive(self, message: Message) -> State:
        heard = self.server.ech.second(message)
        message, offer = heard.message, _offer(heard)
        check_second(self.first, offer, self.group, None if self.psk is None else self.psk.psk.identity)
        # RFC 8446 4.2.10: early data ends where the second ClientHello begins.
        self.server.flow.skips_early_data = False
        psk = _choose_psk(self.server, offer, (self.suite,), message)
        group = None if psk is not None and psk.mode is PskMode.PSK_KE else self.group
        self.server.flow.transcript.add(message.raw)
        return Reply(self.server, offer, self.suite, group, psk, retried=True).send()
