"""What becomes of a job after an attempt. Pure.

A failure is tried again as often as the job asks, after a time that doubles: then the job is dead, or, where it asked
for no second attempt, simply failed. An attempt of which nothing came back says nothing about the job: it does not
count among those, but a job that loses every node it comes to is dead, too.
"""

from __future__ import annotations

from typing import Final

from casemate.job_limits import BACKOFF_DOUBLINGS_MAX, BACKOFF_MAX_S, LOST_MAX
from casemate.model.job import JobSpec, JobState, Retries
from casemate.model.result import Reason, Status

FINAL: Final = frozenset({Reason.DENIED, Reason.VALIDATION})
"""Another attempt would end in the same way: nothing was run."""


def after_attempt(spec: JobSpec, attempt: int, lost: int, status: str, reason: str) -> tuple[JobState, float]:
    """The next state, and how long until it is due.

    `attempt` is the number of the attempt that has ended; `lost` how many before it were lost.
    """
    if status == Status.SUCCEEDED:
        return JobState.SUCCEEDED, 0.0
    if reason == Reason.CANCELLED:
        return JobState.CANCELLED, 0.0
    if reason == Reason.LOST:
        return (JobState.DEAD, 0.0) if lost + 1 >= LOST_MAX else (JobState.QUEUED, backoff_s(spec.retries, lost + 1))
    if reason in FINAL:
        return JobState.FAILED, 0.0
    failures = attempt - lost
    if failures <= spec.retries.max:
        return JobState.QUEUED, backoff_s(spec.retries, failures)
    return (JobState.DEAD if spec.retries.max else JobState.FAILED), 0.0


def backoff_s(retries: Retries, failures: int) -> float:
    """From a failure to the next attempt; `failures` counts that one, too."""
    doublings = min(failures - 1, BACKOFF_DOUBLINGS_MAX)
    return min(retries.backoff_s * 2.0**doublings, BACKOFF_MAX_S)
