"""What sessions tell each other about records: their size (RFC 8449) and padding."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest

import tcpls
from tcpls.aio.tls_setup import ClientSetup, ServerSetup
from tcpls.errors import Reason
from tcpls.protocol import negotiation
from tcpls.protocol.negotiation import LEAST_CONTENT
from tcpls.tls import config as tls_config
from tcpls.tls.connection import ClientConnection, ServerConnection
from tcpls.tls.engines import libraries
from tests.aio.ends import Ends, Relay, run
from tests.aio.test_streams import echo
from tests.unit.tls.pair import shake

DATA = os.urandom(300_000)


class Sizes(Relay):
    """Notes how long the records are that pass: what is behind their headers."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.sizes: list[int] = []
        self._waiting: dict[object, bytearray] = {}

    def look(self, flow: object, data: bytes) -> None:
        waiting = self._waiting.setdefault(flow, bytearray())
        waiting += data
        while len(waiting) >= 5 and len(waiting) >= (end := 5 + int.from_bytes(waiting[3:5], "big")):
            if waiting[0] == 23:
                self.sizes.append(end - 5)
            del waiting[:end]


@pytest.mark.parametrize(
    ("mode", "limit"),
    [(tcpls.Negotiate.OFF, 64), (tcpls.Negotiate.OFF, 5000), (tcpls.Negotiate.REQUIRE, LEAST_CONTENT + 1)],
)
def test_both_ends_keep_to_the_others_limit(ends: Ends, mode: tcpls.Negotiate, limit: int) -> None:
    async def test() -> None:
        async with (
            ends.serve(echo, record_size_limit=limit, tcpls=mode) as server,
            Sizes(server.port) as relay,
            ends.connect(relay.port, record_size_limit=limit, tcpls=mode) as session,
        ):
            stream = await session.open_stream()
            await stream.write(DATA)
            await stream.write_eof()
            assert await stream.readall() == DATA
            # A TLSInnerPlaintext of the limit, and the tag.
            assert max(relay.sizes) == limit + 16
            info = session.info()
            assert (info.max_sent, info.max_received) == (limit - 1, limit - 1)
            assert f"records: at most {limit - 1} bytes to the peer, {limit - 1} from it" in info.lines()

    run(test())


@pytest.mark.parametrize("mode", [tcpls.Negotiate.OFF, tcpls.Negotiate.REQUIRE])
def test_records_are_padded(ends: Ends, mode: tcpls.Negotiate) -> None:
    async def test() -> None:
        padding = tcpls.Padding(handshake=2000, data=512)
        async with (
            ends.serve(echo, padding=padding, tcpls=mode, tickets=0) as server,
            Sizes(server.port) as relay,
            ends.connect(relay.port, padding=padding, tcpls=mode) as session,
        ):
            stream = await session.open_stream()
            for size in (1, 100, 511, 512, 1000):
                await stream.write(DATA[:size])
                assert await stream.read(size) is not None
            await stream.write_eof()
            await stream.readall()
            assert {size - 16 for size in relay.sizes if size - 16 != 2000} <= {512, 1024}
            assert relay.sizes.count(2016) == 2

    run(test())


def test_the_kernel_does_not_pad(ends: Ends) -> None:
    async def test() -> None:
        padding = tcpls.Padding(data=512)
        async with ends.pair(ktls=tcpls.KTLS.WHERE_POSSIBLE, padding=padding) as (client, _):
            assert client.info().connections[0].ktls_tx == "off, records are padded"
        async with ends.serve(echo) as server:
            with pytest.raises(tcpls.KernelUnavailable):
                await ends.connect(server.port, ktls=tcpls.KTLS.REQUIRE, padding=padding)

    run(test())


def test_limits_too_small_for_tcpls_are_for_ordinary_tls(ends: Ends) -> None:
    async def test() -> None:
        with pytest.raises(tcpls.ConfigurationError):
            await ends.connect(1, record_size_limit=LEAST_CONTENT)
        with pytest.raises(tcpls.ConfigurationError):
            await ends.serve(echo, record_size_limit=1000).__aenter__()
        async with (
            ends.serve(echo) as server,
            ends.connect(server.port, record_size_limit=1000, tcpls=tcpls.Negotiate.OFF) as session,
        ):
            assert session.info().tcpls == "off, not offered"

    run(test())


def test_frames_are_not_put_into_records_that_are_too_short_for_them(ends: Ends) -> None:
    """Peers that announce TCPLS and short records: a client gets ordinary TLS, a server has broken the rule."""
    setup = ServerSetup(tcpls.ServerConfig(certificate=ends.certificate, private_key=ends.key))
    library = libraries.library("openssl")
    foreign = tls_config.ClientConfig(
        "localhost", None, record_size_limit=LEAST_CONTENT, extra_extensions=negotiation.client_extensions()
    )
    client = ClientConnection(foreign, random=os.urandom, time=datetime.now(UTC))
    established = shake(client, setup.connection())[1]
    outcome = setup.outcome(established)
    assert (outcome.tcpls, outcome.why) == (False, "the client takes no more than 10239 bytes in a record")
    ours = ClientSetup(tcpls.ClientConfig(ca_file=ends.ca, server_name="localhost"), "localhost")
    short = tls_config.ServerConfig(
        (library.load_identity(ends.certificate, ends.key),),
        answer=lambda hello: tls_config.Answer(negotiation.server_extensions(hello.extensions, ours.local)),
        record_size_limit=LEAST_CONTENT,
    )
    established = shake(ours.connection(), ServerConnection(short, random=os.urandom))[0]
    with pytest.raises(tcpls.HandshakeError) as caught:
        ours.outcome(established)
    assert caught.value.reason is Reason.ILLEGAL_CHOICE


@pytest.mark.parametrize("mode", [tcpls.Negotiate.OFF, tcpls.Negotiate.REQUIRE])
def test_both_ends_export_the_same(ends: Ends, mode: tcpls.Negotiate) -> None:
    async def test() -> None:
        exported = set()
        for _ in range(2):
            async with ends.pair(server={"tcpls": mode}, tcpls=mode) as (client, server):
                for label, context, length in ((b"EXPORTER-a", b"", 32), (b"EXPORTER-a", b"c", 32), (b"b", b"", 100)):
                    material = client.export(label, context, length)
                    assert material == server.export(label, context, length)
                    assert len(material) == length
                    exported.add(material[:32])
                for label, length in ((b"", 1), (b"x" * 250, 1), (b"x", 0), (b"x", 255 * 48 + 1)):
                    with pytest.raises(tcpls.ApiMisuse):
                        client.export(label, b"", length)
        assert len(exported) == 6

    run(test())
