"""Where a gateway lets its clients go: what the rules say, and what they never say."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpls.errors import ConfigurationError
from tcpls.proxy.rules import GUARDED, NEVER, EgressRules, Rule

EVERYTHING = ("*:*", "0.0.0.0/0:*", "[::/0]:*", "*.*:*")


def allows(rules: tuple[str, ...] | str, name: str | None, address: str, port: int = 443, *, own: bool = False) -> bool:
    texts = (rules,) if isinstance(rules, str) else rules
    return EgressRules(texts).allow(name, ip_address(address), port, own=own)


def test_nothing_is_allowed_that_no_rule_names() -> None:
    assert not allows((), "example.org", "93.184.216.34")
    assert not EgressRules(()).may_resolve("example.org", 443)


@pytest.mark.parametrize(
    ("rule", "name", "address", "port", "allowed"),
    [
        ("db.internal:5432", "db.internal", "10.0.0.7", 5432, True),
        ("db.internal:5432", "db.internal", "10.0.0.7", 5433, False),
        ("db.internal:5432", "xdb.internal", "10.0.0.7", 5432, False),
        ("DB.Internal.:5432", "db.internal", "10.0.0.7", 5432, True),
        # The rule is for the name: whoever says the address says no name.
        ("db.internal:5432", None, "10.0.0.7", 5432, False),
        ("*.internal:22,8000-8999", "a.b.internal", "10.0.0.7", 8999, True),
        ("*.internal:22,8000-8999", "a.b.internal", "10.0.0.7", 22, True),
        ("*.internal:22,8000-8999", "a.b.internal", "10.0.0.7", 9000, False),
        ("*.internal:*", "internal", "10.0.0.7", 22, False),
        ("db?.internal:1", "db1.internal", "10.0.0.7", 1, True),
        ("10.1.0.0/16:*", None, "10.1.2.3", 65535, True),
        ("10.1.0.0/16:*", None, "10.2.2.3", 1, False),
        # What a name leads to counts, and not what it is called.
        ("10.1.0.0/16:*", "anything.example", "10.1.2.3", 1, True),
        ("10.1.0.0/16:*", "anything.example", "10.2.2.3", 1, False),
        ("[2001:db8::/32]:443", None, "2001:db8::1", 443, True),
        ("[2001:db8::/32]:443", None, "2001:db9::1", 443, False),
        ("[2001:db8::1]:443", None, "2001:db8::1", 443, True),
        ("192.0.2.1:443", None, "192.0.2.1", 443, True),
        ("192.0.2.1:443", None, "192.0.2.2", 443, False),
        ("*:443", "example.org", "93.184.216.34", 443, True),
        ("*:443", None, "2606:2800:220:1::1", 443, True),
        # A public name that leads into the gateway's network.
        ("*:443", "rebound.example", "10.0.0.7", 443, False),
        ("*.*:443", "rebound.example", "10.0.0.7", 443, False),
        ("*.*:443", "example.org", "93.184.216.34", 443, True),
        ("*.*:443", None, "93.184.216.34", 443, False),
        ("*:443", None, "192.168.1.1", 443, False),
        ("*:443", None, "100.64.0.1", 443, False),
        ("*:443", None, "fd00::1", 443, False),
        ("*:443", None, "64:ff9b::a00:7", 443, False),
    ],
)  # fmt: skip
def test_a_rule(rule: str, name: str | None, address: str, port: int, allowed: bool) -> None:
    assert allows(rule, name, address, port) is allowed


GUARDED_EXAMPLES = [
    "127.0.0.1", "127.1.2.3", "::1", "169.254.169.254", "169.254.170.2", "fe80::1", "fd00:ec2::254", "fd20:ce::254",
    "100.100.100.200", "168.63.129.16", "192.0.0.192",
]  # fmt: skip


@pytest.mark.parametrize("address", GUARDED_EXAMPLES)
def test_loopback_link_local_and_metadata_want_a_rule_for_that_very_address(address: str) -> None:
    assert not allows(EVERYTHING, None, address)
    assert not allows(EVERYTHING, "rebound.example", address)
    assert not allows("rebound.example:443", "rebound.example", address)
    exact = f"[{address}]:443" if ":" in address else f"{address}:443"
    assert allows(exact, None, address)
    assert allows(exact, "rebound.example", address)
    assert not allows(exact, None, address, 444)


@pytest.mark.parametrize("address", ["0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "255.255.255.255", "ff02::1"])
def test_what_tcp_does_not_connect_to_is_never_allowed(address: str) -> None:
    assert not allows(EVERYTHING, None, address)
    with pytest.raises(ConfigurationError, match="no connection can be made"):
        Rule.parse(f"[{address}]:1" if ":" in address else f"{address}:1")


@pytest.mark.parametrize("address", ["64:ff9b::7f00:1", "2002:7f00:1::1", "64:ff9b::a9fe:a9fe"])
def test_an_ipv4_address_inside_an_ipv6_one_is_guarded_too(address: str) -> None:
    assert not allows(EVERYTHING, None, address)
    assert allows(f"[{address}]:443", None, address)


def test_localhost_by_its_name_is_loopback_and_nothing_else() -> None:
    assert allows("localhost:443", "localhost", "127.0.0.1")
    assert allows("localhost:443", "localhost", "::1")
    assert not allows("localhost:443", "localhost", "127.0.0.2")
    assert not allows("localhost:443", "localhost", "169.254.169.254")
    assert not allows("localhost:443", None, "127.0.0.1")
    assert not allows("local*:443", "localhost", "127.0.0.1")


def test_the_gateway_s_own_addresses_want_a_rule_of_their_own() -> None:
    assert allows("10.0.0.0/8:*", None, "10.0.0.7")
    assert not allows("10.0.0.0/8:*", None, "10.0.0.7", own=True)
    assert allows("10.0.0.7:*", None, "10.0.0.7", own=True)


def test_a_name_is_looked_up_only_where_a_rule_might_allow_what_it_leads_to() -> None:
    names = EgressRules(("*.internal:22",))
    assert names.may_resolve("a.internal", 22)
    assert not names.may_resolve("a.internal", 23)
    assert not names.may_resolve("a.example", 22)
    assert EgressRules(("10.0.0.0/8:22",)).may_resolve("a.example", 22)
    assert EgressRules(("*:22",)).may_resolve("a.example", 22)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("example.org", "HOST:PORTS"),
        (":443", "HOST:PORTS"),
        ("", "HOST:PORTS"),
        ("example.org:", "neither a port"),
        ("example.org:0", "neither a port"),
        ("example.org:65536", "neither a port"),
        ("example.org:20-10", "neither a port"),
        ("example.org:http", "neither a port"),
        ("example.org:1,,2", "neither a port"),
        ("exa mple:1", "names have letters"),
        ("10.*:22", "addresses are written"),
        ("10.0.0.0/99:22", "addresses are written"),
        ("10.0.0.1/8:22", "addresses are written"),
        ("2001:db8::1:22", "in brackets"),
        ("[10.0.0.1]:22", "in brackets"),
        ("[::ffff:10.0.0.1]:22", "this is the IPv4 address"),
        ("127.0.0.0/8:22", "one by one"),
        ("169.254.0.0/16:80", "one by one"),
        ("[fe80::/10]:80", "one by one"),
    ],
)
def test_what_is_no_rule_is_refused(rule: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        EgressRules((rule,))


addresses = st.one_of(
    st.ip_addresses(), *(st.ip_addresses(network=each) for each in (*GUARDED, *NEVER))
)  # fmt: skip


@given(addresses, st.sampled_from(["a.example", None]), st.integers(1, 65535))
def test_no_wide_rule_reaches_what_is_guarded(address: object, name: str | None, port: int) -> None:
    target = ip_address(str(address))
    guarded = any(each.version == target.version and target in each for each in (*GUARDED, *NEVER))
    assert not (guarded and EgressRules(EVERYTHING).allow(name, target, port))
