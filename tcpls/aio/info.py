"""What is really in use on a session: taken from the handshake, and asked anew of the kernel."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from tcpls.aio.transport import RecordTransport
from tcpls.kernel import sockopts
from tcpls.tls.connection import Established


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """One TCP connection. `congestion` is the algorithm as the kernel reports it for this very socket.

    `ktls_tx` and `ktls_rx` are "on", or say why not. `rtt` is in seconds, `cwnd` in segments, `delivery_rate` in
    bytes per second, as TCP_INFO has them.
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


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """`tcpls` is "on", or says why the session is ordinary TLS."""

    role: str
    tcpls: str
    version: str
    suite: str
    group: str
    signature: str
    alpn: str
    server_name: str
    peer_parameters: dict[str, object]
    connections: tuple[ConnectionInfo, ...]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """One fact a line, for people."""
        rows = [
            f"{self.version}, {self.suite}, {self.group}, {self.signature}",
            f"TCPLS: {self.tcpls}",
        ]
        if self.alpn:
            rows.append(f"ALPN: {self.alpn}")
        if self.peer_parameters:
            rows.append("peer: " + ", ".join(f"{key}={value}" for key, value in self.peer_parameters.items()))
        for connection in self.connections:
            rows.append(
                f"connection {connection.connection_id}: {connection.local} to {connection.remote}, "
                f"congestion control {connection.congestion}, "
                f"rtt {connection.rtt * 1000:.2f} ms, cwnd {connection.cwnd}"
            )
            rows.append(f"  kTLS sending: {connection.ktls_tx}; receiving: {connection.ktls_rx}")
        return rows


@dataclass(frozen=True, slots=True)
class Facts:
    """What the handshake decided, once and for all."""

    role: str
    tcpls: str
    suite: str
    group: str
    signature: str
    alpn: str
    server_name: str
    peer_parameters: dict[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, role: str, tcpls: str, established: Established, peer_parameters: dict[str, object]) -> Facts:
        return cls(
            role=role,
            tcpls=tcpls,
            suite=established.suite.label,
            group=established.group,
            signature=established.signature_scheme,
            alpn=(established.alpn or b"").decode("ascii", "replace"),
            server_name=established.server_name or "",
            peer_parameters=peer_parameters,
        )

    def session_info(self, connections: tuple[ConnectionInfo, ...]) -> SessionInfo:
        return SessionInfo(
            role=self.role,
            tcpls=self.tcpls,
            version="TLS 1.3",
            suite=self.suite,
            group=self.group,
            signature=self.signature,
            alpn=self.alpn,
            server_name=self.server_name,
            peer_parameters=self.peer_parameters,
            connections=connections,
        )


def connection_info(transport: RecordTransport) -> ConnectionInfo:
    sock = transport.socket
    info = sockopts.tcp_info(sock)
    return ConnectionInfo(
        connection_id=transport.connection_id,
        local=address(sock.getsockname()),
        remote=address(sock.getpeername()),
        congestion=sockopts.congestion(sock),
        ktls_tx=transport.ktls_tx,
        ktls_rx=transport.ktls_rx,
        rtt=info.rtt / 1e6,
        cwnd=info.snd_cwnd,
        retransmits=info.total_retrans,
        delivery_rate=info.delivery_rate,
        bytes_received=transport.bytes_received,
    )


def address(name: tuple[object, ...]) -> str:
    """A socket address as people write it: ``192.0.2.1:443`` or ``[2001:db8::1]:443``."""
    host, port = str(name[0]), name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
