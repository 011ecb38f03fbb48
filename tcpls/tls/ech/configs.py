"""ECHConfigList (RFC 9849 section 4), read and written side by side, and what of it a client can use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tcpls.tls.hpke import AeadId, HpkeSuite, Kdf, Kem
from tcpls.wire import Buffer, Reader, Writer

ECH_VERSION = 0xFE0D
"""RFC 9849 section 4: the version of a configuration is the code point of the extension."""

_MANDATORY = 0x8000
"""RFC 9849 4.2: the bit of an extension's type that makes it mandatory."""

KEMS: frozenset[int] = frozenset(Kem)
KDFS: frozenset[int] = frozenset(Kdf)
AEADS: frozenset[int] = frozenset(AeadId)

_MAX_NAME = 253

_LDH_LABEL = re.compile(rb"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_LIKE_A_NUMBER = re.compile(rb"[0-9]+|0[xX][0-9A-Fa-f]*")


@dataclass(frozen=True, slots=True)
class EchConfig:
    """One configuration: a key to encrypt to, and the name of the server that has it. `suites`: KDF and AEAD."""

    config_id: int
    kem: int
    public_key: bytes
    suites: tuple[tuple[int, int], ...]
    public_name: bytes
    maximum_name_length: int = 0
    extensions: tuple[tuple[int, bytes], ...] = ()

    @classmethod
    def read(cls, contents: Reader) -> EchConfig:
        """ECHConfigContents: what stands behind version and length."""
        config_id = contents.u8()
        kem = contents.u16()
        public_key = contents.opaque(2, least=1)
        listed = contents.vector(2, least=4)
        suites = []
        while listed.remaining:
            suites.append((listed.u16(), listed.u16()))
        maximum_name_length = contents.u8()
        public_name = contents.opaque(1, least=1)
        block = contents.vector(2)
        extensions = []
        while block.remaining:
            extensions.append((block.u16(), block.opaque(2)))
        contents.end()
        return cls(config_id, kem, public_key, tuple(suites), public_name, maximum_name_length, tuple(extensions))

    def write(self) -> bytes:
        """The whole ECHConfig, which HPKE's `info` has too (RFC 9849 6.1)."""
        writer = Writer()
        writer.u16(ECH_VERSION)
        with writer.vector(2):
            writer.u8(self.config_id)
            writer.u16(self.kem)
            writer.opaque(2, self.public_key)
            with writer.vector(2):
                for kdf, aead in self.suites:
                    writer.u16(kdf)
                    writer.u16(aead)
            writer.u8(self.maximum_name_length)
            writer.opaque(1, self.public_name)
            with writer.vector(2):
                for kind, contents in self.extensions:
                    writer.u16(kind)
                    writer.opaque(2, contents)
        return writer.bytes()

    @property
    def info(self) -> bytes:
        """RFC 9849 6.1: what binds an HPKE context to this configuration."""
        return b"tls ech\0" + self.write()

    @property
    def name(self) -> str:
        """The public name, for people: of what is no host name, nothing that a terminal would obey."""
        return self.public_name.decode("latin-1").encode("unicode_escape").decode("ascii")

    @property
    def hpke_suites(self) -> list[HpkeSuite]:
        """Those of the suites that are known here, in the configuration's order."""
        if self.kem not in KEMS:
            return []
        return [
            HpkeSuite(Kem(self.kem), Kdf(kdf), AeadId(aead))
            for kdf, aead in self.suites
            if kdf in KDFS and aead in AEADS
        ]

    @property
    def unusable(self) -> str:
        """Why a client ignores this configuration; "" if it can use it."""
        kinds = [kind for kind, _ in self.extensions]
        # RFC 9849 4.2: no extension of the same type twice; one that is mandatory must be known, and none is.
        if len(set(kinds)) != len(kinds):
            return "the same extension twice"
        for kind in kinds:
            if kind & _MANDATORY:
                return f"the mandatory extension {kind:#06x} is not known"
        if not is_public_name(self.public_name):
            return "the public name is not a host name"
        # RFC 9849 6.1: the KEM, and one of the suites.
        if self.kem not in KEMS:
            return f"the KEM {self.kem:#06x} is not known"
        if len(self.public_key) != Kem(self.kem).public_size:
            return "the public key is not one of its KEM"
        return "" if self.hpke_suites else "no suite of it is known"


def is_public_name(name: bytes) -> bool:
    """Whether this is a host name, and nothing that could be taken for an IPv4 address."""
    # RFC 9849 6.1.7: labels of letters, digits and hyphens, of which the last is no number.
    labels = name.split(b".")
    return (
        len(name) <= _MAX_NAME
        and all(_LDH_LABEL.fullmatch(label) for label in labels)
        and not _LIKE_A_NUMBER.fullmatch(labels[-1])
    )


def read_configs(contents: Buffer) -> tuple[EchConfig, ...]:
    """The configurations of an ECHConfigList that are of the version known here, usable or not.

    Raises `PeerError`, whose alert is always a decode_error (RFC 9849 6.1.6).
    """
    reader = Reader(contents)
    entries = reader.vector(2, least=4)
    reader.end()
    found = []
    while entries.remaining:
        version, body = entries.u16(), entries.vector(2)
        # RFC 9849 section 4: other versions are ignored, whatever is in them.
        if version == ECH_VERSION:
            found.append(EchConfig.read(body))
    return tuple(found)


def write_configs(configs: Iterable[EchConfig]) -> bytes:
    writer = Writer()
    with writer.vector(2):
        for config in configs:
            writer.put(config.write())
    return writer.bytes()


def choose_config(configs: Iterable[EchConfig]) -> tuple[EchConfig, HpkeSuite] | None:
    """The first configuration that is usable, and its first suite: the server's order is by its preference."""
    for config in configs:
        if not config.unusable:
            return config, config.hpke_suites[0]
    return None
