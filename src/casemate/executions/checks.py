"""Looking at code before it runs: what can be seen here, and what its language says of it on a node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from casemate.cluster.bus import Bus
from casemate.cluster.messages import CheckSyntax
from casemate.errors import InvalidInput
from casemate.executions.book import Caller
from casemate.executions.patterns import check_forbidden, patterns_for
from casemate.executions.service import answer_to, bounds_of
from casemate.executions.validate import Validation, find_problems, validation
from casemate.model.function import Source
from casemate.model.ids import new_id
from casemate.model.syntax import SyntaxReport
from casemate.queue.gate import Gate


class Checks:
    """Validates code. `configured` are patterns by language that come in the place of those that are shipped."""

    def __init__(self, bus: Bus, gate: Gate, configured: Mapping[str, tuple[str, ...]]) -> None:
        self._bus = bus
        self._gate = gate
        self._configured = configured

    async def validate(
        self, caller: Caller, code: str, runtime: str, *, patterns: bool | Iterable[str], request_id: str
    ) -> Validation:
        """Everything that is wrong with the code. What is too large is not read by its language."""
        problems = find_problems(code, self.patterns(runtime, patterns))
        if any(each.kind == "size" for each in problems):
            return validation(problems)
        return validation(problems, await self._syntax(caller, code, runtime, request_id))

    def patterns(self, runtime: str, wanted: bool | Iterable[str]) -> tuple[str, ...]:  # noqa: FBT001 - as in JSON
        """The patterns that are meant. Raises InvalidInput."""
        if wanted is True and runtime in self._configured:
            return self._configured[runtime]
        return patterns_for(runtime, wanted if isinstance(wanted, bool) else check_forbidden(wanted))

    async def check_source(self, caller: Caller, source: Source, *, syntax: bool, request_id: str) -> None:
        """Raise InvalidInput for a source that could not be called."""
        await self.check_code(caller, source.code, source.runtime, patterns=False, syntax=syntax, request_id=request_id)

    async def check_code(
        self, caller: Caller, code: str, runtime: str, *, patterns: bool, syntax: bool, request_id: str
    ) -> None:
        """Raise InvalidInput for code that is too large, holds what it must not, or that its language cannot read."""
        found = validation(find_problems(code, self.patterns(runtime, patterns)))
        if found.valid and syntax:
            found = validation((), await self._syntax(caller, code, runtime, request_id))
        if not found.valid:
            line = found.errors[0].line
            raise InvalidInput("code", (found.error or "") + (f" (line {line})" if line else ""))

    async def is_readable(self, caller: Caller, source: Source, request_id: str) -> bool:
        """Whether its language can read it."""
        return (await self._syntax(caller, source.code, source.runtime, request_id)).valid

    async def _syntax(self, caller: Caller, code: str, runtime: str, request_id: str) -> SyntaxReport:
        question = CheckSyntax(
            id=new_id("chk"), tenant=caller.tenant_id, request_id=request_id, runtime=runtime, code=code
        )
        async with self._gate.turn(caller.tenant_id, bounds=bounds_of(caller)):
            return msgspec.convert(await answer_to(self._bus, question), SyntaxReport)
