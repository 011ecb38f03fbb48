"""x509-limbo's chains through the trust store of the engine under test.

No package has them: TCPLS_LIMBO names a `limbo.json` of the repository C2SP/x509-limbo. What came out of it when it was
last run is in limbo.toml.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tcpls.errors import CertificateError, ConfigurationError
from tcpls.tls.x509.certificate import pem_blocks
from tests.engine import ENGINE, LIBRARY

RECORD: dict[str, Any] = tomllib.loads((Path(__file__).parent / "limbo.toml").read_text())
KNOWN = {
    chain: entry["got"]
    for entry in RECORD["differences"]
    if ENGINE.name in entry["engines"]
    for chain in entry["chains"]
}

Chain = dict[str, Any]


def concerns(chain: Chain) -> bool:
    """A client's view, of a server whose name it knows; or a server's, of a client, whose names it does not look at."""
    return chain["validation_kind"] == "CLIENT" or chain["expected_peer_name"] is not None


def judge(chain: Chain) -> str:
    trusted = "\n".join(chain["trusted_certs"]).encode()
    sent = "\n".join([chain["peer_certificate"], *chain["untrusted_intermediates"]])
    time = datetime.fromisoformat(chain["validation_time"] or "2026-01-01T00:00:00").replace(tzinfo=UTC)
    name = None if chain["validation_kind"] == "CLIENT" else chain["expected_peer_name"]["value"]
    certificates = pem_blocks(sent.encode(), b"CERTIFICATE")
    try:
        ENGINE.public_key(certificates[0])
        LIBRARY.trust_from_pem(trusted, "authorities").validate(certificates, name, time)
    except (CertificateError, ConfigurationError):
        return "refused"
    return "accepted"


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@pytest.mark.skipif("TCPLS_LIMBO" not in os.environ, reason="TCPLS_LIMBO names no limbo.json of C2SP/x509-limbo")
def test_chains() -> None:
    chains = [each for each in json.loads(Path(os.environ["TCPLS_LIMBO"]).read_bytes())["testcases"] if concerns(each)]
    expected = {"SUCCESS": "accepted", "FAILURE": "refused"}
    found = {each["id"]: got for each in chains if (got := judge(each)) != expected[each["expected_result"]]}
    assert found == KNOWN
    assert Counter(each["id"].partition("::")[0] for each in chains) == RECORD["chains"]


def test_every_difference_has_one_reason() -> None:
    listed = [chain for entry in RECORD["differences"] if ENGINE.name in entry["engines"] for chain in entry["chains"]]
    assert len(listed) == len(set(listed))
    assert all(entry["reason"] and entry["got"] in ("accepted", "refused") for entry in RECORD["differences"])
