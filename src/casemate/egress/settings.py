"""What the operator's table `[network]` says to gateways. Other keys of it are the service's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from casemate.egress.policy import parse_pattern
from casemate.egress.wire import Settings
from casemate.errors import ConfigError, InvalidInput

_OURS: Final = frozenset(Settings.__struct_fields__)


def settings_of(table: Mapping[str, Any]) -> Settings:
    """The settings of a gateway. Raises ConfigError."""
    try:
        return msgspec.convert({name: value for name, value in table.items() if name in _OURS}, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError("network", str(error)[:200]) from error


def anywhere_of(table: Mapping[str, Any]) -> tuple[str, ...]:
    """Hosts that may lead to addresses that are not public, whatever sandbox asks. Raises ConfigError."""
    try:
        found = msgspec.convert(table.get("anywhere", ()), tuple[str, ...])
        for text in found:
            parse_pattern(text, "anywhere")
    except (msgspec.ValidationError, InvalidInput) as error:
        raise ConfigError("network.anywhere", str(error)[:200]) from error
    return found
