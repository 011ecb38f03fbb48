"""DER written by hand, for certificates that no library would make."""

from __future__ import annotations

from datetime import UTC, datetime

from tcpls.tls.x509.der import BIT_STRING, BOOLEAN, INTEGER, OCTET_STRING, OID, SEQUENCE, SET

UTC_TIME, GENERALIZED_TIME, UTF8_STRING = 0x17, 0x18, 0x0C

ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
P256_KEY = bytes.fromhex(
    # The base point of P-256 as a public key.
    "3059301306072a8648ce3d020106082a8648ce3d03010703420004"
    "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)
BEFORE, AFTER = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)


def tlv(tag: int, *parts: bytes) -> bytes:
    contents = b"".join(parts)
    size = len(contents)
    if size < 0x80:
        return bytes((tag, size)) + contents
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + contents


def sequence(*parts: bytes) -> bytes:
    return tlv(SEQUENCE, *parts)


def integer(value: int) -> bytes:
    # The sign takes a bit: -128 has one byte, 128 two.
    size = (value if value >= 0 else ~value).bit_length() // 8 + 1
    return tlv(INTEGER, value.to_bytes(size, "big", signed=True))


def oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    out = bytearray()
    for arc in (40 * first + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(arc & 0x7F | 0x80)
        out += bytes(reversed(groups))
    return tlv(OID, bytes(out))


def bits(contents: bytes, unused: int = 0) -> bytes:
    return tlv(BIT_STRING, bytes((unused,)), contents)


def boolean(value: bool) -> bytes:
    return tlv(BOOLEAN, b"\xff" if value else b"\0")


def name(text: str = "") -> bytes:
    """A Name with one common name; without any if it is empty."""
    if not text:
        return sequence()
    return sequence(tlv(SET, sequence(oid("2.5.4.3"), tlv(UTF8_STRING, text.encode()))))


def time(at: datetime) -> bytes:
    if at.year < 2050:
        return tlv(UTC_TIME, at.strftime("%y%m%d%H%M%SZ").encode())
    return tlv(GENERALIZED_TIME, at.strftime("%Y%m%d%H%M%SZ").encode())


def extension(kind: str, value: bytes, critical: bool = False) -> bytes:
    return sequence(oid(kind), boolean(True) if critical else b"", tlv(OCTET_STRING, value))


def certificate(
    *,
    version: bytes = tlv(0xA0, integer(2)),
    serial: bytes = integer(1),
    inner: bytes = ECDSA_SHA256,
    outer: bytes = ECDSA_SHA256,
    issuer: bytes = name("issuer"),
    validity: bytes = sequence(time(BEFORE), time(AFTER)),
    subject: bytes = name("subject"),
    key: bytes = P256_KEY,
    unique_ids: bytes = b"",
    extensions: bytes | None = None,
    signature: bytes = bits(b"signature"),
) -> bytes:
    """Whose parts can be anything. `extensions`: what stands in the SEQUENCE OF Extension; None for no field at all."""
    field = b"" if extensions is None else tlv(0xA3, sequence(extensions))
    signed = sequence(version, serial, inner, issuer, validity, subject, key, unique_ids, field)
    return sequence(signed, outer, signature)
