"""Errors of ours on their way between processes: by their code, and an exception again on the other side. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from casemate import errors
from casemate.cluster.messages import Refused
from casemate.errors import CasemateError, InternalError, InvalidInput

_FIELDS = {"layers": (), "step": "", "errno": 0, "log": "", "scope": "", "retry_after_s": 1.0}
"""What some errors have besides: facts of the other side that nobody here acts on."""


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
    known = {each.code: each for each in _classes(CasemateError)}
    kind = known.get(refusal.code, InternalError)
    error = kind.__new__(kind)
    CasemateError.__init__(error, refusal.message, hint=refusal.hint)
    for name, value in _FIELDS.items():
        setattr(error, name, value)
    if isinstance(error, InvalidInput):
        error.field = refusal.field
    return error


def _classes(root: type[CasemateError]) -> Iterator[type[CasemateError]]:
    """The tree, as far as it is that of `errors`."""
    yield root
    for each in root.__subclasses__():
        if each.__module__ == errors.__name__:
            yield from _classes(each)
