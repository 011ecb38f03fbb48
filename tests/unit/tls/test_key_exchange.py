"""Key exchange: every group in both roles, shares that are to be refused, and which shares a client makes."""

from __future__ import annotations

from functools import cache

import pytest

from tcpls.errors import Alert, ConfigurationError, HandshakeError, Reason
from tcpls.tls.algorithms import DEFAULT_GROUPS, Group
from tcpls.tls.config import ClientConfig, ServerConfig
from tcpls.tls.engines.openssl import OpenSSLEngine
from tcpls.tls.extensions import ExtensionType, read_client_shares
from tcpls.tls.flow import MessageToSend
from tcpls.tls.handshake import ClientHandshake
from tcpls.tls.key_exchange import HYBRIDS, client_shares
from tcpls.tls.messages import ClientHello, Message
from tests.engine import ENGINE
from tests.unit.tls.pair import TIME, client_config, identity, make_client, make_server, refused, seeded, shake

HYBRID, P256_HYBRID = Group.X25519MLKEM768, Group.SECP256R1MLKEM768
P384_HYBRID = Group.SECP384R1MLKEM1024

# The points of small order of curve25519, as RFC 7748 section 6.1 has them refused.
SMALL_ORDER = (
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
)
# And of curve448 (RFC 7748 section 4.2): 0, 1, p - 1, p, p + 1, little-endian.
P448 = 2**448 - 2**224 - 1
SMALL_ORDER_448 = tuple(number.to_bytes(56, "little") for number in (0, 1, P448 - 1, P448, P448 + 1))


@cache
def share(group: Group) -> bytes:
    """A client's share."""
    return ENGINE.private_share(group, seeded(3)).public


@cache
def answer(group: Group) -> bytes:
    """A server's share for somebody else's."""
    return ENGINE.answer_share(group, share(group), seeded(4))[0]


# Of a curve both roles send the same form.
BAD_POINTS = [
    *((Group.X25519, bytes.fromhex(point)) for point in SMALL_ORDER),
    (Group.X25519, bytes(31)),
    (Group.X25519, b"\x09" * 33),
    (Group.X25519, b""),
    *((Group.X448, point) for point in SMALL_ORDER_448),
    (Group.X448, b"\5" + bytes(54)),
    (Group.X448, b"\5" + bytes(56)),
    (Group.X448, share(Group.X25519)),
    (Group.SECP256R1, b"\x04" + b"\x01" * 64),
    (Group.SECP256R1, b"\x04" + bytes(64)),
    (Group.SECP256R1, b"\x00"),
    (Group.SECP256R1, b"\x00" * 65),
    (Group.SECP256R1, b""),
    (Group.SECP256R1, share(Group.SECP256R1)[:-1]),
    (Group.SECP256R1, share(Group.SECP256R1) + b"\0"),
    (Group.SECP256R1, b"\x02" + share(Group.SECP256R1)[1:33]),
    (Group.SECP256R1, b"\x06" + share(Group.SECP256R1)[1:]),
    (Group.SECP256R1, b"\x04" + b"\xff" * 64),
    (Group.SECP384R1, b"\x04" + b"\x01" * 96),
    (Group.SECP384R1, share(Group.SECP256R1)),
    (Group.SECP521R1, b"\x04" + b"\x01" * 132),
    (Group.SECP521R1, b"\x04" + b"\xff" * 132),
    (Group.SECP521R1, share(Group.SECP521R1)[:-1]),
]
# ML-KEM's encapsulation key is 1,152 bytes of 12-bit numbers, which must be below 3,329, and a seed of 32.
BAD_SHARES = [
    (HYBRID, share(HYBRID)[:-1]),
    (HYBRID, share(HYBRID) + b"\0"),
    (HYBRID, share(HYBRID)[:1184]),
    (HYBRID, answer(HYBRID)),
    (HYBRID, b"\xff" * 1184 + share(Group.X25519)),
    (HYBRID, b"\x01\x0d" + share(HYBRID)[2:]),
    (HYBRID, share(HYBRID)[:1150] + b"\x1f\xd0" + share(HYBRID)[1152:]),
    (HYBRID, share(HYBRID)[:1184] + bytes(32)),
    (HYBRID, share(HYBRID)[1184:] + share(HYBRID)[:1184]),
    (P256_HYBRID, share(P256_HYBRID)[:-1]),
    (P256_HYBRID, answer(P256_HYBRID)),
    (P256_HYBRID, share(P256_HYBRID)[65:] + share(P256_HYBRID)[:65]),
    (P256_HYBRID, share(P256_HYBRID)[:65] + b"\xff" * 1184),
    (P256_HYBRID, b"\x04" + b"\x01" * 64 + share(P256_HYBRID)[65:]),
    # Of ML-KEM-1024: 1,536 bytes of numbers and 32 of seed.
    (P384_HYBRID, share(P384_HYBRID)[:-1]),
    (P384_HYBRID, share(P384_HYBRID) + b"\0"),
    (P384_HYBRID, share(P256_HYBRID)),
    (P384_HYBRID, share(P384_HYBRID)[97:] + share(P384_HYBRID)[:97]),
    (P384_HYBRID, share(P384_HYBRID)[:97] + b"\x01\x0d" + share(P384_HYBRID)[99:]),
    (P384_HYBRID, b"\x04" + b"\x01" * 96 + share(P384_HYBRID)[97:]),
]
BAD_ANSWERS = [
    (HYBRID, answer(HYBRID)[:-1]),
    (HYBRID, answer(HYBRID) + b"\0"),
    (HYBRID, share(HYBRID)),
    (HYBRID, answer(HYBRID)[:1088] + bytes(32)),
    (P256_HYBRID, answer(P256_HYBRID)[:-1]),
    (P256_HYBRID, share(P256_HYBRID)),
    (P256_HYBRID, answer(P256_HYBRID)[65:] + answer(P256_HYBRID)[:65]),
    (P256_HYBRID, b"\x02" + answer(P256_HYBRID)[1:]),
    (P384_HYBRID, answer(P384_HYBRID)[:-1]),
    (P384_HYBRID, answer(P256_HYBRID)),
    (P384_HYBRID, b"\x02" + answer(P384_HYBRID)[1:]),
]


@pytest.mark.parametrize("group", Group)
def test_key_exchange(group: Group) -> None:
    mine = ENGINE.private_share(group, seeded(1))
    public, secret = ENGINE.answer_share(group, mine.public, seeded(2))
    assert mine.exchange(public) == secret
    assert mine.group is group
    assert any(secret)
    # The client's key comes out of the given random bytes alone.
    assert ENGINE.private_share(group, seeded(1)).public == mine.public
    assert ENGINE.private_share(group, seeded(2)).public != mine.public


@pytest.mark.clause("RFC 8446 7.4.2")
@pytest.mark.parametrize(("group", "public"), BAD_POINTS + BAD_ANSWERS)
def test_bad_answers(group: Group, public: bytes) -> None:
    with pytest.raises(HandshakeError) as caught:
        ENGINE.private_share(group, seeded(1)).exchange(public)
    refused(caught.value, Reason.BAD_KEY_SHARE, Alert.ILLEGAL_PARAMETER)


@pytest.mark.parametrize(("group", "public"), BAD_POINTS + BAD_SHARES)
def test_bad_shares(group: Group, public: bytes) -> None:
    with pytest.raises(HandshakeError) as caught:
        ENGINE.answer_share(group, public, seeded(1))
    refused(caught.value, Reason.BAD_KEY_SHARE, Alert.ILLEGAL_PARAMETER)


def test_layouts() -> None:
    """draft-ietf-tls-ecdhe-mlkem section 4: which half comes first differs, in the secret as in the shares."""
    x25519, p256 = ENGINE.private_share(Group.X25519, seeded(1)), ENGINE.private_share(Group.SECP256R1, seeded(1))
    assert share(HYBRID)[1184:] == ENGINE.private_share(Group.X25519, seeded(3)).public
    assert share(P256_HYBRID)[:65] == ENGINE.private_share(Group.SECP256R1, seeded(3)).public
    kem = share(HYBRID)[:1184]
    public, secret = ENGINE.answer_share(HYBRID, kem + x25519.public, seeded(2))
    assert (len(public), len(secret)) == (1088 + 32, 64)
    assert secret[32:] == x25519.exchange(public[1088:])
    public, secret = ENGINE.answer_share(P256_HYBRID, p256.public + kem, seeded(2))
    assert (len(public), len(secret)) == (65 + 1088, 64)
    assert secret[:32] == p256.exchange(public[:65])
    p384 = ENGINE.private_share(Group.SECP384R1, seeded(1))
    public, secret = ENGINE.answer_share(P384_HYBRID, p384.public + share(P384_HYBRID)[97:], seeded(2))
    assert (len(share(P384_HYBRID)), len(public), len(secret)) == (97 + 1568, 97 + 1568, 48 + 32)
    assert secret[:48] == p384.exchange(public[:97])


def test_a_changed_ciphertext_gives_another_secret() -> None:
    """FIPS 203 has no error here: the handshake fails at the Finished instead."""
    mine = ENGINE.private_share(HYBRID, seeded(1))
    public, secret = ENGINE.answer_share(HYBRID, mine.public, seeded(2))
    other = mine.exchange(bytes((public[0] ^ 1,)) + public[1:])
    assert other[32:] == secret[32:]
    assert other[:32] != secret[:32]


@pytest.mark.parametrize(
    ("groups", "count", "shares"),
    [
        (DEFAULT_GROUPS, None, (HYBRID, Group.X25519)),
        (DEFAULT_GROUPS, 1, (HYBRID,)),
        (DEFAULT_GROUPS, 0, ()),
        (DEFAULT_GROUPS, 4, (HYBRID, P256_HYBRID, Group.X25519, Group.SECP256R1)),
        ((HYBRID,), None, (HYBRID,)),
        ((HYBRID, Group.SECP256R1), None, (HYBRID,)),
        ((P256_HYBRID, Group.X25519, Group.SECP256R1), None, (P256_HYBRID, Group.SECP256R1)),
        ((Group.X25519, HYBRID), None, (Group.X25519,)),
        ((Group.X25519, HYBRID), 2, (Group.X25519, HYBRID)),
        ((Group.X448, Group.SECP521R1), None, (Group.X448,)),
    ],
)
def test_first_shares(groups: tuple[Group, ...], count: int | None, shares: tuple[Group, ...]) -> None:
    made = client_shares(ENGINE, groups, count, seeded(1))
    assert tuple(made) == shares
    for group in shares:
        assert made[group].group is group
        # A curve has the hybrid's key.
        hybrid = next((each for each in shares if each in HYBRIDS and HYBRIDS[each].classical is group), None)
        if hybrid is not None:
            assert made[group].public in made[hybrid].public


def test_shares_in_the_hello() -> None:
    client = ClientHandshake(client_config(), random=seeded(1), time=TIME)
    sent = client.events()[0]
    assert isinstance(sent, MessageToSend)
    hello = ClientHello.read(Message(1, sent.data).body())
    shares = read_client_shares(hello.extensions[ExtensionType.KEY_SHARE])
    assert {group: len(public) for group, public in shares.items()} == {HYBRID: 1216, Group.X25519: 32}


@pytest.mark.parametrize("group", Group)
def test_default_client_needs_no_retry(group: Group) -> None:
    client, server = shake(make_client(), make_server(groups=(group,)))
    assert client.group == server.group == group.label
    assert client.retried is server.retried is (group not in (HYBRID, Group.X25519))


def test_no_share_at_all_asks_for_a_retry() -> None:
    client, server = shake(make_client(shares=0), make_server())
    assert client.retried
    assert server.group == "X25519MLKEM768"


class Older(OpenSSLEngine):
    """As with a library that has no ML-KEM."""

    @property
    def groups(self) -> frozenset[Group]:
        return frozenset((Group.X25519, Group.SECP256R1))


def test_groups_that_the_library_lacks() -> None:
    wanted = (Group.X25519, Group.SECP256R1)
    assert ClientConfig(None, None, engine=Older()).groups == wanted
    assert ServerConfig((identity(),), engine=Older()).groups == wanted
    for groups in ((HYBRID,), (Group.X25519, HYBRID)):
        with pytest.raises(ConfigurationError, match=r"X25519MLKEM768: .*openssl lacks"):
            ClientConfig(None, None, groups=groups, engine=Older())
        with pytest.raises(ConfigurationError, match=r"X25519MLKEM768: .*openssl lacks"):
            ServerConfig((identity(),), groups=groups, engine=Older())
    client, server = shake(make_client(engine=Older(), groups=DEFAULT_GROUPS), make_server())
    assert client.group == server.group == "x25519"


def test_number_of_shares() -> None:
    with pytest.raises(ConfigurationError, match="negative"):
        ClientConfig(None, None, shares=-1)
