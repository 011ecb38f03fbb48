"""What a handshake is configured with. Made once, used for many handshakes; keys and certificates are held parsed."""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from tcpls.errors import ConfigurationError
from tcpls.tls.algorithms import DEFAULT_GROUPS, DEFAULT_SCHEMES, CertificateType, Group, SignatureScheme
from tcpls.tls.compression import DEFAULT_COMPRESSIONS, CertificateCompression, usable_compressions
from tcpls.tls.early_data import EarlyDataPolicy
from tcpls.tls.ech.configs import EchConfig, choose_config
from tcpls.tls.ech.keys import EchKeys
from tcpls.tls.engine import CryptoEngine, Signer, Trust, default_engine
from tcpls.tls.extensions import MAX_NAME, MAX_RECORD_SIZE_LIMIT, MIN_RECORD_SIZE_LIMIT, PLACES, Extensions
from tcpls.tls.key_exchange import usable_groups
from tcpls.tls.messages import ClientHello
from tcpls.tls.psk import PreSharedKey, PskMode
from tcpls.tls.static_extensions import of_certificate_request, of_client_hello
from tcpls.tls.suites import CipherSuite
from tcpls.tls.ticket_keys import TicketKeys
from tcpls.tls.tickets import DEFAULT_TICKETS, MAX_REMEMBERED, MAX_TICKETS, Ticket
from tcpls.tls.x509.chain_facts import ChainFacts, chain_facts

if TYPE_CHECKING:
    from tcpls.tls.esni import EsniKey, EsniKeys

DEFAULT_SUITES = (
    CipherSuite.AES_128_GCM_SHA256,
    CipherSuite.AES_256_GCM_SHA384,
    CipherSuite.CHACHA20_POLY1305_SHA256,
)


@lru_cache
def is_address(name: str) -> bool:
    """Whether `name` is an IP address, which is never sent as a server name (RFC 6066 section 3)."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate chain (DER, the end entity's first), its private key, and the names that it is for.

    Without a chain, the key is shown as it is (RFC 7250). `ocsp_response` (DER) goes along to whoever asks for it.
    """

    chain: tuple[bytes, ...]
    signer: Signer = field(repr=False)
    names: tuple[str, ...] = ()
    ocsp_response: bytes = field(default=b"", repr=False)

    @property
    def certificate_type(self) -> CertificateType:
        return CertificateType.X509 if self.chain else CertificateType.RAW_PUBLIC_KEY

    @property
    def entries(self) -> tuple[bytes, ...]:
        """What a Certificate message has of it."""
        return self.chain or (self.signer.public_key_info,)

    @property
    def facts(self) -> ChainFacts:
        return chain_facts(self.chain)

    def serves(self, name: str) -> bool:
        """Whether the certificate is for this host name; a wildcard stands for one label (RFC 9525 6.3).

        A key without one and without names is for all of them.
        """
        if not self.chain and not self.names:
            return True
        name = name.lower()
        label, _, parent = name.partition(".")
        return name in self.names or (label != "" and parent != "" and f"*.{parent}" in self.names)


@dataclass(frozen=True, slots=True)
class Answer:
    """Extensions of the caller's own for EncryptedExtensions; each must have been offered by the client.

    `remembered` goes into the tickets of this connection, and comes back in `Established.remembered` of a resumption.
    `hello_only`: the ServerHello is all that this handshake says, and what comes behind the ClientHello is the
    caller's, who knows by other means what protects it (`ServerConnection.hand_over`). `note` comes back in
    `Established.note`.
    """

    extensions: tuple[tuple[int, bytes], ...] = ()
    remembered: bytes = field(default=b"", repr=False)
    hello_only: bool = False
    note: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if len(self.remembered) > MAX_REMEMBERED:
            raise ConfigurationError(f"a ticket holds {MAX_REMEMBERED} bytes of the application's own")


class ClientAuth(enum.Enum):
    """Whether clients are asked for a certificate, and whether one that has none is refused (RFC 8446 4.3.2)."""

    NONE = "none"
    REQUEST = "request"
    REQUIRE = "require"


_NO_ANSWER = Answer()


def no_answer(hello: ClientHello) -> Answer:
    return _NO_ANSWER


def _check_alpn(names: tuple[bytes, ...]) -> None:
    for name in names:
        if not 1 <= len(name) <= 255:
            raise ConfigurationError(f"the application protocol {name!r} has not 1 to 255 bytes")


def _check_record_size_limit(limit: int | None) -> None:
    if limit is not None and not MIN_RECORD_SIZE_LIMIT <= limit <= MAX_RECORD_SIZE_LIMIT:
        raise ConfigurationError(
            f"a record size limit is {MIN_RECORD_SIZE_LIMIT} to {MAX_RECORD_SIZE_LIMIT} bytes, not {limit}"
        )


@dataclass(frozen=True, slots=True)
class Padding:
    """To a multiple of how many bytes what is in a record is padded (RFC 8446 5.4): its content and content type.

    1 pads nothing. `handshake`: until this end's Finished; it hides the length of certificates and names.
    `data`: everything behind it.
    """

    handshake: int = 1
    data: int = 1

    def __post_init__(self) -> None:
        if not (1 <= self.handshake <= MAX_RECORD_SIZE_LIMIT and 1 <= self.data <= MAX_RECORD_SIZE_LIMIT):
            raise ConfigurationError(f"records are padded to multiples of 1 to {MAX_RECORD_SIZE_LIMIT} bytes")


NO_PADDING = Padding()


def _check_psks(psks: tuple[PreSharedKey, ...], modes: tuple[PskMode, ...]) -> None:
    if not modes:
        raise ConfigurationError("at least one key exchange mode is needed")
    if len({psk.identity for psk in psks}) != len(psks):
        raise ConfigurationError("two pre-shared keys have the same identity")


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """`server_name`: a host name or IP address; the former goes into SNI. `trust`: None accepts any certificate.

    `groups`: the default is what the engine has. `shares`: how many of them get a key share in the first ClientHello;
    None: the first, and with a hybrid also its curve alone. `ticket` resumes a session, if it is still good for
    this server; `psks` are offered behind it. `tickets` is how many new tickets are asked for; 0 says that none are
    of use, unless there is something to resume. `early_data`: to offer it, if the ticket allows it. `identities`: of
    this client, for servers that ask for one; the first that a server can use is shown.
    """

    server_name: str | None
    trust: Trust | None
    suites: tuple[CipherSuite, ...] = DEFAULT_SUITES
    groups: tuple[Group, ...] = DEFAULT_GROUPS
    schemes: tuple[SignatureScheme, ...] = DEFAULT_SCHEMES
    alpn: tuple[bytes, ...] = ()
    extra_extensions: tuple[tuple[int, bytes], ...] = ()
    shares: int | None = None
    middlebox_compatibility: bool = True
    """A session id and change_cipher_spec records that make the handshake look like a resumption (RFC 8446 D.4)."""
    engine: CryptoEngine = field(default_factory=default_engine)
    psks: tuple[PreSharedKey, ...] = ()
    ticket: Ticket | None = None
    psk_modes: tuple[PskMode, ...] = (PskMode.PSK_DHE_KE,)
    tickets: int = 0
    ech: tuple[EchConfig, ...] = ()
    """With them, the ClientHello is encrypted (RFC 9849) to the first that can be used; one must be."""
    ech_grease: bool = False
    """Without them, an extension is sent that looks like that."""
    esni: EsniKeys | None = None
    """With them, Encrypted SNI is used in its place, which is older and hides the name alone."""
    record_size_limit: int | None = MAX_RECORD_SIZE_LIMIT
    """Bytes of content, type and padding that a protected record to this end may have (RFC 8449); None: not said."""
    padding: Padding = NO_PADDING
    early_data: bool = False
    identities: tuple[Identity, ...] = ()
    compressions: tuple[CertificateCompression, ...] = DEFAULT_COMPRESSIONS
    """Of certificates, both ways; the default is what is installed."""
    ocsp: bool = False
    """Whether the server is asked for an OCSP response; one that comes is judged as well as the engine can."""
    server_keys: tuple[bytes, ...] = ()
    """SubjectPublicKeyInfos (DER) that a server may show in place of a certificate (RFC 7250). With them, a certificate
    is taken only if there is `trust` too."""

    hello_extensions: Extensions = field(init=False, repr=False, compare=False)
    """Those of every ClientHello, encoded."""

    @property
    def verifies(self) -> bool:
        """Whether the server must be known."""
        return self.trust is not None or bool(self.server_keys)

    @property
    def server_types(self) -> tuple[CertificateType, ...]:
        """What the server may show, the preferred one first."""
        raw = (CertificateType.RAW_PUBLIC_KEY,) if self.server_keys else ()
        return raw if self.server_keys and self.trust is None else (*raw, CertificateType.X509)

    @property
    def own_types(self) -> tuple[CertificateType, ...]:
        """What this client can show."""
        return tuple(dict.fromkeys(identity.certificate_type for identity in self.identities))

    @property
    def sni(self) -> str | None:
        """The name to ask the server for."""
        return None if self.server_name is None or is_address(self.server_name) else self.server_name

    def __post_init__(self) -> None:
        if self.server_name is None and self.trust is not None:
            raise ConfigurationError("a server name is needed to verify the server's certificate")
        if self.server_name is not None and not is_address(self.server_name):
            object.__setattr__(self, "server_name", _host_name(self.server_name))
        if not (self.suites and self.schemes):
            raise ConfigurationError("at least one cipher suite and one signature scheme is needed")
        object.__setattr__(self, "groups", usable_groups(self.groups, self.engine))
        object.__setattr__(self, "compressions", usable_compressions(self.compressions))
        if self.shares is not None and self.shares < 0:
            raise ConfigurationError("the number of key shares cannot be negative")
        _check_alpn(self.alpn)
        _check_psks(self.psks, self.psk_modes)
        # RFC 9849 8.1.1: a name that was to be hidden does not go out in the clear for want of a configuration.
        if self.ech and choose_config(self.ech) is None:
            raise ConfigurationError(
                f"no ECH configuration can be used: {'; '.join(each.unusable for each in self.ech)}"
            )
        if self.esni is not None and (self.ech or self.server_name is None or is_address(self.server_name)):
            raise ConfigurationError("Encrypted SNI is for host names, and without Encrypted ClientHello")
        _check_record_size_limit(self.record_size_limit)
        if not 0 <= self.tickets <= MAX_TICKETS:
            raise ConfigurationError(f"a client asks for 0 to {MAX_TICKETS} tickets")
        for kind, contents in self.extra_extensions:
            if kind in PLACES or not 0 <= kind <= 0xFFFF or len(contents) > 0xFFFF:
                raise ConfigurationError(f"the extension {kind} cannot be added")
        if len({kind for kind, _ in self.extra_extensions}) != len(self.extra_extensions):
            raise ConfigurationError("an extension is added twice")
        object.__setattr__(self, "hello_extensions", of_client_hello(self))


def _host_name(name: str) -> str:
    """The name in ASCII without the root's dot. Raises `ConfigurationError`."""
    try:
        encoded = name.removesuffix(".").encode("idna").decode("ascii").lower()
    except UnicodeError:
        encoded = ""
    if not 1 <= len(encoded) <= MAX_NAME or not encoded.isprintable() or " " in encoded:
        raise ConfigurationError(f"{name!r} is not a host name")
    return encoded


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The first identity is for clients that ask for no name, or for one that no identity has.

    `answer` is called once per handshake, with the ClientHello that is accepted. It may refuse with a `PeerError`.
    """

    identities: tuple[Identity, ...]
    answer: Callable[[ClientHello], Answer] = no_answer
    suites: tuple[CipherSuite, ...] = DEFAULT_SUITES
    groups: tuple[Group, ...] = DEFAULT_GROUPS
    alpn: tuple[bytes, ...] = ()
    """In the order of preference. When it is empty, what the client offers is ignored."""
    engine: CryptoEngine = field(default_factory=default_engine)
    psks: tuple[PreSharedKey, ...] = ()
    psk_modes: tuple[PskMode, ...] = (PskMode.PSK_DHE_KE,)
    ticket_keys: TicketKeys | None = None
    """With them, tickets are given out and accepted."""
    tickets: int = DEFAULT_TICKETS
    """How many a client gets that does not ask for a number."""
    ech: EchKeys | None = None
    """With them, an encrypted ClientHello is opened (RFC 9849); an identity should be for their public names."""
    esni: tuple[EsniKey, ...] = ()
    """The same of Encrypted SNI."""
    record_size_limit: int | None = MAX_RECORD_SIZE_LIMIT
    """As a client's; told to clients that tell theirs."""
    padding: Padding = NO_PADDING
    early_data: EarlyDataPolicy | None = None
    """With it, tickets allow early data, and it is accepted."""
    client_auth: ClientAuth = ClientAuth.NONE
    client_trust: Trust | None = None
    """Whose clients are known; None: any certificate is taken, and says nothing, unless there are `client_keys`."""
    client_keys: tuple[bytes, ...] = ()
    """As `server_keys` of a client."""
    schemes: tuple[SignatureScheme, ...] = DEFAULT_SCHEMES
    """What clients may sign with."""
    compressions: tuple[CertificateCompression, ...] = DEFAULT_COMPRESSIONS
    """As a client's."""
    known_names_only: bool = False
    """Whether a client is refused that asks for a name which no identity has."""

    request_extensions: Extensions = field(init=False, repr=False, compare=False)
    """Those of every CertificateRequest, encoded."""

    @property
    def client_types(self) -> tuple[CertificateType, ...]:
        """What clients may show, the preferred one first."""
        raw = (CertificateType.RAW_PUBLIC_KEY,) if self.client_keys else ()
        return raw if self.client_keys and self.client_trust is None else (*raw, CertificateType.X509)

    def __post_init__(self) -> None:
        if not (self.identities or self.psks):
            raise ConfigurationError("a server needs a certificate")
        _check_psks(self.psks, self.psk_modes)
        if not 0 <= self.tickets <= MAX_TICKETS:
            raise ConfigurationError(f"a server gives 0 to {MAX_TICKETS} tickets")
        _check_record_size_limit(self.record_size_limit)
        if not (self.suites and self.schemes):
            raise ConfigurationError("at least one cipher suite and one signature scheme is needed")
        if self.early_data is not None and self.ticket_keys is None:
            raise ConfigurationError("early data needs tickets")
        object.__setattr__(self, "groups", usable_groups(self.groups, self.engine))
        object.__setattr__(self, "compressions", usable_compressions(self.compressions))
        _check_alpn(self.alpn)
        asks = self.client_auth is not ClientAuth.NONE
        object.__setattr__(self, "request_extensions", of_certificate_request(self) if asks else {})
