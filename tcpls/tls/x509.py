"""Certificates (RFC 5280) parsed into what path validation needs. Pure Python: the engine minicrypto uses it."""

from __future__ import annotations

import base64
import binascii
import enum
import ipaddress
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from tcpls.tls.der import OCTET_STRING, SEQUENCE, Der, DerError

SERVER_AUTH = "1.3.6.1.5.5.7.3.1"
CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"
ANY_PURPOSE = "2.5.29.37.0"

_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_DNS_NAME, _IP_ADDRESS = 0x82, 0x87
_DIGITAL_SIGNATURE, _KEY_CERT_SIGN = 0, 5
_V3 = 2

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class KeyKind(enum.Enum):
    """A kind of public key, by its AlgorithmIdentifier as a whole: its parameters have one right encoding."""

    RSA = bytes.fromhex("300d06092a864886f70d0101010500")
    P256 = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
    P384 = bytes.fromhex("301006072a8648ce3d020106052b81040022")
    P521 = bytes.fromhex("301006072a8648ce3d020106052b81040023")
    ED25519 = bytes.fromhex("300506032b6570")
    ED448 = bytes.fromhex("300506032b6571")


_KIND_BY_ALGORITHM = {kind.value: kind for kind in KeyKind}


@dataclass(frozen=True, slots=True)
class SubjectPublicKey:
    """`kind` is None for a key that is of no use here. `key`: RSAPublicKey, a point, or the bytes of RFC 8032."""

    kind: KeyKind | None
    key: bytes


@dataclass(frozen=True, slots=True)
class Subtrees:
    """One list of name constraints. `others`: whether it has names of a form that is not understood here."""

    names: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    others: bool = False


@dataclass(frozen=True, slots=True)
class NameConstraints:
    permitted: Subtrees
    excluded: Subtrees


@dataclass(frozen=True, slots=True)
class Extensions:
    """What the extensions say; None where one is absent."""

    ca: bool | None = None
    path_length: int | None = None
    may_sign_certificates: bool | None = None
    may_sign: bool | None = None
    purposes: frozenset[str] | None = None
    names: tuple[str, ...] = ()
    """DNS names in lower case."""
    addresses: tuple[Address, ...] = ()
    has_names: bool = False
    constraints: NameConstraints | None = None
    unknown_critical: tuple[str, ...] = ()


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
        version = fields.sub(0xA0)
        # RFC 5280 4.1.2.1: there are no extensions before version 3, and without them nothing says what a key is for.
        if version.integer() != _V3:
            raise DerError("a certificate before version 3")
        version.end()
        fields.integer()
        # RFC 5280 4.1.1.2: both say the same.
        if fields.whole(SEQUENCE) != algorithm:
            raise DerError("two different signature algorithms")
        issuer = fields.whole(SEQUENCE)
        validity = fields.sub()
        not_before, not_after = _time(validity), _time(validity)
        validity.end()
        subject = fields.whole(SEQUENCE)
        info = fields.whole(SEQUENCE)
        for unique_id in (0x81, 0x82):
            fields.optional(unique_id)
        contents = fields.optional(0xA3)
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
            _public_key(info),
            Extensions() if contents is None else _extensions(contents),
        )


def _time(reader: Der) -> datetime:
    tag, contents = reader.any()
    text = contents.decode("ascii", errors="replace")
    # RFC 5280 4.1.2.5: with seconds, in UTC, and 1950 to 2049 in the short form.
    if tag == _UTC_TIME and re.fullmatch(r"[0-9]{12}Z", text):
        text = ("19" if text[0] >= "5" else "20") + text
    elif tag != _GENERALIZED_TIME or not re.fullmatch(r"[0-9]{14}Z", text):
        raise DerError("a time in another form")
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise DerError("a time that does not exist") from None


def _public_key(info: bytes) -> SubjectPublicKey:
    reader = Der(info).sub()
    algorithm = reader.whole(SEQUENCE)
    key = reader.bytes_of_bits()
    reader.end()
    return SubjectPublicKey(_KIND_BY_ALGORITHM.get(algorithm), key)


def _extensions(contents: bytes) -> Extensions:
    outer = Der(contents)
    reader = outer.sub()
    outer.end()
    found, seen = Extensions(), set()
    while reader.tag is not None:
        extension = reader.sub()
        kind = extension.oid()
        # RFC 5280 4.2: no extension twice.
        if kind in seen:
            raise DerError(f"the extension {kind} twice")
        seen.add(kind)
        critical = extension.tag == 0x01 and extension.boolean()
        value = Der(extension.take(OCTET_STRING))
        extension.end()
        read = _READERS.get(kind)
        if read is not None:
            found = read(found, value)
            value.end()
        elif critical:
            found = replace(found, unknown_critical=(*found.unknown_critical, kind))
    return found


def _read_basic_constraints(found: Extensions, value: Der) -> Extensions:
    """RFC 5280 4.2.1.9."""
    constraints = value.sub()
    ca = constraints.tag == 0x01 and constraints.boolean()
    length = None if constraints.tag is None else constraints.integer()
    constraints.end()
    if length is not None and (length < 0 or not ca):
        raise DerError("a path length that means nothing")
    return replace(found, ca=ca, path_length=length)


def _read_key_usage(found: Extensions, value: Der) -> Extensions:
    """RFC 5280 4.2.1.3."""
    bits = value.named_bits()
    return replace(found, may_sign=_DIGITAL_SIGNATURE in bits, may_sign_certificates=_KEY_CERT_SIGN in bits)


def _read_purposes(found: Extensions, value: Der) -> Extensions:
    """ExtKeyUsage, RFC 5280 4.2.1.12."""
    reader, purposes = value.sub(), set()
    while reader.tag is not None:
        purposes.add(reader.oid())
    if not purposes:
        raise DerError("no purpose at all")
    return replace(found, purposes=frozenset(purposes))


def _read_names(found: Extensions, value: Der) -> Extensions:
    """SubjectAltName, RFC 5280 4.2.1.6. Names of other forms are not asked for here."""
    reader = value.sub()
    names: list[str] = []
    addresses: list[Address] = []
    if reader.tag is None:
        raise DerError("no name at all")
    while reader.tag is not None:
        tag, contents = reader.any()
        if tag == _DNS_NAME:
            names.append(_dns_name(contents))
        elif tag == _IP_ADDRESS:
            addresses.append(_address(contents))
        elif tag & 0xC0 != 0x80:
            raise DerError("not a general name")
    return replace(found, names=tuple(names), addresses=tuple(addresses), has_names=True)


def _dns_name(contents: bytes) -> str:
    try:
        return contents.decode("ascii").lower()
    except UnicodeDecodeError:
        raise DerError("a name that is not ASCII") from None


def _address(contents: bytes) -> Address:
    if len(contents) not in (4, 16):
        raise DerError("an address of another length")
    return ipaddress.ip_address(contents)


def _read_constraints(found: Extensions, value: Der) -> Extensions:
    """RFC 5280 4.2.1.10."""
    reader = value.sub()
    permitted, excluded = reader.optional(0xA0), reader.optional(0xA1)
    reader.end()
    if permitted is None and excluded is None:
        raise DerError("no constraint at all")
    return replace(found, constraints=NameConstraints(_subtrees(permitted), _subtrees(excluded)))


def _subtrees(contents: bytes | None) -> Subtrees:
    reader = Der(contents or b"")
    names: list[str] = []
    networks: list[Network] = []
    others = False
    while reader.tag is not None:
        subtree = reader.sub()
        tag, base = subtree.any()
        # RFC 5280 4.2.1.10: minimum is 0, which DER leaves out, and there is no maximum.
        subtree.end()
        if tag == _DNS_NAME:
            names.append(_dns_name(base))
        elif tag == _IP_ADDRESS:
            networks.append(_network(base))
        else:
            others = True
    return Subtrees(tuple(names), tuple(networks), others)


def _network(contents: bytes) -> Network:
    half = len(contents) // 2
    if len(contents) not in (8, 32):
        raise DerError("a network of another length")
    mask = int.from_bytes(contents[half:], "big")
    length = mask.bit_count()
    if mask != ((1 << length) - 1) << (8 * half - length):
        raise DerError("a network's mask with holes")
    try:
        return ipaddress.ip_network((contents[:half], length))
    except ValueError:
        raise DerError("a network with bits outside its mask") from None


_READERS = {
    "2.5.29.15": _read_key_usage,
    "2.5.29.17": _read_names,
    "2.5.29.19": _read_basic_constraints,
    "2.5.29.30": _read_constraints,
    "2.5.29.37": _read_purposes,
}


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
