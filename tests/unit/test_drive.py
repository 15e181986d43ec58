"""The two drivers of steps: the same steps, the same values, and an early end that is always told."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.engine import drive as drive_module
from casemate.engine.drive import drive, drive_async, iterate, iterate_async
from casemate.errors import CapacityError
from casemate.isolation.waiting import Ready, Steps, Wait
from casemate.model.result import Chunk

T = TypeVar("T")
Pipe = tuple[int, int]


@pytest.fixture
def make_pipe() -> Iterator[Callable[[], Pipe]]:
    with ExitStack() as opened:

        def make() -> Pipe:
            ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            for end in ends:
                opened.callback(os.close, end)
            return ends

        yield make


def chunk(number: int) -> Chunk:
    return Chunk("stdout", b"%d" % number, number)


class Noted:
    """Steps that note whether they were closed, and yield what they are told to."""

    def __init__(self, items: list[Wait | Chunk], value: Any = None) -> None:
        self.items = items
        self.value = value
        self.started = False
        self.closed = False
        self.answers: list[Ready] = []

    def steps(self) -> Steps[Any]:
        self.started = True
        try:
            for item in self.items:
                self.answers.append((yield item))
            return self.value
        finally:
            self.closed = True


def drive_on_a_loop(steps: Steps[T], on_chunk: Callable[[Chunk], None] | None = None) -> T:
    return asyncio.run(drive_async(steps, on_chunk))


DRIVERS = [drive, drive_on_a_loop]


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_value_comes_back_and_live_output_goes_to_the_listener_in_order(driver: Any) -> None:
    heard: list[Chunk] = []
    noted = Noted([chunk(0), chunk(1), chunk(2)], "value")
    assert driver(noted.steps(), heard.append) == "value"
    assert heard == [chunk(0), chunk(1), chunk(2)]
    assert driver(Noted([chunk(0)], 7).steps()) == 7


@pytest.mark.parametrize("driver", DRIVERS)
def test_waiting_ends_with_the_descriptors_that_are_ready(driver: Any, make_pipe: Callable[[], Pipe]) -> None:
    (full_end, full), (empty_end, empty) = make_pipe(), make_pipe()
    os.write(full, b"x")
    noted = Noted([Wait(read=(full_end, empty_end)), Wait(write=(empty,)), Wait(read=(full_end,), write=(full,))])
    driver(noted.steps())
    assert noted.answers[0] == {full_end}
    assert noted.answers[1] == {empty}
    assert noted.answers[2] <= {full_end, full}
    assert noted.answers[2]


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_other_side_s_end_wakes_both_readers_and_writers(driver: Any) -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    os.close(writer)
    noted = Noted([Wait(read=(reader,))])
    driver(noted.steps())
    assert noted.answers == [{reader}]
    os.close(reader)
    reader, writer = os.pipe2(os.O_NONBLOCK)
    os.set_blocking(writer, False)
    os.write(writer, bytes(65536))
    os.close(reader)
    noted = Noted([Wait(write=(writer,))])
    driver(noted.steps())
    assert noted.answers == [{writer}]
    os.close(writer)


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_can_only_be_ready_is_ready_at_once(driver: Any, tmp_path: Path, make_pipe: Callable[[], Pipe]) -> None:
    """Files, devices and closed descriptors: poll says so, epoll refuses them."""
    silent, _ = make_pipe()
    closed = os.dup(silent)
    os.close(closed)
    (tmp_path / "file").touch()
    with (tmp_path / "file").open() as file, Path("/dev/null").open() as null:
        noted = Noted([Wait(read=(silent, fd)) for fd in (file.fileno(), null.fileno(), closed)])
        driver(noted.steps())
        assert noted.answers == [{file.fileno()}, {null.fileno()}, {closed}]


@pytest.mark.parametrize("driver", DRIVERS)
def test_one_descriptor_may_be_waited_for_both_ways(driver: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        while not select.select([], [], [ours], 0)[2] and select.select([], [ours], [], 0)[1]:
            ours.send(bytes(65536), socket.MSG_DONTWAIT)
        theirs.send(b"x")
        noted = Noted([Wait(read=(ours.fileno(),), write=(ours.fileno(),))])
        driver(noted.steps())
        assert noted.answers == [{ours.fileno()}]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("from_now_s", [-1.0, 0.0, 0.02])
def test_a_deadline_ends_the_wait_with_nothing_ready_and_never_early(
    driver: Any, from_now_s: float, make_pipe: Callable[[], Pipe]
) -> None:
    deadline_s = time.monotonic() + from_now_s
    noted = Noted([Wait(read=(make_pipe()[0],), deadline_s=deadline_s), Wait(deadline_s=deadline_s)])
    driver(noted.steps())
    assert noted.answers == [frozenset(), frozenset()]
    assert time.monotonic() >= deadline_s


@given(st.lists(st.sampled_from(["chunk", "ready", "late"]), max_size=8), st.integers())
def test_both_drivers_say_the_same_of_the_same_steps(script: list[str], value: int) -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    os.write(writer, b"x")
    items: list[Wait | Chunk] = []
    for number, what in enumerate(script):
        wait = Wait(read=(reader,)) if what == "ready" else Wait(deadline_s=0.0)
        items.append(chunk(number) if what == "chunk" else wait)
    outcomes = []
    for driver in DRIVERS:
        noted, heard = Noted(items, value), list[Chunk]()
        outcomes.append((driver(noted.steps(), heard.append), heard, noted.answers, noted.closed))
    os.close(reader)
    os.close(writer)
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0] == value


def test_two_tasks_may_wait_for_the_same_descriptor(make_pipe: Callable[[], Pipe]) -> None:
    reader, writer = make_pipe()

    async def wait_twice() -> None:
        both = [Noted([Wait(read=(reader,))]) for _ in range(2)]
        tasks = [asyncio.create_task(drive_async(noted.steps())) for noted in both]
        await asyncio.sleep(0)
        os.write(writer, b"x")
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks)
        assert [noted.answers for noted in both] == [[{reader}], [{reader}]]

    asyncio.run(wait_twice())


def test_a_task_whose_share_another_took_waits_on(make_pipe: Callable[[], Pipe]) -> None:
    """An answer with nothing in it means that the time is over, and nothing else."""
    reader, writer = make_pipe()

    def take_one() -> Steps[bytes]:
        while True:
            assert (yield Wait(read=(reader,))) == {reader}
            with suppress(BlockingIOError):
                return os.read(reader, 1)

    async def take_turns() -> list[bytes]:
        tasks = [asyncio.create_task(drive_async(take_one())) for _ in range(5)]
        for number in range(5):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            os.write(writer, b"%d" % number)
        async with asyncio.timeout(10):
            return await asyncio.gather(*tasks)

    assert sorted(asyncio.run(take_turns())) == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("refused", ["_register", "add_reader"])
def test_a_wait_that_cannot_be_set_up_leaves_nothing_on_the_loop(
    refused: str, make_pipe: Callable[[], Pipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For want of descriptors or of memory, at each of the places where the kernel may say so."""
    reader, _ = make_pipe()

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def wait_in_vain() -> None:
        loop, listeners = asyncio.get_running_loop(), listened_to()
        with monkeypatch.context() as patch:
            if refused == "add_reader":
                patch.setattr(loop, "add_reader", refuse)
            else:
                patch.setattr(drive_module, refused, refuse)
            noted = Noted([Wait(read=(reader,))])
            with pytest.raises(CapacityError):
                await drive_async(noted.steps())
        assert noted.closed
        assert listened_to() == listeners
        await drive_async(Noted([Wait(read=(reader,), deadline_s=0.0)]).steps())

    before = len(list(Path("/proc/self/fd").iterdir()))
    asyncio.run(wait_in_vain())
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# Leaving early ------------------------------------------------------------------------------------


class Stop(Exception):
    """What a listener raises."""


def refuse(_: Chunk) -> None:
    raise Stop


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_listener_that_raises_ends_the_steps(driver: Any) -> None:
    noted = Noted([chunk(0), chunk(1)])
    with pytest.raises(Stop):
        driver(noted.steps(), refuse)
    assert noted.closed


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_the_steps_raise_comes_out(driver: Any) -> None:
    def steps() -> Steps[None]:
        yield chunk(0)
        raise Stop

    with pytest.raises(Stop):
        driver(steps())


def test_an_interrupt_at_any_line_of_the_driver_ends_the_steps() -> None:
    """Ctrl-C comes where it likes: between the output and the listener too."""
    line, finished = 0, False
    while not finished:
        noted = Noted([chunk(0), Wait(deadline_s=0.0)])
        steps = noted.steps()  # held, so that nothing but the driver closes them
        with interrupted_at(line, drive):
            drive(steps, lambda _: None)
            finished = True
        assert noted.closed or not noted.started
        line += 1
    assert line > 6


@contextmanager
def interrupted_at(number: int, function: Callable[..., Any]) -> Iterator[None]:
    """Raise KeyboardInterrupt before the n-th line that the function comes to, and take it back here."""
    lines = itertools.count()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code is not function.__code__:
            return None
        if event == "line" and next(lines) == number:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        sys.settrace(before)


def test_closing_an_iterator_ends_the_steps() -> None:
    noted = Noted([chunk(0), chunk(1)])
    iterator = iterate(noted.steps())
    assert next(iterator) == chunk(0)
    iterator.close()
    assert noted.closed


def test_an_iterator_that_nobody_holds_any_more_ends_the_steps() -> None:
    noted = Noted([chunk(0), chunk(1)])
    for _ in iterate(noted.steps()):
        break
    assert noted.closed


def test_an_interrupted_iteration_on_a_loop_ends_the_steps() -> None:
    noted = Noted([chunk(0), chunk(1)], "value")
    values: list[str] = []

    async def leave_early() -> None:
        iterator = iterate_async(noted.steps(), values.append)
        assert await anext(iterator) == chunk(0)
        await iterator.aclose()

    asyncio.run(leave_early())
    assert noted.closed
    assert values == []


def test_a_complete_iteration_on_a_loop_hands_over_the_value() -> None:
    values: list[str] = []

    async def listen() -> list[Chunk]:
        return [item async for item in iterate_async(Noted([chunk(0), chunk(1)], "value").steps(), values.append)]

    assert asyncio.run(listen()) == [chunk(0), chunk(1)]
    assert values == ["value"]


async def cancel_soon(start: Callable[[Steps[Any]], Coroutine[Any, Any, Any]], noted: Noted) -> None:
    task = asyncio.create_task(start(noted.steps()))
    await asyncio.sleep(0)  # up to the first wait
    assert noted.answers
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert noted.closed


def test_a_cancelled_task_ends_the_steps_and_leaves_the_loop_without_their_descriptors(
    make_pipe: Callable[[], Pipe],
) -> None:
    reader, _ = make_pipe()

    async def cancel_and_look() -> None:
        listeners = listened_to()
        await cancel_soon(drive_async, Noted([chunk(0), Wait(read=(reader,))]))
        assert listened_to() == listeners

    asyncio.run(cancel_and_look())


def listened_to() -> set[int]:
    """The descriptors that the running loop watches."""
    selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    return set(selector.get_map())


def test_many_steps_wait_on_one_loop_at_once(make_pipe: Callable[[], Pipe]) -> None:
    async def wait_for_all() -> list[Any]:
        pipes = [make_pipe() for _ in range(50)]
        scripts = [Noted([Wait(read=(reader,))], number) for number, (reader, _) in enumerate(pipes)]
        tasks = [asyncio.create_task(drive_async(script.steps())) for script in scripts]
        await asyncio.sleep(0)
        for _, writer in reversed(pipes):
            os.write(writer, b"x")
        return await asyncio.gather(*tasks)

    assert asyncio.run(wait_for_all()) == list(range(50))
