"""One verdict for everything that can be observed: total, and the kernel's word before the guest's."""

from __future__ import annotations

import errno
import itertools
import signal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.engine.execution import GUEST_ERRNOS
from casemate.engine.verdict import Ending, judge
from casemate.model.result import Reason, Status

OURS = [Reason.TIMEOUT, Reason.CPU, Reason.MEMORY, Reason.OUTPUT, Reason.CANCELLED, Reason.LOST]


def exited(code: int) -> int:
    return code << 8


WAIT_STATUSES = [None, exited(0), exited(1), exited(255), signal.SIGKILL, signal.SIGXCPU, signal.SIGXFSZ, 0x80 | 11]
DOMAINS: dict[str, list[Any]] = {
    "stopped": [None, *OURS],
    "wait_status": WAIT_STATUSES,
    "exec_errno": [0, *sorted(GUEST_ERRNOS)],
    "oom_kills": [0, 2],
    "process_limit_hits": [0, 3],
    "disk_full": [False, True],
    "guest_exception": [False, True],
    "output_invalid": [False, True],
    "allocation_refused": [False, True],
}
ENDINGS = [Ending(**dict(zip(DOMAINS, values, strict=True))) for values in itertools.product(*DOMAINS.values())]
"""Everything that can be observed together, and much that cannot."""


def test_every_ending_has_one_verdict_and_the_same_each_time() -> None:
    for ending in ENDINGS:
        verdict = judge(ending)
        assert verdict == judge(msgspec.structs.replace(ending))
        assert verdict.exit_code is None or verdict.signal is None


def test_success_is_an_exit_with_zero_that_nobody_forced() -> None:
    for ending in ENDINGS:
        verdict = judge(ending)
        good = verdict.reason is Reason.EXIT and verdict.exit_code == 0
        assert (verdict.status is Status.SUCCEEDED) == good
        forced = ending.stopped or ending.oom_kills or ending.output_invalid
        assert not (good and forced), ending


def test_what_we_did_ourselves_is_the_reason_unless_memory_ran_out_first() -> None:
    for ending in ENDINGS:
        if ending.stopped is not None:
            first = ending.oom_kills and ending.stopped is not Reason.CANCELLED
            assert judge(ending).reason is (Reason.MEMORY if first else ending.stopped), ending


def test_memory_that_ran_out_is_the_reason_unless_the_caller_had_cancelled() -> None:
    for ending in ENDINGS:
        if ending.oom_kills:
            expected = Reason.CANCELLED if ending.stopped is Reason.CANCELLED else Reason.MEMORY
            assert judge(ending).reason is expected, ending


def test_the_guest_cannot_talk_itself_out_of_what_the_kernel_saw() -> None:
    for ending in ENDINGS:
        silent = msgspec.structs.replace(ending, guest_exception=False, output_invalid=False, allocation_refused=False)
        verdict, without = judge(ending), judge(silent)
        assert (verdict.exit_code, verdict.signal) == (without.exit_code, without.signal)
        if verdict.reason is not without.reason:
            assert verdict.reason in {Reason.EXCEPTION, Reason.VALIDATION, Reason.MEMORY}, ending
            assert verdict.status is Status.FAILED


@given(st.integers(0, 255).map(exited) | st.integers(1, 126) | st.integers(1, 126).map(lambda number: number | 0x80))
def test_the_status_of_the_process_is_told_as_it_was(status: int) -> None:
    verdict = judge(Ending(wait_status=status))
    assert verdict.exit_code == (status >> 8 if status >= 256 or status == 0 else None)
    assert verdict.signal == (None if verdict.exit_code is not None else status & 0x7F)


@pytest.mark.parametrize("number", sorted(GUEST_ERRNOS))
def test_what_could_not_be_executed_ends_as_a_shell_would_say_it(number: int) -> None:
    assert judge(Ending(exec_errno=number)).exit_code == (127 if number == errno.ENOENT else 126)
    assert judge(Ending(exec_errno=number)).status is Status.FAILED


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (Ending(wait_status=exited(0)), Reason.EXIT),
        (Ending(wait_status=exited(3)), Reason.EXIT),
        (Ending(wait_status=exited(0), disk_full=True), Reason.EXIT),
        (Ending(wait_status=exited(0), process_limit_hits=1), Reason.EXIT),
        (Ending(wait_status=exited(0), output_invalid=True), Reason.VALIDATION),
        (Ending(wait_status=exited(1), guest_exception=True), Reason.EXCEPTION),
        (Ending(wait_status=exited(1), guest_exception=True, disk_full=True), Reason.DISK),
        (Ending(wait_status=exited(1), guest_exception=True, process_limit_hits=1), Reason.PROCESSES),
        (Ending(wait_status=exited(1), guest_exception=True, allocation_refused=True), Reason.MEMORY),
        (Ending(wait_status=signal.SIGSEGV), Reason.SIGNAL),
        (Ending(wait_status=signal.SIGXCPU), Reason.CPU),
        (Ending(wait_status=signal.SIGXFSZ), Reason.DISK),
        (Ending(wait_status=signal.SIGKILL, oom_kills=1), Reason.MEMORY),
        (Ending(wait_status=exited(0), oom_kills=1), Reason.MEMORY),
        (Ending(), Reason.LOST),
        (Ending(exec_errno=errno.ENOENT), Reason.EXIT),
        (Ending(exec_errno=errno.EACCES), Reason.DENIED),
        (Ending(exec_errno=errno.ENOEXEC), Reason.DENIED),
        (Ending(exec_errno=errno.EAGAIN), Reason.PROCESSES),
    ],
    ids=str,
)
def test_endings_that_people_know(ending: Ending, reason: Reason) -> None:
    assert judge(ending).reason is reason
