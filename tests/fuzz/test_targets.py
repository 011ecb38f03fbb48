"""Every fuzz target over its seeds and some thousand mutations of them, the same in every run."""

from __future__ import annotations

import random

import pytest

from tcpls.tls.flow import Outcome
from tests.fuzz.targets import EARLY, OPTIONS, RETRY, TARGETS, client_of, flights, messages, server_of

MUTATIONS = 1500


def mutate(data: bytes, choice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(choice.choice((1, 1, 1, 2, 4))):
        at = choice.randrange(len(changed) + 1)
        size = choice.choice((1, 1, 2, 4, 16))
        match choice.randrange(5):
            case 0:
                changed[at : at + size] = choice.randbytes(size)
            case 1:
                del changed[at : at + size]
            case 2:
                changed[at:at] = choice.randbytes(size)
            case 3:
                changed[at:at] = changed[at : at + 16 * size]
            case _:
                changed[at : at + 1] = bytes((choice.choice((0, 1, 0x7F, 0x80, 0xFF)),))
    return bytes(changed)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_its_seeds_and_what_is_made_of_them(name: str) -> None:
    target = TARGETS[name]
    seeds = target.seeds()
    choice = random.Random(name)
    for seed in [b"", *seeds]:
        target.run(seed)
    for _ in range(MUTATIONS):
        target.run(mutate(choice.choice(seeds), choice))


@pytest.mark.parametrize("options", OPTIONS)
def test_the_seeds_of_a_handshake_go_all_the_way(options: int) -> None:
    """Or else the mutations of them would never come far."""
    for handshake, said in zip((server_of(options), client_of(options)), flights(options), strict=True):
        events: list[object] = []
        for message in messages(said):
            handshake.receive(handshake.read_epoch, message)
            events += handshake.events()
        (outcome,) = (event for event in events if isinstance(event, Outcome))
        assert outcome.early_data.accepted is (options & EARLY != 0 and not options & RETRY)
