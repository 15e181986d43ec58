"""The functions for macros give the same in three languages, and what long arithmetic says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import casemate
from casemate.engine.items import run_items
from casemate.model.function import Item, Source
from casemate.runtimes.macros import MACRO_NAMES, macros_source

VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("vectors.json").read_text())
DIGITS = 1e-12
SUFFIXES = {"python": ".py", "javascript": ".js", "r": ".R"}
CALLS = {
    "python": """
output = []
for call in input:
    try:
        output.append({"value": globals()[call["function"]](*call["arguments"].values())})
    except Exception as error:
        output.append({"error": str(error)})
""",
    "javascript": """
return input.map((call) => {
  try {
    return { value: globalThis[call.function](...Object.values(call.arguments)) ?? null };
  } catch (error) {
    return { error: error.message };
  }
});
""",
    "r": """
output <- lapply(input, function(call) tryCatch({
    value <- do.call(call$`function`, unname(call$arguments))
    if (is.null(value)) list(value = NA) else list(value = value)
}, error = function(error) list(error = conditionMessage(error))))
""",
}


def called(runtime: str, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each call gives, all in one sandbox. Arguments have names: R has no list of one null."""
    given = [
        {"function": call["function"], "arguments": {f"a{at}": each for at, each in enumerate(call["arguments"])}}
        for call in calls
    ]
    code = (macros_source(SUFFIXES[runtime]) or "") + CALLS[runtime]
    result = casemate.run(code, runtime, input=given, limits={"timeout": "60s"})
    assert result.ok, result.stderr.text
    found: list[dict[str, Any]] = result.output
    return found


def differs(one: Any, other: Any, path: str = "") -> str:
    """Where two values differ by more than the twelfth digit; empty if they do not."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return next(filter(None, (differs(one[key], other[key], f"{path}.{key}") for key in one)), "")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return next(filter(None, (differs(*pair, f"{path}[{at}]") for at, pair in enumerate(zip(one, other)))), "")  # noqa: B905
    numbers = [each for each in (one, other) if isinstance(each, int | float) and not isinstance(each, bool)]
    if len(numbers) == 2:
        same = math.isclose(one, other, rel_tol=DIGITS, abs_tol=DIGITS)
    else:
        same = type(one) is type(other) and one == other and not isinstance(one, dict | list)
    same = same or (one == other and type(one) is type(other))
    return "" if same else f"{path or 'it'}: {one!r} and {other!r}"


@pytest.mark.parametrize("runtime", CALLS)
def test_a0_11_every_function_gives_what_long_arithmetic_says(runtime: str) -> None:
    calls = [call for call in VECTORS if call.get("but") != runtime]
    wrong = []
    for call, found in zip(calls, called(runtime, calls), strict=True):
        for key in call.get("skip", []):
            found["value"].pop(key)
        wanted = {key: call[key] for key in ("value", "error") if key in call}
        if different := differs(found, wanted):
            wrong.append(f"{call['function']}({str(call['arguments'])[1:90]}…): {different}")
    assert wrong == []


def test_a0_11_there_is_a_vector_for_every_function() -> None:
    assert {call["function"] for call in VECTORS} == set(MACRO_NAMES)


SAID = {"messages": {"info": ["a", "b"], "danger": ["c"]}}
SAYS = {
    "python": [
        "output = {}\ninfo('a')\ninfo('b', output)\ndanger('c')",
        "def main(data):\n    output = {}\n    info('a')\n    info('b', output)\n    return danger('c')",
        "class Filled(dict): pass\noutput = Filled()\ninfo('a'); info('b'); danger('c', output)",
    ],
    "javascript": ["globalThis.output = {};\ninfo('a');\ninfo('b', output);\ndanger('c');\nreturn output;"],
    "r": [
        "output <- list()\ninfo('a')\ninfo('b', output)\ndanger('c')",
        "main <- function(data) {\n  output <- list()\n  info('a')\n  info('b', output)\n  danger('c')\n  output\n}",
        "out <- new.env()\ninfo('a', out)\ninfo('b', out)\ndanger('c', out)\noutput <- as.list(out)",
        "output <- list()\nlocal({ info('a'); info('b', output) })\noutput <- danger('c', output)",
    ],
}


@pytest.mark.parametrize(("runtime", "code"), [(runtime, code) for runtime in SAYS for code in SAYS[runtime]])
def test_a0_11_messages_reach_the_output_named_or_not(runtime: str, code: str) -> None:
    text = (macros_source(SUFFIXES[runtime]) or "") + "\n" + code
    result = casemate.run(text, runtime, input=1)
    assert result.ok, result.stderr.text
    assert result.output == SAID


def test_a0_3_the_sample_event_gives_the_means() -> None:
    code = (macros_source(".py") or "") + "\noutput = [MathMEAN(each['trace_1']) for each in input]"
    result = casemate.run(code, input=[{"trace_1": [45.1, 46.62]}, {"trace_1": [38.0, 39.72]}])
    assert result.output == pytest.approx([45.86, 38.86])


def test_python_takes_arrays_and_numbers_of_other_libraries() -> None:
    library = """
class Array:
    def __init__(self, value): self.value = value
    def tolist(self): return self.value

output = [
    MathMEAN(Array([1, 2])), MathMEAN((1, 2)), MathSUM([Array(1), Array(2.5)]), ArrayZip(Array([1]), (2,)),
    MathMULTREG(Array([[1, 2], [2, 4]]))["slopes"][1], TransformTrace("add", Array([1]), Array(1)),
]
"""
    result = casemate.run((macros_source(".py") or "") + library)
    assert differs(result.output, [1.5, 1.5, 3.5, [[1, 2]], 2, [2]]) == ""


def test_r_takes_matrices_data_frames_and_vectors_of_one() -> None:
    library = """
rows <- cbind(1:4, c(2, 4, 6, 8.5))
output <- list(
    MathMULTREG(rows)$slopes, MathPOLYREG(as.data.frame(rows), 1)$slopes, MathMEAN(5), TransformTrace("add", 1, 1),
    ArrayUnZip(rows)$x, MathMEAN(c(a = 1, b = 2)), ArrayNth(7)
)
"""
    result = casemate.run((macros_source(".R") or "") + library, "r")
    assert result.ok, result.stderr.text
    line = [-0.25, 2.15]
    assert differs(result.output, [line, line, 5, [2], [1, 2, 3, 4], 1.5, [7]]) == ""


@pytest.mark.parametrize("runtime", CALLS)
def test_the_text_leaves_no_other_names(runtime: str) -> None:
    look = {
        "python": "output = sorted(name for name in globals() if not name.startswith('_'))",
        "javascript": "return Object.getOwnPropertyNames(globalThis).filter((name) => !names.has(name));",
        "r": "output <- setdiff(ls(), 'before')",
    }
    before = "const names = new Set(Object.getOwnPropertyNames(globalThis));\n"
    text = (before if runtime == "javascript" else "") + (macros_source(SUFFIXES[runtime]) or "") + "\n" + look[runtime]
    result = casemate.run(text, runtime)
    assert result.ok, result.stderr.text
    assert set(MACRO_NAMES) <= set(result.output)
    if runtime != "python":  # there a loader takes what `__all__` names
        assert set(result.output) == set(MACRO_NAMES)


NUMBERS = st.one_of(st.integers(-1000, 1000), st.floats(-1e6, 1e6, allow_subnormal=False), st.sampled_from([0.5, 1e-3]))
VALUES = st.one_of(NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.none())
ODD = st.one_of(VALUES, st.text(max_size=3), st.booleans(), st.lists(NUMBERS, max_size=2))
LISTS = st.one_of(st.lists(NUMBERS, max_size=12), st.lists(VALUES, max_size=12), st.lists(ODD, max_size=4))
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS).map(list), max_size=9)
STATISTICS = ["MAX", "MIN", "SUM", "MEAN", "MEDIAN", "VARIANCE", "STDEV", "STDEVS", "STDERR"]
CALL = st.one_of(
    st.tuples(st.sampled_from([f"Math{name}" for name in STATISTICS]), st.tuples(LISTS)),
    st.tuples(st.just("MathROUND"), st.tuples(VALUES, st.integers(-16, 16))),
    st.tuples(st.sampled_from(["MathLN", "MathLOG"]), st.tuples(VALUES)),
    st.tuples(st.just("MathLINREG"), PAIRS.map(lambda rows: ([r[0] for r in rows], [r[1] for r in rows]))),
    st.tuples(st.sampled_from(["MathLINREG", "ArrayZip"]), st.tuples(LISTS, LISTS)),
    st.tuples(st.sampled_from(["MathMULTREG", "MathEXPINVREG", "ArrayUnZip"]), st.tuples(PAIRS)),
    st.tuples(st.just("MathPOLYREG"), st.tuples(PAIRS, st.integers(0, 4))),
    st.tuples(st.just("ArrayNth"), st.tuples(LISTS, st.integers(0, 4), st.integers(-1, 4))),
    st.tuples(st.just("ArrayRange"), st.tuples(st.integers(-20, 20), st.integers(-20, 20), st.integers(-3, 3))),
    st.tuples(st.just("calcSunAngle"), st.tuples(*[st.floats(-360, 360)] * 5)),
    st.tuples(st.sampled_from(["ma", "sgf", "abs", "normToMin", "normToMax", "normToRange", "add", "/"]), LISTS, VALUES)
    .map(lambda each: ("TransformTrace", each)),
)  # fmt: skip


@settings(max_examples=3, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.lists(CALL, min_size=150, max_size=250))
def test_a0_11_the_languages_agree_on_whatever_they_are_given(drawn: list[Any]) -> None:
    calls = [{"function": function, "arguments": list(arguments)} for function, arguments in drawn]
    python, javascript, r = (called(runtime, calls) for runtime in CALLS)
    for call, *found in zip(calls, python, javascript, r, strict=True):
        assert differs(found[0], found[1]) == "", call
        assert differs(found[0], found[2]) == "", call


MACROS = {
    "python": "info('dark')\nif ctx:\n    warning(ctx['note'], output)\noutput['mean'] = MathMEAN(json['trace'])",
    "r": "info('dark')\nif (length(ctx)) warning(ctx$note, output)\noutput$mean <- MathMEAN(json$trace)",
}


@pytest.mark.parametrize("runtime", MACROS)
def test_a0_11_macros_find_the_library_and_their_output(runtime: str) -> None:
    items = [
        Item(id="a", data={"trace": [1, 2, 4.5]}, context={"note": "warm"}),
        Item(id="b", data={"trace": []}),
        Item(id="c", data={"trace": "1"}),
    ]
    with casemate.Engine() as engine:
        source = Source(runtime=runtime, code=MACROS[runtime], macros=True)
        found = [result for _, result in sorted(run_items(engine, source, items), key=lambda each: each[0])]
    assert found[0].output == {"messages": {"info": ["dark"], "warning": ["warm"]}, "mean": 2.5}
    assert found[1].output == {"messages": {"info": ["dark"]}, "mean": None}
    assert found[2].error is not None
    assert found[2].error.message == "MathMEAN: values is text, not an array"


def test_languages_without_a_library_have_none() -> None:
    assert macros_source(".sh") is None
