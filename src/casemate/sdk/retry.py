"""What is asked again, and after which pause. Pure: chance is handed in."""

from __future__ import annotations

from typing import Final

import msgspec

from casemate.sdk.problems import is_worth_retrying, read_problem
from casemate.sdk.requests import Answer, Failure, Request, retry_after
from casemate.service_limits import SDK_ATTEMPTS_MAX, SDK_PAUSE_FIRST_S, SDK_PAUSE_MAX_S, SDK_RETRY_AFTER_MAX_S

BUSY: Final = 429
"""Refused before anything was done: safe to ask again, whatever it was."""

CONFLICT: Final = 409
DOWN: Final = frozenset({502, 503, 504})
_SPREAD: Final = 0.25


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How patient a client is: `attempts_max` of one request, the first included."""

    attempts_max: int = SDK_ATTEMPTS_MAX
    pause_first_s: float = SDK_PAUSE_FIRST_S
    pause_max_s: float = SDK_PAUSE_MAX_S


def pause_before_retry(
    request: Request, outcome: Answer | Failure, *, attempts: int, policy: Policy, jitter: float
) -> float | None:
    """The seconds to wait before asking again; None if it is not to be asked again.

    `attempts` have been made; `jitter` is from 0 up to 1, by chance, so that those who were refused together do not
    come back together.
    """
    if attempts >= policy.attempts_max:
        return None
    if not (_may_be_repeated(request, outcome) or (attempts > 1 and _is_under_way(request, outcome))):
        return None
    wanted = retry_after(outcome.head) if isinstance(outcome, Answer) else None
    if wanted is None:
        longest = min(policy.pause_max_s, policy.pause_first_s * 2.0 ** (attempts - 1))
        return longest * (1 + jitter) / 2
    return None if wanted > SDK_RETRY_AFTER_MAX_S else wanted + _SPREAD * jitter


def _may_be_repeated(request: Request, outcome: Answer | Failure) -> bool:
    if isinstance(outcome, Failure):
        return request.is_repeatable or not outcome.sent
    if outcome.head.status == BUSY:
        return True
    return outcome.head.status in DOWN and request.is_repeatable and is_worth_retrying(read_problem(outcome.body))


def _is_under_way(request: Request, outcome: Answer | Failure) -> bool:
    """Whether the service has not noticed yet that nobody waits for the attempt before."""
    return isinstance(outcome, Answer) and outcome.head.status == CONFLICT and bool(request.idempotency_key)
