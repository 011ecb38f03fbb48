"""The extensions of TCPLS, and the parameters in them."""

from __future__ import annotations

import pytest

from tcpls.errors import HandshakeError, PeerError, Reason
from tcpls.protocol.negotiation import (
    CodePoints,
    client_extensions,
    join_extensions,
    outcome_of_client,
    outcome_of_server,
    read_join,
    server_extensions,
)
from tcpls.protocol.parameters import ABSENT, Parameters, ProgramSupport

LOCAL = Parameters(session_window=1 << 20, stream_window=1 << 18, stream_limit=10)
TOKEN = bytes(range(32))
TCPLS, JOIN, TOKEN_CODE, PARAMETERS = 0xFF10, 0xFF11, 0xFF12, 0xFF13


def test_two_of_ours_negotiate_everything() -> None:
    offered = dict(client_extensions(want_token=True))
    assert offered == {TCPLS: b"", PARAMETERS: b"", TOKEN_CODE: b""}
    of_server = outcome_of_server(offered)
    assert of_server.tcpls
    assert of_server.peer == ABSENT
    answered = dict(server_extensions(offered, LOCAL, TOKEN))
    of_client = outcome_of_client(answered)
    assert of_client.tcpls
    assert of_client.peer == LOCAL
    assert of_client.token == TOKEN


def test_a_token_is_sent_only_when_it_was_offered_and_not_to_a_join() -> None:
    assert TOKEN_CODE not in dict(server_extensions(dict(client_extensions()), LOCAL, TOKEN))
    offered = dict(client_extensions(want_token=True)) | {JOIN: TOKEN}
    assert TOKEN_CODE not in dict(server_extensions(offered, LOCAL, TOKEN))


def test_a_draft_client_gets_no_parameters() -> None:
    assert server_extensions({TCPLS: b""}, LOCAL) == ((TCPLS, b""),)
    outcome = outcome_of_server({TCPLS: b""})
    assert (outcome.tcpls, outcome.peer, outcome.why) == (True, None, "pure draft-04 peer")


def test_a_draft_server_answers_without_parameters() -> None:
    outcome = outcome_of_client({TCPLS: b""})
    assert (outcome.tcpls, outcome.peer) == (True, None)


def test_ordinary_tls_says_why() -> None:
    assert server_extensions({}, LOCAL) == ()
    assert outcome_of_server({}).why == "the client did not offer TCPLS"
    assert outcome_of_client({}).why == "the server did not accept TCPLS"


def test_code_points_can_be_set() -> None:
    codes = CodePoints(1, 2, 3, 4)
    offered = dict(client_extensions(codes))
    assert set(offered) == {1, 4}
    assert outcome_of_client(dict(server_extensions(offered, LOCAL, None, codes)), codes).peer == LOCAL
    assert not outcome_of_server(offered).tcpls


@pytest.mark.parametrize(
    ("answered", "reason"),
    [
        ({TCPLS: b"x"}, Reason.TRAILING_BYTES),
        ({PARAMETERS: b""}, Reason.ILLEGAL_CHOICE),
        ({TOKEN_CODE: TOKEN}, Reason.ILLEGAL_CHOICE),
        ({TCPLS: b"", TOKEN_CODE: TOKEN[1:]}, Reason.TRUNCATED),
        ({TCPLS: b"", TOKEN_CODE: TOKEN + b"x"}, Reason.TRAILING_BYTES),
        ({TCPLS: b"", PARAMETERS: b"\0"}, Reason.TRUNCATED),
    ],
)
def test_wrong_answers_are_refused(answered: dict[int, bytes], reason: Reason) -> None:
    with pytest.raises(HandshakeError) as caught:
        outcome_of_client(answered)
    assert caught.value.reason is reason


@pytest.mark.parametrize("offered", [{TCPLS: b"x"}, {TCPLS: b"", TOKEN_CODE: TOKEN}])
def test_wrong_offers_are_refused(offered: dict[int, bytes]) -> None:
    with pytest.raises(HandshakeError) as caught:
        server_extensions(offered, LOCAL)
    assert caught.value.reason is Reason.TRAILING_BYTES


def test_a_join_has_a_token_of_32_bytes() -> None:
    assert read_join(dict(join_extensions(TOKEN))) == TOKEN
    assert read_join(dict(client_extensions())) is None
    for wrong in (TOKEN[1:], TOKEN + b"x", b""):
        with pytest.raises(HandshakeError) as caught:
            read_join({JOIN: wrong})
        assert caught.value.reason is Reason.BAD_TOKEN


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("0002 0007 00000000000000", Reason.TRUNCATED),
        ("0002 0009 000000000000000000", Reason.TRAILING_BYTES),
        ("0002 0008 4000000000000000", Reason.BAD_VALUE),
        ("0003 0004 00100001", Reason.BAD_VALUE),
        ("0005 0004 00000000", Reason.BAD_VALUE),
        ("0005 0004 00012711", Reason.BAD_VALUE),
        ("0006 0001 02", Reason.BAD_VALUE),
        ("0007 0002 0000", Reason.BAD_VALUE),
        ("0007 0002 0101", Reason.BAD_VALUE),
        ("0008 0004 00010001", Reason.DUPLICATE),
        ("0009 0006 00 00000001 00", Reason.BAD_VALUE),
        ("0009 0006 08 00000001 00", Reason.BAD_VALUE),
        ("0009 0006 01 00000000 00", Reason.BAD_VALUE),
        ("0009 0007 01 00000001 01 ff", Reason.BAD_VALUE),
        ("0006 0001 01 0006 0001 01", Reason.DUPLICATE),
        ("7777 0000 7777 0000", Reason.DUPLICATE),
        ("7777", Reason.TRUNCATED),
        ("".join(f"{number:04x}0000" for number in range(1000, 1065)), Reason.TOO_LARGE),
    ],
)
def test_wrong_parameters_are_refused(data: str, reason: Reason) -> None:
    with pytest.raises(PeerError) as caught:
        Parameters.read(bytes.fromhex(data))
    assert caught.value.reason is reason


def test_unknown_parameters_are_skipped() -> None:
    assert Parameters.read(bytes.fromhex("7777 0003 010203 0006 0001 01")) == Parameters(failover=True)


def test_absent_values_are_not_written() -> None:
    assert ABSENT.write() == b""
    support = Parameters(programs=ProgramSupport(3, 1 << 20, "bpfel+struct_ops"))
    assert Parameters.read(support.write()) == support
