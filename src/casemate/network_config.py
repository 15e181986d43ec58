"""The table `[network]` of the configuration: what the operator sets for the ways out of all sandboxes."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Any

import msgspec

from casemate import network_limits as bound
from casemate.errors import ConfigError


class NetworkTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As people write it.

    `hosts`: a file of addresses and names, as `/etc/hosts`, that comes before everything. `resolvers`: addresses of
    name servers to ask; none for those that the machine uses. `anywhere`: hosts and networks that may be reached though
    they are not public, where a policy allows them. `flow_retention_days`: how long flows are kept.
    """

    hosts: str = ""
    resolvers: tuple[str, ...] = ()
    anywhere: tuple[str, ...] = ()
    flow_retention_days: int = bound.FLOW_RETENTION_DAYS


def read_network(table: Mapping[str, Any]) -> NetworkTable:
    """Raises ConfigError naming the key."""
    known = NetworkTable.__struct_fields__
    for name in table:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise ConfigError(f"network.{name}", "is unknown", hint=hint)
    try:
        found = msgspec.convert(table, NetworkTable)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$.")
        raise ConfigError(f"network.{place.rstrip('`')}".rstrip("."), problem) from error
    _check(found)
    return found


def _check(found: NetworkTable) -> None:
    if found.hosts and not found.hosts.startswith("/"):
        raise ConfigError("network.hosts", "must be an absolute path")
    for text in found.resolvers:
        try:
            ip_address(text)
        except ValueError as error:
            raise ConfigError("network.resolvers", f"{text[:80]!r} is no address") from error
    if not 1 <= found.flow_retention_days <= bound.FLOW_RETENTION_MAX_DAYS:
        raise ConfigError("network.flow_retention_days", f"must be from 1 to {bound.FLOW_RETENTION_MAX_DAYS}")
