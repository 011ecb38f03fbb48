"""Certificate compression (RFC 8879): the codecs, the extension and the message, read and written side by side."""

from __future__ import annotations

import enum
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from tcpls.errors import ConfigurationError, HandshakeError, Reason
from tcpls.tls.messages import HEADER_SIZE, MAX_MESSAGE, HandshakeType, frame
from tcpls.wire import Buffer, Reader, Writer


class CertificateCompression(enum.IntEnum):
    """RFC 8879 7.3."""

    ZLIB = 1
    BROTLI = 2
    ZSTD = 3

    @property
    def label(self) -> str:
        return self.name.lower()


DEFAULT_COMPRESSIONS = (CertificateCompression.BROTLI, CertificateCompression.ZSTD, CertificateCompression.ZLIB)
"""Where their packages are installed; the one that makes certificates smallest first."""

KEPT = 64
"""Messages whose compressed form is kept: a server sends few different ones, and sends them often."""

LEAST_GAIN = 10
"""A message is compressed if that saves a tenth of it: a single small certificate loses a few bytes, and takes as
long to expand as half a signature takes to make. RFC 8879 section 4 leaves it to the sender."""

_ZSTD_WINDOW_LOG = 23
"""RFC 8878 3.1.1.1.2: eight megabytes are what every decoder should support, and no more is needed here."""


@dataclass(frozen=True, slots=True)
class Codec:
    """`expand(data, size)`: the whole of `data` expanded, which has `size` bytes; None if it is anything else.

    It stops as soon as there is more: what it holds is bounded by `size` and by a block or window of the library's own.
    """

    compress: Callable[[bytes], bytes]
    expand: Callable[[bytes, int], bytes | None]


def _expand_zlib(data: bytes, size: int) -> bytes | None:
    stream = zlib.decompressobj()
    try:
        expanded = stream.decompress(data, size + 1)
    except zlib.error:
        return None
    return expanded if stream.eof and not stream.unused_data and len(expanded) == size else None


def _zlib() -> Codec:
    return Codec(lambda data: zlib.compress(data, 9), _expand_zlib)


def _brotli() -> Codec:
    import brotli

    def expand(data: bytes, size: int) -> bytes | None:
        stream = brotli.Decompressor()
        try:
            # What follows the end of the stream is an error of its own.
            expanded: bytes = stream.process(data, output_buffer_limit=size + 1)
            while len(expanded) <= size and not stream.is_finished() and not stream.can_accept_more_data():
                expanded += stream.process(b"", output_buffer_limit=size + 1 - len(expanded))
        except brotli.error:
            return None
        return expanded if stream.is_finished() and len(expanded) == size else None

    return Codec(brotli.compress, expand)


def _zstd() -> Codec:
    from backports import zstd

    options = {int(zstd.DecompressionParameter.window_log_max): _ZSTD_WINDOW_LOG}

    def expand(data: bytes, size: int) -> bytes | None:
        stream = zstd.ZstdDecompressor(options=options)
        try:
            expanded = stream.decompress(data, size + 1)
        except zstd.ZstdError:
            return None
        return expanded if stream.eof and not stream.unused_data and len(expanded) == size else None

    return Codec(lambda data: zstd.compress(data, 19), expand)


_CODECS: dict[CertificateCompression, Callable[[], Codec]] = {
    CertificateCompression.ZLIB: _zlib,
    CertificateCompression.BROTLI: _brotli,
    CertificateCompression.ZSTD: _zstd,
}


@cache
def _codec(algorithm: CertificateCompression) -> Codec | None:
    """None when its package is not installed."""
    try:
        return _CODECS[algorithm]()
    except ImportError:
        return None


def usable_compressions(wanted: Sequence[CertificateCompression]) -> tuple[CertificateCompression, ...]:
    """The default stands for as much of itself as there is; what was asked for must be there (`ConfigurationError`)."""
    there = tuple(algorithm for algorithm in wanted if _codec(algorithm) is not None)
    if tuple(wanted) != DEFAULT_COMPRESSIONS and there != tuple(wanted):
        missing = next(algorithm for algorithm in wanted if algorithm not in there)
        raise ConfigurationError(
            f"compression of certificates by {missing.label} needs its package: pip install 'tcpls[compress]'"
        )
    return there


@lru_cache(maxsize=KEPT)
def compress(algorithm: CertificateCompression, message: bytes) -> bytes:
    """A Certificate message, with its header, compressed if that is worth it."""
    codec, body = _codec(algorithm), message[HEADER_SIZE:]
    if codec is None:
        return message
    compressed = CompressedCertificate(algorithm, len(body), codec.compress(body)).write()
    return compressed if len(compressed) <= len(message) - len(message) // LEAST_GAIN else message


@dataclass(frozen=True, slots=True)
class CompressedCertificate:
    """RFC 8879 section 4."""

    algorithm: int
    size: int
    data: bytes

    @classmethod
    def read(cls, reader: Reader) -> CompressedCertificate:
        algorithm = reader.u16()
        size = reader.u24()
        data = reader.opaque(3, least=1)
        reader.end()
        return cls(algorithm, size, data)

    def write(self) -> bytes:
        writer = Writer()
        writer.u16(self.algorithm)
        writer.u24(self.size)
        writer.opaque(3, self.data)
        return frame(HandshakeType.COMPRESSED_CERTIFICATE, writer.bytes())

    def expand(self, offered: Collection[int]) -> bytes:
        """The body of the Certificate."""
        # RFC 8879 section 4: an algorithm that was not offered is an illegal_parameter.
        if self.algorithm not in offered:
            raise HandshakeError(Reason.ILLEGAL_CHOICE, f"compression {self.algorithm}")
        codec = _codec(CertificateCompression(self.algorithm))
        # RFC 8879 section 5: memory is bounded before anything is expanded, by what a Certificate may have here.
        if codec is None or self.size > MAX_MESSAGE:
            raise HandshakeError(Reason.BAD_COMPRESSION, f"a certificate of {self.size} bytes")
        expanded = codec.expand(self.data, self.size)
        # RFC 8879 section 4: what cannot be decompressed, or has another length, is a bad_certificate.
        if expanded is None:
            raise HandshakeError(Reason.BAD_COMPRESSION)
        return expanded


def read_compressions(contents: Buffer) -> tuple[int, ...]:
    """The extension compress_certificate (RFC 8879 section 3): known and unknown algorithms."""
    reader = Reader(contents)
    algorithms = reader.u16s(1, least=2, most=254)
    reader.end()
    return algorithms


def write_compressions(algorithms: Sequence[int]) -> bytes:
    return bytes((2 * len(algorithms),)) + b"".join(algorithm.to_bytes(2, "big") for algorithm in algorithms)
