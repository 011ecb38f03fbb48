"""One end without the other: records are handed to it in plaintext, and what it puts is kept as plaintext."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from tcpls.errors import ALERT_FOR, ProtocolViolation, Reason
from tcpls.protocol.base import Role, SessionConfig
from tcpls.protocol.core import Core
from tcpls.protocol.frames import ALL_FRAMES, Frame, Padding, Stream, encode, parse_frames
from tcpls.protocol.parameters import Parameters, ProgramSupport
from tcpls.protocol.session import Session
from tcpls.tls.engines.openssl import OpenSSLEngine
from tcpls.tls.key_schedule import TrafficSecret
from tcpls.tls.record import MAX_CONTENT
from tcpls.tls.suites import CipherSuite, TrafficKeys
from tcpls.wire import Buffer

SUITE = CipherSuite.AES_128_GCM_SHA256
READ = TrafficSecret(OpenSSLEngine(), SUITE, b"r" * 32)
WRITE = TrafficSecret(OpenSSLEngine(), SUITE, b"w" * 32)
PROGRAMS = ProgramSupport(1, 200_000, "bpfel+struct_ops")
LOCAL = Parameters(
    session_window=100_000, stream_window=60_000, stream_limit=4, options=(1, 2, 6, 17), programs=PROGRAMS
)
PEER = Parameters(
    session_window=100_000, stream_window=60_000, stream_limit=4, options=(1, 2, 6, 17), programs=PROGRAMS
)


class Sink:
    """Keeps every record, and the keys it was told to switch to, in order."""

    def __init__(self, most: int = 10_000, max_content: int = MAX_CONTENT) -> None:
        self.max_content = max_content
        self.records: list[tuple[int, bytes]] = []
        self.keys: list[tuple[int, TrafficKeys]] = []
        self.most = most
        self.can_switch_keys = True

    @property
    def room(self) -> bool:
        return len(self.records) < self.most

    @property
    def sequence(self) -> int:
        return len(self.records)

    def put(self, content_type: int, *parts: Buffer) -> None:
        content = b"".join(bytes(part) for part in parts)
        assert len(content) <= self.max_content
        self.records.append((content_type, content))

    def put_run(self, content_type: int, data: memoryview, trailers: Sequence[bytes]) -> int:
        count, size = 0, self.max_content - len(trailers[0])
        for trailer in trailers:
            if not self.room:
                break
            self.put(content_type, data[count * size : (count + 1) * size], trailer)
            count += 1
        return count

    def switch_keys(self, keys: TrafficKeys) -> None:
        self.keys.append((len(self.records), keys))

    def take(self) -> list[tuple[int, bytes]]:
        taken, self.records = self.records, []
        return taken

    def frames(self) -> list[Frame]:
        """All frames of all records of application data, as the peer would handle them; drains."""
        return [
            copied(frame)
            for content_type, content in self.take()
            if content_type == 23
            for frame in parse_frames(content, ALL_FRAMES)
        ]


def copied(frame: Frame) -> Frame:
    return Stream(frame.stream_id, frame.offset, bytes(frame.data), frame.fin) if isinstance(frame, Stream) else frame


def client(peer: Parameters | None = PEER, local: Parameters = LOCAL, config: SessionConfig | None = None) -> Session:
    return Session(Role.CLIENT, config or SessionConfig(), local, peer, READ, WRITE)


def server(peer: Parameters | None = PEER, local: Parameters = LOCAL, config: SessionConfig | None = None) -> Session:
    return Session(Role.SERVER, config or SessionConfig(), local, peer, READ, WRITE)


def draft_server(local: Parameters = LOCAL, config: SessionConfig | None = None) -> Session:
    return server(None, local, config)


def give(core: Core, *frames: Frame, now: float = 0.0) -> None:
    """One record with these frames, which the core handles in this order."""
    give_raw(core, encode(*reversed(frames)), now=now)


def give_raw(core: Core, content: bytes, content_type: int = 23, now: float = 0.0) -> TrafficKeys | None:
    """One record, whose memory is used again as soon as the core has settled."""
    memory = bytearray(content)
    try:
        return core.receive_record(0, content_type, memoryview(memory), now)
    finally:
        core.settle()
        memory[:] = bytes(len(memory))


def said(core: Core, now: float = 0.0) -> list[Frame]:
    """The frames that the core has to say now, Padding left out."""
    sink = Sink()
    core.transmit(0, sink, now)
    return [frame for frame in sink.frames() if not isinstance(frame, Padding)]


@contextmanager
def refused(core: Core, reason: Reason) -> Iterator[None]:
    """What happens inside is refused for this reason, and the peer gets the reason's alert and nothing else."""
    with pytest.raises(ProtocolViolation) as caught:
        yield
    assert caught.value.reason is reason
    core.fail(0, caught.value, 0.0)
    sink = Sink()
    core.transmit(0, sink, 0.0)
    assert sink.take() == [(21, bytes((2, ALERT_FOR[reason])))]
    assert core.ended
    core.transmit(0, sink, 0.0)
    assert sink.take() == []
