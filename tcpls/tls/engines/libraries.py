"""The engines by name. A library is imported when its engine is asked for, so that a process has no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from tcpls.errors import ConfigurationError
from tcpls.tls.config import Identity
from tcpls.tls.engine import CryptoEngine, Trust

ENGINE_NAMES = ("openssl", "minicrypto")


class LoadIdentity(Protocol):
    """A chain and its private key, out of PEM files. Raises `ConfigurationError`, which names the file."""

    def __call__(self, certificate: Path | str, private_key: Path | str, password: bytes | None = None) -> Identity: ...


class IdentityFromPem(Protocol):
    """As `LoadIdentity`, of PEM in memory. The last two arguments are what errors call the two."""

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
    """An engine, with what reads certificates and private keys for it."""

    engine: CryptoEngine
    load_identity: LoadIdentity
    identity_from_pem: IdentityFromPem
    load_raw_identity: Callable[[Path | str], Identity]
    """Of a private key's file: shown without a certificate (RFC 7250)."""
    load_trust: Callable[[Path | str], Trust]
    trust_from_pem: Callable[[bytes, str], Trust]
    """Of PEM in memory, and what errors call it."""
    system_trust: Callable[..., Trust]
    """The first argument, if any, is where to look for bundles."""


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
    from tcpls.tls.engines import openssl_trust as trust
    from tcpls.tls.engines.openssl import OPENSSL

    return Library(
        OPENSSL,
        credentials.load_identity,
        credentials.identity_from_pem,
        credentials.load_raw_identity,
        trust.load_trust,
        trust.TrustStore.from_pem,
        trust.system_trust,
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
        files.load_identity,
        files.identity_from_pem,
        files.load_raw_identity,
        files.load_trust,
        files.MiniTrustStore.from_pem,
        files.system_trust,
    )
