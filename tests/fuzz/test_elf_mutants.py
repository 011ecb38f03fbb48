"""Mutated objects: the check gives facts or a refusal, nothing else, and soon.

TCPLS_FUZZ_RUNS sets the number of mutants (default: a few hundred per program).
"""

from __future__ import annotations

import os
import random
import struct
import time

import pytest

from tcpls.errors import ProgramRefused
from tcpls.kernel.elf_check import ObjectFacts, check_object
from tests.unit.kernel.objects import SHIPPED, needs_clang, shipped

RUNS = int(os.environ.get("TCPLS_FUZZ_RUNS", "400"))
SECONDS = 2.0
INTERESTING = (0, 1, 2, 7, 8, 24, 64, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 31, 1 << 63, (1 << 64) - 1)


def mutate(image: bytes, dice: random.Random) -> bytes:
    """A few changes of the kinds that break parsers: bits, whole fields, moved and repeated pieces, a short end."""
    data = bytearray(image)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        at = dice.randrange(len(data))
        kind = dice.randrange(6)
        if kind == 0:
            data[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            width = dice.choice((1, 2, 4, 8))
            value = dice.choice(INTERESTING) & ((1 << 8 * width) - 1)
            data[at : at + width] = value.to_bytes(width, "little")
        elif kind == 2:
            other = dice.randrange(len(data))
            length = dice.randrange(1, 65)
            data[at : at + length] = data[other : other + length]
        elif kind == 3:
            # Section headers and symbols are where lengths and offsets are: hit them more often.
            table = struct.unpack_from("<Q", image, 40)[0]
            place = table + 4 * dice.randrange(max((len(image) - table) // 4, 1))
            data[place : place + 4] = struct.pack("<I", dice.choice(INTERESTING) & 0xFFFFFFFF)
        elif kind == 4:
            data[at : at + 4] = struct.pack("<I", dice.randrange(1 << 32))
        elif dice.random() < 0.1:
            del data[at:]
            data += bytes(8)
    return bytes(data)


@needs_clang
@pytest.mark.parametrize("name", SHIPPED)
def test_mutants_give_facts_or_a_refusal(name: str) -> None:
    image = shipped(name).image
    dice = random.Random(f"elf {name}")
    slowest = 0.0
    for run in range(RUNS):
        mutant = mutate(image, dice)
        started = time.perf_counter()
        try:
            facts = check_object(mutant)
        except ProgramRefused as refused:
            assert refused.stage == "static check", run
            assert refused.reason.isprintable(), run
        else:
            assert isinstance(facts, ObjectFacts), run
        slowest = max(slowest, time.perf_counter() - started)
    assert slowest < SECONDS


def test_noise_gives_a_refusal() -> None:
    dice = random.Random("elf noise")
    for _ in range(RUNS):
        noise = b"\x7fELF\x02\x01\x01" + dice.randbytes(dice.randrange(4096))
        with pytest.raises(ProgramRefused):
            check_object(noise)
