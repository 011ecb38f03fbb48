"""Encrypted ClientHello, from the runner's flags to configurations and keys."""

from __future__ import annotations

from tcpls.errors import ConfigurationError, EchRejected
from tcpls.tls.ech.configs import EchConfig, choose_config, read_configs
from tcpls.tls.ech.keys import EchKey, EchKeys
from tcpls.tls.engine import CryptoEngine
from tcpls.tls.hpke import Kem
from tests.interop.bogo.expect import expect
from tests.interop.bogo.flags import Settings, Unimplemented


def client_configs(settings: Settings) -> tuple[EchConfig, ...]:
    """What a client is to use: nothing, where nothing of the list can be used and the flags do not mind."""
    configs = read_configs(settings.ech_config_list) if settings.ech_config_list else ()
    if not configs and settings.reject_unusable_ech_config:
        raise ConfigurationError("no ECH configuration can be used: there is none")
    return configs if settings.reject_unusable_ech_config or choose_config(configs) else ()


def server_keys(settings: Settings, engine: CryptoEngine) -> EchKeys | None:
    keys = []
    for contents, private in zip(settings.ech_server_config, settings.ech_server_key, strict=True):
        (config,) = read_configs(len(contents).to_bytes(2, "big") + contents)
        keys.append(EchKey(config, engine.static_share(Kem(config.kem).group, private)))
    retry = tuple(key.config for key, told in zip(keys, settings.ech_is_retry_config, strict=True) if told)
    if keys and not retry:
        raise Unimplemented("keys for Encrypted ClientHello of which no client is to be told")
    return EchKeys(tuple(keys), retry) if keys else None


def check_rejection(settings: Settings, rejection: EchRejected | None) -> None:
    """Whether the server has told the configurations that the flags name, if they do."""
    told = None if rejection is None else rejection.retry_configs
    if settings.expect_no_ech_retry_configs:
        expect("retry configurations", told, b"")
    if settings.expect_ech_retry_configs:
        expect("retry configurations", told, settings.expect_ech_retry_configs)
