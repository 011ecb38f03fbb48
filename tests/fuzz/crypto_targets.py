"""Fuzz targets of the two engines: certificates, paths, keys, signatures, shares, and the files that users bring.

Where both engines compute the same thing, a target fails when they do not come to the same answer.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from tcpls.aio.ticket_key_file import TicketKeyFile
from tcpls.aio.tickets import FileTicketStore, TicketScope
from tcpls.errors import CertificateError, ConfigurationError, PeerError, Reason
from tcpls.tls.algorithms import Group, SignatureScheme
from tcpls.tls.ech import keys as ech_keys
from tcpls.tls.engines.libraries import Library, library
from tcpls.tls.hpke import AeadId, HpkeSuite, Kdf, Kem, setup_receiver, setup_sender
from tcpls.tls.key_exchange import HYBRIDS
from tcpls.tls.ocsp import STATUS_REQUEST, check_form, read_status, read_status_request, write_status
from tcpls.tls.suites import CipherSuite
from tcpls.tls.ticket_keys import TicketKey, write_keys
from tcpls.tls.tickets import Ticket
from tcpls.tls.x509.certificate import Certificate
from tcpls.tls.x509.der import SEQUENCE, Der, DerError
from tcpls.tls.x509.extensions import CLIENT_AUTH, SERVER_AUTH
from tcpls.tls.x509.path import check_name, validate_path
from tests.der_writer import ECDSA_SHA256, bits, sequence
from tests.fuzz.target import Target
from tests.unit.tls.pair import KINDS, NAME, TIME, Pair, authority, issue, leaf, seeded
from tests.unit.tls.test_ocsp import delegate, delegated, staple

LIBRARIES = (library("openssl"), library("minicrypto"))
AUTHORITY = LIBRARIES[0].trust_from_pem(authority().pem, "authority")


def both(act: Callable[[Library], object]) -> list[object]:
    """What each library gives, or why it refuses."""

    def one(each: Library) -> object:
        try:
            return act(each)
        except PeerError as error:
            return error.reason

    return [one(each) for each in LIBRARIES]


def agreed(act: Callable[[Library], object]) -> None:
    first, second = both(act)
    assert first == second, (first, second)


# DER, certificates and paths.


def der(data: bytes) -> None:
    """Every element by every reader, and what stands in it likewise."""
    waiting = [data]
    while waiting:
        reader = Der(waiting.pop())
        with suppress(DerError):
            while (tag := reader.tag) is not None:
                element = reader.whole(tag)
                for read in (Der.boolean, Der.flag, Der.integer, Der.bytes_of_bits, Der.named_bits, Der.oid):
                    with suppress(DerError):
                        read(Der(element))
                if tag & 0x20:
                    waiting.append(Der(element).take(tag))


def certificate(data: bytes) -> None:
    with suppress(DerError):
        Certificate.parse(data)


def elements(data: bytes) -> list[bytes]:
    found, reader = [], Der(data)
    with suppress(DerError):
        while reader.tag is not None:
            found.append(reader.whole(SEQUENCE))
    return found


@cache
def trusted() -> list[Certificate]:
    return [Certificate.parse(authority().der)]


def path(data: bytes) -> None:
    """Certificates one behind the other, all of whose signatures are right."""
    with suppress(DerError):
        chain = [Certificate.parse(element) for element in elements(data)]
        for purpose in (SERVER_AUTH, CLIENT_AUTH) if chain else ():
            with suppress(CertificateError):
                validate_path(chain, trusted(), purpose, TIME, lambda issuer, subject: True)
                check_name(chain[0], NAME)


def certificates(data: bytes) -> None:
    """As they are, under both engines: what path.py accepts, the other one accepts too."""
    chain = elements(data) or [data]

    def judge(each: Library) -> str:
        each.engine.public_key(chain[0])
        each.trust_from_pem(authority().pem, "authority").validate(chain, NAME, TIME)
        return "accepted"

    other, strict = both(judge)
    assert strict != "accepted" or other == "accepted"


# What `cryptography` looks at and path.py does not: the values of names' attributes and of names of other forms, of
# which its parser complains; and a rule of RFC 5280 for authorities, which applications must not hold them to.
MORE_THAN_NEEDED = ("ASN.1 parsing error", "must be UtcTime")


def signed_again(data: bytes) -> None:
    """A certificate that its authority signs as it is: what path.py accepts of it, the other one accepts too."""
    key = authority().key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    made = sequence(data, ECDSA_SHA256, bits(key.sign(data, ec.ECDSA(hashes.SHA256()))))
    trusts = {each: each.trust_from_pem(authority().pem, "authority") for each in LIBRARIES}

    def judge(each: Library) -> str:
        try:
            each.engine.public_key(made)
            trusts[each].validate([made], NAME, TIME)
        except CertificateError as error:
            is_strict = error.reason is Reason.BAD_CERTIFICATE or any(each in error.detail for each in MORE_THAN_NEEDED)
            return "too strict" if is_strict else "refused"
        return "accepted"

    other, strict = both(judge)
    assert strict != "accepted" or other != "refused"


def signed_again_seeds() -> list[bytes]:
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    names = (x509.DNSName(NAME), x509.DNSName("*.example"), x509.IPAddress(ip_address("10.0.0.1")))
    made = [
        issue(authority(), kind=kind, names=names, ca=False, extensions=((usage, True), (purposes, False)))
        for kind in KINDS
    ]
    return [each.certificate.tbs_certificate_bytes for each in made]


@cache
def chains() -> list[bytes]:
    usage = x509.KeyUsage(True, False, True, False, False, True, False, False, False)
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    constraints = x509.NameConstraints(
        [x509.DNSName("example"), x509.IPAddress(ip_network("10.0.0.0/8"))], [x509.DNSName("a.example")]
    )
    extensions = ((usage, True), (purposes, False), (constraints, True))
    outer = issue(authority(), ca=True, path_length=2, names=(), subject="outer", extensions=extensions)
    inner = issue(outer, ca=True, path_length=0, names=(), subject="inner", kind="rsa", extensions=extensions[:2])
    names = (x509.DNSName(NAME), x509.DNSName("*.example"), x509.IPAddress(ip_address("10.0.0.1")))
    ends = [issue(inner, names=names, extensions=extensions[:2]), issue(inner, kind="ed25519")]
    paths: list[tuple[Pair, ...]] = [(end, inner, outer) for end in ends]
    return [b"".join(each.der for each in path) for path in (*paths, *((leaf(kind),) for kind in KINDS))]


# What both engines compute.


@cache
def schemes_of(kind: str) -> tuple[SignatureScheme, ...]:
    return leaf(kind).identity().signer.schemes


def signature(data: bytes) -> None:
    """The first byte is the key and the scheme."""
    if not data:
        return
    kind = KINDS[data[0] % len(KINDS)]
    schemes = schemes_of(kind)
    scheme = schemes[data[0] // len(KINDS) % len(schemes)]
    agreed(lambda each: each.engine.public_key(leaf(kind).der).verify(scheme, data[1:], b"data"))


def signature_seeds() -> list[bytes]:
    seeds = []
    for number, kind in enumerate(KINDS):
        signer = leaf(kind).identity().signer
        for at, scheme in enumerate(signer.schemes):
            seeds.append(bytes((number + at * len(KINDS),)) + signer.sign(scheme, b"data"))
    return seeds


GROUPS = tuple(group for group in Group if group in LIBRARIES[0].engine.groups & LIBRARIES[1].engine.groups)


def share(data: bytes) -> None:
    """The first byte is the group; the rest comes from the peer, to either role."""
    if not data:
        return
    group, peer = GROUPS[data[0] % len(GROUPS)], data[1:]
    agreed(lambda each: each.engine.private_share(group, seeded(1)).exchange(peer))
    if group in HYBRIDS:
        # What an encapsulation draws is the library's own.
        agreed(lambda each: each.engine.answer_share(group, peer, seeded(1)) is not None)
    else:
        agreed(lambda each: each.engine.answer_share(group, peer, seeded(1)))


def share_seeds() -> list[bytes]:
    seeds = []
    for number, group in enumerate(GROUPS):
        public = LIBRARIES[0].engine.private_share(group, seeded(1)).public
        seeds += [
            bytes((number,)) + each for each in (public, LIBRARIES[0].engine.answer_share(group, public, seeded(2))[0])
        ]
    return seeds


HPKE_SUITES = tuple(HpkeSuite(kem, kdf, aead) for kem in Kem for kdf in Kdf for aead in AeadId)


def hpke(data: bytes) -> None:
    """The first byte is the suite, the second the length of the encapsulated key; the rest is sealed."""
    if len(data) < 2:
        return
    suite = HPKE_SUITES[data[0] % len(HPKE_SUITES)]
    encapsulated, sealed = data[2 : 2 + data[1]], data[2 + data[1] :]
    agreed(lambda each: opened(each, suite, encapsulated, sealed))


HPKE_KEY = bytes(range(1, 33))


def opened(each: Library, suite: HpkeSuite, encapsulated: bytes, sealed: bytes) -> bytes | None:
    private = each.engine.static_share(suite.kem.group, HPKE_KEY)
    return setup_receiver(each.engine, suite, encapsulated, private, b"info").open(b"data", sealed)


def hpke_seeds() -> list[bytes]:
    seeds = []
    for number, suite in enumerate(HPKE_SUITES):
        engine = LIBRARIES[0].engine
        public = engine.static_share(suite.kem.group, HPKE_KEY).public
        encapsulated, context = setup_sender(engine, suite, public, b"info", seeded(1))
        seeds.append(bytes((number, len(encapsulated))) + encapsulated + context.seal(b"data", b"content"))
    return seeds


# Files that users bring: any of them ends in a sentence about it.


def pem(data: bytes) -> None:
    """A chain and its key in one file; and authorities."""
    for each in LIBRARIES:
        with suppress(ConfigurationError):
            each.identity_from_pem(data, data)
        with suppress(ConfigurationError):
            each.trust_from_pem(data, "authorities")


def pem_seeds() -> list[bytes]:
    seeds = [leaf(kind).pem + leaf(kind).key_pem for kind in KINDS]
    traditional = [
        leaf(kind).key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        for kind in KINDS[:3]
    ]
    return [*seeds, *(leaf(kind).pem + key for kind, key in zip(KINDS[:3], traditional, strict=True))]


@cache
def scratch() -> Path:
    # On the disk that is none: a file is written for every input.
    return Path(tempfile.mkdtemp(prefix="tcpls-fuzz-", dir="/dev/shm"))


def key_files(data: bytes) -> None:
    """Session tickets, ticket keys and keys for Encrypted ClientHello."""
    file = scratch() / "file"
    file.touch(0o600)
    file.write_bytes(data)
    for read in (FileTicketStore, TicketKeyFile):
        with suppress(ConfigurationError):
            read(file)
    for each in LIBRARIES:
        with suppress(ConfigurationError):
            ech_keys.load_keys(each.engine, [(data, "file")], trial=True)


def key_file_seeds() -> list[bytes]:
    ech = ech_keys.generate(LIBRARIES[0].engine, seeded(1), NAME)
    ticket = Ticket(b"identity", bytes(32), CipherSuite.AES_128_GCM_SHA256, 7, 1000.0, 7200, NAME, b"h2", True)
    file = scratch() / "seed"
    file.unlink(missing_ok=True)
    asyncio.run(FileTicketStore(file, clock=lambda: 1000.0).put(TicketScope("a", 1, NAME, "s"), [ticket]))
    return [ech_keys.write_pem(ech).encode(), file.read_bytes(), write_keys([TicketKey(bytes(16), bytes(32), 1)])]


def ocsp_response(data: bytes) -> None:
    """What is believed has the form that is asked for under both engines."""
    try:
        believed = AUTHORITY.check_status(data, [leaf().der], TIME)
    except CertificateError:
        believed = False
    try:
        check_form(data)
    except CertificateError:
        assert not believed
    with suppress(PeerError):
        read_status_request(data)
    with suppress(PeerError):
        read_status(data)


def ocsp_seeds() -> list[bytes]:
    responder = delegate()
    made = [staple(), staple(status=ocsp.OCSPCertStatus.REVOKED), staple(until=None), delegated(responder)]
    return [*made, write_status(made[0]), STATUS_REQUEST]


CRYPTO_TARGETS: dict[str, Target] = {
    "der": Target(der, lambda: [leaf(kind).der for kind in KINDS]),
    "certificate": Target(certificate, lambda: [element for chain in chains() for element in elements(chain)]),
    "path": Target(path, chains),
    "certificates": Target(certificates, chains),
    "signed_again": Target(signed_again, signed_again_seeds),
    "signature": Target(signature, signature_seeds),
    "share": Target(share, share_seeds),
    "hpke": Target(hpke, hpke_seeds),
    "ocsp_response": Target(ocsp_response, ocsp_seeds),
    "pem": Target(pem, pem_seeds),
    "key_files": Target(key_files, key_file_seeds),
}
