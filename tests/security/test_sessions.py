"""Attacks by code whose interpreter stays: on its channel, on the calls after it, on its copies, and on the engine."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import casemate
from casemate import Reason, limits
from casemate.engine.drive import drive
from casemate.errors import CasemateError
from casemate.isolation.native import NativeSandbox
from casemate.isolation.protocol import ReportKind, encode_adopt, receive_report
from casemate.isolation.waiting import Wait

Make = Callable[..., casemate.Sandbox]

CHANNEL = """
import json, os, sys, threading, time
REPLY = 62
def tell(body):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    data = len(body).to_bytes(4, "big") + body
    while data:
        data = data[os.write(REPLY, data):]
session = next(each for each in __import__("gc").get_objects() if type(each).__name__ == "Session")
"""
"""What any code inside can do: find the harness and the descriptor of its replies, and write there."""


@pytest.fixture
def make(engine: casemate.Engine, default_limits: dict[str, Any]) -> Iterator[Make]:
    with ExitStack() as opened:

        def start(**wanted: Any) -> casemate.Sandbox:
            chosen = {**default_limits, **wanted}
            return opened.enter_context(casemate.Sandbox("python", stateful=True, engine=engine, limits=chosen))

        yield start


@pytest.fixture
def session(make: Make) -> casemate.Sandbox:
    made = make()
    assert made.run(CHANNEL).ok
    return made


def everyone(session: casemate.Sandbox, copies: list[casemate.Fork]) -> list[casemate.Sandbox | casemate.Fork]:
    return [session, *copies]


def assert_ended(session: casemate.Sandbox) -> None:
    """It is over, that is said, and a new interpreter in the same sandbox works."""
    with pytest.raises(casemate.StateLost):
        session.run("1")
    session.restart()
    assert session.run("output = 42").output == 42


# The channel --------------------------------------------------------------------------------------

NONSENSE = {
    "noise": "os.write(REPLY, os.urandom(4096))",
    "no JSON": "tell(b'{')",
    "another kind": "tell({'kind': 'other', 'id': session.request_id})",
    "wrong types": "tell({'kind': 'done', 'id': session.request_id, 'exit_code': '0', 'reply': 1})",
    "a length without end": "os.write(REPLY, b'\\xff\\xff\\xff\\xff')",
    "another id": "tell({'kind': 'done', 'id': 'guess', 'exit_code': 0, 'reply': {'kind': 'none'}})",
    "taken twice": "tell({'kind': 'taken', 'id': session.request_id})",
    "forked unasked": "tell({'kind': 'forked', 'id': session.request_id, 'pids': [2, 3]})",
    "nested without end": "tell(b'[' * (1 << 20))",
    "a display that is none": "tell({'kind': 'display', 'id': session.request_id, 'display': {'kind': 'alert'}})",
}


@pytest.mark.parametrize("what", NONSENSE)
def test_s4_nonsense_on_the_channel_ends_the_interpreter_and_nothing_else(session: casemate.Sandbox, what: str) -> None:
    result = session.run(NONSENSE[what] + "\ntime.sleep(1000)", limits={"timeout": "5s"})
    kinds = {event.kind for event in result.events}
    assert {"bad-reply", "state-lost"} <= kinds, result
    assert result.displays == ()
    assert_ended(session)


def test_s4_a_forged_end_does_not_reach_the_next_call(session: casemate.Sandbox) -> None:
    """Code may end its own call with any answer, as it may print anything; what comes after that is nobody's."""
    forged = (
        "tell({'kind': 'done', 'id': session.request_id, 'exit_code': 0,"
        " 'reply': {'kind': 'value', 'output': 'forged'}})"
    )
    assert session.run(forged).output == "forged"
    try:  # the true end of that call may come before the next one or within it
        later = session.run("output = 1")
    except casemate.StateLost:
        pass
    else:
        assert (later.ok, later.output) == (False, None)
        assert {"bad-reply", "state-lost"} <= {event.kind for event in later.events}
    assert_ended(session)


def test_s4_answers_to_calls_that_are_still_to_come_are_refused(session: casemate.Sandbox) -> None:
    later = """
def pester():
    while True:
        try:
            tell({'kind': 'done', 'id': session.request_id, 'exit_code': 0, 'reply': {'kind': 'none'}})
        except OSError:
            return
        time.sleep(0.01)
threading.Thread(target=pester, daemon=True).start()
"""
    session.run(later)
    ends = []
    for _ in range(20):
        try:
            ends.append(session.run("import time; time.sleep(0.02)"))
        except casemate.StateLost:
            return
    raise AssertionError(ends)


def test_s4_a_reply_that_never_ends_is_stopped_by_the_limit_on_time(
    session: casemate.Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SESSION_GRACE_S", 0.2)
    code = "os.write(REPLY, (1 << 20).to_bytes(4, 'big'))\nwhile True:\n    time.sleep(0.01)\n    os.write(REPLY, b'x')"
    result = session.run(code, limits={"timeout": "300ms"})
    assert result.reason is Reason.TIMEOUT
    assert_ended(session)


def test_o1_displays_without_end_are_stopped_like_output(session: casemate.Sandbox) -> None:
    result = session.run("while True: display('x' * 100_000)", limits={"output": "1Mi"})
    assert result.reason is Reason.OUTPUT
    assert len(result.displays) <= limits.DISPLAYS_MAX
    assert session.run("output = 1").output == 1


def test_s4_a_display_holds_exactly_what_it_says_and_cannot_pose_as_another(session: casemate.Sandbox) -> None:
    code = "display('\\n{\"kind\":\"done\"}\\x00\\x00\\x00\\x01')\nprint('\\x00\\x00\\x00\\x02{}')"
    result = session.run(code)
    assert (result.ok, len(result.displays)) == (True, 1)
    assert result.displays[0].json == '\n{"kind":"done"}\x00\x00\x00\x01'


def test_s4_closing_the_channel_ends_the_interpreter(session: casemate.Sandbox) -> None:
    result = session.run("os.closerange(3, 100)")
    assert "state-lost" in {event.kind for event in result.events}
    assert_ended(session)


# What the next call meets ------------------------------------------------------------------------


def test_p6_a_stopped_interpreter_is_killed_in_time(session: casemate.Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SESSION_GRACE_S", 0.2)
    result = session.run("import signal\nos.kill(os.getpid(), signal.SIGSTOP)", limits={"timeout": "300ms"})
    assert (result.reason, result.signal) == (Reason.TIMEOUT, 9)
    assert_ended(session)


def test_p6_a_handler_that_swallows_interrupts_costs_the_state_and_no_more(
    session: casemate.Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SESSION_GRACE_S", 0.2)
    code = "import signal\nsignal.signal(signal.SIGINT, lambda *_: None)\nwhile True: pass"
    assert session.run(code, limits={"timeout": "300ms"}).signal == 9
    assert_ended(session)


def test_p8_processes_that_code_started_are_interrupted_with_it(session: casemate.Sandbox) -> None:
    result = session.run("os.system('sleep 1000')", limits={"timeout": "300ms"})
    assert result.reason is Reason.TIMEOUT
    assert session.exec(["sh", "-c", "cat /proc/[0-9]*/comm | grep -c sleep"]).stdout.text.strip() == "0"


def test_p8_code_cannot_reach_the_engine_through_its_channel(session: casemate.Sandbox) -> None:
    code = """
import fcntl, stat
kinds = {fd: stat.S_IFMT(os.fstat(fd).st_mode) for fd in (0, 1, 2, 62, 63)}
owner = fcntl.fcntl(62, fcntl.F_GETOWN)
output = [all(kinds[fd] == stat.S_IFIFO for fd in (1, 2, 62, 63)), owner]
"""
    assert session.run(code).output == [True, 0]


# Copies -------------------------------------------------------------------------------------------


def ask_for(sandbox: NativeSandbox, pid: int, fds: tuple[int, int, int, int]) -> int:
    """Have init adopt a process; the errno of its answer."""

    def steps() -> Any:
        with (yield from sandbox.ask(encode_adopt(sandbox.next_id(), pid, fds))) as channel:
            yield Wait(read=(channel.fileno(),))
            report = receive_report(channel)
            assert report is not None
            assert report.kind is ReportKind.SPAWNED
            for fd in report.fds:
                os.close(fd)
            return report.error

    return int(drive(steps()))


def test_p8_init_adopts_only_running_children_with_pipes(session: casemate.Sandbox) -> None:
    sandbox = session._session.sandbox
    own = session.run("output = os.getpid()").output
    child = session.run("import subprocess; p = subprocess.Popen(['sleep', '1000']); output = p.pid").output
    orphan = session.run(
        "r, w = os.pipe()\nif not os.fork():\n    pid = os.fork()\n    if not pid: time.sleep(1000)\n"
        "    os.write(w, str(pid).encode()); os._exit(0)\noutput = int(os.read(r, 20))\nos.wait()"
    ).output
    for pid in (0, 1, own, child, 4_000_000, 2**32 - 1):
        assert ask_for(sandbox, pid, (1, 2, 63, 62)) != 0, pid
    assert ask_for(sandbox, orphan, (0, 1, 2, 3)) != 0  # its standard input is no pipe
    assert ask_for(sandbox, orphan, (1, 2, 4_000_000, 62)) != 0
    assert ask_for(sandbox, orphan, (1, 2, 63, 62)) == 0
    assert session.run("output = 1").output == 1


FORGED_COPIES = {
    "init": "[1]",
    "itself": "[os.getpid()]",
    "nobody": "[4_000_000]",
    "too many": "list(range(2, 3000))",
    "no numbers": "['2']",
    "twice the same": "[os.getpid(), os.getpid()]",
}


@pytest.mark.parametrize("what", FORGED_COPIES)
def test_p8_copies_that_are_none_are_an_error_of_the_guest_alone(session: casemate.Sandbox, what: str) -> None:
    code = (
        f"session._fork = lambda count: tell("
        f"{{'kind': 'forked', 'id': session.request_id, 'pids': {FORGED_COPIES[what]}}})"
    )
    assert session.run(code).ok
    with pytest.raises((casemate.StateLost, casemate.CapacityError, casemate.LaunchError)):
        session.fork(1)
    assert session.exec(["echo", "alive"]).stdout.text == "alive\n"


def test_p8_a_copy_cannot_take_the_nonblocking_flag_from_the_engine(session: casemate.Sandbox) -> None:
    """The engine's ends are open files of their own: what a copy does to its descriptors changes nothing for it."""
    (copy,) = session.fork()
    copy.run("import fcntl\nfor fd in (1, 2, 62, 63): fcntl.fcntl(fd, fcntl.F_SETFL, 0)")
    process = copy._context._process
    assert process is not None
    for fd in (process.stdout_fd, process.stderr_fd, process.request_fd, process.reply_fd):
        assert not os.get_blocking(fd)
    assert copy.run("output = 1").output == 1


def test_p1_copies_that_fork_without_end_meet_the_limit_of_the_sandbox(make: Make) -> None:
    session = make(processes=20)
    copies = session.fork(4)
    bomb = "import os, time\nwhile True:\n    if not os.fork(): time.sleep(1000)"
    result = copies[0].run(bomb)
    assert result.error is not None
    assert result.error.type == "BlockingIOError"
    copies[0].close()
    assert copies[1].run("output = 1").output == 1
    assert session.run("output = 1").output == 1


def test_i9_copies_have_random_numbers_of_their_own(session: casemate.Sandbox) -> None:
    session.run("import random, secrets, uuid\nrandom.seed(0)")
    code = "output = [random.random(), secrets.token_hex(), str(uuid.uuid4()), str(uuid.uuid1())]"
    found = [each.run(code).output for each in everyone(session, session.fork(10))]
    assert all(len(set(column)) == len(found) for column in zip(*found, strict=True))


# Nothing is left ----------------------------------------------------------------------------------


def test_p4_nothing_of_a_session_and_its_copies_is_left(
    engine: casemate.Engine, default_limits: dict[str, Any]
) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    engine.rest()
    before = descriptors()
    with casemate.Sandbox("python", stateful=True, engine=engine, limits=default_limits) as session:
        copies = session.fork(10)
        copies[0].close()
        copies[1].run("import os; os._exit(1)")
        session.run("import os; os._exit(1)")
        session.restart()
        (copies[2].fork(3)[0]).run("1")
    engine.rest()
    assert descriptors() == before


def test_p4_a_sandbox_that_is_closed_under_a_call_ends_it(session: casemate.Sandbox) -> None:
    (copy,) = session.fork()
    outcomes: list[object] = []

    def work(target: casemate.Sandbox | casemate.Fork) -> None:
        try:
            outcomes.append(
                target.run("print('ready', flush=True)\nwhile True: pass", on_output=lambda _: started.release())
            )
        except CasemateError as error:
            outcomes.append(error)

    started = threading.Semaphore(0)
    threads = [threading.Thread(target=work, args=(each,)) for each in (session, copy)]
    for thread in threads:
        thread.start()
    for _ in threads:
        started.acquire()
    session.close()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 2
    for each in outcomes:
        assert isinstance(each, CasemateError) or (isinstance(each, casemate.Result) and not each.ok), each
