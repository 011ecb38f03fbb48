"""The file service, spoken to byte by byte: targets, uploads, pipelines, and files that change."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import tcpls
from tcpls.cli.files import FileService, path_of
from tests.aio.ends import Ends, run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "a file & more %41.txt").write_text("spaces\n")
    (folder / "größe.txt").write_text("unicode\n")
    (folder / os.fsdecode(b"latin-\xe9.txt")).write_text("no UTF-8\n")
    (folder / "sub" / "inner").write_text("inner\n")
    (tmp_path / "secret").write_text("secret\n")
    (tmp_path / "root-not").mkdir()
    (tmp_path / "root-not" / "secret").write_text("secret\n")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "outside").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    (folder / "in").symlink_to("sub/inner")
    return folder


def answer(ends: Ends, service: FileService, *parts: bytes, **settings: Any) -> bytes:
    """What the service says to these bytes on one stream, whose end follows them."""
    said = b""

    async def test() -> None:
        nonlocal said
        async with ends.serve(service.session) as server, ends.connect(server.port, **settings) as session:
            stream = await session.open_stream()
            for part in parts:
                await stream.write(part)
            await stream.write_eof()
            said = await stream.readall()

    run(test())
    return said


def status(said: bytes) -> int:
    return int(said.split()[1])


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/a%20file%20&%20more%20%2541.txt", b"spaces\n"),
        ("/gr%C3%B6%C3%9Fe.txt", b"unicode\n"),
        ("/latin-%E9.txt", b"no UTF-8\n"),
        ("/sub/inner?query#fragment", b"inner\n"),
        ("/sub/../sub/inner", b"inner\n"),
        ("//sub//inner", b"inner\n"),
        ("/in", b"inner\n"),
        ("http://localhost/sub/inner", b"inner\n"),
        ("/3", None),
    ],
)
def test_names_of_files(ends: Ends, root: Path, target: str, body: bytes | None) -> None:
    said = answer(ends, FileService(root), f"GET {target} HTTP/1.0\r\n\r\n".encode())
    assert status(said) == 200
    assert body is None or said.endswith(b"\r\n\r\n" + body)


@pytest.mark.parametrize(
    "target",
    [
        "/../secret", "/%2e%2e/secret", "/..%2fsecret", "/sub/../../secret", "/out", "/outside/secret", "/outside",
        "/../root-not/secret", "/loop", "/loop/x", "/", "/sub", "/sub/", "/%00", "/" + "a" * 5000, "//[x", "*",
        "http://[::1", "/99999999999999999", "/%", "/%zz",
    ],
)  # fmt: skip
def test_nothing_else_is_given(ends: Ends, root: Path, target: str) -> None:
    for method in ("GET", "HEAD"):
        said = answer(ends, FileService(root), f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert status(said) in (400, 404)
        assert b"secret\n" not in said


def test_targets_have_two_forms() -> None:
    assert path_of("/a?b") == "/a"
    assert path_of("https://host:1/a/b#c") == "/a/b"
    assert path_of("https://host") == "/"
    assert path_of("*") == "/"


PUT = "PUT {} HTTP/1.1\r\nHost: x\r\n{}\r\n"


@pytest.mark.parametrize("tls", [tcpls.Negotiate.OFFER, tcpls.Negotiate.OFF])
def test_a_chunked_upload_is_stored_whole(ends: Ends, root: Path, tls: tcpls.Negotiate) -> None:
    head = PUT.format("/new", "Transfer-Encoding: chunked\r\n").encode()
    said = answer(
        ends, FileService(root, writable=True), head, b"5\r\nhello\r\n", b"7;x=y\r\n, world\r\n0\r\n\r\n", tcpls=tls
    )
    assert status(said) == 201
    assert (root / "new").read_bytes() == b"hello, world"


@pytest.mark.parametrize(
    ("target", "headers", "expected"),
    [
        ("/new", "", 411),
        ("/", "Content-Length: 1\r\n", 403),
        ("/.", "Content-Length: 1\r\n", 403),
        ("/sub", "Content-Length: 1\r\n", 409),
        ("/new/", "Content-Length: 1\r\n", 409),
        ("/no/such/folder", "Content-Length: 1\r\n", 409),
        ("/../secret", "Content-Length: 1\r\n", 403),
        ("/out", "Content-Length: 1\r\n", 403),
        ("/outside/new", "Content-Length: 1\r\n", 403),
        ("/new", "Content-Length: 1\r\nContent-Length: 2\r\n", 400),
        ("/new", "Content-Length: -1\r\n", 400),
        ("/new", "Transfer-Encoding: gzip\r\n", 400),
    ],
)
def test_uploads_that_are_refused(ends: Ends, root: Path, target: str, headers: str, expected: int) -> None:
    before = sorted(root.parent.rglob("*"))
    said = answer(ends, FileService(root, writable=True), PUT.format(target, headers).encode() + b"x")
    assert status(said) == expected
    assert sorted(root.parent.rglob("*")) == before
    assert (root.parent / "secret").read_text() == "secret\n"


def test_uploads_into_folders_and_over_files(ends: Ends, root: Path) -> None:
    for target, place in (("/sub/new", "sub/new"), ("/in", "sub/inner"), ("/empty", "empty")):
        body = b"" if place == "empty" else b"new"
        said = answer(
            ends,
            FileService(root, writable=True),
            PUT.format(target, f"Content-Length: {len(body)}\r\n").encode() + body,
        )
        assert status(said) == 201
        assert (root / place).read_bytes() == body
    assert (root / "in").is_symlink()


def test_a_client_may_ask_before_it_sends(ends: Ends, root: Path) -> None:
    async def test() -> None:
        service = FileService(root, writable=True)
        async with ends.serve(service.session) as server, ends.connect(server.port) as session:
            stream = await session.open_stream()
            headers = "Content-Length: 4\r\nExpect: 100-continue\r\n"
            await stream.write(PUT.format("/asked", headers).encode())
            assert (await stream.read()).startswith(b"HTTP/1.1 100 ")
            await stream.write(b"body")
            assert (await stream.readall()).startswith(b"HTTP/1.1 201 ")
        assert (root / "asked").read_bytes() == b"body"
        async with ends.serve(FileService(root).session) as server, ends.connect(server.port) as session:
            stream = await session.open_stream()
            await stream.write(PUT.format("/refused", headers).encode())
            assert (await stream.readall()).startswith(b"HTTP/1.1 403 ")

    run(test())


def test_requests_can_be_pipelined(ends: Ends, root: Path) -> None:
    get = b"GET /sub/inner HTTP/1.1\r\nHost: x\r\n\r\n"
    said = answer(ends, FileService(root), 3 * get, b"GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + get)
    assert said.count(b"HTTP/1.1 200") == 3
    assert said.count(b"inner\n") == 3
    assert said.count(b"HTTP/1.1 404") == 1


@pytest.mark.parametrize(
    "said", [b"nonsense\r\n\r\n", b"GET /x HTTP/1.1\r\n\r\n", b"\0" * 100, b"GET /" + b"a" * 20_000]
)
def test_what_is_no_request_is_refused_and_ends_no_other_stream(ends: Ends, root: Path, said: bytes) -> None:
    async def test() -> None:
        async with ends.serve(FileService(root).session) as server, ends.connect(server.port) as session:
            stream = await session.open_stream()
            await stream.write(said)
            assert (await stream.readall()).startswith(b"HTTP/1.1 400 ")
            other = await session.open_stream()
            await other.write(b"GET /sub/inner HTTP/1.0\r\n\r\n")
            assert (await other.readall()).endswith(b"inner\n")

    run(test())


def test_refused_uploads_do_not_use_up_the_session(ends: Ends, root: Path) -> None:
    """What the server does not want to read must not hold up the streams that it does want."""

    async def test() -> None:
        async with ends.serve(FileService(root).session) as server, ends.connect(server.port) as session:
            for _ in range(300):
                stream = await session.open_stream()
                await stream.write(PUT.format("/x", "Content-Length: 1000000\r\n").encode() + bytes(100_000))
                assert (await stream.readall()).startswith(b"HTTP/1.1 403 ")
                stream.reset()

    run(test())


def test_a_file_that_shrinks_is_never_taken_for_whole(ends: Ends, root: Path) -> None:
    large = root / "large"
    large.write_bytes(bytes(64 << 20))

    async def test() -> None:
        async with ends.serve(FileService(root).session) as server, ends.connect(server.port) as session:
            stream = await session.open_stream()
            await stream.write(b"GET /large HTTP/1.0\r\n\r\n")
            assert (await stream.read()).startswith(b"HTTP/1.1 200 ")
            os.truncate(large, 1 << 20)
            with pytest.raises(tcpls.StreamReset):
                await stream.readall(limit=1 << 30)

    run(test())


def test_a_file_that_grows_is_given_as_long_as_it_was(ends: Ends, root: Path) -> None:
    growing = root / "growing"
    growing.write_bytes(bytes(32 << 20))

    async def test() -> None:
        async with ends.serve(FileService(root).session) as server, ends.connect(server.port) as session:
            stream = await session.open_stream()
            await stream.write(b"GET /growing HTTP/1.0\r\n\r\n")
            body = (await stream.read()).partition(b"\r\n\r\n")[2]
            with growing.open("ab") as file:
                file.write(b"more")
            rest = await stream.readall(limit=1 << 30)
            assert len(body) + len(rest) == 32 << 20

    run(test())
