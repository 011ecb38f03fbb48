"""ECHConfigList: what does not parse, what a client ignores, and what it chooses."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from tcpls.errors import Alert, PeerError, Reason
from tcpls.tls.ech.configs import EchConfig, choose_config, is_public_name, read_configs, write_configs
from tcpls.tls.hpke import AeadId, HpkeSuite, Kdf, Kem
from tests.unit.tls.pair import refused

CONFIG = EchConfig(7, Kem.X25519_HKDF_SHA256, bytes(range(32)), ((1, 1), (2, 2)), b"public.example", 20)
WHOLE = write_configs((CONFIG,))

# RFC 9934 figure 1.
PUBLISHED = "AD7+DQA65wAgACA8wVN2BtscOl3vQheUzHeIkVmKIiydUhDCliA4iyQRCwAEAAEAAQALZXhhbXBsZS5jb20AAA=="


def test_a_published_list() -> None:
    contents = base64.b64decode(PUBLISHED)
    (config,) = read_configs(contents)
    assert (config.config_id, config.kem, config.name) == (231, Kem.X25519_HKDF_SHA256, "example.com")
    assert config.suites == ((Kdf.HKDF_SHA256, AeadId.AES_128_GCM),)
    assert config.unusable == ""
    assert write_configs((config,)) == contents


def test_a_name_for_people_holds_nothing_that_a_terminal_would_obey() -> None:
    """A configuration is looked at before anybody knows whose it is."""
    config = replace(CONFIG, public_name=b"a\x1b]0;title\x07\xff.example")
    assert config.name == r"a\x1b]0;title\x07\xff.example"
    assert CONFIG.name == "public.example"


@pytest.mark.clause("RFC 9849 4")
def test_other_versions_are_ignored() -> None:
    unknown = b"\xfe\x0a\x00\x03abc"
    contents = (len(WHOLE) - 2 + len(unknown)).to_bytes(2, "big") + unknown + WHOLE[2:]
    assert read_configs(contents) == (CONFIG,)
    assert read_configs(b"\x00\x07" + unknown) == ()


def _cut(at: int) -> bytes:
    """The list without its last bytes, with lengths that agree."""
    body = WHOLE[6:at]
    entry = WHOLE[2:4] + len(body).to_bytes(2, "big") + body
    return len(entry).to_bytes(2, "big") + entry


@pytest.mark.clause("RFC 9849 6.1.6")
@pytest.mark.parametrize("at", range(6, len(WHOLE)))
def test_a_configuration_that_is_cut_off(at: int) -> None:
    with pytest.raises(PeerError) as caught:
        read_configs(_cut(at))
    assert caught.value.alert is Alert.DECODE_ERROR


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (b"", Reason.TRUNCATED),
        (b"\x00\x00", Reason.BAD_LENGTH),
        (b"\x00\x03abc", Reason.BAD_LENGTH),
        (WHOLE + b"\0", Reason.TRAILING_BYTES),
        (WHOLE[:-1], Reason.TRUNCATED),
        (write_configs((replace(CONFIG, public_key=b""),)), Reason.BAD_LENGTH),
        (write_configs((replace(CONFIG, public_name=b""),)), Reason.BAD_LENGTH),
        (write_configs((replace(CONFIG, suites=()),)), Reason.BAD_LENGTH),
    ],
)
def test_what_is_no_list(contents: bytes, reason: Reason) -> None:
    with pytest.raises(PeerError) as caught:
        read_configs(contents)
    refused(caught.value, reason, Alert.DECODE_ERROR)


@pytest.mark.clause("RFC 9849 4", "RFC 9849 4.2", "RFC 9849 6.1")
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"kem": 0x0021}, "KEM"),
        ({"suites": ((3, 1), (1, 0xFFFF))}, "suite"),
        ({"public_key": bytes(31)}, "key"),
        ({"kem": Kem.P256_HKDF_SHA256}, "key"),
        ({"extensions": ((0x8A8A, b""),)}, "mandatory"),
        ({"extensions": ((0x0A0A, b""), (0x0A0A, b"x"))}, "twice"),
        ({"public_name": b"192.0.2.1"}, "host name"),
    ],
)
def test_what_is_ignored(changes: dict[str, object], why: str) -> None:
    other = replace(CONFIG, **changes)  # type: ignore[arg-type]
    assert why in other.unusable
    assert read_configs(write_configs((other,))) == (other,)
    assert choose_config((other,)) is None
    assert choose_config((other, CONFIG)) == (CONFIG, CONFIG.hpke_suites[0])


def test_optional_extensions_are_ignored() -> None:
    config = replace(CONFIG, extensions=((0x1A1A, b"grease"), (0x0000, b"")))
    assert config.unusable == ""


@pytest.mark.clause("RFC 9849 6.1")
def test_the_first_suite_that_is_known() -> None:
    config = replace(CONFIG, suites=((1, 0x7777), (0x7777, 1), (2, 3), (1, 1)))
    suite = HpkeSuite(Kem.X25519_HKDF_SHA256, Kdf.HKDF_SHA384, AeadId.CHACHA20_POLY1305)
    assert choose_config((config,)) == (config, suite)


@pytest.mark.clause("RFC 9849 6.1.7")
@pytest.mark.parametrize(
    "name", [b"a", b"public.example", b"A-1.x0", b"1.2.3.4a", b"xn--a.b", b"a" * 63 + b".de", b"x0"]
)
def test_public_names(name: bytes) -> None:
    assert is_public_name(name)


@pytest.mark.clause("RFC 9849 6.1.7")
@pytest.mark.parametrize(
    "name",
    [
        b"", b".a", b"a.", b"a..b", b"-a.b", b"a-.b", b"a_b.c", b"a b", b"\xc3\xa4.de", b"a" * 64 + b".de",
        b"1.2.3.4", b"a.1", b"a.0x", b"a.0Xff", b"0x7f000001", b"[::1]", b"a.b\n", b"a\0.b", b".".join([b"a" * 63] * 4),
    ],
)  # fmt: skip
def test_what_is_no_public_name(name: bytes) -> None:
    assert not is_public_name(name)
