"""A client that encrypts whatever the test wants, under real keys; and the parts of both ends that tests share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from cryptography import x509

from tcpls.tls.config import Identity
from tcpls.tls.ech.configs import EchConfig, choose_config
from tcpls.tls.ech.extension import INNER, OuterEch
from tcpls.tls.ech.inner import encode_inner
from tcpls.tls.ech.keys import EchKeys
from tcpls.tls.extensions import ExtensionType, write_server_name
from tcpls.tls.flow import Epoch, MessageToSend, Outcome
from tcpls.tls.handshake import ClientHandshake, Handshake, ServerHandshake
from tcpls.tls.hpke import setup_sender
from tcpls.tls.messages import ClientHello
from tests.engine import ENGINE
from tests.unit.tls.ech.test_keys import made
from tests.unit.tls.pair import TIME, authority, client_config, identity, issue, seeded, server_config
from tests.unit.tls.test_server_states import first_hello

ECH = ExtensionType.ENCRYPTED_CLIENT_HELLO
OUTER_EXTENSIONS = ExtensionType.ECH_OUTER_EXTENSIONS
PUBLIC_NAME = "public.example"

FILE = made(1)
CONFIG = FILE.configs[0]
KEYS = EchKeys(FILE.keys(ENGINE, "file"), FILE.configs)
OTHER = made(2).configs
"""Of a key that the server has not."""


@cache
def public_identity() -> Identity:
    return issue(authority(), names=(x509.DNSName(PUBLIC_NAME),), subject="public").identity()


def ech_client(configs: tuple[EchConfig, ...] = FILE.configs, **changes: Any) -> ClientHandshake:
    return ClientHandshake(client_config(ech=configs, **changes), random=seeded(1), time=TIME)


def ech_server(keys: EchKeys | None = KEYS, **changes: Any) -> ServerHandshake:
    config = server_config(identities=(identity(), public_identity()), ech=keys, **changes)
    return ServerHandshake(config, random=seeded(2), time=TIME)


@cache
def inner_hello(**changes: Any) -> ClientHello:
    hello = first_hello(**changes)
    return replace(hello, extensions={**hello.extensions, ECH: INNER})


def outer_hello(inner: ClientHello) -> ClientHello:
    extensions = {**inner.extensions, ExtensionType.SERVER_NAME: write_server_name(PUBLIC_NAME), ECH: b""}
    return replace(inner, random=bytes(32), extensions=extensions)


class Sealing:
    """One HPKE context to a configuration. Each `hello` is its next message."""

    def __init__(self, config: EchConfig = CONFIG) -> None:
        chosen = choose_config((config,))
        assert chosen is not None
        _, self._suite = chosen
        self._config = config
        self.enc, self._context = setup_sender(ENGINE, self._suite, config.public_key, config.info, seeded(3))

    def hello(self, encoded: bytes, outer: ClientHello, **changes: Any) -> ClientHello:
        """The ClientHello with `encoded` in it; `changes` are of its extension, and make no difference to the rest."""
        size = len(encoded) + self._context.overhead
        ech = OuterEch(self._suite.kdf, self._suite.aead, self._config.config_id, self.enc, bytes(size))
        ech = replace(ech, **{name: value for name, value in changes.items() if name != "payload"})
        sealed = self._context.seal(ech.associated_data(outer), encoded)
        return replace(ech, payload=changes.get("payload", sealed)).put_into(outer)

    def of(self, inner: ClientHello, shared: Sequence[int] = (), **changes: Any) -> ClientHello:
        """As a good client would."""
        return self.hello(encode_inner(inner, shared, 0), outer_hello(inner), **changes)


def read_ech(hello: ClientHello) -> OuterEch:
    return OuterEch.read(hello.extensions[ECH])


def handshake(client: ClientHandshake, server: ServerHandshake) -> tuple[Outcome, Outcome]:
    """To its end; what either raises comes out."""
    outcomes: dict[Handshake, Outcome] = {}
    for _ in range(3):
        for sender, receiver in ((client, server), (server, client)):
            for event in sender.events():
                if isinstance(event, Outcome):
                    outcomes[sender] = event
                elif isinstance(event, MessageToSend) and event.epoch is not Epoch.APPLICATION:
                    receiver.receive(receiver.read_epoch, event.data)
    return outcomes[client], outcomes[server]
