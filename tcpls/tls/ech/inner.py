"""EncodedClientHelloInner (RFC 9849 5.1): the ClientHello that gets encrypted, without what the outer one has too."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from tcpls.errors import HandshakeError, Reason
from tcpls.tls.ech.extension import INNER, read_outer_extensions, write_outer_extensions
from tcpls.tls.extensions import TLS_1_3, Extensions, ExtensionType, read_offered_versions
from tcpls.tls.messages import HEADER_SIZE, TLS_1_2, ClientHello
from tcpls.wire import Buffer, Reader

_BLOCK = 32
"""RFC 9849 6.1.3: the length is rounded up to a multiple of it."""

_SERVER_NAME_OVERHEAD = 9
"""RFC 9849 6.1.3: bytes of a server_name extension beside its name."""


def encode_inner(inner: ClientHello, shared: Collection[int], maximum_name_length: int) -> bytes:
    """With padding. The extensions of the types `shared` follow one another, and are in the outer ClientHello too."""
    extensions: Extensions = {}
    kinds = [kind for kind in inner.extensions if kind in shared]
    for kind, contents in inner.extensions.items():
        if kind not in shared:
            extensions[kind] = contents
        elif kind == kinds[0]:
            extensions[ExtensionType.ECH_OUTER_EXTENSIONS] = write_outer_extensions(kinds)
    encoded = replace(inner, session_id=b"", extensions=extensions).write()[HEADER_SIZE:]
    return encoded + bytes(_padding(len(encoded), inner.server_name, maximum_name_length))


def _padding(length: int, name: str | None, maximum_name_length: int) -> int:
    # RFC 9849 6.1.3: as for the longest name, then up to a whole block.
    missing = _SERVER_NAME_OVERHEAD if name is None else -len(name)
    padding = max(0, maximum_name_length + missing)
    return padding + (_BLOCK - 1) - (length + padding - 1) % _BLOCK


def decode_inner(encoded: Buffer, outer: ClientHello) -> ClientHello:
    """The ClientHello that was encrypted, checked. It is at most as long as the two that it is made of."""
    reader = Reader(encoded)
    found = ClientHello.read_part(reader)
    # RFC 9849 5.1: what follows is padding, and the client has emptied the session id.
    if reader.rest().strip(b"\0"):
        raise HandshakeError(Reason.BAD_INNER_HELLO, "padding")
    if found.session_id:
        raise HandshakeError(Reason.BAD_INNER_HELLO, "session id")
    inner = replace(found, session_id=outer.session_id, extensions=_expand(found.extensions, outer.extensions))
    _check(inner)
    return inner


def _expand(encoded: Extensions, outer: Extensions) -> Extensions:
    """The extensions with those of the outer ClientHello in their place (RFC 9849 5.1, in linear time as in A)."""
    extensions: Extensions = {}
    for kind, contents in encoded.items():
        if kind != ExtensionType.ECH_OUTER_EXTENSIONS:
            _put(extensions, kind, contents)
            continue
        rest = iter(outer.items())
        for wanted in read_outer_extensions(contents):
            # RFC 9849 5.1: not the extension that this is in; and each once, in the outer ClientHello's order.
            if wanted == ExtensionType.ENCRYPTED_CLIENT_HELLO:
                raise HandshakeError(Reason.BAD_INNER_HELLO, "encrypted_client_hello is not to be copied")
            copied = next((contents for kind, contents in rest if kind == wanted), None)
            if copied is None:
                raise HandshakeError(Reason.BAD_INNER_HELLO, f"extension {wanted} to copy is absent or out of order")
            _put(extensions, wanted, copied)
    return extensions


def _put(extensions: Extensions, kind: int, contents: bytes) -> None:
    # RFC 8446 4.2: there must not be more than one extension of the same type.
    if kind in extensions:
        raise HandshakeError(Reason.DUPLICATE, f"extension {kind}")
    extensions[kind] = contents


def _check(inner: ClientHello) -> None:
    # RFC 9849 7.1: it says that it is the inner one,
    if inner.extensions.get(ExtensionType.ENCRYPTED_CLIENT_HELLO) != INNER:
        raise HandshakeError(Reason.BAD_INNER_HELLO, "encrypted_client_hello")
    # and does not offer TLS 1.2 or below, as it does without the extension (RFC 8446 4.2.1).
    contents = inner.extensions.get(ExtensionType.SUPPORTED_VERSIONS)
    versions = [] if contents is None else read_offered_versions(contents)
    if TLS_1_3 not in versions or any(version <= TLS_1_2 for version in versions):
        raise HandshakeError(Reason.BAD_INNER_HELLO, "supported_versions")
