"""The table of scenarios, and what an event is called."""

from __future__ import annotations

import dataclasses

import pytest

from tcpls.lab.scenarios import SCENARIOS, Action, Event, Scenario
from tcpls.lab.transports import TRANSPORTS


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda scenario: scenario.name)
def test_each_is_possible(scenario: Scenario) -> None:
    assert SCENARIOS[scenario.name] is scenario
    assert set(scenario.transports) <= set(TRANSPORTS)
    assert all(event.at < scenario.limit for event in scenario.events)
    # The best that the paths allow is within the limit.
    fastest = max(plan.there.rate for plan in scenario.paths)
    assert 8 * scenario.size / fastest < scenario.limit
    # Every scenario says by what recovery is judged.
    assert any(event.expect for event in scenario.events)


def test_four_paths_has_one_good_path_at_any_time() -> None:
    scenario = SCENARIOS["four-paths"]
    good = {0, 1, 2, 3}
    after = {}
    for event in scenario.events:
        assert event.action in (Action.BLACKHOLE, Action.HEAL)
        (good.add if event.action is Action.HEAL else good.discard)(event.path)
        after[event.at] = set(good)
    assert list(after) == [0.5, *(5.0 * turn for turn in range(1, 24))]
    assert list(after.values()) == [{turn % 4} for turn in range(24)]


def test_events_out_of_order_and_of_other_paths_are_refused() -> None:
    good = SCENARIOS["failover-rst"]
    late, early = Event(2.0, Action.HEAL, 0), Event(1.0, Action.HEAL, 0)
    with pytest.raises(ValueError, match="order"):
        dataclasses.replace(good, events=(late, early))
    for wrong in ({"events": (Event(1.0, Action.HEAL, 2),)}, {"begin": (0, 2)}):
        with pytest.raises(ValueError, match="does not have"):
            dataclasses.replace(good, **wrong)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Event(1.0, Action.RESET, 0), "path 1: RST"),
        (Event(1.0, Action.MIGRATE, 1), "migrate to path 2"),
        (Event(1.0, Action.ADD_PATH, 1), "path 2 is added"),
        (Event(1.0, Action.CHANGE, 0, change=(("rate", 5e6),)), "path 1: rate 5e+06"),
    ],
)
def test_events_say_what_they_are(event: Event, text: str) -> None:
    assert str(event) == text
