"""The server's choice among the pre-shared keys that a client offers (RFC 8446 section 4.2.11)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hmac import compare_digest

from tcpls.errors import HandshakeError, Reason
from tcpls.tls.config import ServerConfig
from tcpls.tls.engine import CryptoEngine
from tcpls.tls.key_schedule import BinderKind
from tcpls.tls.offer import Offer
from tcpls.tls.psk import MAX_IDENTITIES, OfferedPsks, PreSharedKey, PskMode, binder_of
from tcpls.tls.suites import CipherSuite
from tcpls.tls.tickets import TicketState
from tcpls.tls.transcript import Transcript


@dataclass(frozen=True, slots=True)
class ChosenPsk:
    """`index`: among the identities that the client offers. `state`: what the ticket holds, if it is one."""

    index: int
    psk: PreSharedKey
    mode: PskMode
    suite: CipherSuite
    state: TicketState | None

    @property
    def external(self) -> bytes | None:
        """The identity of the external key that the client is known by, now or since the session began."""
        return self.psk.identity if self.state is None else self.state.psk_identity


def choose_psk(
    config: ServerConfig,
    offer: Offer,
    suites: Sequence[CipherSuite],
    now: int,
    good: Callable[[TicketState], bool],
) -> ChosenPsk | None:
    """The first key that this server knows, that one of `suites` fits, and that may be used in a common mode.

    Its binder is still to be checked. None: certificates are to be used. `now`: milliseconds since 1970. `good`:
    whether a ticket's session is still one that this server would have.
    """
    if offer.psks is None:
        return None
    mode = _choose_mode(config, offer)
    if mode is None:
        return None
    common = [suite for suite in suites if suite.code in offer.hello.suites]
    for index, (identity, _) in enumerate(offer.psks.identities[:MAX_IDENTITIES]):
        # RFC 8446 4.2.11: identities that are not known are ignored.
        found = _external(config, identity) or _ticket(config, offer, identity, now)
        if found is None:
            continue
        psk, state = found
        if state is not None and not good(state):
            continue
        # RFC 8446 4.2.11: a key goes with one hash. The suite that it was made under is the only one for early data.
        fitting = [suite for suite in common if psk.fits(suite)]
        if fitting:
            suite = psk.suite if state is not None and psk.suite in fitting else fitting[0]
            return ChosenPsk(index, psk, mode, suite, state)
    return None


def _choose_mode(config: ServerConfig, offer: Offer) -> PskMode | None:
    """RFC 8446 4.2.9: only a mode that the client lists. The one with forward secrecy goes first."""
    common = [mode for mode in config.psk_modes if mode in offer.modes]
    if PskMode.PSK_DHE_KE in common and any(group in offer.groups for group in config.groups):
        return PskMode.PSK_DHE_KE
    return PskMode.PSK_KE if PskMode.PSK_KE in common else None


def _external(config: ServerConfig, identity: bytes) -> tuple[PreSharedKey, None] | None:
    for psk in config.psks:
        if psk.identity == identity:
            return psk, None
    return None


def _ticket(config: ServerConfig, offer: Offer, identity: bytes, now: int) -> tuple[PreSharedKey, TicketState] | None:
    state = None if config.ticket_keys is None else config.ticket_keys.open(identity, now)
    # RFC 8446 4.6.1: a ticket is for the name that its session was for.
    if state is None or state.server_name != offer.server_name:
        return None
    return PreSharedKey(identity, state.key, BinderKind.RESUMPTION, state.suite), state


def check_binder(
    engine: CryptoEngine, transcript: Transcript, hello: bytes, psks: OfferedPsks, chosen: ChosenPsk
) -> None:
    """`hello` is the ClientHello as it came, which the transcript does not have yet."""
    expected = binder_of(engine, transcript, hello[: -psks.binders_size], chosen.psk)
    # RFC 8446 4.2.11: a binder that does not validate ends the handshake; only the chosen key's is looked at.
    if not compare_digest(expected, psks.binders[chosen.index]):
        raise HandshakeError(Reason.BAD_BINDER)
