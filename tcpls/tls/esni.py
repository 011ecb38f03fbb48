"""Encrypted SNI (draft-ietf-tls-esni-02 and -03), which Encrypted ClientHello has replaced: for peers of before 2022.

Only the server's name is encrypted, and whoever asks a server can tell whether it knows this. The whole of it is here,
behind the interfaces of `ech`; what it hides is not hidden any more when a server has lost its keys, for the client
fails then and has to ask without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hmac import compare_digest

from tcpls.errors import ConfigurationError, HandshakeError, PeerError, Reason
from tcpls.tls.algorithms import Group
from tcpls.tls.ech.client import NoEch
from tcpls.tls.ech.server import Heard
from tcpls.tls.ech.server import NoEch as NoServerEch
from tcpls.tls.ech.status import EchStatus
from tcpls.tls.engine import CryptoEngine, PrivateShare
from tcpls.tls.extensions import Extensions, ExtensionType, read_server_name, require, write_server_name
from tcpls.tls.key_schedule import expand_label
from tcpls.tls.messages import ClientHello, Message
from tcpls.tls.suites import IV_SIZE, SUITE_BY_CODE, TAG_SIZE, CipherSuite, Random, TrafficKeys
from tcpls.wire import Buffer, Reader, Writer

DRAFT_02, DRAFT_03 = 0xFF01, 0xFF02

_ESNI = ExtensionType.ENCRYPTED_SERVER_NAME
_NONCE_SIZE = 16
_ACCEPT = b"\0"
_CHECKSUM = slice(2, 6)


@dataclass(frozen=True, slots=True)
class EsniKeys:
    """ESNIKeys (draft-03 section 4.1): `keys` by group, seconds since 1970. `raw`: as it is published."""

    version: int
    public_name: str
    keys: tuple[tuple[int, bytes], ...]
    suites: tuple[int, ...]
    padded_length: int
    not_before: int
    not_after: int
    raw: bytes = field(repr=False)

    @classmethod
    def read(cls, engine: CryptoEngine, raw: bytes) -> EsniKeys:
        """Raises `PeerError`."""
        reader = Reader(raw)
        version, checksum = reader.u16(), reader.take(4)
        if version not in (DRAFT_02, DRAFT_03):
            raise PeerError(Reason.BAD_VALUE, f"version {version:#06x}")
        # Draft-02 section 4.1: SHA-256 of the whole, with zeros where it stands.
        digest = engine.hash("sha256")
        digest.update(raw[:2] + bytes(4) + raw[6:])
        if digest.digest()[:4] != checksum:
            raise PeerError(Reason.BAD_VALUE, "checksum")
        # Draft-03 section 4.1: draft-02 has no public name.
        public_name = reader.opaque(2) if version == DRAFT_03 else b""
        entries = reader.vector(2, least=4)
        keys = []
        while entries.remaining:
            keys.append((entries.u16(), entries.opaque(2, least=1)))
        suites = reader.u16s(2, least=2)
        padded_length, not_before, not_after = reader.u16(), reader.u64(), reader.u64()
        reader.opaque(2)
        reader.end()
        if not public_name.isascii():
            raise PeerError(Reason.BAD_VALUE, "public name")
        return cls(version, public_name.decode("ascii"), tuple(keys), suites, padded_length, not_before, not_after, raw)

    def digest(self, engine: CryptoEngine, suite: CipherSuite) -> bytes:
        """By which a client names these keys."""
        digest = engine.hash(suite.hash_name)
        digest.update(self.raw)
        return digest.digest()

    def choose(self, engine: CryptoEngine) -> tuple[CipherSuite, Group, bytes]:
        """What a client uses of them. Raises `ConfigurationError`."""
        suite = next((SUITE_BY_CODE[code] for code in self.suites if code in SUITE_BY_CODE), None)
        for code, public in self.keys:
            if suite is not None and code in (Group.X25519, Group.SECP256R1):
                return suite, Group(code), public
        raise ConfigurationError("the keys for Encrypted SNI are of no kind that is known here")


def write_keys(
    engine: CryptoEngine,
    shares: Sequence[PrivateShare],
    validity: tuple[int, int],
    *,
    public_name: str = "",
    version: int = DRAFT_03,
    suites: Sequence[CipherSuite] = tuple(CipherSuite),
    padded_length: int = 260,
) -> bytes:
    """New ESNIKeys of the public halves of `shares`; `validity` in seconds since 1970."""
    writer = Writer()
    writer.u16(version)
    writer.put(bytes(4))
    if version == DRAFT_03:
        writer.opaque(2, public_name.encode("ascii"))
    with writer.vector(2):
        for share in shares:
            writer.u16(share.group)
            writer.opaque(2, share.public)
    with writer.vector(2):
        for suite in suites:
            writer.u16(suite.code)
    writer.u16(padded_length)
    for time in validity:
        writer.u64(time)
    writer.opaque(2, b"")
    raw = bytearray(writer.bytes())
    digest = engine.hash("sha256")
    digest.update(raw)
    raw[_CHECKSUM] = digest.digest()[:4]
    return bytes(raw)


@dataclass(frozen=True, slots=True)
class EsniKey:
    """What a server opens with: its keys, and the private halves of them by group."""

    keys: EsniKeys
    private: dict[int, PrivateShare] = field(repr=False)

    @classmethod
    def of(cls, keys: EsniKeys, shares: Sequence[PrivateShare]) -> EsniKey:
        """Raises `ConfigurationError` for a private key of other public keys."""
        for share in shares:
            if (int(share.group), share.public) not in keys.keys:
                raise ConfigurationError(
                    f"a private key of {share.group.label} is of none of the keys for Encrypted SNI"
                )
        return cls(keys, {int(share.group): share for share in shares})


@dataclass(frozen=True, slots=True)
class EncryptedSni:
    """ClientEncryptedSNI (draft-02 section 5.1)."""

    suite: CipherSuite
    group: int
    public: bytes
    record_digest: bytes
    sealed: bytes

    @classmethod
    def read(cls, contents: Buffer) -> EncryptedSni:
        reader = Reader(contents)
        code = reader.u16()
        group, public = reader.u16(), reader.opaque(2, least=1)
        record_digest, sealed = reader.opaque(2), reader.opaque(2, least=TAG_SIZE)
        reader.end()
        suite = SUITE_BY_CODE.get(code)
        if suite is None:
            raise HandshakeError(Reason.ILLEGAL_CHOICE, f"encrypted_server_name: suite {code:#06x}")
        return cls(suite, group, public, record_digest, sealed)

    def write(self) -> bytes:
        writer = Writer()
        writer.u16(self.suite.code)
        writer.u16(self.group)
        writer.opaque(2, self.public)
        writer.opaque(2, self.record_digest)
        writer.opaque(2, self.sealed)
        return writer.bytes()

    def keys(self, engine: CryptoEngine, shared: bytes, client_random: bytes) -> TrafficKeys:
        """Draft-02 section 5.1: bound to the published keys, the client's share and its random."""
        contents = Writer()
        contents.opaque(2, self.record_digest)
        contents.u16(self.group)
        contents.opaque(2, self.public)
        contents.put(client_random)
        digest = engine.hash(self.suite.hash_name)
        digest.update(contents.bytes())
        secret, hashed = engine.hmacs[self.suite.hash_name](b"", shared), digest.digest()
        return TrafficKeys(
            self.suite,
            expand_label(engine, self.suite, secret, b"esni key", hashed, self.suite.key_size),
            expand_label(engine, self.suite, secret, b"esni iv", hashed, IV_SIZE),
        )


class EsniClient(NoEch):
    """A client's: the name goes out encrypted, and the server must show that it has read it."""

    status = EchStatus.ESNI

    def __init__(self, engine: CryptoEngine, keys: EsniKeys, name: str | None, random: Random, now: float) -> None:
        if name is None:
            raise ConfigurationError("there is no server name to encrypt")
        if not keys.not_before <= now <= keys.not_after:
            raise ConfigurationError("the keys for Encrypted SNI are not valid now")
        self._engine, self._keys, self._name, self._random = engine, keys, name, random
        if len(write_server_name(name)) > keys.padded_length:
            raise ConfigurationError("the server name is longer than the keys for Encrypted SNI allow")
        self._suite, self._group, self._public = keys.choose(engine)
        self._nonce = random(_NONCE_SIZE)

    def prepare(self, hello: ClientHello) -> ClientHello:
        extensions = dict(hello.extensions)
        extensions.pop(ExtensionType.SERVER_NAME, None)
        psks = extensions.pop(ExtensionType.PRE_SHARED_KEY, None)
        if self._keys.public_name:
            extensions[ExtensionType.SERVER_NAME] = write_server_name(self._keys.public_name)
        # A second ClientHello has another key share, which is authenticated too: a new key, so that no nonce is used
        # twice under the old one.
        extensions[_ESNI] = self._seal(hello.random, extensions[ExtensionType.KEY_SHARE])
        if psks is not None:
            extensions[ExtensionType.PRE_SHARED_KEY] = psks
        return replace(hello, extensions=extensions)

    def _seal(self, client_random: bytes, key_share: bytes) -> bytes:
        engine = self._engine
        share = engine.private_share(self._group, self._random)
        record_digest = self._keys.digest(engine, self._suite)
        sni = EncryptedSni(self._suite, self._group, share.public, record_digest, b"")
        keys = sni.keys(engine, share.exchange(self._public), client_random)
        # Draft-02 section 5.1: padded, so that its length does not tell the name.
        padded = write_server_name(self._name).ljust(self._keys.padded_length, b"\0")
        sealed = bytearray(_NONCE_SIZE + len(padded) + TAG_SIZE)
        engine.aead(keys).encrypt_into(keys.iv, self._nonce + padded, key_share, sealed)
        return replace(sni, sealed=bytes(sealed)).write()

    def told(self, extensions: Extensions) -> None:
        answer = extensions.get(_ESNI, b"")
        expected = self._nonce if self._keys.version == DRAFT_02 else _ACCEPT + self._nonce
        # Draft-02 section 5.1.1: without the nonce, it is not the server that has the keys.
        if not compare_digest(answer, expected):
            raise HandshakeError(Reason.ILLEGAL_CHOICE, "encrypted_server_name was not accepted")


class EsniServer(NoServerEch):
    """A server's, once it has read the name."""

    status = EchStatus.ESNI

    def __init__(self, engine: CryptoEngine, keys: Sequence[EsniKey], name: str, answer: bytes) -> None:
        self._engine, self._keys, self._name, self._answer = engine, keys, name, answer

    @property
    def extensions(self) -> Extensions:
        return {_ESNI: self._answer}

    def second(self, message: Message) -> Heard:
        hello = ClientHello.read(message.body())
        require(hello.extensions, _ESNI)
        heard = hear_esni(self._engine, self._keys, message, hello)
        if heard is None or heard.server_name != self._name or not isinstance(heard.ech, EsniServer):
            raise HandshakeError(Reason.CHANGED_HELLO, "encrypted_server_name")
        self._answer = heard.ech._answer
        return heard


def hear_esni(engine: CryptoEngine, keys: Sequence[EsniKey], message: Message, hello: ClientHello) -> Heard | None:
    """The name that a ClientHello hides; None where it hides none, or this server has no keys at all."""
    contents = hello.extensions.get(_ESNI)
    if contents is None or not keys:
        return None
    sni = EncryptedSni.read(contents)
    # Draft-02 section 5.2: keys that are not this server's, or a share of another group, are an illegal_parameter.
    key = next((each for each in keys if each.keys.digest(engine, sni.suite) == sni.record_digest), None)
    private = None if key is None else key.private.get(sni.group)
    if key is None or private is None or sni.suite.code not in key.keys.suites:
        raise HandshakeError(Reason.ILLEGAL_CHOICE, "encrypted_server_name: unknown keys")
    traffic = sni.keys(engine, private.exchange(sni.public), hello.random)
    opened = bytearray(len(sni.sealed) - TAG_SIZE)
    try:
        engine.aead(traffic).decrypt_into(
            traffic.iv, sni.sealed, require(hello.extensions, ExtensionType.KEY_SHARE), opened
        )
    except engine.invalid_tag:
        raise HandshakeError(Reason.ECH_NOT_OPENED, "encrypted_server_name") from None
    reader = Reader(opened)
    nonce = reader.take(_NONCE_SIZE)
    listed = reader.opaque(2, least=1)
    if len(opened) != _NONCE_SIZE + key.keys.padded_length or reader.rest().strip(b"\0"):
        raise HandshakeError(Reason.BAD_INNER_HELLO, "padding of encrypted_server_name")
    name = read_server_name(len(listed).to_bytes(2, "big") + listed)
    if name is None:
        raise HandshakeError(Reason.BAD_INNER_HELLO, "no host name in encrypted_server_name")
    answer = nonce if key.keys.version == DRAFT_02 else _ACCEPT + nonce
    return Heard(message, hello, EsniServer(engine, keys, name, answer), name)
