"""`python -m tcpls`: the same as the command `tcpls`."""

import sys

from tcpls.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
