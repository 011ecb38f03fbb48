"""Encrypted ClientHello for sessions: from what a user sets to the TLS engine, and in words what became of it."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tcpls.aio.config import ClientConfig, ServerConfig
from tcpls.errors import ConfigurationError, EchRejected, PeerError
from tcpls.protocol.base import Role
from tcpls.tls.config import Identity
from tcpls.tls.ech.configs import EchConfig, choose_config, read_configs
from tcpls.tls.ech.keys import EchKeys, load_keys, read_file, read_private_key
from tcpls.tls.ech.status import EchStatus
from tcpls.tls.engine import CryptoEngine
from tcpls.tls.esni import EsniKey, EsniKeys
from tcpls.tls.x509.certificate import pem_blocks

logger = logging.getLogger("tcpls")


def client_configs(config: ClientConfig) -> tuple[EchConfig, ...]:
    """Raises `ConfigurationError` for what has no configuration: the name must not go out unencrypted then."""
    if not config.ech:
        return ()
    configs = read_file(config.ech, "the list for Encrypted ClientHello").configs
    if not configs:
        raise ConfigurationError("no configuration for Encrypted ClientHello is of a version that is known")
    return configs


def once_more(config: ClientConfig, rejected: EchRejected) -> ClientConfig | None:
    """What to connect with again after a rejection; None if that is not to be (RFC 9849 6.1.6)."""
    if not rejected.retry_configs:
        return None
    try:
        usable = choose_config(read_configs(rejected.retry_configs))
    except PeerError:
        return None
    return None if usable is None else replace(config, ech=rejected.retry_configs)


def _contents(paths: Iterable[str | Path]) -> list[tuple[bytes, str]]:
    found = []
    for path in paths:
        try:
            found.append((Path(path).read_bytes(), str(path)))
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}") from None
    return found


def server_keys(config: ServerConfig, engine: CryptoEngine, identities: Sequence[Identity]) -> EchKeys | None:
    """None without files. Warns of public names that this server cannot prove."""
    if not (config.ech_keys or config.ech_old_keys):
        return None
    keys = load_keys(engine, _contents(config.ech_keys), _contents(config.ech_old_keys), trial=config.ech_trial)
    for name in sorted({key.config.name for key in keys.keys}):
        if not any(identity.serves(name) for identity in identities):
            # RFC 9849 8.1.1: without it, nobody believes the new configurations.
            logger.warning("no certificate is for the public name %s: clients with old keys cannot get new ones", name)
    return keys


def _esni(engine: CryptoEngine, contents: bytes, source: str) -> EsniKeys:
    with suppress(binascii.Error):
        contents = base64.b64decode(b"".join(contents.split()), validate=True)
    try:
        return EsniKeys.read(engine, contents)
    except PeerError as error:
        raise ConfigurationError(f"{source}: no keys for Encrypted SNI: {error}") from None


def client_esni(config: ClientConfig, engine: CryptoEngine) -> EsniKeys | None:
    return _esni(engine, config.esni, "esni") if config.esni else None


def server_esni(config: ServerConfig, engine: CryptoEngine) -> tuple[EsniKey, ...]:
    found = []
    for names in config.esni_keys:
        (published, source), (private, private_source) = _contents(names)
        try:
            (der,) = pem_blocks(private, b"PRIVATE KEY")
            kem, key = read_private_key(der)
        except ValueError:
            raise ConfigurationError(f"{private_source}: no private key of X25519 or P-256 in PEM form") from None
        share = engine.static_share(kem.group, key)
        found.append(EsniKey.of(_esni(engine, published, source), (share,)))
    return tuple(found)


def describe(role: Role, status: EchStatus, retried: bool) -> str:
    """For people. `retried`: this is the second connection, with configurations that came from the server."""
    if role is Role.SERVER and status is EchStatus.REJECTED:
        return "not opened: for a key that is not here, or grease"
    if retried and status is EchStatus.ACCEPTED:
        return "accepted, with configurations that the server sent: the ones given are out of date"
    return status.value
