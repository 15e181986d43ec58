"""What devices wrap their measurements in is taken off before a function sees them, once, and never guessed at."""

from __future__ import annotations

from typing import Final

import msgspec

from casemate.model.result import JsonValue

ENVELOPE_KEY: Final = "sample"
EMPTY_ENVELOPE: Final = "empty-envelope: recognized sample-envelope contained no measurement; macro not invoked"
ITEMS_DISCARDED: Final = "additional-items-discarded"


class NormaliseWarning(msgspec.Struct, frozen=True, kw_only=True):
    """Something was left out. It says how much and never what: measurements do not belong in logs."""

    code: str
    discarded: int


class Normalised(msgspec.Struct, frozen=True, kw_only=True):
    """What the function gets; with an `error` it is not called."""

    data: JsonValue = None
    warnings: tuple[NormaliseWarning, ...] = ()
    error: str = ""


def normalise(data: JsonValue) -> Normalised:
    """Unwrap an object whose `sample` is an object, or an array, of which the first element counts; else nothing."""
    sample = data.get(ENVELOPE_KEY) if isinstance(data, dict) else None
    if isinstance(sample, dict):
        return Normalised(data=sample)
    if not isinstance(sample, list):
        return Normalised(data=data)
    if not sample:
        return Normalised(error=EMPTY_ENVELOPE)
    discarded = len(sample) - 1
    warnings = (NormaliseWarning(code=ITEMS_DISCARDED, discarded=discarded),) if discarded else ()
    return Normalised(data=sample[0], warnings=warnings)
