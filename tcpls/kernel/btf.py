"""A strict reader of BTF, the type information inside a BPF object, for objects that come from somebody else.

The format is the one that the kernel documents in Documentation/bpf/btf.rst. What libbpf takes on trust is checked
here: every reference stays inside the table, every name inside the strings, no type contains itself.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAGIC = 0xEB9F
# Deeper nesting than this exists in no sane program; it bounds recursion here and in libbpf.
MAX_DEPTH = 16
MAX_TYPES = 4096
MAX_NAME = 128
MAX_BYTES = 1 << 28

_PRINTABLE = re.compile(rb"[ -~]*\Z")
_ACCESS = re.compile(r"\d{1,5}(:\d{1,5}){0,15}\Z")


class BtfError(ValueError):
    """The type information breaks a rule of its format."""


class Kind(enum.IntEnum):
    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


MODIFIERS = frozenset({Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG})
_REFERENCES = MODIFIERS | {Kind.PTR, Kind.FUNC, Kind.VAR, Kind.DECL_TAG, Kind.FUNC_PROTO}
_MAY_BE_VOID = MODIFIERS | {Kind.PTR, Kind.FUNC_PROTO}
_NAMED = frozenset(
    {Kind.INT, Kind.FWD, Kind.TYPEDEF, Kind.FUNC, Kind.VAR, Kind.DATASEC, Kind.FLOAT, Kind.DECL_TAG, Kind.TYPE_TAG}
)
_NAMELESS = frozenset({Kind.PTR, Kind.ARRAY, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.FUNC_PROTO})
_FLAGGED = frozenset({Kind.STRUCT, Kind.UNION, Kind.FWD, Kind.ENUM, Kind.ENUM64})
_SIZED = frozenset({Kind.INT, Kind.PTR, Kind.ARRAY, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.FLOAT, Kind.ENUM64})


@dataclass(frozen=True, slots=True)
class Part:
    """A member of a structure, a parameter of a prototype, or a variable of a data section.

    `offset` and `size` are in bits for members (`size` 0 unless it is a bit-field) and in bytes for variables.
    """

    name: str
    type_id: int
    offset: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Type:
    kind: Kind
    name: str
    size: int = 0
    target: int = 0
    linkage: int = 0
    count: int = 0
    parts: tuple[Part, ...] = ()


VOID = Type(Kind.VOID, "")


class _Strings:
    def __init__(self, data: bytes) -> None:
        if not data or data[0] or data[-1]:
            raise BtfError("the string table does not begin and end with a null byte")
        self._data = data

    def at(self, offset: int, *, most: int = MAX_NAME) -> str:
        if offset >= len(self._data):
            raise BtfError("a name lies outside the string table")
        end = self._data.find(b"\0", offset, offset + most + 1)
        if end < 0:
            raise BtfError("a name is too long")
        name = self._data[offset:end]
        if not _PRINTABLE.match(name):
            raise BtfError("a name has characters that are not printable ASCII")
        return name.decode("ascii")

    def inside(self, offset: int) -> bool:
        return offset < len(self._data)


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        return self._at < len(self._data)

    def take(self, layout: struct.Struct) -> tuple[int, ...]:
        start = self._at
        if start + layout.size > len(self._data):
            raise BtfError("a type ends behind the type section")
        self._at = start + layout.size
        return layout.unpack_from(self._data, start)


_HEAD = struct.Struct("<III")
_ONE = struct.Struct("<I")
_TWO = struct.Struct("<II")
_THREE = struct.Struct("<III")


class Btf:
    """The types of one object. Type 0 is void."""

    def __init__(self, data: bytes) -> None:
        if len(data) < 24:
            raise BtfError("the header is incomplete")
        magic, version, flags, header, type_at, type_size, string_at, string_size = struct.unpack_from(
            "<HBBIIIII", data
        )
        if (magic, version, flags, header) != (MAGIC, 1, 0, 24):
            raise BtfError("the header is not one of version 1")
        if type_at != 0 or string_at != type_size or 24 + string_at + string_size != len(data):
            raise BtfError("types and strings do not fill the section")
        self.strings = _Strings(data[24 + string_at :])
        self.types: list[Type] = [VOID]
        cursor = _Cursor(data[24 : 24 + type_size])
        while cursor.more:
            if len(self.types) > MAX_TYPES:
                raise BtfError("too many types")
            self.types.append(self._read_type(cursor))
        self._check_references()
        self._sizes = self._measure()

    def resolve(self, type_id: int) -> Type:
        """The type behind typedefs and qualifiers."""
        kind = self.types[type_id]
        while kind.kind in MODIFIERS:
            kind = self.types[kind.target]
        return kind

    def size_of(self, type_id: int) -> int:
        """In bytes; 0 for what has no size."""
        return self._sizes[type_id]

    def all_of(self, kind: Kind) -> Iterator[Type]:
        return (entry for entry in self.types if entry.kind is kind)

    def _read_type(self, cursor: _Cursor) -> Type:
        name_at, info, size = cursor.take(_HEAD)
        try:
            kind = Kind(info >> 24 & 0x1F)
        except ValueError:
            raise BtfError("a type of unknown kind") from None
        count, flag = info & 0xFFFF, bool(info >> 31)
        if kind is Kind.VOID or info & 0x60FF0000 or (flag and kind not in _FLAGGED):
            raise BtfError("a type with a malformed header")
        name = self.strings.at(name_at)
        if (kind in _NAMED and not name) or (kind in _NAMELESS and name):
            raise BtfError(f"a {kind.name.lower()} with a wrong name")
        return self._read_body(cursor, kind, name, count, size, flag)

    def _read_body(self, cursor: _Cursor, kind: Kind, name: str, count: int, size: int, flag: bool) -> Type:
        if kind in (Kind.STRUCT, Kind.UNION):
            return Type(kind, name, size=size, parts=tuple(self._member(cursor, flag) for _ in range(count)))
        if kind is Kind.FUNC_PROTO:
            pairs = [cursor.take(_TWO) for _ in range(count)]
            return Type(kind, name, target=size, parts=tuple(Part(self.strings.at(at), ref) for at, ref in pairs))
        if kind is Kind.DATASEC:
            variables = [cursor.take(_THREE) for _ in range(count)]
            return Type(kind, name, size=size, parts=tuple(Part("", ref, at, length) for ref, at, length in variables))
        if kind in (Kind.ENUM, Kind.ENUM64):
            for _ in range(count):
                self.strings.at(cursor.take(_TWO if kind is Kind.ENUM else _THREE)[0])
            return Type(kind, name, size=size)
        if kind is Kind.FUNC:
            return Type(kind, name, target=size, linkage=count)
        if count:
            raise BtfError(f"a {kind.name.lower()} with members")
        if kind is Kind.ARRAY:
            element, index, length = cursor.take(_THREE)
            return Type(kind, name, target=element, linkage=index, count=length)
        if kind is Kind.INT:
            bits = cursor.take(_ONE)[0]
            if bits & 0xF0FFFF00 or not 0 < bits & 0xFF <= size * 8 or size not in (1, 2, 4, 8, 16):
                raise BtfError("an integer of impossible size")
            return Type(kind, name, size=size)
        if kind is Kind.VAR:
            return Type(kind, name, target=size, linkage=cursor.take(_ONE)[0])
        if kind is Kind.DECL_TAG:
            cursor.take(_ONE)
        if kind in _REFERENCES:
            return Type(kind, name, target=size)
        return Type(kind, name, size=size)

    def _member(self, cursor: _Cursor, bit_fields: bool) -> Part:
        name_at, type_id, offset = cursor.take(_THREE)
        if bit_fields:
            return Part(self.strings.at(name_at), type_id, offset & 0xFFFFFF, offset >> 24)
        return Part(self.strings.at(name_at), type_id, offset)

    def _check_references(self) -> None:
        for entry in self.types[1:]:
            if entry.kind in _REFERENCES:
                self._check_reference(entry.target, void=entry.kind in _MAY_BE_VOID)
            for part in entry.parts:
                self._check_reference(part.type_id, void=entry.kind is Kind.FUNC_PROTO)
            if entry.kind is Kind.ARRAY:
                self._check_reference(entry.target)
                self._check_reference(entry.linkage)
            target = self.types[entry.target].kind
            if entry.kind is Kind.FUNC and (target is not Kind.FUNC_PROTO or entry.linkage > 2):
                raise BtfError("a function without a prototype")
            if entry.kind is Kind.VAR and (target in (Kind.FUNC, Kind.FUNC_PROTO, Kind.VAR) or entry.linkage > 2):
                raise BtfError("a variable of a kind that has no value")
            if entry.kind is Kind.DATASEC:
                for part in entry.parts:
                    if self.types[part.type_id].kind not in (Kind.VAR, Kind.FUNC):
                        raise BtfError("a data section with something that is no variable")

    def _check_reference(self, type_id: int, *, void: bool = False) -> None:
        if type_id >= len(self.types) or (type_id == 0 and not void):
            raise BtfError("a type refers to one that does not exist")

    def _contained(self, entry: Type) -> tuple[int, ...]:
        """The types whose size is part of this one's."""
        if entry.kind in MODIFIERS or entry.kind in (Kind.ARRAY, Kind.VAR):
            return (entry.target,)
        if entry.kind in (Kind.STRUCT, Kind.UNION):
            return tuple(part.type_id for part in entry.parts)
        return ()

    def _measure(self) -> list[int]:
        """Sizes of all types, innermost first. Raises for a type that contains itself."""
        sizes: dict[int, int] = {}
        depths: dict[int, int] = {}

        def measure(type_id: int, outer: int) -> int:
            """Fills in the size of one type and gives the depth of its nesting."""
            if type_id not in depths:
                entry = self.types[type_id]
                if outer >= MAX_DEPTH:
                    raise BtfError("types are nested too deeply, or one contains itself")
                depths[type_id] = 1 + max((measure(inner, outer + 1) for inner in self._contained(entry)), default=0)
                if depths[type_id] > MAX_DEPTH:
                    raise BtfError("types are nested too deeply")
                sizes[type_id] = self._size(entry, sizes.__getitem__)
            return depths[type_id]

        for type_id in range(len(self.types)):
            measure(type_id, 0)
        return [sizes[type_id] for type_id in range(len(self.types))]

    def _size(self, entry: Type, size_of: Callable[[int], int]) -> int:
        if entry.kind is Kind.PTR:
            return 8
        if entry.kind is Kind.ARRAY:
            if self.resolve(entry.target).kind not in _SIZED:
                raise BtfError("an array of something without a size")
            size = entry.count * size_of(entry.target)
        elif entry.kind in MODIFIERS or entry.kind is Kind.VAR:
            size = size_of(entry.target)
        else:
            size = entry.size if entry.kind in _SIZED else 0
        if size > MAX_BYTES:
            raise BtfError("a type of impossible size")
        if entry.kind in (Kind.STRUCT, Kind.UNION):
            for part in entry.parts:
                if self.resolve(part.type_id).kind not in _SIZED:
                    raise BtfError("a member without a size")
                if part.offset + (part.size or 8 * size_of(part.type_id)) > 8 * size:
                    raise BtfError("a member lies outside its structure")
        return size


def check_extension(data: bytes, btf: Btf, code: dict[str, int]) -> None:
    """Checks .BTF.ext: function, line and relocation records. `code` has the size of each section with instructions.

    Raises `BtfError`.
    """
    if len(data) < 24:
        raise BtfError("the extension's header is incomplete")
    magic, version, flags, header = struct.unpack_from("<HBBI", data)
    if (magic, version, flags) != (MAGIC, 1, 0) or header not in (24, 32) or header > len(data):
        raise BtfError("the extension's header is not one of version 1")
    checks = (_check_function, _check_line, _check_relocation)
    sizes = (8, 16, 16)
    end = 0
    for kind in range(header // 8 - 1):
        offset, length = struct.unpack_from("<II", data, 8 + 8 * kind)
        if offset != end or header + offset + length > len(data):
            raise BtfError("the extension's parts do not follow one another")
        end = offset + length
        part = data[header + offset : header + end]
        for record, size in _records(part, sizes[kind], btf, code):
            checks[kind](record, size, btf)
    if header + end != len(data):
        raise BtfError("bytes behind the extension's last part")


def _records(data: bytes, record_size: int, btf: Btf, code: dict[str, int]) -> Iterator[tuple[tuple[int, ...], int]]:
    """Each record of one part, with the size of the section that it is about."""
    if not data:
        return
    if len(data) < 4 or struct.unpack_from("<I", data)[0] != record_size:
        raise BtfError("the extension has records of unknown size")
    layout = struct.Struct(f"<{record_size // 4}I")
    at, seen = 4, set()
    while at < len(data):
        if at + 8 > len(data):
            raise BtfError("the extension ends inside a section's head")
        name_at, count = struct.unpack_from("<II", data, at)
        name = btf.strings.at(name_at)
        at += 8
        if name not in code or name in seen or not count or at + count * record_size > len(data):
            raise BtfError("the extension describes a section that is not there")
        seen.add(name)
        previous = -1
        for _ in range(count):
            record = layout.unpack_from(data, at)
            at += record_size
            if record[0] % 8 or record[0] >= code[name] or record[0] < previous:
                raise BtfError("the extension describes an instruction that is not there")
            previous = record[0]
            yield record, code[name]


def _check_function(record: tuple[int, ...], size: int, btf: Btf) -> None:
    if not 0 < record[1] < len(btf.types) or btf.types[record[1]].kind is not Kind.FUNC:
        raise BtfError("a function record without a function")


def _check_line(record: tuple[int, ...], size: int, btf: Btf) -> None:
    if not btf.strings.inside(record[1]) or not btf.strings.inside(record[2]):
        raise BtfError("a line record outside the strings")


def _check_relocation(record: tuple[int, ...], size: int, btf: Btf) -> None:
    _, type_id, access_at, kind = record
    if not 0 < type_id < len(btf.types) or kind > 12:
        raise BtfError("a relocation of an unknown type")
    if not _ACCESS.match(btf.strings.at(access_at)):
        raise BtfError("a relocation with a malformed access path")
