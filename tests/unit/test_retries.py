"""What becomes of a job after an attempt."""

from __future__ import annotations

import pytest

from casemate.job_limits import BACKOFF_MAX_S, LOST_MAX
from casemate.model.job import JobSpec, JobState, Retries
from casemate.queue.retries import after_attempt, backoff_s


def spec(max_: int, backoff: float = 1.0) -> JobSpec:
    return JobSpec(argv=("false",), retries=Retries(max=max_, backoff_s=backoff))


def life(asked: JobSpec, reason: str = "exit") -> list[tuple[str, float]]:
    """What comes of attempts that all fail."""
    seen: list[tuple[str, float]] = []
    attempt = 0
    while not seen or seen[-1][0] == "queued":
        attempt += 1
        state, delay_s = after_attempt(asked, attempt, 0, "failed", reason)
        seen.append((state.value, delay_s))
    return seen


def test_s2_91_two_retries_are_three_attempts_after_one_and_two_seconds() -> None:
    assert life(spec(2)) == [("queued", 1.0), ("queued", 2.0), ("dead", 0.0)]


def test_s2_91_who_asks_for_no_retry_fails_at_once() -> None:
    assert life(spec(0)) == [("failed", 0.0)]


@pytest.mark.parametrize("reason", ["exit", "signal", "timeout", "memory", "internal"])
def test_s2_91_whatever_the_failure_it_is_tried_again(reason: str) -> None:
    assert life(spec(1), reason)[0] == ("queued", 1.0)


@pytest.mark.parametrize("reason", ["denied", "validation"])
def test_s2_91_what_would_be_refused_again_is_not_tried_again(reason: str) -> None:
    assert life(spec(5), reason) == [("failed", 0.0)]


def test_s2_91_the_time_between_attempts_doubles_up_to_a_bound() -> None:
    delays = [delay_s for state, delay_s in life(spec(8)) if state == "queued"]
    assert delays == [1, 2, 4, 8, 16, BACKOFF_MAX_S, BACKOFF_MAX_S, BACKOFF_MAX_S]
    assert backoff_s(Retries(max=10**9, backoff_s=0.001), 10**9) == BACKOFF_MAX_S
    assert backoff_s(Retries(backoff_s=0.0), 5) == 0.0


def test_a_success_and_a_cancellation_are_final() -> None:
    assert after_attempt(spec(5), 1, 0, "succeeded", "exit") == (JobState.SUCCEEDED, 0.0)
    assert after_attempt(spec(5), 1, 0, "failed", "cancelled") == (JobState.CANCELLED, 0.0)


def test_s2_90_a_lost_attempt_uses_up_no_retry() -> None:
    assert after_attempt(spec(0), 1, 0, "failed", "lost")[0] is JobState.QUEUED
    assert after_attempt(spec(1), 2, 1, "failed", "exit") == (JobState.QUEUED, 1.0)
    assert after_attempt(spec(1), 3, 1, "failed", "exit") == (JobState.DEAD, 0.0)


def test_s2_90_a_job_that_is_always_lost_is_dead() -> None:
    states = [after_attempt(spec(9), lost + 1, lost, "failed", "lost")[0] for lost in range(LOST_MAX)]
    assert states == [JobState.QUEUED] * (LOST_MAX - 1) + [JobState.DEAD]
