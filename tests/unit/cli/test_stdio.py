"""Standard streams and signals: processes whose pipes are closed, blocked, or never end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tcpls
from tcpls.cli.exits import FileError
from tcpls.cli.stdio import StandardInput, StandardOutput
from tests.aio.ends import Ends, run

SECONDS = 30.0


def test_output_into_a_closed_pipe_is_an_error_and_a_blocked_one_no_obstacle() -> None:
    async def test() -> None:
        reader, writer = os.pipe()
        output = StandardOutput(writer)
        await output.write(b"taken")
        assert os.read(reader, 100) == b"taken"
        blocked = asyncio.create_task(output.write(bytes(1 << 20)))
        await asyncio.sleep(0)
        blocked.cancel()
        await asyncio.wait([blocked])
        os.close(reader)
        with pytest.raises(FileError, match="standard output: Broken pipe"):
            await output.write(b"nobody")
        os.close(writer)

    run(test())


def test_input_ends_once_and_its_error_is_told(tmp_path: Path) -> None:
    async def test() -> None:
        reader, writer = os.pipe()
        source = StandardInput(reader)
        os.write(writer, b"words")
        assert await source.read() == b"words"
        os.close(writer)
        assert await source.read() == b""
        os.close(reader)
        folder = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(FileError, match="standard input: Is a directory"):
            await StandardInput(folder).read()
        os.close(folder)

    run(test())


async def start(ends: Ends, port: int, *words: str, **pipes: Any) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "tcpls.client", "--ca-certs", str(ends.ca), "--servername", "localhost", "--quiet"]
    return await asyncio.create_subprocess_exec(*command, "127.0.0.1", str(port), *words, **pipes)


async def flood(session: tcpls.Session) -> None:
    """Bytes without end, on the first stream."""
    stream = await session.accept_stream()
    while True:
        await stream.write(bytes(1 << 16))


def test_a_closed_standard_output_is_exit_code_3(ends: Ends) -> None:
    async def test() -> None:
        async with ends.serve(flood) as server:
            reader, writer = os.pipe()
            client = await start(ends, server.port, stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.PIPE)
            os.close(writer)
            await asyncio.to_thread(os.read, reader, 1)
            os.close(reader)
            _, said = await client.communicate()
            assert client.returncode == 3
            assert said == b"tcpls: standard output: Broken pipe\n"

    run(test())


def test_input_that_never_ends_does_not_hold_up_the_end(ends: Ends) -> None:
    async def bye(session: tcpls.Session) -> None:
        stream = await session.accept_stream()
        await stream.write(b"bye")
        await stream.write_eof()
        await session.wait_ended()

    async def test() -> None:
        async with ends.serve(bye) as server:
            reader, writer = os.pipe()
            os.write(writer, b"x")
            client = await start(ends, server.port, stdin=reader, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            said, errors = await client.communicate()
            assert (client.returncode, said, errors) == (0, b"bye", b"")
            os.close(reader)
            os.close(writer)

    run(test())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_client_whose_output_is_blocked(ends: Ends, number: signal.Signals) -> None:
    """Nobody reads its output: it tells the server all the same, and its exit code is the signal's."""

    async def test() -> None:
        ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

        async def handler(session: tcpls.Session) -> None:
            flooding = asyncio.create_task(flood(session))
            ended.set_result(await session.wait_ended())
            flooding.cancel()
            await session.abort()

        async with ends.serve(handler) as server:
            reader, writer = os.pipe()
            client = await start(ends, server.port, stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.PIPE)
            os.close(writer)
            await asyncio.to_thread(os.read, reader, 1)
            client.send_signal(number)
            _, said = await client.communicate()
            assert client.returncode == 128 + number
            assert said == b""
            told = await ended
            assert isinstance(told, tcpls.SessionClosed)
            assert told.code == 1
            os.close(reader)

    run(test())


def test_output_to_a_reader_that_leaves_is_exit_code_3_for_get_too(ends: Ends) -> None:
    from tcpls.cli.files import FileService

    async def test() -> None:
        async with ends.serve(FileService(None).session) as server:
            reader, writer = os.pipe()
            client = await start(ends, server.port, "get", "/50000000", "-", stdout=writer, stderr=subprocess.PIPE)
            os.close(writer)
            await asyncio.to_thread(os.read, reader, 1)
            os.close(reader)
            _, said = await client.communicate()
            assert client.returncode == 3
            assert said == b"tcpls: standard output: Broken pipe\n"

    run(test())


@pytest.mark.parametrize(("closed", "code"), [("<&-", 3), (">&-", 3), ("2>&-", 0), ("<&- >&- 2>&-", 3)])
def test_a_standard_stream_that_is_closed_is_never_taken_for_a_socket(ends: Ends, closed: str, code: int) -> None:
    async def hello(session: tcpls.Session) -> None:
        stream = await session.accept_stream()
        await stream.write(b"hello")
        async for _ in stream:
            pass
        await stream.write_eof()

    async def test() -> None:
        async with ends.serve(hello) as server:
            command = [sys.executable, "-m", "tcpls.client", "--ca-certs", str(ends.ca), "--servername", "localhost"]
            client = await asyncio.create_subprocess_exec(
                "sh", "-c", f'exec "$@" {closed}', "sh", *command, "127.0.0.1", str(server.port),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            said, errors = await client.communicate(b"words")
            assert client.returncode == code
            assert code or said == b"hello"
            assert b"Traceback" not in errors

    run(test())


def test_a_server_that_says_nothing_is_a_timeout(ends: Ends) -> None:
    async def silent(session: tcpls.Session) -> None:
        await session.wait_ended()

    async def test() -> None:
        async with ends.serve(silent) as server:
            client = await start(ends, server.port, "--timeout", "0.3", "get", "x", stderr=subprocess.PIPE)
            _, said = await client.communicate()
            assert client.returncode == 28
            assert said == b"tcpls: no answer in time\n"

    run(test())


def test_a_server_process_ends_by_a_signal_and_gives_its_port_back(ends: Ends) -> None:
    async def test() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            command = [sys.executable, "-m", "tcpls.server", "-c", str(ends.certificate), "-k", str(ends.key), "--echo"]
            server = await asyncio.create_subprocess_exec(
                *command, "127.0.0.1:0", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            assert server.stderr is not None
            line = (await server.stderr.readline()).decode()
            port = int(line.rpartition(":")[2])
            session = await ends.connect(port)
            stream = await session.open_stream()
            await stream.write(b"x")
            assert await stream.read() == b"x"
            server.send_signal(number)
            await server.communicate()
            assert server.returncode == 128 + number
            ended = await session.wait_ended()
            assert isinstance(ended, tcpls.SessionClosed)
            await session.close(1)
            socket.create_server(("127.0.0.1", port)).close()

    run(test())


def test_the_last_session_is_finished_before_the_server_ends(ends: Ends) -> None:
    """With `--once` and for standard input and output, what was written still goes to a client that reads slowly."""
    data = os.urandom(6 << 20)

    async def test() -> None:
        command = [sys.executable, "-m", "tcpls.server", "-c", str(ends.certificate), "-k", str(ends.key)]
        server = await asyncio.create_subprocess_exec(
            *command, "127.0.0.1:0", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert server.stderr is not None
        port = int((await server.stderr.readline()).decode().rpartition(":")[2])
        talking = asyncio.create_task(server.communicate(data))
        async with ends.connect(port, stream_window=1 << 20, session_window=1 << 20) as session:
            stream = await session.open_stream()
            await stream.write_eof()
            received = []
            while piece := await stream.read(1 << 14):
                received.append(piece)
                await asyncio.sleep(0)
            assert b"".join(received) == data
        await talking
        assert server.returncode == 0

    run(test())
