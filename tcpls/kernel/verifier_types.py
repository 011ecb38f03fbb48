"""The second look at a program, with the verifier's eyes: which kinds of kernel memory do its pointers lead to?

The kernel lets a controller follow typed pointers from its socket to files, credentials and tasks, and no scan of the
object can tell, because the types are the kernel's. The verifier's log (level 2) names the type of every register after
every instruction. Each must be known here and harmless. The log's form is no stable interface: what is not understood
is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tcpls.errors import ProgramRefused

STAGE = "verifier"
MAX_VERIFIED = 65536

_SOCKETS = r"(sock_common|sock|inet_sock|inet_connection_sock|tcp_sock|ack_sample|rate_sample)"
_HARMLESS = re.compile(
    r"P?(-?\d+|0x[0-9a-f]+)\Z"  # a known number
    r"|P?(scalar|inv)\b"
    r"|ctx\b|fp-?\d+|map_ptr\b|map_value(_or_null)?\b"
    r"|(ringbuf_mem|alloc_mem|mem)(_or_null)?\b|func\b"
    rf"|((trusted_|rcu_)*ptr_(or_null_)?){_SOCKETS}\b"
)
_STATE = re.compile(r"\bR\d{1,2}(?:_[rwD]+)?=([^\s(;]*)")
_PROCESSED = re.compile(r"^processed (\d+) insns", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Verified:
    """What the verifier's log says of one program."""

    function: str
    processed: int
    types: frozenset[str]


def check_log(function: str, log: str) -> Verified:
    """Raises `ProgramRefused` (stage "verifier") unless every type in the log is known and harmless."""
    processed = _PROCESSED.search(log)
    if processed is None:
        raise ProgramRefused(f"the verifier left no readable log of {function}", stage=STAGE)
    if int(processed[1]) > MAX_VERIFIED:
        raise ProgramRefused(f"{function} takes more than {MAX_VERIFIED} instructions to verify", stage=STAGE)
    types = frozenset(_STATE.findall(log))
    if not types:
        raise ProgramRefused(f"the verifier's log of {function} names no types", stage=STAGE)
    for name in sorted(types):
        if not _HARMLESS.match(name):
            raise ProgramRefused(
                f"{function} reaches kernel memory of a kind it has no need of: {name[:60]}", stage=STAGE
            )
    return Verified(function, int(processed[1]), frozenset(name for name in types if not name[:1].isdigit()))
