"""Functions by name, values richer than JSON, the syntax checked, and what an isolate's program finds around it."""

from __future__ import annotations

import asyncio
import base64
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import casemate
from casemate import InvalidInput, Reason, SyntaxReport, limits
from casemate.executions.answer import answer
from casemate.executions.patterns import SHIPPED
from casemate.executions.validate import find_problems, validation
from casemate.model.runtime import Ability, Runtime
from casemate.runtimes.builtin import BUILTIN

if TYPE_CHECKING:
    from tests.integration.conftest import Run

ALL = ["python", "node", "javascript", "r"]
SCRIPTS = ["node", "javascript"]
ADD = {
    "python": "def add(a, b=10):\n    return a + b",
    "node": "function add(a, b = 10) { return a + b }",
    "javascript": "const add = (a, b = 10) => a + b",
    "r": "add <- function(a, b = 10) a + b",
}


@pytest.fixture(params=SCRIPTS)
def script(request: pytest.FixtureRequest, run: Run) -> Run:
    """Run JavaScript, in either runtime."""
    return lambda code, **options: run(code, request.param, **options)


@pytest.fixture
def isolate(run: Run) -> Run:
    return lambda code, **options: run(code, "javascript", **options)


# Functions by name --------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ALL)
@pytest.mark.parametrize("name", ["add", "*"])
def test_a1_10_a_function_is_called_with_the_input_or_its_elements(run: Run, language: str, name: str) -> None:
    assert run(ADD[language], language, input=1, function=name).output == 11
    assert run(ADD[language], language, input=[1, 2], function=name, spread=True).output == 3


@pytest.mark.parametrize("language", SCRIPTS)
def test_a1_10_three_numbers_and_three_objects_are_spread(run: Run, language: str) -> None:
    code = "function sum(a, b, c) { return a + b + c } function of(a, b, c) { return a.n + b.n + c.n }"
    assert run(code, language, input=[1, 2, 3], function="sum", spread=True).output == 6
    assert run(code, language, input=[{"n": 1}, {"n": 2}, {"n": 3}], function="of", spread=True).output == 6


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python", "async def hello():\n    import asyncio\n    await asyncio.sleep(0)\n    return 'Hello'"),
        ("node", "const hello = async () => { await null; return 'Hello' }"),
        ("node", "export async function hello() { return 'Hello' }"),
        ("javascript", "async function hello() { await null; return 'Hello' }"),
    ],
)
def test_a1_16_an_async_function_is_awaited(run: Run, language: str, code: str) -> None:
    assert run(code, language, function="hello").output == "Hello"


@pytest.mark.parametrize("language", ALL)
@pytest.mark.parametrize("name", ["missing", "1x", "x; y", "class"])
def test_a1_20_a_name_that_no_function_has_is_an_error(run: Run, language: str, name: str) -> None:
    result = run(ADD[language], language, function=name)
    assert (result.reason, result.exit_code) == (Reason.EXCEPTION, 1)
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("FunctionNotFound", "Function name not found")


@pytest.mark.parametrize(
    ("language", "code"),
    [("python", "print(1)"), ("node", "console.log(1)"), ("javascript", "console.log(1)"), ("r", "print(1)")],
)
def test_a1_20_a_source_without_a_function_is_an_error(run: Run, language: str, code: str) -> None:
    result = run(code, language, function="*")
    assert result.error is not None
    assert (result.error.message, result.stdout.text) == ("Function name not found", "")


@pytest.mark.parametrize("language", ALL)
def test_the_variable_output_means_nothing_beside_a_function(run: Run, language: str) -> None:
    assert run(f"output = 5\n{ADD[language]}", language, input=1, function="add").output == 11


@pytest.mark.parametrize("language", ALL)
def test_a_top_level_return_comes_before_a_function(run: Run, language: str) -> None:
    leave = "return(7)" if language == "r" else "return 7"
    assert run(f"{ADD[language]}\n{leave}", language, input=1, function="add").output == 7


@pytest.mark.parametrize(("language", "code"), [("python", "def f():\n    1 / 0"), ("r", "f <- function() stop('no')")])
def test_an_error_in_a_function_has_no_frame_of_the_harness(run: Run, language: str, code: str) -> None:
    error = run(code, language, function="f").error
    assert error is not None
    assert "casemate" not in error.traceback


def test_a_node_program_with_a_return_can_be_called(run: Run) -> None:
    code = "const add = (a, b) => a + b; if (globalThis.never) return 1;"
    assert run(code, "node", input=[2, 3], function="add", spread=True).output == 5


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"function": "x" * 257}, "function"),
        ({"function": 3}, "function"),
        ({"function": "a\0b"}, "function"),
        ({"spread": True, "input": []}, "spread"),
        ({"spread": 1, "function": "f"}, "spread"),
        ({"spread": True, "function": "f", "input": {}}, "input"),
        ({"spread": True, "function": "f"}, "input"),
        ({"values": "poor"}, "values"),
        ({"values": "rich"}, "values"),
    ],
)
def test_options_that_make_no_sense_are_refused(run: Run, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        run("1", "python", **options)
    assert caught.value.field == field


def test_a_runtime_without_functions_refuses_one(run: Run) -> None:
    with pytest.raises(InvalidInput, match="function: "):
        run("echo", "bash", function="f")


# The acceptance cases of isolates -----------------------------------------------------------------


def test_a1_01_no_input(script: Run) -> None:
    assert script("function test() { return 'Hello' }", function="*").output == "Hello"


def test_a1_02_a_destructured_input(script: Run) -> None:
    assert script("function test({ input }) { return input }", function="*", input={"input": "Hello"}).output == "Hello"


def test_a1_03_no_return(script: Run) -> None:
    assert script("function test() {}", function="*").output is None
    undefined = {"json": None, "meta": {"values": ["undefined"], "v": 1}}
    assert script("function test() {}", function="*", values="rich").output == undefined


def wire(json: Any, *values: Any) -> dict[str, Any]:
    return {"json": json, "meta": {"values": [*values], "v": 1}} if values else {"json": json}


@pytest.mark.parametrize(
    "value",
    [
        wire("Hello 👋 'single' \"double\"\n"),
        wire(-4.2),
        wire(4.2),
        wire("NaN", "number"),
        wire("Infinity", "number"),
        wire("-Infinity", "number"),
        wire("-0", "number"),
        wire(True),
        wire(False),
        wire(None),
        wire(None, "undefined"),
        wire("123456789012345678901234567890", "bigint"),
        wire("2024-02-29T01:02:03.456Z", "Date"),
        wire("/a\\/b[/]/giu", "regexp"),
        wire({"name": "RangeError", "message": "far"}, "Error"),
        wire({"name": "Own", "message": "near"}, "Error"),
    ],
    ids=str,
)
def test_a1_04_what_goes_in_comes_out(script: Run, value: dict[str, Any]) -> None:
    assert script("function test(x) { return x }", function="*", input=value, values="rich").output == value


def test_a1_04_what_has_come_in_is_what_it_says(script: Run) -> None:
    code = """
    const test = (x) => [Number.isNaN(x[0]), Object.is(x[1], -0), typeof x[2], x[3] instanceof Date, x[4].test('AB'),
        x[5] instanceof RangeError && x[5].message, x[6] === undefined];
    """
    json = ["NaN", "-0", "1", "2024-01-01T00:00:00.000Z", "/ab/i", {"name": "RangeError", "message": "far"}, None]
    kinds = ["number", "number", "bigint", "Date", "regexp", "Error", "undefined"]
    given = {"json": json, "meta": {"values": {f"{index}": [kind] for index, kind in enumerate(kinds)}}}
    assert script(code, function="*", input=given, values="rich").output == {
        "json": [True, True, "bigint", True, True, "far", True]
    }


def test_a1_05_a_url_goes_in_and_comes_out_and_is_made_in_code(run: Run) -> None:
    given = wire("https://example.org/a?b=c", "URL")
    code = "function test(x) { return [x instanceof URL, new URL('b', x).href] }"
    assert run(code, "node", function="*", input=given, values="rich").output == wire([True, "https://example.org/b"])
    assert (
        run("(x) => x; function test(x) { return x }", "node", function="*", input=given, values="rich").output == given
    )


def test_a1_05_in_an_isolate_a_url_is_its_text(isolate: Run) -> None:
    given = wire("https://example.org/a?b=c", "URL")
    assert isolate("return [input, typeof URL]", input=given, values="rich").output == wire(
        [given["json"], "undefined"]
    )


def test_a1_06_bytes(script: Run) -> None:
    given = wire([1, 2, 255], ["typed-array", "Uint8Array"])
    assert script("return input", input=given, values="rich").output == given
    assert script("return input instanceof Uint8Array && input.length", input=given, values="rich").output == wire(3)
    floats = wire(["NaN", 0.5, "-0"], ["typed-array", "Float64Array"])
    assert script("return input", input=floats, values="rich").output == floats
    large = wire(["1", "-2"], ["typed-array", "BigInt64Array"])
    assert script("return input", input=large, values="rich").output == large


@pytest.mark.parametrize("code", ["Symbol('x')", "() => 1", "class {}"])
def test_a1_07_symbols_and_functions_become_undefined(script: Run, code: str) -> None:
    assert script(f"return [{code}]", values="rich").output == {
        "json": [None],
        "meta": {"values": {"0": ["undefined"]}, "v": 1},
    }
    assert script(f"return [{code}]").output == [None]


def test_a1_08_maps_and_sets(script: Run) -> None:
    for given in (
        wire([["a", 1], [2, {"b": "c"}]], "map"),
        wire([1, "2", {"c": [3]}], "set"),
        wire([[{"k": 1}, "2024-01-01T00:00:00.000Z"]], "map", {"0.1": ["Date"]}),
        wire(["5"], "set", {"0": ["bigint"]}),
    ):
        assert script("return input", input=given, values="rich").output == given
    code = "return [input instanceof Map, input.get(2).b]"
    assert script(code, input=wire([[2, {"b": "c"}]], "map"), values="rich").output == wire([True, "c"])


def test_a1_09_objects_and_arrays_with_their_identities(script: Run) -> None:
    plain: object
    for plain in ({}, [], {"a": {"b": [{"c": []}]}}, [[1, [2]], {}]):
        assert script("return input", input=wire(plain), values="rich").output == wire(plain)
    dated = {"json": {"a": ["2024-01-01T00:00:00.000Z"]}, "meta": {"values": {"a.0": ["Date"]}, "v": 1}}
    assert script("return input", input=dated, values="rich").output == dated


CIRCLES = """
const around = { name: 'a', 'b.c\\\\d': { x: 1 } }, list = [1];
around.self = around; list.push(list); around.list = list; around.twice = around['b.c\\\\d'];
around.set = new Set([around, list]); around.map = new Map([[around, list], [list, around]]);
"""


def test_a1_09_circles_survive_there_and_back(script: Run) -> None:
    out = script(f"{CIRCLES} return around", values="rich").output
    check = """
    const { self, list, twice, set, map } = input;
    return [self === input, list[1] === list, twice === input['b.c\\\\d'], set.has(input), set.has(list), set.size,
        map.get(input) === list, map.get(list) === input];
    """
    assert script(check, input=out, values="rich").output == wire([True, True, True, True, True, 2, True, True])
    assert script("return input", input=out, values="rich").output == out


def test_what_is_shared_is_written_once(script: Run) -> None:
    code = "let x = {}; for (let i = 0; i < 60; i += 1) x = { a: x, b: x }; return x"
    output = script(code, values="rich").output
    assert output["json"]["b"] is None
    assert output["meta"]["referentialEqualities"]["a"] == ["b"]


@pytest.mark.parametrize(
    "given",
    [
        {"json": [1], "meta": {"values": {"5": ["Date"]}}},
        {"json": {}, "meta": {"values": {"__proto__.x": ["Date"]}}},
        {"json": {}, "meta": {"values": {"constructor.prototype.x": ["undefined"]}}},
        {"json": 1, "meta": {"values": ["unheard of"]}},
        {"json": 1, "meta": {"values": ["map"]}},
        {"json": 1, "meta": {"values": [["typed-array", "Function"]]}},
        {"json": "x", "meta": {"values": ["bigint"]}},
        {"json": [], "meta": {"referentialEqualities": {"a": ["b"]}}},
        {"json": [], "meta": {"referentialEqualities": 7}},
        7,
        None,
    ],
    ids=str,
)
def test_an_input_of_another_form_is_an_error_of_the_run(script: Run, given: Any) -> None:
    result = script("return ({}).x === undefined && Object.keys(Object.prototype).length", input=given, values="rich")
    assert result.output in (None, wire(0))
    assert result.ok == (given in ({"json": [], "meta": {"referentialEqualities": 7}}, 7))


@pytest.mark.parametrize(
    "code", ["let a = []; for (let i = 0; i < 300; i += 1) a = [a]; return a", "return Array(600000).fill(0)"]
)
def test_richer_values_have_the_bounds_of_others(script: Run, code: str) -> None:
    result = script(code, values="rich", limits={"memory": "256Mi"})
    assert (result.reason, result.output) == (Reason.VALIDATION, None)


def test_a1_11_a_hundred_calls_in_a_row(isolate: Run) -> None:
    code = "function test(n) { return n * 2 }"
    assert [isolate(code, function="*", input=n).output for n in range(100)] == [2 * n for n in range(100)]


def test_a1_14_a_thrown_error(script: Run) -> None:
    result = script("function test() { throw new Error('Test error') }", function="*")
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("Error", "Test error")


@pytest.mark.parametrize("code", ["process.exit(1)", "return process.env.PATH", "process.env.X = 'y'"])
def test_a1_15_the_process_is_not_defined(isolate: Run, code: str) -> None:
    result = isolate(f"function test() {{ {code} }}", function="*")
    assert result.error is not None
    assert result.error.message == "process is not defined"


@pytest.mark.parametrize(
    "comment", ["/* function no() {} */", "// function no() {}", "/* a // b */", "let a = 1; /* inline */", "/* /* */"]
)
def test_a1_17_comments_are_not_code(script: Run, comment: str) -> None:
    assert script(f"{comment}\nfunction test() {{ return 'Hello' /* here */ }} // end", function="*").output == "Hello"


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("`a ${input}`", "a Hé中日🎉"),
        ("'single' + input", "singleHé中日🎉"),
        ("'a\\tb\\nc'", "a\tb\nc"),
        ("'中文 日本語 🎉 éü'", "中文 日本語 🎉 éü"),
        ("'éü'.normalize('NFD').replace(/[\\u0300-\\u036f]/g, '')", "eu"),
    ],
)
def test_a1_18_texts_of_all_kinds(script: Run, code: str, output: str) -> None:
    assert script(f"function test(input) {{ return {code} }}", function="*", input="Hé中日🎉").output == output


def test_a1_19_code_that_is_too_long() -> None:
    (problem,) = find_problems("x" * 8193, max_bytes=8192)
    assert problem.message == "Code exceeds size limit"


def test_a1_21_an_endless_loop(isolate: Run) -> None:
    result = isolate("function test() { for (;;); }", function="*", limits={"timeout": "200ms"})
    assert result.reason == Reason.TIMEOUT


def test_a1_22_an_endless_recursion(isolate: Run) -> None:
    result = isolate("function test() { return test() }", function="*")
    assert result.error is not None
    assert "stack" in result.error.message


@pytest.mark.parametrize("code", ["setTimeout(() => 1, 1)", "require('fs')", "fetch('http://127.0.0.1')"])
def test_a1_23_there_are_no_timers_modules_or_requests(isolate: Run, code: str) -> None:
    result = isolate(f"function test() {{ return {code} }}", function="*")
    assert result.error is not None
    assert result.error.message == f"{code.split('(', maxsplit=1)[0]} is not defined"


def test_a1_23_nothing_is_imported(isolate: Run) -> None:
    result = isolate("async function test() { return (await import('fs')).readFileSync }", function="*")
    assert result.reason == Reason.EXCEPTION


@pytest.mark.parametrize(
    ("change", "look"),
    [
        ("globalThis.left = 1", "typeof left"),
        ("Object.prototype.left = 1", "typeof ({}).left"),
        ("Array.prototype.left = 1", "typeof [].left"),
        ("Date.prototype.left = 1", "typeof new Date().left"),
        ("globalThis.left = () => 1", "typeof left"),
        ("globalThis.test = 1", "typeof globalThis.test"),
    ],
)
def test_a1_24_nothing_is_left_for_the_next_run(isolate: Run, change: str, look: str) -> None:
    assert isolate(f"var left = 1; function before() {{ {change} }}", function="*").ok
    assert isolate(f"const look = () => {look}", function="*").output == "undefined"
    assert isolate("const look = () => typeof before", function="*").output == "undefined"
    assert isolate("const look = () => delete globalThis.Object", function="*").output is True
    assert isolate("const look = () => typeof Object", function="*").output == "function"


def test_a1_25_constructors_lead_nowhere(isolate: Run) -> None:
    result = isolate("const test = () => this.constructor.constructor('return process')()", function="*")
    assert result.error is not None
    assert "process is not defined" in result.error.message or "constructor" in result.error.message
    result = isolate("const test = () => (() => 1).constructor('return process')()", function="*")
    assert result.error is not None
    assert result.error.message == "process is not defined"


@pytest.mark.parametrize(
    "code", ["throw new Error('x')", "const a = []; for (;;) a.push(new Array(1e5).fill(a.length))", "for (;;);"]
)
def test_a1_26_the_next_run_works_after_whatever_goes_wrong(isolate: Run, code: str) -> None:
    assert not isolate(code, limits={"timeout": "2s"}).ok
    assert isolate("return 1").output == 1


@pytest.mark.slow
def test_a1_27_overloads_and_runs_leave_no_memory_behind(slowness: float) -> None:
    greedy = "const a = []; for (;;) a.push(new Array(1e5).fill(a.length))"
    with casemate.Engine() as engine:

        def repeat(code: str, count: int) -> None:
            for _ in range(count):
                casemate.run(code, "javascript", engine=engine, limits={"timeout": 10 * slowness})

        repeat(greedy, 10)
        repeat("return 1", 40)
        before = resident_bytes()
        repeat(greedy, 50)
        repeat("return 1", 200)
        assert resident_bytes() < 1.2 * before


def resident_bytes() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# The syntax ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "code", "line"),
    [
        ("python", "x = 1\ny = (2", 2),
        ("python", "def f(:\n    pass", 1),
        ("python", "return await x", 1),
        ("node", "let x = 1;\nlet x = 2;", 2),
        ("node", "const a = 1;\n  }", 2),
        ("javascript", "let x = 1;\nlet x = 2;", 2),
        ("javascript", "const a = 1;\n  }", 2),
        ("r", "x <- 1\ny <- (2 + }", 2),
        ("bash", "echo 1\nif true; then\n", 3),
        ("bash", "echo 1\n)\n", 2),
    ],
)
def test_s1_13_bad_syntax_is_found_with_its_line(engine: casemate.Engine, language: str, code: str, line: int) -> None:
    report = casemate.check_syntax(code, language, engine=engine)
    assert not report.valid
    assert (report.line, bool(report.message)) == (line, True)
    assert report.error == f"Syntax error: {report.message}"


def test_s1_13_a_program_that_ends_what_is_around_it_is_none(engine: casemate.Engine) -> None:
    for code in ("})(); evil(); (function () {", "})(await 1); (async function () {"):
        assert not casemate.check_syntax(code, "javascript", engine=engine).valid


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python", "import sys\nif sys: return 3\nprint('no')\nopen('made', 'w')"),
        ("python", "\ufeffx = 1"),
        ("node", "return 3"),
        ("node", "import a from 'nowhere'; await 1; export const b = 2;"),
        ("node", "#!/usr/bin/env node\nthrow new Error()"),
        ("javascript", "return await 3"),
        ("javascript", "const await_ = 1; var await2; throw new Error()"),
        ("javascript", "for (;;);"),
        ("r", "stop('no')\nreturn(3)"),
        ("bash", "exit 3\nrm -rf /\n"),
        ("bash", ""),
    ],
)
def test_s1_13_good_syntax_is_valid_and_nothing_is_run(engine: casemate.Engine, language: str, code: str) -> None:
    assert casemate.check_syntax(code, language, engine=engine) == SyntaxReport(valid=True)


def test_the_syntax_can_be_checked_in_asyncio(engine: casemate.Engine) -> None:
    report = asyncio.run(casemate.acheck_syntax(engine, "x =", runtime="python", tenant="kitchen"))
    assert (report.valid, report.line) == (False, 1)


def test_s1_15_what_is_too_large_is_not_even_read(engine: casemate.Engine) -> None:
    with pytest.raises(InvalidInput, match="code: "):
        casemate.check_syntax("x" * (limits.CODE_MAX_BYTES + 1), engine=engine)


def test_a_parser_that_gives_up_has_found_no_valid_program(engine: casemate.Engine) -> None:
    for language, code in (("python", "-" * 500_000 + "1"), ("javascript", "[" * 500_000), ("r", "(" * 100_000)):
        assert not casemate.check_syntax(code, language, engine=engine).valid


DECLARED = Runtime(interpreter=("python3",), command=("{interpreter}", "{code}"), filename="main.own")


def test_a_runtime_says_itself_how_its_syntax_is_checked() -> None:
    wanting = casemate.Config(runtimes={"own": DECLARED})
    with casemate.Engine(wanting) as engine, pytest.raises(InvalidInput, match="without running"):
        casemate.check_syntax("1", "own", engine=engine)


def test_abilities_are_those_of_the_harness() -> None:
    assert {"function", "rich", "check"} <= {each.value for each in Ability}
    assert all(Ability.CHECK in each.abilities or each.syntax for each in BUILTIN.values())


# What is around a program -------------------------------------------------------------------------


def test_s1_09_a_script_a_function_and_a_transformation_run(isolate: Run) -> None:
    assert isolate("output = 1 + 2").output == 3
    assert isolate("function f(x) { return x + 1 }", function="f", input=2).output == 3
    assert isolate("return input.map((each) => each * 2)", input=[1, 2]).output == [2, 4]


@pytest.mark.parametrize("name", ["Math", "Date", "JSON", "Array", "Object", "String", "Number", "Boolean"])
def test_s1_39_the_globals_of_the_language_are_there(isolate: Run, name: str) -> None:
    assert isolate(f"return typeof {name}").output in {"object", "function"}


@pytest.mark.parametrize("text", ["", "a", "ab", "abc", "\x00\xff", "Hello, World!"])
def test_s1_40_texts_go_round_in_base64(isolate: Run, text: str) -> None:
    encoded = base64.b64encode(text.encode("latin-1")).decode()
    assert isolate("return [btoa(input), atob(btoa(input))]", input=text).output == [encoded, text]


def test_s1_38_the_console_is_captured(isolate: Run, capfd: pytest.CaptureFixture[str]) -> None:
    result = isolate("console.log('out'); console.error('err')")
    assert (result.stdout.text, result.stderr.text) == ("out\n", "err\n")
    assert capfd.readouterr() == ("", "")


def test_s1_41_input_is_set_for_each_execution(isolate: Run) -> None:
    assert [isolate("return input.n", input={"n": n}).output for n in (1, 2)] == [1, 2]
    assert isolate("return typeof input").output == "undefined"


@pytest.mark.parametrize("code", ["output = { a: 1 }", "var output = { a: 1 }", "globalThis.output = { a: 1 }"])
def test_s1_42_output_is_what_the_program_writes_there(isolate: Run, code: str) -> None:
    assert isolate(code).output == {"a": 1}


@pytest.mark.parametrize("name", ["process", "require", "module", "__dirname", "__filename", "global", "exports"])
def test_s1_43_nothing_of_node_is_there(isolate: Run, name: str) -> None:
    assert isolate(f"return typeof {name}").output == "undefined"


@pytest.mark.parametrize("name", SHIPPED["javascript"])
def test_what_is_forbidden_would_have_found_nothing(isolate: Run, name: str) -> None:
    word = name.strip("(.{*'\" ")
    found = isolate(f"return typeof {word}").output if word not in {"import", "eval", "Function"} else "undefined"
    assert found == "undefined"


# Limits, and what is told of how it ended ----------------------------------------------------------


def test_a1_12_the_next_call_finds_the_worker_and_idle_ones_end(slowness: float) -> None:
    with casemate.Engine() as engine:
        for _ in range(3):
            assert casemate.run("return 1", "javascript", engine=engine, limits={"timeout": 10 * slowness}).ok
        workers = engine.isolates.status()
        assert sum(each.runs for each in workers.workers) == 3
        assert len(workers.workers) <= 2
        engine.rest()
        assert engine.isolates.status().workers == ()


@pytest.mark.parametrize("language", ["cobol", "JAVASCRIPT"])
def test_a1_13_a_language_that_there_is_not_is_refused(run: Run, language: str) -> None:
    with pytest.raises(casemate.UnknownRuntime, match="unknown runtime"):
        run("1", language)


def test_s1_04_memory_is_limited_and_16_mib_by_default(isolate: Run, engine: casemate.Engine) -> None:
    assert engine.runtimes.get("javascript").limits["memory"] == "16Mi"
    greedy = "const a = []; for (;;) a.push(new Array(1e4).fill(a.length))"
    ended = isolate(greedy)
    assert (ended.reason, answer(ended).error) == (Reason.MEMORY, "Memory limit exceeded")
    assert isolate("return new Array(4e6).fill(1).length", limits={"memory": "128Mi"}).output == 4_000_000


def test_s1_05_time_is_limited_and_500_ms_by_default(engine: casemate.Engine) -> None:
    assert engine.runtimes.get("javascript").limits["timeout"] == "500ms"
    ended = casemate.run("for (;;);", "javascript", engine=engine)
    assert (ended.reason, answer(ended).error) == (Reason.TIMEOUT, "Execution timeout")
    assert 0.4 < ended.usage.wall_s < 5


@pytest.mark.parametrize("code", ["process.pid", "process.env.PATH", "globalThis.process.argv"])
def test_s1_06_there_is_no_process(isolate: Run, code: str) -> None:
    assert not isolate(f"return {code}").ok


@pytest.mark.parametrize("code", ["require('fs').readFileSync('/etc/passwd')", "(await import('fs')).readdirSync('/')"])
def test_s1_07_there_are_no_files(isolate: Run, code: str) -> None:
    assert not isolate(f"return {code}").ok


@pytest.mark.parametrize("code", ["fetch('http://127.0.0.1/')", "new WebSocket('ws://x')", "new XMLHttpRequest()"])
def test_s1_08_there_is_no_network(isolate: Run, code: str) -> None:
    error = isolate(f"return {code}").error
    assert error is not None
    assert error.message.endswith("is not defined")


@pytest.mark.parametrize("limits", [{"memory": "4Mi"}, {"timeout": 0}, {"cpu": 0}, {"memory": "8Gi"}])
def test_s1_37_limits_are_checked(isolate: Run, limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"limits\."):
        isolate("1", limits=limits)


def test_s1_37_limits_are_bytes_seconds_and_shares(isolate: Run) -> None:
    assert isolate("return 1", limits={"memory": 32 * limits.MIB, "timeout": 5.0, "cpu": 0.5}).output == 1


def test_s1_46_a_timeout_ends_the_worker(slowness: float) -> None:
    with casemate.Engine() as engine:
        assert casemate.run("return 1", "javascript", engine=engine, limits={"timeout": 10 * slowness}).ok
        ended = casemate.run("for (;;);", "javascript", engine=engine)
        assert answer(ended).error == "Execution timeout"
        assert engine.isolates.status().retired["stopped"] == 1


def test_s1_47_limits_of_a_run_come_before_those_of_the_runtime(isolate: Run) -> None:
    assert (
        isolate("for (;;);", limits={"timeout": "100ms"}).usage.wall_s
        < isolate("for (;;);", limits={"timeout": "600ms"}).usage.wall_s
    )


@pytest.mark.parametrize(
    "code", ["const a = {}; a.a = a; return a", "return new WeakMap()", "return function* () {}()"]
)
def test_s1_48_an_output_that_cannot_be_written_is_refused(isolate: Run, code: str) -> None:
    ended = isolate(code)
    assert (ended.reason, answer(ended).error) == (Reason.VALIDATION, "Invalid output format")


def test_s1_49_a_success_has_its_output_time_and_memory(isolate: Run) -> None:
    document = answer(isolate("return [1]")).document()
    assert list(document) == ["success", "output", "executionTime", "memoryUsed"]
    assert (document["success"], document["output"]) == (True, [1])
    assert 0 < document["executionTime"] < 30_000
    assert 100_000 < document["memoryUsed"] < 64 * limits.MIB


@pytest.mark.parametrize("with_stack", [False, True])
def test_s1_50_a_failure_has_a_stack_only_where_that_is_wanted(isolate: Run, *, with_stack: bool) -> None:
    document = answer(isolate("throw new TypeError('odd')"), with_stack=with_stack).document()
    assert (document["success"], document["error"]) == (False, "odd")
    assert ("stack" in document) is with_stack
    assert not with_stack or document["stack"].startswith("TypeError: odd\n    at main.js:1:7")


def test_s1_44_what_is_refused_is_told_in_one_text() -> None:
    assert validation(find_problems("eval(", ["eval("])).error == "Forbidden pattern: eval("


@pytest.mark.parametrize(
    ("code", "language", "text"),
    [
        ("exit 3", "bash", "Worker exited with code 3"),
        ("kill -9 $$", "bash", "Worker exited with signal 9"),
        ("raise ValueError", "python", "ValueError"),
    ],
)
def test_an_end_without_words_has_a_text_too(run: Run, code: str, language: str, text: str) -> None:
    assert answer(run(code, language)).error == text


def test_s1_64_records_are_mapped(isolate: Run) -> None:
    code = """
    return input.map(({ id, name, price, quantity }) => ({ id, name: name.toUpperCase(), total: price * quantity }));
    """
    items = [{"id": 1, "name": "a", "price": 2.5, "quantity": 2}, {"id": 2, "name": "b", "price": 1.5, "quantity": 3}]
    assert isolate(code, input=items).output == [
        {"id": 1, "name": "A", "total": 5},
        {"id": 2, "name": "B", "total": 4.5},
    ]


def test_s1_65_a_record_is_validated(isolate: Run) -> None:
    code = """
    const errors = [];
    if (!input.email) errors.push('email is missing');
    if (input.age < 18) errors.push('too young');
    output = { valid: errors.length === 0, errors };
    """
    assert isolate(code, input={"age": 17}).output == {"valid": False, "errors": ["email is missing", "too young"]}


def test_s1_66_an_expression_is_computed(isolate: Run) -> None:
    assert (
        isolate("return Math.sqrt(input.x ** 2 + input.y ** 2 + input.z ** 2)", input={"x": 1, "y": 2, "z": 2}).output
        == 3
    )
