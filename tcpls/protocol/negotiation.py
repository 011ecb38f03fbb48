"""The TLS extensions of TCPLS: what a client offers, what a server answers, and what came out (draft section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tcpls.errors import HandshakeError, PeerError, Reason
from tcpls.protocol.frames import TOKEN_SIZE
from tcpls.protocol.parameters import Parameters
from tcpls.wire import Reader

Extensions = tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class CodePoints:
    """Extension types. The defaults are of the range for private use (RFC 8446 section 11)."""

    tcpls: int = 0xFF10
    join: int = 0xFF11
    token: int = 0xFF12
    parameters: int = 0xFF13


CODE_POINTS = CodePoints()

LEAST_CONTENT = 10_240
"""Bytes of content that the records of both ends must have room for: frames are not divided, and the largest, a
Program Result with its log, takes 9,300. Towards a peer that takes less (RFC 8449) there is ordinary TLS."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`peer` is what the peer announced, None for a pure draft-04 peer. `why` is for people."""

    tcpls: bool
    why: str
    peer: Parameters | None = None
    token: bytes | None = None


def client_extensions(codes: CodePoints = CODE_POINTS, *, want_token: bool = False) -> Extensions:
    """What a ClientHello that opens a session carries.

    The parameters' list is empty there: the client's values follow in its first encrypted record, where neither an
    observer nor a server that is not yet authenticated can tell clients apart by them. `want_token` asks for a
    token in EncryptedExtensions: RFC 8446 4.2 lets a server answer only what was offered, so it is offered, empty.
    """
    opening = ((codes.tcpls, b""), (codes.parameters, b""))
    return (*opening, (codes.token, b"")) if want_token else opening


def join_extensions(token: bytes, codes: CodePoints = CODE_POINTS) -> Extensions:
    """What a ClientHello that joins a session carries."""
    return ((codes.tcpls, b""), (codes.join, token))


def wants_token(offered: Mapping[int, bytes], codes: CodePoints = CODE_POINTS) -> bool:
    """Whether a client that opens a session wants a token with the handshake."""
    return codes.tcpls in offered and codes.token in offered and codes.join not in offered


def server_extensions(
    offered: Mapping[int, bytes], local: Parameters, token: bytes | None = None, codes: CodePoints = CODE_POINTS
) -> Extensions:
    """What EncryptedExtensions answer to the `offered` extensions of a ClientHello. Raises `HandshakeError`."""
    if codes.tcpls not in offered:
        return ()
    outcome_of_server(offered, codes)
    answer = [(codes.tcpls, b"")]
    if codes.parameters in offered:
        answer.append((codes.parameters, local.write()))
    # RFC 8446 4.2: nothing is answered that was not offered. Draft 4.1.3: no token in answer to a join.
    if token is not None and wants_token(offered, codes):
        answer.append((codes.token, token))
    return tuple(answer)


def outcome_of_server(offered: Mapping[int, bytes], codes: CodePoints = CODE_POINTS) -> Outcome:
    """What a server learns from a ClientHello. Raises `HandshakeError`."""
    if codes.tcpls not in offered:
        return Outcome(False, "the client did not offer TCPLS")
    if offered.get(codes.token):
        raise HandshakeError(Reason.TRAILING_BYTES, "tcpls_token is empty in a ClientHello")
    return _outcome({code: offered[code] for code in (codes.tcpls, codes.parameters) if code in offered}, codes)


def outcome_of_client(answered: Mapping[int, bytes], codes: CodePoints = CODE_POINTS) -> Outcome:
    """What a client learns from EncryptedExtensions. Raises `HandshakeError`."""
    if codes.tcpls not in answered:
        for code in (codes.parameters, codes.token):
            if code in answered:
                raise HandshakeError(Reason.ILLEGAL_CHOICE, "an extension of TCPLS without tcpls")
        return Outcome(False, "the server did not accept TCPLS")
    return _outcome(answered, codes)


def _outcome(extensions: Mapping[int, bytes], codes: CodePoints) -> Outcome:
    if extensions[codes.tcpls]:
        raise HandshakeError(Reason.TRAILING_BYTES, "tcpls is empty")
    try:
        announced = extensions.get(codes.parameters)
        peer = None if announced is None else Parameters.read(announced)
        token = extensions.get(codes.token)
        if token is not None:
            token = read_token(token)
    except PeerError as error:
        raise HandshakeError(error.reason, error.detail) from None
    return Outcome(True, "pure draft-04 peer" if peer is None else "negotiated", peer, token)


def read_token(value: bytes) -> bytes:
    """The 32 bytes of tcpls_join or tcpls_token. Raises `PeerError`."""
    reader = Reader(value)
    token = reader.take(TOKEN_SIZE)
    reader.end()
    return token


def read_join(offered: Mapping[int, bytes], codes: CodePoints = CODE_POINTS) -> bytes | None:
    """The token by which a ClientHello wants to join a session, or None. Raises `HandshakeError`."""
    value = offered.get(codes.join)
    if value is None:
        return None
    try:
        return read_token(value)
    except PeerError as error:
        raise HandshakeError(Reason.BAD_TOKEN, error.detail) from None
