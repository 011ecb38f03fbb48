"""A process of an application: a server or a client in its namespace.

Given on the command line: "serve" or "fetch". It is told its job and then its orders on standard input, and answers on
standard output, one JSON object a line. It ends when standard input does.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO

from tcpls.lab.jobs import Job, Order, Orders, Place
from tcpls.lab.transfer import Arrivals

APPLICATIONS = {"tcp": "tcpls.lab.over_tcp", "mptcp": "tcpls.lab.over_tcp", "tcpls": "tcpls.lab.over_tcpls"}

_speaking = threading.Lock()


def say(**words: object) -> None:
    words["at"] = time.monotonic()
    with _speaking:
        print(json.dumps(words), flush=True)


def read_job(words: dict[str, Any]) -> Job:
    places = tuple(Place(**place) for place in words.pop("places"))
    return Job(places=places, begin=tuple(words.pop("begin")), **words)


def _obey(lines: Iterator[str], orders: Orders) -> None:
    for line in lines:
        words = json.loads(line)
        say(did=words["do"])
        orders.put(Order(words["do"], words["path"]))
    # Whoever started this is gone, or wants it to be: whatever the application is doing, it is over.
    os._exit(0)


def main(source: TextIO = sys.stdin) -> int:
    role = sys.argv[1]
    lines = iter(source.readline, "")
    job = read_job(json.loads(next(lines)))
    application = importlib.import_module(APPLICATIONS[job.transport])
    orders = Orders()
    if role == "serve":
        threading.Thread(target=_obey, args=(lines, orders), daemon=True).start()
        application.serve(job, say)
    else:
        say(ready=True)
        begin = json.loads(next(lines))["begin"]
        threading.Thread(target=_obey, args=(lines, orders), daemon=True).start()
        arrivals = Arrivals(job.seed, job.size, begin)
        ended = ""
        try:
            application.fetch(job, arrivals, orders, say)
        except TimeoutError as error:
            # The kernel's (a user timeout) has a number, the clock's has none.
            ended = f"TimeoutError: {error}" if error.errno else f"stopped after {job.limit:g} s"
        except Exception as error:
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            ended = f"{type(error).__name__}: {error}"
        say(ended=ended, seconds=time.monotonic() - begin, ticks=arrivals.ticks())
    # Until it is told to end: its namespace is still asked about what it has done.
    threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
