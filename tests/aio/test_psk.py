"""Sessions whose ends share a key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import tcpls
from tests.aio.ends import Ends, run
from tests.aio.test_resumption import echo, visit

PSK = tcpls.ExternalPsk("gerät 7".encode(), b"k" * 32)
LONG = tcpls.ExternalPsk(b"device 8", b"K" * 48, hash_name="sha384")
IMPORTED = tcpls.ExternalPsk(b"device 9", b"i" * 32, imported=True, context=b"client and server")


def serve_without_certificate(**settings: Any) -> tcpls.serve:
    return tcpls.serve(echo, "127.0.0.1", 0, config=tcpls.ServerConfig(**settings))


@pytest.mark.parametrize("engine", ["openssl", "minicrypto"])
@pytest.mark.parametrize("modes", [(), ("psk_dhe_ke",), ("psk_ke",), ("psk_ke", "psk_dhe_ke")])
@pytest.mark.parametrize("psk", [PSK, LONG])
def test_a_key_in_place_of_certificates(
    ends: Ends, psk: tcpls.ExternalPsk, modes: tuple[str, ...], engine: str
) -> None:
    async def test() -> None:
        infos: list[tcpls.SessionInfo] = []

        async def handler(session: tcpls.Session) -> None:
            infos.append(session.info())
            await echo(session)

        config = tcpls.ServerConfig(psks=(PSK, LONG), psk_modes=("psk_dhe_ke", "psk_ke"), engine=engine)
        async with tcpls.serve(handler, "127.0.0.1", 0, config=config) as server:
            info = await visit(ends, server.port, psks=(psk,), psk_modes=modes)
        for each in (info, infos[0]):
            assert (each.psk, each.resumed, each.signature) == (psk.name, False, "")
            assert bool(each.group) is (modes != ("psk_ke",))
            assert each.authentication == f"pre-shared key '{psk.name}'"
        assert "gerät 7" in info.lines()[0] or psk is LONG
        assert "kkk" not in str(info) and "kkk" not in repr(psk)

    run(test())


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"])
def test_an_imported_key_goes_with_every_hash(ends: Ends, suite: str) -> None:
    async def test() -> None:
        async with serve_without_certificate(psks=(IMPORTED,)) as server:
            info = await visit(ends, server.port, psks=(IMPORTED,), suites=(suite,))
            assert info.suite == suite
            assert info.psk == "device 9"

    run(test())


@pytest.mark.parametrize(
    "other",
    [
        replace(IMPORTED, context=b"others"),
        tcpls.ExternalPsk(IMPORTED.identity, IMPORTED.key),
        replace(IMPORTED, hash_name="sha384"),
    ],
)
def test_an_imported_key_is_no_other_key(ends: Ends, other: tcpls.ExternalPsk) -> None:
    async def test() -> None:
        async with serve_without_certificate(psks=(IMPORTED,)) as server:
            with pytest.raises(tcpls.AlertReceived) as caught:
                await visit(ends, server.port, psks=(other,))
        expected = tcpls.Alert.DECRYPT_ERROR if other.hash_name == "sha384" else tcpls.Alert.UNKNOWN_PSK_IDENTITY
        assert caught.value.alert == expected

    run(test())


def test_certificates_where_the_server_does_not_know_the_key(ends: Ends) -> None:
    async def test() -> None:
        async with ends.serve(echo, psks=(LONG,)) as server:
            info = await visit(ends, server.port, psks=(PSK,))
            assert (info.psk, bool(info.signature)) == ("", True)
            assert (await visit(ends, server.port, psks=(PSK, LONG))).psk == "device 8"
            assert not (await visit(ends, server.port)).psk

    run(test())


def test_the_wrong_key_is_refused(ends: Ends) -> None:
    async def test() -> None:
        async with ends.serve(echo, psks=(PSK,)) as server:
            with pytest.raises(tcpls.AlertReceived) as caught:
                await visit(ends, server.port, psks=(replace(PSK, key=b"x" * 32),))
            assert caught.value.alert == tcpls.Alert.DECRYPT_ERROR

    run(test())


def test_a_session_of_a_key_is_resumed_with_the_key_alone_configured(ends: Ends) -> None:
    """A ticket of a session that a key had authenticated is nothing to a client without that key."""

    async def test() -> None:
        store = tcpls.MemoryTicketStore()
        async with ends.serve(echo, psks=(PSK,)) as server:
            assert (await visit(ends, server.port, psks=(PSK,), tickets=store)).psk
            assert not (await visit(ends, server.port, tickets=store)).resumed
            assert (await visit(ends, server.port, psks=(PSK,), tickets=store)).resumed
            assert not (await visit(ends, server.port, psks=(PSK, LONG), tickets=store)).resumed

    run(test())


def test_a_server_knows_whose_session_is_resumed(ends: Ends) -> None:
    async def test() -> None:
        infos: list[tcpls.SessionInfo] = []

        async def handler(session: tcpls.Session) -> None:
            infos.append(session.info())
            await echo(session)

        store = tcpls.MemoryTicketStore()
        config = tcpls.ServerConfig(psks=(LONG, IMPORTED))
        async with tcpls.serve(handler, "127.0.0.1", 0, config=config) as server:
            for _ in range(3):
                await visit(ends, server.port, psks=(IMPORTED,), tickets=store)
        assert [(info.resumed, info.psk) for info in infos] == [(False, "device 9"), *[(True, "device 9")] * 2]
        assert len({info.peer for info in infos}) == 1

    run(test())


def test_a_machine_without_authorities_can_use_a_key(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with serve_without_certificate(psks=(PSK,)) as server, ends.serve(echo) as other:
            config = tcpls.ClientConfig(psks=(PSK,))
            async with tcpls.connect("127.0.0.1", server.port, config=config) as session:
                assert session.info().psk
            with pytest.raises(tcpls.CertificateError, match="there are no authorities here"):
                await tcpls.connect("127.0.0.1", other.port, config=config)
            with pytest.raises(tcpls.ConfigurationError, match="no bundle"):
                await tcpls.connect("127.0.0.1", other.port)

    monkeypatch.setattr("tcpls.tls.engines.libraries.Library.system_trust.__defaults__", ((),))
    run(test())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "a server needs a certificate and its private key, or a pre-shared key"),
        ({"certificate": "c.pem"}, "a certificate and its private key go together"),
        ({"certificate": "c.pem", "psks": (PSK,)}, "a certificate and its private key go together"),
        ({"psks": (PSK, PSK)}, "the same identity"),
        ({"psks": (PSK,), "psk_modes": ("psk",)}, "'psk' is no key exchange mode"),
    ],
)
def test_servers_that_cannot_be(settings: dict[str, Any], sentence: str) -> None:
    async def test() -> None:
        with pytest.raises(tcpls.ConfigurationError, match=sentence):
            await serve_without_certificate(**settings)

    run(test())


@pytest.mark.parametrize(
    "make",
    [
        lambda: tcpls.ExternalPsk(b"short", b"k" * 15),
        lambda: tcpls.ExternalPsk(b"", b"k" * 16),
        lambda: tcpls.ExternalPsk(bytes(65536), b"k" * 16),
        lambda: tcpls.ExternalPsk(bytes(65528), b"k" * 16, imported=True),
        lambda: tcpls.ExternalPsk(b"x", b"k" * 16, hash_name="md5"),
        lambda: tcpls.ExternalPsk(b"x", b"k" * 16, context=b"y"),
    ],
)
def test_keys_that_cannot_be(make: Any) -> None:
    with pytest.raises(tcpls.ConfigurationError) as caught:
        make()
    assert "kkk" not in str(caught.value)


def test_the_longest_imported_identity_can_be_written() -> None:
    from tests.engine import ENGINE

    keys = tcpls.ExternalPsk(bytes(65527), b"k" * 16, imported=True).keys(ENGINE)
    assert {len(key.identity) for key in keys} == {65535}
