"""The crypto engine that this run of the tests is about: `pytest --engine NAME`."""

from __future__ import annotations

import os

from tcpls.tls.engine import CryptoEngine
from tcpls.tls.openssl import OPENSSL

VARIABLE = "TCPLS_TEST_ENGINE"
"""How the option reaches test modules, and processes that they start."""

NAME = os.environ.get(VARIABLE, "openssl")

ENGINE: CryptoEngine = OPENSSL
