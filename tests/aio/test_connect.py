"""Connections that the other end ends early: in the handshake, and right behind it."""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from typing import Any

import pytest

import tcpls
from tcpls.aio.establish import shake_hands
from tcpls.errors import HandshakeError, Reason
from tcpls.kernel import sockopts
from tcpls.tls.config import Answer, ServerConfig
from tcpls.tls.connection import ServerConnection
from tcpls.tls.engines import libraries
from tcpls.tls.record import ContentType, RecordOpener
from tests.aio.ends import Ends, run

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: a close is a reset."""


@pytest.mark.parametrize("answered", [False, True], ids=["at once", "behind the ClientHello"])
@pytest.mark.parametrize("ktls", [tcpls.KTLS.OFF, tcpls.KTLS.WHERE_POSSIBLE])
@pytest.mark.parametrize("way", ["end", "reset"])
def test_a_server_that_goes_in_the_handshake(ends: Ends, ktls: tcpls.KTLS, way: str, answered: bool) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)

            async def leave() -> None:
                sock, _ = await loop.sock_accept(listener)
                with sock:
                    if answered:
                        await loop.sock_recv(sock, 1 << 16)
                    if way == "reset":
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                        return
                    sock.shutdown(socket.SHUT_WR)
                    while await loop.sock_recv(sock, 1 << 16):
                        pass

            leaving = asyncio.create_task(leave())
            with pytest.raises((HandshakeError, tcpls.SessionLost)) as caught:
                await ends.connect(listener.getsockname()[1], ktls=ktls)
            await leaving
        if way == "reset":
            assert isinstance(caught.value, tcpls.SessionLost)
            assert "the connection failed during the handshake" in str(caught.value)
        else:
            assert isinstance(caught.value, HandshakeError)
            assert caught.value.reason is Reason.CONNECTION_CLOSED

    run(test())


@pytest.mark.parametrize(
    "ktls", [tcpls.KTLS.OFF, tcpls.KTLS.WHERE_POSSIBLE, pytest.param(tcpls.KTLS.REQUIRE, marks=pytest.mark.ktls)]
)
def test_a_server_that_has_said_all_when_the_session_begins(
    ends: Ends, ktls: tcpls.KTLS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its FIN is there before the client's records begin; the client may go on, in the kernel too."""

    async def and_see_the_end(sock: socket.socket, *words: Any) -> None:
        await shake_hands(sock, *words)
        while sockopts.tcp_info(sock).state != "close-wait":
            await asyncio.sleep(0)

    monkeypatch.setattr("tcpls.aio.client.shake_hands", and_see_the_end)
    heard: list[bytes] = []

    async def handler(session: tcpls.Session) -> None:
        stream = await session.accept_stream()
        await stream.write(b"all that there is")
        await stream.write_eof()
        heard.append(await stream.readall())

    async def test() -> None:
        async with (
            ends.serve(handler, tcpls=tcpls.Negotiate.OFF) as server,
            ends.connect(server.port, ktls=ktls) as session,
        ):
            assert session.info().connections[0].ktls_tx == "on" or ktls is not tcpls.KTLS.REQUIRE
            stream = await session.open_stream()
            await stream.write(b"and this")
            assert await stream.readall() == b"all that there is"

    run(test())
    assert heard == [b"and this"]


@pytest.mark.clause("RFC 8446 6.2")
@pytest.mark.parametrize("answer", [((0xFF10, b"x"),), ((0xFF10, b""), (0xFF13, b"\0"))])
def test_a_server_whose_answer_about_tcpls_is_wrong_is_told(ends: Ends, answer: Any) -> None:
    """TLS itself has nothing against it, so that the alert comes behind the handshake."""
    library = libraries.library("openssl")
    config = ServerConfig((library.load_identity(ends.certificate, ends.key),), answer=lambda hello: Answer(answer))
    server = ServerConnection(config, random=secrets.token_bytes)
    heard: asyncio.Queue[tuple[int, memoryview] | None] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not server.handshake_complete:
            server.receive_data(await reader.read(1 << 16))
            writer.write(server.data_to_send())
        established = server.established()
        secret = established.read_secret
        opener = RecordOpener(secret.engine.aead, secret.keys(), secret.engine.invalid_tag)
        opener.feed(established.unread + await reader.read())
        heard.put_nowait(opener.next_record())
        writer.close()

    async def test() -> None:
        listener = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with listener:
            with pytest.raises(HandshakeError) as caught:
                await ends.connect(listener.sockets[0].getsockname()[1])
            record = await heard.get()
        assert record is not None
        assert (record[0], bytes(record[1])) == (ContentType.ALERT, bytes((2, caught.value.alert)))

    run(test())
