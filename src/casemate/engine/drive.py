"""The drivers of `Steps`: one waits with poll in the calling thread, one with the asyncio loop.

Leaving a driver early (an exception, a cancelled task, a closed iterator) closes the steps, whose
`finally` blocks kill the sandbox before anything else happens.
"""

from __future__ import annotations

import select
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import closing
from typing import Generic, TypeVar

from casemate.isolation.waiting import Ready, Steps, Wait
from casemate.model.result import Chunk

T = TypeVar("T")
NOTHING_READY: Ready = frozenset()


class _End(Generic[T]):
    """The value that steps ended with."""

    def __init__(self, value: T) -> None:
        self.value = value


def _advance(steps: Steps[T], ready: Ready | None) -> Wait | Chunk | _End[T]:
    """The next item of the steps; `ready` is None the first time."""
    try:
        return next(steps) if ready is None else steps.send(ready)
    except StopIteration as stop:
        return _End(stop.value)


def drive(steps: Steps[T], on_chunk: Callable[[Chunk], None] | None = None) -> T:
    """Run the steps to their end in this thread; live output goes to `on_chunk`."""
    iterator = iterate(steps)
    while True:
        try:
            chunk = next(iterator)
        except StopIteration as stop:
            value: T = stop.value
            return value
        if on_chunk is not None:
            try:
                on_chunk(chunk)
            except BaseException:
                iterator.close()
                raise


def iterate(steps: Steps[T]) -> Generator[Chunk, None, T]:
    """Run the steps, yielding live output; the generator's return value is the steps'."""
    with closing(steps):
        item = _advance(steps, None)
        while not isinstance(item, _End):
            ready = NOTHING_READY
            if isinstance(item, Wait):
                ready = _poll(item)
            else:
                yield item
            item = _advance(steps, ready)
        return item.value


def _timeout_s(wait: Wait) -> float | None:
    return None if wait.deadline_s is None else max(0.0, wait.deadline_s - time.monotonic())


def _poll(wait: Wait) -> Ready:
    poll = select.poll()
    for fd in wait.read:
        poll.register(fd, select.POLLIN)
    for fd in wait.write:
        poll.register(fd, select.POLLOUT)
    timeout_s = _timeout_s(wait)
    # Rounded up: waking a fraction of a millisecond early would only spin.
    events = poll.poll(None if timeout_s is None else int(timeout_s * 1000) + (timeout_s > 0))
    return frozenset(fd for fd, _ in events)


async def drive_async(steps: Steps[T], on_chunk: Callable[[Chunk], None] | None = None) -> T:
    """Run the steps to their end on the running loop."""
    with closing(steps):
        item = _advance(steps, None)
        while not isinstance(item, _End):
            ready = NOTHING_READY
            if isinstance(item, Wait):
                ready = await _wait_async(item)
            elif on_chunk is not None:
                on_chunk(item)
            item = _advance(steps, ready)
        return item.value


async def iterate_async(steps: Steps[T], on_end: Callable[[T], None]) -> AsyncGenerator[Chunk, None]:
    """Run the steps on the running loop, yielding live output; `on_end` gets the value."""
    with closing(steps):
        item = _advance(steps, None)
        while not isinstance(item, _End):
            ready = NOTHING_READY
            if isinstance(item, Wait):
                ready = await _wait_async(item)
            else:
                yield item
            item = _advance(steps, ready)
        on_end(item.value)


async def _wait_async(wait: Wait) -> Ready:
    import asyncio  # some 30 ms that a run without a loop does not pay

    loop = asyncio.get_running_loop()
    wake = loop.create_future()
    ready: set[int] = set()

    def note(fd: int) -> None:
        ready.add(fd)
        if not wake.done():
            wake.set_result(None)

    for fd in wait.read:
        loop.add_reader(fd, note, fd)
    for fd in wait.write:
        loop.add_writer(fd, note, fd)
    try:
        await asyncio.wait([wake], timeout=_timeout_s(wait))
    finally:
        wake.cancel()
        for fd in wait.read:
            loop.remove_reader(fd)
        for fd in wait.write:
            loop.remove_writer(fd)
    return frozenset(ready)
