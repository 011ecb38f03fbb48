"""The registry of TCP options, the policy, and requests in both directions."""

from __future__ import annotations

import pytest

from tcpls.errors import ApiMisuse, ConfigurationError
from tcpls.protocol.actions import ApplyOption
from tcpls.protocol.base import SessionConfig
from tcpls.protocol.events import OptionAnswered, OptionStatus
from tcpls.protocol.frames import ALL_CONNECTIONS, TcpOption, TcpOptionResult
from tcpls.protocol.options import (
    BY_NAME,
    EINVAL,
    REGISTRY,
    Kind,
    OptionPolicy,
    OptionValue,
    check_value,
    decode_value,
    encode_value,
    parse_option,
)
from tests.unit.protocol.ends import client, give, said, server


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user_timeout=250ms", ("user_timeout", 250)),
        ("user_timeout=250", ("user_timeout", 250)),
        ("user-timeout=1.5s", ("user_timeout", 1500)),
        ("keepalive_idle=2min", ("keepalive_idle", 120)),
        ("keepalive_idle=30", ("keepalive_idle", 30)),
        ("no_delay=on", ("no_delay", 1)),
        ("no_delay=0", ("no_delay", 0)),
        ("send_buffer=64k", ("send_buffer", 65536)),
        ("max_pacing_rate=1.5m", ("max_pacing_rate", 1_572_864)),
        ("congestion=bbr", ("congestion", "bbr")),
        ("raw=6:18:e8030000", ("raw", "6:18:e8030000")),
    ],
)
def test_what_a_command_line_says(text: str, expected: tuple[str, OptionValue]) -> None:
    assert parse_option(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nagle=1", "not a TCP option"),
        ("user_timeout", "needs a value"),
        ("user_timeout=soon", "not a number"),
        ("user_timeout=-1", "not a number"),
        ("user_timeout=1h", "unit 'h' is not known"),
        ("keepalive_idle=500ms", "whole number of s"),
        ("keepalive_count=1k", "unit 'k' is not known"),
        ("traffic_class=256", "0 to 255"),
        ("no_delay=2", "0 to 1"),
        ("congestion=Reno!", "a name is"),
        ("raw=6:18", "level:option"),
    ],
)
def test_what_a_command_line_may_not_say(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_option(text)


@pytest.mark.parametrize("option", REGISTRY, ids=[option.name for option in REGISTRY])
def test_values_are_written_and_read(option: object) -> None:
    entry = next(each for each in REGISTRY if each == option)
    values: list[OptionValue] = [entry.least, entry.most]
    if entry.kind is Kind.NAME:
        values = ["cubic"]
    elif entry.kind is Kind.RAW:
        values = ["6:18:", "41:67:20000000"]
    for value in values:
        assert check_value(entry, value) is None
        assert decode_value(entry, encode_value(entry, value)) == value
    assert check_value(entry, -1) is not None


def test_ids_and_names_are_unique() -> None:
    assert [option.option_id for option in REGISTRY] == list(range(1, len(REGISTRY) + 1))
    assert len(BY_NAME) == len(REGISTRY)


def test_a_policy_lists_what_is_allowed() -> None:
    policy = OptionPolicy()
    assert policy.allows(BY_NAME["user_timeout"], 250)
    assert policy.allows(BY_NAME["congestion"], "bbr")
    assert not policy.allows(BY_NAME["congestion"], "evil")
    assert not policy.allows(BY_NAME["receive_buffer"], 1 << 20)
    assert not policy.allows(BY_NAME["raw"], "6:18:")
    listed = OptionPolicy(allowed=frozenset({"raw"}), raw=frozenset({(6, 18)}))
    assert listed.allows(BY_NAME["raw"], "6:18:00")
    assert not listed.allows(BY_NAME["raw"], "6:19:00")
    assert listed.announced == (17,)
    with pytest.raises(ConfigurationError):
        OptionPolicy(allowed=frozenset({"nagle"}))


def test_a_request_that_is_allowed_becomes_an_action_and_an_answer() -> None:
    asking, asked = client(), server()
    request_id = asking.control.request_option("user_timeout", 250)
    (frame,) = [each for each in said(asking) if isinstance(each, TcpOption)]
    give(asked, frame)
    assert asked.actions() == [ApplyOption(request_id, 0, "user_timeout", 250)]
    asked.control.option_result(request_id, OptionStatus.APPLIED, 252)
    (result,) = [each for each in said(asked) if isinstance(each, TcpOptionResult)]
    give(asking, result)
    assert asking.events() == [OptionAnswered(request_id, "user_timeout", OptionStatus.APPLIED, 252, 0)]
    with pytest.raises(ApiMisuse):
        asked.control.option_result(request_id, OptionStatus.APPLIED, 252)


def test_all_connections_and_a_failure() -> None:
    asking, asked = client(), server()
    asking.control.request_option("congestion", "bbr", None)
    (frame,) = [each for each in said(asking) if isinstance(each, TcpOption)]
    assert frame.connection_id == ALL_CONNECTIONS
    give(asked, frame)
    assert asked.actions() == [ApplyOption(0, None, "congestion", "bbr")]
    asked.control.option_result(0, OptionStatus.FAILED, None, 2)
    (result,) = [each for each in said(asked) if isinstance(each, TcpOptionResult)]
    assert result == TcpOptionResult(0, OptionStatus.FAILED, 2, b"")
    give(asking, result)
    assert asking.events() == [OptionAnswered(0, "congestion", OptionStatus.FAILED, None, 2)]


def test_what_policy_does_not_allow_never_reaches_the_shell() -> None:
    asked = server()
    give(asked, TcpOption(0, 0, 2, b"evil"))
    give(asked, TcpOption(1, 0, 12, (1 << 20).to_bytes(8, "big")))
    give(asked, TcpOption(2, 0, 6, (9).to_bytes(8, "big")))
    assert asked.actions() == []
    assert [each for each in said(asked) if isinstance(each, TcpOptionResult)] == [
        TcpOptionResult(0, OptionStatus.REFUSED, 0, b""),
        TcpOptionResult(1, OptionStatus.REFUSED, 0, b""),
        TcpOptionResult(2, OptionStatus.REFUSED, EINVAL, b""),
    ]


def test_what_the_peer_did_not_announce_is_not_asked() -> None:
    asking = client()
    request_id = asking.control.request_option("linger2", 10)
    assert not [each for each in said(asking) if isinstance(each, TcpOption)]
    assert asking.events() == [OptionAnswered(request_id, "linger2", OptionStatus.REFUSED, None, 0)]


def test_requests_of_the_application_are_checked_and_bounded() -> None:
    asking = client(config=SessionConfig(open_requests=2))
    for name, value in (("nagle", 1), ("no_delay", 2), ("congestion", 1), ("user_timeout", "x")):
        with pytest.raises(ApiMisuse):
            asking.control.request_option(name, value)
    with pytest.raises(ApiMisuse):
        asking.control.request_option("no_delay", 1, 7)
    asking.control.request_option("no_delay", 1)
    asking.control.request_option("no_delay", 0)
    with pytest.raises(ApiMisuse):
        asking.control.request_option("no_delay", 1)
