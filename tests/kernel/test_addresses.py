"""What becomes of addresses and links, as this kernel tells it, in namespaces of the tests' own."""

from __future__ import annotations

import asyncio
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from tcpls.aio.addresses import (
    AddressAdded,
    AddressChanged,
    AddressEvent,
    AddressRemoved,
    AddressWatcher,
    LinkDown,
    LinkUp,
    LocalAddress,
    local_addresses,
)
from tcpls.errors import ApiMisuse
from tests.kernel.namespaces import Namespace, namespace

pytestmark = pytest.mark.kernel

PREFIX = ip_network("2001:db8::/64")


class Log:
    """What a watcher was told, and a way to wait for it."""

    def __init__(self) -> None:
        self.events: list[AddressEvent] = []
        self._more = asyncio.Event()

    def __call__(self, event: AddressEvent) -> None:
        self.events.append(event)
        self._more.set()

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self._more.clear()
            await self._more.wait()

    async def told(self, kind: type[AddressEvent], text: str) -> AddressEvent:
        """The first event of this kind about this address or interface, from now on or before."""
        await self.until(lambda: self.find(kind, text))
        found = self.find(kind, text)
        assert found is not None
        return found

    def find(self, kind: type[AddressEvent], text: str) -> AddressEvent | None:
        return next((one for one in self.events if isinstance(one, kind) and subject(one) == text), None)


def subject(event: AddressEvent) -> str:
    return event.interface if isinstance(event, LinkUp | LinkDown) else str(event.address.address)


def texts(addresses: frozenset[LocalAddress]) -> set[str]:
    """Without those that every interface has."""
    return {str(one.address) for one in addresses if not one.link_local and not one.loopback}


@pytest.fixture
def space() -> Iterator[Namespace]:
    """Two interfaces, `left` and `right`, which are the two ends of one cable; both are up."""
    with namespace("addresses") as made:
        made.ip("link", "add", "left", "type", "veth", "peer", "name", "right")
        made.ip("link", "set", "left", "up")
        made.ip("link", "set", "right", "up")
        yield made


Watching = Callable[[AddressWatcher, Log], Coroutine[Any, Any, None]]


def watch(space: Namespace, test: Watching) -> None:
    async def main() -> None:
        log = Log()
        async with AddressWatcher(log) as watcher:
            await test(watcher, log)

    space.run(main())


async def ip(space: Namespace, *words: str) -> str:
    """ip(8) in another thread: the event loop goes on meanwhile."""
    return await asyncio.get_running_loop().run_in_executor(None, lambda: space.ip(*words))


def test_addresses_come_and_go(space: Namespace) -> None:
    space.ip("addr", "add", "192.0.2.1/24", "dev", "left")

    async def test(watcher: AddressWatcher, log: Log) -> None:
        assert texts(watcher.current()) == {"192.0.2.1"}
        assert watcher.current() == local_addresses()
        await ip(space, "addr", "add", "198.51.100.1/24", "dev", "right")
        added = await log.told(AddressAdded, "198.51.100.1")
        assert isinstance(added, AddressAdded)
        assert (added.address.interface, added.address.prefix) == ("right", 24)
        assert added.address in watcher.current()
        await ip(space, "addr", "del", "192.0.2.1/24", "dev", "left")
        await log.told(AddressRemoved, "192.0.2.1")
        assert texts(watcher.current()) == {"198.51.100.1"}
        assert watcher.current() == local_addresses()

    watch(space, test)


def test_addresses_of_a_link_that_goes_down_cannot_be_used(space: Namespace) -> None:
    space.ip("addr", "add", "192.0.2.1/24", "dev", "left")

    async def test(watcher: AddressWatcher, log: Log) -> None:
        # Switched off: the kernel keeps IPv4 addresses configured, and says nothing of them.
        await ip(space, "link", "set", "left", "down")
        await log.told(AddressRemoved, "192.0.2.1")
        down, removed = log.find(LinkDown, "left"), log.find(AddressRemoved, "192.0.2.1")
        assert down and removed and log.events.index(down) < log.events.index(removed)
        assert texts(watcher.current()) == set()
        log.events.clear()
        await ip(space, "link", "set", "left", "up")
        await log.told(AddressAdded, "192.0.2.1")
        up, added = log.find(LinkUp, "left"), log.find(AddressAdded, "192.0.2.1")
        assert up and added and log.events.index(up) < log.events.index(added)
        log.events.clear()
        # Without a carrier: the other end of the cable is switched off.
        await ip(space, "link", "set", "right", "down")
        await log.told(AddressRemoved, "192.0.2.1")
        await log.told(LinkDown, "left")
        assert watcher.current() == local_addresses()

    watch(space, test)


def test_an_interface_that_is_taken_away(space: Namespace) -> None:
    space.ip("addr", "add", "192.0.2.1/24", "dev", "left")

    async def test(watcher: AddressWatcher, log: Log) -> None:
        await ip(space, "link", "del", "left")
        await log.told(LinkDown, "left")
        await log.told(AddressRemoved, "192.0.2.1")
        await log.told(LinkDown, "right")
        assert {one.interface for one in watcher.current()} == {"lo"}

    watch(space, test)


def test_an_address_counts_when_nobody_else_has_it(space: Namespace) -> None:
    """RFC 4862 5.4: an IPv6 address is tentative until duplicate address detection is over, a second or two."""

    async def test(watcher: AddressWatcher, log: Log) -> None:
        await ip(space, "addr", "add", "2001:db8::1/64", "dev", "left")
        for number in range(20):
            # An address is tentative in the beginning only: what was so after a look was so at the look.
            address = f"2001:db8::1:{number}"
            await ip(space, "addr", "add", f"{address}/64", "dev", "left")
            known = texts(watcher.current())
            if "tentative" in await ip(space, "addr", "show", "dev", "left", "to", address):
                assert address not in known
                break
        else:
            pytest.fail("detection was always over before it could be looked at")
        await ip(space, "addr", "add", "2001:db8::2/64", "dev", "left", "nodad")
        await log.told(AddressAdded, "2001:db8::2")
        await log.told(AddressAdded, "2001:db8::1")
        assert "tentative" not in await ip(space, "addr", "show", "dev", "left", "to", "2001:db8::1")
        # The other end of the cable wants the same, and is told that it may not.
        await ip(space, "addr", "add", "2001:db8::1/64", "dev", "right")
        await ip(space, "addr", "add", "2001:db8::3/64", "dev", "right")
        await log.told(AddressAdded, "2001:db8::3")
        assert "dadfailed" in await ip(space, "addr", "show", "dev", "right", "to", "2001:db8::1")
        assert {one.interface for one in watcher.current() if str(one.address) == "2001:db8::1"} == {"left"}
        assert watcher.current() == local_addresses()

    watch(space, test)


def test_deprecated_addresses_are_said_to_be(space: Namespace) -> None:
    space.ip("addr", "add", "2001:db8::1/64", "dev", "left", "nodad")

    async def test(watcher: AddressWatcher, log: Log) -> None:
        change = ("addr", "change", "2001:db8::1/64", "dev", "left", "valid_lft", "forever", "preferred_lft")
        await ip(space, *change, "0")
        old = await log.told(AddressChanged, "2001:db8::1")
        assert isinstance(old, AddressChanged) and old.address.deprecated
        assert old.address in watcher.current()
        log.events.clear()
        await ip(space, *change, "forever")
        new = await log.told(AddressChanged, "2001:db8::1")
        assert isinstance(new, AddressChanged) and not new.address.deprecated

    watch(space, test)


def test_temporary_addresses_are_said_to_be(space: Namespace) -> None:
    """RFC 8981: the kernel makes one for each address that says so. The same bit means secondary for IPv4."""
    space.inside(lambda: _write("/proc/sys/net/ipv6/conf/left/use_tempaddr", "2"))
    space.ip("addr", "add", "192.0.2.1/24", "dev", "left")
    space.ip("addr", "add", "192.0.2.2/24", "dev", "left")

    async def test(watcher: AddressWatcher, log: Log) -> None:
        # The kernel wants to know the end of what it makes temporary ones from.
        await ip(
            space, "addr", "add", "2001:db8::1/64", "dev", "left", "mngtmpaddr", "valid_lft", "86400",
            "preferred_lft", "86400",
        )  # fmt: skip

        def made() -> list[LocalAddress]:
            return [one for one in watcher.current() if one.temporary]

        await log.until(made)
        await log.told(AddressAdded, "2001:db8::1")
        assert [one.address in PREFIX for one in made()] == [True]
        plain = {str(one.address) for one in watcher.current() if not one.temporary and not one.link_local}
        assert plain >= {"2001:db8::1", "192.0.2.1", "192.0.2.2"}

    watch(space, test)


def _write(path: str, text: str) -> None:
    # The view of /proc/sys/net is that of the thread that opens it.
    Path(path).write_text(text)


def test_one_address_with_two_prefixes_is_one(space: Namespace) -> None:
    space.ip("addr", "add", "192.0.2.1/24", "dev", "left")

    async def test(watcher: AddressWatcher, log: Log) -> None:
        await ip(space, "addr", "add", "192.0.2.1/32", "dev", "left")
        await ip(space, "addr", "del", "192.0.2.1/24", "dev", "left")
        changed = await log.told(AddressChanged, "192.0.2.1")
        assert isinstance(changed, AddressChanged) and changed.address.prefix == 32
        assert not log.find(AddressRemoved, "192.0.2.1")

    watch(space, test)


def test_the_far_end_of_a_link_is_not_this_machine(space: Namespace) -> None:
    space.ip("addr", "add", "192.0.2.1", "peer", "192.0.2.2/32", "dev", "left")
    found: list[frozenset[LocalAddress]] = []
    space.inside(lambda: found.append(local_addresses()))
    assert texts(found[0]) == {"192.0.2.1"}


def test_notices_that_are_lost_are_made_up_for(space: Namespace) -> None:
    """More changes than the socket's buffer takes, while the event loop does something else."""
    count = 1000
    space.ip("addr", "add", "203.0.113.1/32", "dev", "right")

    async def test(watcher: AddressWatcher, log: Log) -> None:
        changes = [f"addr add 198.18.{n >> 8}.{n & 255}/32 dev left" for n in range(count)]
        space.batch([*changes, "addr del 203.0.113.1/32 dev right"])
        assert _drops() > 0
        await log.told(AddressRemoved, "203.0.113.1")
        await log.until(lambda: len(texts(watcher.current())) == count)
        assert watcher.current() == local_addresses()
        told = [event.address for event in log.events if isinstance(event, AddressAdded)]
        assert len(told) == len(set(told)) and set(told) <= watcher.current()
        # And it goes on.
        await ip(space, "addr", "add", "203.0.113.2/32", "dev", "right")
        await log.told(AddressAdded, "203.0.113.2")

    watch(space, test)


def test_a_fresh_look_that_fails_is_tried_again(space: Namespace, caplog: pytest.LogCaptureFixture) -> None:
    """When it is due, the process has no descriptor left."""

    async def test(watcher: AddressWatcher, log: Log) -> None:
        space.batch([f"addr add 198.18.{n >> 8}.{n & 255}/32 dev left" for n in range(1000)])
        assert _drops() > 0
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            while not caplog.records:
                await asyncio.sleep(0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert log.events == []
        await log.until(lambda: len(texts(watcher.current())) == 1000)

    watch(space, test)
    assert [record.getMessage() for record in caplog.records] == [
        "local addresses are not known at the moment: "
        "watching addresses: this process cannot use netlink: Too many open files"
    ]


def _drops() -> int:
    """How many notices this process's sockets have lost, as the kernel counts them."""
    lines = Path("/proc/thread-self/net/netlink").read_text().splitlines()
    column = lines[0].split().index("Drops")
    return sum(int(line.split()[column]) for line in lines[1:])


def _netlink_sockets() -> int:
    descriptors = [one.name for one in Path("/proc/self/fd").iterdir()]
    inodes = {_inode(name) for name in descriptors}
    lines = Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]
    return sum(line.split()[-1] in inodes for line in lines)


def _inode(descriptor: str) -> str:
    try:
        match = re.fullmatch(r"socket:\[(\d+)\]", str(Path(f"/proc/self/fd/{descriptor}").readlink()))
    except FileNotFoundError:
        # That of the listing itself.
        return ""
    return match[1] if match else ""


def test_all_watchers_of_an_event_loop_share_one_socket(space: Namespace) -> None:
    async def main() -> None:
        assert _netlink_sockets() == 0
        logs = [Log() for _ in range(20)]
        watchers = [AddressWatcher(log) for log in logs]
        for watcher in watchers:
            watcher.start()
            watcher.start()
        assert _netlink_sockets() == 1
        await ip(space, "addr", "add", "192.0.2.1/24", "dev", "left")
        for log in logs:
            await log.told(AddressAdded, "192.0.2.1")
        # Each that stops hears no more, and the others do.
        watchers[0].stop()
        with pytest.raises(ApiMisuse):
            watchers[0].current()
        await ip(space, "addr", "add", "192.0.2.2/24", "dev", "left")
        await logs[-1].told(AddressAdded, "192.0.2.2")
        assert not logs[0].find(AddressAdded, "192.0.2.2")
        assert _netlink_sockets() == 1
        for watcher in watchers:
            watcher.stop()
        assert _netlink_sockets() == 0
        async with AddressWatcher() as again:
            assert texts(again.current()) == {"192.0.2.1", "192.0.2.2"}
        assert _netlink_sockets() == 0

    space.run(main())


def test_a_listener_may_stop_what_it_hears_and_may_fail(space: Namespace) -> None:
    async def main() -> None:
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        last = Log()

        def stopping(event: AddressEvent) -> None:
            first.stop()
            second.stop()

        def failing(event: AddressEvent) -> None:
            raise ValueError("a mistake of the application's")

        first, second, third = AddressWatcher(stopping), AddressWatcher(failing), AddressWatcher(failing)
        async with AddressWatcher(last):
            for one in (first, second, third):
                one.start()
            await ip(space, "addr", "add", "192.0.2.1/24", "dev", "left")
            await last.told(AddressAdded, "192.0.2.1")
            await ip(space, "addr", "add", "192.0.2.2/24", "dev", "left")
            await last.told(AddressAdded, "192.0.2.2")
            third.stop()
        assert len(complaints) >= 2 and all(isinstance(one["exception"], ValueError) for one in complaints)

    space.run(main())


WITHOUT_PRIVILEGE = """
import asyncio, os, sys
from tcpls.aio.addresses import AddressAdded, AddressWatcher

async def main():
    added = asyncio.Event()
    def told(event):
        if isinstance(event, AddressAdded) and str(event.address.address) == "192.0.2.1":
            added.set()
    async with AddressWatcher(told) as watcher:
        print(any(one.loopback for one in watcher.current()), flush=True)
        await added.wait()
        print("added")

# Whatever belongs to this process is imported by now: the user may not read it.
import pyroute2.netlink.rtnl.marshal
from tcpls.kernel import privileges
privileges.become(65534, frozenset())
assert (os.getuid(), privileges.held()) == (65534, frozenset())
asyncio.run(main())
"""


def test_it_needs_no_privilege(space: Namespace) -> None:
    command = ["ip", "netns", "exec", space.name, sys.executable, "-c", WITHOUT_PRIVILEGE]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        space.ip("addr", "add", "192.0.2.1/24", "dev", "left")
        assert process.communicate(timeout=60)[0] == "added\n"
    finally:
        process.kill()
        process.wait()


WITHOUT_NETLINK = """
import asyncio, ctypes, struct
from tcpls.aio.addresses import AddressWatcher
from tcpls.errors import KernelUnavailable

# A seccomp filter as sandboxes have it: socket(AF_NETLINK) is answered with EPERM.
steps = [(0x20, 0, 0, 0), (0x15, 0, 3, {number}), (0x20, 0, 0, 16), (0x15, 0, 1, 16)]
steps += [(6, 0, 0, 0x50001), (6, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(program)), 0, 0) == 0

async def main():
    try:
        async with AddressWatcher():
            pass
    except KernelUnavailable as error:
        print(error)

asyncio.run(main())
"""


def test_where_netlink_is_not_to_be_had_one_line_says_so() -> None:
    number = {"x86_64": 41, "aarch64": 198}[platform.machine()]
    script = WITHOUT_NETLINK.replace("{number}", str(number))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    told = (
        "watching addresses: this process cannot use netlink, perhaps for a seccomp filter: Operation not permitted\n"
    )
    assert (done.stdout, done.stderr) == (told, "")
