"""Whether a handshake came out as the runner's flags say."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tcpls.tls.algorithms import Group, SignatureScheme
from tcpls.tls.connection import Established
from tcpls.tls.messages import NewSessionTicket
from tests.interop.bogo.configure import ExpectationFailed, imported_keys
from tests.interop.bogo.flags import Settings


def _expect(what: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise ExpectationFailed(f"{what}: got {got!r}, wanted {wanted!r}")


def check_established(settings: Settings, established: Established, used: Sequence[int], *, resumes: bool) -> None:
    """Raises `ExpectationFailed`. `used`: the numbers of the credentials that have signed."""
    if settings.handshake_never_done:
        raise ExpectationFailed("the handshake was complete")
    _expect("resumed", established.resumed, resumes and not settings.expect_session_miss)
    # A server's choice must come out of it as it went in; a client is told what to expect.
    alpn = settings.select_alpn if settings.server else settings.expect_alpn
    _expect("application protocol", established.alpn or b"", os.fsencode(alpn))
    if settings.expect_server_name:
        _expect("server name", established.server_name, settings.expect_server_name)
    if settings.expect_curve_id:
        _expect("group", established.group, Group(settings.expect_curve_id).label)
    for suite in (settings.expect_cipher, settings.expect_cipher_aes):
        if suite:
            _expect("cipher suite", hex(established.suite.code), hex(suite))
    if settings.expect_peer_signature_algorithm and not established.resumed:
        scheme = SignatureScheme(settings.expect_peer_signature_algorithm)
        _expect("signature scheme", established.signature_scheme, scheme.label)
    if settings.expect_hrr or settings.expect_no_hrr:
        _expect("retried", established.retried, settings.expect_hrr)
    if settings.expect_selected_credential is not None:
        _expect("credential", _selected(settings, established, used), settings.expect_selected_credential)


def _selected(settings: Settings, established: Established, used: Sequence[int]) -> int:
    """The number of the credential that served: the one that signed, or whose key was taken; else the default's."""
    for number, credential in enumerate(settings.credentials):
        if established.psk_identity in [key.identity for key in imported_keys(credential)]:
            return number
    return used[0] if used else -1


def check_tickets(settings: Settings, tickets: Sequence[NewSessionTicket]) -> None:
    """Of a client, at the end of its connection."""
    wanted = not settings.expect_no_session and not settings.shim_shuts_down
    _expect("a ticket", bool(tickets), wanted)
    if wanted:
        early = bool(tickets[-1].max_early_data)
        _expect("early data in the ticket", early, settings.expect_ticket_supports_early_data)
