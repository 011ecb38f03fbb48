"""What is known of addresses by what was told of them, and what of that connections can use."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from tcpls.aio.addresses import (
    AddressAdded,
    AddressChanged,
    AddressEvent,
    AddressRemoved,
    AddressTable,
    LinkDown,
    LinkUp,
    LocalAddress,
)
from tcpls.aio.netlink import AddressState, LinkState, State

LINK = LinkState(2, "eth0", True)
STATE = AddressState(2, ip_address("192.0.2.1"), 24, usable=True, temporary=False, deprecated=False)
LOCAL = LocalAddress(STATE.address, "eth0", 2, 24)


def test_an_address_needs_its_link() -> None:
    table = AddressTable()
    assert table.update([STATE]) == []
    assert table.update([LINK]) == [LinkUp("eth0", 2), AddressAdded(LOCAL)]
    assert table.update([LINK, STATE]) == []
    assert table.update([replace(LINK, up=False)]) == [LinkDown("eth0", 2), AddressRemoved(LOCAL)]
    assert table.usable == frozenset()
    assert table.update([LINK]) == [LinkUp("eth0", 2), AddressAdded(LOCAL)]
    assert table.update([replace(LINK, gone=True)]) == [LinkDown("eth0", 2), AddressRemoved(LOCAL)]
    # Another one with its number has not its addresses.
    assert table.update([LINK]) == [LinkUp("eth0", 2)]


def test_what_comes_and_goes_at_once_has_not_happened() -> None:
    table = AddressTable()
    table.update([LINK, STATE])
    assert table.update([replace(STATE, gone=True), STATE]) == []
    other = replace(STATE, address=ip_address("192.0.2.2"))
    assert table.update([other, replace(other, gone=True)]) == []


def test_detection_is_waited_for() -> None:
    table = AddressTable()
    assert table.update([LINK, replace(STATE, usable=False)]) == [LinkUp("eth0", 2)]
    assert table.update([STATE]) == [AddressAdded(LOCAL)]
    assert table.update([replace(STATE, usable=False)]) == [AddressRemoved(LOCAL)]


def test_a_change_of_what_is_said_of_an_address_is_told() -> None:
    table = AddressTable()
    table.update([LINK, STATE])
    assert table.update([replace(STATE, deprecated=True)]) == [AddressChanged(replace(LOCAL, deprecated=True))]
    assert table.update([STATE]) == [AddressChanged(LOCAL)]
    assert table.update([replace(LINK, name="uplink")]) == [AddressChanged(replace(LOCAL, interface="uplink"))]


links = st.builds(LinkState, st.integers(1, 3), st.sampled_from(["a", "b"]), st.booleans(), st.booleans())
addresses = st.builds(
    AddressState,
    st.integers(1, 3),
    st.sampled_from([ip_address("192.0.2.1"), ip_address("192.0.2.2"), ip_address("2001:db8::1")]),
    st.sampled_from([24, 32]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
told = st.lists(st.lists(links | addresses, max_size=6), max_size=8)


def _fold(known: dict[tuple[int, str], LocalAddress], up: set[int], events: list[AddressEvent]) -> None:
    """What somebody knows who only listens; every event must be news to him."""
    for event in events:
        match event:
            case LinkUp(index=index):
                assert index not in up
                up.add(index)
            case LinkDown(index=index):
                up.remove(index)
            case AddressRemoved(address):
                known.pop((address.index, str(address.address)))
            case AddressAdded(address):
                assert address.index in up
                assert known.setdefault((address.index, str(address.address)), address) is address
            case AddressChanged(address):
                key = address.index, str(address.address)
                assert known[key] != address
                known[key] = address


@given(told, st.lists(links | addresses, max_size=8))
def test_whoever_listens_knows_all(batches: list[list[State]], at_last: list[State]) -> None:
    table = AddressTable()
    known: dict[tuple[int, str], LocalAddress] = {}
    up: set[int] = set()
    for batch in batches:
        _fold(known, up, table.update(batch))
        assert frozenset(known.values()) == table.usable
    # A fresh look gives what one would have who knew nothing before.
    _fold(known, up, table.replace(at_last))
    fresh = AddressTable()
    fresh.update(at_last)
    assert frozenset(known.values()) == table.usable == fresh.usable


@given(told)
def test_batches_do_not_matter_in_the_end(batches: list[list[State]]) -> None:
    apart, together = AddressTable(), AddressTable()
    for batch in batches:
        for state in batch:
            apart.update([state])
    together.update([state for batch in batches for state in batch])
    assert apart.usable == together.usable
