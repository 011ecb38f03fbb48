"""The client's side of the handshake until ServerHello (RFC 8446 section 4.1): one class per awaited message."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime

from tcpls.errors import HandshakeError, Reason
from tcpls.tls.algorithms import Group
from tcpls.tls.client_finish import Agreed
from tcpls.tls.client_flight import ExpectEncryptedExtensions
from tcpls.tls.client_hello import Client, second_hello, send_early_secret, send_hello, write_hello_extensions
from tcpls.tls.config import ClientConfig
from tcpls.tls.early_data import EarlyData
from tcpls.tls.ech.client import ClientEch, offer_ech
from tcpls.tls.engine import PrivateShare
from tcpls.tls.esni import EsniClient
from tcpls.tls.extensions import (
    TLS_1_3,
    ExtensionType,
    Place,
    check_places,
    read_cookie,
    read_selected_version,
    read_server_share,
    read_u16,
    require,
)
from tcpls.tls.flow import Epoch, Flow, State
from tcpls.tls.key_exchange import client_shares
from tcpls.tls.key_schedule import EarlySecrets
from tcpls.tls.messages import (
    RANDOM_SIZE,
    TLS_1_2,
    ClientHello,
    HandshakeType,
    Message,
    ServerHello,
)
from tcpls.tls.psk import (
    PreSharedKey,
    PskMode,
)
from tcpls.tls.suites import SUITE_BY_CODE, CipherSuite, Random
from tcpls.tls.tickets import Ticket

_DOWNGRADES = (b"DOWNGRD\x01", b"DOWNGRD\x00")


def start(config: ClientConfig, flow: Flow, random: Random, time: datetime) -> State:
    """Sends the first ClientHello."""
    client = Client(config, flow, random, time, _hide(config, flow, random, time))
    client_random = random(RANDOM_SIZE)
    # RFC 8446 D.4: a session id that is not empty asks for the compatible form of the handshake.
    session_id = random(32) if config.middlebox_compatibility else b""
    shares = client_shares(config.engine, config.groups, config.shares, random)
    suites = tuple(suite.code for suite in config.suites)
    extensions = write_hello_extensions(config, shares.values(), early=isinstance(client.early_ticket, Ticket))
    hello = ClientHello(client_random, session_id, suites, extensions)
    flow.client_random = client_random
    flow.compatible = config.middlebox_compatibility
    psks = client.psks(None)
    hello = send_hello(client, hello, psks)
    send_early_secret(client)
    return ExpectServerHello(client, hello, shares, psks=psks)


def _hide(config: ClientConfig, flow: Flow, random: Random, time: datetime) -> ClientEch:
    if config.esni is None:
        return offer_ech(config, flow, random)
    return EsniClient(config.engine, config.esni, config.server_name, random, time.timestamp())


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
        # RFC 8446 4.1.4: a second HelloRetryRequest is an unexpected_message.
        if answer.is_retry and self.retried_suite is not None:
            raise HandshakeError(Reason.SECOND_RETRY)
        # RFC 8446 4.1.3: the session id is echoed, and compression is none.
        if answer.session_id != self.hello.session_id or answer.compression:
            raise HandshakeError(Reason.ILLEGAL_CHOICE, "session id or compression")
        suite = SUITE_BY_CODE.get(answer.suite)
        if suite is None or suite.code not in self.hello.suites:
            raise HandshakeError(Reason.ILLEGAL_CHOICE, f"suite {answer.suite:#06x}")
        # RFC 8446 4.1.4: the suite of the HelloRetryRequest must not change.
        if self.retried_suite not in (None, suite):
            raise HandshakeError(Reason.ILLEGAL_CHOICE, "the suite changed after the retry")
        state = self
        rejected = self.client.ech.judge(self.client.flow, answer, suite)
        if rejected is not None:
            state = replace(self, client=self.client.for_public_name(rejected), hello=rejected.hello, psks=())
        check_places(
            answer.extensions, Place.RETRY if answer.is_retry else Place.SERVER_HELLO, state.hello.extensions.keys()
        )
        if answer.is_retry:
            return state._retry(message, answer, suite)
        return state._agree(message, answer, suite)

    def _retry(self, message: Message, request: ServerHello, suite: CipherSuite) -> State:
        client, flow, extensions = self.client, self.client.flow, request.extensions
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
        # RFC 8446 4.2.10: a HelloRetryRequest refuses early data.
        if flow.early_data is EarlyData.OFFERED:
            flow.early_data = EarlyData.RETRIED
        flow.transcript.retry(suite)
        flow.transcript.add(message.raw)
        psks = client.psks(suite)
        hello = send_hello(client, second_hello(self.hello, shares.values(), cookie), psks)
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
        group = None if share is None else share.group
        agreed = Agreed(self.client, self.hello, suite, group, secrets, self.retried_suite is not None, psk)
        # RFC 8446 4.2.10: with the first key alone, which is the ticket's.
        if flow.early_data is EarlyData.OFFERED and not agreed.resumes:
            flow.early_data = EarlyData.NOT_RESUMED
        # Where a message ends early data, that goes on until it is known not to be accepted.
        if flow.early_data is not EarlyData.OFFERED or not flow.end_of_early_data:
            flow.write_with(Epoch.HANDSHAKE, secrets.client)
        flow.read_with(Epoch.HANDSHAKE, secrets.server)
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
