"""From a user's configuration to the TLS engine's: names to code points, files to keys."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TypeVar

from tcpls.aio.config import ClientConfig, CommonConfig, Negotiate, ServerConfig
from tcpls.errors import ConfigurationError
from tcpls.kernel.program import ABI, Mode
from tcpls.protocol import negotiation
from tcpls.protocol.parameters import (
    PROGRAMS_AUTHENTICATED,
    PROGRAMS_PINNED,
    PROGRAMS_SIGNED,
    Parameters,
    ProgramSupport,
)
from tcpls.tls import config as tls_config
from tcpls.tls import engines
from tcpls.tls.algorithms import DEFAULT_GROUPS, Group
from tcpls.tls.connection import ClientConnection, Established, ServerConnection
from tcpls.tls.messages import ClientHello
from tcpls.tls.suites import CipherSuite

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


_PROGRAM_MODES = {
    Mode.PINNED: PROGRAMS_PINNED,
    Mode.SIGNED: PROGRAMS_SIGNED,
    Mode.AUTHENTICATED: PROGRAMS_AUTHENTICATED,
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
        options=config.session.option_policy.announced,
        programs=programs,
    )


def client_connection(config: ClientConfig, host: str) -> ClientConnection:
    """A fresh handshake with the server `host`. Raises `ConfigurationError`."""
    library, trust = engines.library(config.engine), None
    if config.verify:
        trust = library.load_trust(config.ca_file) if config.ca_file is not None else library.system_trust()
    return ClientConnection(
        tls_config.ClientConfig(
            server_name=config.server_name or host,
            trust=trust,
            suites=_suites(config),
            groups=_groups(config),
            shares=config.key_shares,
            alpn=_alpn(config),
            extra_extensions=() if config.tcpls is Negotiate.OFF else negotiation.client_extensions(),
            engine=library.engine,
        ),
        random=secrets.token_bytes,
        time=datetime.now(UTC),
        key_log=config.key_log,
    )


class ServerSetup:
    """What all handshakes of a server share: parsed once. Raises `ConfigurationError`."""

    def __init__(self, config: ServerConfig) -> None:
        self.local = local_parameters(config)
        self._negotiates = config.tcpls is not Negotiate.OFF
        self._key_log = config.key_log
        library = engines.library(config.engine)
        self._config = tls_config.ServerConfig(
            identities=(library.load_identity(config.certificate, config.private_key),),
            answer=self._answer if self._negotiates else tls_config.no_answer,
            suites=_suites(config),
            groups=_groups(config),
            alpn=_alpn(config),
            engine=library.engine,
        )

    def connection(self) -> ServerConnection:
        return ServerConnection(self._config, random=secrets.token_bytes, key_log=self._key_log)

    def _answer(self, hello: ClientHello) -> tls_config.Answer:
        return tls_config.Answer(negotiation.server_extensions(dict(hello.extensions), self.local))

    def outcome(self, established: Established) -> negotiation.Outcome:
        """Whether TCPLS was agreed on, and what the client announced."""
        if not self._negotiates:
            return negotiation.Outcome(False, "switched off here")
        return negotiation.outcome_of_server(established.peer_extensions)
