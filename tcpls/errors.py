"""The one exception tree, the alert codes, and the one table from a reason to the alert that is sent for it."""

from __future__ import annotations

import enum
from collections.abc import Mapping


class Alert(enum.IntEnum):
    """TLS alert descriptions (RFC 8446 section 6)."""

    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    RECORD_OVERFLOW = 22
    HANDSHAKE_FAILURE = 40
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_REVOKED = 44
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    ILLEGAL_PARAMETER = 47
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    PROTOCOL_VERSION = 70
    INSUFFICIENT_SECURITY = 71
    INTERNAL_ERROR = 80
    INAPPROPRIATE_FALLBACK = 86
    USER_CANCELED = 90
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110
    UNRECOGNIZED_NAME = 112
    BAD_CERTIFICATE_STATUS_RESPONSE = 113
    UNKNOWN_PSK_IDENTITY = 115
    CERTIFICATE_REQUIRED = 116
    NO_APPLICATION_PROTOCOL = 120
    ECH_REQUIRED = 121

    @property
    def label(self) -> str:
        """The name as RFC 8446 writes it, for example ``bad_record_mac``."""
        return self.name.lower()


class Reason(enum.Enum):
    """Why the peer's input was refused. Each reason has exactly one alert in `ALERT_FOR`."""

    # Form: the bytes do not parse.
    TRUNCATED = "a field ends before its length"
    TRAILING_BYTES = "bytes are left over after the last field"
    BAD_LENGTH = "a length is outside the range that its field allows"
    BAD_VALUE = "a field has a value that its type does not allow"
    DUPLICATE = "an element that may stand once stands twice"
    TOO_LARGE = "a message is larger than this end accepts"
    UNKNOWN_FRAME = "a frame type is not known or was not negotiated"

    # Records.
    BAD_RECORD_MAC = "a record cannot be authenticated"
    RECORD_OVERFLOW = "a record is longer than RFC 8446 allows"
    UNEXPECTED_RECORD = "a record of this content type may not come here"
    EMPTY_RECORD = "a record that must carry content is empty"
    TOO_MANY_RECORDS = "too many records that carry nothing"
    BAD_RECORD_HEADER = "this is not a TLS record"
    KEY_EXHAUSTED = "the limit of records under one key is reached"

    # Handshake.
    UNEXPECTED_MESSAGE = "a handshake message may not come here"
    MESSAGE_ACROSS_KEYS = "a handshake message spans a change of keys"
    UNSUPPORTED_VERSION = "TLS 1.3 is not offered"
    DOWNGRADE = "the server signals that its version was lowered on the way"
    NO_COMMON_SUITE = "no cipher suite in common"
    NO_COMMON_GROUP = "no key exchange group in common"
    NO_COMMON_SIGNATURE = "no signature scheme in common"
    NO_COMMON_ALPN = "no application protocol in common"
    NO_COMMON_CERTIFICATE_TYPE = "no certificate type in common"
    NO_COMMON_PSK = "no pre-shared key in common, and no certificate here"
    UNKNOWN_NAME = "no certificate for the name that was asked for"
    MISSING_EXTENSION = "an extension that must be sent is absent"
    UNSUPPORTED_EXTENSION = "an extension was sent that was not asked for"
    MISPLACED_EXTENSION = "an extension stands in a message where it may not"
    ILLEGAL_CHOICE = "the peer chose a value that was not offered"
    SECOND_RETRY = "a second HelloRetryRequest"
    POINTLESS_RETRY = "a HelloRetryRequest that asks for no change"
    CHANGED_HELLO = "the second ClientHello changes what it may not change"
    BAD_KEY_SHARE = "a key share is not one of its group"
    BAD_SIGNATURE = "a signature over the handshake is wrong"
    BAD_INNER_HELLO = "a ClientHello that was encrypted is not what it must be"
    ECH_NOT_OPENED = "the second encrypted ClientHello cannot be opened"
    ECH_REJECTED = "the server did not accept the encrypted ClientHello"
    BAD_BINDER = "the binder of a pre-shared key is wrong"
    BAD_FINISHED = "a Finished message has the wrong value"
    BAD_KEY_UPDATE = "a KeyUpdate asks for something that does not exist"
    TOO_MANY_KEY_UPDATES = "too many key updates"
    TOO_MANY_MESSAGES = "too many messages after the handshake"
    TOO_MUCH_EARLY_DATA = "more early data came than was allowed"
    CONNECTION_CLOSED = "the connection ended during the handshake"

    # Certificates.
    NO_CERTIFICATE = "the peer sent no certificate"
    CERTIFICATE_REQUIRED = "the client sent no certificate, and one is required"
    BAD_CERTIFICATE = "the peer's certificate cannot be used"
    CERTIFICATE_REVOKED = "the peer's certificate is revoked"
    BAD_STATUS = "an OCSP response cannot be believed"
    UNKNOWN_KEY = "the peer's raw public key is none of those that are expected"
    BAD_COMPRESSION = "a compressed certificate does not expand to what it says"
    UNTRUSTED_CERTIFICATE = "the peer's certificate does not lead to a trusted authority"
    CERTIFICATE_EXPIRED = "the peer's certificate is outside its period of validity"
    WRONG_NAME = "the peer's certificate is for another name"
    UNSUPPORTED_CERTIFICATE = "the peer's certificate has a key of a kind that is not supported"

    # TCPLS.
    BAD_TOKEN = "a token is not valid"
    FLOW_CONTROL = "more was sent than this end allowed"
    STREAM_LIMIT = "more streams were opened than this end allowed"
    STREAM_STATE = "a frame does not fit the state of its stream"
    FINAL_SIZE = "the final size of a stream changed"
    WRONG_ROLE = "a frame was sent by the end that may not send it"
    UNKNOWN_CONNECTION = "a frame names a connection that does not exist"
    BAD_ACK = "a record is acknowledged that was never sent"
    PROGRAM_STATE = "a frame does not fit the state of its program transfer"
    TOO_MANY_REQUESTS = "more requests are open than this end allows"


ALERT_FOR: dict[Reason, Alert] = {
    Reason.TRUNCATED: Alert.DECODE_ERROR,
    Reason.TRAILING_BYTES: Alert.DECODE_ERROR,
    Reason.BAD_LENGTH: Alert.DECODE_ERROR,
    Reason.BAD_VALUE: Alert.ILLEGAL_PARAMETER,
    Reason.DUPLICATE: Alert.ILLEGAL_PARAMETER,
    Reason.TOO_LARGE: Alert.ILLEGAL_PARAMETER,
    Reason.UNKNOWN_FRAME: Alert.ILLEGAL_PARAMETER,
    Reason.BAD_RECORD_MAC: Alert.BAD_RECORD_MAC,
    Reason.RECORD_OVERFLOW: Alert.RECORD_OVERFLOW,
    Reason.UNEXPECTED_RECORD: Alert.UNEXPECTED_MESSAGE,
    Reason.EMPTY_RECORD: Alert.UNEXPECTED_MESSAGE,
    Reason.TOO_MANY_RECORDS: Alert.UNEXPECTED_MESSAGE,
    Reason.BAD_RECORD_HEADER: Alert.UNEXPECTED_MESSAGE,
    Reason.KEY_EXHAUSTED: Alert.INTERNAL_ERROR,
    Reason.UNEXPECTED_MESSAGE: Alert.UNEXPECTED_MESSAGE,
    Reason.MESSAGE_ACROSS_KEYS: Alert.UNEXPECTED_MESSAGE,
    Reason.UNSUPPORTED_VERSION: Alert.PROTOCOL_VERSION,
    Reason.DOWNGRADE: Alert.ILLEGAL_PARAMETER,
    Reason.NO_COMMON_SUITE: Alert.HANDSHAKE_FAILURE,
    Reason.NO_COMMON_GROUP: Alert.HANDSHAKE_FAILURE,
    Reason.NO_COMMON_SIGNATURE: Alert.HANDSHAKE_FAILURE,
    Reason.NO_COMMON_ALPN: Alert.NO_APPLICATION_PROTOCOL,
    Reason.NO_COMMON_CERTIFICATE_TYPE: Alert.UNSUPPORTED_CERTIFICATE,
    Reason.NO_COMMON_PSK: Alert.UNKNOWN_PSK_IDENTITY,
    Reason.UNKNOWN_NAME: Alert.UNRECOGNIZED_NAME,
    Reason.MISSING_EXTENSION: Alert.MISSING_EXTENSION,
    Reason.UNSUPPORTED_EXTENSION: Alert.UNSUPPORTED_EXTENSION,
    Reason.MISPLACED_EXTENSION: Alert.ILLEGAL_PARAMETER,
    Reason.ILLEGAL_CHOICE: Alert.ILLEGAL_PARAMETER,
    Reason.SECOND_RETRY: Alert.UNEXPECTED_MESSAGE,
    Reason.POINTLESS_RETRY: Alert.ILLEGAL_PARAMETER,
    Reason.CHANGED_HELLO: Alert.ILLEGAL_PARAMETER,
    Reason.BAD_KEY_SHARE: Alert.ILLEGAL_PARAMETER,
    Reason.BAD_SIGNATURE: Alert.DECRYPT_ERROR,
    Reason.BAD_INNER_HELLO: Alert.ILLEGAL_PARAMETER,
    Reason.ECH_NOT_OPENED: Alert.DECRYPT_ERROR,
    Reason.ECH_REJECTED: Alert.ECH_REQUIRED,
    Reason.BAD_BINDER: Alert.DECRYPT_ERROR,
    Reason.BAD_FINISHED: Alert.DECRYPT_ERROR,
    Reason.BAD_KEY_UPDATE: Alert.ILLEGAL_PARAMETER,
    Reason.TOO_MANY_KEY_UPDATES: Alert.UNEXPECTED_MESSAGE,
    Reason.TOO_MANY_MESSAGES: Alert.UNEXPECTED_MESSAGE,
    # RFC 8446 4.2.10.
    Reason.TOO_MUCH_EARLY_DATA: Alert.UNEXPECTED_MESSAGE,
    Reason.CONNECTION_CLOSED: Alert.CLOSE_NOTIFY,
    Reason.NO_CERTIFICATE: Alert.DECODE_ERROR,
    Reason.CERTIFICATE_REQUIRED: Alert.CERTIFICATE_REQUIRED,
    Reason.BAD_CERTIFICATE: Alert.BAD_CERTIFICATE,
    Reason.CERTIFICATE_REVOKED: Alert.CERTIFICATE_REVOKED,
    Reason.BAD_STATUS: Alert.BAD_CERTIFICATE_STATUS_RESPONSE,
    Reason.UNKNOWN_KEY: Alert.CERTIFICATE_UNKNOWN,
    Reason.BAD_COMPRESSION: Alert.BAD_CERTIFICATE,
    Reason.UNTRUSTED_CERTIFICATE: Alert.UNKNOWN_CA,
    Reason.CERTIFICATE_EXPIRED: Alert.CERTIFICATE_EXPIRED,
    Reason.WRONG_NAME: Alert.BAD_CERTIFICATE,
    Reason.UNSUPPORTED_CERTIFICATE: Alert.UNSUPPORTED_CERTIFICATE,
    Reason.BAD_TOKEN: Alert.ILLEGAL_PARAMETER,
    Reason.FLOW_CONTROL: Alert.ILLEGAL_PARAMETER,
    Reason.STREAM_LIMIT: Alert.ILLEGAL_PARAMETER,
    Reason.STREAM_STATE: Alert.ILLEGAL_PARAMETER,
    Reason.FINAL_SIZE: Alert.ILLEGAL_PARAMETER,
    Reason.WRONG_ROLE: Alert.ILLEGAL_PARAMETER,
    Reason.UNKNOWN_CONNECTION: Alert.ILLEGAL_PARAMETER,
    Reason.BAD_ACK: Alert.ILLEGAL_PARAMETER,
    Reason.PROGRAM_STATE: Alert.ILLEGAL_PARAMETER,
    Reason.TOO_MANY_REQUESTS: Alert.ILLEGAL_PARAMETER,
}


class TCPLSError(Exception):
    """The root of every error that this package raises on purpose."""


class ApiMisuse(TCPLSError):
    """The caller asked for something that the state of the object does not allow."""


class ConfigurationError(TCPLSError):
    """A file or value that the caller supplied cannot be used; the message names it."""


class PeerError(TCPLSError):
    """What the peer sent was refused. `reason` says why; `alert` is what the peer is told."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.value} ({detail})" if detail else reason.value)
        self.reason = reason
        self.detail = detail

    @property
    def alert(self) -> Alert:
        return ALERT_FOR[self.reason]


class HandshakeError(PeerError):
    """The TLS handshake failed because of what the peer sent or did not support."""


class CertificateError(HandshakeError):
    """The peer's certificate is not trusted for this connection."""


class EchRejected(HandshakeError):
    """The server proved to be the public one, and did not accept Encrypted ClientHello (RFC 9849 6.1.6).

    `retry_configs` is the ECHConfigList to connect with once more; b"" when the server has none that is known here, and
    so does without; None when its certificate was not verified, so that nothing that it says may be used.
    """

    def __init__(self, public_name: str, retry_configs: bytes | None) -> None:
        super().__init__(Reason.ECH_REJECTED, public_name)
        self.public_name = public_name
        self.retry_configs = retry_configs


class ProtocolViolation(PeerError):
    """The peer broke a rule of TLS or TCPLS after the handshake."""


class AlertReceived(TCPLSError):
    """The peer ended the connection with a TLS alert. `alert` is the number as received; it may be unknown."""

    def __init__(self, alert: int) -> None:
        try:
            label = Alert(alert).label
        except ValueError:
            label = "unknown"
        super().__init__(f"the peer sent the alert {label} ({alert})")
        self.alert = alert


class ConnectError(TCPLSError):
    """No TCP connection could be made: the name was not resolved, or no address answered.

    `errno` is what the kernel said, where it said the same of every address; otherwise 0.
    """

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class NotNegotiated(TCPLSError):
    """TCPLS, or a part of it, was required and the peer does not offer it."""


class SessionLost(TCPLSError):
    """The session ended without an authenticated close from the peer: data may be missing.

    `unacknowledged`: of each stream that the peer is not known to have whole, up to which byte it has, and how many
    were written. Empty where nothing is known of that.
    """

    def __init__(self, message: str = "", unacknowledged: Mapping[int, tuple[int, int]] | None = None) -> None:
        super().__init__(message)
        self.unacknowledged = dict(unacknowledged or {})


class SessionClosed(TCPLSError):
    """The session was closed by either end with an authenticated close. `code` 0 means without error."""

    def __init__(self, code: int = 0, reason: str = "") -> None:
        super().__init__(f"the session was closed with code {code}" + (f": {reason}" if reason else ""))
        self.code = code
        self.reason = reason


class StreamReset(TCPLSError):
    """The peer gave up sending (or reading) this stream. `code` is the application's."""

    def __init__(self, code: int, *, stopped: bool = False) -> None:
        super().__init__(f"the peer {'stopped reading' if stopped else 'reset'} the stream with code {code}")
        self.code = code
        self.stopped = stopped


class OptionRefused(TCPLSError):
    """The peer did not apply a TCP option. `status` is the answer's name, `errno` is the peer's or 0."""

    def __init__(self, name: str, status: str, errno: int = 0) -> None:
        super().__init__(f"{name}: {status}" + (f" (errno {errno})" if errno else ""))
        self.name = name
        self.status = status
        self.errno = errno


class ProgramRefused(TCPLSError):
    """A congestion controller was not attached. `stage` is where it stopped, `reason` why."""

    def __init__(self, reason: str, *, stage: str = "", log: str = "") -> None:
        super().__init__(f"{stage}: {reason}" if stage else reason)
        self.reason = reason
        self.stage = stage
        self.log = log


class KernelUnavailable(TCPLSError):
    """This machine's kernel, or this process's privilege, lacks `feature`; `hint` says how to get it."""

    def __init__(self, feature: str, hint: str) -> None:
        super().__init__(f"{feature}: {hint}")
        self.feature = feature
        self.hint = hint
