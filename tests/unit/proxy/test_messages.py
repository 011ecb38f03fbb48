"""The opening and its answer, and what a target is."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpls.errors import PeerError, Reason
from tcpls.proxy.message import Answer, Code, TargetRefused, read_open, write_open
from tcpls.proxy.target import Target

label = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?", fullmatch=True)
names = st.lists(label, min_size=1, max_size=8).map(".".join)
hosts = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6), names)
ports = st.integers(1, 65535)


@given(hosts, ports)
def test_what_is_written_is_read(host: str | IPv4Address | IPv6Address, port: int) -> None:
    target = Target.of(host, port)
    assert read_open(write_open(target)) == target
    assert Target.parse(str(target)) == target


@given(st.sampled_from(Code), st.text(max_size=300))
def test_an_answer_is_read_as_far_as_it_fits(code: Code, text: str) -> None:
    data = Answer(code, text).write()
    assert len(data) == 3 + data[2]
    read = Answer.read(data)
    assert read.code is code
    if len(text.encode()) <= 255 and text.isprintable():
        assert read.text == text
    assert read.text.isprintable()


def test_the_bytes_of_the_page() -> None:
    """Those that docs/proxy.md shows."""
    assert write_open(Target.of("db.internal", 5432)).hex(" ") == "01 03 0b 64 62 2e 69 6e 74 65 72 6e 61 6c 15 38"
    assert write_open(Target.of("192.0.2.7", 22)).hex(" ") == "01 01 04 c0 00 02 07 00 16"
    assert Answer(Code.CONNECTED).write().hex(" ") == "01 00 00"
    assert Answer(Code.REFUSED, "no").write().hex(" ") == "01 05 02 6e 6f"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("Example.ORG.", "example.org"),
        ("127.0.0.1", IPv4Address("127.0.0.1")),
        ("2001:db8::1", IPv6Address("2001:db8::1")),
        (IPv6Address("::ffff:127.0.0.1"), IPv4Address("127.0.0.1")),
        ("::ffff:127.0.0.1", IPv4Address("127.0.0.1")),
        # Names, however much they look like addresses: the resolver may take them for one, and what it says is judged.
        ("127.1", "127.1"),
        ("0x7f000001", "0x7f000001"),
    ],
)
def test_a_host_is_what_it_means(said: str | IPv6Address, meant: object) -> None:
    assert Target.of(said, 1).host == meant


BAD_NAMES = [
    "",
    ".",
    "a..b",
    "-a",
    "a-",
    "a b",
    "a\0b",
    "a\nb",
    "a/b",
    "fe80::1%eth0",
    "ä.example",
    "a" * 64,
    "a." * 127 + "a",
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=range(len(BAD_NAMES)))
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(PeerError) as refused:
        Target.of(name, 1)
    assert refused.value.reason is Reason.BAD_VALUE


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.TRUNCATED),
        (b"\1\1\4\x7f\0\0\1\0", Reason.TRUNCATED),
        (b"\1\1\4\x7f\0\0\1\0\1x", Reason.TRAILING_BYTES),
        (b"\2\1\4\x7f\0\0\1\0\1", Reason.BAD_VALUE),
        (b"\1\1\3\x7f\0\0\0\1", Reason.BAD_LENGTH),
        (b"\1\4\4\x7f\0\0\1\0\1", Reason.BAD_LENGTH),
        (b"\1\1\0\0\1", Reason.BAD_LENGTH),
        (b"\1\3\1a\0\0", Reason.BAD_VALUE),
        (b"\1\3\1\xff\0\1", Reason.BAD_VALUE),
        (b"\1\3\xff" + b"a" * 255 + b"\0\1", Reason.BAD_LENGTH),
    ],
)
def test_a_malformed_opening_is_refused(data: bytes, reason: Reason) -> None:
    with pytest.raises(PeerError) as refused:
        read_open(data)
    assert refused.value.reason is reason


def test_an_unknown_type_of_host_has_a_code_of_its_own() -> None:
    with pytest.raises(TargetRefused) as refused:
        read_open(b"\1\2\4\x7f\0\0\1\0\1")
    assert refused.value.code is Code.ADDRESS_TYPE


def test_a_code_that_is_not_known_is_a_failure() -> None:
    assert Answer.read(b"\1\xc8\0").code is Code.FAILED
    with pytest.raises(PeerError):
        Answer.read(b"\2\0\0")


def test_targets_are_written_as_people_do() -> None:
    assert str(Target.of("2001:db8::1", 443)) == "[2001:db8::1]:443"
    assert str(Target.parse("[2001:db8::1]:443")) == "[2001:db8::1]:443"
    for text in ("2001:db8::1:443", "host", "host:", "host:x", "host:0", "host:65536", ":1", ":1"):
        with pytest.raises(PeerError):
            Target.parse(text)
