"""What a user sets. Frozen: one configuration can serve any number of sessions."""

from __future__ import annotations

import enum
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path

from tcpls.aio.client_files import ClientFiles
from tcpls.aio.dialing import ATTEMPT_DELAY
from tcpls.aio.endpoints import Endpoint
from tcpls.aio.identity import Credential
from tcpls.aio.psk import ExternalPsk
from tcpls.aio.tickets import TicketStore
from tcpls.kernel.helper_client import HelperClient
from tcpls.kernel.program import ProgramPolicy
from tcpls.observe import NULL_KEY_LOG, NULL_OBSERVER, KeyLog, Observer
from tcpls.protocol.base import SessionConfig
from tcpls.tls.config import NO_PADDING, ClientAuth, Padding
from tcpls.tls.extensions import MAX_RECORD_SIZE_LIMIT
from tcpls.tls.replay import ReplayStore
from tcpls.tls.ticket_keys import KeyVault
from tcpls.tls.tickets import DEFAULT_LIFETIME, DEFAULT_TICKETS


class KTLS(enum.Enum):
    """Whether the kernel protects the records that this end sends."""

    OFF = "off"
    WHERE_POSSIBLE = "tx"
    REQUIRE = "require"


class Negotiate(enum.Enum):
    """Whether TCPLS is offered or accepted."""

    OFF = "off"
    OFFER = "offer"
    REQUIRE = "require"


@dataclass(frozen=True, kw_only=True)
class CommonConfig:
    """What both roles have. Times are in seconds.

    `programs` says which congestion controllers a peer may have attached to this end's sockets (none, by default);
    `helper` is the privileged process that loads them. `congestion` is the algorithm that this end's own sockets use.
    The windows bound, in bytes, what a peer can make this end buffer; `stream_limit` the streams it may have open;
    after `idle_timeout` without a record a session ends (0: never). `psks` are keys that are used in place of
    certificates where the peer has one of them too; `psk_modes` are the ways in which they and tickets may be used:
    "psk_dhe_ke" (the default), and "psk_ke", without a key exchange and so without forward secrecy. `engine` is the
    cryptographic library, one of `tcpls.tls.engines.libraries.ENGINE_NAMES`. `record_size_limit` is what this end takes
    in a record (RFC 8449: content, type and padding; 64 to 16,385 bytes), `padding` what it adds to its own.
    With `failover`, what the peer has not acknowledged is kept, and goes again over another connection when one fails;
    both ends must want it. `max_connections` are those that a session may have at a time (1: no other ever joins),
    `scheduler` is how they are used, one of `tcpls.protocol.schedulers.SCHEDULERS`. After `user_timeout` without
    acknowledgment, TCP gives a connection up (RFC 5482); `SessionConfig.path_timeout` is what a session itself goes by.
    `certificate` and `private_key` are PEM files: this end's chain, leaf first, and its key. `credentials` are more of
    them: a server chooses by the name that it is asked for, a client by the authorities that the server lists, and both
    by what the other end can verify. `certificate_compressions` (RFC 8879) are "brotli", "zstd" and "zlib" in the order
    of preference; None: those of them that are installed.
    """

    suites: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    alpn: tuple[str, ...] = ()
    psks: tuple[ExternalPsk, ...] = ()
    psk_modes: tuple[str, ...] = ()
    certificate: str | Path | None = None
    private_key: str | Path | None = None
    credentials: tuple[Credential, ...] = ()
    certificate_compressions: tuple[str, ...] | None = None
    engine: str = "openssl"
    tcpls: Negotiate = Negotiate.OFFER
    ktls: KTLS = KTLS.OFF
    congestion: str = ""
    handshake_timeout: float = 10.0
    session_window: int = 8 << 20
    stream_window: int = 4 << 20
    stream_limit: int = 256
    idle_timeout: float = 0.0
    failover: bool = True
    max_connections: int = 8
    scheduler: str = "backup"
    user_timeout: float = 60.0
    session: SessionConfig = field(default_factory=SessionConfig)
    programs: ProgramPolicy = field(default_factory=ProgramPolicy)
    helper: HelperClient | None = None
    key_log: KeyLog = NULL_KEY_LOG
    observer: Observer = NULL_OBSERVER
    record_size_limit: int = MAX_RECORD_SIZE_LIMIT
    padding: Padding = NO_PADDING


@dataclass(frozen=True, kw_only=True)
class ClientConfig(CommonConfig):
    """`ca_file` replaces the system's authorities. `verify` False trusts any certificate: for tests only.
    `server_keys` is a PEM file of public keys that the server may show in place of a certificate (RFC 7250); without
    `ca_file`, it must. `ocsp` asks the server for an OCSP response; one that comes must not say that the certificate is
    revoked, and must be one that counts. There need not be one, and the engine minicrypto does not judge it.

    The first `key_shares` groups get a key share at once; None: the first, and with a hybrid also its curve alone.
    With `tickets`, sessions are resumed, and what servers give for the next ones is kept there.

    `ech` is an ECHConfigList (as it is, in base64, or a PEM file's contents): the ClientHello, and with it the server's
    name, is encrypted (RFC 9849). A server that rejects it and proves its public name is tried once more with the
    configurations that it sends; `EchRejected` if it sends none, or rejects those too. `ech_grease` sends an extension
    that looks like that where there is no `ech`; off, because the offer of TCPLS tells this client from others anyway.
    `esni` are ESNIKeys, as they are or in base64, of a server that only knows the older Encrypted SNI.

    Addresses are raced (RFC 8305): the next attempt starts `attempt_delay` seconds after the last one, or when that has
    failed, and the first connection must be there within `connect_timeout`. `remotes` are used in place of the
    addresses of the host; `locals` are what to come from: addresses, and interfaces, each of which stands for its
    addresses. `first_family` is tried first; None: the one that RFC 6724 puts first, IPv6 where it can be used.

    Files are read at each connection, and by `with_files_read` instead.
    """

    ca_file: str | Path | None = None
    ocsp: bool = False
    server_keys: str | Path | None = None
    verify: bool = True
    server_name: str | None = None
    key_shares: int | None = None
    tickets: TicketStore | None = None
    ech: bytes = b""
    ech_grease: bool = False
    esni: bytes = b""
    remotes: tuple[Endpoint, ...] = ()
    locals: tuple[str, ...] = ()
    first_family: socket.AddressFamily | None = None
    connect_timeout: float = 10.0
    attempt_delay: float = ATTEMPT_DELAY
    files: ClientFiles | None = field(default=None, repr=False, compare=False)

    def with_files_read(self) -> ClientConfig:
        """The same, with what its certificates, keys and authorities are now.

        For a process that is going to give up the right to read them, or that connects often. A copy of it that names
        other files reads those. Raises `ConfigurationError`, which names the file. Blocks.
        """
        return replace(self, files=ClientFiles.read(self))


@dataclass(frozen=True, kw_only=True)
class ServerConfig(CommonConfig):
    """A certificate is needed, or `psks`. Clients that ask for no name, or for an unknown one, get the first; with
    `known_names_only` the latter are refused (unrecognized_name).

    `client_auth`: whether clients are asked for a certificate (REQUEST), and those refused that have none (REQUIRE).
    What they show must lead to `client_ca_file`, a PEM file, or be one of the public keys in `client_keys`, another;
    that of a resumed session still must. Clients with a
    pre-shared key are known by it, and not asked.

    `tickets` is how many session tickets a client gets that does not ask for a number (0: nobody gets any, and none
    is taken); they live `ticket_lifetime` seconds. Their keys are this process's alone, or those of `ticket_keys`, for
    example a `TicketKeyFile`, which others may share. `max_sessions` bounds the sessions at a time, handshakes
    included; further connections wait in the backlog.

    `zero_rtt` is how many bytes of early data a ticket allows (0: none is given, and none accepted). Each ticket serves
    for it once, which this process remembers, or `replay_store`: where `ticket_keys` are shared, that is to be too.

    `ech_keys` and `ech_old_keys` are PEM files (RFC 9934) of keys that open an encrypted ClientHello; clients are
    told the configurations of the former. With `ech_trial`, all of them are tried, whatever id a client names. The
    certificate should be for the public names too. `esni_keys` are pairs of files for the older Encrypted SNI: the keys
    that are published, and a private key of them in PEM.
    """

    known_names_only: bool = False
    client_auth: ClientAuth = ClientAuth.NONE
    client_ca_file: str | Path | None = None
    client_keys: str | Path | None = None
    tickets: int = DEFAULT_TICKETS
    ticket_lifetime: int = DEFAULT_LIFETIME
    ticket_keys: KeyVault | None = None
    zero_rtt: int = 0
    replay_store: ReplayStore | None = None
    ech_keys: tuple[str | Path, ...] = ()
    ech_old_keys: tuple[str | Path, ...] = ()
    ech_trial: bool = False
    esni_keys: tuple[tuple[str | Path, str | Path], ...] = ()
    max_sessions: int = 1000
    backlog: int = 128
