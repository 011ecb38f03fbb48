"""The public names, which the package gives out as its own."""

from tcpls.aio.client import connect
from tcpls.aio.config import KTLS, ClientConfig, Negotiate, ServerConfig
from tcpls.aio.endpoints import Endpoint, parse_local
from tcpls.aio.identity import Credential
from tcpls.aio.info import ConnectionInfo, SessionInfo
from tcpls.aio.keylog import FileKeyLog
from tcpls.aio.parity import StreamServer, create_connection, create_server, open_connection, start_server
from tcpls.aio.psk import ExternalPsk
from tcpls.aio.replay_file import FileReplayStore
from tcpls.aio.server import Server, serve
from tcpls.aio.session import Session, Shipment
from tcpls.aio.stream import Stream
from tcpls.aio.stream_transport import StreamTransport, stream_transport
from tcpls.aio.ticket_key_file import TicketKeyFile
from tcpls.aio.tickets import FileTicketStore, MemoryTicketStore, TicketScope, TicketStore
from tcpls.errors import (
    Alert,
    AlertReceived,
    ApiMisuse,
    CertificateError,
    ConfigurationError,
    ConnectError,
    EchRejected,
    HandshakeError,
    KernelUnavailable,
    NotNegotiated,
    OptionRefused,
    PeerError,
    ProgramRefused,
    ProtocolViolation,
    Reason,
    SessionClosed,
    SessionLost,
    StreamReset,
    TCPLSError,
)
from tcpls.kernel.helper_client import HelperClient
from tcpls.kernel.program import Mode as ProgramMode
from tcpls.kernel.program import ProgramFile, ProgramPolicy, read_public_key
from tcpls.protocol.base import SessionConfig
from tcpls.protocol.options import OptionPolicy, parse_option
from tcpls.tls.config import ClientAuth, Padding
from tcpls.tls.early_data import EarlyData
from tcpls.tls.replay import ReplayStore
from tcpls.tls.tickets import Ticket

__all__ = [
    "KTLS",
    "Alert",
    "AlertReceived",
    "ApiMisuse",
    "CertificateError",
    "ClientAuth",
    "ClientConfig",
    "ConfigurationError",
    "ConnectError",
    "ConnectionInfo",
    "Credential",
    "EarlyData",
    "EchRejected",
    "Endpoint",
    "ExternalPsk",
    "FileKeyLog",
    "FileReplayStore",
    "FileTicketStore",
    "HandshakeError",
    "HelperClient",
    "KernelUnavailable",
    "MemoryTicketStore",
    "Negotiate",
    "NotNegotiated",
    "OptionPolicy",
    "OptionRefused",
    "Padding",
    "PeerError",
    "ProgramFile",
    "ProgramMode",
    "ProgramPolicy",
    "ProgramRefused",
    "ProtocolViolation",
    "Reason",
    "ReplayStore",
    "Server",
    "ServerConfig",
    "Session",
    "SessionClosed",
    "SessionConfig",
    "SessionInfo",
    "SessionLost",
    "Shipment",
    "Stream",
    "StreamReset",
    "StreamServer",
    "StreamTransport",
    "TCPLSError",
    "Ticket",
    "TicketKeyFile",
    "TicketScope",
    "TicketStore",
    "connect",
    "create_connection",
    "create_server",
    "open_connection",
    "parse_local",
    "parse_option",
    "read_public_key",
    "serve",
    "start_server",
    "stream_transport",
]
