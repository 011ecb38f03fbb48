"""The client's command: `python -m tcpls.client`."""

import sys

from tcpls.cli.client import main

if __name__ == "__main__":
    sys.exit(main())
