"""Items without a sandbox: lanes, frames of runners, verdicts, contexts, and that both sides have the same numbers."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

from casemate import Item, Reason, limits
from casemate.engine.items import item_result, together
from casemate.engine.runner import STOPPED, End, Ended, Frame, RunnerFrames
from casemate.isolation.waiting import Wait
from casemate.model.spec import WRITABLE_DIRECTORIES
from casemate.model.values import FRAME_HEAD
from casemate.runtimes.builtin import BUILTIN

SOURCE: Final = Path(__file__).parents[2] / "native" / "runner.c"
CONTEXT: Final = Path(__file__).parents[2] / "src" / "casemate" / "guest" / "python_context.py"
GOOD: Final = b'{"kind":"value","output":1}'


# Both sides ---------------------------------------------------------------------------------------


def test_the_numbers_of_frames_are_those_of_the_native_side() -> None:
    names = re.findall(r"FRAME_(\w+)", re.search(r"enum \{ (FRAME_.*?) \}", SOURCE.read_text())[1])  # type: ignore[index]
    assert {name: number for number, name in enumerate(names, 1)} == {frame.name: frame.value for frame in Frame}


def test_the_numbers_of_what_stops_an_item_are_those_of_the_native_side() -> None:
    names = re.findall(r"STOPPED_(\w+)", re.search(r"enum \{ (STOPPED_.*?) \}", SOURCE.read_text())[1])  # type: ignore[index]
    assert names == ["TIME", "OUTPUT", "ANSWER"]
    assert STOPPED == {1: Reason.TIMEOUT, 2: Reason.OUTPUT, 3: Reason.VALIDATION}


def test_the_native_side_clears_every_directory_that_can_be_written() -> None:
    listed = re.search(r"directories\[DIRECTORIES\] = \{(.*?)\};", SOURCE.read_text(), re.DOTALL)
    assert listed is not None
    assert sorted(re.findall(r'"([^"]+)"', listed[1])) == sorted(WRITABLE_DIRECTORIES)


# Lanes --------------------------------------------------------------------------------------------


def lane(*steps: Any) -> Generator[Any, Any, None]:
    for step in steps:  # noqa: UP028 - a generator takes what is sent
        yield step


def never(_: int) -> float:
    return float("inf")


def test_a_lane_passes_on_what_it_has_and_waits() -> None:
    merged: Any = together(lambda: lane((0, "a"), Wait(read=(7,)), (1, "b")), never)
    assert next(merged) == (0, "a")
    assert merged.send(frozenset()) == Wait(read=(7,))
    assert merged.send(frozenset({7})) == (1, "b")
    with pytest.raises(StopIteration):
        merged.send(frozenset())


def test_lanes_wait_together_and_each_hears_of_its_own() -> None:
    made = iter(
        [lane(Wait(read=(1,), deadline_s=time.monotonic() + 60), (0, "one")), lane(Wait(read=(2,)), (1, "two"))]
    )
    merged: Any = together(lambda: next(made), lambda number: 0.0 if number < 2 else float("inf"))
    wait = next(merged)
    assert isinstance(wait, Wait)
    assert sorted(wait.read) == [1, 2]
    assert wait.deadline_s is not None
    assert merged.send(frozenset({2})) == (1, "two")
    assert merged.send(frozenset()) == Wait(read=(1,), deadline_s=wait.deadline_s)


def test_a_further_lane_begins_at_its_time() -> None:
    begins_s = time.monotonic() + 60
    merged: Any = together(lambda: lane(Wait(read=(1,))), lambda _: begins_s)
    assert next(merged) == Wait(read=(1,), deadline_s=begins_s)


def test_closing_lanes_closes_each() -> None:
    closed = []

    def watched() -> Generator[Any, Any, None]:
        try:
            yield Wait(read=(1,))
        finally:
            closed.append(1)

    merged: Any = together(watched, lambda number: 0.0 if number < 3 else float("inf"))
    next(merged)
    merged.close()
    assert closed == [1, 1, 1]


# Frames -------------------------------------------------------------------------------------------


class Pipe:
    """As much of a worker as what it says."""

    def __init__(self, data: bytes) -> None:
        self.reply_fd, fd = os.pipe2(os.O_NONBLOCK)
        os.write(fd, data)
        os.close(fd)


def read(data: bytes) -> RunnerFrames:
    pipe: Any = Pipe(data)
    frames = RunnerFrames(pipe)
    frames.read()
    os.close(pipe.reply_fd)
    return frames


def test_frames_come_one_by_one() -> None:
    frames = read(FRAME_HEAD.pack(1) + b"\x01" + FRAME_HEAD.pack(3) + b"\x02ab" + FRAME_HEAD.pack(9) + b"\x02x")
    assert [frames.next(), frames.next(), frames.next()] == [(Frame.BEGUN, b""), (Frame.ANSWER, b"ab"), None]
    assert not frames.problem
    assert not frames.is_empty


@pytest.mark.parametrize(
    "data",
    [FRAME_HEAD.pack(0) + b"\x01", FRAME_HEAD.pack(5) + b"\x63", FRAME_HEAD.pack(1 << 31) + b"\x01", b"\xff" * 9],
)
def test_nonsense_is_a_problem_and_nothing_is_waited_for(data: bytes) -> None:
    frames = read(data)
    assert frames.next() is None
    assert frames.problem


# Verdicts -----------------------------------------------------------------------------------------


def ended(
    answer: bytes = b"", *, status: int = 0, stopped: Reason | None = None, lost: bool = False, **more: Any
) -> Ended:
    end = End(
        wait_status=status,
        error=more.pop("error", 0),
        stopped=stopped,
        left=0,
        wall_s=0.5,
        user_s=0.1,
        system_s=0.2,
        memory_bytes=4096,
        stdout_bytes=10,
        stderr_bytes=0,
    )
    framed = FRAME_HEAD.pack(len(answer)) + answer if answer else b""
    values = {"oom_kills": 0, "stopped": None, "stdout": b"out", "stderr": b"", **more}
    return Ended(begun=True, end=None if lost else end, answer=framed, wall_s=0.7, is_clean=True, **values)


@pytest.mark.parametrize(
    ("outcome", "reason", "success"),
    [
        (ended(GOOD), Reason.EXIT, True),
        (ended(b'{"kind":"none"}'), Reason.EXIT, True),
        (ended(GOOD, status=3 << 8), Reason.EXIT, False),
        (ended(), Reason.EXIT, False),
        (ended(b"{}"), Reason.VALIDATION, False),
        (ended(b'{"kind":"invalid","error":{"type":"T","message":"m"}}'), Reason.VALIDATION, False),
        (ended(b'{"kind":"exception","error":{"type":"T","message":"m"}}', status=256), Reason.EXCEPTION, False),
        (ended(b'{"kind":"exception","error":{"type":"MemoryError","message":""}}', status=256), Reason.MEMORY, False),
        (ended(GOOD, status=signal.SIGSEGV), Reason.SIGNAL, False),
        (ended(GOOD, status=signal.SIGKILL, stopped=Reason.TIMEOUT), Reason.TIMEOUT, False),
        (ended(GOOD, status=signal.SIGKILL, oom_kills=1), Reason.MEMORY, False),
        (ended(lost=True), Reason.LOST, False),
        (ended(lost=True, oom_kills=1), Reason.MEMORY, False),
        (ended(GOOD, error=11), Reason.PROCESSES, False),
    ],
)
def test_what_an_item_came_to(outcome: Ended, reason: Reason, success: bool) -> None:
    result = item_result(Item(id="x"), outcome, BUILTIN["python"])
    assert (result.id, result.reason, result.success) == ("x", reason, success)
    assert (result.error is None) == success
    assert success or result.output is None


def test_what_was_printed_beyond_the_bound_is_counted() -> None:
    result = item_result(Item(), ended(GOOD), BUILTIN["python"])
    assert (result.stdout, result.truncated_bytes) == ("out", 7)
    assert result.usage.memory_peak_bytes == 4096
    assert limits.ITEM_KEPT_BYTES < limits.RUNNER_FRAME_MAX_BYTES


# Contexts -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def context() -> Any:
    spec = importlib.util.spec_from_file_location("python_context", CONTEXT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "change",
    [
        lambda ctx: ctx.update(a=1),
        lambda ctx: ctx.pop("a"),
        lambda ctx: ctx.popitem(),
        lambda ctx: ctx.clear(),
        lambda ctx: ctx.setdefault("z", 1),
        lambda ctx: ctx.__setitem__("a", 1),
        lambda ctx: ctx.__delitem__("a"),
        lambda ctx: ctx.__ior__({"a": 1}),
        lambda ctx: ctx["a"]["b"].__setitem__(0, 1),
    ],
)
def test_a_context_says_no(context: Any, change: Any) -> None:
    frozen = context.freeze({"a": {"b": [1, {"c": 2}]}})
    with pytest.raises((TypeError, AttributeError)):
        change(frozen)
    assert frozen == {"a": {"b": (1, {"c": 2})}}


def test_a_context_thaws_into_what_it_was(context: Any) -> None:
    value = {"a": {"b": [1, {"c": [2]}]}, "d": None}
    assert context.thaw(context.freeze(value)) == value
