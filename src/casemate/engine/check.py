"""Whether code can be compiled: its language says so in a sandbox, and nothing of the code is run."""

from __future__ import annotations

from typing import Final

import msgspec

from casemate.engine.calling import ONLY_CHECK
from casemate.engine.drive import drive, drive_async
from casemate.engine.engine import Engine, default_engine
from casemate.engine.request import CodeOptions, LimitsLike, check_code
from casemate.engine.run import Run, prepare_code, run_alone
from casemate.errors import InternalError, InvalidInput
from casemate.limits import ERROR_TEXT_MAX_CHARS
from casemate.model.result import Reason, Result
from casemate.model.runtime import Ability
from casemate.model.syntax import SyntaxReport
from casemate.runtimes.registry import DEFAULT_RUNTIME

OURS: Final = frozenset({Reason.CANCELLED, Reason.INTERNAL, Reason.LOST})
"""Reasons that say nothing about the code."""

NO_SYNTAX_HINT: Final = "its declaration names no program for that: `syntax`"


def check_syntax(
    code: str,
    runtime: str = DEFAULT_RUNTIME,
    *,
    tenant: str = "",
    filename: str | None = None,
    limits: LimitsLike = None,
    engine: Engine | None = None,
) -> SyntaxReport:
    """Whether the runtime's language can compile the code, by its own compiler in a sandbox. Nothing of it is run."""
    engine = engine or default_engine()
    options: CodeOptions = {"tenant": tenant, "filename": filename, "limits": limits}
    return report_of(drive(run_alone(engine, prepare_check(engine, code, runtime, options))))


async def acheck_syntax(
    engine: Engine,
    code: str,
    *,
    runtime: str = DEFAULT_RUNTIME,
    tenant: str = "",
    filename: str | None = None,
    limits: LimitsLike = None,
) -> SyntaxReport:
    """As `check_syntax`, for asyncio."""
    options: CodeOptions = {"tenant": tenant, "filename": filename, "limits": limits}
    return report_of(await drive_async(run_alone(engine, prepare_check(engine, code, runtime, options))))


def prepare_check(engine: Engine, code: str, runtime: str, options: CodeOptions) -> Run:
    """The run that checks the code, whose size is looked at first. Raises InvalidInput, or RuntimeUnavailable."""
    check_code(code)
    declared = engine.runtimes.get(runtime)
    if Ability.CHECK in declared.abilities:
        return prepare_code(engine, code, runtime=runtime, calling=ONLY_CHECK, **options)
    if not declared.syntax:
        raise InvalidInput("runtime", "cannot check syntax without running the program", hint=NO_SYNTAX_HINT)
    tenant, limits = options.get("tenant", ""), options.get("limits")
    return prepare_code(engine, declared.syntax, runtime=runtime, tenant=tenant, limits=limits, input=code, stdin=code)


def report_of(result: Result) -> SyntaxReport:
    """What came of it. Whoever makes the compiler run into a limit has no valid program."""
    if result.reason in OURS:
        raise InternalError(f"the syntax could not be checked: {result.reason}")
    if result.ok:
        try:
            return msgspec.convert(result.output, SyntaxReport)
        except msgspec.ValidationError:
            return SyntaxReport(valid=False, message="the check of the syntax has made no sense")
    said = f": {result.error.message}" if result.error is not None else ""
    return SyntaxReport(valid=False, message=f"the compiler has ended by {result.reason}{said}"[:ERROR_TEXT_MAX_CHARS])
