"""The sandbox's own PID 1 is killed from the host, while it is being built and while it serves."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest
from tests.faults.leftovers import Census, assert_nothing_left, children, wait_until
from tests.faults.test_interrupts import Scenario, code_run, start, step_through

import casemate
from casemate.engine.drive import drive
from casemate.engine.run import prepare_command, run_alone
from casemate.engine.session import Session
from casemate.isolation.waiting import Steps
from casemate.model.result import Chunk, Reason, Result

TYPED = (casemate.LaunchError, casemate.SandboxClosed, casemate.FileTransferError)


def kill_if_there(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_inits(engine: casemate.Engine) -> None:
    for pid in children(engine.backend.launcher.pid):
        kill_if_there(pid)


@pytest.mark.parametrize("scenario", [start, code_run], ids=lambda scenario: scenario.__name__)
def test_killed_at_each_wait(engine: casemate.Engine, before: Census, scenario: Scenario) -> None:
    """At the first waits there may be a keeper only, or nobody yet."""
    for number in range(60):
        reached = False
        try:
            for count, _ in enumerate(step_through(scenario(engine))):
                if count == number:
                    reached = True
                    kill_inits(engine)
        except TYPED:
            pass
        assert_nothing_left(engine, before)
        if not reached:
            break
    assert number >= 2


@pytest.mark.parametrize("nth", range(12))
def test_killed_while_it_is_being_built(engine: casemate.Engine, before: Census, nth: int) -> None:
    """A watcher that kills whatever the launcher starts, a little later each time."""
    stop = threading.Event()

    def hunt() -> None:
        launcher, looks = engine.backend.launcher.pid, 0
        while not stop.is_set():
            if found := children(launcher):
                looks += 1
                if looks > nth:
                    for pid in found:
                        kill_if_there(pid)
                    return

    hunter = threading.Thread(target=hunt)
    hunter.start()
    try:
        result = casemate.execute(["sleep", "1000"], limits={"timeout": "2s"}, engine=engine)
        assert result.reason is Reason.LOST
    except TYPED:
        pass
    finally:
        stop.set()
        hunter.join()
    assert_nothing_left(engine, before)


def test_killed_while_a_program_runs(engine: casemate.Engine, before: Census) -> None:
    def kill(_: Chunk) -> None:
        kill_inits(engine)

    result = casemate.execute(["sh", "-c", "echo ready; sleep 1000"], on_output=kill, engine=engine)
    assert (result.reason, result.exit_code, result.signal) == (Reason.LOST, None, None)
    assert result.stdout.head == b"ready\n"
    assert_nothing_left(engine, before)


def test_killed_before_files_are_collected(engine: casemate.Engine, before: Census) -> None:
    """What the program had written is still there: the directory outlives the processes."""
    result = casemate.execute(
        ["sh", "-c", "echo x > kept; echo ready; sleep 1000"],
        collect=["*"],
        on_output=lambda _: kill_inits(engine),
        engine=engine,
    )
    assert result.reason is Reason.LOST
    assert [file.path for file in result.files] == ["kept"]
    assert_nothing_left(engine, before)


def session_uses(session: Session) -> list[Callable[[], Steps[object]]]:
    return [
        lambda: session.exec(["true"]),
        lambda: session.run("true"),
        lambda: session.write("a", b"x"),
        lambda: session.list("."),
        lambda: session.remove("a"),
        lambda: session.open_pty(["true"], rows=24, columns=80, env=None),
    ]


def test_killed_between_two_uses_of_a_sandbox(engine: casemate.Engine, before: Census) -> None:
    with casemate.Sandbox("bash", engine=engine) as sandbox:
        session = sandbox._session
        os.kill(session.sandbox.pid, signal.SIGKILL)
        for use in session_uses(session):
            with pytest.raises(casemate.SandboxClosed):
                drive(use())
    assert_nothing_left(engine, before)


def test_killed_under_many_programs_at_once(engine: casemate.Engine, before: Census) -> None:
    results: list[Result | casemate.CasemateError] = []
    with casemate.Sandbox("bash", engine=engine) as sandbox:
        init = sandbox._session.sandbox.pid

        def use() -> None:
            try:
                results.append(sandbox.exec(["sleep", "1000"]))
            except casemate.CasemateError as error:
                results.append(error)

        threads = [threading.Thread(target=use) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert wait_until(lambda: len(children(init)) == 8)
        os.kill(init, signal.SIGKILL)
        for thread in threads:
            thread.join()
    outcomes = {result.reason if isinstance(result, Result) else type(result) for result in results}
    assert (len(results), outcomes - {casemate.SandboxClosed}) == (8, {Reason.LOST})
    assert_nothing_left(engine, before)


def test_stopped_init_is_still_killed(engine: casemate.Engine, before: Census) -> None:
    def stop(_: Chunk) -> None:
        for pid in children(engine.backend.launcher.pid):
            with suppress(ProcessLookupError):  # what has helped to start it has ended
                os.kill(pid, signal.SIGSTOP)

    run = prepare_command(engine, ["sh", "-c", "echo ready; sleep 1000"], limits={"timeout": "200ms"})
    ended = []
    steps = run_alone(engine, run)
    for item in step_through(steps):
        if isinstance(item, Chunk):
            stop(item)
        ended.append(item)
    assert ended
    assert_nothing_left(engine, before)
