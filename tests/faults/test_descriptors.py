"""No free descriptor at the first, second, third … place that needs one: typed errors, no leak, then it works again."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.faults.leftovers import Census, assert_nothing_left, descriptors, take_census, wait_until

import casemate
from casemate.config import Config, EngineConfig
from casemate.isolation.launcher import PROGRAM, Launcher
from casemate.model.result import Chunk, Reason

FREE_MAX = 60
"""More than any action here needs."""


@contextmanager
def free_descriptors(count: int) -> Iterator[None]:
    """So many descriptors can be opened inside: holes are filled and the limit stands right behind them."""
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    fillers = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)]
    while fillers[-1] < highest:
        fillers.append(os.dup(fillers[0]))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (fillers[-1] + 1 + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fillers:
            os.close(fd)


def failures_until_it_works(action: Callable[[], object]) -> list[type[casemate.CasemateError]]:
    """Each try has one descriptor more; whatever is raised that is not ours fails the test."""
    failures: list[type[casemate.CasemateError]] = []
    for count in range(FREE_MAX):
        with free_descriptors(count):
            try:
                action()
            except casemate.CasemateError as error:
                failures.append(type(error))
            else:
                return failures
    raise AssertionError(f"does not work with {FREE_MAX} free descriptors: {failures[-1]}")


def use_command(engine: casemate.Engine) -> None:
    assert casemate.execute(["cat"], stdin=b"x", engine=engine).stdout.head == b"x"


def use_code(engine: casemate.Engine) -> None:
    result = casemate.run(
        "open('out', 'w').write('x')\noutput = input",
        input=1,
        files={"a/b": b"x"},
        collect=["**/*"],
        cancel=casemate.CancelToken(),
        engine=engine,
    )
    assert (result.output, len(result.files)) == (1, 2), result


def use_text_channel(engine: casemate.Engine) -> None:
    assert casemate.run("output=1", "bash", engine=engine).output == 1


def use_sandbox(engine: casemate.Engine) -> None:
    with casemate.Sandbox("bash", engine=engine) as sandbox:
        sandbox.files.write("a/b", "x")
        assert sandbox.files.read("a/b") == b"x"
        assert [info.name for info in sandbox.files.list()] == ["a"]
        assert len(sandbox.files.collect("**/*")) == 1
        sandbox.files.remove("a/b")
        assert sandbox.run("echo x").stdout.head == b"x\n"
        with sandbox.open_pty(["true"]) as terminal:
            assert terminal.wait() == 0


def use_stream(engine: casemate.Engine) -> None:
    with casemate.stream("echo x", "bash", engine=engine) as chunks:
        assert b"".join(chunk.data for chunk in chunks) == b"x\n"


ACTIONS = (use_command, use_code, use_text_channel, use_sandbox, use_stream)


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__)
def test_engine_that_is_open(
    engine: casemate.Engine, before: Census, action: Callable[[casemate.Engine], None]
) -> None:
    action(engine)
    failures = failures_until_it_works(lambda: action(engine))
    assert len(failures) > 3
    assert set(failures) <= {casemate.CapacityError, casemate.LaunchError}
    assert_nothing_left(engine, before)


def test_asyncio(engine: casemate.Engine, before: Census) -> None:
    loop = asyncio.new_event_loop()
    try:
        failures = failures_until_it_works(
            lambda: loop.run_until_complete(casemate.arun("echo x", "bash", engine=engine))
        )
    finally:
        loop.close()
    assert set(failures) == {casemate.CapacityError}
    assert_nothing_left(engine, before)


def test_engine_that_is_being_opened() -> None:
    def open_and_use() -> None:
        with casemate.Engine(warm=False) as opened:
            use_command(opened)
            assert opened.backend.cgroups is not None

    open_and_use()
    before = descriptors(os.getpid())
    failures = failures_until_it_works(open_and_use)
    assert len(failures) > 5
    assert set(failures) <= {casemate.CapacityError, casemate.LaunchError}
    assert descriptors(os.getpid()) == before


def test_no_engine_opens_without_control_groups_for_want_of_a_descriptor(engine: casemate.Engine) -> None:
    for count in range(FREE_MAX):
        with free_descriptors(count):
            try:
                opened = casemate.Engine(warm=False)
            except casemate.CasemateError:
                continue
        with opened:
            assert type(opened.backend.cgroups) is type(engine.backend.cgroups)
        return
    raise AssertionError("no engine opens at all")


def test_program_that_cannot_be_watched_for_want_of_a_descriptor() -> None:
    """Without control groups a running program is watched through files that are opened anew each time."""
    with casemate.Engine(Config(engine=EngineConfig(cgroup="none")), warm=False) as engine, ExitStack() as stack:
        assert casemate.execute(["true"], engine=engine).ok
        before = take_census(engine)
        result = casemate.execute(
            ["sh", "-c", "echo ready; sleep 1000"],
            on_output=lambda _: stack.enter_context(free_descriptors(0)),
            engine=engine,
        )
        stack.close()
        assert (result.reason, result.stdout.head) == (Reason.INTERNAL, b"ready\n")
        assert [event.kind for event in result.events] == ["internal"]
        assert_nothing_left(engine, before)


def test_launcher_and_init_without_descriptors(
    engine: casemate.Engine, before: Census, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher has its own, lower limit each time; what it cannot receive or open ends that start only."""
    failures = []
    for count in range(4, 100):
        program = tmp_path / f"launcher-{count}"
        program.write_text(f"#!/bin/sh\nulimit -n {count}\nexec {PROGRAM}\n")
        program.chmod(0o755)
        launcher = Launcher(program, copy=False)
        with monkeypatch.context() as patch:
            patch.setattr(engine.backend, "_launcher", launcher)
            try:
                result = casemate.execute(["true"], limits={"open_files": 64}, engine=engine)
            except casemate.CasemateError as error:
                failures.append(type(error))
                launcher.close()
                continue
        launcher.close()
        assert result.ok
        break
    assert len(failures) > 3
    assert set(failures) <= {casemate.CapacityError, casemate.LaunchError}
    assert_nothing_left(engine, before)


UNTIL_NONE_SLEEPS = "while pgrep sleep > /dev/null; do :; done; echo none"
"""What was killed is there until it has had a processor to die on."""


def test_a_program_is_killed_without_any_descriptor(engine: casemate.Engine, before: Census) -> None:
    with casemate.Sandbox("bash", engine=engine) as sandbox:
        assert cancelled_without_descriptors(sandbox).reason is Reason.CANCELLED
        assert sandbox.exec(["sh", "-c", UNTIL_NONE_SLEEPS]).stdout.text == "none\n"
    assert_nothing_left(engine, before)


def cancelled_without_descriptors(sandbox: casemate.Sandbox) -> casemate.Result:
    token = casemate.CancelToken()
    with ExitStack() as used_up:

        def cancel(_: Chunk) -> None:
            used_up.enter_context(free_descriptors(0))
            token.cancel()

        return sandbox.exec(["sh", "-c", "echo on; sleep 1000"], cancel=token, on_output=cancel)


def test_sandbox_whose_terminals_are_used_up(engine: casemate.Engine, before: Census) -> None:
    """Terminals are counted for each sandbox; when there are no more, that passes."""
    with casemate.Sandbox("bash", limits={"open_files": 64, "processes": 200}, engine=engine) as sandbox:
        terminals = [terminal for _ in range(80) if (terminal := _terminal(sandbox))]
        assert 20 < len(terminals) < 80
        for terminal in terminals:
            terminal.close()
        assert wait_until(lambda: _works(sandbox))
    assert_nothing_left(engine, before)


def _terminal(sandbox: casemate.Sandbox) -> casemate.Terminal | None:
    try:
        return sandbox.open_pty(["sleep", "1000"])
    except casemate.CapacityError:
        return None


def _works(sandbox: casemate.Sandbox) -> bool:
    try:
        return sandbox.exec(["true"]).ok
    except casemate.CapacityError:
        return False
