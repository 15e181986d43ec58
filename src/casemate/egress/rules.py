"""Which hosts and ports may be reached, and at which addresses. Pure.

A rule names a host, exactly or as `*.suffix`, and a port. Whatever no rule allows is refused, so no rules allow
nothing. What a name resolves to is checked as well: only a rule that says `anywhere`, for a host that the person at
the machine has configured, may lead to an address that is not a public one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import msgspec

from casemate.errors import InvalidInput
from casemate.network_limits import HOST_MAX_CHARS

HTTPS_PORT: Final = 443
HTTP_PORT: Final = 80
PORT_MAX: Final = 65535
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_NUMBER: Final = re.compile(r"0x[0-9a-f]*|\d+", re.ASCII)
_ANY_BELOW: Final = "*."
_NAT64: Final = tuple(bytes.fromhex(prefix) for prefix in ("0064ff9b0000000000000000", "0064ff9b0001"))
"""Prefixes behind which a gateway reaches any IPv4 address."""

Address = IPv4Address | IPv6Address


class HostRule(msgspec.Struct, frozen=True):
    """One host, or with `*.` in front every host below it, on one port."""

    host: str
    port: int = HTTPS_PORT
    anywhere: bool = False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def covers(self, host: str, port: int) -> bool:
        """Whether the rule is about this host and port. A suffix stands for at least one more label."""
        if port != self.port:
            return False
        if self.host.startswith(_ANY_BELOW):
            return host.endswith(self.host[1:]) and len(host) >= len(self.host)
        return host == self.host


class Policy(msgspec.Struct, frozen=True):
    """The rules of one sandbox."""

    rules: tuple[HostRule, ...] = ()

    def rule_for(self, host: str, port: int) -> HostRule | None:
        """The rule that allows it, of several the most permissive one; None means refused."""
        found = [rule for rule in self.rules if rule.covers(host, port)]
        return max(found, key=lambda rule: rule.anywhere, default=None)


def normal_host(text: str) -> str:
    """A host name or address in the one form that rules are compared in; empty where it is none."""
    host = text.lower().removesuffix(".")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return str(ip_address(bare))
    except ValueError:
        pass
    if bare != host or not host or len(host) > HOST_MAX_CHARS:
        return ""
    labels = host.split(".")
    # A name whose last label is a number is an address to some resolvers, written to be read by few.
    is_name = all(_LABEL.fullmatch(label) for label in labels) and not _NUMBER.fullmatch(labels[-1])
    return host if is_name else ""


def parse_rule(text: str) -> HostRule:
    """`host`, `host:port`, `*.suffix` or `*.suffix:port` as people write them. Raises InvalidInput."""
    name, colon, digits = text.rpartition(":")
    if not colon or digits.endswith("]") or (":" in name and not name.startswith("[")):
        name, digits = text, str(HTTPS_PORT)
    below = name.startswith(_ANY_BELOW)
    host = normal_host(name[2:] if below else name)
    if not host or (below and is_address(host)) or not _is_port(digits):
        raise InvalidInput("allow", f"{text[:80]!r} is no host", hint="write it as HOST, HOST:PORT or *.SUFFIX")
    return HostRule(f"{_ANY_BELOW}{host}" if below else host, int(digits))


def _is_port(digits: str) -> bool:
    return digits.isascii() and digits.isdigit() and len(digits) <= len(str(PORT_MAX)) and 0 < int(digits) <= PORT_MAX


def is_address(host: str) -> bool:
    """Whether a host is written as an address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_public(text: str) -> bool:
    """Whether an address is one of the public Internet: not loopback, private, link-local, multicast or reserved."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return all(each.is_global and not each.is_multicast and not _is_old(each) for each in meant(address))


def _is_old(address: Address) -> bool:
    """Kinds that were given up, yet are routed somewhere: site-local, and IPv4 addresses written as IPv6 ones.

    All of `::/8` is set aside for such; of it only those pass that `meant` can read.
    """
    if not isinstance(address, IPv6Address):
        return False
    known = address.ipv4_mapped is not None or address.packed.startswith(_NAT64)
    return address.is_site_local or (address.packed[0] == 0 and not known)


def meant(address: Address) -> Iterable[Address]:
    """The address, and the IPv4 address that it stands for where it is of such a kind."""
    yield address
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            yield inner
        if address.teredo is not None:
            yield from address.teredo
        if address.packed.startswith(_NAT64):
            yield IPv4Address(address.packed[-4:])


def reachable(rule: HostRule, addresses: Iterable[str]) -> list[str]:
    """Of the addresses that a name resolves to, those that the rule may lead to."""
    return [address for address in addresses if rule.anywhere or is_public(address)]
