"""One attempt of a sandbox to reach something on a network."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

PROTOCOLS: Final = frozenset({"tcp", "tls", "http", "connect", "dns"})
REASONS: Final = frozenset(
    {"off", "port", "host", "address", "no-name", "hidden-name", "other-name", "protocol", "malformed", "limit"}
)
"""The words of flows."""


class Flow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to, whether a rule allowed it, and what came of it: `problem` is empty where it worked.

    `at_us`: when it began, in microseconds since 1970, UTC. `protocol`: `tcp`, `tls`, `http`, `connect` or
    `dns`. `reason`: why it was refused, in a word; empty where it was not.
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


class FlowEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A flow of a job, as the service tells it: see `Flow`."""

    id: int
    job_id: str
    attempt: int
    at: datetime
    host: str
    port: int
    address: str
    protocol: str
    allowed: bool
    reason: str
    problem: str
    sent_bytes: int
    received_bytes: int
    wall_s: float
