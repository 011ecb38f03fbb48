"""Commands and their parts, in this process or in one of their own."""

from tests.aio.conftest import ends

__all__ = ["ends"]
