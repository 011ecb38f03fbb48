"""Certificates: what is read out of them, and that whatever is not of RFC 5280's form is a `DerError`."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime
from pathlib import Path

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from tcpls.tls.x509.algorithms import KeyKind
from tcpls.tls.x509.certificate import Certificate, pem_blocks, public_key_of
from tcpls.tls.x509.der import DerError
from tcpls.tls.x509.extensions import CLIENT_AUTH, DIRECTORY_NAME, DNS_NAME, SERVER_AUTH, is_host_name
from tests.der_writer import (
    GENERALIZED_TIME,
    UTC_TIME,
    bits,
    boolean,
    certificate,
    extension,
    integer,
    name,
    oid,
    sequence,
    time,
    tlv,
)
from tests.unit.tls.pair import KINDS, NAME, authority, issue, leaf

KEY_USAGE, NAMES, CONSTRAINTS, NAME_CONSTRAINTS, PURPOSES = (f"2.5.29.{number}" for number in (15, 17, 19, 30, 37))
V1, V2 = b"", tlv(0xA0, integer(1))


def refused(der: bytes) -> None:
    with pytest.raises(DerError):
        Certificate.parse(der)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_library_made(kind: str) -> None:
    ours, theirs = Certificate.parse(leaf(kind).der), leaf(kind).certificate
    assert ours.signed == theirs.tbs_certificate_bytes
    assert ours.signature == theirs.signature
    assert (ours.subject, ours.issuer) == (theirs.subject.public_bytes(), theirs.issuer.public_bytes())
    assert (ours.not_before, ours.not_after) == (theirs.not_valid_before_utc, theirs.not_valid_after_utc)
    info = theirs.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert ours.public_key_info == info
    assert ours.public_key.kind is KeyKind[kind.upper()]
    assert ours.extensions.names == (NAME,)
    assert ours.is_v3


def test_extensions() -> None:
    names = (x509.DNSName("A.example"), x509.IPAddress(ipaddress.ip_address("::1")), x509.RFC822Name("a@example"))
    constraints = x509.NameConstraints(
        [x509.DNSName("a.example"), x509.IPAddress(ipaddress.ip_network("10.0.0.0/8"))], [x509.RFC822Name("b.example")]
    )
    usage = x509.KeyUsage(True, False, False, False, False, True, False, False, False)
    purposes = x509.ExtendedKeyUsage([x509.ObjectIdentifier(SERVER_AUTH), x509.ObjectIdentifier(CLIENT_AUTH)])
    made = issue(
        names=names,
        ca=True,
        path_length=3,
        extensions=((constraints, True), (usage, True), (purposes, False), (x509.OCSPNoCheck(), False)),
    )
    found = Certificate.parse(made.der).extensions
    assert (found.ca, found.path_length) == (True, 3)
    assert (found.may_sign, found.may_sign_certificates) == (True, True)
    assert found.purposes == frozenset((SERVER_AUTH, CLIENT_AUTH))
    assert (found.names, found.addresses) == (("a.example",), (ipaddress.ip_address("::1"),))
    assert found.forms == {DNS_NAME, 0x87, 0x81}
    assert found.constraints is not None
    assert found.constraints.permitted.names == ("a.example",)
    assert found.constraints.permitted.networks == (ipaddress.ip_network("10.0.0.0/8"),)
    assert found.constraints.excluded.others == {0x81}
    assert found.unknown_critical is None
    assert Certificate.parse(authority().der).extensions.purposes is None


def test_what_is_critical_and_unknown() -> None:
    der = certificate(
        extensions=extension("1.2.3", b"") + extension("1.2.4", b"", True) + extension("1.2.5", b"", True)
    )
    assert Certificate.parse(der).extensions.unknown_critical == "1.2.4"


@pytest.mark.clause("RFC 5280 4.1.2.1")
def test_versions() -> None:
    assert Certificate.parse(certificate(version=V2)).is_v3 is False
    assert Certificate.parse(certificate(version=V1)).is_v3 is False
    refused(certificate(version=V1, extensions=extension("1.2.3", b"")))
    for number in (-1, 0, 3, 1 << 70):
        refused(certificate(version=tlv(0xA0, integer(number))))
    refused(certificate(version=tlv(0xA0, integer(2), integer(2))))


@pytest.mark.clause("RFC 5280 4.1.2.2")
def test_serial_numbers() -> None:
    for serial in (0, 1, (1 << 160) - 1):
        Certificate.parse(certificate(serial=integer(serial)))
    for serial in (-1, 1 << 160, 1 << 4000):
        refused(certificate(serial=integer(serial)))


@pytest.mark.clause("RFC 5280 4.1.1.2")
def test_two_algorithms() -> None:
    other = sequence(oid("1.2.840.10045.4.3.3"))
    refused(certificate(inner=other))
    refused(certificate(outer=other))
    Certificate.parse(certificate(inner=other, outer=other))


@pytest.mark.parametrize(
    "wrong",
    [
        sequence(tlv(0x31)),
        sequence(sequence(oid("2.5.4.3"), tlv(12, b"x"))),
        sequence(tlv(0x31, sequence(oid("2.5.4.3")))),
        sequence(tlv(0x31, sequence(oid("2.5.4.3"), tlv(12), tlv(12)))),
        sequence(b"\x01\x02\x03\x04"),
        sequence(tlv(0x31, sequence(tlv(6, b"\x55\x84"), tlv(12, b"x")))),
        tlv(0x31),
    ],
)
@pytest.mark.clause("RFC 5280 4.1.2.4")
def test_names_that_are_none(wrong: bytes) -> None:
    refused(certificate(subject=wrong))
    refused(certificate(issuer=wrong))


@pytest.mark.clause("RFC 5280 4.1.2.5")
def test_times() -> None:
    for year in (1950, 1999, 2000, 2049, 2050, 9999):
        at = datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC)
        long = tlv(GENERALIZED_TIME, at.strftime("%Y%m%d%H%M%SZ").encode())
        for each in (time(at), long):
            assert Certificate.parse(certificate(validity=sequence(each, each))).not_after == at
    for tag, text in (
        (UTC_TIME, "2601010000Z"),
        (UTC_TIME, "260101000000"),
        (UTC_TIME, "260101000000+0000"),
        (UTC_TIME, "260230000000Z"),
        (UTC_TIME, "260101000060Z"),
        (UTC_TIME, "260101240000Z"),
        (UTC_TIME, " 60101000000Z"),
        (UTC_TIME, "260101000000Z\n"),
        (GENERALIZED_TIME, "20510101000000.5Z"),
        (GENERALIZED_TIME, "510101000000Z"),
        (GENERALIZED_TIME, "99990000000000Z"),
        (0x16, "260101000000Z"),
    ):
        good = time(datetime(2051, 1, 1, tzinfo=UTC))
        refused(certificate(validity=sequence(tlv(tag, text.encode()), good)))
        refused(certificate(validity=sequence(good, tlv(tag, text.encode()))))
    refused(certificate(validity=sequence(good)))
    refused(certificate(validity=sequence(good, good, good)))


def test_keys_of_other_kinds() -> None:
    # With parameters that are not P-256's, as in the attack on Windows of 2020 (CVE-2020-0601).
    explicit = sequence(sequence(oid("1.2.840.10045.2.1"), sequence(integer(1))), bits(b"\x04" + bytes(64)))
    assert public_key_of(explicit).kind is None
    assert Certificate.parse(certificate(key=explicit)).public_key.kind is None
    refused(certificate(key=sequence(sequence(oid("1.2.3")))))
    with pytest.raises(DerError):
        public_key_of(explicit + b"\0")


def test_identifiers_that_are_passed_over() -> None:
    ids = tlv(0x81, b"\0x") + tlv(0x82, b"\0y")
    Certificate.parse(certificate(unique_ids=ids))
    refused(certificate(unique_ids=ids + ids))


@pytest.mark.parametrize(
    "extensions",
    [
        b"",
        extension("1.2.3", b"") * 2,
        extension(KEY_USAGE, bits(b"\x80", 7)) * 2,
        sequence(oid("1.2.3"), boolean(False), tlv(4, b"")),
        sequence(oid("1.2.3"), boolean(True), boolean(True), tlv(4, b"")),
        sequence(oid("1.2.3")),
        extension(CONSTRAINTS, sequence(boolean(False))),
        extension(CONSTRAINTS, sequence(integer(0))),
        extension(CONSTRAINTS, sequence(boolean(True), integer(-1))),
        extension(CONSTRAINTS, sequence(boolean(True), integer(1), integer(1))),
        extension(CONSTRAINTS, sequence(boolean(True)) + b"\0"),
        extension(KEY_USAGE, bits(b"")),
        extension(KEY_USAGE, bits(b"\x80" * 3)),
        extension(PURPOSES, sequence()),
        extension(PURPOSES, sequence(integer(1))),
        extension(NAMES, sequence()),
        extension(NAMES, sequence(tlv(0x82, b"\xc3\xa9.example"))),
        extension(NAMES, sequence(tlv(0xA2, b"a.example"))),
        extension(NAMES, sequence(tlv(0x89, b"a.example"))),
        extension(NAMES, sequence(tlv(0x0C, b"a.example"))),
        extension(NAMES, sequence(tlv(0x87, bytes(5)))),
        extension(NAMES, sequence(tlv(0x87, bytes(8)))),
        extension(NAME_CONSTRAINTS, sequence()),
        extension(NAME_CONSTRAINTS, sequence(tlv(0xA0))),
        extension(NAME_CONSTRAINTS, sequence(tlv(0xA1, sequence(tlv(0x82, b"a.example"))), tlv(0xA1))),
        extension(NAME_CONSTRAINTS, sequence(tlv(0xA0, sequence(tlv(0x82, b".a.example"))))),
        extension(NAME_CONSTRAINTS, sequence(tlv(0xA0, sequence(tlv(0x82, b"*.a.example"))))),
        extension(NAME_CONSTRAINTS, sequence(tlv(0xA0, sequence(tlv(0x82, b"a"), tlv(0x80, b"\0"))))),
        extension(NAME_CONSTRAINTS, sequence(tlv(0xA0, sequence(tlv(0x87, bytes(4)))))),
        extension(NAME_CONSTRAINTS, sequence(tlv(0xA0, sequence(tlv(0x87, bytes.fromhex("0a000000ff00ff00")))))),
    ],
)
def test_extensions_that_are_wrong(extensions: bytes) -> None:
    refused(certificate(extensions=extensions))


def test_constraints_of_nothing_and_of_everything() -> None:
    der = certificate(
        extensions=extension(
            NAME_CONSTRAINTS,
            sequence(
                tlv(0xA0, sequence(tlv(0x82)), sequence(tlv(DIRECTORY_NAME, name("x")))),
                tlv(0xA1, sequence(tlv(0x87, bytes(32)))),
            ),
        )
    )
    constraints = Certificate.parse(der).extensions.constraints
    assert constraints is not None
    assert constraints.permitted.names == ("",)
    assert constraints.permitted.others == {DIRECTORY_NAME}
    assert constraints.excluded.networks == (ipaddress.ip_network("::/0"),)


@pytest.mark.parametrize(
    "text", ["a", "a.example", "xn--bcher-kva.example", "1.2", "a" * 63 + ".b", ".".join(["a"] * 127)]
)
def test_host_names(text: str) -> None:
    assert is_host_name(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        ".a",
        "a.",
        "a..b",
        "-a",
        "a-.b",
        "a_b",
        "*.a",
        "a b",
        "A",
        "é",
        "a\0b",
        "a\n",
        "a" * 64,
        ".".join(["a"] * 128),
    ],
)
def test_what_is_no_host_name(text: str) -> None:
    assert not is_host_name(text)


def test_the_authorities_of_the_web() -> None:
    """As Mozilla has them: all of them are read, also the one with a time in the long form."""
    bundle = Path(certifi.where()).read_bytes()
    found = [Certificate.parse(der) for der in pem_blocks(bundle, b"CERTIFICATE")]
    assert len(found) == bundle.count(b"BEGIN CERTIFICATE") > 100
    assert all(each.extensions.ca and each.public_key.kind is not None for each in found)


def test_bits_outside_a_mask() -> None:
    tree = tlv(0xA0, sequence(tlv(0x87, bytes.fromhex("0a000001ff000000"))))
    constraints = Certificate.parse(
        certificate(extensions=extension(NAME_CONSTRAINTS, sequence(tree)))
    ).extensions.constraints
    assert constraints is not None
    assert constraints.permitted.networks == (ipaddress.ip_network("10.0.0.0/8"),)


def test_pem() -> None:
    blocks = authority().pem + b"-----BEGIN OTHER-----\nAAAA\n-----END OTHER-----\n" + leaf().pem
    assert pem_blocks(b"text\n" + blocks, b"CERTIFICATE") == [authority().der, leaf().der]
    assert pem_blocks(b"-----BEGIN CERTIFICATE-----", b"CERTIFICATE") == []
    for broken in (b"A", b"AA=A", b"!AAA"):
        with pytest.raises(DerError):
            pem_blocks(b"-----BEGIN X-----\n" + broken + b"\n-----END X-----", b"X")


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    refused(data)


@given(st.data())
def test_any_change(data: st.DataObject) -> None:
    der = bytearray(authority().der)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(der) - 1))
        der[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        Certificate.parse(bytes(der))
    except DerError:
        return
