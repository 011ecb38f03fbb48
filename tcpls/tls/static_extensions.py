"""The extensions that follow from a configuration alone: encoded once, when it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcpls.tls.algorithms import CERTIFICATE_ONLY_SCHEMES, CertificateType
from tcpls.tls.compression import write_compressions
from tcpls.tls.extensions import (
    TLS_1_3,
    Extensions,
    ExtensionType,
    write_alpn,
    write_authorities,
    write_certificate_types,
    write_code_points,
    write_offered_versions,
    write_record_size_limit,
    write_server_name,
)
from tcpls.tls.ocsp import STATUS_REQUEST
from tcpls.tls.psk import write_psk_modes, write_ticket_request

if TYPE_CHECKING:
    from tcpls.tls.config import ClientConfig, ServerConfig

MAX_AUTHORITIES = 1 << 14
"""Bytes of names that clients are told: those of a whole system's authorities would be a burden and of no use."""


def of_client_hello(config: ClientConfig) -> Extensions:
    extensions: Extensions = {}
    if config.sni is not None:
        extensions[ExtensionType.SERVER_NAME] = write_server_name(config.sni)
    extensions[ExtensionType.SUPPORTED_GROUPS] = write_code_points(config.groups)
    extensions[ExtensionType.SIGNATURE_ALGORITHMS] = write_code_points(config.schemes)
    # RFC 8446 4.2.3: certificates may be signed in more ways than handshakes.
    extensions[ExtensionType.SIGNATURE_ALGORITHMS_CERT] = write_code_points(
        (*config.schemes, *CERTIFICATE_ONLY_SCHEMES)
    )
    if config.alpn:
        extensions[ExtensionType.ALPN] = write_alpn(config.alpn)
    extensions[ExtensionType.SUPPORTED_VERSIONS] = write_offered_versions((TLS_1_3,))
    resumable = bool(config.tickets or config.psks or config.ticket is not None)
    # RFC 8446 4.2.9: without the modes, no key can be used.
    if resumable:
        extensions[ExtensionType.PSK_KEY_EXCHANGE_MODES] = write_psk_modes(config.psk_modes)
    # RFC 9149 section 3: how many tickets are wanted, and that none is where none would be of use.
    if config.tickets or not resumable:
        extensions[ExtensionType.TICKET_REQUEST] = write_ticket_request(config.tickets, config.tickets)
    if config.record_size_limit is not None:
        extensions[ExtensionType.RECORD_SIZE_LIMIT] = write_record_size_limit(config.record_size_limit)
    if config.ocsp:
        extensions[ExtensionType.STATUS_REQUEST] = STATUS_REQUEST
    # RFC 7250 4.1: nothing is said where it would be X.509 alone.
    for kind, types in (
        (ExtensionType.SERVER_CERTIFICATE_TYPE, config.server_types),
        (ExtensionType.CLIENT_CERTIFICATE_TYPE, config.own_types),
    ):
        if types and types != (CertificateType.X509,):
            extensions[kind] = write_certificate_types(types)
    if config.compressions:
        extensions[ExtensionType.COMPRESS_CERTIFICATE] = write_compressions(config.compressions)
    extensions.update(config.extra_extensions)
    return extensions


def of_certificate_request(config: ServerConfig) -> Extensions:
    extensions: Extensions = {
        ExtensionType.SIGNATURE_ALGORITHMS: write_code_points(config.schemes),
        ExtensionType.SIGNATURE_ALGORITHMS_CERT: write_code_points((*config.schemes, *CERTIFICATE_ONLY_SCHEMES)),
    }
    if config.compressions:
        extensions[ExtensionType.COMPRESS_CERTIFICATE] = write_compressions(config.compressions)
    names = () if config.client_trust is None else config.client_trust.subjects
    if names and sum(map(len, names)) <= MAX_AUTHORITIES:
        extensions[ExtensionType.CERTIFICATE_AUTHORITIES] = write_authorities(names)
    return extensions
