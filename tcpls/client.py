"""The client's command: `python -m tcpls.client`."""

import sys

from tcpls.no_openssl import keep_out


def main() -> int:
    keep_out(sys.argv)
    from tcpls.cli.client import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
