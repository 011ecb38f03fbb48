"""tlsfuzzer's scripts for servers of TLS 1.3 against ours.

It is in no registry of packages: TCPLS_TLSFUZZER names a checkout of github.com/tlsfuzzer/tlsfuzzer. What it imports is
the extra `tlsfuzzer`. Each script is a test; parts that are left out say why.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tcpls.tls.algorithms import DEFAULT_SCHEMES
from tests.engine import ENGINE
from tests.interop.conftest import Files, Pki
from tests.interop.peer import running

VARIABLE = "TCPLS_TLSFUZZER"
TIMEOUT = 300
PSK_IDENTITY, PSK = "tlsfuzzer", "5b" * 32

TLS_1_2 = "there is no TLS 1.2 here"
FFDHE = "there are no finite field groups here (RFC 7919)"
# The runner of the scripts goes past the alert it expects when the server closes while it still sends, and
# then meets the alert where it expects the end.
LONG_FINISHED = "a message beyond 64 KiB is refused by its header, and whether the script reads the alert is a race"


@dataclass(frozen=True)
class Script:
    """`server`: which of `SERVERS`. `client`: the kind of the client's certificate, where it has one.

    `without`: parts by name, and `why` they are left out.
    """

    name: str
    arguments: tuple[str, ...] = ()
    server: str = "rsa"
    client: str = ""
    without: tuple[str, ...] = ()
    why: str = ""
    known: str = ""
    """Why the whole script cannot pass."""

    @property
    def label(self) -> str:
        return ", ".join(filter(None, (self.name, self.server.removeprefix("rsa"), self.client)))

    @property
    def command(self) -> list[str]:
        excluded = [word for part in self.without for word in ("-e", part)]
        return [f"scripts/test-{self.name}.py", *self.arguments, *excluded]


@dataclass
class Servers:
    """Our server as a process, one for each set of options, started when it is first wanted."""

    pki: Pki
    checkout: Path
    stack: ExitStack
    ports: dict[str, int] = field(default_factory=dict)

    def files(self, kind: str) -> Files:
        if kind == "rsa-pss":
            # No Python library makes one; tlsfuzzer brings it.
            folder = self.checkout / "tests"
            return Files(folder / "serverRSAPSSCert.pem", folder / "serverRSAPSSKey.pem")
        return self.pki.certificates[kind]

    def port(self, name: str) -> int:
        if name not in self.ports:
            kinds, options = SERVERS[name]
            identities = [
                word
                for kind in kinds.split()
                for word in ("-c", self.files(kind).certificate, "-k", self.files(kind).key)
            ]
            if "--client-auth" in options:
                identities += ["--client-ca", self.pki.authority]
            process = self.stack.enter_context(
                running(
                    sys.executable, "-m", "tcpls.server", "--engine", ENGINE.name, *identities, *options, "127.0.0.1:0"
                )
            )
            process.wait_for("congestion controllers")
            self.ports[name] = int(process.output.partition("127.0.0.1:")[2].split()[0])
        return self.ports[name]


SERVERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "rsa": ("rsa", ("--root", ".")),
    "echo": ("rsa", ("--echo",)),
    "p256": ("p256", ("--root", ".")),
    "ecdsa": ("p256 p384 p521", ("--root", ".")),
    "ed25519": ("ed25519", ("--root", ".")),
    "ed448": ("ed448", ("--root", ".")),
    "rsa-pss": ("rsa-pss", ("--root", ".")),
    "mutual": ("rsa", ("--root", ".", "--client-auth", "request")),
    "early": ("rsa", ("--root", ".", "--zero-rtt", "--psk-modes", "psk_dhe_ke,psk_ke")),
    "psk": ("rsa", ("--root", ".", "--psk", f"{PSK_IDENTITY}:{PSK}", "--psk-modes", "psk_dhe_ke,psk_ke")),
}

WITH_PSK = ("--psk", PSK, "--psk-iden", PSK_IDENTITY)
OUR_GROUPS = "x25519mlkem768,secp256r1mlkem768,secp384r1mlkem1024,secp256r1,secp384r1,secp521r1,x25519,x448"
OUR_SCHEMES = " ".join(scheme.label for scheme in DEFAULT_SCHEMES)
TCPLS = range(0xFF10, 0xFF14)
KNOWN_HERE = tuple(word for kind in (19, 20, 27, 58, 64768, 65037, *TCPLS) for word in ("--exc", str(kind)))
"""certificate types, compress_certificate, ticket_request, the two of Encrypted ClientHello, and TCPLS's own."""
OUR_REQUEST = "compress_certificate:CR signature_algorithms_cert:CR 47:CR key_share:SH supported_versions:SH"
"""What a CertificateRequest of ours has; 47 is certificate_authorities."""
LONG_REQUEST = "GET / HTTP/1.0\r\nX-Long: " + "a" * 300 + "\r\n\r\n"

_OF_TLS_1_2 = (
    "sanity",
    "check if server accepts maximum size in TLS 1.0",
    "check if server accepts maximum size in TLS 1.1",
    "check if server accepts maximum size in TLS 1.2",
    "check if server accepts minimal size in TLS 1.0",
    "check if server accepts minimal size in TLS 1.1",
    "check if server accepts minimal size in TLS 1.2",
    "check interaction with sha256 prf",
    "check interaction with sha384 prf",
    "check server sent size in TLS 1.0",
    "check server sent size in TLS 1.0 with max_fragment_length",
    "check server sent size in TLS 1.1",
    "check server sent size in TLS 1.1 with max_fragment_length",
    "check server sent size in TLS 1.2",
    "check server sent size in TLS 1.2 with max_fragment_length",
    "change size in TLS 1.2 resumption",
    "drop extension in TLS 1.2 resumption",
    "empty extension in TLS 1.2",
    "Invalid value in extension in TLS 1.2",
    "padded extension in TLS 1.2",
    "too large record in TLS 1.2",
    "renegotiation with changed limit",
    "renegotiation with dropped extension",
)

_WITH_CCM = tuple(
    f"check connection with {suite}{what}"
    for suite, tag in (("TLS_AES_128_CCM_SHA256", 16), ("TLS_AES_128_CCM_8_SHA256", 8))
    for what in (
        "",
        *(
            f" - fuzz tag on {message} with {1 << bit} on pos {-position}"
            for message in ("application data", "finished message")
            for bit in range(8)
            for position in range(1, tag + 1)
        ),
    )
)

_LONG_FINISHED = tuple(
    f"padding - cipher {suite}, pad_byte 0, pad_left 0, pad_right {size}"
    for suite, tag in (("TLS_AES_128_GCM_SHA256", 32), ("TLS_AES_256_GCM_SHA384", 48))
    for size in (0x20000, 0x30000, 256**3 - 1 - tag)
)

_FFDHE_SHARES = tuple(
    f"{what} from {where} range, key_share of size {size}{more}"
    for what, more in (
        ("known group ffdhe2048 and unknown groups", ""),
        ("only unknown key_share", " + ffdhe2048 in supported_groups"),
    )
    for where in ("EC", "FFDHE")
    for size in (64, 128, 256)
)

SCRIPTS = (
    Script("tls13-conversation"),
    Script("tls13-conversation", server="p256"),
    Script("tls13-conversation", server="ed25519"),
    Script(
        "tls13-0rtt-garbage",
        without=("handshake with invalid 0-RTT and unknown version (downgrade to TLS 1.2)",),
        why=TLS_1_2,
    ),
    Script(
        "tls13-0rtt-garbage",
        server="early",
        without=("handshake with invalid 0-RTT and unknown version (downgrade to TLS 1.2)",),
        why=TLS_1_2,
    ),
    Script("tls13-ccs"),
    Script("tls13-conversation", server="early"),
    Script("tls13-hrr", server="early"),
    Script("tls13-finished", server="early", without=_LONG_FINISHED, why=LONG_FINISHED),
    Script("tls13-count-tickets", ("-t", "2"), server="early"),
    Script(
        "tls13-session-resumption",
        server="early",
        without=("sanity - TLS 1.2", "use TLS 1.2 ticket in TLS 1.3"),
        why=TLS_1_2,
    ),
    Script("tls13-connection-abort"),
    Script("tls13-count-tickets", ("-t", "2")),
    Script(
        "tls13-crfg-curves",
        without=("empty x25519 key share", "empty x448 key share"),
        why="an empty share is against the syntax and so a decode_error (RFC 8446 4.2.8, 6.2); OpenSSL says so too",
    ),
    Script(
        "tls13-dhe-shared-secret-padding",
        without=("TLS 1.3 with ffdhe2048", "TLS 1.3 with ffdhe3072"),
        why=FFDHE,
    ),
    Script("tls13-ecdhe-curves"),
    Script(
        "tls13-ecdsa-support",
        server="ecdsa",
        without=(
            "Test with ecdsa_brainpoolP256r1tls13_sha256",
            "Test with ecdsa_brainpoolP384r1tls13_sha384",
            "Test with ecdsa_brainpoolP512r1tls13_sha512",
        ),
        why="there are no Brainpool curves here",
    ),
    Script("tls13-eddsa", server="ed25519", without=("ed448 only",), why="this server has Ed25519 alone"),
    Script("tls13-eddsa", server="ed448", without=("ed25519 only",), why="this server has Ed448 alone"),
    Script("tls13-rsapss-signatures", server="rsa-pss"),
    Script("tls13-certificate-request", ("-s", OUR_SCHEMES, "-E", OUR_REQUEST), server="mutual", client="rsa"),
    Script("tls13-certificate-verify", ("-s", OUR_SCHEMES), server="mutual", client="rsa"),
    Script("tls13-ecdsa-in-certificate-verify", ("-s", OUR_SCHEMES), server="mutual", client="p256"),
    Script("tls13-ecdsa-in-certificate-verify", ("-s", OUR_SCHEMES), server="mutual", client="p384"),
    Script("tls13-ecdsa-in-certificate-verify", ("-s", OUR_SCHEMES), server="mutual", client="p521"),
    Script("tls13-eddsa-in-certificate-verify", ("-s", OUR_SCHEMES), server="mutual", client="ed25519"),
    Script("tls13-eddsa-in-certificate-verify", ("-s", OUR_SCHEMES), server="mutual", client="ed448"),
    Script("tls13-empty-alert"),
    Script("tls13-ffdhe-groups", known=FFDHE),
    Script("tls13-ffdhe-sanity", known=FFDHE),
    Script("tls13-finished", without=_LONG_FINISHED, why=LONG_FINISHED),
    Script("tls13-finished-plaintext"),
    Script("tls13-hrr"),
    Script("tls13-invalid-ciphers"),
    Script("tls13-keyshare-omitted"),
    Script(
        "tls13-keyupdate",
        without=("multiple KeyUpdate messages",),
        why="wants 32 answers to 32 requests, or exactly one; those that come together get one (RFC 8446 4.6.3)",
    ),
    Script("tls13-keyupdate-from-server", known="wants a server that updates its keys when a page is asked for"),
    Script(
        "tls13-large-number-of-extensions",
        KNOWN_HERE,
        why="the extensions that are known here and not to the script, which sends nonsense in them",
    ),
    Script("tls13-legacy-version"),
    Script("tls13-lengths", server="echo"),
    Script("tls13-mlkem"),
    Script(
        "tls13-multiple-ccs-messages",
        without=(
            "second CCS before client finished",
            "CH and multiple CCS Messages in one TCP packet",
            "multiple CCS Messages in one TCP packet",
        ),
        why="a change_cipher_spec that comes before Finished is dropped (RFC 8446 5), a second one too, up to a bound",
    ),
    Script("tls13-no-unknown-groups", ("--groups", OUR_GROUPS)),
    Script("tls13-nociphers"),
    Script("tls13-obsolete-curves", ("--relaxed", "-a", "handshake_failure")),
    Script("tls13-pkcs-signature"),
    Script("tls13-psk_ke", WITH_PSK, server="psk"),
    Script("tls13-psk_dhe_ke", WITH_PSK, server="psk", without=("ffdhe2048",), why=FFDHE),
    Script("tls13-record-layer-limits"),
    Script("tls13-record-padding"),
    Script("tls13-rsa-signatures"),
    Script(
        "tls13-serverhello-random",
        without=("TLS 1.3 with ffdhe2048", "TLS 1.3 with ffdhe3072"),
        why=FFDHE,
    ),
    Script(
        "tls13-session-resumption",
        server="psk",
        without=("sanity - TLS 1.2", "use TLS 1.2 ticket in TLS 1.3"),
        why=TLS_1_2,
    ),
    Script(
        "tls13-shuffled-extentions",
        KNOWN_HERE,
        why="the extensions that are known here and not to the script, which sends nonsense in them",
    ),
    Script("tls13-signature-algorithms"),
    Script("tls13-symetric-ciphers", without=_WITH_CCM, why="there are no CCM suites here"),
    Script("tls13-unencrypted-alert"),
    Script("tls13-unrecognised-groups", without=_FFDHE_SHARES, why=FFDHE),
    Script("tls13-version-negotiation", known=TLS_1_2),
    Script("tls13-zero-content-type"),
    Script("tls13-zero-length-data"),
    Script(
        "record-size-limit",
        ("--reply-AD-size", str(len(LONG_REQUEST)), "--request", LONG_REQUEST),
        server="echo",
        without=_OF_TLS_1_2,
        why=TLS_1_2,
    ),
)


@pytest.fixture(scope="module")
def checkout() -> Path:
    path = Path(os.environ.get(VARIABLE, ""))
    if not os.environ.get(VARIABLE) or not (path / "scripts").is_dir():
        pytest.skip(f"{VARIABLE} names no checkout of tlsfuzzer")
    for module, package in (("tlslite", "tlslite-ng"), ("kyber_py", "kyber-py")):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{package} is not installed: the extra tlsfuzzer has it")
    return path


@pytest.fixture(scope="module")
def servers(pki: Pki, checkout: Path) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(pki, checkout, stack)


def _parameters() -> Iterator[object]:
    for script in SCRIPTS:
        # A script that passes nevertheless is to be taken off the list.
        marks = [pytest.mark.xfail(reason=script.known, strict=True)] if script.known else []
        yield pytest.param(script, id=script.label, marks=marks)


@pytest.mark.feature("server scripts for TLS 1.3", peer="tlsfuzzer", role="server")
@pytest.mark.parametrize("script", list(_parameters()))
def test_script(
    checkout: Path, servers: Servers, script: Script, record_property: Callable[[str, object], None]
) -> None:
    if script.why:
        count = f"{len(script.without)} of its parts" if script.without else "some of its numbers"
        record_property("left out", f"{count}: {script.why}")
    program, *arguments = script.command
    if script.client:
        files = servers.files(script.client)
        arguments += ["-c", str(files.certificate), "-k", str(files.key)]
    done = subprocess.run(
        [sys.executable, program, "-h", "127.0.0.1", "-p", str(servers.port(script.server)), *arguments],
        cwd=servers.checkout,
        env=os.environ | {"PYTHONPATH": str(servers.checkout)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert re.search(r"^PASS: [1-9]", done.stdout, re.MULTILINE)
