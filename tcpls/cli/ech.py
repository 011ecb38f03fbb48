"""`tcpls ech`: keys and configurations for Encrypted ClientHello."""

from __future__ import annotations

import argparse
import base64
import os
import secrets
import time
from pathlib import Path

from tcpls.cli.exits import Exit
from tcpls.errors import ConfigurationError
from tcpls.tls.ech.configs import AEADS, KDFS, KEMS, EchConfig, is_public_name, write_configs
from tcpls.tls.ech.keys import EchFile, generate, read_file, write_pem
from tcpls.tls.engines.libraries import ENGINE_NAMES, library
from tcpls.tls.esni import write_keys
from tcpls.tls.hpke import AeadId, Kdf, Kem

_KEM_NAMES = {"x25519": Kem.X25519_HKDF_SHA256, "p256": Kem.P256_HKDF_SHA256}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `ech` and its commands; each sets `run`, a function from the parsed arguments to an exit code."""
    parser = subparsers.add_parser("ech", help="Encrypted ClientHello: make keys, look at configurations")
    commands = parser.add_subparsers(dest="ech_command", required=True, metavar="COMMAND")

    keygen = commands.add_parser("keygen", help="make a key and its configuration, as one PEM file (RFC 9934)")
    keygen.add_argument(
        "--public-name", required=True, metavar="NAME", help="the name that everybody sees; the server proves it too"
    )
    keygen.add_argument("-o", "--output", type=Path, metavar="FILE", help="a new file, for its owner alone (stdout)")
    keygen.add_argument("--kem", choices=sorted(_KEM_NAMES), default="x25519", help="the kind of key (x25519)")
    keygen.add_argument("--config-id", type=int, metavar="N", help="0 to 255; a random one if not given")
    keygen.add_argument(
        "--max-name-length", type=int, default=0, metavar="N", help="the longest hidden name; clients pad theirs to it"
    )
    keygen.add_argument("--engine", default="openssl", choices=ENGINE_NAMES, help="the cryptographic library")
    keygen.set_defaults(run=_keygen)

    esni = commands.add_parser("esni-keygen", help="make keys for the older Encrypted SNI: FILE, and FILE.key")
    esni.add_argument("--public-name", default="", metavar="NAME", help="the name that everybody sees (none)")
    esni.add_argument("--days", type=int, default=90, metavar="N", help="how long they are good for (90)")
    esni.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    esni.set_defaults(run=_esni_keygen)

    show = commands.add_parser("show", help="show what a file or a base64 text has, without the private key")
    show.add_argument("what", metavar="FILE|BASE64")
    show.set_defaults(run=_show)


def read_argument(text: str) -> EchFile:
    """A file, or base64 as it stands in the DNS. Raises `ConfigurationError`."""
    path = Path(text)
    try:
        is_file = path.exists() and not path.is_dir()
    except (OSError, ValueError):
        # A long base64 text is no name that a file can have.
        is_file = False
    if not is_file:
        return read_file(text.encode(), f"{text[:40]!r}, which is no file")
    try:
        return read_file(path.read_bytes(), text)
    except OSError as error:
        raise ConfigurationError(f"{text}: {error.strerror}") from None


def read_list(text: str) -> bytes:
    """The same as an ECHConfigList of what is known here. Raises `ConfigurationError` when there is nothing."""
    configs = read_argument(text).configs
    if not configs:
        raise ConfigurationError("--ech: no configuration is of a version that is known")
    return write_configs(configs)


def _keygen(arguments: argparse.Namespace) -> int:
    file = generate(
        library(arguments.engine).engine,
        secrets.token_bytes,
        arguments.public_name,
        kem=_KEM_NAMES[arguments.kem],
        config_id=arguments.config_id,
        maximum_name_length=arguments.max_name_length,
    )
    text = write_pem(file)
    if arguments.output is None:
        print(text, end="")
        return Exit.OK
    _create(arguments.output, text.encode())
    _print(file)
    return Exit.OK


def _esni_keygen(arguments: argparse.Namespace) -> int:
    engine, kem = library("openssl").engine, Kem.X25519_HKDF_SHA256
    private, now = secrets.token_bytes(32), int(time.time())
    name: str = arguments.public_name
    if name and not is_public_name(name.encode("ascii", "replace")):
        raise ConfigurationError(f"{name!r} is not a host name")
    validity = (now, now + arguments.days * 86400)
    contents = write_keys(engine, (engine.static_share(kem.group, private),), validity, public_name=name)
    _create(arguments.output.with_name(arguments.output.name + ".key"), write_pem(EchFile((), private, kem)).encode())
    _create(arguments.output, contents)
    return Exit.OK


def _create(path: Path, contents: bytes) -> None:
    """A new file, for its owner alone."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as output:
            output.write(contents)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    print(path)


def _show(arguments: argparse.Namespace) -> int:
    _print(read_argument(arguments.what))
    return Exit.OK


def _print(file: EchFile) -> None:
    for config in file.configs:
        for label, value in _rows(config):
            print(f"{label:<14}{value}")
    if not file.configs:
        print("no configuration of the version that RFC 9849 has")
    print(f"{'private key':<14}{'in this file' if file.private else 'not here'}")
    print(f"{'for the DNS':<14}ech={base64.b64encode(write_configs(file.configs)).decode('ascii')}")


def _rows(config: EchConfig) -> list[tuple[str, str]]:
    kem = Kem(config.kem).label if config.kem in KEMS else f"{config.kem:#06x}"
    rows = [
        ("config id", str(config.config_id)),
        ("public name", config.name),
        ("KEM", kem),
        ("public key", config.public_key.hex()),
        ("suites", ", ".join(_suite(*suite) for suite in config.suites)),
        ("longest name", str(config.maximum_name_length) if config.maximum_name_length else "not said"),
    ]
    rows += [("extension", f"{kind:#06x}, {len(contents)} bytes") for kind, contents in config.extensions]
    return [*rows, ("usable", f"no: {config.unusable}" if config.unusable else "yes")]


def _suite(kdf: int, aead: int) -> str:
    hash_label = Kdf(kdf).label if kdf in KDFS else f"{kdf:#06x}"
    aead_label = AeadId(aead).label if aead in AEADS else f"{aead:#06x}"
    return f"{hash_label} with {aead_label}"
