"""Reading a BPF object that comes from somebody else, and refusing it unless every part of it is expected.

Nothing here touches the kernel. An object that passes holds one congestion controller, no other kind of program, calls
only what `bpf_code` lists, and is formed well enough that libbpf may be given it: libbpf itself is not made for objects
from strangers. What this check cannot see (which kernel memory a typed pointer reaches) is `verifier_types`' part.
"""

from __future__ import annotations

import io
import itertools
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from elftools.elf.elffile import ELFFile

from tcpls.errors import ProgramRefused
from tcpls.kernel import bpf_code
from tcpls.kernel.bpf_code import Code, CodeError
from tcpls.kernel.btf import Btf, BtfError, Kind, Part, Type, check_extension

MAX_SIZE = 128 * 1024
MAX_SECTIONS = 64
MAX_INSTRUCTIONS = 4096
MAX_DATA = 16 * 1024
MAX_MAPS = 8
STAGE = "static check"

# The licences under which the kernel lets a program call GPL-only helpers.
LICENSES = frozenset({"GPL", "GPL v2", "Dual BSD/GPL", "Dual MIT/GPL"})

MEMBERS = frozenset(
    {"ssthresh", "undo_cwnd", "cong_avoid", "cong_control", "init", "release", "set_state", "cwnd_event"}
    | {"in_ack_event", "pkts_acked", "min_tso_segs", "sndbuf_expand"}
)
NEEDS_ECN = 2
ARGUMENTS_CONSTANT = "tcpls_cong_control_args"

# Section types and flags of the ELF format.
_NULL, _PROGBITS, _SYMTAB, _STRTAB, _NOBITS, _REL, _ADDRSIG = 0, 1, 2, 3, 8, 9, 0x6FFF4C03
_WRITE, _ALLOC, _EXECUTE = 1, 2, 4
_KNOWN_FLAGS = 0x80000000 | 0x40 | 0x20 | 0x10 | _WRITE | _ALLOC | _EXECUTE
_FUNC, _OBJECT, _SECTION = 2, 1, 3
_RELOCATION_64, _RELOCATION_ABS64, _RELOCATION_CALL = 1, 2, 10

_DATA_NAME = re.compile(r"\.(rodata(\.[\w.]{1,40})?|data|bss)\Z")
_PROGRAM_NAME = re.compile(r"struct_ops/\w{1,40}\Z")
_VALID_NAME = re.compile(rb"[A-Za-z0-9_.]{1,15}\0+\Z")


@dataclass(frozen=True, slots=True)
class ProgramFacts:
    """One function of the controller. `instructions` counts slots of 8 bytes."""

    member: str
    function: str
    instructions: int


@dataclass(frozen=True, slots=True)
class MapFacts:
    name: str
    kind: str
    key_size: int
    value_size: int
    max_entries: int


@dataclass(frozen=True, slots=True)
class Places:
    """Where the loader writes into the file: the algorithm's name (16 bytes), its flags, and how many arguments
    cong_control has on this kernel (0: the program does not ask)."""

    name: int
    flags: int
    arguments: int


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What an object that passed the check contains. Sizes are in bytes."""

    name: str
    variable: str
    license: str
    size: int
    needs_ecn: bool
    programs: tuple[ProgramFacts, ...]
    instructions: int
    helpers: tuple[str, ...]
    kfuncs: tuple[str, ...]
    maps: tuple[MapFacts, ...]
    sections: tuple[tuple[str, int], ...]
    places: Places

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(program.member for program in self.programs)


def check_object(image: bytes) -> ObjectFacts:
    """Checks all of `image`. Raises `ProgramRefused` (stage "static check") and nothing else, for any bytes."""
    try:
        return _Object(image).facts()
    except ProgramRefused:
        raise
    except BtfError as error:
        raise _refused(f"type information: {error}") from None
    except CodeError as error:
        raise _refused(f"a program {error}") from None


def _refused(reason: str) -> ProgramRefused:
    return ProgramRefused(reason, stage=STAGE)


def _require(condition: object, reason: str) -> None:
    if not condition:
        raise _refused(reason)


@dataclass(frozen=True, slots=True)
class _Section:
    index: int
    name: str
    kind: int
    flags: int
    offset: int
    data: bytes
    size: int
    link: int
    info: int


@dataclass(frozen=True, slots=True)
class _Symbol:
    name: str
    kind: int
    section: int
    value: int
    size: int
    is_global: bool


def _read_sections(image: bytes) -> list[_Section]:
    """The section table, in bounds, without overlaps. This is the only place where pyelftools sees the bytes."""
    _require(len(image) <= MAX_SIZE, f"larger than {MAX_SIZE} bytes")
    _require(len(image) >= 64 and image[:7] == b"\x7fELF\x02\x01\x01", "not a 64-bit little-endian ELF file")
    kind, machine, version = struct.unpack_from("<HHI", image, 16)
    _require((kind, machine, version) == (1, 247, 1), "not a relocatable BPF object")
    (table,) = struct.unpack_from("<Q", image, 40)
    header_size, _, program_headers, entry_size, count, names = struct.unpack_from("<HHHHHH", image, 52)
    _require(header_size == 64 and not program_headers, "has program headers")
    _require(entry_size == 64 and 1 < count <= MAX_SECTIONS and names < count, "has an impossible section table")
    _require(table % 8 == 0 and table >= 64 and table + 64 * count <= len(image), "its section table lies outside it")
    try:
        elf = ELFFile(io.BytesIO(image))
        names_found = [section.name for section in elf.iter_sections()]
    except Exception as error:  # a parser of others, given hostile bytes: whatever it raises means the same
        raise _refused("not readable as ELF") from error
    spans = [(0, 64), (table, table + 64 * count)]
    sections = [_section(image, index, name, spans) for index, name in enumerate(names_found)]
    spans.sort()
    _require(all(one[1] <= two[0] for one, two in itertools.pairwise(spans)), "has sections that overlap")
    return sections


def _section(image: bytes, index: int, name: str, spans: list[tuple[int, int]]) -> _Section:
    raw = struct.unpack_from("<IIQQQQIIQQ", image, struct.unpack_from("<Q", image, 40)[0] + 64 * index)
    _, kind, flags, address, offset, size, link, info, align, entry = raw
    if index == 0:
        _require(not any(raw), "its first section is not empty")
        return _Section(0, "", _NULL, 0, 0, b"", 0, 0, 0)
    _require(not address and not flags & ~_KNOWN_FLAGS and align in (0, 1, 2, 4, 8, 16, 32), "has a malformed section")
    if kind == _NOBITS:
        _require(size <= MAX_DATA, "has too much data")
        return _Section(index, name, kind, flags, offset, b"", size, link, info)
    _require(offset + size <= len(image), "has a section outside the file")
    _require(entry == {_SYMTAB: 24, _REL: 16}.get(kind, 0), "has a section of unknown format")
    if size:
        spans.append((offset, offset + size))
    return _Section(index, name, kind, flags, offset, image[offset : offset + size], size, link, info)


class _Object:
    """One object under check. Each method checks one subject and relies on those before it in `facts`."""

    def __init__(self, image: bytes) -> None:
        self.image = image
        self.sections = _read_sections(image)
        self.by_name = {section.name: section for section in self.sections[1:]}
        self._check_sections()
        self.symbols = self._read_symbols()
        self.btf = Btf(self._needed(".BTF").data)
        self.programs = [s for s in self.sections if s.flags & _EXECUTE and s.name != ".text"]
        self.code = {s.index: bpf_code.scan(s.data) for s in self.sections if s.flags & _EXECUTE}
        self.relocations = {
            section.info: self._read_relocations(section) for section in self.sections if section.kind == _REL
        }

    def facts(self) -> ObjectFacts:
        extension = self._needed(".BTF.ext")
        code_sizes = {section.name: section.size for section in self.sections if section.flags & _EXECUTE}
        check_extension(extension.data, self.btf, code_sizes)
        functions = self._check_functions()
        kfuncs = self._check_externs()
        self._check_variables()
        table = self._struct_ops_section()
        members, name, flags, name_at = self._read_struct_ops(table, functions)
        maps = self._read_maps()
        for index, code in self.code.items():
            self._check_code(index, code)
        instructions = sum(code.instructions for code in self.code.values())
        _require(instructions <= MAX_INSTRUCTIONS, f"has more than {MAX_INSTRUCTIONS} instructions")
        helpers = {call.helper for code in self.code.values() for call in code.calls if call.helper}
        return ObjectFacts(
            name=name,
            variable=self._variables(table)[0][0].name,
            license=self._license(),
            size=len(self.image),
            needs_ecn=bool(flags & NEEDS_ECN),
            programs=tuple(members),
            instructions=instructions,
            helpers=tuple(bpf_code.HELPERS[helper] for helper in sorted(helpers)),
            kfuncs=tuple(sorted(kfuncs)),
            maps=tuple(maps),
            sections=tuple((section.name, section.size) for section in self.sections[1:] if section.size),
            places=Places(name_at, self._flags_at(table), self._arguments_at()),
        )

    # Sections, symbols, relocations

    def _needed(self, name: str) -> _Section:
        section = self.by_name.get(name)
        if section is None:
            raise _refused(f"has no section {name}")
        return section

    def _check_sections(self) -> None:
        _require(len(self.by_name) == len(self.sections) - 1, "has two sections of one name")
        for section in self.sections[1:]:
            self._check_section(section)
        _require(self.sections[struct.unpack_from("<H", self.image, 62)[0]].kind == _STRTAB, "its names are no strings")

    def _check_section(self, section: _Section) -> None:
        name, kind = section.name, section.kind
        executable = bool(section.flags & _EXECUTE)
        if name == ".text" or _PROGRAM_NAME.match(name):
            expected = kind == _PROGBITS and executable and (section.size > 0 or name == ".text")
        elif name == ".bss":
            expected = kind == _NOBITS and not executable
        elif _DATA_NAME.match(name) or name in ("license", ".struct_ops", ".struct_ops.link", ".maps"):
            expected = kind == _PROGBITS and not executable and section.size <= MAX_DATA
        elif name in (".BTF", ".BTF.ext"):
            expected = kind == _PROGBITS and not section.flags
        elif name.startswith(".rel"):
            expected = kind == _REL and section.size % 16 == 0 and self._relocates(section)
        elif name == ".symtab":
            expected = kind == _SYMTAB and section.size % 24 == 0 and self._names_of(section) is not None
        elif name in (".strtab", ".shstrtab"):
            expected = kind == _STRTAB and section.data[:1] == b"\0" == section.data[-1:]
        else:
            expected = name == ".llvm_addrsig" and kind == _ADDRSIG
        shown = name if name.isascii() and name.isprintable() else "with an unprintable name"
        _require(expected, f"has a section {shown[:60]}, which shipped programs may not have in this form")

    def _relocates(self, section: _Section) -> bool:
        """A section of relocations belongs to the section that it is named for and uses the one symbol table."""
        if not 0 < section.info < len(self.sections) or not 0 < section.link < len(self.sections):
            return False
        return section.name == ".rel" + self.sections[section.info].name and (
            self.sections[section.link].name == ".symtab"
        )

    def _names_of(self, section: _Section) -> _Section | None:
        if not 0 < section.link < len(self.sections) or self.sections[section.link].kind != _STRTAB:
            return None
        return self.sections[section.link]

    def _read_symbols(self) -> list[_Symbol]:
        section = self._needed(".symtab")
        strings = self.sections[section.link].data
        symbols = []
        for name_at, info, other, index, value, size in struct.iter_unpack("<IBBHQQ", section.data):
            end = strings.find(b"\0", name_at, name_at + 129)
            name = strings[name_at:end].decode("ascii", "replace")
            _require(end >= 0 and name.isprintable() and name.isascii(), "has a symbol without a proper name")
            _require(
                info >> 4 in (0, 1) and info & 0xF in (0, 1, 2, 3, 4) and other in (0, 2), "has a malformed symbol"
            )
            if info & 0xF == 4 and index == 0xFFF1:  # the name of the source file
                index = 0
            _require(index < len(self.sections), "has a symbol of a section that is not there")
            room = self.sections[index].size if index else 0
            _require(value + size <= room, "has a symbol outside its section")
            symbols.append(_Symbol(name, info & 0xF, index, value, size, info >> 4 == 1))
        _require(symbols and symbols[0] == _Symbol("", 0, 0, 0, 0, False), "has no null symbol")
        named = [symbol.name for symbol in symbols if symbol.name and symbol.is_global]
        _require(len(named) == len(set(named)), "has two symbols of one name")
        return symbols

    def _read_relocations(self, section: _Section) -> dict[int, tuple[int, _Symbol]]:
        target = self.sections[section.info]
        entries: dict[int, tuple[int, _Symbol]] = {}
        for offset, info in struct.iter_unpack("<QQ", section.data):
            _require(
                info >> 32 < len(self.symbols) and offset + 4 <= target.size, "has a relocation outside its bounds"
            )
            _require(offset not in entries, "has two relocations of one place")
            entries[offset] = (info & 0xFFFFFFFF, self.symbols[info >> 32])
        return entries

    # Licence, functions, variables

    def _license(self) -> str:
        text = self._needed("license").data.rstrip(b"\0").decode("ascii", "replace")
        _require(text in LICENSES, "its licence is not one under which the kernel allows it")
        return text

    def _check_functions(self) -> dict[int, str]:
        """The function of each section with a program. Functions fill their sections without gaps."""
        by_section: dict[int, list[_Symbol]] = {}
        for symbol in self.symbols:
            if symbol.kind == _FUNC and symbol.section:
                _require(self.sections[symbol.section].flags & _EXECUTE and symbol.name, "has a function without code")
                by_section.setdefault(symbol.section, []).append(symbol)
        described = {entry.name for entry in self.btf.all_of(Kind.FUNC)}
        for section in self.sections:
            if not section.flags & _EXECUTE:
                continue
            at = 0
            for symbol in sorted(by_section.get(section.index, ()), key=lambda symbol: symbol.value):
                _require(symbol.value == at and symbol.size and symbol.size % 8 == 0, "has functions that overlap")
                _require(symbol.name in described, "has a function without type information")
                at += symbol.size
            _require(at == section.size, "has code that belongs to no function")
        _require(self.programs, "has no program")
        _require(all(len(by_section[section.index]) == 1 for section in self.programs), "has two programs in a section")
        return {section.index: by_section[section.index][0].name for section in self.programs}

    def _check_externs(self) -> set[str]:
        """The kernel functions that it wants. They are the only symbols without a section, and have a type."""
        wanted = {symbol.name for symbol in self.symbols if symbol.name and not symbol.section and symbol.kind != 4}
        for name in sorted(wanted):
            _require(name in bpf_code.KFUNCS, f"asks for {name[:60]}, which shipped programs may not use")
        listed: list[str] = []
        for section in self.btf.all_of(Kind.DATASEC):
            entries = [self.btf.types[part.type_id] for part in section.parts]
            if section.name == ".ksyms":
                _require(all(entry.kind is Kind.FUNC for entry in entries), "asks for a variable of the kernel")
                listed += [entry.name for entry in entries]
            else:
                _require(all(entry.kind is Kind.VAR for entry in entries), "has a function among its variables")
        functions = [entry.name for entry in self.btf.all_of(Kind.FUNC)]
        _require(len(functions) == len(set(functions)), "has two functions of one name")
        external = {entry.name for entry in self.btf.all_of(Kind.FUNC) if entry.linkage == 2}
        _require(
            wanted == set(listed) == external and len(listed) == len(wanted), "has external functions without types"
        )
        return wanted

    def _variables(self, section: _Section) -> list[tuple[_Symbol, Part, Type]]:
        """The variables of a data section: symbol, place by the type information, type."""
        found = []
        for described in self.btf.all_of(Kind.DATASEC):
            if described.name != section.name:
                continue
            for part in described.parts:
                variable = self.btf.types[part.type_id]
                symbols = [s for s in self.symbols if s.name == variable.name and s.section == section.index]
                _require(len(symbols) == 1 and symbols[0].kind == _OBJECT, "has a variable without a symbol")
                found.append((symbols[0], part, variable))
        return found

    def _check_variables(self) -> None:
        """libbpf copies variables by what the type information says of them: it must agree with the file."""
        described: set[str] = set()
        for section in self.btf.all_of(Kind.DATASEC):
            if section.name == ".ksyms":
                continue
            _require(section.name not in described, "describes a section twice")
            described.add(section.name)
            real = self._needed(section.name)
            _require(not real.flags & _EXECUTE and real.kind in (_PROGBITS, _NOBITS), "describes no data section")
            _require(section.size in (0, real.size), "has a data section of another size than described")
            for symbol, part, variable in self._variables(real):
                size = self.btf.size_of(variable.target)
                fits = part.offset + part.size <= real.size and symbol.size == part.size == size
                _require(fits and part.offset in (0, symbol.value), "has a variable of another size than described")
        for section_ in self.sections:
            if section_.size and (_DATA_NAME.match(section_.name) or section_.name == ".maps"):
                # String constants and unrolled tables may lie in .rodata without a variable.
                known = section_.name in described or section_.name.startswith(".rodata")
                _require(known, f"does not describe its section {section_.name[:60]}")

    # The struct_ops variable

    def _struct_ops_section(self) -> _Section:
        found = [self.by_name[name] for name in (".struct_ops", ".struct_ops.link") if name in self.by_name]
        _require(len(found) == 1, "does not have exactly one struct_ops section")
        variables = self._variables(found[0])
        _require(len(variables) == 1, "does not define exactly one congestion controller")
        symbol, part, variable = variables[0]
        kind = self.btf.types[variable.target]
        _require(kind.kind is Kind.STRUCT and kind.name == "tcp_congestion_ops", "is no congestion controller")
        whole = symbol.value == 0 and part.offset == 0 and found[0].size == kind.size
        _require(whole, "its controller does not fill its section")
        others = [entry for entry in self.btf.all_of(Kind.STRUCT) if entry.name == "tcp_congestion_ops"]
        _require(len(others) == 1, "describes two kinds of controller")
        return found[0]

    def _fields(self, table: _Section) -> dict[str, Part]:
        kind = self.btf.types[self._variables(table)[0][2].target]
        fields = {part.name: part for part in kind.parts}
        _require(len(fields) == len(kind.parts), "its controller has two members of one name")
        _require(all(part.offset % 8 == 0 and not part.size for part in kind.parts), "its controller has bit-fields")
        return fields

    def _read_struct_ops(self, table: _Section, functions: dict[int, str]) -> tuple[list[ProgramFacts], str, int, int]:
        """The controller's functions, its name and flags, and where in the file the name is."""
        fields = self._fields(table)
        data = bytearray(table.data)
        name_at = self._name_at(fields)
        name = bytes(data[name_at : name_at + 16])
        _require(_VALID_NAME.match(name), "its algorithm name is not 1 to 15 letters, digits, dots or underscores")
        data[name_at : name_at + 16] = bytes(16)
        flags = 0
        if "flags" in fields:
            at = fields["flags"].offset // 8
            _require(self.btf.size_of(fields["flags"].type_id) == 4, "its flags have another size")
            flags = int.from_bytes(data[at : at + 4], "little")
            data[at : at + 4] = bytes(4)
        _require(flags in (0, NEEDS_ECN), "sets flags that shipped programs may not set")
        _require(not any(data), "sets something besides functions, name and flags")
        programs = self._read_members(table, fields, functions)
        return programs, name.rstrip(b"\0").decode("ascii"), flags, table.offset + name_at

    def _name_at(self, fields: dict[str, Part]) -> int:
        part = fields.get("name")
        if part is None:
            raise _refused("its controller has no name")
        kind = self.btf.resolve(part.type_id)
        is_text = kind.kind is Kind.ARRAY and kind.count == 16 and self.btf.size_of(kind.target) == 1
        _require(is_text, "its name has another type")
        return part.offset // 8

    def _flags_at(self, table: _Section) -> int:
        fields = self._fields(table)
        return table.offset + fields["flags"].offset // 8 if "flags" in fields else 0

    def _read_members(self, table: _Section, fields: dict[str, Part], functions: dict[int, str]) -> list[ProgramFacts]:
        by_offset: dict[int, str] = {}
        for name, part in fields.items():
            if name in ("name", "flags"):
                continue
            _require(name in MEMBERS, f"its controller has the member {name[:60]}")
            pointer = self.btf.resolve(part.type_id)
            is_function = pointer.kind is Kind.PTR and self.btf.types[pointer.target].kind is Kind.FUNC_PROTO
            _require(is_function, f"its member {name} is no function")
            by_offset[part.offset // 8] = name
        programs: dict[int, ProgramFacts] = {}
        for offset, (kind, symbol) in sorted(self.relocations.get(table.index, {}).items()):
            sound = kind in (_RELOCATION_64, _RELOCATION_ABS64) and offset in by_offset and symbol.kind == _FUNC
            _require(sound and symbol.section in functions and symbol.value == 0, "sets a member to no program")
            _require(symbol.section not in programs, "uses one program for two members")
            count = self.code[symbol.section].instructions
            programs[symbol.section] = ProgramFacts(by_offset[offset], symbol.name, count)
        _require(len(programs) == len(functions), "has a program that is no part of the controller")
        members = {program.member for program in programs.values()}
        for needed in ("ssthresh", "undo_cwnd"):
            _require(needed in members, f"does not implement {needed}")
        _require(members & {"cong_avoid", "cong_control"}, "implements neither cong_avoid nor cong_control")
        return list(programs.values())

    def _arguments_at(self) -> int:
        """Where the file keeps the number of arguments of cong_control that the loader fills in; 0 if nowhere."""
        for symbol in self.symbols:
            if symbol.name == ARGUMENTS_CONSTANT:
                section = self.sections[symbol.section]
                _require(section.name == ".rodata" and symbol.size == 4, f"{ARGUMENTS_CONSTANT} is no constant")
                return section.offset + symbol.value
        return 0

    # Instructions

    def _check_code(self, index: int, code: Code) -> None:
        """Every 64-bit load and call that a relocation completes must lead to something that is allowed there."""
        relocations = self.relocations.get(index, {})
        size = self.sections[index].size
        calls = {call.at: call for call in code.calls}
        for at, (kind, symbol) in relocations.items():
            if at in code.wide_loads:
                name = self.sections[symbol.section].name
                is_data = bool(symbol.section) and (name == ".maps" or bool(_DATA_NAME.match(name)))
                _require(kind == _RELOCATION_64 and is_data, "takes the address of something that is no data")
                _require(name != ".maps" or symbol.kind == _OBJECT, "takes the address of no map")
            elif at in calls and not calls[at].helper:
                self._check_call_target(kind, symbol, calls[at].offset)
            else:
                raise _refused("has a relocation of an instruction that takes none")
        for at, call in calls.items():
            if not call.helper and at not in relocations:
                target = at + 8 + 8 * call.offset
                _require(0 <= target < size and target % 8 == 0, "calls outside its section")

    def _check_call_target(self, kind: int, symbol: _Symbol, offset: int) -> None:
        _require(kind == _RELOCATION_CALL, "has a call with a malformed relocation")
        if not symbol.section:
            _require(symbol.name in bpf_code.KFUNCS, "calls a kernel function that shipped programs may not use")
            return
        section = self.sections[symbol.section]
        _require(section.name == ".text" and symbol.kind in (_FUNC, _SECTION), "calls something that is no function")
        target = symbol.value + 8 * (offset + 1)
        starts = {entry.value for entry in self.symbols if entry.kind == _FUNC and entry.section == section.index}
        _require(target in starts, "calls into the middle of a function")

    # Maps

    def _read_maps(self) -> list[MapFacts]:
        section = self.by_name.get(".maps")
        if section is None:
            return []
        _require(not self.relocations.get(section.index), "has maps with initial values")
        variables = self._variables(section)
        _require(len(variables) <= MAX_MAPS, f"has more than {MAX_MAPS} maps")
        return [self._read_map(variable) for _, _, variable in variables]

    def _read_map(self, variable: Type) -> MapFacts:
        kind = self.btf.resolve(variable.target)
        _require(kind.kind is Kind.STRUCT, "has a map of unknown form")
        values: dict[str, int] = {}
        readers: dict[str, Callable[[int], int]] = {
            "type": self._map_number,
            "max_entries": self._map_number,
            "map_flags": self._map_number,
            "key_size": self._map_number,
            "value_size": self._map_number,
            "key": self._map_type,
            "value": self._map_type,
        }
        for part in kind.parts:
            # Pinning, inner maps and everything else that reaches beyond this object.
            _require(part.name in readers, f"has a map with the attribute {part.name[:60]}")
            field = part.name if part.name not in ("key", "value") else part.name + "_size"
            _require(field not in values, "has a map with an attribute given twice")
            values[field] = readers[part.name](part.type_id)
        return _judge_map(variable.name, values)

    def _map_pointer(self, type_id: int) -> int:
        pointer = self.btf.resolve(type_id)
        _require(pointer.kind is Kind.PTR, "has a map with a malformed attribute")
        return pointer.target

    def _map_number(self, type_id: int) -> int:
        array = self.btf.types[self._map_pointer(type_id)]
        _require(array.kind is Kind.ARRAY, "has a map with a malformed attribute")
        return array.count

    def _map_type(self, type_id: int) -> int:
        size = self.btf.size_of(self._map_pointer(type_id))
        _require(size, "has a map of something without a size")
        return size


def _judge_map(name: str, values: dict[str, int]) -> MapFacts:
    kind, entries, flags = values.get("type", 0), values.get("max_entries", 0), values.get("map_flags", 0)
    key, value = values.get("key_size", 0), values.get("value_size", 0)
    if kind == 2:
        allowed = key == 4 and 0 < value * entries <= 64 * 1024 and flags == 0
        label = "array"
    elif kind == 24:
        allowed = key == 4 and 0 < value <= 4096 and entries == 0 and flags == 1
        label = "sk_storage"
    elif kind == 27:
        power = entries >= 4096 and entries & (entries - 1) == 0
        allowed = key == value == 0 and power and entries <= 256 * 1024 and flags == 0
        label = "ringbuf"
    else:
        raise _refused(f"has a map of type {kind}, which shipped programs may not have")
    _require(allowed, f"its map {name[:60]} is larger than allowed or of impossible form")
    return MapFacts(name, label, key, value, entries)
