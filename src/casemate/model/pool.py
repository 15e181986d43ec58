"""How much may be made ahead of its use."""

from __future__ import annotations

import msgspec

from casemate import limits


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one pool.

    `ready_max`: most things ready of one kind; 0 keeps nothing ready that was not asked for. `memory_bytes`: what all
    ready things may hold together. `idle_s`: after that long without demand a kind is not kept ready any more.
    """

    ready_max: int = limits.POOL_READY_MAX
    memory_bytes: int = limits.POOL_MEMORY_BYTES
    idle_s: float = limits.POOL_IDLE_S
