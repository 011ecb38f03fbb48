"""Runs a command's coroutine: signals, errors, exit codes."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable

from tcpls.cli.exits import Exit, explain
from tcpls.cli.stdio import occupy_standard_descriptors
from tcpls.errors import TCPLSError


async def _until_signalled(work: Callable[[], Awaitable[None]]) -> int:
    task = asyncio.ensure_future(work())
    loop = asyncio.get_running_loop()
    received: list[int] = []

    def stop(number: int) -> None:
        received.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        await task
    except BaseException:
        # Whatever went wrong while it was ending, the signal is why it ended.
        if received:
            return Exit.INTERRUPTED if received[0] == signal.SIGINT else Exit.TERMINATED
        raise
    return Exit.OK


def run(work: Callable[[], Awaitable[None]]) -> int:
    """Runs `work` to its end, and turns what it raises into one sentence on standard error and an exit code."""
    occupy_standard_descriptors()
    try:
        return asyncio.run(_until_signalled(work))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except Exception as error:
        return _report(error)


def _report(error: Exception) -> Exit:
    failure = first(error)
    code, sentence = explain(failure)
    print(f"tcpls: {sentence}", file=sys.stderr)
    if code is Exit.FAILED and not isinstance(failure, TCPLSError | ValueError):
        raise error  # Not one of ours: a mistake in this program, and its trace is wanted.
    return code


def first(error: BaseException) -> BaseException:
    """The first of the errors that a group of tasks raised."""
    return first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def guarded(work: Callable[[], int]) -> int:
    """The same for a command that needs no event loop and gives its own exit code."""
    try:
        return work()
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except Exception as error:
        return _report(error)
