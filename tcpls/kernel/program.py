"""A program as a file, who vouches for it, and the local policy on programs that a peer offers.

Provenance comes before content: a digest or a signature is judged before any byte of the object is parsed, because the
kernel's verifier protects the kernel's memory from mistakes and not the machine from a hostile author.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tcpls.errors import ConfigurationError, HandshakeError, ProgramRefused
from tcpls.tls.algorithms import SignatureScheme
from tcpls.tls.x509.certificate import pem_blocks
from tcpls.tls.x509.der import DerError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

# `cryptography` is imported where a private key is used: a process of the engine minicrypto never has one.

# What this end can load: BPF bytecode of this byte order that implements this kernel interface.
ABI = "bpfel/tcp_congestion_ops"
MAX_SIZE = 128 * 1024
MAX_LIVE = 32
MAX_LOADS_PER_MINUTE = 120
_CONTEXT = b"TCPLS congestion controller signature, version 1\0"
_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,64}\Z")
_OBJECT_SUFFIXES = (".bpf.o", ".o")


class RawKey(Protocol):
    """An Ed25519 public key of any library."""

    def public_bytes_raw(self) -> bytes:
        """Its 32 bytes (RFC 8032 5.1.5)."""


@dataclass(frozen=True, slots=True)
class ProgramKey:
    """Who may sign programs: an Ed25519 public key as it stands in a file."""

    raw: bytes

    def public_bytes_raw(self) -> bytes:
        return self.raw


def key_id(key: RawKey) -> bytes:
    """The 8 bytes by which a signature names its key."""
    return hashlib.sha256(key.public_bytes_raw()).digest()[:8]


def signed_message(name: str, digest: bytes, size: int, abi: str) -> bytes:
    """What is signed: a context that no other protocol uses, and every field of the offer with its length."""
    fields = (name.encode(), digest, struct.pack(">I", size), abi.encode())
    return _CONTEXT + b"".join(struct.pack(">H", len(value)) + value for value in fields)


@dataclass(frozen=True, slots=True)
class Offer:
    """What an end says of a program before it sends any byte of it."""

    name: str
    digest: bytes
    size: int
    abi: str = ABI
    signature: bytes = b""
    key_id: bytes = b""


@dataclass(frozen=True, slots=True)
class ProgramFile:
    """A compiled program with what an offer says of it. `signature` and `key_id` are empty when it is not signed."""

    name: str
    image: bytes = field(repr=False)
    abi: str = ABI
    signature: bytes = b""
    key_id: bytes = b""

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise ConfigurationError(f"{self.name!r} is no name for a program: letters, digits, '_', '.', '+', '-'")

    @property
    def digest(self) -> bytes:
        """SHA-256 of the object."""
        return hashlib.sha256(self.image).digest()

    @property
    def size(self) -> int:
        return len(self.image)

    @property
    def offer(self) -> Offer:
        return Offer(self.name, self.digest, self.size, self.abi, self.signature, self.key_id)

    @classmethod
    def read(cls, path: str | Path, *, ignore_signature: bool = False) -> ProgramFile:
        """Reads an object, and the signature beside it (`FILE.sig`) if there is one."""
        path = Path(path)
        image = _read(path)
        name = next((path.name.removesuffix(end) for end in _OBJECT_SUFFIXES if path.name.endswith(end)), path.name)
        program = cls(name, image)
        sidecar = signature_path(path)
        return program._with_sidecar(sidecar) if sidecar.exists() and not ignore_signature else program

    def _with_sidecar(self, path: Path) -> ProgramFile:
        try:
            fields = json.loads(_read(path))
            digest = bytes.fromhex(fields["sha256"])
            signed = replace(
                self,
                name=str(fields["name"]),
                abi=str(fields["abi"]),
                signature=bytes.fromhex(fields["signature"]),
                key_id=bytes.fromhex(fields["key_id"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigurationError(f"{path}: not a signature of a program ({error})") from None
        if digest != self.digest:
            raise ConfigurationError(f"{path}: the signature is for another version of this program; sign it again")
        return signed

    def sign(self, key: Ed25519PrivateKey) -> ProgramFile:
        signature = key.sign(signed_message(self.name, self.digest, self.size, self.abi))
        return replace(self, signature=signature, key_id=key_id(key.public_key()))

    def sidecar(self) -> str:
        """The content of `FILE.sig`."""
        fields = {"name": self.name, "abi": self.abi, "sha256": self.digest.hex()}
        fields |= {"key_id": self.key_id.hex(), "signature": self.signature.hex()}
        return json.dumps(fields, indent=2) + "\n"


def signature_path(path: Path) -> Path:
    return path.with_name(path.name + ".sig")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    if len(content) > MAX_SIZE:
        raise ConfigurationError(f"{path}: larger than {MAX_SIZE} bytes")
    return content


def read_private_key(path: str | Path) -> Ed25519PrivateKey:
    """Reads an unencrypted PEM file with an Ed25519 private key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read(Path(path)), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path}: not a private key in PEM ({error})") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path}: not an Ed25519 key")
    return key


# The SubjectPublicKeyInfo of an Ed25519 key (RFC 8410 section 4), up to the 32 bytes of the key itself.
_INFO_PREFIX = bytes.fromhex("302a300506032b6570032100")


def read_public_key(path: str | Path) -> ProgramKey:
    """Reads a PEM file with an Ed25519 public key."""
    try:
        infos = pem_blocks(_read(Path(path)), b"PUBLIC KEY")
    except DerError as error:
        raise ConfigurationError(f"{path}: not a public key in PEM ({error})") from None
    if len(infos) != 1:
        raise ConfigurationError(f"{path}: not a public key in PEM")
    prefix, raw = infos[0][: len(_INFO_PREFIX)], infos[0][len(_INFO_PREFIX) :]
    if prefix != _INFO_PREFIX or len(raw) != 32:
        raise ConfigurationError(f"{path}: not an Ed25519 key")
    return ProgramKey(raw)


def private_pem(key: Ed25519PrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: Ed25519PublicKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class Mode(enum.StrEnum):
    """Whose programs are accepted."""

    OFF = "off"
    PINNED = "pinned"
    SIGNED = "signed"
    AUTHENTICATED = "authenticated"


@dataclass(frozen=True, slots=True)
class ProgramPolicy:
    """What this end does with programs that a peer offers. The default refuses all of them.

    `digests` (SHA-256) are for the mode "pinned", `keys` (raw Ed25519 public keys) for "signed"; "authenticated" takes
    any program that passes the static check from a peer whose identity the caller vouches for. `algorithms` are names
    that the helper may select besides those that the kernel lets everybody select.
    """

    mode: Mode = Mode.OFF
    digests: frozenset[bytes] = frozenset()
    keys: tuple[bytes, ...] = ()
    algorithms: frozenset[str] = frozenset()
    max_size: int = MAX_SIZE
    max_live: int = MAX_LIVE
    max_loads_per_minute: int = MAX_LOADS_PER_MINUTE

    def __post_init__(self) -> None:
        if any(len(digest) != 32 for digest in self.digests) or any(len(key) != 32 for key in self.keys):
            raise ConfigurationError("digests and public keys of a program policy have 32 bytes")
        if not 0 < self.max_size <= MAX_SIZE or not 0 < self.max_live <= MAX_LIVE:
            raise ConfigurationError(f"a program has at most {MAX_SIZE} bytes, and at most {MAX_LIVE} are live at once")

    @classmethod
    def pinned(cls, digests: Iterable[bytes]) -> ProgramPolicy:
        return cls(Mode.PINNED, digests=frozenset(digests))

    @classmethod
    def signed(cls, keys: Iterable[RawKey]) -> ProgramPolicy:
        return cls(Mode.SIGNED, keys=tuple(key.public_bytes_raw() for key in keys))

    def judge(self, offer: Offer, *, peer_authenticated: bool = False, engine: str = "openssl") -> None:
        """`judge_offer` for an offer in one piece."""
        self.judge_offer(
            offer.name,
            offer.digest,
            offer.size,
            offer.abi,
            offer.signature,
            offer.key_id,
            peer_authenticated=peer_authenticated,
            engine=engine,
        )

    def judge_offer(
        self,
        name: str,
        digest: bytes,
        size: int,
        abi: str,
        signature: bytes = b"",
        key_id: bytes = b"",
        *,
        peer_authenticated: bool = False,
        engine: str = "openssl",
    ) -> None:
        """Raises `ProgramRefused` unless policy wants this program. Needs no byte of it.

        `engine` is the cryptographic library that checks a signature.
        """
        if self.mode is Mode.OFF:
            raise ProgramRefused("this end accepts no programs", stage="policy")
        if abi != ABI:
            raise ProgramRefused(f"this end loads {ABI} only", stage="policy")
        if not _NAME.match(name) or len(digest) != 32:
            raise ProgramRefused("the offer has a malformed name or digest", stage="policy")
        if not 0 < size <= self.max_size:
            raise ProgramRefused(f"a program has at most {self.max_size} bytes here", stage="policy")
        if self.mode is Mode.PINNED and digest not in self.digests:
            raise ProgramRefused("its digest is not among those that this end accepts", stage="policy")
        if self.mode is Mode.AUTHENTICATED and not peer_authenticated:
            raise ProgramRefused("needs an authenticated peer", stage="policy")
        if self.mode is Mode.SIGNED:
            self._judge_signature(signed_message(name, digest, size, abi), signature, key_id, engine)

    def _judge_signature(self, message: bytes, signature: bytes, wanted: bytes, engine: str) -> None:
        if not signature:
            raise ProgramRefused("not signed", stage="signature")
        # Here, because the helper, which holds privileges, has no use for it under other policies.
        from tcpls.tls.engines.libraries import library

        for raw in self.keys:
            if key_id(ProgramKey(raw)) != wanted:
                continue
            try:
                key = library(engine).engine.raw_public_key(_INFO_PREFIX + raw)
                key.verify(SignatureScheme.ED25519, signature, message)
            except HandshakeError:
                raise ProgramRefused("the signature is wrong", stage="signature") from None
            return
        raise ProgramRefused("signed by a key that this end does not trust", stage="signature")

    def judge_image(self, image: bytes, digest: bytes, size: int) -> None:
        """Raises `ProgramRefused` unless these are the bytes that were offered."""
        if len(image) != size or hashlib.sha256(image).digest() != digest:
            raise ProgramRefused("what arrived is not what was offered", stage="digest")

    def to_json(self) -> dict[str, Any]:
        return {
            "mode": self.mode.value,
            "digests": sorted(digest.hex() for digest in self.digests),
            "keys": [key.hex() for key in self.keys],
            "algorithms": sorted(self.algorithms),
            "max_size": self.max_size,
            "max_live": self.max_live,
            "max_loads_per_minute": self.max_loads_per_minute,
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> ProgramPolicy:
        return cls(
            mode=Mode(fields["mode"]),
            digests=frozenset(bytes.fromhex(digest) for digest in fields["digests"]),
            keys=tuple(bytes.fromhex(key) for key in fields["keys"]),
            algorithms=frozenset(fields["algorithms"]),
            max_size=fields["max_size"],
            max_live=fields["max_live"],
            max_loads_per_minute=fields["max_loads_per_minute"],
        )
