"""What a sandbox may reach: its network policy, read once into rules that answer two questions. Pure.

`allows`: may this host be spoken to on this port, and in which way? `admits`: may this host lead to that address? The
second is asked after the name was resolved, of the very address that is connected to. Nothing is allowed that is not
named, so no names allow nothing; a blocked port is refused on every host.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

import msgspec

from casemate import network_limits as bound
from casemate.egress.rules import PORT_MAX, is_public, meant, normal_host
from casemate.errors import InvalidInput
from casemate.model.network import Injection, NetworkPolicy

EVERY: Final = "*"
BELOW: Final = "*."
WEB_PORTS: Final = frozenset({80, 443, 8000, 8008, 8080, 8443})
"""Ports on which servers of many hosts listen: only what names its host is let through to a host by name."""

_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", re.ASCII)
_VALUE: Final = re.compile(r"[\x20-\x7e\t]*", re.ASCII)
_FRAMING: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade"})
"""Headers that say where a message goes and where it ends."""

_METADATA: Final = IPv6Address("fd00:ec2::254")
_PUNYCODE: Final = "names in other letters are written as xn--…"
_HINT: Final = "write it as HOST, HOST:PORT, *.SUFFIX, an address, a network such as 203.0.113.0/24, or *"

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Pattern(msgspec.Struct, frozen=True):
    """One entry of a list of hosts: a name, `*.suffix`, `*`, or a network, and a port or none."""

    host: str = ""
    network: Network | None = None
    port: int | None = None

    def covers(self, host: str, port: int | None) -> bool:
        """Whether the entry is about this host, in its normal form, and this port; None for any port."""
        if self.port is not None and port is not None and port != self.port:
            return False
        if self.host == EVERY:
            return True
        address = address_of(host)
        if self.network is not None:
            return address is not None and address in self.network
        if self.host.startswith(BELOW):
            return address is None and host.endswith(self.host[1:]) and len(host) >= len(self.host)
        return host == self.host

    def includes(self, narrower: Pattern) -> bool:
        """Whether all that another entry is about, this one is about as well."""
        if self.port not in {None, narrower.port}:
            return False
        if self.host == EVERY:
            return True
        if self.network is not None:
            return narrower.network is not None and _is_within(narrower.network, self.network)
        if self.host.startswith(BELOW):
            return narrower.host.endswith(self.host[1:])
        return narrower.host == self.host


def _is_within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner.subnet_of(outer)
    return isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network) and inner.subnet_of(outer)


class Grant(msgspec.Struct, frozen=True):
    """How a host may be spoken to.

    `raw`: in any protocol, not only in such as name their host. `whole`: the entry allows every host that could be
    meant, so that what a connection hides does not matter. `below`: what stands in front of the suffix.
    """

    raw: bool = False
    whole: bool = False
    below: str = ""


class Rules:
    """A policy that has been checked. Raises InvalidInput naming what is wrong with it."""

    def __init__(self, policy: NetworkPolicy) -> None:
        check_bounds(policy)
        self._on = policy.outbound
        self._allowed = tuple(parse_pattern(text, "allowed_hosts") for text in policy.allowed_hosts)
        self._anywhere = tuple(parse_pattern(text, "anywhere") for text in policy.anywhere)
        self._ports = frozenset(policy.allowed_ports)
        self._blocked = frozenset(policy.blocked_ports)

    def opens(self, port: int) -> bool:
        """Whether anything at all may be reached on this port."""
        return self._on and port not in self._blocked and (not self._ports or port in self._ports)

    def allows(self, host: str, port: int | None) -> Grant | None:
        """The grant for a host in its normal form, of several the widest; None means refused.

        Without a port it is asked whether the name may be looked up.
        """
        if not self._on or not host or (port is not None and not self.opens(port)):
            return None
        found = [self._grant(pattern, host, port) for pattern in self._allowed if pattern.covers(host, port)]
        return max(found, key=lambda grant: (grant.whole, grant.raw, not grant.below), default=None)

    def _grant(self, pattern: Pattern, host: str, port: int | None) -> Grant:
        if pattern.network is not None or pattern.host == EVERY:
            return Grant(raw=True, whole=True, below=host if pattern.host == EVERY else "")
        named = pattern.port is not None or port in self._ports
        below = host.removesuffix(pattern.host[1:]) if pattern.host.startswith(BELOW) else ""
        return Grant(raw=named and port not in WEB_PORTS, below=below)

    def admits(self, host: str, address: str) -> bool:
        """Whether this host may lead to that address. Link-local ones, where machines keep secrets, are never it."""
        found = address_of(normal_host(address))
        if found is None or is_never(found):
            return False
        return is_public(address) or self.is_anywhere(host, str(found))

    def is_anywhere(self, host: str, address: str) -> bool:
        """Whether the operator has said that this host, or whoever leads to this address, may be in a private place."""
        return any(pattern.covers(host, None) or pattern.covers(address, None) for pattern in self._anywhere)


def check_bounds(policy: NetworkPolicy) -> None:
    """Raises InvalidInput for counts and numbers that no policy may have."""
    if max(len(policy.allowed_hosts), len(policy.anywhere)) > bound.POLICY_PATTERNS_MAX:
        raise InvalidInput("allowed_hosts", f"must be at most {bound.POLICY_PATTERNS_MAX}")
    if len(policy.strip_headers) + len(policy.inject) > bound.POLICY_HEADERS_MAX:
        raise InvalidInput("strip_headers", f"must be at most {bound.POLICY_HEADERS_MAX}, with those injected")
    for field, ports in (("allowed_ports", policy.allowed_ports), ("blocked_ports", policy.blocked_ports)):
        if len(ports) > PORT_MAX or not all(0 < port <= PORT_MAX for port in ports):
            raise InvalidInput(field, f"must be ports, from 1 to {PORT_MAX}")
    for name in policy.strip_headers:
        _check_header("strip_headers", name)
    for each in policy.inject:
        _check_injection(each)
    rate = policy.bandwidth_bytes_per_s
    if rate is not None and not bound.BANDWIDTH_MIN_BYTES_PER_S <= rate <= bound.BANDWIDTH_MAX_BYTES_PER_S:
        least, most = bound.BANDWIDTH_MIN_BYTES_PER_S, bound.BANDWIDTH_MAX_BYTES_PER_S
        raise InvalidInput("bandwidth", f"must be from {least} to {most} bytes a second")


def _check_header(field: str, name: str) -> None:
    if not _HEADER.fullmatch(name) or name.lower() in _FRAMING:
        raise InvalidInput(field, f"{name[:80]!r} is no header that may be changed")


def _check_injection(injection: Injection) -> None:
    _check_header("inject.header", injection.header)
    host = normal_host(injection.host)
    if not host or len(injection.value) > bound.SECRET_MAX_CHARS or not _VALUE.fullmatch(injection.value):
        field = "inject.secret" if host else "inject.host"
        raise InvalidInput(field, f"cannot be sent as {injection.header!r}" if host else "is no host")


def parse_pattern(text: str, field: str = "allowed_hosts") -> Pattern:
    """An entry as people write it. Raises InvalidInput."""
    name, digits = split_port(text)
    port = _port(digits)
    if (digits and port is None) or not name:
        raise _no_host(field, text)
    if name == EVERY:
        return Pattern(host=EVERY, port=port)
    network = _network(name)
    if network is not None:
        return Pattern(network=network, port=port)
    below = name.startswith(BELOW)
    host = normal_host(name[2:] if below else name)
    if not host or address_of(host) is not None:
        raise _no_host(field, text)
    return Pattern(host=f"{BELOW}{host}" if below else host, port=port)


def _no_host(field: str, text: str) -> InvalidInput:
    return InvalidInput(field, f"{text[:80]!r} is no host", hint=_HINT if text.isascii() else _PUNYCODE)


def split_port(text: str) -> tuple[str, str]:
    """`host:port` in two; the port is empty where there is none. An IPv6 address with a port has brackets."""
    name, colon, digits = text.rpartition(":")
    if not colon or digits.endswith("]") or (":" in name and not (name.startswith("[") and name.endswith("]"))):
        return text, ""
    return name, digits or " "


def parse_authority(text: str, port: int) -> tuple[str, int] | None:
    """Host in its normal form and port, of a `Host` header or a target; None for anything that is no such thing."""
    name, digits = split_port(text)
    host, found = normal_host(name), _port(digits) if digits else port
    return (host, found) if host and found is not None else None


def _port(digits: str) -> int | None:
    if not (digits.isascii() and digits.isdigit()) or len(digits) > len(str(PORT_MAX)):
        return None
    return int(digits) if 0 < int(digits) <= PORT_MAX else None


def _network(name: str) -> Network | None:
    """An address or a network; None where it is neither. Bits behind the prefix are a mistake, and no network."""
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    try:
        found = ip_network(bare)
    except ValueError:
        return None
    inner = found.network_address.ipv4_mapped if isinstance(found, IPv6Network) else None
    if inner is not None and found.prefixlen >= 96:  # noqa: PLR2004 - what stands in front of a mapped address
        return IPv4Network((inner, found.prefixlen - 96))
    return found


def address_of(host: str) -> Address | None:
    """The address that a host in its normal form is; an IPv4 address that is written as an IPv6 one is the former."""
    try:
        found = ip_address(host)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


def is_never(address: Address) -> bool:
    """Whether no rule at all leads there: link-local, the metadata services of clouds, multicast, no address.

    Nor to what stands for such a one: a gateway of a network may translate it back.
    """
    return any(map(_is_never_itself, meant(address)))


def _is_never_itself(address: Address) -> bool:
    return (
        address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address == _METADATA
        or (isinstance(address, IPv4Address) and address == IPv4Address("255.255.255.255"))
    )
