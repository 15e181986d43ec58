"""Holding back what a process prints until whoever takes it has room again."""

from __future__ import annotations

import os
import weakref
from contextlib import suppress

from casemate.isolation.waiting import open_event


class Valve:
    """Open at first. `fd` is readable once it has been opened again; both ends belong to one thread."""

    def __init__(self) -> None:
        self.fd = open_event()
        self.is_open = True
        self._close = weakref.finalize(self, os.close, self.fd)

    def shut(self) -> None:
        """Idempotent."""
        self.is_open = False
        with suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def open(self) -> None:
        """Idempotent."""
        if not self.is_open:
            self.is_open = True
            os.eventfd_write(self.fd, 1)
