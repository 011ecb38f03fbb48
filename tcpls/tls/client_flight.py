"""The client's state for EncryptedExtensions (RFC 8446 section 4.3.1), and what follows it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from tcpls.errors import HandshakeError, Reason
from tcpls.tls.algorithms import CertificateType
from tcpls.tls.client_finish import Agreed, ExpectFinished, Told
from tcpls.tls.early_data import EarlyData
from tcpls.tls.extensions import (
    MAX_RECORD_SIZE_LIMIT,
    PLACES,
    Extensions,
    ExtensionType,
    read_alpn,
    read_certificate_type,
    read_code_points,
    read_record_size_limit,
)
from tcpls.tls.flow import Epoch, Peer, State
from tcpls.tls.messages import EncryptedExtensions, HandshakeType, Message
from tcpls.tls.psk import read_expected_tickets
from tcpls.tls.server_certificate import ExpectCertificate


@dataclass(slots=True)
class ExpectEncryptedExtensions:
    agreed: Agreed
    accepts: Collection[int] = field(default=(HandshakeType.ENCRYPTED_EXTENSIONS,), init=False)

    def receive(self, message: Message) -> State:
        config, offered = self.agreed.client.config, self.agreed.hello.extensions
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
        self.agreed.client.ech.told(extensions)
        self._read_early_data(extensions, alpn)
        self.agreed.client.flow.transcript.add(message.raw)
        told = Told(
            alpn,
            extra,
            _certificate_type(extensions.get(ExtensionType.SERVER_CERTIFICATE_TYPE), config.server_types),
            _certificate_type(extensions.get(ExtensionType.CLIENT_CERTIFICATE_TYPE), config.own_types),
        )
        # RFC 8446 4.4.2 and 4.3.2: with a pre-shared key there are no certificates, and no request for them.
        if self.agreed.psk is None:
            return ExpectCertificate(self.agreed, told)
        return ExpectFinished(self.agreed, told, self._known(), None, None)

    def _known(self) -> Peer:
        """The server of a handshake with a pre-shared key: known by the key, or as well as it was at first."""
        ticket = self.agreed.client.config.ticket
        return Peer(verified=not self.agreed.resumes or (ticket is not None and ticket.verified))

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


def _certificate_type(contents: bytes | None, offered: Collection[CertificateType]) -> CertificateType:
    # RFC 8446 4.4.2: X.509 unless something else was negotiated.
    if contents is None:
        return CertificateType.X509
    chosen = read_certificate_type(contents)
    # RFC 7250 4.2: one of those that were offered.
    if chosen not in offered:
        raise HandshakeError(Reason.ILLEGAL_CHOICE, f"certificate type {chosen}")
    return CertificateType(chosen)
