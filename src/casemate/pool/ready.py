"""A pool of ready things: made ahead by threads of its own, taken once each, thrown away when they are too old."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Annotated, Final, Generic, TypeVar

import msgspec

from casemate import limits
from casemate.errors import CapacityError, CasemateError, SandboxClosed
from casemate.model.pool import Bounds
from casemate.pool.sizing import next_change_s, wanted

K = TypeVar("K")
T = TypeVar("T")
_PROBLEMS: Final = (CasemateError, OSError)
_numbers: Final = itertools.count(1)


Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Text = Annotated[str, msgspec.Meta(max_length=limits.PUBLISHED_TEXT_MAX_CHARS)]
"""Bounds for what other processes say; whoever makes the value itself keeps them."""


class PoolStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of ready things. `memory_bytes` is what the ready ones held when they were made."""

    label: Text
    ready: Count
    starting: Count
    busy: Count
    hits: Count
    misses: Count
    memory_bytes: Count
    problem: Text = ""


class Made(msgspec.Struct, Generic[T]):
    """A ready thing, what it holds, and when it was made (monotonic)."""

    thing: T
    memory_bytes: int
    made_s: float
    number: int = 0


class Maker(msgspec.Struct, Generic[K, T], frozen=True):
    """What a pool must be told of its things: how to make one, what it holds, whether it lives, how to end it.

    `problem` says what makes them worse than they could be, if anything does.
    """

    make: Callable[[K], T]
    memory_bytes: Callable[[T], int]
    is_alive: Callable[[T], bool]
    discard: Callable[[T], None]
    label: Callable[[K], str]
    problem: Callable[[K], str] = lambda _: ""


class _Kind(Generic[T]):
    """Everything about the things of one key."""

    def __init__(self) -> None:
        self.ready: deque[Made[T]] = deque()
        self.takes_s: deque[float] = deque(maxlen=limits.POOL_TAKES_REMEMBERED)
        self.kept = self.starting = self.busy = self.hits = self.misses = self.made = 0
        self.problem = ""
        self.failures = 0
        self.retry_s = 0.0

    def missing(self, now_s: float, bounds: Bounds) -> int:
        if now_s < self.retry_s:
            return 0
        return wanted(self.takes_s, now_s, bounds, self.kept) - len(self.ready) - self.starting


class ReadyPool(Generic[K, T]):
    """Keeps things ready by key. Safe from many threads; nothing runs while nothing is wanted.

    The threads that make things are started when something is first wanted, and sleep until that changes.
    """

    def __init__(self, maker: Maker[K, T], bounds: Bounds) -> None:
        self._maker = maker
        self._bounds = bounds
        self._kinds: dict[K, _Kind[T]] = {}
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._discarding = 0  # threads that throw something away
        self._polite_until_s = 0.0

    def take(self, key: K, *, quietly: bool = False) -> T | None:
        """A ready thing, which is the caller's from now on; None if there is none. Counts as demand either way.

        `quietly`: who finds one is in a hurry, and calls `wake` a little later, so that another is made.
        """
        dead: list[T] = []
        with self._changed:
            kind = self._kind(key)
            if kind is None:
                return None
            now_s = time.monotonic()
            if not any(each.busy for each in self._kinds.values()):
                self._polite_until_s = now_s + limits.POOL_POLITE_S
            kind.takes_s.append(now_s)
            kind.busy += 1
            found = self._pop(kind, dead)
            kind.hits += found is not None
            kind.misses += found is None
            if found is None or not quietly:
                self._wake()
        self._throw_away(dead)
        return found

    def wake(self) -> None:
        """After a quiet `take`."""
        with self._changed:
            self._wake()

    def done(self, key: K) -> None:
        """What was taken, or made instead, is not used any more."""
        with self._changed:
            self._polite_until_s = 0.0
            if key in self._kinds and self._kinds[key].busy:
                self._kinds[key].busy -= 1
            self._changed.notify_all()

    def keep(self, key: K, count: int) -> None:
        """Have at least that many ready from now on, whatever the demand; 0 takes it back.

        Raises SandboxClosed, or CapacityError if there are too many kinds already.
        """
        with self._changed:
            kind = self._kind(key)
            if self._closed:
                raise SandboxClosed("the pool is closed")
            if kind is None:
                raise CapacityError(f"{limits.POOL_KINDS_MAX} kinds are ready or in use already")
            kind.kept = count
            found = [(made, self._maker.is_alive(made.thing)) for made in kind.ready]
            kind.ready = deque(made for made, is_alive in found if is_alive)
            dead = [made.thing for made, is_alive in found if not is_alive]
            self._wake()
        self._throw_away(dead)

    def let_go(self, is_one: Callable[[K], bool]) -> bool:
        """Keep nothing ready of some kinds any more, and forget their demand; whether anything had to be kept."""
        with self._changed:
            kinds = [kind for key, kind in self._kinds.items() if is_one(key) and kind.kept]
            for kind in kinds:
                kind.kept = 0
                kind.takes_s.clear()
            self._changed.notify_all()
            return bool(kinds)

    def wait_ready(self, key: K, count: int, timeout_s: float) -> bool:
        """Wait until so many are ready, or were made meanwhile and taken; whether that is so.

        Returns early when there can be no more: the pool is full, or closed.
        """
        with self._changed:
            kind = self._kinds.get(key)
            before = kind.made if kind else 0
            self._changed.wait_for(lambda: self._is_decided(kind, count, before), timeout_s)
            return kind is not None and self._has_made(kind, count, before)

    def _is_decided(self, kind: _Kind[T] | None, count: int, before: int) -> bool:
        if self._closed or kind is None or self._has_made(kind, count, before):
            return True
        return self.is_full and not kind.starting

    @staticmethod
    def _has_made(kind: _Kind[T], count: int, before: int) -> bool:
        return len(kind.ready) >= count or kind.made - before >= count

    @property
    def is_full(self) -> bool:
        """Whether what is ready, and by a guess what is being made, holds all the memory that it may."""
        held = sum(made.memory_bytes for kind in self._kinds.values() for made in kind.ready)
        starting = sum(kind.starting for kind in self._kinds.values())
        return held + starting * limits.POOL_MEMORY_GUESS_BYTES >= self._bounds.memory_bytes

    def statistics(self) -> tuple[PoolStatistics, ...]:
        """All kinds, as they are now."""
        with self._changed:
            return tuple(self._statistics(key, kind) for key, kind in self._kinds.items())

    def things(self) -> tuple[tuple[K, Made[T]], ...]:
        """All that is ready now and lives."""
        with self._changed:
            return tuple((key, made) for key, kind in self._kinds.items() for made in self._alive(kind))

    def clear(self) -> None:
        """Forget the demand until now and throw away all that is ready or becomes so.

        What is to be kept whatever the demand is made again.
        """
        with self._changed:
            for kind in self._kinds.values():
                kind.takes_s.clear()
            self._changed.wait_for(self._is_idle, limits.LAUNCH_TIMEOUT_S)
            rest = [made.thing for kind in self._kinds.values() for made in kind.ready]
            for kind in self._kinds.values():
                kind.ready.clear()
            self._changed.notify_all()
        self._throw_away(rest)

    def _is_idle(self) -> bool:
        return not self._discarding and not any(kind.starting for kind in self._kinds.values())

    def _throw_away(self, things: Iterable[T]) -> None:
        """What cannot be ended is logged: whoever only wanted another one has nothing to do with it."""
        for thing in things:
            try:
                self._maker.discard(thing)
            except Exception:  # noqa: BLE001 - the thread that makes things must outlive whatever it is
                _log_failure("what was ready cannot be ended")

    def close(self) -> None:
        """Throw away all that is ready and end the threads. Idempotent."""
        with self._changed:
            self._closed = True
            rest = [made.thing for kind in self._kinds.values() for made in kind.ready]
            self._kinds.clear()
            self._changed.notify_all()
            threads, self._threads = self._threads, []
        for thread in threads:
            thread.join()
        self._throw_away(rest)

    def _alive(self, kind: _Kind[T]) -> list[Made[T]]:
        """Those that can be taken: nobody tells us when one dies, and nobody looks until it matters."""
        return [made for made in kind.ready if self._maker.is_alive(made.thing)]

    def _statistics(self, key: K, kind: _Kind[T]) -> PoolStatistics:
        alive = self._alive(kind)
        return PoolStatistics(
            label=self._maker.label(key)[: limits.PUBLISHED_TEXT_MAX_CHARS],
            ready=len(alive),
            starting=kind.starting,
            busy=kind.busy,
            hits=kind.hits,
            misses=kind.misses,
            memory_bytes=sum(made.memory_bytes for made in alive),
            problem=(kind.problem or self._maker.problem(key))[: limits.PUBLISHED_TEXT_MAX_CHARS],
        )

    def _kind(self, key: K) -> _Kind[T] | None:
        """The kind of a key; the one that was longest without demand makes room for a new one."""
        if self._closed:
            return None
        kind = self._kinds.pop(key, None)
        if kind is None and len(self._kinds) >= limits.POOL_KINDS_MAX:
            oldest = next((key for key, old in self._kinds.items() if not (old.kept or old.busy or old.starting)), None)
            if oldest is None:
                return None
            self._kinds[oldest].takes_s.clear()
            if self._kinds[oldest].ready:
                return None  # a thread throws them away first
            del self._kinds[oldest]
        self._kinds[key] = kind or _Kind()
        return self._kinds[key]

    def _pop(self, kind: _Kind[T], dead: list[T]) -> T | None:
        while kind.ready:
            made = kind.ready.popleft()
            if self._maker.is_alive(made.thing):
                return made.thing
            dead.append(made.thing)
        return None

    def _wake(self) -> None:
        now_s = time.monotonic()
        if not self._threads and any(kind.missing(now_s, self._bounds) > 0 for kind in self._kinds.values()):
            self._start()
        self._changed.notify_all()

    def _start(self) -> None:
        for number in range(limits.POOL_THREADS):
            thread = threading.Thread(target=self._work, name=f"casemate-pool-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return  # there is room for no more threads: whoever takes starts cold, and it is tried again
            self._threads.append(thread)

    def _work(self) -> None:
        while True:
            with self._changed:
                key, surplus = self._next()
                if self._closed:
                    break
                self._discarding += bool(surplus)
            if surplus:
                self._throw_away(surplus)
                with self._changed:
                    self._discarding -= 1
                    self._changed.notify_all()
            if key is not None:
                self._make(key[0])
        self._throw_away(surplus)

    def _next(self) -> tuple[tuple[K] | None, list[T]]:
        """Sleep until something is to be made or to be thrown away."""
        while not self._closed:
            now_s = time.monotonic()
            surplus = self._take_surplus(now_s)
            key = self._most_wanted(now_s)
            if key is not None:
                self._kinds[key[0]].starting += 1
            if key is not None or surplus:
                return key, surplus
            self._changed.wait(self._pause_s(now_s))
        return None, []

    def _most_wanted(self, now_s: float) -> tuple[K] | None:
        if now_s < self._polite_until_s:
            return None
        if self.is_full:
            return None
        missing = [(kind.missing(now_s, self._bounds), key) for key, kind in self._kinds.items()]
        most = max(missing, key=lambda each: each[0], default=None)
        return (most[1],) if most and most[0] > 0 else None

    def _take_surplus(self, now_s: float) -> list[T]:
        """What is too old, and what nobody wants any more."""
        surplus = []
        for kind in self._kinds.values():
            enough = wanted(kind.takes_s, now_s, self._bounds, kind.kept)
            while kind.ready and (len(kind.ready) > enough or now_s - kind.ready[0].made_s > limits.POOL_AGE_MAX_S):
                surplus.append(kind.ready.popleft().thing)
        return surplus

    def _pause_s(self, now_s: float) -> float | None:
        times = [kind.retry_s for kind in self._kinds.values() if kind.retry_s > now_s]
        if self._polite_until_s > now_s:
            times.append(self._polite_until_s)
        for kind in self._kinds.values():
            change_s = next_change_s(kind.takes_s, now_s, self._bounds)
            if kind.ready and change_s is not None:
                times.append(change_s)
            if kind.ready:
                times.append(kind.ready[0].made_s + limits.POOL_AGE_MAX_S)
        return max(0.0, min(times) - now_s) if times else None

    def _make(self, key: K) -> None:
        made, problem = self._made(key)
        with self._changed:
            kind = self._kinds.get(key)
            if kind is not None:
                self._note(kind, problem)
                if made is not None:
                    kind.ready.append(made)
                    kind.made += 1
                    made = None
            self._changed.notify_all()
        if made is not None:
            self._throw_away([made.thing])

    def _made(self, key: K) -> tuple[Made[T] | None, str]:
        """A new thing, or why there is none."""
        thing: T | None = None
        try:
            thing = self._maker.make(key)
            return Made(thing, self._maker.memory_bytes(thing), time.monotonic(), next(_numbers)), ""
        except Exception as error:  # noqa: BLE001 - the thread must outlive whatever it is
            if not isinstance(error, _PROBLEMS):
                _log_failure("nothing can be made ahead")
            if thing is not None:
                self._throw_away([thing])
            return None, str(error) or type(error).__name__

    def _note(self, kind: _Kind[T], problem: str) -> None:
        """What cannot be made is tried again less and less often."""
        kind.starting -= 1
        kind.problem = problem
        kind.failures = kind.failures + 1 if problem else 0
        if problem:
            pause_s = min(limits.POOL_RETRY_MAX_S, limits.POOL_RETRY_MIN_S * 2.0 ** min(kind.failures, 16))
            kind.retry_s = time.monotonic() + pause_s


def _log_failure(what: str) -> None:
    """Inside an `except` block."""
    import logging  # takes longer to import than a run takes

    logging.getLogger("casemate").exception(what)  # noqa: LOG004 - see above
