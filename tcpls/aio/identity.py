"""Who each end is: from a user's files to the TLS engine's identities, and in words what is known of the peer."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tcpls.errors import CertificateError, ConfigurationError
from tcpls.tls.config import ClientAuth, Identity
from tcpls.tls.connection import Established
from tcpls.tls.engines.libraries import Library
from tcpls.tls.ocsp import check_form
from tcpls.tls.x509.certificate import Certificate, common_name, pem_blocks, public_key_of
from tcpls.tls.x509.der import DerError

if TYPE_CHECKING:
    from tcpls.aio.config import CommonConfig, ServerConfig


@dataclass(frozen=True, kw_only=True)
class Credential:
    """PEM files: a certificate's chain, leaf first, and its private key.

    Without a certificate the key is shown as it is (RFC 7250), to whoever takes that. `ocsp_response` is a DER file
    that goes along with the certificate to whoever asks for it; it is read once.
    """

    private_key: str | Path
    certificate: str | Path | None = None
    ocsp_response: str | Path | None = None


def credentials_of(config: CommonConfig) -> Iterator[Credential]:
    """All that a configuration names. Raises `ConfigurationError` for a certificate without a key, or a key alone."""
    if config.certificate is not None and config.private_key is not None:
        yield Credential(certificate=config.certificate, private_key=config.private_key)
    elif config.certificate is not None or config.private_key is not None:
        raise ConfigurationError("a certificate and its private key go together")
    yield from config.credentials


def load_identities(config: CommonConfig, library: Library) -> tuple[Identity, ...]:
    """Raises `ConfigurationError`, which names the file."""
    return tuple(_load(each, library) for each in credentials_of(config))


def _load(credential: Credential, library: Library) -> Identity:
    if credential.certificate is None:
        return library.load_raw_identity(credential.private_key)
    identity = library.load_identity(credential.certificate, credential.private_key)
    if credential.ocsp_response is None:
        return identity
    try:
        response = Path(credential.ocsp_response).read_bytes()
        check_form(response)
    except OSError as error:
        raise ConfigurationError(f"{credential.ocsp_response}: {error.strerror}") from None
    except CertificateError as error:
        raise ConfigurationError(f"{credential.ocsp_response}: not an OCSP response in DER: {error.detail}") from None
    return replace(identity, ocsp_response=response)


def load_public_keys(path: str | Path | None) -> tuple[bytes, ...]:
    """The SubjectPublicKeyInfos of a PEM file with public keys. Raises `ConfigurationError`, which names it."""
    if path is None:
        return ()
    try:
        found = tuple(pem_blocks(Path(path).read_bytes(), b"PUBLIC KEY"))
        usable = bool(found) and all(public_key_of(info).kind is not None for info in found)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    except DerError:
        usable = False
    if not usable:
        raise ConfigurationError(f"{path}: no public keys in PEM form, or not of a kind that is supported")
    return found


def server_identities(config: ServerConfig, library: Library) -> tuple[Identity, ...]:
    identities = load_identities(config, library)
    if not identities and not config.psks:
        raise ConfigurationError("a server needs a certificate and its private key, or a pre-shared key")
    return identities


def check_client_authentication(config: ServerConfig) -> None:
    """Raises `ConfigurationError` unless it is said which clients are known, exactly when they are asked."""
    told = config.client_ca_file is not None or config.client_keys is not None
    if (config.client_auth is ClientAuth.NONE) is told:
        raise ConfigurationError("client authentication needs the clients' authorities or keys, and nothing else does")


def fingerprint(config: CommonConfig) -> bytes:
    """What tells the identities of one configuration from those of another; nothing secret is in it."""
    # Of a key without a certificate, its file's name: a digest of a private key is nothing to keep.
    return b"".join(
        hashlib.sha256(
            os.fsencode(each.private_key) if each.certificate is None else Path(each.certificate).read_bytes()
        ).digest()
        for each in credentials_of(config)
    )


def describe_peer(established: Established, psk: str) -> str:
    """Who the peer is and whether that was verified; "" for a client that nobody knows. `psk`: the key's name."""
    said = "verified" if established.verified else "not verified"
    if established.ocsp_verified:
        said += ", not revoked (OCSP)"
    if established.peer_certificates:
        leaf = established.peer_certificates[0]
        return f"{_subject(leaf)}, certificate {hashlib.sha256(leaf).hexdigest()}, {said}"
    if established.peer_raw_key:
        return f"raw public key {hashlib.sha256(established.peer_raw_key).hexdigest()}, {said}"
    if psk:
        return f"whoever has the pre-shared key {psk!r}"
    if established.resumed and established.verified:
        # A client's ticket holds the name that the server has proved, and not what it was proved with.
        return f"{established.server_name}, as in the session that is resumed, {said}"
    return ""


def _subject(certificate: bytes) -> str:
    """The names of a certificate, or else its common name, which says nothing to TLS."""
    try:
        parsed = Certificate.parse(certificate)
        names = (*parsed.extensions.names, *map(str, parsed.extensions.addresses))
        text = " ".join(name if name.isprintable() else repr(name) for name in names) or common_name(parsed.subject)
    except DerError:
        text = ""
    return text or "no name"
