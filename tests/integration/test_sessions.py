"""Sandboxes whose interpreter stays: variables, displays, errors, interrupts, its end, and its copies."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import casemate
from casemate import Reason, Status, limits

if TYPE_CHECKING:
    from tests.integration.conftest import MakeSandbox

COPIES = 5
BUSY = "print('ready', flush=True)\nwhile True: pass"
STUBBORN = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + BUSY


@pytest.fixture
def session(make_sandbox: MakeSandbox) -> casemate.Sandbox:
    return make_sandbox(stateful=True)


def shown(result: casemate.Result) -> Any:
    """The value of the last expression, as JSON."""
    assert result.ok, (result.reason, result.error)
    return result.displays[-1].json


def everyone(session: casemate.Sandbox, copies: list[casemate.Fork]) -> list[casemate.Sandbox | casemate.Fork]:
    return [session, *copies]


def at_first_output(act: Any) -> Any:
    """Return what does something once, when the code has begun to print."""
    done = threading.Event()

    def listen(_: casemate.Chunk) -> None:
        if not done.is_set():
            done.set()
            act()

    return listen


# Variables ----------------------------------------------------------------------------------------


def test_variables_functions_and_imports_stay_for_the_next_call(session: casemate.Sandbox) -> None:
    assert session.run("import math\nfactor = 6\ndef times(n):\n    return factor * n").ok
    assert shown(session.run("times(7)")) == 42
    assert shown(session.run("math.floor(2.5)")) == 2


def test_input_and_output_belong_to_one_call(session: casemate.Sandbox) -> None:
    assert session.run("output = input['a'] + 1", input={"a": 41}).output == 42
    second = session.run("x = 1")
    assert (second.output, second.displays) == (None, ())
    assert shown(session.run("['input' in globals(), 'output' in globals()]")) == [False, False]


def test_an_output_that_cannot_be_written_is_a_failure_and_the_session_goes_on(session: casemate.Sandbox) -> None:
    assert session.run("output = object()").reason is Reason.VALIDATION
    assert session.run("output = 1").output == 1


def test_what_is_printed_belongs_to_its_call(session: casemate.Sandbox) -> None:
    chunks: list[casemate.Chunk] = []
    first = session.run("import sys\nprint('one')\nprint('oops', file=sys.stderr)", on_output=chunks.append)
    second = session.run("print('two')")
    assert (first.stdout.text, first.stderr.text, second.stdout.text) == ("one\n", "oops\n", "two\n")
    assert {(each.stream, each.data, each.offset) for each in chunks} == {
        ("stdout", b"one\n", 0),
        ("stderr", b"oops\n", 0),
    }


def test_streams_that_the_code_replaces_are_its_own_affair(session: casemate.Sandbox) -> None:
    session.run("import io, sys\nreal, sys.stdout = sys.stdout, io.StringIO()")
    heard: list[casemate.Chunk] = []
    assert session.run("print('kept')", on_output=heard.append).ok
    result = session.run("said, sys.stdout = sys.stdout.getvalue(), real\nprint(said, end='')", on_output=heard.append)
    assert (result.stdout.text, len(heard)) == ("kept\n", 1)
    session.run("sys.stdout.close()")
    assert shown(session.run("1", on_output=heard.append)) == 1


def test_files_are_shared_with_the_sandbox(session: casemate.Sandbox) -> None:
    session.run("open('made', 'w').write(open('given').read())", files={"given": "x"})
    assert session.files.read("made") == b"x"
    assert session.exec(["cat", "made"]).stdout.text == "x"


def test_classes_can_be_pickled_as_in_a_program(session: casemate.Sandbox) -> None:
    session.run("import pickle\nclass Point:\n    x = 1\nkept = pickle.dumps(Point())")
    assert shown(session.run("pickle.loads(kept).x")) == 1


@pytest.mark.parametrize("option", ["args", "env", "stdin", "filename"])
def test_what_belongs_to_a_process_is_refused(session: casemate.Sandbox, option: str) -> None:
    values: dict[str, Any] = {"args": ["x"], "env": {"A": "b"}, "stdin": b"x", "filename": "x.py"}
    with pytest.raises(casemate.InvalidInput) as caught:
        session.run("1", **{option: values[option]})
    assert caught.value.field == option


def test_a_runtime_without_a_session_is_refused_by_the_field(engine: casemate.Engine) -> None:
    with pytest.raises(casemate.InvalidInput) as caught:
        casemate.Sandbox("bash", stateful=True, engine=engine)
    assert caught.value.field == "stateful"


def test_a_sandbox_that_keeps_nothing_says_so(make_sandbox: MakeSandbox) -> None:
    plain = make_sandbox()
    for ask in (plain.interrupt, plain.fork, plain.restart):
        with pytest.raises(casemate.InvalidInput, match="stateful"):
            ask()


# Displays -----------------------------------------------------------------------------------------


def test_the_last_value_and_what_is_displayed_are_shown_in_order(session: casemate.Sandbox) -> None:
    result = session.run("display('a', [1])\nNone\n{'b': 2}")
    assert [(each.kind, each.text, each.json) for each in result.displays] == [
        ("display", "'a'", "a"),
        ("display", "[1]", [1]),
        ("result", "{'b': 2}", {"b": 2}),
    ]


def test_rich_forms_are_taken_from_their_methods(session: casemate.Sandbox) -> None:
    code = """
class Rich:
    def __repr__(self): return 'plain'
    def _repr_html_(self): return '<b>html</b>'
    def _repr_svg_(self): return '<svg/>'
    def _repr_png_(self): return b'\\x89PNG'
    def _repr_json_(self): return {'a': [1]}
    def _repr_latex_(self): raise ValueError
    def _repr_mimebundle_(self, include=None, exclude=None): return {'text/markdown': '*m*', 'x/y': 'z'}
Rich()
"""
    (display,) = session.run(code).displays
    assert (display.text, display.html, display.svg, display.png) == ("plain", "<b>html</b>", "<svg/>", b"\x89PNG")
    assert (display.json, display.latex, display.markdown) == ({"a": [1]}, None, "*m*")


def test_what_is_too_large_is_left_out_and_named(session: casemate.Sandbox) -> None:
    code = "class Large:\n    def _repr_html_(self): return 'x' * (9 << 20)\nLarge()"
    (display,) = session.run(code).displays
    assert (display.html, display.left_out) == (None, ("html",))
    assert "Large object" in display.text


def test_a_large_value_is_not_written_out_in_full(session: casemate.Sandbox) -> None:
    result = session.run("data = bytearray(100 << 20)\ndata")
    assert result.ok
    assert len(result.displays[0].text) < 1 << 20
    assert "more" in session.run("list(range(10**6))").displays[0].text


def test_a_repr_that_fails_is_no_failure_of_the_call(session: casemate.Sandbox) -> None:
    result = session.run("class Bad:\n    def __repr__(self): raise ValueError\nBad()")
    assert result.ok
    assert "ValueError" in result.displays[0].text


def test_more_displays_than_are_kept_are_counted(session: casemate.Sandbox) -> None:
    result = session.run(f"for n in range({limits.DISPLAYS_MAX} + 7): display(n)")
    assert len(result.displays) == limits.DISPLAYS_MAX
    assert [event.detail for event in result.events if event.kind == "displays-dropped"] == [
        "7 beyond what is kept of one call"
    ]


# Errors -------------------------------------------------------------------------------------------


def test_an_error_is_a_result_and_the_session_goes_on(session: casemate.Sandbox) -> None:
    session.run("def half(n):\n    return 1 / n")
    result = session.run("kept = 1\nhalf(0)")
    assert (result.status, result.reason, result.exit_code) == (Status.FAILED, Reason.EXCEPTION, 1)
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("ZeroDivisionError", "division by zero")
    assert 'File "<call 1>", line 2, in half\n    return 1 / n' in result.error.traceback
    assert "guest" not in result.error.traceback
    assert result.stderr.text == result.error.traceback
    assert shown(session.run("kept")) == 1


def test_a_syntax_error_shows_its_line(session: casemate.Sandbox) -> None:
    result = session.run("x = 1\nif x\n    pass")
    assert result.error is not None
    assert result.error.type == "SyntaxError"
    assert "line 2" in result.error.traceback


@pytest.mark.parametrize(("code", "exit_code"), [("sys.exit(3)", 3), ("exit()", 0), ("sys.exit('why')", 1)])
def test_sys_exit_ends_the_call_and_not_the_session(session: casemate.Sandbox, code: str, exit_code: int) -> None:
    session.run("import sys\nkept = 1")
    result = session.run(code)
    assert (result.reason, result.exit_code) == (Reason.EXIT, exit_code)
    assert shown(session.run("kept")) == 1


@pytest.mark.parametrize(
    ("code", "reason", "end"),
    [
        ("import os; print('last', flush=True); os._exit(7)", Reason.EXIT, "with exit code 7"),
        ("import os; print('last', flush=True); os.kill(os.getpid(), 11)", Reason.SIGNAL, "by signal 11"),
    ],
)
def test_the_interpreter_s_end_is_told_and_never_passed_over(
    session: casemate.Sandbox, code: str, reason: Reason, end: str
) -> None:
    session.run("kept = 1")
    session.files.write("file", "stays")
    result = session.run(code)
    assert (result.reason, result.stdout.text) == (reason, "last\n")
    assert [event.kind for event in result.events] == ["state-lost"]
    with pytest.raises(casemate.StateLost, match=end) as caught:
        session.run("kept")
    assert "restart" in caught.value.hint
    session.restart()
    assert shown(session.run("'kept' in globals()")) is False
    assert session.files.read("file") == b"stays"


@pytest.mark.limits
def test_a_session_without_memory_ends_with_its_sandbox(make_sandbox: MakeSandbox) -> None:
    session = make_sandbox(stateful=True, limits={"memory": "96Mi"})
    result = session.run("data = []\nwhile True: data.append(bytearray(1 << 20))")
    assert result.reason is Reason.MEMORY or (result.error is not None and result.error.type == "MemoryError")


def test_a_forked_child_of_the_code_says_nothing_on_the_channel(session: casemate.Sandbox) -> None:
    code = "import os\nif (pid := os.fork()):\n    status = os.waitpid(pid, 0)[1]\nelse:\n    display('child')"
    result = session.run(code)
    assert (result.ok, result.displays, result.events) == (True, (), ())
    assert shown(session.run("status")) == 0


# Interrupts ---------------------------------------------------------------------------------------


def test_a_time_limit_interrupts_and_keeps_the_variables(session: casemate.Sandbox) -> None:
    session.run("kept = 1")
    result = session.run("while True: pass", limits={"timeout": "150ms"})
    assert result.reason is Reason.TIMEOUT
    assert result.error is not None
    assert result.error.type == "KeyboardInterrupt"
    assert result.error.traceback.endswith("KeyboardInterrupt\n")
    assert "guest" not in result.error.traceback
    assert shown(session.run("kept")) == 1


def test_sleeping_code_is_interrupted_too(session: casemate.Sandbox) -> None:
    result = session.run("import time\ntime.sleep(1000)", limits={"timeout": "150ms"})
    assert (result.reason, result.events) == (Reason.TIMEOUT, ())


def test_code_that_does_not_stop_is_killed_and_the_loss_is_told(
    session: casemate.Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SESSION_GRACE_S", 0.2)
    result = session.run(STUBBORN, limits={"timeout": "150ms"})
    assert (result.reason, result.signal) == (Reason.TIMEOUT, signal.SIGKILL)
    assert [event.kind for event in result.events] == ["state-lost"]
    with pytest.raises(casemate.StateLost, match="did not stop"):
        session.run("1")


def test_too_much_output_interrupts(session: casemate.Sandbox) -> None:
    result = session.run("while True: print('x' * 1000)", limits={"output": "64Ki"})
    assert (result.reason, result.stdout.total_bytes) == (Reason.OUTPUT, 64 << 10)
    assert shown(session.run("1")) == 1


def test_processor_time_interrupts(session: casemate.Sandbox) -> None:
    assert session.run("while True: pass", limits={"cpu_time": 0.2}).reason is Reason.CPU
    assert shown(session.run("1")) == 1


def test_interrupt_from_another_thread_keeps_the_variables(session: casemate.Sandbox) -> None:
    assert session.interrupt() is False
    session.run("kept = 1")
    result = session.run(BUSY, on_output=at_first_output(session.interrupt))
    assert (result.reason, result.stdout.text) == (Reason.CANCELLED, "ready\n")
    assert shown(session.run("kept")) == 1


def test_code_may_deal_with_an_interrupt(session: casemate.Sandbox) -> None:
    code = f"try:\n    {BUSY.replace(chr(10), chr(10) + '    ')}\nexcept KeyboardInterrupt:\n    output = 'saved'"
    result = session.run(code, on_output=at_first_output(session.interrupt))
    assert (result.reason, result.output) == (Reason.EXIT, "saved")


def test_a_token_interrupts_and_keeps_the_variables(session: casemate.Sandbox) -> None:
    session.run("kept = 1")
    token = casemate.CancelToken()
    result = session.run(BUSY, cancel=token, on_output=at_first_output(token.cancel))
    assert result.reason is Reason.CANCELLED
    assert shown(session.run("kept")) == 1


def test_an_error_of_the_listener_interrupts_and_comes_out(session: casemate.Sandbox) -> None:
    session.run("kept = 1")
    with pytest.raises(ZeroDivisionError):
        session.run(BUSY, on_output=at_first_output(lambda: 1 // 0))
    assert shown(session.run("kept")) == 1


def test_interrupts_between_calls_never_meet_a_later_one(session: casemate.Sandbox) -> None:
    stop = threading.Event()

    def pester() -> None:
        while not stop.is_set():
            session.interrupt()

    pesterer = threading.Thread(target=pester)
    pesterer.start()
    try:
        results = [session.run("sum(range(100))") for _ in range(100)]
    finally:
        stop.set()
        pesterer.join()
    assert {result.reason for result in results} <= {Reason.EXIT, Reason.CANCELLED}
    assert shown(session.run("1 + 1")) == 2


def test_calls_from_many_threads_take_turns(session: casemate.Sandbox) -> None:
    session.run("count = 0")
    code = "now = count\nimport time; time.sleep(0.001)\ncount = now + 1"
    threads = [threading.Thread(target=session.run, args=(code,)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shown(session.run("count")) == 10


# Copies -------------------------------------------------------------------------------------------


def test_copies_have_the_variables_and_go_their_own_ways(session: casemate.Sandbox) -> None:
    session.run("data = [1, 2, 3]\nimport os")
    copies = session.fork(COPIES)
    for number, copy in enumerate(copies):
        assert shown(copy.run(f"data.append({number})\ndata")) == [1, 2, 3, number]
    assert shown(session.run("data")) == [1, 2, 3]
    assert [shown(copy.run("data[-1]")) for copy in copies] == list(range(COPIES))
    assert len({shown(each.run("os.getpid()")) for each in everyone(session, copies)}) == COPIES + 1


def test_copies_run_at_the_same_time_and_print_for_themselves(session: casemate.Sandbox) -> None:
    session.run("import os, sys")
    copies = session.fork(COPIES)
    results: dict[int, casemate.Result] = {}

    def work(number: int) -> None:
        results[number] = copies[number].run(
            f"print('out', {number})\nopen('at{number}', 'w').close()\n"
            f"while len([n for n in os.listdir() if n.startswith('at')]) < {COPIES}: pass\n"
            f"print('err', {number}, file=sys.stderr)\nos.system('echo child {number}')"
        )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(COPIES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, result in results.items():
        assert set(result.stdout.text.splitlines()) == {f"out {number}", f"child {number}"}
        assert result.stderr.text == f"err {number}\n"


def test_random_states_of_copies_differ(session: casemate.Sandbox) -> None:
    session.run("import random, tempfile, uuid\nrandom.seed(1)\ntempfile.gettempdir()")
    code = "[random.random(), next(tempfile._get_candidate_names()), str(uuid.uuid4())]"
    found = [shown(each.run(code)) for each in everyone(session, session.fork(COPIES))]
    assert all(len(set(column)) == COPIES + 1 for column in zip(*found, strict=True))


def test_a_copy_can_be_copied_interrupted_and_closed_by_itself(session: casemate.Sandbox) -> None:
    session.run("kept = 1")
    (copy,) = session.fork()
    (second,) = copy.fork()
    assert copy.run(BUSY, on_output=at_first_output(copy.interrupt)).reason is Reason.CANCELLED
    with second:
        assert shown(second.run("kept")) == 1
    with pytest.raises(casemate.StateLost, match="closed"):
        second.run("kept")
    assert shown(copy.run("kept")) == 1
    assert shown(session.run("kept")) == 1


def test_the_end_of_a_copy_is_told_and_touches_no_other(
    session: casemate.Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SESSION_GRACE_S", 0.2)
    first, second, third = session.fork(3)
    assert first.run("import os; os._exit(5)").exit_code == 5
    result = second.run(STUBBORN, limits={"timeout": "150ms"})
    assert (result.reason, result.signal) == (Reason.TIMEOUT, signal.SIGKILL)
    for gone in (first, second):
        with pytest.raises(casemate.StateLost):
            gone.run("1")
    assert shown(third.run("1")) == 1
    assert shown(session.run("1")) == 1


def test_a_copy_outlives_what_it_was_copied_from(session: casemate.Sandbox) -> None:
    session.run("kept = 1")
    (copy,) = session.fork()
    session.run("import os; os._exit(0)")
    assert shown(copy.run("kept")) == 1
    session.restart()
    assert shown(copy.run("kept")) == 1


def test_without_room_for_one_process_more_there_is_no_copy(make_sandbox: MakeSandbox) -> None:
    session = make_sandbox(stateful=True, limits={"processes": 1})
    session.run("kept = 1")
    with pytest.raises(casemate.CapacityError):
        session.fork()
    assert shown(session.run("kept")) == 1


def test_without_descriptors_there_is_no_copy(session: casemate.Sandbox) -> None:
    session.run("import os\nkept = []\ntry:\n    while True: kept.append(os.open('.', 0))\nexcept OSError: pass")
    with pytest.raises((casemate.CapacityError, casemate.LaunchError)):
        session.fork()
    session.run("for fd in kept: os.close(fd)")
    for copy in session.fork(2):
        assert shown(copy.run("len(kept) > 10"))


def test_many_copies_are_forked_by_several_processes(make_sandbox: MakeSandbox) -> None:
    session = make_sandbox(stateful=True, limits={"processes": 60, "cpu": 2})
    session.run("import os")
    found = [shown(copy.run("[os.getpid(), os.getppid()]")) for copy in session.fork(30)]
    assert len({pid for pid, _ in found}) == 30
    assert {parent for _, parent in found} == {1}


def test_without_room_for_all_there_is_no_copy(make_sandbox: MakeSandbox) -> None:
    session = make_sandbox(stateful=True, limits={"processes": 6})
    session.run("kept = 1")
    with pytest.raises(casemate.CapacityError) as caught:
        session.fork(20)
    assert "processes" in caught.value.hint
    assert shown(session.run("kept")) == 1
    for copy in session.fork(2):
        assert shown(copy.run("kept")) == 1


@pytest.mark.parametrize("count", [0, -1, limits.COPIES_MAX + 1, True, "2"])
def test_a_count_that_is_none_is_refused(session: casemate.Sandbox, count: Any) -> None:
    with pytest.raises(casemate.InvalidInput, match="count"):
        session.fork(count)


# asyncio ------------------------------------------------------------------------------------------


def test_everything_has_a_twin_for_asyncio(engine: casemate.Engine, generous: dict[str, Any]) -> None:
    async def work() -> None:
        async with casemate.AsyncSandbox("python", stateful=True, engine=engine, limits=generous) as session:
            await session.run("kept = 1")
            async with asyncio.timeout(generous["timeout"]):
                copies = await session.fork(2)
                results = await asyncio.gather(*(copy.run(f"kept + {n}") for n, copy in enumerate(copies)))
            assert [shown(result) for result in results] == [1, 2]
            running = asyncio.create_task(session.run(BUSY, on_output=at_first_output(session.interrupt)))
            assert (await running).reason is Reason.CANCELLED
            (inner,) = await copies[0].fork()
            assert shown(await inner.run("kept")) == 1
            assert inner.interrupt() is False
            await inner.close()
            await session.run("import os; os._exit(0)")
            await session.restart()
            assert shown(await session.run("2")) == 2

    asyncio.run(work())


def test_cancelling_a_task_interrupts_and_keeps_the_variables(
    engine: casemate.Engine, generous: dict[str, Any]
) -> None:
    async def work() -> None:
        async with casemate.AsyncSandbox("python", stateful=True, engine=engine, limits=generous) as session:
            await session.run("kept = 1")
            begun = asyncio.Event()
            task = asyncio.create_task(session.run(BUSY, on_output=lambda _: begun.set()))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert shown(await session.run("kept")) == 1

    asyncio.run(work())


# Idle time-out ------------------------------------------------------------------------------------


def test_a_sandbox_ends_when_nothing_has_run_for_so_long(make_sandbox: MakeSandbox) -> None:
    session = make_sandbox(stateful=True, idle_timeout=0.3)
    assert shown(session.run("import time; time.sleep(0.6); 1")) == 1  # running work is work
    assert shown(session.run("2")) == 2
    dead = session._session.sandbox
    deadline_s = time.monotonic() + 10
    while dead.is_alive() and time.monotonic() < deadline_s:
        threading.Event().wait(0.01)
    with pytest.raises(casemate.SandboxClosed, match=r"nothing ran in it for 0\.3 s"):
        session.run("3")


def test_an_open_terminal_and_a_running_copy_are_work(make_sandbox: MakeSandbox) -> None:
    session = make_sandbox(stateful=True, idle_timeout=0.2)
    (copy,) = session.fork()
    with session.open_pty(["sh"]):
        threading.Event().wait(0.5)
        assert shown(session.run("1")) == 1
    assert shown(copy.run("import time; time.sleep(0.5); 2")) == 2
    assert shown(session.run("3")) == 3


@pytest.mark.parametrize("wanted", [0, -1, "soon", 1e12])
def test_an_idle_timeout_that_is_none_is_refused(engine: casemate.Engine, wanted: Any) -> None:
    with pytest.raises(casemate.InvalidInput, match="idle_timeout"):
        casemate.Sandbox("python", idle_timeout=wanted, engine=engine)
