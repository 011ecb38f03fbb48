"""TCP options that one end may ask of the other: a registry of portable names, and what local policy allows.

The ids, types and ranges are those of docs/wire-format.md; how a name becomes a call into the kernel is the business
of kernel/sockopts.py. A value is an int, or a str: the name of a congestion controller, or for `raw`
"level:option:hex".
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction

from tcpls.errors import ApiMisuse, ConfigurationError, PeerError, Reason
from tcpls.protocol.actions import ApplyOption
from tcpls.protocol.events import OptionAnswered, OptionStatus
from tcpls.protocol.frames import ALL_CONNECTIONS, MAX_OPTION_VALUE, Frame, TcpOption, TcpOptionResult
from tcpls.protocol.ranges import RangeSet

EINVAL = 22
"""Portable: the number that a result carries for a value outside the registry's range."""

MAX_ID_GAPS = 64
"""Requests are numbered in sequence, so their ids have no gaps but for what is still on its way."""

OptionValue = int | str


class Kind(enum.Enum):
    """The unit in which a value travels, and the unit that a bare number on a command line has."""

    NUMBER = ""
    MILLISECONDS = "ms"
    SECONDS = "s"
    BYTES = "bytes"
    RATE = "bytes/s"
    NAME = "name"
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class TcpOptionKind:
    """One entry of the registry. `least` and `most` bound an integer, or the length of a name."""

    option_id: int
    name: str
    kind: Kind
    least: int
    most: int


REGISTRY: tuple[TcpOptionKind, ...] = (
    TcpOptionKind(1, "user_timeout", Kind.MILLISECONDS, 0, 3_600_000),
    TcpOptionKind(2, "congestion", Kind.NAME, 1, 15),
    TcpOptionKind(3, "keepalive_idle", Kind.SECONDS, 1, 32_767),
    TcpOptionKind(4, "keepalive_interval", Kind.SECONDS, 1, 32_767),
    TcpOptionKind(5, "keepalive_count", Kind.NUMBER, 1, 127),
    TcpOptionKind(6, "no_delay", Kind.NUMBER, 0, 1),
    TcpOptionKind(7, "quick_ack", Kind.NUMBER, 0, 1),
    TcpOptionKind(8, "not_sent_lowat", Kind.BYTES, 0, 0xFFFFFFFF),
    TcpOptionKind(9, "window_clamp", Kind.BYTES, 0, 1 << 30),
    TcpOptionKind(10, "max_pacing_rate", Kind.RATE, 0, (1 << 64) - 1),
    TcpOptionKind(11, "send_buffer", Kind.BYTES, 1, 1 << 30),
    TcpOptionKind(12, "receive_buffer", Kind.BYTES, 1, 1 << 30),
    TcpOptionKind(13, "linger2", Kind.SECONDS, 0, 120),
    TcpOptionKind(14, "traffic_class", Kind.NUMBER, 0, 255),
    TcpOptionKind(15, "priority", Kind.NUMBER, 0, 6),
    TcpOptionKind(16, "maximum_segment_size", Kind.BYTES, 88, 65_535),
    TcpOptionKind(17, "raw", Kind.RAW, 0, MAX_OPTION_VALUE - 8),
)
BY_NAME = {option.name: option for option in REGISTRY}
BY_ID = {option.option_id: option for option in REGISTRY}

_CONGESTION_NAME = re.compile(r"[a-z0-9_-]{1,15}")
_RAW = re.compile(r"([0-9]{1,9}):([0-9]{1,9}):((?:[0-9a-f]{2})*)")


def check_value(option: TcpOptionKind, value: OptionValue) -> str | None:
    """Why the registry does not allow the value, or None."""
    if option.kind is Kind.NAME:
        if not isinstance(value, str) or not _CONGESTION_NAME.fullmatch(value):
            return "a name is 1 to 15 of a-z, 0-9, - and _"
    elif option.kind is Kind.RAW:
        if not isinstance(value, str) or not _RAW.fullmatch(value) or len(value.split(":")[2]) > 2 * option.most:
            return "a raw option is level:option:hexadecimal value"
    elif not isinstance(value, int) or not option.least <= value <= option.most:
        return f"the value must be {option.least} to {option.most}"
    return None


def encode_value(option: TcpOptionKind, value: OptionValue) -> bytes:
    """The value as it stands in a frame. The caller has checked it."""
    if option.kind is Kind.NAME:
        return str(value).encode("ascii")
    if option.kind is Kind.RAW:
        level, number, data = str(value).split(":")
        return int(level).to_bytes(4, "big") + int(number).to_bytes(4, "big") + bytes.fromhex(data)
    return int(value).to_bytes(8, "big")


def decode_value(option: TcpOptionKind, data: bytes) -> OptionValue:
    """Raises `PeerError` when the bytes are not of the option's form; the range is not checked."""
    if option.kind is Kind.NAME:
        try:
            return data.decode("ascii")
        except UnicodeDecodeError:
            raise PeerError(Reason.BAD_VALUE, f"{option.name} is not ASCII") from None
    if option.kind is Kind.RAW:
        if len(data) < 8:
            raise PeerError(Reason.BAD_LENGTH, option.name)
        level, number = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
        return f"{level}:{number}:{data[8:].hex()}"
    if len(data) != 8:
        raise PeerError(Reason.BAD_LENGTH, option.name)
    return int.from_bytes(data, "big")


_TIME_UNITS = {"ms": 1, "s": 1000, "min": 60_000}
_SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?)([a-z]*)")


def parse_option(text: str) -> tuple[str, OptionValue]:
    """`name=value` of a command line, such as ``user_timeout=250ms``. Raises `ConfigurationError`."""
    name, separator, written = text.partition("=")
    name = name.strip().replace("-", "_")
    written = written.strip()
    option = BY_NAME.get(name)
    if option is None:
        raise ConfigurationError(f"{name!r} is not a TCP option; there are {', '.join(BY_NAME)}")
    if not separator or not written:
        raise ConfigurationError(f"{name} needs a value: {name}=VALUE")
    value: OptionValue = written if option.kind in (Kind.NAME, Kind.RAW) else _parse_number(option, written.lower())
    refused = check_value(option, value)
    if refused:
        raise ConfigurationError(f"{name}={written}: {refused}")
    return name, value


def _parse_number(option: TcpOptionKind, written: str) -> int:
    if option.most == 1 and written in ("on", "off"):
        return int(written == "on")
    match = _NUMBER.fullmatch(written)
    if match is None:
        raise ConfigurationError(f"{option.name}={written}: this is not a number")
    number, unit = match.groups()
    if option.kind in (Kind.MILLISECONDS, Kind.SECONDS):
        units: dict[str, int] = _TIME_UNITS | {"": _TIME_UNITS[option.kind.value]}
        divisor = _TIME_UNITS[option.kind.value]
    else:
        units = _SIZE_UNITS if option.kind in (Kind.BYTES, Kind.RATE) else {"": 1}
        divisor = 1
    if unit not in units:
        known = ", ".join(filter(None, units)) or "none"
        raise ConfigurationError(f"{option.name}={written}: the unit {unit!r} is not known here ({known})")
    value = Fraction(number) * units[unit] / divisor
    if value.denominator != 1:
        raise ConfigurationError(f"{option.name}={written}: not a whole number of {option.kind.value or 'units'}")
    return value.numerator


DEFAULT_ALLOWED = frozenset(
    {
        "user_timeout",
        "keepalive_idle",
        "keepalive_interval",
        "keepalive_count",
        "no_delay",
        "quick_ack",
        "not_sent_lowat",
        "congestion",
    }
)
"""What costs nobody but the connection itself. Buffers, rates, marks and raw options are left to the operator."""
DEFAULT_CONGESTION = frozenset({"cubic", "reno", "bbr", "vegas", "westwood", "htcp", "hybla", "illinois", "yeah"})


@dataclass(frozen=True, slots=True)
class OptionPolicy:
    """Which options the peer may ask for, by name; which congestion controllers; which raw ones as (level, option)."""

    allowed: frozenset[str] = DEFAULT_ALLOWED
    congestion: frozenset[str] = DEFAULT_CONGESTION
    raw: frozenset[tuple[int, int]] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        unknown = sorted(self.allowed - BY_NAME.keys())
        if unknown:
            raise ConfigurationError(f"not a TCP option: {', '.join(unknown)}")

    @property
    def announced(self) -> tuple[int, ...]:
        """The ids for `Parameters.options`."""
        return tuple(option.option_id for option in REGISTRY if option.name in self.allowed)

    def allows(self, option: TcpOptionKind, value: OptionValue) -> bool:
        if option.name not in self.allowed:
            return False
        if option.kind is Kind.NAME:
            return value in self.congestion
        if option.kind is Kind.RAW:
            level, number, _ = str(value).split(":")
            return (int(level), int(number)) in self.raw
        return True


class OptionExchange:
    """The open requests of a session in both directions."""

    def __init__(
        self,
        policy: OptionPolicy,
        most_open: int,
        queue: Callable[[Frame], None],
        answer: Callable[[OptionAnswered], None],
        apply: Callable[[ApplyOption], None],
    ) -> None:
        self._policy = policy
        self._most_open = most_open
        self._queue = queue
        self._answer = answer
        self._apply = apply
        self._next_request = 0
        self._asked: dict[int, TcpOptionKind] = {}
        self._open: dict[int, TcpOptionKind] = {}
        self._seen = RangeSet()
        """The ids of the peer's requests so far: what went with a connection comes again, and is to count once."""

    def request(self, name: str, value: OptionValue, connection_id: int | None, offered: Iterable[int]) -> int:
        """Asks the peer, which has announced the ids `offered`. Raises `ApiMisuse`."""
        option = BY_NAME.get(name)
        refused = f"{name!r} is not a TCP option" if option is None else check_value(option, value)
        if option is None or refused:
            raise ApiMisuse(f"{name}: {refused}")
        if len(self._asked) >= self._most_open:
            raise ApiMisuse(f"{self._most_open} option requests are open already")
        request_id = self._next_request
        self._next_request += 1
        if option.option_id not in offered:
            self._answer(OptionAnswered(request_id, name, OptionStatus.REFUSED, None, 0))
            return request_id
        self._asked[request_id] = option
        target = ALL_CONNECTIONS if connection_id is None else connection_id
        self._queue(TcpOption(request_id, target, option.option_id, encode_value(option, value)))
        return request_id

    def receive_request(self, frame: TcpOption) -> None:
        """Raises `PeerError`: BAD_VALUE, BAD_LENGTH, TOO_MANY_REQUESTS."""
        if self._seen.contains(frame.request_id):
            return
        self._seen.add(frame.request_id, frame.request_id + 1)
        if len(self._seen) > MAX_ID_GAPS:
            raise PeerError(Reason.TOO_MANY_REQUESTS, "ids of option requests that leave many out")
        option = BY_ID.get(frame.option_id)
        if option is None:
            self._queue(TcpOptionResult(frame.request_id, OptionStatus.UNSUPPORTED, 0, b""))
            return
        value = decode_value(option, frame.value)
        if check_value(option, value):
            self._queue(TcpOptionResult(frame.request_id, OptionStatus.REFUSED, EINVAL, b""))
        elif not self._policy.allows(option, value):
            self._queue(TcpOptionResult(frame.request_id, OptionStatus.REFUSED, 0, b""))
        elif len(self._open) >= self._most_open:
            raise PeerError(Reason.TOO_MANY_REQUESTS, "TCP options")
        else:
            self._open[frame.request_id] = option
            target = None if frame.connection_id == ALL_CONNECTIONS else frame.connection_id
            self._apply(ApplyOption(frame.request_id, target, option.name, value))

    def result(self, request_id: int, status: OptionStatus, value: OptionValue | None, errno: int) -> None:
        """The shell's answer to `ApplyOption`. Raises `ApiMisuse`."""
        option = self._open.pop(request_id, None)
        if option is None:
            raise ApiMisuse(f"the option request {request_id} is not open")
        read_back = b"" if value is None else encode_value(option, value)
        self._queue(TcpOptionResult(request_id, status, errno, read_back))

    def receive_result(self, frame: TcpOptionResult) -> None:
        """Raises `PeerError`: BAD_VALUE for an answer to nothing, or BAD_LENGTH."""
        option = self._asked.pop(frame.request_id, None)
        if option is None:
            if frame.request_id < self._next_request:
                return  # The answer comes again, because a connection took an acknowledgment with it.
            raise PeerError(Reason.BAD_VALUE, f"an answer to the option request {frame.request_id}")
        value = decode_value(option, frame.value) if frame.value else None
        self._answer(OptionAnswered(frame.request_id, option.name, frame.status, value, frame.errno))
