"""Files with keys and configurations, against what RFC 9934 prints and what OpenSSL reads."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from tcpls.errors import ConfigurationError
from tcpls.tls.ech.configs import write_configs
from tcpls.tls.ech.keys import EchFile, EchKeys, generate, load_keys, read_file, write_pem
from tcpls.tls.hpke import Kem
from tests.engine import ENGINE
from tests.unit.tls.ech.test_configs import PUBLISHED
from tests.unit.tls.pair import seeded

# RFC 9934 figure 1.
PUBLISHED_FILE = f"""\
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VuBCIEICjd4yGRdsoP9gU7YT7My8DHx1Tjme8GYDXrOMCi8v1V
-----END PRIVATE KEY-----
-----BEGIN ECHCONFIG-----
{PUBLISHED[:64]}
{PUBLISHED[64:]}
-----END ECHCONFIG-----
"""


def made(seed: int = 1, kem: Kem = Kem.X25519_HKDF_SHA256, name: str = "public.example") -> EchFile:
    return generate(ENGINE, seeded(seed), name, kem=kem)


@pytest.mark.clause("RFC 9934 3")
def test_a_published_file() -> None:
    file = read_file(PUBLISHED_FILE.encode(), "file")
    (key,) = file.keys(ENGINE, "file")
    assert key.config.name == "example.com"
    assert key.private.public == key.config.public_key
    assert write_pem(file) == PUBLISHED_FILE


@pytest.mark.parametrize("kem", Kem)
def test_what_is_written_is_read(kem: Kem) -> None:
    file = made(kem=kem)
    assert read_file(write_pem(file).encode(), "file") == file
    (key,) = file.keys(ENGINE, "file")
    assert key.config.unusable == ""
    assert "private" not in repr(file) and str(file.private) not in repr(key)


@pytest.mark.parametrize("kem", Kem)
def test_others_read_the_private_key(kem: Kem) -> None:
    file = made(kem=kem)
    key = load_pem_private_key(write_pem(file).encode(), None)
    assert isinstance(key, x25519.X25519PrivateKey | ec.EllipticCurvePrivateKey)
    public = (
        key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        if isinstance(key, x25519.X25519PrivateKey)
        else key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    )
    assert public == file.configs[0].public_key


@pytest.mark.parametrize("kem", Kem)
def test_private_keys_as_others_write_them(kem: Kem) -> None:
    other = (
        x25519.X25519PrivateKey.generate() if kem is Kem.X25519_HKDF_SHA256 else ec.generate_private_key(ec.SECP256R1())
    )
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = read_file(pem + write_pem(EchFile(made().configs)).encode(), "file")
    assert file.kem is kem and file.private is not None and len(file.private) == 32
    config = replace(made(kem=kem).configs[0], public_key=ENGINE.static_share(kem.group, file.private).public)
    assert replace(file, configs=(config,)).keys(ENGINE, "file")


def test_a_list_without_armour() -> None:
    file = made()
    contents = write_configs(file.configs)
    for form in (contents, base64.b64encode(contents), base64.b64encode(contents) + b"\n"):
        assert read_file(form, "file") == EchFile(file.configs)


def _pem(label: str, contents: bytes) -> str:
    return f"-----BEGIN {label}-----\n{base64.b64encode(contents).decode()}\n-----END {label}-----\n"


_SEED = write_pem(made())
_ED25519 = "302e020100300506032b657004220420" + "00" * 32


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no list of ECH configurations"),
        ("nonsense", "no list of ECH configurations"),
        (_SEED + _SEED, "more than one"),
        (_pem("ECHCONFIG", b"\x00\x05abcde"), "no list of ECH configurations"),
        (_SEED + "-----BEGIN ECHCONFIG-----\n***\n-----END ECHCONFIG-----\n", "broken base64"),
        (_pem("PRIVATE KEY", bytes.fromhex(_ED25519)) + _pem("ECHCONFIG", write_configs(made().configs)), "neither"),
        (_pem("PRIVATE KEY", b"\x30\x03\x02\x01\x05") + _pem("ECHCONFIG", write_configs(made().configs)), "version"),
        (_pem("PRIVATE KEY", b"\x30\x80") + _pem("ECHCONFIG", write_configs(made().configs)), "length"),
    ],
)
def test_what_cannot_be_read(text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        read_file(text.encode(), "the file")
    assert "the file" in str(caught.value)


@pytest.mark.clause("RFC 9934 3")
def test_a_private_key_of_another_configuration() -> None:
    mixed = replace(made(1), configs=made(2).configs)
    with pytest.raises(ConfigurationError, match="none of the configurations"):
        mixed.keys(ENGINE, "file")
    with pytest.raises(ConfigurationError, match="no private key"):
        EchFile(made().configs).keys(ENGINE, "file")
    with pytest.raises(ConfigurationError, match="file: this is no private key"):
        replace(made(kem=Kem.P256_HKDF_SHA256), private=b"\xff" * 32).keys(ENGINE, "file")


def test_which_configurations_are_told() -> None:
    files = [(write_pem(made(seed)).encode(), f"file {seed}") for seed in (1, 2, 3)]
    keys = load_keys(ENGINE, files[:2], files[2:], trial=False)
    assert [key.config for key in keys.keys] == [made(seed).configs[0] for seed in (1, 2, 3)]
    assert list(keys.retry) == [made(seed).configs[0] for seed in (1, 2)]
    for wrong in ((), keys.keys * 22):
        with pytest.raises(ConfigurationError, match="1 to 64 keys"):
            EchKeys(wrong, keys.retry)
    with pytest.raises(ConfigurationError, match="must be current"):
        EchKeys(keys.keys, ())
    padded = replace(keys.retry[0], extensions=((1, bytes(9000)),))
    assert EchKeys(keys.keys, (padded,))
    with pytest.raises(ConfigurationError, match="at most 16384 bytes"):
        EchKeys(keys.keys, (padded, padded))


@pytest.mark.parametrize("name", ["", "192.0.2.1", "a b", "-a", "ä.example", "a" * 300])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ConfigurationError, match="not a host name"):
        generate(ENGINE, seeded(1), name)


@pytest.mark.parametrize("numbers", [{"config_id": 256}, {"config_id": -1}, {"maximum_name_length": 256}])
def test_numbers_out_of_range(numbers: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="0 to 255"):
        generate(ENGINE, seeded(1), "a.example", **numbers)  # type: ignore[arg-type]


def test_keys_and_ids_are_random() -> None:
    first, second = made(1), made(2)
    assert first.private != second.private
    assert len({made(seed).configs[0].config_id for seed in range(20)}) > 10
    assert generate(ENGINE, seeded(1), "a.example", config_id=9).configs[0].config_id == 9


@pytest.mark.clause("RFC 9849 6.2.2")
def test_a_new_configuration_has_something_to_ignore() -> None:
    for seed in range(20):
        ((kind, _),) = made(seed).configs[0].extensions
        assert kind & 0x0F0F == 0x0A0A and kind < 0x8000
