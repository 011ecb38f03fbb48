"""Certificates on the command line: this end's own, and whom to trust."""

from __future__ import annotations

import argparse
from itertools import zip_longest
from typing import Any

from tcpls import ClientAuth, Credential, ProgramMode, ProgramPolicy
from tcpls.cli.exits import UsageError
from tcpls.cli.options import split


def add_certificates(parser: argparse._ArgumentGroup) -> None:
    """This end's own, of either role."""
    parser.add_argument(
        "-c",
        "--certificate",
        action="append",
        default=[],
        metavar="FILE",
        help="PEM certificate chain, leaf first; may be repeated, each with its -k",
    )
    parser.add_argument(
        "-k", "--private-key", action="append", default=[], metavar="FILE", help="PEM private key of the leaf"
    )
    parser.add_argument(
        "--ocsp",
        action="append",
        default=[],
        metavar="FILE",
        help="OCSP response (DER) for the first -c, again for the second, and so on",
    )
    parser.add_argument(
        "--raw-key",
        action="append",
        default=[],
        metavar="FILE",
        help="PEM private key that is shown without a certificate (RFC 7250) to who takes that; may be repeated",
    )
    parser.add_argument(
        "--compress-certificates",
        metavar="LIST",
        help="how, in order: brotli,zstd,zlib or none of them (those that are installed)",
    )


def add_server_names(parser: argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "--known-names-only", action="store_true", help="refuse clients that ask for a name of no certificate"
    )


def add_client_authentication(parser: argparse._ArgumentGroup) -> None:
    """What a server wants to know of its clients."""
    parser.add_argument(
        "--client-auth",
        default="none",
        choices=[each.value for each in ClientAuth],
        help="ask clients for a certificate, or refuse those without one (none)",
    )
    parser.add_argument("--client-ca", metavar="FILE", help="PEM authorities that clients' certificates must lead to")
    parser.add_argument("--client-keys", metavar="FILE", help="PEM public keys that clients may show instead")


def compressions(arguments: argparse.Namespace) -> tuple[str, ...] | None:
    names = arguments.compress_certificates
    if names is None:
        return None
    return () if names == "none" else split(names)


def credentials(arguments: argparse.Namespace) -> tuple[Credential, ...]:
    """Raises `UsageError` unless each certificate has its key."""
    if len(arguments.certificate) != len(arguments.private_key):
        raise UsageError("each -c needs its -k, and each -k its -c")
    if len(arguments.ocsp) > len(arguments.certificate):
        raise UsageError("each --ocsp needs its -c")
    certified = zip_longest(arguments.certificate, arguments.private_key, arguments.ocsp)
    return (
        *(Credential(certificate=each, private_key=key, ocsp_response=status) for each, key, status in certified),
        *(Credential(private_key=key) for key in arguments.raw_key),
    )


def client_authentication(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings of a server. Raises `UsageError`."""
    asked = ClientAuth(arguments.client_auth)
    known = arguments.client_ca or arguments.client_keys
    if asked is not ClientAuth.NONE and not known:
        raise UsageError(f"--client-auth {asked.value} needs --client-ca or --client-keys")
    if asked is ClientAuth.NONE and known:
        raise UsageError("--client-ca and --client-keys need --client-auth")
    return {"client_auth": asked, "client_ca_file": arguments.client_ca, "client_keys": arguments.client_keys}


def check_policy(policy: ProgramPolicy, *, knows_peers: bool, how: str) -> None:
    """Raises `UsageError` for a policy that could never accept anything."""
    if policy.mode is ProgramMode.AUTHENTICATED and not knows_peers:
        raise UsageError(f"--accept-cc authenticated needs {how}")
