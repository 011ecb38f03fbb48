"""Exit codes, and the one sentence that goes with each way to fail."""

from __future__ import annotations

import enum
import socket

from tcpls.errors import (
    Alert,
    AlertReceived,
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
    SessionClosed,
    SessionLost,
    StreamReset,
    TCPLSError,
)
from tcpls.proxy.message import Code, TargetRefused

CERTIFICATE_ALERTS = {
    Alert.BAD_CERTIFICATE,
    Alert.UNSUPPORTED_CERTIFICATE,
    Alert.CERTIFICATE_REVOKED,
    Alert.CERTIFICATE_EXPIRED,
    Alert.CERTIFICATE_UNKNOWN,
    Alert.UNKNOWN_CA,
}


class Exit(enum.IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    FILES = 3
    CONNECT = 4
    ALERT = 5
    NOT_TRUSTED = 6
    NOT_TCPLS = 7
    KERNEL = 8
    LOST = 9
    VIOLATION = 10
    TIMEOUT = 28
    INTERRUPTED = 130
    TERMINATED = 143


class UsageError(TCPLSError):
    """The command line asks for something that does not exist or does not go together."""


class FileError(TCPLSError):
    """A local file could not be read or written, or the peer could not give or take one."""


def _about_ech(error: EchRejected) -> str:
    said = f"{error.public_name} does not accept the encrypted ClientHello"
    if error.retry_configs is None:
        return f"{said}; what to use instead is believed of a verified certificate only"
    if error.retry_configs:
        return f"{said}, nor one for the configurations that it sends"
    return f"{said}, and sends no configurations: without --ech, the server's name would go out unencrypted"


def explain(error: BaseException) -> tuple[Exit, str]:
    """The exit code for an error, and a sentence about it."""
    match error:
        case CertificateError():
            return Exit.NOT_TRUSTED, f"the server's certificate is not trusted: {error}"
        case AlertReceived(alert=Alert.CERTIFICATE_REQUIRED):
            return (
                Exit.ALERT,
                f"the server wants a certificate of this end that it trusts (-c, -k): {error}",
            )
        case AlertReceived(alert=alert) if alert in CERTIFICATE_ALERTS:
            return Exit.ALERT, f"the other end does not trust this end's certificate: {error}"
        case AlertReceived():
            return Exit.ALERT, str(error)
        case EchRejected():
            return Exit.ALERT, _about_ech(error)
        case HandshakeError():
            return Exit.ALERT, f"the handshake failed: {error}; the alert {error.alert.label} was sent"
        case PeerError():
            return Exit.VIOLATION, f"the peer broke the protocol: {error}; the alert {error.alert.label} was sent"
        case NotNegotiated():
            return Exit.NOT_TCPLS, str(error)
        case KernelUnavailable():
            return Exit.KERNEL, str(error)
        case ProgramRefused() | OptionRefused():
            return Exit.FILES, f"the peer refused: {error}"
        case TargetRefused(code=Code.NOT_ALLOWED):
            return Exit.FILES, str(error)
        case TargetRefused():
            return Exit.CONNECT, str(error)
        case ConnectError() | socket.gaierror():
            return Exit.CONNECT, str(error)
        case UsageError():
            return Exit.USAGE, str(error)
        case FileError() | ConfigurationError():
            return Exit.FILES, str(error)
        case TimeoutError():
            return Exit.TIMEOUT, str(error) or "no answer in time"
        case SessionLost() | SessionClosed() | StreamReset():
            return Exit.LOST, str(error)
        case OSError():
            return Exit.FILES, f"{error.filename}: {error.strerror}" if error.filename else str(error)
        case TCPLSError() | ValueError():
            return Exit.FAILED, str(error)
        case _:
            return Exit.FAILED, f"{type(error).__name__}: {error}"
