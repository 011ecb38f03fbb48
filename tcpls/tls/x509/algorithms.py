"""The public keys and signatures of certificates that are good enough, by their AlgorithmIdentifiers.

Each is compared as the bytes that it is: parameters have one right encoding.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from tcpls.tls.algorithms import SignatureScheme


class KeyKind(enum.Enum):
    """A kind of public key, by its AlgorithmIdentifier (RFC 3279, RFC 4055, RFC 5480, RFC 8410).

    An RSA key for PSS alone may be bound to one hash, with the parameters of RFC 8446 4.2.3; others are of no use.
    """

    RSA = bytes.fromhex("300d06092a864886f70d0101010500")
    RSA_PSS = bytes.fromhex("300b06092a864886f70d01010a")
    RSA_PSS_SHA256 = bytes.fromhex(
        "304106092a864886f70d01010a3034a00f300d06096086480165030402010500"
        "a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120"
    )
    RSA_PSS_SHA384 = bytes.fromhex(
        "304106092a864886f70d01010a3034a00f300d06096086480165030402020500"
        "a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130"
    )
    RSA_PSS_SHA512 = bytes.fromhex(
        "304106092a864886f70d01010a3034a00f300d06096086480165030402030500"
        "a11c301a06092a864886f70d010108300d06096086480165030402030500a203020140"
    )
    P256 = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
    P384 = bytes.fromhex("301006072a8648ce3d020106052b81040022")
    P521 = bytes.fromhex("301006072a8648ce3d020106052b81040023")
    ED25519 = bytes.fromhex("300506032b6570")
    ED448 = bytes.fromhex("300506032b6571")


KIND_BY_ALGORITHM = {kind.value: kind for kind in KeyKind}

RSA_KINDS = frozenset(
    (KeyKind.RSA, KeyKind.RSA_PSS, KeyKind.RSA_PSS_SHA256, KeyKind.RSA_PSS_SHA384, KeyKind.RSA_PSS_SHA512)
)
_RSAE = (
    SignatureScheme.RSA_PSS_RSAE_SHA256,
    SignatureScheme.RSA_PSS_RSAE_SHA384,
    SignatureScheme.RSA_PSS_RSAE_SHA512,
)
_PSS = (
    SignatureScheme.RSA_PSS_PSS_SHA256,
    SignatureScheme.RSA_PSS_PSS_SHA384,
    SignatureScheme.RSA_PSS_PSS_SHA512,
)

# RFC 8446 4.2.3: a scheme goes with the OID of the key, and with ECDSA's curve. The preferred one first.
SCHEMES: dict[KeyKind, tuple[SignatureScheme, ...]] = {
    KeyKind.RSA: _RSAE,
    KeyKind.RSA_PSS: _PSS,
    KeyKind.RSA_PSS_SHA256: _PSS[:1],
    KeyKind.RSA_PSS_SHA384: _PSS[1:2],
    KeyKind.RSA_PSS_SHA512: _PSS[2:],
    KeyKind.P256: (SignatureScheme.ECDSA_SECP256R1_SHA256,),
    KeyKind.P384: (SignatureScheme.ECDSA_SECP384R1_SHA384,),
    KeyKind.P521: (SignatureScheme.ECDSA_SECP521R1_SHA512,),
    KeyKind.ED25519: (SignatureScheme.ED25519,),
    KeyKind.ED448: (SignatureScheme.ED448,),
}


@dataclass(frozen=True, slots=True)
class SignatureAlgorithm:
    """`kinds`: the keys that make such signatures. `hash_name` is None where the algorithm has its own.

    `schemes`: what signature_algorithms_cert may call it (RFC 8446 4.2.3).
    """

    kinds: frozenset[KeyKind]
    hash_name: str | None
    schemes: frozenset[int]
    is_pss: bool = False


def _algorithm(
    kinds: tuple[KeyKind, ...], hash_name: str | None, *schemes: int, is_pss: bool = False
) -> SignatureAlgorithm:
    return SignatureAlgorithm(frozenset(kinds), hash_name, frozenset(schemes), is_pss)


_CURVES = (KeyKind.P256, KeyKind.P384, KeyKind.P521)

# RFC 4055 (PSS with the parameters of RFC 8446 4.2.3), RFC 5758, RFC 8410. SHA-1 is not among them.
SIGNATURE_ALGORITHMS = {
    bytes.fromhex("300d06092a864886f70d01010b0500"): _algorithm((KeyKind.RSA,), "sha256", 0x0401),
    bytes.fromhex("300d06092a864886f70d01010c0500"): _algorithm((KeyKind.RSA,), "sha384", 0x0501),
    bytes.fromhex("300d06092a864886f70d01010d0500"): _algorithm((KeyKind.RSA,), "sha512", 0x0601),
    KeyKind.RSA_PSS_SHA256.value: _algorithm(
        (KeyKind.RSA, KeyKind.RSA_PSS, KeyKind.RSA_PSS_SHA256), "sha256", 0x0804, 0x0809, is_pss=True
    ),
    KeyKind.RSA_PSS_SHA384.value: _algorithm(
        (KeyKind.RSA, KeyKind.RSA_PSS, KeyKind.RSA_PSS_SHA384), "sha384", 0x0805, 0x080A, is_pss=True
    ),
    KeyKind.RSA_PSS_SHA512.value: _algorithm(
        (KeyKind.RSA, KeyKind.RSA_PSS, KeyKind.RSA_PSS_SHA512), "sha512", 0x0806, 0x080B, is_pss=True
    ),
    bytes.fromhex("300a06082a8648ce3d040302"): _algorithm(_CURVES, "sha256", 0x0403),
    bytes.fromhex("300a06082a8648ce3d040303"): _algorithm(_CURVES, "sha384", 0x0503),
    bytes.fromhex("300a06082a8648ce3d040304"): _algorithm(_CURVES, "sha512", 0x0603),
    KeyKind.ED25519.value: _algorithm((KeyKind.ED25519,), None, SignatureScheme.ED25519),
    KeyKind.ED448.value: _algorithm((KeyKind.ED448,), None, SignatureScheme.ED448),
}

BROKEN_ALGORITHMS = frozenset(
    map(
        bytes.fromhex,
        (
            "300d06092a864886f70d0101040500",
            "300d06092a864886f70d0101050500",
            "300906072a8648ce3d0401",
        ),
    )
)
"""RSA with MD5, RSA and ECDSA with SHA-1 (RFC 3279 2.2)."""
