"""Records that the kernel sealed, opened in user space. They need a kernel with TLS: scripts/kernel-vm --uml."""

from __future__ import annotations

import os
import random
import select
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from tcpls.errors import KernelUnavailable
from tcpls.kernel import ktls
from tcpls.kernel.ktls import KernelSink
from tcpls.tls.record import MAX_CONTENT, RecordOpener, RecordSealer
from tcpls.tls.suites import Aead, CipherSuite, TrafficKeys

pytestmark = pytest.mark.ktls

AES_128 = CipherSuite.AES_128_GCM_SHA256
TIMEOUT = 30.0
Record = tuple[int, bytes]


@pytest.fixture(scope="module", autouse=True)
def _kernel_has_tls() -> None:
    support = ktls.probe()
    if support.transmit == set(CipherSuite):
        return
    message = f"needs kernel TLS with every suite (Linux 5.11, CONFIG_TLS): {support.reason}"
    if os.environ.get("TCPLS_GUEST"):
        pytest.fail(f"the second kernel should have it: {message}")
    pytest.skip(message)


def aead(keys: TrafficKeys) -> Aead:
    if keys.suite is CipherSuite.CHACHA20_POLY1305_SHA256:
        return ChaCha20Poly1305(keys.key)
    return AESGCM(keys.key)


def keys_of(suite: CipherSuite = AES_128, sequence: int = 0, connection_id: int = 0) -> TrafficKeys:
    source = random.Random(suite.code)
    return TrafficKeys(suite, source.randbytes(suite.key_size), source.randbytes(12), sequence).for_connection(
        connection_id
    )


@contextmanager
def pair(family: socket.AddressFamily = socket.AF_INET) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The sending end, non-blocking, and the receiving end."""
    address = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.create_server((address, 0), family=family) as listener:
        sender = socket.create_connection(listener.getsockname()[:2], timeout=TIMEOUT)
        receiver, _ = listener.accept()
    sender.setblocking(False)
    receiver.settimeout(TIMEOUT)
    with sender, receiver:
        yield sender, receiver


class Receiver:
    """Opens records in user space until the sender's end of input."""

    def __init__(self, sock: socket.socket, keys: TrafficKeys) -> None:
        self.sock = sock
        self.opener = RecordOpener(aead, keys, InvalidTag)
        self.ended = False

    def records(self, count: int | None = None) -> list[Record]:
        """The next `count` records, or all until the end."""
        result: list[Record] = []
        while count is None or len(result) < count:
            record = self.opener.next_record()
            if record is not None:
                result.append((record[0], bytes(record[1])))
                continue
            received = self.sock.recv_into(self.opener.writable())
            if not received:
                self.ended = True
                break
            self.opener.received(received)
        return result


def wait_writable(sock: socket.socket) -> None:
    assert select.select([], [sock], [], TIMEOUT)[1], "the socket does not become writable"


def put_all(sock: socket.socket, sink: KernelSink, records: list[Record]) -> int:
    """Puts the records as the shell does; how often one had to wait."""
    waits = 0
    for content_type, data in records:
        cut = len(data) // 3
        sink.put(content_type, data[:cut], memoryview(data)[cut:])
        while sink.pending:
            waits += 1
            wait_writable(sock)
            sink.flush()
    return waits


def close_in_order(sock: socket.socket, sink: KernelSink) -> None:
    put_all(sock, sink, [(21, b"\1\0")])
    wait_writable(sock)
    sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize(("sequence", "connection_id"), [(0, 0), (1, 1), (70_000, 5), (9, 0x80000001), (3, 0xFFFFFFFF)])
@pytest.mark.parametrize("suite", CipherSuite, ids=lambda suite: suite.label)
def test_user_space_opens_what_the_kernel_sealed(
    suite: CipherSuite, sequence: int, connection_id: int, family: socket.AddressFamily
) -> None:
    keys = keys_of(suite, sequence, connection_id)
    records = [
        (23, b"x"),
        (21, b"\1\0"),
        (23, random.Random(1).randbytes(MAX_CONTENT)),
        (22, b"\x18\0\0\1\0"),
        (23, b"end"),
    ]
    with pair(family) as (sender, receiver):
        sink = KernelSink(sender, keys)
        put_all(sender, sink, records)
        opened = Receiver(receiver, keys)
        assert opened.records(len(records)) == records
        assert sink.sequence == opened.opener.sequence == sequence + len(records)


def test_many_pieces_are_one_record() -> None:
    keys = keys_of()
    data = random.Random(2).randbytes(MAX_CONTENT)
    with pair() as (sender, receiver):
        KernelSink(sender, keys).put(23, *(data[at : at + 16] for at in range(0, len(data), 16)))
        assert Receiver(receiver, keys).records(1) == [(23, data)]


@pytest.mark.parametrize("suite", CipherSuite, ids=lambda suite: suite.label)
def test_back_pressure_keeps_every_byte(suite: CipherSuite) -> None:
    keys = keys_of(suite, 17, 2)
    source = random.Random(suite.code)
    sizes = [1, MAX_CONTENT, MAX_CONTENT - 15, 100]
    records = [
        (
            23 if source.random() < 0.98 else 21,
            source.randbytes(source.choice((*sizes, source.randrange(1, MAX_CONTENT)))),
        )
        for _ in range(2500)
    ]
    with pair() as (sender, receiver):
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sink = KernelSink(sender, keys)
        opened = Receiver(receiver, keys)
        received: list[Record] = []
        thread = threading.Thread(target=lambda: received.extend(opened.records()))
        thread.start()
        waits = put_all(sender, sink, records)
        close_in_order(sender, sink)
        thread.join(TIMEOUT)
    assert waits > 20
    assert opened.ended and not opened.opener.buffered
    assert len(received) == len(records) + 1
    for number, (sent, got) in enumerate(zip(records, received, strict=False)):
        assert got == sent, f"record {number}"
    assert received[-1] == (21, b"\1\0")


def test_the_kernel_takes_over_behind_queued_records() -> None:
    keys = keys_of(AES_128, 0, 7)
    with pair() as (sender, receiver):
        sealer = RecordSealer(aead, keys)
        for number in range(20):
            sealer.put(23, bytes((number,)) * 5000)
        sender.sendall(sealer.pending)
        sink = KernelSink(sender, keys.at(sealer.sequence))
        sink.put(23, b"from the kernel")
        records = Receiver(receiver, keys).records(21)
    assert records == [(23, bytes((number,)) * 5000) for number in range(20)] + [(23, b"from the kernel")]


def test_nothing_is_cut_by_a_close_in_order() -> None:
    keys = keys_of()
    for size in (1, 5000, MAX_CONTENT):
        with pair() as (sender, receiver):
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20000)
            sink = KernelSink(sender, keys)
            count = 0
            while sink.room:
                sink.put(23, bytes(size))
                count += 1
            received: list[Record] = []
            opened = Receiver(receiver, keys)
            thread = threading.Thread(target=lambda into, by: into.extend(by.records()), args=(received, opened))
            thread.start()
            while not sink.flush():
                wait_writable(sender)
            close_in_order(sender, sink)
            sender.close()
            thread.join(TIMEOUT)
        assert received == [(23, bytes(size))] * count + [(21, b"\1\0")]


def test_a_dead_socket_stays_dead() -> None:
    with pair() as (sender, receiver):
        sink = KernelSink(sender, keys_of())
        sink.put(23, b"x")
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        receiver.close()
        assert select.select([sender], [], [], TIMEOUT)[0]
        with pytest.raises(OSError) as first:
            for _ in range(3):
                sink.put(23, b"x")
        attempts: list[Callable[[], object]] = [lambda: sink.put(23, b"x"), sink.flush, lambda: sink.put(21, b"\1\0")]
        for attempt in attempts * 3:
            with pytest.raises(OSError) as again:
                attempt()
            assert again.value.errno == first.value.errno


def test_a_closing_connection_stays_in_user_space() -> None:
    with pair() as (sender, receiver):
        receiver.shutdown(socket.SHUT_WR)
        assert select.select([sender], [], [], TIMEOUT)[0]
        assert not ktls.attach_ulp(sender)
        with pytest.raises(KernelUnavailable, match="not established"):
            KernelSink(sender, keys_of())
        sender.send(b"still plain")
        assert receiver.recv(100) == b"still plain"


def test_the_kernel_goes_on_with_a_connection_that_the_other_end_has_ended() -> None:
    """The keys come behind the peer's FIN: what has to be there before it is the upper-layer protocol alone."""
    keys = keys_of()
    with pair() as (sender, receiver):
        assert ktls.attach_ulp(sender)
        sender.send(b"plain still")
        assert receiver.recv(100) == b"plain still"
        receiver.shutdown(socket.SHUT_WR)
        assert select.select([sender], [], [], TIMEOUT)[0]
        KernelSink(sender, keys).put(23, b"sealed")
        assert Receiver(receiver, keys).records(1) == [(23, b"sealed")]


def test_a_connection_that_was_reset_is_not_a_matter_of_the_kernel() -> None:
    with pair() as (sender, receiver):
        assert ktls.attach_ulp(sender)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        receiver.close()
        assert select.select([sender], [], [], TIMEOUT)[0]
        sink = KernelSink(sender, keys_of())
        with pytest.raises(OSError):
            for _ in range(2):
                sink.put(23, b"x")


def test_keys_that_the_kernel_refuses_leave_the_socket_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ktls._CIPHER, AES_128, 99)
    with pair() as (sender, receiver):
        with pytest.raises(KernelUnavailable, match="does not know TLS_AES_128_GCM_SHA256"):
            KernelSink(sender, keys_of())
        sender.send(b"still plain")
        assert receiver.recv(100) == b"still plain"


def test_change_of_keys() -> None:
    keys, fresh = keys_of(), TrafficKeys(AES_128, bytes(16), bytes(12))
    with pair() as (sender, receiver):
        sink = KernelSink(sender, keys)
        sink.put(22, b"\x18\0\0\1\0")
        opened = Receiver(receiver, keys)
        assert opened.records(1) == [(22, b"\x18\0\0\1\0")]
        if ktls.probe().rekey:
            sink.switch_keys(fresh)
            opened.opener.switch_keys(fresh)
        else:
            with pytest.raises(KernelUnavailable, match=r"6\.14"):
                sink.switch_keys(fresh)
            with pytest.raises(KernelUnavailable, match="EBUSY"):
                ktls.set_keys(sender, ktls.TLS_TX, fresh)
        sink.put(23, b"behind the change")
        assert opened.records(1) == [(23, b"behind the change")]


def test_change_of_keys_behind_a_kept_record() -> None:
    """What is kept goes out under the former keys, what comes after under the new ones."""
    keys, fresh = keys_of(), TrafficKeys(AES_128, bytes(16), bytes(12))
    with pair() as (sender, receiver):
        sink = KernelSink(sender, keys)
        count = 0
        while sink.room:
            sink.put(23, bytes(MAX_CONTENT))
            count += 1
        if not ktls.probe().rekey:
            with pytest.raises(KernelUnavailable, match=r"6\.14"):
                sink.switch_keys(fresh)
            return
        sink.switch_keys(fresh)
        opened = Receiver(receiver, keys)
        received: list[Record] = []

        def receive() -> None:
            received.extend(opened.records(count))
            opened.opener.switch_keys(fresh)
            received.extend(opened.records(1))

        thread = threading.Thread(target=receive)
        thread.start()
        while not sink.flush():
            wait_writable(sender)
        put_all(sender, sink, [(23, b"behind the change")])
        thread.join(TIMEOUT)
    assert received == [(23, bytes(MAX_CONTENT))] * count + [(23, b"behind the change")]


def test_the_system_shows_it() -> None:
    def sessions() -> int:
        lines = Path("/proc/net/tls_stat").read_text().splitlines()
        return int(dict(line.split() for line in lines)["TlsTxSw"])

    before = sessions()
    with pair() as (sender, _):
        sink = KernelSink(sender, keys_of())
        assert sink.room
        assert sessions() == before + 1
        if shutil.which("ss"):
            port = sender.getsockname()[1]
            shown = subprocess.run(
                ["ss", "-tinH", f"sport = :{port}"], capture_output=True, text=True, timeout=TIMEOUT, check=True
            ).stdout
            assert "tcp-ulp-tls" in shown and "txconf: sw" in shown and "aes-gcm-128" in shown
