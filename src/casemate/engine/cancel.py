"""Cancelling an execution from another thread."""

from __future__ import annotations

import os
import weakref
from contextlib import closing
from typing import TypeVar

import msgspec

from casemate.isolation.waiting import Ready, Steps, Wait, open_event

T = TypeVar("T")


class CancelToken:
    """Give it to a run and call `cancel()` from anywhere; the run ends with reason `cancelled`."""

    def __init__(self) -> None:
        self.fd = open_event()
        self._is_cancelled = False
        self._close = weakref.finalize(self, os.close, self.fd)

    def cancel(self) -> None:
        """Idempotent; after the run has ended it does nothing."""
        self._is_cancelled = True
        os.eventfd_write(self.fd, 1)

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel()` was called."""
        return self._is_cancelled


class Cancelled(Exception):
    """The token was used while steps were under way, which are closed."""


def until_cancelled(steps: Steps[T], cancel: CancelToken | None) -> Steps[T]:
    """The same steps, with the token in each of their waits. Raises Cancelled as soon as it is used."""
    with closing(steps):
        ready: Ready | None = None
        while cancel is None or not cancel.is_cancelled:
            try:
                item = next(steps) if ready is None else steps.send(ready)
            except StopIteration as stop:
                value: T = stop.value
                return value
            if cancel is not None and isinstance(item, Wait):
                item = msgspec.structs.replace(item, read=(*item.read, cancel.fd))
            ready = yield item
    raise Cancelled
