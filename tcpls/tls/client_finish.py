"""The client's last flight (RFC 8446 section 4.4): its answer to a request, its Finished, and what was agreed on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from hmac import compare_digest

from tcpls.errors import HandshakeError, Reason
from tcpls.tls.algorithms import CertificateType, Group, SignatureScheme
from tcpls.tls.authentication import Chosen, show
from tcpls.tls.client_hello import Client
from tcpls.tls.early_data import EarlyData
from tcpls.tls.flow import Complete, Epoch, Flow, Outcome, Peer, State
from tcpls.tls.key_schedule import BinderKind, HandshakeSecrets
from tcpls.tls.messages import Certificate, ClientHello, EndOfEarlyData, Finished, HandshakeType, Message
from tcpls.tls.psk import PreSharedKey
from tcpls.tls.suites import CipherSuite
from tcpls.tls.tickets import MAX_TOTAL


@dataclass(frozen=True, slots=True)
class Agreed:
    """What ServerHello settled."""

    client: Client
    hello: ClientHello
    suite: CipherSuite
    group: Group | None
    secrets: HandshakeSecrets
    retried: bool
    psk: PreSharedKey | None = None

    @property
    def resumes(self) -> bool:
        return self.psk is not None and self.psk.kind is BinderKind.RESUMPTION

    @property
    def until(self) -> float:
        """When tickets of this session, and of those that resume it, are over: in seconds since 1970."""
        ticket = self.client.config.ticket
        if self.resumes and ticket is not None and ticket.until is not None:
            return ticket.until
        return self.client.time.timestamp() + MAX_TOTAL


@dataclass(frozen=True, slots=True)
class Told:
    """What EncryptedExtensions told. `extra`: the extensions that TLS does not know.

    `server_type`: what the server is going to show; `client_type`: what the client may.
    """

    alpn: bytes | None
    extra: dict[int, bytes]
    server_type: CertificateType
    client_type: CertificateType


@dataclass(frozen=True, slots=True)
class Reply:
    """What the client answers to a CertificateRequest. `chosen` None: it has no certificate for this server."""

    context: bytes
    chosen: Chosen | None

    def send(self, flow: Flow) -> None:
        if self.chosen is None:
            # RFC 8446 4.4.2: a client that has no certificate says so with an empty list.
            flow.send(Certificate(self.context, ()).write())
        else:
            show(flow, self.chosen, self.context, by_client=True)


@dataclass(slots=True)
class ExpectFinished:
    """The server's Finished. `scheme`: that the server has proved with to have its key, if it was to."""

    agreed: Agreed
    told: Told
    peer: Peer
    scheme: SignatureScheme | None
    reply: Reply | None
    accepts: Collection[int] = field(default=(HandshakeType.FINISHED,), init=False)

    def receive(self, message: Message) -> State:
        agreed, flow, peer = self.agreed, self.agreed.client.flow, self.peer
        finished = Finished.read(message.body(), agreed.suite.hash_size)
        # RFC 8446 4.4.4: a wrong Finished is a decrypt_error.
        if not compare_digest(finished.verify_data, agreed.secrets.server.verify_data(flow.transcript.digest())):
            raise HandshakeError(Reason.BAD_FINISHED)
        flow.transcript.add(message.raw)
        secrets = agreed.secrets.application(flow.transcript.digest())
        flow.log_application(secrets)
        if flow.early_data is EarlyData.ACCEPTED and flow.end_of_early_data:
            # RFC 8446 4.5: the last thing under the keys of early data.
            flow.send(EndOfEarlyData().write(), epoch=Epoch.EARLY)
            flow.write_with(Epoch.HANDSHAKE, agreed.secrets.client)
        if self.reply is not None:
            self.reply.send(flow)
        flow.send(Finished(agreed.secrets.client.verify_data(flow.transcript.digest())).write())
        flow.write_with(Epoch.APPLICATION, secrets.client)
        flow.read_with(Epoch.APPLICATION, secrets.server)
        agreed.client.ech.finish(peer.verified)
        flow.complete(
            Outcome(
                suite=agreed.suite,
                group=agreed.group,
                signature_scheme=self.scheme,
                alpn=self.told.alpn,
                server_name=agreed.client.config.server_name,
                peer_certificates=peer.certificates,
                peer_raw_key=peer.raw_key,
                peer_extensions=self.told.extra,
                read_secret=secrets.server,
                write_secret=secrets.client,
                exporter=secrets.exporter,
                retried=agreed.retried,
                resumption=agreed.secrets.resumption(flow.transcript.digest()),
                verified=peer.verified,
                ocsp_response=peer.ocsp_response,
                ocsp_verified=peer.ocsp_verified,
                resumed=agreed.resumes,
                psk_identity=None if agreed.psk is None or agreed.resumes else agreed.psk.identity,
                until=agreed.until,
                ech=agreed.client.ech.status,
                early_data=flow.early_data,
                early_exporter=flow.early_exporter if flow.early_data.accepted else None,
            )
        )
        return Complete()
