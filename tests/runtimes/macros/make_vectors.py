"""Writes vectors.json: calls of the macro functions with what they must give, reckoned in exact or long arithmetic.

Run `python tests/runtimes/macros/make_vectors.py`. Nothing of the library is used: fractions are exact, and what is
not rational has 60 digits.
"""

from __future__ import annotations

import json
import sys
from decimal import ROUND_HALF_UP, Decimal, getcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

getcontext().prec = 60
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
VECTORS: list[dict[str, Any]] = []
SIX = [1, 2, 3, 4, 5, 6]
MEASURED = [1, 2, 3, 4.5]
WIDE = [1e15, 1, -1e15, 2.5, 1e-3]
SAMPLES: list[list[Any]] = [
    MEASURED,
    [2],
    [1, 2],
    [3, 3, 3],
    [0.1, 0.1, 0.1],
    [-1.5, 0, 2.25, 1e9, 1e9 + 1],
    WIDE,
    [5, 4, 3, 2, 1],
]


def says(function: str, *arguments: Any, value: Any, only: str = "") -> None:
    VECTORS.append({"function": function, "arguments": list(arguments), "value": value})
    if only:
        VECTORS[-1]["only"] = only


def fails(function: str, *arguments: Any, error: str, but: str = "") -> None:
    VECTORS.append({"function": function, "arguments": list(arguments), "error": f"{function}: {error}"})
    if but:
        VECTORS[-1]["but"] = but


def exact(values: list[Any]) -> list[Fraction]:
    return [Fraction(each) for each in values]


def root(value: Fraction) -> float:
    return float((Decimal(value.numerator) / Decimal(value.denominator)).sqrt())


def mean(values: list[Fraction]) -> Fraction:
    return sum(values, Fraction(0)) / len(values)


def squares(values: list[Fraction]) -> Fraction:
    middle = mean(values)
    return sum(((each - middle) ** 2 for each in values), Fraction(0))


def solve(matrix: list[list[Fraction]], right: list[Fraction]) -> list[Fraction]:
    """Gauss's way, exactly."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for at in range(len(rows)):
        pivot = next(i for i in range(at, len(rows)) if rows[i][at] != 0)
        rows[at], rows[pivot] = rows[pivot], rows[at]
        rows[at] = [each / rows[at][at] for each in rows[at]]
        for i in range(len(rows)):
            if i != at:
                rows[i] = [a - rows[i][at] * b for a, b in zip(rows[i], rows[at], strict=True)]
    return [row[-1] for row in rows]


def fit(columns: list[list[Fraction]], y: list[Fraction]) -> tuple[list[Fraction], list[Fraction]]:
    predictors = [[Fraction(1)] * len(y), *columns]
    normal = [[sum((a * b for a, b in zip(p, q, strict=True)), Fraction(0)) for q in predictors] for p in predictors]
    right = [sum((a * b for a, b in zip(p, y, strict=True)), Fraction(0)) for p in predictors]
    found = solve(normal, right)
    return found, [sum((c * p[i] for c, p in zip(found, predictors, strict=True)), Fraction(0)) for i in range(len(y))]


def rest(y: list[Fraction], fitted: list[Fraction]) -> Fraction:
    return sum(((a - b) ** 2 for a, b in zip(y, fitted, strict=True)), Fraction(0))


# The parts --------------------------------------------------------------------------------------


def arrays() -> None:  # noqa: PLR0915
    says("ArrayNth", SIX, 2, 2, value=[3, 5])
    says("ArrayNth", SIX, value=SIX)
    says("ArrayNth", SIX, 4, value=[1, 5])
    says("ArrayNth", SIX, 9, 5, value=[6])
    says("ArrayNth", SIX, 1, 6, value=[])
    says("ArrayNth", [], 2, value=[])
    says("ArrayNth", ["a", None, "b"], 2, value=["a", "b"])
    says("ArrayNth", [{"a": 1}, 2, [3]], 2, value=[{"a": 1}, [3]])
    fails("ArrayNth", SIX, 0, error="size is not a whole number from 1 up")
    fails("ArrayNth", SIX, 1.5, error="size is not a whole number from 1 up")
    fails("ArrayNth", SIX, 1, -1, error="idx is not a whole number from 0 up")
    fails("ArrayNth", SIX, "2", error="size is text, not a number")
    fails("ArrayNth", None, error="arr is null, not an array")
    fails("ArrayNth", {"a": 1}, error="arr is an object, not an array")
    says("ArrayRange", 10, value=list(range(10)))
    says("ArrayRange", 1, 11, value=list(range(1, 11)))
    says("ArrayRange", 0, 30, 5, value=[0, 5, 10, 15, 20, 25])
    says("ArrayRange", 0, 10, 3, "x2", value=[0, 9, 36, 81])
    says("ArrayRange", 0, -10, -1, value=[0, -1, -2, -3, -4, -5, -6, -7, -8, -9])
    says("ArrayRange", 0, value=[])
    says("ArrayRange", 1, 0, value=[])
    says("ArrayRange", value=[])
    says("ArrayRange", None, 5, value=[])
    says("ArrayRange", 0, 1, 0.25, value=[0, 0.25, 0.5, 0.75])
    says("ArrayRange", 5, 6, value=[5])
    says("ArrayRange", 0, 3, 1, "log", value=[None, 0, float(Decimal(2).log10())])
    says("ArrayRange", 1, 3, 1, "ln", value=[0, float(Decimal(2).ln())])
    fails("ArrayRange", 0, 5, 0, error="step is 0")
    fails("ArrayRange", 0, 5, None, error="step is 0")
    fails("ArrayRange", 0, 5, 1, "cube", error="transform is none of: none, log, ln, x2")
    fails("ArrayRange", "3", error="start is text, not a number")
    fails("ArrayRange", 0, [3], error="stop is an array, not a number")
    fails("ArrayRange", 0, 2000000, error="more than 1000000 values")
    says("ArrayUnZip", [[1, 4], [2, 5], [3, 6]], value={"x": [1, 2, 3], "y": [4, 5, 6]})
    says("ArrayUnZip", [[1, "a"], [None, "b"]], value={"x": [1, None], "y": ["a", "b"]})
    says("ArrayUnZip", [[1, 2]], value={"x": [1], "y": [2]})
    says("ArrayUnZip", [], value={"x": [], "y": []})
    fails("ArrayUnZip", [[1, 2], [3]], error="input[1] is not an array of two values")
    fails("ArrayUnZip", [1, 2], error="input[0] is not an array of two values")
    fails("ArrayUnZip", "12", error="input is text, not an array")
    says("ArrayZip", [1, 2, 3], [4, 5, 6], value=[[1, 4], [2, 5], [3, 6]])
    says("ArrayZip", ["a"], [None], value=[["a", None]])
    says("ArrayZip", [], [], value=[])
    fails("ArrayZip", [1, 2, 3], [1], error="x has 3 values and y has 1")
    fails("ArrayZip", [1], True, error="y is a boolean, not an array")


def protocols() -> None:
    pam, ecs, again = {"label": "PAM", "v": [1, 2]}, {"label": "ECS"}, {"label": "PAM", "v": [3]}
    json_ = {"set": [pam, ecs, again, {"label": ""}, {"x": 1}, {"label": 5}, 7]}
    says("GetIndexByLabel", "PAM", json_, value=[0, 2])
    says("GetIndexByLabel", "ECS", json_, value=1)
    says("GetIndexByLabel", "ECS", json_, True, value=[1])
    says("GetIndexByLabel", "none", json_, value=None)
    says("GetIndexByLabel", "none", json_, True, value=[])
    says("GetProtocolByLabel", "ECS", json_, value=ecs)
    says("GetProtocolByLabel", "ECS", json_, True, value=[ecs])
    says("GetProtocolByLabel", "PAM", json_, value=[pam, again])
    says("GetProtocolByLabel", "none", json_, value=None)
    says("GetLabelLookup", json_, value={"PAM": [0, 2], "ECS": [1]})
    says("GetLabelLookup", {"set": []}, value={})
    says("GetLabelLookup", {"set": [{"label": "__proto__"}, {"label": "é b"}]}, value={"__proto__": [0], "é b": [1]})
    for nothing in ({}, {"set": None}, {"set": "PAM"}, {"set": {"label": "PAM"}}, {"other": 1}, None):
        says("GetIndexByLabel", "PAM", nothing, value=None)
        says("GetIndexByLabel", "PAM", nothing, True, value=None)
        says("GetProtocolByLabel", "PAM", nothing, value=None)
        says("GetLabelLookup", nothing, value=None)
    says("GetIndexByLabel", None, json_, value=None)
    says("GetIndexByLabel", value=None)
    fails("GetIndexByLabel", 5, json_, error="label is a number, not text")
    fails("GetIndexByLabel", "PAM", "text", error="json is text, not an object")
    fails("GetProtocolByLabel", "PAM", [json_], error="json is an array, not an object")
    fails("GetLabelLookup", 3, error="json is a number, not an object")
    fails("GetProtocolByLabel", "PAM", json_, "yes", error="array is text, not a boolean")


def statistics() -> None:
    for values in SAMPLES:
        numbers, n = exact(values), len(values)
        ordered, middle = sorted(numbers), n // 2
        says("MathMAX", values, value=max(values))
        says("MathMIN", values, value=min(values))
        says("MathSUM", values, value=float(sum(numbers)))
        says("MathMEAN", values, value=float(mean(numbers)))
        median = ordered[middle] if n % 2 else (ordered[middle - 1] + ordered[middle]) / 2
        says("MathMEDIAN", values, value=float(median))
        sample = squares(numbers) / (n - 1) if n > 1 else None
        says("MathVARIANCE", values, value=None if sample is None else float(sample))
        says("MathSTDEVS", values, value=None if sample is None else root(sample))
        says("MathSTDEV", values, value=root(squares(numbers) / n))
        says("MathSTDERR", values, value=root(squares(numbers) / n / n))
    for name in ("MAX", "MIN", "SUM", "MEAN", "MEDIAN", "VARIANCE", "STDEVS", "STDEV", "STDERR"):
        says(f"Math{name}", [], value=None)
        says(f"Math{name}", [1, None, 3], value=None)
        says(f"Math{name}", [None], value=None)
        fails(f"Math{name}", [1, "2"], error="values[1] is text, not a number")
        fails(f"Math{name}", [1, True], error="values[1] is a boolean, not a number")
        fails(f"Math{name}", [[1], 2], error="values[0] is an array, not a number")
        fails(f"Math{name}", "12", error="values is text, not an array")
        fails(f"Math{name}", {"a": 1}, error="values is an object, not an array")
        fails(f"Math{name}", error="values is null, not an array")
        fails(f"Math{name}", 5, error="values is a number, not an array", but="r")
    says("MathSUM", [1e308, 1e308], value=None)
    for value in (10, 1, 0.5, 1e-300, 12345.678):
        says("MathLN", value, value=float(Decimal(value).ln()))
        says("MathLOG", value, value=float(Decimal(value).log10()))
    for nothing in (0, -1, None):
        says("MathLN", nothing, value=None)
        says("MathLOG", nothing, value=None)
    fails("MathLN", "10", error="value is text, not a number")
    fails("MathLOG", [10], error="value is an array, not a number")


def rounding() -> None:
    for value in (2.675, 0.125, 2.5, -2.5, 1.005, 1e15 + 0.5, 1e22, 123456.789, -0.004, 0, 1e-9, 3):
        for digits in (None, 0, 1, 2, 3, 8, 15, -1, -2):
            wanted = 2 if digits is None else digits
            unit = Decimal(1).scaleb(-wanted)
            size = (abs(Decimal(value)) / unit).quantize(Decimal(1), ROUND_HALF_UP) * unit
            arguments = [value] if digits is None else [value, digits]
            says("MathROUND", *arguments, value=float(size.copy_sign(Decimal(value))))
    says("MathROUND", None, value=None)
    for bad in (16, -16, 0.5):
        fails("MathROUND", 1, bad, error="digits is not a whole number from -15 to 15")
    fails("MathROUND", "1", error="value is text, not a number")
    fails("MathROUND", 1, None, error="digits is null, not a number")


def regressions() -> None:
    for x, y in (
        ([60, 61, 62, 63, 65], [3.1, 3.6, 3.8, 4, 4.1]),
        ([1, 2], [5, 3]),
        ([0, 1, 2, 3], [1, -1, 2, -2]),
        ([1e6, 1e6 + 1, 1e6 + 2], [1, 2, 4]),
    ):
        a, b = exact(x), exact(y)
        across = sum(((p - mean(a)) * (q - mean(b)) for p, q in zip(a, b, strict=True)), Fraction(0))
        m = across / squares(a)
        r = root(across * across / squares(a) / squares(b)) * (1 if across > 0 else -1)
        found = {"m": float(m), "b": float(mean(b) - m * mean(a)), "r": r}
        says("MathLINREG", x, y, value=found | {"r2": float(across**2 / squares(a) / squares(b))})
    says("MathLINREG", [1, 2, 3], [4, 4, 4], value={"m": 0, "b": 4, "r": None, "r2": None})
    undefined: list[Any] = [([1, 1], [2, 3]), ([1], [2]), ([], []), ([1, None], [2, 3]), ([1, 2], [2, None])]
    for pair in undefined:
        says("MathLINREG", *pair, value=None)
    fails("MathLINREG", [1, 2, 3], [1, 2], error="x has 3 values and y has 2")
    fails("MathLINREG", [1, 2], [1, "2"], error="y[1] is text, not a number")
    tables: list[list[list[Any]]] = [
        [[1, 2, 3], [2, 1, 5], [3, 7, 1], [4, 4, 4]],
        [[1, 1], [2, 3], [3, 2], [4.5, 6]],
        [[1, 4, 9, 2], [2, 3, 1, 5], [0.5, 2, 2, 1], [4, 4, 4, 8], [1, 0, 3, 2.5], [6, 2, 1, 1]],
    ]
    for rows in tables:
        *columns, response = [exact(list(column)) for column in zip(*rows, strict=True)]
        multiple(rows, columns, response)
    singular: list[Any] = [[[1, 1, 2], [2, 2, 3], [3, 3, 5]], [[1, 2, 3], [2, 1, 5]], [[1, None], [2, 3]], []]
    for rows in singular:
        says("MathMULTREG", rows, value=None)
    fails("MathMULTREG", [[1, 2], [1, 2, 3]], error="input[1] has 3 values, not 2")
    fails("MathMULTREG", [[1], [2]], error="input[0] has 1 values, not 2")
    fails("MathMULTREG", [1, 2], error="input[0] is a number, not an array")
    for degree in (1, 2, 3):
        polynomial([[0, 1], [1, 3.5], [2, 2], [3, -1], [5, 4.25], [6, 1]], degree)
    polynomial([[1, 2], [2, 5], [3, 4]], 2)
    says("MathPOLYREG", [[0, 1], [1, 2]], 2, value=None)
    says("MathPOLYREG", [[1, 1], [1, 2], [1, 3]], 1, value=None)
    says("MathPOLYREG", [], 1, value=None)
    fails("MathPOLYREG", [[0, 1]], 0, error="degree is not a whole number from 1 to 10")
    fails("MathPOLYREG", [[0, 1]], error="degree is null, not a number")
    fails("MathPOLYREG", [[0, 1, 2]], 1, error="input[0] has 3 values, not 2")


def multiple(rows: list[list[Any]], columns: list[list[Fraction]], y: list[Fraction]) -> None:
    found, fitted = fit(columns, y)
    slopes, explained = [float(each) for each in found], float(1 - rest(y, fitted) / squares(y))
    points = [[float(each) for each in column] for column in [*columns, fitted]]
    value = {"rsquared": explained, "r_squared": explained, "intercept": slopes[0], "slopes": slopes, "points": points}
    says("MathMULTREG", rows, value=value | {"coefficients": slopes})


def polynomial(rows: list[list[Any]], degree: int) -> None:
    x, y = exact([row[0] for row in rows]), exact([row[1] for row in rows])
    found, fitted = fit([[each**power for each in x] for power in range(1, degree + 1)], y)
    slopes, left = [float(each) for each in found], rest(y, fitted)
    explained = float(1 - left / squares(y))
    value = {"slopes": slopes, "coefficients": slopes, "degree": degree, "error": float(left / (len(y) - 1))}
    value |= {"rsquared": explained, "r_squared": explained}
    says(
        "MathPOLYREG",
        rows,
        degree,
        value=value | {"points": [[float(a), float(b)] for a, b in zip(x, fitted, strict=True)]},
    )


# Curves, by Newton's way with 60 digits ----------------------------------------------------------


def decay(p: list[Decimal], x: Decimal) -> list[Decimal]:
    part = (-x / p[2]).exp()
    return [p[1] + p[0] * part, part, Decimal(1), p[0] * part * x / p[2] ** 2]


def decay_from(p: list[Decimal], x: Decimal) -> list[Decimal]:
    part = (-p[1] * x).exp()
    return [(p[0] - p[2]) * part + p[2], part, -(p[0] - p[2]) * x * part, 1 - part]


def saturation(p: list[Decimal], x: Decimal) -> list[Decimal]:
    return [p[2] + p[0] * x / (x + p[1]), x / (x + p[1]), -p[0] * x / (x + p[1]) ** 2, Decimal(1)]


def squared(p: list[Decimal], x: Decimal) -> list[Decimal]:
    value = saturation([p[0] ** 2, p[1], p[2]], x)
    return [value[0], 2 * p[0] * value[1], value[2], value[3]]


EQUATIONS = {
    "b + a * e(- x / c)": decay,
    "( a - c ) * e( - b * t ) + c": decay_from,
    "( c + a / ( 1 + b / x ) )": saturation,
    "( c + a * a / ( 1 + b / x ) )": squared,
}


def newton(
    curve: Any, x: list[Decimal], y: list[Decimal], p: list[Decimal]
) -> tuple[list[Decimal], list[Decimal], Any]:
    """Parameters, fitted values and the normal matrix where the sum of squares is least."""
    normal: Any = None
    for _ in range(400):
        at = [curve(p, each) for each in x]
        off = [a - b[0] for a, b in zip(y, at, strict=True)]
        normal = [[sum((b[i + 1] * b[j + 1] for b in at), Decimal(0)) for j in range(3)] for i in range(3)]
        right = [sum((a * b[i + 1] for a, b in zip(off, at, strict=True)), Decimal(0)) for i in range(3)]
        step = solve(normal, right)  # type: ignore[arg-type]
        p = [a + Decimal(b) for a, b in zip(p, step, strict=True)]  # type: ignore[arg-type]
        if max(abs(each) for each in step) < Decimal("1e-40"):
            return p, [curve(p, each)[0] for each in x], normal
    sys.exit("the fit does not converge")


def student(t: Decimal, freedom: int) -> float:
    """The two-sided share beyond t, by the finite sums for whole degrees of freedom."""
    t = abs(t)
    cosine2 = freedom / (freedom + t * t)
    sine = (1 - cosine2).sqrt()
    if freedom % 2:
        term = total = cosine2.sqrt() if freedom > 1 else Decimal(0)
        for k in range(3, freedom - 1, 2):
            term *= cosine2 * (k - 1) / k
            total += term
        return float(1 - 2 * (arctan(t / Decimal(freedom).sqrt()) + sine * total) / PI)
    term = total = Decimal(1)
    for k in range(2, freedom - 1, 2):
        term *= cosine2 * (k - 1) / k
        total += term
    return float(1 - sine * total)


def arctan(x: Decimal) -> Decimal:
    halvings = 0
    while x > Decimal("0.01"):
        x = x / (1 + (1 + x * x).sqrt())
        halvings += 1
    term, total = x, Decimal(0)
    for k in range(1, 80, 2):
        total += term / k
        term *= -x * x
    return total * Decimal(2**halvings)


def summary(y: list[Decimal], fitted: list[Decimal]) -> tuple[Decimal, float]:
    left = sum(((a - b) ** 2 for a, b in zip(y, fitted, strict=True)), Decimal(0))
    middle = sum(y, Decimal(0)) / len(y)
    return left, float(1 - left / sum(((each - middle) ** 2 for each in y), Decimal(0)))


def curves() -> None:
    noise = [0.01, -0.02, 0.005, 0.013, -0.011, 0.002, -0.007, 0.016, -0.004, 0.008]
    data: dict[str, tuple[list[list[Any]], list[float]]] = {
        "b + a * e(- x / c)": ([[i, round(3 + 2 * 0.8**i + e, 6)] for i, e in enumerate(noise)], [2, 3, 4]),
        "( a - c ) * e( - b * t ) + c": ([[i, round(1 + 4 * 0.6**i + e, 6)] for i, e in enumerate(noise)], [5, 0.5, 1]),
        "( c + a / ( 1 + b / x ) )": ([[i, round(1 + 5 * i / (i + 3) + e, 6)] for i, e in enumerate(noise)], [5, 3, 1]),
        "( c + a * a / ( 1 + b / x ) )": (
            [[i, round(1 + 9 * i / (i + 2) + e, 6)] for i, e in enumerate(noise)],
            [3, 2, 1],
        ),
    }
    for equation, (rows, start) in data.items():
        x, y = [Decimal(row[0]) for row in rows], [Decimal(row[1]) for row in rows]
        p, fitted, normal = newton(EQUATIONS[equation], x, y, [Decimal(each) for each in start])
        left, explained = summary(y, fitted)
        error, freedom = (left / (len(y) - 3)).sqrt(), len(y) - 3
        parameters = []
        for at in range(3):
            unit = solve(normal, [Decimal(i == at) for i in range(3)])  # type: ignore[misc]
            deviation = error * Decimal(unit[at]).sqrt()  # type: ignore[arg-type]
            chance = student(p[at] / deviation, freedom)
            parameters.append({"name": f"P{at + 1}", "value": float(p[at]), "sd_error": float(deviation), "p": chance})
        value = {"text": f"Y = {equation}", "r2": explained, "RMS_error": float(error), "parameters": parameters}
        value["points"] = [[row[0], float(each)] for row, each in zip(rows, fitted, strict=True)]
        options = {"equation": equation, "initial": start}
        VECTORS.append(
            {"function": "NonLinearRegression", "arguments": [rows, options], "value": value, "skip": ["iterations"]}
        )
    inverse([[i, round(3 + 2 * 0.8**i + e, 6)] for i, e in enumerate(noise)], [2, 3, 4])
    inverse([[10 * i + 5, round(8 - 2 * 0.7**i + e, 6)] for i, e in enumerate(noise)], [-2.5, 8, 28])
    bad_curves()


def inverse(rows: list[list[Any]], start: list[float]) -> None:
    x, y = [Decimal(row[0]) for row in rows], [Decimal(row[1]) for row in rows]
    p, fitted, _ = newton(decay, x, y, [Decimal(each) for each in start])
    left, explained = summary(y, fitted)
    a, b, c = (float(each) for each in p)
    says(
        "MathEXPINVREG",
        rows,
        value={
            "points": [[row[0], float(each)] for row, each in zip(rows, fitted, strict=True)],
            "results": [a, float(-1 / p[2])],
            "error": float(left / (len(y) - 1)),
            "asymptote": b,
            "lifetime": c,
            "slope": float(p[0] / p[2]),
            "rsquared": explained,
            "r_squared": explained,
            "y0": b,
            "a": a,
            "t": c,
            "parameters": [b, a, c],
        },
    )


def bad_curves() -> None:
    for rows in ([], [[1, 2], [2, 3]], [[1, 5], [1, 6], [1, 7]], [[0, 1], [1, 1], [2, 1]], [[0, 1], [1, None], [2, 3]]):
        says("MathEXPINVREG", rows, value=None)
    fails("MathEXPINVREG", [[1, 2, 3]], error="input[0] has 3 values, not 2")
    name, rows = "NonLinearRegression", [[0, 5], [1, 4], [2, 3.5], [3, 3.25]]
    equation = "b + a * e(- x / c)"
    says(name, rows, {"equation": equation, "initial": [1, 1, 0]}, value=None)
    says(name, [[0, None]], {"equation": equation, "initial": [1, 1, 1]}, value=None)
    fails(
        name, rows, {"equation": "a * x", "initial": [1]}, error=f"options.equation is none of: {', '.join(EQUATIONS)}"
    )
    fails(name, rows, {"equation": equation, "initial": [1, 1]}, error="options.initial has 2 values, not 3")
    fails(name, rows, {"equation": equation}, error="options.initial is null, not an array")
    fails(name, rows, {"SEy": 1, "equation": equation}, error="options.SEy is not supported")
    fails(name, rows, error="options is null, not an object")
    bad = {"equation": equation, "initial": [1, 1, 1], "iterations": 0}
    fails(name, rows, bad, error="options.iterations is not a whole number from 1 to 2000")
    fails(name, [[1]], {}, error="data[0] has 1 values, not 2")


# Traces, the sun, messages ----------------------------------------------------------------------


def traces() -> None:  # noqa: PLR0915
    trace = [1.5, 2, 3, 4]

    def say(*arguments: Any, value: Any) -> None:
        says("TransformTrace", *arguments, value=value)

    say("subtract", [1, 2, 3, 4], [0, 1, 2, 1], value=[1, 1, 1, 3])
    say("-", [1, 2, 3, 4], 1, value=[0, 1, 2, 3])
    say("add", [1, 2, 3, 4], 5, value=[6, 7, 8, 9])
    say("+", [1, 2, 3, 4], [0, 1, 2, 1], value=[1, 3, 5, 5])
    say("multiply", trace, 2, value=[3, 4, 6, 8])
    say("*", [2], [3], value=[6])
    say("divide", [1, 2, 3], [2, 0, 4], value=[0.5, None, 0.75])
    say("/", [1, 2], 0, value=[None, None])
    say("normToMin", trace, value=[1, float(Fraction(4, 3)), 2, float(Fraction(8, 3))])
    say("normToMax", trace, value=[0.375, 0.5, 0.75, 1])
    say("normToRange", trace, value=[0, 0.2, 0.6, 1])
    say("normToRange", [2, 2], value=[None, None])
    say("normToIdx", trace, 1, value=[0.75, 1, 1.5, 2])
    say("normToVal", trace, 2, value=[0.75, 1, 1.5, 2])
    say("ma", trace, value=[float(Fraction(5, 3)), float(Fraction(13, 6)), 3, float(Fraction(11, 3))])
    say("ma", [7], value=[7])
    say("sgf", trace, value=trace)
    say("sgf", [0, 0, 0, 21, 0, 0, 0, 0], value=[-2, 3, 6, 7, 6, 3, -2, 0])
    say("sgf", [1, 2, 3, 4, 5, 6, 7, 8, 9], value=sgf([1, 2, 3, 4, 5, 6, 7, 8, 9]))
    logs = [float((Decimal(str(each)) / Decimal("1.5")).log10()) for each in trace]
    say("abs", trace, value=[0 - each for each in logs])
    say("abs", trace, 1, value=[0 - float(Decimal(str(each)).log10()) for each in trace])
    say("abs", [1, 0, -1], value=[0, None, None])
    say("abs", [0, 1], value=[None, None])
    for fn in ("normToMin", "ma", "sgf", "abs"):
        say(fn, [], value=[])
    say("add", [], 1, value=[])
    say("add", [1, None, 3], 1, value=[2, None, 4])
    say("add", [1, 2], [None, 1], value=[None, 3])
    say("normToMax", [1, None, 3], value=[None, None, None])
    say("ma", [1, 2, None, 4, 5, 6], value=[float(Fraction(4, 3)), None, None, None, 5, float(Fraction(17, 3))])
    known = "add, +, subtract, -, multiply, *, divide, /, normToMin, normToMax, normToRange, "
    known += "normToIdx, normToVal, ma, sgf, abs"
    fails("TransformTrace", "cube", trace, error=f"fn is none of: {known}")
    fails("TransformTrace", None, trace, error=f"fn is none of: {known}")
    fails("TransformTrace", "add", trace, [1, 2, 3], error="a1 has 4 values and a2 has 3")
    fails("TransformTrace", "add", trace, error="a2 is null, not a number or an array")
    fails("TransformTrace", "add", trace, "1", error="a2 is text, not a number or an array")
    fails("TransformTrace", "ma", "trace", error="a1 is text, not an array")
    fails("TransformTrace", "ma", [1, "2"], error="a1[1] is text, not a number")
    fails("TransformTrace", "normToIdx", trace, 4, error="a2 is not a whole number from 0 to 3")
    fails("TransformTrace", "normToVal", trace, error="a2 is null, not a number")


def sgf(trace: list[int]) -> list[float]:
    wide = [*reversed(trace[:3]), *trace, *reversed(trace[-3:])]
    weights = [-2, 3, 6, 7, 6, 3, -2]
    return [float(Fraction(sum(w * wide[at + i] for i, w in enumerate(weights)), 21)) for at in range(len(trace))]


def sun() -> None:
    half = Decimal("0.5")
    says("calcSunAngle", 0, 0, 0, 180, 90, value={"angle": 0, "percent": 100})
    says("calcSunAngle", 0, 0, 77, 10, 30, value={"angle": 60, "percent": 50})
    says("calcSunAngle", 0, 0, 0, 0, 0, value={"angle": 90, "percent": 0})
    says("calcSunAngle", 0, 0, 0, 0, -30, value={"angle": 120, "percent": 0})
    says("calcSunAngle", 0, -30, 45, 45, 60, value={"angle": 0, "percent": 100})
    says("calcSunAngle", 30, 0, 45, 135, 60, value={"angle": 0, "percent": 100})
    says("calcSunAngle", 30, 0, 0, 270, 60, value={"angle": 60, "percent": float(half * 100)})
    says("calcSunAngle", 0, None, 0, 0, 0, value=None)
    says("calcSunAngle", value=None)
    fails("calcSunAngle", 0, 0, "N", 0, 0, error="compass is text, not a number")


def messages() -> None:
    for level in ("info", "warning", "danger"):
        says(level, "a", {}, value={"messages": {level: ["a"]}})
        kept = {"x": 1, "messages": {"other": ["b"], level: ["c"]}}
        says(level, "a", kept, value={"x": 1, "messages": {"other": ["b"], level: ["c", "a"]}})
        fails(level, "a", [1], error="output is an array, not an object")
        fails(level, "a", {"messages": "b"}, error="output.messages is text, not an object")
        fails(level, "a", {"messages": {level: 5}}, error=f"output.messages.{level} is a number, not an array")


def main() -> None:
    for part in (arrays, protocols, statistics, rounding, regressions, curves, traces, sun, messages):
        part()
    lines = ",\n".join(json.dumps(each, ensure_ascii=False) for each in VECTORS)
    Path(__file__).with_name("vectors.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
