"""From a user's configuration to the TLS engine's: names to code points, files to keys."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from tcpls.aio import ech
from tcpls.aio.client_files import ClientFiles
from tcpls.aio.config import ClientConfig, CommonConfig, Negotiate, ServerConfig
from tcpls.aio.identity import (
    check_client_authentication,
    load_public_keys,
    server_identities,
)
from tcpls.aio.tickets import TicketScope
from tcpls.aio.tokens import TokenRegistry
from tcpls.errors import ConfigurationError, HandshakeError, Reason
from tcpls.kernel.program import ABI, Mode
from tcpls.protocol import negotiation
from tcpls.protocol.parameters import (
    PROGRAMS_AUTHENTICATED,
    PROGRAMS_PINNED,
    PROGRAMS_SIGNED,
    Parameters,
    ProgramSupport,
)
from tcpls.protocol.resumption import Remembered
from tcpls.tls import config as tls_config
from tcpls.tls.algorithms import DEFAULT_GROUPS, Group
from tcpls.tls.compression import DEFAULT_COMPRESSIONS, CertificateCompression
from tcpls.tls.connection import ClientConnection, Established, ServerConnection
from tcpls.tls.early_data import EarlyDataPolicy
from tcpls.tls.engine import CryptoEngine
from tcpls.tls.engines import libraries
from tcpls.tls.extensions import ExtensionType, read_record_size_limit
from tcpls.tls.messages import ClientHello
from tcpls.tls.psk import PreSharedKey, PskMode
from tcpls.tls.replay import MemoryReplayStore
from tcpls.tls.suites import CipherSuite
from tcpls.tls.ticket_keys import TicketKeys
from tcpls.tls.tickets import Ticket

T = TypeVar("T")


def _chosen(what: str, names: Iterable[str], known: dict[str, T], default: tuple[T, ...]) -> tuple[T, ...]:
    """The values that `names` name in any case, in their order; the default when there is none.

    Raises `ConfigurationError`.
    """
    chosen = []
    by_name = {name.lower(): value for name, value in known.items()}
    for name in names:
        if name.lower() not in by_name:
            raise ConfigurationError(f"{name!r} is no {what} of TLS 1.3 known here: {', '.join(known)}")
        chosen.append(by_name[name.lower()])
    return tuple(dict.fromkeys(chosen)) or default


def _suites(config: CommonConfig) -> tuple[CipherSuite, ...]:
    return _chosen("cipher suite", config.suites, {s.label: s for s in CipherSuite}, tls_config.DEFAULT_SUITES)


def _groups(config: CommonConfig) -> tuple[Group, ...]:
    return _chosen("group", config.groups, {group.label: group for group in Group}, DEFAULT_GROUPS)


def _alpn(config: CommonConfig) -> tuple[bytes, ...]:
    try:
        return tuple(name.encode("ascii") for name in config.alpn)
    except UnicodeEncodeError:
        raise ConfigurationError("an application protocol's name is ASCII") from None


def _psks(config: CommonConfig, engine: CryptoEngine) -> tuple[PreSharedKey, ...]:
    return tuple(key for psk in config.psks for key in psk.keys(engine))


def _psk_modes(config: CommonConfig) -> tuple[PskMode, ...]:
    modes = {mode.name.lower(): mode for mode in PskMode}
    return _chosen("key exchange mode", config.psk_modes, modes, (PskMode.PSK_DHE_KE,))


def _compressions(config: CommonConfig) -> tuple[CertificateCompression, ...]:
    names = config.certificate_compressions
    if names is None:
        return DEFAULT_COMPRESSIONS
    return _chosen("compression of certificates", names, {each.label: each for each in CertificateCompression}, ())


_PROGRAM_MODES = {
    Mode.PINNED: PROGRAMS_PINNED,
    Mode.SIGNED: PROGRAMS_SIGNED,
    Mode.AUTHENTICATED: PROGRAMS_AUTHENTICATED,
}


def _common(config: CommonConfig, engine: CryptoEngine) -> dict[str, Any]:
    """What both roles tell the TLS engine. Raises `ConfigurationError`."""
    limit = config.record_size_limit
    if config.tcpls is not Negotiate.OFF and limit <= negotiation.LEAST_CONTENT:
        raise ConfigurationError(
            f"a record size limit of {limit} is for ordinary TLS: TCPLS needs more than {negotiation.LEAST_CONTENT}"
        )
    return {
        "suites": _suites(config),
        "groups": _groups(config),
        "alpn": _alpn(config),
        "psks": _psks(config, engine),
        "psk_modes": _psk_modes(config),
        "record_size_limit": limit,
        "padding": config.padding,
        "compressions": _compressions(config),
    }


def local_parameters(config: CommonConfig) -> Parameters:
    """What this end announces: its windows and limits, and what it lets the peer ask for."""
    programs = None
    if config.helper is not None and config.programs.mode is not Mode.OFF:
        programs = ProgramSupport(_PROGRAM_MODES[config.programs.mode], config.programs.max_size, ABI)
    return Parameters(
        session_window=config.session_window,
        stream_window=config.stream_window,
        stream_limit=config.stream_limit,
        idle_timeout=int(config.idle_timeout * 1000),
        failover=config.failover,
        max_connections=config.max_connections,
        options=config.session.option_policy.announced,
        programs=programs,
    )


TICKETS = 2
"""How many a client with a store asks for: one for the next session, and one for when two begin at a time."""


class ClientSetup:
    """What a handshake with the server `host` is made of. Raises `ConfigurationError`."""

    def __init__(self, config: ClientConfig, host: str) -> None:
        self.local = local_parameters(config)
        self._name = config.server_name or host
        self._config = config
        self._files = files = ClientFiles.of(config)
        engine = libraries.library(config.engine).engine
        self._tls = tls_config.ClientConfig(
            server_name=self._name,
            trust=files.trust,
            server_keys=files.server_keys,
            ocsp=config.ocsp,
            shares=config.key_shares,
            extra_extensions=()
            if config.tcpls is Negotiate.OFF
            else negotiation.client_extensions(want_token=config.max_connections > 1),
            engine=engine,
            tickets=0 if config.tickets is None else TICKETS,
            ech=ech.client_configs(config),
            ech_grease=config.ech_grease,
            esni=ech.client_esni(config, engine),
            identities=files.identities,
            **_common(config, engine),
        )

    def connection(self, ticket: Ticket | None = None, *, early_data: bool = False) -> ClientConnection:
        """A fresh handshake, which resumes the session of the ticket if it is still good."""
        return ClientConnection(
            replace(self._tls, ticket=ticket, early_data=early_data),
            random=secrets.token_bytes,
            time=datetime.now(UTC),
            key_log=self._config.key_log,
        )

    def join_hello(self, token: bytes) -> bytes:
        """A ClientHello like that of `connection`, with fresh keys, that joins a session instead."""
        extensions = negotiation.join_extensions(token)
        # No key and no ticket: nothing is asked of this handshake but its looks.
        config = replace(self._tls, extra_extensions=extensions, psks=(), ticket=None, early_data=False)
        return ClientConnection(config, random=secrets.token_bytes, time=datetime.now(UTC)).data_to_send()

    def ticket_scope(self, host: str, port: int) -> TicketScope:
        """What the tickets of this configuration are good for. Whatever says whom to trust belongs into it."""
        config, digests = self._config, self._files.digests
        settings = hashlib.sha256()
        # A ticket of ordinary TLS is of no use for the early data of TCPLS, nor the other way round.
        settings.update(b"plain" if config.tcpls is Negotiate.OFF else b"tcpls")
        if not config.verify:
            settings.update(b" unverified")
        elif config.ca_file is not None:
            settings.update(b" authorities " + digests.authorities)
        if config.server_keys is not None:
            settings.update(b" keys " + digests.server_keys)
        if config.ocsp:
            # A session in which nobody asked may have begun with a certificate that is revoked.
            settings.update(b" ocsp")
        if digests.shown:
            # A session in which this client was known is not resumed as somebody else.
            settings.update(b" identity " + digests.shown)
        for psk in config.psks:
            # Its identity only: a digest of a key is a means to guess it.
            settings.update(b" psk " + hashlib.sha256(psk.identity + b" " + psk.context).digest())
        return TicketScope(host, port, self._name, settings.hexdigest())

    def outcome(self, established: Established) -> negotiation.Outcome:
        """Whether TCPLS was agreed on, and what the server announced."""
        if self._config.tcpls is Negotiate.OFF:
            return negotiation.Outcome(False, "not offered")
        outcome = negotiation.outcome_of_client(established.peer_extensions)
        if outcome.tcpls and established.max_sent < negotiation.LEAST_CONTENT:
            raise HandshakeError(Reason.ILLEGAL_CHOICE, f"TCPLS in records of {established.max_sent} bytes")
        return outcome


def _ticket_keys(config: ServerConfig, engine: CryptoEngine) -> TicketKeys | None:
    if not config.tickets:
        return None
    return TicketKeys(engine, secrets.token_bytes, config.ticket_lifetime, config.ticket_keys)


def _early_data(config: ServerConfig) -> EarlyDataPolicy | None:
    if not config.zero_rtt:
        return None
    if not config.tickets:
        raise ConfigurationError("0-RTT needs tickets")
    if config.ticket_keys is not None and config.replay_store is None:
        # RFC 8446 8.1: what one of them has accepted, another one would accept once more.
        raise ConfigurationError("0-RTT with shared ticket keys needs a replay store, shared by all who share the keys")
    # The keys are this process's own then: no ticket is older than this memory, none of its first millisecond either.
    since = int(datetime.now(UTC).timestamp() * 1000) - 1
    return EarlyDataPolicy(config.replay_store or MemoryReplayStore(since), config.zero_rtt)


class ServerSetup:
    """What all handshakes of a server share: parsed once. Raises `ConfigurationError`."""

    def __init__(self, config: ServerConfig) -> None:
        self.local = local_parameters(config)
        self._negotiates = config.tcpls is not Negotiate.OFF
        self.tokens = TokenRegistry(libraries.library(config.engine).engine, config.handshake_timeout)
        self._key_log = config.key_log
        library = libraries.library(config.engine)
        identities = server_identities(config, library)
        check_client_authentication(config)
        self._config = tls_config.ServerConfig(
            identities=identities,
            answer=self._answer,
            engine=library.engine,
            ticket_keys=_ticket_keys(config, library.engine),
            tickets=config.tickets,
            early_data=_early_data(config),
            ech=ech.server_keys(config, library.engine, identities),
            esni=ech.server_esni(config, library.engine),
            known_names_only=config.known_names_only,
            client_auth=config.client_auth,
            client_trust=None if config.client_ca_file is None else library.load_trust(config.client_ca_file),
            client_keys=load_public_keys(config.client_keys),
            **_common(config, library.engine),
        )

    def connection(self) -> ServerConnection:
        return ServerConnection(self._config, random=secrets.token_bytes, time=datetime.now(UTC), key_log=self._key_log)

    def _answer(self, hello: ClientHello) -> tls_config.Answer:
        if self._negotiates and (token := negotiation.read_join(hello.extensions)) is not None:
            # Draft 4.1.2: an invalid token is an illegal_parameter, whatever is wrong with it.
            if not self.tokens.knows(token):
                raise HandshakeError(Reason.BAD_TOKEN)
            return tls_config.Answer(hello_only=True)
        limit = hello.extensions.get(ExtensionType.RECORD_SIZE_LIMIT)
        fits = limit is None or read_record_size_limit(limit) > negotiation.LEAST_CONTENT
        offered = dict(hello.extensions) if self._negotiates and fits else {}
        remembered = Remembered.by_server(offered, self.local).write()
        token = b""
        if self.local.max_connections > 1 and negotiation.wants_token(offered):
            token = self.tokens.reserve()
        extensions = negotiation.server_extensions(offered, self.local, token or None)
        return tls_config.Answer(extensions, remembered, note=token)

    def outcome(self, established: Established) -> negotiation.Outcome:
        """Whether TCPLS was agreed on, and what the client announced."""
        if not self._negotiates:
            return negotiation.Outcome(False, "switched off here")
        if established.max_sent < negotiation.LEAST_CONTENT:
            return negotiation.Outcome(False, f"the client takes no more than {established.max_sent} bytes in a record")
        return negotiation.outcome_of_server(established.peer_extensions)
