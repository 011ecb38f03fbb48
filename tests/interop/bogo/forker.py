"""One process that has imported everything, and forks for each shim that is asked for: a start costs a tenth then.

A request is one packet on a Unix socket: the arguments with a zero byte behind each, and the three standard
descriptors. The answer is the exit code, as one byte. ask.py asks.
"""

from __future__ import annotations

import array
import gc
import os
import signal
import socket
import sys
import traceback

from tests.interop.bogo.session import run
from tests.interop.bogo.shim import exit_code

REQUEST_SIZE = 1 << 18
_DESCRIPTORS = 3


def listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(64)
    return listener


def serve(listener: socket.socket) -> None:
    """Until it is killed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()
    while True:
        asked, _ = listener.accept()
        with asked:
            if not os.fork():
                listener.close()
                _answer(asked)


def _answer(asked: socket.socket) -> None:
    """Is the shim that was asked for. Does not return."""
    item = array.array("i").itemsize
    data, ancillary, _, _ = asked.recvmsg(REQUEST_SIZE, socket.CMSG_SPACE(_DESCRIPTORS * item))
    descriptors = array.array("i", ancillary[0][2][: _DESCRIPTORS * item])
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    code = 1
    try:
        code = exit_code(run, [os.fsdecode(argument) for argument in data.split(b"\0")[:-1]])
    except Exception:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    asked.send(bytes((code,)))
    os._exit(0)


if __name__ == "__main__":
    waiting = listen(sys.argv[1])
    print("ready", flush=True)
    serve(waiting)
