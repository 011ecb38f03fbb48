"""The base mode vectors of RFC 9180 appendix A, of the suites that this package has: both ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tcpls.tls.hpke import AeadId, Context, HpkeSuite, Kdf, Kem, sender_with, setup_receiver
from tests.engine import ENGINE

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "rfc9180_base.json").read_text())


def contexts(vector: dict[str, Any]) -> tuple[bytes, Context, Context]:
    suite = HpkeSuite(Kem(vector["kem_id"]), Kdf(vector["kdf_id"]), AeadId(vector["aead_id"]))
    ephemeral, private = (
        ENGINE.static_share(suite.kem.group, bytes.fromhex(vector[name])) for name in ("skEm", "skRm")
    )
    public, info = bytes.fromhex(vector["pkRm"]), bytes.fromhex(vector["info"])
    assert private.public == public
    encapsulated, sender = sender_with(ENGINE, suite, public, info, ephemeral)
    return encapsulated, sender, setup_receiver(ENGINE, suite, bytes.fromhex(vector["enc"]), private, info)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_messages(vector: dict[str, Any]) -> None:
    encapsulated, sender, receiver = contexts(vector)
    assert encapsulated.hex() == vector["enc"]
    plaintext, wanted = bytes.fromhex(vector["pt"]), {each["sequence"]: each for each in vector["encryptions"]}
    for sequence in range(max(wanted) + 1):
        # The vectors leave numbers out; these are filled, as a number is taken by a message only.
        aad = bytes.fromhex(wanted[sequence]["aad"]) if sequence in wanted else b""
        sealed = sender.seal(aad, plaintext)
        if sequence in wanted:
            assert sealed.hex() == wanted[sequence]["ct"]
        assert receiver.open(aad, sealed) == plaintext


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_exports(vector: dict[str, Any]) -> None:
    _, sender, receiver = contexts(vector)
    for export in vector["exports"]:
        for context in (sender, receiver):
            assert context.export(bytes.fromhex(export["context"]), 32).hex() == export["value"]
