"""TCPLS for Python: TLS 1.3 and TCP working together.

::

    async with tcpls.connect("example.org", 4433, config=tcpls.ClientConfig(ca_file="ca.pem")) as session:
        stream = await session.open_stream()
        await stream.write(b"hello")
        await stream.write_eof()
        async for data in stream:
            ...

The public names are those of api.py. They are imported when one of them is first asked for, because asyncio brings
OpenSSL with it: a command that is told to use another engine says so before that (no_openssl.py).
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tcpls.api import *  # noqa: F403
else:

    def __getattr__(name):
        # `from tcpls import api` would ask this function again.
        import tcpls.api as api

        # The import system asks for names of modules, which are none of these.
        if name == "__all__":
            return api.__all__
        if name in api.__all__:
            return getattr(api, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        import tcpls.api as api

        return sorted({*globals(), *api.__all__})
