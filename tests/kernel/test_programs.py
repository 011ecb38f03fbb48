"""What the project's controllers do on a path, not only that they load: growth, loss, rate and queue."""

from __future__ import annotations

import statistics

import pytest

from tcpls.kernel.helper_client import HelperClient
from tests.kernel.conftest import TcpState, emulated_path
from tests.unit.kernel.objects import SHIPPED, shipped

pytestmark = [pytest.mark.kernel]

INFINITE = 0x7FFFFFFF


@pytest.mark.parametrize(("name", "share"), [("reno", 0.5), ("cubic", 0.7)])
def test_slow_start_doubles_and_a_loss_takes_the_share_of_the_rfc(
    helper: HelperClient, name: str, share: float
) -> None:
    """RFC 5681: half; RFC 9438: 0.7. One packet is dropped, on a path whose queue never overflows."""
    program = shipped(name)
    with emulated_path(rate=50e6, queue=10_000_000, drop=(600,)) as connect:
        flow = connect()
        with helper.load(program.offer, program.image, flow.sender.fileno()):
            begin = TcpState.of(flow.sender)
            flow.start()
            states, _ = flow.watch(1.5, step=0.002)
    assert begin.cwnd <= 10
    assert begin.ssthresh >= INFINITE
    before = [state for state in states if state.ssthresh >= INFINITE]
    after = [state for state in states if state.ssthresh < INFINITE]
    assert max(state.cwnd for state in before) > 8 * begin.cwnd
    assert after, "the loss did not lower the threshold"
    assert after[0].ssthresh == pytest.approx(share * before[-1].cwnd, rel=0.25)
    # Congestion avoidance begins at the threshold and grows from there.
    assert min(state.cwnd for state in after) <= 1.2 * after[0].ssthresh
    assert after[-1].cwnd > after[0].ssthresh


@pytest.mark.parametrize("name", ["reno", "cubic"])
def test_loss_based_controllers_fill_the_path_and_its_queue(helper: HelperClient, name: str) -> None:
    program = shipped(name)
    with emulated_path(rate=20e6, delay=0.02, queue=100_000) as connect:
        flow = connect()
        with helper.load(program.offer, program.image, flow.sender.fileno()):
            flow.start()
            flow.watch(2.0)
            states, rate = flow.watch(5.0)
    assert 16.0 < rate < 20.5
    assert statistics.median(state.rtt for state in states) > 52
    assert states[-1].retransmits > 0


def test_vegas_has_the_rate_without_the_queue(helper: HelperClient) -> None:
    program = shipped("vegas")
    with emulated_path(rate=20e6, delay=0.02, queue=100_000) as connect:
        flow = connect()
        with helper.load(program.offer, program.image, flow.sender.fileno()):
            flow.start()
            flow.watch(3.0)
            states, rate = flow.watch(3.0)
    assert 16.0 < rate < 20.5
    assert statistics.median(state.rtt for state in states) < 50


def test_a_running_reno_flow_becomes_a_vegas_flow(helper: HelperClient) -> None:
    """The queue that Reno built is gone a few round trips after the program is attached; the rate stays."""
    reno, vegas = shipped("reno"), shipped("vegas")
    with emulated_path(rate=20e6, delay=0.02, queue=100_000) as connect:
        flow = connect()
        with helper.load(reno.offer, reno.image, flow.sender.fileno()):
            flow.start()
            flow.watch(3.0)
            with_reno, _ = flow.watch(1.5)
            with helper.load(vegas.offer, vegas.image, flow.sender.fileno()):
                flow.watch(4.0)
                with_vegas, rate = flow.watch(2.0)
    assert statistics.median(state.rtt for state in with_reno) > 52
    assert statistics.median(state.rtt for state in with_vegas) < 52
    assert rate > 15


def test_an_application_that_sends_little_does_not_grow_the_window(helper: HelperClient) -> None:
    """RFC 7661's reason: the window was never tested. A program that reads the wrong bit fails here or never grows."""
    for name in ("reno", "cubic", "vegas"):
        program = shipped(name)
        with emulated_path(rate=50e6, delay=0.005) as connect:
            flow = connect()
            with helper.load(program.offer, program.image, flow.sender.fileno()):
                for _ in range(100):
                    flow.sender.send(bytes(1000))
                    flow.receiver.recv(1000)
                assert TcpState.of(flow.sender).cwnd <= 12


@pytest.mark.parametrize("name", SHIPPED)
def test_a_window_made_small_by_losses_grows_again(helper: HelperClient, name: str) -> None:
    """2 % random loss keeps windows at a few segments, where few RTT samples come in a round."""
    program = shipped(name)
    with emulated_path(rate=20e6, delay=0.01, loss=0.02) as connect:
        flow = connect()
        with helper.load(program.offer, program.image, flow.sender.fileno()):
            flow.start()
            flow.watch(1.0)
            states, rate = flow.watch(4.0)
    assert rate > 1.5
    assert statistics.median(state.cwnd for state in states) >= 4
