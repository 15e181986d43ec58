"""What is recorded of programs where that is asked for, and that they do not notice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import casemate
from casemate import limits
from casemate.errors import InvalidInput
from casemate.model.debug import Debug, DebugRecord

if TYPE_CHECKING:
    from tests.integration.conftest import Run

EVERYTHING = {"console": True, "stack": True, "profile": True, "steps": True}
ALL_OF = {
    "python": EVERYTHING,
    "javascript": EVERYTHING,
    "node": {"console": True, "stack": True, "profile": True},
}
RUNTIMES = tuple(ALL_OF)
PRINTING = {
    "python": "import sys\nprint('one', 1)\nprint('two', file=sys.stderr)\nprint('three', end='')",
    "javascript": "console.log('one', 1);\nconsole.error('two');\nconsole.log('three')",
    "node": "console.log('one', 1);\nconsole.error('two');\nprocess.stdout.write('three')",
}
CALLING = {
    "python": "def twice(n):\n    return 2 * n\nfor n in range(3):\n    twice(n)\noutput = twice(4)",
    "javascript": "function twice(n) {\n  return 2 * n;\n}\nfor (let n = 0; n < 3; n++)\n  twice(n);\n"
    "output = twice(4);",
    "node": "function twice(n) {\n  return 2 * n;\n}\nfor (let n = 0; n < 3; n++)\n  twice(n);\nvar output = twice(4);",
}
FAILING = {
    "python": "def f():\n    raise ValueError('no')\nf()",
    "javascript": "function f() {\n  throw new TypeError('no');\n}\nf();",
    "node": "function f() {\n  throw new TypeError('no');\n}\nf();",
}


def recorded(result: casemate.Result) -> DebugRecord:
    assert result.debug is not None, (result.reason, result.error, result.stderr.text)
    return result.debug


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_s1_72_printed_lines_come_back_in_their_order(run: Run, runtime: str) -> None:
    lines = recorded(run(PRINTING[runtime], runtime, debug={"console": True})).console
    assert [(line.stream, line.level, line.text) for line in lines] == [
        ("stdout", "log", "one 1"),
        ("stderr", "error", "two"),
        ("stdout", "log", "three"),
    ]
    assert sorted(line.at_us for line in lines) == [line.at_us for line in lines]


@pytest.mark.parametrize("runtime", ["javascript", "node"])
def test_s1_72_levels_are_those_of_the_console(run: Run, runtime: str) -> None:
    code = "for (const each of ['debug', 'info', 'warn', 'error', 'trace', 'dir']) console[each](each)"
    levels = {line.level for line in recorded(run(code, runtime, debug={"console": True})).console}
    assert levels == {"debug", "info", "warning", "error", "trace", "dir"}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_s1_73_the_stack_is_there_only_when_asked_for(run: Run, runtime: str) -> None:
    with_stack = run(FAILING[runtime], runtime, debug={"stack": True})
    assert with_stack.error is not None
    assert recorded(with_stack).stack == with_stack.error.traceback != ""
    assert recorded(run(FAILING[runtime], runtime, debug={"console": True})).stack == ""


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_s1_74_the_profile_is_there_only_when_asked_for(run: Run, runtime: str) -> None:
    profile = recorded(run(CALLING[runtime], runtime, debug={"profile": True})).profile
    assert profile is not None
    (twice,) = [entry for entry in profile if entry.function == "twice"]
    assert (twice.calls, twice.line) == (4, 1)
    times = [(entry.own_us, entry.total_us) for entry in profile]
    if runtime == "javascript":
        assert set(times) == {(None, None)}
    else:
        assert all(own is not None and total is not None and own <= total for own, total in times)
    assert recorded(run(CALLING[runtime], runtime, debug={"console": True})).profile is None


def test_s1_74_recording_does_not_cost_a_worker_its_life(generous: dict[str, Any]) -> None:
    with casemate.Engine() as engine:
        for wish in [{"profile": True, "console": True}] * 30 + [EVERYTHING] * 10:
            code = CALLING["javascript"] + "\nfor (let n = 0; n < 100; n++) Math.sqrt(n);"
            result = casemate.run(code, "javascript", engine=engine, debug=wish, limits=generous)
            assert (result.reason, result.output) == (casemate.Reason.EXIT, 8)
        assert engine.workers().groups[0].retired == {}


def test_s1_74_times_of_its_own_are_apart_from_those_of_what_it_calls(run: Run) -> None:
    code = "import time\ndef slow():\n    time.sleep(0.05)\ndef outer():\n    slow()\n    slow()\nouter()"
    profile = {each.function: each for each in recorded(run(code, debug={"profile": True})).profile or ()}
    own = {name: each.own_us or 0 for name, each in profile.items()}
    total = {name: each.total_us or 0 for name, each in profile.items()}
    assert own["sleep"] >= 100_000
    assert total["outer"] >= total["slow"] >= own["sleep"]
    assert own["outer"] < 50_000
    assert (profile["outer"].calls, profile["slow"].calls) == (1, 2)


def test_s1_75_steps_are_the_lines_in_their_order(run: Run) -> None:
    steps = recorded(run(CALLING["python"], debug={"steps": True})).steps
    loop = [(3, ""), (4, ""), (2, "twice")] * 3
    assert [(step.line, step.function) for step in steps] == [(1, ""), *loop, (3, ""), (5, ""), (2, "twice")]


def test_s1_75_steps_of_an_isolate_are_the_lines_in_their_order(run: Run) -> None:
    steps = recorded(run(CALLING["javascript"], "javascript", debug={"steps": True})).steps
    loop = [(4, ""), (5, ""), (2, "twice")] * 3
    assert [(step.line, step.function) for step in steps] == [*loop, (4, ""), (6, ""), (2, "twice")]


def test_s1_75_what_waits_in_an_isolate_is_followed_when_it_goes_on(run: Run) -> None:
    code = "const later = async () => {\n  await 1;\n  output = 3;\n};\nlater();"
    result = run(code, "javascript", debug={"steps": True})
    assert result.output == 3
    assert [step.line for step in recorded(result).steps][:4] == [1, 5, 2, 3]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_s1_75_there_are_no_steps_when_they_are_off(run: Run, runtime: str) -> None:
    assert recorded(run(CALLING[runtime], runtime, debug={"stack": True})).steps == ()


PROGRAMS = {
    "python": (
        (
            "import sys\nseen = []\ndef watch(frame, event, arg):\n    seen.append(event)\n    return watch\n"
            "assert sys.gettrace() is None and sys.getprofile() is None\n"
            "sys.settrace(watch)\ndef f():\n    pass\nf()\nsys.settrace(None)\noutput = seen"
        ),
        "def f(n):\n    try:\n        return f(n + 1)\n    except RecursionError:\n        return n\noutput = f(0)",
        (
            "import threading\nfound = []\nthread = threading.Thread(target=lambda: found.append(1))\n"
            "thread.start()\nthread.join()\noutput = found"
        ),
        "import sys\ndef numbers():\n    yield 1\n    yield 2\nprint(*numbers())\nsys.exit(3)",
        "import asyncio\nasync def main(value):\n    await asyncio.sleep(0)\n    return value",
        (
            "import io, contextlib, sys\nwith contextlib.redirect_stdout(io.StringIO()) as text:\n    print('inner')\n"
            "sys.stdout.writelines(['a', 'b'])\noutput = text.getvalue()"
        ),
        (
            "def f():\n    raise ValueError('no')\ntry:\n    f()\nexcept ValueError as error:\n    import traceback\n"
            "    output = traceback.format_exc()"
        ),
        (
            "import cProfile, pstats, io\ndef f():\n    return 1\nprofile = cProfile.Profile()\nprofile.runcall(f)\n"
            "output = pstats.Stats(profile, stream=io.StringIO()).total_calls"
        ),
        "import sys\noutput = sorted(name for name in sys.modules if 'debug' in name)",
        "if input:\n    return {'a': [input]}",
        "syntax error here",
        "import os\nprint('end', flush=True)\nos._exit(4)",
        "output = object()",
        "print('\\ud800'.encode('utf-8', 'surrogatepass'))\nraise RuntimeError('\\ud800')",
    ),
    "javascript": (
        "const main = async (x) => { await 1; return x + 1; };",
        "debugger; output = [1, 2].map((each) => { debugger; return each * 2; });",
        "let n = 0; const f = () => { n++; f(); }; try { f(); } catch (error) { output = error.name; }",
        "Promise.reject(new Error('no')).catch(() => 1); console.table([1]); return {a: 1};",
        "await new Promise(() => {});",
        "syntax error here",
        "output = () => 1;",
        "throw {a: 1};",
        "output = Object.keys(globalThis).concat(typeof $0, typeof inspector);",
    ),
    "node": (
        "const main = async (x) => { await 1; return x + 1; };",
        "import path from 'node:path'; export const a = 1; globalThis.output = path.basename('/x/y');",
        "setTimeout(() => { output = 2; console.log('late'); }, 1); var output;",
        "if (input) return {a: 1};",
        "syntax error here",
        "process.exit(3)",
        (
            "const inspector = require('inspector'); const session = new inspector.Session(); session.connect();"
            "session.post('Runtime.evaluate', {expression: '1 + 1'}, (_, { result }) => { output = result.value; });"
            "var output;"
        ),
        "console.trace('here'); console.group('a'); console.log('b'); throw new Error('no')",
        "var output = [process.execArgv, Object.keys(require.cache).length, module.paths[0]];",
    ),
}


@pytest.mark.parametrize(
    ("runtime", "code"),
    [(runtime, code) for runtime, codes in PROGRAMS.items() for code in codes],
)
def test_s1_76_a_program_is_the_same_with_and_without(run: Run, runtime: str, code: str) -> None:
    plain = run(code, runtime, input=3)
    watched = run(code, runtime, input=3, debug=ALL_OF[runtime])
    for name in ("status", "reason", "exit_code", "signal", "output", "stdout", "stderr", "error", "files"):
        assert getattr(watched, name) == getattr(plain, name), name
    assert not watched.events
    assert plain.debug is None
    assert watched.debug is not None


def test_nothing_is_recorded_of_a_program_that_does_not_end_by_itself(run: Run) -> None:
    result = run("print(1)\nwhile True: pass", debug=EVERYTHING, limits={"timeout": 1.0})
    assert result.reason is casemate.Reason.TIMEOUT
    assert recorded(result) == DebugRecord()


def test_what_is_recorded_has_its_bounds(run: Run) -> None:
    code = "for n in range(10**5):\n    print('x' * 100)\noutput = 1"
    result = run(code, debug=EVERYTHING)
    found = recorded(result)
    assert result.output == 1
    assert len(found.console) + found.console_dropped == 10**5
    assert len(found.console) == limits.DEBUG_CONSOLE_LINES_MAX
    assert len(found.steps) == limits.DEBUG_STEPS_MAX
    assert len(found.steps) + found.steps_dropped == 2 * 10**5 + 2


def test_steps_of_an_isolate_have_their_bound(run: Run) -> None:
    result = run("let n = 0;\nwhile (n < 1e4)\n  n++;\noutput = n;", "javascript", debug={"steps": True})
    assert result.output == 10_000
    assert recorded(result).steps_dropped == 1


def test_a_record_that_does_not_fit_beside_the_output_is_only_counted(run: Run) -> None:
    code = f"for n in range(30): print(n)\noutput = 'x' * {limits.VALUE_MAX_BYTES - 1000}"
    result = run(code, debug=EVERYTHING)
    assert result.ok
    assert recorded(result).console == ()
    assert recorded(result).console_dropped == 30


@pytest.mark.parametrize("wish", [{}, None, {"console": False}, Debug()])
def test_asking_for_nothing_records_nothing(run: Run, wish: Any) -> None:
    assert run("output = 1", debug=wish).debug is None


@pytest.mark.parametrize(
    ("runtime", "wish", "field"),
    [
        ("python", {"everything": True}, "debug.everything"),
        ("python", {"steps": 1}, "debug.steps"),
        ("python", ["steps"], "debug"),
        ("bash", {"steps": True}, "debug.steps"),
        ("node", {"steps": True}, "debug.steps"),
        ("r", {"console": True}, "debug.console"),
    ],
)
def test_what_cannot_be_recorded_is_refused(run: Run, runtime: str, wish: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        run("1", runtime, debug=wish)
    assert caught.value.field == field


def test_the_stack_can_be_asked_of_any_runtime(run: Run) -> None:
    assert "no" in recorded(run("stop('no')", "r", debug={"stack": True})).stack
