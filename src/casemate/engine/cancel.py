"""Cancelling an execution from another thread."""

from __future__ import annotations

import os
import weakref

from casemate.errors import CapacityError


class CancelToken:
    """Give it to a run and call `cancel()` from anywhere; the run ends with reason `cancelled`."""

    def __init__(self) -> None:
        try:
            self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError as error:
            raise CapacityError(f"no descriptor for a token: {error.strerror}") from error
        self._close = weakref.finalize(self, os.close, self.fd)

    def cancel(self) -> None:
        """Idempotent; after the run has ended it does nothing."""
        os.eventfd_write(self.fd, 1)
