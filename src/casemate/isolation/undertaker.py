"""The thread that releases killed sandboxes, so that nobody waits for the kernel to take them apart."""

from __future__ import annotations

import os
import select
import threading
import time
from contextlib import suppress
from typing import Protocol

from casemate import limits
from casemate.errors import CasemateError


class Mortal(Protocol):
    """What can be buried: a sandbox. `pidfd` becomes readable when its last process is gone."""

    @property
    def pidfd(self) -> int: ...

    def kill(self) -> None: ...

    def close(self) -> None:
        """Kills, waits for the end within a bound, releases everything."""
        ...


class Undertaker:
    """Takes sandboxes that nobody needs any more. Safe from many threads.

    Killing is done at once, in the caller's thread; only the wait for the end and the release are left to the
    undertaker's. It holds a bounded number: beyond that callers bury their own, so that a machine that makes
    sandboxes faster than it can take them apart slows down instead of filling up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._settled = threading.Condition(self._lock)
        self._waiting: dict[Mortal, float] = {}
        self._wake = -1
        self._thread: threading.Thread | None = None
        self._closed = False

    def bury(self, sandbox: Mortal) -> None:
        """Kill a sandbox now and release it as soon as it is dead."""
        sandbox.kill()
        if not self._take(sandbox):
            sandbox.close()

    def settle(self) -> None:
        """Wait until all that were buried until now are released. Bounded in time."""
        with self._settled:
            self._settled.wait_for(lambda: not self._waiting, limits.KILL_TIMEOUT_S + limits.CGROUP_REMOVE_TIMEOUT_S)

    def close(self) -> None:
        """Wait until all are released. Idempotent and bounded in time."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
            if thread is not None:
                os.eventfd_write(self._wake, 1)
        if thread is not None:
            thread.join()
            os.close(self._wake)

    def _take(self, sandbox: Mortal) -> bool:
        with self._lock:
            if self._closed or len(self._waiting) >= limits.BURIALS_WAITING_MAX:
                return False
            try:
                self._start()
            except (OSError, RuntimeError):
                return False  # no descriptor or no thread left: the caller does it
            self._waiting[sandbox] = time.monotonic() + limits.KILL_TIMEOUT_S
            os.eventfd_write(self._wake, 1)
            return True

    def _start(self) -> None:
        if self._thread is not None:
            return
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        thread = threading.Thread(target=self._work, name="casemate-undertaker", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            os.close(self._wake)
            raise
        self._thread = thread

    def _work(self) -> None:
        while True:
            with self._lock:
                waiting = dict(self._waiting)
                if self._closed and not waiting:
                    return
            for sandbox in self._ended(waiting):
                self._release(sandbox)

    def _ended(self, waiting: dict[Mortal, float]) -> list[Mortal]:
        """Sleep until somebody has died, waits for too long, or is new."""
        poll = select.poll()
        for fd in (self._wake, *(sandbox.pidfd for sandbox in waiting)):
            poll.register(fd, select.POLLIN)
        pause_s = max(0.0, min(waiting.values()) - time.monotonic()) if waiting else None
        ready = {fd for fd, _ in poll.poll(None if pause_s is None else int(pause_s * 1000) + 1)}
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        now_s = time.monotonic()
        return [sandbox for sandbox, until_s in waiting.items() if sandbox.pidfd in ready or until_s <= now_s]

    def _release(self, sandbox: Mortal) -> None:
        try:
            sandbox.close()
        except (CasemateError, OSError) as error:
            _warn(error)
        with self._settled:
            del self._waiting[sandbox]
            self._settled.notify_all()


def _warn(error: Exception) -> None:
    import logging  # takes longer to import than a run takes

    logging.getLogger("casemate").warning("a sandbox could not be taken apart: %s", error)
