"""What the files of a client's configuration hold: whom it trusts, and who it is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tcpls.aio.identity import fingerprint, load_identities, load_public_keys
from tcpls.errors import CertificateError, ConfigurationError, Reason
from tcpls.tls.config import Identity
from tcpls.tls.engine import Trust
from tcpls.tls.engines import libraries

if TYPE_CHECKING:
    from tcpls.aio.config import ClientConfig


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """`trust` None: any certificate will do, or none. `digests` tell who is trusted and shown, without any secret."""

    trust: Trust | None = field(repr=False)
    server_keys: tuple[bytes, ...]
    identities: tuple[Identity, ...] = field(repr=False)
    digests: Digests
    _of: tuple[object, ...] = field(repr=False)

    @classmethod
    def read(cls, config: ClientConfig) -> ClientFiles:
        """Raises `ConfigurationError`, which names the file. Blocks."""
        library = libraries.library(config.engine)
        return cls(
            trust=_trust(config, library),
            server_keys=load_public_keys(config.server_keys),
            identities=load_identities(config, library),
            digests=Digests.of(config),
            _of=_named(config),
        )

    @classmethod
    def of(cls, config: ClientConfig) -> ClientFiles:
        """Those that the configuration has with it, unless it names others by now; else read."""
        had = config.files
        return had if had is not None and had._of == _named(config) else cls.read(config)


@dataclass(frozen=True, slots=True)
class Digests:
    """Of the authorities, of the server's keys, and of what this client shows; b"" where there is none."""

    authorities: bytes
    server_keys: bytes
    shown: bytes

    @classmethod
    def of(cls, config: ClientConfig) -> Digests:
        return cls(_digest(config.ca_file), _digest(config.server_keys), fingerprint(config))


def _digest(path: str | Path | None) -> bytes:
    return b"" if path is None else hashlib.sha256(Path(path).read_bytes()).digest()


def _named(config: ClientConfig) -> tuple[object, ...]:
    """All that decides what is read."""
    return (
        config.engine,
        config.verify,
        config.ca_file,
        config.server_keys,
        config.certificate,
        config.private_key,
        config.credentials,
        bool(config.psks),
    )


class _TrustsNobody:
    """For a client of a pre-shared key, on a machine without any authorities."""

    subjects: tuple[bytes, ...] = ()

    def validate(self, chain: Sequence[bytes], name: str | None, time: datetime) -> None:
        raise CertificateError(Reason.UNTRUSTED_CERTIFICATE, "there are no authorities here")

    def check_status(self, response: bytes, chain: Sequence[bytes], time: datetime) -> bool:
        return False


def _trust(config: ClientConfig, library: libraries.Library) -> Trust | None:
    if not config.verify:
        if config.server_keys is not None:
            raise ConfigurationError("a server whose key is expected is verified by it")
        return None
    if config.server_keys is not None and config.ca_file is None:
        return None
    if config.ca_file is not None:
        return library.load_trust(config.ca_file)
    try:
        return library.system_trust()
    except ConfigurationError:
        if config.psks:
            return _TrustsNobody()
        raise
