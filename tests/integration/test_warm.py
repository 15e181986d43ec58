"""Runs in sandboxes that were made ahead: the same results as in new ones, and nothing of one run in the next."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import casemate
from casemate import limits
from casemate.engine.run import Run, prepare_code, prepare_command
from casemate.engine.warm import WarmSandbox, warm_key
from casemate.isolation.native import NativeSandbox
from casemate.kernel.processes import process_tree
from casemate.model.runtime import Runtime

RUNTIMES = ("python", "node", "r", "bash")
ENVIRONMENT = {
    "python": "import os; print(os.environ['SHADE'], os.getenv('SHADE'))",
    "node": "console.log(process.env.SHADE, process.env.SHADE)",
    "r": "cat(Sys.getenv('SHADE'), Sys.getenv('SHADE'), '\\n')",
    "bash": "echo $SHADE $SHADE",
}


@pytest.fixture(scope="module")
def warming() -> Iterator[casemate.Engine]:
    with casemate.Engine() as opened:
        yield opened


@pytest.fixture
def warm(warming: casemate.Engine, generous: dict[str, Any]) -> Any:
    """Run code in a ready sandbox; fails if there was none."""

    def run(code: str, runtime: str = "python", **options: Any) -> casemate.Result:
        options.setdefault("limits", generous)
        key = warm_key(prepare_code(warming, code, runtime=runtime, **options))
        assert warming.warm.keep(key, 1, limits.LAUNCH_TIMEOUT_S)
        hits = hits_of(warming)
        result = casemate.run(code, runtime, engine=warming, **options)
        assert hits_of(warming) == hits + 1
        warming.warm.keep(key, 0, 0.0)
        return result

    return run


def hits_of(engine: casemate.Engine) -> int:
    return sum(each.hits for each in engine.warm.statistics())


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_everything_reaches_a_program_that_was_waited_for(warm: Any, runtime: str) -> None:
    variables = warm(ENVIRONMENT[runtime], runtime, env={"SHADE": "green"})
    assert variables.stdout.text.split() == ["green", "green"]


def test_code_input_arguments_files_and_stdin(warm: Any) -> None:
    code = "import sys\nprint(sys.argv[1:], sys.stdin.read(), open('a.txt').read(), __file__)\noutput = input"
    options = {"input": {"n": 1}, "args": ["x"], "stdin": "in", "files": {"a.txt": "A"}, "collect": ["*.txt"]}
    result = warm(code, **options)
    assert result.stdout.text == "['x'] in A /work/main.py\n"
    assert result.output == {"n": 1}
    assert [file.path for file in result.files] == ["a.txt"]


def test_without_stdin_there_is_its_end(warm: Any) -> None:
    assert warm("import sys; print(repr(sys.stdin.read()))").stdout.text == "''\n"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise SystemExit(3)", "exit"),
        ("1 / 0", "exception"),
        ("import os; os.kill(os.getpid(), 9)", "signal"),
        ("while True: pass", "timeout"),
        ("x = [bytearray(1 << 20) for _ in range(1 << 16)]", "memory"),
    ],
)
def test_a_failure_has_its_reason(warm: Any, generous: dict[str, Any], code: str, reason: str) -> None:
    limits_of_run = {**generous, "memory": "64Mi"} | ({"timeout": "300ms"} if reason == "timeout" else {})
    assert warm(code, limits=limits_of_run).reason == reason


def test_usage_is_that_of_the_run_and_not_of_its_making(warm: Any) -> None:
    used = warm("pass").usage
    assert 0 < used.wall_s < 60
    assert 0 <= used.cpu_user_s + used.cpu_system_s < 60


def test_the_time_limit_starts_with_the_program(warming: casemate.Engine, warm: Any, generous: dict[str, Any]) -> None:
    """However long it has waited before."""
    options: dict[str, Any] = {"limits": {**generous, "cpu_time": "1s"}}
    key = warm_key(prepare_code(warming, "pass", runtime="python", **options))
    assert warming.warm.keep(key, 1, limits.LAUNCH_TIMEOUT_S)
    assert warm("output = 1", **options).output == 1


def test_nothing_of_one_run_is_in_the_next(warm: Any) -> None:
    leave = "import os\nfor d in ('/work', '/tmp', '/dev/shm', '/home/guest'): open(d + '/mark', 'w')\nprint('left')"
    look = "import os\nprint([d for d in ('/work', '/tmp', '/dev/shm', '/home/guest') if os.listdir(d)])"
    assert warm(leave).ok
    assert warm(look).stdout.text == "['/work']\n"  # the program's own file


def test_a_variable_that_the_interpreter_reads_at_its_start_gets_a_new_one(warming: casemate.Engine) -> None:
    early = prepare_code(warming, "pass", runtime="python", env={"PYTHONHASHSEED": "1"})
    late = prepare_code(warming, "pass", runtime="python", env={"COLOUR": "1"})
    assert warm_key(early).argv == ()
    assert warm_key(late).argv != ()
    assert "COLOUR" not in dict(warm_key(late).environment)


def test_other_limits_are_other_sandboxes_but_for_those_of_the_run(warming: casemate.Engine) -> None:
    def key(**wanted: str) -> Any:
        return warm_key(prepare_command(warming, ["true"], limits=wanted))

    assert key(memory="64Mi") != key(memory="65Mi")
    assert key(timeout="1s", output="1Mi") == key(timeout="2s", output="2Mi")


def test_fresh_is_a_new_one(warming: casemate.Engine, warm: Any) -> None:
    assert warm("output = 1").output == 1
    hits = hits_of(warming)
    for _ in range(4):
        assert casemate.run("output = 1", engine=warming, fresh=True).output == 1
    assert hits_of(warming) == hits
    with pytest.raises(casemate.InvalidInput, match="fresh"):
        casemate.run("pass", engine=warming, fresh="yes")  # type: ignore[arg-type]


def test_one_that_died_while_it_waited_is_not_used(warming: casemate.Engine, generous: dict[str, Any]) -> None:
    prepared = prepare_code(warming, "output = 1", runtime="python", limits=generous)
    key = warm_key(prepared)
    assert warming.warm.keep(key, 1, limits.LAUNCH_TIMEOUT_S)
    warming.warm._pool._kinds[key].ready[0].thing.sandbox.kill()
    warming.warm._pool._kinds[key].ready[0].thing.sandbox.wait_dead()
    assert casemate.run("output = 1", engine=warming, limits=generous).output == 1
    warming.warm.keep(key, 0, 0.0)


class KillingEngine(casemate.Engine):
    """Has a process of a ready sandbox killed just when it is handed over; `victim` finds it."""

    victim: Callable[[NativeSandbox], int] = staticmethod(lambda sandbox: sandbox.pid)
    killed = 0

    @contextmanager
    def taken(self, run: Run) -> Iterator[WarmSandbox | None]:
        key = warm_key(run)
        assert self.warm.keep(key, 1, limits.LAUNCH_TIMEOUT_S)
        with super().taken(run) as warm:
            self.warm.keep(key, 0, 0.0)
            assert warm is not None
            os.kill(self.victim(warm.sandbox), signal.SIGKILL)
            self.killed += 1
            yield warm


def interpreter_of(sandbox: NativeSandbox) -> int:
    return process_tree(sandbox.pid)[1]


def init_of(sandbox: NativeSandbox) -> int:
    return sandbox.pid


SAY_ONCE = {"python": "print('once')", "node": "console.log('once')", "r": "cat('once\\n')"}


@pytest.mark.parametrize("runtime", SAY_ONCE)
@pytest.mark.parametrize("victim", [interpreter_of, init_of])
def test_a_ready_interpreter_that_is_killed_when_it_is_handed_over_costs_only_time(
    generous: dict[str, Any], runtime: str, victim: Callable[[NativeSandbox], int]
) -> None:
    chunks: list[str] = []
    options: dict[str, Any] = {"limits": generous, "files": {"a.txt": "A"}, "collect": ["*.txt"]}
    with KillingEngine() as engine:
        engine.victim = victim
        for _ in range(5):
            result = casemate.run(
                SAY_ONCE[runtime],
                runtime,
                engine=engine,
                on_output=lambda chunk: chunks.append(str(chunk.data)),
                **options,
            )
            assert (result.reason, result.exit_code, result.stdout.text) == ("exit", 0, "once\n"), result
            assert [file.path for file in result.files] == ["a.txt"]
        assert engine.killed == 5
    assert len(chunks) == 5


def test_what_was_read_from_a_descriptor_is_not_lost_to_a_dead_interpreter(
    generous: dict[str, Any], tmp_path: Path
) -> None:
    """Either nothing of it was taken, and a new interpreter gets it all, or the run says that it was killed."""
    (tmp_path / "given").write_bytes(b"all of it")
    with KillingEngine() as engine, (tmp_path / "given").open("rb") as file:
        engine.victim = interpreter_of
        result = casemate.run("import sys; print(sys.stdin.read())", engine=engine, stdin=file, limits=generous)
        assert (result.reason, result.stdout.text) in {("exit", "all of it\n"), ("signal", "")}


def test_a_ready_sandbox_that_is_killed_when_it_is_handed_over_runs_nothing_twice(generous: dict[str, Any]) -> None:
    """One without an interpreter that waits: what init had been told when it died may have begun."""
    with KillingEngine() as engine:
        for _ in range(5):
            try:
                result = casemate.execute(["echo", "once"], engine=engine, limits=generous)
            except casemate.SandboxClosed:
                continue
            assert result.stdout.text in {"once\n", ""}


def test_a_program_that_kills_itself_is_run_once(
    warming: casemate.Engine, warm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warming, "start", None)  # a new one for the run cannot be had
    result = warm("import os; os.kill(os.getpid(), 9)")
    assert (result.reason, result.signal) == ("signal", 9)


def test_closing_the_engine_ends_what_was_made_ahead(generous: dict[str, Any]) -> None:
    with casemate.Engine() as engine:
        key = warm_key(prepare_code(engine, "pass", runtime="python", limits=generous))
        assert engine.warm.keep(key, 2, limits.LAUNCH_TIMEOUT_S)
        ready = [made.thing.sandbox for made in engine.warm._pool._kinds[key].ready]
    assert [sandbox.closed for sandbox in ready] == [True, True]


def test_none_is_made_where_that_is_switched_off(generous: dict[str, Any]) -> None:
    with casemate.Engine(warm=False) as engine:
        for _ in range(4):
            assert casemate.run("output = 1", engine=engine, limits=generous).output == 1
        assert engine._warm is None


def test_keeping_ready_is_refused_where_it_would_not_help(generous: dict[str, Any]) -> None:
    with casemate.Engine(warm=False) as engine, pytest.raises(casemate.InvalidInput, match="makes nothing ahead"):
        engine.keep_ready("python", 1)
    with pytest.raises(casemate.SandboxClosed):
        engine.keep_ready("python", 1)
    with casemate.Engine() as engine, pytest.raises(casemate.InvalidInput, match="count"):
        engine.keep_ready("python", "2")  # type: ignore[arg-type]


def test_asyncio_waits_for_what_is_kept_ready_without_holding_up_its_loop(generous: dict[str, Any]) -> None:
    async def both() -> list[str]:
        order: list[str] = []

        async def keep() -> None:
            await engine.akeep_ready("python", 2, limits=generous)
            order.append("ready")

        async def turn() -> None:
            order.append("turn")

        await asyncio.gather(keep(), turn())
        return order

    with casemate.Engine() as engine:
        assert asyncio.run(both()) == ["turn", "ready"]
        assert engine.pools()[0].ready == 2
        with pytest.raises(casemate.UnknownRuntime):
            asyncio.run(engine.akeep_ready("cobol", 1))


def test_what_is_kept_of_a_runtime_that_is_gone_can_be_given_up(
    generous: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(name: str) -> Runtime:
        raise casemate.UnknownRuntime(name, ())

    with casemate.Engine() as engine:
        engine.keep_ready("python", 1, limits=generous)
        engine.keep_ready("python", 1, limits={**generous, "memory": "64Mi"})
        monkeypatch.setattr(engine.runtimes, "get", gone)
        with pytest.raises(casemate.UnknownRuntime):
            engine.keep_ready("python", 1)
        engine.keep_ready("python", 0)
        with pytest.raises(casemate.UnknownRuntime):
            engine.keep_ready("python", 0)
        engine.rest()
        assert [each.ready for each in engine.pools()] == [0, 0]


def test_what_cannot_be_kept_ready_says_why_and_is_not_tried_again(generous: dict[str, Any]) -> None:
    config = casemate.Config(pool=casemate.PoolConfig(memory="1Ki"))
    with casemate.Engine(config) as engine:
        with pytest.raises(casemate.CapacityError, match="memory is used up"):
            engine.keep_ready("python", 3, limits=generous)
        engine.rest()
        assert [each.ready for each in engine.pools()] == [0]


def test_without_demand_alone_what_was_asked_for_is_ready(generous: dict[str, Any]) -> None:
    with casemate.Engine(casemate.Config(pool=casemate.PoolConfig(ready_max=0))) as engine:
        engine.keep_ready("python", 1, limits=generous)
        assert casemate.run("output = 1", engine=engine, limits=generous).output == 1
        assert engine.pools()[0].hits == 1


@pytest.mark.parametrize("pool", [{"ready_max": -1}, {"ready_max": "a"}, {"memory": "much"}, {"idle": "long"}])
def test_a_pool_that_cannot_be_is_named_by_its_key(pool: dict[str, Any]) -> None:
    with pytest.raises(casemate.ConfigError) as caught:
        casemate.Engine(casemate.Config(pool=casemate.PoolConfig(**pool)))
    assert caught.value.field == f"pool.{next(iter(pool))}"
