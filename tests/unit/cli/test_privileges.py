"""What a process may still do once it has become an ordinary user."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

import tcpls
from tcpls import FileTicketStore, MemoryTicketStore
from tests.aio.ends import Ends, run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def facts(pid: int) -> list[dict[str, str]]:
    """The fields of the status of each of a process's threads."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [
        dict(line.split(":\t", 1) for line in (thread / "status").read_text().splitlines() if ":\t" in line)
        for thread in threads
    ]


async def started(ends: Ends, *options: str) -> tuple[asyncio.subprocess.Process, list[str]]:
    """A server, and what it said up to its last line of the start."""
    command = [sys.executable, "-m", "tcpls.server", "-c", str(ends.certificate), "-k", str(ends.key), "--echo"]
    server = await asyncio.create_subprocess_exec(
        *command, *options, "127.0.0.1:0", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert server.stderr is not None
    lines: list[str] = []
    while not lines or "congestion controllers" not in lines[-1]:
        lines.append((await server.stderr.readline()).decode().rstrip())
        assert lines[-1], lines
    return server, lines


@pytest.mark.parametrize("user", ["nobody", "daemon", "root"])
def test_nothing_is_left_of_root(ends: Ends, user: str) -> None:
    async def test() -> None:
        entry = pwd.getpwnam(user)
        server, lines = await started(ends, "--user", user)
        async with ends.connect(int(lines[0].rpartition(":")[2])) as session:
            await session.ping()
        for thread in facts(server.pid):
            assert thread["Uid"].split() == [str(entry.pw_uid)] * 4
            assert thread["Gid"].split() == [str(entry.pw_gid)] * 4
            if user != "root":
                assert not thread["Groups"].strip()
                assert [line for line in lines if "keeps privileges" in line] == []
                assert {int(thread[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
        (main,) = [thread for thread in facts(server.pid) if thread["Pid"].strip() == str(server.pid)]
        assert {int(main[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd")} == {0}
        assert main["NoNewPrivs"].strip() == "1"
        server.terminate()
        await server.communicate()
        assert server.returncode == 143

    run(test())


def test_a_client_reads_what_root_alone_may_read(tmp_path: Path) -> None:
    """Its key, its authorities and its pre-shared keys, before it becomes a user who could not."""
    authority, folder = trustme.CA(), Path("/var/tmp") / f"tcpls-client-{os.getpid()}"
    identity = authority.issue_cert("localhost")
    folder.mkdir()
    try:
        files = {"ca": authority.cert_pem.bytes(), "key": identity.private_key_pem.bytes(), "psks": b"me:" + b"00" * 16}
        files["chain"] = b"".join(blob.bytes() for blob in identity.cert_chain_pems)
        for name, contents in files.items():
            (folder / name).write_bytes(contents)
            (folder / name).chmod(0o600)
        seen: list[tuple[str, str]] = []

        async def test() -> None:
            async def handler(session: tcpls.Session) -> None:
                seen.append((session.info().peer, session.info().psk))
                await (await session.accept_stream()).write_eof()
                await session.wait_ended()

            ends = Ends(folder / "ca", folder / "chain", folder / "key")
            clients = {"client_auth": tcpls.ClientAuth.REQUIRE, "client_ca_file": folder / "ca"}
            psk = tcpls.ExternalPsk(b"me", bytes(16))
            for shown, known in (
                (["-c", str(folder / "chain"), "-k", str(folder / "key")], clients),
                (["--psk", f"@{folder / 'psks'}"], {"psks": (psk,)}),
            ):
                async with ends.serve(handler, **known) as server:
                    command = [
                        sys.executable,
                        "-m",
                        "tcpls.client",
                        "--user",
                        "nobody",
                        "--ca-certs",
                        str(folder / "ca"),
                    ]
                    client = await asyncio.create_subprocess_exec(
                        *command, *shown, f"localhost:{server.port}", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
                    )
                    said = (await client.communicate())[1].decode()
                    assert client.returncode == 0, said

        run(test())
    finally:
        shutil.rmtree(folder)
    assert [psk for _, psk in seen] == ["", "me"]
    assert seen[0][0].startswith("localhost, certificate") and seen[0][0].endswith(", verified")


def test_a_server_that_stays_root_says_so(ends: Ends) -> None:
    async def test() -> None:
        server, lines = await started(ends)
        assert any("keeps privileges (root" in line and "--user" in line for line in lines)
        server.terminate()
        await server.communicate()

    run(test())


def test_a_user_that_does_not_exist_is_exit_code_3(ends: Ends) -> None:
    command = [sys.executable, "-m", "tcpls.server", "-c", str(ends.certificate), "-k", str(ends.key), "--echo"]
    done = subprocess.run(
        [*command, "--user", "no-such-user", "127.0.0.1:0"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 3
    assert "there is no user no-such-user" in done.stderr


def test_ticket_keys_are_the_users_that_serves(ends: Ends, tmp_path: Path) -> None:
    """They are read by root at the start, made by the user at the first handshake, and read by root at the next."""
    folder = Path("/var/tmp") / f"tcpls-keys-{os.getpid()}"
    folder.mkdir(mode=0o700)
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)

    async def test() -> None:
        tickets = tmp_path / "tickets"
        for resumed in (False, True):
            server, lines = await started(ends, "--user", "nobody", "--ticket-keys", str(folder / "keys"))
            port = int(lines[0].rpartition(":")[2])
            if tickets.exists():
                moved = re.sub(r'"port": \d+', f'"port": {port}', tickets.read_text())
                tickets.write_text(moved)
            async with ends.connect(port, tickets=FileTicketStore(tickets)) as session:
                await session.ping()
                assert session.info().resumed is resumed
            status = (folder / "keys").stat()
            assert (status.st_uid, status.st_mode & 0o777) == (nobody.pw_uid, 0o600)
            server.terminate()
            await server.communicate()

    try:
        run(test())
    finally:
        shutil.rmtree(folder)


def test_ticket_keys_that_the_user_cannot_have_are_done_without(ends: Ends, tmp_path: Path) -> None:
    async def test() -> None:
        tmp_path.chmod(0o700)
        keys = tmp_path / "keys"
        server, lines = await started(ends, "--user", "nobody", "--ticket-keys", str(keys))
        store, port = MemoryTicketStore(), int(lines[0].rpartition(":")[2])
        for resumed in (False, True):
            async with ends.connect(port, tickets=store) as session:
                assert session.info().resumed is resumed
                await session.ping()
        server.terminate()
        said = (await server.communicate())[1].decode()
        assert f"ticket keys {keys}: Permission denied; going on with a key of this process's own" in said
        assert not keys.exists()

    run(test())
