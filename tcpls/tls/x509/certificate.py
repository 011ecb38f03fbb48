"""Certificates (RFC 5280) parsed into what path validation needs. Pure Python: the engine minicrypto uses it."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tcpls.tls.x509.algorithms import KIND_BY_ALGORITHM, KeyKind
from tcpls.tls.x509.der import SEQUENCE, SET, Der, DerError
from tcpls.tls.x509.extensions import Extensions, read_extensions

_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_V3 = 2

_MAX_SERIAL = 1 << 160
"""RFC 5280 4.1.2.2: 20 bytes, and CAs have made zeros."""

EMPTY_NAME = bytes((SEQUENCE, 0))


@dataclass(frozen=True, slots=True)
class SubjectPublicKey:
    """`kind` is None for a key that is of no use here. `key`: RSAPublicKey, a point, or the bytes of RFC 8032."""

    kind: KeyKind | None
    key: bytes


@dataclass(frozen=True, slots=True)
class Certificate:
    """`signed` is what the signature is over. `subject` and `issuer` are compared as the bytes that they are."""

    der: bytes = field(repr=False)
    signed: bytes = field(repr=False)
    algorithm: bytes
    """The AlgorithmIdentifier of the signature."""
    signature: bytes = field(repr=False)
    subject: bytes
    issuer: bytes
    not_before: datetime
    not_after: datetime
    public_key_info: bytes = field(repr=False)
    public_key: SubjectPublicKey
    extensions: Extensions
    is_v3: bool = True

    @classmethod
    def parse(cls, der: bytes) -> Certificate:
        """Raises `DerError`."""
        outer = Der(der)
        body = outer.sub()
        outer.end()
        signed = body.whole(SEQUENCE)
        algorithm = body.whole(SEQUENCE)
        signature = body.bytes_of_bits()
        body.end()
        fields = Der(signed).sub()
        is_v3 = _version(fields.optional(0xA0)) == _V3
        if not 0 <= fields.integer() < _MAX_SERIAL:
            raise DerError("a serial number that is negative or too large")
        # RFC 5280 4.1.1.2: both say the same.
        if fields.whole(SEQUENCE) != algorithm:
            raise DerError("two different signature algorithms")
        issuer = _name(fields)
        validity = fields.sub()
        not_before, not_after = _time(validity), _time(validity)
        validity.end()
        subject = _name(fields)
        info = fields.whole(SEQUENCE)
        for unique_id in (0x81, 0x82):
            fields.optional(unique_id)
        contents = fields.optional(0xA3) if is_v3 else None
        fields.end()
        return cls(
            der,
            signed,
            algorithm,
            signature,
            subject,
            issuer,
            not_before,
            not_after,
            info,
            public_key_of(info),
            Extensions() if contents is None else read_extensions(contents),
            is_v3,
        )


def _version(contents: bytes | None) -> int:
    if contents is None:
        return 0
    reader = Der(contents)
    version = reader.integer()
    reader.end()
    # RFC 5280 4.1: 0 is the default, which X.690 11.5 leaves out.
    if not 1 <= version <= _V3:
        raise DerError("a version that does not exist")
    return version


def _name(reader: Der) -> bytes:
    """A Name (RFC 5280 4.1.2.4) as it stands: names are compared, and their values never looked at."""
    whole = reader.whole(SEQUENCE)
    relative_names = Der(whole).sub()
    while relative_names.tag is not None:
        attributes = relative_names.sub(SET)
        if attributes.tag is None:
            raise DerError("a part of a name without attributes")
        while attributes.tag is not None:
            attribute = attributes.sub()
            attribute.oid()
            attribute.any()
            attribute.end()
    return whole


_COMMON_NAME = "2.5.4.3"


def common_name(name: bytes) -> str:
    """The last common name of a Name that was parsed, as text for people; "" if it has none."""
    found, relative_names = "", Der(name).sub()
    while relative_names.tag is not None:
        attributes = relative_names.sub(SET)
        while attributes.tag is not None:
            attribute = attributes.sub()
            if attribute.oid() == _COMMON_NAME:
                text = attribute.any()[1].decode("utf-8", errors="replace")
                found = text if text.isprintable() else repr(text)
    return found


def _time(reader: Der) -> datetime:
    tag, contents = reader.any()
    # RFC 5280 4.1.2.5: with seconds, in UTC. Until 2049 CAs must use the short form, whose years start with 1950, but
    # applications must take both; there is an authority in all systems' bundles with the other one.
    if tag == _UTC_TIME and re.fullmatch(rb"[0-9]{12}Z", contents):
        contents = (b"19" if contents[0] >= ord("5") else b"20") + contents
    elif tag != _GENERALIZED_TIME or not re.fullmatch(rb"[0-9]{14}Z", contents):
        raise DerError("a time in another form")
    try:
        month, day, hour, minute, second = (int(contents[at : at + 2]) for at in range(4, 14, 2))
        return datetime(int(contents[:4]), month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        raise DerError("a time that does not exist") from None


def public_key_of(info: bytes) -> SubjectPublicKey:
    """What a SubjectPublicKeyInfo says (RFC 5280 4.1.2.7). Raises `DerError`."""
    outer = Der(info)
    reader = outer.sub()
    outer.end()
    algorithm = reader.whole(SEQUENCE)
    key = reader.bytes_of_bits()
    reader.end()
    return SubjectPublicKey(KIND_BY_ALGORITHM.get(algorithm), key)


_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)


def pem_blocks(pem: bytes, label: bytes) -> list[bytes]:
    """The DER of every block with this label (RFC 7468). Raises `DerError` for broken base64."""
    try:
        return [
            base64.b64decode(b"".join(match[2].split()), validate=True)
            for match in _PEM.finditer(pem)
            if match[1] == label
        ]
    except binascii.Error:
        raise DerError("broken base64") from None
