"""The shim that BoringSSL's runner starts for each of its tests: our engine in place of theirs.

Exit codes: 0 as the flags want it, 1 not so (standard error says why), 89 for what this engine does not have.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[3]


def _without_shell() -> None:
    """The package's own names bring asyncio and everything above the engine, which every start would pay for."""
    package = ModuleType("tcpls")
    package.__path__ = [str(ROOT / "tcpls")]
    sys.modules["tcpls"] = package
    sys.path.insert(0, str(ROOT))


def exit_code(run: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """What session.py's `run` comes to."""
    from tests.interop.bogo.flags import UNIMPLEMENTED, Unimplemented

    if arguments == ["-is-handshaker-supported"]:
        print("No")
        return 0
    try:
        return run(arguments)
    except Unimplemented as what:
        print(f"unimplemented: {what}", file=sys.stderr)
        return UNIMPLEMENTED


def main() -> int:
    _without_shell()
    from tests.interop.bogo.session import run

    return exit_code(run, sys.argv[1:])


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Nothing is left to do that taking the interpreter down in order would be good for.
    os._exit(code)
