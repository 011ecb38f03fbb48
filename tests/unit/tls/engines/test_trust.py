"""Path validation: what is trusted, what is not, and why not."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from tcpls.errors import Alert, CertificateError, ConfigurationError, Reason
from tests import der_writer
from tests.engine import LIBRARY
from tests.unit.tls.pair import NAME, TIME, Pair, authority, issue, leaf, refused, trust, trust_in

OLD = timedelta(days=200)


def validate(chain: list[Pair], name: str = NAME, root: Pair | None = None) -> None:
    trust_in(root or authority()).validate([pair.der for pair in chain], name, TIME)


def refuses(chain: list[Pair], reason: Reason, alert: Alert, name: str = NAME, root: Pair | None = None) -> None:
    with pytest.raises(CertificateError) as caught:
        validate(chain, name, root)
    refused(caught.value, reason, alert)


def addresses(*texts: str) -> tuple[x509.GeneralName, ...]:
    return tuple(x509.IPAddress(ipaddress.ip_address(text)) for text in texts)


def unknown_usage(purpose: x509.ObjectIdentifier) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    return ((x509.ExtendedKeyUsage([purpose]), False),)


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa", "ed25519"])
def test_trusted(kind: str) -> None:
    validate([leaf(kind)])
    validate([leaf(kind), authority()])


def test_intermediates() -> None:
    middle = issue(authority(), ca=True, names=(), subject="middle")
    end = issue(middle)
    validate([end, middle])
    validate([end, leaf("rsa"), middle])
    refuses([end], Reason.UNTRUSTED_CERTIFICATE, Alert.UNKNOWN_CA)


def signed_with(algorithm: hashes.HashAlgorithm, kind: str, pair: Pair, issuer: Pair) -> bytes:
    """The certificate with an RSA signature over another hash: the library makes no such ones any more."""
    assert isinstance(issuer.key, rsa.RSAPrivateKey)
    before, after = der_writer.oid("1.2.840.113549.1.1.11"), der_writer.oid(kind)
    signed = pair.certificate.tbs_certificate_bytes
    assert before in signed
    signed = signed.replace(before, after)
    signature = issuer.key.sign(signed, padding.PKCS1v15(), algorithm)
    return der_writer.sequence(signed, der_writer.sequence(after, der_writer.tlv(5)), der_writer.bits(signature))


@pytest.mark.clause("RFC 8446 4.4.2.4")
@pytest.mark.parametrize(
    ("algorithm", "kind"), [(hashes.MD5(), "1.2.840.113549.1.1.4"), (hashes.SHA1(), "1.2.840.113549.1.1.5")]
)
@pytest.mark.parametrize("end_kind", ["rsa", "ed25519"])
def test_signatures_over_broken_hashes(algorithm: hashes.HashAlgorithm, kind: str, end_kind: str) -> None:
    root = issue(ca=True, names=(), subject="root", kind="rsa")
    middle = issue(root, ca=True, names=(), subject="middle", kind=end_kind)
    end = issue(middle)
    trusted = trust_in(root)
    trusted.validate([end.der, middle.der], NAME, TIME)
    broken = signed_with(algorithm, kind, middle, root)
    with pytest.raises(CertificateError) as caught:
        trusted.validate([end.der, broken], NAME, TIME)
    refused(caught.value, Reason.BAD_CERTIFICATE, Alert.BAD_CERTIFICATE)
    with pytest.raises(CertificateError) as caught:
        trusted.validate([signed_with(algorithm, kind, issue(root), root)], NAME, TIME)
    refused(caught.value, Reason.BAD_CERTIFICATE, Alert.BAD_CERTIFICATE)
    # One that need not be validated is none of this end's concern.
    trusted.validate([end.der, middle.der, broken], NAME, TIME)
    of_itself = signed_with(algorithm, kind, root, root)
    trusted.validate([end.der, middle.der, of_itself], NAME, TIME)


@pytest.mark.parametrize("ca", [None, False])
def test_issuer_that_is_no_authority(ca: bool | None) -> None:
    middle = issue(authority(), ca=ca, names=(), subject="middle")
    refuses([issue(middle), middle], Reason.UNTRUSTED_CERTIFICATE, Alert.UNKNOWN_CA)


def test_path_length() -> None:
    root = issue(ca=True, path_length=0, names=(), subject="root")
    middle = issue(root, ca=True, names=(), subject="middle")
    validate([issue(root)], root=root)
    refuses([issue(middle), middle], Reason.UNTRUSTED_CERTIFICATE, Alert.UNKNOWN_CA, root=root)


def test_name_constraints() -> None:
    constraints = x509.NameConstraints([x509.DNSName("inside.example")], None)
    middle = issue(authority(), ca=True, names=(), subject="middle", extensions=((constraints, True),))
    refuses([issue(middle), middle], Reason.UNTRUSTED_CERTIFICATE, Alert.UNKNOWN_CA)
    inside = issue(middle, names=(x509.DNSName("www.inside.example"),))
    validate([inside, middle], "www.inside.example")


def test_critical_extension_that_is_not_known() -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")
    validate([issue(authority(), extensions=((unknown, False),))])
    refuses([issue(authority(), extensions=((unknown, True),))], Reason.UNTRUSTED_CERTIFICATE, Alert.UNKNOWN_CA)


@pytest.mark.clause("RFC 8446 4.4.2.2")
def test_usage() -> None:
    """RFC 8446 4.4.2.2: the key of the end must be allowed to sign; RFC 5280 4.2.1.3: an issuer's, certificates."""

    def usage(*, sign: bool, certificates: bool) -> tuple[tuple[x509.ExtensionType, bool], ...]:
        return ((x509.KeyUsage(sign, False, True, False, False, certificates, False, False, False), True),)

    validate([issue(authority(), extensions=usage(sign=True, certificates=False))])
    end = issue(authority(), extensions=usage(sign=False, certificates=False))
    refuses([end], Reason.UNTRUSTED_CERTIFICATE, Alert.UNKNOWN_CA)
    for certificates in (True, False):
        extensions = usage(sign=True, certificates=certificates)
        middle = issue(authority(), ca=True, names=(), subject="middle", extensions=extensions)
        if certificates:
            validate([issue(middle), middle])
        else:
            refuses([issue(middle), middle], Reason.UNTRUSTED_CERTIFICATE, Alert.UNKNOWN_CA)


def test_purposes() -> None:
    validate([issue(authority(), extensions=unknown_usage(ExtendedKeyUsageOID.SERVER_AUTH))])
    client = issue(authority(), extensions=unknown_usage(ExtendedKeyUsageOID.CLIENT_AUTH))
    refuses([client], Reason.UNTRUSTED_CERTIFICATE, Alert.UNKNOWN_CA)
    extensions = unknown_usage(ExtendedKeyUsageOID.CLIENT_AUTH)
    middle = issue(authority(), ca=True, names=(), subject="middle", extensions=extensions)
    refuses([issue(middle), middle], Reason.UNTRUSTED_CERTIFICATE, Alert.UNKNOWN_CA)


@pytest.mark.parametrize("kind", ["ed25519", "ed448"])
def test_authorities_with_eddsa(kind: str) -> None:
    root = issue(ca=True, names=(), kind=kind, subject="root")
    middle = issue(root, ca=True, names=(), subject="middle")
    validate([issue(root)], root=root)
    validate([issue(middle), middle], root=root)
    refuses([issue(root)], Reason.UNTRUSTED_CERTIFICATE, Alert.UNKNOWN_CA)
    refuses([issue(root)], Reason.WRONG_NAME, Alert.BAD_CERTIFICATE, "other.example", root=root)
    old = issue(root, age=OLD, life=timedelta(days=100))
    refuses([old], Reason.CERTIFICATE_EXPIRED, Alert.CERTIFICATE_EXPIRED, root=root)


@pytest.mark.clause("RFC 8446 4.4.2.2")
def test_self_signed() -> None:
    alone = issue()
    refuses([alone], Reason.UNTRUSTED_CERTIFICATE, Alert.UNKNOWN_CA)
    validate([alone], root=alone)


def test_signature_that_was_changed() -> None:
    der = bytearray(leaf().der)
    der[-1] ^= 1
    with pytest.raises(CertificateError) as caught:
        trust().validate([bytes(der)], NAME, TIME)
    refused(caught.value, Reason.UNTRUSTED_CERTIFICATE, Alert.UNKNOWN_CA)


@pytest.mark.parametrize(("age", "life"), [(OLD, timedelta(days=100)), (-OLD, timedelta(days=300))])
def test_outside_the_period(age: timedelta, life: timedelta) -> None:
    end = issue(authority(), age=age, life=life)
    refuses([end], Reason.CERTIFICATE_EXPIRED, Alert.CERTIFICATE_EXPIRED)
    middle = issue(authority(), ca=True, names=(), subject="middle", age=age, life=life)
    refuses([issue(middle), middle], Reason.CERTIFICATE_EXPIRED, Alert.CERTIFICATE_EXPIRED)


@pytest.mark.parametrize(
    ("names", "name"),
    [
        ((x509.DNSName("other.example"),), NAME),
        ((x509.DNSName("*.a.example"),), "b.c.a.example"),
        ((), NAME),
        (addresses("127.0.0.1"), "127.0.0.2"),
        (addresses("127.0.0.1"), NAME),
        ((x509.DNSName("127.0.0.1"),), "127.0.0.1"),
        ((x509.DNSName(NAME),), "no_name"),
    ],
)
def test_wrong_name(names: tuple[x509.GeneralName, ...], name: str) -> None:
    refuses([issue(authority(), names=names)], Reason.WRONG_NAME, Alert.BAD_CERTIFICATE, name)


@pytest.mark.parametrize(
    ("names", "name"),
    [
        ((x509.DNSName("*.a.example"),), "b.a.example"),
        (addresses("127.0.0.1", "::1"), "127.0.0.1"),
        (addresses("127.0.0.1", "::1"), "::1"),
    ],
)
def test_right_name(names: tuple[x509.GeneralName, ...], name: str) -> None:
    validate([issue(authority(), names=names)], name)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    with pytest.raises(ConfigurationError, match=r"ca\.pem: No such file"):
        LIBRARY.load_trust(path)
    path.write_text("nothing")
    with pytest.raises(ConfigurationError, match=r"ca\.pem: no certificates"):
        LIBRARY.load_trust(path)
    path.write_bytes(authority().pem)
    LIBRARY.load_trust(path).validate([leaf().der], NAME, TIME)


def test_bundles_of_the_system(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(b"# text\n" + leaf().pem.replace(b"MII", b"AAA") + authority().pem)
    LIBRARY.system_trust([tmp_path / "absent.pem", bundle]).validate([leaf().der], NAME, TIME)
    with pytest.raises(ConfigurationError, match="no bundle"):
        LIBRARY.system_trust([tmp_path / "absent.pem"])
