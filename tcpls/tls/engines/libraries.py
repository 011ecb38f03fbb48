"""The engines by name. A library is imported when its engine is asked for, so that a process has no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from tcpls.errors import ConfigurationError
from tcpls.tls.config import Identity
from tcpls.tls.engine import CryptoEngine, Trust

ENGINE_NAMES = ("openssl", "minicrypto")

SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where Debian, Fedora, SUSE and Alpine keep the authorities that they trust."""


class IdentityFromPem(Protocol):
    """A chain, this end's own certificate first, and its private key; the last two arguments are what errors call them.

    Raises `ConfigurationError`.
    """

    def __call__(
        self,
        chain_pem: bytes,
        key_pem: bytes,
        password: bytes | None = None,
        *,
        certificate: str = "certificate",
        private_key: str = "private key",
    ) -> Identity: ...


@dataclass(frozen=True, slots=True)
class Library:
    """An engine, with what reads certificates and private keys for it. All of that raises `ConfigurationError`."""

    engine: CryptoEngine
    identity_from_pem: IdentityFromPem
    raw_identity_from_pem: Callable[[bytes, str], Identity]
    """Of a private key, which is shown without a certificate (RFC 7250), and what errors call it."""
    trust_from_pem: Callable[[bytes, str], Trust]
    """The authorities in PEM, and what errors call them."""
    trust_from_bundle: Callable[[bytes], Trust | None]
    """Of PEM too, without those that do not parse; None when nothing is left."""

    def load_identity(self, certificate: Path | str, private_key: Path | str) -> Identity:
        """As `identity_from_pem`, of files, and a key without a password."""
        chain, key = _read(certificate), _read(private_key)
        return self.identity_from_pem(chain, key, certificate=str(certificate), private_key=str(private_key))

    def load_raw_identity(self, private_key: Path | str) -> Identity:
        """As `raw_identity_from_pem`, of a file."""
        return self.raw_identity_from_pem(_read(private_key), str(private_key))

    def load_trust(self, path: Path | str) -> Trust:
        """The authorities of a PEM file."""
        return self.trust_from_pem(_read(path), str(path))

    def system_trust(self, bundles: Iterable[Path | str] = SYSTEM_BUNDLES) -> Trust:
        """The machine's authorities, out of the first bundle that exists and has any."""
        for path in map(Path, bundles):
            if path.is_file() and (trust := self.trust_from_bundle(path.read_bytes())) is not None:
                return trust
        raise ConfigurationError("this machine has no bundle of certificate authorities; name one with a CA file")


def _read(path: Path | str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None


@cache
def library(name: str) -> Library:
    """Raises `ConfigurationError` for an unknown name, and when the engine's package is not installed."""
    if name == "openssl":
        return _openssl()
    if name == "minicrypto":
        return _minicrypto()
    raise ConfigurationError(f"{name!r} is no engine: {', '.join(ENGINE_NAMES)}")


def _openssl() -> Library:
    from tcpls.tls.engines import openssl_credentials as credentials
    from tcpls.tls.engines.openssl import OPENSSL
    from tcpls.tls.engines.openssl_trust import TrustStore

    return Library(
        OPENSSL,
        credentials.identity_from_pem,
        credentials.raw_identity_from_pem,
        TrustStore.from_pem,
        TrustStore.from_bundle,
    )


def _minicrypto() -> Library:
    try:
        from tcpls.tls.engines import minicrypto_files as files
        from tcpls.tls.engines.minicrypto import MINICRYPTO
    except ImportError as error:
        raise ConfigurationError(
            f"the engine minicrypto needs pycryptodome: pip install 'tcpls[minicrypto]' ({error})"
        ) from None
    return Library(
        MINICRYPTO,
        files.identity_from_pem,
        files.raw_identity_from_pem,
        files.MiniTrustStore.from_pem,
        files.MiniTrustStore.from_bundle,
    )
