"""The loader itself: names, the kernel's number of arguments, links, and what it costs."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tcpls.errors import ProgramRefused
from tcpls.kernel import loader
from tcpls.kernel.elf_check import Places, check_object
from tcpls.kernel.helper_client import HelperClient
from tcpls.kernel.program import Mode, ProgramFile, ProgramPolicy
from tests.kernel.conftest import algorithm, available, emulated_path, until
from tests.unit.kernel.objects import compile_text, shipped

pytestmark = [pytest.mark.kernel]

Pair = Callable[[], tuple[socket.socket, socket.socket]]


def test_names_are_ours_random_and_within_the_kernels_rules() -> None:
    names = {loader.new_name() for _ in range(1000)}
    assert len(names) == 1000
    assert all(re.fullmatch(r"tcpls_[a-z2-7]{9}", name) for name in names)


def test_the_image_gets_our_name_and_no_flag_that_opens_it_to_everybody() -> None:
    image = bytes(100)
    ready = loader.prepare(image, Places(10, 40, 60), "tcpls_abcdefghi", needs_ecn=True, arguments=4)
    assert ready[10:26] == b"tcpls_abcdefghi\0"
    assert (ready[40:44], ready[60:64]) == (b"\2\0\0\0", b"\4\0\0\0")
    assert loader.prepare(image, Places(10, 40, 0), "n", needs_ecn=False, arguments=4)[40:] == bytes(60)


@pytest.mark.parametrize("places", [Places(95, 0, 0), Places(-1, 0, 0), Places(0, 0, 0), Places(10, 98, 0)])
def test_places_outside_the_image_are_refused(places: Places) -> None:
    with pytest.raises(ProgramRefused):
        loader.prepare(bytes(100), places, "n", needs_ecn=False, arguments=0)


CONG_CONTROL = """
    #include "tcpls_cc.h"
    char LICENSE[] SEC("license") = "GPL";
    const volatile u32 tcpls_cong_control_args = 2;
    SEC("struct_ops/ssthresh") u32 BPF_PROG(fixed_ssthresh, struct sock *sk) { return 10; }
    SEC("struct_ops/undo_cwnd") u32 BPF_PROG(fixed_undo_cwnd, struct sock *sk) { return 10; }
    SEC("struct_ops/cong_control") int fixed_cong_control(u64 *arguments)
    {
        struct tcp_sock *tp = (struct tcp_sock *)arguments[0];
        const struct rate_sample *sample = tcpls_rate_sample(arguments, tcpls_cong_control_args);

        tp->snd_cwnd = sample->acked_sacked ? 33 : 34;
        return 0;
    }
    SEC(".struct_ops") struct tcp_congestion_ops fixed = {
        .ssthresh = (void *)fixed_ssthresh, .undo_cwnd = (void *)fixed_undo_cwnd,
        .cong_control = (void *)fixed_cong_control, .name = "fixed" };
"""


def test_cong_control_gets_the_rate_sample_whatever_the_kernels_arguments(kernel: None, pair: Pair) -> None:
    """The object asks for two arguments; the loader writes this kernel's number, and the verifier agrees."""
    image = compile_text(CONG_CONTROL)
    assert check_object(image).places.arguments
    program, (client, server) = ProgramFile("fixed", image), pair()
    with HelperClient.spawn(ProgramPolicy(Mode.AUTHENTICATED)) as helper:
        helper.load(program.offer, image, client.fileno(), peer_authenticated=True).close()
        client.sendall(bytes(100_000))
        received = 0
        while received < 100_000:
            received += len(server.recv(65536))
        raw = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        assert int.from_bytes(raw[80:84], "little") in (33, 34)


def test_every_load_has_a_name_of_its_own(kernel: None, pair: Pair) -> None:
    """Two processes with the same program do not meet, and closing one leaves the other."""
    program, sockets = shipped("reno"), [pair()[0], pair()[0]]
    policy = ProgramPolicy.pinned([program.digest])
    with HelperClient.spawn(policy) as one, HelperClient.spawn(policy) as two:
        first = one.load(program.offer, program.image, sockets[0].fileno())
        second = two.load(program.offer, program.image, sockets[1].fileno())
        assert first.algorithm != second.algorithm
        first.close()
        assert until(lambda: first.algorithm not in available())
        assert second.algorithm in available()
        second.close()
    assert algorithm(sockets[1]) == second.algorithm, "a socket keeps what it has"


def test_a_program_works_in_another_network_namespace(helper: HelperClient) -> None:
    program = shipped("reno")
    with emulated_path(rate=50e6, delay=0.001) as connect:
        flow = connect()
        with helper.load(program.offer, program.image, flow.sender.fileno()) as attachment:
            assert algorithm(flow.sender) == attachment.algorithm
            flow.start()
            _, rate = flow.watch(0.5)
            assert rate > 1


def test_loading_is_quick(helper: HelperClient, pair: Pair) -> None:
    """Check, load and attach cubic: under 100 ms; attach what is loaded: under 5 ms. The best of seven: whatever else
    the machine does only adds to it."""
    program = shipped("cubic")
    loads, attaches = [], []
    for _ in range(7):
        client, server = pair()
        started = time.perf_counter()
        first = helper.load(program.offer, program.image, client.fileno())
        loads.append(1000 * (time.perf_counter() - started))
        started = time.perf_counter()
        second = helper.attach(program.digest, server.fileno())
        attaches.append(1000 * (time.perf_counter() - started))
        first.close()
        second.close()
    assert min(loads) < 100
    assert min(attaches) < 5


def test_loading_leaves_no_descriptor_behind(helper: HelperClient, pair: Pair) -> None:
    program, (client, _) = shipped("reno"), pair()

    def count() -> tuple[int, ...]:
        return tuple(len([*Path(f"/proc/{pid}/fd").iterdir()]) for pid in ("self", helper.pid))

    helper.load(program.offer, program.image, client.fileno()).close()
    before = count()
    for _ in range(5):
        helper.load(program.offer, program.image, client.fileno()).close()
        with pytest.raises(ProgramRefused):
            helper.load(program.offer, program.image[:-1], client.fileno())
    assert until(lambda: count() <= before)
