"""A start or a run that is left at its first, second, third … wait: closed, interrupted, or its task cancelled."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.faults.leftovers import Census, assert_nothing_left, assert_settles, children, wait_until
from tests.networks import lacks_egress

import casemate
from casemate.engine import drive
from casemate.engine.job import run_job, with_inputs
from casemate.engine.run import prepare_code, prepare_command, run_alone
from casemate.engine.session import Session
from casemate.engine.valve import Valve
from casemate.isolation.native import NativeSandbox
from casemate.isolation.waiting import Ready, Steps, Wait
from casemate.model.result import Chunk
from casemate.model.spec import Mount, SandboxSpec

WAITS_MAX = 60
"""More than any scenario here has."""

THIS = Path(__file__).name
SOON = {"timeout": "50ms"}
CODE = "import sys\nprint(sys.stdin.read())\nopen('out', 'w').write('x')\noutput = input"

Scenario = Callable[[casemate.Engine], Steps[Any]]
Leave = Callable[[Steps[Any]], None]


def code_run(engine: casemate.Engine, token: casemate.CancelToken | None = None) -> Steps[Any]:
    run = prepare_code(engine, CODE, runtime="python", input=[1], files={"a/b": b"x"}, collect=["**/*"], stdin=b"text")
    return run_alone(engine, run, token)


def command_run(engine: casemate.Engine) -> Steps[Any]:
    return run_alone(engine, prepare_command(engine, ["sh", "-c", "echo a; sleep 0.01; echo b"]))


def endless_run(engine: casemate.Engine) -> Steps[Any]:
    return run_alone(engine, prepare_command(engine, ["sh", "-c", "sleep 1000 & yes"], limits={"output": "256Ki"}))


def late_run(engine: casemate.Engine) -> Steps[Any]:
    return run_alone(engine, prepare_command(engine, ["sleep", "1000"], limits={"timeout": "50ms"}))


def job_run(engine: casemate.Engine) -> Steps[Any]:
    run = prepare_command(engine, ["sh", "-c", "echo a; sleep 0.01; echo x > output/f; cat data"])
    with_files = with_inputs(run, [Mount(str(Path(__file__).parent), "/work/input")], [("data", f"input/{THIS}")])
    return run_job(engine, with_files, casemate.CancelToken(), Valve(), ("*.txt",))  # type: ignore[return-value]


def close(steps: Steps[Any]) -> None:
    steps.close()


def interrupt(steps: Steps[Any]) -> None:
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt())


def step_through(steps: Steps[Any]) -> Iterator[Wait | Chunk]:
    """The items of the steps, as a driver would wait for them; stops at their end."""
    ready: Ready | None = None
    while True:
        item = drive._advance(steps, ready)
        if isinstance(item, drive._End):
            if isinstance(item.value, NativeSandbox):
                item.value.close()
            return
        yield item
        ready = drive._poll(item) if isinstance(item, Wait) else frozenset()


def leave_at(steps: Steps[Any], number: int, leave: Leave) -> bool:
    """Whether the steps had that many items, and were left at that one."""
    for count, _ in enumerate(step_through(steps)):
        if count == number:
            leave(steps)
            return True
    return False


def start(engine: casemate.Engine) -> Steps[Any]:
    return engine.start(SandboxSpec())


@pytest.mark.parametrize("leave", [close, interrupt], ids=lambda leave: leave.__name__)
@pytest.mark.parametrize(
    "scenario", [start, code_run, command_run, endless_run, late_run, job_run], ids=lambda scenario: scenario.__name__
)
def test_steps_left_at_each_wait(engine: casemate.Engine, before: Census, scenario: Scenario, leave: Leave) -> None:
    left = 0
    while left < WAITS_MAX and leave_at(scenario(engine), left, leave):
        assert_settles(engine, before)
        left += 1
    assert left >= 2
    assert_nothing_left(engine, before)


REACH = "import socket\nfor _ in range(3):\n    socket.create_connection(('10.0.0.1', 80))\n"


def network_run(engine: casemate.Engine) -> Steps[Any]:
    return run_alone(engine, prepare_code(engine, REACH, runtime="python", network=[]))


def network_job_run(engine: casemate.Engine) -> Steps[Any]:
    run = msgspec.structs.replace(prepare_code(engine, REACH, runtime="python", network=[]), tells_flows=True)
    return run_job(engine, run, casemate.CancelToken(), Valve())  # type: ignore[return-value]


def network_session(engine: casemate.Engine) -> Steps[Any]:
    session = Session(engine, runtime="bash", limits=None, require=(), network=[])
    try:
        yield from session.start()
    finally:
        session.close()


@pytest.fixture(scope="module")
def gateway(engine: casemate.Engine) -> None:
    """The gateway of this engine, started before anything is counted."""
    if lacks_egress(engine):
        pytest.skip("layer egress: this kernel has no nf_tables with tproxy")
    assert casemate.execute(["true"], engine=engine, network=[]).ok


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize("leave", [close, interrupt], ids=lambda leave: leave.__name__)
@pytest.mark.parametrize(
    "scenario", [network_run, network_job_run, network_session], ids=lambda scenario: scenario.__name__
)
def test_steps_with_a_network_left_at_each_wait(
    engine: casemate.Engine, before: Census, scenario: Scenario, leave: Leave
) -> None:
    left = 0
    while left < WAITS_MAX and leave_at(scenario(engine), left, leave):
        assert_settles(engine, before)
        left += 1
    assert left >= 2
    assert_nothing_left(engine, before)


def session_run(session: Session) -> Steps[Any]:
    return session.run("sleep 1000 & echo x; sleep 1000", files={"a/b": b"x"}, limits={"timeout": "50ms"})


def session_exec(session: Session) -> Steps[Any]:
    return session.exec(["sleep", "1000"], stdin=b"x", limits={"timeout": "50ms"})


def session_write(session: Session) -> Steps[Any]:
    return session.write("deep/in/a/file", b"x")


def session_read(session: Session) -> Steps[Any]:
    return session.list(".")


@pytest.mark.parametrize("leave", [close, interrupt], ids=lambda leave: leave.__name__)
@pytest.mark.parametrize(
    "scenario", [session_run, session_exec, session_write, session_read], ids=lambda scenario: scenario.__name__
)
def test_steps_in_a_sandbox_that_stays_left_at_each_wait(
    engine: casemate.Engine, before: Census, scenario: Callable[[Session], Steps[Any]], leave: Leave
) -> None:
    """Whatever was started ends; the sandbox itself goes on."""
    with casemate.Sandbox("bash", engine=engine) as sandbox:
        session, init = sandbox._session, sandbox._session.sandbox.pid
        left = 0
        while left < WAITS_MAX and leave_at(scenario(session), left, leave):
            assert wait_until(lambda: not children(init)), f"left at {left}: {children(init)}"
            left += 1
        assert left >= 1
        assert sandbox.exec(["true"]).ok
    assert_nothing_left(engine, before)


def live_call(session: Session) -> Steps[Any]:
    return session.run("print('x', flush=True)\ndisplay(1)\nwhile True: pass", files={"a/b": b"x"}, limits=SOON)


def live_restart(session: Session) -> Steps[Any]:
    return session.restart()


def live_fork(session: Session) -> Steps[Any]:
    return session.fork(3)


@pytest.mark.parametrize("leave", [close, interrupt], ids=lambda leave: leave.__name__)
@pytest.mark.parametrize("scenario", [live_call, live_restart, live_fork], ids=lambda scenario: scenario.__name__)
def test_steps_of_a_live_interpreter_left_at_each_wait(
    engine: casemate.Engine, before: Census, scenario: Callable[[Session], Steps[Any]], leave: Leave
) -> None:
    """What was left is over or goes on, and says so; a new interpreter can be had in either case."""
    left, was_left = 0, True
    while left < WAITS_MAX and was_left:
        with casemate.Sandbox("python", stateful=True, engine=engine) as sandbox:
            was_left = leave_at(scenario(sandbox._session), left, leave)
            try:
                assert sandbox.run("1").ok
            except casemate.StateLost:
                sandbox.restart()
            assert sandbox.run("2").ok
        left += 1
    assert 2 <= left < WAITS_MAX
    assert_nothing_left(engine, before)


class CancelAtWait:
    """Cancels the running task when it comes to its n-th wait."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.count = 0
        self._wait = drive._wait_async

    async def __call__(self, wait: Wait) -> Ready:
        if self.count == self.number:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        self.count += 1
        return await self._wait(wait)


async def acode(engine: casemate.Engine) -> None:
    await casemate.arun(CODE, input=[1], files={"a/b": b"x"}, collect=["**/*"], stdin=b"text", engine=engine)


async def astreamed(engine: casemate.Engine) -> None:
    async for _ in casemate.astream("sleep 0.01; echo x; sleep 0.01", "bash", engine=engine):
        continue


async def asandbox(engine: casemate.Engine) -> None:
    async with casemate.AsyncSandbox("bash", engine=engine) as sandbox:
        await sandbox.files.write("a/b", "x")
        await sandbox.run("echo x; sleep 0.01")
        async with await sandbox.open_pty(["cat"]) as terminal:
            await terminal.write(b"x\n")
            await terminal.read()


@pytest.mark.parametrize("scenario", [acode, astreamed, asandbox], ids=lambda scenario: scenario.__name__)
def test_tasks_cancelled_at_each_wait(
    engine: casemate.Engine, before: Census, monkeypatch: pytest.MonkeyPatch, scenario: Callable[..., Any]
) -> None:
    for number in range(WAITS_MAX):
        with monkeypatch.context() as patch:
            patch.setattr(drive, "_wait_async", canceller := CancelAtWait(number))
            try:
                asyncio.run(scenario(engine))
            except asyncio.CancelledError:
                assert_settles(engine, before)
            else:
                assert canceller.count <= number
                break
    assert number >= 4
    assert_nothing_left(engine, before)


WAITS_AFTER_CANCEL_MAX = 2
"""For the answer to a request that is on its way, and for the end of the sandbox whose files are wanted."""

Cancellable = Callable[[casemate.CancelToken], Steps[casemate.Result]]


def cancelled_at(number: int, scenario: Cancellable) -> tuple[casemate.Result, bool]:
    """The Result of a run whose token is used at its n-th wait, and whether it came to that many."""
    token, wait, count = casemate.CancelToken(), drive._poll, 0

    def use_token(item: Wait) -> Ready:
        nonlocal count
        if count == number:
            token.cancel()
        count += 1
        return wait(item)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drive, "_poll", use_token)
        result = drive.drive(scenario(token))
    assert count <= number + 1 + WAITS_AFTER_CANCEL_MAX
    return result, count > number


def test_token_used_at_each_wait(engine: casemate.Engine, before: Census) -> None:
    """Start, files, the program, its end, what is collected: all of it ends, and says why."""
    number = 0
    while (ending := cancelled_at(number, lambda token: code_run(engine, token)))[1]:
        assert ending[0].reason is casemate.Reason.CANCELLED, number
        assert_settles(engine, before)
        number += 1
    assert number >= 6
    assert ending[0].ok
    assert_nothing_left(engine, before)


def test_token_used_at_each_wait_in_a_sandbox_that_stays(engine: casemate.Engine, before: Census) -> None:
    """While a program runs there is a wait every now and then, so how many there are is a matter of time."""
    results: list[casemate.Result] = []
    with casemate.Sandbox("bash", engine=engine) as sandbox:
        session, init = sandbox._session, sandbox._session.sandbox.pid
        while (ending := cancelled_at(len(results), lambda token: session_cancellable(session, token)))[1]:
            results.append(ending[0])
            assert wait_until(lambda: not children(init))
    cancelled = [each for each in results if each.reason is casemate.Reason.CANCELLED]
    late = [ending[0], *(each for each in results if each not in cancelled)]
    assert len(cancelled) >= 4
    # These had been stopped for another reason when the token was used, if it was used at all.
    assert {each.reason for each in late} == {casemate.Reason.TIMEOUT}
    assert min(each.usage.wall_s for each in late) >= SESSION_TIMEOUT_S
    assert_nothing_left(engine, before)


SESSION_TIMEOUT_S = 0.5


def session_cancellable(session: Session, token: casemate.CancelToken) -> Steps[casemate.Result]:
    limits = {"timeout": SESSION_TIMEOUT_S}
    return session.run("sleep 1000", files={"a/b": b"x"}, limits=limits, cancel=token)


def test_many_tasks_cancelled_together(engine: casemate.Engine, before: Census) -> None:
    async def several() -> None:
        tasks = [asyncio.create_task(casemate.aexecute(["sleep", "1000"], engine=engine)) for _ in range(12)]
        done, _ = await asyncio.wait(tasks, timeout=0.03)
        assert not done
        for task in tasks:
            task.cancel()
        endings = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(ending, asyncio.CancelledError) for ending in endings)

    asyncio.run(several())
    assert_nothing_left(engine, before)


def test_interrupt_from_the_keyboard_while_a_program_runs(engine: casemate.Engine, before: Census) -> None:
    def press(_: Chunk) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        casemate.execute(["sh", "-c", "echo ready; sleep 1000"], on_output=press, engine=engine)
    assert_nothing_left(engine, before)


def test_callback_that_raises(engine: casemate.Engine, before: Census) -> None:
    def refuse(_: Chunk) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        casemate.execute(["sh", "-c", "echo ready; sleep 1000"], on_output=refuse, engine=engine)
    assert_nothing_left(engine, before)


def test_stream_that_is_closed_early(engine: casemate.Engine, before: Census) -> None:
    with casemate.stream("echo ready; sleep 1000", "bash", engine=engine) as chunks:
        assert next(chunks).data == b"ready\n"
    assert_nothing_left(engine, before)
