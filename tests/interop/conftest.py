"""Certificates in files, for the peers that want files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from tcpls.tls.config import Identity, ServerConfig
from tcpls.tls.engine import Trust
from tests.engine import LIBRARY
from tests.unit.tls.pair import KINDS, NAME, TIME, Pair, issue

PUBLIC_NAME = "public.example"
"""Of the server that everybody sees where Encrypted ClientHello hides the other name."""


@dataclass(frozen=True)
class Files:
    """One certificate chain and its key."""

    certificate: Path
    key: Path

    @property
    def identity(self) -> Identity:
        return LIBRARY.load_identity(self.certificate, self.key)


@dataclass(frozen=True)
class Pki:
    """An authority and certificates of it, by kind of key; and some that are to be refused."""

    authority: Path
    certificates: dict[str, Files]

    @property
    def trust(self) -> Trust:
        return LIBRARY.load_trust(self.authority)

    def server(self, kind: str = "p256") -> ServerConfig:
        """A server with the certificate of this kind."""
        return ServerConfig((self.certificates[kind].identity,))


def _write(directory: Path, name: str, pair: Pair) -> Files:
    files = Files(directory / f"{name}.pem", directory / f"{name}.key")
    files.certificate.write_bytes(pair.pem)
    files.key.write_bytes(pair.key_pem)
    return files


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    directory = tmp_path_factory.mktemp("pki")
    since = datetime.now(UTC) - TIME
    age = timedelta(days=1) - since
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    authority = issue(ca=True, names=(), subject="authority", age=age, extensions=((usage, True),))
    files = {kind: _write(directory, kind, issue(authority, kind=kind, age=age, subject=kind)) for kind in KINDS}
    old = timedelta(days=300) - since
    files["expired"] = _write(directory, "expired", issue(authority, age=old, subject="expired"))
    files["self-signed"] = _write(directory, "self-signed", issue(age=age, subject="alone"))
    stranger = issue(ca=True, names=(), subject="stranger", age=age)
    files["unknown-ca"] = _write(directory, "unknown-ca", issue(stranger, age=age, subject="unknown"))
    public = x509.DNSName(PUBLIC_NAME)
    files["public"] = _write(directory, "public", issue(authority, names=(public,), age=age, subject="public"))
    names = (x509.DNSName(NAME), public)
    files["both"] = _write(directory, "both", issue(authority, names=names, age=age, subject="both"))
    path = directory / "authority.pem"
    path.write_bytes(authority.pem)
    path.with_suffix(".key").write_bytes(authority.key_pem)
    return Pki(path, files)
