"""Which of its certificates an end shows, and how (RFC 8446 sections 4.4.2.2 and 4.4.2.3)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tcpls.errors import HandshakeError, Reason
from tcpls.tls.algorithms import CertificateType, SignatureScheme
from tcpls.tls.authentication import Chosen
from tcpls.tls.compression import CertificateCompression, read_compressions
from tcpls.tls.config import ClientConfig, Identity, ServerConfig
from tcpls.tls.extensions import (
    Extensions,
    ExtensionType,
    read_authorities,
    read_certificate_types,
    read_code_points,
    require,
)
from tcpls.tls.ocsp import read_status_request
from tcpls.tls.oid_filters import read_purposes


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the peer says about the certificates that it can use. `authorities`: names in DER; empty: any.

    `schemes` are for the signature over the handshake, `certificate_schemes` for those of the chain. `types`: in the
    peer's order.
    """

    schemes: Collection[int]
    certificate_schemes: Collection[int]
    authorities: Collection[bytes]
    compressions: Collection[int]
    types: Sequence[int]
    status: bool
    """Whether an OCSP response is of use."""
    purposes: Collection[str]
    """Extended key usages that a client's certificate must list (RFC 8446 4.2.5)."""

    @classmethod
    def read(cls, extensions: Extensions, types: Sequence[int]) -> Wanted:
        """Of a ClientHello or of a CertificateRequest."""
        # Sets, because a peer may list thousands: each certificate is looked up in all of them.
        handshake = extensions.get(ExtensionType.SIGNATURE_ALGORITHMS)
        schemes = frozenset() if handshake is None else frozenset(read_code_points(handshake))
        others = extensions.get(ExtensionType.SIGNATURE_ALGORITHMS_CERT)
        authorities = extensions.get(ExtensionType.CERTIFICATE_AUTHORITIES)
        compressions = extensions.get(ExtensionType.COMPRESS_CERTIFICATE)
        status = extensions.get(ExtensionType.STATUS_REQUEST)
        filters = extensions.get(ExtensionType.OID_FILTERS)
        return cls(
            schemes,
            # RFC 8446 4.2.3: without signature_algorithms_cert, signature_algorithms is for certificates as well.
            schemes if others is None else frozenset(read_code_points(others)),
            () if authorities is None else frozenset(read_authorities(authorities)),
            () if compressions is None else read_compressions(compressions),
            types,
            status is not None and read_status_request(status),
            () if filters is None else read_purposes(filters),
        )

    @classmethod
    def of_client(cls, extensions: Extensions) -> Wanted:
        types = extensions.get(ExtensionType.SERVER_CERTIFICATE_TYPE)
        return cls.read(extensions, (CertificateType.X509,) if types is None else read_certificate_types(types))

    @classmethod
    def of_server(cls, extensions: Extensions, shown: CertificateType) -> Wanted:
        """`shown`: the type of certificate that was agreed on."""
        # RFC 8446 4.3.2: a CertificateRequest must say what may be signed with.
        require(extensions, ExtensionType.SIGNATURE_ALGORITHMS)
        return cls.read(extensions, (shown,))

    def scheme(self, identity: Identity) -> SignatureScheme | None:
        """The first of the identity's that the peer can verify."""
        return next((scheme for scheme in identity.signer.schemes if scheme in self.schemes), None)

    def follows(self, identity: Identity) -> bool:
        """Whether the peer can verify all signatures of the chain."""
        return all(any(scheme in self.certificate_schemes for scheme in each) for each in identity.facts.signatures)

    def trusts(self, identity: Identity) -> bool:
        """Whether one of the peer's authorities has issued a certificate of the chain."""
        if not self.authorities or not identity.chain:
            return True
        return any(issuer in self.authorities for issuer in identity.facts.issuers)

    def passes(self, identity: Identity) -> bool:
        """Whether the certificate is for all that is asked for."""
        return not identity.chain or all(purpose in identity.facts.purposes for purpose in self.purposes)

    def rank(self, identity: Identity) -> tuple[int, bool, bool]:
        """Of the identities that the peer can use, the one to show has the least."""
        return self.types.index(identity.certificate_type), not self.follows(identity), not self.trusts(identity)

    def chosen(
        self, identity: Identity, scheme: SignatureScheme, compressions: Sequence[CertificateCompression]
    ) -> Chosen:
        # RFC 8879 section 4: one of the algorithms that the peer lists.
        common = (algorithm for algorithm in compressions if algorithm in self.compressions)
        return Chosen(identity, scheme, next(common, None), self.status)


def choose_for_server(config: ClientConfig, wanted: Wanted) -> Chosen | None:
    """The first of a client's that the server can verify and asks for; None: it has none for this server."""
    for identity in config.identities:
        scheme = wanted.scheme(identity) if identity.certificate_type in wanted.types else None
        # RFC 8446 4.4.2.3: signed by acceptable algorithms only, issued by an authority that the server lists, and with
        # the extensions that it filters by.
        if scheme is None or not wanted.follows(identity):
            continue
        if wanted.trusts(identity) and wanted.passes(identity):
            return wanted.chosen(identity, scheme, config.compressions)
    return None


def choose_for_client(config: ServerConfig, name: str | None, wanted: Wanted) -> Chosen:
    """A server's for this name, whose key the client can verify."""
    if not config.identities:
        raise HandshakeError(Reason.NO_COMMON_PSK)
    usable = [identity for identity in config.identities if identity.certificate_type in wanted.types]
    # RFC 7250 4.2: no type in common is an unsupported_certificate.
    if not usable:
        raise HandshakeError(Reason.NO_COMMON_CERTIFICATE_TYPE)
    named = [identity for identity in usable if name is not None and identity.serves(name)]
    # RFC 6066 section 3: a server may go on with a name that it does not know, or refuse it.
    if name is not None and not named and config.known_names_only:
        raise HandshakeError(Reason.UNKNOWN_NAME, name)
    found = [(identity, scheme) for identity in named or usable if (scheme := wanted.scheme(identity)) is not None]
    if not found:
        raise HandshakeError(Reason.NO_COMMON_SIGNATURE)
    # RFC 8446 4.4.2.2: a chain that the client says it can follow goes ahead of others; without any, the server should
    # go on all the same, because the client may know more than it says.
    identity, scheme = found[0] if len(found) == 1 else min(found, key=lambda each: wanted.rank(each[0]))
    return wanted.chosen(identity, scheme, config.compressions)
