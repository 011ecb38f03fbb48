"""What both ends do with certificates (RFC 8446 section 4.4): show and prove their own, judge and check the other's."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tcpls.errors import CertificateError, HandshakeError, Reason
from tcpls.tls.algorithms import SignatureScheme
from tcpls.tls.compression import CertificateCompression, CompressedCertificate, compress
from tcpls.tls.config import Identity
from tcpls.tls.engine import CryptoEngine, PublicKey
from tcpls.tls.extensions import Extensions, ExtensionType
from tcpls.tls.flow import Flow, Peer
from tcpls.tls.messages import Certificate, CertificateVerify, HandshakeType, Message, signed_content
from tcpls.tls.ocsp import write_status
from tcpls.wire import Reader


@dataclass(frozen=True, slots=True)
class Chosen:
    """The identity that this end shows, the scheme that it signs with, and how its certificate is compressed.

    `status`: whether the peer asks for an OCSP response.
    """

    identity: Identity
    scheme: SignatureScheme
    compression: CertificateCompression | None = None
    status: bool = False

    def message(self, context: bytes) -> bytes:
        """The Certificate, or CompressedCertificate in its place."""
        extensions: Extensions = {}
        if self.status and self.identity.chain and self.identity.ocsp_response:
            # RFC 8446 4.4.2.1: with the certificate that it is about.
            extensions[ExtensionType.STATUS_REQUEST] = write_status(self.identity.ocsp_response)
        message = Certificate(context, self.identity.entries, extensions).write()
        return message if self.compression is None else compress(self.compression, message)


def show(flow: Flow, chosen: Chosen, context: bytes, *, by_client: bool) -> None:
    """Sends the certificate and CertificateVerify."""
    flow.send(chosen.message(context))
    content = signed_content(flow.transcript.digest(), by_client=by_client)
    flow.send(CertificateVerify(chosen.scheme, chosen.identity.signer.sign(chosen.scheme, content)).write())


def certificate_messages(asked: Extensions) -> Collection[int]:
    """The messages that a certificate may come in. `asked`: the extensions of what asks for it."""
    # RFC 8879 section 4: compressed only for an end that offers it.
    if ExtensionType.COMPRESS_CERTIFICATE in asked:
        return (HandshakeType.CERTIFICATE, HandshakeType.COMPRESSED_CERTIFICATE)
    return (HandshakeType.CERTIFICATE,)


def read_certificate(message: Message, asked: Extensions, compressions: Collection[int]) -> Certificate:
    """What came in one of them."""
    body = message.body()
    if message.kind == HandshakeType.COMPRESSED_CERTIFICATE:
        body = Reader(CompressedCertificate.read(body).expand(compressions))
    return Certificate.read(body, asked.keys())


def read_raw_key(certificate: Certificate, engine: CryptoEngine, known: Collection[bytes]) -> tuple[Peer, PublicKey]:
    """What a Certificate says that has a raw public key: the peer, which is known if it has that key, and the key."""
    # RFC 8446 4.4.2: no more than one entry.
    if len(certificate.chain) > 1:
        raise HandshakeError(Reason.BAD_VALUE, f"{len(certificate.chain)} raw public keys")
    info = certificate.chain[0]
    key = engine.raw_public_key(info)
    # RFC 7250 section 6: the binding of a key to a name is not the key's; these were agreed on before.
    if info not in known:
        raise CertificateError(Reason.UNKNOWN_KEY)
    return Peer(raw_key=info, verified=True), key


@dataclass(frozen=True, slots=True)
class Claim:
    """Who the peer says that it is, before it has proved that it has the key. `schemes`: that it may prove it with."""

    peer: Peer
    key: PublicKey
    schemes: Collection[SignatureScheme]

    def check(self, flow: Flow, message: Message, *, by_client: bool) -> SignatureScheme:
        """The scheme of the peer's CertificateVerify, whose signature is right."""
        verify = CertificateVerify.read(message.body())
        # RFC 8446 4.4.3: a scheme that was offered, and one that the certificate's key has.
        if verify.scheme not in self.schemes or verify.scheme not in self.key.schemes:
            raise HandshakeError(Reason.ILLEGAL_CHOICE, f"signature scheme {verify.scheme:#06x}")
        scheme = SignatureScheme(verify.scheme)
        content = signed_content(flow.transcript.digest(), by_client=by_client)
        self.key.verify(scheme, verify.signature, content)
        flow.transcript.add(message.raw)
        return scheme
