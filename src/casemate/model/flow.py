"""One attempt of a sandbox to reach something on a network."""

from __future__ import annotations

import msgspec


class Flow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to, whether a rule allowed it, and what came of it: `problem` is empty where it worked.

    `at_us`: when it began, in microseconds since 1970, UTC. `protocol`: `tcp`, `tls`, `http`, `connect`, `dns` or
    `udp`. `reason`: why it was refused, in a word; empty where it was not.
    """

    host: str
    port: int
    allowed: bool
    address: str = ""
    problem: str = ""
    sent_bytes: int = 0
    received_bytes: int = 0
    wall_s: float = 0.0
    at_us: int = 0
    protocol: str = ""
    reason: str = ""
