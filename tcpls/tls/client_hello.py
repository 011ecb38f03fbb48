"""The ClientHello that a client sends (RFC 8446 section 4.1.2): its extensions, the keys that it offers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime

from tcpls.tls.config import ClientConfig
from tcpls.tls.early_data import EarlyData
from tcpls.tls.ech.client import NO_ECH, ClientEch, Rejected
from tcpls.tls.engine import PrivateShare
from tcpls.tls.extensions import (
    Extensions,
    ExtensionType,
    write_client_shares,
    write_cookie,
)
from tcpls.tls.flow import Epoch, Flow
from tcpls.tls.key_schedule import BinderKind
from tcpls.tls.messages import (
    ClientHello,
)
from tcpls.tls.psk import (
    PreSharedKey,
    bind,
    unbound,
)
from tcpls.tls.suites import CipherSuite, Random
from tcpls.tls.tickets import Ticket


@dataclass(frozen=True, slots=True)
class Client:
    """What every state of one client's handshake shares. `time`: at which certificates are judged."""

    config: ClientConfig
    flow: Flow
    random: Random
    time: datetime
    ech: ClientEch = NO_ECH

    def for_public_name(self, rejected: Rejected) -> Client:
        """For the rest of a handshake with the public server."""
        # RFC 9849 6.1.7: its certificate is for that name, and it does not see this client's. 6.1: nor does a key help.
        config = replace(
            self.config,
            server_name=rejected.public_name,
            psks=(),
            ticket=None,
            ech=(),
            identities=(),
            server_keys=(),
        )
        return replace(self, config=config, ech=rejected)

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
            and (ticket.verified or not config.verifies)
            and any(ticket.psk.fits(suite) for suite in config.suites)
        )
        return ticket if good else None

    @property
    def early_ticket(self) -> Ticket | EarlyData:
        """The ticket to send early data with, or why there is none."""
        config, ticket = self.config, self.resumes
        if not config.early_data:
            return EarlyData.NOT_ASKED
        if ticket is None:
            return EarlyData.NO_TICKET
        if not ticket.max_early_data:
            return EarlyData.NOT_ALLOWED
        # RFC 8446 4.2.10: early data goes with the suite and the application protocol of the ticket's session.
        if ticket.suite not in config.suites:
            return EarlyData.OTHER_SUITE
        if ticket.alpn is not None and ticket.alpn not in config.alpn:
            return EarlyData.OTHER_PROTOCOL
        return ticket

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


def write_hello_extensions(
    config: ClientConfig, shares: Collection[PrivateShare], *, early: bool = False
) -> Extensions:
    extensions = dict(config.hello_extensions)
    extensions[ExtensionType.KEY_SHARE] = write_client_shares((share.group, share.public) for share in shares)
    if early:
        extensions[ExtensionType.EARLY_DATA] = b""
    return extensions


def second_hello(first: ClientHello, shares: Collection[PrivateShare], cookie: bytes | None) -> ClientHello:
    """RFC 8446 4.1.2: the same ClientHello but for the key share, the cookie, early data and pre-shared keys."""
    extensions = {
        kind: contents
        for kind, contents in first.extensions.items()
        if kind not in (ExtensionType.EARLY_DATA, ExtensionType.PRE_SHARED_KEY)
    }
    extensions[ExtensionType.KEY_SHARE] = write_client_shares((share.group, share.public) for share in shares)
    if cookie is not None:
        extensions[ExtensionType.COOKIE] = write_cookie(cookie)
    return replace(first, extensions=extensions)


def send_hello(client: Client, hello: ClientHello, psks: tuple[PreSharedKey, ...]) -> ClientHello:
    """Sends the hello, with its binders if there are keys to offer; gives it as it was offered."""
    if psks:
        # RFC 8446 4.2.11: the last extension of all.
        offered: Extensions = {ExtensionType.PRE_SHARED_KEY: unbound(psks, [client.age(psk) for psk in psks]).write()}
        hello = replace(hello, extensions={**hello.extensions, **offered})
    hello = client.ech.prepare(hello)
    message = hello.write()
    client.ech.send(client.flow, bind(client.flow.engine, client.flow.transcript, message, psks) if psks else message)
    return hello


def send_early_secret(client: Client) -> None:
    """Behind a ClientHello that offers early data: what it is protected with."""
    flow, ticket = client.flow, client.early_ticket
    if isinstance(ticket, EarlyData):
        flow.early_data = ticket
        return
    flow.early_data, flow.max_early_data = EarlyData.OFFERED, ticket.max_early_data
    flow.write_with(Epoch.EARLY, flow.early(ticket.psk.early_secrets(flow.engine)))
