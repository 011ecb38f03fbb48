"""The client's part of Encrypted ClientHello (RFC 9849 section 6): what goes out, and whether it was accepted.

A handshake has one `ClientEch`, which its states tell of each hello. The states themselves know one ClientHello: the
inner one, until the server rejects it, and from then on the outer one.
"""

from __future__ import annotations

from dataclasses import replace
from hmac import compare_digest
from typing import Protocol

from tcpls.errors import ConfigurationError, EchRejected, HandshakeError, Reason
from tcpls.tls.config import ClientConfig
from tcpls.tls.ech.configs import EchConfig, choose_config, read_configs
from tcpls.tls.ech.confirmation import CONFIRMATION_SIZE, accept_confirmation, retry_confirmation
from tcpls.tls.ech.extension import INNER, OuterEch
from tcpls.tls.ech.inner import encode_inner
from tcpls.tls.ech.status import EchStatus
from tcpls.tls.extensions import Extensions, ExtensionType, write_server_name
from tcpls.tls.flow import Flow
from tcpls.tls.hpke import AeadId, HpkeSuite, Kdf, Kem, setup_sender
from tcpls.tls.messages import HEADER_SIZE, RANDOM_SIZE, ClientHello, ServerHello
from tcpls.tls.psk import OfferedPsks
from tcpls.tls.suites import TAG_SIZE, CipherSuite, Random
from tcpls.tls.transcript import Transcript
from tcpls.wire import Reader

_ECH = ExtensionType.ENCRYPTED_CLIENT_HELLO
_PSK = ExtensionType.PRE_SHARED_KEY

SHARED = (
    ExtensionType.SUPPORTED_GROUPS,
    ExtensionType.SIGNATURE_ALGORITHMS,
    ExtensionType.SIGNATURE_ALGORITHMS_CERT,
    ExtensionType.SUPPORTED_VERSIONS,
    ExtensionType.KEY_SHARE,
    ExtensionType.STATUS_REQUEST,
    ExtensionType.COMPRESS_CERTIFICATE,
    ExtensionType.RECORD_SIZE_LIMIT,
    ExtensionType.PSK_KEY_EXCHANGE_MODES,
    ExtensionType.TICKET_REQUEST,
    ExtensionType.EARLY_DATA,
    ExtensionType.COOKIE,
)
"""What both hellos have: it tells of this program, not of the server that is asked for (RFC 9849 10.5).

All others are encrypted only: ALPN, TCPLS and whatever else comes from above, raw public keys.
"""


class ClientEch(Protocol):
    """Told of each hello that leaves and comes. `status` is final when the handshake is complete."""

    @property
    def status(self) -> EchStatus: ...

    def prepare(self, hello: ClientHello) -> ClientHello:
        """The ClientHello as it is offered, which may have binders of zeros at its end."""

    def send(self, flow: Flow, message: bytes) -> None:
        """Sends that ClientHello, or what hides it."""

    def judge(self, flow: Flow, answer: ServerHello, suite: CipherSuite) -> Rejected | None:
        """Looks into a ServerHello or HelloRetryRequest. What it gives takes this one's place from now on."""

    def told(self, extensions: Extensions) -> None:
        """What EncryptedExtensions holds."""

    def finish(self, verified: bool) -> None:
        """The handshake is complete. `verified`: so is the server's certificate. Raises `EchRejected`."""


class NoEch:
    """Nothing is offered. Answers that were not asked for are refused where all such are."""

    status = EchStatus.NOT_OFFERED

    def prepare(self, hello: ClientHello) -> ClientHello:
        return hello

    def send(self, flow: Flow, message: bytes) -> None:
        flow.send(message)

    def judge(self, flow: Flow, answer: ServerHello, suite: CipherSuite) -> Rejected | None:
        return None

    def told(self, extensions: Extensions) -> None:
        """Nothing can come."""

    def finish(self, verified: bool) -> None:
        """There is nothing to say."""


NO_ECH = NoEch()


class GreaseEch(NoEch):
    """An extension that looks like a real one (RFC 9849 6.2)."""

    status = EchStatus.GREASE

    def __init__(self, config: ClientConfig, random: Random) -> None:
        self._config = config
        self._random = random

    def prepare(self, hello: ClientHello) -> ClientHello:
        # RFC 9849 6.2: the second ClientHello has the same.
        if _ECH in hello.extensions:
            return hello
        # What a real one would encrypt, with names of unknown length.
        encoded = encode_inner(_as_inner(hello), SHARED, 0)
        chosen, config_id = self._random(2)
        kdf, aead = tuple(Kdf)[chosen % len(Kdf)], tuple(AeadId)[chosen // len(Kdf) % len(AeadId)]
        enc = self._config.engine.private_share(Kem.X25519_HKDF_SHA256.group, self._random).public
        ech = OuterEch(kdf, aead, config_id, enc, self._random(len(encoded) + TAG_SIZE))
        return _with_extension(hello, _ECH, ech.write())

    def judge(self, flow: Flow, answer: ServerHello, suite: CipherSuite) -> Rejected | None:
        _read_confirmation(answer)
        return None

    def told(self, extensions: Extensions) -> None:
        # RFC 9849 6.2: it must be well-formed, and is ignored.
        if _ECH in extensions:
            read_configs(extensions[_ECH])


class RealEch:
    """A ClientHello that is encrypted to the key of a configuration (RFC 9849 6.1)."""

    _outer: ClientHello
    """As it was sent last."""

    def __init__(self, config: ClientConfig, chosen: tuple[EchConfig, HpkeSuite], flow: Flow, random: Random) -> None:
        self.status = EchStatus.REJECTED
        self._config, suite = chosen
        self._suite = suite
        self._random = random
        try:
            self._enc, self._context = setup_sender(
                config.engine, suite, self._config.public_key, self._config.info, random
            )
        except HandshakeError:
            raise ConfigurationError(f"the ECH configuration of {self._config.name} has a key that is none") from None
        # RFC 9849 6.1: of its own, and fresh.
        self._outer_random = random(RANDOM_SIZE)
        self._outer_psks = b""
        self._outer_transcript = Transcript(config.engine)
        self._first = b""
        flow.log_ech(self._outer_random, self._context.shared, self._config.write())

    def prepare(self, hello: ClientHello) -> ClientHello:
        return _as_inner(hello)

    def send(self, flow: Flow, message: bytes) -> None:
        inner = ClientHello.read(Reader(memoryview(message)[HEADER_SIZE:]))
        encoded = encode_inner(inner, SHARED, self._config.maximum_name_length)
        ech = OuterEch(
            self._suite.kdf,
            self._suite.aead,
            self._config.config_id,
            # RFC 9849 6.1.5: the second ClientHello is the second message of the same context.
            b"" if self._first else self._enc,
            bytes(len(encoded) + self._context.overhead),
        )
        outer = self._outer_of(inner)
        sealed = self._context.seal(ech.associated_data(outer), encoded)
        self._outer = replace(ech, payload=sealed).put_into(outer)
        self._first = self._first or message
        raw = self._outer.write()
        self._outer_transcript.add(raw)
        flow.send(raw, hashed=message)

    def _outer_of(self, inner: ClientHello) -> ClientHello:
        """What everybody sees, with an empty place for the extension."""
        extensions: Extensions = {ExtensionType.SERVER_NAME: write_server_name(self._config.name)}
        extensions |= {kind: contents for kind, contents in inner.extensions.items() if kind in SHARED}
        extensions[_ECH] = b""
        if _PSK in inner.extensions:
            # RFC 9849 6.1.5: the second ClientHello may have the same as the first.
            self._outer_psks = self._outer_psks or _grease_psks(inner.extensions[_PSK], self._random)
            extensions[_PSK] = self._outer_psks
        return replace(inner, random=self._outer_random, extensions=extensions)

    def judge(self, flow: Flow, answer: ServerHello, suite: CipherSuite) -> Rejected | None:
        if self._confirms_retry(flow, answer, suite) if answer.is_retry else self._confirms(flow, answer, suite):
            self.status = EchStatus.ACCEPTED
            return None
        # RFC 9849 6.1.5: what a HelloRetryRequest accepted, ServerHello has to accept as well.
        if self.status is EchStatus.ACCEPTED:
            raise HandshakeError(Reason.ILLEGAL_CHOICE, "encrypted_client_hello: accepted by the retry alone")
        flow.transcript = self._outer_transcript
        # RFC 9850: the secrets of a handshake are filed under the random that it used.
        flow.client_random = self._outer_random
        return Rejected(self._config, self._outer)

    def _confirms(self, flow: Flow, hello: ServerHello, suite: CipherSuite) -> bool:
        expected = accept_confirmation(flow.engine, flow.transcript, suite, flow.client_random, hello)
        return compare_digest(hello.random[-CONFIRMATION_SIZE:], expected)

    def _confirms_retry(self, flow: Flow, request: ServerHello, suite: CipherSuite) -> bool:
        confirmation = _read_confirmation(request)
        if confirmation is None:
            return False
        transcript = Transcript(flow.engine)
        transcript.add(self._first)
        transcript.retry(suite)
        expected = retry_confirmation(flow.engine, transcript, suite, flow.client_random, request)
        return compare_digest(confirmation, expected)

    def told(self, extensions: Extensions) -> None:
        # RFC 9849 section 5: not in answer to the inner ClientHello.
        if _ECH in extensions:
            raise HandshakeError(Reason.UNSUPPORTED_EXTENSION, "encrypted_client_hello")

    def finish(self, verified: bool) -> None:
        """Accepted: the handshake is like any other."""


class Rejected(NoEch):
    """The rest of a handshake with the public server, which ends in `EchRejected` (RFC 9849 6.1.6)."""

    status = EchStatus.REJECTED

    def __init__(self, config: EchConfig, hello: ClientHello) -> None:
        self.public_name = config.name
        self.hello = hello
        """The outer ClientHello, as it was sent."""
        self._retry_configs = b""

    def told(self, extensions: Extensions) -> None:
        # RFC 9849 6.1.6: a list that is malformed is a decode_error; one without a known version is like none.
        if _ECH in extensions and read_configs(extensions[_ECH]):
            self._retry_configs = extensions[_ECH]

    def finish(self, verified: bool) -> None:
        # RFC 9849 6.1.6: only of a server that proved its public name.
        raise EchRejected(self.public_name, self._retry_configs if verified else None)


def offer_ech(config: ClientConfig, flow: Flow, random: Random) -> ClientEch:
    """What a new handshake does about Encrypted ClientHello."""
    chosen = choose_config(config.ech)
    if chosen is not None:
        return RealEch(config, chosen, flow, random)
    return GreaseEch(config, random) if config.ech_grease else NO_ECH


def _as_inner(hello: ClientHello) -> ClientHello:
    """The hello as the one that is to be encrypted."""
    # RFC 9849 6.1: the extensions that both hellos have follow one another.
    shared = {kind: contents for kind, contents in hello.extensions.items() if kind in SHARED}
    return _with_extension(replace(hello, extensions=shared | hello.extensions), _ECH, INNER)


def _with_extension(hello: ClientHello, kind: int, contents: bytes) -> ClientHello:
    """With one more extension, ahead of pre_shared_key, which is the last (RFC 8446 4.2.11)."""
    extensions = dict(hello.extensions)
    psks = extensions.pop(_PSK, None)
    extensions[kind] = contents
    if psks is not None:
        extensions[_PSK] = psks
    return replace(hello, extensions=extensions)


def _grease_psks(contents: bytes, random: Random) -> bytes:
    """What stands for pre-shared keys in the outer ClientHello."""
    # RFC 9849 6.1.2: random identities, ages and binders, of the lengths of the real ones.
    real = OfferedPsks.read(contents)
    return OfferedPsks(
        tuple((random(len(identity)), int.from_bytes(random(4), "big")) for identity, _ in real.identities),
        tuple(random(len(binder)) for binder in real.binders),
    ).write()


def _read_confirmation(answer: ServerHello) -> bytes | None:
    """The extension of a HelloRetryRequest; of a ServerHello, where it may not be, nothing."""
    contents = answer.extensions.get(_ECH) if answer.is_retry else None
    # RFC 9849 6.1.4 and 6.2: any other length is a decode_error.
    if contents is not None and len(contents) != CONFIRMATION_SIZE:
        raise HandshakeError(Reason.BAD_LENGTH, "encrypted_client_hello")
    return contents
