"""DER: one encoding of everything, and a `DerError` for any other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tcpls.tls.x509.der import OCTET_STRING, SEQUENCE, Der, DerError
from tests.der_writer import bits, boolean, integer, oid, sequence, tlv


def read(data: bytes, what: Callable[[Der], object]) -> object:
    reader = Der(data)
    value = what(reader)
    reader.end()
    return value


@pytest.mark.parametrize("size", [0, 1, 0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 0x10000])
def test_lengths(size: int) -> None:
    assert read(tlv(OCTET_STRING, bytes(size)), lambda reader: reader.take(OCTET_STRING)) == bytes(size)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x04",
        b"\x04\x01",
        b"\x04\x80\x00\x00",  # indefinite
        b"\x04\x81\x01a",  # longer than needed
        b"\x04\x82\x00\x80" + bytes(128),
        b"\x04\x82\x00",
        b"\x04\x84\x00\x00\x00\x01a",
        b"\x04\x83\x01\x00\x00" + bytes(100),
        b"\x04\xff" + bytes(200),
        b"\x1f\x04\x01a",  # a tag of several bytes
    ],
)
def test_what_is_no_element(data: bytes) -> None:
    with pytest.raises(DerError):
        Der(data).any()


def test_shape() -> None:
    reader = Der(sequence(integer(5), tlv(0xA0, b"x")))
    with pytest.raises(DerError, match="tag"):
        reader.take(OCTET_STRING)
    inner = reader.sub()
    assert (inner.optional(0xA0), inner.integer(), inner.optional(0xA0), inner.tag) == (None, 5, b"x", None)
    inner.end()
    with pytest.raises(DerError):
        inner.any()
    with pytest.raises(DerError, match="belong to nothing"):
        Der(b"\x05\x00").end()
    whole = tlv(SEQUENCE, integer(1))
    assert Der(whole + b"more").whole(SEQUENCE) == whole


@given(st.integers(-(1 << 2100), 1 << 2100))
@example(-128)
@example(128)
@example(-(1 << 15))
def test_integers(value: int) -> None:
    assert read(integer(value), Der.integer) == value


@pytest.mark.parametrize("contents", ["", "0000", "007f", "ffff", "ff80", "00" + "01" * 5])
def test_integers_that_are_not_the_shortest(contents: str) -> None:
    with pytest.raises(DerError):
        Der(tlv(2, bytes.fromhex(contents))).integer()


def test_booleans() -> None:
    assert [read(boolean(value), Der.boolean) for value in (True, False)] == [True, False]
    assert read(boolean(True), Der.flag) is True
    assert Der(b"").flag() is False
    assert Der(integer(1)).flag() is False
    for contents in (b"", b"\x01", b"\xff\xff"):
        with pytest.raises(DerError):
            Der(tlv(1, contents)).boolean()
    with pytest.raises(DerError, match="default"):
        Der(boolean(False)).flag()


def test_bit_strings() -> None:
    assert read(bits(b"ab"), Der.bytes_of_bits) == b"ab"
    assert read(bits(b""), Der.bytes_of_bits) == b""
    assert read(bits(b"\xa0", 5), Der.named_bits) == {0, 2}
    assert read(bits(b"\x00\x80", 7), Der.named_bits) == {8}
    assert read(bits(b""), Der.named_bits) == set()
    for contents in (b"", b"\x01a"):
        with pytest.raises(DerError):
            Der(tlv(3, contents)).bytes_of_bits()
    for wrong in ("", "01", "08ff", "0080", "07c0", "050000", "0580" + "ff" * 1000):
        with pytest.raises(DerError):
            Der(tlv(3, bytes.fromhex(wrong))).named_bits()


@given(st.integers(0, 1), st.integers(0, 39), st.lists(st.integers(0, 1 << 60), max_size=3))
def test_object_identifiers(first: int, second: int, rest: list[int]) -> None:
    for dotted in (".".join(map(str, (first, second, *rest))), ".".join(map(str, (2, second + 1000, *rest)))):
        assert read(oid(dotted), Der.oid) == dotted


@pytest.mark.parametrize("contents", ["", "80", "8001", "2a80", "2a8001", "2a" * 41])
def test_what_is_no_object_identifier(contents: str) -> None:
    with pytest.raises(DerError):
        Der(tlv(6, bytes.fromhex(contents))).oid()


@given(st.binary(max_size=60), st.sampled_from([Der.any, Der.sub, Der.flag, Der.integer, Der.named_bits, Der.oid]))
def test_any_bytes(data: bytes, read_one: Callable[[Der], object]) -> None:
    try:
        read_one(Der(data))
    except DerError:
        return
