"""Errors of ours on their way between processes: by their code, and an exception again on the other side. Pure."""

from __future__ import annotations

from casemate.cluster.messages import Refused
from casemate.errors import CasemateError, InternalError, InvalidInput, classes_by_code, of_another_process


def refused(call_id: str, error: CasemateError) -> Refused:
    """The last answer to what ended with that error."""
    return Refused(
        id=call_id,
        code=error.code,
        message=error.message,
        hint=error.hint,
        field=error.field if isinstance(error, InvalidInput) else "",
        retryable=error.retryable,
    )


def error_of(refusal: Refused) -> CasemateError:
    """The error that a refusal tells of, of its own class; of a code that we do not know, an InternalError."""
    kind = classes_by_code().get(refusal.code, InternalError)
    error = of_another_process(kind, refusal.message, refusal.hint)
    if isinstance(error, InvalidInput):
        error.field = refusal.field
    return error
