"""The server's flight: what it chooses, and the messages from ServerHello to Finished (RFC 8446 4.1.3, 4.3, 4.4)."""

from __future__ import annotations

from dataclasses import dataclass

from tcpls.errors import ApiMisuse
from tcpls.tls.algorithms import Group
from tcpls.tls.authentication import Chosen, show
from tcpls.tls.client_certificate import ExpectCertificate, Request, certificate_request
from tcpls.tls.config import Answer
from tcpls.tls.extensions import (
    PLACES,
    TLS_1_3,
    Extensions,
    ExtensionType,
    write_alpn,
    write_record_size_limit,
    write_server_share,
    write_u16,
)
from tcpls.tls.flow import Complete, Epoch, Outcome, Peer, State
from tcpls.tls.identity_choice import choose_for_client
from tcpls.tls.key_schedule import ApplicationSecrets, EarlySecrets, HandshakeSecrets, ResumptionSecret
from tcpls.tls.messages import RANDOM_SIZE, EncryptedExtensions, Finished, ServerHello
from tcpls.tls.offer import Offer, choose_alpn
from tcpls.tls.psk_choice import ChosenPsk
from tcpls.tls.server_early import ExpectEndOfEarlyData, judge_early_data
from tcpls.tls.server_finish import ExpectFinished, Issue, Server
from tcpls.tls.suites import CipherSuite
from tcpls.tls.tickets import MAX_LIFETIME, MAX_TICKETS, MAX_TOTAL, TicketState, lifetime_until


@dataclass(frozen=True, slots=True)
class _Choices:
    """What the flight says beyond the ServerHello. `shown` is None with a pre-shared key, and so is `request`."""

    shown: Chosen | None
    request: Request | None
    alpn: bytes | None
    encrypted: EncryptedExtensions
    tickets: int
    answer: Answer


@dataclass(slots=True)
class Reply:
    """The flight that answers a ClientHello, whose keys are agreed on."""

    server: Server
    offer: Offer
    suite: CipherSuite
    group: Group | None
    psk: ChosenPsk | None
    retried: bool

    def send(self) -> State:
        flow = self.server.flow
        alpn = choose_alpn(self.server.config, self.offer)
        answer = self.server.config.answer(self.offer.hello)
        if answer.hello_only:
            self._hello()
            flow.hand_over(self._unknown_extensions())
            return Complete()
        # Every choice is made before anything is sent, so that a refusal goes out unencrypted, as it can be read.
        choices = self._choose(alpn, answer)
        secrets = self._hello()
        flow.send(choices.encrypted.write())
        if choices.request is not None:
            flow.send(choices.request.message.write())
        if choices.shown is not None:
            show(flow, choices.shown, b"", by_client=False)
        flow.send(Finished(secrets.server.verify_data(flow.transcript.digest())).write())
        application = secrets.application(flow.transcript.digest())
        flow.log_application(application)
        flow.write_with(Epoch.APPLICATION, application.server)
        outcome = self._outcome(choices, application)
        issue = Issue(self.server, choices.tickets, choices.answer.remembered)
        finished = ExpectFinished(flow, secrets, application, outcome, issue)
        if choices.request is not None:
            return ExpectCertificate(self.server, choices.request.message, choices.request.shown, finished)
        if not flow.early_data.accepted:
            return finished
        flow.may_answer(outcome)
        return ExpectEndOfEarlyData(finished) if flow.end_of_early_data else finished

    def _choose(self, alpn: bytes | None, answer: Answer) -> _Choices:
        server, flow, offer, psk = self.server, self.server.flow, self.offer, self.psk
        shown = None if psk is not None else choose_for_client(server.config, offer.server_name, offer.wanted)
        tickets = self._ticket_count()
        # RFC 8446 4.3.2: with a pre-shared key nobody is asked.
        request = None if shown is None else certificate_request(server.config, offer.client_types)
        encrypted = self._encrypted_extensions(alpn, answer, tickets)
        encrypted.extensions.update(self._certificate_types(shown, request))
        flow.early_data = judge_early_data(server, offer, psk, alpn, answer.remembered, retried=self.retried)
        if flow.early_data.accepted:
            encrypted.extensions[ExtensionType.EARLY_DATA] = b""
        return _Choices(shown, request, alpn, encrypted, tickets, answer)

    def _unknown_extensions(self) -> dict[int, bytes]:
        """The client's extensions that TLS itself does not know."""
        return {kind: contents for kind, contents in self.offer.hello.extensions.items() if kind not in PLACES}

    def _outcome(self, choices: _Choices, application: ApplicationSecrets) -> Outcome:
        """As far as it is known before the client has answered."""
        flow, peer, ticket = self.server.flow, self._known_client(), self._ticket
        return Outcome(
            suite=self.suite,
            group=self.group,
            signature_scheme=None if choices.shown is None else choices.shown.scheme,
            alpn=choices.alpn,
            server_name=self.offer.server_name,
            peer_certificates=peer.certificates,
            peer_raw_key=peer.raw_key,
            peer_extensions=self._unknown_extensions(),
            read_secret=application.client,
            write_secret=application.server,
            exporter=application.exporter,
            retried=self.retried,
            # Known once the client's Finished is.
            resumption=ResumptionSecret(flow.engine, self.suite, b""),
            verified=peer.verified,
            resumed=ticket is not None,
            psk_identity=None if self.psk is None else self.psk.external,
            until=self._until,
            remembered=b"" if ticket is None else ticket.remembered,
            ech=self.server.ech.status,
            early_data=flow.early_data,
            early_exporter=flow.early_exporter,
            note=choices.answer.note,
        )

    @property
    def _ticket(self) -> TicketState | None:
        """What is resumed."""
        return None if self.psk is None else self.psk.state

    def _certificate_types(self, chosen: Chosen | None, request: Request | None) -> Extensions:
        """RFC 7250 4.2: what was chosen of each list that the client has sent, if certificates are exchanged at all."""
        offered, types = self.offer.hello.extensions, Extensions()
        if chosen is not None and ExtensionType.SERVER_CERTIFICATE_TYPE in offered:
            types[ExtensionType.SERVER_CERTIFICATE_TYPE] = bytes((chosen.identity.certificate_type,))
        if request is not None and ExtensionType.CLIENT_CERTIFICATE_TYPE in offered:
            types[ExtensionType.CLIENT_CERTIFICATE_TYPE] = bytes((request.shown,))
        return types

    def _known_client(self) -> Peer:
        """The client of a handshake with a pre-shared key: known by the key, or by what it showed at first."""
        psk, ticket = self.psk, self._ticket
        if psk is None or ticket is None or psk.external is not None:
            return Peer(verified=psk is not None)
        certificates, raw_key = ticket.peer_certificates, ticket.peer_raw_key
        chain_known = bool(certificates) and self.server.config.client_trust is not None
        return Peer(certificates, raw_key, verified=chain_known or bool(raw_key))

    @property
    def _until(self) -> float:
        """When this session's tickets, and those of its resumptions, are over: in seconds since 1970."""
        ticket = self._ticket
        if ticket is not None and ticket.until is not None:
            return ticket.until
        return self.server.now / 1000 + MAX_TOTAL

    def _ticket_count(self) -> int:
        """How many tickets this client gets."""
        config, offer = self.server.config, self.offer
        if config.ticket_keys is None or not lifetime_until(self._until, self.server.now / 1000, MAX_LIFETIME):
            return 0
        # RFC 8446 4.2.9: none that could not be used with the modes that the client lists. One that lists none has
        # excluded nothing.
        if offer.modes and not any(mode in offer.modes for mode in config.psk_modes):
            return 0
        if offer.tickets is None:
            return config.tickets
        # RFC 9149 section 3: as many as are asked for, up to a limit of the server's own.
        return min(offer.tickets[self._ticket is not None], MAX_TICKETS)

    def _hello(self) -> HandshakeSecrets:
        server, flow, psk, ticket = self.server, self.server.flow, self.psk, self._ticket
        shared = None
        extensions: Extensions = {ExtensionType.SUPPORTED_VERSIONS: write_u16(TLS_1_3)}
        if self.group is not None:
            public, shared = flow.engine.answer_share(self.group, self.offer.shares[self.group], server.random)
            extensions[ExtensionType.KEY_SHARE] = write_server_share(self.group, public)
        if psk is not None:
            extensions[ExtensionType.PRE_SHARED_KEY] = write_u16(psk.index)
        hello = ServerHello(server.random(RANDOM_SIZE), self.offer.hello.session_id, self.suite.code, extensions)
        flow.transcript.choose(self.suite)
        early = EarlySecrets.derive(flow.engine, self.suite, None if psk is None else psk.psk.key)
        if flow.early_data.accepted and ticket is not None:
            flow.skips_early_data, flow.max_early_data = False, ticket.max_early_data
            flow.read_with(Epoch.EARLY, flow.early(early))
        flow.send(server.ech.confirm(flow, hello, self.suite).write())
        secrets = early.handshake(shared, flow.transcript.digest())
        flow.log_handshake(secrets)
        flow.write_with(Epoch.HANDSHAKE, secrets.server)
        if not flow.early_data.accepted or not flow.end_of_early_data:
            flow.read_with(Epoch.HANDSHAKE, secrets.client)
        return secrets

    def _encrypted_extensions(self, alpn: bytes | None, answer: Answer, tickets: int) -> EncryptedExtensions:
        extensions: Extensions = {}
        config = self.server.config
        # RFC 6066 section 3: an empty server_name tells that the name was looked at; a resumption does not do it again.
        named = self.offer.server_name is not None and ExtensionType.SERVER_NAME in self.offer.hello.extensions
        if named and self._ticket is None:
            extensions[ExtensionType.SERVER_NAME] = b""
        if alpn is not None:
            extensions[ExtensionType.ALPN] = write_alpn((alpn,))
        # RFC 9149 section 3: the number of tickets that are going to be sent.
        if self.offer.tickets is not None and self.server.config.ticket_keys is not None:
            extensions[ExtensionType.TICKET_REQUEST] = bytes((tickets,))
        extensions |= self.server.ech.extensions
        # RFC 8449 section 4: each end tells its own; RFC 6066 section 4: max_fragment_length is then ignored, as it
        # always is here.
        if self.offer.record_size_limit is not None and config.record_size_limit is not None:
            extensions[ExtensionType.RECORD_SIZE_LIMIT] = write_record_size_limit(config.record_size_limit)
            self.server.flow.limit_records(self.offer.record_size_limit, config.record_size_limit)
        for kind, contents in answer.extensions:
            if kind in PLACES or kind in extensions or kind not in self.offer.hello.extensions:
                raise ApiMisuse(f"the extension {kind} cannot be answered: it was not offered, or is TLS's own")
            extensions[kind] = contents
        return EncryptedExtensions(extensions)
