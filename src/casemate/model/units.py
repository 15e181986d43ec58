"""Amounts as people write them: `512Mi`, `1Gi`, `500ms`, `5s`, `0.5`."""

from __future__ import annotations

import math
import re
from typing import Final, TypeVar

from casemate.errors import InvalidInput

SECOND_US: Final = 1_000_000
"""Times of records are whole microseconds."""

_Number = TypeVar("_Number", int, float)
_NUMBER: Final = r"(\d{1,18}(?:\.\d{1,9})?)"
_BYTES: Final = _NUMBER + r"\s*((?:[KMGT]i?)?B?)"
_DURATION: Final = _NUMBER + r"\s*(us|ms|s|m|min|h|d|)"
_BYTE_FACTORS: Final = {
    "": 1,
    "K": 1000,
    "M": 1000**2,
    "G": 1000**3,
    "T": 1000**4,
    "Ki": 1024,
    "Mi": 1024**2,
    "Gi": 1024**3,
    "Ti": 1024**4,
}
_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_bytes(value: str | int, *, field: str) -> int:
    """A number of bytes: an int, or text with `K M G T` (powers of 1000) or `Ki Mi Gi Ti` (of 1024).

    Raises InvalidInput naming `field`.
    """
    if isinstance(value, bool):
        raise InvalidInput(field, "must be a size such as 512Mi, not true or false")
    if isinstance(value, int):
        return _at_least_zero(value, field)
    match = re.fullmatch(_BYTES, value.strip(), re.ASCII)
    if match is None:
        raise InvalidInput(field, f"{value[:40]!r} is not a size", hint=_size_hint(value.strip()))
    whole, _, part = match[1].partition(".")
    count: int = int(whole + part) * _BYTE_FACTORS[match[2].removesuffix("B")] // 10 ** len(part)
    return count


def _size_hint(text: str) -> str:
    """`512m` is 512Mi to whom Kubernetes' milli is not the first thing that comes to mind."""
    letters = text.lstrip("0123456789.")
    unit = letters[:1].upper()
    meant = f"{text.removesuffix(letters)}{unit}{'i' if unit else ''}"
    if letters and unit in "KMGT" and len(letters) <= len("MiB") and re.fullmatch(_BYTES, meant, re.ASCII):
        return f"did you mean {meant}?"
    return "write it as 65536, 512Mi or 1Gi"


def parse_duration(value: str | float, *, field: str) -> float:
    """Seconds: a number, or text with `us ms s m h d`. Raises InvalidInput naming `field`."""
    if isinstance(value, str):
        match = re.fullmatch(_DURATION, value.strip(), re.ASCII)
        if match is None:
            raise InvalidInput(field, f"{value[:40]!r} is not a duration", hint="write it as 500ms, 5s or 2m")
        return float(match[1]) * _SECONDS[match[2]]
    return parse_number(value, field=field)


def parse_number(value: str | float, *, field: str) -> float:
    """A finite number that is not negative, such as a share of a processor (`0.5`)."""
    if isinstance(value, bool):
        raise InvalidInput(field, "must be a number, not true or false")
    if isinstance(value, str):
        if re.fullmatch(_NUMBER, value.strip(), re.ASCII) is None:
            raise InvalidInput(field, f"{value[:40]!r} is not a number", hint="write it as 2 or 0.5")
        return float(value)
    try:
        number = float(_at_least_zero(value, field))
    except OverflowError as error:
        raise InvalidInput(field, "is too large") from error
    if not math.isfinite(number):
        raise InvalidInput(field, "must be finite")
    return number


def _at_least_zero(value: _Number, field: str) -> _Number:
    if value < 0:
        raise InvalidInput(field, "must not be negative")
    return value


def format_bytes(count: int) -> str:
    """`536870912` → `512Mi`, `1600000` → `1.53Mi`: the largest unit that fits, at most two decimals."""
    for unit, factor in (("Gi", 1024**3), ("Mi", 1024**2), ("Ki", 1024)):
        if count >= factor:
            return f"{count / factor:.2f}".rstrip("0").rstrip(".") + unit
    return str(count)


def format_duration(seconds: float) -> str:
    """`0.5` → `500ms`, `90` → `90s`; at most three decimals."""
    amount, unit = (seconds * 1000, "ms") if seconds < 1 else (seconds, "s")
    return f"{amount:.3f}".rstrip("0").rstrip(".") + unit
