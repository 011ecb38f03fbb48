"""Kernel TLS without a kernel that has it: layouts, the sink's rules over a scripted socket, errors and hints."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from tcpls.errors import ApiMisuse, KernelUnavailable, ProtocolViolation, Reason
from tcpls.kernel import ktls
from tcpls.tls.record import MAX_CONTENT
from tcpls.tls.suites import CipherSuite, TrafficKeys
from tcpls.wire import Buffer

AES_128 = CipherSuite.AES_128_GCM_SHA256
IV = bytes(range(12))


def keys_of(suite: CipherSuite = AES_128, sequence: int = 0) -> TrafficKeys:
    return TrafficKeys(suite, bytes(range(100, 100 + suite.key_size)), IV, sequence)


class ScriptedSocket:
    """A socket whose system calls fail in the order of `failures`; None is success."""

    def __init__(self, *failures: int | None, blocking: bool = False) -> None:
        self.failures = list(failures)
        self.blocking = blocking
        self.options: list[tuple[int, int, bytes]] = []
        self.records: list[tuple[int, bytes]] = []
        self.short = 0

    def _next(self) -> None:
        if self.failures and (number := self.failures.pop(0)) is not None:
            raise OSError(number, errno.errorcode[number])

    def getblocking(self) -> bool:
        return self.blocking

    def setsockopt(self, level: int, optname: int, value: bytes, /) -> None:
        self._next()
        self.options.append((level, optname, value))

    def sendmsg(self, buffers: Iterable[Buffer], ancdata: Iterable[tuple[int, int, bytes]] = (), /) -> int:
        self._next()
        control = list(ancdata)
        assert not control or control[0][:2] == (282, 1)
        data = b"".join(buffers)
        self.records.append((control[0][2][0] if control else 23, data))
        return len(data) - self.short


def test_crypto_info_of_aes_128() -> None:
    info = ktls.crypto_info(keys_of(sequence=0x0102))
    assert len(info) == 40
    assert info[:4] in (b"\x04\x03\x33\x00", b"\x03\x04\x00\x33")
    assert info[4:12] == IV[4:]
    assert info[12:28] == bytes(range(100, 116))
    assert info[28:32] == IV[:4]
    assert info[32:] == b"\0\0\0\0\0\0\1\2"


def test_crypto_info_of_aes_256() -> None:
    info = ktls.crypto_info(keys_of(CipherSuite.AES_256_GCM_SHA384, 1))
    assert len(info) == 56
    assert info[4:12] == IV[4:] and info[12:44] == bytes(range(100, 132)) and info[44:48] == IV[:4]
    assert info[48:] == (1).to_bytes(8, "big")


def test_crypto_info_of_chacha20_has_no_salt() -> None:
    info = ktls.crypto_info(keys_of(CipherSuite.CHACHA20_POLY1305_SHA256, 1))
    assert len(info) == 56
    assert info[4:16] == IV and info[16:48] == bytes(range(100, 132)) and info[48:] == (1).to_bytes(8, "big")


def test_connection_id_is_in_the_salt() -> None:
    info = ktls.crypto_info(keys_of().for_connection(0x80000001))
    assert info[28:32] == bytes((0x80, 1, 2, 3 ^ 1))
    assert info[4:12] == IV[4:]


def test_crypto_info_refuses_a_key_of_another_size() -> None:
    with pytest.raises(ApiMisuse):
        ktls.crypto_info(replace(keys_of(), key=bytes(32)))


def test_sink_sets_the_ulp_and_the_keys() -> None:
    sock = ScriptedSocket()
    sink = ktls.KernelSink(sock, keys_of(sequence=7))
    assert sock.options == [(6, 31, b"tls"), (282, 1, ktls.crypto_info(keys_of(sequence=7)))]
    assert sink.sequence == 7 and sink.room and sink.pending == 0


def test_sink_accepts_a_socket_that_has_the_ulp() -> None:
    assert ktls.KernelSink(ScriptedSocket(errno.EEXIST), keys_of()).room


def test_sink_refuses_a_blocking_socket() -> None:
    sock = ScriptedSocket(blocking=True)
    with pytest.raises(ApiMisuse):
        ktls.KernelSink(sock, keys_of())
    assert not sock.options


@pytest.mark.parametrize(
    ("failures", "feature", "words"),
    [
        ((errno.ENOENT,), "kernel TLS", "modprobe tls"),
        ((errno.ENOTCONN,), "kernel TLS", "not established"),
        ((errno.ENOPROTOOPT,), "kernel TLS", "Multipath TCP"),
        ((errno.EPERM,), "kernel TLS", "EPERM"),
        ((None, errno.ENOENT), "kernel TLS for sending", "gcm(aes)"),
        ((None, errno.EINVAL), "kernel TLS for sending", "TLS_AES_128_GCM_SHA256"),
        ((None, errno.EBUSY), "kernel TLS for sending", "6.14"),
    ],
)
def test_what_is_missing_is_told(failures: tuple[int | None, ...], feature: str, words: str) -> None:
    with pytest.raises(KernelUnavailable) as caught:
        ktls.KernelSink(ScriptedSocket(*failures), keys_of())
    assert caught.value.feature == feature
    assert words in caught.value.hint


def test_data_goes_plain_and_other_types_by_control_message() -> None:
    sock = ScriptedSocket()
    sink = ktls.KernelSink(sock, keys_of())
    sink.put(23, b"abc", memoryview(b"def"))
    sink.put(21, b"\1\0")
    assert sock.records == [(23, b"abcdef"), (21, b"\1\0")]
    assert sink.sequence == 2


@pytest.mark.parametrize(
    ("content_type", "parts"),
    [(23, ()), (23, (b"", b"")), (23, (bytes(MAX_CONTENT), b"x")), (0, (b"x",)), (256, (b"x",))],
)
def test_records_that_the_kernel_cannot_send(content_type: int, parts: tuple[bytes, ...]) -> None:
    sock = ScriptedSocket()
    sink = ktls.KernelSink(sock, keys_of())
    with pytest.raises(ApiMisuse):
        sink.put(content_type, *parts)
    assert sink.sequence == 0 and not sock.records


def test_a_full_socket_keeps_one_record() -> None:
    sock = ScriptedSocket(None, None, errno.EAGAIN, errno.EAGAIN)
    sink = ktls.KernelSink(sock, keys_of())
    data = bytearray(b"abc")
    sink.put(22, data, b"def")
    data[:] = b"xyz"
    assert not sink.room and sink.pending == 6 and sink.sequence == 1
    with pytest.raises(ApiMisuse):
        sink.put(23, b"no room")
    assert not sink.flush()
    assert sink.flush()
    assert sink.room and sink.pending == 0
    assert sock.records == [(22, b"abcdef")]


def test_the_first_error_is_latched() -> None:
    sock = ScriptedSocket(None, None, errno.EPIPE)
    sink = ktls.KernelSink(sock, keys_of())
    for attempt in (lambda: sink.put(23, b"a"), lambda: sink.put(23, b"b"), sink.flush):
        with pytest.raises(BrokenPipeError):
            attempt()
    assert not sock.records


def test_a_part_of_a_record_is_an_error() -> None:
    sock = ScriptedSocket()
    sock.short = 1
    sink = ktls.KernelSink(sock, keys_of())
    with pytest.raises(OSError, match="took 2"):
        sink.put(23, b"abc")
    with pytest.raises(OSError, match="took 2"):
        sink.flush()


def test_no_record_beyond_the_keys_limit() -> None:
    sink = ktls.KernelSink(ScriptedSocket(), keys_of(sequence=AES_128.record_limit))
    with pytest.raises(ProtocolViolation) as caught:
        sink.put(23, b"x")
    assert caught.value.reason is Reason.KEY_EXHAUSTED


@pytest.fixture
def _rekey(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(ktls, "probe", lambda: ktls.KTLSSupport(rekey=request.param))


@pytest.mark.parametrize("_rekey", [False], indirect=True)
@pytest.mark.usefixtures("_rekey")
def test_no_change_of_keys_where_the_kernel_cannot() -> None:
    sock = ScriptedSocket()
    sink = ktls.KernelSink(sock, keys_of())
    with pytest.raises(KernelUnavailable, match=r"6\.14"):
        sink.switch_keys(keys_of())
    assert len(sock.options) == 2 and not sink.can_switch_keys


@pytest.mark.parametrize("_rekey", [True], indirect=True)
@pytest.mark.usefixtures("_rekey")
def test_a_change_of_keys_waits_for_the_kept_record() -> None:
    sock = ScriptedSocket(None, None, errno.EAGAIN)
    sink = ktls.KernelSink(sock, keys_of(sequence=5))
    sink.put(22, b"key update")
    sink.switch_keys(keys_of())
    assert len(sock.options) == 2 and sink.sequence == 0
    assert sink.flush()
    assert len(sock.options) == 3
    sink.switch_keys(keys_of(sequence=3))
    assert sock.options[3] == (282, 1, ktls.crypto_info(keys_of(sequence=3)))


@pytest.mark.parametrize("_rekey", [True], indirect=True)
@pytest.mark.usefixtures("_rekey")
def test_a_failed_change_of_keys_is_final() -> None:
    sock = ScriptedSocket(None, None, errno.EINVAL)
    sink = ktls.KernelSink(sock, keys_of())
    with pytest.raises(OSError, match="EINVAL"):
        sink.switch_keys(keys_of())
    with pytest.raises(OSError, match="EINVAL"):
        sink.put(23, b"x")
    with pytest.raises(ApiMisuse):
        sink.switch_keys(keys_of(CipherSuite.AES_256_GCM_SHA384))


def test_probe_answers_without_raising() -> None:
    support = ktls.probe()
    assert support is ktls.probe()
    assert bool(support.reason) == (support.transmit != set(CipherSuite) or support.receive != set(CipherSuite))
    assert "\n" not in support.reason


def crypto_entry(driver: str, priority: int, name: str = "gcm(aes)", internal: str = "no") -> str:
    return f"name         : {name}\ndriver       : {driver}\npriority     : {priority}\ninternal     : {internal}\n"


@pytest.mark.parametrize(
    ("drivers", "best", "accelerated"),
    [
        ((("generic-gcm-aesni", 400), ("gcm_base(ctr(aes-generic),ghash-generic)", 100)), "generic-gcm-aesni", True),
        ((("gcm_base(ctr(aes-generic),ghash-generic)", 100),), "gcm_base(ctr(aes-generic),ghash-generic)", False),
        ((("generic-gcm-vaes-avx10_512", 800), ("generic-gcm-aesni", 400)), "generic-gcm-vaes-avx10_512", True),
        ((("gcm-aes-ce", 300),), "gcm-aes-ce", True),
        ((), "", False),
    ],
)
def test_acceleration(tmp_path: Path, drivers: tuple[tuple[str, int], ...], best: str, accelerated: bool) -> None:
    entries = [crypto_entry(*driver) for driver in drivers]
    entries += [crypto_entry("ecb-aesni", 9000, "ecb(aes)"), crypto_entry("__gcm-aesni", 9000, internal="yes")]
    (tmp_path / "crypto").write_text("\n".join(entries))
    assert ktls.check_accelerated(tmp_path / "crypto") == ktls.Acceleration(best, accelerated)


def test_acceleration_without_proc(tmp_path: Path) -> None:
    assert ktls.check_accelerated(tmp_path / "absent") == ktls.Acceleration("", False)


def test_a_run_is_one_call_a_record_and_stops_at_a_full_socket() -> None:
    sock = ScriptedSocket(None, None, None, None, errno.EAGAIN)
    sink = ktls.KernelSink(sock, keys_of())
    size = (1 << 14) - 1
    parts = [bytes([letter]) * size for letter in b"abcd"]
    assert sink.put_run(23, memoryview(b"".join(parts)), [b"1", b"2", b"3", b"4"]) == 3, "the third is kept"
    assert sock.records == [(23, parts[0] + b"1"), (23, parts[1] + b"2")]
    assert sink.flush()
    assert sock.records[-1] == (23, parts[2] + b"3")


def test_records_are_no_longer_than_the_peer_takes() -> None:
    """RFC 8449: the kernel makes one record of each call, so that the calls are what has to be short."""
    sock = ScriptedSocket(None, None, None, None, None)
    sink = ktls.KernelSink(sock, keys_of(), 100)
    with pytest.raises(ApiMisuse):
        sink.put(23, bytes(101))
    sink.put(23, bytes(100))
    assert sink.put_run(23, memoryview(bytes(198)), [b"1", b"2"]) == 2
    assert [len(record) for _, record in sock.records] == [100, 100, 100]
