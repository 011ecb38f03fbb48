"""Both engines compute and judge alike."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from datetime import timedelta
from functools import cache

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from tcpls.errors import HandshakeError, PeerError, Reason
from tcpls.tls.algorithms import Group, SignatureScheme
from tcpls.tls.engine import Signer
from tcpls.tls.engines.libraries import Library, library
from tcpls.tls.key_exchange import HYBRIDS
from tcpls.tls.suites import TAG_SIZE, CipherSuite, TrafficKeys
from tests.unit.tls.pair import KINDS, TIME, Pair, issue, leaf, seeded

LIBRARIES = (library("openssl"), library("minicrypto"))

REFUSED = "refused"


def agreed(act: Callable[[Library], object]) -> object:
    """What both give; or the reason why both refuse."""

    def one(each: Library) -> object:
        try:
            return act(each)
        except PeerError as error:
            return error.reason
        except each.engine.invalid_tag:
            return REFUSED

    first, second = map(one, LIBRARIES)
    assert first == second
    return first


def changed(data: bytes, draw: st.DataObject) -> bytes:
    """With a byte or two of it changed, left out or put in."""
    out = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 2))):
        # Signatures differ from run to run in length; what is drawn must not.
        at = draw.draw(st.integers(0, 1 << 12)) % (len(out) + 1)
        out[at : at + draw.draw(st.integers(0, 2))] = draw.draw(st.binary(max_size=2))
    return bytes(out)


@given(st.sampled_from(["sha256", "sha384"]), st.binary(max_size=200), st.binary(max_size=500))
def test_hashes(name: str, key: bytes, data: bytes) -> None:
    def digest(each: Library) -> bytes:
        state = each.engine.hash(name)
        state.update(key)
        copied = state.copy()
        copied.update(data)
        return state.digest() + copied.digest()

    agreed(digest)
    agreed(lambda each: each.engine.hmacs[name](key, data))


@given(st.sampled_from(CipherSuite), st.binary(max_size=300), st.binary(max_size=40), st.data())
def test_aeads(suite: CipherSuite, plain: bytes, data: bytes, draw: st.DataObject) -> None:
    keys = TrafficKeys(suite, bytes(range(suite.key_size)), bytes(12))
    nonce = draw.draw(st.binary(min_size=12, max_size=12))

    def seal(each: Library) -> bytes:
        sealed = bytearray(len(plain) + TAG_SIZE)
        each.engine.aead(keys).encrypt_into(nonce, plain, data, sealed)
        return bytes(sealed)

    def open_it(each: Library, sealed: bytes) -> bytes:
        opened = bytearray(max(0, len(sealed) - TAG_SIZE))
        each.engine.aead(keys).decrypt_into(nonce, sealed, data, opened)
        return bytes(opened)

    sealed = agreed(seal)
    assert isinstance(sealed, bytes)
    assert agreed(lambda each: open_it(each, sealed)) == plain
    received = changed(sealed, draw)
    agreed(lambda each: open_it(each, received))


@given(st.sampled_from(Group), st.data())
@settings(max_examples=200)
def test_shares(group: Group, draw: st.DataObject) -> None:
    """The client's public half, and what either side makes of what the other may have changed on the way."""
    seed = draw.draw(st.integers(0, 99))
    public = agreed(lambda each: each.engine.private_share(group, seeded(seed)).public)
    assert isinstance(public, bytes)
    received = draw.draw(st.one_of(st.just(public), st.just(changed(public, draw)), st.binary(max_size=140)))
    if group in HYBRIDS:
        # What encapsulation draws is the library's own: only whether it happens can be compared.
        agreed(lambda each: len(each.engine.answer_share(group, received, seeded(1))[0]))
        answer, secret = LIBRARIES[0].engine.answer_share(group, public, seeded(1))
        assert agreed(lambda each: each.engine.private_share(group, seeded(seed)).exchange(answer)) == secret
        answer = changed(answer, draw)
    else:
        agreed(lambda each: each.engine.answer_share(group, received, seeded(1)))
        answer = received
    agreed(lambda each: each.engine.private_share(group, seeded(seed)).exchange(answer))


@pytest.mark.parametrize("kind", KINDS)
@given(st.binary(max_size=100), st.data())
@settings(max_examples=40, deadline=None)
def test_signatures(kind: str, data: bytes, draw: st.DataObject) -> None:
    signers = signers_of(kind)
    assert signers[0].schemes == signers[1].schemes
    scheme = draw.draw(st.sampled_from(signers[0].schemes))
    for signer in signers:
        signature = signer.sign(scheme, data)
        for received in (signature, changed(signature, draw)):
            result = agreed(lambda each, sent=received: verify(each, kind, scheme, sent, data))  # type: ignore[misc]
            assert received != signature or result == "genuine"


@pytest.mark.clause("RFC 8446 4.4.3")
def test_a_signature_without_its_leading_zero() -> None:
    """RFC 8017 8.1.2 step 1: a signature of RSA is as long as the modulus. One in 256 begins with a zero."""
    signer = signers_of("rsa")[0]
    scheme = signer.schemes[0]
    found = (
        (data, signer.sign(scheme, data)) for data in (bytes((high, low)) for high in range(40) for low in range(256))
    )
    data, signature = next((data, signature) for data, signature in found if not signature[0])
    for each in LIBRARIES:
        assert verify(each, "rsa", scheme, signature, data) == "genuine"
        with pytest.raises(HandshakeError) as caught:
            verify(each, "rsa", scheme, signature[1:], data)
        assert caught.value.reason is Reason.BAD_SIGNATURE


@cache
def signers_of(kind: str) -> list[Signer]:
    return [each.identity_from_pem(leaf(kind).pem, leaf(kind).key_pem).signer for each in LIBRARIES]


def verify(each: Library, kind: str, scheme: SignatureScheme, signature: bytes, data: bytes) -> str:
    each.engine.public_key(leaf(kind).der).verify(scheme, signature, data)
    return "genuine"


# Paths.

NAMES = ("a.example", "b.a.example", "*.a.example", "example", "c.b.a.example")
ADDRESSES = ("10.0.0.1", "11.0.0.1", "2001:db8::1")
# An empty constraint, which stands for every name, is one that the verifier of `cryptography` refuses.
TREES = (*NAMES[:2], "example")
NETWORKS = ("10.0.0.0/8", "10.0.0.0/31", "2001:db8::/32", "0.0.0.0/0")
PURPOSES = (
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    ExtendedKeyUsageOID.OCSP_SIGNING,
)

general_names: st.SearchStrategy[x509.GeneralName] = st.one_of(
    st.sampled_from(NAMES).map(x509.DNSName),
    st.sampled_from(ADDRESSES).map(lambda text: x509.IPAddress(ipaddress.ip_address(text))),
)
trees: st.SearchStrategy[x509.GeneralName] = st.one_of(
    st.sampled_from(TREES).map(x509.DNSName),
    st.sampled_from(NETWORKS).map(lambda text: x509.IPAddress(ipaddress.ip_network(text))),
)
few_trees = st.none() | st.lists(trees, min_size=1, max_size=2)
usages = st.tuples(st.booleans(), st.booleans()).map(
    lambda bits: x509.KeyUsage(bits[0], False, True, False, False, bits[1], False, False, False)
)
purposes = st.lists(st.sampled_from(PURPOSES), min_size=1, max_size=2, unique=True).map(x509.ExtendedKeyUsage)
constraints = (
    st.tuples(few_trees, few_trees)
    .filter(lambda pair: pair != (None, None))
    .map(lambda pair: x509.NameConstraints(*pair))
)
unknown = st.just(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"))


rare = st.integers(0, 15).map(lambda number: number == 5)


@st.composite
def extensions(draw: st.DrawFn, is_issuer: bool) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    """Mostly in order, so that many paths are good; each of them in one of several ways not."""
    found: list[tuple[x509.ExtensionType, bool]] = []
    if draw(rare):
        found.append((draw(unknown), draw(rare)))
    if draw(st.booleans()):
        good = x509.KeyUsage(True, False, True, False, False, is_issuer, False, False, False)
        found.append((draw(usages) if draw(rare) else good, True))
    if draw(rare):
        found.append((draw(purposes), draw(st.booleans())))
    if is_issuer and draw(st.integers(0, 4)) == 2:
        found.append((draw(constraints), True))
    return tuple(found)


@st.composite
def paths(draw: st.DrawFn) -> list[Pair]:
    """From the root to the end."""
    path: list[Pair] = []
    depth = draw(st.integers(1, 4))
    for level in range(depth + 1):
        is_issuer = level < depth
        odd = draw(rare)
        path.append(
            issue(
                path[-1] if path else None,
                kind=draw(st.sampled_from(("p256", "p384"))),
                names=tuple(draw(st.lists(general_names, min_size=not is_issuer, max_size=0 if is_issuer else 2))),
                ca=(None if odd else True) if is_issuer else draw(st.sampled_from((None, False))),
                path_length=draw(st.sampled_from((None, None, None, 0, 1, 2))) if is_issuer and not odd else None,
                age=timedelta(days=200 if draw(rare) else 1),
                subject=f"level {level}",
                extensions=draw(extensions(is_issuer)),
            )
        )
    return path


@given(paths(), st.data())
@settings(max_examples=150, deadline=None)
def test_paths(path: list[Pair], draw: st.DataObject) -> None:
    root, *rest = path
    alternative = rest[-1].certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    own = [str(each.value).replace("*", "x") for each in alternative]
    name = draw.draw(st.sampled_from((*own, "other" if draw.draw(rare) else own[0])))
    sent = [rest[-1], *draw.draw(st.permutations(rest[:-1]))]
    if draw.draw(rare):
        sent.pop()

    def judge(each: Library) -> str:
        trust = each.trust_from_pem(root.pem, "root")
        try:
            trust.validate([pair.der for pair in sent], name, TIME)
        except PeerError:
            return REFUSED
        return "accepted"

    if sent:
        agreed(judge)


@pytest.mark.parametrize("depth", [1, 8, 9, 10, 11])
def test_depth(depth: int) -> None:
    path = [issue(ca=True, names=(), subject="level 0")]
    for level in range(1, depth):
        path.append(issue(path[-1], ca=True, names=(), subject=f"level {level}"))
    sent = [issue(path[-1], names=(x509.DNSName(NAMES[0]),)), *reversed(path[1:])]

    def judge(each: Library) -> str:
        each.trust_from_pem(path[0].pem, "root").validate([pair.der for pair in sent], NAMES[0], TIME)
        return "accepted"

    assert (agreed(judge) == "accepted") is (depth < 10)
