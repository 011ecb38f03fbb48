"""Compiled programs for tests: those that the project ships, and small ones written for one test."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

import pytest

from tcpls.kernel.build import build, project_root
from tcpls.kernel.program import ProgramFile

SHIPPED = ("cubic", "reno", "vegas")
ROOT = project_root()

needs_clang = pytest.mark.skipif(
    shutil.which("clang") is None or shutil.which("llvm-strip") is None,
    reason="programs are compiled with clang and llvm-strip, which are not installed",
)

# The least that the kernel accepts as a controller. Tests put their own code before it and more members into it.
CONTROLLER = """
#include "tcpls_cc.h"
char LICENSE[] SEC("license") = "{license}";
{before}
SEC("struct_ops/ssthresh")
u32 BPF_PROG(small_ssthresh, struct sock *sk)
{{
	{ssthresh}
	return tcpls_max(tcpls_tcp(sk)->snd_cwnd / 2, 2);
}}
SEC("struct_ops/cong_avoid")
void BPF_PROG(small_cong_avoid, struct sock *sk, u32 ack, u32 acked)
{{
	{cong_avoid}
}}
SEC("struct_ops/undo_cwnd")
u32 BPF_PROG(small_undo_cwnd, struct sock *sk)
{{
	return tcpls_tcp(sk)->snd_cwnd;
}}
{after}
SEC("{section}")
struct tcp_congestion_ops small = {{
	.ssthresh = (void *)small_ssthresh,
	.cong_avoid = (void *)small_cong_avoid,
	.undo_cwnd = (void *)small_undo_cwnd,
	.name = "{name}",
	{members}
}};
"""

# The same without places to put things in.
SMALL = """
    #include "tcpls_cc.h"
    char LICENSE[] SEC("license") = "GPL";
    SEC("struct_ops/a") u32 BPF_PROG(small_ssthresh, struct sock *sk) { return 2; }
    SEC("struct_ops/b") void BPF_PROG(small_cong_avoid, struct sock *sk, u32 ack, u32 acked) { }
    SEC("struct_ops/c") u32 BPF_PROG(small_undo_cwnd, struct sock *sk) { return 2; }
    SEC(".struct_ops") struct tcp_congestion_ops small = {
        .ssthresh = (void *)small_ssthresh, .cong_avoid = (void *)small_cong_avoid,
        .undo_cwnd = (void *)small_undo_cwnd, .name = "small" };"""


@functools.cache
def compile_text(text: str) -> bytes:
    """The object that clang makes of a source text."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "small.bpf.c"
        source.write_text(text)
        return build(source, Path(folder), include=ROOT / "bpf").read_bytes()


def controller(
    *,
    license: str = "GPL",
    before: str = "",
    after: str = "",
    ssthresh: str = "",
    cong_avoid: str = "",
    members: str = "",
    name: str = "small",
    section: str = ".struct_ops",
) -> bytes:
    """A small controller with the given texts put in."""
    places = {"license": license, "before": before, "after": after, "ssthresh": ssthresh, "cong_avoid": cong_avoid}
    return compile_text(CONTROLLER.format(members=members, name=name, section=section, **places))


@functools.cache
def shipped(name: str) -> ProgramFile:
    """One of the project's own programs, compiled from its source."""
    with tempfile.TemporaryDirectory() as folder:
        target = build(ROOT / "cc_programs" / name / f"{name}.bpf.c", Path(folder), include=ROOT / "bpf")
        return ProgramFile.read(target)
