"""What both ends do with certificates (RFC 8446 section 4.4): show and prove their own, judge and check the other's."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tcpls.errors import HandshakeError, Reason
from tcpls.tls.algorithms import SignatureScheme
from tcpls.tls.config import Identity
from tcpls.tls.engine import PublicKey
from tcpls.tls.flow import Flow, Peer
from tcpls.tls.messages import Certificate, CertificateVerify, Message, signed_content


@dataclass(frozen=True, slots=True)
class Chosen:
    """The identity that this end shows, and the scheme that it signs with."""

    identity: Identity
    scheme: SignatureScheme


def show(flow: Flow, chosen: Chosen, context: bytes, *, by_client: bool) -> None:
    """Sends Certificate and CertificateVerify."""
    flow.send(Certificate(context, chosen.identity.chain).write())
    content = signed_content(flow.transcript.digest(), by_client=by_client)
    flow.send(CertificateVerify(chosen.scheme, chosen.identity.signer.sign(chosen.scheme, content)).write())


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
