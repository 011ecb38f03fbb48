"""Random sequences of what two applications do: every stream's bytes arrive once, in order, or its owner is told."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tcpls.errors import SessionClosed, StreamReset
from tcpls.protocol.base import SessionConfig
from tcpls.protocol.events import SessionEnded, StreamOpened
from tcpls.protocol.parameters import Parameters
from tcpls.tls.record import RECORD_ROOM
from tests.sim.pair import End, Pair, tcpls_pair

SESSION_WINDOW = 160_000
STREAM_WINDOW = 100_000
SEND_BUFFER = 60_000
UNACKNOWLEDGED = 120_000
MOST = 80_000
"""Bytes of one write: enough for runs of full records."""
LIMIT = 5
SMALL = Parameters(session_window=SESSION_WINDOW, stream_window=STREAM_WINDOW, stream_limit=LIMIT)

end_number = st.integers(0, 1)


def pattern(stream_id: int, sender: int, offset: int, size: int) -> bytes:
    """The bytes that `sender` writes on a stream: each tells its place."""
    return bytes((at * 31 + stream_id * 7 + sender * 3) % 251 for at in range(offset, offset + size))


class Half:
    """What one end has written to, and read from, one stream."""

    def __init__(self) -> None:
        self.written = 0
        self.finished = False
        self.reset = False
        self.read = 0
        self.ended = False
        self.told = False
        self.stopped = False


class Streams(RuleBasedStateMachine):
    @initialize(failover=st.booleans(), cuts=st.lists(st.integers(1, 120_000), min_size=1, max_size=8))
    def start(self, failover: bool, cuts: list[int]) -> None:
        self.turn = 0
        # One large piece among them: by single bytes alone, what is written takes more steps than a pair is given.
        pieces = [*cuts, RECORD_ROOM]

        def cut(size: int) -> int:
            self.turn += 1
            return pieces[self.turn % len(pieces)]

        local = Parameters(
            session_window=SESSION_WINDOW,
            stream_window=STREAM_WINDOW,
            stream_limit=LIMIT,
            failover=failover,
            ack_records=3,
        )
        config = SessionConfig(send_buffer=SEND_BUFFER, unacknowledged_limit=UNACKNOWLEDGED)
        self.pair: Pair = tcpls_pair(client=local, server=local, config=config, cut=cut)
        self.ends: tuple[End, End] = (self.pair.client, self.pair.server)
        self.known: tuple[dict[int, Half], dict[int, Half]] = ({}, {})
        self.closed = False
        self.pair.settle()

    def _note_opened(self) -> None:
        for end, known in zip(self.ends, self.known, strict=True):
            for event in end.events:
                if isinstance(event, StreamOpened):
                    known.setdefault(event.stream_id, Half())

    def _pick(self, number: int, choice: int) -> tuple[End, int, Half] | None:
        known = self.known[number]
        if not known:
            return None
        stream_id = sorted(known)[choice % len(known)]
        return self.ends[number], stream_id, known[stream_id]

    @rule(number=end_number)
    def open(self, number: int) -> None:
        if self.closed:
            return
        stream_id = self.ends[number].core.open_stream()
        if stream_id is not None:
            assert stream_id % 2 == number
            self.known[number][stream_id] = Half()

    @rule(number=end_number, choice=st.integers(0, 20), size=st.integers(0, MOST), more=st.booleans())
    def write(self, number: int, choice: int, size: int, more: bool) -> None:
        picked = self._pick(number, choice)
        if picked is None or self.closed:
            return
        end, stream_id, half = picked
        if half.finished or half.reset or end.core.send_capacity(stream_id) <= 0:
            return
        try:
            end.core.send(stream_id, pattern(stream_id, number, half.written, size), self.pair.now, more)
        except StreamReset:
            half.reset = True
        else:
            half.written += size

    @rule(number=end_number, choice=st.integers(0, 20))
    def finish(self, number: int, choice: int) -> None:
        picked = self._pick(number, choice)
        if picked is not None and not self.closed:
            picked[0].core.finish(picked[1])
            picked[2].finished = True

    @rule(number=end_number, choice=st.integers(0, 20))
    def reset(self, number: int, choice: int) -> None:
        picked = self._pick(number, choice)
        if picked is not None and not self.closed:
            picked[0].core.reset(picked[1], 9)
            picked[2].reset = True

    @rule(number=end_number, choice=st.integers(0, 20))
    def stop(self, number: int, choice: int) -> None:
        picked = self._pick(number, choice)
        if picked is not None and not self.closed:
            picked[0].core.stop_sending(picked[1], 8)
            picked[2].stopped = True

    @rule(number=end_number, choice=st.integers(0, 20), limit=st.integers(1, 40_000))
    def read(self, number: int, choice: int, limit: int) -> None:
        picked = self._pick(number, choice)
        if picked is not None:
            self._read(*picked, number, limit)

    def _read(self, end: End, stream_id: int, half: Half, number: int, limit: int) -> bool:
        """Whether anything came of it."""
        if half.ended or half.told or half.stopped:
            return False
        try:
            data = end.core.receive(stream_id, limit)
        except (StreamReset, SessionClosed):
            half.told = True
            return True
        if data is None:
            return False
        if not data:
            half.ended = True
            return True
        assert len(data) <= limit
        assert data == pattern(stream_id, 1 - number, half.read, len(data))
        half.read += len(data)
        return True

    @rule(number=end_number, choice=st.integers(0, 20))
    def push(self, number: int, choice: int) -> None:
        picked = self._pick(number, choice)
        if picked is not None:
            picked[0].core.push(picked[1])

    @rule(steps=st.integers(1, 10))
    def move(self, steps: int) -> None:
        for _ in range(steps):
            self.pair.step()
        self._note_opened()

    @rule(seconds=st.floats(0, 0.1))
    def wait(self, seconds: float) -> None:
        self.pair.advance(seconds)
        self._note_opened()

    @rule(number=end_number, request=st.booleans())
    def update_keys(self, number: int, request: bool) -> None:
        if not self.closed:
            self.pair.advance(0.2)
            self.ends[number].core.update_keys(request)

    @precondition(lambda self: not self.closed)
    @rule(number=end_number, code=st.sampled_from([0, 5]))
    def close(self, number: int, code: int) -> None:
        if self.turn % 5 == 0:
            self.ends[number].core.close(code, "enough", self.pair.now)
            self.closed = True

    @invariant()
    def nothing_failed(self) -> None:
        for end in getattr(self, "ends", ()):
            assert end.failed is None, end.failed

    @invariant()
    def memory_is_bounded(self) -> None:
        for end in getattr(self, "ends", ()):
            table = end.core._streams
            held = sum(map(len, (piece for each in table.receiving.values() for piece in each.pieces)))
            assert held <= table.buffered <= SESSION_WINDOW
            assert sum(number % 2 == (end is self.ends[0]) for number in table.receiving) <= LIMIT
            assert end.core._streams.unacknowledged <= UNACKNOWLEDGED
            for stream in table.sending.values():
                assert stream.written - stream.sent <= SEND_BUFFER + MOST

    def teardown(self) -> None:
        """In the end everybody reads: all that was finished is whole, all else is told or still open."""
        if not hasattr(self, "pair"):
            return
        for end, known in zip(self.ends, self.known, strict=True):
            for stream_id in known:
                end.core.push(stream_id)
        moving = True
        while moving:
            self.pair.advance(0.1)
            self.pair.settle()
            self._note_opened()
            moving = False
            for number, known in enumerate(self.known):
                for stream_id, half in known.items():
                    while self._read(self.ends[number], stream_id, half, number, 10_000):
                        moving = True
        self.nothing_failed()
        for number, known in enumerate(self.known):
            for stream_id, half in known.items():
                self._judge(stream_id, half, self.known[1 - number].get(stream_id), number)
        if self.closed:
            self.pair.advance(20.0)
            for end in self.ends:
                assert end.core.ended
                assert any(isinstance(event, SessionEnded) for event in end.events)

    def _judge(self, stream_id: int, here: Half, there: Half | None, number: int) -> None:
        """`there` wrote and `here` read."""
        if there is None:
            assert not here.read
            return
        if here.ended:
            assert there.finished
            assert here.read == there.written
        elif here.stopped or here.told:
            assert here.read <= there.written
        elif not self.closed and not there.reset:
            assert here.read == there.written, (stream_id, number)
            assert not there.finished


TestStreams = Streams.TestCase
TestStreams.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
