"""A client and a server in memory, with certificates made for the test run."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tcpls.errors import Alert, PeerError, Reason
from tcpls.tls.config import ClientConfig, Identity, ServerConfig
from tcpls.tls.connection import ClientConnection, Established, ServerConnection, TLSConnection
from tcpls.tls.engine import Trust
from tests.engine import ENGINE, LIBRARY

TIME = datetime(2026, 6, 1, tzinfo=UTC)
NAME = "server.example"

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

KINDS = ("p256", "p384", "p521", "rsa", "ed25519", "ed448")


def make_key(kind: str) -> Key:
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind[3:] or 2048))
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "ed448":
        return ed448.Ed448PrivateKey.generate()
    return ec.generate_private_key({"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}[kind])


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Key

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def identity(self, *chain: Pair) -> Identity:
        return LIBRARY.identity_from_pem(self.pem + b"".join(each.pem for each in chain), self.key_pem)


def issue(
    issuer: Pair | None = None,
    *,
    kind: str = "p256",
    names: tuple[x509.GeneralName, ...] = (x509.DNSName(NAME),),
    ca: bool | None = None,
    path_length: int | None = None,
    age: timedelta = timedelta(days=1),
    life: timedelta = timedelta(days=100),
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    subject: str = "subject",
) -> Pair:
    key = make_key(kind)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    builder = x509.CertificateBuilder().subject_name(name).public_key(key.public_key())
    builder = builder.issuer_name(issuer.certificate.subject if issuer else name)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(TIME - age).not_valid_after(TIME - age + life)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length), True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    signer = issuer.key if issuer else key
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()
    return Pair(builder.sign(signer, algorithm), key)


@cache
def authority() -> Pair:
    return issue(ca=True, names=(), subject="authority")


@cache
def leaf(kind: str = "p256") -> Pair:
    return issue(authority(), kind=kind)


@cache
def identity(kind: str = "p256") -> Identity:
    return leaf(kind).identity()


def trust_in(*authorities: Pair) -> Trust:
    return LIBRARY.trust_from_pem(b"".join(each.pem for each in authorities), "authorities")


@cache
def trust() -> Trust:
    return trust_in(authority())


class SecretLog(dict[str, bytes]):
    """A key log that keeps the secrets by their labels."""

    def secret(self, label: str, client_random: bytes, secret: bytes) -> None:
        self[label] = secret


def seeded(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


def client_config(**changes: Any) -> ClientConfig:
    return replace(ClientConfig(NAME, trust(), engine=ENGINE), **changes)


def server_config(**changes: Any) -> ServerConfig:
    return replace(ServerConfig((identity(),), engine=ENGINE), **changes)


def make_client(seed: int = 1, **changes: Any) -> ClientConnection:
    return ClientConnection(client_config(**changes), random=seeded(seed), time=TIME)


def make_server(seed: int = 2, **changes: Any) -> ServerConnection:
    return ServerConnection(server_config(**changes), random=seeded(seed))


def move(sender: TLSConnection, receiver: TLSConnection, chunk: int | None = None) -> bool:
    """Whether there was anything to move."""
    data = sender.data_to_send()
    step = chunk or max(1, len(data))
    for start in range(0, len(data), step):
        receiver.receive_data(data[start : start + step])
    return bool(data)


def shake(client: TLSConnection, server: TLSConnection, chunk: int | None = None) -> tuple[Established, Established]:
    while move(client, server, chunk) or move(server, client, chunk):
        pass
    return client.established(), server.established()


def refused(error: PeerError, reason: Reason, alert: Alert) -> None:
    assert (error.reason, error.alert) == (reason, alert), str(error)
