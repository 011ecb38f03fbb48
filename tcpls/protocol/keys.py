"""The traffic keys of a session: one per direction and generation, for all of its connections.

Each connection changes at a record boundary of its own, where a KeyUpdate stands. A connection that joins begins with
the newest generation of its sender, of which the receiver knows at least the one before: nobody goes on to another
generation before the peer has acknowledged a record under the last one, and one on every connection that has joined
(docs/wire-format.md, section 6.3).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tcpls.protocol.connections import KEY_UPDATE_MARGIN, Connection
from tcpls.tls.key_schedule import TrafficSecret
from tcpls.tls.suites import TrafficKeys


@dataclass(frozen=True, slots=True)
class JoinKeys:
    """The keys of a connection that joins. `read` are those that its first record may be opened with."""

    write: TrafficKeys
    read: tuple[TrafficKeys, ...]


class SessionKeys:
    """The newest secrets, and when they change."""

    def __init__(self, read: TrafficSecret, write: TrafficSecret, update_after: int | None) -> None:
        self.read = read
        self.write = write
        limit = write.suite.record_limit
        self._update_after = min(update_after or limit, limit - KEY_UPDATE_MARGIN)
        self._past = 0
        """Records under the newest writing keys on connections that are gone."""
        self._confirmed = True
        self._wanted: bool | None = None
        """An update that waits for the confirmation of the last one; whether it asks the peer for its own."""

    def note(self, connection: Connection) -> None:
        """What a connection has come to."""
        if connection.read_secret.generation > self.read.generation:
            self.read = connection.read_secret

    def gone(self, connection: Connection) -> None:
        """The connection is at its end; its records still count."""
        self.note(connection)
        if connection.write_secret.generation == self.write.generation:
            self._past += connection.sent - connection.keys_since

    def due(self, connections: Iterable[Connection]) -> bool:
        """Whether the suite asks for other keys (RFC 8446 5.5): records count over all connections together."""
        generation = self.write.generation
        records = self._past
        for each in connections:
            if each.write_secret.generation == generation:
                records += each.sent - each.keys_since
        return records >= self._update_after

    def update(self, connections: Collection[Connection], request: bool, *, to_confirm: bool) -> bool:
        """Has every connection change its writing keys. False when that waits for an acknowledgment.

        `to_confirm`: connections may join, so that the peer has to have this generation before the next.
        """
        if connections and all(each.update_due for each in connections):
            # The one that waits to be put is as good.
            for each in connections:
                each.request_update(request)
            return True
        if not self._settled(connections):
            self._wanted = request or bool(self._wanted)
            return False
        self.write = self.write.next()
        self._past = 0
        self._confirmed = not to_confirm
        for each in connections:
            each.target_generation = self.write.generation
            each.request_update(request)
        return True

    def _settled(self, connections: Iterable[Connection]) -> bool:
        return self._confirmed and all(each.data_acknowledged or not each.connection_id for each in connections)

    def acknowledged(self, connection: Connection, highest: int, connections: Iterable[Connection]) -> bool | None:
        """The peer has records up to `highest`. Returns what `update` is to be called with now, None for not at all."""
        if connection.write_secret.generation == self.write.generation and highest >= connection.keys_since:
            self._confirmed = True
        if self._wanted is None or not self._settled(connections):
            return None
        wanted, self._wanted = self._wanted, None
        return wanted

    def of_join(self, connection_id: int) -> JoinKeys:
        read = tuple(secret.keys().for_connection(connection_id) for secret in self._candidates())
        return JoinKeys(self.write.keys().for_connection(connection_id), read)

    def read_secret(self, index: int) -> TrafficSecret:
        """The secret of the candidate `index` of `JoinKeys.read`."""
        return self._candidates()[index]

    def _candidates(self) -> tuple[TrafficSecret, ...]:
        return (self.read, self.read.next())
