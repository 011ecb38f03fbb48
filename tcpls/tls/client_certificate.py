"""The server's states for the client's certificate, and its request for one (RFC 8446 sections 4.3.2, 4.4.2, 4.4.3)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from tcpls.errors import CertificateError, HandshakeError, Reason
from tcpls.tls.algorithms import CertificateType
from tcpls.tls.authentication import Claim, certificate_messages, read_certificate, read_raw_key
from tcpls.tls.config import ClientAuth, ServerConfig
from tcpls.tls.engine import PublicKey
from tcpls.tls.flow import Peer, State
from tcpls.tls.messages import Certificate, CertificateRequest, HandshakeType, Message
from tcpls.tls.server_finish import ExpectFinished, Server, psk_mark
from tcpls.tls.tickets import TicketState


@dataclass(frozen=True, slots=True)
class Request:
    """What a client is asked for, and the type of certificate that it is to answer with."""

    message: CertificateRequest
    shown: CertificateType


def certificate_request(config: ServerConfig, types: Collection[int] | None) -> Request | None:
    """None: this client is not asked. `types`: of the certificates that it can show, if it said so."""
    if config.client_auth is ClientAuth.NONE:
        return None
    offered = (CertificateType.X509,) if types is None else types
    shown = next((each for each in config.client_types if each in offered), None)
    if shown is None:
        # RFC 7250 4.2: no type in common is an unsupported_certificate. Who has said nothing may have nothing.
        if types is not None or config.client_auth is ClientAuth.REQUIRE:
            raise HandshakeError(Reason.NO_COMMON_CERTIFICATE_TYPE)
        return None
    return Request(CertificateRequest(b"", config.request_extensions), shown)


@dataclass(slots=True)
class ExpectCertificate:
    """The client's Certificate, which may be empty."""

    server: Server
    request: CertificateRequest
    shown: CertificateType
    finished: ExpectFinished

    @property
    def accepts(self) -> Collection[int]:
        return certificate_messages(self.request.extensions)

    def receive(self, message: Message) -> State:
        config, flow = self.server.config, self.server.flow
        certificate = read_certificate(message, self.request.extensions, config.compressions)
        # RFC 8446 4.4.2: the context is that of the request.
        if certificate.context != self.request.context:
            raise HandshakeError(Reason.BAD_VALUE, "certificate_request_context")
        if not certificate.chain:
            # RFC 8446 4.4.2.4: whether a client without a certificate is served is for the server to say.
            if config.client_auth is ClientAuth.REQUIRE:
                raise HandshakeError(Reason.CERTIFICATE_REQUIRED)
            flow.transcript.add(message.raw)
            return self.finished
        peer, key = self._judge(certificate)
        flow.transcript.add(message.raw)
        return ExpectCertificateVerify(self.finished, Claim(peer, key, config.schemes))

    def _judge(self, certificate: Certificate) -> tuple[Peer, PublicKey]:
        config = self.server.config
        if self.shown is CertificateType.RAW_PUBLIC_KEY:
            return read_raw_key(certificate, config.engine, config.client_keys)
        key = config.engine.public_key(certificate.chain[0])
        return Peer(certificate.chain, verified=verify_chain(self.server, certificate.chain)), key


@dataclass(slots=True)
class ExpectCertificateVerify:
    """RFC 8446 4.4.3: it follows every Certificate that is not empty."""

    finished: ExpectFinished
    claim: Claim
    accepts: Collection[int] = field(default=(HandshakeType.CERTIFICATE_VERIFY,), init=False)

    def receive(self, message: Message) -> State:
        peer, outcome = self.claim.peer, self.finished.outcome
        self.claim.check(self.finished.flow, message, by_client=True)
        outcome.peer_certificates, outcome.peer_raw_key = peer.certificates, peer.raw_key
        outcome.verified = peer.verified
        return self.finished


def verify_chain(server: Server, chain: tuple[bytes, ...]) -> bool:
    """Whether the client's chain leads to a trusted authority; raises `CertificateError` if it should and does not."""
    trust = server.config.client_trust
    if trust is None or server.time is None:
        return False
    trust.validate(chain, None, server.time)
    return True


def authenticates(server: Server, state: TicketState) -> bool:
    """Whether a ticket's session has what this server asks of clients today.

    A resumption has no certificates of its own (RFC 8446 4.4.2), so those of the first handshake count, and are judged
    again: they may have expired, and the server may trust others by now.
    """
    if state.psk_identity is not None:
        # Whoever takes a key away, or puts another in its place, takes what it has begun away too.
        return state.psk_mark != b"" and state.psk_mark == psk_mark(server.config, state.psk_identity)
    if state.peer_raw_key:
        return state.peer_raw_key in server.config.client_keys
    if not state.peer_certificates:
        return server.config.client_auth is not ClientAuth.REQUIRE
    if CertificateType.X509 not in server.config.client_types:
        return False
    try:
        verify_chain(server, state.peer_certificates)
    except CertificateError:
        return False
    return True
