"""The laboratory on this kernel: its network, what may happen to a path, and short scenarios."""

from __future__ import annotations

import csv
import dataclasses
import json
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tcpls.cli.exits import Exit
from tcpls.cli.main import main
from tcpls.lab import identity, over_tcp, scenarios
from tcpls.lab.emulator import Conditions
from tcpls.lab.identity import Files
from tcpls.lab.network import CLIENT, SERVER, LaboratoryFailed, Network, PathPlan, unavailable
from tcpls.lab.run import run
from tcpls.lab.scenarios import Action, Event, Scenario
from tests.kernel.conftest import Flow, TcpState, inside, until

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(unavailable() is not None, reason=f"the laboratory cannot run here: {unavailable()}"),
]

PATIENCE = 10.0
RATE, DELAY = 20e6, 0.020
PLAN = PathPlan(there=Conditions(rate=RATE, delay=DELAY, queue=60_000), families=(4, 6))


def namespaces() -> set[str]:
    """Those that some process of this machine is in."""
    found = set()
    for process in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            found.add(str(process.readlink()))
        except OSError:
            continue
    return found


def links() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_what_is_taken_down_leaves_nothing() -> None:
    before, named = links(), subprocess.run(["ip", "netns"], capture_output=True, check=True).stdout
    with Network([PLAN, PLAN]) as network:
        processes = [worker.process for worker in (*network.spaces, network.emulator)]
        ours = {str(network.namespace(end).readlink()) for end in (CLIENT, SERVER)}
        assert len(ours) == 2
        assert ours <= namespaces()
        facts = network.spaces[CLIENT].ask("facts")
        assert facts["links"] == ["lo", "path1", "path2"]
        assert facts["addresses"] == [
            "127.0.0.1", "10.77.1.1", "10.77.2.1", "::1", "fd77:0:0:1::1", "fd77:0:0:2::1",
        ]  # fmt: skip
        # Nothing of it is outside, not even while it is there.
        assert links() == before
        assert subprocess.run(["ip", "netns"], capture_output=True, check=True).stdout == named
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert not ours & namespaces()
    assert links() == before


def test_it_is_gone_when_whoever_made_it_is_killed() -> None:
    """No signal handler and no `finally` runs."""
    code = (
        "from tests.kernel.test_lab import Network, PLAN\n"
        "with Network([PLAN]) as network:\n"
        "    busy = network.start(0, ['sleep', '300'])\n"
        "    print(*(worker.process.pid for worker in (*network.spaces, network.emulator)), flush=True)\n"
        "    input()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout is not None and parent.stdin is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 3
    assert all(alive(pid) for pid in pids)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()
    assert until(lambda: not any(alive(pid) for pid in pids), PATIENCE)


def test_an_application_ends_when_whoever_started_it_is_killed(tmp_path: Path) -> None:
    """A server in the middle of nothing, and a client that cannot get away from its work."""
    code = (
        "import sys, threading\n"
        "from pathlib import Path\n"
        "from tcpls.lab import identity, run, scenarios\n"
        "began = run.Conductor._until\n"
        "def said(self, moment):\n"
        "    print(self._network.spaces[0].process.pid, self._client._process.pid, flush=True)\n"
        "    return began(self, moment)\n"
        "run.Conductor._until = said\n"
        "run.run(scenarios.SCENARIOS['aggregation'], 'tcp', files=identity.make(Path(sys.argv[1])))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert until(lambda: not any(alive(pid) for pid in pids), PATIENCE)


@pytest.fixture
def network() -> Iterator[Network]:
    with Network([PLAN, PLAN]) as made:
        yield made


@pytest.fixture
def connect(network: Network) -> Iterator[Callable[..., Flow]]:
    """Makes a TCP flow from the server to the client over a path."""
    with flows_over(network) as make:
        yield make


@contextmanager
def flows_over(network: Network) -> Iterator[Callable[..., Flow]]:
    flows: list[Flow] = []

    def make(path: int = 0, family: int = 4) -> Flow:
        here, there = (ends[path].of[family] for ends in (network.client, network.server))
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        listener = inside(network.namespace(SERVER), lambda: socket.create_server((there, 0), family=kind))
        client = inside(
            network.namespace(CLIENT),
            lambda: socket.create_connection(listener.getsockname()[:2], PATIENCE, source_address=(here, 0)),
        )
        client.settimeout(None)
        server, _ = listener.accept()
        listener.close()
        flows.append(Flow(server, client))
        return flows[-1]

    try:
        yield make
    finally:
        for flow in flows:
            flow.stop()
            flow.sender.close()
            flow.receiver.close()


@pytest.mark.parametrize(("paths", "rate"), [(1, 100e6), (4, 25e6)])
def test_the_emulator_carries_100_megabits_without_being_the_bottleneck(paths: int, rate: float) -> None:
    plan = PathPlan(there=Conditions(rate=rate, delay=0.010, queue=250_000))
    with Network([plan] * paths) as network, flows_over(network) as connect:
        flows = [connect(path) for path in range(paths)]
        for flow in flows:
            flow.start()
        flows[0].watch(1.0)
        before, cpu, began = [flow.received for flow in flows], float(str(network.counts()["cpu"])), time.monotonic()
        flows[0].watch(2.0)
        elapsed = time.monotonic() - began
        cpu = float(str(network.counts()["cpu"])) - cpu
        rates = [8 * (flow.received - was) / elapsed for flow, was in zip(flows, before, strict=True)]
    assert all(0.85 * rate < got < 1.05 * rate for got in rates), rates
    assert cpu < 0.8 * elapsed


@pytest.mark.parametrize("family", [4, 6])
def test_rate_delay_and_queue_are_those_of_the_plan(connect: Callable[..., Flow], family: int) -> None:
    flow = connect(family=family)
    flow.sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
    idle = TcpState.of(flow.sender).rtt
    assert 1000 * 2 * DELAY <= idle < 1000 * 2 * DELAY + 15
    flow.start()
    flow.watch(1.0)
    states, rate = flow.watch(2.0)
    # 1448 of 1500 bytes are data, or 1428 with IPv6.
    assert 0.85 * RATE / 1e6 < rate < 0.97 * RATE / 1e6
    # Cubic fills the queue: at most 60,000 bytes, 24 ms.
    full = statistics.quantiles([state.rtt for state in states], n=10)[8]
    assert 1000 * 2 * DELAY + 10 < full < 1000 * 2 * DELAY + 24 + 15


def test_a_socket_bound_to_a_path_takes_that_path_whatever_it_calls(network: Network) -> None:
    there = network.server[0].first
    listener = inside(network.namespace(SERVER), lambda: socket.create_server((there, 0)))
    with listener:
        client = inside(
            network.namespace(CLIENT),
            lambda: socket.create_connection(
                listener.getsockname(), PATIENCE, source_address=(network.client[1].first, 0)
            ),
        )
        with client:
            server, peer = listener.accept()
            assert peer[0] == network.client[1].first
            with server:
                server.sendall(bytes(100_000))
                received = 0
                while received < 100_000:
                    received += len(client.recv(65536))
    counts = network.counts()["counts"]
    assert isinstance(counts, list)
    first, second = ([way["bytes"] for way in ways] for ways in counts)
    assert first == [0, 0]
    assert second[1] > 100_000


def test_a_black_hole_and_its_healing(network: Network, connect: Callable[..., Flow]) -> None:
    flow, other = connect(0), connect(1)
    network.blackhole(0)
    flow.sender.sendall(b"lost")
    flow.receiver.settimeout(0.5)
    with pytest.raises(TimeoutError):
        flow.receiver.recv(10)
    other.sender.sendall(b"other path")
    assert other.receiver.recv(10) == b"other path"
    network.heal(0)
    flow.receiver.settimeout(PATIENCE)
    assert flow.receiver.recv(10) == b"lost", "TCP sends it again"


def test_conditions_change_while_data_flows(network: Network, connect: Callable[..., Flow]) -> None:
    flow = connect()
    flow.start()
    flow.watch(0.5)
    network.change(0, rate=5e6, delay=0.001)
    flow.watch(1.0)
    _, rate = flow.watch(1.0)
    # What was held back by a loss may come in one piece, and exceed the rate for a moment.
    assert 2.5 < rate < 8.0


@pytest.mark.parametrize("family", [4, 6])
def test_a_reset_kills_the_flow_at_both_ends_and_no_other(
    network: Network, connect: Callable[..., Flow], family: int
) -> None:
    flow, quiet = connect(family=family), connect(family=family)
    flow.start()
    flow.watch(0.3)
    began = time.monotonic()
    assert network.reset(0) >= began
    for sock in (flow.sender, flow.receiver):
        # Flow's threads may have had the error already; then the socket is dead all the same.
        assert until(lambda sock=sock: TcpInfo.state(sock) == TcpInfo.CLOSE, PATIENCE)  # type: ignore[misc]
    assert time.monotonic() - began < 0.15, "both had it at once, not after a retransmission"
    quiet.sender.sendall(b"still here")
    assert quiet.receiver.recv(10) == b"still here"
    fresh = connect(family=family)
    fresh.sender.sendall(b"new")
    assert fresh.receiver.recv(10) == b"new"


class TcpInfo:
    CLOSE = 7

    @staticmethod
    def state(sock: socket.socket) -> int:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def test_a_reset_of_an_idle_path_says_so(network: Network) -> None:
    with pytest.raises(LaboratoryFailed, match="no TCP connection on path 2"):
        network.reset(1)


def test_an_address_is_taken_away_and_given_back(network: Network, connect: Callable[..., Flow]) -> None:
    network.remove_address(0, 4)
    facts = network.spaces[CLIENT].ask("facts")
    assert "10.77.1.1" not in str(facts["addresses"])
    network.add_address(0, 4)
    flow = connect()
    flow.sender.sendall(b"back")
    assert flow.receiver.recv(10) == b"back"


def test_what_cannot_be_done_is_an_error_of_the_laboratory(network: Network) -> None:
    with pytest.raises(LaboratoryFailed, match="space"):
        network.add_address(0, 4)


# Short scenarios.


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return identity.make(tmp_path_factory.mktemp("identity"))


def short(name: str, size: int, *events: Event) -> Scenario:
    return dataclasses.replace(scenarios.SCENARIOS[name], size=size, limit=15.0, events=events)


@pytest.fixture(params=["tcpls", "mptcp"])
def transport(request: pytest.FixtureRequest) -> str:
    if request.param == "mptcp" and (missing := over_tcp.mptcp_missing()):
        pytest.skip(missing)
    return str(request.param)


@pytest.mark.parametrize("action", [Action.RESET, Action.BLACKHOLE])
def test_both_survive_the_loss_of_a_path(action: Action, transport: str, files: Files) -> None:
    scenario = short("failover-blackhole", 6_000_000, Event(0.7, action, 0, expect=30e6))
    one = run(scenario, transport, files=files)
    assert one.ended == ""
    assert one.complete
    assert one.events[0].at == pytest.approx(0.7, abs=0.3)
    # All the path could carry by then is less than a half.
    before = sum(count for tick, count in one.ticks if tick < 1000 * one.events[0].at)
    assert 0 < before < 4_000_000
    assert one.late < 1.0


def test_both_move_to_another_family_and_back(transport: str, files: Files) -> None:
    scenario = short("migration", 8_000_000, Event(0.7, Action.MIGRATE, 1), Event(1.4, Action.MIGRATE, 0))
    one = run(scenario, transport, files=files)
    assert one.ended == ""
    assert one.complete
    assert len(one.events) == 2


def test_both_use_a_path_that_is_added(transport: str, files: Files) -> None:
    scenario = short("aggregation", 10_000_000, Event(0.7, Action.ADD_PATH, 1, expect=50e6))
    one = run(scenario, transport, files=files)
    assert one.ended == ""
    assert one.complete
    # One path alone would need 3.3 s.
    assert one.total_time < 3.0


def test_one_tcp_connection_does_not_survive_a_reset(files: Files) -> None:
    one = run(short("failover-rst", 6_000_000, Event(0.7, Action.RESET, 0)), "tcp", files=files)
    assert not one.complete
    assert "Connection" in one.ended
    assert 0 < one.received < 6_000_000


def test_tcpls_carries_the_data_over_one_path(files: Files) -> None:
    one = run(short("failover-rst", 3_000_000), "tcpls", files=files)
    assert one.ended == ""
    assert one.complete


def test_the_command_writes_figures_and_a_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib (the extra lab)")
    scenario = dataclasses.replace(
        short("failover-rst", 2_000_000, Event(0.3, Action.CHANGE, 0, change=(("rate", 20e6),))), name="short"
    )
    monkeypatch.setitem(scenarios.SCENARIOS, "short", scenario)
    words = ["lab", "run", "short", "--transport", "tcp", "--repeat", "2", "--output", str(tmp_path)]
    assert main(words) == Exit.OK
    said = capsys.readouterr().out
    assert "2 of 2 complete" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "short-tcp-1.csv", "short-tcp-2.csv", "short.json", "short.png",
    ]  # fmt: skip
    report = json.loads((tmp_path / "short.json").read_text())
    assert [run["seed"] for run in report["runs"]] == [1, 2]
    with (tmp_path / "short-tcp-2.csv").open() as file:
        assert sum(int(line["bytes"]) for line in csv.DictReader(file)) == 2_000_000
