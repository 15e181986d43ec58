"""The second half of the functions that macros may call, in Python: regressions, fits, traces and the sun."""

from __future__ import annotations

from casemate.guest.macros.macros import (
    _dot, _fail, _is_object, _kind, _known, _mean, _missing, _number, _numbers, _plain, _quotient, _root, _rows,
    _same_length, _squares, _total, _wants, _whole,
)  # fmt: skip

# What stands above this line is for those who read this file alone: it is not in the joined text.

import math
from collections.abc import Callable
from typing import Any

_DEGREE_MAX = 10
_ITERATIONS_MAX = 2000
_ITERATIONS = 200
_POLISHING_MAX = 50
_SINGULAR = 1e-12
_LN2_HIGH, _LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
_LIFETIMES = 41
_LIFETIME_RATIO = 1.2589254117941673

# Least squares ----------------------------------------------------------------------------------


def _exp(x: float) -> float:
    """The exponential by basic arithmetic alone, so that iterations are the same in every language."""
    if not x < 709.78:
        return math.inf if x >= 709.78 else math.nan
    if x < -745:
        return 0.0
    power = math.floor(x / 0.6931471805599453 + 0.5)
    rest = (x - power * _LN2_HIGH) - power * _LN2_LOW
    series = 1.0
    for term in range(14, 0, -1):
        series = 1 + rest / term * series
    half = math.floor(power / 2)
    return series * 2.0**half * 2.0 ** (power - half)


def _least_squares(columns: list[list[float]], y: list[float]) -> list[float] | None:
    """Householder's way; None if a column is one of the others put together."""
    columns, y, diagonal = [column[:] for column in columns], y[:], []
    norms = [_root(_dot(column, column)) for column in columns]
    for at, column in enumerate(columns):
        tail = column[at:]
        alpha = _root(_dot(tail, tail))
        if not alpha > _SINGULAR * norms[at]:
            return None
        alpha = -alpha if tail[0] > 0 else alpha
        scale = alpha * (alpha - tail[0])
        tail[0] -= alpha
        for other in [*columns[at + 1 :], y]:
            share = _dot(tail, other[at:]) / scale
            for i, each in enumerate(tail):
                other[at + i] -= share * each
        diagonal.append(alpha)
    found = [0.0] * len(columns)
    for at in range(len(columns) - 1, -1, -1):
        rest = y[at]
        for after in range(at + 1, len(columns)):
            rest -= columns[after][at] * found[after]
        found[at] = rest / diagonal[at]
    return found if all(map(math.isfinite, found)) else None


def _rest(y: list[float], fitted: list[float]) -> float:
    off = [one - other for one, other in zip(y, fitted, strict=True)]
    return _total([each * each for each in off])


def _explained(y: list[float], fitted: list[float]) -> float | None:
    squares = _squares(y)
    return None if squares == 0 else _known(1 - _rest(y, fitted) / squares)


# Regressions ------------------------------------------------------------------------------------


def _regression(columns: list[list[float]], y: list[float]) -> tuple[list[float], list[float]] | None:
    """Intercept and slopes, and what they say for each row."""
    predictors = [[1.0] * len(y), *columns]
    if len(y) < len(predictors) or any(map(_missing, [*columns, y])):
        return None
    found = _least_squares(predictors, y)
    if found is None:
        return None
    fitted = [_dot(list(row), found) for row in zip(*predictors, strict=True)]
    return found, fitted


def MathMULTREG(input: Any = None) -> dict[str, Any] | None:
    """Several predictors, and a response as the last value of each row, by least squares."""
    rows = _rows("MathMULTREG", input)
    *columns, y = [list(column) for column in zip(*rows, strict=True)] or [[]]
    found = _regression(columns, y)
    if found is None:
        return None
    slopes, fitted = found
    explained = _explained(y, fitted)
    return {
        "rsquared": explained, "r_squared": explained, "intercept": slopes[0], "slopes": slopes,
        "coefficients": slopes[:], "points": [*columns, fitted],
    }  # fmt: skip


def MathPOLYREG(input: Any = None, degree: Any = None) -> dict[str, Any] | None:
    """y = a0 + a1 x + a2 x² + … by least squares."""
    rows = _rows("MathPOLYREG", input, 2)
    degree = _whole("MathPOLYREG", "degree", degree, 1, _DEGREE_MAX)
    x, y = [row[0] for row in rows], [row[1] for row in rows]
    powers = [x]
    for _ in range(degree - 1):
        powers.append([one * other for one, other in zip(powers[-1], x, strict=True)])
    found = _regression(powers, y)
    if found is None:
        return None
    slopes, fitted = found
    explained = _explained(y, fitted)
    return {
        "points": [[one, other] for one, other in zip(x, fitted, strict=True)], "slopes": slopes,
        "coefficients": slopes[:], "degree": degree, "error": _rest(y, fitted) / (len(y) - 1),
        "rsquared": explained, "r_squared": explained,
    }  # fmt: skip


# Curves -----------------------------------------------------------------------------------------

_Curve = Callable[[list[float], float], tuple[float, float, float, float]]
"""Its value at x, and its derivatives by its three parameters."""


def _decay_to(p: list[float], x: float) -> tuple[float, float, float, float]:
    """b + a * e(- x / c)."""
    a, b, c = p
    part = _exp(_quotient(-x, c))
    return b + a * part, part, 1.0, _quotient(a * part * x, c * c)


def _decay_from(p: list[float], x: float) -> tuple[float, float, float, float]:
    """( a - c ) * e( - b * t ) + c."""
    a, b, c = p
    part = _exp(-b * x)
    return (a - c) * part + c, part, -(a - c) * x * part, 1 - part


def _saturation(p: list[float], x: float) -> tuple[float, float, float, float]:
    """( c + a / ( 1 + b / x ) ), of which a x / (x + b) is the same."""
    a, b, c = p
    part = _quotient(x, x + b)
    return c + a * part, part, -_quotient(a * part, x + b), 1.0


def _squared_saturation(p: list[float], x: float) -> tuple[float, float, float, float]:
    """( c + a * a / ( 1 + b / x ) )."""
    a, b, c = p
    part = _quotient(x, x + b)
    return c + a * a * part, 2 * a * part, -_quotient(a * a * part, x + b), 1.0


_EQUATIONS: dict[str, _Curve] = {
    "b + a * e(- x / c)": _decay_to,
    "( a - c ) * e( - b * t ) + c": _decay_from,
    "( c + a / ( 1 + b / x ) )": _saturation,
    "( c + a * a / ( 1 + b / x ) )": _squared_saturation,
}


class _Fit:
    """A curve beside its data: what it says there, how far off that is, and its derivatives as columns."""

    def __init__(self, curve: _Curve, x: list[float], y: list[float], p: list[float]) -> None:
        self.p = p
        at = [curve(p, each) for each in x]
        self.fitted = [each[0] for each in at]
        self.off = [one - other for one, other in zip(y, self.fitted, strict=True)]
        self.columns = [[each[by] for each in at] for by in (1, 2, 3)]
        self.rest = _total([each * each for each in self.off])

    def inverse(self, damping: float) -> tuple[list[float], list[list[float]]] | None:
        """Lengths of the columns, and the Cholesky factor of the normal equations in units of them."""
        lengths = [_root(_dot(column, column)) for column in self.columns]
        if not all(0 < length < math.inf for length in lengths):
            return None
        factor = [[0.0] * 3 for _ in range(3)]
        for i in range(3):
            for j in range(i + 1):
                rest = _dot(self.columns[i], self.columns[j]) / (lengths[i] * lengths[j])
                rest = 1 + damping if i == j else rest
                for k in range(j):
                    rest -= factor[i][k] * factor[j][k]
                if i == j and not rest > _SINGULAR:
                    return None
                factor[i][j] = _root(rest) if i == j else rest / factor[j][j]
        return lengths, factor

    def step(self, damping: float) -> tuple[list[float], float] | None:
        """What to add to the parameters, and how much of the data's size that moves the curve by."""
        found = self.inverse(damping)
        if found is None:
            return None
        lengths, factor = found
        right = [_dot(column, self.off) / length for column, length in zip(self.columns, lengths, strict=True)]
        moves = _solved(factor, right)
        sizes = [abs(move) for move in moves]
        return [move / length for move, length in zip(moves, lengths, strict=True)], max(sizes)


def _solved(factor: list[list[float]], right: list[float]) -> list[float]:
    """The solution of factor * transposed(factor) * x = right."""
    half = [0.0] * 3
    for i in range(3):
        rest = right[i]
        for k in range(i):
            rest -= factor[i][k] * half[k]
        half[i] = rest / factor[i][i]
    found = [0.0] * 3
    for i in (2, 1, 0):
        rest = half[i]
        for k in range(i + 1, 3):
            rest -= factor[k][i] * found[k]
        found[i] = rest / factor[i][i]
    return found


def _added(p: list[float], step: list[float]) -> list[float]:
    return [one + other for one, other in zip(p, step, strict=True)]


def _fitted(curve: _Curve, x: list[float], y: list[float], start: list[float], most: int) -> tuple[_Fit, int] | None:
    """Levenberg's and Marquardt's way to small steps, then Gauss's and Newton's until they stop shrinking."""
    if len(y) < 3 or max(y) == min(y):
        return None
    size, fit, damping = _root(_dot(y, y)), _Fit(curve, x, y, start), 1e-3
    for count in range(1, most + 1):
        found = fit.step(damping) if math.isfinite(fit.rest) else None
        if found is None:
            return None
        trial = _Fit(curve, x, y, _added(fit.p, found[0]))
        small = damping <= 1 and found[1] <= 1e-7 * size
        if trial.rest <= fit.rest or (small and math.isfinite(trial.rest)):
            fit, damping = trial, damping / 10
        else:
            damping *= 10
        if small:
            return _polished(curve, x, y, fit), count
    return None


def _polished(curve: _Curve, x: list[float], y: list[float], fit: _Fit) -> _Fit:
    last = math.inf
    for _ in range(_POLISHING_MAX):
        found = fit.step(0.0)
        if found is None or not found[1] < last:
            break
        trial = _Fit(curve, x, y, _added(fit.p, found[0]))
        if not math.isfinite(trial.rest):
            break
        fit, last = trial, found[1]
    return fit


def _lifetime(x: list[float], y: list[float]) -> list[float]:
    """Where to begin: of some lifetimes the one with which a decay comes closest, and that decay."""
    lifetime, best, found = max(x) * 0.01, math.inf, [0.0, 0.0, 0.0]
    mean_y = _mean(y)
    for _ in range(_LIFETIMES):
        part = [_exp(-each / lifetime) for each in x]
        mean = _mean(part)
        wide = _squares(part)
        across = _total([(one - mean) * (other - mean_y) for one, other in zip(part, y, strict=True)])
        a = _quotient(across, wide)
        rest = _rest(y, [mean_y + a * (each - mean) for each in part])
        if rest < best:
            best, found = rest, [a, mean_y - a * mean, lifetime]
        lifetime *= _LIFETIME_RATIO
    return found


def MathEXPINVREG(input: Any = None) -> dict[str, Any] | None:
    """y = y0 + a e^(-x/t) by least squares."""
    rows = _rows("MathEXPINVREG", input, 2)
    x, y = [row[0] for row in rows], [row[1] for row in rows]
    if len(rows) < 3 or _missing(x) or _missing(y) or max(x) == min(x):
        return None
    first = min(x)
    shifted = [each - first for each in x]
    found = _fitted(_decay_to, shifted, y, _lifetime(shifted, y), _ITERATIONS)
    if found is None:
        return None
    fit = found[0]
    b, c = fit.p[1], fit.p[2]
    a, explained = fit.p[0] * _exp(_quotient(first, c)), _explained(y, fit.fitted)
    return {
        "points": [[one, other] for one, other in zip(x, fit.fitted, strict=True)],
        "results": [_known(a), _known(_quotient(-1, c))], "error": fit.rest / (len(y) - 1), "asymptote": b,
        "lifetime": c, "slope": _known(_quotient(a, c)), "rsquared": explained, "r_squared": explained,
        "y0": b, "a": _known(a), "t": c, "parameters": [b, _known(a), c],
    }  # fmt: skip


def _options(data: Any, options: Any) -> tuple[list[list[float]], str, list[float], int]:
    name = "NonLinearRegression"
    rows = [_numbers(name, f"data[{at}]", row) for at, row in enumerate(_wants(name, "data", data, "an array"))]
    for at, row in enumerate(rows):
        if len(row) != 2:
            _fail(name, f"data[{at}] has {len(row)} values, not 2")
    if not _is_object(options):
        _fail(name, f"options is {_kind(_plain(options))}, not an object")
    for option in sorted(options.keys()):
        if option not in {"equation", "initial", "iterations"}:
            _fail(name, f"options.{option} is not supported")
    equation = options["equation"] if "equation" in options else None
    known = {written.replace(" ", ""): written for written in _EQUATIONS}
    found = known.get(equation.replace(" ", "")) if isinstance(equation, str) else None
    if found is None:
        _fail(name, f"options.equation is none of: {', '.join(_EQUATIONS)}")
    initial = _numbers(name, "options.initial", options["initial"] if "initial" in options else None)
    if len(initial) != 3:
        _fail(name, f"options.initial has {len(initial)} values, not 3")
    most = options["iterations"] if "iterations" in options else _ITERATIONS
    return rows, found, initial, _whole(name, "options.iterations", most, 1, _ITERATIONS_MAX)


def NonLinearRegression(data: Any = None, options: Any = None) -> dict[str, Any] | None:
    """One of four curves by least squares, from parameters that are guessed."""
    rows, equation, initial, most = _options(data, options)
    x, y = [row[0] for row in rows], [row[1] for row in rows]
    if _missing(x) or _missing(y) or _missing(initial):
        return None
    found = _fitted(_EQUATIONS[equation], x, y, initial, most)
    if found is None:
        return None
    fit, count = found
    error = _root(fit.rest / max(1, len(y) - 3))
    explained = _explained(y, fit.fitted)
    return {
        "text": f"Y = {equation}", "r2": explained, "RMS_error": error, "iterations": count,
        "parameters": _parameters(fit, error, len(y) - 3),
        "points": [[one, other] for one, other in zip(x, fit.fitted, strict=True)],
    }  # fmt: skip


def _parameters(fit: _Fit, error: float, freedom: int) -> list[dict[str, Any]]:
    inverse = fit.inverse(0.0)
    found = []
    for at, value in enumerate(fit.p):
        deviation = math.nan
        if inverse is not None and freedom > 0:
            lengths, factor = inverse
            deviation = error * _root(_solved(factor, [float(i == at) for i in range(3)])[at]) / lengths[at]
        chance = _two_sided(_quotient(value, deviation), freedom)
        found.append({"name": f"P{at + 1}", "value": value, "sd_error": _known(deviation), "p": _known(chance)})
    return found


def _two_sided(t: float, freedom: int) -> float:
    """How likely Student's t is to be further from 0: the incomplete beta function by its continued fraction."""
    if not math.isfinite(t):
        return math.nan
    x = freedom / (freedom + t * t)
    # The fraction converges fast on this side; on the other one its mirror image does.
    if x < (freedom / 2 + 1) / (freedom / 2 + 2.5):
        return _beta_share(x, 1 - x, freedom, 1)
    return 1 - _beta_share(t * t / (freedom + t * t), x, 1, freedom)


def _beta_share(x: float, rest: float, one: int, other: int) -> float:
    """The incomplete beta function of one/2 and other/2 at x, relative to the complete one (Lentz's way)."""
    a, b = one / 2, other / 2
    above, below = 1.0, 1 - (a + b) * x / (a + 1)
    below = 1 / below
    value = below
    for m in range(1, 301):
        term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        below, above = 1 / (1 + term * below), 1 + term / above
        value *= below * above
        term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        below, above = 1 / (1 + term * below), 1 + term / above
        value *= below * above
        if abs(below * above - 1) < 1e-15:
            break
    return _power(_root(x), one) * _power(_root(rest), other) / (a * _beta(max(one, other))) * value


def _beta(whole: int) -> float:
    """The complete beta function of whole/2 and 1/2."""
    value, at = (math.pi, 1) if whole % 2 else (2.0, 2)
    while at < whole:
        value *= at / (at + 1)
        at += 2
    return value


def _power(base: float, whole: int) -> float:
    value = 1.0
    while whole > 0:
        if whole % 2:
            value *= base
        base *= base
        whole //= 2
    return value


# Traces -----------------------------------------------------------------------------------------

_ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "add": lambda a, b: a + b, "+": lambda a, b: a + b, "subtract": lambda a, b: a - b, "-": lambda a, b: a - b,
    "multiply": lambda a, b: a * b, "*": lambda a, b: a * b, "divide": _quotient, "/": _quotient,
}  # fmt: skip
_TRACES = (*_ARITHMETIC, "normToMin", "normToMax", "normToRange", "normToIdx", "normToVal", "ma", "sgf", "abs")


def TransformTrace(fn: Any = None, a1: Any = None, a2: Any = None) -> list[float | None]:
    """A trace, transformed value by value; null where the result is no number."""
    name = "TransformTrace"
    if not isinstance(fn, str) or fn not in _TRACES:
        _fail(name, f"fn is none of: {', '.join(_TRACES)}")
    trace, second = _numbers(name, "a1", a1), _plain(a2)
    if fn in _ARITHMETIC:
        return list(map(_known, _paired(fn, trace, second)))
    return list(map(_known, _shaped(fn, trace, second))) if trace else []


def _paired(fn: str, trace: list[float], second: Any) -> list[float]:
    if isinstance(second, list):
        others = _numbers("TransformTrace", "a2", second)
        _same_length("TransformTrace", "a1", trace, "a2", others)
    elif _kind(second) == "a number":
        others = [_number("TransformTrace", "a2", second)] * len(trace)
    else:
        _fail("TransformTrace", f"a2 is {_kind(second)}, not a number or an array")
    return [_ARITHMETIC[fn](one, other) for one, other in zip(trace, others, strict=True)]


def _shaped(fn: str, trace: list[float], second: Any) -> list[float]:
    if fn == "ma":
        wide = [trace[0], *trace, trace[-1]]
        return [(wide[at] + wide[at + 1] + wide[at + 2]) / 3 for at in range(len(trace))]
    if fn == "sgf":
        return _smoothed(trace)
    if fn == "abs":
        first = trace[0] if second is None else _number("TransformTrace", "a2", second)
        shares = [_quotient(each, first) if first > 0 else math.nan for each in trace]
        return [0 - math.log10(each) if each > 0 else math.nan for each in shares]
    if fn in {"normToIdx", "normToVal"}:
        return [_quotient(each, _unit(fn, trace, second)) for each in trace]
    if _missing(trace):
        return [math.nan] * len(trace)
    low, high = min(trace), max(trace)
    if fn == "normToRange":
        return [_quotient(each - low, high - low) for each in trace]
    return [_quotient(each, low if fn == "normToMin" else high) for each in trace]


def _unit(fn: str, trace: list[float], second: Any) -> float:
    if fn == "normToVal":
        return _number("TransformTrace", "a2", _wants("TransformTrace", "a2", second, "a number"))
    return trace[_whole("TransformTrace", "a2", second, 0, len(trace) - 1)]


def _smoothed(trace: list[float]) -> list[float]:
    """Savitzky's and Golay's filter: parabolas through seven values each, of a trace mirrored at its ends."""
    if len(trace) < 7:
        return trace
    w = [*reversed(trace[:3]), *trace, *reversed(trace[-3:])]
    return [
        (-2 * w[i - 3] + 3 * w[i - 2] + 6 * w[i - 1] + 7 * w[i] + 6 * w[i + 1] + 3 * w[i + 2] - 2 * w[i + 3]) / 21
        for i in range(3, len(trace) + 3)
    ]
