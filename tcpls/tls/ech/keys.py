"""Configurations and private keys in files (RFC 9934), and new ones."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tcpls.errors import ConfigurationError, PeerError
from tcpls.tls.ech.configs import EchConfig, is_public_name, read_configs, write_configs
from tcpls.tls.engine import CryptoEngine, PrivateShare
from tcpls.tls.hpke import AeadId, Kdf, Kem
from tcpls.tls.suites import Random
from tcpls.tls.x509.certificate import pem_blocks
from tcpls.tls.x509.der import OCTET_STRING, Der, DerError

MAX_KEYS = 64
"""Keys of one server. With trial decryption, each costs a key exchange per ClientHello."""

MAX_RETRY = 1 << 14
"""Bytes of configurations that clients are told: EncryptedExtensions is one message, and holds more than them."""

DEFAULT_SUITES = ((Kdf.HKDF_SHA256, AeadId.AES_128_GCM), (Kdf.HKDF_SHA256, AeadId.CHACHA20_POLY1305))

# RFC 9849 11.3: the types that are reserved for what clients have to ignore, 0x0000 left out.
_RESERVED = tuple(0x1010 * number + 0x0A0A for number in range(1, 8))


@dataclass(frozen=True, slots=True)
class EchKey:
    """A configuration and its private key."""

    config: EchConfig
    private: PrivateShare = field(repr=False)


@dataclass(frozen=True, slots=True)
class EchKeys:
    """What a server opens with. `retry`: what it tells clients that used something else (RFC 9849 section 7.1).

    `trial`: tries every key instead of those with the id that the client names, for clients that hide it (10.4).
    """

    keys: tuple[EchKey, ...]
    retry: tuple[EchConfig, ...]
    trial: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.keys) <= MAX_KEYS:
            raise ConfigurationError(f"a server has 1 to {MAX_KEYS} keys for Encrypted ClientHello")
        # RFC 9849 7.1: a server with keys must be able to say what clients are to use.
        if not self.retry:
            raise ConfigurationError("at least one key for Encrypted ClientHello must be current")
        if sum(len(config.write()) for config in self.retry) > MAX_RETRY:
            raise ConfigurationError(f"clients are told at most {MAX_RETRY} bytes of ECH configurations")


@dataclass(frozen=True, slots=True)
class EchFile:
    """A file as it was read. `private`: the private key as HPKE has it (RFC 9180 7.1.2), or None."""

    configs: tuple[EchConfig, ...]
    private: bytes | None = field(default=None, repr=False)
    kem: Kem | None = None

    def keys(self, engine: CryptoEngine, source: str) -> tuple[EchKey, ...]:
        """One per configuration of the private key's. Raises `ConfigurationError`, which names `source`."""
        if self.private is None or self.kem is None:
            raise ConfigurationError(f"{source}: no private key")
        try:
            share = engine.static_share(self.kem.group, self.private)
        except ConfigurationError as error:
            raise ConfigurationError(f"{source}: {error}") from None
        mine = tuple(
            EchKey(config, share)
            for config in self.configs
            if config.kem == self.kem and config.public_key == share.public
        )
        # RFC 9934 section 3: one of the configurations must match the private key.
        if not mine:
            raise ConfigurationError(f"{source}: the private key is of none of the configurations")
        return mine


def read_file(contents: bytes, source: str) -> EchFile:
    """A PEM file, an ECHConfigList in base64 or as it is. Raises `ConfigurationError`, which names `source`."""
    try:
        lists, privates = pem_blocks(contents, b"ECHCONFIG"), pem_blocks(contents, b"PRIVATE KEY")
        # RFC 9934 section 3: one list, and one private key or none.
        if len(lists) > 1 or len(privates) > 1:
            raise ConfigurationError(f"{source}: more than one list of configurations, or private key")
        configs = read_configs(lists[0] if lists else _without_pem(contents))
        kem, private = read_private_key(privates[0]) if privates else (None, None)
    except PeerError as error:
        raise ConfigurationError(f"{source}: no list of ECH configurations: {error}") from None
    except DerError as error:
        raise ConfigurationError(f"{source}: not readable: {error}") from None
    return EchFile(configs, private, kem)


def _without_pem(contents: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(contents.split()), validate=True)
    except binascii.Error:
        return contents


def load_keys(
    engine: CryptoEngine, current: Iterable[tuple[bytes, str]], old: Iterable[tuple[bytes, str]] = (), *, trial: bool
) -> EchKeys:
    """Of files: their contents, and what errors call them. Clients are told the configurations of `current`."""
    keys: list[EchKey] = []
    retry: list[EchConfig] = []
    for contents, source in current:
        file = read_file(contents, source)
        keys += file.keys(engine, source)
        retry += file.configs
    for contents, source in old:
        keys += read_file(contents, source).keys(engine, source)
    return EchKeys(tuple(keys), tuple(dict.fromkeys(retry)), trial)


def generate(
    engine: CryptoEngine,
    random: Random,
    public_name: str,
    *,
    kem: Kem = Kem.X25519_HKDF_SHA256,
    suites: Sequence[tuple[int, int]] = DEFAULT_SUITES,
    config_id: int | None = None,
    maximum_name_length: int = 0,
) -> EchFile:
    """A new private key and its configuration. `config_id` None: a random one. Raises `ConfigurationError`."""
    name = public_name.encode("ascii", "replace")
    if not is_public_name(name):
        raise ConfigurationError(f"{public_name!r} is not a host name")
    if not (0 <= maximum_name_length <= 255 and (config_id is None or 0 <= config_id <= 255)):
        raise ConfigurationError("an id and a length of names are 0 to 255")
    private, share = _new_key(engine, kem, random)
    chosen, grease = random(2)
    config = EchConfig(
        chosen if config_id is None else config_id,
        kem,
        share.public,
        tuple(suites),
        name,
        maximum_name_length,
        # RFC 9849 6.2.2: something that clients have to ignore, so that they learn to.
        ((_RESERVED[grease % len(_RESERVED)], b""),),
    )
    return EchFile((config,), private, kem)


def _new_key(engine: CryptoEngine, kem: Kem, random: Random) -> tuple[bytes, PrivateShare]:
    while True:
        private = random(32)
        try:
            return private, engine.static_share(kem.group, private)
        except ConfigurationError:
            # Not below the order of P-256: one number in 2^32.
            continue


# PKCS #8 (RFC 5958) of the two kinds of keys (RFC 8410 section 7, RFC 5915), up to the 32 bytes of the key itself.
_PREFIX = {
    Kem.X25519_HKDF_SHA256: bytes.fromhex("302e020100300506032b656e04220420"),
    Kem.P256_HKDF_SHA256: bytes.fromhex("3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420"),
}
_X25519 = ("1.3.101.110", None)
_P256 = ("1.2.840.10045.2.1", "1.2.840.10045.3.1.7")


def read_private_key(der: bytes) -> tuple[Kem, bytes]:
    """PKCS #8. Raises `DerError`."""
    outer = Der(der)
    key = outer.sub()
    outer.end()
    # RFC 5958 section 2: version 2, whose number is 1, has the public key too, which is not needed.
    if key.integer() not in (0, 1):
        raise DerError("a private key of an unknown version")
    algorithm = key.sub()
    kind = (algorithm.oid(), None if algorithm.tag is None else algorithm.oid())
    contents = Der(key.take(OCTET_STRING))
    if kind == _X25519:
        kem, private = Kem.X25519_HKDF_SHA256, contents.take(OCTET_STRING)
    elif kind == _P256:
        inner = contents.sub()
        inner.integer()
        kem, private = Kem.P256_HKDF_SHA256, inner.take(OCTET_STRING)
    else:
        raise DerError("a private key that is neither of X25519 nor of P-256")
    if len(private) != 32:
        raise DerError("a private key that has not 32 bytes")
    return kem, private


def write_pem(file: EchFile) -> str:
    """RFC 9934 section 3: the private key, if there is one, then the configurations."""
    parts = []
    if file.private is not None and file.kem is not None:
        parts.append(_armour("PRIVATE KEY", _PREFIX[file.kem] + file.private))
    if file.configs:
        parts.append(_armour("ECHCONFIG", write_configs(file.configs)))
    return "".join(parts)


def _armour(label: str, contents: bytes) -> str:
    text = base64.b64encode(contents).decode("ascii")
    # RFC 7468 section 2: lines of 64 characters.
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""))
