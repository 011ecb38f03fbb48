"""The server's command: `python -m tcpls.server`."""

import sys

from tcpls.cli.server import main

if __name__ == "__main__":
    sys.exit(main())
