"""Other people's asyncio programs, both ends of each, as they are: HTTP, WebSocket, SMTP, SSH."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Coroutine
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

import aiosmtplib
import asyncssh
import httpcore
import pytest
import uvicorn
import websockets.asyncio.client
import websockets.asyncio.server
from aiosmtpd.smtp import SMTP, Envelope
from aiosmtpd.smtp import Session as SmtpSession

import tcpls
from tests.aio.ends import Ends
from tests.aio.over_tcpls import Loop, run_over_tcpls

MODES = pytest.mark.parametrize("mode", [tcpls.Negotiate.REQUIRE, tcpls.Negotiate.OFF], ids=["tcpls", "ordinary_tls"])
BODY = os.urandom(5 << 20)


def loop() -> Loop:
    return cast("Loop", asyncio.get_running_loop())


def check(ends: Ends, program: Coroutine[Any, Any, None], mode: tcpls.Negotiate) -> None:
    """Runs the program, and looks whether it was TCPLS, or ordinary TLS, that carried it."""
    ran = run_over_tcpls(ends, program, mode)
    assert ran.transports
    for transport in ran.transports:
        session = transport.get_extra_info("tcpls_session")
        assert isinstance(session, tcpls.Session)
        assert session.tcpls is (mode is tcpls.Negotiate.REQUIRE)


@MODES
def test_http_by_uvicorn_and_httpcore(ends: Ends, mode: tcpls.Negotiate) -> None:
    """uvicorn's H11Protocol under its own server, httpcore's pool of connections over anyio."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        assert scope["client"][0] == "127.0.0.1"
        digest = hashlib.sha256()
        more = True
        while more:
            event = await receive()
            digest.update(event.get("body", b""))
            more = event.get("more_body", False)
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"x-digest", digest.hexdigest().encode())]}
        )
        for start in range(0, len(BODY), 1 << 18):
            await send({"type": "http.response.body", "body": BODY[start : start + (1 << 18)], "more_body": True})
        await send({"type": "http.response.body"})

    async def program() -> None:
        config = uvicorn.Config(application, "127.0.0.1", 0, http="h11", ws="none", lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0)
        async with httpcore.AsyncConnectionPool() as pool:

            async def one(content: bytes) -> None:
                answer = await pool.request("POST", f"http://127.0.0.1:{loop().port}/", content=content)
                assert answer.status == 200
                assert answer.content == BODY
                assert (b"x-digest", hashlib.sha256(content).hexdigest().encode()) in answer.headers

            await asyncio.gather(*(one(BODY[: size << 10]) for size in (0, 1, 100, 5000)))
        server.should_exit = True
        await serving

    check(ends, program(), mode)


@MODES
def test_websockets(ends: Ends, mode: tcpls.Negotiate) -> None:
    async def echo(connection: websockets.asyncio.server.ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async def program() -> None:
        async with websockets.asyncio.server.serve(echo, "127.0.0.1", 0, max_size=None):
            uri = f"ws://127.0.0.1:{loop().port}/"
            async with websockets.asyncio.client.connect(uri, max_size=None, proxy=None) as connection:
                for message in ("text", b"bytes", BODY):
                    await connection.send(message)
                    assert await connection.recv() == message
                assert await (await connection.ping()) >= 0
            assert connection.close_code == 1000

    check(ends, program(), mode)


@MODES
def test_smtp_by_aiosmtpd_and_aiosmtplib(ends: Ends, mode: tcpls.Negotiate) -> None:
    """The server speaks first."""

    class Mailbox:
        def __init__(self) -> None:
            self.content = b""

        async def handle_DATA(self, server: SMTP, session: SmtpSession, envelope: Envelope) -> str:
            self.content = cast("bytes", envelope.content)
            assert envelope.rcpt_tos == ["there@example.org"]
            return "250 kept"

    async def program() -> None:
        box = Mailbox()
        server = await loop().create_server(lambda: SMTP(box, hostname="localhost"), "127.0.0.1", 0)
        letter = EmailMessage()
        letter["From"], letter["To"], letter["Subject"] = "here@example.org", "there@example.org", "over TCPLS"
        letter.set_content("a line\n" * 20_000)
        _, said = await aiosmtplib.send(
            letter, hostname="127.0.0.1", port=loop().port, use_tls=False, start_tls=False, timeout=30
        )
        assert said == "kept"
        assert box.content.count(b"a line") == 20_000
        server.close()
        await server.wait_closed()

    check(ends, program(), mode)


class SshServer(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return username != "guest"


@MODES
def test_ssh_by_asyncssh(ends: Ends, mode: tcpls.Negotiate, tmp_path: Path) -> None:
    """Both ends speak first at once; then commands, files, and a connection that is forwarded."""
    (tmp_path / "file").write_bytes(BODY)

    def command(process: asyncssh.SSHServerProcess[str]) -> None:
        process.stdout.write(f"you said {process.command}")
        process.exit(3)

    async def program() -> None:
        key = asyncssh.generate_private_key("ssh-ed25519")
        server = await asyncssh.listen(
            "127.0.0.1", 0, server_factory=SshServer, server_host_keys=[key], process_factory=command, sftp_factory=True
        )
        async with asyncssh.connect(
            "127.0.0.1", loop().port, username="guest", known_hosts=None, config=None, client_keys=None, agent_path=None
        ) as connection:
            done = await connection.run("hello")
            assert (done.stdout, done.exit_status) == ("you said hello", 3)
            async with connection.start_sftp_client() as sftp:
                await sftp.get(str(tmp_path / "file"), str(tmp_path / "copy"))
        assert (tmp_path / "copy").read_bytes() == BODY
        server.close()
        await server.wait_closed()

    check(ends, program(), mode)
