"""Which of its certificates an end shows (RFC 8446 sections 4.4.2.2 and 4.4.2.3)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tcpls.tls.algorithms import SignatureScheme
from tcpls.tls.authentication import Chosen
from tcpls.tls.config import Identity
from tcpls.tls.extensions import Extensions, ExtensionType, read_authorities, read_code_points, require


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the peer says about the certificates that it can use. `authorities`: names in DER; empty: any."""

    schemes: Collection[int]
    authorities: Collection[bytes] = ()

    @classmethod
    def read(cls, extensions: Extensions) -> Wanted:
        """Of a CertificateRequest, where signature_algorithms must be there (RFC 8446 4.3.2)."""
        schemes = read_code_points(require(extensions, ExtensionType.SIGNATURE_ALGORITHMS))
        if ExtensionType.SIGNATURE_ALGORITHMS_CERT in extensions:
            read_code_points(extensions[ExtensionType.SIGNATURE_ALGORITHMS_CERT])
        authorities = extensions.get(ExtensionType.CERTIFICATE_AUTHORITIES)
        return cls(schemes, () if authorities is None else read_authorities(authorities))

    def scheme(self, identity: Identity) -> SignatureScheme | None:
        """The first of the identity's that the peer can verify."""
        return next((scheme for scheme in identity.signer.schemes if scheme in self.schemes), None)

    def trusts(self, identity: Identity) -> bool:
        """Whether one of the authorities has issued a certificate of the chain."""
        return not self.authorities or any(issuer in self.authorities for issuer in identity.issuers)


def choose_for_server(identities: Sequence[Identity], wanted: Wanted) -> Chosen | None:
    """The first identity that the server can verify and asks for; None: the client has no certificate for it."""
    for identity in identities:
        scheme = wanted.scheme(identity)
        # RFC 8446 4.4.2.3: issued by one of the authorities that the server lists.
        if scheme is not None and wanted.trusts(identity):
            return Chosen(identity, scheme)
    return None
