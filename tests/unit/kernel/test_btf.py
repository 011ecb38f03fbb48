"""The strict reader of type information, on hand-made tables."""

from __future__ import annotations

import struct

import pytest

from tcpls.kernel.btf import MAX_DEPTH, Btf, BtfError, Kind, check_extension

NAMES = b"\0int\0pair\0first\0second\0alias\0f\0struct_ops/x\0000:1\0" + b"long" * 40 + b"\0"


def name(text: str) -> int:
    return NAMES.index(b"\0" + text.encode() + b"\0") + 1 if text else 0


def entry(kind: Kind, text: str, size: int, count: int = 0, tail: bytes = b"", flag: int = 0) -> bytes:
    return struct.pack("<III", name(text), flag << 31 | kind << 24 | count, size) + tail


def table(*entries: bytes, names: bytes = NAMES) -> bytes:
    types = b"".join(entries)
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names)) + types + names


INT = entry(Kind.INT, "int", 4, tail=struct.pack("<I", 1 << 24 | 32))


def member(text: str, type_id: int, offset: int) -> bytes:
    return struct.pack("<III", name(text), type_id, offset)


def test_sizes_and_members() -> None:
    pair = entry(Kind.STRUCT, "pair", 8, 2, member("first", 1, 0) + member("second", 1, 32))
    array = entry(Kind.ARRAY, "", 0, tail=struct.pack("<III", 4, 1, 3))
    btf = Btf(table(INT, pair, array, entry(Kind.TYPEDEF, "alias", 2), entry(Kind.PTR, "", 2)))
    assert [btf.size_of(number) for number in range(6)] == [0, 4, 8, 24, 8, 8]
    assert btf.resolve(4).name == "pair"
    assert [part.offset for part in btf.types[2].parts] == [0, 32]


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([entry(Kind.TYPEDEF, "alias", 1)], "contains itself"),
        ([entry(Kind.CONST, "", 2), entry(Kind.VOLATILE, "", 1)], "contains itself"),
        ([entry(Kind.STRUCT, "pair", 8, 1, member("first", 1, 0))], "contains itself"),
        ([entry(Kind.ARRAY, "", 0, tail=struct.pack("<III", 1, 2, 3)), INT], "contains itself|without a size"),
        ([entry(Kind.PTR, "", 9)], "does not exist"),
        ([INT, entry(Kind.STRUCT, "pair", 4, 1, member("first", 9, 0))], "does not exist"),
        ([INT, entry(Kind.STRUCT, "pair", 4, 1, member("first", 1, 8))], "outside its structure"),
        ([INT, entry(Kind.FUNC, "f", 1)], "without a prototype"),
        ([INT, entry(Kind.DATASEC, "f", 4, 1, struct.pack("<III", 1, 0, 4))], "no variable"),
        ([entry(Kind.INT, "", 4, tail=struct.pack("<I", 32))], "wrong name"),
        ([entry(Kind.INT, "int", 4, tail=struct.pack("<I", 64))], "impossible size"),
        ([entry(Kind.INT, "int", 4, 1, tail=struct.pack("<I", 32))], "with members"),
        ([INT, entry(Kind.PTR, "alias", 1)], "wrong name"),
        ([entry(Kind.PTR, "", 0, flag=1)], "malformed header"),
        ([struct.pack("<III", 0, 31 << 24, 0)], "unknown kind"),
        ([struct.pack("<III", 1 << 20, 2 << 24, 0)], "outside the string table"),
        ([struct.pack("<III", name("0:1") + 4, 8 << 24, 0)], "too long"),
        ([INT[:-1]], "ends behind"),
        ([entry(Kind.PTR, "", 0)] * 5000, "too many types"),
        (
            [INT] + [entry(Kind.ARRAY, "", 0, tail=struct.pack("<III", n, 1, 60000)) for n in range(1, 4)],
            "impossible size",
        ),
    ],
)
def test_broken_tables_are_refused(entries: list[bytes], why: str) -> None:
    with pytest.raises(BtfError, match=why):
        Btf(table(*entries))


def test_nesting_is_bounded_whatever_the_order_of_types() -> None:
    forward = [entry(Kind.CONST, "", number + 2) for number in range(MAX_DEPTH)]
    backward = [entry(Kind.CONST, "", number + 1) for number in range(MAX_DEPTH)]
    for entries in ([*forward, INT], [INT, *backward]):
        with pytest.raises(BtfError, match="too deeply"):
            Btf(table(*entries))
    Btf(table(INT, *backward[: MAX_DEPTH - 2]))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "incomplete"),
        (table(INT)[:-1], "do not fill"),
        (table(INT) + b"\0", "do not fill"),
        (b"\xeb\x9f" + table(INT)[2:], "version 1"),
        (table(INT, names=b"\0int"), "null byte"),
        (table(INT, names=b"int\0"), "null byte"),
        (table(INT, names=b"\0i\x01t\0"), "printable"),
    ],
)
def test_broken_headers_and_strings_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(BtfError, match=why):
        Btf(data)


FUNCTION = [INT, entry(Kind.FUNC_PROTO, "", 1), entry(Kind.FUNC, "f", 2)]
CODE = {"struct_ops/x": 16}


def extension(*parts: bytes, header: int = 32) -> bytes:
    places, at = b"", 0
    for part in parts:
        places += struct.pack("<II", at, len(part))
        at += len(part)
    return (struct.pack("<HBBI", 0xEB9F, 1, 0, header) + places).ljust(header, b"\0") + b"".join(parts)


def records(size: int, *words: int, section: str = "struct_ops/x", count: int = 1) -> bytes:
    return struct.pack(f"<III{len(words)}I", size, name(section), count, *words)


GOOD = (records(8, 0, 3), records(16, 0, 1, 1, 0), records(16, 8, 1, name("0:1"), 0))


def test_a_good_extension_passes() -> None:
    check_extension(extension(*GOOD), Btf(table(*FUNCTION)), CODE)


@pytest.mark.parametrize(
    ("part", "replacement", "why"),
    [
        (0, records(8, 0, 2), "without a function"),
        (0, records(8, 0, 99), "without a function"),
        (0, records(12, 0, 3, 0), "unknown size"),
        (0, records(8, 4, 3), "instruction that is not there"),
        (0, records(8, 16, 3), "instruction that is not there"),
        (0, records(8, 0, 3, section="alias"), "section that is not there"),
        (0, records(8, 0, 3, count=2), "section that is not there"),
        (0, records(8, 0, 3, count=0), "section that is not there"),
        (1, records(16, 0, 1 << 20, 1, 0), "outside the strings"),
        (2, records(16, 0, 99, name("0:1"), 0), "unknown type"),
        (2, records(16, 0, 1, name("0:1"), 99), "unknown type"),
        (2, records(16, 0, 1, name("alias"), 0), "malformed access path"),
    ],
)
def test_broken_extensions_are_refused(part: int, replacement: bytes, why: str) -> None:
    parts = [*GOOD]
    parts[part] = replacement
    with pytest.raises(BtfError, match=why):
        check_extension(extension(*parts), Btf(table(*FUNCTION)), CODE)


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 24, extension(*GOOD)[:-4], extension(*GOOD) + b"\0", extension(header=28)]
)
def test_broken_extension_headers_are_refused(data: bytes) -> None:
    with pytest.raises(BtfError):
        check_extension(data, Btf(table(*FUNCTION)), CODE)
