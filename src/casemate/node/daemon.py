"""The node: has an Engine, answers what the service asks, and knows neither keys nor customers."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from casemate.cluster.messages import (
    Answer,
    Answered,
    Ask,
    CheckSyntax,
    Ended,
    ItemEnded,
    ItemsEnded,
    Output,
    Question,
    RunCode,
    RunItems,
    RunJob,
    StageFile,
    Started,
    Unstage,
)
from casemate.engine.api import aexecute
from casemate.engine.cancel import CancelToken
from casemate.engine.check import acheck_syntax
from casemate.engine.drive import iterate_async
from casemate.engine.engine import Engine
from casemate.engine.items import arun_items
from casemate.engine.run import Run, prepare_code, run_alone, runtime_limits
from casemate.errors import CasemateError, InvalidInput, RuntimeUnavailable, SetDamaged
from casemate.model.node import NodeHealth, NodeRuntime
from casemate.model.resources import Limits
from casemate.model.result import Isolation, JsonValue, Result
from casemate.model.runtime import Runtime
from casemate.model.workers import WorkersReport
from casemate.node.jobs import Jobs
from casemate.node.within import within
from casemate.runtimes.interpreter import find_interpreter

T = TypeVar("T")
_LOG: Final = logging.getLogger(__name__)
_APART: Final = frozenset({"files", "stdin", "tenant", "live", "runtime", "code", "engine"})
"""Fields of the question itself, in a form that names nothing of this machine: no path, no descriptor."""

_EPOCH_BYTES: Final = 16


class Node:
    """Answers questions with one engine. `handle` is what a Bus carries."""

    def __init__(self, engine: Engine, spool: Path | None = None) -> None:
        """`spool`: a directory of this node's alone, for the files of jobs."""
        self._engine = engine
        self._jobs = Jobs(engine, spool)
        self._epoch = secrets.token_hex(_EPOCH_BYTES)
        self._began_s = time.monotonic()
        self._running_count = 0
        self._isolation = Isolation(backend=engine.backend.name, layers=())
        self._problem = "no sandbox has been tried yet"

    async def try_out(self) -> None:
        """Start one sandbox, to know what stands around all others."""
        try:
            result = await aexecute(["true"], engine=self._engine)
        except CasemateError as error:
            self._problem = str(error)
            _LOG.error("no sandbox can be started: %s", error)
            return
        self._isolation = result.isolation
        self._problem = "" if result.ok else f"a sandbox ended with {result.reason}"

    def handle(self, question: Question, stop: asyncio.Event) -> AsyncGenerator[Answer, None]:
        """Every answer to a question. Raises CasemateError."""
        _LOG.debug("%s %s", type(question).__name__, question.id)
        if isinstance(question, RunCode):
            return self._counted(self._run(question, stop))
        if isinstance(question, RunItems):
            return self._counted(self._run_items(question, stop))
        if isinstance(question, RunJob):
            return self._counted(self._jobs.run(question, stop))
        if isinstance(question, StageFile):
            return self._jobs.stage(question)
        if isinstance(question, Unstage):
            return self._jobs.unstage(question)
        if isinstance(question, CheckSyntax):
            return self._check(question)
        if isinstance(question, Ask):
            return self._tell(question)
        raise InvalidInput("kind", "is nothing to answer")

    async def _counted(self, answers: AsyncGenerator[Answer, None]) -> AsyncGenerator[Answer, None]:
        self._running_count += 1
        try:
            async with aclosing(answers):
                async for answer in answers:
                    yield answer
        finally:
            self._running_count -= 1

    # Runs -----------------------------------------------------------------------------------------

    async def _run(self, question: RunCode, stop: asyncio.Event) -> AsyncGenerator[Answer, None]:
        run = self._prepared(question)
        yield Started(id=question.id)
        cancel = CancelToken()
        stopping = asyncio.create_task(_cancel_when(stop, cancel))
        results: list[Result] = []
        try:
            async with aclosing(iterate_async(run_alone(self._engine, run, cancel), results.append)) as chunks:
                async for chunk in chunks:
                    if question.live:
                        yield Output(id=question.id, chunk=chunk)
        finally:
            stopping.cancel()
        yield Ended(id=question.id, result=results[0])

    def _prepared(self, question: RunCode) -> Run:
        for name in _APART:
            if name in question.options:
                raise InvalidInput(name, "is no option of this question", hint="it is a field of its own")
        return prepare_code(
            self._engine,
            question.code,
            runtime=question.runtime,
            live=question.live,
            files=question.files,
            stdin=question.stdin,
            tenant=question.tenant,
            **(question.options | self._within(question)),  # the engine checks every one
        )

    def _within(self, question: RunCode) -> dict[str, Any]:
        """The run's limits, so that none is beyond what is allowed; nothing if that is so anyway."""
        wanted = question.options.get("limits") or {}
        limits = within(self._base(question.runtime), wanted, question.maximum)
        return {"limits": limits} if limits else {}

    def _base(self, runtime: str) -> Limits:
        return runtime_limits(self._engine, self._engine.runtimes.get(runtime), {})

    async def _run_items(self, question: RunItems, stop: asyncio.Event) -> AsyncGenerator[Answer, None]:
        """When it is stopped, the items that have not ended have no answer."""
        source = question.source
        limits = within(self._base(source.runtime), source.limits, question.maximum)
        source = msgspec.structs.replace(source, limits=limits)
        items = arun_items(self._engine, source, question.items, tenant=question.tenant, timeout_s=question.timeout_s)
        async with aclosing(_until(stop, items)) as ended:
            async for index, result in ended:
                yield ItemEnded(id=question.id, index=index, result=result)
        yield ItemsEnded(id=question.id)

    async def _check(self, question: CheckSyntax) -> AsyncGenerator[Answer, None]:
        found = await acheck_syntax(self._engine, question.code, runtime=question.runtime, tenant=question.tenant)
        yield Answered(id=question.id, value=msgspec.to_builtins(found))

    # What it is -----------------------------------------------------------------------------------

    async def _tell(self, question: Ask) -> AsyncGenerator[Answer, None]:
        about = {"health": self.health, "workers": self.workers, "runtimes": self.runtimes}
        if question.about not in about:
            raise InvalidInput("about", f"nothing is known of {question.about[:80]!r}", hint="ask " + ", ".join(about))
        value: JsonValue = msgspec.to_builtins(await asyncio.to_thread(about[question.about]))
        yield Answered(id=question.id, value=value)

    def health(self) -> NodeHealth:
        """How it is."""
        return NodeHealth(
            epoch=self._epoch,
            pid=os.getpid(),
            uptime_s=time.monotonic() - self._began_s,
            running_count=self._running_count,
            backend=self._isolation.backend,
            layers=self._isolation.layers,
            approximate=self._isolation.approximate,
            problem=self._problem,
        )

    def workers(self) -> WorkersReport:
        """What it keeps ready, and what became of what it kept."""
        return self._engine.workers()

    def runtimes(self) -> list[NodeRuntime]:
        """Its languages, and its package sets."""
        declared = dict(self._engine.runtimes)
        found = [_described(name, runtime) for name, runtime in declared.items()]
        return found + [self._described_set(name) for name in self._engine.runtimes.names if name not in declared]

    def _described_set(self, name: str) -> NodeRuntime:
        try:
            return msgspec.structs.replace(_described(name, self._engine.runtimes.get(name)), is_set=True, aliases=())
        except (SetDamaged, InvalidInput) as error:
            return NodeRuntime(name=name, available=False, is_set=True, problem=error.message, hint=error.hint)


def _described(name: str, runtime: Runtime) -> NodeRuntime:
    row = NodeRuntime(name=name, available=True, aliases=runtime.aliases, extensions=runtime.extensions)
    try:
        find_interpreter(name, runtime)
    except RuntimeUnavailable as error:
        return msgspec.structs.replace(row, available=False, problem=error.message, hint=error.hint)
    return row


async def _cancel_when(stop: asyncio.Event, cancel: CancelToken) -> None:
    await stop.wait()
    cancel.cancel()


async def _until(stop: asyncio.Event, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """The same items until the event is set; then what makes them is closed."""
    stopping = asyncio.create_task(stop.wait())
    async with aclosing(items):
        try:
            while (item := await _next_or_stop(items, stopping)) is not None:
                yield item
        finally:
            stopping.cancel()


async def _next_or_stop(items: AsyncGenerator[T, None], stopping: asyncio.Task[Any]) -> T | None:
    coming = asyncio.ensure_future(anext(items, None))
    try:
        await asyncio.wait([coming, stopping], return_when=asyncio.FIRST_COMPLETED)
        return coming.result() if coming.done() else None
    finally:
        if not coming.done():
            coming.cancel()
            await asyncio.wait([coming])
