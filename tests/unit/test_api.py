"""The public names, and what importing the package alone brings in."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tcpls
from tcpls import api


def test_every_public_name_is_the_package_s() -> None:
    for name in api.__all__:
        assert getattr(tcpls, name) is getattr(api, name)
    assert set(api.__all__) < set(dir(tcpls))
    star: dict[str, object] = {}
    exec("from tcpls import *", star)
    assert set(api.__all__) <= set(star)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(tcpls, "no" + "thing")
    with pytest.raises(ImportError):
        exec("from tcpls import nothing")
    # Imported by api.py, and not public.
    assert not hasattr(tcpls, "annotations")


def test_the_package_alone_imports_nothing() -> None:
    script = "import sys, tcpls; print(any(name in sys.modules for name in ('asyncio', '_ssl', '_hashlib')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr
