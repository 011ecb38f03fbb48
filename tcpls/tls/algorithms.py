"""The code points of key exchange groups and signature schemes that this package can use (RFC 8446 4.2.3, 4.2.7)."""

from __future__ import annotations

import enum
from functools import cached_property


class Group(enum.IntEnum):
    """A key exchange group."""

    SECP256R1 = 0x0017
    SECP384R1 = 0x0018
    SECP521R1 = 0x0019
    X25519 = 0x001D
    X448 = 0x001E
    # draft-ietf-tls-ecdhe-mlkem section 7.
    SECP256R1MLKEM768 = 0x11EB
    X25519MLKEM768 = 0x11EC
    SECP384R1MLKEM1024 = 0x11ED

    @cached_property
    def label(self) -> str:
        """The name as IANA's registry writes it, for example ``x25519`` or ``X25519MLKEM768``."""
        return _HYBRID_LABELS.get(self.value) or self.name.lower()


_HYBRID_LABELS = {0x11EB: "SecP256r1MLKEM768", 0x11EC: "X25519MLKEM768", 0x11ED: "SecP384r1MLKEM1024"}


class SignatureScheme(enum.IntEnum):
    """A scheme for the signature over the handshake."""

    ECDSA_SECP256R1_SHA256 = 0x0403
    ECDSA_SECP384R1_SHA384 = 0x0503
    ECDSA_SECP521R1_SHA512 = 0x0603
    RSA_PSS_RSAE_SHA256 = 0x0804
    RSA_PSS_RSAE_SHA384 = 0x0805
    RSA_PSS_RSAE_SHA512 = 0x0806
    ED25519 = 0x0807
    ED448 = 0x0808
    RSA_PSS_PSS_SHA256 = 0x0809
    RSA_PSS_PSS_SHA384 = 0x080A
    RSA_PSS_PSS_SHA512 = 0x080B

    @cached_property
    def label(self) -> str:
        """The name as RFC 8446 writes it, for example ``ecdsa_secp256r1_sha256``."""
        return self.name.lower()


class CertificateType(enum.IntEnum):
    """What a Certificate message carries (RFC 7250)."""

    X509 = 0
    RAW_PUBLIC_KEY = 2


DEFAULT_GROUPS = (
    Group.X25519MLKEM768,
    Group.SECP256R1MLKEM768,
    Group.X25519,
    Group.SECP256R1,
    Group.SECP384R1,
    Group.X448,
    Group.SECP521R1,
    Group.SECP384R1MLKEM1024,
)
"""Where the engine has them."""

DEFAULT_SCHEMES = (
    SignatureScheme.ECDSA_SECP256R1_SHA256,
    SignatureScheme.ED25519,
    SignatureScheme.ECDSA_SECP384R1_SHA384,
    SignatureScheme.RSA_PSS_RSAE_SHA256,
    SignatureScheme.RSA_PSS_RSAE_SHA384,
    SignatureScheme.RSA_PSS_RSAE_SHA512,
    SignatureScheme.ECDSA_SECP521R1_SHA512,
    SignatureScheme.ED448,
    SignatureScheme.RSA_PSS_PSS_SHA256,
    SignatureScheme.RSA_PSS_PSS_SHA384,
    SignatureScheme.RSA_PSS_PSS_SHA512,
)

CERTIFICATE_ONLY_SCHEMES = (0x0401, 0x0501, 0x0601)
"""rsa_pkcs1_sha256, 384 and 512: RFC 8446 4.2.3 allows them in certificates and nowhere else in TLS 1.3."""
