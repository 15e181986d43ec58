"""Messages to the kernel about a network namespace, as bytes: a route, and a table of nf_tables. Pure.

Numbers are those of <linux/rtnetlink.h> and <linux/netfilter/nf_tables.h>. The launcher sends the bytes from inside a
sandbox's namespace and counts the acknowledgements; whether they mean what they should is tested against what `ip`
and `nft` print.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Final

import msgspec

NETLINK_ROUTE: Final = 0
NETLINK_NETFILTER: Final = 12
LOOPBACK_INDEX: Final = 1
"""Of `lo`, the first interface of every network namespace."""

_HEADER: Final = struct.Struct("<IHHII")
_ATTRIBUTE: Final = struct.Struct("<HH")
_ALIGNMENT: Final = 4
_NESTED: Final = 0x8000
_REQUEST, _ACKNOWLEDGE, _EXCLUSIVE, _CREATE, _APPEND = 0x1, 0x4, 0x200, 0x400, 0x800

_NEW_ROUTE: Final = 24
_ROUTE: Final = struct.Struct("<BBBBBBBBI")
_TABLE_LOCAL, _PROTOCOL_BOOT, _SCOPE_HOST, _TYPE_LOCAL = 255, 3, 254, 2
_ROUTE_INTERFACE: Final = 4

_NF_TABLES: Final = 10
_BATCH_BEGIN, _BATCH_END = 16, 17
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE = 0, 3, 6
_PREROUTING: Final = 0
_ACCEPT: Final = 1
_VERDICT_REGISTER, _FIRST_REGISTER, _SECOND_REGISTER = 0, 1, 2
_META_TRANSPORT: Final = 16
_EQUAL: Final = 0
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
FAMILIES: Final = {socket.AF_INET: 2, socket.AF_INET6: 10}
"""As netfilter counts them."""


class Messages(msgspec.Struct, frozen=True):
    """What to send to one protocol of netlink, and how many acknowledgements follow if all of it is done."""

    protocol: int
    acknowledged: int
    data: bytes


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded as the next one needs it."""
    size = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(size, kind) + payload + b"\0" * (-size % _ALIGNMENT)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds others."""
    return attribute(kind | _NESTED, b"".join(attributes))


def _number(kind: int, value: int) -> bytes:
    """Netfilter's numbers are big-endian."""
    return attribute(kind, struct.pack(">i" if value < 0 else ">I", value))


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def _message(kind: int, flags: int, payload: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(payload), kind, _REQUEST | flags, 0, 0) + payload


# Routes -------------------------------------------------------------------------------------------


def everything_is_local(families: Sequence[socket.AddressFamily]) -> Messages:
    """`ip route add local default dev lo`: whatever address a packet is for, it is for this namespace."""
    routes = [_local_default(family) for family in families]
    return Messages(NETLINK_ROUTE, len(routes), b"".join(routes))


def _local_default(family: socket.AddressFamily) -> bytes:
    head = _ROUTE.pack(family, 0, 0, 0, _TABLE_LOCAL, _PROTOCOL_BOOT, _SCOPE_HOST, _TYPE_LOCAL, 0)
    interface = attribute(_ROUTE_INTERFACE, struct.pack("<I", LOOPBACK_INDEX))
    return _message(_NEW_ROUTE, _ACKNOWLEDGE | _EXCLUSIVE | _CREATE, head + interface)


# Tables -------------------------------------------------------------------------------------------


def batch(messages: Sequence[bytes]) -> Messages:
    """Changes of nf_tables, which come into force together or not at all."""
    begin = _message(_BATCH_BEGIN, 0, _nf_head(0, _NF_TABLES))
    end = _message(_BATCH_END, 0, _nf_head(0, _NF_TABLES))
    return Messages(NETLINK_NETFILTER, len(messages), begin + b"".join(messages) + end)


def _nf_head(family: int, resource: int = 0) -> bytes:
    return struct.pack(">BBH", family, 0, resource)


def _change(kind: int, family: socket.AddressFamily, flags: int, *attributes: bytes) -> bytes:
    payload = _nf_head(FAMILIES[family]) + b"".join(attributes)
    return _message(_NF_TABLES << 8 | kind, _ACKNOWLEDGE | _CREATE | flags, payload)


def table(family: socket.AddressFamily, name: str) -> bytes:
    """`add table FAMILY NAME`."""
    return _change(_NEW_TABLE, family, 0, _text(1, name), _number(2, 0))


def prerouting_chain(family: socket.AddressFamily, table_name: str, name: str, priority: int) -> bytes:
    """`add chain FAMILY TABLE NAME { type filter hook prerouting priority PRIORITY; policy accept; }`."""
    hook = nested(4, _number(1, _PREROUTING), _number(2, priority))
    names = (_text(1, table_name), _text(3, name))
    return _change(_NEW_CHAIN, family, 0, *names, hook, _number(5, _ACCEPT), _text(7, "filter"))


def rule(family: socket.AddressFamily, table_name: str, chain: str, *expressions: bytes) -> bytes:
    """`add rule FAMILY TABLE CHAIN …`."""
    elements = nested(4, *(nested(1, expression) for expression in expressions))
    return _change(_NEW_RULE, family, _APPEND, _text(1, table_name), _text(2, chain), elements)


def _expression(name: str, *attributes: bytes) -> bytes:
    return _text(1, name) + nested(2, *attributes)


def packet_has(header: int, offset: int, value: bytes) -> tuple[bytes, bytes]:
    """The next expressions are for packets with these bytes in that place of a header."""
    place = (_number(2, header), _number(3, offset), _number(4, len(value)))
    return _expression("payload", _number(1, _FIRST_REGISTER), *place), _is(value)


def transport_is(protocol: int) -> tuple[bytes, bytes]:
    """The next expressions are for packets of that protocol over IP."""
    loaded = _expression("meta", _number(1, _FIRST_REGISTER), _number(2, _META_TRANSPORT))
    return loaded, _is(bytes([protocol]))


def _is(value: bytes) -> bytes:
    return _expression("cmp", _number(1, _FIRST_REGISTER), _number(2, _EQUAL), nested(3, attribute(1, value)))


def accept() -> bytes:
    """The packet goes on as it is."""
    verdict = nested(2, nested(2, _number(1, _ACCEPT)))
    return _expression("immediate", _number(1, _VERDICT_REGISTER), verdict)


def to_listener(family: socket.AddressFamily, address: bytes, port: int) -> tuple[bytes, bytes, bytes]:
    """The packet is for the transparent listening socket at that address; it keeps its own."""
    values = {_FIRST_REGISTER: address, _SECOND_REGISTER: struct.pack(">H", port)}
    loaded = [_expression("immediate", _number(1, at), nested(2, attribute(1, value))) for at, value in values.items()]
    places = (_number(2, _FIRST_REGISTER), _number(3, _SECOND_REGISTER))
    return loaded[0], loaded[1], _expression("tproxy", _number(1, FAMILIES[family]), *places)
