"""A process that holds a network namespace: it exists as long as this process does, and nobody else can lose it.

Run under ``unshare --net``. It is told over a Unix socket, one JSON object a message, what to set up, and passes the
descriptors of the TUN devices that it makes. It ends when that socket does, and its namespace with it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_interface
from pathlib import Path

from pyroute2 import MPTCP, IPRoute
from pyroute2.netlink import NLA_F_NESTED, NLM_F_ACK, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic.mptcp import mptcp_msg

from tcpls.lab.devices import MTU, open_tun

MESSAGE = 65536
FIRST_TABLE = 100
QUEUE_LENGTH = 5000
"""Packets between the kernel and the emulator. Never full unless the emulator gets no processor."""

_SETTINGS = {
    # No packets but those of the scenario: no router is asked for, nothing is announced.
    "ipv6/conf/default/addr_gen_mode": "1",
    "ipv6/conf/default/accept_ra": "0",
    "ipv6/conf/default/router_solicitations": "0",
    "ipv6/conf/default/accept_dad": "0",
    # A host takes packets for any of its addresses from every path.
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    # What one connection has learned of a path must not speed up the next.
    "ipv4/tcp_no_metrics_save": "1",
}

_SIGNAL, _SUBFLOW, _BACKUP, _FULLMESH = 1, 2, 4, 8
_FLAGS = {"signal": _SIGNAL, "subflow": _SUBFLOW, "backup": _BACKUP, "fullmesh": _FULLMESH}
"""MPTCP_PM_ADDR_FLAG_*"""
_SET_FLAGS = 7
"""MPTCP_PM_CMD_SET_FLAGS, which pyroute2 does not have."""


def setting(name: str, value: str) -> None:
    """Sets what is under /proc/sys/net, which shows this process its own namespace."""
    Path("/proc/sys/net", name).write_text(value)


class Space:
    """What can be asked of the namespace. Each method is a command; its answer is a JSON object."""

    def __init__(self) -> None:
        self._route = IPRoute()
        self._mptcp: MPTCP | None = None
        self.passed: list[int] = []
        """Descriptors that go with the next answer."""

    def configure(self, devices: list[dict[str, object]], by_source: bool) -> None:
        """Makes a device for each path: its name and addresses. `by_source`: what comes from a path's address takes
        that path, wherever it goes; otherwise the destination says."""
        for name, value in _SETTINGS.items():
            setting(name, value)
        self._route.link("set", index=self._index("lo"), state="up")
        for number, device in enumerate(devices):
            name, table = str(device["name"]), FIRST_TABLE + number
            self.passed.append(open_tun(name))
            addresses = [str(address) for address in _list(device["addresses"])]
            self._route.link("set", index=self._index(name), mtu=MTU, txqlen=QUEUE_LENGTH, state="up")
            for address in addresses:
                self.add_address(name, address)
                if by_source:
                    self._by_source(name, address, table)

    def _by_source(self, name: str, address: str, table: int) -> None:
        own = ip_interface(address)
        family = socket.AF_INET if own.version == 4 else socket.AF_INET6
        self._route.route("add", family=family, dst="default", oif=self._index(name), table=table)
        self._route.rule("add", family=family, src=str(own.ip), src_len=own.max_prefixlen, table=table, priority=table)

    def add_address(self, name: str, address: str) -> None:
        own = ip_interface(address)
        self._route.addr("add", index=self._index(name), address=str(own.ip), prefixlen=own.network.prefixlen)

    def remove_address(self, name: str, address: str) -> None:
        own = ip_interface(address)
        self._route.addr("del", index=self._index(name), address=str(own.ip), prefixlen=own.network.prefixlen)

    def set_link(self, name: str, up: bool) -> None:
        self._route.link("set", index=self._index(name), state="up" if up else "down")

    def facts(self) -> dict[str, object]:
        """What is there: names of links, addresses, and TCP segments that were sent again."""
        links = [link.get_attr("IFLA_IFNAME") for link in self._route.get_links()]
        addresses = [address.get_attr("IFA_ADDRESS") for address in self._route.get_addr()]
        return {"links": links, "addresses": addresses, "retransmitted": retransmitted()}

    def mptcp_limits(self, subflows: int, accepted: int) -> None:
        self._pm().limits("set", subflows=subflows, add_addr_accepted=accepted)

    def mptcp_endpoint(self, address: str, number: int, flags: list[str]) -> None:
        """An address for Multipath TCP to use or to announce."""
        key = "addr4" if ip_interface(address).version == 4 else "addr6"
        bits = sum(_FLAGS[flag] for flag in flags)
        self._pm().endpoint("add", id=number, flags=bits, **{key: str(ip_interface(address).ip)})

    def mptcp_backup(self, number: int, backup: bool) -> None:
        """Makes an endpoint a backup, or none any more; the peer is told (MP_PRIO, RFC 8684 3.3.8)."""
        request = mptcp_msg()
        request["cmd"], request["version"] = _SET_FLAGS, 1
        endpoint = [("MPTCP_PM_ADDR_ATTR_ID", number), ("MPTCP_PM_ADDR_ATTR_FLAGS", _BACKUP * backup)]
        request["attrs"] = [("MPTCP_PM_ATTR_ADDR", {"attrs": endpoint}, NLA_F_NESTED)]
        manager = self._pm()
        manager.nlm_request(request, msg_type=manager.prid, msg_flags=NLM_F_REQUEST | NLM_F_ACK)

    def _pm(self) -> MPTCP:
        if self._mptcp is None:
            self._mptcp = MPTCP()
        return self._mptcp

    def _index(self, name: str) -> int:
        return int(self._route.link_lookup(ifname=name)[0])


def retransmitted() -> int:
    """TCP segments that this namespace has sent again since it began."""
    names, values = (line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line[:4] == "Tcp:")
    return int(values[names.index("RetransSegs")])


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else []


def main() -> int:
    """Given on the command line: the descriptor of the control socket."""
    control = socket.socket(fileno=int(sys.argv[1]))
    space = Space()
    control.send(b'{"ready": true}')
    while message := control.recv(MESSAGE):
        words = json.loads(message)
        answer: dict[str, object] = {"at": time.monotonic()}
        try:
            work: Callable[..., dict[str, object] | None] = getattr(space, words.pop("do"))
            answer |= work(**words) or {}
        except (OSError, NetlinkError) as error:
            answer["error"] = str(error)
        if space.passed:
            socket.send_fds(control, [json.dumps(answer).encode()], space.passed)
            for fd in space.passed:
                os.close(fd)
            space.passed.clear()
        else:
            control.send(json.dumps(answer).encode())
    # A connection without a path would keep the namespace for many minutes, trying to say good-bye.
    with suppress(OSError):
        setting("ipv4/tcp_orphan_retries", "1")
    return 0


if __name__ == "__main__":
    sys.exit(main())
