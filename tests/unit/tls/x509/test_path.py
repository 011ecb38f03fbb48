"""Path validation in pure Python, over the signatures of both libraries."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tcpls.errors import Alert, CertificateError, Reason
from tcpls.tls.engines import minicrypto_files, openssl_trust
from tcpls.tls.x509.certificate import Certificate
from tcpls.tls.x509.extensions import CLIENT_AUTH, SERVER_AUTH
from tcpls.tls.x509.path import MAX_COMPARISONS, MAX_PATH, MAX_SIGNATURES, Verify, check_name, validate_path
from tests.unit.tls.pair import NAME, TIME, Pair, authority, issue, leaf, refused

BOTH = (minicrypto_files.signed_by, openssl_trust.signed_by)

Extension = tuple[x509.ExtensionType, bool]


def parse(*pairs: Pair) -> list[Certificate]:
    return [Certificate.parse(pair.der) for pair in pairs]


def validate(chain: Sequence[Pair], *roots: Pair, verify: Verify = BOTH[0], purpose: str = SERVER_AUTH) -> None:
    validate_path(parse(*chain), parse(*(roots or (authority(),))), purpose, TIME, verify)


def refuses(
    chain: Sequence[Pair], why: str, *roots: Pair, verify: Verify = BOTH[0], purpose: str = SERVER_AUTH
) -> None:
    with pytest.raises(CertificateError, match=why) as caught:
        validate(chain, *roots, verify=verify, purpose=purpose)
    refused(caught.value, Reason.UNTRUSTED_CERTIFICATE, Alert.UNKNOWN_CA)


def middle(above: Pair | None = None, subject: str = "middle", **more: object) -> Pair:
    return issue(above or authority(), ca=True, names=(), subject=subject, **more)  # type: ignore[arg-type]


def usage(*, sign: bool = False, certificates: bool = False) -> Extension:
    return x509.KeyUsage(sign, False, True, False, False, certificates, False, False, False), True


def permitted(*names: x509.GeneralName) -> tuple[Extension, ...]:
    return ((x509.NameConstraints(list(names), None), True),)


def excluded(*names: x509.GeneralName) -> tuple[Extension, ...]:
    return ((x509.NameConstraints(None, list(names)), True),)


def purposes(*which: x509.ObjectIdentifier) -> tuple[Extension, ...]:
    return ((x509.ExtendedKeyUsage(which), False),)


def dns(*texts: str) -> tuple[x509.GeneralName, ...]:
    return tuple(x509.DNSName(text) for text in texts)


def network(text: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_network(text))


def address(text: str) -> tuple[x509.GeneralName, ...]:
    return (x509.IPAddress(ipaddress.ip_address(text)),)


def common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


# Signatures.


@pytest.mark.parametrize("verify", BOTH)
@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "rsa", "ed25519", "ed448"])
def test_kinds_of_authorities(verify: Verify, kind: str) -> None:
    root = issue(ca=True, names=(), kind=kind, subject="root")
    end = issue(root)
    validate([end], root, verify=verify)
    forged = bytearray(end.der)
    forged[-1] ^= 1
    with pytest.raises(CertificateError, match="signature"):
        validate_path([Certificate.parse(bytes(forged))], parse(root), SERVER_AUTH, TIME, verify)
    # Another authority of the same name has another key.
    refuses([end], "signature", issue(ca=True, names=(), kind=kind, subject="root"), verify=verify)
    refuses([end], "signature", issue(ca=True, names=(), subject="root"), verify=verify)


def signed_with_rsa(algorithm: hashes.HashAlgorithm, scheme: padding.PSS | padding.PKCS1v15) -> list[Certificate]:
    root = issue(ca=True, names=(), kind="rsa", subject="root")
    builder = x509.CertificateBuilder(
        issuer_name=root.certificate.subject,
        subject_name=common_name("end"),
        public_key=leaf().certificate.public_key(),
        serial_number=1,
        not_valid_before=TIME.replace(tzinfo=None),
        not_valid_after=TIME.replace(tzinfo=None),
    )
    made = builder.sign(root.key, algorithm, rsa_padding=scheme)  # type: ignore[arg-type]
    return [Certificate.parse(made.public_bytes(Encoding.DER)), *parse(root)]


@pytest.mark.parametrize("verify", BOTH)
@pytest.mark.clause("RFC 8446 4.2.3")
def test_rsa_schemes(verify: Verify) -> None:
    for algorithm in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512()):
        good = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
        for scheme in (good, padding.PKCS1v15()):
            assert verify(*reversed(signed_with_rsa(algorithm, scheme)))
        assert not verify(*reversed(signed_with_rsa(algorithm, padding.PSS(padding.MGF1(algorithm), 20))))
    assert not verify(*reversed(signed_with_rsa(hashes.SHA224(), padding.PKCS1v15())))


@pytest.mark.parametrize("verify", BOTH)
def test_an_algorithm_of_another_key(verify: Verify) -> None:
    """Confusion: a signature must be of the kind of the issuer's key."""
    keys = {kind: parse(leaf(kind))[0] for kind in ("p256", "rsa", "ed25519")}
    for end in (issue(leaf(kind), names=()) for kind in keys):
        issued_by = [kind for kind, key in keys.items() if verify(key, parse(end)[0])]
        assert len(issued_by) == 1


# What an issuer must fulfil.


@pytest.mark.clause("RFC 5280 6.1.4")
def test_issuers() -> None:
    validate([issue(between := middle()), between])
    for ca in (None, False):
        between = issue(authority(), ca=ca, names=(), subject="middle")
        refuses([issue(between), between], "not an authority")
    between = middle(extensions=(usage(sign=True),))
    refuses([issue(between), between], "may not sign certificates")
    between = middle(extensions=(usage(certificates=True),))
    validate([issue(between), between])
    # Of the root as well.
    root = issue(ca=False, names=(), subject="root")
    refuses([issue(root)], "not an authority", root)


@pytest.mark.clause("RFC 8446 4.4.2.2")
def test_usage_of_the_end() -> None:
    validate([issue(authority(), extensions=(usage(sign=True),))])
    refuses([issue(authority(), extensions=(usage(certificates=True),))], "may not sign")


def test_purposes() -> None:
    for which in ((ExtendedKeyUsageOID.SERVER_AUTH,), (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)):
        validate([issue(authority(), extensions=purposes(*which))])
    end = issue(authority(), extensions=purposes(ExtendedKeyUsageOID.CLIENT_AUTH))
    refuses([end], "not for this end")
    validate([end], purpose=CLIENT_AUTH)
    between = middle(extensions=purposes(ExtendedKeyUsageOID.CLIENT_AUTH))
    refuses([issue(between), between], "not for this end")


def chain(*between: Pair, root: Pair) -> list[Pair]:
    """From an end over `between`, made already, the upmost first."""
    return [issue(between[-1] if between else root), *reversed(between)]


@pytest.mark.clause("RFC 5280 4.2.1.9")
def test_path_length() -> None:
    root = issue(ca=True, path_length=1, names=(), subject="root")
    first = middle(root, "first")
    second = middle(first, "second")
    validate(chain(first, root=root), root)
    refuses(chain(first, second, root=root), "longer", root)
    # RFC 5280 6.1.4 (l): what an authority issues to itself does not count.
    renewed = middle(first, "first")
    validate(chain(first, renewed, root=root), root)
    between = middle(path_length=0)
    validate([issue(between), between])
    below = middle(between, "below")
    refuses([issue(below), below, between], "longer")


def test_depth() -> None:
    path = [issue(ca=True, names=(), subject="0")]
    for depth in range(1, MAX_PATH):
        path.append(middle(path[-1], str(depth)))
    validate(chain(*path[1 : MAX_PATH - 1], root=path[0]), path[0])
    refuses(chain(*path[1:], root=path[0]), "too long", path[0])


@pytest.mark.clause("RFC 5280 6.1.4", "RFC 5280 4.1.2.4")
def test_certificates_that_nobody_should_use() -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")
    between = middle(extensions=((unknown, True),))
    refuses([issue(between), between], "critical extension 1.2.3.4")
    refuses([issue(authority(), extensions=((unknown, True),))], "critical extension 1.2.3.4")
    nameless = Pair(x509_without_issuer(), authority().key)
    refuses([nameless], "who issued it")


def x509_without_issuer() -> x509.Certificate:
    builder = x509.CertificateBuilder(
        issuer_name=x509.Name([]),
        subject_name=common_name("end"),
        public_key=leaf().certificate.public_key(),
        serial_number=1,
        not_valid_before=TIME.replace(tzinfo=None),
        not_valid_after=TIME.replace(tzinfo=None),
    )
    return builder.sign(authority().key, hashes.SHA256())


@pytest.mark.clause("RFC 8446 4.4.2.2")
def test_version() -> None:
    pair = parse(leaf(), authority())
    for at in range(2):
        changed = [replace(each, is_v3=number != at) for number, each in enumerate(pair)]
        with pytest.raises(CertificateError, match="version 3"):
            validate_path(changed[:1], changed[1:], SERVER_AUTH, TIME, BOTH[0])


def test_period() -> None:
    end = issue(authority(), age=timedelta(days=1), life=timedelta(days=1))
    validate([end])
    validate_path(parse(end), parse(authority()), SERVER_AUTH, TIME.replace(microsecond=999999), BOTH[0])
    for days in (-2, 1):
        with pytest.raises(CertificateError) as caught:
            validate_path(parse(end), parse(authority()), SERVER_AUTH, TIME + timedelta(days=days), BOTH[0])
        refused(caught.value, Reason.CERTIFICATE_EXPIRED, Alert.CERTIFICATE_EXPIRED)
    between = middle(age=timedelta(days=9), life=timedelta(days=8))
    with pytest.raises(CertificateError) as caught:
        validate([issue(between), between])
    refused(caught.value, Reason.CERTIFICATE_EXPIRED, Alert.CERTIFICATE_EXPIRED)


# Name constraints (RFC 5280 4.2.1.10).


def under(constraints: tuple[Extension, ...], names: tuple[x509.GeneralName, ...]) -> list[Pair]:
    between = middle(extensions=constraints)
    return [issue(between, names=names), between]


@pytest.mark.parametrize(
    ("constraints", "names"),
    [
        (permitted(*dns("a.example")), dns("a.example", "b.a.example", "*.a.example")),
        (permitted(*dns("a.example", "b.example")), dns("x.b.example")),
        (permitted(*dns("")), dns("a.example")),
        (permitted(network("10.0.0.0/8")), address("10.1.2.3")),
        (permitted(network("10.0.0.0/8")), dns("a.example")),
        (permitted(*dns("a.example")), address("10.1.2.3")),
        (permitted(network("2001:db8::/32")), address("2001:db8::1")),
        (permitted(x509.RFC822Name("a.example")), dns("a.example")),
        (excluded(*dns("a.example")), dns("ba.example", "example", "*.example.org")),
        (excluded(*dns("c.b.a.example")), dns("*.a.example")),
        (excluded(network("10.0.0.0/8")), address("11.0.0.1")),
        (excluded(network("10.0.0.0/8")), address("::ffff:10.0.0.1")),
    ],
)
def test_names_inside(constraints: tuple[Extension, ...], names: tuple[x509.GeneralName, ...]) -> None:
    validate(under(constraints, names))


@pytest.mark.parametrize(
    ("constraints", "names", "why"),
    [
        (permitted(*dns("a.example")), dns("a.example", "b.example"), "outside"),
        (permitted(*dns("a.example")), dns("ba.example"), "outside"),
        (permitted(*dns("a.example")), dns("*.example"), "outside"),
        (permitted(*dns("a.example")), dns(".a.example"), "not known"),
        (permitted(*dns("a.example")), dns("b_.a.example"), "not known"),
        (permitted(network("10.0.0.0/8")), address("11.0.0.1"), "outside"),
        (permitted(network("10.0.0.0/8")), address("::1"), "outside"),
        (excluded(*dns("a.example")), dns("a.example"), "outside"),
        (excluded(*dns("a.example")), dns("b.A.example"), "outside"),
        (excluded(*dns("b.a.example")), dns("*.a.example"), "outside"),
        (excluded(*dns("")), dns("a.example"), "outside"),
        (excluded(*dns("a.example")), dns("a.example."), "not known"),
        (excluded(network("0.0.0.0/0")), address("11.0.0.1"), "outside"),
        (permitted(x509.RFC822Name("a.example")), (x509.RFC822Name("x@a.example"),), "not known"),
        (excluded(x509.UniformResourceIdentifier("b")), (x509.UniformResourceIdentifier("http://a"),), "not known"),
        (permitted(x509.DirectoryName(common_name("subject"))), dns("a.example"), "not known"),
    ],
)
def test_names_outside(constraints: tuple[Extension, ...], names: tuple[x509.GeneralName, ...], why: str) -> None:
    refuses(under(constraints, names), why)


def test_constraints_of_all_issuers_hold() -> None:
    outer = middle(subject="outer", extensions=permitted(*dns("a.example")))
    inner = middle(outer, "inner", extensions=permitted(*dns("b.a.example", "other.example")))
    validate([issue(inner, names=dns("x.b.a.example")), inner, outer])
    for name in ("other.example", "a.example"):
        refuses([issue(inner, names=dns(name)), inner, outer], "outside")
    root = issue(ca=True, names=(), subject="root", extensions=excluded(*dns("a.example")))
    refuses([issue(root, names=dns("a.example"))], "outside", root)


def test_constraints_and_what_an_authority_issues_to_itself() -> None:
    outer = middle(extensions=permitted(*dns("a.example")))
    renewed = issue(outer, ca=True, names=dns("b.example"), subject="middle")
    validate([issue(renewed, names=dns("a.example")), renewed, outer])
    refuses([issue(renewed, names=dns("b.example")), renewed, outer], "outside")
    other = issue(outer, ca=True, names=dns("b.example"), subject="other")
    refuses([issue(other, names=dns("a.example")), other, outer], "outside")


# Names (RFC 9525).


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (dns("a.example"), "A.Example."),
        (dns("*.A.example"), "b.a.example"),
        (dns("localhost"), "localhost"),
        (address("::1"), "0:0::1"),
    ],
)
@pytest.mark.clause("RFC 9525 6.3")
def test_right_names(names: tuple[x509.GeneralName, ...], name: str) -> None:
    check_name(parse(issue(names=names))[0], name)


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (dns("*.example"), "example"),
        (dns("*.example"), "*.example"),
        (dns("*"), "example"),
        (dns("*a.example"), "ba.example"),
        (dns("a.*.example"), "a.b.example"),
        (dns("a.example\0.b.example"), "a.example"),
        (dns("a.example."), "a.example"),
        (dns("a_b.example"), "a_b.example"),
        (dns("*.a.example"), "b_.a.example"),
        (dns("*.a.example"), ".a.example"),
        (dns(""), ""),
        (dns("127.0.0.1"), "127.0.0.1"),
        (address("127.0.0.1"), "::ffff:127.0.0.1"),
        ((x509.UniformResourceIdentifier("a.example"),), "a.example"),
        ((), "subject"),
    ],
)
@pytest.mark.clause("RFC 9525 6.3")
def test_wrong_names(names: tuple[x509.GeneralName, ...], name: str) -> None:
    with pytest.raises(CertificateError) as caught:
        check_name(parse(issue(names=names))[0], name)
    refused(caught.value, Reason.WRONG_NAME, Alert.BAD_CERTIFICATE)


# What it may cost.


class Counting:
    """The real check, counted."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, issuer: Certificate, subject: Certificate) -> bool:
        self.calls += 1
        return BOTH[0](issuer, subject)


def test_a_chain_of_loops() -> None:
    """Authorities that all have certified each other: every order of them is a path, and none ends."""
    keys = [issue(ca=True, names=(), subject=str(number)) for number in range(7)]
    crossed = [cross(above, below) for above in keys for below in keys if above is not below]
    counting = Counting()
    refuses([issue(keys[0]), *crossed], "too many signatures|too long", verify=counting)
    assert counting.calls == MAX_SIGNATURES


def cross(above: Pair, below: Pair) -> Pair:
    """The certificate of `below` by `above`."""
    builder = x509.CertificateBuilder(
        issuer_name=above.certificate.subject,
        subject_name=below.certificate.subject,
        public_key=below.certificate.public_key(),
        serial_number=1,
        not_valid_before=(TIME - timedelta(days=1)).replace(tzinfo=None),
        not_valid_after=(TIME + timedelta(days=1)).replace(tzinfo=None),
    ).add_extension(x509.BasicConstraints(True, None), True)
    return Pair(builder.sign(above.key, hashes.SHA256()), below.key)


def test_many_issuers_of_one_name() -> None:
    counting = Counting()
    wrong = [issue(authority(), ca=True, names=(), subject="middle") for _ in range(MAX_SIGNATURES + 5)]
    right = middle()
    refuses([issue(right), *wrong, right], "signature", verify=counting)
    assert counting.calls == MAX_SIGNATURES
    validate([issue(right), *wrong[:20], right])


def test_many_names_under_many_constraints() -> None:
    many = [f"{number}.example" for number in range(600)]
    assert len(many) ** 2 > MAX_COMPARISONS
    refuses(under(excluded(*dns(*(f"x{name}" for name in many))), dns(*many)), "too many names")
    few = many[:400]
    validate(under(excluded(*dns(*(f"x{name}" for name in few))), dns(*few)))


def test_the_way_is_found_among_others() -> None:
    """An issuer's second certificate leads on where the first one does not, in any order."""
    old = issue(ca=True, names=(), subject="old")
    between = middle()
    by_old = cross(old, between)
    end = issue(between)
    for others in ([by_old, between], [between, by_old], [by_old, leaf("rsa"), between]):
        validate([end, *others])
    validate([end, by_old], authority(), old)
    refuses([end, by_old], "issuer is unknown")
    assert all(BOTH[0](*reversed(pair)) for pair in pairwise(parse(end, between, authority())))


def test_an_end_that_is_trusted_itself() -> None:
    alone = issue(ca=False)
    validate([alone], alone)
    refuses([alone], "unknown")
    assert NAME in parse(alone)[0].extensions.names
