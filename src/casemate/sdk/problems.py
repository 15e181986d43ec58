"""Errors of the service, made errors again by their codes. Pure.

The table is of our own classes alone: nothing that the other side says names one.
"""

from __future__ import annotations

from typing import Final

import msgspec

from casemate import errors
from casemate.errors import (
    CasemateError,
    InvalidInput,
    ServiceError,
    ServiceUnavailable,
    classes_by_code,
    of_another_process,
)
from casemate.service_limits import SDK_TEXT_MAX_CHARS

_CLASSES: Final = classes_by_code()
_BY_STATUS: Final[dict[int, type[CasemateError]]] = {
    401: errors.Unauthenticated,
    404: errors.NotFound,
    409: errors.Conflict,
    429: errors.TooManyRequests,
    502: ServiceUnavailable,
    503: ServiceUnavailable,
    504: ServiceUnavailable,
}
"""For answers of something between us and the service, which does not speak as it does."""

_SCOPE_TEXT: Final = "the key lacks the scope "


class ProblemBody(msgspec.Struct, frozen=True, kw_only=True):
    """An error as it comes over HTTP."""

    code: str
    message: str
    hint: str = ""
    field: str | None = None
    request_id: str = ""


def read_problem(body: bytes) -> ProblemBody | None:
    """The error that a body tells of; None if it is something else."""
    try:
        found = msgspec.json.decode(body, type=ProblemBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return msgspec.structs.replace(found, message=clean(found.message), hint=clean(found.hint))


def is_worth_retrying(problem: ProblemBody | None) -> bool:
    """Whether trying again can help; unknown problems are given the chance."""
    if problem is None or problem.code not in _CLASSES:
        return True
    return _CLASSES[problem.code].retryable


def error_of(status: int, problem: ProblemBody | None, retry_after_s: float | None) -> CasemateError:
    """The error that an answer is."""
    if problem is None:
        kind = _BY_STATUS.get(status, ServiceError)
        problem = ProblemBody(code="", message=f"the service answered with status {status} and no reason")
    else:
        kind = _CLASSES.get(problem.code, ServiceError)
    error = of_another_process(kind, problem.message, problem.hint)
    _complete(error, status, problem, retry_after_s)
    return error


def _complete(error: CasemateError, status: int, problem: ProblemBody, retry_after_s: float | None) -> None:
    error.request_id = clean(problem.request_id)
    if isinstance(error, InvalidInput):
        error.field = clean(problem.field or "")
    elif isinstance(error, errors.TooManyRequests):
        error.retry_after_s = 1.0 if retry_after_s is None else retry_after_s
    elif isinstance(error, errors.PermissionDenied):
        error.scope = problem.message.removeprefix(_SCOPE_TEXT)
    elif isinstance(error, ServiceError):
        error.service_code, error.status = clean(problem.code), status


def clean(text: str) -> str:
    """Words of the other side on one line of a terminal, where they move no cursor."""
    shown = text[:SDK_TEXT_MAX_CHARS]
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in shown)
