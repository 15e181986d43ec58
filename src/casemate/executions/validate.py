"""What is wrong with code before it is run: its size, what it must not hold, and what its language says of it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from casemate import limits
from casemate.executions.patterns import TOO_LARGE, find_forbidden, is_too_large
from casemate.model.syntax import SyntaxReport


class ProblemKind(StrEnum):
    """Which check has found it."""

    SIZE = "size"
    PATTERN = "pattern"
    SYNTAX = "syntax"


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong. Lines and columns count from one."""

    kind: ProblemKind
    message: str
    line: int | None = None
    column: int | None = None


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """Whether code may be run, and else why not: `error` is the first of `errors`."""

    valid: bool
    error: str | None = None
    errors: tuple[Problem, ...] = ()


def find_problems(
    code: str, patterns: Iterable[str] = (), *, max_bytes: int = limits.CODE_MAX_BYTES
) -> tuple[Problem, ...]:
    """What can be seen without the language. Code that is too large is not looked at any further."""
    if is_too_large(code, max_bytes):
        return (Problem(kind=ProblemKind.SIZE, message=TOO_LARGE),)
    return tuple(
        Problem(kind=ProblemKind.PATTERN, message=each.message, line=each.line, column=each.column)
        for each in find_forbidden(code, patterns)
    )


def validation(problems: Iterable[Problem], syntax: SyntaxReport | None = None) -> Validation:
    """The one answer, from what was seen and what the language has said, if it was asked."""
    found = [*problems]
    if syntax is not None and not syntax.valid:
        found.append(Problem(kind=ProblemKind.SYNTAX, message=syntax.error, line=syntax.line, column=syntax.column))
    return Validation(valid=not found, error=found[0].message if found else None, errors=tuple(found))
