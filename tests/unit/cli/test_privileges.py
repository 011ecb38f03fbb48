"""What a process may still do once it has become an ordinary user."""

from __future__ import annotations

import asyncio
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

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
