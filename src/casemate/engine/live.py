"""An interpreter that stays in a sandbox, as its process: our ends of its pipes, its signals, its end, its copies."""

from __future__ import annotations

import itertools
import os
import select
import signal
import socket
import time
from contextlib import suppress

from casemate import limits
from casemate.engine.program import Command
from casemate.engine.warm import start_waiting
from casemate.errors import CasemateError, StateLost
from casemate.isolation.native import NativeSandbox
from casemate.isolation.protocol import Report, ReportKind, encode_signal, expect_report
from casemate.isolation.waiting import Steps, Wait
from casemate.model.live import FrameReader


class LiveProcess:
    """One interpreter. `channel` becomes readable at its end; a process that has once misbehaved is killed."""

    def __init__(self, sandbox: NativeSandbox, channel: socket.socket, spawned: Report) -> None:
        self.sandbox = sandbox
        self.channel = channel
        self.stdout_fd, self.stderr_fd, self.request_fd, self.reply_fd = spawned.fds
        for fd in spawned.fds:
            os.set_blocking(fd, False)
        self.frames = FrameReader()
        self.wait_status: int | None = None
        self.lost = ""
        self._id = spawned.id
        self._numbers = itertools.count(1)
        self._fds = spawned.fds
        self._is_closed = False

    def next_request(self) -> tuple[int, str]:
        """The number of a request, and an id that nothing inside can know before it is asked."""
        return next(self._numbers), os.urandom(8).hex()

    def check(self) -> None:
        """Raise StateLost if it has ended, or has said something that it was not asked for."""
        if not self.lost and _is_readable(self.channel.fileno()):
            self.take_end()
        if not self.lost and (not self.frames.is_empty or _is_readable(self.reply_fd)):
            self.kill("it spoke without being asked")
        if self.lost:
            raise StateLost(
                f"the interpreter has ended: {self.lost}", hint="its variables are gone; restart() begins anew"
            )

    def take_end(self) -> None:
        """Read the report of its end, which is there."""
        report = expect_report(self.channel, ReportKind.EXITED)
        self.wait_status = None if report is None else report.value
        self.lost = self.lost or _how_it_ended(self.wait_status)

    def interrupt(self) -> Steps[socket.socket]:
        """Send it and its children what Ctrl-C sends; init's answer comes on the socket."""
        return self.sandbox.ask(encode_signal(self._id, signal.SIGINT))

    def kill(self, why: str) -> None:
        """Kill it and its children, or everything where init cannot be told. Never waits."""
        self.lost = self.lost or why
        if not self.sandbox.signal(self._id, signal.SIGKILL):
            self.sandbox.kill()

    def killed(self, why: str) -> Steps[None]:
        """As `kill`, and wait until it is dead; if it is not soon, everything in the sandbox is killed."""
        self.kill(why)
        deadline_s = time.monotonic() + limits.REQUEST_TIMEOUT_S
        if self.wait_status is not None:
            return
        if (yield Wait(read=(self.channel.fileno(),), deadline_s=deadline_s)):
            self.take_end()
        else:
            self.sandbox.kill()

    def close(self) -> None:
        """Kill it and release what is ours. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        if self.wait_status is None:
            with suppress(CasemateError):
                self.kill("it was closed")
        self.lost = self.lost or "it was closed"
        self.channel.close()
        for fd in self._fds:
            os.close(fd)


def start_live(sandbox: NativeSandbox, command: Command) -> Steps[LiveProcess]:
    """Start an interpreter and wait until it is ready. Raises LaunchError, CapacityError or SandboxClosed."""
    waiting = yield from start_waiting(sandbox, command)
    return LiveProcess(sandbox, *waiting.hand_over())


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _how_it_ended(wait_status: int | None) -> str:
    if wait_status is None:
        return "with its sandbox"
    code = os.waitstatus_to_exitcode(wait_status)
    return f"with exit code {code}" if code >= 0 else f"by signal {-code}"
