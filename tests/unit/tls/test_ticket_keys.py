"""The keys of tickets: how they rotate, how processes share them, and what becomes of them when they cannot."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tcpls.errors import ConfigurationError
from tcpls.tls.suites import CipherSuite
from tcpls.tls.ticket_keys import LOOK_AGAIN, MAX_KEYS, SKEW, Keys, TicketKey, TicketKeys, read_keys, write_keys
from tcpls.tls.tickets import TicketState
from tests.engine import ENGINE
from tests.unit.tls.pair import seeded

HOUR = 3_600_000
START = 1_800_000_000_000


def state(issued: int, lifetime: int = 3600) -> TicketState:
    return TicketState(b"k" * 32, CipherSuite.AES_128_GCM_SHA256, issued, lifetime, 5, "server.example", b"h2")


class Shared:
    """A vault in memory, which counts, and may be out of reach."""

    def __init__(self) -> None:
        self.keys: Keys = ()
        self.loads = 0
        self.updates = 0
        self.reachable = True

    def load(self) -> Keys | None:
        self.loads += 1
        return self.keys if self.reachable else None

    def update(self, change: Callable[[Keys], Keys]) -> Keys | None:
        self.updates += 1
        if not self.reachable:
            return None
        self.keys = change(self.keys)
        return self.keys


def keys(vault: Shared | None = None, seed: int = 1, lifetime: int = 3600) -> TicketKeys:
    return TicketKeys(ENGINE, seeded(seed), lifetime, vault)


def test_what_was_sealed_can_be_opened_while_it_is_alive() -> None:
    mine = keys()
    ticket = mine.seal(state(START), START)
    assert mine.open(ticket, START) == state(START)
    assert mine.open(ticket, START + HOUR - 1) == state(START)
    assert mine.open(ticket, START + HOUR) is None


def test_a_ticket_outlives_the_change_of_keys_and_its_key_does_not_outlive_it() -> None:
    mine = keys()
    mine.seal(state(START), START)
    late = mine.seal(state(START + HOUR - 1), START + HOUR - 1)
    other = mine.seal(state(START + HOUR), START + HOUR)
    assert late[:16] != other[:16]
    assert mine.open(late, START + 2 * HOUR - 2) is not None
    assert mine.open(late, START + 2 * HOUR) is None
    # A clock that is set back afterwards brings nothing back.
    assert mine.open(late, START + 2 * HOUR - 2) is None


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: b"x" + t[1:], lambda t: t[:40], lambda t: b"", bytes])
def test_what_was_not_sealed_here_is_not_opened(change: Callable[[bytes], bytes]) -> None:
    mine = keys()
    ticket = mine.seal(state(START), START)
    changed = change(ticket) if change is not bytes else ticket[:20] + bytes([ticket[20] ^ 1]) + ticket[21:]
    assert mine.open(changed, START) is None


def test_another_process_opens_what_one_has_sealed() -> None:
    vault = Shared()
    one, two = keys(vault, 1), keys(vault, 2)
    ticket = one.seal(state(START), START)
    assert two.open(ticket, START) == state(START)
    assert two.seal(state(START), START)[:16] == ticket[:16]
    assert (vault.loads, vault.updates) == (1, 1), "the key is held, and not asked for again"


def test_the_next_start_opens_what_was_sealed_before() -> None:
    vault = Shared()
    ticket = keys(vault, 1).seal(state(START), START)
    assert keys(vault, 2).open(ticket, START + 1) == state(START)
    assert keys(Shared(), 3).open(ticket, START + 1) is None


def test_one_of_several_processes_makes_the_next_key() -> None:
    vault = Shared()
    one, two = keys(vault, 1), keys(vault, 2)
    one.seal(state(START), START)
    two.seal(state(START), START)
    first = two.seal(state(START + HOUR), START + HOUR)
    assert one.seal(state(START + HOUR), START + HOUR)[:16] == first[:16]
    assert [key.since for key in vault.keys] == [START + HOUR, START]
    one.seal(state(START + 2 * HOUR), START + 2 * HOUR)
    assert [key.since for key in vault.keys] == [START + 2 * HOUR, START + HOUR]


def test_a_key_of_a_clock_that_is_a_little_ahead_is_used() -> None:
    vault = Shared()
    one, two = keys(vault, 1), keys(vault, 2)
    ticket = one.seal(state(START), START + 5)
    assert two.seal(state(START), START)[:16] == ticket[:16]
    assert len(vault.keys) == 1
    two.seal(state(START), START + 4 - SKEW)
    assert len(vault.keys) == 1, "and a key of the far future is not"
    assert vault.keys[0].name != ticket[:16]


def test_unknown_tickets_cost_one_look_a_second() -> None:
    vault = Shared()
    mine = keys(vault)
    for number in range(1000):
        mine.open(seeded(number)(100), START)
    assert vault.loads == 1
    mine.open(bytes(100), START + LOOK_AGAIN)
    assert vault.loads == 2
    mine.open(bytes(100), START - 1)
    assert vault.loads == 3, "a clock that was set back does not end the looking"


def test_a_vault_out_of_reach_stops_nobody() -> None:
    vault = Shared()
    vault.reachable = False
    mine = keys(vault)
    ticket = mine.seal(state(START), START)
    assert mine.open(ticket, START) == state(START)
    mine.seal(state(START), START)
    assert vault.updates == 1, "not asked again for each ticket"
    # When it is back, its keys are held beside this process's own.
    vault.reachable = True
    others = keys(vault, 2).seal(state(START), START)
    assert mine.open(others, START + LOOK_AGAIN) is not None
    assert mine.open(ticket, START + LOOK_AGAIN) is not None


def test_a_key_that_has_sealed_its_fill_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tcpls.tls.ticket_keys._SEALED_LIMIT", 3)
    mine = keys()
    names = [mine.seal(state(START), START)[:16] for _ in range(3 * 20)]
    assert len(set(names)) == 20
    assert all(len({*names[start : start + 3]}) == 1 for start in range(0, 60, 3))


@pytest.mark.parametrize("count", range(MAX_KEYS + 1))
def test_the_text_form(count: int) -> None:
    made = tuple(TicketKey(seeded(n)(16), seeded(n + 50)(32), START + n) for n in range(count))
    assert read_keys(write_keys(made)) == made
    assert read_keys(b"") == ()


GOOD = write_keys((TicketKey(bytes(16), bytes(32), START),))


@pytest.mark.parametrize(
    "data",
    [
        b"\n",
        b"other\n",
        b"\xff\xfe",
        GOOD + b"x",
        GOOD + b"\n",
        GOOD[:-2],
        GOOD.replace(b"1\n", b"2\n", 1),
        GOOD.replace(str(START).encode(), b"-1"),
        GOOD.replace(str(START).encode(), b"9" * 5000),
        GOOD + GOOD.split(b"\n", 1)[1] * MAX_KEYS,
    ],
)
def test_what_is_no_file_of_keys(data: bytes) -> None:
    with pytest.raises(ConfigurationError):
        read_keys(data)


def test_no_secret_is_shown() -> None:
    assert b"k" * 32 not in repr(TicketKey(b"n" * 16, b"k" * 32, 0)).encode()
    mine = keys(Shared())
    mine.seal(state(START), START)
    assert repr(mine) == "TicketKeys(lifetime=3600)"
