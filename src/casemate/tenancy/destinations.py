"""Where notices may be sent, as far as an address itself tells. Pure.

To public hosts, encrypted; or wherever the configuration names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

import msgspec

from casemate.egress.rules import (
    HTTP_PORT,
    HTTPS_PORT,
    HostRule,
    Policy,
    is_address,
    is_public,
    normal_host,
    parse_rule,
)
from casemate.errors import ConfigError, InvalidInput
from casemate.model.network import BLOCKED_PORTS

_PORTS: Final = {"https": HTTPS_PORT, "http": HTTP_PORT}
_URL: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a notice goes. `rule` is what of the configuration allows that, for a host that need not be public."""

    scheme: str
    host: str
    port: int
    target: str
    rule: HostRule | None = None

    @property
    def authority(self) -> str:
        """As the header `Host` has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def configured(hosts: Iterable[str]) -> Policy:
    """The hosts of the configuration, which may be anywhere. Raises ConfigError."""
    try:
        return Policy(tuple(HostRule(rule.host, rule.port, anywhere=True) for rule in map(parse_rule, hosts)))
    except InvalidInput as error:
        raise ConfigError("accounting.webhook_hosts", error.message.partition(": ")[2], hint=error.hint) from error


def place_of(url: str, policy: Policy) -> Place:
    """An address that may be sent to, as far as it itself tells. Raises InvalidInput.

    Whatever it resolves to when something is sent is looked at then.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise InvalidInput("url", "is no address") from error
    if not _URL.fullmatch(url) or parts.scheme not in _PORTS or not parts.hostname:
        raise InvalidInput("url", "is no address", hint="write it as https://HOST/PATH")
    if "@" in parts.netloc or parts.fragment:
        raise InvalidInput("url", "has a user or a fragment, which nothing is sent")
    host = normal_host(parts.hostname)
    if not host:
        raise InvalidInput("url", f"{parts.hostname[:80]!r} is no host")
    rule = policy.rule_for(host, port)
    if rule is None:
        _check_public(parts.scheme, host, port)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Place(scheme=parts.scheme, host=host, port=port, target=target, rule=rule)


def _check_public(scheme: str, host: str, port: int) -> None:
    hint = "`accounting.webhook_hosts` of the configuration can allow it"
    if scheme != "https":
        raise InvalidInput("url", "is not encrypted: it must begin with https://", hint=hint)
    if port in BLOCKED_PORTS:
        raise InvalidInput("url", f"port {port} is for something else", hint=hint)
    if is_address(host) and not is_public(host):
        raise InvalidInput("url", f"{host} is no public address", hint=hint)
