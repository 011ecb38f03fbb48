"""Ends of any configuration: whatever is switched on at either, both agree on everything, or one says why not.

Tickets go from one handshake of a run to the next, whatever has changed at either end meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from tcpls.errors import AlertReceived, ConfigurationError, PeerError
from tcpls.tls.algorithms import Group
from tcpls.tls.config import ClientAuth, ClientConfig, Padding, ServerConfig
from tcpls.tls.connection import ClientConnection, Established, ServerConnection
from tcpls.tls.early_data import EarlyDataPolicy
from tcpls.tls.ech.status import EchStatus
from tcpls.tls.psk import PskMode, import_psk
from tcpls.tls.replay import MemoryReplayStore
from tcpls.tls.suites import CipherSuite
from tcpls.tls.ticket_keys import TicketKeys
from tcpls.tls.tickets import Ticket
from tests.engine import ENGINE
from tests.unit.tls.ech.sealing import FILE, KEYS, OTHER, public_identity
from tests.unit.tls.pair import (
    NAME,
    TIME,
    authority,
    client_config,
    identity,
    issue,
    move,
    seeded,
    server_config,
    trust,
)
from tests.unit.tls.test_client_auth import client_pair
from tests.unit.tls.test_psk import LONG_PSK, PSK, tickets_of
from tests.unit.tls.test_raw_keys import info, raw

NOW = int(TIME.timestamp() * 1000)
OTHER_NAME = "other.example"
KEYS_OF_BOTH = (PSK, LONG_PSK, *import_psk(ENGINE, b"device", bytes(range(32))))
GROUPS = (Group.X25519, Group.SECP256R1, Group.X25519MLKEM768, Group.SECP384R1)
OF_SERVERS = (
    identity(),
    identity("rsa"),
    raw(),
    public_identity(),
    issue(authority(), names=(x509.DNSName(OTHER_NAME),)).identity(),
)
OF_CLIENTS = (client_pair().identity(), client_pair("rsa").identity(), raw("p384"), issue(names=()).identity())


def some(*values: Any, least: int = 1) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(st.sampled_from(values), min_size=least, unique=True).map(tuple)


def switches(**each: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of these settings; all others are as by default."""
    return st.fixed_dictionaries({}, optional=each)


BOTH: dict[str, st.SearchStrategy[Any]] = {
    "suites": some(*CipherSuite),
    "groups": some(*GROUPS),
    "alpn": some(b"a", b"b", b"c", least=0),
    "psks": some(*KEYS_OF_BOTH, least=0),
    "psk_modes": some(*PskMode),
    "record_size_limit": st.sampled_from([None, 64, 512, 16385]),
    "padding": st.builds(Padding, st.sampled_from([1, 100, 16385]), st.sampled_from([1, 64, 16385])),
    "compressions": some(*client_config().compressions, least=0),
}
ASKED_FOR = st.sampled_from([NAME, NAME, None, OTHER_NAME, "nobody.example", "192.0.2.1"])
TRUSTED: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {"trust": None}, {"server_keys": (info(),)}, {"trust": None, "server_keys": (info(),)}]
)
CLIENTS = switches(
    **BOTH,
    shares=st.integers(0, 3),
    ech=st.sampled_from([FILE.configs, OTHER]),
    ech_grease=st.just(True),
    identities=some(*OF_CLIENTS),
    ocsp=st.just(True),
    middlebox_compatibility=st.just(False),
    tickets=st.integers(0, 3),
    extra_extensions=st.just(((0xFA01, bytes(3000)),)),
)


def client_of(name: str | None, trusted: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    return {**others, "server_name": name, **({"trust": None} if name is None else {}), **trusted}


SERVERS = switches(
    **BOTH,
    identities=some(*OF_SERVERS, least=2),
    ech=st.sampled_from([KEYS, replace(KEYS, trial=True)]),
    client_auth=st.sampled_from(ClientAuth),
    client_trust=st.just(trust()),
    client_keys=st.just((info("p384"),)),
    known_names_only=st.just(True),
    ticket_keys=st.none(),
)


@dataclass
class Pair:
    """What both ends keep from one handshake to the next."""

    keys: TicketKeys = field(default_factory=lambda: TicketKeys(ENGINE, seeded(9), 3600))
    replay: MemoryReplayStore = field(default_factory=lambda: MemoryReplayStore(NOW - 1))
    ticket: Ticket | None = None
    turn: int = 0

    def shake(self, client: dict[str, Any], server: dict[str, Any], words: bytes, chunk: int | None) -> None:
        try:
            theirs = server_config(**{"ticket_keys": self.keys, **server})
            if theirs.ticket_keys is not None:
                theirs = replace(theirs, early_data=EarlyDataPolicy(self.replay, 2000))
            ours = client_config(**{"ticket": self.ticket, "early_data": True, "tickets": 1, **client})
        except ConfigurationError:
            return
        self.turn += 1
        time = TIME + timedelta(seconds=self.turn)
        client_end = ClientConnection(ours, random=seeded(2 * self.turn), time=time)
        server_end = ServerConnection(theirs, random=seeded(2 * self.turn + 1), time=time)
        said, heard = words[: client_end.send_early(words)], []
        try:
            while move(client_end, server_end, chunk) or move(server_end, client_end, chunk):
                heard += server_end.early_records()
        except (PeerError, AlertReceived):
            return
        one, other = client_end.established(), server_end.established()
        check(one, other, ours, theirs)
        assert b"".join(heard) == (said if one.early_data.accepted else b"")
        self.ticket = next(iter(tickets_of(one, time.timestamp())), None)


def check(client: Established, server: Established, ours: ClientConfig, theirs: ServerConfig) -> None:
    """Both ends agree, and know each other as well as each wants to."""
    for agreed in ("suite", "group", "signature_scheme", "alpn", "resumed", "retried"):
        assert getattr(client, agreed) == getattr(server, agreed)
    assert client.early_data.accepted is server.early_data.accepted
    assert (client.max_sent, client.max_received) == (server.max_received, server.max_sent)
    assert client.export(b"label", b"", 16) == server.export(b"label", b"", 16)
    assert (client.ech is EchStatus.ACCEPTED) is (server.ech is EchStatus.ACCEPTED)
    assert client.verified or not ours.verifies
    by_key = server.psk_identity is not None
    if theirs.client_auth is ClientAuth.REQUIRE and not by_key:
        assert server.peer_certificates or server.peer_raw_key
    known = theirs.client_trust is not None or bool(theirs.client_keys)
    if server.peer_certificates or server.peer_raw_key:
        assert server.verified is known
    else:
        assert server.verified is by_key


Handshake = tuple[dict[str, Any], dict[str, Any], bytes, int | None]
HANDSHAKES: st.SearchStrategy[list[Handshake]] = st.lists(
    st.tuples(
        st.builds(client_of, ASKED_FOR, TRUSTED, CLIENTS),
        SERVERS,
        st.sampled_from([b"", b"early", bytes(1500)]),
        st.sampled_from([None, 7, 1000]),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=100, deadline=None)
@given(HANDSHAKES)
def test_any_two_ends(handshakes: list[Handshake]) -> None:
    pair = Pair()
    for client, server, words, chunk in handshakes:
        pair.shake(client, server, words, chunk)


def test_the_default_is_not_refused() -> None:
    """That the above shows something at all."""
    pair = Pair()
    for _ in range(3):
        pair.shake({"server_name": NAME}, {}, b"early", None)
        assert pair.ticket is not None
    assert pair.turn == 3
