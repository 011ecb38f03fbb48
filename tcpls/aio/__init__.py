"""The asyncio shell: the only place with sockets and clocks. It runs the actions that the protocol asks for."""
