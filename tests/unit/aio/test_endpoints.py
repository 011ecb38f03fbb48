"""Addresses as users write them, and the order in which they are tried."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpls.aio.addresses import LocalAddress
from tcpls.aio.endpoints import Candidate, Endpoint, can_pair, interleave, pair, parse_local, usable_locals
from tcpls.errors import ConfigurationError, ConnectError

LO = socket.if_nametoindex("lo")


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("192.0.2.7", "192.0.2.7", 4433),
        ("192.0.2.7:443", "192.0.2.7", 443),
        ("2001:db8::7", "2001:db8::7", 4433),
        ("[2001:db8::7]", "2001:db8::7", 4433),
        ("[2001:db8::7]:443", "2001:db8::7", 443),
        ("fe80::7%lo", f"fe80::7%{LO}", 4433),
        ("[fe80::7%lo]:443", f"fe80::7%{LO}", 443),
        (f"fe80::7%{LO}", f"fe80::7%{LO}", 4433),
    ],
)
def test_endpoints_as_users_write_them(text: str, address: str, port: int) -> None:
    endpoint = Endpoint.parse(text, 4433)
    assert endpoint == Endpoint(ip_address(address), port)
    assert Endpoint.of(endpoint.name) == endpoint


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "'' is not an address"),
        ("example.org", "'example.org' is not an IP address"),
        ("192.0.2.7:", "'192.0.2.7:' is not an IP address"),
        ("192.0.2.7:65536", "65536 is not a port"),
        ("[192.0.2.7:443", "is not an IP address"),
        ("[2001:db8::7]443", "is not an IP address"),
        ("fe80::7", "a link-local address needs its interface"),
        ("fe80::7%none0", "there is no interface none0"),
        ("2001:db8::7%lo", "only link-local IPv6 addresses have an interface"),
        ("192.0.2.7%lo", "only link-local IPv6 addresses have an interface"),
        ("1.2.3.4\n", "is not an"),
    ],
)
def test_what_is_no_endpoint(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Endpoint.parse(text, 4433)
    assert told in str(raised.value)


def test_local_ends_are_addresses_or_interfaces() -> None:
    assert parse_local("192.0.2.7") == IPv4Address("192.0.2.7")
    assert parse_local("2001:db8::7") == IPv6Address("2001:db8::7")
    assert parse_local("eth0.100") == "eth0.100"
    for text in ("", "a/b", "a b", "1.2.3", "x" * 16):
        with pytest.raises(ConfigurationError):
            parse_local(text)


def _endpoints(*texts: str) -> list[Endpoint]:
    return [Endpoint.parse(text, 443) for text in texts]


def test_families_take_turns_and_the_first_begins() -> None:
    four = _endpoints("192.0.2.1", "192.0.2.2")
    six = _endpoints("2001:db8::1", "2001:db8::2", "2001:db8::3")
    assert interleave(six + four) == [six[0], four[0], six[1], four[1], six[2]]
    assert interleave(four + six) == [four[0], six[0], four[1], six[1], six[2]]
    assert interleave(four + six, socket.AF_INET6) == [six[0], four[0], six[1], four[1], six[2]]
    assert interleave(four, socket.AF_INET6) == four
    assert interleave([]) == []


@given(st.lists(st.sampled_from(_endpoints("192.0.2.1", "192.0.2.2", "::1", "2001:db8::2", "2001:db8::3"))))
def test_interleaving_loses_nothing_and_keeps_each_family_s_order(remotes: list[Endpoint]) -> None:
    mixed = interleave(remotes)
    assert len(mixed) == len(set(mixed)) and set(mixed) == set(remotes)
    for family in (socket.AF_INET, socket.AF_INET6):
        own = [one for one in mixed if one.family == family]
        assert own == [one for one in dict.fromkeys(remotes) if one.family == family]
    # RFC 8305 4: as long as there are two families left, neighbours are of different ones.
    both = 2 * min(len({one for one in mixed if one.family == family}) for family in (socket.AF_INET, socket.AF_INET6))
    assert all(a.family != b.family for a, b in pairwise(mixed[:both]))


def test_pairs_change_both_ends_from_one_to_the_next() -> None:
    one, two = _endpoints("192.0.2.1", "192.0.2.2")
    here, there = IPv4Address("198.51.100.1"), IPv4Address("198.51.100.2")
    assert pair([one, two], [here, there]) == [
        Candidate(one, here), Candidate(two, there), Candidate(one, there), Candidate(two, here),
    ]  # fmt: skip
    assert pair([one, two], []) == [Candidate(one), Candidate(two)]


ADDRESSES = [ip_address(text) for text in ("192.0.2.1", "192.0.2.2", "2001:db8::1", "fe80::1%1", "fe80::1%2", "::1")]


@given(st.lists(st.sampled_from(ADDRESSES)), st.lists(st.sampled_from(ADDRESSES), min_size=1))
def test_pairs_are_all_that_can_work_once(remotes: list[IPv4Address | IPv6Address], locals_: list[IPv4Address]) -> None:
    ends = interleave(Endpoint(one, 443) for one in remotes)
    pairs = pair(ends, locals_)
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == {Candidate(end, one) for end in ends for one in locals_ if can_pair(one, end.address)}


def test_a_link_is_shared_by_both_ends() -> None:
    assert can_pair(IPv6Address("fe80::1%1"), IPv6Address("fe80::2%1"))
    assert not can_pair(IPv6Address("fe80::1%1"), IPv6Address("fe80::2%2"))
    assert not can_pair(IPv6Address("fe80::1%1"), IPv6Address("2001:db8::2"))
    assert not can_pair(IPv4Address("192.0.2.1"), IPv6Address("2001:db8::2"))


def test_an_interface_stands_for_its_addresses() -> None:
    plain = LocalAddress(IPv6Address("2001:db8::1"), "eth0", 2, 64)
    temporary = LocalAddress(IPv6Address("2001:db8::9"), "eth0", 2, 64, temporary=True)
    old = LocalAddress(IPv6Address("2001:db8:1::1"), "eth0", 2, 64, deprecated=True)
    link = LocalAddress(IPv6Address("fe80::1%2"), "eth0", 2, 64)
    four = LocalAddress(IPv4Address("192.0.2.1"), "eth0", 2, 24)
    other = LocalAddress(IPv4Address("192.0.2.2"), "eth1", 3, 24)
    present = {plain, temporary, old, link, four, other}
    assert usable_locals(["eth0"], present) == [temporary.address, four.address, plain.address, link.address]
    assert usable_locals([other.address, "eth1"], present) == [other.address, other.address]
    with pytest.raises(ConnectError, match="eth2: there is no such interface"):
        usable_locals(["eth2"], present)
