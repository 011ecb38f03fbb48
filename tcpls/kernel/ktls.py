"""TLS records in the kernel (kTLS): what this kernel can do, and a record sink that gives it the plaintext.

Sending is exact: one non-blocking ``sendmsg`` of at most `MAX_CONTENT` bytes is one record, all of it or nothing, in
any number of pieces. Layouts and numbers are those of Linux's ``include/uapi/linux/tls.h``.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from tcpls.errors import ApiMisuse, KernelUnavailable, ProtocolViolation, Reason
from tcpls.tls.record import MAX_CONTENT, ContentType
from tcpls.tls.suites import IV_SIZE, CipherSuite, TrafficKeys
from tcpls.wire import Buffer

SOL_TCP = 6
TCP_ULP = 31
SOL_TLS = 282
TLS_TX = 1
TLS_RX = 2
# Option 4, TLS_RX_EXPECT_NO_PAD, is left out on purpose: it corrupts data on many kernels when a peer pads.
TLS_SET_RECORD_TYPE = 1
TLS_1_3_VERSION = 0x0304

_CIPHER = {
    CipherSuite.AES_128_GCM_SHA256: 51,
    CipherSuite.AES_256_GCM_SHA384: 52,
    CipherSuite.CHACHA20_POLY1305_SHA256: 54,
}
_AEAD = {
    CipherSuite.AES_128_GCM_SHA256: "gcm(aes)",
    CipherSuite.AES_256_GCM_SHA384: "gcm(aes)",
    CipherSuite.CHACHA20_POLY1305_SHA256: "rfc7539(chacha20,poly1305)",
}
GCM_SALT_SIZE = 4

REKEY_HINT = "needs Linux 6.14 or newer; until then only a fresh connection has fresh keys"


def crypto_info(keys: TrafficKeys) -> bytes:
    """The kernel's ``struct tls12_crypto_info_*`` for `keys`, whose IV has the connection id folded in already.

    The kernel's nonce is (salt || iv) XOR (0^4 || sequence), so the salt is simply the first part of the static IV.
    """
    if len(keys.key) != keys.suite.key_size or len(keys.iv) != IV_SIZE:
        raise ApiMisuse(f"key or IV of the wrong size for {keys.suite.label}")
    head = struct.pack("=HH", TLS_1_3_VERSION, _CIPHER[keys.suite])
    sequence = keys.sequence.to_bytes(8, "big")
    if keys.suite is CipherSuite.CHACHA20_POLY1305_SHA256:
        return head + keys.iv + keys.key + sequence
    return head + keys.iv[GCM_SALT_SIZE:] + keys.key + keys.iv[:GCM_SALT_SIZE] + sequence


class KernelSocket(Protocol):
    """What is used of a connected TCP socket."""

    def getblocking(self) -> bool: ...

    def setsockopt(self, level: int, optname: int, value: bytes, /) -> None: ...

    def sendmsg(self, buffers: Iterable[Buffer], ancdata: Iterable[tuple[int, int, bytes]] = ..., /) -> int: ...


# Errors of the two steps. What is not listed is told by its own name.
_ULP_HINT = {
    errno.ENOENT: "the kernel has no TLS: load its module on the host (modprobe tls), or use a kernel with CONFIG_TLS",
    errno.ENOPROTOOPT: "this kind of socket cannot have it (Multipath TCP cannot)",
    errno.EOPNOTSUPP: "this is not a TCP socket",
}
_KEYS_HINT = {
    errno.ENOENT: "the kernel lacks the cipher {aead}: load its module on the host",
    errno.ENOPROTOOPT: "another upper-layer protocol has the socket",
    errno.EINVAL: "the kernel does not know {suite}, or the other direction uses another suite",
    errno.EBUSY: "keys are set already, and a change of keys " + REKEY_HINT,
}


def _named(error: OSError) -> str:
    return f"{errno.errorcode.get(error.errno or 0, 'error')}: {error.strerror}"


def attach_ulp(sock: KernelSocket) -> bool:
    """Puts kernel TLS under `sock`, whose bytes stay plain until keys are set. Raises `KernelUnavailable`.

    False: the connection is not established, or not any more, which says nothing about the kernel. Linux begins with
    no connection whose other end has sent its FIN, but takes keys whenever they come: best done as soon as it is made.
    """
    try:
        sock.setsockopt(SOL_TCP, TCP_ULP, b"tls")
    except OSError as error:
        if error.errno == errno.EEXIST:
            return True
        if error.errno == errno.ENOTCONN:
            return False
        hint = _ULP_HINT.get(error.errno or 0, "the kernel refuses")
        raise KernelUnavailable("kernel TLS", f"{hint} ({_named(error)})") from error
    return True


def set_keys(sock: KernelSocket, direction: int, keys: TrafficKeys) -> None:
    """Gives the kernel the keys of one direction (`TLS_TX` or `TLS_RX`). Raises `KernelUnavailable`."""
    try:
        sock.setsockopt(SOL_TLS, direction, crypto_info(keys))
    except OSError as error:
        hint = _KEYS_HINT.get(error.errno or 0, "the kernel refuses the keys")
        hint = hint.format(aead=_AEAD[keys.suite], suite=keys.suite.label)
        way = "sending" if direction == TLS_TX else "receiving"
        raise KernelUnavailable(f"kernel TLS for {way}", f"{hint} ({_named(error)})") from error


@dataclass(frozen=True, slots=True)
class KTLSSupport:
    """What the running kernel can do. `reason` is empty when every suite can be sent and received."""

    transmit: frozenset[CipherSuite] = frozenset()
    receive: frozenset[CipherSuite] = frozenset()
    rekey: bool = False
    reason: str = ""


def _connected_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of one TCP connection on the loopback, IPv4 or else IPv6."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.create_server((address, 0), family=family, backlog=1) as listener:
                client = socket.create_connection(listener.getsockname()[:2], timeout=5)
                server, _ = listener.accept()
                return client, server
        except OSError as error:
            failure = error
    raise failure


def _can_set(sock: socket.socket, direction: int, keys: TrafficKeys) -> str:
    try:
        set_keys(sock, direction, keys)
    except KernelUnavailable as error:
        return error.hint
    return ""


@cache
def probe() -> KTLSSupport:
    """Tries every suite in both directions, and a second key, on sockets of its own. The answer is kept.

    The first use may load modules (seconds): call it before an event loop runs, not in it.
    """
    transmit, receive = set(), set()
    rekey = False
    reason = ""
    for suite in CipherSuite:
        keys = TrafficKeys(suite, bytes(suite.key_size), bytes(IV_SIZE))
        try:
            client, server = _connected_pair()
        except OSError as error:
            return KTLSSupport(reason=f"no loopback connection to try it on ({_named(error)})")
        with client, server:
            try:
                attach_ulp(client)
            except KernelUnavailable as unavailable:
                return KTLSSupport(reason=unavailable.hint)
            if failure := _can_set(client, TLS_TX, keys):
                reason = reason or failure
            else:
                transmit.add(suite)
                rekey = rekey or not _can_set(client, TLS_TX, keys.at(1))
            if failure := _can_set(client, TLS_RX, keys):
                reason = reason or failure
            else:
                receive.add(suite)
    return KTLSSupport(frozenset(transmit), frozenset(receive), rekey, reason)


@dataclass(frozen=True, slots=True)
class Acceleration:
    """The kernel's preferred AES-GCM. `driver` is empty while the kernel has not set one up."""

    driver: str
    accelerated: bool


_FAST_MARKS = ("aesni", "vaes", "avx", "pclmul", "-ce", "neon", "s390", "vsx", "p10", "riscv64", "qat", "ccp")


def check_accelerated(path: Path = Path("/proc/crypto")) -> Acceleration:
    """Whether the kernel computes AES-GCM with the processor's instructions for it.

    Without them it is several times slower than user space, and says nothing.
    """
    try:
        text = path.read_text()
    except OSError:
        return Acceleration("", False)
    best, driver = -1, ""
    for entry in text.split("\n\n"):
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in entry.splitlines())}
        if fields.get("name") != "gcm(aes)" or fields.get("internal") == "yes":
            continue
        priority = int(fields.get("priority", "0"))
        if priority > best:
            best, driver = priority, fields.get("driver", "")
    return Acceleration(driver, any(mark in driver for mark in _FAST_MARKS))


_DATA = int(ContentType.APPLICATION_DATA)


class KernelSink:
    """A `RecordSink` whose records the kernel protects: each `put` is one ``sendmsg`` of plaintext.

    When the socket is full, the one record that did not fit is copied and kept; `room` is False until `flush` got it
    out, which is to be called when the socket is writable. To close without cutting the last record: put the
    close_notify, `flush` until nothing is `pending`, wait until the socket is writable, shut down, and only then close.
    """

    __slots__ = (
        "_error",
        "_kept",
        "_kept_type",
        "_limit",
        "_next_keys",
        "_socket",
        "_suite",
        "max_content",
        "sequence",
    )

    def __init__(self, sock: KernelSocket, keys: TrafficKeys, max_content: int = MAX_CONTENT) -> None:
        """Hands the sending direction of `sock`, connected and non-blocking, to the kernel.

        `max_content`: what the peer takes in a record. All that user space sealed must have been sent whole before.
        Raises `KernelUnavailable`; the socket can then be used from user space as before.
        """
        if sock.getblocking():
            # A blocking send that a signal interrupts loses records on some kernels.
            raise ApiMisuse("kernel TLS needs a non-blocking socket")
        if not attach_ulp(sock):
            raise KernelUnavailable("kernel TLS", "the connection is not established any more")
        set_keys(sock, TLS_TX, keys)
        self.max_content = max_content
        self._socket = sock
        self._suite = keys.suite
        self._limit = keys.suite.record_limit
        self._kept: bytes = b""
        self._kept_type = 0
        self._next_keys: TrafficKeys | None = None
        self._error: OSError | None = None
        self.sequence = keys.sequence

    @property
    def room(self) -> bool:
        return not self._kept

    @property
    def pending(self) -> int:
        """Bytes of plaintext that the kernel has not taken yet."""
        return len(self._kept)

    @property
    def can_switch_keys(self) -> bool:
        """Whether `switch_keys` works on this kernel: to be asked before a KeyUpdate is sent."""
        return probe().rekey

    def put(self, content_type: int, *parts: Buffer) -> None:
        """Makes one record. Raises the socket's `OSError`, and that same error on every call after it."""
        if self._error is not None:
            raise self._error
        if self._kept:
            raise ApiMisuse("a record was put while there is no room")
        size = sum(map(len, parts))
        if not 0 < size <= self.max_content:
            # The kernel sends nothing at all for an empty record, and two records for a longer one.
            raise ApiMisuse(f"a record of {size} bytes cannot be sent by the kernel")
        if not 0 < content_type < 256:
            raise ApiMisuse(f"{content_type} is not a content type")
        if self.sequence >= self._limit:
            # RFC 8446 5.5, as in user space.
            raise ProtocolViolation(Reason.KEY_EXHAUSTED)
        if not self._send(content_type, parts, size):
            self._kept = b"".join(parts)
            self._kept_type = content_type
        self.sequence += 1

    def put_run(self, content_type: int, data: memoryview, trailers: Sequence[bytes]) -> int:
        """One ``sendmsg`` a record: the kernel keeps only its own records apart, not ours."""
        count, size = 0, self.max_content - len(trailers[0])
        for trailer in trailers:
            if self._kept:
                break
            self.put(content_type, data[count * size : (count + 1) * size], trailer)
            count += 1
        return count

    def flush(self) -> bool:
        """Tries to hand over what is kept; True when nothing is pending. Raises the socket's `OSError`."""
        if self._error is not None:
            raise self._error
        if self._kept:
            if not self._send(self._kept_type, (self._kept,), len(self._kept)):
                return False
            self._kept = b""
            if self._next_keys is not None:
                keys, self._next_keys = self._next_keys, None
                self._rekey(keys)
        return True

    def switch_keys(self, keys: TrafficKeys) -> None:
        """Protects what is put from now on with `keys`, a kept record still with the former ones.

        Raises `KernelUnavailable` where the kernel cannot change keys; the former ones then stay in use.
        """
        if keys.suite is not self._suite:
            raise ApiMisuse("the cipher suite of a connection does not change")
        if not self.can_switch_keys:
            raise KernelUnavailable("a change of keys in kernel TLS", REKEY_HINT)
        if self._kept:
            self._next_keys = keys
        else:
            self._rekey(keys)
        self.sequence = keys.sequence

    def _rekey(self, keys: TrafficKeys) -> None:
        try:
            self._socket.setsockopt(SOL_TLS, TLS_TX, crypto_info(keys))
        except OSError as error:
            # The peer awaits the new keys already: nothing more can be sent to it.
            self._error = error
            raise

    def _send(self, content_type: int, parts: Iterable[Buffer], size: int) -> bool:
        """One record to the kernel: False when the socket is full. Any other failure is final."""
        try:
            if content_type == _DATA:
                sent = self._socket.sendmsg(parts)
            else:
                sent = self._socket.sendmsg(parts, [(SOL_TLS, TLS_SET_RECORD_TYPE, bytes((content_type,)))])
            if sent != size:
                raise OSError(errno.EIO, f"the kernel took {sent} of a record's {size} bytes")
        except BlockingIOError:
            return False
        except OSError as error:
            # Kept for ever: a later send on a dead kernel TLS socket reports success.
            self._error = error
            raise
        return True
