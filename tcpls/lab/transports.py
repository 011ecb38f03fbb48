"""What each transport needs of the network around it, and how it is told what the application would be told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tcpls.errors import KernelUnavailable
from tcpls.lab import over_tcp
from tcpls.lab.network import CLIENT, SERVER, Network
from tcpls.lab.scenarios import Action, Event, Scenario, Use

Tell = Callable[[str, int], float]
"""Tells the client's application what to do with a path; gives the time when it began."""


class Transport(Protocol):
    def prepare(self, network: Network, scenario: Scenario) -> None:
        """Before the ends are started."""

    def act(self, event: Event, network: Network, tell: Tell) -> float:
        """Does what the application is to do, and gives the time when it did."""


class Tcpls:
    """Everything is the application's."""

    def prepare(self, network: Network, scenario: Scenario) -> None:
        pass

    def act(self, event: Event, network: Network, tell: Tell) -> float:
        return tell("migrate" if event.action is Action.MIGRATE else "add path", event.path)


class Tcp:
    """One connection, on the first path: it can do nothing about the others."""

    def prepare(self, network: Network, scenario: Scenario) -> None:
        pass

    def act(self, event: Event, network: Network, tell: Tell) -> float:
        return tell("nothing", event.path)


class Mptcp:
    """The kernel's path manager is told, as an administrator would: an endpoint at the client for each path, those
    after the first as backups where paths are used one at a time. Endpoints count from 1, as the paths do."""

    def prepare(self, network: Network, scenario: Scenario) -> None:
        if reason := over_tcp.mptcp_missing():
            raise KernelUnavailable("Multipath TCP", reason)
        self._together = scenario.use is Use.ALL
        self._first = scenario.begin[0]
        for space in network.spaces:
            space.ask("mptcp_limits", subflows=8, accepted=8)
        for path in range(len(network.plans)):
            here = network.client[path]
            if set(here.of) != set(network.client[self._first].of):
                # The client cannot know an address of another family, unless it is announced.
                network.spaces[SERVER].ask(
                    "mptcp_endpoint", address=network.server[path].first, number=path + 1, flags=["signal"]
                )
        for path in scenario.begin:
            self._add(network, path)

    def act(self, event: Event, network: Network, tell: Tell) -> float:
        if event.action is Action.ADD_PATH:
            return self._add(network, event.path)
        client = network.spaces[CLIENT]
        # The new one first: with two backups the kernel uses either.
        answer = client.ask("mptcp_backup", number=event.path + 1, backup=False)
        for path in range(len(network.plans)):
            if path != event.path:
                client.ask("mptcp_backup", number=path + 1, backup=True)
        return float(str(answer["at"]))

    def _add(self, network: Network, path: int) -> float:
        other_family = set(network.client[path].of) != set(network.client[self._first].of)
        flags = ["subflow"]
        if other_family:
            flags.append("fullmesh")  # So it is used towards what the server has announced.
        if path != self._first and not self._together:
            flags.append("backup")
        here = network.client[path]
        answer = network.spaces[CLIENT].ask("mptcp_endpoint", address=here.first, number=path + 1, flags=flags)
        return float(str(answer["at"]))


TRANSPORTS: dict[str, Callable[[], Transport]] = {"tcpls": Tcpls, "mptcp": Mptcp, "tcp": Tcp}
