"""The runtime javascript: what a program in an isolate has, how it ends, and which worker it gets."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.machine import left_running

import casemate
from casemate import InvalidInput, LayerMissing, Reason, limits
from casemate.limits import CODE_MAX_BYTES

if TYPE_CHECKING:
    from tests.integration.conftest import Run

Javascript = Callable[..., casemate.Result]
START_S = 60.0

GLOBALS = set(
    re.findall(
        r"\w+",
        """
        Object Function Array Number parseFloat parseInt Infinity NaN undefined Boolean String Symbol Date Promise
        RegExp Error AggregateError EvalError RangeError ReferenceError SyntaxError TypeError URIError globalThis JSON
        Math Intl ArrayBuffer Uint8Array Int8Array Uint16Array Int16Array Uint32Array Int32Array Float32Array
        Float64Array Uint8ClampedArray BigUint64Array BigInt64Array DataView Map BigInt Set WeakMap WeakSet Proxy
        Reflect FinalizationRegistry WeakRef decodeURI decodeURIComponent encodeURI encodeURIComponent escape unescape
        eval isFinite isNaN console btoa atob input output
        """,
    )
)
ALWAYS = {"globalThis", "undefined", "NaN", "Infinity", "input", "output"}
NEWER_GLOBALS = {"Iterator", "Float16Array"}
"""Those that only newer engines have."""


@pytest.fixture(scope="module")
def isolating() -> Iterator[casemate.Engine]:
    """An engine that keeps its workers, no more than are needed at once, and has run something before."""
    with pytest.MonkeyPatch.context() as patch, casemate.Engine() as opened:
        patch.setattr(limits, "WORKER_PREPARES_S", 0.0)
        assert casemate.run("1", "javascript", engine=opened, limits={"timeout": START_S}).ok
        opened.rest()
        yield opened


@pytest.fixture(autouse=True)
def no_worker_stays(isolating: casemate.Engine, slowness: float) -> Iterator[None]:
    yield
    assert left_running(isolating, slowness) == []


@pytest.fixture
def javascript(isolating: casemate.Engine, generous: dict[str, Any]) -> Javascript:
    def start(code: str, **options: Any) -> casemate.Result:
        wanted = {**generous, **options.pop("limits", {})}
        return casemate.run(code, "javascript", engine=isolating, limits=wanted, **options)

    return start


@pytest.fixture
def output(javascript: Javascript) -> Callable[..., Any]:
    """Return what runs a program that ends well, for its output."""

    def of(code: str, **options: Any) -> Any:
        result = javascript(code, **options)
        assert result.ok, (result.reason, result.error, result.stderr.text)
        return result.output

    return of


# What is there ------------------------------------------------------------------------------------


def test_s1_22_the_globals_are_those_of_the_list(output: Callable[..., Any]) -> None:
    found = set(output("return Object.getOwnPropertyNames(globalThis)", input=1))
    assert found - NEWER_GLOBALS == GLOBALS


@pytest.mark.parametrize("wanted", [[], ["Math", "JSON"], ["console"], sorted(GLOBALS - ALWAYS)])
def test_s1_37_a_program_finds_the_globals_that_are_allowed(output: Callable[..., Any], wanted: list[str]) -> None:
    code = (
        "const found = []; for (const name of input) if (name in globalThis) found[found.length] = name; return found"
    )
    assert set(output(code, input=sorted(GLOBALS | NEWER_GLOBALS), globals=wanted)) == {*wanted, *ALWAYS}


def test_s1_37_one_program_s_globals_are_not_the_next_one_s(output: Callable[..., Any]) -> None:
    assert output("return typeof Math", globals=["JSON"]) == "undefined"
    assert output("return typeof Math") == "object"


def test_s1_37_values_and_errors_cross_without_any_global(javascript: Javascript) -> None:
    dated = {"json": {"at": "2024-02-28T00:00:00.000Z"}, "meta": {"values": {"at": ["Date"]}}}
    found = javascript("return input", input=dated, values="rich", globals=[])
    assert found.output["meta"]["values"] == {"at": ["Date"]}
    assert javascript("const twice = (n) => n * 2", function="twice", input=21, globals=()).output == 42
    assert javascript("null.x", globals=[]).error.type == "TypeError"  # type: ignore[union-attr]
    assert javascript("await new Promise(() => {})", globals=["Promise"]).error.type == "UnsettledPromise"  # type: ignore[union-attr]


def test_s1_37_what_surrounds_a_program_keeps_every_global_that_it_uses() -> None:
    guest = Path(casemate.__file__).parent / "guest"
    own = re.findall(r"\w+", (guest / "isolate.js").read_text().split("const OWN = `const {")[1].split("}")[0])
    parts = "\n".join(
        (guest / name).read_text() for name in ("values.js", "rich.js", "inspect.js", "isolate_program.js")
    )
    plain = re.sub(r"//.*|'[^'\n]*'|`[^`]*`", "", parts)
    used = {name for name in GLOBALS - ALWAYS if re.search(rf"(?<![.\w]){name}(?:\.|\()", plain)}
    assert used - {"console", "btoa", "atob"} <= set(own)


@pytest.mark.parametrize("wanted", [["Maths"], "Math", 3, [1], ["input"], ["Math"] * 1000])
def test_s1_37_what_is_no_list_of_globals_is_refused(javascript: Javascript, wanted: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^globals"):
        javascript("1", globals=wanted)


def test_s1_37_whoever_misspells_a_global_is_told_what_was_meant(javascript: Javascript) -> None:
    with pytest.raises(InvalidInput) as told:
        javascript("1", globals=["JSON", "Mth"])
    assert (told.value.field, told.value.hint) == ("globals[1]", "did you mean Math?")
    with pytest.raises(InvalidInput) as told:
        javascript("1", globals=["process"])
    assert told.value.hint.startswith("known: ")


def test_s1_37_other_runtimes_refuse_a_list_of_globals(isolating: casemate.Engine) -> None:
    with pytest.raises(InvalidInput, match=r"^globals: "):
        casemate.run("1", "python", engine=isolating, globals=[])


@pytest.mark.parametrize(
    "name",
    re.findall(
        r"\w+",
        """
        process require module exports __dirname __filename global setTimeout setInterval setImmediate fetch Buffer
        WebAssembly SharedArrayBuffer Atomics queueMicrotask structuredClone XMLHttpRequest
        """,
    ),
)
def test_nothing_of_the_machine_has_a_name(output: Callable[..., Any], name: str) -> None:
    assert output(f"return typeof {name}") == "undefined"


def test_no_module_can_be_imported(javascript: Javascript) -> None:
    assert "Not supported" in javascript("await import('fs')").error.message  # type: ignore[union-attr]
    assert javascript("import fs from 'fs'").error.type == "SyntaxError"  # type: ignore[union-attr]


def test_the_console_writes_to_the_two_streams(javascript: Javascript) -> None:
    code = """
        console.log('%s is %d', 'six', 6, [1, 'a', { b: null }], new Map([[1, 2]]), new Set(), undefined, 5n);
        console.info(class A {}, function f() {}, Symbol('s'), new Date(0), /x/g, [undefined, , -0]);
        console.error('wrong'); console.warn('odd');
        console.group('in'); console.log('deeper'); console.groupEnd();
        console.assert(1 > 2, 'no'); console.count(); console.count();
        const own = {}; own.self = own; console.log(own, { a: { b: { c: { d: 1 } } } });
    """
    result = javascript(code)
    assert result.ok
    assert result.stdout.text.splitlines() == [
        "six is 6 [ 1, 'a', { b: null } ] Map(1) { 1 => 2 } Set(0) {} undefined 5n",
        "[class A] [Function: f] Symbol(s) 1970-01-01T00:00:00.000Z /x/g [ undefined, <1 empty item>, -0 ]",
        "in",
        "  deeper",
        "default: 1",
        "default: 2",
        "{ self: [Circular] } { a: { b: { c: [Object] } } }",
    ]
    assert result.stderr.text.splitlines() == ["wrong", "odd", "Assertion failed: no"]


def test_console_output_comes_live_and_stays_when_the_program_is_stopped(isolating: casemate.Engine) -> None:
    seen: list[bytes] = []
    result = casemate.run(
        "console.log('before'); for (;;);",
        "javascript",
        engine=isolating,
        limits={"timeout": "300ms"},
        on_output=lambda chunk: seen.append(chunk.data),
    )
    assert (result.reason, result.stdout.text) == (Reason.TIMEOUT, "before\n")
    assert b"".join(seen) == b"before\n"


@pytest.mark.parametrize("text", ["", "a", "ab", "abc", "abcd", "\xff\x00é"])
def test_btoa_and_atob_are_each_others_inverse(output: Callable[..., Any], text: str) -> None:
    import base64

    encoded = base64.b64encode(text.encode("latin-1")).decode()
    assert output("return [btoa(input), atob(btoa(input))]", input=text) == [encoded, text]


def test_btoa_and_atob_refuse_what_is_none(output: Callable[..., Any]) -> None:
    name = "(f) => { try { f() } catch (e) { return e.name } }"
    code = f"return [() => btoa('€'), () => atob('a'), () => atob('%%%%')].map({name})"
    assert output(code) == ["RangeError"] * 3


# Input and output ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("output = input.n + 1", 3),
        ("let output = input.n", 2),
        ("const main = (x) => x.n * 10", 20),
        ("function main(x) { return x.n }", 2),
        ("async function main(x) { await null; return x.n }", 2),
        ("const main = async ({ n }) => n", 2),
        ("return input.n", 2),
        ("if (input) return 'early'; output = 1", "early"),
        ("const x = await Promise.resolve(7); output = x", 7),
        ("return new Promise((done) => done(8))", 8),
        ("return await (async () => 9)()", 9),
        ("const await = 3; return await", 3),
        ("output = 1; function main(x) { return 2 }", 1),
        ("function main(a, b) { return 2 }", None),
        ("Promise.resolve().then(() => { output = 'late' })", "late"),
        ("output = 5; return", 5),
        ("'use strict'; output = 1; return (function () { return this === undefined })()", True),
        ("/* a */ // b\n'use strict'\nreturn (function () { return this === undefined })()", True),
        ("#!/usr/bin/env node\nreturn 1", 1),
        ("/" * 200 + "\nconst output = 4", 4),
        ("/**/" * 200 + "return 5", 5),
    ],
)
def test_the_output_is_what_the_rules_say(output: Callable[..., Any], code: str, expected: object) -> None:
    assert output(code, input={"n": 2}) == expected


def test_without_an_input_there_is_none_and_main_is_not_called(output: Callable[..., Any]) -> None:
    assert output("function main(x) { return 1 } output = typeof input") == "undefined"
    assert output("function main(x) { return 1 }") is None


VALUES = [
    ("[NaN, Infinity, -0, 1.5, 2n ** 70n]", [None, None, 0, 1.5, 2**70]),
    ("({ a: undefined, f() {}, [Symbol()]: 1, b: [undefined, () => 1] })", {"b": [None, None]}),
    ("[new Date(0), new Date(NaN)]", ["1970-01-01T00:00:00.000Z", None]),
    ("[new Map([[1, 2], [null, 3], ['k', 4]]), new Set([1, 2])]", [{"1": 2, "null": 3, "k": 4}, [1, 2]]),
    ("[new Uint8Array([1, 2]), new Float64Array([0.5])]", [[1, 2], [0.5]]),
    ("[new Uint8Array([1, 2, 3, 4]).buffer, new DataView(new Uint8Array([104, 105]).buffer)]", ["AQIDBA==", "aGk="]),
    (
        "[new Error('e'), new TypeError('t')]",
        [{"name": "Error", "message": "e"}, {"name": "TypeError", "message": "t"}],
    ),
    ("[Object(1), Object('s'), Object(true), Object(3n)]", [1, "s", True, 3]),
    ("'\\ud800 \\ud83d\\ude00 ä'", "\ufffd 😀 ä"),
    ("({ toJSON: () => ({ x: 1 }) })", {"x": 1}),
    ("new (class P { constructor() { this.x = 1 } })()", {"x": 1}),
    ("Array(3)", [None, None, None]),
]


@pytest.mark.parametrize("runtime", ["javascript", "node"])
@pytest.mark.parametrize(("code", "expected"), VALUES, ids=[code for code, _ in VALUES])
def test_values_are_converted_alike_with_and_without_an_isolate(
    run: Run, runtime: str, code: str, expected: object
) -> None:
    result = run(f"output = {code}", runtime)
    assert json.dumps(result.output) == json.dumps(expected), (result.reason, result.error)


NO_VALUES = {
    "output = Promise.resolve()": "output: a Promise cannot be written as JSON",
    "output = { r: [/x/] }": "output.r[0]: a RegExp cannot be written as JSON",
    "output = {}; output.own = output": "output.own: circular reference",
    "output = new Map([[1, 1], ['1', 2]])": 'output: two keys become "1"',
    "output = 10n ** 5000n": "output: an integer of more than 4300 digits",
    "output = new WeakMap()": "output: a WeakMap cannot be written as JSON",
    "output = (function* () {})()": "output: a generator cannot be written as JSON",
    "output = { toJSON() { throw new Error('mine') } }": "output: converting it failed with Error: mine",
    "let v = 1; for (let i = 0; i < 300; i++) v = [v]; output = v": "nested more than 200 deep",
}


@pytest.mark.parametrize("runtime", ["javascript", "node"])
@pytest.mark.parametrize("code", NO_VALUES)
def test_what_is_no_value_fails_the_validation(run: Run, runtime: str, code: str) -> None:
    result = run(code, runtime)
    assert result.reason is Reason.VALIDATION
    assert result.error is not None
    assert NO_VALUES[code] in result.error.message


def test_an_input_of_many_megabytes_goes_in_and_out(output: Callable[..., Any]) -> None:
    text = "ä" * 2_000_000
    assert output("return input", input=text, limits={"memory": "256Mi"}) == text


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind", "message", "traceback"),
    [
        ("\n\nnull.x", "TypeError", "Cannot read properties of null", "    at main.js:3:6"),
        ("  missing()", "ReferenceError", "missing is not defined", "    at main.js:1:3"),
        ("'use strict'; missing()", "ReferenceError", "missing", "    at main.js:1:15"),
        (
            "function f() {\n  throw new RangeError('r')\n}\nf()",
            "RangeError",
            "r",
            "    at f (main.js:2:9)\n    at main.js:4:1",
        ),
        ("function main(x) {\n  throw new Error('m')\n}", "Error", "m", "    at main (main.js:2:9)"),
        ("class Mine extends Error { name = 'Mine' }\nthrow new Mine('own')", "Mine", "own", "    at main.js:2:7"),
        ("await null;\nthrow new Error('later')", "Error", "later", "    at main.js:2:7"),
        ("Promise.reject(new TypeError('nobody'))", "TypeError", "nobody", "    at main.js:1:16"),
        ("let x = ;", "SyntaxError", "Unexpected token ';'", "    at main.js:1:9"),
        ("f(\n{ a: ", "SyntaxError", "Unexpected end of input", "    at main.js:2:"),
        ("await 1; let y = 1;\nlet y = 2", "SyntaxError", "Identifier 'y'", "    at main.js:2:5"),
    ],
)
def test_errors_have_the_lines_of_the_program(
    javascript: Javascript, code: str, kind: str, message: str, traceback: str
) -> None:
    result = javascript(code, input=1)
    assert (result.reason, result.exit_code) == (Reason.EXCEPTION, 1)
    assert result.error is not None
    assert result.error.type == kind
    assert message in result.error.message
    assert traceback in result.error.traceback
    assert not re.search(r"casemate|:-\d", result.error.traceback)
    assert result.stderr.text.startswith(f"Uncaught {kind}")


@pytest.mark.parametrize(
    ("thrown", "kind", "message"), [("5", "number", "5"), ("'t'", "string", "t"), ("null", "object", "null")]
)
@pytest.mark.parametrize("how", ["throw {}", "await null; throw {}", "Promise.reject({})"])
def test_what_is_thrown_need_not_be_an_error(
    javascript: Javascript, how: str, thrown: str, kind: str, message: str
) -> None:
    result = javascript(how.replace("{}", thrown))
    assert result.error is not None
    assert (result.reason, result.error.type, result.error.message) == (Reason.EXCEPTION, kind, message)


@pytest.mark.parametrize("runtime", ["javascript", "node"])
@pytest.mark.parametrize(
    ("thrown", "message"),
    [
        ("{ a: 1 }", '{"a":1}'),
        ("Object.create(null)", "{}"),
        ("{ toString() { return 'own' } }", "own"),
        ("{ r: /x/ }", "[object Object]"),
    ],
)
def test_a_thrown_object_is_told_by_its_contents(run: Run, runtime: str, thrown: str, message: str) -> None:
    result = run(f"throw {thrown}", runtime)
    assert result.error is not None
    assert (result.reason, result.error.type, result.error.message) == (Reason.EXCEPTION, "object", message)


@pytest.mark.parametrize("runtime", ["javascript", "node"])
@pytest.mark.parametrize("how", ["throw {}", "Promise.reject({})"])
@pytest.mark.parametrize(
    ("before", "error", "message"),
    [
        ("", r"new Error('half ' + '\u{1F600}'.slice(0, 1))", "half \ufffd"),
        ("", "new Error('x'.repeat(6e6))", "x" * limits.ERROR_TEXT_MAX_CHARS),
        ("Object.prototype.toJSON = () => undefined;", "new Error('boom')", "boom"),
        ("", "new Error(' ['.repeat(300000) + ':1:1')", " [" * (limits.ERROR_TEXT_MAX_CHARS // 2)),
        ("", "new Error(' [:1:1'.repeat(60000) + 'x')", None),
    ],
    ids=["half a pair", "many megabytes", "toJSON", "no place", "many places"],
)
def test_a_program_cannot_fail_so_that_it_looks_like_success(  # noqa: PLR0917 - one program in its parts
    run: Run, runtime: str, how: str, before: str, error: str, message: str | None
) -> None:
    result = run(before + how.replace("{}", error), runtime, limits={"memory": "128Mi"})
    assert (result.reason, result.exit_code, result.events) == (Reason.EXCEPTION, 1, ())
    assert result.error is not None
    assert result.error.type == "Error"
    assert message is None or result.error.message == message


@pytest.mark.parametrize(
    "code", ["BigInt.prototype.toString = () => '}'; output = 1n", "Array.prototype.find = null; output = 1"]
)
def test_a_program_that_spoils_its_own_reply_has_failed(javascript: Javascript, code: str) -> None:
    result = javascript(code)
    assert (result.ok, result.exit_code, result.output) == (False, 1, None)


@pytest.mark.parametrize("code", ["{}", "await null; {}"])
def test_a_program_that_rejects_with_a_mistake_in_syntax_has_run_once(javascript: Javascript, code: str) -> None:
    result = javascript(code.replace("{}", "console.log('ran'); Promise.reject(new SyntaxError('boo [a:1:1]'))"))
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("SyntaxError", "boo [a:1:1]")
    assert (result.reason, result.stdout.text) == (Reason.EXCEPTION, "ran\n")


def test_a_rejection_that_is_handled_in_time_is_none(output: Callable[..., Any]) -> None:
    assert output("const p = Promise.reject(1); await null; p.catch(() => { output = 'handled' })") == "handled"


@pytest.mark.parametrize("code", ["await new Promise(() => {})", "function main(x) { return new Promise(() => {}) }"])
def test_a_promise_that_nothing_can_settle_ends_the_program_at_once(javascript: Javascript, code: str) -> None:
    result = javascript(code, input=1)
    assert result.error is not None
    assert (result.reason, result.error.type) == (Reason.EXCEPTION, "UnsettledPromise")


def test_a_file_name_is_that_of_the_tracebacks(javascript: Javascript) -> None:
    result = javascript("x", filename="mine.js")
    assert result.error is not None
    assert "at mine.js:1:1" in result.error.traceback


# Limits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", ["for (;;);", "const f = () => { Promise.resolve().then(f) }; f()", "/^(a+)+$/.test('a'.repeat(40) + 'b')"]
)
def test_the_clock_ends_what_does_not_end(isolating: casemate.Engine, slowness: float, code: str) -> None:
    result = casemate.run(code, "javascript", engine=isolating)
    assert (result.reason, result.exit_code, result.signal) == (Reason.TIMEOUT, None, None)
    assert 0.5 <= result.usage.wall_s < 0.5 + 1.0 * slowness


def test_processor_time_is_counted_from_the_start_of_each_execution(javascript: Javascript) -> None:
    for _ in range(3):
        assert javascript("const end = Date.now() + 150; while (Date.now() < end);", limits={"cpu_time": "400ms"}).ok
    assert javascript("for (;;);", limits={"cpu_time": "200ms"}).reason is Reason.CPU


@pytest.mark.parametrize(
    "code",
    [
        "const all = []; for (;;) all.push(new Array(1000).fill(1))",
        "let s = 'x'; for (;;) s = (s + s).split('').join('')",
        "const m = new Map(); for (let i = 0; ; i++) m.set(i, {})",
    ],
)
def test_a_full_heap_ends_only_its_own_program(javascript: Javascript, code: str) -> None:
    result = javascript(code)
    assert (result.reason, result.exit_code, result.output) == (Reason.MEMORY, None, None)
    assert "memory-limit" in {event.kind for event in result.events}
    assert javascript("return 'well'").output == "well"


def test_buffers_outside_of_the_heap_count_too(javascript: Javascript) -> None:
    result = javascript("const all = []; for (;;) all.push(new ArrayBuffer(1e6))")
    assert result.reason in {Reason.EXCEPTION, Reason.MEMORY}
    assert result.error is None or result.error.message == "Array buffer allocation failed"


def test_the_heap_has_the_size_that_was_asked_for(javascript: Javascript) -> None:
    code = "const all = []; for (let i = 0; i < 30; i++) all.push(new Array(131072).fill(i)); return all.length"
    assert javascript(code, limits={"memory": "128Mi"}).output == 30
    assert javascript(code).reason is Reason.MEMORY


@pytest.mark.parametrize("code", ["for (;;) console.log('x'.repeat(1000))", "console.log('x'.repeat(9e6))"])
def test_output_beyond_the_limit_ends_the_program(javascript: Javascript, code: str) -> None:
    result = javascript(code, limits={"output": "1Mi", "memory": "64Mi"})
    assert result.reason is Reason.OUTPUT
    assert result.stdout.text.startswith("xxxx")


def test_deep_recursion_is_an_error_of_the_program(javascript: Javascript) -> None:
    assert javascript("function f() { f() } f()").error.type == "RangeError"  # type: ignore[union-attr]


def test_usage_tells_of_time_and_heap(javascript: Javascript) -> None:
    # Processor time is counted in ticks of 10 ms where there is no control group: the loop takes many of them.
    busy = "for (let n = 0; n < 1e8; n++) sum += Math.sqrt(n)"
    result = javascript(f"const end = Date.now() + 100; let sum = 0; while (Date.now() < end) {busy}")
    assert result.usage.wall_s >= 0.099
    assert result.usage.cpu_user_s + result.usage.cpu_system_s > 0
    assert 2**18 < (result.usage.memory_peak_bytes or 0) < 2**25


@pytest.mark.parametrize("memory", ["4Mi", "8Gi"])
def test_heaps_that_cannot_be_are_refused(javascript: Javascript, memory: str) -> None:
    with pytest.raises(InvalidInput, match=rf"limits\.memory: {memory} is outside 8Mi to 4Gi"):
        javascript("1", limits={"memory": memory})


@pytest.mark.parametrize(
    "option", [{"files": {"a": b""}}, {"collect": ["*"]}, {"args": ["a"]}, {"stdin": b"a"}, {"env": {"A": "1"}}]
)
def test_what_an_isolate_cannot_have_is_refused_with_the_way_out(
    javascript: Javascript, option: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput, match=rf"{next(iter(option))}: .* use the runtime node"):
        javascript("1", **option)


def test_options_that_ask_for_nothing_are_accepted(output: Callable[..., Any]) -> None:
    assert output("return 1", files=None, collect=(), args=[], stdin=None, env={}) == 1


def test_a_sandbox_that_stays_is_none_of_isolates(isolating: casemate.Engine) -> None:
    with pytest.raises(InvalidInput, match="use the runtime node"):
        casemate.Sandbox("javascript", engine=isolating)


def test_code_has_its_bound(javascript: Javascript) -> None:
    with pytest.raises(InvalidInput, match="code"):
        javascript(" " * (CODE_MAX_BYTES + 1))


def test_layers_can_be_required_of_the_worker(javascript: Javascript) -> None:
    result = javascript("return 1", require=["seccomp"])
    assert "seccomp" in result.isolation.layers
    absent = sorted(set(casemate.Layer) - set(result.isolation.layers))
    assert casemate.Layer.EGRESS in absent  # it stands between a run and its network, and here there is none
    for layer in set(absent) - {casemate.Layer.EGRESS}:
        with pytest.raises(LayerMissing):
            javascript("return 1", require=[layer])


# Workers ------------------------------------------------------------------------------------------


def test_the_next_execution_has_the_same_worker_and_another_isolate(
    isolating: casemate.Engine, javascript: Javascript
) -> None:
    javascript("globalThis.left = 1; Object.prototype.left = 2; Array.prototype.map = null")
    numbers = [worker.number for worker in isolating.isolates.status().workers]
    code = "return [typeof globalThis.left, ({}).left === undefined, typeof [].map]"
    assert javascript(code).output == ["undefined", True, "function"]
    assert [worker.number for worker in isolating.isolates.status().workers] == numbers


def test_a_worker_that_was_killed_for_its_output_serves_no_more(
    isolating: casemate.Engine, javascript: Javascript
) -> None:
    before = isolating.isolates.status().retired.get("stopped", 0)
    assert javascript("console.log('x'.repeat(2e6))", limits={"output": "1Mi"}).reason is Reason.OUTPUT
    assert isolating.isolates.status().retired["stopped"] == before + 1
    assert javascript("return 'well'").output == "well"


def test_failing_programs_leave_the_worker_in_its_place(isolating: casemate.Engine, javascript: Javascript) -> None:
    javascript("1")
    numbers = [worker.number for worker in isolating.isolates.status().workers]
    for code in ["throw 1", "let x = ;", "output = /x/", "const a = []; for (;;) a.push([a])"] * 2:
        assert not javascript(code).ok
    assert [worker.number for worker in isolating.isolates.status().workers] == numbers


def test_tenants_have_workers_of_their_own(isolating: casemate.Engine, javascript: Javascript) -> None:
    for tenant in ("a", "b", "a", "b"):
        assert javascript("return 1", tenant=tenant).ok
    found = isolating.isolates.status().workers
    assert sorted(worker.tenant for worker in found) == ["a", "b"]
    assert sorted(worker.runs for worker in found) == [2, 2]


def test_more_executions_than_workers_wait_for_their_turn(isolating: casemate.Engine, slowness: float) -> None:
    async def all_at_once() -> list[casemate.Result]:
        limits = {"timeout": 30 * slowness}
        runs = [casemate.arun(f"return {number}", "js", engine=isolating, limits=limits) for number in range(60)]
        return await asyncio.gather(*runs)

    assert [result.output for result in asyncio.run(all_at_once())] == list(range(60))
    status = isolating.isolates.status()
    assert len(status.workers) <= status.most
    assert (status.waiting, {worker.state for worker in status.workers}) == (0, {"idle"})


def test_cancelling_ends_the_execution(isolating: casemate.Engine) -> None:
    token = casemate.CancelToken()
    result = casemate.run(
        "console.log('on'); for (;;);",
        "javascript",
        engine=isolating,
        limits={"timeout": "30s"},
        cancel=token,
        on_output=lambda _: token.cancel(),
    )
    assert result.reason is Reason.CANCELLED


def test_leaving_a_stream_early_ends_the_worker(isolating: casemate.Engine, javascript: Javascript) -> None:
    with casemate.stream(
        "console.log(1); for (;;);", "javascript", engine=isolating, limits={"timeout": "30s"}
    ) as stream:
        assert next(stream).data == b"1\n"
    assert not [worker for worker in isolating.isolates.status().workers if worker.state == "busy"]
    assert javascript("return 1").output == 1


def test_an_engine_at_rest_has_no_workers(isolating: casemate.Engine, javascript: Javascript) -> None:
    assert javascript("return 1").ok
    isolating.rest()
    assert isolating.isolates.status().workers == ()


def test_a_closed_engine_takes_no_more() -> None:
    with casemate.Engine() as own:
        assert casemate.run("return 1", "javascript", engine=own, limits={"timeout": "30s"}).ok
        pool = own.isolates
    assert pool.status().workers == ()
    with pytest.raises(casemate.SandboxClosed):
        casemate.run("return 1", "javascript", engine=own)


@pytest.mark.parametrize("closed_in_s", [0.0, 0.03, 0.06, 0.1])
def test_closing_an_engine_tells_those_whose_workers_it_ends(closed_in_s: float) -> None:
    own = casemate.Engine()
    with ThreadPoolExecutor(6) as threads:
        endless = [threads.submit(_run_endless, own, str(number)) for number in range(6)]
        with pytest.raises(TimeoutError):
            endless[0].result(closed_in_s)
        own.close()
        told = [type(each.exception()) for each in endless]
    assert told == [casemate.SandboxClosed] * 6


def _run_endless(engine: casemate.Engine, tenant: str) -> casemate.Result:
    return casemate.run("for (;;);", "javascript", engine=engine, tenant=tenant, limits={"timeout": START_S})


FORKED = """
import os, casemate
with casemate.Engine() as engine:
    start = lambda: casemate.run("return 1", "javascript", engine=engine, limits={"timeout": "60s"})
    assert start().ok
    if (child := os.fork()) == 0:
        for use in (start, lambda: engine.isolates, engine.rest):
            try:
                use()
            except casemate.SandboxClosed as error:
                os.write(1, str(error).split(" (")[0].encode() + b"\\n")
        os._exit(0)
    os.waitpid(child, 0)
    print(*(f"{worker.state} {worker.runs}" for worker in engine.isolates.status().workers), start().output)
"""


def test_a_forked_child_neither_uses_nor_ends_the_workers_of_its_parent(slowness: float) -> None:
    command = [sys.executable, "-c", FORKED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120 * slowness, check=False)
    refused = "this engine belongs to the parent process"
    assert (done.stdout.splitlines(), done.stderr) == ([refused] * 3 + ["idle 1 1"], "")
