"""Files of tickets and of ticket keys: what is read is what was written; anything else is one kind of error."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from tcpls.aio.tickets import Entry, TicketScope, _read_entries, _write_entries
from tcpls.errors import ConfigurationError, PeerError, Reason
from tcpls.tls.suites import CipherSuite
from tcpls.tls.ticket_keys import MAX_KEYS, TicketKey, read_keys, write_keys
from tcpls.tls.tickets import Ticket

names = st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=20)
scopes = st.builds(TicketScope, st.text(max_size=20), st.integers(0, 65535), st.text(max_size=20), st.text(max_size=64))


@st.composite
def tickets(draw: st.DrawFn) -> Ticket:
    suite = draw(st.sampled_from(CipherSuite))
    return Ticket(
        identity=draw(st.binary(min_size=1, max_size=300)),
        key=draw(st.binary(min_size=suite.hash_size, max_size=suite.hash_size)),
        suite=suite,
        age_add=draw(st.integers(0, 0xFFFFFFFF)),
        received=draw(st.integers(0, 1 << 40)) / 1000,
        lifetime=draw(st.integers(0, 604800)),
        server_name=draw(st.none() | names),
        alpn=draw(st.none() | st.binary(min_size=1, max_size=20)),
        verified=draw(st.booleans()),
        max_early_data=draw(st.integers(0, 0xFFFFFFFF)),
        remembered=draw(st.binary(max_size=100)),
        until=draw(st.none() | st.integers(1, 1 << 40).map(lambda time: time / 1000)),
    )


@given(st.lists(st.tuples(scopes, tickets()), max_size=5))
def test_tickets(entries: list[Entry]) -> None:
    assert _read_entries(_write_entries(entries)) == entries


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
almost_entries = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("host", "port", "server_name", "settings", "ticket"), json_values),
)
almost_files = st.fixed_dictionaries(
    {"kind": st.just("tcpls session tickets"), "form": st.just(1)},
    optional={"tickets": json_values | st.lists(almost_entries, max_size=3)},
)


def _reads_or_says_why(data: bytes) -> None:
    try:
        _read_entries(data)
    except ValueError:
        return


@given(json_values | almost_files)
def test_other_json(value: Any) -> None:
    _reads_or_says_why(json.dumps(value).encode())


@given(st.binary())
def test_other_bytes(data: bytes) -> None:
    _reads_or_says_why(data)


@given(st.lists(tickets(), min_size=1, max_size=3), st.data())
def test_damaged_tickets(some: list[Ticket], data: st.DataObject) -> None:
    written = bytearray(_write_entries([(TicketScope("h", 1, "n", "s"), ticket) for ticket in some]))
    for _ in range(data.draw(st.integers(1, 5))):
        written[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
    _reads_or_says_why(bytes(written))


@given(tickets(), st.integers(0, (1 << 64) - 1), st.sampled_from([3, 23]))
@example(Ticket(b"i", bytes(32), CipherSuite.AES_128_GCM_SHA256, 7, 1.0, 2, None, None, True), 2**64 - 199, 3)
def test_any_time(ticket: Ticket, milliseconds: int, at: int) -> None:
    """What was read can be written again: a fuzzer found times that a float rounds beyond 64 bits."""
    written = bytearray(ticket.write())
    written[at : at + 8] = milliseconds.to_bytes(8, "big")
    try:
        assert Ticket.read(written).write() == written
    except PeerError as error:
        assert error.reason is Reason.BAD_VALUE
        assert milliseconds > 1 << 48


keys = st.builds(
    TicketKey, st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32), st.integers(0, 10**17)
)


@given(st.lists(keys, max_size=MAX_KEYS))
def test_keys(made: list[TicketKey]) -> None:
    assert read_keys(write_keys(made)) == tuple(made)


@given(
    st.binary()
    | st.lists(keys, max_size=3).map(write_keys).flatmap(lambda data: st.just(data[1:]) | st.just(data + b"\n"))
)
def test_other_keys(data: bytes) -> None:
    try:
        assert write_keys(read_keys(data)) == data or not data
    except ConfigurationError:
        return
