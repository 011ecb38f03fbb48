"""The TCP connections of a session: how they come, which of them carry what, how they go (draft sections 3.2 and 3.3).

Frames are what survives a connection: when one is lost, what it carried and was not acknowledged is queued again for
the others, and the peer is told what arrived, so that it does the same with less. A client without a connection asks
the shell for a new one, which joins with a token and carries records behind its ClientHello.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from tcpls.errors import ApiMisuse
from tcpls.protocol import frames
from tcpls.protocol.actions import AbortConnection, Action, CloseConnection, IssueTokens, ProbeConnection, Reconnect
from tcpls.protocol.announcements import PeerAnnouncements
from tcpls.protocol.base import Role, SessionConfig
from tcpls.protocol.connections import Connection, ConnectionState, PathFacts
from tcpls.protocol.events import (
    ConnectionClosed,
    ConnectionJoined,
    ConnectionLost,
    ConnectionRecovered,
    ConnectionSuspected,
    Event,
)
from tcpls.protocol.frames import Ack, ConnectionReset, Frame, JoinToken, NewToken, PathStatus, Ping
from tcpls.protocol.keys import JoinKeys, SessionKeys
from tcpls.protocol.parameters import Parameters
from tcpls.protocol.record_writer import OWN_PING, Load, RecordWriter
from tcpls.protocol.schedulers import SCHEDULERS, Backup, Scheduler
from tcpls.protocol.stream_table import StreamTable

RTTS = 3
"""Round trips that a path may be silent, however short the configured time is."""
LONGEST_DRAFT_SEQUENCE = 255


ANYTHING = Load(True, True, True)
NOTHING = Load(False, False, False)


class Paths:
    """`make` makes the `Connection` of an id. `peer` gives what the peer has announced, None for a draft-04 peer."""

    def __init__(
        self,
        role: Role,
        config: SessionConfig,
        local: Parameters,
        keys: SessionKeys,
        make: Callable[[SessionKeys, int, ConnectionState, float], Connection],
        *,
        peer: Callable[[], Parameters | None],
        streams: StreamTable,
        outbox: deque[Frame],
        events: list[Event],
        actions: list[Action],
        now: float,
    ) -> None:
        self._role = role
        self._config = config
        self._local = local
        self._peer = peer
        self._make = make
        self._streams = streams
        self._outbox = outbox
        self._events = events
        self._actions = actions
        self.writer: RecordWriter
        """Set once, by whoever makes both."""
        self.keys = keys
        self.live: dict[int, Connection] = {0: make(keys, 0, ConnectionState.OPEN, now)}
        self.highest = 0
        """The highest id that a connection has, had, or may come to have."""
        self.announcements = PeerAnnouncements(role, self)
        self.scheduler: Scheduler = Backup()
        self.tokens: dict[int, float] = {}
        """A server's unused tokens: sequence, and when it is over."""
        self._without_path_since: float | None = None
        self._status_sequence = 0

    # What is known.

    def may_exist(self, connection_id: int) -> bool:
        """Whether a peer may speak of it: frames about a connection can come ahead of it, or behind its end."""
        return connection_id <= self.highest

    def allow(self, connection_id: int) -> None:
        """A token with this sequence was given."""
        self.highest = max(self.highest, connection_id)

    @property
    def failover(self) -> bool:
        """Whether both ends keep what was not acknowledged. A draft-04 peer is taken to."""
        peer = self._peer()
        return self._local.failover and (peer is None or peer.failover)

    @property
    def joinable(self) -> bool:
        """Whether another connection may come."""
        return bool(self.tokens if self._role is Role.SERVER else self.announcements.tokens)

    def find(self, connection_id: int) -> Connection:
        """Raises `ApiMisuse`."""
        connection = self.live.get(connection_id)
        if connection is None:
            raise ApiMisuse(f"there is no connection {connection_id}")
        return connection

    # Which connection carries what.

    def _candidates(self) -> list[Connection]:
        """Those that may carry something: the good ones, or the best of the others."""
        for state in (
            ConnectionState.OPEN,
            ConnectionState.JOINING,
            ConnectionState.SUSPECT,
            ConnectionState.RETIRING,
        ):
            found = [each for each in self.live.values() if each.state is state]
            if found:
                return found
        return []

    def load(self, connection: Connection) -> Load:
        """What this one may take now.

        Control frames take one way as long as there is it, so that they come in their order.
        """
        if len(self.live) == 1:
            return ANYTHING
        candidates = self._candidates()
        if connection not in candidates:
            return NOTHING
        if len(candidates) == 1:
            return ANYTHING
        chosen = connection in self.scheduler.choose(candidates)
        return Load(control=connection is candidates[0], pinned=True, data=chosen)

    def use(self, name: str) -> None:
        """Changes the scheduler. Raises `ApiMisuse`."""
        if name not in SCHEDULERS:
            raise ApiMisuse(f"{name!r} is no scheduler: {', '.join(SCHEDULERS)}")
        self.scheduler = SCHEDULERS[name]()

    def facts(self, connection_id: int, facts: PathFacts) -> None:
        """What the kernel says of a connection now."""
        connection = self.live.get(connection_id)
        if connection is not None:
            connection.facts = facts

    def set_blocked(self, connection_id: int, blocked: bool) -> None:
        """Whether the shell can hand on records of this connection."""
        connection = self.live.get(connection_id)
        if connection is not None:
            connection.blocked = blocked

    # Tokens.

    def supply_tokens(self, now: float) -> None:
        """A server's: replaces tokens that were used or are over (draft 4.2.5)."""
        for sequence in [sequence for sequence, until in self.tokens.items() if until <= now]:
            del self.tokens[sequence]
        peer = self._peer()
        most = self._local.max_connections if peer is None else min(self._local.max_connections, peer.max_connections)
        if self._role is Role.CLIENT or most < 2:
            return
        wanted = min(self._config.spare_tokens, max(1, most - len(self.live)))
        if peer is None:
            wanted = min(wanted, LONGEST_DRAFT_SEQUENCE - self.highest)
        if wanted > len(self.tokens):
            action = IssueTokens(wanted - len(self.tokens))
            if not any(isinstance(each, IssueTokens) for each in self._actions):
                self._actions.append(action)

    def add_token(self, token: bytes, now: float, *, told: bool = False) -> int:
        """The shell's answer to `IssueTokens`: tells the client the token. Gives its sequence.

        `told`: the client has it by the handshake.
        """
        sequence = self.highest + 1
        self.allow(sequence)
        self.tokens[sequence] = now + self._config.token_lifetime
        if not told:
            short = sequence <= LONGEST_DRAFT_SEQUENCE
            self._outbox.append(NewToken(sequence, token) if short else JoinToken(sequence, token))
        return sequence

    def take_token(self) -> tuple[int, bytes] | None:
        """A client's: an unused token, which is used up by this, and its sequence."""
        return self.announcements.take_token()

    # How a connection comes.

    def join_keys(self, connection_id: int) -> JoinKeys:
        for each in self.live.values():
            self.keys.note(each)
        return self.keys.of_join(connection_id)

    def join(self, connection_id: int, now: float, *, standby: bool = False, rtt: float = 0.0) -> None:
        """A client sends its ClientHello with the token `connection_id` on a new TCP connection.

        The server has to say its first record on it; what has no other way goes at once.
        """
        connection = self._add(connection_id, ConnectionState.JOINING, now)
        connection.standby = standby
        connection.facts = PathFacts(rtt=rtt)
        self._tell_status(connection)
        connection.own.append(Ping())
        # A network that let this connection come is better than one that is silent.
        self._replace_suspects(now)

    def proven(self, connection_id: int, candidate: int, now: float) -> None:
        """The client has opened the server's first record, with the candidate of `JoinKeys.read`."""
        connection = self.live.get(connection_id)
        if connection is None:
            return
        connection.read_secret = self.keys.read_secret(candidate)
        connection.state = ConnectionState.OPEN
        self._arrived(connection, now)

    def accepts(self, connection_id: int, now: float) -> bool:
        """Whether a server still takes a connection with this token."""
        return self.tokens.get(connection_id, 0.0) > now and len(self.live) <= self._local.max_connections

    def joined(self, connection_id: int, candidate: int, now: float) -> bool:
        """A server has opened the client's first record: the token is used up. False when it was, meanwhile."""
        if not self.accepts(connection_id, now):
            return False
        del self.tokens[connection_id]
        connection = self._add(connection_id, ConnectionState.OPEN, now)
        connection.read_secret = self.keys.read_secret(candidate)
        connection.own.append(Ping())
        self._replace_suspects(now)
        self._arrived(connection, now)
        return True

    def _add(self, connection_id: int, state: ConnectionState, now: float) -> Connection:
        if connection_id in self.live:
            raise ApiMisuse(f"there is a connection {connection_id} already")
        connection = self._make(self.keys, connection_id, state, now)
        self.live[connection_id] = connection
        self._without_path_since = None
        return connection

    def _arrived(self, connection: Connection, now: float) -> None:
        self._events.append(ConnectionJoined(connection.connection_id))
        self.keys.note(connection)
        self._replace_suspects(now)
        self.supply_tokens(now)

    def _replace_suspects(self, now: float) -> None:
        for each in [each for each in self.live.values() if each.state is ConnectionState.SUSPECT]:
            self.give_up(each, "it was silent", now)

    def _tell_status(self, connection: Connection) -> None:
        if self._peer() is None:
            return
        if connection.state is ConnectionState.RETIRING:
            state = frames.PathState.CLOSING
        else:
            state = frames.PathState.STANDBY if connection.standby else frames.PathState.AVAILABLE
        self._status_sequence += 1
        frame = PathStatus(connection.connection_id, self._status_sequence, state, connection.priority)
        # Ahead of a connection's own beginning nobody knows it.
        (connection.own if connection.state is ConnectionState.JOINING else self._outbox).append(frame)

    def set_standby(self, connection_id: int, standby: bool) -> None:
        """Whether both ends are rather to use others. Raises `ApiMisuse`."""
        connection = self.find(connection_id)
        if connection.standby is not standby:
            connection.standby = standby
            self._tell_status(connection)

    def receive_status(self, frame: PathStatus) -> None:
        """Raises `PeerError`."""
        number = frame.connection_id
        connection = self.live.get(number)
        # Nothing is kept of connections that are gone.
        if self.announcements.path(frame, keep=connection is not None) and connection is not None:
            connection.peer_standby = frame.state is frames.PathState.STANDBY
            connection.priority = frame.priority
            if frame.state is frames.PathState.CLOSING:
                connection.state = ConnectionState.RETIRING
                self._end_if_retired(connection)

    # How it goes.

    def retire(self, connection_id: int) -> None:
        """Puts nothing more on a connection, and closes it once all that it carried has arrived. Raises `ApiMisuse`."""
        connection = self.find(connection_id)
        if connection.state is not ConnectionState.RETIRING:
            connection.state = ConnectionState.RETIRING
            self._unpin(connection_id)
            self._tell_status(connection)
            self._end_if_retired(connection)

    def _end_if_retired(self, connection: Connection) -> None:
        """Ends this end's sending on a connection that has nothing more to carry. The last one stays."""
        others = any(each.state is not ConnectionState.RETIRING for each in self.live.values())
        if connection.state is ConnectionState.RETIRING and others and not connection.outstanding:
            self._ask(CloseConnection(connection.connection_id))

    def _ask(self, action: Action) -> None:
        if action not in self._actions:
            self._actions.append(action)

    def can_lose(self, connection: Connection) -> bool:
        """Whether the session outlives this connection."""
        others = len(self.live) > 1
        if connection.state is ConnectionState.RETIRING and others and not connection.outstanding:
            return True
        return self.failover and (others or self.joinable)

    def lose(self, connection: Connection, why: str | None, now: float, *, tell: bool = True) -> None:
        """The connection is at its end. What it carried and was not acknowledged goes again, on others.

        `tell`: the peer may not know.
        """
        number = connection.connection_id
        del self.live[number]
        self.announcements.forget(number)
        self.keys.gone(connection)
        self._unpin(number)
        retired = connection.state is ConnectionState.RETIRING and not connection.outstanding
        self._queue_again(connection)
        if tell and self.may_exist(number):
            # The peer handles the ACK first, and then knows what it need not send again.
            self._outbox.appendleft(ConnectionReset(number))
            if connection.received:
                self._outbox.appendleft(Ack(number, connection.received - 1))
        self._events.append(ConnectionClosed(number) if retired else ConnectionLost(number, why or "it was ended"))
        self.supply_tokens(now)
        if not any(each.state in (ConnectionState.OPEN, ConnectionState.JOINING) for each in self.live.values()):
            if not self.live:
                self._without_path_since = now
            self._look_for_path()

    def _look_for_path(self) -> None:
        if self._role is Role.CLIENT:
            self._ask(Reconnect())

    def give_up(self, connection: Connection, why: str, now: float) -> None:
        """Ends a connection that the kernel still holds for alive."""
        self._ask(AbortConnection(connection.connection_id, why))
        self.lose(connection, why, now)

    def _unpin(self, connection_id: int) -> None:
        self._streams.unpin(connection_id)

    def _queue_again(self, connection: Connection) -> None:
        writer = self.writer
        for _, stream, start, end, fin in connection.unacknowledged:
            writer.unacknowledged -= end - start
            stream.lose(start, end, fin)
            self._streams.schedule(stream)
        kept = [frame for _, frame in connection.unacknowledged_frames]
        own = [frame for frame in connection.own if not isinstance(frame, Ping)]
        self._outbox.extendleft(reversed([frame for frame in (*kept, *own) if _again(frame)]))
        for ping_id in connection.take_pings():
            if ping_id != OWN_PING:
                writer.pings_waiting.append(ping_id)
                self._outbox.append(Ping())
        self._streams.tell_credit()

    def receive_reset(self, frame: ConnectionReset, came_on: Connection, now: float) -> None:
        """The peer saw a connection fail. Raises `PeerError`."""
        number = frame.connection_id
        self.announcements.connection_reset(frame)
        self.tokens.pop(number, None)
        connection = self.live.get(number)
        # Of the very connection that brings it, it says nothing that the connection does not know better.
        if connection is not None and connection is not came_on and self.can_lose(connection):
            self._ask(AbortConnection(number, "the peer saw it fail"))
            self.lose(connection, "the peer saw it fail", now, tell=False)

    # Acknowledgments and keys.

    def acknowledged(self, connection: Connection, highest: int) -> None:
        """The peer has the records of this connection up to `highest`."""
        connection.unanswered_at = connection.heard_at if connection.outstanding else None
        wanted = self.keys.acknowledged(connection, highest, self.live.values())
        if wanted is not None:
            self.update_keys(wanted)
        if connection.state is ConnectionState.RETIRING:
            self._end_if_retired(connection)

    def update_keys(self, request: bool) -> bool:
        """False when it waits for the peer (see `SessionKeys`)."""
        updated = self.keys.update(self.live.values(), request, to_confirm=self.joinable)
        if updated and self.joinable:
            for each in self.live.values():
                each.own.append(Ping())
        return updated

    # Silence.

    def heard(self, connection: Connection, now: float, *, data: bool) -> None:
        """Records came; with `data` of streams among them."""
        connection.heard_at = now
        connection.unanswered_at = now if connection.outstanding else None
        connection.expecting = data or connection.expecting
        if connection.state is ConnectionState.SUSPECT:
            connection.state = ConnectionState.OPEN
            self._events.append(ConnectionRecovered(connection.connection_id))

    def _patience(self, connection: Connection) -> float:
        return max(self._config.path_timeout, RTTS * connection.facts.rtt)

    def _due(self, connection: Connection) -> float:
        """When silence on the connection calls for something."""
        if not self._watches or connection.state is ConnectionState.SUSPECT:
            return math.inf
        if connection.unanswered_at is not None:
            return connection.unanswered_at + self._patience(connection)
        if connection.expecting and connection.state is ConnectionState.OPEN:
            return connection.heard_at + self._patience(connection) / 2
        return math.inf

    @property
    def _watches(self) -> bool:
        return self._config.path_timeout > 0 and self.failover and (len(self.live) > 1 or self.joinable)

    def next_timer(self) -> float:
        earliest = min((self._due(each) for each in self.live.values()), default=math.inf)
        if self._without_path_since is not None:
            earliest = min(earliest, self._without_path_since + self._config.reconnect_timeout)
        return min(earliest, *self.tokens.values()) if self.tokens else earliest

    def timer_expired(self, now: float) -> bool:
        """False when the session has been without a connection for too long."""
        since = self._without_path_since
        if since is not None and since + self._config.reconnect_timeout <= now:
            return False
        for connection in list(self.live.values()):
            if self._due(connection) > now:
                continue
            if connection.unanswered_at is not None:
                # The shell knows whether the kernel hears the peer's.
                self._ask(ProbeConnection(connection.connection_id))
            else:
                # Once: a peer that answers this and says nothing else has nothing to say.
                connection.expecting = False
                connection.own.append(Ping())
                connection.unanswered_at = connection.heard_at
        if any(until <= now for until in self.tokens.values()):
            self.supply_tokens(now)
        return True

    def probed(self, connection_id: int, silent: float, now: float) -> None:
        """The shell's answer to `ProbeConnection`: for how many seconds the kernel has heard nothing of the peer's."""
        connection = self.live.get(connection_id)
        if connection is None or connection.unanswered_at is None:
            return
        connection.unanswered_at = max(connection.unanswered_at, now - silent)
        if self._due(connection) <= now:
            self._suspect(connection, now)

    def _suspect(self, connection: Connection, now: float) -> None:
        why = f"nothing was heard for {self._patience(connection):g} s"
        others = [each for each in self.live.values() if each is not connection and each.usable]
        if others or connection.state is not ConnectionState.OPEN:
            self.give_up(connection, why, now)
            return
        connection.state = ConnectionState.SUSPECT
        self._events.append(ConnectionSuspected(connection.connection_id, why))
        if not any(each.state is ConnectionState.JOINING for each in self.live.values()):
            self._look_for_path()


def _again(frame: Frame) -> bool:
    """Draft 4.2.9: what only has a meaning on its connection is not repeated."""
    return not isinstance(frame, frames.StreamChange)
