"""The client's side of the server's flight (RFC 8446 sections 4.3 and 4.4): one class per awaited message."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from hmac import compare_digest

from tcpls.errors import HandshakeError, Reason
from tcpls.tls.algorithms import Group, SignatureScheme
from tcpls.tls.client_hello import Client
from tcpls.tls.early_data import EarlyData
from tcpls.tls.engine import PublicKey
from tcpls.tls.extensions import (
    MAX_RECORD_SIZE_LIMIT,
    PLACES,
    Extensions,
    ExtensionType,
    read_alpn,
    read_code_points,
    read_record_size_limit,
    require,
)
from tcpls.tls.flow import Complete, Epoch, Outcome, State
from tcpls.tls.key_schedule import BinderKind, HandshakeSecrets
from tcpls.tls.messages import (
    Certificate,
    CertificateRequest,
    CertificateVerify,
    ClientHello,
    EncryptedExtensions,
    EndOfEarlyData,
    Finished,
    HandshakeType,
    Message,
    signed_content,
)
from tcpls.tls.psk import (
    PreSharedKey,
    read_expected_tickets,
)
from tcpls.tls.suites import CipherSuite


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
    def verified(self) -> bool:
        """Whether the server is known: by a key that it shares with this end, or by its certificate."""
        config = self.client.config
        if self.resumes:
            return config.ticket is not None and config.ticket.verified
        return self.psk is not None or config.trust is not None


@dataclass(slots=True)
class ExpectEncryptedExtensions:
    agreed: Agreed
    accepts: Collection[int] = field(default=(HandshakeType.ENCRYPTED_EXTENSIONS,), init=False)

    def receive(self, message: Message) -> State:
        offered = self.agreed.hello.extensions
        extensions = EncryptedExtensions.read(message.body(), offered.keys()).extensions
        alpn = self._read_alpn(extensions)
        # RFC 6066 section 3: the server's server_name is empty.
        if extensions.get(ExtensionType.SERVER_NAME):
            raise HandshakeError(Reason.BAD_LENGTH, "server_name")
        # RFC 8446 4.2.7: the server's groups are for later connections; of use is only that they have the right form.
        if ExtensionType.SUPPORTED_GROUPS in extensions:
            read_code_points(extensions[ExtensionType.SUPPORTED_GROUPS])
        if ExtensionType.TICKET_REQUEST in extensions:
            read_expected_tickets(extensions[ExtensionType.TICKET_REQUEST])
        self._limit_records(extensions)
        extra = {kind: contents for kind, contents in extensions.items() if kind not in PLACES}
        self.agreed.client.ech.told(extensions.get(ExtensionType.ENCRYPTED_CLIENT_HELLO))
        self._read_early_data(extensions, alpn)
        self.agreed.client.flow.transcript.add(message.raw)
        awaited = ExpectCertificate(self.agreed, alpn, extra)
        # RFC 8446 4.4.2 and 4.3.2: with a pre-shared key there are no certificates, and no request for them.
        return awaited if self.agreed.psk is None else ExpectFinished(awaited, (), None)

    def _limit_records(self, extensions: Extensions) -> None:
        client, contents = self.agreed.client, extensions.get(ExtensionType.RECORD_SIZE_LIMIT)
        own = client.config.record_size_limit
        if contents is None or own is None:
            return
        announced = read_record_size_limit(contents)
        # RFC 8449 section 4: a client may refuse a limit beyond the protocol's.
        if announced > MAX_RECORD_SIZE_LIMIT:
            raise HandshakeError(Reason.BAD_VALUE, f"a record_size_limit of {announced}")
        client.flow.limit_records(announced, own)

    def _read_early_data(self, extensions: Extensions, alpn: bytes | None) -> None:
        agreed, flow, ticket = self.agreed, self.agreed.client.flow, self.agreed.client.config.ticket
        contents = extensions.get(ExtensionType.EARLY_DATA)
        if contents is None:
            if flow.early_data is EarlyData.OFFERED:
                flow.early_data = EarlyData.REFUSED
                if flow.end_of_early_data:
                    flow.write_with(Epoch.HANDSHAKE, agreed.secrets.client)
            return
        # RFC 8446 4.2.10: in EncryptedExtensions it is empty.
        if contents:
            raise HandshakeError(Reason.BAD_LENGTH, "early_data")
        # RFC 8446 4.2.11: early data is accepted with the first key alone. 4.2.10: and with the suite and the
        # application protocol of its session.
        if ticket is None or not agreed.resumes or ticket.suite is not agreed.suite or ticket.alpn != alpn:
            raise HandshakeError(Reason.ILLEGAL_CHOICE, "early data with another key, suite or application protocol")
        flow.early_data = EarlyData.ACCEPTED

    def _read_alpn(self, extensions: Extensions) -> bytes | None:
        contents = extensions.get(ExtensionType.ALPN)
        if contents is None:
            return None
        names = read_alpn(contents)
        # RFC 7301 3.1: exactly one name; 3.2: one that was offered.
        if len(names) != 1:
            raise HandshakeError(Reason.BAD_LENGTH, "application protocols")
        if names[0] not in self.agreed.client.config.alpn:
            raise HandshakeError(Reason.ILLEGAL_CHOICE, "application protocol")
        return names[0]


@dataclass(slots=True)
class ExpectCertificate:
    """Certificate, or CertificateRequest ahead of it."""

    agreed: Agreed
    alpn: bytes | None
    extra: dict[int, bytes]
    requested: bool = False

    @property
    def accepts(self) -> Collection[int]:
        if self.requested:
            return (HandshakeType.CERTIFICATE,)
        return (HandshakeType.CERTIFICATE, HandshakeType.CERTIFICATE_REQUEST)

    def receive(self, message: Message) -> State:
        if message.kind == HandshakeType.CERTIFICATE_REQUEST:
            return self._request(message)
        client = self.agreed.client
        certificate = Certificate.read(message.body(), self.agreed.hello.extensions.keys())
        # RFC 8446 4.4.2: the context of a server's Certificate is empty. 4.4.2.4: its list is not.
        if certificate.context:
            raise HandshakeError(Reason.BAD_VALUE, "certificate_request_context")
        if not certificate.chain:
            raise HandshakeError(Reason.NO_CERTIFICATE)
        key = client.config.engine.public_key(certificate.chain[0])
        if client.config.trust is not None and client.config.server_name is not None:
            client.config.trust.validate(certificate.chain, client.config.server_name, client.time)
        client.flow.transcript.add(message.raw)
        return ExpectCertificateVerify(self, certificate.chain, key)

    def _request(self, message: Message) -> State:
        request = CertificateRequest.read(message.body())
        # RFC 8446 4.3.2: empty in the handshake; and signature_algorithms must be there.
        if request.context:
            raise HandshakeError(Reason.BAD_VALUE, "certificate_request_context")
        read_code_points(require(request.extensions, ExtensionType.SIGNATURE_ALGORITHMS))
        self.agreed.client.flow.transcript.add(message.raw)
        return ExpectCertificate(self.agreed, self.alpn, self.extra, requested=True)


@dataclass(slots=True)
class ExpectCertificateVerify:
    before: ExpectCertificate
    chain: tuple[bytes, ...]
    key: PublicKey
    accepts: Collection[int] = field(default=(HandshakeType.CERTIFICATE_VERIFY,), init=False)

    def receive(self, message: Message) -> State:
        client = self.before.agreed.client
        verify = CertificateVerify.read(message.body())
        # RFC 8446 4.4.3: a scheme that was offered, and one that the certificate's key has.
        if verify.scheme not in client.config.schemes or verify.scheme not in self.key.schemes:
            raise HandshakeError(Reason.ILLEGAL_CHOICE, f"signature scheme {verify.scheme:#06x}")
        scheme = SignatureScheme(verify.scheme)
        self.key.verify(scheme, verify.signature, signed_content(client.flow.transcript.digest()))
        client.flow.transcript.add(message.raw)
        return ExpectFinished(self.before, self.chain, scheme)


@dataclass(slots=True)
class ExpectFinished:
    before: ExpectCertificate
    chain: tuple[bytes, ...]
    scheme: SignatureScheme | None
    accepts: Collection[int] = field(default=(HandshakeType.FINISHED,), init=False)

    def receive(self, message: Message) -> State:
        agreed, flow = self.before.agreed, self.before.agreed.client.flow
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
        if self.before.requested:
            # RFC 8446 4.4.2: a client that has no certificate says so with an empty list.
            flow.send(Certificate(b"", ()).write())
        flow.send(Finished(agreed.secrets.client.verify_data(flow.transcript.digest())).write())
        flow.write_with(Epoch.APPLICATION, secrets.client)
        flow.read_with(Epoch.APPLICATION, secrets.server)
        agreed.client.ech.finish(agreed.verified)
        flow.complete(
            Outcome(
                suite=agreed.suite,
                group=agreed.group,
                signature_scheme=self.scheme,
                alpn=self.before.alpn,
                server_name=agreed.client.config.server_name,
                peer_certificates=self.chain,
                peer_extensions=self.before.extra,
                read_secret=secrets.server,
                write_secret=secrets.client,
                exporter=secrets.exporter,
                retried=agreed.retried,
                resumption=agreed.secrets.resumption(flow.transcript.digest()),
                verified=agreed.verified,
                resumed=agreed.resumes,
                psk_identity=None if agreed.psk is None or agreed.resumes else agreed.psk.identity,
                ech=agreed.client.ech.status,
                early_data=flow.early_data,
                early_exporter=flow.early_exporter if flow.early_data.accepted else None,
            )
        )
        return Complete()
