"""Encrypted ClientHello: what is read is what was written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tcpls.errors import PeerError
from tcpls.tls.ech.configs import EchConfig, choose_config, read_configs, write_configs

U8, U16 = st.integers(0, 0xFF), st.integers(0, 0xFFFF)
CONFIGS = st.builds(
    EchConfig,
    config_id=U8,
    kem=U16,
    public_key=st.binary(min_size=1, max_size=70),
    suites=st.lists(st.tuples(U16, U16), min_size=1, max_size=5).map(tuple),
    public_name=st.binary(min_size=1, max_size=255),
    maximum_name_length=U8,
    extensions=st.lists(st.tuples(U16, st.binary(max_size=20)), max_size=4).map(tuple),
)


@given(st.lists(CONFIGS, min_size=1, max_size=5))
def test_configurations(configs: list[EchConfig]) -> None:
    assert list(read_configs(write_configs(configs))) == configs


@given(st.binary(max_size=200))
def test_any_bytes_are_configurations_or_an_error(data: bytes) -> None:
    try:
        configs = read_configs(data)
    except PeerError:
        return
    choose_config(configs)
    assert all(read_configs(write_configs((config,))) == (config,) for config in configs)
