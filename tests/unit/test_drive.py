"""The two drivers of steps: the same steps, the same values, and an early end that is always told."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.engine.drive import drive, drive_async, iterate, iterate_async
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
        self.closed = False
        self.answers: list[Ready] = []

    def steps(self) -> Steps[Any]:
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


def cancelled(start: Callable[[Steps[Any]], Coroutine[Any, Any, Any]], noted: Noted) -> None:
    async def cancel_soon() -> None:
        task = asyncio.create_task(start(noted.steps()))
        await asyncio.sleep(0)  # up to the first wait
        assert noted.answers
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert noted.closed

    asyncio.run(cancel_soon())


def test_a_cancelled_task_ends_the_steps_and_leaves_the_loop_without_their_descriptors(
    make_pipe: Callable[[], Pipe],
) -> None:
    reader, _ = make_pipe()
    cancelled(drive_async, Noted([chunk(0), Wait(read=(reader,))]))

    async def reuse() -> None:
        loop = asyncio.get_running_loop()
        assert not loop.remove_reader(reader)

    asyncio.run(reuse())


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
