"""Programs over the library, in both directions: shipped, detached, taken back with the session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import tcpls
from tests.aio.ends import Ends, run
from tests.kernel.conftest import available, until, why_not
from tests.unit.kernel.objects import shipped

pytestmark = pytest.mark.kernel


def policy() -> tcpls.ProgramPolicy:
    return tcpls.ProgramPolicy.pinned([shipped("reno").digest, shipped("cubic").digest])


@pytest.fixture
def helper() -> Iterator[tcpls.HelperClient]:
    if reason := why_not():
        pytest.skip(reason)
    with tcpls.HelperClient.spawn(policy()) as client:
        yield client


@pytest.mark.parametrize("shipper", ["client", "server"])
def test_either_end_ships_to_the_other_and_takes_back(ends: Ends, helper: tcpls.HelperClient, shipper: str) -> None:
    async def test() -> None:
        receiving = {"programs": policy(), "helper": helper}
        settings = {"server": receiving} if shipper == "client" else receiving
        async with ends.pair(**settings) as (client, server):
            sender, receiver = (client, server) if shipper == "client" else (server, client)
            # A server knows what its client takes once the client's first record has come.
            stream = await client.open_stream()
            await stream.write(b"first")
            await server.accept_stream()
            former = receiver.congestion(), sender.congestion()
            shipment = await sender.ship_program(shipped("reno"))
            assert receiver.congestion() == shipment.algorithm
            assert sender.congestion() == former[1], "only the other end's socket has it"
            assert shipment.algorithm in available()
            assert await shipment.detach() == former[0]
            assert receiver.congestion() == former[0]
            assert await asyncio.to_thread(until, lambda: shipment.algorithm not in available(), 30.0)
            again = await sender.ship_program(shipped("cubic"))
            assert receiver.congestion() == again.algorithm
        assert await asyncio.to_thread(until, lambda: again.algorithm not in available(), 30.0)

    run(test())


def test_a_session_that_ends_while_its_program_is_loaded_leaves_nothing(ends: Ends, helper: tcpls.HelperClient) -> None:
    async def test() -> None:
        for delay in (0.0, 0.005, 0.02, 0.04, 0.06):
            async with ends.pair(server={"programs": policy(), "helper": helper}) as (client, _):
                shipping = asyncio.create_task(client.ship_program(shipped("cubic")))
                await asyncio.wait([shipping], timeout=delay)
                await client.abort()
                with pytest.raises((tcpls.SessionLost, tcpls.SessionClosed)):
                    if not shipping.done():
                        await shipping
                    raise tcpls.SessionLost("it was quicker than that")
        assert await asyncio.to_thread(until, lambda: not helper.status()["live"], 30.0)

    run(test())
