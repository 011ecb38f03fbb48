"""Path validation (RFC 5280 section 6) and names (RFC 9525), in pure Python, over any engine's signatures.

A path goes from the end's certificate over those that the peer sent to a trusted authority. What the peer can make this
cost is bounded: certificates in a path, signatures checked, names compared.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tcpls.errors import CertificateError, Reason
from tcpls.tls.x509.algorithms import BROKEN_ALGORITHMS
from tcpls.tls.x509.certificate import EMPTY_NAME, Certificate
from tcpls.tls.x509.extensions import (
    ANY_PURPOSE,
    DIRECTORY_NAME,
    Address,
    NameConstraints,
    Network,
    Subtrees,
    is_host_name,
)

MAX_PATH = 10
"""Certificates in a path: the end's, eight between, the authority's. `cryptography`'s verifier allows as many."""

MAX_SIGNATURES = 100
MAX_COMPARISONS = 250_000
"""Per validation: the bounds that webpki and Go have against chains that are made to be expensive."""

Verify = Callable[[Certificate, Certificate], bool]
"""Whether the first certificate's key made the signature of the second."""


def check_name(certificate: Certificate, name: str) -> None:
    """RFC 9525 section 6: the name must be among the subject's alternative names; the common name does not count."""
    extensions = certificate.extensions
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        wanted = name.lower().removesuffix(".")
        parent = wanted.partition(".")[2]
        # 6.3: a wildcard is the whole leftmost label, and stands for one.
        if is_host_name(wanted) and (wanted in extensions.names or (parent and f"*.{parent}" in extensions.names)):
            return
    else:
        if address in extensions.addresses:
            return
    raise CertificateError(Reason.WRONG_NAME, name)


def validate_path(
    chain: Sequence[Certificate], authorities: Sequence[Certificate], purpose: str, time: datetime, verify: Verify
) -> None:
    """Finds a path from the first of `chain` to one of `authorities` in which all is in order.

    Raises `CertificateError`.
    """
    leaf = chain[0]
    # RFC 5280 4.1.2.5: the period includes its last second, all of it.
    time = time.replace(microsecond=0)
    if not leaf.not_before <= time <= leaf.not_after:
        raise CertificateError(
            Reason.CERTIFICATE_EXPIRED, f"valid from {leaf.not_before:%Y-%m-%d} to {leaf.not_after:%Y-%m-%d}"
        )
    search = _Search(chain[1:], authorities, purpose, time, verify)
    if fault := search.fault_of_any(leaf):
        raise CertificateError(Reason.UNTRUSTED_CERTIFICATE, fault)
    # RFC 8446 4.4.2.2: a key that makes signatures must be allowed to.
    if leaf.extensions.may_sign is False:
        raise CertificateError(Reason.UNTRUSTED_CERTIFICATE, "the certificate's key may not sign")
    if not search.extend((leaf,)):
        raise broken_signature(chain) or search.refusal()


def broken_signature(chain: Iterable[Certificate]) -> CertificateError | None:
    """What to say of a chain that leads nowhere, if that may be for a hash that is broken."""
    # RFC 8446 4.4.2.4: a bad_certificate for what would need MD5, and better also SHA-1, to be validated.
    if any(each.algorithm in BROKEN_ALGORITHMS and each.issuer != each.subject for each in chain):
        return CertificateError(Reason.BAD_CERTIFICATE, "a signature over MD5 or SHA-1")
    return None


@dataclass(slots=True)
class _Search:
    """One search, depth first, and what it has cost."""

    others: Sequence[Certificate]
    authorities: Sequence[Certificate]
    purpose: str
    time: datetime
    verify: Verify
    signatures: int = 0
    comparisons: int = 0
    expired: bool = False
    faults: list[str] = field(default_factory=list)

    def refusal(self) -> CertificateError:
        """The first thing that was wrong on the way, if there was a way."""
        if self.faults:
            return CertificateError(Reason.UNTRUSTED_CERTIFICATE, self.faults[0])
        if self.expired:
            return CertificateError(Reason.CERTIFICATE_EXPIRED, "an issuer")
        return CertificateError(Reason.UNTRUSTED_CERTIFICATE, "its issuer is unknown here")

    def extend(self, path: tuple[Certificate, ...]) -> bool:
        """Whether the path, or a longer one that starts with it, leads to an authority."""
        last = path[-1]
        if any(last.der == authority.der for authority in self.authorities):
            return True
        if len(path) == MAX_PATH:
            self.faults.append("the chain is too long")
            return False
        for authority in self.authorities:
            if authority.subject == last.issuer and self._issued(authority, path):
                return True
        for other in self.others:
            if other.subject != last.issuer or other in path:
                continue
            if self._issued(other, path) and self.extend((*path, other)):
                return True
        return False

    def _issued(self, issuer: Certificate, path: tuple[Certificate, ...]) -> bool:
        """Whether `issuer` may have issued the path's last certificate, and did."""
        if not issuer.not_before <= self.time <= issuer.not_after:
            self.expired = True
            return False
        fault = self._fault(issuer, path)
        if fault:
            self.faults.append(fault)
        return not fault

    def _fault(self, issuer: Certificate, path: tuple[Certificate, ...]) -> str:
        extensions = issuer.extensions
        # RFC 5280 6.1.4 (k).
        if not extensions.ca:
            return "the issuer is not an authority"
        # RFC 5280 6.1.4 (l) and (m): certificates that an authority issues to itself do not count.
        between = sum(each.subject != each.issuer for each in path[1:])
        if extensions.path_length is not None and between > extensions.path_length:
            return "the path is longer than an issuer allows"
        # RFC 5280 6.1.4 (n).
        if extensions.may_sign_certificates is False:
            return "the issuer may not sign certificates"
        if fault := self.fault_of_any(issuer) or self._outside(issuer, path):
            return fault
        if self.signatures == MAX_SIGNATURES:
            return "the chain takes too many signatures to check"
        self.signatures += 1
        return "" if self.verify(issuer, path[-1]) else "a signature in the chain is wrong"

    def fault_of_any(self, certificate: Certificate) -> str:
        """What an end's certificate and an issuer's have to fulfil alike."""
        extensions = certificate.extensions
        # RFC 8446 4.4.2.2; and before version 3 nothing says what a key is for.
        if not certificate.is_v3:
            return "a certificate is not of version 3"
        # RFC 5280 4.1.2.4.
        if certificate.issuer == EMPTY_NAME:
            return "a certificate does not say who issued it"
        # RFC 5280 6.1.4 (o) and 6.1.5 (f).
        if extensions.unknown_critical is not None:
            return f"the critical extension {extensions.unknown_critical} is not known here"
        # RFC 5280 4.2.1.12; for an issuer as all TLS libraries have it: it can pass on only what it has.
        purposes = extensions.purposes
        if purposes is not None and self.purpose not in purposes and ANY_PURPOSE not in purposes:
            return "a certificate is not for this end of TLS"
        return ""

    def _outside(self, issuer: Certificate, path: tuple[Certificate, ...]) -> str:
        """RFC 5280 6.1.3 (b) and (c): the names of everything below an issuer against its constraints."""
        constraints = issuer.extensions.constraints
        if constraints is None:
            return ""
        permitted, excluded = constraints.permitted, constraints.excluded
        for number, certificate in enumerate(path):
            # RFC 5280 6.1.3: what an authority issues to itself is not constrained, unless it is the end.
            if number and certificate.subject == certificate.issuer:
                continue
            names, addresses = certificate.extensions.names, certificate.extensions.addresses
            self.comparisons += len(names) * (len(permitted.names) + len(excluded.names))
            self.comparisons += len(addresses) * (len(permitted.networks) + len(excluded.networks))
            if self.comparisons > MAX_COMPARISONS:
                return "the chain has too many names and constraints"
            if _unjudged(certificate, constraints):
                return "a name has a form in which name constraints are not known here"
            if not (_all_permitted(names, addresses, permitted) and _none_excluded(names, addresses, excluded)):
                return "a name is outside what an issuer may certify"
        return ""


def _unjudged(certificate: Certificate, constraints: NameConstraints) -> bool:
    """Whether the certificate has a name of a form that is constrained and not understood.

    RFC 5280 4.2.1.10: such a certificate is refused, but one without any name of that form is not.
    """
    permitted, excluded = constraints.permitted, constraints.excluded
    extensions = certificate.extensions
    forms = extensions.forms if certificate.subject == EMPTY_NAME else extensions.forms | {DIRECTORY_NAME}
    if forms & (permitted.others | excluded.others):
        return True
    are_constrained = bool(permitted.names or excluded.names)
    return are_constrained and not all(is_host_name(name.removeprefix("*.")) for name in extensions.names)


def _all_permitted(names: Sequence[str], addresses: Sequence[Address], trees: Subtrees) -> bool:
    return (not trees.names or all(any(_below(name, tree) for tree in trees.names) for name in names)) and (
        not trees.networks or all(any(_inside(each, tree) for tree in trees.networks) for each in addresses)
    )


def _none_excluded(names: Sequence[str], addresses: Sequence[Address], trees: Subtrees) -> bool:
    return not any(_below(name, tree) or _covers(name, tree) for name in names for tree in trees.names) and not any(
        _inside(each, tree) for each in addresses for tree in trees.networks
    )


def _below(name: str, tree: str) -> bool:
    """Whether the name is `tree` with or without labels in front."""
    return not tree or name == tree or name.endswith("." + tree)


def _covers(name: str, tree: str) -> bool:
    """Whether a wildcard stands for names in the tree: "*.a.example" for "b.a.example"."""
    return name.startswith("*.") and tree.partition(".")[2] == name[2:]


def _inside(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network
