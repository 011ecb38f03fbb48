"""Certificate compression against tlslite-ng, both ends' certificates at once."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tcpls.tls.compression import CertificateCompression
from tcpls.tls.config import ClientConfig, Identity
from tests.interop.conftest import Pki
from tests.interop.peer import connect, free_port, listening, running
from tests.interop.test_auth_openssl import verifying
from tests.unit.tls.pair import NAME

PROGRAM = Path(__file__).parent / "tlslite_peer.py"
COMPRESSION = "certificate compression"
ALGORITHMS = pytest.mark.parametrize("algorithm", CertificateCompression, ids=lambda algorithm: algorithm.label)


def peer(role: str, port: int, pki: Pki, algorithm: CertificateCompression) -> tuple[str | Path, ...]:
    files = pki.certificates["rsa"]
    return sys.executable, PROGRAM, role, str(port), files.certificate, files.key, algorithm.label


def shown(pki: Pki) -> Identity:
    """With the authority's certificate, again and again: one alone hardly gets smaller, and goes out as it is then."""
    identity = pki.certificates["rsa"].identity
    (root,) = x509.load_pem_x509_certificates(pki.authority.read_bytes())
    return replace(identity, chain=(*identity.chain, *3 * (root.public_bytes(Encoding.DER),)))


@pytest.mark.feature(COMPRESSION, peer="tlslite-ng", role="client")
@ALGORITHMS
def test_client(pki: Pki, algorithm: CertificateCompression) -> None:
    identity, port = shown(pki), free_port()
    config = ClientConfig(NAME, pki.trust, compressions=(algorithm,), identities=(identity,))
    with running(*peer("server", port, pki, algorithm)) as process:
        process.wait_for("listening")
        with connect(port, config) as channel:
            assert channel.established.peer_certificates == identity.chain[:1]
            channel.echo()
        process.wait_for(f"server {algorithm.label} client {algorithm.label}")


@pytest.mark.feature(COMPRESSION, peer="tlslite-ng", role="server")
@ALGORITHMS
def test_server(pki: Pki, algorithm: CertificateCompression) -> None:
    identity = shown(pki)
    config = replace(verifying(pki), identities=(identity,), compressions=(algorithm,))
    with (
        listening() as listener,
        running(*peer("client", listener.port, pki, algorithm)) as process,
        listener.accept(config) as channel,
    ):
        assert channel.established.peer_certificates == identity.chain[:1]
        assert channel.receive_until(b"\n") == b"hello\n"
        channel.send(b"hello\n")
        process.wait_for(f"server {algorithm.label} client {algorithm.label}")
