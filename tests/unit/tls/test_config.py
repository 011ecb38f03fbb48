"""Configurations are checked when they are made, and errors about files name them."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from tcpls.errors import ConfigurationError
from tcpls.tls.config import ClientConfig, Identity, ServerConfig
from tests.engine import LIBRARY
from tests.unit.tls.pair import NAME, authority, identity, issue, leaf, make_client, make_server, shake, trust


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"server_name": None}, "server name is needed"),
        ({"server_name": ""}, "not a host name"),
        ({"server_name": "a" * 300}, "not a host name"),
        ({"server_name": "with space.example"}, "not a host name"),
        ({"server_name": "a..example"}, "not a host name"),
        ({"suites": ()}, "at least one"),
        ({"groups": ()}, "at least one"),
        ({"schemes": ()}, "at least one"),
        ({"alpn": (b"",)}, "1 to 255"),
        ({"alpn": (bytes(256),)}, "1 to 255"),
        ({"extra_extensions": ((51, b""),)}, "cannot be added"),
        ({"extra_extensions": ((0x10000, b""),)}, "cannot be added"),
        ({"extra_extensions": ((0xFA01, bytes(0x10000)),)}, "cannot be added"),
        ({"extra_extensions": ((0xFA01, b""), (0xFA01, b""))}, "twice"),
    ],
)
def test_client(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        ClientConfig(**{"server_name": NAME, "trust": trust(), **changes})


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("Server.Example.", NAME),
        ("bücher.example", "xn--bcher-kva.example"),
        ("::1", "::1"),
        ("a_b.example", "a_b.example"),
    ],
)
def test_names(name: str, normal: str) -> None:
    assert ClientConfig(name, trust()).server_name == normal


def test_address_is_verified_and_not_sent() -> None:
    address = issue(authority(), names=(x509.IPAddress(ipaddress.ip_address("::1")),)).identity()
    _, server = shake(make_client(server_name="::1"), make_server(identities=(address,)))
    assert server.server_name is None


@pytest.mark.parametrize("changes", [{"identities": ()}, {"suites": ()}, {"groups": ()}, {"alpn": (b"",)}])
def test_server(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        ServerConfig(**{"identities": (identity(),), **changes})


@pytest.mark.parametrize(
    ("name", "serves"),
    [
        ("a.example", True),
        ("A.Example", True),
        ("b.w.example", True),
        ("w.example", False),
        ("c.b.w.example", False),
        ("example", False),
        ("", False),
    ],
)
def test_names_of_an_identity(name: str, serves: bool) -> None:
    assert Identity((), identity().signer, ("a.example", "*.w.example")).serves(name) is serves


def test_no_key_in_a_repr() -> None:
    assert "signer" not in repr(identity())


def test_identity_files(tmp_path: Path) -> None:
    chain, key = tmp_path / "chain.pem", tmp_path / "own.key"
    with pytest.raises(ConfigurationError, match=r"chain\.pem: No such file"):
        LIBRARY.load_identity(chain, key)
    chain.write_bytes(leaf().pem + authority().pem)
    with pytest.raises(ConfigurationError, match=r"own\.key: No such file"):
        LIBRARY.load_identity(chain, key)
    key.write_bytes(leaf().key_pem)
    loaded = LIBRARY.load_identity(chain, key)
    assert loaded.chain == (leaf().der, authority().der)
    assert loaded.names == (NAME,)
    with pytest.raises(ConfigurationError, match=r"own\.key: no certificate"):
        LIBRARY.load_identity(key, key)
    with pytest.raises(ConfigurationError, match=r"chain\.pem: no private key"):
        LIBRARY.load_identity(chain, chain)
    key.write_bytes(leaf("rsa").key_pem)
    with pytest.raises(ConfigurationError, match=r"own\.key: this is not the key .*chain\.pem"):
        LIBRARY.load_identity(chain, key)


def test_passwords() -> None:
    pair = leaf()
    locked = pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    assert LIBRARY.identity_from_pem(pair.pem, locked, b"secret").chain == (pair.der,)
    with pytest.raises(ConfigurationError, match="needs a password"):
        LIBRARY.identity_from_pem(pair.pem, locked)
    with pytest.raises(ConfigurationError, match="wrong password"):
        LIBRARY.identity_from_pem(pair.pem, locked, b"wrong")
    with pytest.raises(ConfigurationError, match="has no password"):
        LIBRARY.identity_from_pem(pair.pem, pair.key_pem, b"secret")


def test_keys_that_tls_cannot_use() -> None:
    pair = issue(kind="rsa1024")
    with pytest.raises(ConfigurationError, match="curve or size"):
        pair.identity()
