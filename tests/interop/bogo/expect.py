"""Whether a handshake came out as the runner's flags say."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tcpls.tls.algorithms import Group, SignatureScheme
from tcpls.tls.connection import Established
from tcpls.tls.early_data import EarlyData
from tcpls.tls.ech.status import EchStatus
from tcpls.tls.messages import ClientHello, NewSessionTicket
from tests.interop.bogo.credentials import ADDRESS, RAW_PUBLIC_KEY, X509, chain_of, imported_keys
from tests.interop.bogo.flags import Settings


class ExpectationFailed(Exception):
    """The handshake did not come out as the runner's flags say."""


# What the runner calls what we call otherwise.
_EARLY_REASONS = {
    EarlyData.NOT_ASKED: "disabled",
    EarlyData.NO_TICKET: "no_session_offered",
    EarlyData.NOT_ALLOWED: "unsupported_for_session",
    EarlyData.OTHER_PROTOCOL: "alpn_mismatch",
    EarlyData.ACCEPTED: "accept",
    EarlyData.REFUSED: "peer_declined",
    EarlyData.NOT_RESUMED: "session_not_resumed",
    EarlyData.RETRIED: "hello_retry_request",
    EarlyData.SWITCHED_OFF: "disabled",
    EarlyData.OVER_LIMIT: "unsupported_for_session",
    EarlyData.CHANGED_PROTOCOL: "alpn_mismatch",
    EarlyData.OUT_OF_TIME: "ticket_age_skew",
}


def expect(what: str, got: object, wanted: object) -> None:
    """Raises `ExpectationFailed`."""
    if got != wanted:
        raise ExpectationFailed(f"{what}: got {got!r}, wanted {wanted!r}")


def check_established(settings: Settings, established: Established, used: Sequence[int], *, resumes: bool) -> None:
    """Raises `ExpectationFailed`. `used`: the numbers of the credentials that have signed."""
    if settings.handshake_never_done:
        raise ExpectationFailed("the handshake was complete")
    expect("resumed", established.resumed, resumes and not settings.expect_session_miss)
    # A server's choice must come out of it as it went in; a client is told what to expect.
    alpn = settings.select_alpn if settings.server else settings.expect_alpn
    expect("application protocol", established.alpn or b"", os.fsencode(alpn))
    if settings.expect_server_name:
        expect("server name", established.server_name, settings.expect_server_name)
    if settings.expect_no_peer_cert:
        expect("certificates", established.peer_certificates, ())
    elif _authenticates(settings, established):
        expect("a certificate", bool(established.peer_certificates or established.peer_raw_key), True)
    # A client does not keep its server's certificates with a ticket.
    if settings.expect_peer_cert_file and (settings.server or not established.resumed):
        expect("certificates", established.peer_certificates, chain_of(settings.expect_peer_cert_file))
    if settings.expect_peer_certificate_type is not None and not established.resumed:
        expect("type", RAW_PUBLIC_KEY if established.peer_raw_key else X509, settings.expect_peer_certificate_type)
    if settings.expect_curve_id:
        expect("group", established.group, Group(settings.expect_curve_id).label)
    for suite in (settings.expect_cipher, settings.expect_cipher_aes):
        if suite:
            expect("cipher suite", hex(established.suite.code), hex(suite))
    # What a server tells is its own, and after a resumption there is none.
    if settings.expect_peer_signature_algorithm and not (settings.server or established.resumed):
        scheme = SignatureScheme(settings.expect_peer_signature_algorithm)
        expect("signature scheme", established.signature_scheme, scheme.label)
    if settings.expect_hrr or settings.expect_no_hrr:
        expect("retried", established.retried, settings.expect_hrr)
    expect("ECH accepted", established.ech is EchStatus.ACCEPTED, settings.expect_ech_accept)
    check_early(settings, established.early_data)
    if settings.expect_selected_credential is not None:
        expect("credential", _selected(settings, established, used), settings.expect_selected_credential)


def _authenticates(settings: Settings, established: Established) -> bool:
    """Whether the peer has to show a certificate in this handshake, or to have shown one in that of the ticket."""
    if established.psk_identity:
        return False
    return settings.require_any_client_certificate if settings.server else not established.resumed


def check_early(settings: Settings, early: EarlyData) -> None:
    if settings.expect_accept_early_data or settings.expect_reject_early_data:
        expect("early data accepted", early.accepted, settings.expect_accept_early_data)
    if settings.expect_no_offer_early_data:
        expect("early data offered", early.offered, False)
    if settings.expect_early_data_reason:
        # A server that was not asked names its own setting first.
        asked = early is not EarlyData.NOT_ASKED or not (settings.server and settings.enable_early_data)
        known = _EARLY_REASONS.get(early) if asked else "no_session_offered"
        expect("early data", known, settings.expect_early_data_reason)


def _selected(settings: Settings, established: Established, used: Sequence[int]) -> int:
    """The number of the credential that served: the one that signed, or whose key was taken; else the default's."""
    for number, credential in enumerate(settings.credentials):
        if established.psk_identity in [key.identity for key in imported_keys(credential)]:
            return number
    return used[0] if used else -1


def check_names(settings: Settings, asked: Sequence[str]) -> None:
    """The names that a client has validated chains for: another than it wanted is that of ECH's public server."""
    wanted = settings.host_name or ADDRESS
    if settings.expect_no_ech_name_override:
        expect("names", [name for name in asked if name != wanted], [])
    if settings.expect_ech_name_override:
        expect("names", list(asked), [settings.expect_ech_name_override])


def check_tickets(settings: Settings, tickets: Sequence[NewSessionTicket]) -> None:
    """Of a client, at the end of its connection."""
    wanted = not settings.expect_no_session and not settings.shim_shuts_down
    expect("a ticket", bool(tickets), wanted)
    if wanted:
        early = bool(tickets[-1].max_early_data)
        expect("early data in the ticket", early, settings.expect_ticket_supports_early_data)


def read_names(advertised: str) -> tuple[bytes, ...]:
    """Names with a byte of length in front of each, as ALPN has them."""
    data, names = os.fsencode(advertised), []
    while data:
        names.append(data[1 : 1 + data[0]])
        data = data[1 + data[0] :]
    return tuple(names)


def check_hello(settings: Settings, hello: ClientHello) -> None:
    """What the flags say of the ClientHello."""
    if settings.expect_no_server_name and hello.server_name is not None:
        raise ExpectationFailed(f"the client sent the server name {hello.server_name}")
    if settings.expect_advertised_alpn and hello.alpn != read_names(settings.expect_advertised_alpn):
        raise ExpectationFailed(f"the client advertised {hello.alpn}")
