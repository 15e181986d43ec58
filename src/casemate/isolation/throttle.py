"""Holding a sandbox to its processor share where no control group does: stopped and continued as a whole."""

from __future__ import annotations

import signal
import socket
import threading
from typing import Protocol

from casemate import limits
from casemate.errors import CapacityError, SandboxClosed
from casemate.isolation.protocol import EVERYTHING, encode_signal


class Stoppable(Protocol):
    """What can be held back: a sandbox."""

    def request(self, message: bytes) -> socket.socket: ...

    def kill(self) -> None: ...


class Throttle:
    """One sandbox's debt of processor time, paid by standing still. Safe from many threads.

    All executions in a sandbox share it: two with a word of their own would stop and continue each other. What is
    used while nobody watches is nobody's debt, and time in which nothing was used earns nothing.
    """

    def __init__(self, sandbox: Stoppable, cpus: float) -> None:
        self._sandbox = sandbox
        self._cpus = cpus
        self._lock = threading.Lock()
        self._watchers = 0
        self._used_s = 0.0
        self._looked_s = 0.0
        self._debt_s = 0.0
        self._is_stopped = False

    def enter(self, used_s: float, now_s: float) -> None:
        """An execution begins; `used_s` is what the sandbox has used until now, in all."""
        with self._lock:
            if not self._watchers:
                self._used_s, self._looked_s, self._debt_s = used_s, now_s, 0.0
            self._watchers += 1

    def look(self, used_s: float, now_s: float) -> None:
        """Stop everything inside if it has run too far ahead, let it go on when that is paid."""
        with self._lock:
            self._account(used_s, now_s)
            # Told again at each look: a process that was started meanwhile has not heard it.
            if self._debt_s > (0.0 if self._is_stopped else limits.THROTTLE_DEBT_S):
                self._is_stopped = self._signal(signal.SIGSTOP) or self._is_stopped
            elif self._is_stopped:
                self._is_stopped = not self._signal(signal.SIGCONT)

    def leave(self) -> None:
        """An execution has ended. The last one leaves nothing stopped behind; what cannot be continued is killed."""
        with self._lock:
            self._watchers -= 1
            if not self._watchers and self._is_stopped:
                self._is_stopped = False
                if not self._signal(signal.SIGCONT):
                    self._sandbox.kill()

    def _account(self, used_s: float, now_s: float) -> None:
        # What was sampled can shrink: a process takes children with it whose time nobody inherits.
        used_s = max(used_s, self._used_s)
        earned_s = self._cpus * (now_s - self._looked_s)
        self._debt_s = max(0.0, self._debt_s + used_s - self._used_s - earned_s)
        self._used_s, self._looked_s = used_s, now_s

    def _signal(self, number: int) -> bool:
        """Whether everything inside was told, or nothing is there any more; without a descriptor nobody is."""
        try:
            self._sandbox.request(encode_signal(EVERYTHING, number)).close()
        except CapacityError:
            return False
        except SandboxClosed:
            return True
        return True
