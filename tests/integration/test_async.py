"""The twins for asyncio: the same results, and a cancelled task or a closed iterator that kills at once."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

import casemate
from casemate.engine import request
from casemate.engine import run as run_module
from casemate.engine import session as session_module
from casemate.isolation.native import NativeSandbox
from casemate.model.result import Reason

T = TypeVar("T")
AT_ONCE = 50
LEFT_EARLY = ["sh", "-c", "echo on; sleep 1000"]


@pytest.fixture
def options(engine: casemate.Engine, generous: dict[str, Any]) -> dict[str, Any]:
    return {"engine": engine, "limits": generous}


def run_on_a_loop(test: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        return await test()

    return asyncio.run(main())


def text_of(result: casemate.Result) -> str:
    assert result.ok, (result.reason, result.exit_code, result.signal, result.error, result.stderr.text[-400:])
    return result.stdout.text


# Runs ---------------------------------------------------------------------------------------------


def test_code_and_programs_run_as_without_asyncio(options: dict[str, Any]) -> None:
    async def test() -> None:
        chunks: list[casemate.Chunk] = []
        given: dict[str, Any] = {"files": {"a.txt": b"1"}, "collect": ["*.txt"], "input": [1]}
        given |= {"args": ["x"], "stdin": b"in"}
        code = "import sys\nprint(sys.stdin.read(), sys.argv[1:])\nopen('b.txt', 'w').write('2')\noutput = input"
        result = await casemate.arun(code, on_output=chunks.append, **options, **given)
        assert text_of(result) == "in ['x']\n"
        assert result.output == [1]
        assert [file.path for file in result.files] == ["a.txt", "b.txt"]
        assert b"".join(chunk.data for chunk in chunks) == result.stdout.head
        assert text_of(await casemate.aexecute(["echo", "hi"], **options)) == "hi\n"

    run_on_a_loop(test)


def test_the_same_reasons_come_back(options: dict[str, Any]) -> None:
    async def test() -> None:
        engine = options["engine"]
        timed = await casemate.aexecute(["sleep", "1000"], engine=engine, limits={"timeout": "100ms"})
        assert timed.reason is Reason.TIMEOUT
        assert (await casemate.aexecute(["sh", "-c", "exit 3"], **options)).exit_code == 3
        assert (await casemate.arun("1/0", **options)).reason is Reason.EXCEPTION

    run_on_a_loop(test)


def test_bad_input_is_refused_before_anything_starts() -> None:
    async def test() -> None:
        with casemate.Engine(warm=False) as own:
            with pytest.raises(casemate.InvalidInput, match=r"^limits\.memory"):
                await casemate.arun("1", engine=own, limits={"memory": -1})
            with pytest.raises(casemate.InvalidInput, match=r"^argv"):
                await casemate.aexecute([], engine=own)
            with pytest.raises(casemate.UnknownRuntime):
                casemate.astream("1", "cobol", engine=own)
            assert own.backend.launcher.pid == 0

    run_on_a_loop(test)


def test_many_runs_at_once_each_get_their_own(options: dict[str, Any]) -> None:
    async def test() -> list[str]:
        script = ["sh", "-c", "echo $0; cat"]
        runs = [casemate.aexecute([*script, str(n)], stdin=f"in {n}", **options) for n in range(AT_ONCE)]
        return [text_of(result) for result in await asyncio.gather(*runs)]

    before = descriptors(options["engine"])
    assert run_on_a_loop(test) == [f"{n}\nin {n}" for n in range(AT_ONCE)]
    assert descriptors(options["engine"]) == before


def descriptors(engine: casemate.Engine) -> int:
    """How many are open when nothing runs; some are opened for the first run of all."""
    assert casemate.execute(["true"], engine=engine).ok
    engine.backend.settle()
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_loop_goes_on_while_programs_run(options: dict[str, Any]) -> None:
    """The program waits for what only the loop can tell it."""

    async def test() -> None:
        reader, writer = os.pipe()
        running = asyncio.Event()
        waiting = asyncio.create_task(
            casemate.aexecute(["sh", "-c", "echo on; cat"], stdin=reader, on_output=lambda _: running.set(), **options)
        )
        await running.wait()
        os.write(writer, b"from the loop")
        os.close(writer)
        assert text_of(await waiting) == "on\nfrom the loop"
        os.close(reader)

    run_on_a_loop(test)


async def cancel_when(running: asyncio.Event, task: asyncio.Task[object]) -> None:
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_device_or_a_file_may_be_stdin(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from a file")

    async def test() -> None:
        assert text_of(await casemate.aexecute(["cat"], stdin=null, **options)) == ""
        assert text_of(await casemate.aexecute(["cat"], stdin=file, **options)) == "from a file"

    with Path("/dev/null").open() as null, (tmp_path / "file").open() as file:
        run_on_a_loop(test)


def test_the_loop_goes_on_while_files_are_collected(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("casemate.limits.TURN_MAX_S", 0.0)  # after every step of the work
    script = "i=0; while [ $i -lt 50 ]; do echo x > $i; i=$((i+1)); done"

    async def test() -> None:
        async with turns_counted() as turns:
            result = await casemate.aexecute(["sh", "-c", script], collect=["*"], **options)
        assert len(result.files) == 50
        assert turns() >= 3 * 50
        async with casemate.AsyncSandbox(**options) as sandbox, turns_counted() as turns:
            await sandbox.exec(["sh", "-c", script])
            assert len(await sandbox.files.collect("*")) == 50
        assert turns() >= 3 * 50
        async with casemate.AsyncSandbox(**options) as sandbox:
            await sandbox.exec(["sh", "-c", script])
            async with turns_counted() as turns:
                assert len(await sandbox.files.list()) == 50
        assert turns() >= 2 * 50

    run_on_a_loop(test)


@asynccontextmanager
async def turns_counted() -> AsyncIterator[Callable[[], int]]:
    """How often another task of the loop had its turn."""
    turns = itertools.count()

    async def take_turns() -> None:
        while True:
            next(turns)
            await asyncio.sleep(0)

    task = asyncio.create_task(take_turns())
    yield lambda: next(turns)
    task.cancel()


def test_our_files_are_read_beside_the_loop(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"1")
    readers: set[int] = set()
    check_files = request.check_files

    def note(*arguments: Any) -> Any:
        readers.add(threading.get_ident())
        return check_files(*arguments)

    monkeypatch.setattr(run_module, "check_files", note)
    monkeypatch.setattr(session_module, "check_files", note)
    ours = {"a": tmp_path / "file"}

    async def test() -> None:
        assert text_of(await casemate.aexecute(["cat", "a"], files=ours, **options)) == "1"
        assert (await casemate.arun("output = open('a').read()", files=ours, **options)).output == "1"
        async with casemate.AsyncSandbox(**options) as sandbox:
            assert (await sandbox.run("output = open('a').read()", files=ours)).output == "1"
            with pytest.raises(casemate.InvalidInput, match=r"^files"):
                await sandbox.run("1", files={"a": tmp_path / "none"})

    run_on_a_loop(test)
    assert readers
    assert threading.get_ident() not in readers


def test_a_sandbox_is_released_beside_the_loop(
    options: dict[str, Any], settled: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    closers: list[int] = []
    close = NativeSandbox.close

    def note(sandbox: NativeSandbox) -> None:
        closers.append(threading.get_ident())
        close(sandbox)

    monkeypatch.setattr(NativeSandbox, "close", note)

    async def test() -> None:
        async with casemate.AsyncSandbox(**options) as sandbox:
            await sandbox.exec(["sh", "-c", "sleep 1000 &"])
        assert settled() == []
        await asyncio.gather(sandbox.close(), sandbox.close())

    run_on_a_loop(test)
    assert settled() == []
    options["engine"].backend.settle()
    assert len(closers) == 1
    assert threading.get_ident() not in closers


def test_a_sandbox_that_is_started_twice_is_built_once(options: dict[str, Any]) -> None:
    async def test() -> None:
        sandbox = casemate.AsyncSandbox(**options)
        answers = await asyncio.gather(sandbox.start(), sandbox.start(), return_exceptions=True)
        assert answers[0] is None
        assert isinstance(answers[1], casemate.SandboxClosed)
        assert text_of(await sandbox.exec(["echo", "1"])) == "1\n"
        await sandbox.close()

    before = descriptors(options["engine"])
    run_on_a_loop(test)
    assert descriptors(options["engine"]) == before


def test_a_sandbox_that_could_not_be_built_can_be_tried_again(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise casemate.CapacityError("no more for now")

    async def test() -> None:
        sandbox = casemate.AsyncSandbox(**options)
        with monkeypatch.context() as patch:
            patch.setattr(options["engine"], "start", refuse)
            with pytest.raises(casemate.CapacityError):
                await sandbox.start()
        async with sandbox:
            assert text_of(await sandbox.exec(["echo", "1"])) == "1\n"

    run_on_a_loop(test)


def test_a_cancelled_task_has_killed_its_sandbox_when_it_ends(
    options: dict[str, Any], settled: Callable[[], list[int]]
) -> None:
    async def test() -> None:
        running = asyncio.Event()
        task = asyncio.create_task(casemate.aexecute(LEFT_EARLY, on_output=lambda _: running.set(), **options))
        await cancel_when(running, task)
        assert settled() == []

    run_on_a_loop(test)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13])
def test_a_task_may_be_cancelled_at_any_step_of_its_start(
    options: dict[str, Any], settled: Callable[[], list[int]], turns: int
) -> None:
    async def test() -> None:
        task = asyncio.create_task(casemate.aexecute(LEFT_EARLY, files={"a": b"1"}, **options))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert settled() == []
        assert text_of(await casemate.aexecute(["echo", "next"], **options)) == "next\n"

    run_on_a_loop(test)


def test_a_time_limit_of_asyncio_kills_as_well(options: dict[str, Any], settled: Callable[[], list[int]]) -> None:
    async def test() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(casemate.aexecute(["sleep", "1000"], **options), 0.2)
        assert settled() == []

    run_on_a_loop(test)


def test_one_task_of_a_group_that_fails_takes_the_others_sandboxes_with_it(
    options: dict[str, Any], settled: Callable[[], list[int]]
) -> None:
    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(casemate.aexecute(["sleep", "1000"], **options))
            group.create_task(casemate.arun("1", "cobol", **options))

    async def test() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            await all_of_them()
        assert caught.group_contains(casemate.UnknownRuntime)
        assert settled() == []

    run_on_a_loop(test)


# Streams ------------------------------------------------------------------------------------------


def test_a_stream_is_iterated_to_its_result(options: dict[str, Any]) -> None:
    async def test() -> None:
        live = casemate.astream("import sys; print('a'); print('b', file=sys.stderr); output = 3", **options)
        with pytest.raises(casemate.SandboxClosed):
            live.result  # noqa: B018 - asking is the test
        seen = [chunk async for chunk in live]
        assert {chunk.stream: (chunk.data, chunk.offset) for chunk in seen} == {
            "stdout": (b"a\n", 0),
            "stderr": (b"b\n", 0),
        }
        assert live.result.output == 3

    run_on_a_loop(test)


CODE_LEFT_EARLY = "import time\nprint('on', flush=True)\ntime.sleep(1000)"


@pytest.mark.parametrize("way", ["closed", "left", "forgotten", "block"])
def test_an_iterator_that_is_not_read_to_its_end_kills_the_run(
    options: dict[str, Any], settled: Callable[[], list[int]], way: str
) -> None:
    async def test() -> None:
        live = casemate.astream(CODE_LEFT_EARLY, **options)
        if way == "block":
            async with live:
                assert (await anext(aiter(live))).data == b"on\n"
        else:
            async for chunk in live:
                assert chunk.data == b"on\n"
                break
        if way == "closed":
            await live.aclose()
            await live.aclose()
        if way == "forgotten":
            del live
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if way != "left":
            assert settled() == []

    run_on_a_loop(test)
    assert settled() == []


def test_cancelling_whoever_iterates_kills_the_run(options: dict[str, Any], settled: Callable[[], list[int]]) -> None:
    async def test() -> None:
        running = asyncio.Event()

        async def listen() -> None:
            async with casemate.astream(CODE_LEFT_EARLY, **options) as live:
                async for _ in live:
                    running.set()

        task = asyncio.create_task(listen())
        await cancel_when(running, task)
        assert settled() == []

    run_on_a_loop(test)


# Sandboxes ----------------------------------------------------------------------------------------


def test_a_sandbox_does_all_that_its_twin_does(options: dict[str, Any]) -> None:
    async def test() -> None:
        async with casemate.AsyncSandbox(**options) as sandbox:
            assert casemate.Layer.SECCOMP in sandbox.isolation.layers
            await sandbox.files.write("deep/a.txt", "1")
            assert await sandbox.files.read("deep/a.txt") == b"1"
            await sandbox.files.make_directory("d")
            assert [entry.name for entry in await sandbox.files.list()] == ["d", "deep"]
            assert (await sandbox.run("output = open('deep/a.txt').read() + input", input="2")).output == "12"
            assert text_of(await sandbox.exec(["cat", "a.txt"], cwd="deep")) == "1"
            assert [file.path for file in await sandbox.files.collect("**/*.txt")] == ["deep/a.txt"]
            await sandbox.files.remove("deep/a.txt")
            with pytest.raises(casemate.FileTransferError):
                await sandbox.files.read("deep/a.txt")

    run_on_a_loop(test)


def test_programs_run_at_once_in_one_sandbox(options: dict[str, Any]) -> None:
    async def test() -> list[str]:
        async with casemate.AsyncSandbox(**options) as sandbox:
            await sandbox.exec(["mkfifo", "there", "back"])
            return [
                text_of(result)
                for result in await asyncio.gather(
                    sandbox.exec(["sh", "-c", "echo 1 > there; cat back"]),
                    sandbox.exec(["sh", "-c", "cat there; echo 2 > back"]),
                    *(sandbox.exec(["echo", str(n)]) for n in range(20)),
                )
            ]

    assert run_on_a_loop(test) == ["2\n", "1\n", *(f"{n}\n" for n in range(20))]


@pytest.mark.parametrize("turns", [1, 2, 4, 8, None])
def test_a_cancelled_program_is_killed_and_the_sandbox_goes_on(options: dict[str, Any], turns: int | None) -> None:
    async def test() -> None:
        async with casemate.AsyncSandbox(**options) as sandbox:
            running = asyncio.Event()
            task = asyncio.create_task(sandbox.exec(LEFT_EARLY, on_output=lambda _: running.set()))
            if turns is None:
                await running.wait()
            for _ in range(turns or 0):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await sandbox.exec(["sh", "-c", "while pgrep sleep; do :; done"])).ok

    run_on_a_loop(test)


def test_after_its_end_a_sandbox_says_so(options: dict[str, Any], settled: Callable[[], list[int]]) -> None:
    async def test() -> None:
        sandbox = casemate.AsyncSandbox(**options)
        with pytest.raises(casemate.SandboxClosed):
            await sandbox.exec(["true"])
        await sandbox.start()
        await sandbox.exec(["sh", "-c", "sleep 1000 &"])
        with pytest.raises(casemate.SandboxClosed):
            await sandbox.start()
        await sandbox.close()
        await sandbox.close()
        assert settled() == []
        attempts: list[Callable[[], Awaitable[object]]] = [
            lambda: sandbox.exec(["true"]),
            lambda: sandbox.run("1"),
            sandbox.files.list,
            lambda: sandbox.files.collect("*"),
            sandbox.open_pty,
            sandbox.start,
        ]
        for attempt in attempts:
            with pytest.raises(casemate.SandboxClosed):
                await attempt()

    run_on_a_loop(test)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5])
def test_a_sandbox_that_is_closed_while_it_is_built_is_gone(
    options: dict[str, Any], settled: Callable[[], list[int]], turns: int
) -> None:
    async def test() -> None:
        sandbox = casemate.AsyncSandbox(**options)
        building = asyncio.create_task(sandbox.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        await sandbox.close()
        with suppress(casemate.SandboxClosed):
            await building
        with pytest.raises(casemate.SandboxClosed):
            await sandbox.exec(["true"])
        assert settled() == []

    run_on_a_loop(test)


def test_a_terminal_is_read_and_written_at_once(options: dict[str, Any], slowness: float) -> None:
    async def test() -> None:
        async with casemate.AsyncSandbox(**options) as sandbox, asyncio.timeout(30 * slowness):
            script = "stty size; read x; echo got:$x; stty size; exit 5"
            async with await sandbox.open_pty(["sh", "-c", script], rows=30, columns=90) as terminal:
                shown = b""
                while b"30 90\r\n" not in shown:
                    shown += await terminal.read()
                terminal.resize(40, 100)
                reading = asyncio.create_task(read_to_the_end(terminal))
                await terminal.write(b"typed\n")
                shown = await reading
                assert b"got:typed\r\n" in shown
                assert b"40 100\r\n" in shown
                assert await terminal.wait() == 5
            with pytest.raises(casemate.SandboxClosed):
                await terminal.read()

    run_on_a_loop(test)


def test_many_tasks_may_wait_for_one_program_on_a_terminal(options: dict[str, Any], slowness: float) -> None:
    async def test() -> None:
        async with (
            asyncio.timeout(30 * slowness),
            casemate.AsyncSandbox(**options) as sandbox,
            await sandbox.open_pty(["sh", "-c", "read x; exit 3"]) as terminal,
        ):
            waiting = [asyncio.create_task(terminal.wait()) for _ in range(4)]
            await asyncio.sleep(0)
            await terminal.write(b"\n")
            assert set(await asyncio.gather(*waiting)) == {3}

    run_on_a_loop(test)


def test_the_loop_goes_on_while_init_or_the_launcher_takes_nothing(options: dict[str, Any], slowness: float) -> None:
    """Init runs on the guest's processor share, and the launcher may have much to do: sockets to them fill up."""

    async def holds_nobody_up(pid: int, start: Callable[[], Awaitable[casemate.Result]]) -> None:
        os.kill(pid, signal.SIGSTOP)
        try:
            tasks = [asyncio.ensure_future(start()) for _ in range(AT_ONCE)]
            done, _ = await asyncio.wait(tasks, timeout=0.05)
            assert not done
        finally:
            os.kill(pid, signal.SIGCONT)
        assert {result.ok for result in await asyncio.gather(*tasks)} == {True}

    async def test() -> None:
        many = {**options["limits"], "processes": 2 * AT_ONCE}
        async with (
            asyncio.timeout(60 * slowness),
            casemate.AsyncSandbox(engine=options["engine"], limits=many) as sandbox,
        ):
            long = ["true", "x" * 50_000]
            await holds_nobody_up(sandbox._session.sandbox.pid, lambda: sandbox.exec(long))
            await holds_nobody_up(
                options["engine"].backend.launcher.pid, lambda: casemate.aexecute(["true"], **options)
            )

    run_on_a_loop(test)


async def read_to_the_end(terminal: casemate.AsyncTerminal) -> bytes:
    shown = b""
    while data := await terminal.read():
        shown += data
    return shown


def test_one_engine_serves_loops_and_threads_after_one_another(options: dict[str, Any]) -> None:
    for _ in range(3):
        assert text_of(asyncio.run(casemate.aexecute(["echo", "loop"], **options))) == "loop\n"
        assert text_of(casemate.execute(["echo", "thread"], **options)) == "thread\n"
