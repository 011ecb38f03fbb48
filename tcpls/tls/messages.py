"""The handshake messages of TLS 1.3 (RFC 8446 section 4), read and write side by side."""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass, field

from tcpls.errors import HandshakeError, Reason
from tcpls.tls.extensions import (
    Extensions,
    ExtensionType,
    Place,
    check_places,
    read_alpn,
    read_authorities,
    read_extensions,
    read_server_name,
    write_code_points,
    write_extensions,
)
from tcpls.wire import Buffer, Reader, Writer

TLS_1_2 = 0x0303
"""`legacy_version` of both hellos."""

RANDOM_SIZE = 32

RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
"""`ServerHello.random` of a HelloRetryRequest (RFC 8446 4.1.3)."""

HEADER_SIZE = 4

MAX_MESSAGE = 0xFFFF
"""Bytes in the body of one message: room for every chain in use, and the bound that rustls and others have too."""

MAX_CLIENT_HELLO = 2 + 32 + 33 + 0x1_0000 + 0x100 + 0x1_0001
"""Bytes in the body of the longest ClientHello that RFC 8446 4.1.2 can write, which OpenSSL accepts as well."""


class HandshakeType(enum.IntEnum):
    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    NEW_SESSION_TICKET = 4
    END_OF_EARLY_DATA = 5
    ENCRYPTED_EXTENSIONS = 8
    CERTIFICATE = 11
    CERTIFICATE_REQUEST = 13
    CERTIFICATE_VERIFY = 15
    FINISHED = 20
    KEY_UPDATE = 24
    COMPRESSED_CERTIFICATE = 25


@dataclass(frozen=True, slots=True)
class Message:
    """One message as received: `raw` has its header and goes into the transcript."""

    kind: int
    raw: bytes

    def body(self) -> Reader:
        return Reader(self.raw, HEADER_SIZE)


def frame(kind: HandshakeType, body: bytes) -> bytes:
    """A message with its header."""
    return bytes((kind,)) + len(body).to_bytes(3, "big") + body


class Reassembly:
    """Cuts a stream of handshake bytes into messages. Holds at most one incomplete message, of a bounded size."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def pending(self) -> bool:
        """Whether bytes are held that are not a whole message yet."""
        return bool(self._data)

    def feed(self, data: Buffer) -> None:
        self._data += data

    def next(self, accepts: Collection[int]) -> Message | None:
        """The next whole message. Refuses one that is too long, or of a type not in `accepts`, by its header alone."""
        data = self._data
        if not data:
            return None
        kind = data[0]
        if kind not in accepts:
            raise HandshakeError(Reason.UNEXPECTED_MESSAGE, f"type {kind}")
        if len(data) < HEADER_SIZE:
            return None
        size = int.from_bytes(data[1:HEADER_SIZE], "big")
        # RFC 8446 6.2: a length out of range is a decode_error, and most messages end far below this bound.
        if size > MAX_MESSAGE and (kind != HandshakeType.CLIENT_HELLO or size > MAX_CLIENT_HELLO):
            raise HandshakeError(Reason.BAD_LENGTH, f"a message of {size} bytes")
        end = HEADER_SIZE + size
        if len(data) < end:
            return None
        raw = bytes(data[:end])
        del data[:end]
        return Message(kind, raw)


@dataclass(frozen=True, slots=True)
class ClientHello:
    """`suites` and `extensions` hold unknown code points too. `server_name` and `alpn` are read from the extensions."""

    random: bytes
    session_id: bytes
    suites: tuple[int, ...]
    extensions: Extensions
    legacy_version: int = TLS_1_2
    compression: bytes = b"\0"

    @property
    def server_name(self) -> str | None:
        contents = self.extensions.get(ExtensionType.SERVER_NAME)
        return None if contents is None else read_server_name(contents)

    @property
    def alpn(self) -> tuple[bytes, ...]:
        contents = self.extensions.get(ExtensionType.ALPN)
        return () if contents is None else tuple(read_alpn(contents))

    @classmethod
    def read(cls, reader: Reader) -> ClientHello:
        hello = cls.read_part(reader)
        reader.end()
        return hello

    @classmethod
    def read_part(cls, reader: Reader) -> ClientHello:
        """As `read`, of a ClientHello that other bytes may follow."""
        legacy_version = reader.u16()
        random = reader.take(RANDOM_SIZE)
        session_id = reader.opaque(1, most=32)
        suites = reader.u16s(2, least=2)
        compression = reader.opaque(1, least=1)
        # RFC 8446 4.1.2: clients of earlier versions may have no extensions at all.
        extensions = read_extensions(reader) if reader.remaining else {}
        return cls(random, session_id, suites, extensions, legacy_version, compression)

    def write(self) -> bytes:
        writer = Writer()
        writer.u16(self.legacy_version)
        writer.put(self.random)
        writer.opaque(1, self.session_id)
        writer.put(write_code_points(self.suites))
        writer.opaque(1, self.compression)
        write_extensions(writer, self.extensions.items())
        return frame(HandshakeType.CLIENT_HELLO, writer.bytes())


@dataclass(frozen=True, slots=True)
class ServerHello:
    """ServerHello, and HelloRetryRequest, which has its form."""

    random: bytes
    session_id: bytes
    suite: int
    extensions: Extensions
    legacy_version: int = TLS_1_2
    compression: int = 0

    @property
    def is_retry(self) -> bool:
        return self.random == RETRY_RANDOM

    @classmethod
    def read(cls, reader: Reader) -> ServerHello:
        """The extensions' places are the caller's to check, because in an older version's message they are others."""
        legacy_version = reader.u16()
        random = reader.take(RANDOM_SIZE)
        session_id = reader.opaque(1, most=32)
        suite = reader.u16()
        compression = reader.u8()
        extensions = read_extensions(reader) if reader.remaining else {}
        reader.end()
        return cls(random, session_id, suite, extensions, legacy_version, compression)

    def write(self) -> bytes:
        writer = Writer()
        writer.u16(self.legacy_version)
        writer.put(self.random)
        writer.opaque(1, self.session_id)
        writer.u16(self.suite)
        writer.u8(self.compression)
        write_extensions(writer, self.extensions.items())
        return frame(HandshakeType.SERVER_HELLO, writer.bytes())


@dataclass(frozen=True, slots=True)
class EncryptedExtensions:
    extensions: Extensions

    @classmethod
    def read(cls, reader: Reader, offered: Collection[int]) -> EncryptedExtensions:
        extensions = read_extensions(reader)
        reader.end()
        check_places(extensions, Place.ENCRYPTED, offered)
        return cls(extensions)

    def write(self) -> bytes:
        writer = Writer()
        write_extensions(writer, self.extensions.items())
        return frame(HandshakeType.ENCRYPTED_EXTENSIONS, writer.bytes())


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    context: bytes
    extensions: Extensions

    @classmethod
    def read(cls, reader: Reader) -> CertificateRequest:
        context = reader.opaque(1)
        extensions = read_extensions(reader)
        reader.end()
        check_places(extensions, Place.REQUEST)
        if ExtensionType.CERTIFICATE_AUTHORITIES in extensions:
            read_authorities(extensions[ExtensionType.CERTIFICATE_AUTHORITIES])
        return cls(context, extensions)

    def write(self) -> bytes:
        writer = Writer()
        writer.opaque(1, self.context)
        write_extensions(writer, self.extensions.items())
        return frame(HandshakeType.CERTIFICATE_REQUEST, writer.bytes())


@dataclass(frozen=True, slots=True)
class Certificate:
    """`chain`: DER certificates, the end entity's first. `extensions`: of the end entity alone."""

    context: bytes
    chain: tuple[bytes, ...]
    extensions: Extensions = field(default_factory=dict)

    @classmethod
    def read(cls, reader: Reader, offered: Collection[int]) -> Certificate:
        """Extensions of the entries must be among the `offered`."""
        context = reader.opaque(1)
        entries = reader.vector(3)
        reader.end()
        chain: list[bytes] = []
        first: Extensions = {}
        while entries.remaining:
            chain.append(entries.opaque(3, least=1))
            extensions = read_extensions(entries)
            check_places(extensions, Place.CERTIFICATE, offered)
            first = extensions if len(chain) == 1 else first
        return cls(context, tuple(chain), first)

    def write(self) -> bytes:
        writer = Writer()
        writer.opaque(1, self.context)
        with writer.vector(3):
            for number, certificate in enumerate(self.chain):
                writer.opaque(3, certificate)
                write_extensions(writer, () if number else self.extensions.items())
        return frame(HandshakeType.CERTIFICATE, writer.bytes())


@dataclass(frozen=True, slots=True)
class CertificateVerify:
    scheme: int
    signature: bytes

    @classmethod
    def read(cls, reader: Reader) -> CertificateVerify:
        scheme = reader.u16()
        signature = reader.opaque(2)
        reader.end()
        return cls(scheme, signature)

    def write(self) -> bytes:
        writer = Writer()
        writer.u16(self.scheme)
        writer.opaque(2, self.signature)
        return frame(HandshakeType.CERTIFICATE_VERIFY, writer.bytes())


def signed_content(transcript_hash: bytes, *, by_client: bool = False) -> bytes:
    """What a CertificateVerify signs (RFC 8446 4.4.3)."""
    end = b"client" if by_client else b"server"
    return b" " * 64 + b"TLS 1.3, " + end + b" CertificateVerify\0" + transcript_hash


@dataclass(frozen=True, slots=True)
class Finished:
    verify_data: bytes = field(repr=False)

    @classmethod
    def read(cls, reader: Reader, size: int) -> Finished:
        """`size`: of the suite's hash."""
        # RFC 8446 4.4.4: verify_data is one hash long. 6.2: a message of another length is a decode_error.
        verify_data = reader.take(size)
        reader.end()
        return cls(verify_data)

    def write(self) -> bytes:
        return frame(HandshakeType.FINISHED, self.verify_data)


@dataclass(frozen=True, slots=True)
class EndOfEarlyData:
    @classmethod
    def read(cls, reader: Reader) -> EndOfEarlyData:
        # RFC 8446 4.5: it is empty.
        reader.end()
        return cls()

    def write(self) -> bytes:
        return frame(HandshakeType.END_OF_EARLY_DATA, b"")


@dataclass(frozen=True, slots=True)
class NewSessionTicket:
    lifetime: int
    age_add: int = field(repr=False)
    nonce: bytes = field(repr=False)
    ticket: bytes = field(repr=False)
    extensions: Extensions

    @property
    def max_early_data(self) -> int:
        """Bytes of 0-RTT data that the ticket allows (RFC 8446 4.2.10)."""
        contents = self.extensions.get(ExtensionType.EARLY_DATA)
        return 0 if contents is None else int.from_bytes(contents, "big")

    @classmethod
    def read(cls, reader: Reader) -> NewSessionTicket:
        lifetime = reader.u32()
        age_add = reader.u32()
        nonce = reader.opaque(1)
        ticket = reader.opaque(2, least=1)
        extensions = read_extensions(reader)
        reader.end()
        # RFC 8446 4.6.1: unknown extensions of a ticket are ignored.
        check_places(extensions, Place.TICKET)
        # RFC 8446 4.2.10: in a ticket the extension is a number of 32 bits.
        if len(extensions.get(ExtensionType.EARLY_DATA, bytes(4))) != 4:
            raise HandshakeError(Reason.BAD_LENGTH, "early_data")
        return cls(lifetime, age_add, nonce, ticket, extensions)

    def write(self) -> bytes:
        writer = Writer()
        writer.u32(self.lifetime)
        writer.u32(self.age_add)
        writer.opaque(1, self.nonce)
        writer.opaque(2, self.ticket)
        write_extensions(writer, self.extensions.items())
        return frame(HandshakeType.NEW_SESSION_TICKET, writer.bytes())


@dataclass(frozen=True, slots=True)
class KeyUpdate:
    """`request`: the receiver is to update its sending keys too."""

    request: bool

    @classmethod
    def read(cls, reader: Reader) -> KeyUpdate:
        value = reader.u8()
        reader.end()
        # RFC 8446 4.6.3: any other value is an illegal_parameter.
        if value > 1:
            raise HandshakeError(Reason.BAD_KEY_UPDATE, f"value {value}")
        return cls(bool(value))

    def write(self) -> bytes:
        return frame(HandshakeType.KEY_UPDATE, bytes((self.request,)))
