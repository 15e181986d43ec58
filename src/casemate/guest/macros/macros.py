"""The functions that macros may call, in Python; macros.js and macros.R are its twins, docs/guides/macros.md the rules.

The three do the same operations in the same order, so their results differ at most where a language's own logarithm,
sine or reading of decimals does. Only the standard library is used. Names that begin with `_` are not for macros.
`casemate.runtimes.macros` joins this file and curves.py into one text.
"""

from __future__ import annotations

import math
import sys
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, NoReturn

__all__ = [
    "ArrayNth", "ArrayRange", "ArrayUnZip", "ArrayZip", "GetIndexByLabel", "GetLabelLookup", "GetProtocolByLabel",
    "MathEXPINVREG", "MathLINREG", "MathLN", "MathLOG", "MathMAX", "MathMEAN", "MathMEDIAN", "MathMIN", "MathMULTREG",
    "MathPOLYREG", "MathROUND", "MathSTDERR", "MathSTDEV", "MathSTDEVS", "MathSUM", "MathVARIANCE",
    "NonLinearRegression", "TransformTrace", "calcSunAngle", "danger", "info", "warning",
]  # fmt: skip

_RANGE_MAX = 1_000_000
_DIGITS_MAX = 15
_TRANSFORMS = ("none", "log", "ln", "x2")

# What was handed in -----------------------------------------------------------------------------


def _fail(function: str, problem: str) -> NoReturn:
    raise ValueError(f"{function}: {problem}")


def _plain(value: Any) -> Any:
    """Arrays and numbers of other libraries as those of the language."""
    if type(value) not in _PLAIN:
        if callable(getattr(value, "tolist", None)):
            return value.tolist()
        if isinstance(value, tuple):
            return list(value)
    return value


_PLAIN = {list, dict, int, float, bool, str, type(None)}


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = [(bool, "a boolean"), ((int, float), "a number"), (str, "text"), (list, "an array")]
    for types, kind in kinds:
        if isinstance(value, types):  # type: ignore[arg-type]
            return kind
    return "an object" if _is_object(value) else "something else"


def _is_object(value: Any) -> bool:
    return callable(getattr(value, "keys", None)) and hasattr(value, "__getitem__")


def _wants(function: str, name: str, value: Any, kind: str) -> Any:
    value = _plain(value)
    if _kind(value) != kind:
        _fail(function, f"{name} is {_kind(value)}, not {kind}")
    return value


def _number(function: str, name: str, value: Any) -> float:
    """Null, and a number that is not finite, are missing: NaN."""
    value = _plain(value)
    if value is None:
        return math.nan
    try:
        number = float(_wants(function, name, value, "a number"))
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _numbers(function: str, name: str, value: Any) -> list[float]:
    values = _wants(function, name, value, "an array")
    return [_number(function, f"{name}[{at}]", each) for at, each in enumerate(values)]


def _whole(function: str, name: str, value: Any, low: int, high: int | None) -> int:
    value = _wants(function, name, value, "a number")
    if value != value or value in (math.inf, -math.inf) or value != int(value) or value < low:
        value = None
    if value is None or (high is not None and value > high):
        _fail(function, f"{name} is not a whole number from {low} " + ("up" if high is None else f"to {high}"))
    return int(value)


def _same_length(function: str, first: str, a: list[Any], second: str, b: list[Any]) -> None:
    if len(a) != len(b):
        _fail(function, f"{first} has {len(a)} values and {second} has {len(b)}")


def _rows(function: str, value: Any, width: int | None = None) -> list[list[float]]:
    """Arrays of numbers of one length, which is at least 2."""
    rows = [
        _numbers(function, f"input[{at}]", row) for at, row in enumerate(_wants(function, "input", value, "an array"))
    ]
    for at, row in enumerate(rows):
        wanted = width or max(2, len(rows[0]))
        if len(row) != wanted:
            _fail(function, f"input[{at}] has {len(row)} values, not {wanted}")
    return rows


# Numbers ----------------------------------------------------------------------------------------


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _missing(values: list[float]) -> bool:
    return any(each != each for each in values)


def _quotient(a: float, b: float) -> float:
    return a / b if b != 0 else math.nan


def _root(a: float) -> float:
    return math.sqrt(a) if a >= 0 else math.nan


def _total(values: list[float]) -> float:
    """The sum, with what rounding lost added at the end (Neumaier)."""
    total = lost = 0.0
    for each in values:
        more = total + each
        lost += (total - more) + each if abs(total) >= abs(each) else (each - more) + total
        total = more
    return total + lost


def _dot(a: list[float], b: list[float]) -> float:
    total = 0.0
    for one, other in zip(a, b, strict=True):
        total += one * other
    return total


def _mean(values: list[float]) -> float:
    return _total(values) / len(values)


def _squares(values: list[float]) -> float:
    """The sum of the squared deviations from the mean, in two passes, corrected for the mean's rounding."""
    if max(values) == min(values):
        return 0.0
    mean = _mean(values)
    off = [each - mean for each in values]
    rest = _total(off)
    return _total([each * each for each in off]) - rest * rest / len(values)


# Arrays -----------------------------------------------------------------------------------------


def ArrayNth(arr: Any = None, size: Any = 1, idx: Any = 0) -> list[Any]:
    """Every `size`-th element, from the index `idx` on."""
    values: list[Any] = _wants("ArrayNth", "arr", arr, "an array")
    step = _whole("ArrayNth", "size", size, 1, None)
    return values[_whole("ArrayNth", "idx", idx, 0, None) :: step]


def ArrayRange(start: Any = None, stop: Any = None, step: Any = 1, transform: Any = "none") -> list[Any]:
    """The numbers from `start` to before `stop` in steps; of one argument alone, from 0 to before it."""
    start, stop, step = (
        None if _missing([_number("ArrayRange", name, value)]) else _plain(value)
        for name, value in (("start", start), ("stop", stop), ("step", step))
    )
    if transform not in _TRANSFORMS:
        _fail("ArrayRange", f"transform is none of: {', '.join(_TRANSFORMS)}")
    if start is None:
        return []
    if stop is None:
        start, stop = 0, start
    if step is None or step == 0:
        _fail("ArrayRange", "step is 0")
    count = (stop - start) / step
    if not count <= _RANGE_MAX:
        _fail("ArrayRange", f"more than {_RANGE_MAX} values")
    return [_transformed(transform, start + at * step) for at in range(math.ceil(count))]


def _transformed(transform: str, value: Any) -> Any:
    if transform == "x2":
        return value * value
    if transform == "none":
        return value
    return MathLN(value) if transform == "ln" else MathLOG(value)


def ArrayUnZip(input: Any = None) -> dict[str, list[Any]]:
    """Pairs as two arrays."""
    rows = [_plain(row) for row in _wants("ArrayUnZip", "input", input, "an array")]
    for at, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != 2:
            _fail("ArrayUnZip", f"input[{at}] is not an array of two values")
    return {"x": [row[0] for row in rows], "y": [row[1] for row in rows]}


def ArrayZip(x: Any = None, y: Any = None) -> list[list[Any]]:
    """Two arrays as pairs."""
    x, y = _wants("ArrayZip", "x", x, "an array"), _wants("ArrayZip", "y", y, "an array")
    _same_length("ArrayZip", "x", x, "y", y)
    return [[one, other] for one, other in zip(x, y, strict=True)]


# Protocols --------------------------------------------------------------------------------------


def _protocols(function: str, json: Any) -> list[Any] | None:
    """The set's protocols; None if there is no set."""
    json = _plain(json)
    if json is None:
        return None
    if not _is_object(json):
        _fail(function, f"json is {_kind(json)}, not an object")
    found = _plain(json["set"]) if "set" in json else None
    return found if isinstance(found, list) else None


def _label(protocol: Any) -> Any:
    return protocol["label"] if _is_object(protocol) and "label" in protocol else None


def _labelled(function: str, label: Any, json: Any, array: Any) -> list[int] | None:
    array = _wants(function, "array", array, "a boolean")
    if label is not None:
        label = _wants(function, "label", label, "text")
    protocols = _protocols(function, json)
    if protocols is None or label is None:
        return None
    found = [at for at, protocol in enumerate(protocols) if _label(protocol) == label]
    return found if found or array else None


def GetIndexByLabel(label: Any = None, json: Any = None, array: Any = False) -> Any:
    """Where the protocols of that label are, counted from 0: a number if it is one, else an array."""
    found = _labelled("GetIndexByLabel", label, json, array)
    return found[0] if found and len(found) == 1 and not array else found


def GetProtocolByLabel(label: Any = None, json: Any = None, array: Any = False) -> Any:
    """The protocols of that label: the protocol if it is one, else an array."""
    found = _labelled("GetProtocolByLabel", label, json, array)
    if found is None:
        return None
    protocols = [_plain(json["set"])[at] for at in found]
    return protocols[0] if len(protocols) == 1 and not array else protocols


def GetLabelLookup(json: Any = None) -> dict[str, list[int]] | None:
    """For each label where its protocols are, counted from 0."""
    protocols = _protocols("GetLabelLookup", json)
    if protocols is None:
        return None
    lookup: dict[str, list[int]] = {}
    for at, protocol in enumerate(protocols):
        label = _label(protocol)
        if isinstance(label, str) and label:
            lookup.setdefault(label, []).append(at)
    return lookup


# Statistics -------------------------------------------------------------------------------------


def _values(function: str, values: Any, least: int = 1) -> list[float] | None:
    """None if there are too few, or one is missing."""
    numbers = _numbers(function, "values", values)
    return None if len(numbers) < least or _missing(numbers) else numbers


def MathMAX(values: Any = None) -> Any:
    """The largest value."""
    numbers = _values("MathMAX", values)
    return None if numbers is None else _plain(values)[numbers.index(max(numbers))]


def MathMIN(values: Any = None) -> Any:
    """The smallest value."""
    numbers = _values("MathMIN", values)
    return None if numbers is None else _plain(values)[numbers.index(min(numbers))]


def MathSUM(values: Any = None) -> float | None:
    """The sum."""
    numbers = _values("MathSUM", values)
    return None if numbers is None else _known(_total(numbers))


def MathMEAN(values: Any = None) -> float | None:
    """The arithmetic mean."""
    numbers = _values("MathMEAN", values)
    return None if numbers is None else _known(_mean(numbers))


def MathMEDIAN(values: Any = None) -> float | None:
    """The middle one of the sorted values, or the mean of the two."""
    numbers = _values("MathMEDIAN", values)
    if numbers is None:
        return None
    numbers.sort()
    middle = len(numbers) // 2
    return numbers[middle] if len(numbers) % 2 else _known((numbers[middle - 1] + numbers[middle]) / 2)


def MathVARIANCE(values: Any = None) -> float | None:
    """The variance of a sample."""
    numbers = _values("MathVARIANCE", values, 2)
    return None if numbers is None else _known(_squares(numbers) / (len(numbers) - 1))


def MathSTDEVS(values: Any = None) -> float | None:
    """The standard deviation of a sample."""
    numbers = _values("MathSTDEVS", values, 2)
    return None if numbers is None else _known(_root(_squares(numbers) / (len(numbers) - 1)))


def MathSTDEV(values: Any = None) -> float | None:
    """The standard deviation of a population."""
    numbers = _values("MathSTDEV", values)
    return None if numbers is None else _known(_root(_squares(numbers) / len(numbers)))


def MathSTDERR(values: Any = None) -> float | None:
    """The standard deviation of a population, divided by the root of its size."""
    numbers = _values("MathSTDERR", values)
    return None if numbers is None else _known(_root(_squares(numbers) / len(numbers)) / _root(len(numbers)))


def MathLN(value: Any = None) -> float | None:
    """The natural logarithm."""
    number = _number("MathLN", "value", value)
    return math.log(number) if number > 0 else None


def MathLOG(value: Any = None) -> float | None:
    """The logarithm to the base 10."""
    number = _number("MathLOG", "value", value)
    return math.log10(number) if number > 0 else None


def MathROUND(value: Any = None, digits: Any = 2) -> float | None:
    """The nearest number with so many decimals; of two that are as near, the one further from 0."""
    number = _number("MathROUND", "value", value)
    digits = _whole("MathROUND", "digits", digits, -_DIGITS_MAX, _DIGITS_MAX)
    if not math.isfinite(number):
        return None
    if digits < 0:
        unit = 10.0**-digits
        return math.copysign(math.floor(abs(number) / unit + 0.5) * unit, number)
    exact = Decimal(number)
    return float(exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP, Context(prec=400)))


def MathLINREG(x: Any = None, y: Any = None) -> dict[str, float | None] | None:
    """The line y = m x + b by least squares, with its correlation."""
    x, y = _numbers("MathLINREG", "x", x), _numbers("MathLINREG", "y", y)
    _same_length("MathLINREG", "x", x, "y", y)
    if len(x) < 2 or _missing(x) or _missing(y) or max(x) == min(x):
        return None
    mean_x, mean_y = _mean(x), _mean(y)
    across = _total([(one - mean_x) * (other - mean_y) for one, other in zip(x, y, strict=True)])
    wide, high = _squares(x), _squares(y)
    m = _quotient(across, wide)
    r = _quotient(across, _root(wide) * _root(high)) if high > 0 else math.nan
    r = max(-1.0, min(1.0, r)) if math.isfinite(r) else r
    return {"m": _known(m), "b": _known(mean_y - m * mean_x), "r": _known(r), "r2": _known(r * r)}


# The sun ----------------------------------------------------------------------------------------


def calcSunAngle(
    roll: Any = None, pitch: Any = None, compass: Any = None, azimuth: Any = None, altitude: Any = None
) -> dict[str, float] | None:
    """The angle between the upright of a device and the sun, and the share of its light, all in degrees and percent."""
    given = {"roll": roll, "pitch": pitch, "compass": compass, "azimuth": azimuth, "altitude": altitude}
    angles = [_number("calcSunAngle", name, value) * (math.pi / 180) for name, value in given.items()]
    if _missing(angles):
        return None
    r, p, c, az, alt = angles
    device = (math.sin(r) * math.cos(p), -math.sin(p), math.cos(r) * math.cos(p))
    sun = (math.cos(alt) * math.sin(az - c), math.cos(alt) * math.cos(az - c), math.sin(alt))
    cross = [
        device[1] * sun[2] - device[2] * sun[1],
        device[2] * sun[0] - device[0] * sun[2],
        device[0] * sun[1] - device[1] * sun[0],
    ]
    along = _dot(list(device), list(sun))
    angle = math.atan2(_root(_dot(cross, cross)), along) / (math.pi / 180)
    return {"angle": angle, "percent": 100 * max(0.0, along)}


# Messages ---------------------------------------------------------------------------------------


def _say(level: str, msg: Any, output: Any) -> Any:
    """Append to `output.messages.<level>`; without an output it is the variable of that name where the call stands."""
    if output is None:
        caller = sys._getframe(2)
        output = caller.f_locals.get("output", caller.f_globals.get("output"))
    if not _is_object(output):
        _fail(level, f"output is {_kind(output)}, not an object")
    messages = output["messages"] if "messages" in output else {}
    if not _is_object(messages):
        _fail(level, f"output.messages is {_kind(messages)}, not an object")
    said = messages[level] if level in messages else []
    if not isinstance(said, list):
        _fail(level, f"output.messages.{level} is {_kind(said)}, not an array")
    messages[level] = [*said, msg]
    output["messages"] = messages
    return output


def info(msg: Any = None, output: Any = None) -> Any:
    """Tell something that is good to know."""
    return _say("info", msg, output)


def warning(msg: Any = None, output: Any = None) -> Any:
    """Tell something that may be wrong."""
    return _say("warning", msg, output)


def danger(msg: Any = None, output: Any = None) -> Any:
    """Tell something that most likely makes the measurement worthless."""
    return _say("danger", msg, output)
