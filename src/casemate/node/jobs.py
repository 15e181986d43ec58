"""Jobs on a node: inputs are staged, a command or code is run with them, and all that comes of it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from casemate import job_limits as bound
from casemate.cluster.messages import (
    Answer,
    Answered,
    Ended,
    FileEnded,
    FilePiece,
    FlowSeen,
    Output,
    Phase,
    RunJob,
    Sampled,
    StageFile,
    Unstage,
)
from casemate.engine.cancel import CancelToken
from casemate.engine.drive import iterate_async
from casemate.engine.engine import Engine
from casemate.engine.job import JobSteps, News, Stage, run_job, unforked, with_inputs
from casemate.engine.request import check_patterns
from casemate.engine.run import Run, find_runtime, prepare_code, prepare_command
from casemate.errors import InvalidInput, NodeUnavailable
from casemate.model.flow import Flow
from casemate.model.result import MACHINE_BASE, MINIMAL_BASE, Chunk, FileChunk, Result, Sample
from casemate.model.runtime import Channel
from casemate.node.base import Base
from casemate.node.bases import DIRECTORY, Bases, explained, interpreters_of
from casemate.node.outbox import Outbox
from casemate.node.spool import Spool
from casemate.node.within import within

_CLOSE_TIMEOUT_S: Final = 30.0


class Jobs:
    """Answers StageFile, RunJob and Unstage. Without a directory there is no place for files, and jobs have none."""

    def __init__(self, engine: Engine, directory: Path | None) -> None:
        self._engine = engine
        self._spool = None if directory is None else Spool(directory)
        place = None if directory is None else directory.with_name(DIRECTORY)
        self._bases = Bases(place, lambda: interpreters_of(engine.runtimes))
        if self._spool is not None:
            self._spool.open()

    # Files that are to come -----------------------------------------------------------------------

    async def stage(self, asked: StageFile) -> AsyncGenerator[Answer, None]:
        if self._spool is None:
            raise NodeUnavailable("this node keeps no files")
        place = (asked.area, asked.path)
        offset = await asyncio.to_thread(
            self._spool.stage, asked.run, place, asked.offset, asked.data, mode=asked.mode, tenant=asked.tenant
        )
        yield Answered(id=asked.id, value=offset)

    async def unstage(self, asked: Unstage) -> AsyncGenerator[Answer, None]:
        await self._forget(asked.run)
        yield Answered(id=asked.id, value=None)

    async def _forget(self, run: str) -> None:
        if self._spool is not None and run in self._spool:
            await asyncio.to_thread(self._spool.forget, run)

    # Runs -----------------------------------------------------------------------------------------

    async def run(self, asked: RunJob, stop: asyncio.Event) -> AsyncGenerator[Answer, None]:
        """Closing it ends the run. When the last answer comes, nothing is left of it but that."""
        try:
            run = await self._prepared(asked)
            base = await self._base_of(asked)
            if base is not None:
                run = self._within(run, base)
            outbox = Outbox()
            async with _running(self._carry_out(asked, run, outbox, stop), outbox) as working:
                while (answer := await outbox.take()) is not None:
                    yield answer
                result = await working
        finally:
            await self._forget(asked.id)
        yield Ended(id=asked.id, result=result if base is None else explained(result, asked.argv, base))

    async def _base_of(self, asked: RunJob) -> Base | None:
        """None: all of the machine's programs. Raises LaunchError, or InvalidInput for none that is known."""
        if asked.base == MACHINE_BASE:
            return None
        if asked.base != MINIMAL_BASE:
            raise InvalidInput("base", f"{asked.base[:80]!r} is none", hint=f"{MINIMAL_BASE} or {MACHINE_BASE}")
        base = self._bases.find(asked.programs)
        return base or await asyncio.to_thread(self._bases.get, asked.programs)

    def _within(self, run: Run, base: Base) -> Run:
        if run.program.channel is Channel.ISOLATE:  # it sees no programs at all
            return run
        return msgspec.structs.replace(run, spec=msgspec.structs.replace(run.spec, base=self._bases.mask_of(base)))

    async def _prepared(self, asked: RunJob) -> Run:
        run = _checked(self._engine, asked)
        if self._spool is None:
            return run
        if asked.id not in self._spool:  # the disk is not asked, and so nobody waits for a thread
            self._spool.check_count(asked.id, asked.staged)
            return run
        mounts, links = await asyncio.to_thread(self._spool.take, asked.id, asked.staged)
        if mounts and run.program.channel is Channel.ISOLATE:
            raise InvalidInput("files", "a program in an isolate has none", hint="use another runtime")
        return with_inputs(run, mounts, links)

    async def _carry_out(self, asked: RunJob, run: Run, outbox: Outbox, stop: asyncio.Event) -> Result:
        cancel = CancelToken()
        stopping = asyncio.create_task(_cancel_when(stop, cancel))
        try:
            patterns = check_patterns(asked.collect)
            return await _told(asked.id, run_job(self._engine, run, cancel, outbox.valve, patterns), outbox)
        finally:
            stopping.cancel()


async def _told(call_id: str, steps: JobSteps[Result], outbox: Outbox) -> Result:
    results: list[Result] = []
    said: AsyncGenerator[News, None] = iterate_async(steps, results.append)
    async with aclosing(said) as news:
        async for each in news:
            if isinstance(each, Sample) and outbox.is_full:
                continue  # the next one says more
            if isinstance(each, Flow) and outbox.is_overfull:
                continue  # the Result has those that are kept
            outbox.put(_answer(call_id, each), len(each.data) if isinstance(each, Chunk) else bound.ANSWER_BYTES)
            if isinstance(each, FileChunk):
                await outbox.room()
    return results[0]


def _answer(call_id: str, news: News) -> Answer:
    if isinstance(news, FileChunk):
        if news.digest:
            return FileEnded(id=call_id, path=news.path, size_bytes=news.offset, digest=news.digest)
        return FilePiece(id=call_id, path=news.path, offset=news.offset, data=news.data)
    if isinstance(news, Chunk):
        return Output(id=call_id, chunk=news)
    if isinstance(news, Stage):
        return Phase(id=call_id, phase=news.value)
    if isinstance(news, Flow):
        return FlowSeen(id=call_id, flow=news)
    return Sampled(id=call_id, **msgspec.structs.asdict(news))


def _over(task: asyncio.Task[Result], outbox: Outbox) -> None:
    if not task.cancelled():
        task.exception()  # nobody may be left to whom it matters
    outbox.end()


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, Result], outbox: Outbox) -> AsyncGenerator[asyncio.Task[Result], None]:
    """The work beside whoever takes from the outbox; it has ended when this has."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: _over(done, outbox))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task], timeout=_CLOSE_TIMEOUT_S)


def _checked(engine: Engine, asked: RunJob) -> Run:
    """Raises InvalidInput or RuntimeUnavailable; the engine checks every part."""
    check_patterns(asked.collect)
    given: dict[str, Any] = {"env": asked.environment or None, "limits": _limits(engine, asked)}
    if asked.stdin:
        given["stdin"] = asked.stdin
    if asked.network.outbound:
        given["network"] = asked.network
    if asked.runtime and asked.argv:
        raise InvalidInput("argv", "a job is a command, or code of a runtime, and not both")
    run = (
        prepare_code(engine, asked.code, runtime=asked.runtime, live=True, tenant=asked.tenant, **given)
        if asked.runtime
        else prepare_command(engine, asked.argv, **given)
    )
    return msgspec.structs.replace(unforked(run), tells_flows=True)


def _limits(engine: Engine, asked: RunJob) -> Mapping[str, Any]:
    base = engine.config.default_limits()
    if asked.runtime:
        base = base.replacing(find_runtime(engine, asked.runtime)[0].limits)
    return within(base, asked.limits, asked.maximum)


async def _cancel_when(stop: asyncio.Event, cancel: CancelToken) -> None:
    await stop.wait()
    cancel.cancel()
