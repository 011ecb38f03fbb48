"""What the layers tell an onlooker. The null versions do nothing, so that no caller ever asks whether one is there."""

from __future__ import annotations

from typing import Protocol


class KeyLog(Protocol):
    """Receives the secrets of a handshake in the form of the NSS key log (RFC 9850)."""

    def secret(self, label: str, client_random: bytes, secret: bytes) -> None:
        """`label` is one of the standard's, for example ``CLIENT_TRAFFIC_SECRET_0``."""


class Observer(Protocol):
    """Receives what happens on a session, for logs and traces. Values are plain data and never secret."""

    def event(self, name: str, **fields: object) -> None:
        """`name` is ``part:what``, for example ``tls:handshake_complete``."""


class NullKeyLog:
    def secret(self, label: str, client_random: bytes, secret: bytes) -> None:
        return None


class NullObserver:
    def event(self, name: str, **fields: object) -> None:
        return None


NULL_KEY_LOG: KeyLog = NullKeyLog()
NULL_OBSERVER: Observer = NullObserver()
