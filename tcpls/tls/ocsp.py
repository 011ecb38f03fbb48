"""OCSP staples on the wire (RFC 6066 section 8, RFC 8446 section 4.4.2.1), read and written side by side."""

from __future__ import annotations

from tcpls.errors import CertificateError, Reason
from tcpls.tls.x509.der import OCTET_STRING, Der, DerError
from tcpls.wire import Buffer, Reader, Writer

_OCSP = 1
"""CertificateStatusType (RFC 6066 section 8)."""

STATUS_REQUEST = bytes((_OCSP, 0, 0, 0, 0))
"""What a client asks with: any responder, and no extensions of the request."""

_ENUMERATED = 0x0A
_SUCCESSFUL = b"\0"


def read_status_request(contents: Buffer) -> bool:
    """Whether OCSP is asked for, by a ClientHello or a CertificateRequest. Other types are for the caller to ignore."""
    reader = Reader(contents)
    # RFC 8446 4.4.2.1: in a CertificateRequest it is empty.
    if not reader.remaining:
        return True
    if reader.u8() != _OCSP:
        return False
    reader.vector(2)
    reader.vector(2)
    reader.end()
    return True


def read_status(contents: Buffer) -> bytes:
    """The response of a CertificateEntry: of the right form, and no more than that."""
    reader = Reader(contents)
    kind = reader.u8()
    response = reader.opaque(3, least=1)
    reader.end()
    # RFC 6066 section 8: an invalid response is a bad_certificate_status_response.
    if kind != _OCSP:
        raise CertificateError(Reason.BAD_STATUS, f"type {kind}")
    check_form(response)
    return response


def write_status(response: bytes) -> bytes:
    writer = Writer()
    writer.u8(_OCSP)
    writer.opaque(3, response)
    return writer.bytes()


def check_form(response: bytes) -> None:
    """That this is an OCSPResponse (RFC 6960 4.2.1) which holds something. Raises `CertificateError`."""
    try:
        outer = Der(response)
        body = outer.sub()
        outer.end()
        status = body.take(_ENUMERATED)
        contents = body.optional(0xA0)
        body.end()
        held = b""
        if contents is not None:
            inner = Der(contents).sub()
            inner.oid()
            held = inner.take(OCTET_STRING)
            inner.end()
    except DerError as error:
        raise CertificateError(Reason.BAD_STATUS, str(error)) from None
    if status != _SUCCESSFUL or not held:
        raise CertificateError(Reason.BAD_STATUS, "it says that the responder has failed")
