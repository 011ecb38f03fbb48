"""The near end: takes local programs' connections, hears where they want to go, and has them carried there."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine

from tcpls import ConnectError, TCPLSError
from tcpls.proxy.carry import Carriage, How, carry, give_up, prepare, reset, say_goodbye
from tcpls.proxy.dialogue import Dialogue, Forward, Passwords
from tcpls.proxy.message import RESET, Code, TargetRefused
from tcpls.proxy.socks import Socks4, Socks5
from tcpls.proxy.target import Target
from tcpls.proxy.tunnel import Tunnel

logger = logging.getLogger("tcpls.proxy")

BACKLOG = 128
ACCEPT_PAUSE = 0.1
"""Seconds without accepting after the process ran out of descriptors or memory."""

DIALOGUE_SECONDS = 10.0
"""For a program to say where it wants to go."""
WORDS = 4096
"""Bytes of a dialogue that are received at once."""

_ENDED = {How.SOCKET: "reset by the program", How.STREAM: "reset by the target", How.STOPPED: "stopped"}
"""For a front; the others are said as they are."""

Begin = Callable[[bytes], Dialogue | None]
"""A dialogue by the first byte of a connection; None: nothing begins so."""


def proxy_dialogue(passwords: Passwords | None) -> Begin:
    """SOCKS 5, SOCKS 4a or, where h11 is installed, HTTP's CONNECT, as the first byte says."""
    try:
        from tcpls.proxy.http_connect import HttpConnect
    except ImportError:
        HttpConnect = None  # type: ignore[assignment,misc]

    def begin(first: bytes) -> Dialogue | None:
        if first == b"\5":
            return Socks5(passwords)
        if first == b"\4":
            return Socks4(passwords)
        if HttpConnect is not None and b"A" <= first <= b"Z":
            return HttpConnect(passwords)
        return None

    return begin


class Front:
    """Listens for local programs. No task outlives `close`."""

    def __init__(self, tunnel: Tunnel, *, connections: int = 256, idle_timeout: float | None = None) -> None:
        """`connections` at a time; more wait in the backlog. `idle_timeout` in seconds; None is for ever."""
        self._tunnel = tunnel
        self._idle_timeout = idle_timeout
        self._slots = asyncio.Semaphore(connections)
        self._listeners: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self, host: str, port: int, service: Target | Begin) -> list[str]:
        """What connects there goes to the target, or says where to. Every address of `host` is listened on.

        Port 0 is one that the kernel chooses. Returns the addresses as HOST:PORT. Raises `ConnectError`.
        """
        listeners: list[socket.socket] = []
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, kind, protocol, _, where in dict.fromkeys(found):
                listener = socket.socket(family, kind, protocol)
                self._listeners.append(listener)
                listener.setblocking(False)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                # Port 0 means the same port for each.
                chosen = port or (listeners[0].getsockname()[1] if listeners else 0)
                listener.bind((where[0], chosen, *where[2:]))
                listener.listen(BACKLOG)
                listeners.append(listener)
        except OSError as error:
            raise ConnectError(f"cannot listen on {host} port {port}: {error.strerror}") from None
        for listener in listeners:
            self._spawn(self._accept(listener, service))
        return [_written(*listener.getsockname()[:2]) for listener in listeners]

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self, listener: socket.socket, service: Target | Begin) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError as error:
                # EMFILE and its like: the connection stays in the backlog until somebody leaves.
                logger.error("cannot accept: %s", error.strerror)
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            try:
                # Not before: a listener that waits for programs must not keep a slot from the other ones.
                await self._slots.acquire()
            except BaseException:
                sock.close()
                raise
            self._spawn(self._serve(sock, service)).add_done_callback(lambda _: self._slots.release())

    async def _serve(self, sock: socket.socket, service: Target | Begin) -> None:
        """One program's connection, from its first byte to its last. Whatever goes wrong with it stays with it."""
        try:
            prepare(sock)
            dialogue = Forward(service) if isinstance(service, Target) else await self._hear(sock, service)
            if dialogue is not None and dialogue.target is not None:
                await self._carry(sock, dialogue, dialogue.target)
        except (OSError, TimeoutError) as error:
            logger.debug("a program went before it was connected: %s", error or "it said nothing")
        except Exception:
            logger.exception("a program's connection")
        finally:
            reset(sock)

    async def _hear(self, sock: socket.socket, begin: Begin) -> Dialogue | None:
        """The dialogue with a target in it; None when the connection is over. Raises `OSError`, `TimeoutError`."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DIALOGUE_SECONDS):
            data = await loop.sock_recv(sock, WORDS)
            dialogue = begin(data[:1]) if data else None
            if dialogue is None:
                logger.debug("a program that speaks neither SOCKS nor HTTP: %r", data[:1])
                return None
            while data:
                dialogue.receive(data)
                if dialogue.target is not None or dialogue.over:
                    break
                await loop.sock_sendall(sock, dialogue.data_to_send())
                data = await loop.sock_recv(sock, WORDS)
        if dialogue.target is not None:
            return dialogue
        if dialogue.over:
            logger.info("a program was refused: %s", dialogue.why)
            await say_goodbye(sock, dialogue.data_to_send())
        return None

    async def _carry(self, sock: socket.socket, dialogue: Dialogue, target: Target) -> None:
        loop = asyncio.get_running_loop()
        try:
            stream, link = await self._tunnel.open(target)
        except TargetRefused as refused:
            logger.warning("%s: %s", target, refused)
            dialogue.answer(refused.code)
            if last := dialogue.data_to_send():
                await say_goodbye(sock, last)
            return
        started, carriage = loop.time(), Carriage()
        logger.debug("%s: connected", target)
        try:
            try:
                dialogue.answer(Code.CONNECTED)
                await loop.sock_sendall(sock, dialogue.data_to_send())
                await stream.write(dialogue.trailing)
            except BaseException:
                give_up(stream, RESET)
                raise
            await carry(sock, stream, link.ended, carriage, idle_timeout=self._idle_timeout)
        except TCPLSError as error:
            logger.info("%s: %s", target, error)
            return
        logger.info(
            "%s: %d bytes there, %d back, %.1f s, %s",
            target,
            carriage.from_socket + len(dialogue.trailing),
            carriage.to_socket,
            loop.time() - started,
            _ENDED.get(carriage.how, carriage.why or carriage.how.value),
        )

    async def close(self) -> None:
        """Stops listening, and resets what is carried."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
