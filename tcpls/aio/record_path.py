"""Where the records of a connection are protected: in user space, or by the kernel."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from tcpls.aio.config import KTLS, CommonConfig
from tcpls.aio.transport import SocketSink, UserSpaceSink
from tcpls.errors import KernelUnavailable
from tcpls.kernel import ktls
from tcpls.tls.connection import Established
from tcpls.tls.engine import CryptoEngine
from tcpls.tls.record import RecordOpener
from tcpls.tls.suites import TrafficKeys


@dataclass(frozen=True, slots=True)
class RecordPath:
    """What all connections of a session have in common. `max_sent` and `max_received`: bytes of content of a record."""

    config: CommonConfig
    engine: CryptoEngine
    max_sent: int
    max_received: int

    @classmethod
    def of(cls, config: CommonConfig, established: Established) -> RecordPath:
        return cls(config, established.read_secret.engine, established.max_sent, established.max_received)

    def sink(self, sock: socket.socket, keys: TrafficKeys) -> tuple[SocketSink, str]:
        """Also why records are not protected in the kernel, or "on". Raises `KernelUnavailable` where they must be."""
        config = self.config
        why = "not asked for"
        if config.ktls is not KTLS.OFF:
            try:
                if config.padding.data > 1:
                    raise KernelUnavailable("padding in kernel TLS", "records are padded: the kernel does not do that")
                return ktls.KernelSink(sock, keys, self.max_sent), "on"
            except KernelUnavailable as error:
                if config.ktls is KTLS.REQUIRE:
                    raise
                # The reason in short; `tcpls doctor` has it whole, with the cure.
                why = error.hint.partition(":")[0]
        sealer = UserSpaceSink(self.engine.aead, keys, max_content=self.max_sent, padding=config.padding.data)
        return sealer.attach(sock), f"off, {why}"

    def opener(self, keys: TrafficKeys) -> RecordOpener:
        return RecordOpener(self.engine.aead, keys, self.engine.invalid_tag, max_content=self.max_received)
