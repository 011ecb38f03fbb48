"""Runs a scenario: the network, an application at each end, and what happens, when it is to happen."""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict

from tcpls.errors import ConfigurationError
from tcpls.lab.identity import Files
from tcpls.lab.jobs import Job, Place
from tcpls.lab.network import CLIENT, SERVER, LaboratoryFailed, Network, end
from tcpls.lab.results import Happened, Run
from tcpls.lab.scenarios import Action, Event, Scenario, Use
from tcpls.lab.transports import TRANSPORTS, Transport

PORT = 4433
START_TIMEOUT = 20.0
GRACE = 10.0
"""Seconds after its limit by which an application must have said that it has stopped."""


class Ended(Exception):
    """The process has ended, or will not say anything more."""


class Application:
    """A process of the application under test, at one end."""

    def __init__(self, network: Network, where: int, role: str, job: Job) -> None:
        self._process = network.start(where, [sys.executable, "-m", "tcpls.lab.endpoint", role])
        self._heard: queue.SimpleQueue[dict[str, object] | None] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.tell(**asdict(job))

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101  it is a pipe
        for line in self._process.stdout:
            self._heard.put(json.loads(line))
        self._heard.put(None)

    def tell(self, **words: object) -> None:
        assert self._process.stdin is not None  # noqa: S101  it is a pipe
        try:
            self._process.stdin.write(json.dumps(words).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Ended from None

    def hear(self, timeout: float) -> dict[str, object] | None:
        """What it says next; None if it says nothing in time. Raises `Ended`."""
        try:
            words = self._heard.get(timeout > 0, max(timeout, 0.0))
        except queue.Empty:
            return None
        if words is None:
            raise Ended
        return words

    def await_word(self, word: str, timeout: float = START_TIMEOUT) -> dict[str, object]:
        """What it says that has this word in it. Raises `LaboratoryFailed`."""
        deadline = time.monotonic() + timeout
        try:
            while (words := self.hear(deadline - time.monotonic())) is not None:
                if word in words:
                    return words
        except Ended:
            raise LaboratoryFailed("an end of the application has died; what it said is above") from None
        raise LaboratoryFailed(f"an end of the application has not said {word!r} in {timeout:g} s")

    def rest(self) -> list[dict[str, object]]:
        """What it has said that nobody has heard."""
        said = []
        with suppress(Ended):
            while (words := self.hear(0.0)) is not None:
                said.append(words)
        return said

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101  pipes
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        end(self._process)
        self._listener.join()
        self._process.stdout.close()


def run(scenario: Scenario, transport: str, *, seed: int = 1, number: int = 1, files: Files) -> Run:
    """One run. Raises `KernelUnavailable` where the laboratory or the transport cannot be had, `LaboratoryFailed`."""
    if transport not in TRANSPORTS:
        raise ConfigurationError(f"there is no transport {transport}; there are {', '.join(TRANSPORTS)}")
    around = TRANSPORTS[transport]()
    with Network(scenario.paths, seed=seed) as network:
        around.prepare(network, scenario)
        job = _job(scenario, transport, seed, network, files)
        applications: list[Application] = []
        try:
            server = Application(network, SERVER, "serve", job)
            applications.append(server)
            server.await_word("listening")
            client = Application(network, CLIENT, "fetch", job)
            applications.append(client)
            client.await_word("ready")
            conductor = Conductor(scenario, network, around, client)
            said = conductor.conduct()
            return _result(scenario, transport, seed, number, network, conductor, said, server)
        finally:
            for application in applications:
                application.close()


def _job(scenario: Scenario, transport: str, seed: int, network: Network, files: Files) -> Job:
    places = tuple(
        Place(device=here.device, local=here.first, remote=there.first)
        for here, there in zip(network.client, network.server, strict=True)
    )
    return Job(
        transport=transport,
        port=PORT,
        size=scenario.size,
        seed=seed,
        limit=scenario.limit,
        places=places,
        begin=scenario.begin,
        together=scenario.use is Use.ALL,
        user_timeout=scenario.user_timeout,
        congestion=scenario.congestion,
        authority=str(files.authority),
        certificate=str(files.certificate),
        key=str(files.key),
    )


class Conductor:
    """Lets the events happen while the client works."""

    def __init__(self, scenario: Scenario, network: Network, around: Transport, client: Application) -> None:
        self._scenario = scenario
        self._network = network
        self._around = around
        self._client = client
        self.happened: list[Happened] = []
        self._details: list[tuple[float, str]] = []
        self._last: dict[str, object] | None = None

    def conduct(self) -> dict[str, object]:
        """From the client's begin to its end; what it says in the end."""
        self._begin = time.monotonic()
        self._client.tell(begin=self._begin)
        for event in self._scenario.events:
            if (said := self._until(self._begin + event.at)) is not None:
                return said
            self.happened.append(Happened(self._let_happen(event) - self._begin, str(event), event.expect))
        said = self._until(self._begin + self._scenario.limit + GRACE)
        if said is None:
            raise LaboratoryFailed(f"the client has not stopped in {self._scenario.limit + GRACE:g} s")
        return said

    def _until(self, moment: float) -> dict[str, object] | None:
        """Waits; what the client says if it has ended before."""
        while self._last is None and (left := moment - time.monotonic()) > 0:
            self._hear(left)
        return self._last

    def _hear(self, timeout: float) -> dict[str, object]:
        """What the client says next, {} if nothing. Its last word is kept, whoever hears it."""
        try:
            said = self._client.hear(timeout) or {}
        except Ended:
            raise LaboratoryFailed("the client has died; what it said is above") from None
        if "ended" in said:
            self._last = said
        self._note("client", said)
        return said

    def _note(self, who: str, said: dict[str, object]) -> None:
        if "detail" in said:
            self._details.append((float(str(said["at"])) - self._begin, f"{who}: {said['detail']}"))

    def details(self, server: Application) -> tuple[str, ...]:
        """What both ends told, with the time, in the order of time."""
        for said in server.rest():
            self._note("server", said)
        return tuple(f"{at:.3f} {text}" for at, text in sorted(self._details))

    def _let_happen(self, event: Event) -> float:
        network = self._network
        match event.action:
            case Action.BLACKHOLE:
                return network.blackhole(event.path)
            case Action.HEAL:
                return network.heal(event.path)
            case Action.RESET:
                return network.reset(event.path)
            case Action.CHANGE:
                return network.change(event.path, **dict(event.change))
            case Action.REMOVE_ADDRESS:
                return network.remove_address(event.path, event.family)
            case Action.ADD_ADDRESS:
                return network.add_address(event.path, event.family)
            case Action.MIGRATE | Action.ADD_PATH:
                return self._around.act(event, network, self._tell)

    def _tell(self, do: str, path: int) -> float:
        self._client.tell(do=do, path=path)
        deadline = time.monotonic() + START_TIMEOUT
        while (left := deadline - time.monotonic()) > 0:
            if "did" in (said := self._hear(left)):
                return float(str(said["at"]))
        raise LaboratoryFailed(f"the client does not say whether it was told to {do}")


def _result(
    scenario: Scenario,
    transport: str,
    seed: int,
    number: int,
    network: Network,
    conductor: Conductor,
    said: dict[str, object],
    server: Application,
) -> Run:
    counts = network.counts()
    ways = [way for path in _list(counts["counts"]) for way in _list(path)]
    ticks = tuple((int(tick), int(count)) for tick, count in map(_list, _list(said["ticks"])))
    return Run(
        scenario=scenario.name,
        transport=transport,
        number=number,
        seed=seed,
        size=scenario.size,
        ticks=ticks,
        events=tuple(conductor.happened),
        ended=str(said["ended"]),
        seconds=float(str(said["seconds"])),
        retransmitted=network.retransmitted(SERVER),
        emulation=float(str(counts["cpu"])),
        late=max(way["late"] for way in ways),
        details=conductor.details(server),
    )


def _list(value: object) -> list:  # type: ignore[type-arg]
    return list(value) if isinstance(value, list | tuple) else []
