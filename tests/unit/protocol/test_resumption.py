"""Session tickets at the cores, and what both ends remember of a session."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpls.errors import PeerError, Reason
from tcpls.protocol.base import Role
from tcpls.protocol.connections import MESSAGES_PER_SECOND, TICKETS_PER_CONNECTION
from tcpls.protocol.core import Core
from tcpls.protocol.events import TicketReceived
from tcpls.protocol.frames import MAX_OFFSET
from tcpls.protocol.negotiation import Outcome, client_extensions
from tcpls.protocol.parameters import MAX_STREAM_LIMIT, Parameters, ProgramSupport
from tcpls.protocol.plain import PlainSession
from tcpls.protocol.resumption import Remembered
from tcpls.tls.messages import NewSessionTicket
from tests.unit.protocol.ends import PEER, READ, WRITE, client, draft_server, give_raw, refused, server

TICKET = NewSessionTicket(7200, 1, b"n", b"ticket", {})


def clients() -> list[Core]:
    return [client(), client(None), PlainSession(Role.CLIENT, READ, WRITE)]


@pytest.mark.parametrize("core", clients(), ids=["tcpls", "draft", "plain"])
def test_a_client_tells_of_tickets(core: Core) -> None:
    core.events()
    second = replace(TICKET, nonce=b"m")
    data = TICKET.write() + second.write()
    give_raw(core, data[:10], 22)
    give_raw(core, data[10:], 22)
    assert core.events() == [TicketReceived(TICKET), TicketReceived(second)]


@pytest.mark.parametrize("core", clients(), ids=["tcpls", "draft", "plain"])
def test_a_client_tells_of_so_many_tickets_and_no_more(core: Core) -> None:
    core.events()
    for second in range(4):
        for _ in range(TICKETS_PER_CONNECTION // 2):
            give_raw(core, TICKET.write(), 22, now=float(second))
    assert core.events() == [TicketReceived(TICKET)] * TICKETS_PER_CONNECTION


def test_tickets_count_as_messages() -> None:
    core = client()
    for _ in range(MESSAGES_PER_SECOND):
        give_raw(core, TICKET.write(), 22)
    with refused(core, Reason.TOO_MANY_MESSAGES):
        give_raw(core, TICKET.write(), 22)


@pytest.mark.clause("RFC 8446 4.6.1")
@pytest.mark.parametrize(
    "core", [server(), draft_server(), PlainSession(Role.SERVER, READ, WRITE)], ids=["tcpls", "draft", "plain"]
)
def test_a_server_takes_no_tickets(core: Core) -> None:
    with refused(core, Reason.UNEXPECTED_MESSAGE):
        give_raw(core, TICKET.write(), 22)


WINDOWS = Parameters(session_window=1 << 20, stream_window=1 << 18, stream_limit=4)
MODES = [Remembered(False), Remembered(True), Remembered(True, Parameters()), Remembered(True, WINDOWS)]


@pytest.mark.parametrize("remembered", MODES)
def test_what_is_remembered_is_what_is_read(remembered: Remembered) -> None:
    assert Remembered.read(remembered.write()) == remembered


@given(
    st.builds(
        Parameters,
        session_window=st.integers(0, MAX_OFFSET),
        stream_window=st.integers(0, MAX_OFFSET),
        stream_limit=st.integers(0, MAX_STREAM_LIMIT),
        failover=st.booleans(),
    )
)
def test_windows_and_limits_are_remembered(announced: Parameters) -> None:
    remembered = Remembered.by_client(Outcome(True, "", announced))
    assert Remembered.read(remembered.write()).server == announced


@given(st.binary(max_size=40))
def test_other_bytes_are_refused_or_mean_something(data: bytes) -> None:
    try:
        remembered = Remembered.read(data)
    except PeerError:
        return
    assert Remembered.read(remembered.write()) == remembered


@pytest.mark.parametrize("data", [b"", b"\1", b"\2\0", b"\1\3", b"\1\0\0", b"\1\1\0", b"\1\2\0"])
def test_what_was_not_written_here_is_refused(data: bytes) -> None:
    with pytest.raises(PeerError):
        Remembered.read(data)


def test_both_ends_remember_the_same() -> None:
    local = replace(PEER, programs=ProgramSupport(1, 100, "abi"))
    offered = dict(client_extensions())
    assert Remembered.by_server(offered, local) == Remembered.by_client(Outcome(True, "", local))
    only_tcpls = {kind: contents for kind, contents in offered.items() if kind == 0xFF10}
    assert Remembered.by_server(only_tcpls, local) == Remembered.by_client(Outcome(True, "")) == Remembered(True)
    assert Remembered.by_server({}, local) == Remembered.by_client(Outcome(False, "")) == Remembered(False)


def test_a_peer_cannot_make_a_ticket_large() -> None:
    """Options and programs, which can be many, are not remembered: a ticket holds 1,024 bytes of them at most."""
    announced = replace(PEER, options=tuple(range(16_000)), programs=ProgramSupport(7, 1, "x" * 64))
    assert len(Remembered.by_client(Outcome(True, "", announced)).write()) < 100
