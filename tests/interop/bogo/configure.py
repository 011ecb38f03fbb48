"""From the runner's flags to configurations of the TLS engine."""

from __future__ import annotations

import os
from dataclasses import replace

from tcpls.tls.algorithms import DEFAULT_SCHEMES, Group, SignatureScheme
from tcpls.tls.config import Answer, ClientAuth, ClientConfig, ServerConfig
from tcpls.tls.messages import ClientHello
from tcpls.tls.tickets import Ticket
from tests.interop.bogo import ech
from tests.interop.bogo.credentials import ADDRESS, ENGINE, X509, Verdict, accepted, identities, imported_keys
from tests.interop.bogo.expect import check_hello, read_names
from tests.interop.bogo.flags import Settings, Unimplemented

TLS_1_3 = 0x0304


def groups(settings: Settings, default: tuple[Group, ...]) -> tuple[Group, ...]:
    if not settings.curves:
        return default
    try:
        return tuple(Group(code) for code in settings.curves)
    except ValueError as error:
        raise Unimplemented(f"a group: {error}") from None


def check_versions(settings: Settings) -> None:
    if 0 < settings.max_version < TLS_1_3 or settings.expect_version not in (0, TLS_1_3):
        raise Unimplemented("versions before TLS 1.3")


def _client_auth(settings: Settings) -> ClientAuth:
    # With both flags, the runner's own library asks and does not require.
    if settings.verify_peer:
        return ClientAuth.REQUEST
    return ClientAuth.REQUIRE if settings.require_any_client_certificate else ClientAuth.NONE


def _schemes(settings: Settings) -> tuple[SignatureScheme, ...]:
    if not settings.verify_prefs:
        return DEFAULT_SCHEMES
    try:
        return tuple(SignatureScheme(code) for code in settings.verify_prefs)
    except ValueError as error:
        raise Unimplemented(f"a signature scheme: {error}") from None


def _shares(settings: Settings, config: ClientConfig) -> int | None:
    """How many shares a client makes; the engine chooses them from the front of its groups."""
    if settings.no_key_shares:
        return 0
    if not settings.key_shares:
        return None
    count = len(settings.key_shares)
    if [int(group) for group in config.groups[:count]] != settings.key_shares:
        raise Unimplemented("key shares that are not for the first groups")
    return count


def client_config(settings: Settings, ticket: Ticket | None, trust: Verdict, used: list[int]) -> ClientConfig:
    check_versions(settings)
    if settings.reverify_on_resume:
        raise Unimplemented("certificates that a client keeps with its tickets")
    chains, keys = accepted(settings)
    config = ClientConfig(
        settings.host_name or ADDRESS,
        trust if chains else None,
        server_keys=keys,
        identities=identities(settings, used),
        schemes=_schemes(settings),
        alpn=read_names(settings.advertise_alpn),
        engine=ENGINE,
        psks=sum(map(imported_keys, settings.credentials), ()),
        ticket=ticket,
        tickets=0 if settings.no_ticket else 1,
        early_data=settings.enable_early_data,
        ech=ech.client_configs(settings),
        ech_grease=settings.enable_ech_grease,
    )
    # Our client offers the types of what it has, and nothing else.
    default = [X509] if config.identities else []
    if list(config.own_types) != (settings.available_client_cert_types or default):
        raise Unimplemented(f"the types of certificates {settings.available_client_cert_types}")
    config = replace(config, groups=groups(settings, config.groups))
    return replace(config, shares=_shares(settings, config))


def server_config(settings: Settings, trust: Verdict, used: list[int]) -> ServerConfig:
    check_versions(settings)

    def answer(hello: ClientHello) -> Answer:
        check_hello(settings, hello)
        return Answer()

    alpn: tuple[bytes, ...] = (os.fsencode(settings.select_alpn),) if settings.select_alpn else ()
    if settings.decline_alpn:
        alpn = ()
    elif settings.reject_alpn:
        # A server with names of its own refuses a client that has none of them.
        alpn = (b"a name that no test offers",)
    chains, keys = accepted(settings)
    config = ServerConfig(
        identities(settings, used),
        answer=answer,
        alpn=alpn,
        engine=ENGINE,
        psks=sum(map(imported_keys, settings.credentials), ()),
        ech=ech.server_keys(settings, ENGINE),
        client_auth=_client_auth(settings),
        client_trust=trust if chains else None,
        client_keys=keys,
        schemes=_schemes(settings),
    )
    return replace(config, groups=groups(settings, config.groups))
