"""How many ready things to keep: a pure function of recent demand and bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from casemate import limits
from casemate.model.pool import Bounds


def wanted(takes_s: Sequence[float], now_s: float, bounds: Bounds, kept: int = 0) -> int:
    """How many to have ready. `takes_s`: when the last ones were taken, in order; `kept`: asked for explicitly.

    One take is no demand yet. Two are; then as many as the rate of the last second would use up within
    `POOL_HORIZON_S`, which is longer than making one takes, and one to begin with.
    """
    recent = [take_s for take_s in takes_s if take_s + bounds.idle_s > now_s]
    if len(recent) < limits.POOL_FIRST_TAKES:
        return kept
    rate = sum(take_s + 1.0 > now_s for take_s in recent)
    return max(kept, min(bounds.ready_max, 1 + math.ceil(rate * limits.POOL_HORIZON_S)))


def next_change_s(takes_s: Sequence[float], now_s: float, bounds: Bounds) -> float | None:
    """When `wanted` can next become smaller by time alone; None if it cannot."""
    second = [take_s + 1.0 for take_s in takes_s if take_s + 1.0 > now_s]
    idle = [take_s + bounds.idle_s for take_s in takes_s if take_s + bounds.idle_s > now_s]
    if second:
        return second[-1]
    return idle[-1] if idle else None
