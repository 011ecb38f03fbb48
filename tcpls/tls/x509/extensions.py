"""The extensions of certificates (RFC 5280 section 4.2) that path validation asks for."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace

from tcpls.tls.x509.der import OCTET_STRING, Der, DerError

SERVER_AUTH = "1.3.6.1.5.5.7.3.1"
CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"
ANY_PURPOSE = "2.5.29.37.0"

DNS_NAME, DIRECTORY_NAME, IP_ADDRESS = 0x82, 0xA4, 0x87
_GENERAL_NAMES = frozenset((0xA0, 0x81, DNS_NAME, 0xA3, DIRECTORY_NAME, 0xA5, 0x86, IP_ADDRESS, 0x88))
"""The tags of the forms of a GeneralName (RFC 5280 4.2.1.6)."""

_DIGITAL_SIGNATURE, _KEY_CERT_SIGN = 0, 5

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_MAX_NAME = 253


def is_host_name(name: str) -> bool:
    """Whether a name in lower case is of the preferred syntax (RFC 5280 4.2.1.6 with RFC 1034 3.5 and RFC 1123 2.1)."""
    return len(name) <= _MAX_NAME and _HOST_NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Subtrees:
    """One list of name constraints. `others`: the tags of its names whose form is not understood here."""

    names: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    others: frozenset[int] = frozenset()


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
    forms: frozenset[int] = frozenset()
    """The tags of all alternative names."""
    constraints: NameConstraints | None = None
    unknown_critical: str | None = None
    """The first one."""


def read_extensions(contents: bytes) -> Extensions:
    """The contents of the field of that name. Raises `DerError`."""
    outer = Der(contents)
    reader = outer.sub()
    outer.end()
    found, seen = Extensions(), set()
    # RFC 5280 4.1: SIZE (1..MAX).
    if reader.tag is None:
        raise DerError("no extension at all")
    while reader.tag is not None:
        extension = reader.sub()
        kind = extension.oid()
        # RFC 5280 4.2: no extension twice.
        if kind in seen:
            raise DerError(f"the extension {kind} twice")
        seen.add(kind)
        critical = extension.flag()
        value = Der(extension.take(OCTET_STRING))
        extension.end()
        read = _READERS.get(kind)
        if read is not None:
            found = read(found, value)
            value.end()
        elif critical and found.unknown_critical is None:
            found = replace(found, unknown_critical=kind)
    return found


def _read_basic_constraints(found: Extensions, value: Der) -> Extensions:
    """RFC 5280 4.2.1.9."""
    constraints = value.sub()
    ca = constraints.flag()
    length = None if constraints.tag is None else constraints.integer()
    constraints.end()
    if length is not None and (length < 0 or not ca):
        raise DerError("a path length that means nothing")
    return replace(found, ca=ca, path_length=length)


def _read_key_usage(found: Extensions, value: Der) -> Extensions:
    """RFC 5280 4.2.1.3."""
    bits = value.named_bits()
    if not bits:
        raise DerError("a key usage without any use")
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
    forms: set[int] = set()
    if reader.tag is None:
        raise DerError("no name at all")
    while reader.tag is not None:
        tag, contents = reader.any()
        forms.add(_form(tag))
        if tag == DNS_NAME:
            names.append(_dns_name(contents))
        elif tag == IP_ADDRESS:
            addresses.append(_address(contents))
    return replace(found, names=tuple(names), addresses=tuple(addresses), forms=frozenset(forms))


def _form(tag: int) -> int:
    if tag not in _GENERAL_NAMES:
        raise DerError("not a general name")
    return tag


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
    others: set[int] = set()
    # RFC 5280 4.2.1.10: SIZE (1..MAX).
    if contents is not None and reader.tag is None:
        raise DerError("a list of constraints without any")
    while reader.tag is not None:
        subtree = reader.sub()
        tag, base = subtree.any()
        # RFC 5280 4.2.1.10: minimum is 0, which DER leaves out, and there is no maximum.
        subtree.end()
        if tag == DNS_NAME:
            names.append(_constraint(base))
        elif tag == IP_ADDRESS:
            networks.append(_network(base))
        else:
            others.add(_form(tag))
    return Subtrees(tuple(names), tuple(networks), frozenset(others))


def _constraint(contents: bytes) -> str:
    name = _dns_name(contents)
    # RFC 5280 4.2.1.10: a host name, without a period in front, which is for URIs; nothing stands for every name.
    if name and not is_host_name(name):
        raise DerError("a constraint that is not a name")
    return name


def _network(contents: bytes) -> Network:
    half = len(contents) // 2
    if len(contents) not in (8, 32):
        raise DerError("a network of another length")
    mask = int.from_bytes(contents[half:], "big")
    length = mask.bit_count()
    if mask != ((1 << length) - 1) << (8 * half - length):
        raise DerError("a network's mask with holes")
    # Bits outside the mask say nothing.
    return ipaddress.ip_network((contents[:half], length), strict=False)


_READERS = {
    "2.5.29.15": _read_key_usage,
    "2.5.29.17": _read_names,
    "2.5.29.19": _read_basic_constraints,
    "2.5.29.30": _read_constraints,
    "2.5.29.37": _read_purposes,
}
