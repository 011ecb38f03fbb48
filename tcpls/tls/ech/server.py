"""The server's part of Encrypted ClientHello (RFC 9849 section 7): one process that opens, and answers what it opened.

A handshake has one `ServerEch`, which its states ask about each hello. The states themselves see one ClientHello: the
inner one if it could be opened, and else the outer one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from tcpls.errors import HandshakeError, Reason
from tcpls.tls.ech.configs import write_configs
from tcpls.tls.ech.confirmation import CONFIRMATION_SIZE, accept_confirmation, retry_confirmation
from tcpls.tls.ech.extension import OuterEch
from tcpls.tls.ech.inner import decode_inner
from tcpls.tls.ech.keys import EchKey, EchKeys
from tcpls.tls.ech.status import EchStatus
from tcpls.tls.extensions import Extensions, ExtensionType, require
from tcpls.tls.flow import Flow
from tcpls.tls.hpke import Context, setup_receiver
from tcpls.tls.messages import ClientHello, Message, ServerHello
from tcpls.tls.suites import CipherSuite, Random

_ECH = ExtensionType.ENCRYPTED_CLIENT_HELLO


class ServerEch(Protocol):
    """Asked about each hello that comes and leaves."""

    @property
    def status(self) -> EchStatus: ...

    @property
    def extensions(self) -> Extensions:
        """What goes into EncryptedExtensions."""

    def second(self, message: Message) -> Heard:
        """The second ClientHello that counts."""

    def confirm_retry(self, flow: Flow, request: ServerHello, suite: CipherSuite) -> ServerHello:
        """The HelloRetryRequest to send. The transcript holds the hash of the first ClientHello."""

    def confirm(self, flow: Flow, hello: ServerHello, suite: CipherSuite) -> ServerHello:
        """The ServerHello to send. The transcript holds all that was said before it."""


class NoEch:
    """The client has not offered it."""

    status = EchStatus.NOT_OFFERED

    @property
    def extensions(self) -> Extensions:
        return {}

    def second(self, message: Message) -> Heard:
        # RFC 9849 7.1.1: without it in the first ClientHello, the second is like any other.
        return Heard(message, ClientHello.read(message.body()), self)

    def confirm_retry(self, flow: Flow, request: ServerHello, suite: CipherSuite) -> ServerHello:
        return request

    def confirm(self, flow: Flow, hello: ServerHello, suite: CipherSuite) -> ServerHello:
        return hello


NO_ECH = NoEch()


class Rejected(NoEch):
    """Nothing here opens what the client offers, or it offers grease: the outer ClientHello counts."""

    status = EchStatus.REJECTED

    def __init__(self, keys: EchKeys | None, random: Random) -> None:
        self._keys = keys
        self._random = random

    @property
    def extensions(self) -> Extensions:
        # RFC 9849 7.1: what to use next time.
        return {} if self._keys is None else {_ECH: write_configs(self._keys.retry)}

    def confirm_retry(self, flow: Flow, request: ServerHello, suite: CipherSuite) -> ServerHello:
        if self._keys is None:
            return request
        # RFC 9849 7.1: so that nobody sees by its absence that it was rejected.
        return replace(request, extensions={**request.extensions, _ECH: self._random(CONFIRMATION_SIZE)})


class Accepted:
    """The inner ClientHello counts."""

    status = EchStatus.ACCEPTED

    def __init__(self, context: Context, offered: OuterEch, client_random: bytes) -> None:
        self._context = context
        self._offered = offered
        self._client_random = client_random

    @property
    def extensions(self) -> Extensions:
        # RFC 9849 section 5: none in answer to the inner ClientHello.
        return {}

    def second(self, message: Message) -> Heard:
        outer = ClientHello.read(message.body())
        # RFC 9849 7.1.1: it must be there again,
        offered = OuterEch.read(require(outer.extensions, _ECH))
        # for the same key and suite, in the same context, which has no new key for it;
        if replace(self._offered, enc=b"", payload=offered.payload) != offered:
            raise HandshakeError(Reason.CHANGED_HELLO, "encrypted_client_hello")
        encoded = self._context.open(offered.associated_data(outer), offered.payload)
        # and it must open.
        if encoded is None:
            raise HandshakeError(Reason.ECH_NOT_OPENED)
        inner = decode_inner(encoded, outer)
        return Heard(_message(inner), inner, self)

    def confirm_retry(self, flow: Flow, request: ServerHello, suite: CipherSuite) -> ServerHello:
        request = replace(request, extensions={**request.extensions, _ECH: bytes(CONFIRMATION_SIZE)})
        confirmation = retry_confirmation(flow.engine, flow.transcript, suite, self._client_random, request)
        return replace(request, extensions={**request.extensions, _ECH: confirmation})

    def confirm(self, flow: Flow, hello: ServerHello, suite: CipherSuite) -> ServerHello:
        confirmation = accept_confirmation(flow.engine, flow.transcript, suite, self._client_random, hello)
        return replace(hello, random=hello.random[:-CONFIRMATION_SIZE] + confirmation)


@dataclass(frozen=True, slots=True)
class Heard:
    """The ClientHello that counts, as a message and read. `server_name`: if it is not the one that the hello says."""

    message: Message
    hello: ClientHello
    ech: ServerEch
    server_name: str | None = None


def hear(keys: EchKeys | None, flow: Flow, message: Message, random: Random) -> Heard:
    """Opens the first ClientHello if it can be. Raises `PeerError` for what must not be."""
    outer = ClientHello.read(message.body())
    contents = outer.extensions.get(_ECH)
    if contents is None:
        return Heard(message, outer, NO_ECH)
    offered = OuterEch.read(contents)
    candidates = _candidates(keys, offered)
    # Once for all of them: of a hello with thousands of extensions it costs more than a key exchange.
    associated_data = offered.associated_data(outer) if candidates else b""
    for key in candidates:
        opened = _open(flow, key, offered, associated_data)
        if opened is None:
            continue
        context, encoded = opened
        # RFC 9849 5.1: the extension that stands for others is for the encrypted form alone.
        if ExtensionType.ECH_OUTER_EXTENSIONS in outer.extensions:
            raise HandshakeError(Reason.MISPLACED_EXTENSION, "ech_outer_extensions")
        inner = decode_inner(encoded, outer)
        flow.log_ech(outer.random, context.shared, key.config.write())
        return Heard(_message(inner), inner, Accepted(context, offered, inner.random))
    return Heard(message, outer, Rejected(keys, random))


def _candidates(keys: EchKeys | None, offered: OuterEch) -> list[EchKey]:
    # RFC 9849 7.1: those with the id that is named; 10.4: or all, where the server is told so.
    if keys is None:
        return []
    return [key for key in keys.keys if keys.trial or key.config.config_id == offered.config_id]


def _open(flow: Flow, key: EchKey, offered: OuterEch, associated_data: bytes) -> tuple[Context, bytes] | None:
    # RFC 9849 7.1: only with a suite that the configuration has.
    for suite in key.config.hpke_suites:
        if (suite.kdf, suite.aead) == (offered.kdf, offered.aead):
            break
    else:
        return None
    try:
        context = setup_receiver(flow.engine, suite, offered.enc, key.private, key.config.info)
    except HandshakeError:
        # RFC 9849 7.1: what is no key of this KEM is not for this configuration; it may be grease.
        return None
    encoded = context.open(associated_data, offered.payload)
    return None if encoded is None else (context, encoded)


def _message(hello: ClientHello) -> Message:
    raw = hello.write()
    return Message(raw[0], raw)
