"""Taking turns: one call after the other, in the order in which they came, from any number of threads and tasks."""

from __future__ import annotations

import os
import threading
from collections import deque

from casemate.isolation.waiting import Steps, Wait, open_event


class Turns:
    """Who has the turn, and who waits for it. Safe from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_taken = False
        self._waiting: deque[int] = deque()

    def take(self) -> Steps[None]:
        """Wait for the turn. If this is left early, the turn is somebody else's."""
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return
            event = open_event()
            self._waiting.append(event)
        try:
            while event not in (yield Wait(read=(event,))):
                continue
        except BaseException:
            with self._lock:
                is_granted = event not in self._waiting
                if not is_granted:
                    self._waiting.remove(event)
            if is_granted:
                self.give_back()
            raise
        finally:
            os.close(event)

    def give_back(self) -> None:
        """The next one in line has the turn."""
        with self._lock:
            if self._waiting:
                os.eventfd_write(self._waiting.popleft(), 1)
            else:
                self._is_taken = False
