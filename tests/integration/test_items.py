"""Functions that are called with items: each item on its own, in every language that has runners or isolates."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import pytest
from tests.machine import PAUSE_S, left_running

import casemate
from casemate import Item, ItemResult, Reason, Source
from casemate.kernel.processes import process_tree, start_time

Call = Callable[..., list[ItemResult]]

ENDS_WITHIN_S: Final = 30.0
LANGUAGES: Final = ("python", "r", "javascript", "node")
RUNNERS: Final = ("python", "r")
ECHO: Final = {
    "python": "output = {'seen': input}",
    "r": "output <- list(seen = input)",
    "javascript": "output = {seen: input}",
    "node": "output = {seen: input}",
}
BOOM: Final = {
    "python": "def main(each):\n    if each == 'bad':\n        raise ValueError('boom')\n    return each",
    "r": "main <- function(each) if (identical(each, 'bad')) stop('boom') else each",
    "javascript": "const main = (each) => { if (each === 'bad') throw new Error('boom'); return each; }",
}
ROOTS: Final[Sequence[Any]] = (
    {"a": {"b": [1, 2]}, "c": "x"},
    {},
    42,
    None,
    [{"a": 1}],
    [{"a": 1}, {"b": 2}],
    [],
    [1, 2],
    {"sample": [{"x": 1}, {"x": 2}]},
)
BOOM["node"] = BOOM["javascript"]
MEAN: Final = "trace = input['trace_1']\nreturn {'chlorophyll': round(sum(trace) / len(trace), 2)}"
MIB: Final = 1 << 20
SCALAR: Final = "class Scalar:\n    def tolist(self): return 7\n"
"""A number of another library: as those of numpy, it is no number of Python's and can say which one it stands for."""


@pytest.fixture(scope="module")
def warm() -> Iterator[casemate.Engine]:
    """An engine that keeps runners for the next call."""
    with casemate.Engine() as opened:
        yield opened


@pytest.fixture
def call(engine: casemate.Engine, generous: dict[str, Any]) -> Call:
    """Call a source with these data; the results are in their order."""

    def start(
        runtime: str, code: str, *data: Any, limits: Any = None, timeout_s: float | None = None, **options: Any
    ) -> Any:
        source = Source(runtime=runtime, code=code, limits={**generous, **(limits or {})}, **options)
        items = [each if isinstance(each, Item) else Item(data=each) for each in data]
        found = dict(casemate.run_items(engine, source, items, timeout_s=timeout_s))
        return [found[place] for place in range(len(items))]

    return start


def outputs(results: list[ItemResult]) -> list[Any]:
    assert all(each.success for each in results), [(each.reason, each.error) for each in results]
    return [each.output for each in results]


def only_the_second_failed(results: list[ItemResult]) -> ItemResult:
    assert [each.success for each in results] == [True, False, True], results
    assert results[1].error is not None
    assert results[1].output is None
    return results[1]


# What items see -----------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_a0_1_every_kind_of_value_arrives_unchanged_and_in_its_place(call: Call, language: str) -> None:
    found = outputs(call(language, ECHO[language], *ROOTS))
    expected = [{"seen": each} for each in ROOTS]
    if language == "r":  # a list forgets entries that are NULL only when they are assigned, not when it is made
        assert found[3] == {"seen": None}
    assert found == expected


@pytest.mark.parametrize("language", LANGUAGES)
def test_a0_2_one_item_fails_and_the_others_keep_order_and_ids(call: Call, language: str) -> None:
    items = [Item(id=name, data=data) for name, data in (("dup", "a"), ("dup", "bad"), ("", "b"), ("dup", "c"))]
    results = call(language, BOOM[language], *items)
    assert [each.id for each in results] == ["dup", "dup", "", "dup"]
    assert [each.success for each in results] == [True, False, True, True]
    assert results[1].error is not None
    assert "boom" in results[1].error.message
    assert results[1].reason is Reason.EXCEPTION
    assert [each.output for each in results] == ["a", None, "b", "c"]


def test_a0_3_the_sample_event_gives_its_documented_numbers(call: Call) -> None:
    results = call("python", MEAN, {"trace_1": [40, 51.72]}, {"trace_1": [38.86]})
    assert [each["chlorophyll"] for each in outputs(results)] == [45.86, 38.86]


@pytest.mark.parametrize("size", [1, 2])
def test_a0_5_outputs_of_megabytes_arrive(call: Call, size: int) -> None:
    results = call("python", "output = {'text': 'x' * (input * (1 << 20))}", size, size)
    assert [len(each["text"]) for each in outputs(results)] == [size * MIB] * 2


def test_a0_5_many_large_outputs_arrive(call: Call) -> None:
    results = call("python", "output = 'x' * 500_000", *range(25))
    assert sum(map(len, outputs(results))) == 25 * 500_000


@pytest.mark.parametrize("language", LANGUAGES)
def test_a0_6_a_batch_of_light_items_stays_within_its_time(call: Call, language: str, slowness: float) -> None:
    results = call(language, BOOM[language], *range(25), timeout_s=30 * slowness)
    assert outputs(results) == list(range(25))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a0_7_the_context_can_be_read_and_is_empty_without_one(call: Call, language: str) -> None:
    code = {"r": "output <- ctx"}.get(language, "output = ctx")
    context = {"up": {"answer": 42, "list": [1, {"deep": True}]}}
    with_one, without = outputs(call(language, code, Item(context=context), Item()))
    assert with_one == context
    assert without == {}


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python", "ctx['up']['answer'] = 1"),
        ("python", "ctx.update(up=1)"),
        ("python", "ctx['up']['list'].append(1)"),
        ("python", "del ctx['up']"),
        ("r", "ctx$up <- 1"),
        ("r", "ctx <- 1"),
        ("javascript", "'use strict'; ctx.up.answer = 1"),
        ("javascript", "'use strict'; ctx.up.list.push(1)"),
        ("javascript", "'use strict'; globalThis.ctx = 1"),
        ("node", "'use strict'; ctx.up.answer = 1"),
    ],
)
def test_a0_7_the_context_cannot_be_changed(call: Call, language: str, code: str) -> None:
    (result,) = call(language, code, Item(context={"up": {"answer": 42, "list": []}}))
    assert not result.success
    assert result.reason is Reason.EXCEPTION


def test_a_copy_of_the_context_can_be_changed(call: Call) -> None:
    code = (
        "import copy, json as text\nmine = copy.deepcopy(ctx)\nmine['up']['list'].append(1)\n"
        "output = [mine, text.loads(text.dumps(ctx))]"
    )
    (found,) = outputs(call("python", code, Item(context={"up": {"list": []}})))
    assert found == [{"up": {"list": [1]}}, {"up": {"list": []}}]


# Ways to answer -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "code", "expected"),
    [
        ("python", "", None),
        ("python", "# nothing", None),
        ("r", "", None),
        ("r", "# nothing", None),
        ("javascript", "// nothing", None),
        ("python", "return input + 1", 2),
        ("r", "return(input + 1)", 2),
        ("python", "async def main(each):\n    return each", 1),
        ("python", "output = 5\nimport sys\nsys.exit()", 5),
        ("r", "output <- 5\nquit()", 5),
        ("python", f"{SCALAR}output = Scalar()", 7),
        ("python", f"{SCALAR}output = {{'mean': [Scalar()]}}", {"mean": [7]}),
        ("python", "output = {3, 1}", [1, 3]),
        ("python", "output = [float('nan')]", [None]),
        ("r", "output <- c(NaN, 1)", [None, 1]),
        ("javascript", "output = [NaN]", [None]),
    ],
)
def test_what_a_program_answers_is_the_output(call: Call, language: str, code: str, expected: Any) -> None:
    assert outputs(call(language, code, 1)) == [expected]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("function", ["*", "double"])
def test_a_named_function_is_called_with_the_data(call: Call, language: str, function: str) -> None:
    code = {
        "python": "def double(n):\n    return 2 * n\ndef other(n):\n    return 0",
        "r": "double <- function(n) 2 * n\nother <- 1",
    }
    script = "const double = (n) => 2 * n; const other = () => 0;"
    assert outputs(call(language, code.get(language, script), 4, function=function)) == [8]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_named_function_can_take_the_data_as_its_arguments(call: Call, language: str) -> None:
    codes = {"python": "def f(a, b):\n    return a - b", "r": "f <- function(a, b) a - b"}
    good, bad = call(language, codes.get(language, "const f = (a, b) => a - b"), [5, 3], 5, function="f", spread=True)
    assert good.output == 2
    assert not bad.success


@pytest.mark.parametrize("language", RUNNERS)
def test_a_function_that_is_not_there_is_an_error_of_each_item(call: Call, language: str) -> None:
    results = call(language, "x = 1", 1, 2, function="nowhere")
    assert [each.success for each in results] == [False, False]
    assert {each.error and each.error.type for each in results} == {"FunctionNotFound"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_macros_have_a_ready_output_that_returned_values_are_merged_over(call: Call, language: str) -> None:
    script = "output.a = json; output.b = 1; if (json === 1) return { b: 2 }; if (json === 2) return 7;"
    code = {
        "python": "output['a'] = json\noutput['b'] = 1\n"
        "if json == 1:\n    return {'b': 2}\nif json == 2:\n    return 7",
        "r": "output$a <- json\noutput$b <- 1\nif (json == 1) return(list(b = 2))\nif (json == 2) return(7)",
    }.get(language, script)
    replaced = {"b": 2} if code == script else {"a": 1, "b": 2}
    assert outputs(call(language, code, 0, 1, 2, macros=True)) == [{"a": 0, "b": 1}, replaced, 7]
    assert outputs(call(language, "", 0, macros=True)) == [{}]


@pytest.mark.parametrize("language", LANGUAGES)
def test_macros_find_their_library(call: Call, language: str) -> None:
    code = {
        "python": "output['m'] = MathMEAN(json)\ninfo('said', output)",
        "r": "output$m <- MathMEAN(json)\ninfo('said', output)",
    }.get(language, "output.m = MathMEAN(json); info('said', output)")
    assert outputs(call(language, code, [1, 2, 6], macros=True)) == [{"m": 3, "messages": {"info": ["said"]}}]


def test_a_language_without_a_library_has_no_macros(call: Call) -> None:
    with pytest.raises(casemate.InvalidInput, match="macros"):
        call("bash", "", 1, macros=True)


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("language", "code"), [("python", "def f(:"), ("r", "f <- function( {")])
def test_a_source_that_does_not_compile_fails_each_item_with_the_same_word(
    call: Call, language: str, code: str
) -> None:
    results = call(language, code, 1, 2, 3)
    assert {(each.success, each.reason, each.error and each.error.type) for each in results} == {
        (False, Reason.VALIDATION, "SyntaxError")
    }


def test_a_program_can_go_as_deep_as_in_a_run_of_its_own(call: Call, engine: casemate.Engine) -> None:
    code = (
        "import sys\ndef deeper(n):\n    try:\n        return deeper(n + 1)\n"
        "    except RecursionError:\n        return n\noutput = [deeper(0), sys.getrecursionlimit()]"
    )
    assert outputs(call("python", code, 1)) == [casemate.run(code, engine=engine).output]


def test_the_traceback_names_the_lines_of_the_source_alone(call: Call) -> None:
    (result,) = call("python", "def f(x):\n    return 1 / x\n\noutput = f(input)", 0)
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("ZeroDivisionError", "division by zero")
    assert "line 4" in result.error.traceback
    assert "casemate" not in result.error.traceback


def test_what_r_says_of_an_error_has_the_calls_of_the_source_alone(call: Call) -> None:
    (result,) = call("r", "f <- function(x) stop('no ', x)\nf(input)", 3)
    assert result.error is not None
    assert result.error.traceback == 'Error in f(input) : no 3\n2: stop("no ", x)\n1: f(input)'


FAULTS: Final = {
    "python": {
        "set of objects": ("output = {object()}", Reason.VALIDATION),
        "circular": ("output = []\noutput.append(output)", Reason.VALIDATION),
        "no memory": ("bytearray(1 << 62)", Reason.MEMORY),
        "system exit": ("import sys\nsys.exit(3)", Reason.EXIT),
        "abrupt exit": ("import os\nos._exit(0)", Reason.EXIT),
        "own signal": ("import os\nos.kill(os.getpid(), 9)", Reason.SIGNAL),
        "crash": ("import ctypes\nctypes.string_at(0)", Reason.SIGNAL),
        "closed descriptors": ("import os\nos.closerange(0, 1024)", Reason.EXIT),
        "swallowed timeout": (
            "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
            Reason.TIMEOUT,
        ),
        "no object": ("input['sample']", Reason.EXCEPTION),
        "much output": ("while True: print('x' * 100_000)", Reason.OUTPUT),
        "large output": ("output = 'x' * (11 << 20)", Reason.VALIDATION),
        "poisoned frame": ("import os\nos.write(63, b'\\xff' * 100)", Reason.VALIDATION),
    },
    "r": {
        "environment": ("output <- new.env()", Reason.VALIDATION),
        "exit": ("quit(status = 3)", Reason.EXIT),
        "swallowed timeout": (
            "repeat tryCatch(repeat {}, error = function(e) 1, interrupt = function(e) 1)",
            Reason.TIMEOUT,
        ),
        "own signal": ("tools::pskill(Sys.getpid(), 9)", Reason.SIGNAL),
        "no object": ("input$sample$x", Reason.EXCEPTION),
        "much output": ("repeat cat(strrep('x', 1e6))", Reason.OUTPUT),
        "deep recursion": ("f <- function() f()\nf()", Reason.EXCEPTION),
    },
    "javascript": {
        "circular": ("const a = []; a.push(a); output = a", Reason.VALIDATION),
        "looping toJSON": ("output = { toJSON() { for (;;); } }", Reason.TIMEOUT),
        "endless promise": ("(function spin() { Promise.resolve().then(spin); })()", Reason.TIMEOUT),
        "loop": ("for (;;);", Reason.TIMEOUT),
        "no object": ("input.sample.x", Reason.EXCEPTION),
        "no memory": ("const a = []; for (;;) a.push(new Array(1e5).fill(1.5))", Reason.MEMORY),
    },
}
WHEN: Final = {
    "python": "if input == 'bad':\n{}",
    "r": "if (identical(input, 'bad')) {{\n{}\n}}",
    "javascript": "if (input === 'bad') {{\n{}\n}}",
}


@pytest.mark.parametrize(
    ("language", "fault"), [(language, fault) for language, faults in FAULTS.items() for fault in faults]
)
def test_a0_12_a_fault_costs_only_its_own_item(call: Call, language: str, fault: str) -> None:
    body, reason = FAULTS[language][fault]
    if language == "python":
        body = "\n".join(f"    {line}" for line in body.splitlines())
    elif language == "javascript":
        body = body.replace("output = ", "globalThis.output = ")
    limits = (
        {"timeout": "1s", "memory": "16Mi"}
        if language == "javascript"
        else {"timeout": "1s" if reason is Reason.TIMEOUT else "20s"}
    )
    results = call(language, WHEN[language].format(body), 1, "bad", 2, limits=limits)
    assert only_the_second_failed(results).reason is reason, results[1]


@pytest.mark.parametrize("language", RUNNERS)
def test_a0_12_state_is_not_seen_by_the_next_item(call: Call, language: str) -> None:
    code = {
        "python": "import math\noutput = [hasattr(math, 'leak'), 'leak' in globals(), abs(-1)]\n"
        "math.leak = leak = 1\nimport builtins\nbuiltins.abs = lambda _: 99",
        "r": "output <- c(exists('leak'), exists('T_leak'), sum(1, 1) == 2)\nleak <- 1\n"
        "assign('sum', function(...) 9, globalenv())\noptions(leak = 1)\nassign('T_leak', 1, .AutoloadEnv)",
    }[language]
    fresh = {"python": [False, False, 1], "r": [False, False, True]}[language]
    assert outputs(call(language, code, *range(4))) == [fresh] * 4


@pytest.mark.parametrize("language", RUNNERS)
def test_random_numbers_differ_from_item_to_item(call: Call, language: str) -> None:
    code = {
        "python": "import random, os, uuid, tempfile\nname = next(tempfile._get_candidate_names())\n"
        "output = [random.random(), os.urandom(4).hex(), str(uuid.uuid4()), str(uuid.uuid1()), name]",
        "r": "output <- list(runif(1), rnorm(1), basename(tempfile()))",
    }[language]
    columns = zip(*outputs(call(language, code, *range(5))), strict=True)
    assert all(len(set(column)) == 5 for column in columns)


def test_what_is_printed_is_kept_to_a_bound_and_the_rest_counted(call: Call) -> None:
    (result,) = call("python", "import sys\nprint('a' * 1_000_000)\nsys.stderr.write('err')\noutput = 1", 0)
    assert result.success
    assert result.stdout == "a" * casemate.limits.ITEM_KEPT_BYTES
    assert result.stderr == "err"
    assert result.truncated_bytes == 1_000_001 - casemate.limits.ITEM_KEPT_BYTES


def test_data_that_is_no_json_is_the_error_of_its_item(call: Call) -> None:
    results = call("python", "output = input", 1, float("nan"), 3)
    assert only_the_second_failed(results).reason is Reason.VALIDATION


# Calls --------------------------------------------------------------------------------------------


def test_a_call_without_items_has_no_results(call: Call) -> None:
    assert call("python", "output = 1") == []


def test_too_many_items_are_refused(engine: casemate.Engine) -> None:
    items = [Item()] * (casemate.limits.ITEMS_MAX + 1)
    with pytest.raises(casemate.InvalidInput, match="limit"):
        list(casemate.run_items(engine, Source(runtime="python", code=""), items))


def test_items_that_had_no_time_to_begin_have_failed_by_that(call: Call) -> None:
    results = call("python", "import time\ntime.sleep(30)", *range(12), timeout_s=0.5)
    assert {(each.success, each.reason) for each in results} == {(False, Reason.TIMEOUT)}


def test_items_of_one_call_run_at_the_same_time(call: Call) -> None:
    code = "import time\nbegan = time.time()\ntime.sleep(1)\noutput = [began, time.time()]"
    times = sorted(outputs(call("python", code, *range(4))))
    assert any(later[0] < earlier[1] for earlier, later in pairwise(times))


def test_a_shell_runs_each_item_in_a_sandbox_of_its_own(call: Call) -> None:
    code = 'echo x >> /tmp/seen; output="$(wc -l < /tmp/seen) $input"'
    assert outputs(call("bash", code, 1, 2)) == ["1 1", "1 2"]


def test_closing_the_iterator_ends_what_runs(warm: casemate.Engine) -> None:
    source = Source(runtime="python", code="if input:\n    while True: pass\noutput = 0")
    before = warm.runners.status().retired.get("stopped", 0)
    results = casemate.run_items(warm, source, [Item(data=0), Item(data=1)])
    assert next(iter(results))[0] == 0
    results.close()
    assert warm.runners.status().retired["stopped"] > before


def test_a_task_that_is_cancelled_ends_what_runs(warm: casemate.Engine) -> None:
    source = Source(runtime="python", code="if input:\n    while True: pass\noutput = 0")
    before = warm.runners.status().retired.get("stopped", 0)

    async def cancelled() -> None:
        seen = asyncio.Event()

        async def work() -> None:
            async for place, _ in casemate.arun_items(warm, source, [Item(data=0), Item(data=1)]):
                assert place == 0
                seen.set()

        task = asyncio.create_task(work())
        await seen.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert warm.runners.status().retired["stopped"] > before


def test_many_tasks_call_one_function_at_once(warm: casemate.Engine, generous: dict[str, Any]) -> None:
    source = Source(runtime="python", code="output = input * 2", limits=generous)

    async def one(number: int) -> Any:
        return [result.output async for _, result in casemate.arun_items(warm, source, [Item(data=number)])]

    async def every() -> list[Any]:
        return await asyncio.gather(*map(one, range(40)))

    assert asyncio.run(every()) == [[2 * number] for number in range(40)]


def test_a_runner_serves_the_next_call_of_its_tenant_and_no_other(
    warm: casemate.Engine, generous: dict[str, Any]
) -> None:
    source = Source(runtime="python", code="output = 'tenants'", limits=generous)
    for tenant in ("a", "a", "b"):
        assert [found.output for _, found in casemate.run_items(warm, source, [Item()], tenant=tenant)] == ["tenants"]
    own = [each for each in warm.runners.status().workers if each.tenant in {"a", "b"}]
    assert sorted((each.tenant, each.runs) for each in own) == [("a", 2), ("b", 1)]
    assert "runners" in {each.label for each in warm.pools()}


def test_no_runner_is_left_when_the_engine_rests(warm: casemate.Engine, slowness: float) -> None:
    list(casemate.run_items(warm, Source(runtime="python", code="output = 1"), [Item()]))
    assert warm.runners.status().workers
    assert left_running(warm, slowness) == []
    assert warm.runners.status().workers == ()


def test_a_call_while_the_engine_is_closed_ends_with_that_word() -> None:
    source = Source(runtime="python", code="if input:\n    while True: pass\noutput = 0")
    with casemate.Engine() as engine:
        results = casemate.run_items(engine, source, [Item(data=0), Item(data=1)])
        next(iter(results))
        engine.close()
        with pytest.raises(casemate.SandboxClosed):
            list(results)


def test_a_source_can_be_called_a_thousand_times(call: Call) -> None:
    assert outputs(call("python", "def main(n): return n + 1", *range(1000))) == list(range(1, 1001))


def test_an_item_whose_runner_was_lost_before_it_began_is_not_blamed(
    warm: casemate.Engine, generous: dict[str, Any]
) -> None:
    source = Source(runtime="python", code="output = 'lost'", limits=generous)
    list(casemate.run_items(warm, source, [Item()], tenant="lost"))
    inside = {pid: start_time(pid) for each in warm.backend._running() for pid in process_tree(each.pid)[1:]}
    for each in warm.backend._running():
        each.signal(0, signal.SIGKILL)
    deadline_s = time.monotonic() + ENDS_WITHIN_S  # the signals are on their way still
    while any(start_time(pid) == began for pid, began in inside.items() if began is not None):
        assert time.monotonic() < deadline_s
        threading.Event().wait(PAUSE_S)
    assert [found.output for _, found in casemate.run_items(warm, source, [Item()], tenant="lost")] == ["lost"]


def test_a_limit_that_leaves_no_room_for_the_interpreter_is_the_error_of_each_item(call: Call) -> None:
    results = call("python", "output = 1", 1, 2, limits={"memory": "4Mi"})
    assert {(each.success, each.error is None) for each in results} == {(False, False)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_arguments_have_to_be_an_array(call: Call, language: str) -> None:
    (result,) = call(language, "", {"a": 1}, function="f", spread=True)
    assert not result.success
    assert result.reason is Reason.VALIDATION
