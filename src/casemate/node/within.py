"""What a run may use, where it is not to go beyond a maximum. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from casemate.model.resources import ATTRIBUTES, Limits


def within(base: Limits, wanted: Mapping[str, Any], maximum: Mapping[str, Any]) -> dict[str, Any]:
    """Limits as they are asked for, and the maximum where what holds otherwise, or is wanted, would be beyond it."""
    if not maximum:
        return dict(wanted)
    effective, most = base.replacing(wanted), Limits().replacing(maximum)
    beyond = [name for name in maximum if _is_beyond(effective, most, ATTRIBUTES[name])]
    return {**wanted, **{name: maximum[name] for name in beyond}}


def _is_beyond(effective: Limits, most: Limits, attribute: str) -> bool:
    value, allowed = getattr(effective, attribute), getattr(most, attribute)
    return allowed is not None and (value is None or value > allowed)
