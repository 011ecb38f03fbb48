"""Path validation (RFC 5280) over `cryptography`'s verifier, with what it refuses told apart for the peer's alert.

That verifier knows no EdDSA. A chain with such a signature is validated by path.py, over the same library's signatures.
"""

from __future__ import annotations

import contextlib
import ipaddress
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import cached_property, lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, Policy

from tcpls.errors import CertificateError, ConfigurationError, Reason
from tcpls.tls.engines.openssl import UNREADABLE, schemes_of
from tcpls.tls.engines.openssl_revocation import check_status
from tcpls.tls.x509.algorithms import RSA_KINDS, SIGNATURE_ALGORITHMS
from tcpls.tls.x509.certificate import Certificate
from tcpls.tls.x509.der import DerError
from tcpls.tls.x509.extensions import CLIENT_AUTH, SERVER_AUTH
from tcpls.tls.x509.path import broken_signature, check_name, validate_path

_PEM_BEGIN = b"-----BEGIN CERTIFICATE-----"
_PEM_END = b"-----END CERTIFICATE-----"

_ANY_PURPOSE = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
_EDDSA = (SignatureAlgorithmOID.ED25519, SignatureAlgorithmOID.ED448)


CheckUsage = Callable[[Policy, x509.Certificate, x509.ExtendedKeyUsage | None], None]


def _check_usage(purpose: x509.ObjectIdentifier, end: str) -> CheckUsage:
    def check(policy: Policy, certificate: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
        # RFC 5280 4.2.1.12: when the purposes are listed, that of this end of TLS must be among them.
        if usage is not None and not any(each in (purpose, _ANY_PURPOSE) for each in usage):
            raise ValueError(f"the certificate is not for TLS {end}")

    return check


def _check_constraints(policy: Policy, certificate: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    # RFC 5280 4.2.1.9.
    if not constraints.ca:
        raise ValueError("the issuer is not an authority")


def _check_signing(policy: Policy, certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    # RFC 5280 4.2.1.3.
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("the issuer may not sign certificates")


def _check_key(policy: Policy, certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    # RFC 8446 4.4.2.2: a key that makes signatures must be allowed to.
    if usage is not None and not usage.digital_signature:
        raise ValueError("the certificate's key may not sign")


# The profile of the public web (the verifier's default) refuses many private authorities: it wants key identifiers and
# a certain criticality of extensions. These policies ask for what keeps a path safe, as other TLS libraries do.
_END_ENTITY = ExtensionPolicy.permit_all().may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _check_key)
_AUTHORITY = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _check_constraints)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _check_signing)
)


def _policies(purpose: x509.ObjectIdentifier, end: str) -> dict[str, ExtensionPolicy]:
    check = _check_usage(purpose, end)
    return {
        # An authority can pass on only the purposes that it has, as all TLS libraries have it.
        "ca_policy": _AUTHORITY.may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, check),
        "ee_policy": _END_ENTITY.may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, check),
    }


_OF_CLIENTS = _policies(ExtendedKeyUsageOID.CLIENT_AUTH, "clients")
_OF_SERVERS = _policies(ExtendedKeyUsageOID.SERVER_AUTH, "servers")
_OF_SERVERS["ee_policy"] = _OF_SERVERS["ee_policy"].require_present(
    x509.SubjectAlternativeName, Criticality.AGNOSTIC, None
)


class TrustStore:
    """Trusted authorities, parsed once. Implements `Trust`."""

    def __init__(self, authorities: Sequence[x509.Certificate]) -> None:
        self._authorities = tuple(authorities)
        builder = verification.PolicyBuilder().store(verification.Store(list(self._authorities)))
        self._clients = builder.extension_policies(**_OF_CLIENTS)
        self._servers = builder.extension_policies(**_OF_SERVERS)

    @cached_property
    def subjects(self) -> tuple[bytes, ...]:
        return tuple(each.subject.public_bytes() for each in self._authorities)

    @cached_property
    def _parsed(self) -> tuple[Certificate, ...]:
        """The authorities for path.py. One that it cannot read is none for it."""
        return tuple(_each_parsed(each.public_bytes(Encoding.DER) for each in self._authorities))

    @classmethod
    def from_pem(cls, pem: bytes, source: str) -> TrustStore:
        """The certificates of a PEM file; `source` is what errors call it."""
        try:
            return cls(x509.load_pem_x509_certificates(pem))
        except ValueError:
            raise ConfigurationError(f"{source}: no certificates in PEM form") from None

    @classmethod
    def from_bundle(cls, pem: bytes) -> TrustStore | None:
        authorities = _load_each(pem)
        return cls(authorities) if authorities else None

    def validate(self, chain: Sequence[bytes], name: str | None, time: datetime) -> None:
        # RFC 5280 4.1.2.5: the period includes its last second, all of it.
        time = time.replace(microsecond=0)
        try:
            loaded = [x509.load_der_x509_certificate(der) for der in chain]
            if any(each.signature_algorithm_oid in _EDDSA for each in loaded):
                self._validate_here(chain, name, time)
            else:
                self._verify(loaded, name, time)
        except UNREADABLE:
            # The fields of a certificate are read when they are needed, not when it is loaded.
            raise CertificateError(Reason.BAD_CERTIFICATE) from None

    def check_status(self, response: bytes, chain: Sequence[bytes], time: datetime) -> bool:
        leaf, *others = (x509.load_der_x509_certificate(der) for der in chain)
        check_status(response, leaf, (*others, *self._authorities), time)
        return True

    def _verify(self, chain: Sequence[x509.Certificate], name: str | None, time: datetime) -> None:
        leaf, *others = chain
        verifier = self._verifier(name, time)
        _check_period(leaf, time)
        try:
            verifier.verify(leaf, others)
        except verification.VerificationError as error:
            refusal = _refusal(str(error), name)
            if refusal.reason is Reason.UNTRUSTED_CERTIFICATE:
                refusal = broken_signature(_each_parsed(each.public_bytes(Encoding.DER) for each in chain)) or refusal
            raise refusal from None

    def _verifier(self, name: str | None, time: datetime) -> verification.ClientVerifier | verification.ServerVerifier:
        if name is None:
            return self._clients.time(time).build_client_verifier()
        try:
            return self._servers.time(time).build_server_verifier(_subject(name))
        except ValueError:
            # A name that no certificate can be for, such as one with an underscore.
            raise CertificateError(Reason.WRONG_NAME, name) from None

    def _validate_here(self, chain: Sequence[bytes], name: str | None, time: datetime) -> None:
        parsed = [Certificate.parse(der) for der in chain]
        validate_path(parsed, self._parsed, CLIENT_AUTH if name is None else SERVER_AUTH, time, signed_by)
        if name is not None:
            check_name(parsed[0], name)


def _each_parsed(certificates: Iterable[bytes]) -> Iterator[Certificate]:
    for der in certificates:
        with contextlib.suppress(DerError):
            yield Certificate.parse(der)


def signed_by(issuer: Certificate, subject: Certificate) -> bool:
    """Whether the issuer's key made the subject's signature, with an algorithm that is good enough."""
    algorithm = SIGNATURE_ALGORITHMS.get(subject.algorithm)
    if algorithm is None or issuer.public_key.kind not in algorithm.kinds:
        return False
    try:
        by = x509.load_der_x509_certificate(issuer.der)
        if issuer.public_key.kind in RSA_KINDS and not schemes_of(by.public_key()):
            return False
        x509.load_der_x509_certificate(subject.der).verify_directly_issued_by(by)
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


def _refusal(detail: str, name: str | None) -> CertificateError:
    """The verifier tells its reasons in words only."""
    if name is not None and "subjectAltName" in detail:
        return CertificateError(Reason.WRONG_NAME, name)
    if "not valid at validation time" in detail:
        return CertificateError(Reason.CERTIFICATE_EXPIRED, "an issuer")
    if "no interior errors" in detail:
        # Nothing was wrong on the way: there was no way.
        return CertificateError(Reason.UNTRUSTED_CERTIFICATE, "its issuer is unknown here")
    return CertificateError(Reason.UNTRUSTED_CERTIFICATE, _first_line(detail))


def _load_each(bundle: bytes) -> list[x509.Certificate]:
    found = []
    with warnings.catch_warnings():
        # Bundles have roots whose serial numbers RFC 5280 forbids; their users can do nothing about it.
        warnings.simplefilter("ignore")
        for part in bundle.split(_PEM_BEGIN)[1:]:
            pem = _PEM_BEGIN + part.partition(_PEM_END)[0] + _PEM_END + b"\n"
            with contextlib.suppress(*UNREADABLE):
                found.append(x509.load_pem_x509_certificate(pem))
    return found


@lru_cache
def _subject(name: str) -> verification.Subject:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _check_period(certificate: x509.Certificate, time: datetime) -> None:
    if not certificate.not_valid_before_utc <= time <= certificate.not_valid_after_utc:
        raise CertificateError(
            Reason.CERTIFICATE_EXPIRED,
            f"valid from {certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}",
        )


def _first_line(detail: str) -> str:
    """What the verifier says, without the certificate that it appends."""
    return detail.partition(" (encountered processing")[0].removeprefix("validation failed: ")
