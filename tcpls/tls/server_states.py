"""The server's side of the handshake (RFC 8446 section 4): one class per awaited message, which has what it needs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from hmac import compare_digest

from tcpls.errors import ApiMisuse, HandshakeError, Reason
from tcpls.tls.algorithms import Group, SignatureScheme
from tcpls.tls.config import Identity, ServerConfig
from tcpls.tls.extensions import (
    PLACES,
    TLS_1_3,
    Extensions,
    ExtensionType,
    write_alpn,
    write_server_share,
    write_u16,
)
from tcpls.tls.flow import Complete, Epoch, Flow, Outcome, State
from tcpls.tls.key_schedule import ApplicationSecrets, HandshakeSecrets
from tcpls.tls.messages import (
    RANDOM_SIZE,
    RETRY_RANDOM,
    Certificate,
    CertificateVerify,
    ClientHello,
    EncryptedExtensions,
    Finished,
    HandshakeType,
    Message,
    ServerHello,
    signed_content,
)
from tcpls.tls.offer import Offer, check_second, choose_alpn, choose_group, choose_identity, choose_suite
from tcpls.tls.suites import CipherSuite, Random


@dataclass(frozen=True, slots=True)
class Server:
    """What every state of one server's handshake shares."""

    config: ServerConfig
    flow: Flow
    random: Random


@dataclass(slots=True)
class ExpectClientHello:
    """The first ClientHello."""

    server: Server
    accepts: Collection[int] = field(default=(HandshakeType.CLIENT_HELLO,), init=False)

    def receive(self, message: Message) -> State:
        server, flow = self.server, self.server.flow
        offer = Offer.read(ClientHello.read(message.body()))
        flow.client_random = offer.hello.random
        # RFC 8446 D.4: a client that wants the compatible form sends a session id.
        flow.compatible = bool(offer.hello.session_id)
        flow.early_data = ExtensionType.EARLY_DATA in offer.hello.extensions
        suite = choose_suite(server.config, offer)
        group = choose_group(server.config, offer)
        flow.transcript.add(message.raw)
        if group in offer.shares:
            return _Reply(server, offer, suite, group, retried=False).send()
        return self._retry(offer, suite, group)

    def _retry(self, offer: Offer, suite: CipherSuite, group: Group) -> State:
        flow = self.server.flow
        flow.transcript.retry(suite)
        extensions: Extensions = {
            ExtensionType.SUPPORTED_VERSIONS: write_u16(TLS_1_3),
            ExtensionType.KEY_SHARE: write_u16(group),
        }
        flow.send(ServerHello(RETRY_RANDOM, offer.hello.session_id, suite.code, extensions).write())
        return ExpectSecondClientHello(self.server, offer, suite, group)


@dataclass(slots=True)
class ExpectSecondClientHello:
    """The ClientHello after a HelloRetryRequest."""

    server: Server
    first: Offer
    suite: CipherSuite
    group: Group
    accepts: Collection[int] = field(default=(HandshakeType.CLIENT_HELLO,), init=False)

    def receive(self, message: Message) -> State:
        offer = Offer.read(ClientHello.read(message.body()))
        check_second(self.first, offer, self.group)
        # RFC 8446 4.2.10: early data ends where the second ClientHello begins.
        self.server.flow.early_data = False
        self.server.flow.transcript.add(message.raw)
        return _Reply(self.server, offer, self.suite, self.group, retried=True).send()


@dataclass(slots=True)
class _Reply:
    """The server's flight, from ServerHello to Finished."""

    server: Server
    offer: Offer
    suite: CipherSuite
    group: Group
    retried: bool

    def send(self) -> State:
        config, flow = self.server.config, self.server.flow
        # Every choice is made before anything is sent, so that a refusal goes out unencrypted, as it can be read.
        identity, scheme = choose_identity(config, self.offer)
        alpn = choose_alpn(config, self.offer)
        encrypted = self._encrypted_extensions(alpn)
        secrets = self._hello()
        flow.send(encrypted.write())
        flow.send(Certificate(b"", identity.chain).write())
        self._sign(identity, scheme)
        flow.send(Finished(secrets.server.verify_data(flow.transcript.digest())).write())
        application = secrets.application(flow.transcript.digest())
        flow.log_application(application)
        flow.write_with(Epoch.APPLICATION, application.server)
        outcome = Outcome(
            suite=self.suite,
            group=self.group,
            signature_scheme=scheme,
            alpn=alpn,
            server_name=self.offer.server_name,
            peer_certificates=(),
            peer_extensions={
                kind: contents for kind, contents in self.offer.hello.extensions.items() if kind not in PLACES
            },
            read_secret=application.client,
            write_secret=application.server,
            exporter=application.exporter,
            retried=self.retried,
        )
        return ExpectFinished(flow, secrets, application, outcome)

    def _hello(self) -> HandshakeSecrets:
        server, flow = self.server, self.server.flow
        public, shared = flow.engine.answer_share(self.group, self.offer.shares[self.group], server.random)
        extensions: Extensions = {
            ExtensionType.SUPPORTED_VERSIONS: write_u16(TLS_1_3),
            ExtensionType.KEY_SHARE: write_server_share(self.group, public),
        }
        hello = ServerHello(server.random(RANDOM_SIZE), self.offer.hello.session_id, self.suite.code, extensions)
        flow.transcript.choose(self.suite)
        flow.send(hello.write())
        secrets = HandshakeSecrets.derive(flow.engine, self.suite, shared, flow.transcript.digest())
        flow.log_handshake(secrets)
        flow.write_with(Epoch.HANDSHAKE, secrets.server)
        flow.read_with(Epoch.HANDSHAKE, secrets.client)
        return secrets

    def _encrypted_extensions(self, alpn: bytes | None) -> EncryptedExtensions:
        extensions: Extensions = {}
        # RFC 6066 section 3: an empty server_name tells that the name was looked at.
        if self.offer.server_name is not None:
            extensions[ExtensionType.SERVER_NAME] = b""
        if alpn is not None:
            extensions[ExtensionType.ALPN] = write_alpn((alpn,))
        for kind, contents in self.server.config.answer(self.offer.hello).extensions:
            if kind in PLACES or kind in extensions or kind not in self.offer.hello.extensions:
                raise ApiMisuse(f"the extension {kind} cannot be answered: it was not offered, or is TLS's own")
            extensions[kind] = contents
        return EncryptedExtensions(extensions)

    def _sign(self, identity: Identity, scheme: SignatureScheme) -> None:
        flow = self.server.flow
        signature = identity.signer.sign(scheme, signed_content(flow.transcript.digest()))
        flow.send(CertificateVerify(scheme, signature).write())


@dataclass(slots=True)
class ExpectFinished:
    """The client's Finished."""

    flow: Flow
    secrets: HandshakeSecrets
    application: ApplicationSecrets
    outcome: Outcome
    accepts: Collection[int] = field(default=(HandshakeType.FINISHED,), init=False)

    def receive(self, message: Message) -> State:
        finished = Finished.read(message.body(), self.outcome.suite.hash_size)
        # RFC 8446 4.4.4: a wrong Finished is a decrypt_error.
        expected = self.secrets.client.verify_data(self.flow.transcript.digest())
        if not compare_digest(finished.verify_data, expected):
            raise HandshakeError(Reason.BAD_FINISHED)
        self.flow.read_with(Epoch.APPLICATION, self.application.client)
        self.flow.complete(self.outcome)
        return Complete()
