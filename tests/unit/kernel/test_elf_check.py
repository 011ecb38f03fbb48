"""The static check: what it accepts, what it refuses, and why."""

from __future__ import annotations

import struct

import pytest

from tcpls.errors import ProgramRefused
from tcpls.kernel.elf_check import MAX_SIZE, check_object
from tests.unit.kernel.objects import ROOT, SHIPPED, SMALL, compile_text, controller, needs_clang, shipped

pytestmark = needs_clang


def reason(image: bytes) -> str:
    """Why the check refuses an object."""
    with pytest.raises(ProgramRefused) as caught:
        check_object(image)
    assert caught.value.stage == "static check"
    return caught.value.reason


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_programs_pass_and_need_nothing_of_the_kernel(name: str) -> None:
    facts = check_object(shipped(name).image)
    assert facts.variable == name
    assert facts.license == "Dual BSD/GPL"
    assert {"ssthresh", "undo_cwnd", "cong_avoid"} <= set(facts.members)
    assert (facts.helpers, facts.kfuncs, facts.maps) == ((), (), ())
    assert facts.size == shipped(name).size < 64 * 1024
    assert facts.instructions >= sum(program.instructions for program in facts.programs) > 50


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_objects_carry_no_path_of_the_machine_that_built_them(name: str) -> None:
    image = shipped(name).image
    assert str(ROOT).encode() not in image
    assert b"cc_programs" not in image


def test_places_point_at_the_name_and_the_flags() -> None:
    image = controller(name="find_me", members=".flags = 2,")
    facts = check_object(image)
    assert image[facts.places.name : facts.places.name + 8] == b"find_me\0"
    assert image[facts.places.flags : facts.places.flags + 4] == struct.pack("<I", 2)
    assert facts.needs_ecn
    assert facts.places.arguments == 0


def test_the_argument_constant_is_found() -> None:
    image = controller(
        before="const volatile u32 tcpls_cong_control_args = 77;",
        cong_avoid="tcpls_tcp(sk)->snd_cwnd_cnt = tcpls_cong_control_args;",
    )
    at = check_object(image).places.arguments
    assert image[at : at + 4] == struct.pack("<I", 77)


def test_allowed_helpers_maps_kernel_functions_and_subprograms() -> None:
    image = controller(
        before="""
            struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 65536); } events SEC(".maps");
            struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, u32); __type(value, u64); }
                counts SEC(".maps");
            struct { __uint(type, BPF_MAP_TYPE_SK_STORAGE); __uint(map_flags, BPF_F_NO_PREALLOC); __type(key, int);
                __type(value, u64); } kept SEC(".maps");
            extern void tcp_reno_cong_avoid(struct sock *sk, u32 ack, u32 acked) __ksym;
            __noinline u32 twice(u32 value) { return 2 * value; }
            u64 total;
        """,
        cong_avoid="""
            u32 key = 1;
            u64 *count = bpf_map_lookup_elem(&counts, &key);
            u64 *mine = bpf_sk_storage_get(&kept, sk, 0, 1);
            if (count) *count += twice(acked);
            if (mine) *mine = bpf_ktime_get_ns();
            total += acked;
            bpf_ringbuf_output(&events, &key, sizeof(key), 0);
            tcp_reno_cong_avoid(sk, ack, acked);
        """,
    )
    facts = check_object(image)
    assert facts.helpers == ("map_lookup_elem", "ktime_get_ns", "sk_storage_get", "ringbuf_output")
    assert facts.kfuncs == ("tcp_reno_cong_avoid",)
    assert {(entry.name, entry.kind) for entry in facts.maps} == {
        ("events", "ringbuf"),
        ("counts", "array"),
        ("kept", "sk_storage"),
    }


LOOP = "static long step(u32 index, void *context) { return 0; }"
BIG_MAP = """struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1000000); __type(key, u32);
    __type(value, u64); } big SEC(".maps");"""
PINNED_MAP = """struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, u32); __type(value, u64);
    __uint(pinning, 1); } shared SEC(".maps");"""
HASH_MAP = (
    """struct { __uint(type, 1); __uint(max_entries, 1); __type(key, u32); __type(value, u64); } h SEC(".maps");"""
)
LOOKUP = "u32 key = 0; bpf_map_lookup_elem(&{map}, &key);"
SECOND = """SEC(".struct_ops") struct tcp_congestion_ops other = { .ssthresh = (void *)small_ssthresh,
    .cong_avoid = (void *)small_cong_avoid, .undo_cwnd = (void *)small_undo_cwnd, .name = "other" };"""
SPARE = 'SEC("struct_ops/spare") u32 BPF_PROG(spare, struct sock *sk) { return 1; }'


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ssthresh": "u64 x; bpf_probe_read_kernel(&x, 8, sk);"}, "calls helper 113"),
        ({"ssthresh": "int v = 1; bpf_setsockopt(sk, 0, 1, &v, 4);"}, "calls helper 49"),
        ({"ssthresh": "bpf_send_signal(9);"}, "calls helper 109"),
        ({"ssthresh": 'bpf_printk("x");'}, "calls helper 6"),
        ({"before": LOOP, "ssthresh": "bpf_loop(1 << 23, step, 0, 0);"}, "calls helper 181"),
        ({"before": LOOP + "u64 kept;", "ssthresh": "kept = (u64)step;"}, "address of something"),
        (
            {"before": "extern void bpf_preempt_disable(void) __ksym;", "ssthresh": "bpf_preempt_disable();"},
            "asks for bpf_preempt_disable",
        ),
        (
            {"before": "extern int LINUX_KERNEL_VERSION __kconfig;", "ssthresh": "if (LINUX_KERNEL_VERSION) return 3;"},
            "asks for LINUX_KERNEL_VERSION",
        ),
        ({"before": BIG_MAP, "ssthresh": LOOKUP.format(map="big")}, "map big is larger"),
        ({"before": PINNED_MAP, "ssthresh": LOOKUP.format(map="shared")}, "attribute pinning"),
        ({"before": HASH_MAP, "ssthresh": LOOKUP.format(map="h")}, "map of type 1"),
        ({"after": SECOND}, "exactly one congestion controller"),
        ({"after": SPARE}, "no part of the controller"),
        ({"after": 'SEC("xdp") int pass(void *context) { return 2; }'}, "has a section xdp"),
        ({"after": 'SEC("kprobe/tcp_ack") int pass(void *context) { return 0; }'}, "has a section kprobe/tcp_ack"),
        ({"after": 'SEC("struct_ops.s/x") int pass(void *context) { return 0; }'}, "has a section struct_ops.s/x"),
        ({"license": "Proprietary"}, "licence"),
        ({"members": ".flags = 1,"}, "flags that shipped programs may not set"),
        ({"name": "with-dash"}, "algorithm name"),
        ({"name": ""}, "algorithm name"),
        ({"section": ".struct_ops.other"}, "has a section .struct_ops.other"),
        ({"before": "u64 huge[4096];", "ssthresh": "huge[1]++;"}, "too much data"),
    ],
)
def test_hostile_and_foreign_programs_are_refused(changes: dict[str, str], why: str) -> None:
    with pytest.raises(ProgramRefused, match=why):
        check_object(controller(**changes))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (".undo_cwnd = (void *)small_undo_cwnd,", "", "no part of the controller"),
        (".cong_avoid = (void *)small_cong_avoid,", ".cong_avoid = (void *)1,", "sets something besides"),
        (
            ".undo_cwnd = (void *)small_undo_cwnd,",
            ".undo_cwnd = (void *)small_ssthresh,",
            "one program for two members",
        ),
        ('"struct_ops/c"', '"struct_ops/a"', "two programs in a section"),
        ('char LICENSE[] SEC("license") = "GPL";', "", "has no section license"),
    ],
)
def test_a_controller_of_another_shape_is_refused(old: str, new: str, why: str) -> None:
    check_object(compile_text(SMALL))
    assert why in reason(compile_text(SMALL.replace(old, new)))


@pytest.mark.parametrize("part", ["ssthresh", "cong_avoid", "undo_cwnd"])
def test_a_controller_without_a_needed_function_is_refused(part: str) -> None:
    section = {"ssthresh": "a", "cong_avoid": "b", "undo_cwnd": "c"}[part]
    lines = [line for line in SMALL.splitlines() if f"struct_ops/{section}" not in line]
    text = "\n".join(lines).replace(f".{part} = (void *)small_{part},", "")
    assert "cong_avoid nor" in reason(compile_text(text)) or f"implement {part}" in reason(compile_text(text))


def test_another_kind_of_struct_ops_is_refused() -> None:
    source = """
        #include "tcpls_cc.h"
        char LICENSE[] SEC("license") = "GPL";
        struct sched_ext_ops { u32 (*pick)(void *task); char name[16]; };
        SEC("struct_ops/pick") u32 BPF_PROG(pick, void *task) { return 0; }
        SEC(".struct_ops") struct sched_ext_ops small = { .pick = (void *)pick, .name = "small" };"""
    assert "is no congestion controller" in reason(compile_text(source))


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (b"", "not a 64-bit"),
        (b"\x7fELF", "not a 64-bit"),
        (b"\x7fELF\x01\x01\x01" + bytes(100), "not a 64-bit"),
        (b"\x7fELF\x02\x02\x01" + bytes(100), "not a 64-bit"),
        (b"\x7fELF\x02\x01\x01" + bytes(100), "not a relocatable BPF object"),
        (bytes(MAX_SIZE + 1), "larger than"),
    ],
)
def test_what_is_no_object_is_refused(image: bytes, why: str) -> None:
    assert why in reason(image)


def _patched(image: bytes, at: int, value: bytes) -> bytes:
    return image[:at] + value + image[at + len(value) :]


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (16, b"\x02\x00", "not a relocatable BPF object"),
        (18, b"\x3e\x00", "not a relocatable BPF object"),
        (40, b"\xff" * 8, "section table lies outside"),
        (56, b"\x01\x00", "program headers"),
        (60, b"\x00\x00", "impossible section table"),
        (60, b"\xff\xff", "impossible section table"),
        (62, b"\xff\xff", "impossible section table"),
    ],
)
def test_a_damaged_header_is_refused(at: int, value: bytes, why: str) -> None:
    assert why in reason(_patched(shipped("reno").image, at, value))


def _section_header(image: bytes, name: bytes) -> int:
    """Where the header of a section is in the file."""
    table, count, names = struct.unpack_from("<Q", image, 40)[0], *struct.unpack_from("<HH", image, 60)
    strings = struct.unpack_from("<Q", image, table + 64 * names + 24)[0]
    for index in range(count):
        at = table + 64 * index
        start = strings + struct.unpack_from("<I", image, at)[0]
        if image[start : image.index(b"\0", start)] == name:
            return int(at)
    raise AssertionError(name)


@pytest.mark.parametrize(
    ("section", "field", "value", "why"),
    [
        (b".BTF", 24, struct.pack("<Q", 1 << 40), "outside the file"),
        (b".BTF", 32, struct.pack("<Q", 1 << 63), "outside the file"),
        (b".BTF", 24, struct.pack("<Q", 64), "overlap"),
        (b".BTF", 8, struct.pack("<Q", 0x800), "malformed section"),
        (b".struct_ops", 32, struct.pack("<Q", 8), "does not fill|overlap|symbol outside"),
        (b".symtab", 56, struct.pack("<Q", 1), "unknown format"),
        (b".symtab", 40, struct.pack("<I", 0), "not readable as ELF"),
        (b".rel.struct_ops", 44, struct.pack("<I", 1), "has a section .rel.struct_ops"),
        (b"license", 4, struct.pack("<I", 8), "has a section license|licence"),
    ],
)
def test_a_damaged_section_is_refused(section: bytes, field: int, value: bytes, why: str) -> None:
    image = shipped("reno").image
    with pytest.raises(ProgramRefused, match=why):
        check_object(_patched(image, _section_header(image, section) + field, value))


def test_a_constant_that_is_really_a_map_descriptor_is_refused() -> None:
    """The loader would take source register 1 for a descriptor number that it has open itself."""
    image = controller(
        before="u64 total;",
        cong_avoid="total += acked;",
    )
    at = image.index(b"\x18\x01" + bytes(6)) if b"\x18\x01" + bytes(6) in image else image.index(b"\x18\x02" + bytes(6))
    assert "64-bit load" in reason(_patched(image, at + 1, bytes([image[at + 1] | 0x10])))


def test_a_kernel_function_called_by_number_is_refused() -> None:
    image = controller(ssthresh="bpf_ktime_get_ns();")
    at = image.index(b"\x85\x00\x00\x00\x05\x00\x00\x00")
    assert "by number" in reason(_patched(image, at, b"\x85\x20"))
    assert "may not use" in reason(_patched(image, at, b"\x8d"))
