"""The extensions of TLS 1.3 (RFC 8446 section 4.2): where each may stand; its contents, read and write side by side.

Contents are kept as bytes in the messages; a reader here gives their meaning when a state needs it.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

from tcpls.errors import HandshakeError, Reason
from tcpls.wire import Buffer, Reader, Writer

TLS_1_3 = 0x0304

MIN_RECORD_SIZE_LIMIT = 64
MAX_RECORD_SIZE_LIMIT = (1 << 14) + 1
"""What RFC 8449 section 4 allows an end of TLS 1.3 to announce."""

MAX_NAME = 253
"""Characters of a host name (RFC 1035 2.3.4, without the root's dot)."""

Extensions = dict[int, bytes]
"""Contents by type, in the order of the message."""


class ExtensionType:
    """Plain numbers: a handshake looks up a hundred, and each member of an enumeration takes as long as a call."""

    SERVER_NAME = 0
    MAX_FRAGMENT_LENGTH = 1
    STATUS_REQUEST = 5
    SUPPORTED_GROUPS = 10
    SIGNATURE_ALGORITHMS = 13
    USE_SRTP = 14
    HEARTBEAT = 15
    ALPN = 16
    SIGNED_CERTIFICATE_TIMESTAMP = 18
    CLIENT_CERTIFICATE_TYPE = 19
    SERVER_CERTIFICATE_TYPE = 20
    PADDING = 21
    COMPRESS_CERTIFICATE = 27
    RECORD_SIZE_LIMIT = 28
    PRE_SHARED_KEY = 41
    EARLY_DATA = 42
    SUPPORTED_VERSIONS = 43
    COOKIE = 44
    PSK_KEY_EXCHANGE_MODES = 45
    CERTIFICATE_AUTHORITIES = 47
    OID_FILTERS = 48
    POST_HANDSHAKE_AUTH = 49
    SIGNATURE_ALGORITHMS_CERT = 50
    KEY_SHARE = 51
    TICKET_REQUEST = 58
    ECH_OUTER_EXTENSIONS = 0xFD00
    ENCRYPTED_CLIENT_HELLO = 0xFE0D
    ENCRYPTED_SERVER_NAME = 0xFFCE


class Place(enum.Flag):
    """The messages that carry extensions."""

    CLIENT_HELLO = enum.auto()
    SERVER_HELLO = enum.auto()
    RETRY = enum.auto()
    ENCRYPTED = enum.auto()
    CERTIFICATE = enum.auto()
    REQUEST = enum.auto()
    TICKET = enum.auto()


_ASKED = Place.CLIENT_HELLO | Place.ENCRYPTED
_OF_CERTIFICATE = Place.CLIENT_HELLO | Place.REQUEST | Place.CERTIFICATE
_OF_HELLOS = Place.CLIENT_HELLO | Place.SERVER_HELLO | Place.RETRY

# RFC 8446 4.2, the table at its end; for those that came later RFC 8879 section 3, RFC 8449 section 4, RFC 9149 3.
PLACES: dict[int, Place] = {
    ExtensionType.SERVER_NAME: _ASKED,
    ExtensionType.MAX_FRAGMENT_LENGTH: _ASKED,
    ExtensionType.STATUS_REQUEST: _OF_CERTIFICATE,
    ExtensionType.SUPPORTED_GROUPS: _ASKED,
    ExtensionType.SIGNATURE_ALGORITHMS: Place.CLIENT_HELLO | Place.REQUEST,
    ExtensionType.USE_SRTP: _ASKED,
    ExtensionType.HEARTBEAT: _ASKED,
    ExtensionType.ALPN: _ASKED,
    ExtensionType.SIGNED_CERTIFICATE_TIMESTAMP: _OF_CERTIFICATE,
    ExtensionType.CLIENT_CERTIFICATE_TYPE: _ASKED,
    ExtensionType.SERVER_CERTIFICATE_TYPE: _ASKED,
    ExtensionType.PADDING: Place.CLIENT_HELLO,
    ExtensionType.COMPRESS_CERTIFICATE: Place.CLIENT_HELLO | Place.REQUEST,
    ExtensionType.RECORD_SIZE_LIMIT: _ASKED,
    ExtensionType.PRE_SHARED_KEY: Place.CLIENT_HELLO | Place.SERVER_HELLO,
    ExtensionType.EARLY_DATA: _ASKED | Place.TICKET,
    ExtensionType.SUPPORTED_VERSIONS: _OF_HELLOS,
    ExtensionType.COOKIE: Place.CLIENT_HELLO | Place.RETRY,
    ExtensionType.PSK_KEY_EXCHANGE_MODES: Place.CLIENT_HELLO,
    ExtensionType.CERTIFICATE_AUTHORITIES: Place.CLIENT_HELLO | Place.REQUEST,
    ExtensionType.OID_FILTERS: Place.REQUEST,
    ExtensionType.POST_HANDSHAKE_AUTH: Place.CLIENT_HELLO,
    ExtensionType.SIGNATURE_ALGORITHMS_CERT: Place.CLIENT_HELLO | Place.REQUEST,
    ExtensionType.KEY_SHARE: _OF_HELLOS,
    ExtensionType.TICKET_REQUEST: _ASKED,
    # RFC 9849 5.1: in no message, but in an encrypted form of one.
    ExtensionType.ECH_OUTER_EXTENSIONS: Place(0),
    # RFC 9849 section 5.
    ExtensionType.ENCRYPTED_CLIENT_HELLO: _ASKED | Place.RETRY,
    # draft-ietf-tls-esni-02 section 5.
    ExtensionType.ENCRYPTED_SERVER_NAME: _ASKED,
}


_ELSEWHERE = {place: frozenset(kind for kind, places in PLACES.items() if place not in places) for place in Place}
"""The extensions that may not stand in a message."""


def read_extensions(reader: Reader) -> Extensions:
    """The extension block of any message, whose length prefix comes next."""
    block = reader.vector(2)
    found: Extensions = {}
    for kind, contents in block.typed():
        # RFC 8446 4.2: there must not be more than one extension of the same type in a block.
        if kind in found:
            raise HandshakeError(Reason.DUPLICATE, f"extension {kind}")
        found[kind] = contents
    return found


def write_extensions(writer: Writer, extensions: Iterable[tuple[int, bytes]]) -> None:
    writer.opaque(2, b"".join([write_u16(kind) + write_u16(len(contents)) + contents for kind, contents in extensions]))


def check_places(found: Extensions, place: Place, offered: Collection[int] | None = None) -> None:
    """Refuses extensions that may not stand here, and answers to extensions that were not `offered`.

    `offered` is None for messages that are not answers: there, unknown extensions are ignored (RFC 8446 4.2).
    """
    # RFC 8446 4.2: a recognized extension in a message that it is not specified for is an illegal_parameter.
    if misplaced := found.keys() & _ELSEWHERE[place]:
        raise HandshakeError(Reason.MISPLACED_EXTENSION, f"extension {min(misplaced)}")
    # RFC 8446 4.2: an answer that was not asked for is an unsupported_extension; the cookie alone needs no asking.
    unasked = set() if offered is None else found.keys() - offered
    if place is Place.RETRY:
        unasked.discard(ExtensionType.COOKIE)
    if unasked:
        raise HandshakeError(Reason.UNSUPPORTED_EXTENSION, f"extension {min(unasked)}")


_NAMES = {kind: name.lower() for name, kind in vars(ExtensionType).items() if name.isupper()}


def require(found: Extensions, kind: int) -> bytes:
    """The contents of an extension that must be there (RFC 8446 9.2)."""
    contents = found.get(kind)
    if contents is None:
        raise HandshakeError(Reason.MISSING_EXTENSION, _NAMES[kind])
    return contents


# server_name (RFC 6066 section 3)


def read_server_name(contents: Buffer) -> str | None:
    """The host name, or None if the list has names of unknown types only."""
    reader = Reader(contents)
    names = reader.vector(2, least=1)
    reader.end()
    found: dict[int, bytes] = {}
    while names.remaining:
        kind = names.u8()
        # RFC 6066 section 3: there must not be more than one name of the same type.
        if kind in found:
            raise HandshakeError(Reason.DUPLICATE, "server name")
        found[kind] = names.opaque(2, least=1)
    name = found.get(0)
    if name is None:
        return None
    # RFC 6066 section 3: ASCII without a trailing dot, as the DNS has it. What is not printable has no place in logs
    # either, and what is longer than a name of the DNS can be none in a ticket.
    if len(name) > MAX_NAME or not name.isascii() or not name.decode("ascii").isprintable() or b" " in name:
        raise HandshakeError(Reason.BAD_VALUE, "server name")
    return name.decode("ascii")


def write_server_name(name: str) -> bytes:
    encoded = name.encode("ascii")
    return b"%b\0%b%b" % (write_u16(len(encoded) + 3), write_u16(len(encoded)), encoded)


# Lists of code points: supported_groups, signature_algorithms, signature_algorithms_cert


def read_code_points(contents: Buffer) -> tuple[int, ...]:
    """Known and unknown code points (RFC 8446 4.2.3, 4.2.7); the unknown are for the caller to ignore."""
    reader = Reader(contents)
    points = reader.u16s(2, least=2)
    reader.end()
    return points


@lru_cache
def write_code_points(points: tuple[int, ...]) -> bytes:
    """Kept: an end says the same again and again."""
    return b"".join(point.to_bytes(2, "big") for point in (2 * len(points), *points))


# Lists of names


def _read_names(contents: Buffer, width: int) -> list[bytes]:
    """One or more names, none of them empty, each behind its length in `width` bytes."""
    reader = Reader(contents)
    names = reader.vector(2, least=width + 1)
    reader.end()
    found = []
    while names.remaining:
        found.append(names.opaque(width, least=1))
    return found


def _write_names(names: Sequence[bytes], width: int) -> bytes:
    writer = Writer()
    with writer.vector(2):
        for name in names:
            writer.opaque(width, name)
    return writer.bytes()


# certificate_authorities (RFC 8446 4.2.4)


def read_authorities(contents: Buffer) -> list[bytes]:
    """The distinguished names of authorities that certificates should lead to, in DER."""
    return _read_names(contents, 2)


def write_authorities(names: Sequence[bytes]) -> bytes:
    return _write_names(names, 2)


# application_layer_protocol_negotiation (RFC 7301 section 3.1)


def read_alpn(contents: Buffer) -> list[bytes]:
    return _read_names(contents, 1)


def write_alpn(names: Sequence[bytes]) -> bytes:
    return _write_names(names, 1)


# supported_versions (RFC 8446 4.2.1)


def read_offered_versions(contents: Buffer) -> tuple[int, ...]:
    reader = Reader(contents)
    versions = reader.u16s(1, least=2, most=254)
    reader.end()
    return versions


def write_offered_versions(versions: Sequence[int]) -> bytes:
    return bytes((2 * len(versions),)) + b"".join(version.to_bytes(2, "big") for version in versions)


def read_selected_version(contents: Buffer) -> int:
    return read_u16(contents)


def read_u16(contents: Buffer) -> int:
    """An extension that is one number: the selected version, the group of a retry."""
    reader = Reader(contents)
    number = reader.u16()
    reader.end()
    return number


def write_u16(number: int) -> bytes:
    return number.to_bytes(2, "big")


# key_share (RFC 8446 4.2.8)


def read_client_shares(contents: Buffer) -> dict[int, bytes]:
    """The shares of a ClientHello, in its order; there may be none."""
    reader = Reader(contents)
    shares = reader.vector(2)
    reader.end()
    found: dict[int, bytes] = {}
    while shares.remaining:
        group = shares.u16()
        # RFC 8446 4.2.8: no two entries for the same group.
        if group in found:
            raise HandshakeError(Reason.DUPLICATE, "key share")
        found[group] = shares.opaque(2, least=1)
    return found


def write_client_shares(shares: Iterable[tuple[int, bytes]]) -> bytes:
    entries = b"".join([write_server_share(group, public) for group, public in shares])
    return write_u16(len(entries)) + entries


def read_server_share(contents: Buffer) -> tuple[int, bytes]:
    reader = Reader(contents)
    group = reader.u16()
    public = reader.opaque(2, least=1)
    reader.end()
    return group, public


def write_server_share(group: int, public: bytes) -> bytes:
    return write_u16(group) + write_u16(len(public)) + public


# cookie (RFC 8446 4.2.2)


MAX_COOKIE = 1 << 13
"""Bytes: servers send a hundred or two. The second ClientHello has it beside all that the first one has."""


def read_cookie(contents: Buffer) -> bytes:
    reader = Reader(contents)
    cookie = reader.opaque(2, least=1)
    reader.end()
    if len(cookie) > MAX_COOKIE:
        raise HandshakeError(Reason.TOO_LARGE, f"a cookie of {len(cookie)} bytes")
    return cookie


def write_cookie(cookie: bytes) -> bytes:
    return len(cookie).to_bytes(2, "big") + cookie


# record_size_limit (RFC 8449 section 4)


def read_record_size_limit(contents: Buffer) -> int:
    """Bytes of one TLSInnerPlaintext: content, content type and padding."""
    limit = read_u16(contents)
    # RFC 8449 section 4: less than 64 is an illegal_parameter.
    if limit < MIN_RECORD_SIZE_LIMIT:
        raise HandshakeError(Reason.BAD_VALUE, f"a record_size_limit of {limit}")
    return limit


def write_record_size_limit(limit: int) -> bytes:
    return write_u16(limit)


# client_certificate_type and server_certificate_type (RFC 7250 section 3)


def read_certificate_types(contents: Buffer) -> bytes:
    """Of a ClientHello: known and unknown types."""
    reader = Reader(contents)
    types = reader.opaque(1, least=1)
    reader.end()
    # RFC 7250 4.1: a client that has nothing but the default, which is X.509, leaves the extension out.
    if types == b"\0":
        raise HandshakeError(Reason.BAD_VALUE, "the default type of certificates alone")
    return types


def write_certificate_types(types: Sequence[int]) -> bytes:
    return bytes((len(types), *types))


def read_certificate_type(contents: Buffer) -> int:
    """Of EncryptedExtensions: the one that was chosen."""
    reader = Reader(contents)
    chosen = reader.u8()
    reader.end()
    return chosen


# psk_key_exchange_modes (RFC 8446 4.2.9)


def read_psk_modes(contents: Buffer) -> bytes:
    reader = Reader(contents)
    modes = reader.opaque(1, least=1)
    reader.end()
    return modes
