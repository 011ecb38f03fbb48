"""Steps in throw-away processes: answers, refusals, crashes, endless loops, and calls that are not allowed."""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tcpls.errors import KernelUnavailable, ProgramRefused
from tcpls.kernel import privileges
from tcpls.kernel.child import Answer, ChildDied, reap, run


def nothing() -> None:
    """No confinement."""


def no_calls() -> None:
    privileges.keep_only(frozenset())
    privileges.confine_calls()


def test_an_answer_and_a_descriptor_come_back() -> None:
    def step() -> Answer:
        ours, theirs = os.pipe()
        os.write(theirs, b"from the child")
        return {"pid": os.getpid()}, [ours]

    answer, (descriptor,) = run(step, nothing, seconds=10)
    assert answer["pid"] != os.getpid()
    assert os.read(descriptor, 100) == b"from the child"
    os.close(descriptor)


def test_refusals_are_raised_here() -> None:
    def refuse() -> Answer:
        raise ProgramRefused("no", stage="static check", log="line")

    def lack() -> Answer:
        raise KernelUnavailable("a feature", "a hint")

    with pytest.raises(ProgramRefused) as refused:
        run(refuse, nothing, seconds=10)
    assert (refused.value.reason, refused.value.stage, refused.value.log) == ("no", "static check", "line")
    with pytest.raises(KernelUnavailable, match="a feature: a hint"):
        run(lack, nothing, seconds=10)


def crash() -> Answer:
    os.kill(os.getpid(), signal.SIGSEGV)
    return {}, []


def spin() -> Answer:
    while True:
        pass


def fail() -> Answer:
    raise RuntimeError("a mistake")


def vanish() -> Answer:
    os._exit(0)


@pytest.mark.parametrize(
    ("step", "how"),
    [(crash, "signal 11"), (spin, "too long"), (fail, "RuntimeError: a mistake"), (vanish, "without an answer")],
)
def test_other_ends_are_named(step: Callable[[], Answer], how: str) -> None:
    with pytest.raises(ChildDied, match=how):
        run(step, nothing, seconds=0.5)


def read_a_file() -> Answer:
    return {"content": Path("/etc/hostname").read_text()}, []


def make_a_process() -> Answer:
    return {"pid": os.fork()}, []


def compute() -> Answer:
    return {"sum": sum(len(bytes(size)) for size in range(0, 1 << 20, 4096))}, []


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="no list of system calls for this machine")
def test_a_confined_child_can_compute_and_nothing_else() -> None:
    assert run(compute, no_calls, seconds=10)[0]["sum"] > 0
    for step in (read_a_file, make_a_process):
        with pytest.raises(ChildDied, match=f"signal {int(signal.SIGSYS)}"):
            run(step, no_calls, seconds=10)


def test_no_child_and_no_descriptor_is_left() -> None:
    before = len([*Path("/proc/self/fd").iterdir()])
    pids = [run(lambda: ({"pid": os.getpid()}, []), nothing, seconds=10)[0]["pid"] for _ in range(5)]
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        reap()
    assert len([*Path("/proc/self/fd").iterdir()]) == before
