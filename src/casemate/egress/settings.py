"""What the operator's table `[network]` says to gateways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from casemate.egress.policy import parse_pattern
from casemate.egress.wire import Settings
from casemate.errors import ConfigError, InvalidInput
from casemate.network_config import read_network


def settings_of(table: Mapping[str, Any]) -> Settings:
    """The settings of a gateway. Raises ConfigError."""
    found = read_network(table)
    anywhere_of(table)
    return Settings(hosts=found.hosts, resolvers=found.resolvers)


def anywhere_of(table: Mapping[str, Any]) -> tuple[str, ...]:
    """Hosts that may lead to addresses that are not public, whatever sandbox asks. Raises ConfigError."""
    found = read_network(table).anywhere
    try:
        for text in found:
            parse_pattern(text, "anywhere")
    except InvalidInput as error:
        raise ConfigError("network.anywhere", error.message.partition(": ")[2], hint=error.hint) from error
    return found
