"""A network process that loads and attaches the programs it is given until it, or its helper, is killed.

Used by test_helper.py. Prints the helper's process id, and then the name of each algorithm that it was given.
"""

from __future__ import annotations

import contextlib
import socket
import sys

from tcpls.errors import KernelUnavailable
from tcpls.kernel.helper_client import HelperClient
from tcpls.kernel.program import Mode, ProgramFile, ProgramPolicy


def main() -> int:
    programs = [ProgramFile.read(path) for path in sys.argv[1:]]
    client = HelperClient.spawn(ProgramPolicy(Mode.AUTHENTICATED, max_loads_per_minute=10_000))
    print(client.pid, flush=True)
    with contextlib.suppress(KernelUnavailable):
        while True:
            for program in programs:
                with socket.create_server(("127.0.0.1", 0)) as listener:
                    sock = socket.create_connection(listener.getsockname())
                with sock:
                    attachment = client.load(program.offer, program.image, sock.fileno(), peer_authenticated=True)
                    print(attachment.algorithm, flush=True)
                    attachment.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
