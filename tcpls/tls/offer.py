"""What a ClientHello offers, checked, and the server's choices among it (RFC 8446 4.1.1 and 4.2)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tcpls.errors import HandshakeError, Reason
from tcpls.tls.algorithms import Group
from tcpls.tls.config import ServerConfig
from tcpls.tls.extensions import (
    TLS_1_3,
    Extensions,
    ExtensionType,
    Place,
    check_places,
    read_certificate_types,
    read_client_shares,
    read_code_points,
    read_offered_versions,
    read_psk_modes,
    read_record_size_limit,
    require,
)
from tcpls.tls.identity_choice import Wanted
from tcpls.tls.messages import ClientHello
from tcpls.tls.psk import OfferedPsks, read_ticket_request
from tcpls.tls.suites import CipherSuite


@dataclass(frozen=True, slots=True)
class Offer:
    """A ClientHello of TLS 1.3 and what its extensions mean.

    With pre-shared keys there may be no `groups`, `shares` and schemes that are `wanted`. `tickets`: how many tickets
    the client wants after a full handshake and after a resumption, if it said so.
    """

    hello: ClientHello
    groups: Collection[int]
    shares: dict[int, bytes]
    server_name: str | None
    alpn: tuple[bytes, ...]
    psks: OfferedPsks | None
    modes: Collection[int]
    tickets: tuple[int, int] | None
    record_size_limit: int | None
    wanted: Wanted
    client_types: Sequence[int] | None
    """The types of certificates that the client can show, if it said so."""

    @classmethod
    def read(cls, hello: ClientHello) -> Offer:
        _check_version(hello)
        extensions = hello.extensions
        check_places(extensions, Place.CLIENT_HELLO)
        # RFC 8446 4.1.2: exactly one compression method, which is none.
        if hello.compression != b"\0":
            raise HandshakeError(Reason.BAD_VALUE, "compression")
        psks = _read_psks(hello)
        modes = extensions.get(ExtensionType.PSK_KEY_EXCHANGE_MODES)
        _check_required(extensions, psks is not None)
        groups, shares = _read_key_exchange(extensions)
        # RFC 8446 4.2.10: in a ClientHello it is empty.
        if extensions.get(ExtensionType.EARLY_DATA):
            raise HandshakeError(Reason.BAD_LENGTH, "early_data")
        # RFC 8446 4.2.8: shares only for groups that are offered.
        if any(group not in groups for group in shares):
            raise HandshakeError(Reason.ILLEGAL_CHOICE, "a key share of a group that is not offered")
        wanted = extensions.get(ExtensionType.TICKET_REQUEST)
        limit = extensions.get(ExtensionType.RECORD_SIZE_LIMIT)
        types = extensions.get(ExtensionType.CLIENT_CERTIFICATE_TYPE)
        return cls(
            hello,
            groups,
            shares,
            hello.server_name,
            hello.alpn,
            psks,
            () if modes is None else read_psk_modes(modes),
            None if wanted is None else read_ticket_request(wanted),
            None if limit is None else read_record_size_limit(limit),
            Wanted.of_client(extensions),
            None if types is None else read_certificate_types(types),
        )

    def require_certificate(self) -> None:
        """To be called when no pre-shared key is used: refuses a hello that cannot do without one (RFC 8446 9.2)."""
        _check_required(self.hello.extensions, has_psk=False)


def _check_version(hello: ClientHello) -> None:
    contents = hello.extensions.get(ExtensionType.SUPPORTED_VERSIONS)
    # RFC 8446 D.5: SSL 3.0 is refused whatever the extension says. 4.2.1: without it, the client knows 1.2 at most.
    if hello.legacy_version <= 0x0300 or contents is None or TLS_1_3 not in read_offered_versions(contents):
        raise HandshakeError(Reason.UNSUPPORTED_VERSION)


def _check_required(extensions: Extensions, has_psk: bool) -> None:
    """RFC 8446 9.2: which extensions must be there; and that both or neither of the two for key exchange are."""
    if not has_psk:
        require(extensions, ExtensionType.SIGNATURE_ALGORITHMS)
    pair = (ExtensionType.SUPPORTED_GROUPS, ExtensionType.KEY_SHARE)
    if not has_psk or any(kind in extensions for kind in pair):
        for kind in pair:
            require(extensions, kind)


def _read_key_exchange(extensions: Extensions) -> tuple[Collection[int], dict[int, bytes]]:
    """Groups and shares; those that are absent are empty."""
    groups = extensions.get(ExtensionType.SUPPORTED_GROUPS)
    shares = extensions.get(ExtensionType.KEY_SHARE)
    return (
        # A client may list thousands of groups, and as many shares: each is looked up.
        () if groups is None else frozenset(read_code_points(groups)),
        {} if shares is None else read_client_shares(shares),
    )


def _read_psks(hello: ClientHello) -> OfferedPsks | None:
    extensions = hello.extensions
    contents = extensions.get(ExtensionType.PRE_SHARED_KEY)
    if contents is None:
        return None
    # RFC 8446 4.2.11: pre_shared_key is the last extension.
    if next(reversed(extensions)) != ExtensionType.PRE_SHARED_KEY:
        raise HandshakeError(Reason.MISPLACED_EXTENSION, "pre_shared_key is not the last")
    # RFC 8446 4.2.9: it needs psk_key_exchange_modes.
    require(extensions, ExtensionType.PSK_KEY_EXCHANGE_MODES)
    return OfferedPsks.read(contents)


# RFC 8446 4.1.2: what may differ after a HelloRetryRequest. No cookie was sent, so none may appear.
# RFC 9849 7.1.1: an encrypted ClientHello that the server cannot open may be gone, or be another one.
_MAY_CHANGE = frozenset(
    {
        ExtensionType.KEY_SHARE,
        ExtensionType.PRE_SHARED_KEY,
        ExtensionType.PADDING,
        ExtensionType.ENCRYPTED_CLIENT_HELLO,
        # draft-ietf-tls-esni-02 5.1: it covers the key share.
        ExtensionType.ENCRYPTED_SERVER_NAME,
    }
)


def _check_second_psks(first: OfferedPsks | None, second: OfferedPsks | None, chosen: bytes | None) -> None:
    # RFC 8446 4.1.2: keys that do not fit the retry's suite may be left out; none may be added.
    before = iter(() if first is None else (identity for identity, _ in first.identities))
    after = [] if second is None else [identity for identity, _ in second.identities]
    if not all(identity in before for identity in after) or not (chosen is None or chosen in after):
        raise HandshakeError(Reason.CHANGED_HELLO, "pre-shared keys")


def check_second(first: Offer, second: Offer, group: Group, chosen: bytes | None = None) -> None:
    """Refuses a second ClientHello that does not do what the HelloRetryRequest asked, or does more.

    `chosen`: the identity of a pre-shared key that fits the suite of the retry, which the client keeps.
    """
    before, after = first.hello, second.hello
    # RFC 8446 4.2.10: early data is not offered again.
    removed = {ExtensionType.EARLY_DATA} | _MAY_CHANGE
    ech = ExtensionType.ENCRYPTED_CLIENT_HELLO
    same = (
        before.random == after.random
        and (ech in before.extensions or ech not in after.extensions)
        and before.session_id == after.session_id
        and before.suites == after.suites
        and before.legacy_version == after.legacy_version
        # RFC 8446 4.1.2: "the same ClientHello without modification", the order of its extensions included.
        and [extension for extension in before.extensions.items() if extension[0] not in removed]
        == [extension for extension in after.extensions.items() if extension[0] not in _MAY_CHANGE]
    )
    if not same:
        raise HandshakeError(Reason.CHANGED_HELLO)
    _check_second_psks(first.psks, second.psks, chosen)
    # RFC 8446 4.1.2 and 4.2.8: one share, of the group that was asked for.
    if list(second.shares) != [group]:
        raise HandshakeError(Reason.CHANGED_HELLO, "key share")


def choose_suite(config: ServerConfig, offer: Offer) -> CipherSuite:
    """The first of the server's that the client has too."""
    for suite in config.suites:
        if suite.code in offer.hello.suites:
            return suite
    raise HandshakeError(Reason.NO_COMMON_SUITE)


def choose_group(config: ServerConfig, offer: Offer) -> Group:
    """The first of the server's that came with a share, or else the first in common, which takes a retry."""
    for group in config.groups:
        if group in offer.shares:
            return group
    for group in config.groups:
        if group in offer.groups:
            return group
    raise HandshakeError(Reason.NO_COMMON_GROUP)


def choose_alpn(config: ServerConfig, offer: Offer) -> bytes | None:
    """The first of the server's that the client offers; None when either has none."""
    if not config.alpn or not offer.alpn:
        return None
    for name in config.alpn:
        if name in offer.alpn:
            return name
    # RFC 7301 3.2: nothing in common is a no_application_protocol.
    raise HandshakeError(Reason.NO_COMMON_ALPN)
