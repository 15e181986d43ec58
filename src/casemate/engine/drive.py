"""The drivers of `Steps`: one waits with poll in the calling thread, one with the asyncio loop.

Leaving a driver early (an exception, a cancelled task, a closed iterator) closes the steps, whose
`finally` blocks kill the sandbox before anything else happens.
"""

from __future__ import annotations

import errno
import select
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from casemate.errors import CapacityError
from casemate.isolation.waiting import Ready, Steps, Wait
from casemate.model.result import Chunk

if TYPE_CHECKING:
    import asyncio

E = TypeVar("E")
T = TypeVar("T")
NOTHING_READY: Final[Ready] = frozenset()

_ALWAYS_READY: Final = frozenset({errno.EPERM, errno.EBADF})
"""How epoll refuses what poll calls ready: a file that never blocks, and one that is closed."""


class _End(Generic[T]):
    """The value that steps ended with."""

    def __init__(self, value: T) -> None:
        self.value = value


def _advance(steps: Generator[Wait | E, Ready, T], ready: Ready | None) -> Wait | E | _End[T]:
    """The next item of the steps; `ready` is None the first time."""
    try:
        return next(steps) if ready is None else steps.send(ready)
    except StopIteration as stop:
        return _End(stop.value)


def drive(steps: Steps[T], on_chunk: Callable[[Chunk], None] | None = None) -> T:
    """Run the steps to their end in this thread; live output goes to `on_chunk`."""
    with closing(iterate(steps)) as chunks:
        while True:
            try:
                chunk = next(chunks)
            except StopIteration as stop:
                value: T = stop.value
                return value
            if on_chunk is not None:
                on_chunk(chunk)


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


def _interest(wait: Wait) -> dict[int, int]:
    """What to look for on each descriptor; the numbers are the same for poll and epoll."""
    masks = dict.fromkeys(wait.read, select.POLLIN)
    for fd in wait.write:
        masks[fd] = masks.get(fd, 0) | select.POLLOUT
    return masks


def _poll(wait: Wait) -> Ready:
    poll = select.poll()
    for fd, mask in _interest(wait).items():
        poll.register(fd, mask)
    timeout_s = _timeout_s(wait)
    # Rounded up: waking a fraction of a millisecond early would only spin.
    events = poll.poll(None if timeout_s is None else int(timeout_s * 1000) + (timeout_s > 0))
    return frozenset(fd for fd, _ in events)


async def drive_async(steps: Steps[T], on_chunk: Callable[[Chunk], None] | None = None) -> T:
    """Run the steps to their end on the running loop."""
    values: list[T] = []
    async with aclosing(iterate_async(steps, values.append)) as chunks:
        async for chunk in chunks:
            if on_chunk is not None:
                on_chunk(chunk)
    return values[0]


async def iterate_async(steps: Generator[Wait | E, Ready, T], on_end: Callable[[T], None]) -> AsyncGenerator[E, None]:
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
    """Wait with an epoll of our own: a loop keeps one listener for each descriptor, and others may wait for it too."""
    try:
        with select.epoll() as poll:
            always_ready = _register(poll, wait)
            while True:
                await _wake(poll.fileno(), 0.0 if always_ready else _timeout_s(wait))
                ready = always_ready.union(fd for fd, _ in poll.poll(0))
                # Another task that was woken for the same may have been quicker.
                if ready or _timeout_s(wait) == 0.0:
                    return ready
    except OSError as error:
        raise CapacityError(f"nothing left to wait with: {error.strerror}") from error


def _register(poll: select.epoll, wait: Wait) -> Ready:
    """Ask for what the wait is for; returns what epoll refuses, as poll would: regular files, closed descriptors."""
    refused = set()
    for fd, mask in _interest(wait).items():
        try:
            poll.register(fd, mask)
        except OSError as error:
            if error.errno not in _ALWAYS_READY:
                raise
            refused.add(fd)
    return frozenset(refused)


async def _wake(fd: int, timeout_s: float | None) -> None:
    """Let the loop run until the descriptor is readable or the time is over, and at least once."""
    import asyncio  # some 30 ms that a run without a loop does not pay

    loop = asyncio.get_running_loop()
    woken = loop.create_future()
    loop.add_reader(fd, _note, woken)
    timer = None if timeout_s is None else loop.call_later(timeout_s, _note, woken)
    try:
        await woken
    finally:
        loop.remove_reader(fd)
        if timer is not None:
            timer.cancel()


def _note(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


class Listener:
    """Passes live output on. The first error of whoever takes it calls `stop`, and comes out when the steps have."""

    def __init__(self, on_chunk: Callable[[Chunk], None] | None, stop: Callable[[], None]) -> None:
        self._on_chunk = on_chunk
        self._stop = stop
        self._error: BaseException | None = None

    def __call__(self, chunk: Chunk) -> None:
        if self._on_chunk is None or self._error is not None:
            return
        try:
            self._on_chunk(chunk)
        except BaseException as error:  # noqa: BLE001 - raised again as soon as nothing runs any more
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        self._error = error
        self._stop()

    def check(self) -> None:
        """Raise what was kept back."""
        if self._error is not None:
            raise self._error


def drive_to_end(steps: Steps[T], on_chunk: Callable[[Chunk], None] | None, stop: Callable[[], None]) -> T:
    """As `drive`, but what interrupts it the first time calls `stop`, and the steps come to their end."""
    listener = Listener(on_chunk, stop)
    with closing(steps):
        item = _advance(steps, None)
        while not isinstance(item, _End):
            ready = NOTHING_READY
            if isinstance(item, Chunk):
                listener(item)
            else:
                try:
                    ready = _poll(item)
                except KeyboardInterrupt as error:
                    listener.check()
                    listener.fail(error)
            item = _advance(steps, ready)
        listener.check()
        return item.value


def _look_at(task: asyncio.Task[T]) -> None:
    """Whatever it has ended with: somebody else's error is on its way."""
    if not task.cancelled():
        task.exception()


async def drive_to_end_async(steps: Steps[T], on_chunk: Callable[[Chunk], None] | None, stop: Callable[[], None]) -> T:
    """The same for the running loop: a task that is cancelled calls `stop`, and ends when the steps have."""
    import asyncio

    listener = Listener(on_chunk, stop)
    task = asyncio.ensure_future(drive_async(steps, listener))
    try:
        value = await asyncio.shield(task)
    except asyncio.CancelledError:
        stop()
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()  # of use only if this was cancelled once more
            task.add_done_callback(_look_at)
        raise
    listener.check()
    return value
