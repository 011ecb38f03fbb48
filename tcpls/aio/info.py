"""What is really in use on a session: taken from the handshake, and asked anew of the kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from tcpls.aio.identity import describe_peer
from tcpls.aio.psk import ExternalPsk
from tcpls.aio.transport import RecordTransport
from tcpls.kernel import sockopts
from tcpls.protocol.connections import Connection
from tcpls.protocol.options import BY_ID
from tcpls.protocol.parameters import PROGRAMS_AUTHENTICATED, PROGRAMS_PINNED, PROGRAMS_SIGNED, Parameters
from tcpls.tls.connection import Established
from tcpls.tls.early_data import EarlyData
from tcpls.tls.ech.status import EchStatus
from tcpls.tls.key_schedule import Exporter
from tcpls.tls.record import MAX_CONTENT


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """One TCP connection. `congestion` is the algorithm as the kernel reports it for this very socket.

    `ktls_tx` and `ktls_rx` are "on", or say why not; `queued` are bytes that wait in the socket. `rtt` is in seconds,
    `cwnd` in segments, `delivery_rate` in bytes per second, as TCP_INFO has them.
    """

    connection_id: int
    local: str
    remote: str
    congestion: str
    ktls_tx: str
    ktls_rx: str
    rtt: float
    cwnd: int
    retransmits: int
    delivery_rate: int
    bytes_received: int
    queued: int


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """`tcpls` is "on", or says why the session is ordinary TLS.

    `ech` is what became of Encrypted ClientHello. `resumed`: by a ticket of an earlier session; `psk` is the identity
    of the external key that was used. With either there is no `signature`, and no `group` if it was used without a key
    exchange. `peer` is who the peer is and whether that was verified; "" for a client that nobody knows.
    `early_data`: what became of it, and why. `max_sent` and `max_received`: bytes that a record may have to the peer,
    and from it.
    """

    role: str
    tcpls: str
    version: str
    suite: str
    group: str
    signature: str
    resumed: bool
    psk: str
    peer: str
    alpn: str
    server_name: str
    ech: str
    early_data: str
    max_sent: int
    max_received: int
    peer_parameters: dict[str, object]
    connections: tuple[ConnectionInfo, ...]

    @property
    def authentication(self) -> str:
        """How the handshake was authenticated: the signature, the pre-shared key, or "resumed"."""
        if self.resumed:
            return "resumed"
        return f"pre-shared key {self.psk!r}" if self.psk else self.signature

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """One fact a line, for people."""
        rows = [
            f"{self.version}, {self.suite}, {self.group or 'no key exchange'}, {self.authentication}",
            f"TCPLS: {self.tcpls}",
        ]
        if self.peer:
            rows.append(f"the {'server' if self.role == 'client' else 'client'} is {self.peer}")
        if self.ech != EchStatus.NOT_OFFERED.value:
            rows.append(f"Encrypted ClientHello: {self.ech}")
        if self.early_data != str(EarlyData.NOT_ASKED):
            rows.append(f"0-RTT: {self.early_data}")
        if min(self.max_sent, self.max_received) < MAX_CONTENT:
            rows.append(f"records: at most {self.max_sent} bytes to the peer, {self.max_received} from it")
        if self.alpn:
            rows.append(f"ALPN: {self.alpn}")
        if self.peer_parameters:
            said = (f"{key.replace('_', ' ')} {value}" for key, value in self.peer_parameters.items())
            rows.append("the peer announces: " + ", ".join(said))
        return rows + self.connection_lines()

    def connection_lines(self) -> list[str]:
        """The lines about the connections alone: what changes while the session lasts."""
        rows = []
        for connection in self.connections:
            rows.append(
                f"connection {connection.connection_id}: {connection.local} to {connection.remote}, "
                f"congestion control {connection.congestion}, "
                f"rtt {connection.rtt * 1000:.2f} ms, cwnd {connection.cwnd}"
            )
            rows.append(f"  kTLS sending: {connection.ktls_tx}; receiving: {connection.ktls_rx}")
        return rows


@dataclass(frozen=True, slots=True)
class PathInfo:
    """One connection of a session. Times in seconds, sizes in bytes, rates in bytes a second.

    `state` is "joining", "open", "suspect" or "retiring"; `in_flight` are bytes of streams in records that the peer has
    not acknowledged, `queued` those of them that still wait in this end's socket.
    """

    connection_id: int
    local: str
    remote: str
    state: str
    standby: bool
    rtt: float
    cwnd: int
    delivery_rate: int
    in_flight: int
    queued: int
    retransmits: int
    congestion: str

    @classmethod
    def of(cls, seen: ConnectionInfo, connection: Connection) -> PathInfo:
        return cls(
            connection_id=seen.connection_id,
            local=seen.local,
            remote=seen.remote,
            state=connection.state.value,
            standby=connection.standby or connection.peer_standby,
            rtt=seen.rtt,
            cwnd=seen.cwnd,
            delivery_rate=seen.delivery_rate,
            in_flight=connection.in_flight,
            queued=seen.queued,
            retransmits=seen.retransmits,
            congestion=seen.congestion,
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """What the handshake decided, once and for all."""

    role: str
    tcpls: str
    suite: str
    group: str
    signature: str
    resumed: bool
    psk: str
    peer: str
    alpn: str
    server_name: str
    ech: str
    exporter: Exporter = field(repr=False)
    early_data: EarlyData
    max_sent: int
    max_received: int

    @classmethod
    def of(cls, role: str, tcpls: str, established: Established, psks: Sequence[ExternalPsk], ech: str) -> Facts:
        identity = established.psk_identity
        key = "" if identity is None else next(psk.name for psk in psks if psk.is_known_as(identity))
        return cls(
            role=role,
            tcpls=tcpls,
            suite=established.suite.label,
            group=established.group,
            signature=established.signature_scheme,
            resumed=established.resumed,
            psk=key,
            peer=describe_peer(established, key),
            alpn=(established.alpn or b"").decode("ascii", "replace"),
            server_name=established.server_name or "",
            ech=ech,
            exporter=established.exporter,
            early_data=established.early_data,
            max_sent=established.max_sent,
            max_received=established.max_received,
        )

    def session_info(self, peer: Parameters | None, connections: tuple[ConnectionInfo, ...]) -> SessionInfo:
        return SessionInfo(
            role=self.role,
            tcpls=self.tcpls,
            version="TLS 1.3",
            suite=self.suite,
            group=self.group,
            signature=self.signature,
            resumed=self.resumed,
            psk=self.psk,
            peer=self.peer,
            alpn=self.alpn,
            server_name=self.server_name,
            ech=self.ech,
            early_data=str(self.early_data),
            max_sent=self.max_sent,
            max_received=self.max_received,
            peer_parameters=describe(peer),
            connections=connections,
        )


_PROGRAM_MODES = {PROGRAMS_PINNED: "pinned", PROGRAMS_SIGNED: "signed", PROGRAMS_AUTHENTICATED: "authenticated"}


def describe(peer: Parameters | None) -> dict[str, object]:
    """What a peer has announced, with names for numbers; what it does not offer is left out."""
    if peer is None:
        return {}
    said: dict[str, object] = {
        "session_window": peer.session_window,
        "stream_window": peer.stream_window,
        "stream_limit": peer.stream_limit,
        "idle_timeout_ms": peer.idle_timeout,
        "failover": "wanted" if peer.failover else "",
        "options": " ".join(BY_ID[number].name for number in peer.options if number in BY_ID),
    }
    if peer.programs is not None:
        modes = " ".join(name for bit, name in _PROGRAM_MODES.items() if peer.programs.modes & bit)
        said["programs"] = f"{modes} up to {peer.programs.size_limit} bytes of {peer.programs.abi}"
    return {key: value for key, value in said.items() if value}


def connection_info(transport: RecordTransport) -> ConnectionInfo | None:
    """None when the peer has just reset it, which the kernel knows before the session does."""
    sock = transport.socket
    try:
        remote = address(sock.getpeername())
    except OSError:
        return None
    info = sockopts.tcp_info(sock)
    return ConnectionInfo(
        connection_id=transport.connection_id,
        local=address(sock.getsockname()),
        remote=remote,
        congestion=sockopts.congestion(sock),
        ktls_tx=transport.ktls_tx,
        ktls_rx=transport.ktls_rx,
        rtt=info.rtt / 1e6,
        cwnd=info.snd_cwnd,
        retransmits=info.total_retrans,
        delivery_rate=info.delivery_rate,
        bytes_received=transport.bytes_received,
        queued=info.notsent_bytes,
    )


def address(name: tuple[object, ...]) -> str:
    """A socket address as people write it: ``192.0.2.1:443`` or ``[2001:db8::1]:443``."""
    host, port = str(name[0]), name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
