"""The client's states for the server's certificate (RFC 8446 sections 4.3.2, 4.4.2 and 4.4.3)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from tcpls.errors import CertificateError, HandshakeError, Reason
from tcpls.tls.algorithms import CertificateType
from tcpls.tls.authentication import Claim, certificate_messages, read_certificate, read_raw_key
from tcpls.tls.client_finish import Agreed, ExpectFinished, Reply, Told
from tcpls.tls.engine import PublicKey
from tcpls.tls.extensions import ExtensionType
from tcpls.tls.flow import Peer, State
from tcpls.tls.identity_choice import Wanted, choose_for_server
from tcpls.tls.messages import Certificate, CertificateRequest, HandshakeType, Message
from tcpls.tls.ocsp import read_status


@dataclass(slots=True)
class ExpectCertificate:
    """Certificate, or CertificateRequest ahead of it. `reply`: to the request, if there was one."""

    agreed: Agreed
    told: Told
    reply: Reply | None = None

    @property
    def accepts(self) -> Collection[int]:
        certificates = certificate_messages(self.agreed.hello.extensions)
        return certificates if self.reply is not None else (*certificates, HandshakeType.CERTIFICATE_REQUEST)

    def receive(self, message: Message) -> State:
        if message.kind == HandshakeType.CERTIFICATE_REQUEST:
            return self._request(message)
        client = self.agreed.client
        config = client.config
        certificate = read_certificate(message, self.agreed.hello.extensions, config.compressions)
        # RFC 8446 4.4.2: the context of a server's Certificate is empty. 4.4.2.4: its list is not.
        if certificate.context:
            raise HandshakeError(Reason.BAD_VALUE, "certificate_request_context")
        if not certificate.chain:
            raise HandshakeError(Reason.NO_CERTIFICATE)
        peer, key = self._judge(certificate)
        client.flow.transcript.add(message.raw)
        claim = Claim(peer, key, config.schemes)
        return ExpectCertificateVerify(self, claim)

    def _judge(self, certificate: Certificate) -> tuple[Peer, PublicKey]:
        client = self.agreed.client
        config, shown = client.config, self.told.server_type
        # RFC 7250 4.2: a server that knows nothing of types shows a certificate, which may not be what is wanted.
        if shown not in config.server_types:
            raise CertificateError(Reason.UNSUPPORTED_CERTIFICATE, "a raw public key is wanted")
        if shown is CertificateType.RAW_PUBLIC_KEY:
            return read_raw_key(certificate, config.engine, config.server_keys)
        key = config.engine.public_key(certificate.chain[0])
        contents = certificate.extensions.get(ExtensionType.STATUS_REQUEST)
        response, judged = b"" if contents is None else read_status(contents), False
        if config.trust is not None and config.server_name is not None:
            config.trust.validate(certificate.chain, config.server_name, client.time)
            judged = bool(response) and config.trust.check_status(response, certificate.chain, client.time)
        peer = Peer(certificate.chain, verified=config.trust is not None, ocsp_response=response, ocsp_verified=judged)
        return peer, key

    def _request(self, message: Message) -> State:
        request = CertificateRequest.read(message.body())
        # RFC 8446 4.3.2: empty in the handshake.
        if request.context:
            raise HandshakeError(Reason.BAD_VALUE, "certificate_request_context")
        client = self.agreed.client
        chosen = choose_for_server(client.config, Wanted.of_server(request.extensions, self.told.client_type))
        client.flow.transcript.add(message.raw)
        return ExpectCertificate(self.agreed, self.told, Reply(request.context, chosen))


@dataclass(slots=True)
class ExpectCertificateVerify:
    before: ExpectCertificate
    claim: Claim
    accepts: Collection[int] = field(default=(HandshakeType.CERTIFICATE_VERIFY,), init=False)

    def receive(self, message: Message) -> State:
        before = self.before
        scheme = self.claim.check(before.agreed.client.flow, message, by_client=False)
        return ExpectFinished(before.agreed, before.told, self.claim.peer, scheme, before.reply)
