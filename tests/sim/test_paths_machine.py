"""Random sequences of what applications and networks do to a session with several connections.

Every stream's bytes arrive once and in order, or its owner is told; memory stays within its bounds; in the end, when
the network has healed, all is delivered and both ends know it.
"""

from __future__ import annotations

import contextlib

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tcpls.errors import ApiMisuse, StreamReset
from tcpls.protocol.base import SessionConfig
from tcpls.protocol.events import SessionEnded
from tcpls.protocol.parameters import Parameters
from tcpls.protocol.schedulers import SCHEDULERS
from tests.sim.network import CLIENT, SERVER, Host, Network, network

SESSION_WINDOW = 300_000
STREAM_WINDOW = 150_000
UNACKNOWLEDGED = 200_000
SEND_BUFFER = 80_000
LIMIT = 6
LINKS = 3
LOCAL = Parameters(
    session_window=SESSION_WINDOW,
    stream_window=STREAM_WINDOW,
    stream_limit=LIMIT,
    failover=True,
    max_connections=4,
    ack_records=4,
)
CONFIG = SessionConfig(
    send_buffer=SEND_BUFFER,
    unacknowledged_limit=UNACKNOWLEDGED,
    path_timeout=0.5,
    probe_after=2.0,
    # Each join that fails takes a token with it.
    spare_tokens=50,
    # The network is ill for as long as hypothesis likes.
    reconnect_timeout=1e6,
)

host_number = st.integers(0, 1)
link_number = st.integers(0, LINKS - 1)
choice = st.integers(0, 20)
senders = st.sampled_from([(CLIENT,), (SERVER,), (CLIENT, SERVER)])


def pattern(stream_id: int, sender: int, offset: int, size: int) -> bytes:
    return bytes((at * 31 + stream_id * 7 + sender * 3) % 251 for at in range(offset, offset + size))


class Sent:
    """What an application has written to a stream."""

    def __init__(self) -> None:
        self.written = 0
        self.finished = False
        self.reset = False


class Paths(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 1 << 16), draft=st.booleans(), connections=st.integers(1, 3))
    def start(self, seed: int, draft: bool, connections: int) -> None:
        self.net: Network = network(
            seed=seed, links=LINKS, rate=2e6, local=LOCAL, client=CONFIG, server=CONFIG, draft=draft
        )
        self.draft = draft
        self.hosts = self.net.hosts
        for host in self.hosts:
            host.reads = False
        self.sent: tuple[dict[int, Sent], dict[int, Sent]] = ({}, {})
        self.stopped: tuple[set[int], set[int]] = (set(), set())
        self.net.advance(0.1)
        for number in range(1, connections):
            self.hosts[CLIENT].dial(self.net.links[number])
            self.net.advance(0.1)
        for number in (CLIENT, SERVER, CLIENT, SERVER):
            self.open(number)
        for number in (CLIENT, SERVER):
            for which in range(2):
                self.write(number, which, 70_000, False)

    def _stream(self, number: int, which: int) -> tuple[Host, int, Sent] | None:
        host = self.hosts[number]
        known = sorted(host.got)
        if not known:
            return None
        stream_id = known[which % len(known)]
        return host, stream_id, self.sent[number].setdefault(stream_id, Sent())

    def _connection(self, number: int, which: int) -> int | None:
        live = sorted(self.hosts[number].core.paths.live)
        return live[which % len(live)] if live else None

    # Applications.

    @rule(number=host_number)
    def open(self, number: int) -> None:
        host = self.hosts[number]
        own = [each for each in host.got if each % 2 == number]
        if len(own) < LIMIT:
            stream_id = host.core.open_stream()
            if stream_id is not None:
                host.open_known(stream_id)

    @rule(number=host_number, which=choice, size=st.integers(0, 60_000), more=st.booleans())
    def write(self, number: int, which: int, size: int, more: bool) -> None:
        picked = self._stream(number, which)
        if picked is None:
            return
        host, stream_id, sent = picked
        if sent.finished or sent.reset:
            return
        try:
            if host.core.send_capacity(stream_id) <= 0:
                return
            host.core.send(stream_id, pattern(stream_id, number, sent.written, size), self.net.now, more)
        except StreamReset:
            sent.reset = True
        else:
            sent.written += size
        host.pump()

    @rule(number=host_number, which=choice)
    def finish(self, number: int, which: int) -> None:
        picked = self._stream(number, which)
        if picked is not None:
            host, stream_id, sent = picked
            host.core.finish(stream_id)
            sent.finished = True
            host.pump()

    @rule(number=host_number, which=choice)
    def reset(self, number: int, which: int) -> None:
        picked = self._stream(number, which)
        if picked is not None and not self.draft:
            host, stream_id, sent = picked
            host.core.reset(stream_id, 9)
            sent.reset = True
            host.pump()

    @rule(number=host_number, which=choice)
    def stop(self, number: int, which: int) -> None:
        picked = self._stream(number, which)
        if picked is not None and not self.draft:
            host, stream_id, _ = picked
            host.core.stop_sending(stream_id, 8)
            self.stopped[number].add(stream_id)
            host.pump()

    @rule(number=host_number, which=choice, limit=st.integers(1, 100_000))
    def read(self, number: int, which: int, limit: int) -> None:
        picked = self._stream(number, which)
        if picked is not None:
            self._read(*picked[:2], number, limit)

    def _read(self, host: Host, stream_id: int, number: int, limit: int = 1 << 16) -> None:
        if stream_id not in self.stopped[number]:
            at = len(host.got[stream_id].data)
            data = host.read(stream_id, limit)
            assert data == pattern(stream_id, 1 - number, at, len(data))
            host.pump()

    @rule(number=host_number, request=st.booleans())
    def update_keys(self, number: int, request: bool) -> None:
        self.hosts[number].core.update_keys(request)
        self.hosts[number].pump()

    @rule(number=host_number, many=st.integers(2, 6))
    def many_small_writes(self, number: int, many: int) -> None:
        for which in range(many):
            for _ in range(10):
                self.write(number, which, 100, False)

    @rule(number=host_number)
    def read_all(self, number: int) -> None:
        for stream_id in sorted(self.hosts[number].got):
            self._read(self.hosts[number], stream_id, number)

    @rule(number=host_number)
    def ping(self, number: int) -> None:
        with contextlib.suppress(ApiMisuse):
            self.hosts[number].core.ping(self.net.now)

    @rule(number=host_number, name=st.sampled_from(sorted(SCHEDULERS)))
    def schedule(self, number: int, name: str) -> None:
        self.hosts[number].core.paths.use(name)

    @rule(number=host_number, which=choice, where=choice, pinned=st.booleans())
    def pin(self, number: int, which: int, where: int, pinned: bool) -> None:
        picked, connection = self._stream(number, which), self._connection(number, where)
        if picked is None or connection is None:
            return
        with contextlib.suppress(ApiMisuse):
            picked[0].core.pin_stream(picked[1], connection if pinned else None)

    @rule(number=host_number, which=choice)
    def retire(self, number: int, which: int) -> None:
        connection = self._connection(number, which)
        if connection is not None:
            self.hosts[number].core.paths.retire(connection)
            self.hosts[number].pump()

    @rule(number=host_number, which=choice, standby=st.booleans())
    def set_standby(self, number: int, which: int, standby: bool) -> None:
        connection = self._connection(number, which)
        if connection is not None:
            self.hosts[number].core.paths.set_standby(connection, standby)

    # The network.

    @rule(link=link_number, standby=st.booleans())
    def join(self, link: int, standby: bool) -> None:
        if len(self.hosts[CLIENT].core.paths.live) < 4:
            self.hosts[CLIENT].dial(self.net.links[link], standby=standby)

    @rule(link=link_number, seen_by=senders, silent=st.booleans())
    def kill(self, link: int, seen_by: tuple[int, ...], silent: bool) -> None:
        self.net.links[link].reset(seen_by=seen_by, silent=silent)

    @rule(link=link_number, dead=senders)
    def blackhole(self, link: int, dead: tuple[int, ...]) -> None:
        self.net.links[link].blackhole(*dead)

    @rule(link=link_number, slow=senders)
    def stall(self, link: int, slow: tuple[int, ...]) -> None:
        self.net.links[link].stall(*slow)

    @rule(link=link_number)
    def heal(self, link: int) -> None:
        self.net.links[link].heal()

    @rule(seconds=st.floats(0, 0.2))
    def a_moment(self, seconds: float) -> None:
        self.net.advance(seconds)

    @rule(seconds=st.floats(0, 5))
    def a_while(self, seconds: float) -> None:
        self.net.advance(seconds)

    # What always holds.

    @invariant()
    def nothing_failed(self) -> None:
        for host in getattr(self, "hosts", ()):
            assert not host.failures, host.failures
            for event in host.events:
                assert not isinstance(event, SessionEnded), event.error

    @invariant()
    def memory_is_bounded(self) -> None:
        for host in getattr(self, "hosts", ()):
            core = host.core
            table = core._streams
            kept = sum(each.unacknowledged for each in table.sending.values() if not each.was_reset)
            assert table.unacknowledged == kept <= UNACKNOWLEDGED
            if not self.draft:
                held = sum(sum(map(len, each.pieces)) + each.buffered for each in table.receiving.values())
                assert held <= table.buffered <= SESSION_WINDOW
            for each in table.sending.values():
                assert len(each.seams) <= 256
            assert len(core.paths.live) <= 6
            assert len(core._outbox) < 1000

    def teardown(self) -> None:
        if not hasattr(self, "net"):
            return
        for link in self.net.links:
            link.heal()
        for number, host in enumerate(self.hosts):
            for stream_id in sorted(host.got):
                host.core.push(stream_id)
                if not self.sent[number].setdefault(stream_id, Sent()).reset:
                    host.core.finish(stream_id)
                    self.sent[number][stream_id].finished = True
        for _ in range(60):
            self.net.advance(1.0)
            for number, host in enumerate(self.hosts):
                for stream_id in sorted(host.got):
                    if stream_id not in self.sent[number]:
                        host.core.finish(stream_id)
                        self.sent[number][stream_id] = Sent()
                    self._read(host, stream_id, number)
            self.nothing_failed()
            if self._all_is_told():
                break
        else:
            raise AssertionError("something does not arrive")
        self._end()

    def _all_is_told(self) -> bool:
        done = True
        for number, host in enumerate(self.hosts):
            other = self.sent[1 - number]
            for stream_id, got in host.got.items():
                there = other.get(stream_id)
                if stream_id in self.stopped[number]:
                    continue
                if there is None:
                    done = False
                elif got.ended:
                    assert len(got.data) == there.written
                elif got.error is not None:
                    assert isinstance(got.error, StreamReset)
                    assert there.reset or stream_id in self.stopped[number]
                else:
                    done = False
        return done

    def _end(self) -> None:
        self.hosts[CLIENT].core.close(0, "", self.net.now)
        self.net.advance(30.0)
        for host in self.hosts:
            assert host.core.ended
            (ended,) = (event for event in host.events if isinstance(event, SessionEnded))
            assert ended.error is None
            assert host.core.delivered


TestPaths = Paths.TestCase
TestPaths.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
