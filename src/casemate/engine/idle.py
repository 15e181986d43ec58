"""Ending what nobody uses: a time-out that begins when work ends, and in which running work never counts as idle."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from casemate import limits
from casemate.errors import InvalidInput, SandboxClosed
from casemate.model.units import parse_duration


def check_idle(wanted: str | float | None) -> float | None:
    """An idle time-out as people write it, in seconds. Raises InvalidInput."""
    if wanted is None:
        return None
    seconds = parse_duration(wanted, field="idle_timeout")
    if not limits.IDLE_MIN_S <= seconds <= limits.IDLE_MAX_S:
        raise InvalidInput("idle_timeout", f"is outside {limits.IDLE_MIN_S:g} to {limits.IDLE_MAX_S:g} seconds")
    return seconds


class IdleLimit:
    """Calls `end` once when there has been no work for so long. Without a time there is no end."""

    def __init__(self, after_s: float | None, end: Callable[[], None]) -> None:
        self._after_s = after_s
        self._end = end
        self._lock = threading.Lock()
        self._workers = 0
        self._idle_since_s = time.monotonic()
        self._is_armed = False
        self._is_over = False

    @contextmanager
    def working(self) -> Iterator[None]:
        """While this lasts nothing is idle. Raises SandboxClosed if the time was over before."""
        self.begin()
        try:
            yield
        finally:
            self.finish()

    def begin(self) -> None:
        with self._lock:
            self.check()
            self._workers += 1

    def finish(self) -> None:
        with self._lock:
            self._workers -= 1
            self._idle_since_s = time.monotonic()
            if self._after_s is not None and not self._workers and not self._is_armed:
                self._is_armed = True
                _alarms.set(self._idle_since_s + self._after_s, self)

    def check(self) -> None:
        if self._is_over:
            raise SandboxClosed(
                f"the sandbox has ended: nothing ran in it for {self._after_s:g} s", hint="raise idle_timeout"
            )

    def ring(self) -> None:
        """The time may be over: it is, unless there was work meanwhile."""
        with self._lock:
            self._is_armed = False
            if self._workers or self._after_s is None:
                return
            due_s = self._idle_since_s + self._after_s
            self._is_over = due_s <= time.monotonic()
            if not self._is_over:
                self._is_armed = True
                _alarms.set(due_s, self)
                return
        self._end()


class _Alarms:
    """One thread that sleeps until the earliest of all alarms, and is only there while there are any."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Also in a forked child, which does not have the thread."""
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, weakref.ref[IdleLimit]]] = []
        self._is_running = False

    def set(self, when_s: float, whose: IdleLimit) -> None:
        with self._changed:
            heapq.heappush(self._waiting, (when_s, next(self._numbers), weakref.ref(whose)))
            self._changed.notify()
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="casemate-idle", daemon=True).start()

    def _run(self) -> None:
        while (due := self._next()) is not None:
            due.ring()

    def _next(self) -> IdleLimit | None:
        """The next one whose time has come; None if nobody is left to wait for."""
        with self._changed:
            while self._waiting:
                when_s, _, whose = self._waiting[0]
                due = whose()
                wait_s = when_s - time.monotonic()
                if due is not None and wait_s > 0:
                    del due
                    self._changed.wait(wait_s)
                    continue
                heapq.heappop(self._waiting)
                if due is not None:
                    return due
            self._is_running = False
            return None


_alarms = _Alarms()
os.register_at_fork(after_in_child=_alarms.renew)
