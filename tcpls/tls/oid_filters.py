"""oid_filters of a CertificateRequest (RFC 8446 section 4.2.5): what the extensions of a certificate must say."""

from __future__ import annotations

from collections.abc import Mapping

from tcpls.errors import HandshakeError, Reason
from tcpls.tls.x509.der import OID, Der, DerError
from tcpls.tls.x509.extensions import ANY_PURPOSE
from tcpls.wire import Buffer, Reader, Writer

_EXTENDED_KEY_USAGE = "2.5.29.37"


def read_purposes(contents: Buffer) -> frozenset[str]:
    """The extended key usages that are asked for. Filters for other extensions are not recognized here."""
    reader = Reader(contents)
    filters = reader.vector(2)
    reader.end()
    seen: set[str] = set()
    purposes: frozenset[str] = frozenset()
    while filters.remaining:
        kind, values = _oid(filters.opaque(1, least=1)), filters.opaque(2)
        # RFC 8446 4.2.5: no OID twice.
        if kind in seen:
            raise HandshakeError(Reason.DUPLICATE, f"oid_filters {kind}")
        seen.add(kind)
        # RFC 8446 4.2.5: what is not recognized is ignored.
        if kind == _EXTENDED_KEY_USAGE:
            purposes = _purposes(values)
    return purposes


def _oid(der: bytes) -> str:
    try:
        reader = Der(der)
        found = reader.oid()
        reader.end()
    except DerError:
        raise HandshakeError(Reason.BAD_VALUE, "oid_filters") from None
    return found


def _purposes(values: bytes) -> frozenset[str]:
    found = set()
    try:
        outer = Der(values)
        reader = outer.sub()
        outer.end()
        while reader.tag is not None:
            found.add(reader.oid())
    except DerError:
        raise HandshakeError(Reason.BAD_VALUE, "oid_filters") from None
    # RFC 8446 4.2.5: anyExtendedKeyUsage must not be asked for.
    if not found or ANY_PURPOSE in found:
        raise HandshakeError(Reason.BAD_VALUE, "oid_filters")
    return frozenset(found)


def write_oid_filters(filters: Mapping[bytes, bytes]) -> bytes:
    """Of the contents of OIDs, and of values in DER."""
    writer = Writer()
    with writer.vector(2):
        for oid, values in filters.items():
            writer.opaque(1, bytes((OID, len(oid))) + oid)
            writer.opaque(2, values)
    return writer.bytes()
