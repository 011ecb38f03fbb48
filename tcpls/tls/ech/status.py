"""What became of Encrypted ClientHello in a handshake."""

from __future__ import annotations

import enum


class EchStatus(enum.Enum):
    """A client's handshake that is rejected never completes; a server cannot tell rejection from grease."""

    NOT_OFFERED = "not offered"
    GREASE = "grease"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    ESNI = "accepted, in the older form of Encrypted SNI, which hides the name alone"
