"""SOCKS 5, SOCKS 4a and HTTP CONNECT: what programs say, in whatever pieces, and what they are told."""

from __future__ import annotations

import base64
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpls.proxy.dialogue import Dialogue, Passwords, knows
from tcpls.proxy.front import proxy_dialogue
from tcpls.proxy.http_connect import HttpConnect
from tcpls.proxy.message import Code
from tcpls.proxy.socks import Socks4, Socks5
from tcpls.proxy.target import Target

PASSWORDS = {b"joe": b"secret:word"}
GREETING = b"\5\1\0"
WITH_PASSWORD = b"\5\2\0\2" + b"\1\3joe\x0bsecret:word"
BASIC = b"Proxy-Authorization: Basic " + base64.b64encode(b"joe:secret:word")

NAME = Target.of("db.internal", 5432)
V4 = Target.of("192.0.2.7", 22)
V6 = Target.of("2001:db8::7", 22)

SOCKS5_NAME = b"\5\1\0\3\x0bdb.internal\x15\x38"
CONNECT = b"CONNECT db.internal:5432 HTTP/1.1\r\nHost: db.internal:5432\r\n\r\n"

Make = Callable[[Passwords | None], Dialogue]

GOOD = [
    pytest.param(Socks5, None, GREETING + SOCKS5_NAME, NAME, b"\5\0", id="socks5-name"),
    pytest.param(Socks5, None, GREETING + b"\5\1\0\1\xc0\0\2\7\0\x16", V4, b"\5\0", id="socks5-v4"),
    pytest.param(
        Socks5, None, GREETING + b"\5\1\0\4" + ip_address("2001:db8::7").packed + b"\0\x16", V6, b"\5\0", id="socks5-v6"
    ),
    pytest.param(Socks5, None, b"\5\3\2\1\0" + SOCKS5_NAME, NAME, b"\5\0", id="socks5-many-methods"),
    pytest.param(Socks5, PASSWORDS, WITH_PASSWORD + SOCKS5_NAME, NAME, b"\5\2\1\0", id="socks5-password"),
    pytest.param(Socks4, None, b"\4\1\0\x16\xc0\0\2\7joe\0", V4, b"", id="socks4"),
    pytest.param(Socks4, None, b"\4\1\x15\x38\0\0\0\1\0db.internal\0", NAME, b"", id="socks4a"),
    pytest.param(HttpConnect, None, CONNECT, NAME, b"", id="http"),
    pytest.param(HttpConnect, None, b"CONNECT [2001:db8::7]:22 HTTP/1.1\r\nHost: x\r\n\r\n", V6, b"", id="http-v6"),
    pytest.param(HttpConnect, None, b"CONNECT 192.0.2.7:22 HTTP/1.0\r\n\r\n", V4, b"", id="http-1.0"),
    pytest.param(HttpConnect, PASSWORDS, CONNECT[:-2] + BASIC + b"\r\n\r\n", NAME, b"", id="http-password"),
]


@pytest.mark.parametrize(("make", "passwords", "said", "target", "told"), GOOD)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_request_in_pieces(
    make: Make, passwords: Passwords | None, said: bytes, target: Target, told: bytes, size: int
) -> None:
    dialogue, answers = make(passwords), b""
    for at in range(0, len(said), size):
        assert dialogue.target is None and not dialogue.over
        dialogue.receive(said[at : at + size])
        answers += dialogue.data_to_send()
    assert dialogue.target == target
    assert not dialogue.over and dialogue.trailing == b""
    assert answers == told


@pytest.mark.parametrize(("make", "passwords", "said", "target", "told"), GOOD)
def test_what_comes_behind_a_request_belongs_to_the_connection(
    make: Make, passwords: Passwords | None, said: bytes, target: Target, told: bytes
) -> None:
    dialogue = make(passwords)
    dialogue.receive(said + b"\5first words")
    assert dialogue.target == target
    assert dialogue.trailing == b"\5first words"


def reply(number: int) -> bytes:
    return bytes((5, number, 0, 1, 0, 0, 0, 0, 0, 0))


CODES = [
    (Code.CONNECTED, 0, 200),
    (Code.FAILED, 1, 502),
    (Code.NOT_ALLOWED, 2, 403),
    (Code.NETWORK_UNREACHABLE, 3, 502),
    (Code.HOST_UNREACHABLE, 4, 502),
    (Code.REFUSED, 5, 502),
    (Code.TIMED_OUT, 6, 504),
    (Code.NOT_UNDERSTOOD, 1, 502),
    (Code.ADDRESS_TYPE, 8, 502),
    (Code.NO_SUCH_NAME, 4, 502),
    (Code.TOO_MANY, 1, 503),
]


@pytest.mark.parametrize(("code", "socks", "status"), CODES)
def test_each_code_has_an_answer_in_each_protocol(code: Code, socks: int, status: int) -> None:
    five, four, http = Socks5(), Socks4(), HttpConnect()
    five.receive(GREETING + SOCKS5_NAME)
    five.data_to_send()
    five.answer(code)
    assert five.data_to_send() == reply(socks)
    four.receive(b"\4\1\0\x16\xc0\0\2\7\0")
    four.answer(code)
    assert four.data_to_send() == bytes((0, 0x5B if code else 0x5A, 0, 0, 0, 0, 0, 0))
    http.receive(CONNECT)
    http.answer(code)
    assert http.data_to_send().startswith(b"HTTP/1.1 %d " % status)


def test_every_code_is_in_that_table() -> None:
    assert {code for code, _, _ in CODES} == set(Code)


@pytest.mark.parametrize(
    ("make", "passwords", "said", "told", "why"),
    [
        pytest.param(Socks5, None, b"\5\1\2", b"\5\xff", "no method", id="only-a-password-where-there-are-none"),
        pytest.param(Socks5, None, b"\5\0", b"\5\xff", "no method", id="no-method-at-all"),
        pytest.param(Socks5, PASSWORDS, b"\5\1\0", b"\5\xff", "no method", id="no-password"),
        pytest.param(Socks5, PASSWORDS, b"\5\1\2\1\3joe\4word", b"\5\2\1\1", "wrong user", id="wrong-password"),
        pytest.param(Socks5, PASSWORDS, b"\5\1\2\1\3jim\x0bsecret:word", b"\5\2\1\1", "wrong user", id="wrong-user"),
        pytest.param(Socks5, PASSWORDS, b"\5\1\2\2\1a\1b", b"\5\2\1\1", "1929", id="another-version-of-passwords"),
        pytest.param(Socks5, None, GREETING + b"\5\2\0" + SOCKS5_NAME[3:], b"\5\0" + reply(7), "command 2", id="bind"),
        pytest.param(
            Socks5, None, GREETING + b"\5\3\0" + SOCKS5_NAME[3:], b"\5\0" + reply(7), "command 3", id="udp-associate"
        ),
        pytest.param(Socks5, None, GREETING + b"\5\1\0\2aaaa\0\1", b"\5\0" + reply(8), "type of address", id="type"),
        pytest.param(Socks5, None, GREETING + b"\5\1\1\1", b"\5\0" + reply(1), "RSV", id="reserved"),
        pytest.param(Socks5, None, GREETING + b"\4\1\0\1", b"\5\0" + reply(1), "not SOCKS 5", id="version"),
        pytest.param(Socks5, None, GREETING + b"\5\1\0\3\0\0\1", b"\5\0" + reply(1), "length", id="empty-name"),
        pytest.param(Socks5, None, GREETING + b"\5\1\0\3\1 \0\1", b"\5\0" + reply(1), "host name", id="bad-name"),
        pytest.param(Socks5, None, GREETING + b"\5\1\0\1\1\2\3\4\0\0", b"\5\0" + reply(1), "port 0", id="port-0"),
        pytest.param(Socks4, None, b"\4\2\0\x16\xc0\0\2\7\0", b"\0\x5b" + bytes(6), "command 2", id="socks4-bind"),
        pytest.param(Socks4, PASSWORDS, b"\4\1", b"\0\x5b" + bytes(6), "no passwords", id="socks4-password"),
        pytest.param(
            Socks4,
            None,
            b"\4\1\0\x16\xc0\0\2\7" + b"x" * 300,
            b"\0\x5b" + bytes(6),
            "does not end",
            id="socks4-endless",
        ),
        pytest.param(Socks4, None, b"\4\1\0\x16\0\0\0\1\0\0", b"\0\x5b" + bytes(6), "length", id="socks4a-empty-name"),
        pytest.param(HttpConnect, None, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 405 ", "CONNECT", id="get"),
        pytest.param(
            HttpConnect, None, b"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 400 ", "target", id="no-port"
        ),
        pytest.param(
            HttpConnect, None, b"CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 400 ", "target", id="a-path"
        ),
        pytest.param(HttpConnect, None, b"HELLO\r\n\r\n", b"HTTP/1.1 400 ", "", id="not-http"),
        pytest.param(
            HttpConnect, None, CONNECT[:-2] + b"Content-Length: 3\r\n\r\nabc", b"HTTP/1.1 400 ", "content", id="content"
        ),
        pytest.param(HttpConnect, None, b"CONNECT " + b"a" * 17000, b"HTTP/1.1 431 ", "", id="endless"),
        pytest.param(HttpConnect, PASSWORDS, CONNECT, b"HTTP/1.1 407 ", "wrong user", id="http-no-password"),
        pytest.param(
            HttpConnect,
            PASSWORDS,
            CONNECT[:-2] + BASIC[:-4] + b"\r\n\r\n",
            b"HTTP/1.1 407 ",
            "wrong user",
            id="http-wrong",
        ),
        pytest.param(
            HttpConnect,
            PASSWORDS,
            CONNECT[:-2] + b"Proxy-Authorization: Basic =\xff\r\n\r\n",
            b"HTTP/1.1 407 ",
            "wrong",
            id="http-not-base64",
        ),
    ],
)
def test_what_is_refused(make: Make, passwords: Passwords | None, said: bytes, told: bytes, why: str) -> None:
    dialogue = make(passwords)
    dialogue.receive(said)
    assert dialogue.over and dialogue.target is None
    assert why in dialogue.why
    assert dialogue.data_to_send().startswith(told)


def test_a_password_is_asked_for_in_a_way_that_programs_understand() -> None:
    dialogue = HttpConnect(PASSWORDS)
    dialogue.receive(CONNECT)
    assert b'\r\nProxy-Authenticate: Basic realm="tcpls proxy"\r\n' in dialogue.data_to_send()


def test_passwords() -> None:
    assert knows(PASSWORDS, b"joe", b"secret:word")
    assert not knows(PASSWORDS, b"joe", b"")
    assert not knows(PASSWORDS, b"jim", b"")


TALK = st.one_of(
    st.binary(max_size=400),
    st.tuples(
        st.sampled_from([GREETING, WITH_PASSWORD, b"\4\1", b"\5", b"CONNECT "]),
        st.sampled_from([b"", SOCKS5_NAME, SOCKS5_NAME[:7], CONNECT, b"\0\x16\0\0\0\1\0", b"HTTP/1.1\r\n"]),
        st.binary(max_size=300),
    ).map(b"".join),
)


@given(TALK, st.lists(st.integers(1, 50), min_size=1, max_size=8), st.sampled_from([None, PASSWORDS]))
def test_any_bytes_lead_to_a_target_or_to_an_end_or_to_more(
    said: bytes, sizes: list[int], passwords: Passwords | None
) -> None:
    """And never to an exception: `tests/fuzz` has more of it."""
    dialogue, at = proxy_dialogue(passwords)(said[:1]), 0
    for number in range(len(said)):
        if dialogue is None or dialogue.over or dialogue.target is not None or at >= len(said):
            break
        size = sizes[number % len(sizes)]
        dialogue.receive(said[at : at + size])
        at += size
        dialogue.data_to_send()
    if dialogue is not None and dialogue.target is not None:
        for code in Code:
            dialogue.answer(code)
        assert dialogue.data_to_send()


@pytest.mark.parametrize("first", [b"\5", b"\4", b"C"])
def test_no_dialogue_goes_on_for_ever(first: bytes) -> None:
    dialogue = proxy_dialogue(None)(first)
    assert dialogue is not None
    dialogue.receive(first)
    for _ in range(20_000):
        if dialogue.over or dialogue.target is not None:
            return
        dialogue.receive(b"\xff" if first == b"\5" else b"A")
    pytest.fail("it still listens")


@pytest.mark.parametrize("first", [b"\0", b"\3", b"\6", b"\x16", b"a", b"\xff"])
def test_nothing_else_is_spoken(first: bytes) -> None:
    assert proxy_dialogue(None)(first) is None
