"""Calls that block, beside steps, which never do."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from casemate.isolation.waiting import Steps, Wait, open_event

T = TypeVar("T")


def _keep(_: object) -> None:
    """What was ended needs no undoing."""


class _Call(Generic[T]):
    """One call in a thread of its own. What comes of it when nobody waits any more is undone there."""

    def __init__(self, call: Callable[[], T], undo: Callable[[T], None]) -> None:
        self._call = call
        self._undo = undo
        self._lock = threading.Lock()
        self._is_left = False
        self._error: BaseException | None = None
        self._values: list[T] = []
        self.fd = open_event()
        threading.Thread(target=self._run, name="casemate-call", daemon=True).start()

    def _run(self) -> None:
        try:
            value = self._call()
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            with self._lock:
                self._error = error
                self._wake()
            return
        with self._lock:
            self._values.append(value)
            self._wake()
            is_left = self._is_left
        if is_left:
            self._undo(value)

    def _wake(self) -> None:
        if not self._is_left:
            os.eventfd_write(self.fd, 1)

    def value(self) -> T:
        if self._error is not None:
            raise self._error
        return self._values[0]

    def leave(self, *, taken: bool) -> None:
        with self._lock:
            self._is_left = True
            os.close(self.fd)
            values = [] if taken else self._values
        for value in values:
            self._undo(value)


def in_thread(call: Callable[[], T], undo: Callable[[T], None] = _keep) -> Steps[T]:
    """What a call that blocks returns or raises, without blocking here."""
    pending = _Call(call, undo)
    taken = False
    try:
        yield Wait(read=(pending.fd,))
        taken = True
        return pending.value()
    finally:
        pending.leave(taken=taken)
