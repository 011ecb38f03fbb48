"""What both ends remember of a session for its resumption: what the server had announced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tcpls.errors import PeerError, Reason
from tcpls.protocol.negotiation import CODE_POINTS, CodePoints, Outcome
from tcpls.protocol.parameters import Parameters
from tcpls.wire import Buffer, Reader

_PLAIN, _DRAFT, _NEGOTIATED = 0, 1, 2
_FORM = 1


@dataclass(frozen=True, slots=True)
class Remembered:
    """Whether TCPLS was in use, and the server's windows and limits, None without tcpls_parameters.

    Early data alone needs it: whatever else a resumed session does is negotiated by its own handshake. So there are no
    TCP options and programs in it, which nobody asks for that early.
    """

    tcpls: bool
    server: Parameters | None = None

    @classmethod
    def by_client(cls, outcome: Outcome) -> Remembered:
        """`outcome` is the client's, of the handshake that the ticket is of."""
        return cls(outcome.tcpls, _early(outcome.peer))

    @classmethod
    def by_server(cls, offered: Mapping[int, bytes], local: Parameters, codes: CodePoints = CODE_POINTS) -> Remembered:
        """`offered` are the extensions of the ClientHello, `local` is what the server announces in its answer."""
        tcpls = codes.tcpls in offered
        return cls(tcpls, _early(local if tcpls and codes.parameters in offered else None))

    def write(self) -> bytes:
        if self.server is None:
            return bytes((_FORM, _DRAFT if self.tcpls else _PLAIN))
        return bytes((_FORM, _NEGOTIATED)) + self.server.write()

    @classmethod
    def read(cls, data: Buffer) -> Remembered:
        """Raises `PeerError` for what `write` has not written."""
        reader = Reader(data)
        form, mode = reader.u8(), reader.u8()
        if form != _FORM or mode > _NEGOTIATED:
            raise PeerError(Reason.BAD_VALUE, "form of what a ticket remembers")
        if mode == _NEGOTIATED:
            return cls(True, Parameters.read(reader.rest()))
        reader.end()
        return cls(mode == _DRAFT)


def _early(announced: Parameters | None) -> Parameters | None:
    return None if announced is None else replace(announced, options=(), programs=None)
