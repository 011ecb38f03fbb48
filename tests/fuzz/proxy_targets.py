"""What local programs say to a proxy, and what its two ends say to each other."""

from __future__ import annotations

from contextlib import suppress

from tcpls.errors import ConfigurationError, PeerError
from tcpls.proxy.front import proxy_dialogue
from tcpls.proxy.message import Answer, Code, TargetRefused, read_open, write_open
from tcpls.proxy.rules import EgressRules
from tcpls.proxy.target import Target as Host
from tests.fuzz.target import Target

PASSWORDS = {b"joe": b"secret"}


def dialogue(data: bytes) -> None:
    """The first byte says whether there are passwords, and in which pieces the rest comes."""
    options, said = data[:1] or b"\0", data[1:]
    piece = 1 + (options[0] >> 1)
    spoken = proxy_dialogue(PASSWORDS if options[0] & 1 else None)(said[:1])
    if spoken is None:
        return
    while said and spoken.target is None and not spoken.over:
        spoken.receive(said[:piece])
        said = said[piece:]
        spoken.data_to_send()
    if spoken.over:
        assert spoken.why
    if spoken.target is not None:
        # What is passed on is what is read at the other end.
        assert read_open(write_open(spoken.target)) == spoken.target
        spoken.answer(Code(options[0] % len(Code)))
        assert spoken.data_to_send()


def opening(data: bytes) -> None:
    with suppress(PeerError, TargetRefused):
        target = read_open(data)
        assert Host.parse(str(target)) == target
    with suppress(PeerError):
        assert Answer.read(data).text.isprintable()


def rules(data: bytes) -> None:
    with suppress(ConfigurationError):
        EgressRules((data.decode("latin-1"),)).may_resolve("a.example", 443)


def _dialogue_seeds() -> list[bytes]:
    five = b"\5\1\0\3\x0bdb.internal\x15\x38"
    return [
        b"\xfe\5\1\0" + five,
        b"\xff\5\2\0\2\1\3joe\6secret" + five,
        b"\xfe\4\1\x15\x38\0\0\0\1\0db.internal\0",
        b"\x20CONNECT db.internal:5432 HTTP/1.1\r\nHost: db.internal:5432\r\n\r\nmore",
        b"\xffCONNECT [2001:db8::1]:1 HTTP/1.0\r\nProxy-Authorization: Basic am9lOnNlY3JldA==\r\n\r\n",
    ]


def _opening_seeds() -> list[bytes]:
    hosts = ("db.internal", "192.0.2.1", "2001:db8::1")
    return [*(write_open(Host.of(each, 5432)) for each in hosts), Answer(Code.REFUSED, "why").write()]


PROXY_TARGETS = {
    "proxy_dialogue": Target(dialogue, _dialogue_seeds),
    "proxy_opening": Target(opening, _opening_seeds),
    "proxy_rules": Target(rules, lambda: [b"*.internal:22,80-90", b"10.0.0.0/8:*", b"[2001:db8::/32]:1", b"*:443"]),
}
