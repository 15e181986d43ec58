"""What an engine and its gateway say to each other: one message a packet of a socket pair, with descriptors beside it.

Values are checked when they are read, on both sides: the gateway reads bytes of guests, and is not trusted for that.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from casemate.model.flow import Flow
from casemate.model.network import NetworkPolicy
from casemate.network_limits import REST_S


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the operator sets for all sandboxes.

    `hosts`: a file of addresses and names, as `/etc/hosts`, that comes before everything. `resolvers`: addresses of the
    name servers that are asked; none for those that the machine uses. `rest_s`: a process without a sandbox ends then.
    """

    hosts: str = ""
    resolvers: tuple[str, ...] = ()
    rest_s: float = REST_S


class Begin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="begin"):
    """The first message, once."""

    settings: Settings


class OpenWay(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="open"):
    """Serve the sockets that come with this message, each of which has a name, by this policy. Answered by Opened."""

    way: int
    policy: NetworkPolicy
    sockets: tuple[str, ...]


class CloseWay(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="close"):
    """End it, with its connections. Answered by Closed, after which nothing more comes of it."""

    way: int


Order: TypeAlias = Begin | OpenWay | CloseWay


class Opened(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="opened"):
    """It is served from now on; or `problem` says why not."""

    way: int
    problem: str = ""


class FlowEnded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="flow"):
    """An attempt has ended, or was refused."""

    way: int
    flow: Flow


class Closed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="closed"):
    """All that went through it, and how many flows were not told of."""

    way: int
    sent_bytes: int
    received_bytes: int
    untold: int = 0


Report: TypeAlias = Opened | FlowEnded | Closed

SOCKETS: Final = ("tcp", "tcp6", "dns", "dns_tcp", "proxy")
"""What the sockets of a way are for."""

encode: Final = msgspec.msgpack.Encoder().encode
decode_order: Final = msgspec.msgpack.Decoder(Order).decode
decode_report: Final = msgspec.msgpack.Decoder(Report).decode
