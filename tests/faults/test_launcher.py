"""The launcher missing, broken, hung or killed: a typed error or reason `lost`, and the next run starts another."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.faults.leftovers import assert_recovers, assert_settles, children, take_census, wait_until
from tests.faults.test_interrupts import Scenario, code_run, start, step_through

import casemate
from casemate import limits
from casemate.engine.drive import drive
from casemate.isolation.launcher import Launcher
from casemate.model.result import Chunk, Reason
from casemate.model.spec import SandboxSpec


@pytest.fixture
def fresh() -> Iterator[casemate.Engine]:
    """An engine of its own, warm."""
    with casemate.Engine(warm=False) as engine:
        assert casemate.execute(["true"], engine=engine).ok
        yield engine


def kill_launcher(engine: casemate.Engine) -> None:
    """Returns when it is dead; burying it is the engine's affair."""
    os.kill(engine.backend.launcher.pid, signal.SIGKILL)
    os.waitid(os.P_PID, engine.backend.launcher.pid, os.WEXITED | os.WNOWAIT)


def use_program(engine: casemate.Engine, monkeypatch: pytest.MonkeyPatch, program: Path) -> None:
    monkeypatch.setattr(engine.backend, "_launcher", Launcher(program, copy=False))


def script(directory: Path, text: str, mode: int = 0o755) -> Path:
    path = directory / "launcher"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return path


def test_killed_between_two_runs(fresh: casemate.Engine) -> None:
    before, first = take_census(fresh), fresh.backend.launcher.pid
    for _ in range(5):
        kill_launcher(fresh)
        assert casemate.execute(["true"], engine=fresh).ok
    assert fresh.backend.launcher.pid != first
    assert_recovers(fresh, before)


@pytest.mark.parametrize("scenario", [start, code_run], ids=lambda scenario: scenario.__name__)
def test_killed_at_each_wait(fresh: casemate.Engine, scenario: Scenario) -> None:
    """A start in flight may still succeed: init then only ends together with the engine, or when it is closed."""
    before = take_census(fresh)
    for number in range(60):
        ended = False
        try:
            for count, _ in enumerate(step_through(scenario(fresh))):
                if count == number:
                    kill_launcher(fresh)
                    ended = True
        except (casemate.LaunchError, casemate.SandboxClosed, casemate.CapacityError):
            ended = True
        assert casemate.execute(["true"], engine=fresh).ok
        assert_settles(fresh, before)
        if not ended:
            break
    assert number >= 2


def test_killed_while_a_program_runs(fresh: casemate.Engine) -> None:
    before = take_census(fresh)
    result = casemate.execute(
        ["sh", "-c", "setsid sleep 1000 & echo ready; sleep 1000"],
        on_output=lambda _: kill_launcher(fresh),
        engine=fresh,
    )
    assert (result.reason, result.ok, result.exit_code, result.stdout.head) == (Reason.LOST, False, None, b"ready\n")
    assert_recovers(fresh, before)


def test_killed_while_sandboxes_are_open(fresh: casemate.Engine) -> None:
    before = take_census(fresh)
    sandbox = casemate.Sandbox("bash", engine=fresh)
    terminal = sandbox.open_pty(["cat"])
    init = sandbox._session.sandbox
    kill_launcher(fresh)
    init.wait_dead()
    with pytest.raises(casemate.SandboxClosed):
        sandbox.exec(["true"])
    with pytest.raises(casemate.SandboxClosed):
        sandbox.files.write("x", "x")
    with pytest.raises(casemate.SandboxClosed):
        terminal.wait()
    terminal.close()
    sandbox.close()
    with casemate.Sandbox("bash", engine=fresh) as another:
        assert another.exec(["true"]).ok
    assert_recovers(fresh, before)


def test_killed_again_and_again_under_load(fresh: casemate.Engine) -> None:
    """Threads see results, reason `lost`, or a typed error; never anything else, and never nothing."""
    before, seen, stop = take_census(fresh), [], threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            try:
                seen.append(casemate.execute(["true"], engine=fresh).reason.value)
            except casemate.CasemateError as error:
                seen.append(error.code)

    threads = [threading.Thread(target=repeat) for _ in range(4)]
    for thread in threads:
        thread.start()
    for kills in range(20):
        assert wait_until(lambda: len(seen) > 10 * kills)  # noqa: B023 - called at once
        if pid := fresh.backend.launcher.pid:
            with suppress(ProcessLookupError):  # a thread has just buried it
                os.kill(pid, signal.SIGKILL)
    stop.set()
    for thread in threads:
        thread.join()
    assert set(seen) <= {"exit", "lost", "launch_failed", "sandbox_closed"}
    assert seen.count("exit") > len(seen) / 4
    assert_recovers(fresh, before)


def test_missing(fresh: casemate.Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = take_census(fresh)
    with monkeypatch.context() as patch:
        use_program(fresh, patch, tmp_path / "missing")
        with pytest.raises(casemate.LaunchError, match="make setup") as caught:
            casemate.execute(["true"], engine=fresh)
    assert (caught.value.step, caught.value.errno) == ("launcher", errno.ENOENT)
    assert_recovers(fresh, before)


@pytest.mark.parametrize(
    ("text", "mode", "number"),
    [("", 0o644, errno.EACCES), ("\x7fELF", 0o755, 0)],
    ids=["not executable", "not a program"],
)
def test_not_a_program(
    fresh: casemate.Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, text: str, mode: int, number: int
) -> None:
    before = take_census(fresh)
    with monkeypatch.context() as patch:
        use_program(fresh, patch, script(tmp_path, text, mode))
        with pytest.raises(casemate.LaunchError) as caught:
            casemate.execute(["true"], engine=fresh)
        fresh.backend.launcher.close()
    assert caught.value.step == "launcher"
    assert number in {0, caught.value.errno}
    assert_recovers(fresh, before)


@pytest.mark.parametrize("text", ["exit 0", "exit 1", "kill -9 $$", "read line <&3; exit 0"])
def test_ends_at_once(fresh: casemate.Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    before = take_census(fresh)
    with monkeypatch.context() as patch:
        use_program(fresh, patch, script(tmp_path, text))
        for _ in range(3):
            with pytest.raises(casemate.LaunchError):
                casemate.execute(["true"], engine=fresh)
        fresh.backend.launcher.close()
    assert_recovers(fresh, before)


def test_hangs(fresh: casemate.Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = take_census(fresh)
    with monkeypatch.context() as patch:
        patch.setattr(limits, "LAUNCH_TIMEOUT_S", 0.1)
        patch.setattr(limits, "HANG_UP_TIMEOUT_S", 0.1)
        use_program(fresh, patch, script(tmp_path, "exec sleep 1000"))
        with pytest.raises(casemate.LaunchError) as caught:
            casemate.execute(["true"], engine=fresh)
        fresh.backend.launcher.close()
    assert caught.value.errno == errno.ETIMEDOUT
    assert_recovers(fresh, before)


def test_stopped_and_continued(fresh: casemate.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it finds in its socket later has nobody waiting for it any more."""
    before = take_census(fresh)
    os.kill(fresh.backend.launcher.pid, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(limits, "LAUNCH_TIMEOUT_S", 0.1)
        patch.setattr(limits, "HANG_UP_TIMEOUT_S", 0.1)
        for _ in range(3):
            with pytest.raises(casemate.LaunchError) as caught:
                casemate.execute(["true"], engine=fresh)
            assert caught.value.errno == errno.ETIMEDOUT
    os.kill(fresh.backend.launcher.pid, signal.SIGCONT)
    assert_recovers(fresh, before)


def test_engine_closes_although_its_launcher_is_stopped() -> None:
    with casemate.Engine(warm=False) as engine:
        sandbox = drive(engine.start(SandboxSpec()))
        os.kill(engine.backend.launcher.pid, signal.SIGSTOP)
        launcher = engine.backend.launcher.pid
    assert launcher not in children(os.getpid())
    sandbox.wait_dead()
    sandbox.close()


def test_closed_engine_starts_nothing(fresh: casemate.Engine) -> None:
    fresh.close()
    with pytest.raises(casemate.SandboxClosed):
        casemate.execute(["true"], engine=fresh)
    with pytest.raises(casemate.SandboxClosed):
        fresh.backend.launcher.send(b"", [])
    assert fresh.backend.launcher.pid == 0


def test_engine_closed_while_programs_run(fresh: casemate.Engine) -> None:
    def close(_: Chunk) -> None:
        fresh.close()

    result = casemate.execute(["sh", "-c", "echo ready; sleep 1000"], on_output=close, engine=fresh)
    assert result.reason in {Reason.LOST, Reason.SIGNAL}
