"""What a full record costs on its way through the core, with and without its protection: microseconds a record.

Run it as `python benchmarks/record_path.py`. The bytes that the receiver reads are counted and checked.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from tcpls.protocol.base import Role, SessionConfig
from tcpls.protocol.frames import STREAM_TRAILER
from tcpls.protocol.parameters import Parameters
from tcpls.protocol.session import Session
from tcpls.protocol.streams import MAX_STREAM_DATA
from tcpls.tls.engines.openssl import OpenSSLEngine
from tcpls.tls.key_schedule import TrafficSecret
from tcpls.tls.record import MAX_CONTENT, RECORD_ROOM, RecordOpener, RecordSealer
from tcpls.tls.suites import CipherSuite, TrafficKeys
from tcpls.wire import Buffer

RECORDS = 4096
ROUNDS = 7
CHUNK = bytes(range(256)) * 1024
ENGINE = OpenSSLEngine()
SUITE = CipherSuite.AES_128_GCM_SHA256


class NullSink:
    """Takes records and forgets them."""

    room = True
    sequence = 0
    max_content = MAX_CONTENT

    can_switch_keys = True

    def put_run(self, content_type: int, data: memoryview, trailers: Sequence[bytes]) -> int:
        self.sequence += len(trailers)
        return len(trailers)

    def put(self, content_type: int, *parts: Buffer) -> None:
        self.sequence += 1

    def switch_keys(self, keys: TrafficKeys) -> None: ...


def secret(label: int) -> TrafficSecret:
    return TrafficSecret(ENGINE, SUITE, bytes([label]) * 32)


def session(role: Role, failover: bool = False) -> Session:
    wide = Parameters(session_window=1 << 60, stream_window=1 << 60, stream_limit=64, failover=failover)
    mine, theirs = (1, 2) if role is Role.CLIENT else (2, 1)
    config = SessionConfig(unacknowledged_limit=1 << 40)
    return Session(role, config, wide, wide if role is Role.CLIENT else Parameters(), secret(theirs), secret(mine))


def transmit(streams: int, failover: bool = False) -> float:
    """Building records: scheduler, views, trailer."""
    core = session(Role.CLIENT, failover)
    total = RECORDS * MAX_STREAM_DATA // len(CHUNK)
    ids = [core.open_stream() for _ in range(streams)]
    for index in range(total):
        core.send(ids[index % streams] or 0, CHUNK, 0.0)
    sink = NullSink()
    start = time.perf_counter()
    core.transmit(0, sink, 0.0)
    return (time.perf_counter() - start) / sink.sequence


def receive() -> float:
    """Handling records that are one Stream frame in order; the application reads after each 16."""
    core = session(Role.SERVER)
    records = [
        memoryview(bytearray(bytes(MAX_STREAM_DATA) + STREAM_TRAILER.pack(MAX_STREAM_DATA, at * MAX_STREAM_DATA, 0, 2)))
        for at in range(RECORDS)
    ]
    core.receive_record(0, 23, records[0], 0.0)
    handle = core.receive_record
    seconds = 0.0
    taken = 0
    for first in range(1, RECORDS, 16):
        start = time.perf_counter()
        for record in records[first : first + 16]:
            handle(0, 23, record, 0.0)
        core.settle()
        seconds += time.perf_counter() - start
        while data := core.receive(0, 1 << 18):
            taken += len(data)
    if taken != RECORDS * MAX_STREAM_DATA:
        raise RuntimeError(f"{taken} bytes arrived")
    return seconds / (RECORDS - 1)


def both(failover: bool = False) -> tuple[float, float]:
    """Transmit and seal; open, receive and read."""
    client, server = session(Role.CLIENT, failover), session(Role.SERVER, failover)
    sealer = RecordSealer(ENGINE.aead, secret(1).keys(), capacity=31 * RECORD_ROOM)
    opener = RecordOpener(ENGINE.aead, secret(1).keys(), ENGINE.invalid_tag)
    stream_id = client.open_stream() or 0
    sending = receiving = 0.0
    taken = queued = 0
    total = RECORDS * MAX_STREAM_DATA // len(CHUNK) * len(CHUNK)
    begun = client_records(client)
    while taken < total:
        start = time.perf_counter()
        while queued < total and client.send_capacity(stream_id) > 0:
            client.send(stream_id, CHUNK, 0.0)
            queued += len(CHUNK)
        client.transmit(0, sealer, 0.0)
        sending += time.perf_counter() - start
        pending = sealer.pending
        opener.writable()
        opener.feed(pending)
        sealer.sent(len(pending))
        start = time.perf_counter()
        server.receive_records(0, opener, 0.0)
        while data := server.receive(0, 1 << 18):
            taken += len(data)
        server.events()
        receiving += time.perf_counter() - start
    records = client_records(client) - begun
    return sending / records, receiving / records


def client_records(client: Session) -> int:
    return client.records_sent(0)


def report(name: str, measure: Callable[[], float]) -> None:
    figures = [measure() * 1e6 for _ in range(ROUNDS)]
    print(f"{name:44} {statistics.median(figures):6.2f} us")


def main() -> None:
    report("transmit, one stream", lambda: transmit(1))
    report("transmit, 16 streams", lambda: transmit(16))
    report("transmit, one stream, failover", lambda: transmit(1, failover=True))
    report("receive_record", receive)
    for failover in (False, True):
        figures = [both(failover) for _ in range(ROUNDS)]
        name = ", failover" if failover else ""
        print(f"{'send, transmit and seal' + name:44} {statistics.median(f[0] for f in figures) * 1e6:6.2f} us")
        print(
            f"{'open, receive_record and receive' + name:44} {statistics.median(f[1] for f in figures) * 1e6:6.2f} us"
        )


if __name__ == "__main__":
    main()
