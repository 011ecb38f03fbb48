"""The extension encrypted_client_hello of a ClientHello, and ech_outer_extensions (RFC 9849 section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tcpls.errors import HandshakeError, Reason
from tcpls.tls.extensions import ExtensionType
from tcpls.tls.messages import HEADER_SIZE, ClientHello
from tcpls.wire import Buffer, Reader, Writer

_OUTER = 0

INNER = b"\x01"
"""The contents of the extension in a ClientHello that was encrypted."""


@dataclass(frozen=True, slots=True)
class OuterEch:
    """The extension of the ClientHello that everybody sees. `enc` is empty in the second one."""

    kdf: int
    aead: int
    config_id: int
    enc: bytes
    payload: bytes

    @classmethod
    def read(cls, contents: Buffer) -> OuterEch:
        reader = Reader(contents)
        # RFC 9849 section 7: any other type, and `inner` straight from the network, are an illegal_parameter.
        if (kind := reader.u8()) != _OUTER:
            raise HandshakeError(Reason.BAD_VALUE, f"encrypted_client_hello of type {kind}")
        kdf, aead = reader.u16(), reader.u16()
        config_id = reader.u8()
        enc, payload = reader.opaque(2), reader.opaque(2, least=1)
        reader.end()
        return cls(kdf, aead, config_id, enc, payload)

    def write(self) -> bytes:
        writer = Writer()
        writer.u8(_OUTER)
        writer.u16(self.kdf)
        writer.u16(self.aead)
        writer.u8(self.config_id)
        writer.opaque(2, self.enc)
        writer.opaque(2, self.payload)
        return writer.bytes()

    def put_into(self, outer: ClientHello) -> ClientHello:
        """The ClientHello with this extension where it has one."""
        return replace(outer, extensions={**outer.extensions, ExtensionType.ENCRYPTED_CLIENT_HELLO: self.write()})

    def associated_data(self, outer: ClientHello) -> bytes:
        """What the ciphertext is bound to."""
        # RFC 9849 5.2: the ClientHello without header, with zeros for the payload.
        return replace(self, payload=bytes(len(self.payload))).put_into(outer).write()[HEADER_SIZE:]


def read_outer_extensions(contents: Buffer) -> tuple[int, ...]:
    """The types of extensions that the outer ClientHello has too."""
    # RFC 9849 5.1: a list of 2 to 254 bytes.
    reader = Reader(contents)
    kinds = reader.u16s(1, least=2, most=254)
    reader.end()
    return kinds


def write_outer_extensions(kinds: Sequence[int]) -> bytes:
    writer = Writer()
    with writer.vector(1):
        for kind in kinds:
            writer.u16(kind)
    return writer.bytes()
