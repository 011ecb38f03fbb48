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
from tcpls.protocol.frames import Ack, ConnectionReset, Frame, JoinToken, NewToken, PathStatus, Ping, StreamChange
from tcpls.protocol.keys import JoinKeys, SessionKeys
from tcpls.protocol.parameters import Parameters
from tcpls.protocol.record_writer import CREDIT, OWN_PING, Load, RecordWriter
from tcpls.protocol.schedulers import SCHEDULERS, Backup, Scheduler, preferred
from tcpls.protocol.stream_table import StreamTable

FIRST_TOKEN = 1
"""The sequence of the token that is given with the handshake."""
RTTS = 3
"""Round trips that a path may be silent, however short the configured time is."""
LONGEST_DRAFT_SEQUENCE = 255
MOST_LOST = 8

ANYTHING = Load(control=True, pinned=True, data=True)
REDUNDANT = Load(control=True, pinned=True, data=True, redundant=True)
NOTHING = Load(control=False, pinned=False, data=False)


class Paths:
    """`make` makes the `Connection` of an id. `peer` gives what the peer has announced, None for a draft-04 peer.

    `lost` is told of every connection that is at its end, with the time.
    """

    def __init__(
        self,
        role: Role,
        config: SessionConfig,
        local: Parameters,
        keys: SessionKeys,
        make: Callable[[SessionKeys, int, ConnectionState, float], Connection],
        *,
        peer: Callable[[], Parameters | None],
        lost: Callable[[Connection, float], None],
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
        self._lost = lost
        self._make = make
        self._streams = streams
        self._outbox = outbox
        self._events = events
        self._actions = actions
        self.writer: RecordWriter
        """Set once, by whoever makes both."""
        self.keys = keys
        self.live: dict[int, Connection] = {0: make(keys, 0, ConnectionState.OPEN, now)}
        self.lost: deque[Connection] = deque(maxlen=MOST_LOST)
        """Those that were lost last: the peer may still say what of theirs has arrived, and that needs not go again."""
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

    def sent_on(self, connection_id: int) -> Connection | None:
        """A connection whose records the peer may still acknowledge."""
        live = self.live.get(connection_id)
        return live or next((each for each in self.lost if each.connection_id == connection_id), None)

    @property
    def has_way(self) -> bool:
        """Whether there is a connection that can be trusted."""
        return any(each.state in (ConnectionState.OPEN, ConnectionState.RETIRING) for each in self.live.values())

    def find(self, connection_id: int) -> Connection:
        """Raises `ApiMisuse`."""
        connection = self.live.get(connection_id)
        if connection is None:
            raise ApiMisuse(f"there is no connection {connection_id}")
        return connection

    @property
    def _may_grow(self) -> bool:
        """Whether there may ever be another connection."""
        peer = self._peer()
        most = self._local.max_connections
        return self.joinable or (most if peer is None else min(most, peer.max_connections)) > 1

    # Which connection carries what.

    def candidates(self) -> list[Connection]:
        """Those that may carry something: the good ones, or the best of the others."""
        for state in (
            ConnectionState.OPEN,
            ConnectionState.JOINING,
            ConnectionState.SUSPECT,
            ConnectionState.RETIRING,
        ):
            found = [each for each in self.live.values() if each.state is state and not each.ending]
            if found:
                return found
        return []

    def load(self, connection: Connection) -> Load:
        """What this one may take now.

        Control frames take one way as long as there is it, so that they come in their order.
        """
        if connection.ending:
            return NOTHING
        redundant = self.scheduler.redundant
        if len(self.live) == 1:
            return REDUNDANT if redundant else ANYTHING
        candidates = self.candidates()
        if connection not in candidates:
            return NOTHING
        if len(candidates) == 1:
            return REDUNDANT if redundant else ANYTHING
        chosen = connection in self.scheduler.choose(candidates)
        return Load(control=connection is preferred(candidates)[0], pinned=True, data=chosen, redundant=redundant)

    def use(self, name: str) -> None:
        """Changes the scheduler. Raises `ApiMisuse`."""
        if name not in SCHEDULERS:
            raise ApiMisuse(f"{name!r} is no scheduler: {', '.join(SCHEDULERS)}")
        was = self.scheduler
        self.scheduler = SCHEDULERS[name]()
        if self.scheduler.redundant and not self._local.failover:
            self.scheduler = was
            raise ApiMisuse(f"the scheduler {name!r} sends again what it keeps, and without failover nothing is kept")
        if was.redundant and not self.scheduler.redundant:
            self.writer.recover(self._streams.sending.values(), self.live.values())

    def pin(self, stream_id: int, connection_id: int | None) -> None:
        """Has one connection alone carry what is sent on the stream, or any (None). Raises `ApiMisuse`."""
        if connection_id is not None and self.find(connection_id).state is ConnectionState.RETIRING:
            raise ApiMisuse(f"the connection {connection_id} is being retired")
        self._streams.pin(stream_id, connection_id)
        if self.scheduler.redundant and connection_id is not None:
            self.writer.recover([self._streams.sending[stream_id]], self.live.values())

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
        # `accepts` bounds how many connections there are. One that fails while it joins takes its token with it.
        wanted = self._config.spare_tokens
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

    def given_token(self, token: bytes) -> None:
        """A client's: the token of EncryptedExtensions, whose sequence is 1 (draft 4.1.3)."""
        self.announcements.new_token(NewToken(FIRST_TOKEN, token))

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
        connection.facts = PathFacts(rtt=rtt)
        if standby:
            connection.standby = True
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
        if connection.state is ConnectionState.JOINING:
            # The server may have said on another connection that this one is to be closed.
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
        self._arrived(connection, now)
        return True

    def _add(self, connection_id: int, state: ConnectionState, now: float) -> Connection:
        if connection_id in self.live:
            raise ApiMisuse(f"there is a connection {connection_id} already")
        connection = self._make(self.keys, connection_id, state, now)
        self.live[connection_id] = connection
        return connection

    def _arrived(self, connection: Connection, now: float) -> None:
        self._events.append(ConnectionJoined(connection.connection_id))
        self.keys.note(connection)
        self._replace_suspects(now)
        self._note_path(now)
        for each in list(self.live.values()):
            self._end_if_retired(each)
        self.supply_tokens(now)

    def _note_path(self, now: float) -> None:
        """How long has there been no connection that is as good as any, or was?"""
        good = (ConnectionState.OPEN, ConnectionState.RETIRING)
        if any(each.state in good and not each.ending for each in self.live.values()):
            self._without_path_since = None
        elif self._without_path_since is None:
            self._without_path_since = now

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
                connection.peer_retired = True
                self._retire(connection)

    # How it goes.

    def retire(self, connection_id: int) -> None:
        """Puts nothing more on a connection, and closes it once all that both ends put on it has arrived.

        The last one stays until there is another. Raises `ApiMisuse`.
        """
        connection = self.find(connection_id)
        if not connection.retired_here:
            connection.retired_here = True
            self._retire(connection)

    def _retire(self, connection: Connection) -> None:
        if connection.state is not ConnectionState.RETIRING:
            connection.state = ConnectionState.RETIRING
            # What says that all has arrived, and without delay; also where nothing is kept to be sent again.
            connection.own.append(Ping())
            self._streams.unpin(connection.connection_id)
            if connection.retired_here:
                self._tell_status(connection)
        self._end_if_retired(connection)

    def _end_if_retired(self, connection: Connection) -> None:
        """Ends this end's part of a connection that has nothing more to carry.

        The end that retired it closes it when both have nothing more, the other says by its own Path Status that it
        has not: so neither sees the TCP connection end with something on its way.
        """
        retiring = connection.state is ConnectionState.RETIRING and not connection.ending
        if not retiring or connection.own or connection.outstanding:
            return
        if not any(each.usable for each in self.live.values()):
            return
        if not connection.retired_here:
            connection.ending = True
            self._tell_status(connection)
        elif connection.peer_retired or self._peer() is None:
            connection.ending = True
            self._ask(CloseConnection(connection.connection_id))

    def _ask(self, action: Action) -> None:
        if action not in self._actions:
            self._actions.append(action)

    def can_lose(self, connection: Connection, *, clean: bool = False) -> bool:
        """Whether the session outlives this connection. `clean`: it ended with a FIN."""
        others = len(self.live) > 1
        if others and connection.state is ConnectionState.JOINING and not connection.data_sent:
            return True
        if others and clean and connection.state is ConnectionState.RETIRING and not connection.outstanding:
            return True
        return self.failover and (others or self.joinable)

    def lose(self, connection: Connection, why: str | None, now: float, *, tell: bool = True) -> None:
        """The connection is at its end. What it carried and was not acknowledged goes again, on others.

        `why` None: it ended with a FIN. `tell`: the peer may not know.
        """
        number = connection.connection_id
        del self.live[number]
        connection.gone = True
        self.lost.append(connection)
        self.announcements.forget(number)
        self.keys.gone(connection)
        self._streams.unpin(number)
        retired = connection.state is ConnectionState.RETIRING and not connection.outstanding
        if why is None:
            self._ask(CloseConnection(number))
        self._queue_again(connection)
        if tell and not retired:
            # The peer handles the ACK first, and then knows what it need not send again.
            self._outbox.appendleft(ConnectionReset(number))
            if connection.received:
                self._outbox.appendleft(Ack(number, connection.received - 1))
        self._events.append(ConnectionClosed(number) if retired else ConnectionLost(number, why or "it was ended"))
        self._lost(connection, now)
        self.supply_tokens(now)
        self._note_path(now)
        if not any(each.state in (ConnectionState.OPEN, ConnectionState.JOINING) for each in self.live.values()):
            self._look_for_path()

    def _look_for_path(self) -> None:
        if self._role is Role.CLIENT:
            self._ask(Reconnect())

    def give_up(self, connection: Connection, why: str, now: float) -> None:
        """Ends a connection that the kernel still holds for alive."""
        self._ask(AbortConnection(connection.connection_id, why))
        self.lose(connection, why, now)

    def _queue_again(self, connection: Connection) -> None:
        writer = self.writer
        for _, stream, start, end, fin in connection.unacknowledged:
            # With a redundant scheduler each of the others carries it, or has.
            if stream.pinned is not None or not self.scheduler.redundant:
                stream.lose(start, end, fin)
                self._streams.schedule(stream)
        kept = [frame for _, frame in connection.unacknowledged_frames]
        again = [frame for frame in (*kept, *connection.own) if _again(frame, connection.connection_id)]
        # The credit is told as it is now, below; and not once more for every connection that is lost.
        waiting = [frame for frame in self._outbox if not isinstance(frame, CREDIT)]
        self._outbox.clear()
        self._outbox.extend((*again, *waiting))
        for ping_id in connection.take_pings():
            if ping_id != OWN_PING:
                writer.pings_waiting.append(ping_id)
                self._outbox.append(Ping())
        self._streams.tell_credit()

    def receive_reset(self, frame: ConnectionReset, came_on: Connection, now: float) -> None:
        """The peer saw a connection fail. Raises `PeerError`."""
        number = frame.connection_id
        self.announcements.connection_reset(frame)
        if self.tokens.pop(number, None) is not None:
            self.supply_tokens(now)
        for each in [each for each in self.lost if each.connection_id == number]:
            self.lost.remove(each)  # The last word on it has come.
        connection = self.live.get(number)
        # Of the very connection that brings it, it says nothing that the connection does not know better.
        if connection is not None and connection is not came_on and self.can_lose(connection):
            self._ask(AbortConnection(number, "the peer saw it fail"))
            self.lose(connection, "the peer saw it fail", now, tell=False)

    # Acknowledgments and keys.

    def acknowledged(self, connection: Connection, highest: int, now: float) -> None:
        """The peer has the records of this connection up to `highest`."""
        connection.unanswered_at = now if connection.outstanding else None
        wanted = self.keys.acknowledged(connection, highest, self.live.values())
        if wanted is not None:
            self.update_keys(wanted)
        if connection.state is ConnectionState.RETIRING:
            self._end_if_retired(connection)

    def update_keys(self, request: bool) -> bool:
        """False when it waits for the peer (see `SessionKeys`)."""
        to_confirm = self._may_grow
        updated = self.keys.update(self.live.values(), request, to_confirm=to_confirm)
        if updated and to_confirm:
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
            self._note_path(now)
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
        if self._role is Role.CLIENT and connection.usable and self._streams.receiving and self._config.probe_after:
            # A server that has lost its way to the client cannot say so, nor come by another one.
            return connection.heard_at + max(self._config.probe_after, self._patience(connection))
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
        """False when the session has been without a connection that works for too long."""
        since = self._without_path_since
        if since is not None and since + self._config.reconnect_timeout <= now:
            return False
        for connection in list(self.live.values()):
            if self._due(connection) > now:
                continue
            if connection.unanswered_at is not None:
                # The shell knows whether the kernel hears the peer's.
                self._ask(ProbeConnection(connection.connection_id))
            elif connection.expecting:
                # Once: a peer that answers this and says nothing else has nothing to say.
                connection.expecting = False
                connection.own.append(Ping())
                connection.unanswered_at = connection.heard_at
            else:
                connection.own.append(Ping())
                connection.unanswered_at = now
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
        self._note_path(now)
        self._events.append(ConnectionSuspected(connection.connection_id, why))
        if not any(each.state is ConnectionState.JOINING for each in self.live.values()):
            self._look_for_path()


def _again(frame: Frame, connection_id: int) -> bool:
    """Whether a frame that went with a connection is sent once more, on another."""
    if isinstance(frame, PathStatus):
        return frame.connection_id != connection_id
    # Draft 4.2.9: what only has a meaning on its connection is not repeated.
    return not isinstance(frame, (Ping, StreamChange))
