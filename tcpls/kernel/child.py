"""Running one step in a throw-away child process, so that a crash of the step is an answer and not an accident.

Only for single-threaded processes: the child runs Python between fork and exit.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from tcpls.errors import KernelUnavailable, ProgramRefused
from tcpls.kernel import privileges

MAX_ANSWER = 64 * 1024
MAX_LOG = 8000  # characters; escaped in JSON they still fit an answer
Answer = tuple[dict[str, Any], list[int]]


class ChildDied(Exception):
    """The child ended without an answer: by a signal, out of memory, or out of time."""


_ended: set[int] = set()


def run(step: Callable[[], Answer], confine: Callable[[], None], *, seconds: float, files: int = 64) -> Answer:
    """Runs `confine` and then `step` in a child. Gives what `step` returned: an answer and descriptors.

    Raises `ProgramRefused` and `KernelUnavailable` as the step did, `ChildDied` if it did not come to an end.
    """
    reap()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        _run_in_child(theirs, step, confine, files)
    theirs.close()
    try:
        answer, descriptors = _receive(ours, seconds)
    finally:
        ours.close()
        os.kill(pid, signal.SIGKILL)
        _ended.add(pid)
    if answer is None:
        _ended.discard(pid)
        raise ChildDied(_how(os.waitpid(pid, 0)[1]))
    if "refused" in answer:
        raise ProgramRefused(answer["refused"], stage=answer["stage"], log=answer["log"])
    if "feature" in answer:
        raise KernelUnavailable(answer["feature"], answer["hint"])
    if "failed" in answer:
        raise ChildDied(answer["failed"])
    return answer, descriptors


def reap() -> None:
    """Collects children that have answered. Freeing their memory takes the kernel some milliseconds: nobody waits."""
    for pid in list(_ended):
        if os.waitpid(pid, os.WNOHANG)[0]:
            _ended.discard(pid)


def _run_in_child(channel: socket.socket, step: Callable[[], Answer], confine: Callable[[], None], files: int) -> None:
    try:
        gc.disable()
        fd = channel.fileno()
        os.closerange(3, fd)
        os.closerange(fd + 1, max(files, fd + 1))
        privileges.die_with_parent()
        confine()
        try:
            answer, descriptors = step()
        except ProgramRefused as error:
            answer = {"refused": error.reason, "stage": error.stage, "log": error.log[-MAX_LOG:]}
            descriptors = []
        except KernelUnavailable as error:
            answer, descriptors = {"feature": error.feature, "hint": error.hint}, []
        except Exception as error:  # a bug of ours or of a library: an answer to the parent, not the end of it
            answer, descriptors = {"failed": f"{type(error).__name__}: {error}"[:2000]}, []
        socket.send_fds(channel, [json.dumps(answer).encode()], descriptors)
        os._exit(0)
    finally:
        os._exit(1)


def _receive(channel: socket.socket, seconds: float) -> tuple[dict[str, Any] | None, list[int]]:
    deadline = time.monotonic() + seconds
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    while not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
        if time.monotonic() >= deadline:
            return None, []
    try:
        data, descriptors, _, _ = socket.recv_fds(channel, MAX_ANSWER, 2)
    except ConnectionError:
        return None, []
    return (json.loads(data) if data else None), descriptors


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "took too long" if number == signal.SIGKILL else f"was ended by signal {number}"
    return "ended without an answer"
