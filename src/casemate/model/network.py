"""What a sandbox may reach on a network, as values. Nothing is allowed that is not named."""

from __future__ import annotations

from typing import Final

import msgspec

BLOCKED_PORTS: Final = (22, 25, 3306, 5432)
"""Refused even where the host is allowed, unless a policy has a list of its own."""


class Injection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A header that the gateway adds to plain HTTP requests to one host; its value never enters the sandbox.

    `secret` is the name under which the tenant keeps the value, `value` that which was found for it: only the one who
    hands a policy to a gateway fills it in.
    """

    host: str
    header: str
    secret: str
    value: str = ""


class NetworkPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The way out of one sandbox.

    `outbound`: whether there is one at all. `allowed_hosts`: names, `*.suffix`, addresses, networks such as
    `203.0.113.0/24`, or `*` for every public host; each may end in `:PORT`. An empty list allows nothing.
    `allowed_ports`: empty for every port that is not blocked. `bandwidth_bytes_per_s`: of all connections together,
    each way; None for no bound. `strip_headers`: taken out of plain HTTP requests. `anywhere`: hosts, as in
    `allowed_hosts`, that may lead to addresses that are not public; only the operator's configuration sets it. `proxy`:
    programs are told of the gateway's HTTP proxy by the usual variables (HTTP_PROXY and such).
    """

    outbound: bool = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_ports: tuple[int, ...] = ()
    blocked_ports: tuple[int, ...] = BLOCKED_PORTS
    bandwidth_bytes_per_s: int | None = None
    strip_headers: tuple[str, ...] = ()
    inject: tuple[Injection, ...] = ()
    anywhere: tuple[str, ...] = ()
    proxy: bool = False


NO_NETWORK: Final = NetworkPolicy()
