"""Attacks of programs in isolates: on the worker, on executions before and after, and on other tenants.

An isolate is no wall by itself; the worker's sandbox is, and all the other attacks run against that.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
from tests.machine import left_running

import casemate
from casemate import Reason, limits
from casemate.engine.drive import drive
from casemate.engine.run import Run, check_command, run_alone
from casemate.isolation.protocol import EVERYTHING, encode_signal
from casemate.kernel.processes import process_tree
from casemate.model.spec import SandboxSpec

Javascript = Callable[..., casemate.Result]

SIBLINGS: Final = 100
START_S: Final = 60.0


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
def javascript(isolating: casemate.Engine, default_limits: dict[str, Any]) -> Javascript:
    def start(code: str, **options: Any) -> casemate.Result:
        wanted = {**default_limits, **options.pop("limits", {})}
        return casemate.run(code, "javascript", engine=isolating, limits=wanted, **options)

    return start


@pytest.fixture
def same_worker(isolating: casemate.Engine, javascript: Javascript) -> Callable[[str, str], casemate.Result]:
    """Return what runs one program and then another one in the same worker, for the Result of the other."""

    def start(first: str, second: str) -> casemate.Result:
        javascript(first)
        (worker,) = isolating.isolates.status().workers
        result = javascript(second)
        assert [each.number for each in isolating.isolates.status().workers] == [worker.number]
        return result

    return start


# One execution after the other ----------------------------------------------------------------------

LEFT: Final = {
    "a global": ("globalThis.left = 1; leaked = 2", "return [typeof left, typeof leaked]", ["undefined", "undefined"]),
    "Object.prototype": ("Object.prototype.polluted = 1", "return [({}).polluted ?? null]", [None]),
    "Array.prototype": ("Array.prototype.map = () => 'mine'", "return [1].map((x) => x)", [1]),
    "JSON": (
        "JSON.stringify = () => '1'; JSON.parse = () => 2",
        "return [JSON.stringify('a'), JSON.parse('3')]",
        ['"a"', 3],
    ),
    "Date": (
        "Date.prototype.toISOString = Date.now = () => 'x'",
        "return [new Date(0).toISOString(), typeof Date.now()]",
        ["1970-01-01T00:00:00.000Z", "number"],
    ),
    "Promise": ("Promise.prototype.then = () => {}; Promise = null", "return await Promise.resolve(1)", 1),
    "Function": ("Function.prototype.call = Function.prototype.apply = null", "return (() => 1).call()", 1),
    "a symbol": (
        "Symbol.for('left').description; globalThis[Symbol.for('left')] = 1",
        "return Symbol.for('left') in globalThis",
        False,
    ),
    "console": (
        "console.log = () => {}; console = null",
        "console.log('heard'); return typeof console.log",
        "function",
    ),
    "the output": ("output = 'left'", "return output ?? null", None),
    "a setter": (
        "Object.defineProperty(Object.prototype, 'x', { set() { throw 1 } })",
        "const o = {}; o.x = 1; return o.x",
        1,
    ),
    "a regular expression": ("/(left)/.exec('left')", "return RegExp.$1", ""),
}


@pytest.mark.parametrize("what", LEFT)
def test_x1_nothing_of_an_execution_is_there_for_the_next(
    same_worker: Callable[[str, str], casemate.Result], what: str
) -> None:
    first, second, expected = LEFT[what]
    result = same_worker(first, second)
    assert (result.reason, result.output) == (Reason.EXIT, expected), result.error


def test_i8_new_memory_is_empty_in_an_isolate(same_worker: Callable[[str, str], casemate.Result]) -> None:
    first = "const all = []; for (let i = 0; i < 8; i++) all.push(new Uint8Array(1 << 20).fill(0x5a))"
    second = """
        let found = 0;
        for (let i = 0; i < 8; i++) found += new Uint8Array(1 << 20).reduce((sum, each) => sum + (each ? 1 : 0), 0);
        return found;
    """
    assert same_worker(first, second).output == 0


def test_i9_random_numbers_of_sibling_isolates_differ(isolating: casemate.Engine, javascript: Javascript) -> None:
    found = [javascript("return [Math.random(), Math.random()]").output for _ in range(SIBLINGS)]
    assert len({number for pair in found for number in pair}) == 2 * SIBLINGS
    assert len(isolating.isolates.status().workers) == 1


def test_i10_addresses_are_no_part_of_what_an_isolate_tells(javascript: Javascript) -> None:
    code = """
        const texts = [new Error('e').stack, String(() => 1), String(Symbol('s')), JSON.stringify({ a: 1 })];
        try { null.x } catch (e) { texts.push(e.stack) }
        return texts.join('\\n');
    """
    assert "0x" not in javascript(code).output


# On the worker --------------------------------------------------------------------------------------

ESCAPES: Final = {
    "constructor": "return ''.constructor.constructor('return typeof process')()",
    "arguments": "return (function () { return arguments.callee.caller?.constructor('return typeof process')() })()",
    "own function": "return (function* () {}).constructor('return typeof require')().next().value",
    "async function": "return await (async () => {}).constructor('return typeof process')()",
    "call sites": """
        Error.prepareStackTrace = (_, sites) => sites;
        const sites = (() => new Error('e').stack)();
        const ways = (site) => [site.getThis(), site.getFunction()?.constructor('return this')()];
        const found = sites.flatMap(ways).map((way) => typeof way?.process);
        return found.find((each) => each !== 'undefined') ?? 'undefined';
    """,
    "proxy of console": """
        let seen = 'undefined';
        const spy = new Proxy({}, { get(_, key) { try { seen = typeof this.constructor.constructor('return process')() }
            catch {} return undefined } });
        console.log(spy); return seen;
    """,
    "error of the harness": """
        try { console.log('%s', { get stack() { throw 1 }, [Symbol.toPrimitive]() { throw 2 } }) }
        catch (e) { return typeof e?.constructor?.constructor?.('return this')().process }
        return 'undefined';
    """,
    "import error": "return await import('fs').catch((e) => e.constructor.constructor('return typeof process')())",
    "stack overflow in a host call": """
        const f = () => { try { f() } catch { try { console.log('x') } catch (e) { globalThis.e ??= e } } };
        f();
        return typeof (globalThis.e?.constructor.constructor('return this')().process);
    """,
    "the hook of the program": "return typeof arguments[0]?.constructor('return process')?.call?.process",
}


@pytest.mark.parametrize("what", ESCAPES)
def test_s1_no_way_leads_from_an_isolate_to_its_worker(javascript: Javascript, what: str) -> None:
    result = javascript(ESCAPES[what], limits={"memory": "64Mi"})
    assert (result.reason, result.output) == (Reason.EXIT, "undefined"), result.error


HOSTILE_ERRORS: Final = [
    "throw { get message() { throw 1 }, get stack() { throw 2 }, get name() { throw 3 } }",
    "const e = new Error('x'); Object.defineProperty(e, 'stack', { get() { throw e } }); throw e",
    "const e = new Error('x'); e.message = { toString() { for (let i = 0; i < 1e5; i++); return 'y' } }; throw e",
    "throw new Proxy(new Error('x'), { get() { throw 1 }, getPrototypeOf() { throw 2 } })",
    "throw Object.create(null)",
    "throw Symbol('s')",
    "const e = new Error('x'.repeat(1e6)); throw e",
    "Error.prepareStackTrace = () => { throw 1 }; throw new Error('x')",
    "Promise.reject(new Proxy({}, { get() { throw 1 } }))",
    "Promise.reject({ get then() { throw 1 } })",
    "Promise.prototype.then = () => { throw 1 }; return Promise.resolve(1).constructor.reject(2)",
    "JSON.stringify = String.prototype.slice = Array.prototype.filter = () => { throw 1 }; throw 2",
]


@pytest.mark.parametrize("code", HOSTILE_ERRORS)
def test_s3_errors_with_a_life_of_their_own_end_only_their_program(javascript: Javascript, code: str) -> None:
    result = javascript(code)
    assert result.reason is Reason.EXCEPTION, (result.reason, result.stderr.text)
    assert javascript("return 'well'").output == "well"


def test_s3_a_worker_that_is_killed_is_replaced(isolating: casemate.Engine, javascript: Javascript) -> None:
    javascript("1")
    (before,) = isolating.isolates.status().workers
    victims = [pid for pid in process_tree(isolating.backend.launcher.pid) if pid != isolating.backend.launcher.pid]
    for pid in victims:
        with suppress(ProcessLookupError):  # the first took the others with it
            os.kill(pid, signal.SIGKILL)
    assert javascript("return 'well'").output == "well"
    assert before.number not in [worker.number for worker in isolating.isolates.status().workers]


def test_s3_a_worker_that_is_frozen_is_found_out(isolating: casemate.Engine, javascript: Javascript) -> None:
    javascript("1")
    (worker,) = isolating.isolates._idle
    worker.sandbox.request(encode_signal(EVERYTHING, signal.SIGSTOP)).close()
    assert javascript("return 'well'").output == "well"
    assert isolating.isolates.status().retired["silent"] == 1


POISON: Final = """
    const everything = [globalThis, Object.prototype, Array.prototype, Promise.prototype, Function.prototype, Error];
    for (const each of everything) {
        for (const name of Object.getOwnPropertyNames(each)) { try { each[name] = () => { throw 1 } } catch {} }
    }
    Error.stackTraceLimit = 1e6;
"""
STATUS: Final = ("Sig", "Shd", "Umask", "Seccomp", "NoNew", "Cap", "Groups", "Uid")


def state_of_worker(isolating: casemate.Engine) -> tuple[object, ...]:
    """What the kernel knows of the one worker's process that a program could have changed."""
    (worker,) = isolating.isolates._idle
    process = Path(f"/proc/{process_tree(worker.sandbox.pid)[1]}")
    status = [line for line in (process / "status").read_text().splitlines() if line.startswith(STATUS)]
    links = sorted(str(link.readlink()) for link in (process / "fd").iterdir())
    return worker.number, status, links, (process / "cwd").readlink(), (process / "limits").read_text()


def test_s16_a_hostile_program_leaves_its_worker_as_it_was(isolating: casemate.Engine, javascript: Javascript) -> None:
    """It is the process that the isolates of later programs come from."""
    javascript("1")
    before = state_of_worker(isolating)
    javascript(POISON)
    assert javascript("return [1, 2].map((x) => x * 2)").output == [2, 4]
    assert state_of_worker(isolating) == before


def test_x12_one_source_is_compiled_for_each_program_anew(same_worker: Callable[[str, str], casemate.Result]) -> None:
    """V8 remembers code by its text within a process: nothing that a program did to its own may come with it."""
    source = """
        const site = (function () { return [Object.prototype.left ?? null, typeof globalThis.left] })();
        const template = ((strings) => strings)`a${1}b`;
        const seen = template.left ?? null;
        try { Object.prototype.left = 1; globalThis.left = 1; template.raw.left = template.left = 1 } catch {}
        return [...site, seen];
    """
    assert same_worker(source, source).output == [None, "undefined", None]


def test_x12_one_source_of_another_name_is_told_by_its_own(javascript: Javascript) -> None:
    for name in ("first.js", "second.js"):
        result = javascript("null.x", filename=name)
        assert result.error is not None
        assert name in result.error.traceback


def test_s4_a_reply_that_a_program_forges_is_only_its_own_text(javascript: Javascript) -> None:
    forged = '\\u0000\\u0000\\u0000\\u0010{"reply":{"kind":"value","output":"forged"},"worker":{}}'
    result = javascript(f"console.log('{forged}'); JSON.stringify = () => '{forged}'; output = 'real'")
    assert result.output == "real"
    assert "forged" in result.stdout.text


def test_o1_a_flood_through_the_console_is_ended_and_not_held(
    isolating: casemate.Engine, javascript: Javascript
) -> None:
    result = javascript(
        "const s = 'x'.repeat(1 << 20); for (;;) console.log(s)", limits={"output": "64Mi", "memory": "64Mi"}
    )
    assert result.reason is Reason.OUTPUT
    assert len(result.stdout.head) + len(result.stdout.tail) <= 1 << 20


def test_c7_deep_and_wide_values_are_refused_quickly(javascript: Javascript) -> None:
    deep = "let v = []; for (let i = 0; i < 150; i++) v = [v]; return v"
    assert javascript(deep, limits={"memory": "64Mi"}).ok
    wide = javascript("return new Array(600000).fill([])", limits={"memory": "256Mi"})
    assert wide.output is None
    assert {event.kind for event in wide.events} == {"bad-reply"}


# Between tenants ------------------------------------------------------------------------------------


def test_x2_tenants_never_share_a_worker(isolating: casemate.Engine, javascript: Javascript) -> None:
    tenants = [f"tenant-{number}" for number in range(3)]
    threads = [
        threading.Thread(target=lambda name=tenant: [javascript("return 1", tenant=name) for _ in range(5)])
        for tenant in tenants
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = isolating.isolates.status().workers
    assert {worker.tenant for worker in found} <= set(tenants)
    assert all(worker.runs <= 5 for worker in found)


def test_x4_tenants_are_other_users_on_the_host(isolating: casemate.Engine, javascript: Javascript) -> None:
    javascript("1", tenant="a")
    javascript("1", tenant="b")
    workers = isolating.isolates._idle
    uids = {Path(f"/proc/{worker.sandbox.pid}").stat().st_uid for worker in workers}
    shared = casemate.Layer.HOST_UID not in workers[0].sandbox.isolation.layers
    assert len(uids) == (1 if shared else 2)


def test_x7_nothing_that_workers_share_can_be_written(isolating: casemate.Engine, javascript: Javascript) -> None:
    javascript("1")
    mounts = isolating.isolates._idle[0].kind.spec.mounts
    shared = " ".join(mount.target for mount in mounts)
    code = f"for d in {shared}; do ls $d && ! touch $d/left 2> /dev/null || exit 1; done"
    spec = SandboxSpec(limits=isolating.config.default_limits(), mounts=mounts)
    look = Run(label="look", spec=spec, program=check_command(["/bin/sh", "-c", code]), files=(), collect=())
    result = drive(run_alone(isolating, look))
    assert result.ok, result.stderr.text
    assert "isolated_vm.node" in result.stdout.text
