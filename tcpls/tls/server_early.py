"""Early data at the server (RFC 8446 sections 4.2.10 and 4.5): whether it is accepted, and where it ends."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from tcpls.tls.early_data import EarlyData, EarlyRequest
from tcpls.tls.extensions import ExtensionType
from tcpls.tls.flow import Epoch, State
from tcpls.tls.messages import EndOfEarlyData, HandshakeType, Message
from tcpls.tls.offer import Offer
from tcpls.tls.psk_choice import ChosenPsk
from tcpls.tls.server_finish import ExpectFinished, Server


def judge_early_data(
    server: Server, offer: Offer, psk: ChosenPsk | None, alpn: bytes | None, remembered: bytes, *, retried: bool
) -> EarlyData:
    """To be asked when nothing else is left to decide."""
    # RFC 8446 4.2.10: a HelloRetryRequest refuses early data, and the second ClientHello has no word of it.
    if retried:
        return server.flow.early_data
    if ExtensionType.EARLY_DATA not in offer.hello.extensions:
        return EarlyData.NOT_ASKED
    policy = server.config.early_data
    if policy is None:
        return EarlyData.SWITCHED_OFF
    if psk is None or psk.state is None or offer.psks is None:
        return EarlyData.NOT_RESUMED
    # RFC 8446 4.2.10: early data is encrypted with the first key that is offered.
    if psk.index:
        return EarlyData.NOT_FIRST
    ticket, age = offer.psks.identities[0]
    request = EarlyRequest(ticket, psk.state, age, psk.suite, alpn, remembered, server.now)
    return policy.judge(request, server.flow.engine)


@dataclass(slots=True)
class ExpectEndOfEarlyData:
    """EndOfEarlyData, behind the early data that was accepted."""

    finish: ExpectFinished
    accepts: Collection[int] = field(default=(HandshakeType.END_OF_EARLY_DATA,), init=False)

    def receive(self, message: Message) -> State:
        EndOfEarlyData.read(message.body())
        flow = self.finish.flow
        flow.transcript.add(message.raw)
        flow.read_with(Epoch.HANDSHAKE, self.finish.secrets.client)
        return self.finish
