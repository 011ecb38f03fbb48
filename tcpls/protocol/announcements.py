"""What the peer has announced about connections: tokens, addresses, failures, wishes. All of it is bounded."""

from __future__ import annotations

from collections.abc import Container

from tcpls.errors import PeerError, Reason
from tcpls.protocol.base import Role
from tcpls.protocol.frames import (
    ConnectionReset,
    NewAddress,
    NewToken,
    PathStatus,
    RemoveAddress,
    StreamChange,
)


class PeerAnnouncements:
    """Tokens and address ids have 8 bits, and connections are those that exist: nothing here grows without bound."""

    def __init__(self, role: Role, connections: Container[int]) -> None:
        """`connections`: the ids that exist."""
        self._role = role
        self._connections = connections
        self.tokens: dict[int, bytes] = {}
        """By sequence number, which becomes the id of the connection that joins."""
        self.addresses: dict[int, NewAddress] = {}
        self._removed: set[int] = set()
        self.failed: set[int] = set()
        """Connections that the peer saw fail."""
        self.path_status: dict[int, PathStatus] = {}
        self.stream_hint: dict[int, StreamChange] = {}
        """Per connection, the last Stream Change: a hint that nothing depends on."""

    def new_token(self, frame: NewToken) -> None:
        # Draft 4.2.5: clients do not send it.
        if self._role is Role.SERVER:
            raise PeerError(Reason.WRONG_ROLE, "New Token")
        # The id 0 belongs to the first connection, and a token that changes would make two ends disagree.
        if not frame.sequence or self.tokens.get(frame.sequence, frame.token) != frame.token:
            raise PeerError(Reason.BAD_TOKEN, f"sequence {frame.sequence}")
        self.tokens[frame.sequence] = frame.token

    def new_address(self, frame: NewAddress) -> None:
        # Draft 4.2.7: what differs from the first announcement of an id, and what was removed, is ignored.
        if frame.address_id not in self._removed:
            self.addresses.setdefault(frame.address_id, frame)

    def remove_address(self, frame: RemoveAddress) -> None:
        # Draft 4.2.8: unknown ids are ignored.
        if self.addresses.pop(frame.address_id, None) is not None:
            self._removed.add(frame.address_id)

    def connection_reset(self, frame: ConnectionReset) -> None:
        self.failed.add(self._existing(frame.connection_id))

    def path(self, frame: PathStatus) -> None:
        known = self.path_status.get(self._existing(frame.connection_id))
        if known is None or frame.sequence > known.sequence:
            self.path_status[frame.connection_id] = frame

    def stream_change(self, connection_id: int, frame: StreamChange) -> None:
        self.stream_hint[connection_id] = frame

    def _existing(self, connection_id: int) -> int:
        if connection_id not in self._connections:
            raise PeerError(Reason.UNKNOWN_CONNECTION, f"{connection_id}")
        return connection_id
