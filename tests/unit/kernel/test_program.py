"""Programs as files, their signatures, and the policy on offers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tcpls.errors import ConfigurationError, ProgramRefused
from tcpls.kernel.program import (
    ABI,
    MAX_SIZE,
    Mode,
    Offer,
    ProgramFile,
    ProgramKey,
    ProgramPolicy,
    key_id,
    private_pem,
    public_pem,
    read_private_key,
    read_public_key,
    signature_path,
    signed_message,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
PROGRAM = ProgramFile("cubic", b"an object")
SIGNED = PROGRAM.sign(KEY)


def refusal(policy: ProgramPolicy, offer: Offer, *, authenticated: bool = False) -> tuple[str, str]:
    with pytest.raises(ProgramRefused) as caught:
        policy.judge(offer, peer_authenticated=authenticated)
    return caught.value.stage, caught.value.reason


def test_the_default_refuses_everything() -> None:
    assert refusal(ProgramPolicy(), SIGNED.offer, authenticated=True) == ("policy", "this end accepts no programs")


def test_pinned_programs_are_known_by_their_digest() -> None:
    policy = ProgramPolicy.pinned([PROGRAM.digest])
    policy.judge(PROGRAM.offer)
    stage, reason = refusal(policy, ProgramFile("cubic", b"another object").offer)
    assert (stage, "digest" in reason) == ("policy", True)


def test_signed_programs_need_a_trusted_key_and_a_right_signature() -> None:
    policy = ProgramPolicy.signed([OTHER.public_key(), KEY.public_key()])
    policy.judge(SIGNED.offer)
    assert refusal(policy, PROGRAM.offer) == ("signature", "not signed")
    distrusting = ProgramPolicy.signed([OTHER.public_key()])
    assert refusal(distrusting, SIGNED.offer) == ("signature", "signed by a key that this end does not trust")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "reno"},
        {"digest": bytes(32)},
        {"size": 10},
        {"signature": bytes(64)},
        {"signature": SIGNED.signature[:-1]},
        {"signature": SIGNED.signature + b"\0"},
    ],
)
def test_a_signature_covers_every_field(change: dict[str, object]) -> None:
    offer = replace(SIGNED.offer, **change)  # type: ignore[arg-type]
    assert refusal(ProgramPolicy.signed([KEY.public_key()]), offer) == ("signature", "the signature is wrong")


def test_a_right_signature_under_another_key_id_is_refused() -> None:
    offer = replace(SIGNED.offer, key_id=key_id(OTHER.public_key()))
    policy = ProgramPolicy.signed([KEY.public_key(), OTHER.public_key()])
    assert refusal(policy, offer) == ("signature", "the signature is wrong")


def test_fields_of_the_signed_message_cannot_run_into_one_another() -> None:
    assert signed_message("ab", bytes(32), 1, "c") != signed_message("a", b"b" + bytes(31), 1, "c")
    assert signed_message("a", bytes(32), 1, "bc") != signed_message("ab", bytes(32), 1, "c")


def test_the_mode_authenticated_needs_an_authenticated_peer() -> None:
    policy = ProgramPolicy(Mode.AUTHENTICATED)
    policy.judge(PROGRAM.offer, peer_authenticated=True)
    assert refusal(policy, PROGRAM.offer) == ("policy", "needs an authenticated peer")


@pytest.mark.parametrize(
    "change",
    [{"abi": "bpfeb/x"}, {"size": 0}, {"size": MAX_SIZE + 1}, {"digest": b""}, {"name": ""}, {"name": "../x/y"}],
)
def test_offers_outside_the_limits_are_refused(change: dict[str, object]) -> None:
    policy = ProgramPolicy(Mode.AUTHENTICATED)
    offer = replace(PROGRAM.offer, **change)  # type: ignore[arg-type]
    assert refusal(policy, offer, authenticated=True)[0] == "policy"


def test_the_image_must_be_the_one_that_was_offered() -> None:
    policy = ProgramPolicy()
    policy.judge_image(PROGRAM.image, PROGRAM.digest, PROGRAM.size)
    for image in (b"", PROGRAM.image + b"\0", b"an abject"):
        with pytest.raises(ProgramRefused) as caught:
            policy.judge_image(image, PROGRAM.digest, PROGRAM.size)
        assert caught.value.stage == "digest"


def test_a_policy_survives_its_way_to_the_helper() -> None:
    policy = ProgramPolicy(
        Mode.SIGNED,
        digests=frozenset({bytes(32)}),
        keys=(bytes(range(32)),),
        algorithms=frozenset({"cubic"}),
        max_size=1000,
        max_live=3,
        max_loads_per_minute=7,
    )
    assert ProgramPolicy.from_json(policy.to_json()) == policy


@pytest.mark.parametrize(
    "change", [{"digests": frozenset({b"x"})}, {"keys": (b"x",)}, {"max_size": MAX_SIZE + 1}, {"max_live": 33}]
)
def test_impossible_policies_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        ProgramPolicy(**change)  # type: ignore[arg-type]


def test_a_program_and_its_signature_are_read_from_files(tmp_path: Path) -> None:
    path = tmp_path / "cubic.bpf.o"
    path.write_bytes(PROGRAM.image)
    assert ProgramFile.read(path) == PROGRAM
    signature_path(path).write_text(SIGNED.sidecar())
    read = ProgramFile.read(str(path))
    assert read == SIGNED
    assert (read.key_id, read.abi) == (key_id(KEY.public_key()), ABI)
    assert ProgramFile.read(path, ignore_signature=True) == PROGRAM


def test_a_signature_of_another_version_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "cubic.bpf.o"
    path.write_bytes(b"a newer object")
    signature_path(path).write_text(SIGNED.sidecar())
    with pytest.raises(ConfigurationError, match="sign it again"):
        ProgramFile.read(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 1}', "{" * 5000])
def test_a_broken_signature_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cubic.bpf.o"
    path.write_bytes(PROGRAM.image)
    signature_path(path).write_text(text)
    with pytest.raises(ConfigurationError, match=r"cubic\.bpf\.o\.sig"):
        ProgramFile.read(path)


def test_files_that_are_missing_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        ProgramFile.read(tmp_path / "absent.o")
    (tmp_path / "large.o").write_bytes(bytes(MAX_SIZE + 1))
    with pytest.raises(ConfigurationError, match="larger than"):
        ProgramFile.read(tmp_path / "large.o")


@pytest.mark.parametrize("engine", ["openssl", "minicrypto"])
def test_signatures_under_both_engines(engine: str) -> None:
    policy = ProgramPolicy.signed([OTHER.public_key(), KEY.public_key()])
    policy.judge(SIGNED.offer, engine=engine)
    for offer in (
        replace(SIGNED.offer, size=SIGNED.offer.size + 1),
        replace(SIGNED.offer, signature=SIGNED.offer.signature[:-1]),
        replace(SIGNED.offer, signature=bytes(64)),
        replace(SIGNED.offer, key_id=key_id(OTHER.public_key())),
    ):
        with pytest.raises(ProgramRefused, match="signature is wrong"):
            policy.judge(offer, engine=engine)
    # A key that is no point of the curve.
    with pytest.raises(ProgramRefused, match="signature is wrong"):
        nothing = ProgramKey(b"\xff" * 32)
        ProgramPolicy.signed([nothing]).judge(replace(SIGNED.offer, key_id=key_id(nothing)), engine=engine)


def test_keys_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "k.key").write_bytes(private_pem(KEY))
    (tmp_path / "k.pub").write_bytes(public_pem(KEY.public_key()))
    assert key_id(read_private_key(tmp_path / "k.key").public_key()) == key_id(read_public_key(tmp_path / "k.pub"))


def test_keys_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "k"
    path.write_bytes(b"not a key")
    for read in (read_private_key, read_public_key):
        with pytest.raises(ConfigurationError, match="PEM"):
            read(path)
    elliptic = generate_private_key(SECP256R1())
    path.write_bytes(elliptic.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ConfigurationError, match="not an Ed25519 key"):
        read_private_key(path)
    path.write_bytes(elliptic.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(ConfigurationError, match="not an Ed25519 key"):
        read_public_key(path)
    for wrong in (2 * public_pem(KEY.public_key()), public_pem(KEY.public_key()).replace(b"MC", b"M!")):
        path.write_bytes(wrong)
        with pytest.raises(ConfigurationError, match="not a public key in PEM"):
            read_public_key(path)


def test_the_image_is_not_in_the_repr() -> None:
    assert "object" not in repr(SIGNED)
