"""Who waits for a worker, and how many were lately needed at once."""

from __future__ import annotations

import os
import time
from collections import deque

from casemate import limits
from casemate.errors import CapacityError
from casemate.pool.worker import Kind, Worker


class Waiter:
    """Somebody in line. Granted is a worker, or the right to start one (None)."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.since_s = time.monotonic()
        self.granted = False
        self.worker: Worker | None = None
        try:
            self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError as error:
            raise CapacityError(f"no descriptor to wait for a worker: {error.strerror}") from error

    def grant(self, worker: Worker | None) -> None:
        self.granted = True
        self.worker = worker
        os.eventfd_write(self.fd, 1)


class Demand:
    """How many workers of a kind were busy at once, lately."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now_s: float, busy: int) -> None:
        """Older entries that are not higher can never be the peak again."""
        while self._seen and self._seen[-1][1] <= busy:
            self._seen.pop()
        self._seen.append((now_s, busy))

    def peak(self, now_s: float) -> int:
        while self._seen and now_s - self._seen[0][0] > limits.DEMAND_WINDOW_S:
            self._seen.popleft()
        return self._seen[0][1] if self._seen else 0
