"""`python -m tcpls`: the same as the command `tcpls`."""

import sys

from tcpls.no_openssl import keep_out


def main() -> int:
    keep_out(sys.argv)
    from tcpls.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
