"""The way out of a sandbox, as steps of its plan: everything that leaves it comes to sockets that we are handed. Pure.

The namespace has only `lo`, and every address there is counts as its own. TCP to any address but its loopback is
taken to a transparent listening socket, whose connections keep the address that was meant as their own local one; no
address is translated, so the kernel tracks no connections for it. DNS arrives without any rule, at a socket for all
addresses. Nothing answers what is left. There is no way around: with the sockets goes the network.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address
from typing import Final

from casemate.isolation import netlink
from casemate.isolation.steps import Step, StepKind

TCP_PORT: Final = 15001
DNS_PORT: Final = 53
PROXY_PORT: Final = 3128
PROXY_URL: Final = f"http://127.0.0.1:{PROXY_PORT}"
ADDRESSES: Final = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""Where the transparent sockets listen: reserved for documentation, so that no program means them, and every address
of the loopback stays the program's own."""

RESOLVER: Final = "nameserver 127.0.0.1\n"
_TABLE, _CHAIN = "casemate", "way"
_PRIORITY: Final = -150
_TCP: Final = 6
_DESTINATION_PORT: Final = 2
_DESTINATION: Final = {socket.AF_INET: 16, socket.AF_INET6: 24}
"""Offsets in the headers of TCP and IP."""

_LOOPBACK: Final = {socket.AF_INET: b"\x7f", socket.AF_INET6: ip_address("::1").packed}
"""What the destination begins with."""


def proxy_variables() -> dict[str, str]:
    """What tells programs of the proxy, for those that ask."""
    names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    none = dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1,::1")
    return {**dict.fromkeys(names, PROXY_URL), **none}


def names(*, ipv6: bool) -> tuple[str, ...]:
    """What the sockets are for, in the order in which they are handed over."""
    return ("tcp", *(("tcp6",) if ipv6 else ()), "dns", "dns_tcp", "proxy")


def listen(port: int, address: str = "127.0.0.1", *, kind: int = socket.SOCK_STREAM, transparent: bool = False) -> Step:
    """A socket on an address of the sandbox's own."""
    return Step(StepKind.LISTEN, (kind, int(transparent), _socket_address(address, port)))


def _socket_address(address: str, port: int) -> bytes:
    parsed = ip_address(address)
    head = struct.pack("<H", socket.AF_INET if parsed.version == 4 else socket.AF_INET6) + struct.pack(">H", port)  # noqa: PLR2004
    return head + (parsed.packed + bytes(8) if parsed.version == 4 else bytes(4) + parsed.packed + bytes(4))  # noqa: PLR2004


@cache
def steps(*, ipv6: bool) -> tuple[Step, ...]:
    """All that makes the way out, once the namespace is entered."""
    families = (socket.AF_INET, *((socket.AF_INET6,) if ipv6 else ()))
    changes = [change for family in families for change in _interception(family)]
    messages = (netlink.everything_is_local(families), netlink.batch(changes))
    ways = [listen(TCP_PORT, ADDRESSES[family], transparent=True) for family in families]
    everywhere = [listen(DNS_PORT, "0.0.0.0", kind=kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]  # noqa: S104
    told = [Step(StepKind.NETLINK, (each.protocol, each.acknowledged, each.data)) for each in messages]
    return (*told, *ways, *everywhere, listen(PROXY_PORT))


def _interception(family: socket.AddressFamily) -> Iterator[bytes]:
    yield netlink.table(family, _TABLE)
    yield netlink.prerouting_chain(family, _TABLE, _CHAIN, _PRIORITY)
    own = netlink.packet_has(netlink.NETWORK_HEADER, _DESTINATION[family], _LOOPBACK[family])
    yield netlink.rule(family, _TABLE, _CHAIN, *own, netlink.accept())
    if family == socket.AF_INET:  # has a socket of its own
        asked = netlink.packet_has(netlink.TRANSPORT_HEADER, _DESTINATION_PORT, struct.pack(">H", DNS_PORT))
        yield netlink.rule(family, _TABLE, _CHAIN, *netlink.transport_is(_TCP), *asked, netlink.accept())
    meant = netlink.to_listener(family, ip_address(ADDRESSES[family]).packed, TCP_PORT)
    yield netlink.rule(family, _TABLE, _CHAIN, *netlink.transport_is(_TCP), *meant)
