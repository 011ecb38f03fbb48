"""What the peer has announced about connections: tokens, addresses, wishes. All of it is bounded."""

from __future__ import annotations

from typing import Protocol

from tcpls.errors import PeerError, Reason
from tcpls.protocol.base import Role
from tcpls.protocol.frames import (
    ConnectionReset,
    JoinToken,
    NewAddress,
    NewToken,
    PathStatus,
    RemoveAddress,
    StreamChange,
)
from tcpls.protocol.ranges import RangeSet

MAX_TOKENS = 64
"""Unused tokens that a client keeps, the newest: no server gives more at a time."""
MAX_ID = 1 << 31
"""Connection ids beyond which no token is taken."""


class ConnectionIds(Protocol):
    """Which connections there are, were, or may be."""

    def may_exist(self, connection_id: int) -> bool: ...

    def allow(self, connection_id: int) -> None: ...


class PeerAnnouncements:
    """Addresses have ids of 8 bits, tokens have `MAX_TOKENS`, and the rest is about connections that may exist."""

    def __init__(self, role: Role, connections: ConnectionIds) -> None:
        self._role = role
        self._connections = connections
        self.tokens: dict[int, bytes] = {}
        """Unused ones by sequence number, which becomes the id of the connection that joins."""
        self._taken = RangeSet()
        """Sequence numbers that were used. A token that comes again, as after a failure, is not used again: two
        connections of one id would use the same nonces."""
        self.addresses: dict[int, NewAddress] = {}
        self._removed: set[int] = set()
        self.path_status: dict[int, PathStatus] = {}
        self.stream_hint: dict[int, StreamChange] = {}
        """Per connection, the last Stream Change: a hint that nothing depends on."""

    def new_token(self, frame: NewToken | JoinToken) -> bool:
        """Whether it is new. Raises `PeerError`."""
        # Draft 4.2.5: clients do not send it.
        if self._role is Role.SERVER:
            raise PeerError(Reason.WRONG_ROLE, "New Token")
        sequence = frame.sequence
        if self._taken.contains(sequence):
            return False
        # The id 0 belongs to the first connection, and a token that changes would make two ends disagree.
        known = self.tokens.get(sequence)
        if not 0 < sequence < MAX_ID or (known is not None and known != frame.token):
            raise PeerError(Reason.BAD_TOKEN, f"sequence {sequence}")
        self.tokens[sequence] = frame.token
        while len(self.tokens) > MAX_TOKENS:
            # Tokens expire without a word, the oldest first, and are replaced.
            del self.tokens[min(self.tokens)]
        self._connections.allow(sequence)
        return known is None

    def take_token(self) -> tuple[int, bytes] | None:
        """The token with the highest sequence number, which is used up by this: the one that will expire last."""
        if not self.tokens:
            return None
        sequence = max(self.tokens)
        self._taken.add(sequence, sequence + 1)
        return sequence, self.tokens.pop(sequence)

    def new_address(self, frame: NewAddress) -> bool:
        """Whether it is new. Draft 4.2.7: what differs from the first announcement of an id, and what was removed, is
        ignored."""
        if frame.address_id in self._removed or frame.address_id in self.addresses:
            return False
        self.addresses[frame.address_id] = frame
        return True

    def remove_address(self, frame: RemoveAddress) -> bool:
        """Whether it was known. Draft 4.2.8: unknown ids are ignored."""
        if self.addresses.pop(frame.address_id, None) is None:
            return False
        self._removed.add(frame.address_id)
        return True

    def connection_reset(self, frame: ConnectionReset) -> None:
        """Raises `PeerError` for a connection that cannot have existed."""
        self._check(frame.connection_id)

    def path(self, frame: PathStatus, *, keep: bool) -> bool:
        """Whether it is newer than what was said before; `keep`: that is to be known later. Raises `PeerError`."""
        self._check(frame.connection_id)
        known = self.path_status.get(frame.connection_id)
        if known is not None and frame.sequence <= known.sequence:
            return False
        if keep:
            self.path_status[frame.connection_id] = frame
        return True

    def stream_change(self, connection_id: int, frame: StreamChange) -> None:
        self.stream_hint[connection_id] = frame

    def forget(self, connection_id: int) -> None:
        """The connection is gone."""
        self.path_status.pop(connection_id, None)
        self.stream_hint.pop(connection_id, None)

    def _check(self, connection_id: int) -> None:
        if not self._connections.may_exist(connection_id):
            raise PeerError(Reason.UNKNOWN_CONNECTION, f"{connection_id}")
