"""The table [network]: what it may say, and what is wrong with it by its key."""

from __future__ import annotations

from typing import Any

import pytest

from casemate.config import Config, parse_config
from casemate.egress.settings import anywhere_of, settings_of
from casemate.errors import ConfigError
from casemate.network_config import NetworkTable, read_network
from casemate.service_config import load_service


def test_an_empty_table_has_the_defaults() -> None:
    assert read_network({}) == NetworkTable()
    assert load_service(Config(), {"HOME": "/home/a"}).network.flow_retention_days == 14


def test_a_table_says_what_gateways_are_told() -> None:
    table = {"hosts": "/etc/own", "resolvers": ["9.9.9.9", "::1"], "anywhere": ["a.example", "10.0.0.0/8"]}
    assert (settings_of(table).hosts, settings_of(table).resolvers) == ("/etc/own", ("9.9.9.9", "::1"))
    assert anywhere_of(table) == ("a.example", "10.0.0.0/8")


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({"hosts": "relative"}, "network.hosts"),
        ({"hosts": 5}, "network.hosts"),
        ({"resolvers": ["a.example"]}, "network.resolvers"),
        ({"flow_retention_days": 0}, "network.flow_retention_days"),
        ({"flow_retention_days": "7"}, "network.flow_retention_days"),
        ({"anywere": []}, "network.anywere"),
    ],
)
def test_s2_61_what_is_wrong_is_named_by_its_key(table: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_network(table)
    assert caught.value.field == key


def test_a_file_with_a_wrong_table_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean anywhere"):
        parse_config(b"[network]\nanywere = []\n", name="config.toml")


def test_hosts_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="a b"):
        anywhere_of({"anywhere": ["a b"]})
