"""Errors as programs of asyncio expect them: what ends a connection is an `OSError`."""

from __future__ import annotations

import errno

from tcpls.errors import ConnectError, TCPLSError

_BY_NUMBER: dict[int, type[ConnectionError]] = {
    errno.ECONNREFUSED: ConnectionRefusedError,
    errno.ECONNABORTED: ConnectionAbortedError,
    errno.EPIPE: BrokenPipeError,
}


_made: dict[tuple[type[TCPLSError], type[ConnectionError]], type[ConnectionError]] = {}


def _both(kind: type[TCPLSError], base: type[ConnectionError]) -> type[ConnectionError]:
    if (kind, base) not in _made:
        names = {"__doc__": kind.__doc__, "__module__": kind.__module__}
        _made[kind, base] = type(kind.__name__, (kind, base), names)
    return _made[kind, base]


def as_connection_error(error: TCPLSError) -> ConnectionError:
    """The same error, with all that it says, which is a `ConnectionError` besides.

    `ConnectionResetError`, or what fits the number that the kernel gave. So a program catches it by either name:
    ``except ConnectionResetError``, or ``except tcpls.StreamReset as reset`` to see the code.
    """
    if isinstance(error, ConnectionError):
        return error
    number = error.errno if isinstance(error, ConnectError) else errno.ECONNRESET
    base = _BY_NUMBER.get(number, ConnectionResetError if number == errno.ECONNRESET else ConnectionError)
    kind = _both(type(error), base)
    # Not by the constructor, whose arguments are those of each kind of error.
    same = kind.__new__(kind)
    same.args = error.args
    same.__dict__.update(error.__dict__)
    same.errno = number or None
    same.__cause__ = error.__cause__
    return same
