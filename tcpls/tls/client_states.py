"""The client's side of the handshake (RFC 8446 section 4): one class per awaited message, which has what it needs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime
from hmac import compare_digest

from tcpls.errors import HandshakeError, Reason
from tcpls.tls.algorithms import CERTIFICATE_ONLY_SCHEMES, Group, SignatureScheme
from tcpls.tls.config import ClientConfig, is_address
from tcpls.tls.engine import PrivateShare, PublicKey
from tcpls.tls.extensions import (
    PLACES,
    TLS_1_3,
    Extensions,
    ExtensionType,
    Place,
    check_places,
    read_alpn,
    read_code_points,
    read_cookie,
    read_selected_version,
    read_server_share,
    read_u16,
    require,
    write_alpn,
    write_client_shares,
    write_code_points,
    write_cookie,
    write_offered_versions,
    write_server_name,
)
from tcpls.tls.flow import Complete, Epoch, Flow, Outcome, State
from tcpls.tls.key_exchange import client_shares
from tcpls.tls.key_schedule import BinderKind, EarlySecrets, HandshakeSecrets
from tcpls.tls.messages import (
    RANDOM_SIZE,
    TLS_1_2,
    Certificate,
    CertificateRequest,
    CertificateVerify,
    ClientHello,
    EncryptedExtensions,
    Finished,
    HandshakeType,
    Message,
    ServerHello,
    signed_content,
)
from tcpls.tls.psk import (
    PreSharedKey,
    PskMode,
    bind,
    read_expected_tickets,
    unbound,
    write_psk_modes,
    write_ticket_request,
)
from tcpls.tls.suites import SUITE_BY_CODE, CipherSuite, Random
from tcpls.tls.tickets import Ticket

_DOWNGRADES = (b"DOWNGRD\x01", b"DOWNGRD\x00")


@dataclass(frozen=True, slots=True)
class Client:
    """What every state of one client's handshake shares. `time`: at which certificates are judged."""

    config: ClientConfig
    flow: Flow
    random: Random
    time: datetime

    @property
    def resumes(self) -> Ticket | None:
        """The ticket, if it is good for this handshake."""
        config, ticket = self.config, self.config.ticket
        if ticket is None:
            return None
        good = (
            ticket.alive(self.time.timestamp())
            # RFC 8446 4.6.1: for the same name, because the certificate of that session was for it.
            and ticket.server_name == config.server_name
            # Whoever wants to know the server cannot resume a session in which it was not looked at.
            and (ticket.verified or config.trust is None)
            and any(ticket.psk.fits(suite) for suite in config.suites)
        )
        return ticket if good else None

    def psks(self, suite: CipherSuite | None) -> tuple[PreSharedKey, ...]:
        """The keys to offer. RFC 8446 4.1.4: after a retry, those that do not fit its `suite` are left out."""
        ticket, config = self.resumes, self.config
        keys = config.psks if ticket is None else (ticket.psk, *config.psks)
        suites = config.suites if suite is None else (suite,)
        return tuple(key for key in keys if any(key.fits(each) for each in suites))

    def age(self, psk: PreSharedKey) -> int:
        """RFC 8446 4.2.11: the obfuscated age of a ticket; of other keys, 0."""
        ticket = self.config.ticket
        if psk.kind is not BinderKind.RESUMPTION or ticket is None:
            return 0
        return ticket.obfuscated_age(self.time.timestamp())


def _write_extensions(config: ClientConfig, shares: Collection[PrivateShare], cookie: bytes | None) -> Extensions:
    extensions: Extensions = {}
    if config.server_name is not None and not is_address(config.server_name):
        extensions[ExtensionType.SERVER_NAME] = write_server_name(config.server_name)
    extensions[ExtensionType.SUPPORTED_GROUPS] = write_code_points(config.groups)
    extensions[ExtensionType.SIGNATURE_ALGORITHMS] = write_code_points(config.schemes)
    # RFC 8446 4.2.3: certificates may be signed in more ways than handshakes.
    extensions[ExtensionType.SIGNATURE_ALGORITHMS_CERT] = write_code_points(
        (*config.schemes, *CERTIFICATE_ONLY_SCHEMES)
    )
    if config.alpn:
        extensions[ExtensionType.ALPN] = write_alpn(config.alpn)
    extensions[ExtensionType.SUPPORTED_VERSIONS] = write_offered_versions((TLS_1_3,))
    extensions[ExtensionType.KEY_SHARE] = write_client_shares((share.group, share.public) for share in shares)
    if cookie is not None:
        extensions[ExtensionType.COOKIE] = write_cookie(cookie)
    # RFC 8446 4.2.9: without the modes, a server gives no tickets.
    if config.tickets or config.psks or config.ticket is not None:
        extensions[ExtensionType.PSK_KEY_EXCHANGE_MODES] = write_psk_modes(config.psk_modes)
    if config.tickets:
        extensions[ExtensionType.TICKET_REQUEST] = write_ticket_request(config.tickets, config.tickets)
    extensions.update(config.extra_extensions)
    return extensions


def _send_hello(client: Client, hello: ClientHello, psks: tuple[PreSharedKey, ...]) -> ClientHello:
    """Sends the hello, with its binders if there are keys to offer; gives it as it was offered."""
    if not psks:
        client.flow.send(hello.write())
        return hello
    # RFC 8446 4.2.11: the last extension of all.
    offered: Extensions = {ExtensionType.PRE_SHARED_KEY: unbound(psks, [client.age(psk) for psk in psks]).write()}
    hello = replace(hello, extensions={**hello.extensions, **offered})
    client.flow.send(bind(client.flow.engine, client.flow.transcript, hello.write(), psks))
    return hello


def start(client: Client) -> State:
    """Sends the first ClientHello."""
    config, random = client.config, client.random
    client_random = random(RANDOM_SIZE)
    # RFC 8446 D.4: a session id that is not empty asks for the compatible form of the handshake.
    session_id = random(32) if config.middlebox_compatibility else b""
    shares = client_shares(config.engine, config.groups, config.shares, random)
    suites = tuple(suite.code for suite in config.suites)
    hello = ClientHello(client_random, session_id, suites, _write_extensions(config, shares.values(), None))
    client.flow.client_random = client_random
    client.flow.compatible = config.middlebox_compatibility
    psks = client.psks(None)
    return ExpectServerHello(client, _send_hello(client, hello, psks), shares, psks=psks)


@dataclass(slots=True)
class ExpectServerHello:
    """ServerHello, or, unless there was one before, HelloRetryRequest."""

    client: Client
    hello: ClientHello
    shares: dict[Group, PrivateShare]
    retried_suite: CipherSuite | None = None
    psks: tuple[PreSharedKey, ...] = ()
    accepts: Collection[int] = field(default=(HandshakeType.SERVER_HELLO,), init=False)

    def receive(self, message: Message) -> State:
        answer = ServerHello.read(message.body())
        _check_version(answer)
        check_places(
            answer.extensions, Place.RETRY if answer.is_retry else Place.SERVER_HELLO, self.hello.extensions.keys()
        )
        # RFC 8446 4.1.3: the session id is echoed, and compression is none.
        if answer.session_id != self.hello.session_id or answer.compression:
            raise HandshakeError(Reason.ILLEGAL_CHOICE, "session id or compression")
        suite = SUITE_BY_CODE.get(answer.suite)
        if suite is None or suite.code not in self.hello.suites:
            raise HandshakeError(Reason.ILLEGAL_CHOICE, f"suite {answer.suite:#06x}")
        # RFC 8446 4.1.4: the suite of the HelloRetryRequest must not change.
        if self.retried_suite not in (None, suite):
            raise HandshakeError(Reason.ILLEGAL_CHOICE, "the suite changed after the retry")
        if answer.is_retry:
            return self._retry(message, answer, suite)
        return self._agree(message, answer, suite)

    def _retry(self, message: Message, request: ServerHello, suite: CipherSuite) -> State:
        client, flow, extensions = self.client, self.client.flow, request.extensions
        # RFC 8446 4.1.4: a second HelloRetryRequest is an unexpected_message.
        if self.retried_suite is not None:
            raise HandshakeError(Reason.SECOND_RETRY)
        cookie = None
        if ExtensionType.COOKIE in extensions:
            cookie = read_cookie(extensions[ExtensionType.COOKIE])
        shares = self.shares
        if ExtensionType.KEY_SHARE in extensions:
            group = read_u16(extensions[ExtensionType.KEY_SHARE])
            # RFC 8446 4.2.8: the group must have been offered, without a share.
            if group not in client.config.groups or group in shares:
                raise HandshakeError(Reason.ILLEGAL_CHOICE, f"group {group:#06x}")
            shares = {Group(group): client.config.engine.private_share(Group(group), client.random)}
        elif cookie is None:
            # RFC 8446 4.1.4: a request that would change nothing in the ClientHello is an illegal_parameter.
            raise HandshakeError(Reason.POINTLESS_RETRY)
        flow.transcript.retry(suite)
        flow.transcript.add(message.raw)
        # RFC 8446 4.1.2: the same ClientHello but for the key share and the cookie.
        hello = ClientHello(
            self.hello.random,
            self.hello.session_id,
            self.hello.suites,
            _write_extensions(client.config, shares.values(), cookie),
        )
        psks = client.psks(suite)
        hello = _send_hello(client, hello, psks)
        flow.flight_over = True
        return ExpectServerHello(client, hello, shares, suite, psks)

    def _agree(self, message: Message, answer: ServerHello, suite: CipherSuite) -> State:
        flow = self.client.flow
        psk = self._chosen_psk(answer, suite)
        share, shared = self._exchange(answer, psk)
        flow.transcript.choose(suite)
        flow.transcript.add(message.raw)
        early = EarlySecrets.derive(flow.engine, suite, None if psk is None else psk.key)
        secrets = early.handshake(shared, flow.transcript.digest())
        flow.log_handshake(secrets)
        flow.write_with(Epoch.HANDSHAKE, secrets.client)
        flow.read_with(Epoch.HANDSHAKE, secrets.server)
        group = None if share is None else share.group
        agreed = Agreed(self.client, self.hello, suite, group, secrets, self.retried_suite is not None, psk)
        return ExpectEncryptedExtensions(agreed)

    def _chosen_psk(self, answer: ServerHello, suite: CipherSuite) -> PreSharedKey | None:
        contents = answer.extensions.get(ExtensionType.PRE_SHARED_KEY)
        if contents is None:
            return None
        index = read_u16(contents)
        # RFC 8446 4.2.11: within the range that was offered, and with the hash of the suite.
        if index >= len(self.psks):
            raise HandshakeError(Reason.ILLEGAL_CHOICE, f"pre-shared key {index} of {len(self.psks)}")
        if not self.psks[index].fits(suite):
            raise HandshakeError(Reason.ILLEGAL_CHOICE, "a pre-shared key with another hash than the suite's")
        return self.psks[index]

    def _exchange(self, answer: ServerHello, psk: PreSharedKey | None) -> tuple[PrivateShare | None, bytes | None]:
        """The share that the server has answered to, and the shared secret. Neither with a pre-shared key alone."""
        modes = self.client.config.psk_modes
        if psk is not None and ExtensionType.KEY_SHARE not in answer.extensions:
            # RFC 8446 4.2.11: key_share is there exactly when the mode asks for it.
            if PskMode.PSK_KE not in modes:
                raise HandshakeError(Reason.ILLEGAL_CHOICE, "a pre-shared key without a key share")
            return None, None
        group, public = read_server_share(require(answer.extensions, ExtensionType.KEY_SHARE))
        if psk is not None and PskMode.PSK_DHE_KE not in modes:
            raise HandshakeError(Reason.ILLEGAL_CHOICE, "a pre-shared key with a key share")
        # RFC 8446 4.2.8: the group must be one of those that a share was sent for.
        share = next((share for share in self.shares.values() if share.group == group), None)
        if share is None:
            raise HandshakeError(Reason.ILLEGAL_CHOICE, f"group {group:#06x}")
        return share, share.exchange(public)


def _check_version(answer: ServerHello) -> None:
    # RFC 8446 D.5: SSL 3.0 is refused with protocol_version.
    if answer.legacy_version <= 0x0300:
        raise HandshakeError(Reason.UNSUPPORTED_VERSION, f"version {answer.legacy_version:#06x}")
    contents = answer.extensions.get(ExtensionType.SUPPORTED_VERSIONS)
    if contents is None:
        # RFC 8446 4.1.3: a server that knows TLS 1.3 and is made to speak less leaves a mark in its random.
        if answer.random[-8:] in _DOWNGRADES:
            raise HandshakeError(Reason.DOWNGRADE)
        raise HandshakeError(Reason.UNSUPPORTED_VERSION, f"version {answer.legacy_version:#06x}")
    # RFC 8446 4.2.1: a selected version that was not offered is an illegal_parameter. 4.1.3: the old field says 1.2.
    if read_selected_version(contents) != TLS_1_3 or answer.legacy_version != TLS_1_2:
        raise HandshakeError(Reason.ILLEGAL_CHOICE, "version")


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
        extra = {kind: contents for kind, contents in extensions.items() if kind not in PLACES}
        self.agreed.client.flow.transcript.add(message.raw)
        awaited = ExpectCertificate(self.agreed, alpn, extra)
        # RFC 8446 4.4.2 and 4.3.2: with a pre-shared key there are no certificates, and no request for them.
        return awaited if self.agreed.psk is None else ExpectFinished(awaited, (), None)

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
        if self.before.requested:
            # RFC 8446 4.4.2: a client that has no certificate says so with an empty list.
            flow.send(Certificate(b"", ()).write())
        flow.send(Finished(agreed.secrets.client.verify_data(flow.transcript.digest())).write())
        flow.write_with(Epoch.APPLICATION, secrets.client)
        flow.read_with(Epoch.APPLICATION, secrets.server)
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
            )
        )
        return Complete()
