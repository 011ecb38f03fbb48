"""What a stream owes to the other tasks of its loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from tcpls.aio.session import Session
from tcpls.aio.stream import BATCH, LARGE, TURN, Stream
from tcpls.protocol.core import Core


class Unlimited:
    """A core whose peer takes everything at once."""

    sent = 0

    def send_capacity(self, stream_id: int) -> int:
        return 1 << 20

    def send(self, stream_id: int, data: bytes, now: float, more: bool = False) -> None:
        self.sent += len(data)

    def push(self, stream_id: int) -> None: ...


def stream_of(core: Unlimited, pump: Callable[[], None] = lambda: None) -> Stream:
    # Nothing here asks for the session.
    return Stream(cast("Core", core), 0, pump, asyncio.get_running_loop(), cast("Session", None))


def test_a_writer_whose_peer_takes_everything_lets_others_run() -> None:
    async def run() -> tuple[int, int]:
        core = Unlimited()
        stream = stream_of(core)
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        for _ in range(16):
            await stream.write(bytes(TURN // 2))
        task.cancel()
        return core.sent, turns

    sent, turns = asyncio.run(run())
    assert sent == 8 * TURN
    assert turns >= 7


def test_a_small_write_leaves_at_once_and_large_ones_together() -> None:
    """Large: once there is a batch of records, and what is left of it by the end of the turn, without another await."""

    async def run() -> None:
        core = Unlimited()
        pumped: list[int] = []
        stream = stream_of(core, lambda: pumped.append(core.sent))
        await stream.write(bytes(LARGE))
        assert pumped == [LARGE]
        await stream.write(bytes(BATCH // 2))
        assert len(pumped) == 1
        await stream.write(bytes(BATCH // 2))
        assert pumped[1:] == [LARGE + BATCH]
        await stream.write(bytes(LARGE + 1))
        assert len(pumped) == 2
        await asyncio.sleep(0)
        assert pumped[2:] == [LARGE + BATCH + LARGE + 1]
        await asyncio.sleep(0)
        assert len(pumped) == 3

    asyncio.run(run())
