"""What both ends have to compute alike: exporters (RFC 8446 7.5) and the key log (RFC 9850), against OpenSSL."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tcpls.tls.connection import Established
from tcpls.tls.suites import CipherSuite
from tests.interop.conftest import Pki
from tests.interop.peer import connect, listening
from tests.interop.test_tls_openssl import client_config, s_client, s_server
from tests.unit.tls.pair import SecretLog

LABEL = "EXPORTER-tcpls-test"
LENGTH = 100
LABELS = (
    "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
    "SERVER_HANDSHAKE_TRAFFIC_SECRET",
    "CLIENT_TRAFFIC_SECRET_0",
    "SERVER_TRAFFIC_SECRET_0",
    "EXPORTER_SECRET",
)
EXPORT = ("-keymatexport", LABEL, "-keymatexportlen", str(LENGTH))


def exported(established: Established) -> str:
    # OpenSSL's programs export without a context, which in TLS 1.3 is the empty one (RFC 8446 7.5).
    return established.export(LABEL.encode(), b"", LENGTH).hex().upper()


def said(output: str) -> str:
    found = re.search(r"Keying material: ([0-9A-F]+)", output)
    assert found is not None, output
    return found[1]


def logged(path: Path) -> dict[str, bytes]:
    lines = [line.split() for line in path.read_text().splitlines() if not line.startswith("#")]
    assert len({random for _, random, _ in lines}) == 1
    return {label: bytes.fromhex(secret) for label, _, secret in lines}


@pytest.mark.feature("exporters", peer="OpenSSL", role="client")
@pytest.mark.clause("RFC 8446 7.5")
@pytest.mark.parametrize("suite", CipherSuite)
def test_client_exports(pki: Pki, suite: CipherSuite) -> None:
    config = replace(client_config(pki), suites=(suite,))
    with s_server(pki, "p256", *EXPORT) as (port, process), connect(port, config) as channel:
        process.wait_for("Keying material: ")
        process.wait_for("Secure Renegotiation")
        assert said(process.output) == exported(channel.established)


@pytest.mark.feature("exporters", peer="OpenSSL", role="server")
@pytest.mark.clause("RFC 8446 7.5")
@pytest.mark.parametrize("suite", CipherSuite)
def test_server_exports(pki: Pki, suite: CipherSuite) -> None:
    with (
        listening() as listener,
        s_client(listener.port, pki, "-ciphersuites", suite.label, *EXPORT) as process,
        listener.accept(pki.server()) as channel,
    ):
        process.wait_for("Keying material: ")
        process.wait_for("Verify return code: 0 (ok)")
        assert said(process.output) == exported(channel.established)


@pytest.mark.feature("key log", peer="OpenSSL", role="client")
@pytest.mark.clause("RFC 9850 2")
def test_client_key_log(pki: Pki, tmp_path: Path) -> None:
    log, path = SecretLog(), tmp_path / "keys"
    with s_server(pki, "p256", "-rev", "-keylogfile", str(path)) as (port, _):
        with connect(port, client_config(pki), key_log=log) as channel:
            channel.send(b"abc\n")
            assert channel.receive_until(b"\n") == b"cba\n"
        theirs = logged(path)
    assert {label: log[label] for label in LABELS} == theirs == dict(log)


@pytest.mark.feature("key log", peer="OpenSSL", role="server")
@pytest.mark.clause("RFC 9850 2")
def test_server_key_log(pki: Pki, tmp_path: Path) -> None:
    log, path = SecretLog(), tmp_path / "keys"
    with (
        listening() as listener,
        s_client(listener.port, pki, "-quiet", "-keylogfile", str(path)) as process,
        listener.accept(pki.server(), key_log=log) as channel,
    ):
        channel.send(b"hello from here\n")
        process.wait_for("hello from here")
        assert {label: log[label] for label in LABELS} == logged(path) == dict(log)
