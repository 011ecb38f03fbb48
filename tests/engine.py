"""The crypto engine that this run of the tests is about: `pytest --engine NAME`."""

from __future__ import annotations

import os

from tcpls.tls.engines.libraries import library

VARIABLE = "TCPLS_TEST_ENGINE"
"""How the option reaches the modules of tests, which use the engine when they are imported."""

NAME = os.environ.get(VARIABLE, "openssl")

LIBRARY = library(NAME)
ENGINE = LIBRARY.engine
