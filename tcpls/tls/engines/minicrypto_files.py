"""Trust and private keys for the engine minicrypto: the counterparts of openssl_trust.py and openssl_credentials.py."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from Crypto.Hash import SHA256, SHA384, SHA512
from Crypto.PublicKey import ECC, RSA
from Crypto.PublicKey.ECC import EccKey

from tcpls.errors import CertificateError, ConfigurationError, Reason
from tcpls.tls.config import Identity
from tcpls.tls.engines.minicrypto import (
    Key,
    MiniSigner,
    read_public_key,
    schemes_of,
    verify_ecdsa,
    verify_eddsa,
    verify_rsa,
)
from tcpls.tls.x509.algorithms import SIGNATURE_ALGORITHMS, KeyKind
from tcpls.tls.x509.certificate import Certificate, pem_blocks
from tcpls.tls.x509.der import DerError
from tcpls.tls.x509.extensions import CLIENT_AUTH, SERVER_AUTH
from tcpls.tls.x509.path import check_name, validate_path

_HASHES = {"sha256": SHA256, "sha384": SHA384, "sha512": SHA512}


def signed_by(issuer: Certificate, subject: Certificate) -> bool:
    """Whether the issuer's key made the subject's signature, with an algorithm that is good enough."""
    algorithm = SIGNATURE_ALGORITHMS.get(subject.algorithm)
    if algorithm is None or issuer.public_key.kind not in algorithm.kinds:
        return False
    try:
        key = read_public_key(issuer.public_key)
    except ValueError:
        return False
    signature, data = subject.signature, subject.signed
    if isinstance(key, RSA.RsaKey):
        hash_of = _HASHES[algorithm.hash_name or ""]
        return bool(schemes_of(key)) and verify_rsa(key, hash_of, signature, data, is_pss=algorithm.is_pss)
    if key is None:
        return False
    if algorithm.hash_name is None:
        return verify_eddsa(key, signature, data)
    return verify_ecdsa(key, _HASHES[algorithm.hash_name], signature, data)


class MiniTrustStore:
    """Trusted authorities, parsed once. Implements `Trust`."""

    def __init__(self, authorities: Sequence[Certificate]) -> None:
        self._authorities = tuple(authorities)

    @classmethod
    def from_pem(cls, pem: bytes, source: str) -> MiniTrustStore:
        """The certificates of a PEM file; `source` is what errors call it."""
        return cls(_certificates(pem, source, "no certificates"))

    @classmethod
    def from_bundle(cls, pem: bytes) -> MiniTrustStore | None:
        authorities = _each(pem)
        return cls(authorities) if authorities else None

    @property
    def subjects(self) -> tuple[bytes, ...]:
        return tuple(each.subject for each in self._authorities)

    def validate(self, chain: Sequence[bytes], name: str | None, time: datetime) -> None:
        try:
            parsed = [Certificate.parse(der) for der in chain]
        except DerError as error:
            raise CertificateError(Reason.BAD_CERTIFICATE, str(error)) from None
        validate_path(parsed, self._authorities, CLIENT_AUTH if name is None else SERVER_AUTH, time, signed_by)
        if name is not None:
            check_name(parsed[0], name)

    def check_status(self, response: bytes, chain: Sequence[bytes], time: datetime) -> bool:
        """OCSP responses are not validated by this engine."""
        return False


def _certificates(pem: bytes, source: str, none: str) -> list[Certificate]:
    try:
        found = [Certificate.parse(der) for der in pem_blocks(pem, b"CERTIFICATE")]
    except DerError as error:
        raise ConfigurationError(f"{source}: a certificate that is not well formed ({error})") from None
    if not found:
        raise ConfigurationError(f"{source}: {none} in PEM form")
    return found


def _each(bundle: bytes) -> list[Certificate]:
    found = []
    for part in re.findall(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", bundle, re.DOTALL):
        try:
            found += [Certificate.parse(der) for der in pem_blocks(part, b"CERTIFICATE")]
        except DerError:
            continue
    return found


def identity_from_pem(
    chain_pem: bytes,
    key_pem: bytes,
    password: bytes | None = None,
    *,
    certificate: str = "certificate",
    private_key: str = "private key",
) -> Identity:
    """Implements `IdentityFromPem`."""
    chain = _certificates(chain_pem, certificate, "no certificate")
    signer = _load_signer(key_pem, password, private_key, chain[0].public_key.kind)
    try:
        key = read_public_key(chain[0].public_key)
    except ValueError:
        key = None
    if key is None:
        raise ConfigurationError(f"{certificate}: the certificate's key is of a kind that is not supported")
    if not signer.belongs_to(key):
        raise ConfigurationError(f"{private_key}: this is not the key of the first certificate in {certificate}")
    return Identity(tuple(each.der for each in chain), signer, chain[0].extensions.names)


def raw_identity_from_pem(key_pem: bytes, private_key: str) -> Identity:
    return Identity((), _load_signer(key_pem, None, private_key, None))


_KEY = re.compile(rb"-----BEGIN ((?:[A-Z]+ )?PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)


def _load_signer(pem: bytes, password: bytes | None, source: str, certified: KeyKind | None) -> MiniSigner:
    block = _KEY.search(pem)
    if block is None:
        raise ConfigurationError(f"{source}: no private key in PEM form")
    locked = block[1] == b"ENCRYPTED PRIVATE KEY" or b"Proc-Type: 4,ENCRYPTED" in block[0]
    if locked is not (password is not None):
        raise ConfigurationError(f"{source}: the private key {'needs a password' if locked else 'has no password'}")
    key = _import(block[0].decode("ascii", errors="replace"), password)
    if key is None or not key.has_private():
        what = "no private key in PEM form" if password is None else "no private key, or the wrong password"
        raise ConfigurationError(f"{source}: {what}")
    try:
        return MiniSigner(key, certified)
    except ConfigurationError as error:
        raise ConfigurationError(f"{source}: {error}") from None


def _import(pem: str, password: bytes | None) -> Key | None:
    passphrase = None if password is None else password.decode("utf-8", errors="surrogateescape")
    for read in (RSA.import_key, ECC.import_key):
        try:
            key: RSA.RsaKey | EccKey = read(pem, passphrase)
        except (ValueError, IndexError, TypeError):
            continue
        return key
    return None
