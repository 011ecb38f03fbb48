"""Certificate chains and private keys out of PEM, for the engine openssl."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from tcpls.errors import CertificateError, ConfigurationError
from tcpls.tls.config import Identity
from tcpls.tls.engines.openssl import UNREADABLE, OpenSSLSigner, certified_kind
from tcpls.tls.x509.algorithms import KeyKind


def identity_from_pem(
    chain_pem: bytes,
    key_pem: bytes,
    password: bytes | None = None,
    *,
    certificate: str = "certificate",
    private_key: str = "private key",
) -> Identity:
    """Implements `IdentityFromPem`."""
    try:
        chain = x509.load_pem_x509_certificates(chain_pem)
    except UNREADABLE:
        raise ConfigurationError(f"{certificate}: no certificate in PEM form") from None
    try:
        signer = _load_signer(key_pem, password, private_key, certified_kind(chain[0]))
        own = chain[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (CertificateError, *UNREADABLE):
        raise ConfigurationError(f"{certificate}: the certificate's key is of a kind that is not supported") from None
    if own != signer.public_key_info:
        raise ConfigurationError(f"{private_key}: this is not the key of the first certificate in {certificate}")
    return Identity(tuple(each.public_bytes(Encoding.DER) for each in chain), signer, _names(chain[0]))


def raw_identity_from_pem(key_pem: bytes, private_key: str) -> Identity:
    return Identity((), _load_signer(key_pem, None, private_key, None))


def _load_signer(pem: bytes, password: bytes | None, source: str, certified: KeyKind | None) -> OpenSSLSigner:
    try:
        key = load_pem_private_key(pem, password)
    except TypeError:
        wanted = "needs a password" if password is None else "has no password"
        raise ConfigurationError(f"{source}: the private key {wanted}") from None
    except UnsupportedAlgorithm:
        raise ConfigurationError(f"{source}: the private key is of a kind that is not supported") from None
    except ValueError:
        what = "no private key in PEM form" if password is None else "no private key, or the wrong password"
        raise ConfigurationError(f"{source}: {what}") from None
    try:
        return OpenSSLSigner(key, certified)
    except ConfigurationError as error:
        raise ConfigurationError(f"{source}: {error}") from None


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The names that SNI may ask for. Addresses are never asked for (RFC 6066 section 3)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *UNREADABLE):
        return ()
    return tuple(name.lower() for name in names.get_values_for_type(x509.DNSName))
