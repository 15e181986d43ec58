"""What a node tells of itself when it is asked."""

from __future__ import annotations

import msgspec

from casemate.model.layers import Layer


class NodeHealth(msgspec.Struct, frozen=True, kw_only=True):
    """`epoch` differs from start to start. `layers` and `approximate` are of a sandbox that was started first of all;
    `problem` says why there was none.
    """

    epoch: str
    pid: int
    uptime_s: float
    running_count: int
    backend: str
    layers: tuple[Layer, ...] = ()
    approximate: tuple[str, ...] = ()
    problem: str = ""


class NodeRuntime(msgspec.Struct, frozen=True, kw_only=True):
    """One language, or a package set. `problem` says why it is not available, `hint` what to do."""

    name: str
    available: bool
    aliases: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    is_set: bool = False
    problem: str = ""
    hint: str = ""
