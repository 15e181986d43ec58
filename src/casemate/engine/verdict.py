"""From what was observed to one verdict: a pure function.

The kernel's counters come first, then what we did ourselves, then how the process ended; what the
guest says of itself comes last.
"""

from __future__ import annotations

import errno
import os
import signal

import msgspec

from casemate.model.result import Reason, Status

NOT_FOUND_EXIT_CODE = 127
NOT_EXECUTABLE_EXIT_CODE = 126
DENIED_ERRORS = frozenset({errno.EACCES, errno.EPERM, errno.ENOEXEC})


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """What was observed at the end of an execution.

    `stopped` is why we killed it, if we did; `wait_status` the kernel's word on the process (None: its
    end was never reported); `exec_errno` why it could not be executed (0: it was).
    """

    stopped: Reason | None = None
    wait_status: int | None = None
    exec_errno: int = 0
    oom_kills: int = 0
    process_limit_hits: int = 0
    disk_full: bool = False
    guest_exception: bool = False
    output_invalid: bool = False
    allocation_refused: bool = False


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How an execution ended, in one reason."""

    status: Status
    reason: Reason
    exit_code: int | None = None
    signal: int | None = None


def judge(ending: Ending) -> Verdict:
    """The verdict on an execution."""
    exit_code, number = _exit(ending)
    reason = _reason(ending, exit_code, number)
    good = reason is Reason.EXIT and exit_code == 0
    status = Status.SUCCEEDED if good else Status.FAILED
    return Verdict(status=status, reason=reason, exit_code=exit_code, signal=number)


def _exit(ending: Ending) -> tuple[int | None, int | None]:
    if ending.exec_errno:
        return exec_status(ending.exec_errno), None
    if ending.wait_status is None:
        return None, None
    if os.WIFSIGNALED(ending.wait_status):
        return None, os.WTERMSIG(ending.wait_status)
    return os.WEXITSTATUS(ending.wait_status), None


def exec_status(number: int) -> int:
    """The exit status of a program that could not be executed, as in a shell."""
    return NOT_FOUND_EXIT_CODE if number == errno.ENOENT else NOT_EXECUTABLE_EXIT_CODE


def _reason(ending: Ending, exit_code: int | None, number: int | None) -> Reason:
    if ending.oom_kills and ending.stopped is not Reason.CANCELLED:
        return Reason.MEMORY
    if ending.stopped is not None:
        return ending.stopped
    if ending.exec_errno == errno.EAGAIN:
        return Reason.PROCESSES
    if ending.exec_errno in DENIED_ERRORS:
        return Reason.DENIED
    if exit_code is None and number is None:
        return Reason.LOST
    if exit_code == 0:
        return Reason.VALIDATION if ending.output_invalid else Reason.EXIT
    return _failed_reason(ending, number)


def _failed_reason(ending: Ending, number: int | None) -> Reason:
    """The program failed by itself; a limit that it ran into explains more than the status does."""
    if ending.allocation_refused:
        return Reason.MEMORY
    if number == signal.SIGXCPU:
        return Reason.CPU
    if number == signal.SIGXFSZ or ending.disk_full:
        return Reason.DISK
    if ending.process_limit_hits:
        return Reason.PROCESSES
    if number is not None:
        return Reason.SIGNAL
    if ending.output_invalid:
        return Reason.VALIDATION
    return Reason.EXCEPTION if ending.guest_exception else Reason.EXIT
