"""Which connections a session begins with besides its first."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

import tcpls
from tcpls.aio.endpoints import Candidate, Endpoint, pair
from tcpls.aio.paths import further


def config(**settings: Any) -> tcpls.ClientConfig:
    return tcpls.ClientConfig(verify=False, **settings)


def to(*addresses: str) -> list[Endpoint]:
    return [Endpoint.parse(address, 443) for address in addresses]


def test_a_name_of_several_addresses_has_the_others_in_reserve() -> None:
    known = pair(to("192.0.2.1", "2001:db8::1"), [])
    assert further(known[0], known, config()) == []
    assert further(known[1], known, config(scheduler="weighted")) == [known[0]]


def test_named_addresses_are_used_each_once() -> None:
    here = [ip_address("192.0.2.7"), ip_address("198.51.100.7")]
    known = pair(to("192.0.2.1", "192.0.2.2"), here)
    assert len(known) == 4
    found = further(known[0], known, config(locals=("192.0.2.7", "198.51.100.7")))
    assert found == [Candidate(known[1].remote, known[1].local)]
    assert {found[0].local, known[0].local} == set(here)


@pytest.mark.parametrize(("most", "count"), [(1, 0), (2, 1), (8, 3)])
def test_no_more_than_are_agreed_on(most: int, count: int) -> None:
    known = pair(to("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"), [])
    assert len(further(known[0], known, config(scheduler="weighted", max_connections=most))) == count
