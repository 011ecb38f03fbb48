"""What an end knows of the chain that it shows, for the choice among several (RFC 8446 sections 4.4.2.2, 4.4.2.3)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from tcpls.tls.x509.algorithms import SIGNATURE_ALGORITHMS
from tcpls.tls.x509.certificate import Certificate
from tcpls.tls.x509.der import DerError


@dataclass(frozen=True, slots=True)
class ChainFacts:
    """`issuers`: their names in DER. `signatures`: per certificate, the schemes that its signature may be called.

    `purposes`: the extended key usages that the end entity's certificate lists.

    A certificate that does not parse here says nothing, and keeps the chain from nothing.
    """

    issuers: tuple[bytes, ...]
    signatures: tuple[frozenset[int], ...]
    purposes: frozenset[str]


@lru_cache
def chain_facts(chain: tuple[bytes, ...]) -> ChainFacts:
    issuers, signatures = [], []
    purposes: frozenset[str] = frozenset()
    for number, der in enumerate(chain):
        with suppress(DerError):
            parsed = Certificate.parse(der)
            issuers.append(parsed.issuer)
            if number == 0 and parsed.extensions.purposes is not None:
                purposes = parsed.extensions.purposes
            # RFC 8446 4.2.3: what is self-signed is not validated, and so may be signed by any algorithm.
            if parsed.issuer != parsed.subject:
                algorithm = SIGNATURE_ALGORITHMS.get(parsed.algorithm)
                signatures.append(frozenset() if algorithm is None else algorithm.schemes)
    return ChainFacts(tuple(issuers), tuple(signatures), purposes)
