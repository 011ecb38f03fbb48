"""Rules for addresses, and which paths follow from them."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpls.aio.address_policy import (
    AddressPolicy,
    AddressUse,
    Path,
    PathPlan,
    PlannedPath,
    announceable,
    believable,
    plan,
)
from tcpls.aio.addresses import LocalAddress
from tcpls.aio.endpoints import Endpoint, can_pair
from tcpls.errors import ConfigurationError

DEFAULT = AddressPolicy()
NONE: frozenset[int] = frozenset()


def here(address: str, interface: str = "eth0", *, temporary: bool = False, deprecated: bool = False) -> LocalAddress:
    plain = ip_address(address)
    index = {"lo": 1, "eth0": 2, "eth1": 3, "wlan0": 4}[interface]
    return LocalAddress(plain, interface, index, 24 if plain.version == 4 else 64, temporary, deprecated)


def there(address: str, port: int = 443) -> Endpoint:
    return Endpoint(ip_address(address), port)


def opened(outcome: PathPlan) -> list[tuple[str, str, bool]]:
    return [(str(one.local.address), str(one.remote.address), one.standby) for one in outcome.open]


# What rules mean.


@pytest.mark.parametrize(
    ("address", "interface", "use"),
    [
        ("192.0.2.7", "eth1", AddressUse.OFF),
        ("192.0.2.8", "eth1", AddressUse.FULLMESH),
        ("198.51.100.1", "eth1", AddressUse.BACKUP),
        ("198.51.100.1", "eth0", AddressUse.OFF),
        ("198.51.100.1", None, AddressUse.OFF),
        ("2001:db8:1::1", None, AddressUse.FULLMESH),
        ("2001:db9::1", "eth1", AddressUse.BACKUP),
    ],
)
def test_the_most_exact_rule_counts(address: str, interface: str | None, use: AddressUse) -> None:
    rules = ["*=off", "192.0.2.7=off", "192.0.2.0/24=fullmesh", "eth1=backup", "2001:db8::/32=fullmesh"]
    for order in rules, rules[::-1]:
        assert AddressPolicy.parse(order).use(ip_address(address), interface) is use


def test_without_rules_every_address_is_as_any() -> None:
    assert DEFAULT.use(ip_address("192.0.2.1"), "eth0") is AddressUse.DEFAULT
    assert AddressPolicy.parse([]) == DEFAULT


@pytest.mark.parametrize(
    "text",
    [
        "eth1", "eth1=", "eth1=sometimes", "=off", "192.0.2.7/24=off", "192.0.2.0/33=off", "300.0.0.1=off", "a b=off",
        "fe80::1=off", "eth1 = off",
    ],
)  # fmt: skip
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(ConfigurationError):
        AddressPolicy.parse([text])


def test_two_rules_for_the_same_are_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match=r"there are two rules for 192\.0\.2\.7/32"):
        AddressPolicy.parse(["192.0.2.7=off", "192.0.2.7/32=backup"])


# Which paths follow.


def test_every_address_has_a_path_and_no_more_are_opened_than_that_takes() -> None:
    local = [here("192.0.2.1"), here("198.51.100.1", "wlan0")]
    remotes = [there("203.0.113.1"), there("203.0.113.2"), there("203.0.113.3")]
    outcome = plan(DEFAULT, local, remotes[:1], remotes[1:], [])
    assert opened(outcome) == [
        ("192.0.2.1", "203.0.113.1", False),
        ("198.51.100.1", "203.0.113.2", False),
        ("192.0.2.1", "203.0.113.3", False),
    ]
    first = Path(0, local[0].address, remotes[0])
    assert opened(plan(DEFAULT, local, remotes[:1], [], [first])) == [("198.51.100.1", "203.0.113.1", False)]


def test_full_mesh() -> None:
    local = [here("192.0.2.1"), here("198.51.100.1", "wlan0")]
    remotes = [there("203.0.113.1"), there("203.0.113.2")]
    outcome = plan(AddressPolicy.parse(["*=fullmesh"]), local, remotes, [], [])
    assert {pair[:2] for pair in opened(outcome)} == {
        (str(one.address), str(other.address)) for one in local for other in remotes
    }
    one = plan(AddressPolicy.parse(["wlan0=fullmesh"]), local, remotes, [], [])
    assert len(one.open) == 3 and {path.remote for path in one.open if path.local == local[1]} == set(remotes)


def test_backups_come_last_and_stand_by() -> None:
    policy = AddressPolicy.parse(["eth0=backup"])
    local = [here("192.0.2.1"), here("198.51.100.1", "wlan0")]
    outcome = plan(policy, local, [there("203.0.113.1")], [], [])
    assert opened(outcome) == [("198.51.100.1", "203.0.113.1", False), ("192.0.2.1", "203.0.113.1", True)]
    theirs = AddressPolicy.parse(["203.0.113.1=backup"])
    assert [path.standby for path in plan(theirs, local, [there("203.0.113.1")], [], []).open] == [True, True]
    exists = Path(7, local[0].address, there("203.0.113.1"))
    assert plan(policy, local, [there("203.0.113.1")], [], [exists]).standby == {7}


def test_what_is_off_is_dropped_and_what_is_gone_is_dead() -> None:
    local = [here("192.0.2.1"), here("198.51.100.1", "wlan0")]
    paths = [
        Path(0, local[0].address, there("203.0.113.1")),
        Path(1, local[1].address, there("203.0.113.1")),
        Path(2, ip_address("192.0.2.9"), there("203.0.113.1")),
        Path(3, local[1].address, there("203.0.113.2")),
    ]
    policy = AddressPolicy.parse(["eth0=off", "203.0.113.2=off"])
    outcome = plan(policy, local, [there("203.0.113.1")], [there("203.0.113.2")], paths)
    assert (outcome.open, outcome.drop, outcome.dead) == ((), frozenset({0, 3}), frozenset({2}))


def test_a_peer_s_address_that_was_taken_back_keeps_its_connections() -> None:
    """Draft 4.2.8 is about new connections only."""
    local = [here("192.0.2.1")]
    path = Path(0, local[0].address, there("203.0.113.9"))
    outcome = plan(DEFAULT, local, [], [], [path])
    assert outcome == PathPlan((), NONE, NONE, NONE)


def test_one_network_of_an_interface_is_one_path() -> None:
    local = [here("2001:db8::1"), here("2001:db8::99", temporary=True), here("2001:db8::98", deprecated=True)]
    remote = there("2001:db8:ffff::1")
    outcome = plan(DEFAULT, local, [remote], [], [])
    assert opened(outcome) == [("2001:db8::99", "2001:db8:ffff::1", False)]
    # What is there already is as good.
    assert plan(DEFAULT, local, [remote], [], [Path(0, local[0].address, remote)]).open == ()
    # A deprecated address is good for what exists, and another one takes its place.
    later = plan(DEFAULT, local, [remote], [], [Path(0, local[2].address, remote)])
    assert (opened(later), later.drop, later.dead) == ([("2001:db8::99", "2001:db8:ffff::1", False)], NONE, NONE)
    # Who names an address wants it.
    named = plan(AddressPolicy.parse(["2001:db8::1=backup"]), local, [remote], [], [])
    assert opened(named) == [
        ("2001:db8::99", "2001:db8:ffff::1", False),
        ("2001:db8::1", "2001:db8:ffff::1", True),
    ]


def test_an_address_of_two_interfaces_is_that_of_the_first() -> None:
    local = [here("192.0.2.1", "eth1"), here("192.0.2.1")]
    remote = there("203.0.113.1")
    assert plan(AddressPolicy.parse(["eth0=off"]), local, [remote], [], []).open == ()
    assert [path.local for path in plan(AddressPolicy.parse(["eth1=off"]), local, [remote], [], []).open] == [local[1]]


def test_an_interface_without_a_path_comes_before_a_second_address_of_another() -> None:
    local = [here("192.0.2.1"), here("2001:db8::1"), here("198.51.100.1", "wlan0")]
    remotes = [there("203.0.113.1"), there("2001:db8:ffff::1")]
    exists = Path(0, local[0].address, remotes[0])
    assert opened(plan(DEFAULT, local, remotes, [], [exists], room=1)) == [("198.51.100.1", "203.0.113.1", False)]


def test_loopback_and_link_local_addresses_keep_to_themselves() -> None:
    local = [here("127.0.0.1", "lo"), here("192.0.2.1"), here("fe80::1%2"), here("2001:db8::1"), here("169.254.1.1")]
    remotes = [there("203.0.113.1"), there("fe80::2%2"), there("127.0.0.9")]
    assert {pair[:2] for pair in opened(plan(DEFAULT, local, remotes, [], []))} == {
        ("192.0.2.1", "203.0.113.1"), ("fe80::1%2", "fe80::2%2"), ("127.0.0.1", "127.0.0.9"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("address", "dialed", "believed"),
    [
        ("203.0.113.1", "198.51.100.1", True),
        ("10.0.0.1", "198.51.100.1", True),
        ("2001:db8::1", "198.51.100.1", True),
        ("127.0.0.1", "198.51.100.1", False),
        ("127.0.0.2", "127.0.0.1", True),
        ("::1", "127.0.0.1", True),
        ("::1", "2001:db8::1", False),
        ("169.254.169.254", "198.51.100.1", False),
        ("169.254.1.1", "169.254.1.2", True),
        ("fe80::1", "fe80::2%2", False),
        ("::ffff:203.0.113.1", "198.51.100.1", False),
        ("::ffff:127.0.0.1", "127.0.0.1", False),
        ("224.0.0.1", "198.51.100.1", False),
        ("ff02::1", "2001:db8::1", False),
        ("0.0.0.0", "127.0.0.1", False),
        ("::", "::1", False),
        ("255.255.255.255", "198.51.100.1", False),
    ],
)
def test_where_a_peer_may_send_this_end(address: str, dialed: str, believed: bool) -> None:
    assert believable(there(address), [there(dialed)]) is believed
    assert believable(there(address, 0), [there(dialed)]) is False
    local = [here(text, "lo") for text in ("127.0.0.1", "::1", "192.0.2.1", "2001:db8:9::1", "169.254.7.7")]
    outcome = plan(AddressPolicy.parse(["*=fullmesh"]), local, [there(dialed)], [there(address)], [])
    assert any(path.remote == there(address) for path in outcome.open) is believed


def test_what_a_peer_is_told() -> None:
    local = [
        here("127.0.0.1", "lo"), here("fe80::1%2"), here("2001:db8::1"), here("2001:db8::99", temporary=True),
        here("2001:db8::98", deprecated=True), here("192.0.2.1"), here("198.51.100.1", "wlan0"),
    ]  # fmt: skip
    policy = AddressPolicy.parse(["wlan0=off"])
    assert announceable(policy, local, [ip_address("192.0.2.1")]) == (local[2],)
    assert announceable(DEFAULT, local, [ip_address("192.0.2.1")]) == (local[2], local[6])
    assert announceable(DEFAULT, local, [ip_address("127.0.0.2")]) == (local[0],)


# What always holds.

LOCALS = [
    here("192.0.2.1"), here("192.0.2.2"), here("198.51.100.1", "eth1"), here("198.51.100.2", "wlan0"),
    here("192.0.2.1", "eth1"), here("2001:db8::1"), here("2001:db8::9", temporary=True), here("2001:db8:1::1", "wlan0"),
    here("2001:db8::8", deprecated=True), here("127.0.0.1", "lo"), here("::1", "lo"), here("fe80::1%2"),
]  # fmt: skip
REMOTES = [
    there("203.0.113.1"), there("203.0.113.1", 444), there("203.0.113.2"), there("2001:db8:f::1"), there("127.0.0.1"),
    there("2001:db8:f::2"), there("fe80::2%2"), there("::ffff:203.0.113.2"), there("169.254.1.1"),
]  # fmt: skip
SUBJECTS = ["*", "eth0", "eth1", "wlan0", "192.0.2.1", "192.0.2.0/24", "2001:db8::/32", "203.0.113.2", "2001:db8:f::1"]

policies = st.dictionaries(st.sampled_from(SUBJECTS), st.sampled_from([use.value for use in AddressUse])).map(
    lambda rules: AddressPolicy.parse(f"{subject}={use}" for subject, use in rules.items())
)
local_sets = st.lists(st.sampled_from(LOCALS), unique=True)
remote_lists = st.lists(st.sampled_from(REMOTES), unique=True)
path_lists = st.lists(st.tuples(st.sampled_from(LOCALS), st.sampled_from(REMOTES)), max_size=6).map(
    lambda pairs: [Path(number, local.address, remote) for number, (local, remote) in enumerate(pairs)]
)
situations = st.tuples(policies, local_sets, remote_lists, remote_lists, path_lists)
Situation = tuple[AddressPolicy, list[LocalAddress], list[Endpoint], list[Endpoint], list[Path]]


@given(situations, st.randoms(use_true_random=False))
def test_the_order_in_which_this_end_knows_things_does_not_matter(situation: Situation, dice: random.Random) -> None:
    policy, local, dialed, announced, paths = situation
    outcome = plan(policy, local, dialed, announced, paths)
    dice.shuffle(local)
    dice.shuffle(paths)
    mixed = AddressPolicy(tuple(sorted(policy.rules, key=lambda rule: str(rule.subject))))
    assert plan(mixed, local, dialed, announced, paths) == outcome


@given(situations)
def test_a_plan_that_is_carried_out_leaves_nothing_to_do(situation: Situation) -> None:
    policy, local, dialed, announced, paths = situation
    outcome = plan(policy, local, dialed, announced, paths)
    kept = [path for path in paths if path.connection_id not in outcome.drop | outcome.dead]
    made = [Path(100 + at, one.local.address, one.remote) for at, one in enumerate(outcome.open)]
    again = plan(policy, local, dialed, announced, kept + made)
    assert (again.open, again.drop, again.dead) == ((), NONE, NONE)
    assert again.standby == outcome.standby | {
        path.connection_id for path, one in zip(made, outcome.open, strict=True) if one.standby
    }


@given(situations, st.integers(-1, 9))
def test_less_room_is_the_beginning_of_the_same(situation: Situation, room: int) -> None:
    whole = plan(*situation)
    assert plan(*situation, room=room) == replace(whole, open=whole.open[: max(room, 0)])


def _fit(local: LocalAddress, remote: Endpoint) -> bool:
    alike = local.loopback == remote.address.is_loopback and local.link_local == remote.address.is_link_local
    return alike and can_pair(local.address, remote.address)


@given(situations)
def test_what_is_opened_is_allowed_and_new(situation: Situation) -> None:
    policy, local, dialed, announced, paths = situation
    outcome = plan(policy, local, dialed, announced, paths)
    pairs = [(one.local.address, one.remote) for one in outcome.open]
    gone = outcome.drop | outcome.dead
    assert len(set(pairs)) == len(pairs)
    assert not set(pairs) & {(path.local, path.remote) for path in paths if path.connection_id not in gone}
    for one in outcome.open:
        assert one.local in local and not one.local.deprecated and _fit(one.local, one.remote)
        assert one.remote in dialed or (one.remote in announced and believable(one.remote, dialed))
        ends = {policy.use(one.local.address, one.local.interface), policy.use(one.remote.address)}
        assert AddressUse.OFF not in ends
        assert one.standby is (AddressUse.BACKUP in ends)
    assert gone | outcome.standby <= {path.connection_id for path in paths}
    assert not outcome.drop & outcome.dead and not outcome.standby & gone
    assert outcome.dead == {path.connection_id for path in paths if path.local not in {one.address for one in local}}


@given(situations)
def test_every_end_has_a_path_and_none_is_opened_for_nothing(situation: Situation) -> None:
    policy, local, dialed, announced, paths = situation
    outcome = plan(policy, local, dialed, announced, paths)
    covered: set[IPv4Address | IPv6Address | Endpoint] = set()
    for path in paths:
        if path.connection_id not in outcome.drop | outcome.dead:
            covered |= {path.local, path.remote}
    for one in outcome.open:
        meshed = AddressUse.FULLMESH in (
            policy.use(one.local.address, one.local.interface),
            policy.use(one.remote.address),
        )
        assert meshed or not {one.local.address, one.remote} <= covered
        covered |= {one.local.address, one.remote}
    remotes = [
        one
        for one in dict.fromkeys([*dialed, *(each for each in announced if believable(each, dialed))])
        if policy.use(one.address) is not AddressUse.OFF
    ]
    # The first interface is the one that an address belongs to which two have.
    first: dict[IPv4Address | IPv6Address, LocalAddress] = {}
    for own in sorted(local, key=lambda each: each.index):
        first.setdefault(own.address, own)
    usable = [
        own
        for own in first.values()
        if not own.deprecated and policy.use(own.address, own.interface) is not AddressUse.OFF
    ]
    for remote in remotes:
        assert remote in covered or not any(_fit(own, remote) for own in usable)
    for own in usable:
        network = ip_network((own.address.packed, own.prefix), strict=False)
        family = [
            each for each in usable if each.index == own.index and each.address in network and each.prefix == own.prefix
        ]
        served = any(each.address in covered for each in family)
        assert served or not any(_fit(own, remote) for remote in remotes)


@given(local_sets, remote_lists)
def test_a_full_mesh_has_every_pair(local: list[LocalAddress], dialed: list[Endpoint]) -> None:
    policy = AddressPolicy.parse(["*=fullmesh"])
    outcome = plan(policy, local, dialed, [], [])
    sources = {one.local for one in outcome.open}
    assert {(one.local, one.remote) for one in outcome.open} == {
        (own, remote) for own in sources for remote in dialed if _fit(own, remote)
    }


def test_planned_paths_say_where_from() -> None:
    """A socket can be bound to what they say, on their link too."""
    outcome = plan(DEFAULT, [here("fe80::1%2")], [there("fe80::2%2")], [], [])
    assert outcome.open == (PlannedPath(here("fe80::1%2"), there("fe80::2%2"), False),)
    assert outcome.open[0].remote.name == ("fe80::2", 443, 0, 2)
