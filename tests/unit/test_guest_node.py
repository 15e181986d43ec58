"""The harness of JavaScript: programs behave as under `node FILE`, and their output arrives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from tests.unit.guests import NO_INPUT, Ended, as_doubles, json_values, run

from casemate import limits


@pytest.fixture
def node(tmp_path: Path) -> Any:
    def start(code: str, value: Any = NO_INPUT, **more: Any) -> Ended:
        return run("node", code, value, cwd=tmp_path, **more)

    return start


# Output -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("const output = { a: [1, 2.5, null, true, 'x'] };", {"a": [1, 2.5, None, True, "x"]}),
        ("let output; output = 1", 1),
        ("var output = null", None),
        ("output = 3", 3),
        ("'use strict'; output = 3", 3),
        ("globalThis.output = 4", 4),
        ("return 5", 5),
        ("return null", None),
        ("if (true) { return [1] }\nthrow new Error()", [1]),
        ("const output = 1; return 2", 2),
        ("const output = 1; if (output) return; throw new Error()", 1),
        ("let output = { a: 1 }; process.exit(3)", {"a": 1}),
        ("output = { b: 1 }; process.exit(3)", {"b": 1}),
        ("setTimeout(() => { output = 7 }, 5)", 7),
        ("let output = 1; Promise.resolve().then(() => { output = 2 })", 2),
        ("return Promise.resolve(8)", 8),
        ("#!/usr/bin/env node\nlet output = 1; if (output) return;", 1),
        (
            "// comment\n'use strict'\nconst output = (function () { return this })() === undefined; process.exit()",
            True,
        ),
        ("import os from 'os'; output = typeof os.cpus", "function"),
        ("export const output = await Promise.resolve(6)", 6),
        ("const output = typeof import.meta.url", "string"),
    ],
)
def test_the_output_is_the_return_or_the_variable(node: Any, code: str, output: Any) -> None:
    ended = node(code)
    assert (ended.output, ended.stdout, ended.stderr) == (output, "", "")


@pytest.mark.parametrize(
    "code", ["", "1", "return", "return undefined", "let output", "output = undefined", "function main(x) { return x }"]
)
def test_without_either_there_is_none(node: Any, code: str) -> None:
    assert node(code).message == {"kind": "none"}


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("function main(value) { return value }", [1]),
        ("const main = (value, more = 2, ...rest) => more", 2),
        ("async function main(value) { await null; return value }", [1]),
        ("const main = ({ length }) => length", 1),
        ("function main(value) { return value }\nlet output = 'first'", "first"),
        ("if (input) return;\nfunction main(value) { return value }", [1]),
        ("if (input) return 'returned';\nfunction main(value) { return value }", "returned"),
        ("import 'fs'; export function main(value) { return value }", [1]),
        ("export default async function main(value) { return value }", [1]),
    ],
)
def test_main_with_one_required_parameter_is_called_with_the_input(node: Any, code: str, output: Any) -> None:
    assert node(code, [1]).output == output


@pytest.mark.parametrize(
    "code", ["function main() {}", "const main = (a, b) => 1", "const main = (...all) => 1", "const main = 5"]
)
def test_any_other_main_is_left_alone(node: Any, code: str) -> None:
    assert node(code, [1]).message == {"kind": "none"}


def test_the_input_is_there_only_if_there_is_one(node: Any) -> None:
    assert node("output = typeof input").output == "undefined"
    assert node("output = [input, globalThis.input]", None).output == [None, None]
    assert node("const input = 3; output = input", 1).output == 3


# Ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "exit_code"), [("process.exit(3)", 3), ("process.exitCode = 5", 5), ("await new Promise(() => {})", 13)]
)
def test_exits_are_those_of_the_program(node: Any, code: str, exit_code: int) -> None:
    ended = node(code)
    assert (ended.exit_code, ended.message) == (exit_code, {"kind": "none"})


@pytest.mark.parametrize(("code", "exit_code"), [("process.kill(process.pid, 9)", -9), ("process.abort()", -6)])
def test_who_ends_at_once_sends_no_reply(node: Any, code: str, exit_code: int) -> None:
    ended = node(code)
    assert (ended.exit_code, ended.reply) == (exit_code, b"")


def test_an_uncaught_error_is_printed_as_ever_and_reported(node: Any, tmp_path: Path) -> None:
    ended = node("function f() {\n  throw new TypeError('boom');\n}\nf();\n")
    assert ended.exit_code == 1
    assert ended.stderr.startswith(f"{tmp_path}/main.js:2\n  throw new TypeError('boom');\n  ^\n\nTypeError: boom\n")
    assert "casemate" not in ended.stderr
    assert (ended.error["type"], ended.error["message"]) == ("TypeError", "boom")
    assert ended.error["traceback"].startswith(f"TypeError: boom\n    at f ({tmp_path}/main.js:2:9)\n")


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        ("throw 'text'", "string", "text"),
        ("throw { code: 1 }", "object", '{"code":1}'),
        ("throw undefined", "undefined", "undefined"),
        ("Promise.reject(new RangeError('later'))", "RangeError", "later"),
        ("setTimeout(() => { throw new Error('later') })", "Error", "later"),
        ("class Mine extends Error { name = 'Mine' }; throw new Mine('own')", "Mine", "own"),
        ("throw new Error('\\ud800')", "Error", "\ufffd"),
        ("throw new Error('y'.repeat(100000))", "Error", "y" * 1000),
        ("throw { get name() { throw 1 }, toString() { throw 2 } }", "object", ""),
        ("function main(x) { throw new Error('in main') }", "Error", "in main"),
        ("async function main(x) { throw new Error('in main') }", "Error", "in main"),
        ("return Promise.reject(new Error('returned'))", "Error", "returned"),
        ("import 'fs'; throw new Error('in a module')", "Error", "in a module"),
    ],
)
def test_an_error_is_told_by_name_and_message(node: Any, code: str, name: str, message: str) -> None:
    ended = node(code, 1)
    assert (ended.exit_code, ended.message["kind"]) == (1, "exception")
    assert ended.error["type"] == name
    assert ended.error["message"].startswith(message)
    assert all(len(text) <= limits.ERROR_TEXT_MAX_CHARS for text in ended.error.values())


@pytest.mark.parametrize("code", ["function f( {", "let a; let a;", "import x from", "return 1 +", "const x = `"])
def test_what_is_no_program_is_shown_as_its_author_knows_it(node: Any, code: str) -> None:
    ended = node(code)
    assert (ended.exit_code, ended.error["type"]) == (1, "SyntaxError")
    assert code in ended.stderr
    assert "casemate" not in ended.stderr


def test_an_error_that_the_program_handles_is_none(node: Any) -> None:
    ended = node(
        "process.on('uncaughtException', (e) => { output = e.message }); setTimeout(() => { throw new Error('x') })"
    )
    assert (ended.exit_code, ended.output) == (0, "x")


# The channel --------------------------------------------------------------------------------------


def test_what_looks_like_a_reply_on_the_streams_changes_nothing(node: Any) -> None:
    forged = json.dumps({"kind": "value", "output": "forged"})
    ended = node(
        f"const text = {json.dumps(forged)}; const head = Buffer.from([0, 0, 0, text.length]);\n"
        "for (const s of [process.stdout, process.stderr]) { s.write(head); s.write(text) }\noutput = 1"
    )
    assert ended.output == 1
    assert forged in ended.stdout
    assert forged in ended.stderr


def test_the_channel_is_not_inherited(node: Any) -> None:
    ended = node(
        "const { spawnSync, fork } = require('child_process');\n"
        "const child = spawnSync('ls', ['/proc/self/fd'], { stdio: ['ignore', 'pipe', 'inherit'] });\n"
        "output = child.stdout.toString().trim().split('\\n')"
    )
    assert ended.output == ["0", "1", "2", "3"]


def test_workers_and_children_of_the_program_are_not_the_program(node: Any) -> None:
    ended = node(
        "const { Worker, isMainThread, parentPort } = require('worker_threads');\n"
        "const { fork } = require('child_process');\n"
        "if (process.argv[2] === 'child') process.send('from the child');\n"
        "else if (!isMainThread) parentPort.postMessage('from the worker');\n"
        "else {\n  output = [];\n  new Worker(__filename).on('message', (text) => output.push(text));\n"
        "  fork(__filename, ['child']).on('message', (text) => output.push(text));\n}"
    )
    assert sorted(ended.output) == ["from the child", "from the worker"]


def test_a_program_that_closes_the_channel_ends_as_ever(node: Any) -> None:
    ended = node("output = 1; require('fs').closeSync(4); process.exit(7)")
    assert (ended.exit_code, ended.reply) == (7, b"")


# The world of the program -------------------------------------------------------------------------


def test_the_interpreter_is_set_up_as_ever(node: Any, tmp_path: Path) -> None:
    ended = node(
        "output = [process.argv.slice(1), process.execArgv, require.main === module, __filename, __dirname,"
        " Object.keys(require.cache), module.id, module.paths[0], typeof require('vm').SourceTextModule,"
        " process.mainModule === module, Object.keys(globalThis).includes('output')]",
        args=("a", "b c"),
    )
    main = f"{tmp_path}/main.js"
    expected = [[main, "a", "b c"], [], True, main, str(tmp_path), [main], ".", f"{tmp_path}/node_modules", "undefined"]
    assert ended.output == [*expected, True, False]


@pytest.mark.parametrize("filename", ["main.js", "tool.cjs", "no_ending"])
def test_files_beside_the_program_can_be_required(node: Any, tmp_path: Path, filename: str) -> None:
    (tmp_path / "beside.js").write_text("exports.x = 42;\n")
    assert node("output = require('./beside').x", filename=filename).output == 42


@pytest.mark.parametrize("kind", ["by its syntax", "by its name", "by the package"])
def test_modules_can_be_programs(node: Any, tmp_path: Path, kind: str) -> None:
    (tmp_path / "beside.mjs").write_text("export const x = 42;\n")
    code = "import { x } from './beside.mjs';\nconst output = [x, import.meta.url.split('/').pop()];\n"
    if kind == "by the package":
        (tmp_path / "package.json").write_text('{"type": "module"}')
        code = "const output = [(await import('./beside.mjs')).x, import.meta.url.split('/').pop()];\n"
    filename = "main.mjs" if kind == "by its name" else "main.js"
    assert node(code, filename=filename).output == [42, filename]


def test_the_program_is_a_file_while_it_runs(node: Any, tmp_path: Path) -> None:
    ended = node("output = require('fs').readFileSync(__filename, 'utf8').length; process.exit(0)")
    assert ended.output == 79
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_that_name_is_left_alone(node: Any, tmp_path: Path) -> None:
    (tmp_path / "main.js").write_text("theirs")
    assert node("output = require('fs').readFileSync('main.js', 'utf8')").output == "theirs"
    assert (tmp_path / "main.js").read_text() == "theirs"


def test_stdin_is_the_program_s(node: Any) -> None:
    assert node("output = require('fs').readFileSync(0, 'utf8')", stdin="typed").output == "typed"


# Values -------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=25)
@given(json_values())
def test_any_json_value_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    ended = run("node", "output = input", value, cwd=tmp_path_factory.getbasetemp())
    assert as_doubles(ended.output) == as_doubles(value)


def test_ten_mebibytes_go_both_ways(node: Any) -> None:
    text = "é" * (5 * 1024 * 1024 - 100)
    assert node("output = input", text).output == text
    assert "more than the 10485760 bytes" in node("output = input + 'x'.repeat(300)", text).error["message"]


@pytest.mark.parametrize(
    ("expression", "output"),
    [
        ("[NaN, Infinity, -Infinity, -0, 1e21]", [None, None, None, 0, 1e21]),
        ("[undefined, () => 1, Symbol()]", [None, None, None]),
        ("{ a: undefined, b() {}, c: Symbol(), d: 1, [Symbol()]: 2 }", {"d": 1}),
        ("2n ** 70n", 2**70),
        ("[new Number(1), new String('s'), new Boolean(false), Object(1n)]", [1, "s", False, 1]),
        ("new Date(0)", "1970-01-01T00:00:00.000Z"),
        ("new Date(NaN)", None),
        ("new Map([['a', 1], [2, new Map()], [null, 3], [true, undefined]])", {"a": 1, "2": {}, "null": 3}),
        ("new Set([1, [2]])", [1, [2]]),
        ("[new Uint8Array([1, 2]), new Float64Array([NaN]), new BigInt64Array([3n])]", [[1, 2], [None], [3]]),
        (
            "[Buffer.from('abc'), new Uint8Array([97]).buffer, new DataView(new ArrayBuffer(1))]",
            ["YWJj", "YQ==", "AA=="],
        ),
        ("new TypeError('t')", {"name": "TypeError", "message": "t"}),
        ("new URL('http://a/b')", "http://a/b"),
        ("{ toJSON() { return { a: [this.b] } }, b: 1 }", {"a": [1]}),
        ("[{ toJSON() { return undefined } }]", [None]),
        ("new (class A { x = 1; #y = 2; get z() { return 3 } })()", {"x": 1}),
        ("Object.create({ inherited: 1 }, { own: { value: 2, enumerable: true }, hidden: { value: 3 } })", {"own": 2}),
        ("[, 1]", [None, 1]),
        ("'\\ud800 and \\udc00 and \\ud83d\\ude00'", "\ufffd and \ufffd and \U0001f600"),
        ("{ ['\\udc00']: 1, __proto__: null }", {"\ufffd": 1}),
        ("new Proxy([1], {})", [1]),
    ],
)
def test_what_json_does_not_know_is_converted(node: Any, expression: str, output: Any) -> None:
    assert node(f"output = ({expression})").output == output


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("output = () => 1", "output: a function cannot be written as JSON"),
        ("output = Symbol()", "output: a symbol cannot be written as JSON"),
        ("output = { a: [Promise.resolve()] }", "output.a[0]: a Promise cannot be written as JSON"),
        ("output = /x/", "output: a RegExp cannot be written as JSON"),
        ("output = (function* () {})()", "output: a generator cannot be written as JSON"),
        ("const a = []; a.push({ a }); output = { 'b c': a }", 'output["b c"][0].a: circular reference'),
        ("output = new Map([[{}, 1]])", "output: a key of type object cannot be a name"),
        ("output = { x: new Map([[1, 'a'], ['1', 'b']]) }", 'output.x: two keys become "1"'),
        ("output = 10n ** 5000n", "output: an integer of more than 4300 digits"),
        ("let a = []; for (let i = 0; i < 300; i++) a = [a]; output = a", "nested more than 200 deep"),
        ("output = { toJSON() { throw new Error('no') } }", "output: converting it failed with Error: no"),
        ("output = { get a() { throw 'no' } }", "output: converting it failed with string: no"),
        ("const f = () => ({ a: { toJSON: f } }); output = { toJSON: f }", "nested more than 200 deep"),
        ("output = new Array(2 ** 32 - 1)", "more than the 10485760 bytes"),
    ],
)
def test_what_cannot_be_written_is_named_with_its_place(node: Any, code: str, message: str) -> None:
    ended = node(code)
    assert (ended.exit_code, ended.message["kind"], ended.error["type"]) == (0, "invalid", "InvalidOutput")
    assert message in ended.error["message"]


def test_a_program_may_spoil_what_everybody_uses(node: Any) -> None:
    assert node("JSON.stringify = () => 'x'; JSON.parse = null; output = { a: 'b' }").output == {"a": "b"}
