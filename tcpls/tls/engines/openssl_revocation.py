"""What an OCSP response says about a certificate, and whether it may say so (RFC 6960), over `cryptography`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from tcpls.errors import CertificateError, Reason
from tcpls.tls.engines.openssl import UNREADABLE, schemes_of
from tcpls.tls.x509.der import Der

SKEW = timedelta(minutes=5)
"""By which the responder's clock may be ahead."""

LONGEST = timedelta(days=7)
"""How long a response is believed that does not say when the next one comes."""


def check_status(response: bytes, leaf: x509.Certificate, issuers: Sequence[x509.Certificate], time: datetime) -> None:
    """Raises `CertificateError`: CERTIFICATE_REVOKED, or BAD_STATUS for a response that says nothing that counts.

    `issuers`: where to find the certificate that issued the leaf. `time`: aware of its zone.
    """
    try:
        loaded = ocsp.load_der_ocsp_response(response)
        issuer = _issuer(leaf, issuers)
        _check_signature(loaded, issuer, time)
        single = _about(loaded, leaf, issuer)
        _check_period(single, time)
        status = single.certificate_status
    except UNREADABLE:
        raise CertificateError(Reason.BAD_STATUS) from None
    if status is ocsp.OCSPCertStatus.REVOKED:
        raise CertificateError(Reason.CERTIFICATE_REVOKED)
    if status is not ocsp.OCSPCertStatus.GOOD:
        raise CertificateError(Reason.BAD_STATUS, "its responder does not know the certificate")


def _issuer(leaf: x509.Certificate, candidates: Sequence[x509.Certificate]) -> x509.Certificate:
    for candidate in candidates:
        if _issued(candidate, leaf):
            return candidate
    raise CertificateError(Reason.BAD_STATUS, "who issued the certificate is not known")


def _issued(issuer: x509.Certificate, subject: x509.Certificate) -> bool:
    try:
        if not _is_good(subject.signature_hash_algorithm):
            return False
        subject.verify_directly_issued_by(issuer)
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


def _is_good(algorithm: hashes.HashAlgorithm | None) -> bool:
    """Of a signature; None: it has none of its own. RFC 8446 4.2.3: those of TLS 1.3, and neither SHA-1 nor MD5."""
    return algorithm is None or isinstance(algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512)


def _about(response: ocsp.OCSPResponse, leaf: x509.Certificate, issuer: x509.Certificate) -> ocsp.OCSPSingleResponse:
    # RFC 6960 3.2: the certificate that the response is about is the one in question.
    for single in response.responses:
        algorithm = single.hash_algorithm
        if (
            single.serial_number == leaf.serial_number
            and single.issuer_name_hash == _digest(algorithm, leaf.issuer.public_bytes())
            and single.issuer_key_hash == _key_hash(algorithm, issuer)
        ):
            return single
    raise CertificateError(Reason.BAD_STATUS, "it is about another certificate")


def _digest(algorithm: hashes.HashAlgorithm, data: bytes) -> bytes:
    digest = hashes.Hash(algorithm)
    digest.update(data)
    return digest.finalize()


def _key_hash(algorithm: hashes.HashAlgorithm, certificate: x509.Certificate) -> bytes:
    """RFC 6960 4.1.1: of the key without its algorithm."""
    info = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    reader = Der(info).sub()
    reader.any()
    return _digest(algorithm, reader.bytes_of_bits())


def _check_period(single: ocsp.OCSPSingleResponse, time: datetime) -> None:
    # RFC 6960 3.2: recent enough, and newer information is not due.
    until = single.next_update_utc or single.this_update_utc + LONGEST
    if not single.this_update_utc - SKEW <= time < until:
        raise CertificateError(
            Reason.BAD_STATUS, f"it is for {single.this_update_utc:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M}"
        )


def _check_signature(response: ocsp.OCSPResponse, issuer: x509.Certificate, time: datetime) -> None:
    for signer in _signers(response, issuer, time):
        if _signed(response, signer):
            return
    raise CertificateError(Reason.BAD_STATUS, "its signature is of nobody who may say so")


def _signers(response: ocsp.OCSPResponse, issuer: x509.Certificate, time: datetime) -> Iterator[x509.Certificate]:
    """RFC 6960 4.2.2.2: the issuer itself, or whom it has certified for this."""
    yield issuer
    # One such certificate is what a responder has; no more are tried, because each costs two signatures.
    for delegate in response.certificates[:1]:
        in_time = delegate.not_valid_before_utc <= time <= delegate.not_valid_after_utc
        if in_time and _may_sign(delegate) and _issued(issuer, delegate):
            yield delegate


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return ExtendedKeyUsageOID.OCSP_SIGNING in usage


def _signed(response: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    key, algorithm = signer.public_key(), response.signature_hash_algorithm
    signature, data = response.signature, response.tbs_response_bytes
    # What TLS does not take for a handshake is not taken here either.
    if not schemes_of(key) or not _is_good(algorithm):
        return False
    try:
        if isinstance(key, rsa.RSAPublicKey) and algorithm is not None:
            key.verify(signature, data, padding.PKCS1v15(), algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm is not None:
            key.verify(signature, data, ec.ECDSA(algorithm))
        elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            key.verify(signature, data)
        else:
            return False
    except (InvalidSignature, *UNREADABLE):
        return False
    return True
