"""The privileged helper: privileges, refusals, sharing, and that nothing is left behind however it ends."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tcpls.errors import ApiMisuse, KernelUnavailable, ProgramRefused
from tcpls.kernel import privileges
from tcpls.kernel.helper_client import HelperClient
from tcpls.kernel.program import Mode, ProgramFile, ProgramPolicy
from tcpls.kernel.registered import registered
from tests.kernel.conftest import algorithm, available, until
from tests.unit.kernel.objects import ROOT, SHIPPED, SMALL, compile_text, controller, shipped

pytestmark = [pytest.mark.kernel]

Pair = Callable[[], tuple[socket.socket, socket.socket]]
OPEN = ProgramPolicy(Mode.AUTHENTICATED)
KILLS = int(os.environ.get("TCPLS_KILLS", "8"))


def refusal(client: HelperClient, program: ProgramFile, sock: socket.socket, **options: bool) -> ProgramRefused:
    with pytest.raises(ProgramRefused) as caught:
        client.load(program.offer, program.image, sock.fileno(), **options)
    return caught.value


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("name", SHIPPED)
def test_load_attach_share_and_give_back(helper: HelperClient, pair: Pair, name: str) -> None:
    program = shipped(name)
    client, server = pair()
    former = algorithm(client)
    with helper.load(program.offer, program.image, client.fileno()) as first:
        assert algorithm(client) == first.algorithm
        assert first.algorithm in available()
        assert (first.former, first.digest) == (former, program.digest)
        assert {"static check", "load", "types", "register", "attach"} <= set(first.timings)
        with helper.load(program.offer, program.image, server.fileno()) as second:
            assert (second.algorithm, algorithm(server)) == (first.algorithm, first.algorithm)
            first.close()
            assert first.closed
            assert first.algorithm in available(), "the other attachment keeps it"
            third, _ = pair()
            with helper.attach(program.digest, third.fileno()) as another:
                assert algorithm(third) == another.algorithm
                helper.set_algorithm(third.fileno(), another.former)
    client.sendall(b"still works after the last share is closed")
    assert server.recv(100)
    for sock in (client, server):
        helper.set_algorithm(sock.fileno(), former)
        assert algorithm(sock) == former
    assert until(lambda: first.algorithm not in available())
    assert until(lambda: first.algorithm not in [entry.algorithm for entry in registered()])
    with pytest.raises(ApiMisuse):
        helper.attach(program.digest, client.fileno())


def test_what_is_registered_is_listed_with_its_link(helper: HelperClient, pair: Pair) -> None:
    program = shipped("reno")
    with helper.load(program.offer, program.image, pair()[0].fileno()) as attachment:
        mine = [entry for entry in registered() if entry.algorithm == attachment.algorithm]
        assert [(entry.variable, entry.state, len(entry.links)) for entry in mine] == [("reno", "ready", 1)]
        oracle = subprocess.run(["bpftool", "-j", "link"], capture_output=True, timeout=20, check=True)
        assert mine[0].links[0] in [entry["id"] for entry in json.loads(oracle.stdout)]
        live = helper.status()["live"]
        assert live == [{"digest": program.digest.hex(), "algorithm": attachment.algorithm}]


def test_the_helper_keeps_three_capabilities_and_nothing_else(helper: HelperClient) -> None:
    status = status_of(helper.pid)
    wanted = 1 << privileges.BPF | 1 << privileges.PERFMON | 1 << privileges.NET_ADMIN
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == wanted
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == int(status["CapBnd"], 16) == 0
    assert status["Uid"].split() == ["65534"] * 4
    assert status["Gid"].split() == ["65534"] * 4
    assert (status["NoNewPrivs"], status["Groups"], status["Threads"]) == ("1", "", "1")


def test_the_helper_runs_as_the_user_that_is_asked_for(kernel: None) -> None:
    with HelperClient.spawn(OPEN, uid=12345) as client:
        assert status_of(client.pid)["Uid"].split() == ["12345"] * 4


def test_the_helper_inherits_no_descriptor_and_little_code(kernel: None) -> None:
    secret = os.open("/etc/shadow", os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        with HelperClient.spawn(OPEN) as client:
            targets = [str(link.readlink()) for link in Path(f"/proc/{client.pid}/fd").iterdir()]
            maps = Path(f"/proc/{client.pid}/maps").read_text()
    finally:
        os.close(secret)
    assert not [target for target in targets if "shadow" in target]
    assert len([target for target in targets if target.startswith("socket:")]) <= 2  # its channel, and stderr perhaps
    assert "_asyncio" not in maps
    assert "libbcc" in maps


def test_the_network_process_needs_neither_bcc_nor_libbpf() -> None:
    code = "import sys; from tcpls.kernel import helper_client; print(*sys.modules, *open('/proc/self/maps'))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    names = loaded.stdout.split()  # of modules, and the fields of the maps, addresses among them
    assert "tcpls.kernel.helper_client" in names, loaded.stderr
    assert "bcc" not in names
    assert not [name for name in names if "libbcc" in name or "libbpf" in name]


def test_an_unprivileged_network_process_uses_the_helper(helper: HelperClient, pair: Pair) -> None:
    """The process that dropped root can still load, attach, and go back to an algorithm that not everybody may use."""
    program, (client, _) = shipped("reno"), pair()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            assert not privileges.held()
            attachment = helper.load(program.offer, program.image, client.fileno())
            assert algorithm(client) == attachment.algorithm
            helper.set_algorithm(client.fileno(), attachment.former)
            assert algorithm(client) == "cubic"
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def test_an_algorithm_that_is_nobodys_is_not_given(helper: HelperClient, pair: Pair) -> None:
    client, _ = pair()
    with pytest.raises(ProgramRefused, match="No such file"):
        helper.set_algorithm(client.fileno(), "tcpls_aaaaaaaaa")
    with pytest.raises(ProgramRefused, match="not an algorithm that the helper may select"):
        helper._ask({"verb": "set", "algorithm": "dctcp"}, [client.fileno()])


# Policy


def test_the_helper_judges_for_itself(kernel: None, pair: Pair) -> None:
    """A network process that was taken over cannot talk the helper into anything that policy does not want."""
    reno, cubic, (client, _) = shipped("reno"), shipped("cubic"), pair()
    with HelperClient.spawn(ProgramPolicy()) as none:
        assert refusal(none, reno, client).stage == "policy"
    with HelperClient.spawn(ProgramPolicy.pinned([reno.digest])) as pinned:
        assert refusal(pinned, cubic, client).stage == "policy"
        with pytest.raises(ProgramRefused) as swapped:
            pinned.load(reno.offer, cubic.image, client.fileno())
        assert swapped.value.stage == "digest"
    key = Ed25519PrivateKey.generate()
    with HelperClient.spawn(ProgramPolicy.signed([key.public_key()])) as signed:
        assert refusal(signed, reno, client).stage == "signature"
        assert refusal(signed, replace(reno.sign(key), signature=bytes(64)), client).stage == "signature"
        program = reno.sign(key)
        with signed.load(program.offer, program.image, client.fileno()) as attachment:
            assert algorithm(client) == attachment.algorithm
    with HelperClient.spawn(OPEN) as authenticated:
        assert refusal(authenticated, reno, client).reason == "needs an authenticated peer"
        offer = reno.offer
        with authenticated.load(offer, reno.image, client.fileno(), peer_authenticated=True):
            # What another peer brought is loaded, and is still not for everybody.
            assert refusal(authenticated, reno, pair()[0]).reason == "needs an authenticated peer"


def test_live_programs_and_loads_are_bounded(kernel: None, pair: Pair) -> None:
    (client, server), programs = pair(), [shipped(name) for name in SHIPPED]
    with HelperClient.spawn(replace(OPEN, max_live=2)) as few:
        kept = [few.load(p.offer, p.image, client.fileno(), peer_authenticated=True) for p in programs[:2]]
        assert "2 programs are live" in refusal(few, programs[2], client, peer_authenticated=True).reason
        few.attach(programs[0].digest, server.fileno()).close()
        kept[0].close()
        assert until(lambda: kept[0].algorithm not in available())
        kept.append(few.load(programs[2].offer, programs[2].image, client.fileno(), peer_authenticated=True))
        for attachment in kept:
            attachment.close()
    with HelperClient.spawn(replace(OPEN, max_loads_per_minute=1)) as slow:
        slow.load(programs[0].offer, programs[0].image, client.fileno(), peer_authenticated=True).close()
        assert "in a minute" in refusal(slow, programs[1], client, peer_authenticated=True).reason


# What programs may not do


def hostile(**parts: str) -> ProgramFile:
    return ProgramFile("hostile", controller(**parts))


FILE = """
struct cred { u32 val; } TCPLS_KERNEL;
struct file { struct cred *f_cred; } TCPLS_KERNEL;
struct socket { struct file *file; } TCPLS_KERNEL;
struct sock___walk { struct socket *sk_socket; } TCPLS_KERNEL;
"""
WALK = "struct socket *s = ((struct sock___walk *)sk)->sk_socket; if (s && s->file && s->file->f_cred) return 3;"


@pytest.mark.parametrize(
    ("parts", "stage", "why"),
    [
        ({"ssthresh": "bpf_send_signal(9);"}, "static check", "helper 109"),
        ({"before": FILE, "ssthresh": WALK}, "verifier", "kernel memory of a kind it has no need of"),
        ({"ssthresh": "tcpls_tcp(sk)->srtt_us = 1;"}, "verifier", "EACCES"),
        (
            {"ssthresh": "for (;;) { if (tcpls_tcp(sk)->snd_cwnd == 77) break; }"},
            "verifier",
            "does not accept it|too complex",
        ),
        ({"ssthresh": "return *(u32 *)((u64)sk + 100000);"}, "verifier", "does not accept it"),
    ],
)
def test_hostile_programs_stop_at_their_stage(
    kernel: None, pair: Pair, parts: dict[str, str], stage: str, why: str
) -> None:
    client, _ = pair()
    before = algorithm(client)
    with HelperClient.spawn(OPEN) as client_:
        refused = refusal(client_, hostile(**parts), client, peer_authenticated=True)
        assert client_.alive
    assert refused.stage == stage
    assert len(refused.reason) < 300
    assert any(part in refused.reason for part in why.split("|")), refused.reason
    assert algorithm(client) == before


def test_a_verifier_refusal_carries_the_verifiers_words(kernel: None, pair: Pair) -> None:
    with HelperClient.spawn(OPEN) as client:
        program = hostile(ssthresh="tcpls_tcp(sk)->srtt_us = 1;")
        assert "no write support" in refusal(client, program, pair()[0], peer_authenticated=True).log


def test_bytes_that_are_no_object_are_refused_and_the_helper_lives(kernel: None, pair: Pair) -> None:
    client, _ = pair()
    with HelperClient.spawn(OPEN) as opened:
        for image in (b"\x7fELF", b"\x7fELF\x02\x01\x01" + bytes(1000), random.Random(1).randbytes(5000)):
            refused = refusal(opened, ProgramFile("noise", image), client, peer_authenticated=True)
            assert refused.stage == "static check"
        assert opened.alive


def test_only_one_connection_of_plain_tcp_is_taken(helper: HelperClient, pair: Pair) -> None:
    program = shipped("reno")
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with datagrams, pytest.raises(ApiMisuse, match="not TCP"):
        helper.load(program.offer, program.image, datagrams.fileno())
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(ApiMisuse, match="listens"):
        helper.load(program.offer, program.image, listener.fileno())
    with Path("/dev/null").open() as file, pytest.raises(ApiMisuse, match="no socket"):
        helper.load(program.offer, program.image, file.fileno())
    multipath = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    with multipath, pytest.raises(ApiMisuse, match="not TCP"):
        helper.load(program.offer, program.image, multipath.fileno())
    helper.load(program.offer, program.image, pair()[0].fileno()).close()


@pytest.mark.parametrize(
    "message",
    [
        b"x",
        b"[]",
        b"null",
        b"{" * 10000,
        b'{"verb": "exec"}',
        b'{"verb": "load"}',
        b'{"verb": "attach", "digest": 3}',
        b'{"verb": "load", "name": "a", "digest": "zz", "size": 1}',
        b'{"policy": {"mode": "authenticated"}}',
    ],
)
def test_a_malformed_request_is_answered_and_changes_nothing(helper: HelperClient, message: bytes) -> None:
    helper._channel.send(message)
    assert "misuse" in json.loads(helper._channel.recv(65536))
    assert helper.status()["live"] == []


def test_an_unsealed_or_foreign_image_is_not_read(helper: HelperClient, pair: Pair, tmp_path: Path) -> None:
    program = shipped("reno")
    request = {"verb": "load", "name": "reno", "digest": program.digest.hex(), "size": program.size}
    request |= {"abi": program.abi, "signature": "", "key_id": ""}
    path = tmp_path / "image"
    path.write_bytes(program.image)
    fds = [os.open(path, os.O_RDONLY), os.memfd_create("image", os.MFD_ALLOW_SEALING)]
    try:
        os.write(fds[1], program.image)
        for fd in fds:
            with pytest.raises(ApiMisuse, match=r"memory file|sealed"):
                helper._ask(request, [fd, pair()[0].fileno()])
    finally:
        for fd in fds:
            os.close(fd)


# Missing privileges, an absent helper


def test_a_missing_capability_is_named(kernel: None) -> None:
    code = (
        "from tcpls.kernel.helper_client import HelperClient\n"
        "from tcpls.kernel.program import ProgramPolicy\n"
        "from tcpls.errors import KernelUnavailable\n"
        "try: HelperClient.spawn(ProgramPolicy())\n"
        "except KernelUnavailable as error: print(error)\n"
    )
    # Still root by name, which may read its own files wherever they are.
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    done = subprocess.run([*without, sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    for name in ("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"):
        assert name in done.stdout, done.stderr


def test_a_dead_helper_leaves_connections_alone_and_is_named(kernel: None, pair: Pair) -> None:
    program, (client, server) = shipped("reno"), pair()
    with HelperClient.spawn(ProgramPolicy.pinned([program.digest])) as doomed:
        attachment = doomed.load(program.offer, program.image, client.fileno())
        os.kill(doomed.pid, signal.SIGKILL)
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        assert algorithm(client) == attachment.algorithm
        with pytest.raises(KernelUnavailable, match="helper"):
            doomed.attach(program.digest, server.fileno())
        assert not doomed.alive
        assert attachment.algorithm in available()
        attachment.close()
    assert until(lambda: attachment.algorithm not in available())


def test_a_crash_of_the_child_that_loads_is_an_error_message(kernel: None, pair: Pair) -> None:
    """The helper's children are killed as fast as they appear; it answers all the same, and works afterwards."""
    program, (client, _) = shipped("cubic"), pair()
    with HelperClient.spawn(ProgramPolicy.pinned([program.digest])) as client_:
        stop = threading.Event()
        killer = threading.Thread(target=_kill_children, args=(client_.pid, stop))
        killer.start()
        try:
            refused = refusal(client_, program, client)
        finally:
            stop.set()
            killer.join()
        assert refused.stage in ("static check", "verifier")
        client_.load(program.offer, program.image, client.fileno()).close()


def _kill_children(pid: int, stop: threading.Event) -> None:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    while not stop.is_set():
        for child in path.read_text().split():
            try:
                os.kill(int(child), signal.SIGKILL)
            except ProcessLookupError:
                continue


# Nothing is left behind


def _session(seed: int, victim: str, files: list[str]) -> set[str]:
    """A process that loads programs over and over; it or its helper is killed at a random moment.

    Gives the algorithms that had been loaded by then.
    """
    command = [sys.executable, "-m", "tests.kernel.loading_process", *files]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    helper_pid = int(process.stdout.readline())
    time.sleep(random.Random(seed).uniform(0, 0.25))
    os.kill(process.pid if victim == "network process" else helper_pid, signal.SIGKILL)
    said = process.communicate(timeout=30)[0]
    until(lambda: not Path(f"/proc/{helper_pid}").exists())
    return set(said.split())


@pytest.mark.parametrize("victim", ["network process", "helper"])
def test_killing_either_process_at_any_time_leaves_nothing(kernel: None, victim: str, tmp_path: Path) -> None:
    """The program's variable has a name of this test's own: others may use the machine at the same time."""
    mine = f"t{os.getpid()}"
    path = tmp_path / "small.bpf.o"
    path.write_bytes(compile_text(SMALL.replace("small", mine)))

    def left() -> list[str]:
        return [entry.algorithm for entry in registered() if entry.variable == mine]

    loaded = 0
    for seed in range(KILLS):
        names = _session(seed, victim, [str(path)])
        loaded += bool(names)
        assert until(lambda: not left()), (seed, left())
        assert not names & set(available())
    assert loaded > KILLS // 4, "most of the processes were killed before they had loaded anything"
