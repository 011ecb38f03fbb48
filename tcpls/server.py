"""The server's command: `python -m tcpls.server`."""

import sys

from tcpls.no_openssl import keep_out


def main() -> int:
    keep_out(sys.argv)
    from tcpls.cli.server import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
